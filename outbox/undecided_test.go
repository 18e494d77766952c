package outbox_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/outbox"
)

// TestARowWithoutADecisionIsNotAcked: whatever made a handler fail, nothing of
// the batch is on record until each of its rows is decided.
func TestARowWithoutADecisionIsNotAcked(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 5)`)
	var left atomic.Int32
	left.Store(2)
	r := startTailWith(t, db, nil, func(row *outbox.Row) {
		if row.Seq%5 == 3 && left.Add(-1) >= 0 {
			return
		}
		decide(row)
	})
	awaitRouted(t, db, 5)
	if n := scan[int](t, db, `SELECT count(*) FROM relay.log WHERE routing = '' OR routing IS NULL`); n != 0 {
		t.Errorf("%d rows are on record without a decision", n)
	}
	r.stop(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) != 2 || !strings.Contains(r.errs[0].Error(), "got no decision") {
		t.Errorf("it was told of %v", r.errs)
	}
}
