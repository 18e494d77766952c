package bench

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// TestAMonthIsWhatARelayLeaves: each stream folds to an end or waits in the
// due table, the chain has no gap, and the audit sees all of it.
func TestAMonthIsWhatARelayLeaves(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := pgtest.New(t)
	given := &Database{DSN: db.DSN, DB: db.SQL}
	for account := range int64(Accounts) {
		given.Webhooks = append(given.Webhooks, 100+account)
	}
	if _, err := db.SQL.ExecContext(ctx, `
INSERT INTO relay.webhooks (id, account_id, version, state, settings, url, credential, secret, previous_secret)
SELECT 100 + i, $1::bigint + i, 1, 'enabled', '{}', 'https://example.com/' || i, '', '', '' FROM generate_series(0, $2::int - 1) i`, FirstAccount, Accounts); err != nil {
		t.Fatal(err)
	}
	m := monthOf(given, 20_000, time.Now())
	if err := m.write(ctx, func(string, int, int) {}); err != nil {
		t.Fatal(err)
	}
	count := func(query string) (n int) {
		t.Helper()
		if err := db.SQL.QueryRowContext(ctx, query).Scan(&n); err != nil {
			t.Fatalf("%v in %s", err, query)
		}
		return n
	}
	for _, none := range []struct{ what, query string }{
		{"events without a decision", `SELECT count(*) FROM outbox.events e WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.type = 'routed')`},
		{"places with two entries", `SELECT count(*) - count(DISTINCT pos) FROM relay.log`},
		{"streams with a gap", `SELECT count(*) FROM (SELECT FROM relay.log GROUP BY event_seq, webhook_id, replay_id HAVING count(*) <> max(version)) x`},
		{"entries before the one before", `
SELECT count(*) FROM relay.log l JOIN relay.log n USING (event_seq, webhook_id, replay_id)
 WHERE n.version = l.version + 1 AND (n.at < l.at OR n.pos <= l.pos)`},
		{"entries outside of the month", `SELECT count(*) FROM relay.log WHERE at NOT BETWEEN now() - interval '30 days 1 hour' AND now()`},
		{"entries outside the commits of their batch", `
SELECT count(*) FROM relay.log l JOIN relay.batches b ON l.event_seq BETWEEN b.seq_min AND b.seq_max
 WHERE l.version = 1 AND l.replay_id = 0 AND (l.pos >> 20 <> b.commit OR l.at <> b.at)`},
		{"links without the one before", `SELECT count(*) FROM relay.batches b WHERE no > 1 AND NOT EXISTS (SELECT FROM relay.batches p WHERE p.no = b.prev AND (p.seq_max = b.seq_min - 1 OR b.seq_min = 0))`},
		{"entries beyond the last commit", `SELECT count(*) FROM relay.log, relay.commits c WHERE pos >> 20 > c.last_value`},
		{"attempts under way", `SELECT count(*) FROM audit.attempts WHERE outcome = 'started'`},
		{"unfinished deliveries that nothing waits for", `
SELECT count(*) FROM audit.deliveries d WHERE status IN ('pending', 'held')
   AND NOT EXISTS (SELECT FROM relay.due w WHERE w.event_seq = d.event_seq AND w.webhook_id = d.webhook_id AND w.replay_id = d.replay_id)`},
		{"deliveries to another account's webhook", `SELECT count(*) FROM audit.deliveries WHERE webhook_id <> account_id - 900000000000 + 100`},
		{"responses without an entry that has their digest", `
SELECT count(*) FROM relay.responses p WHERE NOT EXISTS (
       SELECT FROM relay.log l WHERE l.event_seq = p.event_seq AND l.webhook_id = p.webhook_id AND l.replay_id = p.replay_id AND l.version = p.version
          AND l.data ->> 'excerpt_digest' = encode(sha256(p.salt || convert_to(p.excerpt, 'UTF8')), 'hex'))`},
		{"webhooks whose hours are not their attempts'", `
SELECT count(*) FROM (SELECT webhook_id, count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded, count(*) FILTER (WHERE outcome = 'failed') AS failed,
                             count(*) FILTER (WHERE outcome = 'unknown') AS unknown, min(duration_ms) AS least, max(duration_ms) AS most FROM audit.attempts GROUP BY 1) a
  FULL JOIN (SELECT webhook_id, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(unknown) AS unknown, min(p50_ms) AS least, max(p99_ms) AS most FROM audit.webhook_stats GROUP BY 1) s USING (webhook_id)
 WHERE (a.succeeded, a.failed, a.unknown) IS DISTINCT FROM (s.succeeded, s.failed, s.unknown) OR s.most NOT BETWEEN 0.96 * a.most AND 1.04 * a.most OR s.least < 0.96 * a.least`},
		{"webhooks whose hours do not have as many deliveries as began", `
SELECT count(*) FROM (SELECT webhook_id, count(*) AS scheduled FROM audit.deliveries GROUP BY 1) d
  FULL JOIN (SELECT webhook_id, sum(scheduled) AS scheduled FROM audit.webhook_stats GROUP BY 1) s USING (webhook_id)
 WHERE d.scheduled IS DISTINCT FROM s.scheduled`},
		{"webhooks whose pending deliveries are not those of their health", `
SELECT count(*) FROM audit.webhook_health h
 WHERE h.pending <> (SELECT count(*) FROM audit.deliveries d WHERE d.webhook_id = h.webhook_id AND d.status IN ('pending', 'held'))`},
		{"rows in the nets", `SELECT (SELECT count(*) FROM outbox.events_net) + (SELECT count(*) FROM relay.log_net)`},
		{"events that wait", `SELECT count(*) FROM audit.events WHERE routed_at IS NULL`},
	} {
		if n := count(none.query); n != 0 {
			t.Errorf("%s: %d", none.what, n)
		}
	}
	for _, some := range []struct {
		what, query  string
		least, about int
	}{
		{"attempts", `SELECT count(*) FROM audit.attempts`, 19_000, 21_000},
		{"events", `SELECT count(*) FROM audit.events`, m.events, m.events},
		{"responses", `SELECT count(*) FROM audit.attempts WHERE response_excerpt IS NOT NULL`, 500, 3000},
		{"webhooks with hours", `SELECT count(DISTINCT webhook_id) FROM audit.webhook_stats`, Accounts, Accounts},
		{"events to nobody", `SELECT count(*) FROM audit.events WHERE routing = 'no_subscriber'`, 200, 600},
		{"duplicates", `SELECT count(*) FROM audit.events WHERE routing = 'duplicate'`, 20, 120},
		{"deliveries that are dead", `SELECT count(*) FROM audit.deliveries WHERE status = 'dead' AND attempt_count = 12`, 20, 120},
		{"deliveries that were cancelled", `SELECT count(*) FROM audit.deliveries WHERE status = 'cancelled'`, 5, 60},
		{"deliveries that expired", `SELECT count(*) FROM audit.deliveries WHERE status = 'expired'`, 2, 60},
		{"deliveries that wait for a retry", `SELECT count(*) FROM audit.deliveries WHERE status = 'pending' AND next_attempt_at > now() - interval '1 hour'`, 1, 100},
		{"deliveries again", `SELECT count(*) FROM audit.deliveries WHERE replay_id > 0 AND status = 'succeeded'`, 5, 1000},
		{"attempts with an unknown outcome", `SELECT count(*) FROM audit.attempts WHERE outcome = 'unknown'`, 40, 200},
		{"of the largest account", `SELECT count(*) FROM audit.deliveries WHERE account_id = 900000000000`, 2000, 3500},
		{"of the smallest account", `SELECT count(*) FROM audit.deliveries WHERE account_id = 900000000049`, 100, 300},
	} {
		if n := count(some.query); n < some.least || n > some.about {
			t.Errorf("%s: %d, want %d to %d", some.what, n, some.least, some.about)
		}
	}
}

