package relay_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// TestALongTransactionDelaysOnlyItsOwnEvents holds writing transactions open,
// in this and in another database of the server (P6).
func TestALongTransactionDelaysOnlyItsOwnEvents(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	db, other := pgtest.NewOn(t, server), pgtest.NewOn(t, server)
	b := &bench{t, db.SQL, db.DSN, newReceiver(t), postgres.NewWebhooks(db.SQL)}
	b.webhook(1, "/hook", nil)
	elsewhere := begin(t, other.SQL, `CREATE TABLE busy (); SELECT pg_current_xact_id()`)
	early := begin(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{"id": 1}')`)
	b.start(nil)
	for i := range 20 {
		b.publish(1, fmt.Sprint("c", i), 10, 5)
		b.awaitStatus("succeeded", 5*(i+1))
	}
	late := begin(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{"id": 2}')`)
	b.publish(1, "d", 10, 5)
	b.awaitStatus("succeeded", 105)
	for i, tx := range []*sql.Tx{late, early} {
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		b.awaitStatus("succeeded", 106+i)
	}
	if err := elsewhere.Rollback(); err != nil {
		t.Fatal(err)
	}
	if n := len(b.receiver.got("/hook")); n != 107 {
		t.Errorf("%d POSTs for 107 events", n)
	}
}

func begin(t *testing.T, db *sql.DB, statement string) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	return tx
}

// TestCostDoesNotGrowWithHistory counts the rows that the database reads for
// 400 deliveries, half of which fail once and are held behind each other, a
// start of the relay included: with an empty history, and with 200,000 entries
// on record, of which the planner first knows nothing and then all (P9).
func TestCostDoesNotGrowWithHistory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.db.SetMaxIdleConns(0) // what this test's own sessions read is told at their end
	b.webhook(1, "/hook", nil)
	b.webhook(1, "/flaky", nil)
	var failing sync.Map // notifications that were answered with an error
	b.receiver.on("/flaky", func(w http.ResponseWriter, r *http.Request) {
		if _, known := failing.LoadOrStore(r.Header.Get("webhook-id"), true); !known {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	rounds := 0
	round := func() int64 {
		before := b.touched()
		r := b.start(nil)
		rounds++
		for conversation := range 20 {
			b.publish(1, fmt.Sprint("round", rounds, conversation), 1, 10)
		}
		b.eventually("the round", func() (bool, string) {
			got, flaky := len(b.receiver.got("/hook")), len(b.receiver.got("/flaky"))
			return got == 200*rounds && flaky == 400*rounds, fmt.Sprintf("%d POSTs, %d to the one that fails", got, flaky)
		})
		r.stop()
		return b.touched() - before
	}
	round()
	empty := round()
	r := b.start(nil)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 9, 'message_created', '{}' FROM generate_series(1, 50000)`)
	b.eventually("the history", func() (bool, string) {
		routed := scan[int](b, `SELECT count(*) FROM relay.log WHERE account_id = 9`)
		return routed == 50000, fmt.Sprint(routed)
	})
	r.stop()
	b.exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
SELECT l.event_seq, 99, 0, 9, l.pos, 0, l.at, v, CASE v WHEN 1 THEN 'scheduled' WHEN 2 THEN 'attempt_started' ELSE 'attempt_succeeded' END, '{}'
  FROM relay.log l, generate_series(1, 3) v WHERE l.account_id = 9`)
	// A start reads a little more or less back; a look at the history would read
	// 200,000 rows.
	for _, statistics := range []string{"no", "fresh"} {
		if statistics == "fresh" {
			b.exec(`ANALYZE`)
		}
		if full := round(); full > empty+20_000 {
			t.Errorf("400 deliveries read %d rows with an empty history, and %d with a long one and %s statistics", empty, full, statistics)
		}
	}
}

// touched is how many rows have been read in the relay's tables so far. A
// session reports what it read at its end at the latest.
func (b *bench) touched() int64 {
	b.t.Helper()
	b.eventually("the end of all sessions", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		return n == 0, fmt.Sprint(n)
	})
	return scan[int64](b, `
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_user_tables WHERE schemaname IN ('relay', 'outbox')`)
}

func TestWhatCannotStartInTimeExpires(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", func(s *domain.Settings) { s.Subscriptions = []string{"conversation_typing_on", "message_created"} })
	var ahead atomic.Int64
	b.start(func(c *relay.Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	b.publish(1, "c", 1, 1)
	b.awaitStatus("succeeded", 1)
	b.command(hook, domain.PauseWebhook{})
	b.eventually("the pause", func() (bool, string) {
		b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'conversation_typing_on', '{"conversation": {"id": 1}}')`)
		held := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'held'`)
		return held > 0, "nothing is held"
	})
	b.publish(1, "c", 2, 1)
	held := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'held' AND event = 'conversation_typing_on'`)
	ahead.Store(int64(11 * time.Second))
	b.awaitStatus("expired", held)
	b.command(hook, domain.EnableWebhook{})
	b.eventually("the message", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded' AND event = 'message_created'`)
		return n == 2, fmt.Sprint(n)
	})
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE event_id IN (SELECT event_id FROM audit.deliveries WHERE status = 'expired')`); n != 0 {
		t.Errorf("%d attempts were made of what expired", n)
	}
}
