package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// visit is a route of the site, and what is known of it.
type visit struct {
	// takes is what a token must have for it, in the account of the path; of a
	// route without an account, in all of them where all says so. 0 is for what
	// everybody may.
	takes domain.Permission
	all   bool
	// body is what is sent, as JSON or as a form. {url} is one that is new.
	body string
	// status is what those get who may.
	status int
	// expect is for a route that is like no other.
	expect func(*visitor) int
	// made is the state of the webhook or replay that the path names.
	made string
}

// visitor is somebody who comes to every route.
type visitor struct {
	name string
	domain.Access
	token string
	// session and form are those of the pages: a cookie, and what each form has.
	session, form string
}

// nobody says that a visitor is not let in at all.
func (v *visitor) nobody() bool { return v.Role == "" }

// walk is a site with two accounts, and those who come to it.
type walk struct {
	t        *testing.T
	db       *pgtest.DB
	hooks    *postgres.Webhooks
	plans    *postgres.ReplayPlans
	tokens   *postgres.Tokens
	url      string
	client   *http.Client
	visitors []*visitor
	events   map[domain.AccountID]uuid.UUID
	delivery map[domain.AccountID]uuid.UUID
	hook     map[domain.AccountID]domain.WebhookID
	static   string // the name of a file of the pages
	version  int64  // that of the webhook made last
	urls     int
}

// TestEveryRouteIsForThoseWhoMayAlone walks every route of the APIs and pages,
// with every role, for one account and for all, with the token of another
// account, with none, and with one that is revoked or expired: each answer is
// that of a table, and who is refused changes nothing. A route that the table
// does not have fails the test.
func TestEveryRouteIsForThoseWhoMayAlone(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	table := map[string]visit{}
	for _, face := range []map[string]visit{chatwootVisits, ownVisits, pageVisits, historyVisits} {
		maps.Copy(table, face)
	}
	routes := siteRoutes(t)
	for _, route := range routes {
		visit, ok := table[route]
		if !ok {
			t.Errorf("%s is in no table: who may do that?", route)
			continue
		}
		delete(table, route)
		for _, v := range w.visitors {
			w.come(route, &visit, v, 1)
		}
		// What belongs to another account is not there, however one is let in.
		if foreign := regexp.MustCompile(`\{(webhook|webhook_id|id|event_id|delivery_id|replay_id)\}`); foreign.MatchString(route) {
			w.come(route, &visit, w.visitor("administrator of 1"), 2)
			w.come(route, &visit, w.visitor("administrator of all"), 2)
		}
		if strings.HasPrefix(route, "POST ") && faceOf(route) == pages {
			w.withoutForm(route, &visit)
		}
	}
	for route := range table {
		t.Errorf("%s is in the table, and no route", route)
	}
	if len(routes) < 60 {
		t.Errorf("there are %d routes: where are the others?", len(routes))
	}
}

