package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/outbox"
)

// errRolledBack ends a producer's transaction that is to be rolled back.
var errRolledBack = errors.New("rolled back on purpose")

const (
	conversations = 24
	// ownConversations of a long transaction, so that only it waits for them.
	ownConversations = 1000

	production = 1500 * time.Millisecond
)

// hostile is a producer that does everything that is allowed: it takes its
// transaction id early, sets savepoints and goes back to them, stays open for
// long, and rolls back. It counts each conversation's events in the
// conversation's row, whose lock makes the order of its events causal.
type hostile struct {
	db     *sql.DB
	number int
	rand   *rand.Rand
}

func (h *hostile) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := h.transaction(ctx)
		if err != nil && !errors.Is(err, errRolledBack) {
			return err
		}
	}
	return nil
}

func (h *hostile) transaction(ctx context.Context) (err error) {
	whole := context.WithoutCancel(ctx) // what it begins it ends
	tx, err := h.db.BeginTx(whole, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	pace := 25 * time.Millisecond
	long := h.number < 3
	if long {
		pace = 700 * time.Millisecond
	}
	// Whether it inserts and then stays open, or the other way round.
	late := h.rand.IntN(2) == 0
	if h.rand.IntN(2) == 0 { // an id long before the first row
		if _, err := tx.ExecContext(whole, `SELECT pg_current_xact_id()`); err != nil {
			return err
		}
		pause(ctx, 20*time.Millisecond)
	}
	first := h.rand.IntN(conversations)
	for step := range 1 + h.rand.IntN(4) {
		conversation := first + step // ascending, so there are no deadlocks
		if long {
			conversation = ownConversations*(h.number+1) + step
		}
		if late {
			pause(ctx, pace)
		}
		if err := h.insert(whole, tx, conversation); err != nil {
			return err
		}
		if !late {
			pause(ctx, pace)
		}
	}
	if h.rand.IntN(10) == 0 {
		return errRolledBack
	}
	return tx.Commit()
}

// overtake commits a row whose place is above, and whose transaction is below,
// those of a row that is still open: where no newer transaction has completed,
// the snapshot in which the first is read has the other above its xmax.
func overtake(ctx context.Context, db *sql.DB, conversation int) error {
	whole := context.WithoutCancel(ctx)
	older, err := db.BeginTx(whole, nil)
	if err != nil {
		return err
	}
	defer func() { _ = older.Rollback() }()
	newer, err := db.BeginTx(whole, nil)
	if err != nil {
		return err
	}
	defer func() { _ = newer.Rollback() }()
	h := &hostile{rand: rand.New(rand.NewPCG(1, uint64(conversation)))} //nolint:gosec // a load
	if _, err := older.ExecContext(whole, `SELECT pg_current_xact_id()`); err != nil {
		return err
	}
	if err := h.insert(whole, newer, conversation); err != nil {
		return err
	}
	if err := h.insert(whole, older, conversation+1); err != nil {
		return err
	}
	if err := older.Commit(); err != nil {
		return err
	}
	pause(ctx, 15*time.Millisecond)
	return newer.Commit()
}

// insert inserts one to three events of a conversation, some in savepoints.
func (h *hostile) insert(ctx context.Context, tx *sql.Tx, conversation int) error {
	one := func() error {
		var n int
		if err := tx.QueryRowContext(ctx, `INSERT INTO conversations AS c (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = c.n + 1 RETURNING n`, conversation).Scan(&n); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', json_build_object('conversation', $1::integer, 'n', $2::integer))`, conversation, n)
		return err
	}
	if err := one(); err != nil {
		return err
	}
	savepoint := h.rand.IntN(4)
	if savepoint > 1 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SAVEPOINT s`); err != nil {
		return err
	}
	if err := one(); err != nil {
		return err
	}
	if savepoint == 0 {
		_, err := tx.ExecContext(ctx, `RELEASE SAVEPOINT s`)
		return err
	}
	if _, err := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT s`); err != nil {
		return err
	}
	return one()
}

