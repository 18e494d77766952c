package relay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// brief lets a delivery die by its second attempt.
var brief = domain.RetryPolicy{Delays: []time.Duration{30 * time.Millisecond}, RetryAfterCap: time.Hour}

// operates registers a webhook of the operator's account.
func (b *bench) operates(path string, events ...string) domain.Webhook {
	b.t.Helper()
	return b.webhook(domain.OperatorAccount, path, func(s *domain.Settings) { s.Subscriptions = events })
}

// operatorEvents counts the rows of the outbox that are of the operator's
// account.
func (b *bench) operatorEvents() int {
	b.t.Helper()
	return scan[int](b, `SELECT count(*) FROM outbox.events WHERE account_id = $1`, int64(domain.OperatorAccount))
}

// toldTo gives the POSTs to a path by the webhook that they tell of, each id
// once.
func (b *bench) toldTo(path string) map[domain.WebhookID][]string {
	b.t.Helper()
	told, seen := map[domain.WebhookID][]string{}, map[string]bool{}
	for _, p := range b.receiver.got(path) {
		if seen[p.webhookID] {
			continue
		}
		seen[p.webhookID] = true
		var payload struct {
			Event   string
			Webhook struct{ ID domain.WebhookID }
		}
		if err := json.Unmarshal([]byte(p.body), &payload); err != nil || payload.Event != p.event {
			b.t.Fatalf("%s: %v", p.body, err)
		}
		told[payload.Webhook.ID] = append(told[payload.Webhook.ID], p.body)
	}
	return told
}

// TestTheOperatorIsToldWhatFails: a delivery dies and a webhook is disabled, and
// the operator's webhook is told of each once, by a delivery that is on record
// as any other.
func TestTheOperatorIsToldWhatFails(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.operates("/ops")
	dying := b.webhook(1, "/dying?token=hidden", func(s *domain.Settings) { s.Name = "CRM" })
	gone := b.webhook(2, "/gone", nil)
	var status, asked atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	b.receiver.on("/dying", failing(&status))
	b.receiver.on("/gone", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			w.Header().Set("Retry-After", "3600") // it is disabled before it dies
		}
		w.WriteHeader(http.StatusGone)
	})
	b.start(func(c *relay.Config) {
		c.Policy = brief
		c.Policy.Delays = append(c.Policy.Delays, 30*time.Millisecond)
	})
	b.publish(1, "c", 1, 1)
	b.publish(2, "c", 1, 1)
	b.awaitStatus("succeeded", 2)
	told := b.toldTo("/ops")
	if len(told[dying.ID]) != 1 || len(told[gone.ID]) != 1 || len(told) != 2 || b.operatorEvents() != 2 {
		t.Fatalf("told: %v", told)
	}
	var dead struct {
		Event    string
		Account  struct{ ID domain.AccountID }
		Webhook  struct{ Name, URL string }
		Delivery map[string]any
	}
	if err := json.Unmarshal([]byte(told[dying.ID][0]), &dead); err != nil {
		t.Fatal(err)
	}
	if dead.Event != "delivery_dead" || dead.Account.ID != 1 || dead.Webhook.Name != "CRM" || dead.Webhook.URL != b.receiver.URL+"/dying" {
		t.Errorf("told: %s", told[dying.ID])
	}
	// Its members are those of audit.deliveries.
	var row string
	if err := b.db.QueryRowContext(t.Context(), `SELECT to_json(d)::text FROM audit.deliveries d WHERE webhook_id = $1`, int64(dying.ID)).Scan(&row); err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal([]byte(row), &record); err != nil {
		t.Fatal(err)
	}
	for name, got := range dead.Delivery {
		want := record[name]
		switch name {
		case "last_error_class": // of audit.attempts
			want = "status"
		case "scheduled_at", "completed_at":
			at, ok := want.(string)
			parsed, err := time.Parse("2006-01-02T15:04:05.999999-07:00", at)
			if !ok || err != nil {
				t.Fatalf("%s is %v: %v", name, want, err)
			}
			want = parsed.UTC().Format(time.RFC3339Nano)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, and on record %v", name, got, want)
		}
	}
	if change := told[gone.ID][0]; !strings.Contains(change, `"event":"webhook_disabled"`) || !strings.Contains(change, domain.DisabledGone) || !strings.Contains(change, `"actor":"relay"`) {
		t.Errorf("told: %s", change)
	}
	if all := fmt.Sprint(told); strings.Contains(all, "hidden") || strings.Contains(all, "a-secret-for-tests") {
		t.Errorf("a secret is told: %s", all)
	}
	// By hand, with who did it.
	b.command(dying, domain.DisableWebhook{Reason: "asked for"})
	b.awaitStatus("succeeded", 3)
	if told := b.toldTo("/ops")[dying.ID]; len(told) != 2 || !strings.Contains(told[1], `"reason":"asked for","actor":"test"`) {
		t.Errorf("told: %s", told)
	}
	b.exec(`SELECT relay.request_replay(relay.plan_replay(account_id => -1, since => now() - interval '1 hour'))`)
	b.awaitStatus("succeeded", 6)
	b.verified()
}

