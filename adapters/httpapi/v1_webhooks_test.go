package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	hooksOf7 = "/accounts/7/webhooks"
	jsonType = "application/json"
)

// register adds a webhook to account 7 and gives its path and ETag.
func (r *v1Rig) register(settings string) (path, etag string) {
	r.t.Helper()
	a := r.ok(http.StatusCreated, http.MethodPost, hooksOf7, settings)
	return hooksOf7 + "/" + fmt.Sprint(a.at("id")), a.header.Get("ETag")
}

func TestV1WebhookLife(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	made := r.ok(http.StatusCreated, http.MethodPost, hooksOf7, `{"url": "https://user:hunter2hunter2@example.com/hooks?a=b&c"}`)
	path := hooksOf7 + "/" + fmt.Sprint(made.at("id"))
	if got := made.header.Get("Location"); got != v1Base+path {
		t.Errorf("it is at %s, want %s", got, path)
	}
	for member, want := range map[string]any{
		"account_id": 7.0, "version": 1.0, "state": "enabled", "name": "", "url": "https://example.com/hooks?a=b&c", "inbox_id": nil, "timeout": "5s",
		"max_concurrency": 16.0, "order_hold": "30s", "deadline": "168h0m0s", "retries": nil, "rate_limit": nil, "breaker": "closed", "has_credential": true,
		"previous_secret_until": nil, "previous_secret": nil,
	} {
		if got := made.at(member); got != want {
			t.Errorf("%s is %v, want %v", member, got, want)
		}
	}
	if secret, _ := made.at("secret").(string); !strings.HasPrefix(secret, "whsec_") || len(of[[]any](made.at("subscriptions"))) != 8 {
		t.Errorf("it is %s", made.text)
	}

	got := r.ok(http.StatusOK, http.MethodGet, path, "")
	etag := got.header.Get("ETag")
	if _, there := got.body["secret"]; there || etag != made.header.Get("ETag") || etag != fmt.Sprintf(`"%v-1"`, made.at("id")) || strings.Contains(got.text, "hunter2") {
		t.Errorf("read again, with the ETag %s, it is %s", etag, got.text)
	}
	for _, known := range []string{etag, "W/" + etag, `"1-0", ` + etag, "*"} {
		if a := r.ok(http.StatusNotModified, http.MethodGet, path, "", "If-None-Match", known); a.header.Get("ETag") != etag {
			t.Errorf("the answer to %s has the ETag %s", known, a.header.Get("ETag"))
		}
	}
	r.ok(http.StatusOK, http.MethodGet, path, "", "If-None-Match", `"1-0"`)
	r.ok(http.StatusOK, http.MethodHead, path, "")

	// Changed, all of it and then back again.
	all := r.ok(http.StatusOK, http.MethodPatch, path, `{"url": "https://example.com/hooks?a=b&c", "name": "CRM", "subscriptions": ["message_created"], "inbox_id": 3, "timeout": "1500ms",
		"max_concurrency": 2e0, "order_hold": "forever", "deadline": "2d", "retries": ["5s", "1m"], "rate_limit": 0.5, "headers": {"X-Api-Key": "open-sesame", "X-B": "b"}}`, "If-Match", etag)
	for member, want := range map[string]any{
		"name": "CRM", "inbox_id": 3.0, "timeout": "1.5s", "max_concurrency": 2.0, "order_hold": "forever", "deadline": "48h0m0s", "rate_limit": 0.5, "has_credential": true, "version": 2.0,
	} {
		if got := all.at(member); got != want {
			t.Errorf("%s is %v, want %v", member, got, want)
		}
	}
	if retries := of[[]any](all.at("retries")); !slices.Equal(retries, []any{"5s", "1m0s"}) || strings.Contains(all.text, "open-sesame") {
		t.Errorf("it is %s", all.text)
	}
	if headers := of[object](all.at("headers")); len(headers) != 2 || headers["X-Api-Key"] != nil {
		t.Errorf("its headers are %v", headers)
	}
	back := r.ok(http.StatusOK, http.MethodPatch, path, `{"inbox_id": null, "retries": [], "rate_limit": null, "order_hold": "0", "headers": {"x-api-key": null}}`, "If-Match", all.header.Get("ETag"))
	if back.at("inbox_id") != nil || back.at("rate_limit") != nil || back.at("order_hold") != "0s" || len(of[object](back.at("headers"))) != 1 || len(of[[]any](back.at("retries"))) != 0 || back.at("retries") == nil {
		t.Errorf("it is %s", back.text)
	}
	if again := r.ok(http.StatusOK, http.MethodPatch, path, `{"retries": null}`, "If-Match", "*"); again.at("retries") != nil || again.at("name") != "CRM" {
		t.Errorf("it is %s", again.text)
	}
	if same := r.ok(http.StatusOK, http.MethodPatch, path, `{}`, "If-Match", "*"); same.at("version") != 4.0 {
		t.Errorf("a change of nothing made version %v", same.at("version"))
	}

	r.ok(http.StatusNoContent, http.MethodDelete, path, "", "If-Match", "*")
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		body := ""
		if method == http.MethodPatch {
			body = "{}"
		}
		r.refuses(http.StatusNotFound, []string{"no such webhook"}, method, path, body, "If-Match", "*")
	}
	if left := r.ok(http.StatusOK, http.MethodGet, hooksOf7, "").data(); len(left) != 0 {
		t.Errorf("the list has %v", left)
	}
}

