package sample

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// TrafficConfig says what to write. Zero values take the defaults named.
type TrafficConfig struct {
	// DB is a private database, migrated: Traffic makes the schema chat in it.
	DB *sql.DB
	// Seed chooses the conversations.
	Seed uint64
	// Events to commit, exactly; 0 goes on until the context ends.
	Events int
	// Rate in events a second; 0 writes as fast as the database allows.
	Rate float64
	// Conversations are the most that an account has open. Default 40.
	Conversations int
	// Writers are the connections; a conversation keeps to one. Default 4.
	Writers int
	// Now gives the times in the payloads. Default time.Now.
	Now func() time.Time
}

// Traffic is a small chat system at work. Each thing that happens is one
// transaction: it updates, and thereby locks, the conversation, then inserts
// its chat events. So the order of a conversation in the outbox is the order
// in which it happened.
type Traffic struct {
	config   TrafficConfig
	script   *script
	prepared bool

	mu     sync.Mutex
	counts TrafficCounts
}

// TrafficCounts say what was written so far.
type TrafficCounts struct {
	// Committed are the chat events that are in the outbox, RolledBack those
	// that never were.
	Committed, RolledBack int
	// By splits the committed ones.
	By map[AccountEvent]int
}

// AccountEvent is a chat event's name in an account.
type AccountEvent struct {
	AccountID int64
	Event     string
}

