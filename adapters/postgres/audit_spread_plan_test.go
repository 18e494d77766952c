package postgres

import (
	"context"
	"database/sql"
	"testing"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// spreadEvents are 51,000 events in three partitions, of six accounts, of which
// the first has half, each of a transaction of its own.
const spreadEvents = `
INSERT INTO outbox.events (xid, account_id, event, payload, seq, inserted_at) OVERRIDING SYSTEM VALUE
SELECT (1000000 + p * 1000000 + i)::text::xid8, CASE WHEN i % 2 = 0 THEN 1 ELSE i / 2 % 5 + 2 END, 'message_created', '{}', p * 1000000 + i, now() - interval '30 days' + (p * 17000 + i) * interval '50 s'
  FROM generate_series(0, 2) p, generate_series(1, 17000) i`

// spreadLog is their log, 206,000 entries: each is delivered to webhook
// account + 100, some after a failure, a few with all that is rare.
const spreadLog = `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
SELECT e.seq, CASE k.type WHEN 'routed' THEN 0 ELSE e.account_id + 100 END, 0, e.account_id, (e.seq << 20) + k.version + CASE k.type WHEN 'routed' THEN 0 ELSE 1 END, 1,
       e.inserted_at + k.version * interval '10 ms', k.version, k.type, k.data,
       CASE k.type WHEN 'routed' THEN CASE e.seq % 1700 WHEN 3 THEN 'quarantined' ELSE 'routed' END END,
       CASE k.version WHEN 1 THEN e.id END, CASE k.type WHEN 'scheduled' THEN gen_random_uuid() END
  FROM (SELECT *, CASE WHEN seq % 1700 BETWEEN 10 AND 13 THEN seq % 1700 WHEN seq % 1700 IN (20, 21) THEN 20 WHEN seq % 1700 BETWEEN 100 AND 125 THEN 100 ELSE 0 END AS story FROM outbox.events) e
  JOIN (VALUES
       (0, 1, 'attempt_succeeded'), (100, 2, 'attempt_failed'), (20, 2, 'attempt_unknown'),
       (10, 3, 'dead'), (11, 3, 'cancelled'), (12, 3, 'expired'), (13, 3, 'held')) s (story, n, type) USING (story)
 CROSS JOIN LATERAL (
       SELECT 1 AS version, 'routed' AS type, '{"routing":"routed","event":"message_created","deliveries":1}'::json AS data
       UNION ALL SELECT 1, 'scheduled', '{"webhook_version":1}'
       UNION ALL SELECT 2, 'attempt_started', '{"attempt":1,"webhook_version":1}' WHERE s.n < 3
       UNION ALL SELECT 3, s.type, '{"attempt":1}' WHERE s.n < 3
       UNION ALL SELECT 2, s.type, '{"reason":"why"}' WHERE s.n = 3
       UNION ALL SELECT 4, 'attempt_started', '{"attempt":2,"webhook_version":1}' WHERE s.n = 2
       UNION ALL SELECT 5, 'attempt_succeeded', '{"attempt":2,"status_code":200}' WHERE s.n = 2) k
 ORDER BY 5`

// spread fills a database with a history over several partitions.
func spread(t *testing.T, db *sql.DB) {
	t.Helper()
	for _, statement := range []string{
		spreadEvents, spreadLog,
		`SELECT setval('outbox.events_seq_seq', max(seq)) FROM outbox.events`,
		`INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
		 SELECT 1, 0, (1000001 + max(seq) || ':' || 1000001 + max(seq) || ':')::pg_snapshot, 0, max(seq), max(seq), max(seq), max(seq), 1, max(seq), 1, 1 FROM outbox.events`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
}

// auditCase is something to ask of the audit, and how many records it gives.
type auditCase struct {
	name string
	ask  func(context.Context) (int, error)
	rows int
}

// auditCases are all lists, at their beginning and far from it.
func auditCasesOf(history *Audit, event uuid.UUID, far *audit.Cursor, page int, account domain.AccountID, webhook domain.WebhookID) []auditCase {
	deliveries := func(f audit.Filter, before *audit.Cursor) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			f.Limit = page
			found, err := history.Deliveries(ctx, f, before)
			return len(found.Records), err
		}
	}
	attempts := func(f audit.Filter, before *audit.Cursor) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			f.Limit = page
			found, err := history.Attempts(ctx, f, before)
			return len(found.Records), err
		}
	}
	events := func(f audit.Filter, before *audit.Cursor) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			f.Limit = page
			found, err := history.Events(ctx, f, before)
			return len(found.Records), err
		}
	}
	return []auditCase{
		{"a trace", func(ctx context.Context) (int, error) {
			traces, err := history.Trace(ctx, 0, event)
			return len(traces), err
		}, 1},
		{"events", events(audit.Filter{}, nil), page},
		{"events, far", events(audit.Filter{}, far), page},
		{"events of an account", events(audit.Filter{AccountID: account}, nil), page},
		{"events of an account, far", events(audit.Filter{AccountID: account}, far), page},
		{"an event of an account", events(audit.Filter{AccountID: account, EventID: event}, nil), 1},
		{"events to a webhook", events(audit.Filter{WebhookID: webhook}, nil), page},
		{"events to a webhook, far", events(audit.Filter{WebhookID: webhook}, far), page},
		{"deliveries", deliveries(audit.Filter{}, nil), page},
		{"deliveries, far", deliveries(audit.Filter{}, far), page},
		{"deliveries of an account", deliveries(audit.Filter{AccountID: account}, nil), page},
		{"deliveries of an account, far", deliveries(audit.Filter{AccountID: account}, far), page},
		{"deliveries of a webhook", deliveries(audit.Filter{WebhookID: webhook}, nil), page},
		{"deliveries of a webhook, far", deliveries(audit.Filter{WebhookID: webhook}, far), page},
		{"deliveries of an account and its webhook", deliveries(audit.Filter{AccountID: account, WebhookID: webhook}, nil), page},
		{"deliveries of an event", deliveries(audit.Filter{EventID: event}, nil), 1},
		{"deliveries of an account's event", deliveries(audit.Filter{AccountID: account, EventID: event}, nil), 1},
		{"attempts", attempts(audit.Filter{}, nil), page},
		{"attempts of a webhook, far", attempts(audit.Filter{WebhookID: webhook}, far), page},
	}
}