// TestNothingOfAnotherAccountIsReachedByItsNumber: ids in bodies and queries are
// looked for in the account of the path, as those in paths are.
func TestNothingOfAnotherAccountIsReachedByItsNumber(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	theirs := strings.NewReplacer("{event}", w.events[2].String(), "{hook}", fmt.Sprint(w.hook[2]), "{delivery}", w.delivery[2].String(), "{replay}", fmt.Sprint(w.newReplay(2, "requested")))
	for _, who := range []string{"administrator of 1", "administrator of all"} {
		v := w.visitor(who)
		for _, list := range []string{"events?webhook={hook}", "events?event_id={event}", "deliveries?webhook={hook}", "deliveries?event_id={event}", "deliveries?replay={replay}", "attempts?event_id={event}", "webhook-changes?webhook={hook}", "health?webhook={hook}", "stats?webhook={hook}"} {
			path := theirs.Replace("/api/outrider/v1/accounts/1/" + list)
			request := w.request(http.MethodGet, path, "")
			w.carry(request, "GET "+path, &visit{}, v)
			status, body := w.send(request)
			var answer struct{ Data []any }
			if err := json.Unmarshal([]byte(body), &answer); status != http.StatusOK && status != http.StatusNotFound || err != nil || len(answer.Data) != 0 {
				w.t.Errorf("%s by %s: %d %s", path, who, status, body)
			}
		}
		for _, c := range []struct{ path, body string }{
			{"replays", `{"event_ids":["{event}"]}`},
			{"replays", `{"since":"2026-06-01T00:00:00Z","until":"2026-08-01T00:00:00Z","webhook_id":{hook}}`},
			{fmt.Sprintf("replays/%d/run", w.newReplay(1, "")), `{"to_webhook_id":{hook}}`},
		} {
			path := "/api/outrider/v1/accounts/1/" + c.path
			request := w.request(http.MethodPost, path, "")
			w.carry(request, "POST "+path, &visit{body: theirs.Replace(c.body)}, v)
			if status, body := w.send(request); status < 400 && !strings.Contains(body, `"total":0`) || status >= 500 {
				w.t.Errorf("%s with %s by %s: %d %s", path, c.body, who, status, body)
			}
		}
		for _, c := range []struct{ path, body string }{
			{"/accounts/1/events/" + w.events[1].String() + "/again", "webhook={hook}"},
			{"/accounts/1/replays/new", "event_ids={event}"},
			{"/accounts/1/replays/new", "webhook={hook}&since=2026-06-01T00:00&until=2026-08-01T00:00"},
			{fmt.Sprintf("/accounts/1/replays/%d/run", w.newReplay(1, "")), "to={hook}"},
		} {
			request := w.request(http.MethodPost, c.path, "")
			w.carry(request, "POST "+c.path, &visit{body: theirs.Replace(c.body)}, v)
			if status, body := w.send(request); status == http.StatusForbidden || status >= 500 {
				w.t.Errorf("%s with %s by %s: %d %s", c.path, c.body, who, status, body)
			}
		}
	}
	// Nothing is planned of the other account's events, or for its webhook.
	for _, found := range []string{
		`SELECT count(*) FROM audit.replays WHERE requested_by LIKE '%for token%' AND total > 0 AND $1 > 0`,
		`SELECT count(*) FROM relay.replays WHERE account_id = 1 AND to_webhook_id = $1`,
		`SELECT count(*) FROM relay.replay_deliveries d JOIN relay.replays r USING (replay_id) WHERE r.account_id = 1 AND d.webhook_id = $1`,
	} {
		if n := query[int](t, w.db.SQL, found, int64(w.hook[2])); n != 0 {
			t.Errorf("%s finds %d", found, n)
		}
	}
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	db := pgtest.New(t)
	w := &walk{
		t: t, db: db, hooks: postgres.NewWebhooks(db.SQL), plans: postgres.NewReplayPlans(db.SQL), tokens: postgres.NewTokens(db.SQL),
		events: map[domain.AccountID]uuid.UUID{}, delivery: map[domain.AccountID]uuid.UUID{}, hook: map[domain.AccountID]domain.WebhookID{},
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	for _, account := range []domain.AccountID{1, 2} {
		id := uuid.New()
		hook := w.newHook(account, "")
		s := insertOf(t, db.SQL, account, "message_created", id, "")
		s.routed(domain.Routed{
			Routing:   domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: hook, Version: 1}}},
			EventName: "message_created", OrderingKey: "conversation:1",
		})
		s.delivered(hook, 0, 7, domain.Scheduled{At: after(time.Millisecond), Deadline: after(time.Hour), WebhookVersion: 1}, domain.Dead{At: after(4 * time.Millisecond), Reason: domain.DeadAttempts})
		w.events[account], w.hook[account] = id, hook
		w.delivery[account] = domain.NewDeliveryID(domain.NewNotificationID(account, id, hook), s.seq, 0)
	}
	// Behind a proxy, so that wrong tokens are not too many of one address.
	w.url = mountWeb(t, asRole(t, db, "web", "outrider_web"), func(c *config) { c.web.proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }).url
	for _, account := range []domain.AccountID{1, 0} {
		for _, role := range domain.Roles {
			w.let(role, account)
		}
	}
	w.let(domain.RoleAdministrator, 2)
	w.visitors = append(w.visitors, &visitor{name: "nobody"})
	for _, end := range []string{`revoked_at = clock_timestamp()`, `expires_at = clock_timestamp()`} {
		v := w.let(domain.RoleAdministrator, 0)
		mustExec(t, db.SQL, `UPDATE relay.tokens SET `+end+` WHERE token_id = $1`, int64(v.TokenID))
		v.name, v.Access = strings.Fields(end)[0], domain.Access{}
	}
	return w
}

