package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The tokens of a site.
const (
	ofSeven    = "administrator-of-7"
	ofAll      = "administrator-of-all"
	operates   = "operator-of-7"
	views      = "viewer-of-7"
	viewsAll   = "viewer-of-all"
	ofEight    = "administrator-of-8"
	ofNobody   = "no-such-token"
	sevenHooks = "/api/v1/accounts/7/webhooks"
)

// site is the APIs on a server, and a database of its own.
type site struct {
	t      *testing.T
	db     *pgtest.DB
	hooks  *postgres.Webhooks
	server *httptest.Server
	log    lockedBuffer
	now    time.Time
}

func newSite(t *testing.T, change func(*httpapi.Config)) *site {
	t.Helper()
	s := &site{t: t, db: pgtest.New(t), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	s.hooks = postgres.NewWebhooks(s.db.SQL)
	tokens := map[string]domain.Access{
		ofSeven: {TokenID: 1, Name: "CRM sync", AccountID: 7, Role: domain.RoleAdministrator}, ofAll: {TokenID: 2, Name: "all", Role: domain.RoleAdministrator},
		operates: {TokenID: 3, AccountID: 7, Role: domain.RoleOperator}, views: {TokenID: 4, AccountID: 7, Role: domain.RoleViewer},
		viewsAll: {TokenID: 5, Role: domain.RoleViewer}, ofEight: {TokenID: 6, AccountID: 8, Role: domain.RoleAdministrator},
	}
	config := httpapi.Config{
		Tokens: &book{tokens: tokens}, Webhooks: s.hooks, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Clock: func() time.Time { return s.now },
	}
	if change != nil {
		change(&config)
	}
	s.serve(config)
	return s
}

func (s *site) serve(config httpapi.Config) {
	s.server = httptest.NewServer(httpapi.New(config))
	s.t.Cleanup(s.server.Close)
}

// answer is what came back.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// send makes a request with a token, "" for none, of a body in a form, "" for
// JSON.
func (s *site) send(token, method, path, form, body string) *answer {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		request.Header["api_access_token"] = []string{token} // as scripts spell it
	}
	switch form {
	case "":
		request.Header.Set("Content-Type", "application/json")
	case "none":
	default:
		request.Header.Set("Content-Type", form)
	}
	response, err := s.server.Client().Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(text) > 0 && response.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		s.t.Errorf("%s %s: the answer is of the type %q", method, path, response.Header.Get("Content-Type"))
	}
	return &answer{s.t, response.StatusCode, response.Header, string(text)}
}

// want checks an answer: bodies are compared byte for byte, with 41 in the place
// of each id of a webhook and "hidden" in that of each secret.
func (a *answer) want(status int, body string) {
	a.t.Helper()
	if got := faceless(a.body); a.status != status || got != body {
		a.t.Errorf("got  %d %s\nwant %d %s", a.status, got, status, body)
	}
}

var (
	webhookIDs = regexp.MustCompile(`\{"id":\d+,"name":("(?:[^"\\]|\\.)*"|null),"url"`)
	secrets    = regexp.MustCompile(`"secret":"(?:whsec_[A-Za-z0-9+/]{43}=|[A-Za-z0-9]{24})"`)
)

func faceless(body string) string {
	body = webhookIDs.ReplaceAllString(body, `{"id":41,"name":$1,"url"`)
	return secrets.ReplaceAllString(body, `"secret":"hidden"`)
}

// webhook reads the one webhook of an answer.
func (a *answer) webhook() (id domain.WebhookID, secret string) {
	a.t.Helper()
	var read struct {
		Payload struct {
			Webhook struct {
				ID     domain.WebhookID
				Secret string
			}
		}
	}
	if err := json.Unmarshal([]byte(a.body), &read); err != nil || a.status != http.StatusOK || read.Payload.Webhook.ID == 0 {
		a.t.Fatalf("got %d %s", a.status, a.body)
	}
	return read.Payload.Webhook.ID, read.Payload.Webhook.Secret
}

// sample reads a file of testdata/chatwoot as Chatwoot would write it: without
// line breaks.
func sample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "chatwoot", name))
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		t.Fatal(err)
	}
	return compact.String()
}

// lockedBuffer is written to by a server's goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
