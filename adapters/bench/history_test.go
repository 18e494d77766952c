package bench

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestAHistoryIsWhatARelayLeaves: the audit sees deliveries that succeeded,
// the chain has no gap, and nothing waits.
func TestAHistoryIsWhatARelayLeaves(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := pgtest.New(t)
	given := &Database{DSN: db.DSN, DB: db.SQL}
	for account := range int64(Accounts) {
		given.Webhooks = append(given.Webhooks, 100+account)
	}
	const events = 2500 // two batches and a half
	run := &Run{Progress: func(Progress) {}}
	if err := run.history(ctx, given, events, Progress{}); err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct {
		what, query string
		want        int64
	}{
		{"entries", `SELECT count(*) FROM relay.log`, events * entriesOfEach},
		{"places in the log", `SELECT count(DISTINCT pos) FROM relay.log`, events * entriesOfEach},
		{"events that were routed", `SELECT count(*) FROM audit.events WHERE routing = 'routed' AND delivery_count = 1`, events},
		{"deliveries that succeeded", `SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded' AND attempt_count = 1 AND webhook_id = account_id - 900000000000 + 100`, events},
		{"attempts that succeeded", `SELECT count(*) FROM audit.attempts WHERE outcome = 'succeeded' AND status_code = 204`, events},
		{"links with a batch", `SELECT count(*) FROM relay.batches WHERE seq_max > 0`, 3},
		{"links that end with the outbox", `SELECT count(*) FROM relay.batches b WHERE b.no = 4 AND b.high = (SELECT max(seq) FROM outbox.events) AND b.floor = b.high`, 1},
		{"entries outside the commits of their batch", `
SELECT count(*) FROM relay.log l JOIN relay.batches b ON l.event_seq BETWEEN b.seq_min AND b.seq_max
 WHERE l.type IN ('routed', 'scheduled') AND l.pos >> 20 <> b.commit`, 0},
		{"entries beyond the last commit", `SELECT count(*) FROM relay.log, relay.commits c WHERE pos >> 20 > c.last_value`, 0},
		{"events not in the consumed snapshot", `
SELECT count(*) FROM outbox.events e, (SELECT consumed FROM relay.batches ORDER BY no DESC LIMIT 1) h WHERE NOT pg_visible_in_snapshot(e.xid, h.consumed)`, 0},
		{"rows in the nets", `SELECT (SELECT count(*) FROM outbox.events_net) + (SELECT count(*) FROM relay.log_net)`, 0},
		{"what waits", `SELECT count(*) FROM relay.due`, 0},
	} {
		var got int64
		if err := db.SQL.QueryRowContext(ctx, check.query).Scan(&got); err != nil {
			t.Fatalf("%s: %v", check.what, err)
		}
		if got != check.want {
			t.Errorf("%s: %d, want %d", check.what, got, check.want)
		}
	}
}

// TestAHistorysEntriesAreRead: what is written for each event makes a delivery
// that succeeded.
func TestAHistorysEntriesAreRead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, time.July, 1, 12, 0, 0, 0, time.UTC)
	entries := historyData(at)
	var state domain.Delivery
	for i, kind := range []string{domain.TypeScheduled, domain.TypeAttemptStarted, domain.TypeAttemptSucceeded} {
		event, err := domain.DecodeDelivery(domain.Entry{Type: kind, At: at, Data: json.RawMessage(entries[i+1])})
		if err != nil {
			t.Fatalf("%s: %v", entries[i+1], err)
		}
		state = domain.Evolve(state, event)
	}
	if state.Status != domain.DeliverySucceeded {
		t.Errorf("the delivery is %v", state.Status)
	}
}