// let makes a token and a session.
func (w *walk) let(role domain.Role, account domain.AccountID) *visitor {
	w.t.Helper()
	v := &visitor{Access: domain.Access{Name: "walk", AccountID: account, Role: role}}
	v.name = fmt.Sprintf("%s of %d", role, account)
	if account == 0 {
		v.name = fmt.Sprintf("%s of all", role)
	}
	var err error
	if v.TokenID, v.token, err = w.tokens.Create(w.t.Context(), v.Access, time.Now().Add(time.Hour)); err != nil {
		w.t.Fatal(err)
	}
	w.logIn(v)
	w.visitors = append(w.visitors, v)
	return v
}

var (
	formToken  = regexp.MustCompile(`name="form_token" value="([^"]+)"`)
	staticFile = regexp.MustCompile(`"/static/([^"?]+)`)
)

// logIn gives a visitor a new session of the pages, and finds out what its forms
// have.
func (w *walk) logIn(v *visitor) {
	w.t.Helper()
	var err error
	if v.session, err = w.tokens.OpenSession(w.t.Context(), v.token); err != nil {
		w.t.Fatal(err)
	}
	path := "/accounts"
	if v.AccountID != 0 {
		path = fmt.Sprintf("/accounts/%d/webhooks", v.AccountID)
	}
	request := w.request(http.MethodGet, path, "")
	request.Header.Set("Cookie", sessionOf(v))
	response, err := w.client.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	found := formToken.FindSubmatch(text)
	if found == nil {
		w.t.Fatalf("%s: %s has no form for %s:\n%s", path, response.Status, v.name, text)
	}
	v.form = string(found[1])
	if file := staticFile.FindSubmatch(text); file != nil {
		w.static = string(file[1])
	}
}

// sessionOf is the cookie of a visitor's session.
func sessionOf(v *visitor) string { return "outrider_session=" + v.session }

func (w *walk) visitor(name string) *visitor {
	w.t.Helper()
	i := slices.IndexFunc(w.visitors, func(v *visitor) bool { return v.name == name })
	if i < 0 {
		w.t.Fatalf("nobody is %s", name)
	}
	return w.visitors[i]
}

// walkSecret is that of each webhook.
const walkSecret = "a-secret-for-the-walk"