// Whatever producers do, and whenever the tail is stopped: each committed row
// is routed once, and each conversation's in their order.
func TestHostileProducers(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{1, 7, 50, 500} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			t.Parallel()
			besiege(t, pgtest.NewOn(t, pgtest.NewServer(t, nil)).SQL, batch)
		})
	}
}

func besiege(t *testing.T, db *sql.DB, batch int) {
	t.Helper()
	exec(t, db, `CREATE TABLE conversations (id integer PRIMARY KEY, n integer NOT NULL)`)
	ctx, cancel := context.WithTimeout(t.Context(), production)
	defer cancel()
	var producers sync.WaitGroup
	for number := range 2 {
		producers.Go(func() {
			for ctx.Err() == nil {
				if err := overtake(ctx, db, ownConversations*(number+10)); err != nil {
					t.Errorf("overtaking producer %d: %v", number, err)
					return
				}
			}
		})
	}
	for number := range 12 {
		producers.Go(func() {
			h := &hostile{db, number, rand.New(rand.NewPCG(uint64(number), uint64(batch)))} //nolint:gosec // a load
			if err := h.run(ctx); err != nil {
				t.Errorf("producer %d: %v", number, err)
			}
		})
	}

	// Each tail works for a while, blocks in the handler of some row, is
	// stopped there, and another goes on.
	var tails []*seen
	for ctx.Err() == nil {
		var block atomic.Bool
		blocked, release := make(chan struct{}), make(chan struct{})
		tail := startTailWith(t, db, func(c *outbox.TailConfig) { c.BatchRows, c.PollInterval = batch, 5*time.Millisecond }, func(row *outbox.Row) {
			decide(row)
			if block.CompareAndSwap(true, false) {
				close(blocked)
				<-release
			}
		})
		tails = append(tails, tail.seen)
		pause(ctx, 400*time.Millisecond)
		block.Store(true)
		select {
		case <-blocked:
		case <-ctx.Done():
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			tail.stop(t)
		}()
		pause(ctx, 50*time.Millisecond) // with the handler still at it
		close(release)
		within(t, "the end of the tail", stopped)
	}
	producers.Wait()
	last := startTail(t, db, func(c *outbox.TailConfig) { c.BatchRows, c.PollInterval = batch, 5*time.Millisecond })
	tails = append(tails, last.seen)
	committed := scan[int](t, db, `SELECT count(*) FROM outbox.events`)
	awaitRouted(t, db, committed)
	last.stop(t)

	checkOnce(t, db, tails...)
	checkConversations(t, db)
	stragglers := scan[int](t, db, `
SELECT count(*) FROM outbox.events e JOIN relay.log l ON l.event_seq = e.seq JOIN relay.batches b ON b.commit = l.pos >> 20
 WHERE e.seq < (SELECT high FROM relay.batches p WHERE p.no = b.no - 1)`)
	t.Logf("%d events, %d of them below one that was routed in a batch before; %d batches, %d tails", committed, stragglers, len(chain(t, db)), len(tails))
}

// checkConversations compares the counters in the events of each conversation,
// in the order in which they were routed, with 1, 2, 3 and so on to what the
// conversation's row says.
func checkConversations(t *testing.T, db *sql.DB) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `
SELECT c.id, c.n, coalesce(string_agg(e.payload ->> 'n', ',' ORDER BY l.pos), ''),
       (SELECT string_agg(i::text, ',' ORDER BY i) FROM generate_series(1, c.n) i)
  FROM conversations c
  LEFT JOIN outbox.events e ON (e.payload ->> 'conversation')::integer = c.id
  LEFT JOIN relay.log l ON l.event_seq = e.seq AND l.webhook_id = 0
 GROUP BY c.id, c.n ORDER BY c.id`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, n int
		var got, want string
		if err := rows.Scan(&id, &n, &got, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("conversation %d has %d events; routed were %s", id, n, got)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
