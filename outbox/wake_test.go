package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// These tests look at transaction ids, so they have a server for themselves,
// one after the other.
func TestWake(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	for name, test := range map[string]func(*testing.T, *pgtest.DB){
		"an insert wakes a sleeping tail":               insertWakes,
		"an insert from before the sleep is found":      earlyInsertIsFound,
		"a quiet tail takes no transaction ids":         quietTail,
		"a busy tail asks for no notifications":         busyTail,
		"a steady trickle needs no notifications":       steadyTail,
		"a tail that shared the outbox asks for them":   sharedWake,
		"a sleeping tail is stopped at once":            sleepingTailStops,
		"without notifications the fallback poll finds": fallbackPoll,
	} {
		t.Run(name, func(t *testing.T) { test(t, pgtest.NewOn(t, server)) })
	}
}

func raised(t *testing.T, db *sql.DB) bool {
	t.Helper()
	return scan[int](t, db, `SELECT last_value FROM outbox.wake`) == 1
}

// awaitAsleep waits until the tail has raised the sequence and polls no more.
// With nothing else under way it polls three times: nothing is there, nothing
// came meanwhile, no old transaction is under way.
func awaitAsleep(t *testing.T, db *sql.DB, tail *seen) {
	t.Helper()
	last, same := 0, 0
	eventually(t, "the sleep", func() (bool, string) {
		if n := tail.polled(); n != last {
			last, same = n, 0
		}
		same++
		return same > 10 && raised(t, db), fmt.Sprintf("%d polls", last)
	})
}

// heard collects notifications of inserts.
type heard struct {
	listener *pq.Listener
	db       *sql.DB
}

func hear(t *testing.T, database *pgtest.DB) *heard {
	t.Helper()
	h := &heard{listener: pq.NewListener(database.DSN, time.Second, time.Second, nil), db: database.SQL}
	t.Cleanup(func() { _ = h.listener.Close() })
	if err := h.listener.Listen("outrider_wake"); err != nil {
		t.Fatal(err)
	}
	return h
}

// count tells how many notifications came since the last count: those before
// one that it sends.
func (h *heard) count(t *testing.T) int {
	t.Helper()
	exec(t, h.db, `SELECT pg_notify('outrider_wake', 'end')`)
	for n := 0; ; n++ {
		select {
		case got := <-h.listener.Notify:
			if got == nil {
				t.Fatal("the listener lost its connection")
			}
			if got.Extra == "end" {
				return n
			}
		case <-time.After(deadline):
			t.Fatal("no notification came")
		}
	}
}

func insertWakes(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	notices := relay.NewNotices()
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan error, 1)
	go func() { listening <- postgres.Listen(ctx, database.DSN, notices, slog.New(slog.DiscardHandler)) }()
	defer func() {
		cancel()
		if err := <-listening; err != nil {
			t.Errorf("listen: %v", err)
		}
	}()
	eventually(t, "the listener", func() (bool, string) {
		return scan[bool](t, db, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%outrider_relay%')`), ""
	})
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.PollInterval, c.Wake = time.Hour, notices.Inserted })
	for i := range 3 {
		awaitAsleep(t, db, tail.seen)
		exec(t, db, insertSome, 2)
		awaitRouted(t, db, 2*(i+1))
	}
	// Also an open transaction that notifies only when it commits.
	awaitAsleep(t, db, tail.seen)
	tx := begin(t, db)
	exec(t, tx, insertSome, 2)
	commit(t, tx)
	awaitRouted(t, db, 8)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
}

// earlyInsertIsFound: a transaction that inserted before the tail asked for
// notifications sends none, and the tail polls until it has ended.
func earlyInsertIsFound(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	notifications := hear(t, database)
	early := begin(t, db)
	exec(t, early, insertSome, 1)
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.PollInterval = time.Hour })
	polls := 0
	eventually(t, "the back-off", func() (bool, string) {
		polls = tail.polled()
		return raised(t, db) && polls > 8, fmt.Sprintf("%d polls", polls)
	})
	if n := len(chain(t, db)); n != 0 {
		t.Fatalf("the chain has %d links", n)
	}
	commit(t, early)
	awaitRouted(t, db, 1)
	if n := notifications.count(t); n != 0 {
		t.Errorf("%d notifications were sent", n)
	}
	awaitAsleep(t, db, tail.seen)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
}