func TestV1WebhooksAreListedByPages(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	for n := range 5 {
		r.register(fmt.Sprintf(`{"url": "https://example.com/%d"}`, n))
	}
	r.ok(http.StatusCreated, http.MethodPost, "/accounts/8/webhooks", `{"url": "https://example.com/8"}`)
	for _, limit := range []int{1, 2, 5, 6} {
		if got := len(r.walk(fmt.Sprintf("%s?limit=%d", hooksOf7, limit), limit)); got != 5 {
			t.Errorf("in pages of %d there are %d", limit, got)
		}
	}
	for _, query := range []string{"limit=0", "limit=201", "limit=x", "limit=", "limit=1&limit=2", "cursor=x", "cursor=ZXZlbnRzIDE", "cursor=d2ViaG9va3MgeA", "page=1", "limit=1%00"} {
		r.refuses(http.StatusUnprocessableEntity, []string{`"field":"query.`}, http.MethodGet, hooksOf7+"?"+query, "")
	}
	for _, query := range []string{"limit=%zz", "a;b"} {
		r.refuses(http.StatusBadRequest, []string{"query cannot be read"}, http.MethodGet, hooksOf7+"?"+query, "")
	}
}

// walk reads a list to its end, by the links between its pages.
func (r *v1Rig) walk(path string, limit int) (records []map[string]any) {
	r.t.Helper()
	for pages := 0; path != ""; pages++ {
		a := r.ok(http.StatusOK, http.MethodGet, path, "")
		if len(a.data()) > limit || pages > 100 {
			r.t.Fatalf("page %d has %d records", pages, len(a.data()))
		}
		records = append(records, a.data()...)
		next, _ := a.at("next_cursor").(string)
		link := a.header.Get("Link")
		if next == "" {
			if link != "" {
				r.t.Errorf("the last page has the link %s", link)
			}
			return records
		}
		target, relation, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if !strings.Contains(target, "cursor="+next) || relation != `; rel="next"` {
			r.t.Fatalf("the link is %s, the cursor %s", link, next)
		}
		path = strings.TrimPrefix(target, v1Base)
	}
	return records
}

