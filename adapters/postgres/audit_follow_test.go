package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// writers are transactions that are open at once, and end in any order.
type writers struct {
	t    *testing.T
	db   *sql.DB
	rng  *rand.Rand
	open []writer
	// committed are the keys of what was written, in the order of the commits.
	committed []string
}

type writer struct {
	tx   *sql.Tx
	keys []string
}

func (w *writers) begin(write func(*sql.Tx) []string) {
	w.t.Helper()
	tx, err := w.db.BeginTx(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	// As a relay does, it has its id before it draws a number.
	if _, err := tx.ExecContext(w.t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		w.t.Fatal(err)
	}
	w.open = append(w.open, writer{tx, write(tx)})
}

// end ends one of those that are open, whichever.
func (w *writers) end() {
	w.t.Helper()
	i := w.rng.IntN(len(w.open))
	one := w.open[i]
	w.open = slices.Delete(w.open, i, i+1)
	if w.rng.IntN(5) == 0 {
		if err := one.tx.Rollback(); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	if err := one.tx.Commit(); err != nil {
		w.t.Fatal(err)
	}
	w.committed = append(w.committed, one.keys...)
}

// follow lets writers begin and end in any order while somebody follows.
func follow[T any](t *testing.T, db *pgtest.DB, next postgres.Following[T], key func(*T) string, write func(*sql.Tx) []string) {
	t.Helper()
	w := &writers{t: t, db: db.SQL, rng: rand.New(rand.NewPCG(3, 5))} //nolint:gosec // the same each time
	seen := map[string]int{}
	look := func() int {
		records, err := next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range records {
			seen[key(&records[i])]++
		}
		return len(records)
	}
	for range 400 {
		switch n := w.rng.IntN(10); {
		case n < 4 && len(w.open) < 8:
			w.begin(write)
		case n < 8 && len(w.open) > 0:
			w.end()
		default:
			look()
		}
	}
	for len(w.open) > 0 {
		w.end()
		look()
	}
	until := time.Now().Add(time.Minute)
	for len(seen) < len(w.committed) && time.Now().Before(until) {
		look()
	}
	if len(w.committed) < 50 {
		t.Fatalf("only %d records were written", len(w.committed))
	}
	for _, k := range w.committed {
		if seen[k] != 1 {
			t.Errorf("%s was seen %d times", k, seen[k])
		}
		delete(seen, k)
	}
	for k, n := range seen {
		t.Errorf("%s was seen %d times and never committed", k, n)
	}
}

// scan1 reads one number within a transaction.
func scan1(t *testing.T, tx *sql.Tx, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := tx.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%v in %s", err, query)
	}
	return n
}

func execTx(t *testing.T, tx *sql.Tx, query string, args ...any) {
	t.Helper()
	if _, err := tx.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%v in %s", err, query)
	}
}

const writeEntry = `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
VALUES ($1, 1, $2, 1, $3, 1, now(), $4, $5, $6, $7, $8)`

// routedEvents writes events that were routed before.
func routedEvents(t *testing.T, db *pgtest.DB, n int) []uuid.UUID {
	t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
		if _, err := db.SQL.ExecContext(t.Context(), `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id)
VALUES ($1, 0, 0, 1, $1, 1, now(), 1, 'routed', '{"routing":"routed","event":"message_created"}', 'routed', $2)`, i+1, ids[i].String()); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// TestFollowReplaysAndAttempts: entries of the log become visible in another
// order than that of their numbers.
func TestFollowReplaysAndAttempts(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"deliveries", "attempts"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			ids := routedEvents(t, db, 1000)
			seq := 0
			write := func(tx *sql.Tx) []string {
				commit := scan1(t, tx, `SELECT nextval('relay.commits')`)
				var keys []string
				for ordinal := range 2 {
					seq++
					pos := commit<<20 + int64(ordinal*10)
					delivery := domain.NewDeliveryID(domain.NewNotificationID(1, ids[seq-1], 1), int64(seq), 5)
					execTx(t, tx, writeEntry, seq, 5, pos+1, 1, "scheduled", `{"webhook_version":1}`, ids[seq-1].String(), delivery.String())
					if what == "deliveries" {
						keys = append(keys, delivery.String())
						continue
					}
					execTx(t, tx, writeEntry, seq, 5, pos+2, 2, "attempt_started", `{"attempt":1}`, nil, nil)
					execTx(t, tx, writeEntry, seq, 5, pos+3, 3, "attempt_succeeded", `{"attempt":1}`, nil, nil)
					keys = append(keys, delivery.String()+"/1")
				}
				return keys
			}
			history := postgres.NewAudit(db.SQL)
			if what == "deliveries" {
				next, err := history.FollowDeliveries(t.Context(), audit.Filter{AccountID: 1, ReplayID: 5})
				if err != nil {
					t.Fatal(err)
				}
				follow(t, db, next, deliveryKey, write)
				return
			}
			next, err := history.FollowAttempts(t.Context(), audit.Filter{AccountID: 1, WebhookID: 1, Status: "succeeded"})
			if err != nil {
				t.Fatal(err)
			}
			follow(t, db, next, attemptKey, write)
		})
	}
}