func quietTail(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	exec(t, db, insertSome, 3)
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.PollInterval = time.Millisecond })
	awaitRouted(t, db, 3)
	const next = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`
	morePolls := func() {
		t.Helper()
		before := tail.polled()
		eventually(t, "more polls", func() (bool, string) {
			n := tail.polled() - before
			return n > 20, fmt.Sprintf("%d polls", n)
		})
	}
	morePolls()
	before, lsn := scan[int64](t, db, next), scan[string](t, db, `SELECT pg_current_wal_insert_lsn()`)
	morePolls()
	if after := scan[int64](t, db, next); after != before {
		t.Errorf("the next transaction id was %d and is %d", before, after)
	}
	if written := scan[int64](t, db, `SELECT pg_current_wal_insert_lsn() - $1::pg_lsn`, lsn); written > 1000 {
		t.Errorf("%d bytes of WAL were written", written) // some are the server's own
	}
	tail.stop(t)
	checkAlone(t, db, tail.seen)
}

func busyTail(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	notifications := hear(t, database)
	wake := make(chan struct{}, 1)
	tail := readTail(t, db, func(c *outbox.TailConfig) { c.BatchRows, c.PollInterval, c.Wake = 5, time.Hour, wake })
	awaitAsleep(t, db, tail.seen)
	exec(t, db, insertSome, 12)
	if n := notifications.count(t); n != 1 {
		t.Fatalf("%d notifications were sent to a sleeping tail", n)
	}
	wake <- struct{}{}
	tail.pass(t, 5)
	msg, row := tail.take(t) // of the second batch: the first was a full one
	if raised(t, db) {
		t.Error("the tail is busy, and asks for notifications")
	}
	exec(t, db, insertSome, 3)
	if n := notifications.count(t); n != 0 {
		t.Errorf("%d notifications were sent to a busy tail", n)
	}
	decide(row)
	msg.Ack()
	tail.pass(t, 9)
	awaitAsleep(t, db, tail.seen)
	exec(t, db, insertSome, 1)
	if n := notifications.count(t); n != 1 {
		t.Errorf("%d notifications were sent to a tail that sleeps again", n)
	}
	wake <- struct{}{}
	tail.pass(t, 1)
	awaitAsleep(t, db, tail.seen)
	tail.close(t)
	checkAlone(t, db, tail.seen)
}

// steadyTail: notifications go on while an event comes now and then, and end
// where each poll finds one.
func steadyTail(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	tail := readTail(t, db, func(c *outbox.TailConfig) { c.PollInterval = time.Millisecond })
	awaitAsleep := func() {
		t.Helper()
		before := tail.polled()
		eventually(t, "an idle tail", func() (bool, string) { return raised(t, db) && tail.polled() > before+5, "" })
	}
	for range 3 {
		awaitAsleep()
		exec(t, db, insertSome, 1)
		for range 30 {
			msg, row := tail.take(t)
			if !raised(t, db) {
				t.Fatal("after a few events the tail asks for no more notifications")
			}
			exec(t, db, insertSome, 1)
			decide(row)
			msg.Ack()
		}
		tail.pass(t, 1)
	}
	awaitAsleep()
	exec(t, db, insertSome, 1)
	for range 70 {
		msg, row := tail.take(t)
		exec(t, db, insertSome, 1)
		decide(row)
		msg.Ack()
	}
	msg, row := tail.take(t)
	if raised(t, db) {
		t.Error("each poll finds events, and the tail asks for notifications")
	}
	decide(row)
	msg.Ack()
	awaitAsleep()
	tail.close(t)
	checkAlone(t, db, tail.seen)
}

// sharedWake: a tail believes that it has asked for notifications, and another
// one, which was busy, has taken that back.
func sharedWake(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	wake := make(chan struct{}, 1)
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.PollInterval, c.Wake = time.Hour, wake })
	awaitAsleep(t, db, tail.seen)

	exec(t, db, insertSome, 1)
	other := readTail(t, db, nil)
	other.pass(t, 1)
	awaitRouted(t, db, 1)
	other.close(t)
	exec(t, db, `SELECT setval('outbox.wake', 0)`) // as it does when it stays busy

	wake <- struct{}{} // or the fallback poll
	awaitAsleep(t, db, tail.seen)
	tail.stop(t)
	checkOnce(t, db, tail.seen)
}

func sleepingTailStops(t *testing.T, database *pgtest.DB) {
	t.Helper()
	tail := startTail(t, database.SQL, func(c *outbox.TailConfig) { c.PollInterval = time.Hour })
	awaitAsleep(t, database.SQL, tail.seen)
	tail.stop(t)
	if errs := tail.errors(); len(errs) > 0 {
		t.Errorf("errors: %v", errs)
	}
}

func fallbackPoll(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.PollInterval = 10 * time.Millisecond })
	eventually(t, "the sleep", func() (bool, string) { return raised(t, db) && tail.polled() > 5, "" })
	exec(t, db, insertSome, 1)
	awaitRouted(t, db, 1)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
}