// newHook registers a webhook and brings it into a state.
func (w *walk) newHook(account domain.AccountID, state string) domain.WebhookID {
	w.t.Helper()
	hook, _, err := w.hooks.Change(w.t.Context(), account, 0, "test", domain.RegisterWebhook{
		Settings: domain.Settings{URL: w.newURL(), OrderHold: domain.DefaultOrderHold}, Secret: domain.CredentialFromText(walkSecret),
	})
	if err == nil && state == "paused" {
		_, _, err = w.hooks.Change(w.t.Context(), account, hook.ID, "test", domain.PauseWebhook{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.version = hook.Version
	return hook.ID
}

func (w *walk) newURL() string {
	w.urls++
	return fmt.Sprintf("https://example.com/%d", w.urls)
}

// newReplay plans a replay of an account's event and brings it into a state.
func (w *walk) newReplay(account domain.AccountID, state string) domain.ReplayID {
	w.t.Helper()
	id, err := w.plans.Plan(w.t.Context(), "test", domain.ReplaySelection{AccountID: account, EventIDs: []uuid.UUID{w.events[account]}})
	if err == nil && state != "" {
		err = w.plans.Request(w.t.Context(), "test", id, domain.ReplayRun{})
	}
	if err == nil && state == "paused" {
		_, err = w.plans.Pause(w.t.Context(), "test", id)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// pathOf fills a route's path: with account 1, and with things of the account
// that owns.
func (w *walk) pathOf(route string, visit *visit, owner domain.AccountID) string {
	w.t.Helper()
	var filled []string
	before := ""
	for part := range strings.SplitSeq(strings.TrimSuffix(pathIn(route), "{$}"), "/") {
		thing := part
		if part == "{id}" { // of what stands before it
			thing = "{" + strings.TrimSuffix(before, "s") + "_id}"
		}
		switch thing {
		case "{account}", "{account_id}":
			thing = "1"
		case "{webhook}", "{webhook_id}":
			thing = fmt.Sprint(w.newHook(owner, visit.made))
		case "{event_id}":
			thing = w.events[owner].String()
		case "{delivery_id}":
			thing = w.delivery[owner].String()
		case "{replay_id}":
			thing = fmt.Sprint(w.newReplay(owner, visit.made))
		case "{name}":
			thing = w.static
		}
		if strings.HasPrefix(thing, "{") {
			w.t.Fatalf("%s: nobody knows what to put in the place of %s", route, thing)
		}
		filled, before = append(filled, thing), part
	}
	return strings.Join(filled, "/")
}

func (w *walk) request(method, path, body string) *http.Request {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	return request
}

// The faces of the site.
const (
	chatwootAPI = "Chatwoot's API"
	ownAPI      = "Outrider's API"
	pages       = "pages"
)

func faceOf(route string) string {
	switch path := pathIn(route); {
	case strings.HasPrefix(path, "/api/v1/"):
		return chatwootAPI
	case strings.HasPrefix(path, "/api/"):
		return ownAPI
	}
	return pages
}

// pathIn is what stands behind the method, where there is one.
func pathIn(route string) string {
	_, rest, _ := strings.Cut(route, "/")
	return "/" + rest
}

// come lets a visitor come to a route of account 1, with things that an account
// owns, and compares the answer with what the table says.
func (w *walk) come(route string, visit *visit, v *visitor, owner domain.AccountID) {
	w.t.Helper()
	method := strings.TrimSuffix(route, pathIn(route))
	if method = strings.TrimSpace(method); method == "" {
		method = http.MethodGet
	}
	request := w.request(method, w.pathOf(route, visit, owner), "")
	w.carry(request, route, visit, v)
	if (route == "POST /login" || route == "POST /logout") && !v.nobody() {
		defer w.logIn(v) // the session ends
	}
	want := visit.answer(route, v, owner)
	unsafe := request.Method != http.MethodGet
	before := ""
	if unsafe {
		before = w.changes()
	}
	got, body := w.send(request)
	if got != want {
		w.t.Errorf("%s by %s, of account %d: %d, want %d", route, v.name, owner, got, want)
	}
	shows := visit.takes == domain.Reveal || faceOf(route) == chatwootAPI // to those whom the answer is 200
	if strings.Contains(body, walkSecret) && (!shows || got != http.StatusOK) {
		w.t.Errorf("%s by %s, of account %d: the secret is in the answer", route, v.name, owner)
	}
	if unsafe && want >= http.StatusBadRequest {
		if after := w.changes(); after != before {
			w.t.Errorf("%s by %s, of account %d: refused, and changes %s to %s", route, v.name, owner, before, after)
		}
	}
}

// carry puts into a request what the visitor has, and the body.
func (w *walk) carry(request *http.Request, route string, visit *visit, v *visitor) {
	w.t.Helper()
	body := strings.ReplaceAll(visit.body, "{url}", w.newURL())
	body = strings.ReplaceAll(body, "{event}", w.events[1].String())
	body = strings.ReplaceAll(body, "{hook}", fmt.Sprint(w.hook[1]))
	body = strings.ReplaceAll(body, "{token}", v.token)
	body = strings.ReplaceAll(body, "{version}", fmt.Sprint(w.version))
	request.Header.Set("X-Forwarded-For", fmt.Sprintf("198.18.%d.%d", w.urls>>8, w.urls&255))
	switch face := faceOf(route); face {
	case pages:
		if v.session != "" {
			request.Header.Set("Cookie", sessionOf(v))
		}
		if request.Method == http.MethodPost {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			body = strings.TrimPrefix(body+"&form_token="+url.QueryEscape(v.form), "&")
		}
	default:
		if v.token != "" && face == chatwootAPI {
			request.Header.Set("Api_access_token", v.token)
		} else if v.token != "" {
			request.Header.Set("Authorization", "Bearer "+v.token)
		}
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		request.Header.Set("If-Match", "*")
	}
	if strings.HasSuffix(route, "/live") {
		request.Header.Set("Accept", "text/event-stream")
	}
	request.Body, request.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
}

// send makes a request. Of a stream, which has no end, there is no body.
func (w *walk) send(request *http.Request) (status int, body string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(request.Context())
	defer cancel()
	response, err := w.client.Do(request.WithContext(ctx))
	if err != nil {
		w.t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	defer func() { _ = response.Body.Close() }()
	if strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		return response.StatusCode, ""
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", request.Method, request.URL, err)
	}
	return response.StatusCode, string(text)
}

// withoutForm: what no page of the session sent, nobody meant.
func (w *walk) withoutForm(route string, visit *visit) {
	w.t.Helper()
	admin := w.visitor("administrator of 1")
	for name, spoil := range map[string]func(*visitor, *http.Request){
		"no token of the form":    func(*visitor, *http.Request) {},
		"another session's token": func(v *visitor, _ *http.Request) { v.form = w.visitor("administrator of all").form },
		"a page of another site":  func(v *visitor, r *http.Request) { v.form = admin.form; r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a page of another origin": func(v *visitor, r *http.Request) {
			v.form = admin.form
			r.Header.Set("Origin", "https://elsewhere.example")
		},
		"a page of the same domain": func(v *visitor, r *http.Request) { v.form = admin.form; r.Header.Set("Sec-Fetch-Site", "same-site") },
	} {
		v := *admin
		v.form = ""
		request := w.request(http.MethodPost, w.pathOf(route, visit, 1), "")
		spoil(&v, request)
		before := w.changes()
		w.carry(request, route, visit, &v)
		if got, _ := w.send(request); got != http.StatusForbidden {
			w.t.Errorf("%s with %s: %d, want 403", route, name, got)
		}
		if after := w.changes(); after != before {
			w.t.Errorf("%s with %s: refused, and changes %s to %s", route, name, before, after)
		}
	}
}

// changes tells whether anything was changed.
func (w *walk) changes() string {
	w.t.Helper()
	return query[string](w.t, w.db.SQL, `
SELECT format('%s changes of webhooks, %s replays, %s steps of them, %s events, %s sessions',
       (SELECT count(*) FROM relay.webhook_log), (SELECT count(*) FROM relay.replays), (SELECT count(*) FROM relay.replay_log),
       (SELECT count(*) FROM outbox.events), (SELECT count(*) FROM relay.sessions))`)
}

// answer is the status that a visitor gets at a route.
func (visit *visit) answer(route string, v *visitor, owner domain.AccountID) int {
	if visit.expect != nil {
		return visit.expect(v)
	}
	if visit.takes == 0 {
		return visit.status
	}
	// The account of the path is 1.
	sees, may := v.Sees(1), v.May(visit.takes, 1)
	if !strings.Contains(route, "{account") {
		sees, may = !v.nobody(), !v.nobody() && v.Role.May(visit.takes)
		if visit.all {
			may = may && v.AccountID == 0
		}
	}
	switch face := faceOf(route); {
	case v.nobody() && face == pages && strings.HasPrefix(route, "GET "):
		return http.StatusSeeOther // to the log-in
	case v.nobody():
		return http.StatusUnauthorized
	case face == chatwootAPI && (!sees || !may):
		return http.StatusUnauthorized // in Chatwoot's words
	case !sees, face == pages && visit.all && v.AccountID != 0:
		return http.StatusNotFound
	case !may:
		return http.StatusForbidden
	case owner != 1:
		return http.StatusNotFound
	}
	return visit.status
}
