package postgres

import (
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestARangeOfTimeIsFoundByItsLinks: the chain is not walked from its beginning,
// whatever the planner knows of it.
func TestARangeOfTimeIsFoundByItsLinks(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	const links = 50_000
	if _, err := db.ExecContext(t.Context(), `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT i, i - 1, (i || ':' || i || ':')::pg_snapshot, i, i, i, i, i, i, i, i, 1, '2026-07-01Z'::timestamptz + i * interval '2 seconds' FROM generate_series(1, $1::integer) i`, links); err != nil {
		t.Fatal(err)
	}
	for _, statistics := range []string{"none", "fresh"} {
		if statistics == "fresh" {
			if _, err := db.ExecContext(t.Context(), `ANALYZE relay.batches`); err != nil {
				t.Fatal(err)
			}
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		before := rowsRead(t, tx)
		var above, upTo int64
		if err := tx.QueryRowContext(t.Context(), `SELECT r.above, r.up_to FROM audit.seq_range('2026-07-01 20:00Z', '2026-07-01 21:00Z') r`).Scan(&above, &upTo); err != nil {
			t.Fatal(err)
		}
		if above != 35_999 || upTo != 37_799 {
			t.Errorf("statistics %s: above %d, up to %d", statistics, above, upTo)
		}
		if read := rowsRead(t, tx) - before; read > 200 {
			t.Errorf("statistics %s: %d rows were read", statistics, read)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}
