package httpapi_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

const v1Base = "/api/outrider/v1"

// v1Rig is Outrider's own API on a database, behind real HTTP.
type v1Rig struct {
	t        *testing.T
	db       *pgtest.DB
	base     string
	document *v1Document
	log      *lockedBuffer
	// admin may all in all accounts.
	admin string
}

func newV1Rig(t *testing.T, changes ...func(*httpapi.Config)) *v1Rig {
	t.Helper()
	r := &v1Rig{t: t, db: pgtest.New(t), log: &lockedBuffer{}}
	web := r.webUser()
	config := httpapi.Config{
		Tokens: postgres.NewTokens(web), RequestsPerMinute: 1_000_000, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Webhooks: postgres.NewWebhooks(web), History: postgres.NewAudit(web), Replays: postgres.NewReplayPlans(web),
		Relays: func(ctx context.Context, ended bool) ([]audit.Relay, error) {
			return postgres.ListRelays(ctx, web, ended)
		},
		Addresses: domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Explain:   postgres.Explain,
	}
	for _, change := range changes {
		change(&config)
	}
	server := httptest.NewServer(httpapi.New(config))
	t.Cleanup(server.Close)
	r.base = server.URL
	r.admin = r.token(0, domain.RoleAdministrator)
	response, body := r.send(http.MethodGet, v1Base+"/openapi.json", "", "", nil)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the document: %s", response.Status)
	}
	r.document = readDocument(t, body)
	return r
}

// webUser connects as what outrider web is: with its rights and no more.
func (r *v1Rig) webUser() *sql.DB {
	r.t.Helper()
	role := "web_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	r.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'hunter2hunter2' IN ROLE outrider_web`)
	dsn, err := url.Parse(r.db.DSN)
	if err != nil {
		r.t.Fatal(err)
	}
	dsn.User = url.UserPassword(role, "hunter2hunter2")
	web, err := postgres.Open(dsn.String(), "web")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = web.Close() })
	return web
}

// token makes a token; account 0 is all.
func (r *v1Rig) token(account domain.AccountID, role domain.Role) string {
	r.t.Helper()
	_, token, err := postgres.NewTokens(r.db.SQL).Create(r.t.Context(), domain.Access{Name: "test " + string(role), AccountID: account, Role: role}, time.Time{})
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

func (r *v1Rig) send(method, path, token, body string, header http.Header) (*http.Response, []byte) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" && request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, text
}

// v1Answer is an answer that is as the document says.
type v1Answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	text   string
	body   map[string]any
}

// call sends a request below an account and checks that the answer is one that
// the document has.
func (r *v1Rig) call(method, path, token, body string, header ...string) *v1Answer {
	r.t.Helper()
	sent := http.Header{}
	for pair := range slices.Chunk(header, 2) {
		sent.Add(pair[0], pair[1])
	}
	response, text := r.send(method, v1Base+path, token, body, sent)
	a := &v1Answer{t: r.t, what: method + " " + path, status: response.StatusCode, header: response.Header, text: string(text)}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &a.body); err != nil {
			r.t.Errorf("%s: %d with %s", a.what, a.status, text)
		}
	}
	if err := r.document.check(method, path, response, text); err != nil {
		r.t.Errorf("%s: %d %s\n%v", a.what, a.status, text, err)
	}
	return a
}

// ok calls as the administrator, and wants a status.
func (r *v1Rig) ok(status int, method, path, body string, header ...string) *v1Answer {
	r.t.Helper()
	a := r.call(method, path, r.admin, body, header...)
	a.is(status)
	return a
}

// is wants a status.
func (a *v1Answer) is(status int, words ...string) {
	a.t.Helper()
	if a.status != status {
		a.t.Errorf("%s: %d %s, want %d", a.what, a.status, a.text, status)
	}
	for _, word := range words {
		if !strings.Contains(a.text, word) {
			a.t.Errorf("%s: %q is not in %s", a.what, word, a.text)
		}
	}
}

// refuses calls as the administrator, and wants a problem with words in it.
func (r *v1Rig) refuses(status int, words []string, method, path, body string, header ...string) {
	r.t.Helper()
	r.call(method, path, r.admin, body, header...).is(status, words...)
}

// at gives what stands at a path of members.
func (a *v1Answer) at(path ...string) any {
	a.t.Helper()
	var v any = a.body
	for _, name := range path {
		object, ok := v.(map[string]any)
		if !ok {
			a.t.Fatalf("%s: there is no %v in %s", a.what, path, a.text)
		}
		v = object[name]
	}
	return v
}

// data gives the records of a list.
func (a *v1Answer) data() []map[string]any {
	a.t.Helper()
	list, ok := a.body["data"].([]any)
	if !ok {
		a.t.Fatalf("%s: there is no data in %d %s", a.what, a.status, a.text)
	}
	records := make([]map[string]any, len(list))
	for i := range list {
		records[i], _ = list[i].(map[string]any)
	}
	return records
}

// exec changes the database.
func (r *v1Rig) exec(statement string, args ...any) {
	r.t.Helper()
	if _, err := r.db.SQL.ExecContext(r.t.Context(), statement, args...); err != nil {
		r.t.Fatalf("%v in %s", err, statement)
	}
}
