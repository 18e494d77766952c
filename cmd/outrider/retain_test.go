package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// old writes an event with a finished delivery that is months old, and is all
// that is in its partition, as a stopped relay leaves them.
func old(t *testing.T, db *pgtest.DB, id uuid.UUID) *story {
	t.Helper()
	s := insert(t, db.SQL, "message_created", id, `{"said":"much"}`)
	s.routed(domain.Routed{
		Routing:   domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 1, Version: 1}}},
		EventName: "message_created", OrderingKey: "conversation:42", ConfigVersion: 1, BodyBytes: 1234,
	})
	s.delivered(1, 0, 7, domain.Scheduled{At: after(0), WebhookVersion: 1}, domain.AttemptStarted{At: after(time.Second), Attempt: 1, WebhookVersion: 1},
		domain.AttemptSucceeded{At: after(2 * time.Second), Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 200, Excerpt: "thank you"}.Digested([16]byte{1})})
	mustExec(t, db.SQL, `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT 1, 0, pg_current_snapshot(), 0, 0, 0, 1000000, 1000000, 1, 1, 1, 7, now() - interval '100 days'`)
	mustExec(t, db.SQL, `UPDATE relay.slots SET position = 1, low = 1`)
	return s
}

func TestRetainOnTheCommandLine(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	old(t, db, tracedID)
	c := newCLI(t, asRole(t, db, "ops", "outrider_operator"))
	c.fails(exitUsage, []string{"everything is kept for ever"}, "retain")
	c.fails(exitUsage, []string{"retain_payloads is longer than retain_log"}, "retain", "--retain-log", "30d", "--retain-payloads", forever)
	c.fails(exitUsage, []string{"--retain-log: 3d is too short", "--retain-responses: \"soon\" is not an age"}, "retain", "--retain-log", "3d", "--retain-responses", "soon")
	c.fails(exitUsage, []string{"retain_payloads is longer than retain_log"}, "serve", "--retain-log", "30d", "--retain-payloads", "31d")

	c.env["OUTRIDER_RETAIN_PAYLOADS"] = "30d"
	plan := c.objects("retain", "--retain-responses", "14d", "--dry-run", "--format", "json")
	if len(plan) != 2 || plan[0]["table"] != "outbox.events_0" || plan[0]["rows"] != float64(1) || plan[0]["waits"] != nil || plan[1]["table"] != "relay.responses_0" {
		t.Errorf("the plan is %v", plan)
	}
	if out := c.ok("retain"); !strings.Contains(out, "erased outbox.events_0") || strings.Contains(out, "responses") || strings.Contains(out, "log") {
		t.Errorf("payloads alone: %s", out)
	}
	if out := c.ok("audit", "trace", tracedID.String()); !strings.Contains(out, "payload erased on "+time.Now().Format("2006-01-02")+": it had reached its age") ||
		!strings.Contains(out, "no longer in the outbox") || !strings.Contains(out, "delivered") {
		t.Errorf("the trace is\n%s", out)
	}
	if traced := c.object("audit", "trace", tracedID.String()); traced["payload_erased_at"] == nil {
		t.Errorf("the trace is %v", traced)
	}
	if out := c.ok("retain", "--retain-log", "90d"); !strings.Contains(out, "erased relay.responses_0") || !strings.Contains(out, "erased relay.log_0") || !strings.Contains(out, "dropped relay.log_0") {
		t.Errorf("all: %s", out)
	}
	c.fails(exitFailed, []string{"there is no event " + tracedID.String() + ", nor a delivery or notification, or no more: what had reached the log's age was erased, last on "}, "audit", "trace", tracedID.String())
	if out := c.ok("retain", "--retain-log", "90d"); out != "Nothing has reached its age.\n" {
		t.Errorf("again: %s", out)
	}
}

func TestRetainSaysWhatIsOpen(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	old(t, db, tracedID)
	mustExec(t, db.SQL, `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES (1, 1, 0, 3, 'r', now(), 1, 0)`)
	c := newCLI(t, asRole(t, db, "ops", "outrider_operator"))
	r := c.run("retain", "--retain-log", "30d")
	if r.code != exitFailed || !strings.Contains(r.err, "1 deliveries wait; no relay is at work to end them") || !strings.Contains(r.err, "start outrider serve") || !strings.Contains(r.out, "erased relay.responses_0") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
	}
	if plan := c.objects("retain", "--retain-log", "30d", "--dry-run", "--format", "json"); len(plan) != 2 || !strings.Contains(fmt.Sprint(plan[0]["waits"]), "1 deliveries wait") {
		t.Errorf("the plan is %v", plan)
	}
}

func TestEraseOnTheCommandLine(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	old(t, db, tracedID)
	mustExec(t, db.SQL, `UPDATE outbox.events SET payload = '{"conversation":{"contact_inbox":{"contact_id":901}}}'`)
	dsn := asRole(t, db, "ops", "outrider_operator")
	c := newCLI(t, dsn)
	c.fails(exitUsage, []string{"--account is missing", "nobody can be asked"}, "erase")
	c.fails(exitFailed, []string{"lacks rights"}, "erase", "--account", "1", "--contact", "901", "--yes")

	if out := c.ok("erase", "--account", "2", "--yes"); out != "Account 2, all that it ever had: 0 events are to be erased.\n" {
		t.Errorf("another account: %s", out)
	}
	privacy := newCLI(t, asRole(t, db, "privacy", "outrider_operator", "outrider_relay"))
	if out := privacy.ok("erase", "--account", "1", "--contact", "901", "--dry-run"); out != "Account 1, what tells of contact 901: 1 event is to be erased.\n" {
		t.Errorf("dry: %s", out)
	}
	if out := privacy.ok("erase", "--account", "1", "--contact", "902", "--dry-run"); !strings.Contains(out, "0 events are to be erased") {
		t.Errorf("another contact: %s", out)
	}
	c.asks, c.in = true, "2\n"
	if r := c.run("erase", "--account", "1", "--event-id", tracedID.String()); r.code != exitFailed || !strings.Contains(r.err, "nothing was erased") {
		t.Errorf("another answer: exit %d: %s", r.code, r.err)
	}
	c.in = "1\n"
	if out := c.ok("erase", "--account", "1", "--ordering-key", "conversation:42"); !strings.Contains(out, "conversation 42: 1 event is to be erased") || !strings.Contains(out, "Erasure 1: 1 event is erased.") {
		t.Errorf("erased: %s", out)
	}
	if out := c.ok("erase", "--account", "1", "--dry-run"); !strings.Contains(out, "1 more was erased before") {
		t.Errorf("again: %s", out)
	}
	if out := c.ok("audit", "trace", tracedID.String()); !strings.Contains(out, "asked for by erasure 1") || strings.Contains(out, "thank you") {
		t.Errorf("the trace is\n%s", out)
	}
}
