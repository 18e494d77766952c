package outbox_test

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// smallBatches makes windows stay open, and an adoption take several batches.
func smallBatches(c *outbox.TailConfig) { c.BatchRows = 7 }

// leaveWork makes a database as a relay leaves it that dies at a bad moment,
// and returns how many rows it routed: 60 rows wait, among them 20 stragglers,
// which lie below what was routed, and the rest of a window that is half read.
func leaveWork(t *testing.T, db *pgtest.DB) (routed int) {
	t.Helper()
	if err := postgres.RegisterIdentity(t.Context(), db.SQL); err != nil {
		t.Fatal(err)
	}
	exec(t, db.SQL, insertSome, 5)
	tail := startTail(t, db.SQL, smallBatches)
	awaitRouted(t, db.SQL, 5)
	stragglers := make([]*sql.Tx, 4)
	for i := range stragglers { // their rows lie between others
		stragglers[i] = begin(t, db.SQL)
		exec(t, stragglers[i], insertSome, 3)
		exec(t, db.SQL, insertSome, 3)
	}
	awaitRouted(t, db.SQL, 17)
	for i := range stragglers {
		exec(t, stragglers[i], insertSome, 2)
	}
	exec(t, db.SQL, insertSome, 4)
	awaitRouted(t, db.SQL, 21)
	tail.stop(t)

	exec(t, db.SQL, insertSome, 40)
	half := readTail(t, db.SQL, smallBatches)
	half.pass(t, 7)
	awaitRouted(t, db.SQL, 28)
	half.close(t)
	for i := range stragglers {
		commit(t, stragglers[i])
	}
	exec(t, db.SQL, insertSome, 7)
	if target := scan[sql.NullString](t, db.SQL, `SELECT target::text FROM relay.batches ORDER BY no DESC LIMIT 1`); !target.Valid {
		t.Fatal("no window is open")
	}
	if n := scan[int](t, db.SQL, `SELECT undecided FROM relay.adoption()`); n != 60 {
		t.Fatalf("%d rows are said to wait, want 60", n)
	}
	return 28
}

// adopt adopts the database, as the one who may.
func adopt(t *testing.T, db *sql.DB) {
	t.Helper()
	adopted, err := postgres.Adopt(t.Context(), db)
	if err != nil || !adopted {
		t.Fatalf("adopted: %t, %v", adopted, err)
	}
}

// burn uses up transaction ids until the server has passed an id.
func burn(t *testing.T, db *sql.DB, past string) {
	t.Helper()
	exec(t, db, `
DO $$
BEGIN
  WHILE pg_current_xact_id() <= '`+past+`'::xid8 LOOP COMMIT; END LOOP;
END $$`)
}

// checkAdopted checks that all that is committed has a decision, by a chain
// without gaps whose batches are in order; the log's key refuses a second one.
func checkAdopted(t *testing.T, db *sql.DB, tails ...*running) {
	t.Helper()
	if missing := scan[sql.NullString](t, db, `
SELECT string_agg(e.seq || ' of ' || e.xid, ', ' ORDER BY e.seq) FROM outbox.events e
 WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0)`); missing.Valid {
		t.Errorf("not routed: %s", missing.String)
	}
	if n := scan[int](t, db, `SELECT count(*) FROM relay.log l WHERE NOT EXISTS (SELECT FROM outbox.events e WHERE e.seq = l.event_seq)`); n != 0 {
		t.Errorf("%d decisions are about nothing", n)
	}
	for _, l := range chain(t, db) {
		if !slices.IsSorted(l.routed) || len(l.routed) == 0 && l.relayID != 0 || len(l.routed) > 7 {
			t.Errorf("link %d routed %v", l.no, l.routed)
		}
	}
	for _, tail := range tails {
		if errs := tail.errors(); len(errs) > 0 {
			t.Errorf("errors: %v", errs)
		}
	}
}

