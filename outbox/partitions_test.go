package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// setSeq moves the outbox's sequence: the next row gets seq + 1.
func setSeq(t *testing.T, db *sql.DB, seq int64) {
	t.Helper()
	exec(t, db, `SELECT setval('outbox.events_seq_seq', $1)`, seq)
}

// extend does one step of keeping partitions ahead. Where it meets a lock, a
// poll of the tail on a slow machine, it tries again, as the relay does.
func extend(t *testing.T, db *sql.DB) (step string) {
	t.Helper()
	eventually(t, "a step without a lock in its way", func() (bool, string) {
		err := db.QueryRowContext(t.Context(), `SELECT relay.extend_partitions()`).Scan(&step)
		if err != nil && !lockNotAvailable(err) {
			t.Fatal(err)
		}
		return err == nil, fmt.Sprint(err)
	})
	return step
}

func lockNotAvailable(err error) bool {
	var refused *pq.Error
	return errors.As(err, &refused) && refused.Code == "55P03"
}

// extendAll does all steps.
func extendAll(t *testing.T, db *sql.DB) (steps []string) {
	t.Helper()
	for range 50 {
		step := extend(t, db)
		if step == "nothing to do" {
			return steps
		}
		steps = append(steps, step)
	}
	t.Fatalf("extend_partitions does not come to an end: %q", steps)
	return nil
}

// extendUntil does steps until one begins with the prefix.
func extendUntil(t *testing.T, db *sql.DB, prefix string) {
	t.Helper()
	var steps []string
	for range 50 {
		step := extend(t, db)
		if strings.HasPrefix(step, prefix) {
			return
		}
		steps = append(steps, step)
	}
	t.Fatalf("extend_partitions did not come to %q: %q", prefix, steps)
}

// partitionsOf counts a table's rows by partition.
func partitionsOf(t *testing.T, db *sql.DB, table string) map[string]int {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), fmt.Sprintf(`SELECT tableoid::regclass::text, count(*) FROM %s GROUP BY 1`, table))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	counts := map[string]int{}
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		counts[name] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return counts
}

// planned gives the bounds of the last partition.
func planned(t *testing.T, db *sql.DB) (lower, upper int64) {
	t.Helper()
	lower = scan[int64](t, db, `SELECT max(lower) FROM relay.partitions`)
	return lower, scan[int64](t, db, `SELECT max(upper) FROM relay.partitions`)
}

// producing inserts without a pause until the end, one row each 2 ms, and
// fails the test where an insert does.
func producing(t *testing.T, db *sql.DB) (end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	inserted := 0
	group.Go(func() {
		for ctx.Err() == nil {
			if _, err := db.ExecContext(t.Context(), insertSome, 1); err != nil {
				t.Errorf("an insert failed: %v", err)
				return
			}
			inserted++
			pause(ctx, 4*time.Millisecond)
		}
	})
	t.Cleanup(cancel)
	return func() int {
		cancel()
		group.Wait()
		return inserted
	}
}

func TestNetAndNewPartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	if steps := extendAll(t, db); len(steps) != 0 {
		t.Errorf("a new database lacked partitions: %q", steps)
	}
	tail := startTail(t, db, nil)
	exec(t, db, insertSome, 10)
	awaitRouted(t, db, 10)

	// No relay kept the partitions ahead: rows fall into the net.
	setSeq(t, db, 10_000_000)
	exec(t, db, insertSome, 30)
	awaitRouted(t, db, 40)
	if got := partitionsOf(t, db, "outbox.events"); got["outbox.events_net"] != 30 {
		t.Fatalf("the rows are in %v", got)
	}
	if got := partitionsOf(t, db, "relay.log"); got["relay.log_net"] != 30 {
		t.Fatalf("the log is in %v", got)
	}

	// Partitions are made again, behind rows that keep coming.
	end := producing(t, db)
	steps := extendAll(t, db)
	lower := scan[int64](t, db, `SELECT min(lower) FROM relay.partitions WHERE lower > 10000000`)
	for _, want := range []string{
		"planned the partition from", "outbox.events_net: constraint below", "outbox.events_net: constraint validated", "attached outbox.events_",
		"relay.log_net: constraint below", "relay.log_net: constraint validated", "attached relay.log_", "attached relay.responses_",
	} {
		if !slices.ContainsFunc(steps, func(step string) bool { return strings.HasPrefix(step, want) }) {
			t.Errorf("no step %q in %q", want, steps)
		}
	}
	if n := scan[int](t, db, `SELECT count(*) FROM pg_constraint WHERE conname = 'outrider_net'`); n != 0 {
		t.Errorf("%d constraints are left behind on the nets", n)
	}
	netRows := 30 + end()
	awaitRouted(t, db, 10+netRows)

	setSeq(t, db, lower-6)
	exec(t, db, insertSome, 11) // across the bound
	awaitRouted(t, db, 10+netRows+11)
	events, log := partitionsOf(t, db, "outbox.events"), partitionsOf(t, db, "relay.log")
	if got := events[fmt.Sprintf("outbox.events_%d", lower)]; got != 6 || events["outbox.events_net"] != netRows+5 {
		t.Errorf("the rows are in %v; the new partition begins at %d", events, lower)
	}
	if got := log[fmt.Sprintf("relay.log_%d", lower)]; got != 6 {
		t.Errorf("the log is in %v", log)
	}

	// A straggler in the net, a new row in a partition, the next partition.
	_, upper := planned(t, db)
	setSeq(t, db, upper-600_000)
	exec(t, db, insertSome, 5)
	extendAll(t, db)
	if _, next := planned(t, db); next <= upper {
		t.Errorf("no partition was made behind %d", upper)
	}
	setSeq(t, db, upper)
	exec(t, db, insertSome, 5)
	awaitRouted(t, db, 10+netRows+11+10)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
	if got := partitionsOf(t, db, "outbox.events")["outbox.events_net"]; got != netRows+5 {
		t.Errorf("the net has %d rows, want %d", got, netRows+5)
	}
}

// A jump of the sequence to anywhere must not break the upkeep.
func TestPartitionsAfterAVeryLargeJump(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	const far = 1 << 60
	setSeq(t, db, far)
	exec(t, db, insertSome, 3)
	extendAll(t, db)
	lower, upper := planned(t, db)
	if lower <= far || upper <= lower {
		t.Fatalf("the last partition is from %d to %d", lower, upper)
	}
	tail := startTail(t, db, nil)
	setSeq(t, db, lower)
	exec(t, db, insertSome, 3)
	awaitRouted(t, db, 6)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
}

// A long reader, such as pg_dump, holds up a step, which gives up soon: the
// producers behind it wait no longer than that, and the steps go on later.
func TestPartitionsBehindALongReader(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	setSeq(t, db, 10_000_000)
	exec(t, db, insertSome, 5)
	tail := startTail(t, db, nil)
	reader := begin(t, db)
	exec(t, reader, `LOCK TABLE outbox.events, relay.log IN ACCESS SHARE MODE`)
	end := producing(t, db)
	if step := extend(t, db); !strings.HasPrefix(step, "planned") {
		t.Fatalf("the first step: %q", step)
	}
	for range 3 {
		start := time.Now()
		var step string
		err := db.QueryRowContext(t.Context(), `SELECT relay.extend_partitions()`).Scan(&step)
		if !lockNotAvailable(err) {
			t.Fatalf("behind a reader: step %q, error %v", step, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the step waited for %v", took)
		}
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	extendAll(t, db)
	inserted := end()
	if inserted == 0 {
		t.Error("nothing was inserted behind the reader")
	}
	rows := 5 + inserted
	lower, _ := planned(t, db)
	setSeq(t, db, lower)
	exec(t, db, insertSome, 2)
	awaitRouted(t, db, rows+2)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
	if got := partitionsOf(t, db, "outbox.events")["outbox.events_net"]; got != rows {
		t.Errorf("the net has %d rows, want %d", got, rows)
	}
}

// The upkeep stopped half-way, for instance behind a backup of hours, and the
// rows come near to the partition that is not attached yet: it is given up
// before its constraint on the net fails an insert.
func TestPartitionThatRowsCameNearTo(t *testing.T) {
	t.Parallel()
	for _, until := range []string{"planned", "outbox.events_net: constraint below", "outbox.events_net: constraint validated"} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			setSeq(t, db, 10_000_000)
			exec(t, db, insertSome, 3)
			tail := startTail(t, db, nil)
			awaitRouted(t, db, 3)
			extendUntil(t, db, until)
			lower, _ := planned(t, db)
			setSeq(t, db, lower-2)
			if step := extend(t, db); !strings.HasPrefix(step, "gave up") {
				t.Errorf("near to the partition: %q", step)
			}
			exec(t, db, insertSome, 5) // to both sides of the bound
			awaitRouted(t, db, 8)
			extendAll(t, db)
			lower, _ = planned(t, db)
			setSeq(t, db, lower-2)
			exec(t, db, insertSome, 5)
			awaitRouted(t, db, 13)
			tail.stop(t)
			checkAlone(t, db, tail.seen)
			if got := partitionsOf(t, db, "outbox.events"); got["outbox.events_net"] != 9 {
				t.Errorf("the rows are in %v", got)
			}
		})
	}
}

