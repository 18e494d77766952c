package web

import (
	"context"
	"crypto/rand"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// failure is an error that has words for people.
type failure struct {
	status        int
	title, advice string
}

// Error gives the title.
func (f *failure) Error() string { return f.title }

// The failures of all pages.
var (
	errNotFound    = &failure{http.StatusNotFound, "There is no such page", "What it was about may be deleted, or belong to an account that you do not see."}
	errForbidden   = &failure{http.StatusForbidden, "Your role does not allow this", "Ask an administrator of the account to do it, or for a token with another role."}
	errMethod      = &failure{http.StatusMethodNotAllowed, "This cannot be done here", "Go back and use the page's own buttons."}
	errCrossOrigin = &failure{http.StatusForbidden, "Another site sent this", "Nothing was changed. Open the page itself, and use its buttons."}
	errNoFormToken = &failure{http.StatusForbidden, "This form is not of your session any more", "Nothing was changed. Go back, load the page anew and send it again."}
	errNoForm      = &failure{http.StatusUnsupportedMediaType, "What was sent is not a form", "Send it as application/x-www-form-urlencoded, as the page does. Programs use the API."}
	errTooLarge    = &failure{http.StatusRequestEntityTooLarge, "The form is too large", "Up to 1 MiB is accepted. Nothing was changed."}
	errBadForm     = &failure{http.StatusBadRequest, "The form cannot be read", "It came broken or incomplete. Nothing was changed; go back and send it again."}
	errStale       = &failure{http.StatusConflict, "The webhook was changed meanwhile", "Nothing was changed by you. Load its page anew, look at it, and decide again."}
	errNoSession   = &failure{http.StatusUnauthorized, "You are logged out", "Nothing was changed. Log in and send it again."}
)

// isForm tells whether a body is a form as browsers send it.
func isForm(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// badForm tells what is wrong with a form that could not be read.
func badForm(err error) error {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return errTooLarge
	}
	return errBadForm
}

// fail answers with the page of an error.
func (p *pages) fail(w http.ResponseWriter, r *request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // nobody waits for it
	}
	if errors.Is(err, errNoSession) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		_ = redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()))
		return
	}
	shown := p.failureOf(r, err)
	page := &view{Title: shown.title, Data: shownFailure{Status: shown.status, Advice: shown.advice, LogIn: r.access == domain.Access{}}}
	if err := p.render(w, r, shown.status, "failure", page); err != nil {
		p.Logger.ErrorContext(r.Context(), "a page could not be made", "page", "failure", "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	}
}

// shownFailure is what the page of an error shows beside its title.
type shownFailure struct {
	Status int
	Advice string
	LogIn  bool
}

// failureOf finds the words for an error. One that has none is logged, with a
// number by which it is found there.
func (p *pages) failureOf(r *request, err error) *failure {
	if shown, ok := errors.AsType[*failure](err); ok {
		return shown
	}
	if errors.Is(err, domain.ErrWebhookGone) || errors.Is(err, domain.ErrNoReplay) {
		return errNotFound
	}
	if _, stale := errors.AsType[*domain.StaleVersionError](err); stale {
		return errStale
	}
	if errors.Is(err, context.DeadlineExceeded) {
		p.Logger.WarnContext(r.Context(), "a page took too long", "method", r.Method, "path", r.URL.Path, "error", err)
		return &failure{http.StatusServiceUnavailable, "The database did not answer in time", "Try again in a moment. outrider doctor shows what it is busy with."}
	}
	problem, advice, refused := p.Explain(err)
	switch {
	case refused == domain.RefusedMissing:
		return errNotFound
	case refused == domain.RefusedState:
		return &failure{http.StatusConflict, "This cannot be done now", sentence(problem) + sentence(advice)}
	case refused == domain.RefusedInvalid:
		return &failure{http.StatusUnprocessableEntity, "This cannot be done", sentence(problem) + sentence(advice)}
	case problem != "":
		p.Logger.WarnContext(r.Context(), "the database cannot serve a page", "method", r.Method, "path", r.URL.Path, "error", err)
		return &failure{http.StatusServiceUnavailable, "The database cannot answer now", sentence(problem) + sentence(advice)}
	}
	number := rand.Text()[:8]
	p.Logger.ErrorContext(r.Context(), "a page failed", "number", number, "method", r.Method, "path", r.URL.Path, "error", err)
	return &failure{http.StatusInternalServerError, "Something went wrong here", "The log of outrider web says what, under the number " + number + "."}
}

// sentence makes a sentence of a line of words.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.TrimRight(upperFirst(text), ".") + ". "
}
