package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// openRelay opens a pool as a relay has it: its driver has the tail's witness see
// what becomes of a transaction.
func openRelay(t *testing.T, database *pgtest.DB) *sql.DB {
	t.Helper()
	pool, err := postgres.OpenRelay(database.DSN, "tail", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return pool
}

// Watermill does not tell when the COMMIT fails: the tail finds out by the
// chain's head.
func TestCommitThatFails(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T, *pgtest.DB) *sql.DB{
		"with a witness": openRelay,
		"without":        func(_ *testing.T, database *pgtest.DB) *sql.DB { return database.SQL },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.New(t)
			commitsFail(t, database.SQL, open(t, database))
		})
	}
}

func commitsFail(t *testing.T, db, pool *sql.DB) {
	t.Helper()
	pgtest.FailCommits(t, db, `1, 3, 4`)
	exec(t, db, insertSome, 20)
	tail := startTail(t, pool, func(c *outbox.TailConfig) { c.BatchRows = 7 })
	eventually(t, "the confirmation", func() (bool, string) {
		n := len(tail.confirmed())
		return n == 3, fmt.Sprintf("%d of 3 batches are confirmed", n)
	})
	tail.stop(t)
	checkAlone(t, db, tail.seen)
	if n := scan[int](t, db, `SELECT last_value FROM public.commits`); n != 6 {
		t.Errorf("%d commits were tried, want 6", n)
	}
	// At the start, and after each failure.
	if got := tail.reloaded(); !slices.Equal(got, []int64{0, 0, 1, 1}) {
		t.Errorf("the chain was read again at %v", got)
	}
	if got := sizes(chain(t, db)); !slices.Equal(got, []int{7, 7, 6}) {
		t.Errorf("the batches have %v rows", got)
	}
}

// countedHeads counts how often the chain's head is asked for.
type countedHeads struct {
	outbox.Chain
	asked atomic.Int32
}

func (c *countedHeads) Head(ctx context.Context, relayID int64) (outbox.Head, error) {
	c.asked.Add(1)
	return c.Chain.Head(ctx, relayID)
}

// What the driver has seen committed costs no query to confirm.
func TestCommitThatIsSeen(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	db := database.SQL
	exec(t, db, insertSome, 20)
	pool := openRelay(t, database)
	chained := &countedHeads{Chain: postgres.NewChain(pool)}
	tail := startTail(t, pool, func(c *outbox.TailConfig) { c.BatchRows, c.Chain = 7, chained })
	eventually(t, "the confirmation", func() (bool, string) {
		n := len(tail.confirmed())
		return n == 3, fmt.Sprintf("%d of 3 batches are confirmed", n)
	})
	asked := chained.asked.Load() // before a poll that the stop cuts off
	tail.stop(t)
	checkAlone(t, db, tail.seen)
	if asked != 1 {
		t.Errorf("the chain's head was asked for %d times, want once: at the start", asked)
	}
	var commits []int64
	for _, batch := range tail.confirmed() {
		commits = append(commits, batch.Commit)
	}
	if want := scan[pq.Int64Array](t, db, `SELECT array_agg(commit ORDER BY no) FROM relay.batches WHERE seq_max >= seq_min`); !slices.Equal(commits, want) {
		t.Errorf("the group commits are said to be %d, want %d", commits, want)
	}
}

// The tail's commit fails, and another tail writes a batch of that number with
// other rows before the next poll: the number alone would confirm it.
func TestCommitThatFailsWhileAnotherTailIsFaster(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	pgtest.FailCommits(t, db, `1`)
	exec(t, db, insertSome, 10)
	acked, again := make(chan struct{}, 10), make(chan struct{})
	tail := startTail(t, db, func(c *outbox.TailConfig) {
		c.BatchRows = 7
		c.Ready = func(_ bool, stop <-chan struct{}) {
			acked <- struct{}{}
			select {
			case <-again:
			case <-stop:
			}
		}
	})
	within(t, "the ack", acked)
	other := readTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 3 })
	other.pass(t, 3)
	eventually(t, "the other tail's batch", func() (bool, string) {
		got := sizes(chain(t, db))
		return slices.Equal(got, []int{3}), fmt.Sprintf("its batches have %v rows", got)
	})
	other.close(t)
	close(again)
	awaitRouted(t, db, 10)
	tail.stop(t)
	checkOnce(t, db, tail.seen, other.seen)
	if got := sizes(chain(t, db)); !slices.Equal(got, []int{3, 7}) {
		t.Errorf("the batches have %v rows", got)
	}
}

// holdCommit makes the first batch's commit wait for the release.
func holdCommit(t *testing.T, db *sql.DB) (release func()) {
	t.Helper()
	exec(t, db, `
CREATE SEQUENCE public.commits;
CREATE FUNCTION public.hold_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.commits') = 1 THEN
        PERFORM pg_advisory_xact_lock_shared(1);
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER hold_first AFTER INSERT ON relay.batches DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.hold_first()`)
	holder := begin(t, db)
	exec(t, holder, `SELECT pg_advisory_xact_lock(1)`)
	return func() { commit(t, holder) }
}

