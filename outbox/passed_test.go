package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// passedOver is what the doctor says of rows that no window reaches.
func passedOver(t *testing.T, db *pgtest.DB) postgres.Finding {
	t.Helper()
	for _, f := range postgres.Examine(t.Context(), db.SQL, postgres.DoctorConfig{DSN: db.DSN, Timeout: deadline, Rows: 100_000}) {
		if f.Check == "passed over" {
			return f
		}
	}
	t.Fatal("the doctor does not look for rows that were passed over")
	return postgres.Finding{}
}

// While a tail is at work nothing is passed over, whatever is under way: open
// windows, batches being committed, transactions that are open for long.
func TestTheDoctorCallsNothingPassedOverThatTheTailStillReads(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	long := begin(t, db.SQL)
	exec(t, long, insertSome, 5)
	tail := startTail(t, db.SQL, func(c *outbox.TailConfig) { c.BatchRows = 5 })

	const perLook = 20
	next := make(chan struct{}, 2*perLook)
	var producers sync.WaitGroup
	for range 4 {
		producers.Go(func() {
			for range next {
				// Its id before that of others, its rows behind theirs.
				tx, err := db.SQL.BeginTx(context.WithoutCancel(t.Context()), nil)
				if err != nil {
					t.Error(err)
					continue
				}
				_, err = tx.ExecContext(t.Context(), `SELECT pg_current_xact_id()`)
				for range 1 + rand.IntN(4) { //nolint:gosec // sizes of transactions
					if err == nil {
						_, err = tx.ExecContext(t.Context(), insertSome, 1+rand.IntN(5)) //nolint:gosec // as above
					}
				}
				if err == nil && rand.IntN(5) > 0 { //nolint:gosec // some roll back
					err = tx.Commit()
				} else {
					_ = tx.Rollback()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	looks, open := 0, 0
	until := time.NewTimer(deadline)
	defer until.Stop()
	for (looks < 30 || open < 3) && !t.Failed() {
		for len(next) < perLook {
			next <- struct{}{}
		}
		if f := passedOver(t, db); f.Health != postgres.Healthy {
			t.Errorf("look %d: %s: %s", looks, f.Health, f.Found)
		}
		looks++
		if scan[bool](t, db.SQL, `SELECT target IS NOT NULL FROM relay.batches ORDER BY no DESC LIMIT 1`) {
			open++
		}
		select {
		case <-until.C:
			close(next)
			producers.Wait()
			t.Fatalf("%d looks, %d of them with a window open", looks, open)
		default:
		}
	}
	close(next)
	producers.Wait()
	// The straggler: its rows lie far below the position when it ends.
	commit(t, long)
	if f := passedOver(t, db); f.Health != postgres.Healthy {
		t.Errorf("after the long transaction: %s: %s", f.Health, f.Found)
	}
	awaitRouted(t, db.SQL, scan[int](t, db.SQL, `SELECT count(*) FROM outbox.events`))
	tail.stop(t)
	if f := passedOver(t, db); f.Health != postgres.Healthy || !strings.Contains(f.Found, "all ") {
		t.Errorf("at the end: %s: %s", f.Health, f.Found)
	}
	checkOnce(t, db.SQL, tail.seen)
}

// handMoved writes a link that the tail would not: $1 to $8 are its consumed,
// target, cursor, floor, window_floor, high and low.
const handMoved = `
INSERT INTO relay.batches (no, prev, consumed, target, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
SELECT max(no) + 1, max(no), $1::pg_snapshot, $2::pg_snapshot, $3, $4, $5, $6, $7, 0, 0, 0, 0 FROM relay.batches`

func TestTheDoctorFindsRowsThatNoWindowReaches(t *testing.T) {
	t.Parallel()
	snapshot := `SELECT pg_current_snapshot()::text`
	for _, test := range []struct {
		name string
		// spoil leaves rows 1 to 3 unrouted and gives those out of reach.
		spoil func(t *testing.T, db *pgtest.DB) string
		// mended says that the advice is a command that mends it.
		mended bool
	}{
		{"the snapshot was moved past them", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			exec(t, db.SQL, insertSome, 3)
			exec(t, db.SQL, handMoved, scan[string](t, db.SQL, snapshot), nil, 0, 0, 0, 3, 0)
			return "1-3"
		}, true},
		{"the snapshot was moved, and the sequence numbers go on above", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			exec(t, db.SQL, insertSome, 3)
			exec(t, db.SQL, handMoved, scan[string](t, db.SQL, snapshot), nil, 0, 0, 0, 1, 0)
			return "1-3"
		}, true},
		{"the sequence fell behind", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			exec(t, db.SQL, handMoved, scan[string](t, db.SQL, snapshot), nil, 0, 0, 0, 1000, 0)
			exec(t, db.SQL, insertSome, 3)
			return "1-3"
		}, true},
		{"the floor is above them", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			before := scan[string](t, db.SQL, snapshot)
			exec(t, db.SQL, insertSome, 3)
			exec(t, db.SQL, handMoved, before, nil, 0, 2, 0, 3, 0)
			return "1-2"
		}, true},
		{"the cursor of an open window is above them", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			before := scan[string](t, db.SQL, snapshot)
			exec(t, db.SQL, insertSome, 3)
			exec(t, db.SQL, handMoved, before, scan[string](t, db.SQL, snapshot), 2, 0, 3, 2, 0)
			return "1-2"
		}, true},
		{"the floor of the window behind the open one is above them", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			before := scan[string](t, db.SQL, snapshot)
			exec(t, db.SQL, insertSome, 3)
			exec(t, db.SQL, handMoved, before, before, 0, 0, 1, 3, 0)
			return "1"
		}, true},
		{"their transactions are another server's, still to come here", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			exec(t, db.SQL, `INSERT INTO outbox.events (xid, account_id, event, payload) SELECT '5000000000', 1, 'message_created', '{}' FROM generate_series(1, 3)`)
			return "1-3"
		}, true},
		{"the position is another server's, which counted further", func(t *testing.T, db *pgtest.DB) string {
			t.Helper()
			exec(t, db.SQL, handMoved, "5000000000:5000000000:", nil, 0, 0, 0, 0, 0)
			exec(t, db.SQL, insertSome, 3)
			return "1-3"
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			want := test.spoil(t, db)
			f := passedOver(t, db)
			if f.Health != postgres.Problem || !strings.HasSuffix(f.Found, "seq "+want) {
				t.Fatalf("%s: %s, want seq %s", f.Health, f.Found, want)
			}
			if !test.mended {
				return
			}
			_, command, _ := strings.Cut(f.Advice, "owner: ")
			if first, behind := strings.CutPrefix(f.Advice, "the sequence is behind the position; first: "); behind {
				first, _, _ = strings.Cut(first, ". ")
				exec(t, db.SQL, first)
			}
			exec(t, db.SQL, command)
			if f := passedOver(t, db); f.Health != postgres.Healthy {
				t.Errorf("after %s\n%s: %s", command, f.Health, f.Found)
			}
			startTail(t, db.SQL, nil)
			waiting := `SELECT count(*) FROM outbox.events e WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq)`
			eventually(t, "the routing of all rows", func() (bool, string) {
				n := scan[int](t, db.SQL, waiting)
				return n == 0, fmt.Sprintf("%d are not routed", n)
			})
		})
	}
}