func TestV1WebhookProblems(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	path, etag := r.register(`{"url": "https://example.com/taken"}`)
	other, _ := r.register(`{"url": "https://example.com/other"}`)
	r.ok(http.StatusCreated, http.MethodPost, "/accounts/8/webhooks", `{"url": "https://example.com/taken"}`)
	id := path[strings.LastIndex(path, "/")+1:]

	// Created again: the answer names the one there is.
	taken := r.call(http.MethodPost, hooksOf7, r.admin, `{"url": "https://user:pw@example.com/taken"}`)
	taken.is(http.StatusConflict, "body.url")
	if fmt.Sprint(taken.at("webhook_id")) != id {
		t.Errorf("it is taken by %v, want %s", taken.at("webhook_id"), id)
	}
	r.refuses(http.StatusConflict, []string{`"webhook_id":` + id}, http.MethodPatch, other, `{"url": "https://example.com/taken"}`, "If-Match", "*")

	long := strings.Repeat("x", 3000)
	for _, refused := range []struct {
		status int
		field  string
		body   string
	}{
		{422, "body.url", `{}`},
		{422, "body.url", `{"url": ""}`},
		{422, "body.url", `{"url": null}`},
		{422, "body.url", `{"url": 5}`},
		{422, "body.url", `{"url": "ftp://example.com"}`},
		{422, "body.url", `{"url": "https://10.0.0.1/"}`},
		{422, "body.url", `{"url": "https://example.com/` + long + `"}`},
		{422, "body.Url", `{"url": "https://example.com/", "Url": "https://example.com/"}`},
		{422, "body.colour", `{"url": "https://example.com/", "colour": "red"}`},
		{422, "body.name", `{"url": "https://example.com/", "name": null}`},
		{422, "body.name", `{"url": "https://example.com/", "name": ["x"]}`},
		{422, "body.subscriptions", `{"url": "https://example.com/", "subscriptions": []}`},
		{422, "body.subscriptions", `{"url": "https://example.com/", "subscriptions": null}`},
		{422, "body.subscriptions", `{"url": "https://example.com/", "subscriptions": ["Nope"]}`},
		{422, "body.subscriptions[1]", `{"url": "https://example.com/", "subscriptions": ["a", 1]}`},
		{422, "body.inbox_id", `{"url": "https://example.com/", "inbox_id": 0}`},
		{422, "body.inbox_id", `{"url": "https://example.com/", "inbox_id": 1.5}`},
		{422, "body.inbox_id", `{"url": "https://example.com/", "inbox_id": 1e30}`},
		{422, "body.timeout", `{"url": "https://example.com/", "timeout": 5}`},
		{422, "body.timeout", `{"url": "https://example.com/", "timeout": "0s"}`},
		{422, "body.timeout", `{"url": "https://example.com/", "timeout": "90s"}`},
		{422, "body.timeout", `{"url": "https://example.com/", "timeout": "soon"}`},
		{422, "body.max_concurrency", `{"url": "https://example.com/", "max_concurrency": 257}`},
		{422, "body.order_hold", `{"url": "https://example.com/", "order_hold": "-1s"}`},
		{422, "body.deadline", `{"url": "https://example.com/", "deadline": "8d"}`},
		{422, "body.deadline", `{"url": "https://example.com/", "deadline": "0"}`},
		{422, "body.retries", `{"url": "https://example.com/", "retries": ["1ms"]}`},
		{422, "body.retries", `{"url": "https://example.com/", "retries": ["x"]}`},
		{422, "body.rate_limit", `{"url": "https://example.com/", "rate_limit": 0.001}`},
		{422, "body.rate_limit", `{"url": "https://example.com/", "rate_limit": -1}`},
		{422, "body.headers", `{"url": "https://example.com/", "headers": {"Host": "x"}}`},
		{422, "body.headers", `{"url": "https://example.com/", "headers": {"X-A": null}}`},
		{422, "body.headers", `{"url": "https://example.com/", "headers": {"X-A": ""}}`},
		{422, "body.headers.X-A", `{"url": "https://example.com/", "headers": {"X-A": 1}}`},
		{422, "body.secret", `{"url": "https://example.com/", "secret": "short"}`},
		{422, "body.secret", `{"url": "https://example.com/", "secret": null}`},
		{422, "body", `[]`},
		{422, "body", `null`},
		{422, "body", `"url"`},
		{400, "body", `{`},
		{400, "body", `{"url": "https://example.com/"} {}`},
		{400, "body", `{"url": "https://example.com/", "url": "https://example.org/"}`},
		{400, "body", `{"url": "https://example.com/", "headers": {"X-A": "a", "X-A": "b"}}`},
		{400, "body", "{\"url\": \"https://example.com/\", \"name\": \"\xff\"}"},
		{400, "body", `{"url": "https://example.com/", "name": "\u0000"}`},
		{400, "body", strings.Repeat("[", 40)},
	} {
		a := r.call(http.MethodPost, hooksOf7, r.admin, refused.body)
		a.is(refused.status, fmt.Sprintf("%q:%q", "field", refused.field))
		if strings.Contains(a.text, "Go ") || strings.Contains(a.text, "httpapi") {
			t.Errorf("%s shows how it is made: %s", refused.body, a.text)
		}
	}
	// All that is wrong at once, and no value of it.
	for _, body := range []string{
		`{"url": "ftp://user:hunter2hunter2@example.com", "timeout": "90s", "headers": {"X-A": "hunter2\n"}, "secret": "hunter2"}`,
		`{"url": ["https://hunter2"], "timeout": "5s", "headers": {"X-A": ["hunter2"]}, "secret": {"hunter2": 1}}`,
		`{"secret": "hunter2`,
	} {
		a := r.call(http.MethodPost, hooksOf7, r.admin, body)
		if a.status < 400 || strings.Contains(a.text, "hunter2") {
			t.Errorf("the answer repeats a secret: %s", a.text)
		}
	}

	r.refuses(http.StatusBadRequest, []string{"body"}, http.MethodPost, hooksOf7, "")
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16; +x;", "x"} {
		a := r.call(http.MethodPost, hooksOf7, r.admin, `{"url": "https://example.com/new"}`, "Content-Type", kind)
		if a.status != http.StatusUnsupportedMediaType {
			t.Errorf("of the type %q: %d %s", kind, a.status, a.text)
		}
	}
	r.refuses(http.StatusRequestEntityTooLarge, []string{"1048576"}, http.MethodPost, hooksOf7, `{"url": "https://example.com/new", "name": "`+strings.Repeat("x", 1<<20)+`"}`)
	r.refuses(http.StatusUnprocessableEntity, []string{`"field":"body"`, "takes none"}, http.MethodPost, path+"/pause", `{"reason": "x"}`)

	// Preconditions.
	for _, method := range []string{http.MethodPatch, http.MethodDelete} {
		body := ""
		if method == http.MethodPatch {
			body = `{"name": "x"}`
		}
		r.refuses(http.StatusPreconditionRequired, []string{"header.If-Match", "ETag"}, method, path, body)
		r.refuses(http.StatusUnprocessableEntity, []string{"header.If-Match"}, method, path, body, "If-Match", "7-1")
		for _, stale := range []string{`"` + id + `-99"`, "W/" + etag, `"x", "999-1"`, `""`} {
			r.refuses(http.StatusPreconditionFailed, []string{"header.If-Match", "changed"}, method, path, body, "If-Match", stale)
		}
	}
	r.refuses(http.StatusPreconditionFailed, nil, http.MethodPost, path+"/pause", "", "If-Match", `"1-99"`)
	if a := r.ok(http.StatusOK, http.MethodPatch, path, `{"name": "x"}`, "If-Match", `"9-9" , `+etag); a.at("name") != "x" {
		t.Errorf("it is %s", a.text)
	}

	// What is not there.
	for _, missing := range []string{"/accounts/8/webhooks/" + id, hooksOf7 + "/99"} {
		r.refuses(http.StatusNotFound, nil, http.MethodGet, missing, "")
		r.refuses(http.StatusNotFound, nil, http.MethodPatch, missing, `{}`, "If-Match", "*")
		r.refuses(http.StatusNotFound, nil, http.MethodDelete, missing, "", "If-Match", "*")
		for _, action := range []string{"pause", "enable", "disable", "close-breaker", "test", "rotate-secret", "reveal-secret"} {
			r.refuses(http.StatusNotFound, nil, http.MethodPost, missing+"/"+action, "")
		}
	}
	for _, wrong := range []string{"x", "0", "-1", "1.0", "99999999999999999999"} {
		r.refuses(http.StatusUnprocessableEntity, []string{"path.webhook_id"}, http.MethodGet, hooksOf7+"/"+wrong, "")
	}
	for _, wrong := range []string{"x", "0", "-2", "99999999999999999999", "7%00"} {
		r.refuses(http.StatusNotFound, []string{"account"}, http.MethodGet, "/accounts/"+wrong+"/webhooks", "")
	}
	r.ok(http.StatusOK, http.MethodGet, "/accounts/-1/webhooks", "")
}

