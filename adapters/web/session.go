package web

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// sessionRoutes let people in and out.
func sessionRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/login", Public: true}, (*pages).loginPage},
		{Route{Method: "POST", Pattern: "/login", Public: true}, (*pages).logIn},
		{Route{Method: "POST", Pattern: "/logout", Permission: domain.Read}, (*pages).logOut},
	}
}

// The cookies. visitCookie is for who has no session: it signs the form of the
// log-in, so that no other site's page logs anybody in.
const (
	sessionCookie = "outrider_session"
	visitCookie   = "outrider_visit"
	flashCookie   = "outrider_flash"
)

// cookieName gives a cookie's name: where cookies are for https only, one that
// browsers take from this host alone.
func (p *pages) cookieName(name string) string {
	if p.secure {
		return "__Host-" + name
	}
	return name
}

// setCookie gives the browser a cookie for as long as it is open, or with ""
// takes it away.
func (p *pages) setCookie(w http.ResponseWriter, name, value string) {
	c := &http.Cookie{Name: p.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: p.secure, SameSite: http.SameSiteLaxMode} //nolint:gosec // Secure is as the public URL is: over http a browser would not send it
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// cookie reads one, "" for none.
func (p *pages) cookie(r *request, name string) string {
	c, err := r.Cookie(p.cookieName(name))
	if err != nil {
		return ""
	}
	return c.Value
}

// identify finds out whose the request is. errNoSession where it is nobody's.
func (p *pages) identify(w http.ResponseWriter, r *request) error {
	r.key = p.cookie(r, visitCookie)
	session := p.cookie(r, sessionCookie)
	if session == "" {
		return errNoSession
	}
	access, err := p.Sessions.Session(r.Context(), session)
	if errors.Is(err, domain.ErrNoToken) {
		p.setCookie(w, sessionCookie, "")
		return errNoSession
	}
	if err != nil {
		return err
	}
	r.access, r.session, r.key = access, session, session
	return nil
}

// shownLogin is what the page of the log-in shows.
type shownLogin struct {
	Next    string
	Problem string
}

// loginPage asks for a token.
func (p *pages) loginPage(w http.ResponseWriter, r *request) error {
	if r.session != "" {
		return p.home(w, r)
	}
	return p.askForToken(w, r, http.StatusOK, "")
}

func (p *pages) askForToken(w http.ResponseWriter, r *request, status int, problem string) error {
	if r.key == "" {
		r.key = rand.Text()
		p.setCookie(w, visitCookie, r.key)
	}
	next := r.URL.Query().Get("next")
	if r.form != nil {
		next = r.form.text("next")
	}
	return p.render(w, r, status, "login", &view{Title: "Log in", Data: shownLogin{Next: ourPath(next), Problem: problem}})
}

// ourPath gives a path of this site back, and "" for anything else: a link to
// the log-in leads to no other site.
func ourPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") ||
		strings.HasPrefix(u.Path, "//") || strings.ContainsAny(text, "\\\t\r\n") {
		return ""
	}
	return u.RequestURI()
}

// logIn turns a token into a session. All attempts count against the limit of
// where they come from until one succeeds.
func (p *pages) logIn(w http.ResponseWriter, r *request) error {
	if err := r.form.only([]string{"token", "next"}, nil); err != nil {
		return err
	}
	from := p.ClientAddress(r.Request)
	if wait := p.logins.attempt(from); wait > 0 {
		seconds := int(wait/time.Second) + 1
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		return p.askForToken(w, r, http.StatusTooManyRequests, "Too many attempts from your address have failed. Try again in "+count(seconds, "second", "seconds")+".")
	}
	session, err := p.Sessions.OpenSession(r.Context(), strings.TrimSpace(r.form.text("token")))
	if errors.Is(err, domain.ErrNoToken) {
		return p.askForToken(w, r, http.StatusUnauthorized, "This token does not let in: it is unknown, revoked or expired.")
	}
	if err != nil {
		return err
	}
	p.logins.succeeded(from)
	if r.session != "" { // it is given up for the new one
		if err := p.Sessions.CloseSession(r.Context(), r.session); err != nil {
			return err
		}
	}
	p.setCookie(w, sessionCookie, session)
	p.setCookie(w, visitCookie, "")
	if next := ourPath(r.form.text("next")); next != "" {
		return redirect(w, r, next)
	}
	return redirect(w, r, "/")
}

// logOut ends the session.
func (p *pages) logOut(w http.ResponseWriter, r *request) error {
	if err := r.form.only(nil, nil); err != nil {
		return err
	}
	if err := p.Sessions.CloseSession(r.Context(), r.session); err != nil {
		return err
	}
	p.setCookie(w, sessionCookie, "")
	p.setCookie(w, flashCookie, "")
	return redirect(w, r, "/login")
}
