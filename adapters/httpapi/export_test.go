package httpapi

import (
	"errors"
	"net/http"

	"github.com/outrider-relay/outrider/domain"
)

// Most is what is remembered of addresses and tokens.
const Most = most

// ErrNoCredentials and ErrUnavailable are what a gate refuses with.
var (
	ErrNoCredentials = errNoCredentials
	ErrUnavailable   = errUnavailable
)

// Gate gives a handler that answers with the access of who is let in, or 4xx and
// the words of the refusal.
func Gate(c Config, bearer bool) (handler http.Handler, remembered func() (addresses, tokens int)) {
	g := New(c).gate
	credential := headerToken
	if bearer {
		credential = bearerToken
	}
	let := g.let(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		access := accessOf(r.Context())
		_, _ = w.Write([]byte(access.Actor() + " " + string(access.Role)))
	}), credential, func(w http.ResponseWriter, _ *http.Request, err error) {
		status := http.StatusUnauthorized
		switch {
		case w.Header().Get("Retry-After") != "":
			status = http.StatusTooManyRequests
		case err == errUnavailable: //nolint:errorlint // it is what let gives
			status = http.StatusServiceUnavailable
		}
		http.Error(w, err.Error(), status)
	})
	return let, func() (int, int) { return len(g.failures.from.at), len(g.requests.of.at) }
}

// AccessWithoutGate is what a handler behind no gate sees.
func AccessWithoutGate(r *http.Request) domain.Access { return accessOf(r.Context()) }

// Parameters are what Chatwoot's API takes of a request.
type Parameters struct {
	URL, Name, Inbox *string
	Subscriptions    *[]string
}

// ReadParameters reads them. refused says that the error is one for the client.
func ReadParameters(r *http.Request) (p Parameters, refused bool, err error) {
	given, err := readParameters(r)
	var read parameters
	if err == nil {
		read, err = given.permit()
	}
	_, bad := errors.AsType[*badRequestError](err)
	_, large := errors.AsType[*http.MaxBytesError](err)
	return Parameters{read.url, read.name, read.inbox, read.subscriptions}, bad || large || errors.Is(err, errParamMissing), err
}