// TestV1ChangesThatMeet: of several that were decided on the same version one is
// made, and those that are made whatever the webhook is are all made.
func TestV1ChangesThatMeet(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	path, etag := r.register(`{"url": "https://example.com/"}`)
	const clients = 6
	at := func(change func(n int) *v1Answer) (statuses map[int]int) {
		var all sync.WaitGroup
		var mu sync.Mutex
		statuses = map[int]int{}
		for n := range clients {
			all.Go(func() {
				a := change(n)
				mu.Lock()
				defer mu.Unlock()
				statuses[a.status]++
			})
		}
		all.Wait()
		return statuses
	}
	got := at(func(n int) *v1Answer {
		return r.call(http.MethodPatch, path, r.admin, fmt.Sprintf(`{"name": "client %d"}`, n), "If-Match", etag)
	})
	if got[http.StatusOK] != 1 || got[http.StatusPreconditionFailed] != clients-1 {
		t.Errorf("the answers are %v", got)
	}
	fields := []string{`"name": "all"`, `"timeout": "7s"`, `"max_concurrency": 3`, `"order_hold": "1m"`, `"rate_limit": 5`, `"inbox_id": 9`}
	got = at(func(n int) *v1Answer {
		for {
			// Five others may be faster each time, which is more often than it tries.
			if a := r.call(http.MethodPatch, path, r.admin, "{"+fields[n]+"}", "If-Match", "*"); a.status != http.StatusPreconditionFailed {
				return a
			}
		}
	})
	a := r.ok(http.StatusOK, http.MethodGet, path, "")
	if got[http.StatusOK] != clients || a.at("name") != "all" || a.at("timeout") != "7s" || a.at("max_concurrency") != 3.0 || a.at("order_hold") != "1m0s" || a.at("rate_limit") != 5.0 || a.at("inbox_id") != 9.0 {
		t.Errorf("the answers are %v, the webhook %s", got, a.text)
	}
}

