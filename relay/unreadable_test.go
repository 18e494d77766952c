package relay_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// forgetful reads the configuration and then fails, as a decoder does: the
// transaction is whole.
type forgetful struct {
	relay.Webhooks
	left atomic.Int32
}

func (f *forgetful) Configurations(ctx context.Context, tx *sql.Tx, accounts []domain.AccountID) (map[domain.AccountID]domain.Configuration, error) {
	read, err := f.Webhooks.Configurations(ctx, tx, accounts)
	if err == nil && f.left.Add(-1) >= 0 {
		return nil, errors.New("failed on our side")
	}
	return read, err
}

func TestAnEventWithoutADecisionIsReadAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	b.publish(1, "a", 1, 3)
	b.start(func(c *relay.Config) {
		f := &forgetful{Webhooks: c.Webhooks}
		f.left.Store(4)
		c.Webhooks = f
	})
	b.awaitStatus("succeeded", 3)
	if n := scan[int](b, `SELECT count(*) FROM audit.events WHERE routing = 'routed'`); n != 3 {
		t.Errorf("%d of 3 events are on record as routed", n)
	}
}

// TestAWebhookWhoseSettingsCannotBeReadStopsNoOther: it is passed over, on
// record; what was pending is kept; once mended, a replay brings the rest.
func TestAWebhookWhoseSettingsCannotBeReadStopsNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	broken := b.webhook(1, "/broken", nil)
	b.webhook(1, "/well", nil)
	b.webhook(2, "/other", nil)
	b.publish(1, "a", 1, 1)
	run := b.start(func(c *relay.Config) { c.NoSend = true })
	b.eventually("the routing", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.deliveries`)
		return n == 2, fmt.Sprintf("%d deliveries", n)
	})
	run.stop()
	mend := scan[string](b, `SELECT settings::text FROM relay.webhooks WHERE id = $1`, int64(broken.ID))
	b.exec(`UPDATE relay.webhooks SET settings = '{"timeout": 5}' WHERE id = $1`, int64(broken.ID))

	b.start(nil)
	b.publish(1, "b", 2, 1)
	b.publish(2, "c", 3, 1)
	b.awaitStatus("succeeded", 3)
	b.awaitStatus("held", 1)
	if got := scan[string](b, `SELECT string_agg(routing || ':' || delivery_count, ' ' ORDER BY seq) FROM audit.events`); got != "routed:2 routed:1 routed:1" {
		t.Errorf("routings and deliveries: %s", got)
	}
	if got := scan[string](b, `SELECT data -> 'skips' -> 0 ->> 'reason' FROM audit.timeline WHERE type = 'routed' AND data::jsonb ? 'skips'`); got != string(domain.SkipUnreadable) {
		t.Errorf("passed over for %q", got)
	}

	b.exec(`UPDATE relay.webhooks SET settings = $2::json, xid = DEFAULT WHERE id = $1`, int64(broken.ID), mend)
	b.awaitStatus("succeeded", 4)
	b.exec(`SELECT relay.request_replay(since => now() - interval '1 hour', until => now() + interval '1 hour', webhook_id => $1)`, int64(broken.ID))
	b.eventually("the replay", func() (bool, string) {
		n := len(b.receiver.got("/broken"))
		return n == 3, fmt.Sprintf("%d POSTs", n) // the one kept, and a replay of both
	})
}
