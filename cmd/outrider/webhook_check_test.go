package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func TestWebhookTestReachesThatWebhookAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, "the database \x1b[31mis down")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	other := newCatcher(t, answer204)
	// The first asks for other events of another inbox, the second for tests.
	register(t, db.SQL, 1, receiver.URL+"/hook", func(s *domain.Settings) { s.Subscriptions, s.InboxID, s.Name = []string{"contact_created"}, 12, "CRM" })
	register(t, db.SQL, 1, other.URL+"/hook", func(s *domain.Settings) { s.Subscriptions = []string{"webhook_test"} })
	register(t, db.SQL, 1, receiver.URL+"/broken", nil)
	register(t, db.SQL, 2, "http://127.0.0.1:1/closed", nil)
	startProcess(t, db.DSN, "serve", "--allow-unsafe").awaitReady(t)
	c := newCLI(t, asRole(t, db, "tester", "outrider_operator"))

	tested := c.object("webhook", "test", "1", "--wait", "1m")
	if tested["outcome"] != "succeeded" || tested["status_code"] != 204.0 || tested["remote_ip"] != "127.0.0.1" || tested["webhook_id"] != 1.0 {
		t.Errorf("the test gives %v", tested)
	}
	if posts := receiver.all(); len(posts) != 1 || posts[0].body != `{"event" : "webhook_test", "account" : {"id" : 1}, "webhook" : {"id" : 1, "name" : "CRM"}}` {
		t.Errorf("the receiver got %+v", posts)
	}
	if out := c.ok("webhook", "test", "1", "--wait", "1m"); !strings.Contains(out, "Webhook 1 answered 204 in ") || !strings.Contains(out, ", from 127.0.0.1.\n\n  outrider audit trace ") {
		t.Errorf("the test says %s", out)
	}
	// Who asked is on record, and the delivery has a deadline of its own.
	if n := query[int](t, db.SQL, `SELECT count(*) FROM audit.events WHERE event = 'webhook_test' AND metadata ->> 'requested_by' LIKE 'tester\_%' AND metadata ->> 'webhook_id' = '1'`); n != 2 {
		t.Errorf("%d tests are on record with who asked, want 2", n)
	}
	if n := query[int](t, db.SQL, `SELECT count(*) FROM audit.timeline WHERE type = 'scheduled' AND abs(extract(epoch FROM (data ->> 'deadline')::timestamptz - at) - 60) < 0.001`); n != 2 {
		t.Errorf("%d tests end after a minute, want 2", n)
	}
	// A chat event of that name goes to those who subscribe to it.
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload, metadata) VALUES (1, 'webhook_test', '{"n":1}', '{"webhook_id": 1}')`)
	until(t, "the chat event", func() (bool, string) { return len(other.all()) > 0, fmt.Sprint(other.all()) })
	if posts := other.all(); len(posts) != 1 || posts[0].body != `{"n":1,"event":"webhook_test"}` {
		t.Errorf("the other receiver got %+v", posts)
	}
	if n := len(receiver.all()); n != 2 {
		t.Errorf("the receiver got %d POSTs, want 2", n)
	}

	c.fails(exitFailed, []string{"webhook 3 did not take the test: ", "500", "it said: the database \uFFFD[31mis down", "the receiver's log tells more"}, "webhook", "test", "3", "--wait", "1m")
	c.fails(exitFailed, []string{"webhook 4 did not take the test: ", "is the receiver running"}, "webhook", "test", "4", "--wait", "1m")
	if r := c.run("webhook", "test", "4", "--wait", "1m", "--format", "json"); r.code != exitFailed || !strings.Contains(r.out, `"outcome":"failed","status_code":null,`) || !strings.Contains(r.out, `"error_class":"connect"`) {
		t.Errorf("a failed test gives %+v", r)
	}
}

func TestWebhookTestSaysWhyNothingIsSent(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	register(t, db.SQL, 1, "https://example.com/hook", nil)
	c := newCLI(t, db.DSN)
	c.fails(exitFailed, []string{"no relay has taken the test up within 1ms", "is outrider serve running?"}, "webhook", "test", "1", "--wait", "1ms")
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	p.awaitReady(t)
	c.fails(exitFailed, []string{"--no-send"}, "webhook", "test", "1", "--wait", "3s")
	p.signal(syscall.SIGTERM)
	if out := c.ok("webhook", "test", "1", "--wait", "0"); !strings.Contains(out, "A test of webhook 1 is in the outbox.") {
		t.Errorf("without waiting the test says %s", out)
	}
	for _, step := range [][]string{{"pause", "is paused"}, {"disable", "is disabled"}} {
		c.ok("webhook", step[0], "1")
		c.fails(exitFailed, []string{"webhook 1 " + step[1], "outrider webhook enable 1"}, "webhook", "test", "1")
	}
	c.ok("webhook", "remove", "1", "--yes")
	c.fails(exitFailed, []string{"webhook 1 is deleted", "register its URL anew"}, "webhook", "test", "1")
	c.fails(exitFailed, []string{"there is no webhook 9", "outrider webhook list"}, "webhook", "test", "9")
	c.fails(exitUsage, []string{"the webhook's ID is missing", `--wait: "soon" is not a duration`}, "webhook", "test", "--wait", "soon")
	if n := query[int](t, db.SQL, `SELECT count(*) FROM outbox.events`); n != 3 {
		t.Errorf("%d tests are in the outbox, want 3", n)
	}
	producer := newCLI(t, asRole(t, db, "chat", "outrider_producer"))
	producer.fails(exitFailed, []string{"lacks rights"}, "webhook", "test", "1")
}

func TestTestAdvice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		attempt string
		class   domain.ErrorClass
		status  int
		want    string
	}{
		{"address", domain.ErrorRefusedAddress, 0, "OUTRIDER_ALLOW_CIDRS"},
		{"name", domain.ErrorDNS, 0, "name servers"},
		{"certificate", domain.ErrorTLS, 0, "certificate"},
		{"slow", domain.ErrorTimeout, 0, "outrider webhook update 7 --timeout"},
		{"cut", domain.ErrorReset, 0, "connection broke"},
		{"redirect", domain.ErrorStatus, 301, "redirects are not followed"},
		{"secret", domain.ErrorStatus, 401, "verify-signature"},
		{"path", domain.ErrorStatus, 404, "path"},
		{"gone", domain.ErrorStatus, 410, "disables"},
		{"too much", domain.ErrorStatus, 429, "--max-concurrency"},
	} {
		at := audit.Attempt{ErrorClass: test.class, StatusCode: test.status}
		if got := testAdvice(7, &at); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q does not say %q", test.attempt, got, test.want)
		}
	}
}