// NewTraffic makes a chat system that does nothing yet.
func NewTraffic(config TrafficConfig) (*Traffic, error) {
	switch {
	case config.DB == nil:
		return nil, errors.New("invalid config: the database is missing")
	case config.Events < 0 || config.Rate < 0 || config.Conversations < 0 || config.Writers < 0:
		return nil, errors.New("invalid config: a number is negative")
	}
	if config.Conversations == 0 {
		config.Conversations = 40
	}
	if config.Writers == 0 {
		config.Writers = 4
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Traffic{
		config: config, script: newScript(config.Seed, Accounts(), config.Conversations),
		counts: TrafficCounts{By: map[AccountEvent]int{}},
	}, nil
}

const createChat = `
CREATE SCHEMA IF NOT EXISTS chat;
CREATE TABLE IF NOT EXISTS chat.contacts (
    account_id bigint NOT NULL,
    id         bigint NOT NULL,
    name       text   NOT NULL,
    email      text,
    turn       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, id)
);
CREATE TABLE IF NOT EXISTS chat.conversations (
    account_id       bigint      NOT NULL,
    id               bigint      NOT NULL,
    contact_id       bigint      NOT NULL,
    status           text        NOT NULL DEFAULT 'open',
    assignee_id      bigint,
    last_message_id  bigint      NOT NULL DEFAULT 0,
    last_activity_at timestamptz NOT NULL,
    turn             bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, id)
);`

// Prepare makes the schema chat where it is missing, and the conversations that
// are there before the traffic begins. It continues where an earlier Traffic on
// the database ended.
func (t *Traffic) Prepare(ctx context.Context) error {
	if _, err := t.config.DB.ExecContext(ctx, createChat); err != nil {
		return fmt.Errorf("create the schema chat: %w", err)
	}
	for i, account := range t.script.accounts {
		err := t.config.DB.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM chat.conversations WHERE account_id = $1`, account.ID).Scan(&t.script.last[i])
		if err != nil {
			return err
		}
	}
	tx, err := t.config.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, c := range t.script.populate() {
		if err := t.insert(ctx, tx, c); err != nil {
			return err
		}
	}
	t.prepared = true
	return tx.Commit()
}

// Run writes until the events are committed or ctx ends, which is no error. It
// ends at the first transaction that fails.
func (t *Traffic) Run(ctx context.Context) error {
	if !t.prepared {
		return errors.New("the traffic is not prepared")
	}
	group, inner := errgroup.WithContext(ctx)
	writers := make([]chan action, t.config.Writers)
	for i := range writers {
		writers[i] = make(chan action, 16)
		group.Go(func() error {
			for a := range writers[i] {
				// A transaction begun is finished: a stop in the middle would
				// leave open whether it counts.
				if err := t.perform(context.WithoutCancel(inner), a); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		t.play(inner, writers)
		for _, w := range writers {
			close(w)
		}
		return nil
	})
	return group.Wait()
}

// play hands out actions at the configured rate.
func (t *Traffic) play(ctx context.Context, writers []chan action) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	begun := time.Now()
	for done := 0; t.config.Events == 0 || done < t.config.Events; {
		if t.config.Rate > 0 {
			timer.Reset(time.Until(begun.Add(time.Duration(float64(done) / t.config.Rate * float64(time.Second)))))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		left := t.config.Events - done
		if t.config.Events == 0 {
			left = opened.events()
		}
		a := t.script.next(left)
		select {
		case writers[a.conversation.contact.id%int64(len(writers))] <- a:
		case <-ctx.Done():
			return
		}
		if !a.rollback {
			done += a.kind.events()
		}
	}
}

// perform is one transaction of the chat system.
func (t *Traffic) perform(ctx context.Context, a action) error {
	tx, err := t.config.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	r, err := t.update(ctx, tx, a)
	if err != nil {
		return fmt.Errorf("update conversation %d: %w", a.conversation.id, err)
	}
	events, err := a.chatEvents(r)
	if err != nil {
		return err
	}
	for _, e := range events {
		if _, err := tx.ExecContext(ctx, `INSERT INTO outbox.events (account_id, event, payload) VALUES ($1, $2, $3)`, e.account, e.name, string(e.payload)); err != nil {
			return fmt.Errorf("insert %s into outbox.events: %w", e.name, err)
		}
	}
	if a.rollback {
		if err := tx.Rollback(); err != nil {
			return err
		}
	} else if err := tx.Commit(); err != nil {
		return err
	}
	t.count(a, events)
	return nil
}

func (t *Traffic) count(a action, events []chatEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.rollback {
		t.counts.RolledBack += len(events)
		return
	}
	t.counts.Committed += len(events)
	for _, e := range events {
		t.counts.By[AccountEvent{e.account, e.name}]++
	}
}

// update changes the conversation's row, and the contact's where it is about
// the contact, before anything is said about them: the lock that this takes is
// what puts the events of a conversation in order.
func (t *Traffic) update(ctx context.Context, tx *sql.Tx, a action) (row, error) {
	c := a.conversation
	r := row{at: t.config.Now().UTC()}
	if a.kind == opened {
		if err := t.insert(ctx, tx, c); err != nil {
			return row{}, err
		}
	}
	contactTurns, turns := 0, 1
	var email, status sql.NullString
	var assignee sql.NullInt64
	message := false
	switch a.kind {
	case opened:
		contactTurns = 1
	case identified:
		contactTurns, turns = 1, 0
		email = sql.NullString{String: c.contact.email, Valid: true}
	case asked, answered, noted:
		message = true
	case assigned:
		assignee = sql.NullInt64{Int64: a.agent.id, Valid: true}
	case resolved:
		turns = 2
		status = sql.NullString{String: "resolved", Valid: true}
	case seen, typing, stopped:
	}
	const updateContact = `
UPDATE chat.contacts SET turn = turn + $3, email = coalesce($4, email) WHERE account_id = $1 AND id = $2 RETURNING turn`
	const updateConversation = `
UPDATE chat.conversations
   SET turn = turn + $3, status = coalesce($4, status), assignee_id = coalesce($5, assignee_id), last_activity_at = $6,
       last_message_id = CASE WHEN $7 THEN id * 10000 + turn + $3 ELSE last_message_id END
 WHERE account_id = $1 AND id = $2
RETURNING turn, status, coalesce(assignee_id, 0), last_message_id`
	err := tx.QueryRowContext(ctx, updateContact, c.account.ID, c.contact.id, contactTurns, email).Scan(&r.contactTurn)
	if err != nil {
		return row{}, err
	}
	err = tx.QueryRowContext(ctx, updateConversation, c.account.ID, c.id, turns, status, assignee, r.at, message).
		Scan(&r.turn, &r.status, &r.assignee, &r.lastMessage)
	return r, err
}

func (t *Traffic) insert(ctx context.Context, tx *sql.Tx, c *conversation) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO chat.contacts (account_id, id, name) VALUES ($1, $2, $3)`, c.account.ID, c.contact.id, c.contact.name); err != nil {
		return fmt.Errorf("insert contact %d: %w", c.contact.id, err)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO chat.conversations (account_id, id, contact_id, last_activity_at) VALUES ($1, $2, $3, $4)`,
		c.account.ID, c.id, c.contact.id, t.config.Now().UTC())
	if err != nil {
		return fmt.Errorf("insert conversation %d: %w", c.id, err)
	}
	return nil
}

// Counts says what was written so far.
func (t *Traffic) Counts() TrafficCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.counts
	counts.By = make(map[AccountEvent]int, len(t.counts.By))
	for by, n := range t.counts.By {
		counts.By[by] = n
	}
	return counts
}