// TestNothingIsToldWhereNobodyHasSubscribed: an event of the operator's account
// is written for those that want it.
func TestNothingIsToldWhereNobodyHasSubscribed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/dying", nil)
	var status atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	b.receiver.on("/dying", failing(&status))
	b.start(func(c *relay.Config) { c.Policy = brief })
	dies := func(n int) {
		t.Helper()
		b.publish(1, "", n, 1)
		b.awaitStatus("dead", n)
	}
	dies(1)
	ops := b.operates("/ops", domain.EventWebhookDisabled)
	dies(2)
	b.command(ops, domain.DeleteWebhook{})
	b.command(hook, domain.DisableWebhook{})
	b.command(hook, domain.EnableWebhook{})
	if n := b.operatorEvents(); n != 0 {
		t.Errorf("%d events tell nobody anything", n)
	}
	// A disabled one may have them replayed.
	b.command(b.operates("/ops"), domain.DisableWebhook{})
	dies(3)
	b.eventually("an event that is skipped", func() (bool, string) {
		got := scan[string](b, `SELECT coalesce(string_agg(event || ' ' || routing, ', '), '') FROM audit.events WHERE account_id = -1`)
		return got == "delivery_dead skipped", got
	})
}

// TestTheOperatorsAccountTellsNothingOfItself: neither its dead deliveries nor
// its disabled webhooks are told of, to whichever other webhook it has.
func TestTheOperatorsAccountTellsNothingOfItself(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/dying", nil)
	b.operates("/ops")
	gone := b.operates("/gone")
	b.operates("/dead")
	var status atomic.Int32
	status.Store(http.StatusGone)
	b.receiver.on("/gone", failing(&status))
	var failed atomic.Int32
	failed.Store(http.StatusInternalServerError)
	b.receiver.on("/dying", failing(&failed))
	b.receiver.on("/dead", failing(&failed))
	b.start(func(c *relay.Config) { c.Policy = brief })
	b.publish(1, "", 1, 1)
	// What was told to /gone dies or is cancelled: its second 410 disables it.
	b.eventually("the end of all deliveries", func() (bool, string) {
		counts := b.deliveries()
		return counts["dead"]+counts["cancelled"] == 3 && counts["succeeded"] == 1, fmt.Sprint(counts)
	})
	b.eventually("the disabling", func() (bool, string) {
		state := scan[string](b, `SELECT state FROM relay.webhooks WHERE id = $1`, int64(gone.ID))
		return state == "disabled", state
	})
	// What would be told of them is behind them in the outbox.
	b.publish(1, "", 2, 1)
	b.eventually("the second event to be told of", func() (bool, string) {
		n := len(b.receiver.got("/ops"))
		return n >= 2, fmt.Sprint(n)
	})
	if n := b.operatorEvents(); n != 2 {
		t.Errorf("%d events tell of two deliveries of account 1", n)
	}
}

