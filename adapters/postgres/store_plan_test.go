package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestAPlanFromBeforeAPartitionWasFilledReadsByKey: each connection plans what
// comes for every few events once, be it while the partition is empty, where all
// indexes are alike. 40,000 events later, of which the planner has heard nothing,
// each row that is read back still costs a few look-ups.
func TestAPlanFromBeforeAPartitionWasFilledReadsByKey(t *testing.T) {
	t.Parallel()
	const (
		batches, each = 20, 2000
		// mostPages is how many pages may be looked at for each row: a look-up in an
		// index takes about four, and each row some eight of these. Walking an index
		// takes more than a hundred.
		mostPages = 50
	)
	db := pgtest.New(t).SQL
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	type cost struct {
		Plan struct {
			Rows  float64 `json:"Actual Rows"`
			Hit   int     `json:"Shared Hit Blocks"`
			Other int     `json:"Shared Read Blocks"`
		}
	}
	explain := func(execute string) cost {
		t.Helper()
		var text []byte
		var found []cost
		if err := conn.QueryRowContext(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) `+execute).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &found); err != nil || len(found) != 1 {
			t.Fatalf("EXPLAIN gave %s: %v", text, err)
		}
		return found[0]
	}
	exec(strings.ReplaceAll(sessionSettings, "'10s'", "0"))
	exec(planOnce)
	exec(`VACUUM ANALYZE`) // as each night: now the planner knows that it is empty
	asked := []struct {
		name, query, arguments string
		rows                   float64
	}{
		{"batches", batchesQuery, fmt.Sprintf("%d, %d, '{%d}', -1, 1 << 30", (batches-1)*each+1, batches*each, batches), each},
		{"batch", batchesQuery, fmt.Sprintf("%d, %d, '{%d}', -1, 1 << 30", batches*each, batches*each, batches), 1},
		{"due", dueBeforeQuery, "'-infinity', 0, now(), 500, 1 << 30, -1", 300},
		{"lane", dueOfQuery, "1, 0, '-infinity', 0, now(), 500, 1 << 30", 400},
		{"held", heldQuery, "1, 5, 100, 1 << 30", 100},
		{"body", bodyQuery, fmt.Sprintf("%d, 1, 0", (batches-2)*each+1), 1},
		{"replay", nextQuery, "1, '{1}', '{0}', '{500}'", 500},
	}
	for _, a := range asked {
		exec("PREPARE " + a.name + " AS " + a.query)
		if got := explain(fmt.Sprintf("EXECUTE %s (%s)", a.name, a.arguments)); got.Plan.Rows != 0 {
			t.Fatalf("%s: %v rows of nothing", a.name, got.Plan.Rows)
		}
	}
	exec(`INSERT INTO relay.webhooks (id, account_id, version, state, settings, url, credential, secret, previous_secret) VALUES (1, 1, 1, 'enabled', '{}', 'https://example.com/1', '', '', '')`)
	exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, $1::integer)`, batches*each)
	// Nobody has begun the last batch; of the one before, some wait.
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
SELECT e.seq, k.webhook, 0, 1, (((e.seq - 1) / $2::bigint + 1) << 20) + e.seq % $2::bigint, 1, e.inserted_at, k.v, k.type, k.data, CASE k.webhook WHEN 0 THEN 'routed' END,
       CASE k.v WHEN 1 THEN e.id END, CASE WHEN k.v = 1 AND k.webhook > 0 THEN gen_random_uuid() END
  FROM outbox.events e, (VALUES (0, 1, 'routed', '{"event":"message_created"}'::json), (1, 1, 'scheduled', '{"webhook_version":1}'), (1, 2, 'attempt_started', '{}'), (1, 3, 'attempt_succeeded', '{}')) k (webhook, v, type, data)
 WHERE k.v = 1 OR e.seq <= $1::bigint ORDER BY e.seq`, (batches-2)*each, each)
	exec(`
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT l.event_seq, 1, 0, 1, CASE WHEN l.event_seq % 4 = 0 THEN 'o' ELSE 'r' END::"char", l.at, l.pos, 0
  FROM relay.log l WHERE l.webhook_id = 1 AND l.version = 1 AND l.event_seq BETWEEN $1::bigint + 1 AND $1::bigint + 400`, (batches-2)*each)
	exec(`
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT l.event_seq, 1, 0, 1, 'h', now() + interval '1 h', l.pos, l.event_seq % 10
  FROM relay.log l WHERE l.webhook_id = 1 AND l.version = 1 AND l.event_seq BETWEEN $1::bigint + 401 AND $1::bigint + 1400`, (batches-2)*each)
	exec(`INSERT INTO relay.replay_deliveries (replay_id, webhook_id, pos, event_seq) SELECT 1, 1, (seq << 20) + 1, seq FROM outbox.events WHERE seq <= 1000`)
	for _, a := range asked {
		got := explain(fmt.Sprintf("EXECUTE %s (%s)", a.name, a.arguments))
		pages := float64(got.Plan.Hit+got.Plan.Other) / a.rows
		if got.Plan.Rows != a.rows || pages > mostPages {
			t.Errorf("%s: %v rows, want %v; %.1f pages for each, want %d at most", a.name, got.Plan.Rows, a.rows, pages, mostPages)
		}
		t.Logf("%s: %.1f pages for each row", a.name, pages)
	}
}
