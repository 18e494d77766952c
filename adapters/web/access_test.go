package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

// at gives a path of a route: of account 1, and of what has the id.
func at(r web.Route, account, id string) string {
	return strings.NewReplacer("{account}", account, "{id}", id, "{event_id}", "01979f6e-0000-7000-8000-000000000000", "{$}", "", "{name}", "style.css").Replace(r.Pattern)
}

// Each route, with each role: what the role may not do is refused, whatever the
// page showed, and nobody is refused what the role may.
func TestEveryRouteAsksForItsPermission(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(t, 1, domain.Settings{})
	for _, role := range domain.Roles {
		b := s.as(t, role, 1)
		for _, r := range web.Routes() {
			if r.Public || r.AllAccounts || r.Pattern == "/logout" {
				continue
			}
			path := at(r, "1", "1")
			var status int
			if r.Method == http.MethodPost {
				status = b.postForm(path, url.Values{"form_token": {b.token}, "no such field": {"x"}}).status
			} else {
				status = b.status(path)
			}
			switch refused := status == http.StatusForbidden; {
			case !role.May(r.Permission) && !refused:
				t.Errorf("%s: %s %s: %d", role, r.Method, path, status)
			case role.May(r.Permission) && refused:
				t.Errorf("%s: %s %s is refused", role, r.Method, path)
			case role.May(r.Permission) && r.Method == http.MethodPost && status != http.StatusBadRequest:
				t.Errorf("%s: POST %s takes a field that it does not know: %d", role, path, status)
			}
		}
	}
	if n := s.count(t, "SELECT count(*) FROM relay.webhook_log"); n != 1 {
		t.Errorf("something was changed: %d entries", n)
	}
}

// Another account is not there: neither by its path, nor its webhooks by ours.
func TestNoRouteLeadsToAnotherAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(t, 2, domain.Settings{})
	b := s.as(t, domain.RoleAdministrator, 1)
	all := s.as(t, domain.RoleAdministrator, 0)
	for _, r := range web.Routes() {
		var paths []string
		switch {
		case strings.Contains(r.Pattern, "{account}"):
			for _, account := range []string{"2", "0", "-1", "01", "+1", "1x", "9223372036854775808", "%31%20"} {
				paths = append(paths, at(r, account, "1"))
			}
			if strings.Contains(r.Pattern, "/webhooks/{id}") {
				paths = append(paths, at(r, "1", "1"), at(r, "1", "2"), at(r, "1", "x"), at(r, "1", "01"))
			}
		case r.AllAccounts:
			paths = append(paths, at(r, "", "1"))
		}
		for _, path := range paths {
			var p page
			if r.Method == http.MethodPost {
				form := url.Values{"form_token": {b.token}}
				if strings.HasSuffix(r.Pattern, "/rotate-secret") {
					form.Set("overlap", "24h")
				}
				if strings.HasSuffix(r.Pattern, "/rotate-secret") || strings.HasSuffix(r.Pattern, "{id}") {
					form.Set("version", "1")
				}
				p = b.postForm(path, form)
			} else {
				p = b.get(path)
			}
			if p.status != http.StatusNotFound {
				t.Errorf("%s %s: %d", r.Method, path, p.status)
			}
		}
	}
	all.get("/accounts/2/webhooks/1").shows(t, http.StatusOK)
	all.get("/accounts/1/webhooks/1").shows(t, http.StatusNotFound)
	if n := s.count(t, "SELECT count(*) FROM relay.webhook_log"); n != 1 {
		t.Errorf("something was changed: %d entries", n)
	}
}

// Whoever is logged out gets to see nothing, and changes nothing.
func TestEveryRouteTakesASession(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(t, 1, domain.Settings{Name: "Nobody’s business"})
	b := s.browser(t)
	b.get("/login")
	for _, r := range web.Routes() {
		if r.Public {
			continue
		}
		if path := at(r, "1", "1"); r.Method == http.MethodPost {
			b.post(path).shows(t, http.StatusUnauthorized, "You are logged out")
		} else if p := b.get(path); !strings.HasPrefix(p.path, "/login?next="+url.QueryEscape(path)) {
			t.Errorf("%s leads to %s", path, p.path)
		}
	}
	if n := s.count(t, "SELECT count(*) FROM relay.webhook_log"); n != 1 {
		t.Errorf("something was changed: %d entries", n)
	}
}

// What changes something takes the token of the session's own forms, from our
// own pages, and no more than fits.
func TestEveryFormIsOurs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(t, 1, domain.Settings{})
	b := s.as(t, domain.RoleAdministrator, 1)
	good := b.token
	other := s.as(t, domain.RoleAdministrator, 1)
	for _, r := range web.Routes() {
		if r.Method != http.MethodPost || r.Public || r.AllAccounts {
			continue
		}
		path := at(r, "1", "1")
		b.postForm(path, url.Values{}).shows(t, http.StatusForbidden, "not of your session")
		b.postForm(path, url.Values{"form_token": {other.token}}).shows(t, http.StatusForbidden, "not of your session")
		b.postForm(path, url.Values{"form_token": {good}, "name": {strings.Repeat("x", 1<<20)}}).shows(t, http.StatusRequestEntityTooLarge, "too large")
		b.header.Set("Origin", "https://evil.example")
		b.postForm(path, url.Values{"form_token": {good}}).shows(t, http.StatusForbidden, "Another site sent this")
		b.header.Del("Origin")
	}
	if n := s.count(t, "SELECT count(*) FROM relay.webhook_log"); n != 1 {
		t.Errorf("something was changed: %d entries", n)
	}
}

// A page shows no button that its reader may not press.
func TestButtonsAreForThoseWhoMay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{})
	configure := []string{"Add new webhook", "/edit", "/delete", "/rotate-secret", "/disable", "/reveal-secret"}
	operate := []string{"/pause", "/test"}
	for _, c := range []struct {
		role         domain.Role
		sees, misses []string
	}{
		{domain.RoleViewer, nil, append(configure, operate...)},
		{domain.RoleOperator, operate, configure},
		{domain.RoleAdministrator, append(configure, operate...), nil},
	} {
		b := s.as(t, c.role, 1)
		p := b.get("/accounts/1/webhooks")
		p.body += b.get(pathOf(hook)).body
		p.shows(t, http.StatusOK, c.sees...)
		p.lacks(t, c.misses...)
	}
}