// TestAnAdoptedDumpLosesNothing restores a dump into another cluster whose
// counter of transactions lies far below, far above, or just before what the
// rows tell, and lets it pass them.
func TestAnAdoptedDumpLosesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		oldEpoch, newEpoch, laterEpoch string
		pass                           bool
	}{
		"below, then above": {oldEpoch: "2", laterEpoch: "3"},
		"below for ever":    {oldEpoch: "2"},
		"above":             {newEpoch: "2"},
		"passing":           {pass: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, restored := pgtest.NewWholeServer(t), pgtest.NewWholeServer(t)
			for server, epoch := range map[*devpg.Server]string{old: test.oldEpoch, restored: test.newEpoch} {
				if epoch != "" {
					pgtest.SetEpoch(t, server, epoch)
				}
			}
			from := pgtest.NewOn(t, old)
			if test.pass { // the copy's cluster is to come to the rows' ids only later
				burn(t, from.SQL, "5000")
			}
			routed := leaveWork(t, from)
			lowest, highest := scan[string](t, from.SQL, `SELECT min(xid::text::bigint)::text FROM outbox.events`), scan[string](t, from.SQL, `SELECT max(xid::text::bigint)::text FROM outbox.events`)
			db := pgtest.Restore(t, from, restored)
			exec(t, db.SQL, insertSome, 2) // before it is adopted
			open := begin(t, db.SQL)       // a transaction of the new cluster that is under way
			exec(t, open, `SELECT pg_current_xact_id()`)
			adopt(t, db.SQL)
			exec(t, open, insertSome, 2)
			exec(t, db.SQL, insertSome, 2)

			tail := startTail(t, db.SQL, smallBatches)
			awaitRouted(t, db.SQL, routed+60+2+2)
			commit(t, open)
			awaitRouted(t, db.SQL, routed+60+2+4)
			if test.pass {
				// Each id that a row tells is once the present one, once under
				// way, once just completed.
				for {
					tx := begin(t, db.SQL)
					exec(t, tx, insertSome, 1)
					xid := scan[int64](t, tx, `SELECT pg_current_xact_id()::text::bigint`)
					exec(t, db.SQL, insertSome, 1)
					n := scan[int](t, db.SQL, `SELECT count(*) FROM outbox.events`)
					awaitRouted(t, db.SQL, n)
					commit(t, tx)
					awaitRouted(t, db.SQL, n+1)
					if xid > scan[int64](t, db.SQL, `SELECT $1::bigint`, highest) {
						break
					}
					if xid < scan[int64](t, db.SQL, `SELECT $1::bigint - 10`, lowest) {
						burn(t, db.SQL, fmt.Sprint(scan[int64](t, db.SQL, `SELECT $1::bigint - 10`, lowest)))
					}
				}
			}
			tail.stop(t)
			checkAdopted(t, db.SQL, tail)
			if test.laterEpoch == "" {
				return
			}
			pgtest.SetEpoch(t, restored, test.laterEpoch)
			eventually(t, "a connection", func() (bool, string) {
				err := db.SQL.PingContext(t.Context())
				return err == nil, fmt.Sprint(err)
			})
			n := scan[int](t, db.SQL, `SELECT count(*) FROM outbox.events`)
			exec(t, db.SQL, insertSome, 20)
			tail = startTail(t, db.SQL, smallBatches)
			awaitRouted(t, db.SQL, n+20)
			tail.stop(t)
			checkAdopted(t, db.SQL, tail)
		})
	}
}

