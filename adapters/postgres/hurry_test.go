package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
)

// TestHurryWaitsForNobodyAndKeepsTheOrder: a row that the recorder holds stops
// it not, and all others are due at one time, so that the routing order counts.
func TestHurryWaitsForNobodyAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := db.ExecContext(ctx, `
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT i, 1 + i % 2, i / 2 % 2, 1, CASE i % 7 WHEN 0 THEN 'r' ELSE 'p' END, now() + interval '1 day' - i * interval '1 s', i, 0 FROM generate_series(1, 9000) i`); err != nil {
		t.Fatal(err)
	}
	recorder, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = recorder.Rollback() }()
	if _, err := recorder.ExecContext(ctx, `DELETE FROM relay.due WHERE event_seq = 5001`); err != nil {
		t.Fatal(err)
	}
	store := postgres.NewStore(db)
	count := func(condition string) (n int) {
		t.Helper()
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM relay.due WHERE `+condition).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := store.Hurry(ctx, 2, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := count(`webhook_id = 2 AND kind = 'p' AND at > now() AND event_seq <> 5001`); n != 0 {
		t.Errorf("%d rows held by the pause still wait", n)
	}
	if n := count(`at <= now() AND (webhook_id = 1 OR kind = 'r')`); n != 0 {
		t.Errorf("%d rows of others, or retries, were hurried", n)
	}
	if err := store.Hurry(ctx, 2, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := count(`webhook_id = 2 AND at > now() AND event_seq <> 5001`); n != 0 {
		t.Errorf("%d rows still wait", n)
	}
	var times int
	if err := db.QueryRowContext(ctx, `SELECT count(DISTINCT at) FROM relay.due WHERE webhook_id = 2 AND kind = 'p' AND event_seq <> 5001`).Scan(&times); err != nil {
		t.Fatal(err)
	}
	if times != 1 {
		t.Errorf("they are due at %d times, want one", times)
	}
}
