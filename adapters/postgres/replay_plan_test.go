package postgres

import (
	"database/sql"
	"testing"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestAStepOfAReplayReadsAStep: what a relay asks at each step of a replay reads
// about what it takes, of a plan of 100,000 deliveries as at its beginning.
func TestAStepOfAReplayReadsAStep(t *testing.T) {
	t.Parallel()
	const events, limit, most = 50_000, 256, 4000
	db := pgtest.New(t).SQL
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	exec(`INSERT INTO relay.webhooks (id, account_id, version, state, settings, url, credential, secret, previous_secret)
SELECT w, 1, 1, 'enabled', '{}', 'https://example.com/' || w, '', '', '' FROM generate_series(1, 2) w`)
	// Those that are gone may not be asked for entries again and again.
	exec(`INSERT INTO relay.relays (name, version, recorder, fenced_at) SELECT 'one', '1', i % 3, CASE WHEN i > 2 THEN now() - interval '1 day' END FROM generate_series(1, 10000) i`)
	exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, $1::integer)`, events)
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
SELECT e.seq, w, 0, 1, (e.seq << 20) + w + v, 1, e.inserted_at, greatest(v, 1), k.type, k.data, CASE w WHEN 0 THEN 'routed' END, CASE v WHEN 1 THEN e.id END,
       CASE WHEN v = 1 AND w > 0 THEN gen_random_uuid() END
  FROM outbox.events e, generate_series(0, 2) w,
       (VALUES (0, 1, 'routed', '{"event":"message_created"}'::json), (1, 1, 'scheduled', '{"webhook_version":1}'), (1, 2, 'attempt_started', '{}'), (1, 3, 'attempt_succeeded', '{}')) k (of_webhook, v, type, data)
 WHERE k.of_webhook = least(w, 1) ORDER BY e.seq`)
	exec(`
INSERT INTO relay.batches (no, prev, xid, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT 1, 0, '1000000', '1000001:1000001:', 0, 0, 0, $1::bigint, 0, 1, $1::bigint, 1, 1, now()`, events)
	var replay int64
	if err := db.QueryRowContext(t.Context(), `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`).Scan(&replay); err != nil {
		t.Fatal(err)
	}
	// look asks it all where the plan is at a cursor, and what is below is finished.
	look := func(name string, cursor int64) {
		t.Helper()
		for what, statement := range map[string]struct {
			query    string
			args     []any
			want     int
			searches int // of the log at most, 0 for any number
		}{
			"what is next": {nextQuery, []any{replay, pq.Array([]int64{1, 2}), pq.Array([]int64{cursor, cursor}), pq.Array([]int{limit, limit})}, 2 * limit, 0},
			"the unbegun":  {unbegunQuery, []any{replay, pq.Array([]int64{1, 2}), limit}, min(int(cursor>>20), 100) * 2, 0},
			"the count":    {`SELECT relay.count_replay(1, $1)`, []any{replay}, 1, 40},
		} {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			before, searched := rowsRead(t, tx), searches(t, tx)
			n := rowsOf(t, tx, statement.query, statement.args...)
			read := rowsRead(t, tx) - before
			searched = searches(t, tx) - searched
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			if n != statement.want || read > most {
				t.Errorf("%s, %s: %d rows, want %d; %d rows were read, want %d at most", name, what, n, statement.want, read, most)
			}
			if statement.searches > 0 && searched > statement.searches {
				t.Errorf("%s, %s: the log was searched %d times, want %d at most", name, what, searched, statement.searches)
			}
		}
	}
	exec(`ANALYZE`)
	look("at the beginning", 0)
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
SELECT d.event_seq, d.webhook_id, d.replay_id, 1, ($2::bigint << 20) + d.pos + d.webhook_id + v, d.webhook_id, now(), v, type, '{}', CASE v WHEN 1 THEN gen_random_uuid() END, CASE v WHEN 1 THEN gen_random_uuid() END
  FROM relay.replay_deliveries d, (VALUES (1, 'scheduled'), (2, 'attempt_started'), (3, 'attempt_succeeded')) k (v, type)
 WHERE d.replay_id = $1 AND d.event_seq <= $2 / 2 - CASE WHEN v > 1 THEN 100 ELSE 0 END ORDER BY d.pos`, replay, events)
	exec(`
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT event_seq, webhook_id, replay_id, 1, 'o', now(), pos, 0 FROM relay.log WHERE replay_id = $1 AND version = 1 AND event_seq > $2 / 2 - 100`, replay, events)
	exec(`INSERT INTO relay.replay_counts (replay_id, writer, counted, final) SELECT $1, writer, max(pos) - (200::bigint << 20), false FROM relay.log WHERE replay_id = $1 GROUP BY writer`, replay)
	exec(`INSERT INTO relay.replay_counts (replay_id, writer, counted, final) SELECT $1, relay_id, -1, true FROM relay.relays WHERE relay_id BETWEEN 3 AND 203`, replay)
	exec(`UPDATE relay.relays SET fenced_at = now() WHERE relay_id BETWEEN 3 AND 203`)
	var half int64
	if err := db.QueryRowContext(t.Context(), `SELECT max(pos) FROM relay.replay_deliveries WHERE replay_id = $1 AND event_seq <= $2 / 2`, replay, events).Scan(&half); err != nil {
		t.Fatal(err)
	}
	look("half way, stale statistics", half)
	exec(`ANALYZE`)
	look("half way", half)
}

// searches counts the scans of the log's partitions by an index.
func searches(t *testing.T, tx *sql.Tx) (n int) {
	t.Helper()
	if err := tx.QueryRowContext(t.Context(), `
SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_xact_user_tables WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'relay.log'::regclass)`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func rowsOf(t *testing.T, tx *sql.Tx, query string, args ...any) (n int) {
	t.Helper()
	rows, err := tx.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}