// TestAnAdoptionGoesOnWhereItStopped ends the tail after each batch of what an
// adoption found, and in the middle adopts a copy of the copy.
func TestAnAdoptionGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	old, restored := pgtest.NewWholeServer(t), pgtest.NewWholeServer(t)
	pgtest.SetEpoch(t, old, "2")
	from := pgtest.NewOn(t, old)
	routed := leaveWork(t, from)
	db := pgtest.Restore(t, from, restored)
	adopt(t, db.SQL)
	bound := scan[int64](t, db.SQL, `SELECT bound FROM relay.batches ORDER BY no DESC LIMIT 1`)
	if newest := scan[int64](t, db.SQL, `SELECT max(seq) FROM outbox.events`); bound != newest {
		t.Errorf("the bound is %d, the newest row %d", bound, newest)
	}
	exec(t, db.SQL, insertSome, 3) // come behind all of them, and are found by the second adoption
	// waiting is what somebody sees who asks, at any moment.
	waiting := func(db *sql.DB) int {
		return scan[int](t, db, `SELECT count(*) FROM audit.events WHERE routing = 'waiting'`)
	}
	if n := waiting(db.SQL); n != 63 {
		t.Errorf("%d events wait in audit.events, want 63", n)
	}
	for batch := range 9 {
		if batch == 4 {
			db = pgtest.Restore(t, db, restored)
			adopt(t, db.SQL)
		}
		tail := readTail(t, db.SQL, smallBatches)
		tail.pass(t, 7)
		awaitRouted(t, db.SQL, routed+7*(batch+1))
		tail.close(t)
		if n, want := waiting(db.SQL), 63-7*(batch+1); n != want {
			t.Errorf("after batch %d %d events wait in audit.events, want %d", batch, n, want)
		}
		left := scan[int64](t, db.SQL, `SELECT bound FROM relay.batches ORDER BY no DESC LIMIT 1`)
		if last := batch == 8; last != (left == 0) {
			t.Errorf("after batch %d the bound is %d", batch, left)
		}
	}
	tail := startTail(t, db.SQL, smallBatches)
	exec(t, db.SQL, insertSome, 9)
	awaitRouted(t, db.SQL, routed+72)
	tail.stop(t)
	checkAdopted(t, db.SQL, tail)
	if seqs := scan[bool](t, db.SQL, `
SELECT bool_and(l.event_seq > l.before) FROM (
  SELECT event_seq, lag(event_seq, 1, 0::bigint) OVER (ORDER BY pos) AS before FROM relay.log WHERE pos >> 20 > (SELECT max(commit) FROM relay.batches WHERE relay_id = 0)) l`); !seqs {
		t.Error("what an adoption found was not routed in its order, or not before what came later")
	}
}

// TestAnAdoptionWaitsForProducersShortly holds a transaction with an event open:
// the adoption waits for its end, and other producers go on meanwhile.
func TestAnAdoptionWaitsForProducersShortly(t *testing.T) {
	t.Parallel()
	server := pgtest.NewWholeServer(t)
	from := pgtest.NewOn(t, server)
	leaveWork(t, from)
	db := pgtest.Restore(t, from, server)
	open := begin(t, db.SQL)
	exec(t, open, insertSome, 1)
	done := make(chan error, 1)
	go func() {
		adopted, err := postgres.Adopt(t.Context(), db.SQL)
		if err == nil && !adopted {
			err = fmt.Errorf("not adopted")
		}
		done <- err
	}()
	eventually(t, "an adoption that waits", func() (bool, string) {
		n := scan[int](t, db.SQL, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ 'relay.adopt'`)
		return n > 0, fmt.Sprint(n)
	})
	for range 20 {
		exec(t, db.SQL, insertSome, 1)
	}
	select {
	case err := <-done:
		t.Fatalf("the adoption did not wait: %v", err)
	default:
	}
	commit(t, open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	tail := startTail(t, db.SQL, smallBatches)
	awaitRouted(t, db.SQL, 28+60+21)
	tail.stop(t)
	checkAdopted(t, db.SQL, tail)
}

// TestAdoptingTakesATransactionOfItsOwn: rows of the adopting transaction would
// lie in the snapshot that it writes, and be taken for routed.
func TestAdoptingTakesATransactionOfItsOwn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, `INSERT INTO relay.identity (system_identifier, database_oid, database_name) VALUES (1, 1, 'other')`)
	tx := begin(t, db)
	exec(t, tx, insertSome, 1)
	if _, err := tx.ExecContext(t.Context(), `SELECT relay.adopt()`); err == nil {
		t.Error("it adopts behind an insert")
	}
	_ = tx.Rollback()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT relay.adopt()`); err == nil {
		t.Error("it adopts in a snapshot older than its lock")
	}
	_ = tx.Rollback()
}

// TestSequencesThatWereLeftBehind: logical replication copies rows and leaves
// sequences where they were. An empty outbox has a bound too.
func TestSequencesThatWereLeftBehind(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"empty": 0, "behind": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			if rows > 0 {
				exec(t, db, insertSome, rows)
				exec(t, db, `SELECT setval('outbox.events_seq_seq', 4)`)
			}
			exec(t, db, `INSERT INTO relay.identity (system_identifier, database_oid, database_name, since) VALUES (1, 1, 'other', now() + interval '1 day')`)
			adopt(t, db)
			if again, err := postgres.Adopt(t.Context(), db); err != nil || again {
				t.Errorf("a second adoption: %t, %v", again, err)
			}
			exec(t, db, insertSome, 3)
			tail := startTail(t, db, smallBatches)
			awaitRouted(t, db, rows+3)
			tail.stop(t)
			checkAdopted(t, db, tail)
		})
	}
}

