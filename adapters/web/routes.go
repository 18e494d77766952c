package web

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/outrider-relay/outrider/domain"
)

// Route is one of the pages, or something that can be done on one.
type Route struct {
	// Method and Pattern are as net/http's ServeMux has them: {account} and {id}
	// stand for what varies.
	Method, Pattern string
	// Public says that it takes no session.
	Public bool
	// Permission is what a session must have: in the account of the path, where
	// there is one, else in the account it is for.
	Permission domain.Permission
	// AllAccounts says that the session must be for all accounts. It is 404 for
	// others.
	AllAccounts bool
	// Stream says that the answer goes on until its reader leaves.
	Stream bool
}

// Routes are all of them.
func Routes() []Route {
	var all []Route
	for _, r := range routes() {
		all = append(all, r.Route)
	}
	return all
}

// route is a Route and what serves it. An error that serve gives becomes a
// page, see failure.go; it must not have written anything before.
type route struct {
	Route
	serve func(*pages, http.ResponseWriter, *request) error
}

// routes are those of each part of the site.
func routes() []route {
	return slices.Concat(
		siteRoutes(),
		sessionRoutes(),
		accountRoutes(),
		webhookRoutes(),
		overviewRoutes(),
		deliveryRoutes(),
		timelineRoutes(),
		replayRoutes(),
		relayRoutes(),
	)
}

// siteRoutes are those of no noun.
func siteRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/{$}", Permission: domain.Read}, (*pages).home},
		{Route{Method: "GET", Pattern: "/static/{name}", Public: true}, (*pages).static},
	}
}

// has reports whether there is a page.
func has(pattern string) bool {
	return slices.ContainsFunc(routes(), func(r route) bool { return r.Method == http.MethodGet && r.Pattern == pattern })
}

// request is what came, and who sent it.
type request struct {
	*http.Request
	// access is the session's; the zero value is nobody's, on public pages.
	access domain.Access
	// session is the cookie's text, "" for none.
	session string
	// key signs forms and messages: the session, or where there is none what
	// the browser was given by the page of the log-in.
	key string
	// account is the one in the path, 0 where there is none.
	account domain.AccountID
	// form is what was posted, with the token taken out.
	form form
}

// may reports whether the session has a permission where the request is.
func (r *request) may(permission domain.Permission) bool {
	if r.account == 0 {
		return r.access.Role.May(permission)
	}
	return r.access.May(permission, r.account)
}

// serve does what all routes need done before them.
func (p *pages) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, httpRequest *http.Request) {
		r := &request{Request: httpRequest}
		if err := p.admit(w, r, &rt.Route); err != nil {
			p.fail(w, r, err)
			return
		}
		if err := rt.serve(p, w, r); err != nil {
			p.fail(w, r, err)
		}
	}
}

// admit judges whether a request may go on: who sent it, whether they see the
// account, whether they may do it, and whether they meant to.
func (p *pages) admit(w http.ResponseWriter, r *request, rt *Route) error {
	if err := p.identify(w, r); err != nil && !rt.Public {
		return err
	}
	if text := r.PathValue("account"); text != "" {
		account, err := strconv.ParseInt(text, 10, 64)
		if err != nil || account == 0 || strconv.FormatInt(account, 10) != text || !r.access.Sees(domain.AccountID(account)) {
			return errNotFound
		}
		r.account = domain.AccountID(account)
	}
	if rt.AllAccounts && !r.access.Sees(0) {
		return errNotFound
	}
	if !rt.Public && !r.may(rt.Permission) {
		return errForbidden
	}
	if rt.Method == http.MethodPost {
		return p.readForm(w, r)
	}
	return nil
}

// home leads to where the session begins.
func (p *pages) home(w http.ResponseWriter, r *request) error {
	if r.access.AccountID == 0 {
		return redirect(w, r, "/accounts")
	}
	return redirect(w, r, accountPath(r.access.AccountID, "webhooks"))
}

// accountPath is where something of an account is.
func accountPath(account domain.AccountID, rest string) string {
	path := "/accounts/" + strconv.FormatInt(int64(account), 10)
	if rest != "" {
		path += "/" + rest
	}
	return path
}

// redirect leads on to a path of ours, by GET.
func redirect(w http.ResponseWriter, r *request, path string) error {
	http.Redirect(w, r.Request, path, http.StatusSeeOther)
	return nil
}
