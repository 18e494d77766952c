package web_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

func TestLogInAndOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	b.get("/accounts").shows(t, http.StatusOK, "Log in", `name="next" value="/accounts"`)
	b.post("/login", "token", "outrider_wrong").shows(t, http.StatusUnauthorized, "unknown, revoked or expired", `aria-invalid="true"`)
	_, token := s.newToken(t, domain.RoleViewer, 0)
	p := b.post("/login", "token", " "+token+"\n", "next", "/accounts?account=")
	p.shows(t, http.StatusOK, "CRM &lt;sync&gt;", "viewer", "Log out")
	if p.path != "/accounts?account=" {
		t.Errorf("the log-in leads to %s", p.path)
	}
	if p := b.get("/login"); p.path != "/accounts" {
		t.Errorf("who is logged in is asked for a token: %s", p.path)
	}
	if p := b.post("/logout"); p.path != "/login" {
		t.Errorf("the log-out leads to %s", p.path)
	}
	if s.count(t, "SELECT count(*) FROM relay.sessions") != 0 {
		t.Error("the session is still there")
	}
	b.get("/accounts").shows(t, http.StatusOK, "Log in")
}

// A session ends with its token, and a role or account that changed counts at
// once.
func TestSessionIsJudgedAnewByEachRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id, token := s.newToken(t, domain.RoleViewer, 0)
	b := s.browser(t)
	b.logIn(token)
	s.exec(t, "UPDATE relay.tokens SET account_id = 7 WHERE token_id = $1", int64(id))
	b.get("/accounts").shows(t, http.StatusNotFound, "There is no such page")
	if _, err := s.tokens.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.get("/accounts").shows(t, http.StatusOK, "Log in")
}

func TestLogInLeadsToNoOtherSite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, token := s.newToken(t, domain.RoleViewer, 0)
	for _, next := range []string{"https://evil.example/", "//evil.example/", `/\evil.example`, `\\evil.example`, "/\t/evil.example", "javascript:alert(1)", "login", "///evil.example"} {
		b := s.browser(t)
		b.get("/login?next="+url.QueryEscape(next)).lacks(t, `name="next"`)
		if p := b.post("/login", "token", token, "next", next); p.path != "/accounts" {
			t.Errorf("%q leads to %s", next, p.path)
		}
	}
}

func TestFailedLogInsAreLimited(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *web.Config) {
		c.ClientAddress = func(r *http.Request) string { return r.Header.Get("Test-Address") }
	})
	_, token := s.newToken(t, domain.RoleViewer, 0)
	b := s.browser(t)
	b.get("/login")
	b.header.Set("Test-Address", "2001:db8::1")
	for range 10 {
		b.post("/login", "token", "guess").shows(t, http.StatusUnauthorized)
	}
	b.header.Set("Test-Address", "2001:db8::2") // the same customer's
	p := b.post("/login", "token", token)
	p.shows(t, http.StatusTooManyRequests, "Too many attempts")
	if p.header.Get("Retry-After") == "" {
		t.Error("nothing says when to try again")
	}
	b.header.Set("Test-Address", "192.0.2.1")
	b.post("/login", "token", token).shows(t, http.StatusOK, "Log out")
}

func TestFormsOfOtherPagesAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, token := s.newToken(t, domain.RoleAdministrator, 1)
	b := s.browser(t)
	b.get("/login")
	good := b.token
	for name, form := range map[string]url.Values{
		"NoToken":    {"token": {token}},
		"OtherToken": {"token": {token}, "form_token": {strings.ToLower(good)}},
		"Twice":      {"token": {token}, "form_token": {good, good}},
	} {
		b.postForm("/login", form).shows(t, http.StatusForbidden, "This form is not of your session any more")
		if s.count(t, "SELECT count(*) FROM relay.sessions") != 0 {
			t.Errorf("%s: logged in", name)
		}
	}
	// Another visitor's token.
	other := s.browser(t)
	other.get("/login")
	b.postForm("/login", url.Values{"token": {token}, "form_token": {other.token}}).shows(t, http.StatusForbidden)
	b.get("/login")
	b.header.Set("Origin", "https://evil.example")
	b.post("/login", "token", token).shows(t, http.StatusForbidden, "Another site sent this")
	b.header.Del("Origin")
	b.header.Set("Sec-Fetch-Site", "same-site")
	b.post("/login", "token", token).shows(t, http.StatusForbidden, "Another site sent this")
	b.header.Set("Sec-Fetch-Site", "same-origin")
	b.post("/login", "token", token).shows(t, http.StatusOK, "Log out")
}

