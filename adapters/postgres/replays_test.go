package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// replaying is a database with relays and a replay of theirs.
type replaying struct {
	t       *testing.T
	db      *sql.DB
	replays *postgres.Replays
	id      domain.ReplayID
}

// newReplaying requests a replay of so many deliveries to each webhook from 1 on.
func newReplaying(t *testing.T, relays, webhooks, each int) *replaying {
	t.Helper()
	db := pgtest.New(t).SQL
	r := &replaying{t: t, db: db, replays: postgres.NewReplays(db)}
	r.exec(`INSERT INTO relay.relays (name, version, recorder) SELECT 'r' || i, '1', i FROM generate_series(1, $1::integer) i`, relays)
	r.exec(`INSERT INTO relay.replays (selection, requested_by, state, total) VALUES ('{}', 'test', 'requested', $1)`, webhooks*each)
	r.id = 1
	r.exec(`INSERT INTO relay.replay_streams (replay_id, webhook_id) SELECT 1, w FROM generate_series(1, $1::integer) w`, webhooks)
	return r
}

func (r *replaying) exec(query string, args ...any) {
	r.t.Helper()
	if _, err := r.db.ExecContext(r.t.Context(), query, args...); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
}

// write writes an entry of a delivery to a webhook, as a relay does, and leaves
// the transaction open.
func (r *replaying) write(writer int64, webhook, event int, version int, kind string) *sql.Tx {
	r.t.Helper()
	tx, err := r.db.BeginTx(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	result, err := tx.ExecContext(r.t.Context(), `
WITH fence AS MATERIALIZED (SELECT FROM relay.relays WHERE relay_id = $1 AND fenced_at IS NULL FOR SHARE)
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
SELECT $2, $3, 1, 1, nextval('relay.commits') << 20, $1, now(), $4, $5, '{}' FROM fence`, writer, event, webhook, version, kind)
	if err != nil {
		r.t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		r.t.Fatalf("relay %d wrote %d entries, %v", writer, n, err)
	}
	return tx
}

func (r *replaying) commit(tx *sql.Tx) {
	r.t.Helper()
	if err := tx.Commit(); err != nil {
		r.t.Fatal(err)
	}
}

// count lets a relay count, and checks what the replay says then.
func (r *replaying) count(by int64, want string) {
	r.t.Helper()
	state, err := r.replays.Count(r.t.Context(), by, r.id)
	if err != nil {
		r.t.Fatal(err)
	}
	var is string
	if err := r.db.QueryRowContext(r.t.Context(), `SELECT format('%s, %s succeeded, %s dead, %s cancelled of %s', state, succeeded, dead, cancelled, scheduled) FROM relay.replays`).Scan(&is); err != nil {
		r.t.Fatal(err)
	}
	if is != want || !slices.Contains([]relay.ReplayState{"requested", "running", "finished", "cancelling", "cancelled"}, state) {
		r.t.Errorf("relay %d counts %q, want %q", by, is, want)
	}
}

// advance moves a stream, and says whether it did.
func (r *replaying) advance(by int64, webhook int, from, to int64, scheduled int, drained bool) bool {
	r.t.Helper()
	all, err := r.replays.Advance(r.t.Context(), by, r.id, []relay.ReplayStep{{
		ReplayStream: relay.ReplayStream{WebhookID: domain.WebhookID(webhook), Cursor: to, Drained: drained}, From: from, Scheduled: scheduled,
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestAReplaysEntriesAreCountedByWriter: one relay's transaction commits after
// another's with higher places was counted, and one relay is fenced with entries
// that nobody had counted. Each is counted once.
func TestAReplaysEntriesAreCountedByWriter(t *testing.T) {
	t.Parallel()
	r := newReplaying(t, 3, 2, 2)
	for webhook := range 2 {
		r.advance(int64(webhook+1), webhook+1, -1, 20, 2, true)
	}
	late := r.write(1, 1, 10, 2, "attempt_succeeded")
	r.commit(r.write(2, 2, 10, 2, "attempt_succeeded"))
	r.count(3, "running, 1 succeeded, 0 dead, 0 cancelled of 4")
	r.count(2, "running, 1 succeeded, 0 dead, 0 cancelled of 4")
	r.commit(late)
	r.count(2, "running, 2 succeeded, 0 dead, 0 cancelled of 4")
	r.count(1, "running, 2 succeeded, 0 dead, 0 cancelled of 4")

	r.commit(r.write(1, 1, 20, 2, "dead"))
	r.exec(`UPDATE relay.relays SET fenced_at = clock_timestamp() WHERE relay_id = 1`)
	if _, err := r.replays.Count(t.Context(), 1, r.id); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("a fenced relay counts: %v", err)
	}
	r.count(3, "running, 2 succeeded, 1 dead, 0 cancelled of 4")
	r.count(2, "running, 2 succeeded, 1 dead, 0 cancelled of 4")
	// Who has streams no more may still end what it began.
	r.commit(r.write(3, 2, 20, 2, "attempt_succeeded"))
	r.count(2, "finished, 3 succeeded, 1 dead, 0 cancelled of 4")
	r.count(3, "finished, 3 succeeded, 1 dead, 0 cancelled of 4")
	var left int
	if err := r.db.QueryRowContext(t.Context(), `SELECT count(*) FROM relay.replay_counts`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d places are left of a replay that is over, %v", left, err)
	}
}

// TestRelaysCountAtTheSameTime what some of them write meanwhile.
func TestRelaysCountAtTheSameTime(t *testing.T) {
	t.Parallel()
	const relays, each = 4, 60
	r := newReplaying(t, relays, relays, each)
	var writers, counters sync.WaitGroup
	written, stop := context.WithCancel(t.Context())
	for by := int64(1); by <= relays; by++ {
		writers.Go(func() {
			for event := range each {
				r.commit(r.write(by, int(by), event, 2, "attempt_succeeded"))
			}
			r.advance(by, int(by), -1, 1, each, true)
		})
		counters.Go(func() {
			for last := false; !last; {
				last = written.Err() != nil
				if _, err := r.replays.Count(t.Context(), by, r.id); err != nil {
					t.Errorf("relay %d: %v", by, err)
					return
				}
			}
		})
	}
	writers.Wait()
	stop()
	counters.Wait()
	r.count(1, fmt.Sprintf("finished, %d succeeded, 0 dead, 0 cancelled of %d", relays*each, relays*each))
}

// TestAReplayIsNotOverBeforeAllItsStreamsAreDrained, whoever has them: also
// where it is cancelled and all that is known to be scheduled is finished.
func TestAReplayIsNotOverBeforeAllItsStreamsAreDrained(t *testing.T) {
	t.Parallel()
	r := newReplaying(t, 2, 2, 1)
	r.commit(r.write(1, 1, 10, 1, "scheduled"))
	r.commit(r.write(2, 2, 10, 1, "scheduled"))
	r.advance(1, 1, -1, 10, 1, true)
	r.commit(r.write(1, 1, 10, 2, "attempt_succeeded"))
	r.count(1, "running, 1 succeeded, 0 dead, 0 cancelled of 1")
	r.exec(`SELECT relay.cancel_replay(1)`)
	r.count(1, "cancelling, 1 succeeded, 0 dead, 0 cancelled of 1") // the other relay has recorded one, and not moved its cursor
	r.advance(2, 2, -1, 10, 1, true)
	r.count(1, "cancelling, 1 succeeded, 0 dead, 0 cancelled of 2")
	r.commit(r.write(2, 2, 10, 2, "cancelled"))
	r.count(1, "cancelled, 1 succeeded, 0 dead, 1 cancelled of 2")
}

// TestAStreamIsMovedFromWhereItIs: a relay that lost it, and comes late with what
// it had scheduled, counts nothing that its next one counted.
func TestAStreamIsMovedFromWhereItIs(t *testing.T) {
	t.Parallel()
	r := newReplaying(t, 2, 3, 9)
	if !r.advance(1, 1, -1, 3, 3, false) || r.advance(1, 1, -1, 2, 2, false) || !r.advance(2, 1, 3, 9, 6, true) || r.advance(1, 1, 3, 5, 2, false) || r.advance(1, 1, 9, 9, 0, false) {
		t.Error("a stream was moved from where it was not")
	}
	all, err := r.replays.Advance(t.Context(), 1, r.id, []relay.ReplayStep{
		{ReplayStream: relay.ReplayStream{WebhookID: 2, Cursor: 4}, From: -1, Scheduled: 3, Gone: 1},
		{ReplayStream: relay.ReplayStream{WebhookID: 3, Cursor: 4}, From: 2, Scheduled: 4},
	})
	if err != nil || all {
		t.Errorf("two steps, of which one comes late: %t, %v", all, err)
	}
	r.count(1, "running, 0 succeeded, 0 dead, 0 cancelled of 12")
	found, err := r.replays.Streams(t.Context(), r.id, relay.ShardOf(1)|relay.ShardOf(2))
	if want := []relay.ReplayStream{{WebhookID: 1, Cursor: 9, Drained: true}, {WebhookID: 2, Cursor: 4}}; err != nil || !slices.Equal(found, want) {
		t.Errorf("the streams of two shards are %v, want %v; %v", found, want, err)
	}
	if n, err := r.replays.Undrained(t.Context(), r.id); err != nil || n != 2 {
		t.Errorf("%d streams are not drained, want 2; %v", n, err)
	}
	r.exec(`UPDATE relay.relays SET fenced_at = clock_timestamp() WHERE relay_id = 1`)
	if _, err := r.replays.Advance(t.Context(), 1, r.id, nil); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("a fenced relay moves streams: %v", err)
	}
}
