package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// planNode is a node of EXPLAIN's JSON.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Rows     float64    `json:"Actual Rows"`
	Filtered float64    `json:"Rows Removed by Filter"`
	Loops    float64    `json:"Actual Loops"`
	Plans    []planNode `json:"Plans"`
}

// walk gives the text of a plan, how many rows it read of tables, and which of
// them as a whole.
func (n planNode) walk(depth int) (text string, read int, scanned []string) {
	text = fmt.Sprintf("%s%s %s %s: %.0f rows, %.0f filtered out, %.0f times\n", strings.Repeat("  ", depth), n.Type, n.Relation, n.Index, n.Rows, n.Filtered, n.Loops)
	if n.Relation != "" {
		read = int((n.Rows + n.Filtered) * n.Loops)
		if n.Type == "Seq Scan" && read > 100 {
			scanned = append(scanned, n.Relation)
		}
	}
	for _, child := range n.Plans {
		t, r, s := child.walk(depth + 1)
		text, read, scanned = text+t, read+r, append(scanned, s...)
	}
	return text, read, scanned
}

// sorted gives the most that one sort got.
func (n planNode) sorted() int {
	most := 0
	for _, child := range n.Plans {
		if n.Type == "Sort" {
			most = max(most, int(child.Rows*child.Loops))
		}
		most = max(most, child.sorted())
	}
	return most
}

// The doctor's queries read what they show and no history, whatever the
// planner knows of the tables.
func TestTheDoctorReadsNoHistory(t *testing.T) {
	t.Parallel()
	const routed, waiting, step = 60_000, 15_000, 10_000
	db := pgtest.New(t).SQL
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	// Row i is of transaction i + 1,000,000, so that the position stands
	// between two of them; every tenth has a delivery with one attempt.
	const rows = `INSERT INTO outbox.events (xid, account_id, event, payload) SELECT (1000000 + i)::text::xid8, i % 50 + 1, 'message_created', '{}' FROM generate_series($1::bigint, $2::bigint) i`
	exec(rows, 1, routed)
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing)
SELECT e.seq, w.id, 0, e.account_id, (e.seq << 20) + w.id + w.version, 1, now(), w.version, w.type, '{}', e.id, CASE w.type WHEN 'scheduled' THEN e.id END, CASE w.id WHEN 0 THEN 'routed' END
  FROM outbox.events e, (VALUES (0, 1, 'routed'), (1, 1, 'scheduled'), (1, 2, 'attempt_started'), (1, 3, 'attempt_succeeded')) w (id, version, type)
 WHERE e.seq <= $1 AND (w.id = 0 OR e.seq % 10 = 0) ORDER BY 1, 2`, routed)
	exec(`
