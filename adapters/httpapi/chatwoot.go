package httpapi

import (
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// chatwoot answers as the controller of webhooks in Chatwoot 4.16 does: the same
// paths, status codes and bodies, for who has a token of an administrator.
type chatwoot struct{ *Config }

func (a *API) addChatwoot() {
	c := &chatwoot{&a.config}
	const all = "/api/v1/accounts/{account}/webhooks"
	const one = all + "/{webhook}"
	for pattern, action := range map[string]action{
		"GET " + all: c.list, "POST " + all: c.create,
		"PATCH " + one: c.update, "PUT " + one: c.update, "DELETE " + one: c.remove,
	} {
		a.routes.Handle(pattern, a.gate.let(c.within(action), headerToken, refuseChatwoot))
	}
	a.routes.HandleFunc(chatwootRoot, a.otherChatwoot)
}

// action answers a request about webhooks of an account that its sender
// administrates.
type action func(http.ResponseWriter, *http.Request, domain.AccountID) error

// within lets administrators of the account in the path come to an action, as
// Chatwoot does, which lets nobody else even see webhooks: their secrets are in
// all answers.
func (c *chatwoot) within(action action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer c.recovered(w, r)
		account, access := domain.AccountID(pathID(r, "account")), accessOf(r.Context())
		var err error
		switch {
		case account == 0:
			err = errNotFound
		case !access.Sees(account):
			err = errOtherAccount
		case !access.May(domain.Configure, account) || !access.May(domain.Reveal, account):
			err = errNotAdministrator
		default:
			err = action(w, r, account)
		}
		if err != nil {
			c.answerError(w, r, err)
		}
	})
}

// recovered answers where an action panicked, which is before it answers.
func (c *chatwoot) recovered(w http.ResponseWriter, r *http.Request) {
	switch failure := recover(); {
	case failure == nil:
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client left
	default:
		c.Log.ErrorContext(r.Context(), "a request made the API panic", "method", r.Method, "route", r.Pattern, "panic", failure, "stack", string(debug.Stack()))
		answerJSON(w, http.StatusInternalServerError, statusBody{http.StatusInternalServerError, "Internal Server Error"})
	}
}

// pathID reads an id in a path, with the suffix for a format that Rails takes
// behind each path. 0 where it is none: no row has that.
func pathID(r *http.Request, name string) int64 {
	id, err := strconv.ParseInt(strings.TrimSuffix(r.PathValue(name), formatSuffix), 10, 64)
	if err != nil || id < 0 {
		return 0
	}
	return id
}

const formatSuffix = ".json"

// otherChatwoot answers what no route is for. Rails also takes paths that end
// in a slash or in a format.
func (a *API) otherChatwoot(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(strings.TrimRight(r.URL.Path, "/"), formatSuffix)
	if path != r.URL.Path && path != strings.TrimSuffix(chatwootRoot, "/") {
		again := r.Clone(r.Context())
		again.URL.Path, again.URL.RawPath = path, ""
		a.routes.ServeHTTP(w, again)
		return
	}
	answerJSON(w, http.StatusNotFound, statusBody{http.StatusNotFound, "Not Found"})
}

const chatwootRoot = "/api/v1/"

// What an action refuses, in Chatwoot's words.
var (
	errNotFound         = errors.New("Resource could not be found")                     //nolint:staticcheck // Chatwoot's words
	errOtherAccount     = errors.New("You are not authorized to access this account")   //nolint:staticcheck // Chatwoot's words
	errNotAdministrator = errors.New("You are not authorized to do this action")        //nolint:staticcheck // Chatwoot's words
	errBadToken         = errors.New("Invalid Access Token")                            //nolint:staticcheck // Chatwoot's words
	errParamMissing     = errors.New("param is missing or the value is empty: webhook") // of Rails
)
