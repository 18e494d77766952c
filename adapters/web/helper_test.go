package web_test

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// site is the pages on a database of the test's own. db, hooks and tokens are
// the superuser's.
type site struct {
	*httptest.Server
	db     *pgtest.DB
	hooks  *postgres.Webhooks
	tokens *postgres.Tokens
	log    *lines
}

// lines keeps a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newSite serves the pages. change may change their configuration.
func newSite(t *testing.T, change ...func(*web.Config)) *site {
	t.Helper()
	db := pgtest.New(t)
	own := asWeb(t, db)
	s := &site{db: db, hooks: postgres.NewWebhooks(db.SQL), tokens: postgres.NewTokens(db.SQL), log: &lines{}}
	config := web.Config{
		Sessions: postgres.NewTokens(own), Webhooks: postgres.NewWebhooks(own), Audit: postgres.NewAudit(own), Replays: postgres.NewReplayPlans(own),
		Version: "v1", Logger: slog.New(slog.NewTextHandler(s.log, nil)),
		Explain: func(err error) (problem, advice string, refused domain.Refusal) {
			if e, ok := errors.AsType[*postgres.Error](postgres.Explain(err)); ok {
				return e.Problem, e.Advice, e.Refusal()
			}
			return "", "", domain.RefusedNot
		},
	}
	for _, c := range change {
		c(&config)
	}
	handler, err := web.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(handler)
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the log:\n%s", s.log)
		}
	})
	return s
}

// asWeb connects as outrider web does: by a role that may no more than it needs.
func asWeb(t *testing.T, db *pgtest.DB) *sql.DB {
	t.Helper()
	role := "u_" + strings.ToLower(rand.Text()[:12])
	if _, err := db.SQL.ExecContext(t.Context(), `CREATE ROLE `+role+` LOGIN PASSWORD 'web' IN ROLE outrider_web`); err != nil {
		t.Fatal(err)
	}
	dsn, err := url.Parse(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(role, "web")
	own, err := sql.Open("postgres", dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	return own
}

// browser is somebody at the pages: it keeps cookies, and the token of the form
// on the page it saw last.
type browser struct {
	t    *testing.T
	site *site
	http.Client
	token string
	// header goes with each request.
	header http.Header
}

// page is an answer, redirects followed.
type page struct {
	status int
	path   string // with the query
	header http.Header
	body   string // without the places where URLs may break
}

func (s *site) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, site: s, Client: http.Client{Jar: jar, Timeout: 30 * time.Second}, header: http.Header{}}
}

// as gives a browser that is logged in.
func (s *site) as(t *testing.T, role domain.Role, account domain.AccountID) *browser {
	t.Helper()
	b := s.browser(t)
	_, token := s.newToken(t, role, account)
	b.logIn(token)
	return b
}

// newToken makes a token.
func (s *site) newToken(t *testing.T, role domain.Role, account domain.AccountID) (domain.TokenID, string) {
	t.Helper()
	id, token, err := s.tokens.Create(t.Context(), domain.Access{Name: "CRM <sync>", AccountID: account, Role: role}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return id, token
}

// exec changes the database behind the pages' back.
func (s *site) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := s.db.SQL.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// count counts rows.
func (s *site) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := s.db.SQL.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (b *browser) logIn(token string) {
	b.t.Helper()
	b.get("/login")
	if p := b.post("/login", "token", token); p.status != http.StatusOK || strings.HasPrefix(p.path, "/login") {
		b.t.Fatalf("log-in: %d at %s\n%s", p.status, p.path, p.body)
	}
}

// get reads a page.
func (b *browser) get(path string) page {
	b.t.Helper()
	return b.send(http.MethodGet, path, nil)
}

// status reads the status of a page, and leaves: it may go on for ever.
func (b *browser) status(path string) int {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.site.URL+path, http.NoBody)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// post sends a form with the token of the page before; fields are names and
// values by turns.
func (b *browser) post(path string, fields ...string) page {
	b.t.Helper()
	return b.postForm(path, b.form(fields...))
}

// form is a form with the token.
func (b *browser) form(fields ...string) url.Values {
	b.t.Helper()
	form := url.Values{"form_token": {b.token}}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return form
}

func (b *browser) postForm(path string, form url.Values) page {
	b.t.Helper()
	return b.send(http.MethodPost, path, form)
}

var tokenInput = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

func (b *browser) send(method, path string, form url.Values) page {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.site.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, values := range b.header {
		r.Header[name] = values
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	p := page{answer.StatusCode, answer.Request.URL.RequestURI(), answer.Header, strings.ReplaceAll(string(text), "<wbr>", "")}
	if found := tokenInput.FindStringSubmatch(p.body); found != nil {
		b.token = found[1]
	}
	return p
}

// shows checks that a page has a status and some texts.
func (p page) shows(t *testing.T, status int, texts ...string) {
	t.Helper()
	if p.status != status {
		t.Errorf("%s: status %d, want %d", p.path, p.status, status)
	}
	for _, text := range texts {
		if !strings.Contains(p.body, text) {
			t.Errorf("%s does not have %q:\n%s", p.path, text, p.body)
		}
	}
}

// lacks checks that a page has none of some texts.
func (p page) lacks(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(p.body, text) {
			t.Errorf("%s has %q:\n%s", p.path, text, p.body)
		}
	}
}