// TestAuditReadsWhatItShows: what the lists and the trace cost is set by what
// they show, whatever the planner knows of the tables. Nothing is read as a
// whole, and nothing is sorted but a page.
func TestAuditReadsWhatItShows(t *testing.T) {
	t.Parallel()
	const page = 50
	db := pgtest.New(t)
	spread(t, db.SQL)
	pool := newExplainer(t, db.DSN, `SET statement_timeout = '15s'`)
	history := NewAudit(pool.DB)

	var event uuid.UUID
	if err := db.SQL.QueryRowContext(t.Context(), `SELECT id FROM outbox.events WHERE account_id = 5 AND seq >= 1000100 ORDER BY seq LIMIT 1`).Scan(&event); err != nil {
		t.Fatal(err)
	}
	far := &audit.Cursor{Seq: 1_008_000, WebhookID: 101}
	check := func(stats string) {
		t.Helper()
		for _, q := range auditCasesOf(history, event, far, page, 5, 105) {
			rows, err := q.ask(t.Context())
			if err != nil {
				t.Errorf("%s statistics, %s: %v", stats, q.name, err)
				continue
			}
			if rows != q.rows {
				t.Errorf("%s statistics, %s: %d rows, want %d", stats, q.name, rows, q.rows)
			}
			for _, e := range pool.take() {
				text, read, scanned := e.plan.walk(0)
				sorted := e.plan.sorted()
				if max(read, sorted) > 200*page || len(scanned) > 0 {
					t.Errorf("%s statistics, %s: read %d rows, sorted %d, %v as a whole, by %s\n%s", stats, q.name, read, sorted, scanned, e.query, text)
				}
			}
		}
	}
	// As autovacuum leaves it: it looks at partitions, never at the whole.
	for _, table := range []string{"outbox.events", "relay.log"} {
		for _, partition := range []string{"0", "1000000", "2000000"} {
			if _, err := db.SQL.ExecContext(t.Context(), `VACUUM ANALYZE `+table+`_`+partition); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("the partitions'")
	if _, err := db.SQL.ExecContext(t.Context(), `ANALYZE`); err != nil {
		t.Fatal(err)
	}
	check("fresh")
}
