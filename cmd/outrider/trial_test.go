package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// trialPause is between two inserts of a conversation's producer.
const trialPause = 40 * time.Millisecond

// trial is producers that insert, and receivers that remember all they get,
// while something fails. What came of it is judged by its verdict.
type trial struct {
	*chaosReceiver
	t               *testing.T
	db              *pgtest.DB
	accounts, hooks int           // of each account
	produced        sync.Map      // uuid.UUID to trialEvent
	count           atomic.Int64  // of them
	refused         sync.Map      // the SQLSTATE of an insert that failed, to its error
	stop            func()        // ends the producers
	pause           time.Duration // of a producer
	faults          map[string]int
}

// trialEvent is the n-th event of a conversation of an account.
type trialEvent struct {
	account, conversation, n int
}

// newTrial registers the webhooks, in strict order.
func newTrial(t *testing.T, db *pgtest.DB, seed uint64, accounts, hooks int) *trial {
	t.Helper()
	c := &trial{
		t: t, db: db, accounts: accounts, hooks: hooks, chaosReceiver: newChaosReceiver(t, seed),
		stop: func() {}, pause: trialPause, faults: map[string]int{},
	}
	for account := range accounts {
		for hook := range hooks {
			register(t, db.SQL, domain.AccountID(account+1), fmt.Sprintf("%s/%d/%d", c.URL, account, hook), func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
		}
	}
	return c
}

// produce inserts the events of so many conversations of each account, until
// stop.
func (c *trial) produce(conversations int) {
	producing, cancel := context.WithCancel(c.t.Context())
	var producers sync.WaitGroup
	for account := range c.accounts {
		for conversation := range conversations {
			producers.Go(func() { c.insert(producing, account, conversation) })
		}
	}
	c.stop = func() { cancel(); producers.Wait() }
	c.t.Cleanup(c.stop)
}

// insertOfTrial inserts the event of an account with a conversation and a number.
const insertOfTrial = `
INSERT INTO outbox.events (account_id, event, payload, id, ordering_key)
VALUES ($1::int, 'message_created', json_build_object('account', $1::int, 'conversation', $2::int, 'n', $3::int), $4, 'c' || $2::int)`

// insert inserts the events of a conversation one after the other. One whose
// answer was lost, or that was refused, is inserted again, with its id.
func (c *trial) insert(ctx context.Context, account, conversation int) {
	for n := 1; ctx.Err() == nil; n++ {
		id := uuid.Must(uuid.NewV7())
		for {
			_, err := c.db.SQL.ExecContext(context.WithoutCancel(ctx), insertOfTrial, account+1, conversation, n, id)
			if err == nil {
				break
			}
			if pg := (*pq.Error)(nil); errors.As(err, &pg) {
				if pg.Code.Class() == "22" || pg.Code.Class() == "42" {
					c.t.Errorf("insert: %v", err)
					return
				}
				c.refused.Store(string(pg.Code), err)
			}
			c.wait(20 * time.Millisecond)
			if c.t.Context().Err() != nil {
				return
			}
		}
		c.produced.Store(id, trialEvent{account, conversation, n})
		c.count.Add(1)
		select {
		case <-time.After(c.pause):
		case <-ctx.Done():
		}
	}
}

// wait lets faults and producers take their time.
func (c *trial) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.t.Context().Done():
	}
}

// goesOn waits until so many POSTs more have come.
func (c *trial) goesOn(more int) {
	c.t.Helper()
	before := len(c.arrived())
	until(c.t, fmt.Sprintf("%d POSTs more", more), func() (bool, string) {
		n := len(c.arrived()) - before
		return n >= more, fmt.Sprintf("%d came, of %d events", n, c.count.Load())
	})
}

// inserts waits until so many events more are committed.
func (c *trial) inserts(more int64) {
	c.t.Helper()
	before := c.count.Load()
	until(c.t, fmt.Sprintf("%d inserts more", more), func() (bool, string) {
		n := c.count.Load() - before
		return n >= more, fmt.Sprint(n)
	})
}

// end ends the producers, waits for the end of all that was begun, and judges.
func (c *trial) end() {
	c.t.Helper()
	c.stop()
	awaitConnection(c.t, c.db.SQL)
	until(c.t, "the end of all deliveries", func() (bool, string) {
		left := c.left()
		return left == 0, fmt.Sprintf("%d are not finished", left)
	})
	c.verdict()
}

// left counts what is not finished: events without a decision, deliveries
// without success.
func (c *trial) left() int {
	return query[int](c.t, c.db.SQL, `
SELECT count(*) FROM outbox.events e
 WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0 OFFSET 0)
    OR EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.version = 1 AND l.webhook_id > 0
                  AND NOT EXISTS (SELECT FROM relay.log s WHERE s.event_seq = l.event_seq AND s.webhook_id = l.webhook_id AND s.type = 'attempt_succeeded' OFFSET 0) OFFSET 0)`)
}

// trialAttempt is an attempt as it is on record.
type trialAttempt struct{ outcome, class string }

func (c *trial) attempts() map[string]trialAttempt {
	rows, err := c.db.SQL.QueryContext(c.t.Context(), `SELECT delivery_id::text || '/' || attempt, outcome, coalesce(error_class, '') FROM audit.attempts`)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	found := map[string]trialAttempt{}
	for rows.Next() {
		var key string
		var a trialAttempt
		if err := rows.Scan(&key, &a.outcome, &a.class); err != nil {
			c.t.Fatal(err)
		}
		found[key] = a
	}
	if err := rows.Err(); err != nil {
		c.t.Fatal(err)
	}
	return found
}
