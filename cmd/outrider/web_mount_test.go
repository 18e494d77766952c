package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/web"
)

// mounted is all that outrider web serves, as a member of outrider_web.
type mounted struct {
	t   *testing.T
	url string
	log *syncBuffer
	// token is an administrator's of account 1, role the database's user.
	token, role string
}

func mountWeb(t *testing.T, dsn string, change func(*config)) *mounted {
	t.Helper()
	m := &mounted{t: t, log: &syncBuffer{}, role: userOf(t, dsn)}
	conf := config{databaseURL: dsn, allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if change != nil {
		change(&conf)
	}
	db, err := postgres.OpenWeb(dsn, "outrider-web", webConnections, webStatement)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := newWebServer(conf, db, slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.handler)
	t.Cleanup(func() { s.stop(); server.Close() })
	m.url = server.URL
	return m
}

// call makes a request of an API, and gives the status and the body.
func (m *mounted) call(method, path string, body any) (int, string) {
	m.t.Helper()
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			m.t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(m.t.Context(), method, m.url+path, content)
	if err != nil {
		m.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header["api_access_token"] = []string{m.token}
	return m.do(http.DefaultClient, request)
}

func (m *mounted) do(client *http.Client, request *http.Request) (int, string) {
	m.t.Helper()
	response, err := client.Do(request)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// ok is call, which must succeed and gives an object.
func (m *mounted) ok(method, path string, body any) map[string]any {
	m.t.Helper()
	status, text := m.call(method, path, body)
	if status/100 != 2 {
		m.t.Fatalf("%s %s: %d %s\n%s", method, path, status, text, m.log)
	}
	var answer map[string]any
	if text != "" {
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			m.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return answer
}

// TestEveryFaceIsServedWithOneRole: what pages and APIs do takes outrider_web
// and no more, and is on record with the token.
func TestEveryFaceIsServedWithOneRole(t *testing.T) {
	t.Parallel()
	c, db, events := routedStory(t)
	m := mountWeb(t, asRole(t, db, "web", "outrider_web"), nil)
	m.token, _ = c.object("token", "create", "--account", "1", "--role", "administrator", "--name", "CRM sync")["token"].(string)

	// Every route that only reads.
	var delivery string
	if err := db.SQL.QueryRowContext(t.Context(), `SELECT delivery_id::text FROM audit.deliveries LIMIT 1`).Scan(&delivery); err != nil {
		t.Fatal(err)
	}
	m.ok("POST", "/api/outrider/v1/accounts/1/replays", map[string]any{"event_ids": []string{events[0].String()}})
	fill := strings.NewReplacer("{account_id}", "1", "{account}", "1", "{webhook_id}", "1", "{id}", "1", "{event_id}", events[0].String(), "{event}", events[0].String(),
		"{delivery_id}", delivery, "{delivery}", delivery, "{replay_id}", "1", "{replay}", "1", "{$}", "")
	walked := 0
	api := httpapi.New(httpapi.Config{Log: slog.New(slog.DiscardHandler)})
	for _, pattern := range api.Routes() {
		method, path, _ := strings.Cut(pattern, " ")
		if method != http.MethodGet {
			continue
		}
		walked++
		status, body := m.call(method, fill.Replace(path), nil)
		if want := http.StatusOK; status != want && path != "/api/outrider/v1/relays" || status >= 500 || strings.Contains(path, "{") && strings.Contains(fill.Replace(path), "{") {
			t.Errorf("GET %s: %d %s", fill.Replace(path), status, body)
		}
	}
	if walked < 12 {
		t.Errorf("%d routes of the APIs only read", walked)
	}

	// Chatwoot's API, and what its own route changes.
	created := m.ok("POST", "/api/v1/accounts/1/webhooks", map[string]any{"url": "http://127.0.0.1:9/hook", "name": "ERP"})
	if !strings.Contains(fmt.Sprint(created), "whsec_") && !strings.Contains(fmt.Sprint(created), "secret:") {
		t.Errorf("created is %v", created)
	}
	hooks := "/api/outrider/v1/accounts/1/webhooks/"
	m.ok("POST", hooks+"1/pause", nil)
	m.ok("POST", hooks+"1/disable", map[string]any{})
	m.ok("POST", hooks+"1/enable", nil)
	m.ok("POST", hooks+"1/test", nil)
	revealed := m.ok("POST", hooks+"1/reveal-secret", nil)
	if !strings.Contains(fmt.Sprint(revealed), "whsec_") {
		t.Errorf("revealed is %v", revealed)
	}
	m.ok("POST", "/api/outrider/v1/accounts/1/replays/1/run", map[string]any{})
	m.ok("POST", "/api/outrider/v1/accounts/1/replays/1/cancel", nil)
	if got := strings.Join(texts(t, db.SQL, `SELECT DISTINCT change FROM audit.webhook_changes WHERE actor = 'token 1 (CRM sync)' ORDER BY 1`), " "); got != "disabled enabled paused registered secret_revealed" {
		t.Errorf("on record of the token is %s", got)
	}
	by := m.role + " for token 1 (CRM sync)"
	if got := strings.Join(texts(t, db.SQL, `SELECT type || ': ' || (data ->> 'actor') FROM audit.timeline WHERE stream = 'replay' ORDER BY version`), ", "); got != "planned: "+by+", requested: "+by+", cancelling: "+by {
		t.Errorf("on record of the replay is %s", got)
	}
	if got := texts(t, db.SQL, `SELECT metadata ->> 'requested_by' FROM audit.events WHERE event = 'webhook_test'`); len(got) != 1 || got[0] != by {
		t.Errorf("the test was asked for by %q", got)
	}
	if status, _ := m.call("GET", "/api/outrider/v1/accounts/2/webhooks", nil); status != http.StatusNotFound {
		t.Errorf("another account is %d", status)
	}

	// The pages, those of all accounts too.
	ops := *m
	ops.token, _ = c.object("token", "create", "--all-accounts", "--role", "administrator", "--name", "ops")["token"].(string)
	b, all := m.logIn(), ops.logIn()
	for _, route := range web.Routes() {
		path := fill.Replace(strings.Replace(route.Pattern, "/events/{id}", "/events/"+events[0].String(), 1))
		if route.Method != http.MethodGet || strings.Contains(path, "{name}") || strings.HasSuffix(path, "/live") {
			continue
		}
		walked++
		for visitor, want := range map[*pageVisitor]int{b: http.StatusOK + (http.StatusNotFound-http.StatusOK)*btoi(route.AllAccounts), all: http.StatusOK} {
			if status, body := visitor.get(path); status != want {
				t.Errorf("GET %s: %d, want %d: %s", path, status, want, body)
			}
		}
	}
	if walked < 25 {
		t.Errorf("%d routes only read", walked)
	}
	if status, body := b.post("/accounts/1/webhooks", url.Values{"url": {"http://127.0.0.1:9/by-page"}, "name": {"by page"}, "events": {"message_created"}}); status != http.StatusCreated {
		t.Errorf("the page that adds a webhook: %d %s", status, body)
	}
	if log := m.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, m.token) || strings.Contains(log, "whsec_") {
		t.Errorf("the log is\n%s", log)
	}
}

// TestNoFaceLetsInWithoutAToken: each route but the few that are everybody's.
func TestNoFaceLetsInWithoutAToken(t *testing.T) {
	t.Parallel()
	_, db, _ := routedStory(t)
	m := mountWeb(t, asRole(t, db, "web", "outrider_web"), func(c *config) { c.web.proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	m.token = "outrider_" + strings.Repeat("A", 43)
	// Wrong tokens are counted by who sends them, as the proxy says.
	for i := range 11 {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+"/api/v1/accounts/1/webhooks", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header["api_access_token"] = []string{m.token}
		request.Header.Set("X-Forwarded-For", "198.51.100.7")
		want := http.StatusUnauthorized
		if i == 10 {
			want = http.StatusTooManyRequests
		}
		if status, body := m.do(http.DefaultClient, request); status != want {
			t.Errorf("wrong token %d: %d %s", i, status, body)
		}
	}
	if status, _ := m.call("GET", "/api/v1/accounts/1/webhooks", nil); status != http.StatusUnauthorized {
		t.Errorf("from elsewhere it is %d", status)
	}
	if !strings.Contains(m.log.String(), "from=198.51.100.7") {
		t.Errorf("the log names the proxy for who sends:\n%s", m.log)
	}
	for _, path := range []string{"/", "/accounts/1/webhooks", "/accounts"} {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := m.do(client, request); status != http.StatusSeeOther || strings.Contains(body, "example.com") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestSecretsAreMasked where a setting says so.
func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	c, db, _ := routedStory(t)
	m := mountWeb(t, asRole(t, db, "web", "outrider_web"), func(c *config) { c.web.mask = true })
	m.token, _ = c.object("token", "create", "--account", "1", "--role", "administrator", "--name", "x")["token"].(string)
	if status, body := m.call("GET", "/api/v1/accounts/1/webhooks", nil); status != http.StatusOK || strings.Contains(body, "whsec_") {
		t.Errorf("%d %s", status, body)
	}
}

// pageVisitor is a browser that is logged in.
type pageVisitor struct {
	m      *mounted
	client *http.Client
	token  string
}

var formTokenField = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

func (m *mounted) logIn() *pageVisitor {
	m.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	v := &pageVisitor{m: m, client: &http.Client{Jar: jar, Timeout: time.Minute}}
	v.get("/login")
	if status, body := v.post("/login", url.Values{"token": {m.token}}); status != http.StatusOK || !strings.Contains(body, "/logout") {
		m.t.Fatalf("the log-in: %d %s", status, body)
	}
	return v
}

func (v *pageVisitor) get(path string) (int, string) {
	return v.send(http.MethodGet, path, "")
}

func (v *pageVisitor) post(path string, form url.Values) (int, string) {
	form.Set("form_token", v.token)
	return v.send(http.MethodPost, path, form.Encode())
}

func (v *pageVisitor) send(method, path, form string) (int, string) {
	v.m.t.Helper()
	request, err := http.NewRequestWithContext(v.m.t.Context(), method, v.m.url+path, strings.NewReader(form))
	if err != nil {
		v.m.t.Fatal(err)
	}
	if form != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	status, body := v.m.do(v.client, request)
	if found := formTokenField.FindStringSubmatch(body); found != nil {
		v.token = found[1]
	}
	return status, body
}