// TestStoriesAreDeliveries: each folds to the end that its name promises, and
// what has a hole in it is JSON again once it is filled.
func TestStoriesAreDeliveries(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, time.July, 1, 12, 0, 0, 0, time.UTC)
	states := make([]domain.Delivery, len(stories))
	last := make([]time.Time, len(stories))
	for _, e := range tellStories() {
		data := e.Head
		switch e.Hole {
		case holeDuration:
			data += "1234" + e.Tail
		case holeMoment:
			data += "2026-07-01T12:00:05Z" + e.Tail
		}
		if e.Hole == "" != (e.Tail == "") {
			t.Errorf("story %d: %q has the tail %q", e.Story, e.Hole, e.Tail)
		}
		at := begun.Add(time.Duration(e.After) * time.Microsecond)
		event, err := domain.DecodeDelivery(domain.Entry{Type: e.Type, At: at, Data: json.RawMessage(data)})
		if err != nil {
			t.Fatalf("story %d, %s: %v", e.Story, data, err)
		}
		states[e.Story] = domain.Evolve(states[e.Story], event)
		if e.Version != states[e.Story].Version || at.Before(last[e.Story]) || e.Needs < e.After {
			t.Errorf("story %d has the entry %+v", e.Story, e)
		}
		last[e.Story] = at
	}
	ends := map[domain.DeliveryStatus]int{}
	for i, state := range states {
		if !state.Status.Final() || state.Open {
			t.Errorf("story %d ends %v", i, state.Status)
		}
		ends[state.Status]++
	}
	if ends[domain.DeliverySucceeded] != 7 || ends[domain.DeliveryDead] != 1 || ends[domain.DeliveryCancelled] != 1 || ends[domain.DeliveryExpired] != 1 {
		t.Errorf("ends are %v", ends)
	}
	for _, d := range tellDecisions() {
		if !json.Valid([]byte(d.Head+"7"+d.Tail)) || !strings.HasSuffix(d.Head, "conversation:") {
			t.Errorf("decision %+v", d)
		}
	}
}
