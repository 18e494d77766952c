package httpapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Tokens tells whose token one is.
type Tokens interface {
	// Authenticate gives what a token lets its holder do, domain.ErrNoToken where
	// it lets nobody in.
	Authenticate(ctx context.Context, token string) (domain.Access, error)
}

// maxBody bounds the body of a request, in bytes. What reads it gets an
// *http.MaxBytesError.
const maxBody = 1 << 20

// What a gate refuses with, beside domain.ErrNoToken and a *tooManyError.
var (
	// errNoCredentials: no token was sent.
	errNoCredentials = errors.New("no token was sent")
	// errUnavailable: nobody knows whose token it is, since the database does not
	// answer. The gate has logged why.
	errUnavailable = errors.New("the token cannot be looked up now")
)

// gate lets in who has a token.
type gate struct {
	tokens  Tokens
	trusted []netip.Prefix
	log     *slog.Logger
	clock   func() time.Time
	// failures are of addresses, requests of tokens by their hash.
	failures *guesses
	requests *pace[[sha256.Size]byte]
}

func newGate(c *Config) *gate {
	return &gate{c.Tokens, c.TrustedProxies, c.Log, c.Clock, newGuesses(), newPace[[sha256.Size]byte](c.RequestsPerMinute)}
}

// let calls next with the access of the request's token in its context, and with
// a body that ends at maxBody. Who is not let in gets the answer that refuse
// writes, in the form of its API, with Retry-After where coming again helps.
//
// credential finds the token in the request: "" where there is none.
func (g *gate) let(next http.Handler, credential func(*http.Request) string, refuse func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		access, err := g.authenticate(r, credential(r))
		if err != nil {
			if many, ok := errors.AsType[*tooManyError](err); ok {
				w.Header().Set("Retry-After", many.retryAfter())
			}
			refuse(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(withAccess(r.Context(), access)))
	})
}

// authenticate finds out who asks. A token that was good lately costs no guess,
// and is looked up all the same: it may be revoked. So an address from which
// somebody tries tokens, which may be a proxy's, shuts out those who are new to
// this process, for seconds, and nobody else.
func (g *gate) authenticate(r *http.Request, token string) (domain.Access, error) {
	if token == "" {
		return domain.Access{}, errNoCredentials
	}
	now, hash := g.clock(), sha256.Sum256([]byte(token))
	known, wait := g.requests.spend(hash, now)
	if wait > 0 {
		return domain.Access{}, &tooManyError{"requests with this token", wait}
	}
	client := ClientAddr(r, g.trusted)
	end := func(bool) {}
	if !known {
		if end, wait = g.failures.begin(client, now); wait > 0 {
			return domain.Access{}, &tooManyError{"wrong tokens from this address", wait}
		}
	}
	access, err := g.tokens.Authenticate(r.Context(), token)
	end(errors.Is(err, domain.ErrNoToken))
	switch {
	case errors.Is(err, domain.ErrNoToken):
		g.requests.forget(hash)
		g.log.WarnContext(r.Context(), "a token was refused", "address", client.String())
		return domain.Access{}, domain.ErrNoToken
	case err != nil && r.Context().Err() != nil:
		return domain.Access{}, errUnavailable // the client left
	case err != nil:
		g.log.ErrorContext(r.Context(), "a token cannot be looked up", "error", err)
		return domain.Access{}, errUnavailable
	case !known:
		g.requests.begin(hash, now)
	}
	return access, nil
}

type accessKey struct{}

func withAccess(ctx context.Context, access domain.Access) context.Context {
	return context.WithValue(ctx, accessKey{}, access)
}

// accessOf gives who asks. Behind no gate that is nobody, who may nothing.
func accessOf(ctx context.Context) domain.Access {
	access, _ := ctx.Value(accessKey{}).(domain.Access)
	return access
}

// Chatwoot names the header with underscores. Rails reads both spellings as the
// same, and so do scripts that were written behind an nginx, which drops the
// first unless it is told otherwise.
var tokenHeaders = []string{http.CanonicalHeaderKey("api_access_token"), http.CanonicalHeaderKey("Api-Access-Token")}

// headerToken finds a token where Chatwoot looks for it. Of several none is
// taken: a proxy and we might not take the same.
func headerToken(r *http.Request) string {
	var found []string
	for _, name := range tokenHeaders {
		found = append(found, r.Header.Values(name)...)
	}
	if len(found) != 1 {
		return ""
	}
	return strings.TrimSpace(found[0])
}

// bearerToken finds a token in Authorization (RFC 6750, section 2.1), or else
// where headerToken does.
func bearerToken(r *http.Request) string {
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		return headerToken(r)
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	if len(given) != 1 || !strings.EqualFold(scheme, "Bearer") || headerToken(r) != "" {
		return ""
	}
	return strings.TrimSpace(token)
}