// TestOnlyTheRelayWritesEventsOfTheOperatorsAccount: what anybody else inserts is
// quarantined, whatever it looks like, and takes nothing's place.
func TestOnlyTheRelayWritesEventsOfTheOperatorsAccount(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ops := b.operates("/ops")
	b.start(nil)
	id := uuid.New().String()
	const payload = `{"event":"delivery_dead","account":{"id":1},"webhook":{"id":1}}`
	b.exec(`INSERT INTO outbox.events (account_id, event, payload, id) VALUES (-1, 'delivery_dead', $1, $2)`, payload, id)
	b.exec(`SELECT outbox.publish(-1, 'delivery_dead', $1, gen_random_uuid())`, payload)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (-1, 'message_created', '{}'), (-1, 'webhook_test', '{}')`)
	b.eventually("the routing", func() (bool, string) {
		got := scan[string](b, `SELECT count(*) || ' ' || coalesce(string_agg(DISTINCT routing || ' ' || reason, ', '), '') FROM audit.events WHERE routing <> 'waiting'`)
		return got == "4 quarantined account_reserved", got
	})
	b.exec(`SELECT relay.tell_operator(ARRAY[$2::uuid], '{delivery_dead}', '{""}', ARRAY[$1::json], ARRAY[now()])`, payload, id)
	b.awaitStatus("succeeded", 1)
	// A test of such a webhook is its own.
	if _, err := b.webhooks.RequestTest(t.Context(), ops.ID, ""); err != nil {
		t.Fatal(err)
	}
	b.awaitStatus("succeeded", 2)
	if got := b.receiver.got(""); len(got) != 2 || got[0].event != "delivery_dead" || got[1].event != "webhook_test" {
		t.Errorf("POSTs: %v", got)
	}
}

// TestWhatCannotBeToldIsOnRecordAllTheSame: another one's constraint on the
// outbox refuses what tells of it.
func TestWhatCannotBeToldIsOnRecordAllTheSame(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.operates("/ops")
	hook := b.webhook(1, "/dying", nil)
	var status atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	b.receiver.on("/dying", failing(&status))
	b.exec(`ALTER TABLE outbox.events ADD CONSTRAINT theirs CHECK (account_id > 0)`)
	b.start(func(c *relay.Config) { c.Policy = brief })
	b.publish(1, "", 1, 1)
	b.awaitStatus("dead", 1)
	b.command(hook, domain.DisableWebhook{})
	if n := scan[int](b, `SELECT count(*) FROM relay.operator_events`); n != 0 {
		t.Errorf("%d rows are told of that are not there", n)
	}
}

// answerless loses the answers of the first tries to record a death: those that
// did not come through, then those that did.
type answerless struct {
	relay.Log
	left, lost *atomic.Int32
}

func (f answerless) Record(ctx context.Context, relayID int64, changes []relay.Change) (int64, error) {
	tells := false
	for i := range changes {
		tells = tells || changes[i].Tells != nil
	}
	switch {
	case tells && f.left.Add(-1) >= 0:
		return 0, errors.New("no connection")
	case tells && f.lost.Add(-1) >= 0:
		if _, err := f.Log.Record(ctx, relayID, changes); err != nil {
			return 0, err
		}
		return 0, errors.New("the connection was lost")
	}
	return f.Log.Record(ctx, relayID, changes)
}

// TestADeathIsToldOnceWhateverTheDatabaseAnswers: many die at once, and some of
// the commits seem to fail.
func TestADeathIsToldOnceWhateverTheDatabaseAnswers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.operates("/ops")
	b.webhook(1, "/dying", func(s *domain.Settings) { s.OrderHold = 0 })
	var status atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	b.receiver.on("/dying", failing(&status))
	var left, lost atomic.Int32
	left.Store(3)
	lost.Store(3)
	b.start(func(c *relay.Config) {
		c.Policy = brief
		c.Log = answerless{c.Log, &left, &lost}
	})
	const n = 200
	b.publish(1, "", 1, n)
	b.awaitStatus("succeeded", n)
	if told := b.toldTo("/ops"); len(told) != 1 || b.operatorEvents() != n {
		t.Errorf("%d events tell of %d deaths", b.operatorEvents(), n)
	}
	if got := scan[int](b, `
SELECT count(DISTINCT d.delivery_id) FROM audit.deliveries d JOIN outbox.events e ON e.account_id = -1 AND e.payload -> 'delivery' ->> 'delivery_id' = d.delivery_id::text
 WHERE d.status = 'dead'`); got != n {
		t.Errorf("%d of %d dead deliveries are told of", got, n)
	}
	if left.Load() >= 0 || lost.Load() >= 0 {
		t.Error("no answer was lost: the test shows nothing")
	}
}

// TestWhoWroteAnEventIsForgottenWithIt: retention takes the event's row, and
// what is known of it.
func TestWhoWroteAnEventIsForgottenWithIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.operates("/ops")
	hook := b.webhook(1, "/hook", nil)
	b.start(nil)
	b.command(hook, domain.DisableWebhook{})
	b.awaitStatus("succeeded", 1)
	if n := scan[int](b, `SELECT count(*) FROM relay.operator_events`); n != 1 {
		t.Fatalf("%d events are known to be told, want 1", n)
	}
	b.nextPartition(9)
	b.age(2 * month)
	b.retained(postgres.Ages{Payloads: month})
	if n := scan[int](b, `SELECT count(*) FROM relay.operator_events`); n != 0 {
		t.Errorf("%d rows are left of events that are gone", n)
	}
}