// TestFollowAttemptsUntilTheirOutcome: an attempt is shown once, when it has
// its outcome, and not while it is under way.
func TestFollowAttemptsUntilTheirOutcome(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ids := routedEvents(t, db, 1)
	delivery := domain.NewDeliveryID(domain.NewNotificationID(1, ids[0], 1), 1, 0)
	history := postgres.NewAudit(db.SQL)
	next, err := history.FollowAttempts(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(version int, kind, data string) {
		t.Helper()
		var event, id any
		if version == 1 {
			event, id = ids[0].String(), delivery.String()
		}
		tx, err := db.SQL.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		execTx(t, tx, writeEntry, 1, 0, scan1(t, tx, `SELECT nextval('relay.commits')`)<<20, version, kind, data, event, id)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	var found []string
	look := func(times int) {
		t.Helper()
		for range times {
			records, err := next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range records {
				found = append(found, fmt.Sprintf("%d %s", records[i].Number, records[i].Outcome))
			}
		}
	}
	entry(1, "scheduled", `{"webhook_version":1}`)
	entry(2, "attempt_started", `{"attempt":1}`)
	look(5)
	if len(found) > 0 {
		t.Errorf("while it is under way: %v", found)
	}
	entry(3, "attempt_failed", `{"attempt":1,"status_code":500}`)
	look(5)
	entry(4, "attempt_started", `{"attempt":2}`)
	entry(5, "attempt_succeeded", `{"attempt":2,"status_code":204}`)
	look(5)
	if want := []string{"1 failed", "2 succeeded"}; !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

// TestFollowFromAMomentWhenManyRelaysWrite: the more of them write, the more
// numbers are drawn while one commit is under way.
func TestFollowFromAMomentWhenManyRelaysWrite(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ids := routedEvents(t, db, 1)
	for range 3 {
		registered(t, db.SQL)
	}
	tx, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	delivery := domain.NewDeliveryID(domain.NewNotificationID(1, ids[0], 1), 1, 5)
	execTx(t, tx, writeEntry, 1, 5, scan1(t, tx, `SELECT nextval('relay.commits')`)<<20, 1, "scheduled", `{"webhook_version":1}`, ids[0].String(), delivery.String())
	do(t, db.SQL, `SELECT nextval('relay.commits') FROM generate_series(1, 1900)`)
	next, err := postgres.NewAudit(db.SQL).FollowDeliveries(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if records, err := next(t.Context()); err != nil || len(records) != 1 {
		t.Errorf("%d deliveries are new, want 1: %v", len(records), err)
	}
}

// TestFollowChanges: a change's time is of when it was made, and it is seen
// when it is committed.
func TestFollowChanges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	account := 0
	write := func(tx *sql.Tx) []string {
		account++
		execTx(t, tx, `INSERT INTO relay.webhook_log (account_id, version, webhook_id, type, actor, after) VALUES ($1, 1, $1, 'registered', 'somebody', '{"url":"https://example.com"}')`, account)
		return []string{fmt.Sprint(account)}
	}
	w := &writers{t: t, db: db.SQL, rng: rand.New(rand.NewPCG(1, 1))} //nolint:gosec // the same each time
	w.begin(write)
	old := w.open[0]
	history := postgres.NewAudit(db.SQL)
	next, err := history.FollowChanges(t.Context(), audit.Filter{Status: "registered"})
	if err != nil {
		t.Fatal(err)
	}
	// Made before somebody followed, committed after.
	if err := old.tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if records, err := next(t.Context()); err != nil || len(records) != 1 || records[0].AccountID != 1 {
		t.Errorf("a change that was made before: %v, error %v", records, err)
	}
	follow(t, db, next, func(r *audit.Change) string { return fmt.Sprint(r.AccountID) }, write)
}

// TestFollowEvents: the chain is followed, whatever the order of the places.
func TestFollowEvents(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	history := postgres.NewAudit(db.SQL)
	events, err := history.FollowEvents(t.Context(), audit.Filter{WebhookID: 1, Event: "message_created"})
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := history.FollowDeliveries(t.Context(), audit.Filter{WebhookID: 1})
	if err != nil {
		t.Fatal(err)
	}
	var want, gotEvents, gotDeliveries []string
	look := func(ctx context.Context) {
		t.Helper()
		found, err := events(ctx)
		more, err2 := deliveries(ctx)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		for i := range found {
			gotEvents = append(gotEvents, eventKey(&found[i]))
		}
		for i := range more {
			gotDeliveries = append(gotDeliveries, fmt.Sprint(more[i].EventSeq))
		}
	}
	for no, seqs := range [][]int64{{1, 2}, {5, 6}, {3, 7}, nil, {4, 9}, {8}} {
		low, high := int64(0), int64(-1)
		if len(seqs) > 0 {
			low, high = slices.Min(seqs), slices.Max(seqs)
		}
		commit := int64(no + 1)
		if _, err := db.SQL.ExecContext(t.Context(), `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id) VALUES ($1::bigint, $1::bigint - 1, '3:3:', 0, 0, 0, 9, 0, $2, $3, $1::bigint, 1)`,
			commit, low, high); err != nil {
			t.Fatal(err)
		}
		for i, seq := range seqs {
			id := uuid.New()
			if _, err := db.SQL.ExecContext(t.Context(), `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
VALUES ($1, 0, 0, 1, $2, 1, now(), 1, 'routed', '{"routing":"routed","event":"message_created"}', 'routed', $3, NULL),
       ($1, $4, 0, 1, $2::bigint + 100, 1, now(), 1, 'scheduled', '{"webhook_version":1}', NULL, $3, $5)`,
				seq, commit<<20+int64(i), id.String(), 1+seq%2, uuid.NewString()); err != nil {
				t.Fatal(err)
			}
			if seq%2 == 0 {
				want = append(want, fmt.Sprint(seq))
			}
		}
		if no%2 == 1 {
			look(t.Context())
		}
	}
	look(t.Context())
	look(t.Context())
	if !slices.Equal(gotEvents, want) || !slices.Equal(gotDeliveries, want) {
		t.Errorf("events %v, deliveries %v, want %v", gotEvents, gotDeliveries, want)
	}
}
