package postgres

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain/audit"
)

// inTx makes an Audit work within one transaction.
type inTx struct{ *sql.Tx }

func (inTx) BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error) {
	return nil, errors.New("there is one")
}

// rowsRead counts the rows of tables that the transaction has read so far, in
// functions too.
func rowsRead(t *testing.T, tx *sql.Tx) (n int) {
	t.Helper()
	if err := tx.QueryRowContext(t.Context(), `SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAPageReadsAPage: the first page and a far one read about what they show,
// with each filter that has an index, and not the history, which has 200,000
// entries.
func TestAPageReadsAPage(t *testing.T) {
	t.Parallel()
	const events = 50_000
	db := pgtest.New(t).SQL
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	base := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	// A transaction each, as chat systems have: the planner knows few that are alike.
	exec(`INSERT INTO outbox.events (xid, account_id, event, payload, inserted_at)
SELECT (1000000 + i)::text::xid8, i % 50 + 1, 'message_created', '{}', $2::timestamptz + i * interval '1 second' FROM generate_series(1, $1::integer) i`, events, base)
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
SELECT e.seq, CASE k.version WHEN 0 THEN 0 ELSE e.account_id END, 0, e.account_id, (e.seq << 20) + k.version, 1, e.inserted_at, greatest(k.version, 1),
       CASE WHEN k.version = 3 AND e.seq % 1000 = 0 THEN 'dead' WHEN k.version = 3 AND e.seq % 500 = 0 THEN 'attempt_failed' ELSE k.type END,
       k.data, CASE WHEN k.version = 0 THEN CASE e.seq % 700 WHEN 0 THEN 'quarantined' ELSE 'routed' END END,
       CASE WHEN k.version < 2 THEN e.id END, CASE k.version WHEN 1 THEN gen_random_uuid() END
  FROM outbox.events e,
       (VALUES (0, 'routed', '{"event":"message_created"}'::json), (1, 'scheduled', '{"webhook_version":1}'),
               (2, 'attempt_started', '{"attempt":1}'), (3, 'attempt_succeeded', '{"attempt":1}')) k (version, type, data)
 ORDER BY e.seq`)
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
SELECT e.seq, e.account_id, 3, e.account_id, (60000 << 20) + e.seq, 1, $1, 1, 'scheduled', '{}', e.id, gen_random_uuid() FROM outbox.events e WHERE e.seq <= 100`, base.Add(10*time.Hour))
	exec(`INSERT INTO relay.replays (selection, state, requested_by, requested_at, finished_at) SELECT '{}', 'running', 'somebody', $1::timestamptz + i * interval '1 hour', $1::timestamptz + i * interval '1 hour' FROM generate_series(1, 5) i`, base)
	exec(`
INSERT INTO relay.batches (no, prev, xid, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT i, i - 1, (1000000 + 10 * i)::text::xid8, (1000001 + 10 * i || ':' || 1000001 + 10 * i || ':')::pg_snapshot, 0, 10 * i, 10 * i, 10 * i, 10 * i, 10 * i - 9, 10 * i, 10 * i, 1, $2::timestamptz + i * 10 * interval '1 second'
  FROM generate_series(1, $1::integer / 10) i`, events, base)
	exec(`UPDATE relay.batches SET at = $1 WHERE no = 0`, base)
	var id uuid.UUID
	if err := db.QueryRowContext(t.Context(), `SELECT id::text FROM outbox.events WHERE seq = 7000`).Scan(&id); err != nil {
		t.Fatal(err)
	}

	const limit, most = 20, 2200
	filters := map[string]audit.Filter{
		"nothing":          {},
		"an account":       {AccountID: 7},
		"a webhook":        {WebhookID: 7},
		"an event":         {EventID: id},
		"a replay":         {ReplayID: 3},
		"a range of time":  {Since: base.Add(4 * time.Hour), Until: base.Add(5 * time.Hour)},
		"an account's":     {AccountID: 7, Since: base.Add(4 * time.Hour), Until: base.Add(5 * time.Hour)},
		"until":            {Until: base.Add(5 * time.Hour)},
		"dead":             {Status: "dead"},
		"failed":           {Status: "failed"},
		"quarantined":      {Status: "quarantined"},
		"dead for a while": {Status: "dead", Until: base.Add(5 * time.Hour)},
	}
	look := func(stats string) {
		t.Helper()
		for name, filter := range filters {
			filter.Limit = limit
			for _, from := range []int64{0, 12_000} {
				for list, read := range map[audit.List]func(*Audit, *audit.Cursor) (int, error){
					audit.EventList: func(a *Audit, after *audit.Cursor) (int, error) {
						page, err := a.Events(t.Context(), filter, after)
						return len(page.Records), err
					},
					audit.DeliveryList: func(a *Audit, after *audit.Cursor) (int, error) {
						page, err := a.Deliveries(t.Context(), filter, after)
						return len(page.Records), err
					},
					audit.AttemptList: func(a *Audit, after *audit.Cursor) (int, error) {
						page, err := a.Attempts(t.Context(), filter, after)
						return len(page.Records), err
					},
				} {
					of := map[string]audit.List{"dead": audit.DeliveryList, "dead for a while": audit.DeliveryList, "failed": audit.AttemptList, "quarantined": audit.EventList}
					if filter.Status != "" && of[name] != list || filter.ReplayID > 0 && list == audit.EventList || from > 0 && !filter.Since.IsZero() {
						continue // below the range a bounded search finds nothing
					}
					var after *audit.Cursor
					if from > 0 {
						after = &audit.Cursor{List: list, Seq: from}
					}
					tx, err := db.BeginTx(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					before := rowsRead(t, tx)
					n, err := read(&Audit{inTx{tx}}, after)
					if err != nil {
						t.Fatalf("%s statistics, %s with %s: %v", stats, list, name, err)
					}
					rows := rowsRead(t, tx) - before
					if err := tx.Rollback(); err != nil {
						t.Fatal(err)
					}
					if n == 0 && (list != audit.AttemptList || filter.ReplayID == 0) { // the replay's have none yet
						t.Errorf("%s statistics, %s with %s from %d: nothing is found", stats, list, name, from)
					}
					if rows > most {
						t.Errorf("%s statistics, %s with %s from %d: %d rows are read for %d", stats, list, name, from, rows, n)
					}
				}
			}
		}
	}

	exec(`ANALYZE`)
	look("fresh")
	exec(`INSERT INTO outbox.events (xid, account_id, event, payload) SELECT (2000000 + i)::text::xid8, i % 50 + 1, 'message_created', '{}' FROM generate_series(1, 500) i`)
	look("stale")
}