// TestADatabaseMovedBeforeItsFirstRelay has no identity, but rows of
// transactions that its server has not come to.
func TestADatabaseMovedBeforeItsFirstRelay(t *testing.T) {
	t.Parallel()
	old, restored := pgtest.NewWholeServer(t), pgtest.NewWholeServer(t)
	from := pgtest.NewOn(t, old)
	exec(t, from.SQL, insertSome, 3)
	if scan[bool](t, from.SQL, `SELECT relay.database_changed()`) {
		t.Error("a new database counts as moved")
	}
	pgtest.SetEpoch(t, old, "1")
	eventually(t, "a connection", func() (bool, string) {
		err := from.SQL.PingContext(t.Context())
		return err == nil, fmt.Sprint(err)
	})
	exec(t, from.SQL, insertSome, 3)
	db := pgtest.Restore(t, from, restored)
	if !scan[bool](t, db.SQL, `SELECT relay.database_changed()`) {
		t.Error("it does not count as moved")
	}
	adopt(t, db.SQL)
	tail := startTail(t, db.SQL, smallBatches)
	awaitRouted(t, db.SQL, 6)
	tail.stop(t)
	checkAdopted(t, db.SQL, tail)
}

// TestALinkThatTookAnothersNumber: behind a restore to an earlier time another
// relay may have written the number that is in memory.
func TestALinkThatTookAnothersNumber(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, insertSome, 7)
	tail := startTail(t, db, smallBatches)
	awaitRouted(t, db, 7)
	eventually(t, "the confirmation", func() (bool, string) { return len(tail.confirmed()) == 1, "" })
	exec(t, db, `
WITH gone AS (DELETE FROM relay.batches WHERE no = 1 RETURNING *)
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
SELECT no + 1, prev + 1, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, 4711 FROM gone`)
	exec(t, db, `UPDATE relay.batches SET no = 1, prev = 0 WHERE no = 2`)
	eventually(t, "the chain read again", func() (bool, string) {
		heads := tail.reloaded()
		return len(heads) > 1 && heads[len(heads)-1] == 1, fmt.Sprint(heads)
	})
	exec(t, db, insertSome, 7)
	awaitRouted(t, db, 14)
	tail.stop(t)
}

// TestAnAdoptionReadsByIndex: however much is decided, the next batch costs
// what lies between it and the one before.
func TestAnAdoptionReadsByIndex(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, insertSome, 20_000)
	exec(t, db, `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing)
SELECT seq, 0, 0, 1, seq, 1, now(), 1, 'routed', '{}', 'no_subscriber' FROM outbox.events WHERE seq % 1000 <> 0`)
	now, err := outbox.ParseSnapshot("3:3:")
	if err != nil {
		t.Fatal(err)
	}
	tail, _ := newTail(t, db, smallBatches)
	for _, statistics := range []string{"none", "fresh"} {
		if statistics == "fresh" {
			exec(t, db, `ANALYZE outbox.events, relay.log, relay.batches`)
		}
		p := explain(t, db, tail, outbox.Position{Target: &now, Cursor: 15_000, Bound: 20_000}, 3)
		// 5,000 rows and the decisions of all but 5 of them.
		if p.rows != 5 || p.read > 10_100 || len(p.scanned) > 0 {
			t.Errorf("%s statistics: %d rows, %d read, whole partitions %v:\n%s", statistics, p.rows, p.read, p.scanned, p.text)
		}
	}
}
