package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// running is a tail at work, and the batches that it has seen committed.
type running struct {
	tail   *outbox.Tail
	router *message.Router
	ended  chan error

	mu      sync.Mutex
	batches []*outbox.Batch
	errors  []error
	moved   chan struct{}
}

// startTail tails db; every event is decided as "nobody".
func startTail(t *testing.T, db *sql.DB, change func(*outbox.TailConfig)) *running {
	t.Helper()
	r := &running{ended: make(chan error, 1), moved: make(chan struct{}, 1)}
	config := outbox.TailConfig{
		Chain:   postgres.NewChain(db),
		RelayID: rand.Int64N(1 << 40), //nolint:gosec // a name
		Confirmed: func(b *outbox.Batch) {
			r.mu.Lock()
			r.batches = append(r.batches, b)
			r.mu.Unlock()
			select {
			case r.moved <- struct{}{}:
			default:
			}
		},
		OnError: func(err error) {
			r.mu.Lock()
			r.errors = append(r.errors, err)
			r.mu.Unlock()
		},
		PollInterval: 20 * time.Millisecond,
	}
	if change != nil {
		change(&config)
	}
	tail, err := outbox.NewTail(db, config)
	if err != nil {
		t.Fatal(err)
	}
	r.tail = tail
	r.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	r.router.AddConsumerHandler("route", outbox.Topic, tail.Subscriber, func(msg *message.Message) error {
		row, ok := tail.Row(msg)
		if !ok {
			return fmt.Errorf("no row for message %s", msg.UUID)
		}
		row.Routed = domain.Routed{Routing: domain.Routing{Kind: domain.RoutingNoSubscriber}, EventName: row.Name}
		if row.DuplicateOf != 0 {
			row.Routed.Kind, row.Routed.DuplicateOf = domain.RoutingDuplicate, row.DuplicateOf
		}
		return nil
	})
	go func() { r.ended <- r.router.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.router.IsClosed() {
		return
	}
	r.tail.Stop()
	if err := r.router.Close(); err != nil {
		t.Errorf("close the router: %v", err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("run the router: %v", err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := condition()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s did not come: %s", what, state)
		}
	}
}

func scan[T any](t *testing.T, db *sql.DB, query string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// awaitRouted waits until all that is committed in the outbox is routed.
func awaitRouted(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	eventually(t, "the routing", func() (bool, string) {
		n := scan[int](t, db, `SELECT count(*) FROM relay.log WHERE webhook_id = 0`)
		return n >= want, fmt.Sprintf("%d of %d are routed", n, want)
	})
}

const insertSome = `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', json_build_object('id', i) FROM generate_series(1, $1) i`

func TestTailRoutesEachCommittedRowOnce(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 6, 7, 8, 14, 21, 50} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			exec(t, db, insertSome, rows)
			startTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 7 })
			awaitRouted(t, db, rows)
			exec(t, db, insertSome, rows)
			awaitRouted(t, db, 2*rows)
			if n := scan[int](t, db, `SELECT count(DISTINCT event_seq) FROM relay.log`); n != 2*rows {
				t.Errorf("%d events are routed, want %d", n, 2*rows)
			}
		})
	}
}