INSERT INTO relay.batches (no, prev, xid, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT i, i - 1, (1000000 + 100 * i)::text::xid8, (1000001 + 100 * i || ':' || 1000001 + 100 * i || ':')::pg_snapshot, 0, 100 * i, 0, 100 * i, 100 * i, 100 * i - 99, 100 * i, i, 1,
       now() - interval '8 days' + i * interval '18 min' FROM generate_series(1, $1::bigint / 100) i`, routed)
	exec(`INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) SELECT i, 1, 0, 4, 'r', now() + i * interval '1 s', i, 0 FROM generate_series(1, 30000) i`)
	exec(`INSERT INTO relay.heartbeats (relay_id, n, position, low) SELECT r, n, $1::bigint / 100, $1::bigint << 20 FROM generate_series(1, 20) r, generate_series(1, 200) n`, routed)
	exec(`INSERT INTO relay.relays (name, version, recorder) SELECT 'a', 'v1', n FROM generate_series(1, 20) n`)
	exec(`UPDATE relay.slots SET relay_id = 20, position = $1::bigint / 100, low = $1::bigint << 20, since = now()`, routed)

	p := &patient{db: db, config: DoctorConfig{Timeout: time.Minute}}
	look := func(stats string) {
		t.Helper()
		err := p.reading(t.Context(), func(tx *sql.Tx) error {
			// Under row-level security, which a superuser is not.
			if _, err := tx.ExecContext(t.Context(), `SET LOCAL SESSION AUTHORIZATION outrider_operator`); err != nil {
				return err
			}
			pos, err := readPosition(t.Context(), tx)
			if err != nil {
				return err
			}
			args := func(more ...any) []any { return append(positionArgs(pos), more...) }
			for _, q := range []struct {
				name, query string
				args        []any
				most        int
			}{
				{"position", positionQuery, nil, 10},
				{"relays", relaysInUseQuery, []any{tailSlot}, 1000},
				{"unrouted", unroutedRowsQuery, []any{pos.inProgress, max(pos.cursor, pos.low), pos.xmax, max(pos.cursor, pos.floor), pos.xid, pos.high, pos.consumed, countLimit + 1}, 3 * countLimit},
				{"passed over, below", passedBelowQuery, args(pos.high, step), 4 * step},
				{"passed over, further below", passedBelowQuery, args(pos.high/2, step), 4 * step},
				{"passed over, above", passedAboveQuery, args(step), 4 * step},
				{"dispatched", dispatchQuery, nil, 300},
				{"not begun", behindQuery, []any{pos.no - batchesLooked, batchesLooked, commitShift, countLimit + 1}, 10 * 100 * batchesLooked / 2},
				{"low", lowQuery, nil, 300},
				{"open attempts", openAttemptsQuery, []any{pos.high << commitShift, 5 * countLimit}, 100},
				{"due", dueQuery, []any{countLimit + 1}, 3 * countLimit},
				{"partitions", partitionsQuery, nil, 100},
				{"net", netQuery, []any{countLimit + 1}, 100},
				{"relay's clock", relaysClockQuery, nil, 100},
				{"waiting", waitingQuery, []any{countLimit + 1}, 6 * waiting},
				{"watched, due", watchedDueQuery, []any{countLimit + 1}, 3 * countLimit},
				{"watched, room", watchedRoomQuery, nil, 100},
				{"watched, a day ago", dayAgoQuery, nil, 10},
				{"watched, net", watchedNetQuery, []any{pos.high, countLimit + 1}, 100},
			} {
				root, err := explain(t.Context(), tx, q.query, q.args)
				if err != nil {
					return fmt.Errorf("%s: %w", q.name, err)
				}
				text, read, scanned := root.walk(0)
				if read > q.most || len(scanned) > 0 {
					t.Errorf("%s statistics, %s: read %d rows, at most %d are wanted, %v as a whole, by\n%s", stats, q.name, read, q.most, scanned, text)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look("no")
	exec(`ANALYZE`)
	look("fresh")
	exec(rows, routed+1, routed+waiting)
	look("stale")
}

// What waits is found by what waits: a transaction that is open since long ago
// makes no audit query walk all that was routed since.
func TestAnOldTransactionMakesAuditEventsNoSlower(t *testing.T) {
	t.Parallel()
	const routed, newer = 40_000, 30
	db := pgtest.New(t).SQL
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	// Transaction 1000000 is open since before the first row, and has row 10:
	// that it is below the cursor of the window does not make it routed.
	exec(`INSERT INTO outbox.events (xid, account_id, event, payload)
SELECT CASE i WHEN 10 THEN '1000000' ELSE (1000000 + i)::text END::xid8, i % 50 + 1, 'message_created', '{}' FROM generate_series(1, $1::bigint) i`, routed+newer)
	exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, routing)
SELECT seq, 0, 0, account_id, seq << 20, 1, now(), 1, 'routed', '{}', id, 'routed' FROM outbox.events WHERE seq <= $1 AND seq <> 10`, routed)
	exec(`
INSERT INTO relay.batches (no, prev, xid, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
SELECT 1, 0, $2::text::xid8, ('1000000:' || $2 || ':1000000')::pg_snapshot, $1, $1::bigint - 100, $1::bigint - 100, $1, 0, 1, $1, 1, 1`, routed, fmt.Sprint(1000001+routed))
	look := func(stats string) {
		t.Helper()
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(t.Context(), `SET LOCAL SESSION AUTHORIZATION outrider_auditor`); err != nil {
			t.Fatal(err)
		}
		for _, q := range []struct {
			name, query string
			rows        int
		}{
			{"a page", `SELECT seq, event FROM audit.events ORDER BY seq DESC LIMIT 20`, 20},
			{"a page further down", `SELECT seq, event FROM audit.events WHERE seq < 20000 ORDER BY seq DESC LIMIT 20`, 20},
			{"what waits", `SELECT seq, event FROM audit.events WHERE routed_at IS NULL ORDER BY seq`, newer + 1},
		} {
			root, err := explain(t.Context(), tx, q.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, read, _ := root.walk(0)
			if int(root.Rows) != q.rows {
				t.Errorf("%s statistics, %s: %.0f rows, want %d", stats, q.name, root.Rows, q.rows)
			}
			if read > 1000 {
				t.Errorf("%s statistics, %s: read %d rows by\n%s", stats, q.name, read, text)
			}
		}
	}
	look("no")
	exec(`ANALYZE`)
	look("fresh")
}

func explain(ctx context.Context, tx *sql.Tx, query string, args []any) (planNode, error) {
	var text string
	if err := tx.QueryRowContext(ctx, `EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) `+query, args...).Scan(&text); err != nil {
		return planNode{}, err
	}
	var explained []struct{ Plan planNode }
	if err := json.Unmarshal([]byte(text), &explained); err != nil {
		return planNode{}, err
	}
	return explained[0].Plan, nil
}