func TestV1WebhookActions(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	path, etag := r.register(`{"url": "https://example.com/", "headers": {"X-Api-Key": "open-sesame"}, "secret": "opaque-secret"}`)
	post := func(action, body string, header ...string) *v1Answer {
		t.Helper()
		return r.ok(http.StatusOK, http.MethodPost, path+"/"+action, body, header...)
	}
	paused := post("pause", "", "If-Match", etag)
	if paused.at("state") != "paused" || paused.header.Get("ETag") == etag {
		t.Errorf("paused it is %s", paused.text)
	}
	if again := post("pause", ""); again.header.Get("ETag") != paused.header.Get("ETag") {
		t.Errorf("paused again it has the ETag %s", again.header.Get("ETag"))
	}
	r.refuses(http.StatusConflict, []string{"paused"}, http.MethodPost, path+"/test", "")
	if enabled := post("enable", ""); enabled.at("state") != "enabled" || enabled.body["missed"] != nil {
		t.Errorf("enabled it is %s", enabled.text)
	}
	post("disable", `{"reason": "the receiver moves"}`)
	post("disable", "")
	r.refuses(http.StatusUnprocessableEntity, []string{"body.reason"}, http.MethodPost, path+"/disable", `{"reason": null}`)
	changes := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/webhook-changes?change=disabled", "").data()
	if len(changes) != 1 || of[object](changes[0]["after"])["reason"] != "the receiver moves" || changes[0]["actor"] != "token 1 (test administrator)" {
		t.Errorf("the changes are %v", changes)
	}

	// What it was not sent meanwhile is counted.
	r.exec(`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, routing)
SELECT 900 + n, 0, 0, 7, 900 + n, 1, clock_timestamp(), 1, 'routed', json_build_object('config_version', 99, 'skips', json_build_array(json_build_object('webhook_id', $1::bigint, 'reason', 'disabled'))), gen_random_uuid(), 'skipped'
  FROM generate_series(1, 3) n`, path[strings.LastIndex(path, "/")+1:])
	if enabled := post("enable", ""); of[object](enabled.at("missed"))["count"] != 3.0 || of[bool](of[object](enabled.at("missed"))["more"]) {
		t.Errorf("enabled it is %s", enabled.text)
	}

	rotated := post("rotate-secret", "")
	until, _ := time.Parse(time.RFC3339Nano, fmt.Sprint(rotated.at("previous_secret_until")))
	if secret, _ := rotated.at("secret").(string); !strings.HasPrefix(secret, "whsec_") || rotated.at("previous_secret") != nil || time.Until(until) < 23*time.Hour || strings.Contains(rotated.text, "sesame") {
		t.Errorf("rotated it is %s", rotated.text)
	}
	if again := post("rotate-secret", `{"secret": "another-secret", "overlap": "0s"}`); again.at("secret") != "another-secret" {
		t.Errorf("rotated it is %s", again.text)
	}
	for field, body := range map[string]string{
		"body.secret": `{"secret": "x"}`, "body.overlap": `{"overlap": "400d"}`, "body.x": `{"x": 1}`,
	} {
		r.refuses(http.StatusUnprocessableEntity, []string{field}, http.MethodPost, path+"/rotate-secret", body)
	}
	revealed := post("reveal-secret", "")
	if revealed.at("secret") != "another-secret" || of[object](revealed.at("headers"))["X-Api-Key"] != "open-sesame" {
		t.Errorf("revealed it is %s", revealed.text)
	}
	if changes := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/webhook-changes?change=secret_revealed", "").data(); len(changes) != 1 {
		t.Errorf("the history has %v", changes)
	}
	if strings.Contains(r.ok(http.StatusOK, http.MethodGet, "/accounts/7/webhook-changes", "").text, "another-secret") {
		t.Error("the history shows a secret")
	}

	r.exec(`UPDATE relay.webhooks SET breaker_opened_at = now()`)
	if open := r.ok(http.StatusOK, http.MethodGet, path, ""); open.at("breaker") != "open" {
		t.Errorf("its breaker is %v", open.at("breaker"))
	}
	if closed := post("close-breaker", ""); closed.at("breaker") != "closed" || closed.at("breaker_opened_at") != nil {
		t.Errorf("its breaker is %v", closed.at("breaker"))
	}

	tested := r.ok(http.StatusAccepted, http.MethodPost, path+"/test", "")
	timeline := r.ok(http.StatusOK, http.MethodGet, strings.TrimPrefix(tested.header.Get("Location"), v1Base), "")
	if event := of[object](timeline.data()[0]["event"]); event["event"] != "webhook_test" || event["event_id"] != tested.at("event_id") || !strings.Contains(fmt.Sprint(event["metadata"]), "token 1 (test administrator)") {
		t.Errorf("the test is %s", timeline.text)
	}
}

// TestAWebhookThatCannotBeReadIsListed: with what is wrong, beside the others.
func TestAWebhookThatCannotBeReadIsListed(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	for n := range 2 {
		r.register(fmt.Sprintf(`{"url": "https://example.com/%d"}`, n))
	}
	r.exec(`UPDATE relay.webhooks SET settings = '{"timeout": "soon"}' WHERE id = (SELECT min(id) FROM relay.webhooks)`)
	listed := r.ok(http.StatusOK, http.MethodGet, hooksOf7, "").data()
	if len(listed) != 2 {
		t.Fatalf("%d webhooks are listed", len(listed))
	}
	for i, want := range []map[string]any{
		{"account_id": 7.0, "state": "enabled", "problem": `its settings cannot be read: time: invalid duration "soon"`, "url": "", "timeout": "", "order_hold": "", "deadline": ""},
		{"account_id": 7.0, "state": "enabled", "problem": nil, "url": "https://example.com/1", "timeout": "5s"},
	} {
		for member, value := range want {
			if got := listed[i][member]; got != value {
				t.Errorf("%s of webhook %d is %v, want %v", member, i, got, value)
			}
		}
	}
}
