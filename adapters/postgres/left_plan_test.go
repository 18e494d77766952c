package postgres

import (
	"slices"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// TestTakingUpShardsReadsNoBacklog: with 200,000 deliveries waiting, to take up
// a shard reads a few rows of each webhook that has some, and what is read then
// of one webhook is its own, whatever the planner knows of the table (P9).
func TestTakingUpShardsReadsNoBacklog(t *testing.T) {
	t.Parallel()
	const (
		dead, full  = 1, 2   // of shards 1 and 2, with nearly all that waits
		calm, eased = 65, 66 // of the same shards, with a few
		webhooks    = 20     // others, with a few as well
	)
	db := pgtest.New(t)
	e := newExplainer(t, db.DSN)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.SQL.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	now := time.Now()
	// Rows of a kind for a webhook, ten due each second.
	const rows = `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT i, $1, $2, 4, $3::text::"char", $4::timestamptz + (i - $5::bigint) * interval '100 ms', i, 1 + i % 1000 FROM generate_series($5::bigint + 1, $5::bigint + $6::bigint) i`
	exec(rows, dead, 0, "r", now.Add(time.Minute), 0, 130_000)
	exec(rows, dead, 0, "h", now.Add(time.Minute), 200_000, 20_000)
	exec(rows, full, 0, "o", now.Add(-2*time.Hour), 300_000, 50_000)
	exec(rows, calm, 0, "r", now.Add(time.Hour), 400_000, 3)
	exec(rows, calm, 0, "h", now.Add(time.Hour), 400_100, 2)
	exec(rows, calm, 7, "o", now.Add(-time.Hour), 400_200, 4)
	exec(rows, eased, 0, "p", now.Add(time.Hour), 500_000, 5)
	exec(rows, eased, 0, "r", now.Add(-time.Hour), 500_100, 5)
	for i := range webhooks {
		exec(rows, 100+i, 0, "r", now.Add(-time.Hour), 600_000+100*i, 3)
	}
	s := NewStore(e.DB)
	// within does something that reads at most so many rows.
	within := func(what string, most int, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		all, texts := 0, ""
		for _, x := range e.take() {
			text, read, scanned := x.plan.walk(0)
			all += read
			texts += text
			if len(scanned) > 0 {
				all += most
			}
		}
		if all > most {
			t.Errorf("%s: %d rows were read, %d at most are wanted, by\n%s", what, all, most, texts)
		}
	}
	claim := func(shards relay.Shards) (left relay.Left) {
		t.Helper()
		within("a claim", 200, func() (err error) {
			left, err = s.Left(t.Context(), shards, 0, now)
			return err
		})
		return left
	}
	look := func() {
		t.Helper()
		if got := claim(1 << 1).Waiting; !slices.Equal(got, []relay.Waiting{
			{WebhookID: dead, Timed: true, Held: true}, {WebhookID: calm, Replays: true, Timed: true, Held: true},
		}) {
			t.Errorf("of shard 1: %+v", got)
		}
		if got := claim(1 << 2).Waiting; !slices.Equal(got, []relay.Waiting{
			{WebhookID: full, Fresh: true}, {WebhookID: eased, Fresh: true, Timed: true, Paused: true},
		}) {
			t.Errorf("of shard 2: %+v", got)
		}
		if got := len(claim(relay.AllShards).Waiting); got != 4+webhooks {
			t.Errorf("%d webhooks have something that waits, want %d", got, 4+webhooks)
		}
		counts := map[domain.WebhookID]relay.Blocked{}
		var deep []domain.WebhookID
		within("counts", 1000, func() (err error) {
			deep, err = s.Blocked(t.Context(), []domain.WebhookID{dead, calm, eased, 63}, []domain.DeliveryKey{{EventSeq: 500_101, WebhookID: eased}}, 500, func(b relay.Blocked) {
				sum := counts[b.WebhookID]
				counts[b.WebhookID] = relay.Blocked{Failed: sum.Failed + b.Failed, Held: sum.Held + b.Held}
			})
			return err
		})
		delete(counts, dead) // cut short
		if !slices.Equal(deep, []domain.WebhookID{dead}) || len(counts) != 2 || counts[calm] != (relay.Blocked{Failed: 3, Held: 2}) || counts[eased] != (relay.Blocked{Failed: 4}) {
			t.Errorf("counted %+v, and too many of %v", counts, deep)
		}
		within("the lane of one with few", 100, func() error {
			_, err := s.DueOf(t.Context(), eased, false, relay.Cursor{}, now, 64, 1<<20)
			return err
		})
		within("the lane of one with many", 300, func() error {
			_, err := s.DueOf(t.Context(), full, false, relay.Cursor{}, now, 64, 1<<20)
			return err
		})
		within("what is held in a conversation", 100, func() error {
			_, err := s.Held(t.Context(), calm, 102, 64, 1<<20)
			return err
		})
		within("what is due of one shard", 3*dueAhead, func() error {
			found, next, err := s.DueBefore(t.Context(), 1<<5, relay.Cursor{At: now.Add(-time.Second)}, now, 500, 1<<20)
			if len(found) > 0 || next.IsZero() || next.After(now.Add(5*time.Minute)) {
				t.Errorf("of a shard with nothing, %d are due, and the next look is at %s", len(found), next)
			}
			return err
		})
	}
	look()
	exec(`ANALYZE relay.due`)
	look()

	var total int
	within("all counts of one", 150_000+10, func() error {
		_, err := s.Blocked(t.Context(), []domain.WebhookID{dead}, nil, 0, func(b relay.Blocked) { total += b.Failed + b.Held })
		return err
	})
	if total != 150_000 {
		t.Errorf("%d rows are counted of %d", total, 150_000)
	}
}

// TestWhatIsInOverflowByAClockThatWasAheadIsDueNow, in pages, and nothing else
// is touched.
func TestWhatIsInOverflowByAClockThatWasAheadIsDueNow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	now := time.Now().UTC().Truncate(time.Microsecond)
	if _, err := db.ExecContext(t.Context(), `
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT i, 1 + i % 2, i / 2 % 2, 1, CASE WHEN i <= 5000 THEN 'o' ELSE 'r' END, $1::timestamptz + (i % 100 - 50) * interval '1 s', i, 0 FROM generate_series(1, 50000) i`, now); err != nil {
		t.Fatal(err)
	}
	if _, err := NewStore(db).Left(t.Context(), 1<<1, 0, now); err != nil {
		t.Fatal(err)
	}
	var ahead, others, retries, moved int
	if err := db.QueryRowContext(t.Context(), `
SELECT count(*) FILTER (WHERE webhook_id = 1 AND kind = 'o' AND at > $1::timestamptz), count(*) FILTER (WHERE webhook_id = 2 AND kind = 'o' AND at > $1::timestamptz),
       count(*) FILTER (WHERE kind = 'r' AND at > $1::timestamptz), count(*) FILTER (WHERE at <> $1::timestamptz + (event_seq % 100 - 50) * interval '1 s')
  FROM relay.due`, now).Scan(&ahead, &others, &retries, &moved); err != nil {
		t.Fatal(err)
	}
	if ahead != 0 || others != 1250 || retries != 22050 || moved != 1200 {
		t.Errorf("%d rows are ahead, %d of another shard, %d retries; %d were moved", ahead, others, retries, moved)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	root, err := explain(t.Context(), tx, lowerStatement, []any{"{1,1,2,2}", "{2,3,2,3}", now, 100})
	if err != nil {
		t.Fatal(err)
	}
	if text, read, scanned := root.walk(0); read > 1000 || len(scanned) > 0 {
		t.Errorf("100 rows are moved by reading %d:\n%s", read, text)
	}
}