// The same where the events' partition is attached and has rows already: they
// are not lost, and the tail goes on.
func TestPartitionWithRowsWhoseLogIsNotAttached(t *testing.T) {
	t.Parallel()
	for _, until := range []string{"attached outbox.events_", "relay.log_net: constraint below", "relay.log_net: constraint validated", "attached relay.log_"} {
		t.Run(until, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			setSeq(t, db, 10_000_000)
			exec(t, db, insertSome, 3)
			tail := startTail(t, db, nil)
			awaitRouted(t, db, 3)
			extendUntil(t, db, until)
			lower, _ := planned(t, db)
			setSeq(t, db, lower+10)
			exec(t, db, insertSome, 5)
			extend(t, db)
			awaitRouted(t, db, 8)
			extendAll(t, db)
			lower, _ = planned(t, db)
			setSeq(t, db, lower+10)
			exec(t, db, insertSome, 5)
			awaitRouted(t, db, 13)
			tail.stop(t)
			checkOnce(t, db, tail.seen)
			if got := partitionsOf(t, db, "outbox.events"); got["outbox.events_net"] != 3 {
				t.Errorf("the rows are in %v", got)
			}
		})
	}
}

// Many partitions, each with rows: they come in order, and a poll behind them
// looks for new rows in the last ones only.
func TestManyPartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for range 12 {
		_, upper := planned(t, db)
		setSeq(t, db, upper-1_600_000)
		exec(t, db, insertSome, 3)
		extendAll(t, db)
	}
	rows := scan[int](t, db, `SELECT count(*) FROM outbox.events`)
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 7 })
	awaitRouted(t, db, rows)
	exec(t, db, insertSome, 5)
	awaitRouted(t, db, rows+5)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
	if !scan[bool](t, db, `SELECT array_agg(event_seq ORDER BY pos) = array_agg(event_seq ORDER BY event_seq) FROM relay.log`) {
		t.Error("the rows were not routed in order")
	}
	if got := partitionsOf(t, db, "outbox.events"); len(got) < 10 {
		t.Errorf("the rows are in %v", got)
	}
	head, err := postgres.NewChain(db).Head(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if p := explain(t, db, tail.tail, head.Position, head.XID); strings.Contains(p.text, "events_0_pkey") || !strings.Contains(p.text, "events_net_pkey") {
		t.Errorf("behind row %d the poll is\n%s", head.High, p.text)
	}
}

// Looking whether a partition is wanted reads no chain, however long it is.
func TestExtendingReadsNoHistory(t *testing.T) {
	t.Parallel()
	const batches = 20_000
	db := pgtest.New(t).SQL
	exec(t, db, `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT i, i - 1, pg_current_snapshot(), 0, 0, 0, i, 0, i, i, i, 1, now() - interval '10 days' + i * interval '30 s' FROM generate_series(1, $1::integer) i`, batches)
	exec(t, db, `ANALYZE relay.batches`)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var step string
	if err := tx.QueryRowContext(t.Context(), `SELECT relay.extend_partitions()`).Scan(&step); err != nil {
		t.Fatal(err)
	}
	var read int
	if err := tx.QueryRowContext(t.Context(), `
SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relid = 'relay.batches'::regclass`).Scan(&read); err != nil {
		t.Fatal(err)
	}
	if step != "nothing to do" || read == 0 || read > 10 {
		t.Errorf("%q after reading %d of %d batches", step, read, batches)
	}
}
