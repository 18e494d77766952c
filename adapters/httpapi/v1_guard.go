package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
)

// guard is around all: answers are kept by nobody, since they may have secrets,
// and a panic is an answer too.
func (v *v1) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		begun := &begunWriter{ResponseWriter: w}
		defer func() {
			failure := recover()
			switch {
			case failure == nil:
			case failure == http.ErrAbortHandler, begun.begun && r.Context().Err() != nil: //nolint:errorlint // it is that very value
				panic(http.ErrAbortHandler) // the client left, and net/http says nothing of it
			default:
				id := uuid.New()
				v.config.Log.ErrorContext(r.Context(), "the API panicked", "panic", failure, "method", r.Method, "request", id.String())
				if begun.begun {
					panic(http.ErrAbortHandler) // what was sent is not whole, and must not look so
				}
				failed(id).write(w)
			}
		}()
		next.ServeHTTP(begun, r)
	})
}

// begunWriter knows whether an answer has begun.
type begunWriter struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (w *begunWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *begunWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *begunWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// gated lets in who has a token.
func (v *v1) gated(next http.Handler) http.Handler { return v.gate.let(next, bearerToken, v.refuse) }

// refuse answers whom the gate does not let in.
func (v *v1) refuse(w http.ResponseWriter, _ *http.Request, err error) {
	var p *v1Problem
	many, tooMany := errors.AsType[*tooManyError](err)
	switch {
	case tooMany:
		p = newProblem(http.StatusTooManyRequests, many.Error())
	case errors.Is(err, errUnavailable):
		p = away(uuid.Nil)
	case errors.Is(err, errNoCredentials):
		p = newProblem(http.StatusUnauthorized, "no token was sent, or more than one: send one as Authorization: Bearer outrider_…")
	default:
		p = newProblem(http.StatusUnauthorized, err.Error())
	}
	if p.Status == http.StatusUnauthorized {
		p = p.with("WWW-Authenticate", `Bearer realm="Outrider"`)
	}
	p.write(w)
}

// methods are those that routes have.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete}

// noRoute answers where there is no operation: not at the path, or not with the
// method.
func (v *v1) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range methods {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := v.routes.mux.Handler(other); strings.HasPrefix(pattern, method+" ") {
			allowed = append(allowed, method)
		}
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = slices.Insert(allowed, 1, http.MethodHead)
	}
	if len(allowed) == 0 {
		newProblem(http.StatusNotFound, "there is nothing at this path: "+v1Base+"/openapi.json has what there is").write(w)
		return
	}
	list := strings.Join(allowed, ", ")
	newProblem(http.StatusMethodNotAllowed, "there is no "+r.Method+" of this: there is "+list).with("Allow", list).write(w)
}

// stop answers in place of an operation.
func stop(ctx huma.Context, p *v1Problem) {
	_, w := unwrap(ctx)
	p.write(w)
}