func TestFormsThatCannotBe(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	b.get("/login")
	b.post("/login", "token", "x", "<b>", "yes").shows(t, http.StatusBadRequest, "a field that this page does not know", "&lt;b&gt;")
	b.post("/login", "token", "x", "token", "y").shows(t, http.StatusBadRequest, "has a field twice")
	b.post("/login", "token", strings.Repeat("x", 1<<20)).shows(t, http.StatusRequestEntityTooLarge, "too large")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/login", strings.NewReader(`{"token":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("JSON gives %d", answer.StatusCode)
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	for _, path := range []string{"/login", "/nowhere", "/accounts", "/static/none.css"} {
		p := b.get(path)
		if policy := p.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'self'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		p.lacks(t, " style=", "<style", " onclick=", "javascript:")
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		public string
		cookie string
		secure bool
	}{
		"HTTP":  {"", "outrider_visit", false},
		"HTTPS": {"https://hooks.example.com", "__Host-outrider_visit", true},
	} {
		s := newSite(t, func(config *web.Config) {
			if c.public != "" {
				config.PublicURL, _ = url.Parse(c.public)
			}
		})
		header := s.browser(t).get("/login").header
		cookies := (&http.Response{Header: header}).Cookies()
		if len(cookies) != 1 || cookies[0].Name != c.cookie || !cookies[0].HttpOnly || cookies[0].Secure != c.secure || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Path != "/" {
			t.Errorf("%s: %v", name, cookies)
		}
	}
}

// A proxy sends requests on under a name of its own; browsers know the public
// one.
func TestPublicURLIsAnOriginOfOurs(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *web.Config) { c.PublicURL, _ = url.Parse("http://hooks.example.com") })
	b := s.browser(t)
	b.get("/login")
	b.header.Set("Origin", "http://hooks.example.com")
	_, token := s.newToken(t, domain.RoleViewer, 0)
	b.post("/login", "token", token).shows(t, http.StatusOK, "Log out")
}

// A message is of the session that it was said to: nobody puts words into our
// mouth.
func TestMessagesAreSigned(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b, other := s.as(t, domain.RoleOperator, 1), s.as(t, domain.RoleOperator, 1)
	site, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.get(pathOf(hook))
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	b.post(pathOf(hook) + "/pause")
	var message *http.Cookie
	for _, c := range b.Jar.Cookies(site) {
		if c.Name == "outrider_flash" {
			message = c
		}
	}
	if message == nil {
		t.Fatal("nothing is said")
	}
	encoded, signature, _ := strings.Cut(message.Value, ".")
	for _, value := range []string{message.Value, "e30." + signature, encoded + ".", encoded, "."} {
		other.Jar.SetCookies(site, []*http.Cookie{{Name: "outrider_flash", Value: value, Path: "/"}}) //nolint:gosec // a browser sends only name and value
		other.get(pathOf(hook)).lacks(t, `role="status"`, "is paused.")
	}
	b.get(pathOf(hook)).shows(t, http.StatusOK, `role="status"`, "“CRM” is paused.")
}

func TestStaticFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	body := b.get("/login").body
	for _, kind := range []string{"css", "js", "svg"} {
		_, rest, _ := strings.Cut(body, `"/static/`)
		for !strings.HasPrefix(rest[strings.IndexByte(rest, '"')-len(kind):], kind) {
			if _, rest, _ = strings.Cut(rest, `"/static/`); rest == "" {
				t.Fatalf("no %s in %s", kind, body)
			}
		}
		p := b.get("/static/" + rest[:strings.IndexByte(rest, '"')])
		if p.status != http.StatusOK || !strings.Contains(p.header.Get("Cache-Control"), "immutable") || p.body == "" {
			t.Errorf("%s: %d %v", kind, p.status, p.header)
		}
	}
	b.get("/static/style.css").shows(t, http.StatusNotFound)
}

func TestWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get("/nowhere").shows(t, http.StatusNotFound, "There is no such page", "Log out")
	b.get("/accounts").shows(t, http.StatusNotFound)
	p := b.get("/logout")
	p.shows(t, http.StatusMethodNotAllowed, "This cannot be done here")
	if p.header.Get("Allow") != "POST" {
		t.Errorf("Allow: %s", p.header.Get("Allow"))
	}
	b.send(http.MethodDelete, "/login", nil).shows(t, http.StatusMethodNotAllowed)
}

// What the database or the program says of an error is in the log, and not on
// the page.
func TestErrorsTellNoTale(t *testing.T) {
	t.Parallel()
	sessions := &broken{}
	s := newSite(t, func(c *web.Config) {
		sessions.Sessions = c.Sessions
		c.Sessions = sessions
	})
	b := s.as(t, domain.RoleAdministrator, 0)
	sessions.now.Store(true)
	p := b.get("/accounts")
	p.shows(t, http.StatusInternalServerError, "Something went wrong here", "under the number")
	p.lacks(t, "hunter2", "10.0.0.1", "goroutine")
	if log := s.log.String(); !strings.Contains(log, "hunter2") || !strings.Contains(log, "number=") {
		t.Errorf("the log has %s", log)
	}
	sessions.now.Store(false)
	s.exec(t, "DROP TABLE relay.webhooks CASCADE")
	p = b.get("/accounts")
	p.shows(t, http.StatusServiceUnavailable, "The database cannot answer now", "outrider migrate")
	p.lacks(t, "pq:", "SELECT")
}

// broken are sessions that fail while now is set.
type broken struct {
	web.Sessions
	now atomic.Bool
}

func (b *broken) Session(ctx context.Context, session string) (domain.Access, error) {
	if b.now.Load() {
		return domain.Access{}, errors.New("dial tcp 10.0.0.1: password=hunter2")
	}
	return b.Sessions.Session(ctx, session)
}
