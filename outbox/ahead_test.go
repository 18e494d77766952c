package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/outbox"
)

// inTwos reads in batches of two.
func inTwos(c *outbox.TailConfig) { c.BatchRows = 2 }

// The rows of a batch come from a read before it, its configuration versions do
// not.
func TestRowsReadAheadHaveTheConfigurationOfTheirBatch(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, `INSERT INTO relay.accounts (account_id, version) VALUES (1, 7), (3, 9)`)
	exec(t, db, `INSERT INTO outbox.events (account_id, event, payload) SELECT a, 'message_created', '{}' FROM unnest('{1, 1, 3, 2, 1, 3}'::bigint[]) WITH ORDINALITY u (a, i) ORDER BY i`)
	tail := readTail(t, db, inTwos)
	var versions []int64
	var ahead []bool
	for i := range 6 {
		msg, row := tail.take(t)
		versions, ahead = append(versions, row.ConfigVersion), append(ahead, tail.tail.ReadAhead())
		if i == 0 {
			tail.tail.AwaitAhead() // of the second batch
			exec(t, db, `UPDATE relay.accounts SET version = 10 WHERE account_id = 3`)
			exec(t, db, `INSERT INTO relay.accounts (account_id, version) VALUES (2, 1)`)
		}
		decide(row)
		msg.Ack()
	}
	if want := []int64{7, 7, 10, 1, 7, 10}; !slices.Equal(versions, want) {
		t.Errorf("the configuration versions are %v, want %v", versions, want)
	}
	if want := []bool{false, false, true, true, true, true}; !slices.Equal(ahead, want) {
		t.Errorf("read ahead were %v, want %v", ahead, want)
	}
	awaitRouted(t, db, 6)
	checkAlone(t, db, tail.seen)
}

// A batch that was read ahead goes with the batch before where that is not
// written: it would be a second reading of the same place.
func TestWhatWasReadAheadGoesWithTheBatchBefore(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	pgtest.FailCommits(t, db, `2`)
	exec(t, db, insertSome, 8)
	tail := readTail(t, db, inTwos)
	var seqs []int64
	var ahead []bool
	for range 10 {
		msg, row := tail.take(t)
		tail.tail.AwaitAhead()
		seqs, ahead = append(seqs, row.Seq), append(ahead, tail.tail.ReadAhead())
		decide(row)
		msg.Ack()
	}
	if want := []int64{1, 2, 3, 4, 3, 4, 5, 6, 7, 8}; !slices.Equal(seqs, want) {
		t.Errorf("the rows came as %v, want %v", seqs, want)
	}
	if want := []bool{false, false, true, true, false, false, true, true, true, true}; !slices.Equal(ahead, want) {
		t.Errorf("read ahead were %v, want %v", ahead, want)
	}
	awaitRouted(t, db, 8)
	checkAlone(t, db, tail.seen)
}

func poolOfOne(t *testing.T, db *pgtest.DB) *sql.DB {
	t.Helper()
	pool, err := sql.Open("postgres", db.DSN+"&binary_parameters=yes")
	if err != nil {
		t.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = pool.Close() })
	return pool
}

// Where the pool has no second connection the tail goes on, with what is read
// when the batch before is written.
func TestReadingAheadInAPoolOfOneConnection(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.SQL, insertSome, 9)
	pool := poolOfOne(t, db)
	tail := readTail(t, pool, inTwos)
	tail.pass(t, 8)
	awaitRouted(t, db.SQL, 8)
	tail.pass(t, 1)
	awaitRouted(t, db.SQL, 9)
	checkAlone(t, db.SQL, tail.seen)
}

// A tail that is closed reads nothing ahead any more, and leaves no connection in
// use.
func TestClosedWhileReadingAhead(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec(t, db.SQL, insertSome, 9)
	pool := poolOfOne(t, db) // so that the read waits for the batch
	tail := readTail(t, pool, inTwos)
	tail.take(t)
	tail.close(t)
	tail.tail.AwaitAhead()
	if err := tail.tail.AheadError(); !errors.Is(err, context.Canceled) {
		t.Errorf("reading ahead ended with %v", err)
	}
	eventually(t, "the end of reading", func() (bool, string) {
		n := pool.Stats().InUse
		return n == 0, fmt.Sprintf("%d connections are in use", n)
	})
	if n := scan[int](t, db.SQL, `SELECT count(*) FROM relay.log WHERE type = 'routed'`); n != 0 {
		t.Errorf("%d rows are routed", n)
	}
}