// line is a network on which answers can be lost.
type line struct {
	net.Dialer
	// deaf loses what comes in, and the connection with it.
	deaf  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func (l *line) Dial(network, address string) (net.Conn, error) {
	return l.DialContext(context.Background(), network, address)
}

func (l *line) DialTimeout(network, address string, _ time.Duration) (net.Conn, error) {
	return l.DialContext(context.Background(), network, address)
}

func (l *line) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conn)
	return lossy{conn, l}, nil
}

// cut closes all connections on the client's side; the server does not notice
// before it answers.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

type lossy struct {
	net.Conn
	line *line
}

func (c lossy) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.line.deaf.Swap(false) {
		_ = c.Close()
		return 0, errors.New("the answer is lost")
	}
	return n, err
}

// openOver opens a pool over the line.
func openOver(t *testing.T, dsn string, l *line) *sql.DB {
	t.Helper()
	connector, err := pq.NewConnector(dsn + "&application_name=tail&binary_parameters=yes")
	if err != nil {
		t.Fatal(err)
	}
	connector.Dialer(l)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// awaitTail waits until a backend of the tail waits for something.
func awaitTail(t *testing.T, db *sql.DB, event string) {
	t.Helper()
	eventually(t, "a backend that waits for "+event, func() (bool, string) {
		return scan[bool](t, db, `
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tail' AND wait_event = $1)`, event), ""
	})
}

func TestCommitWithoutAnswer(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil) // a batch is held in its commit
	t.Run("lost", func(t *testing.T) { answerLost(t, pgtest.NewOn(t, server)) })
	t.Run("late", func(t *testing.T) { commitLate(t, pgtest.NewOn(t, server)) })
}

// answerLost: the batch is committed, and the tail is not told.
func answerLost(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	release := holdCommit(t, db)
	exec(t, db, insertSome, 5)
	network := &line{}
	tail := startTail(t, openOver(t, database.DSN, network), nil)
	awaitTail(t, db, "advisory")
	network.deaf.Store(true)
	release()
	eventually(t, "the confirmation", func() (bool, string) { return len(tail.confirmed()) == 1, "" })
	tail.stop(t)
	checkOnce(t, db, tail.seen)
	if network.deaf.Load() {
		t.Error("no answer was lost")
	}
	if n := scan[int](t, db, `SELECT last_value FROM public.commits`); n != 1 {
		t.Errorf("%d commits were tried, want 1", n)
	}
}

// commitLate: the connection is lost in the COMMIT, which succeeds only when
// the tail has read the chain again and routes the same rows once more.
func commitLate(t *testing.T, database *pgtest.DB) {
	t.Helper()
	db := database.SQL
	release := holdCommit(t, db)
	exec(t, db, insertSome, 5)
	network := &line{}
	tail := startTail(t, openOver(t, database.DSN, network), nil)
	awaitTail(t, db, "advisory")
	network.cut()
	awaitTail(t, db, "transactionid") // the second batch 1 waits for the first
	release()
	eventually(t, "the late batch", func() (bool, string) {
		heads := tail.reloaded()
		return heads[len(heads)-1] == 1, fmt.Sprintf("the chain was read at %v", heads)
	})
	exec(t, db, insertSome, 5)
	eventually(t, "the confirmation of the next batch", func() (bool, string) {
		n := len(tail.confirmed())
		return n > 0, fmt.Sprintf("%d batches are confirmed", n)
	})
	tail.stop(t)
	checkOnce(t, db, tail.seen)
	// Reloaded has told of batch 1: it is read from the chain.
	if got := tail.confirmed(); len(got) != 1 || got[0].No != 2 {
		t.Errorf("%d batches are confirmed, the first is %d", len(got), got[0].No)
	}
	if got := sizes(chain(t, db)); !slices.Equal(got, []int{5, 5}) {
		t.Errorf("the batches have %v rows", got)
	}
}

// The tail's connections are killed at random moments.
func TestKilledConnections(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	db := database.SQL
	pool := openRelay(t, database)
	awake := make(chan struct{})
	close(awake) // no back-off: as many polls as possible
	tail := startTail(t, pool, func(c *outbox.TailConfig) { c.BatchRows, c.Wake = 5, awake })

	const kills = 40
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.ExecContext(t.Context(), insertSome, 1+rand.IntN(3)); err != nil { //nolint:gosec // a load
					t.Error(err)
					return
				}
				pause(ctx, 4*time.Millisecond)
			}
		})
	}
	for killed := 0; killed < kills; {
		killed += scan[int](t, db, `
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tail' AND state <> 'idle'`)
		pause(ctx, 8*time.Millisecond)
	}
	cancel()
	group.Wait()
	awaitRouted(t, db, scan[int](t, db, `SELECT count(*) FROM outbox.events`))
	tail.stop(t)
	checkOnce(t, db, tail.seen)
	t.Logf("%d batches, %d confirmed, the chain was read %d times, %d errors", len(chain(t, db)), len(tail.confirmed()), len(tail.reloaded()), len(tail.errors()))
	if len(tail.errors()) == 0 {
		t.Error("no poll failed")
	}
}

// pause waits up to d, or until ctx ends: the pace of a load.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(rand.N(d)) //nolint:gosec // a load
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
