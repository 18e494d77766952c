package relay_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// measured counts the bodies that reads of the due table bring.
type measured struct {
	relay.Store
	t       *testing.T
	fetched atomic.Int64
}

func (m *measured) check(found []relay.Delivery, room int) {
	sum := 0
	for i := range found {
		sum += len(found[i].Body)
	}
	if sum > room+64*len(found) { // the event's name is spliced into each
		m.t.Errorf("a read with room for %d bytes brought %d", room, sum)
	}
}

func (m *measured) DueBefore(ctx context.Context, shards relay.Shards, cursor relay.Cursor, now time.Time, limit, room int) ([]relay.Delivery, time.Time, error) {
	found, next, err := m.Store.DueBefore(ctx, shards, cursor, now, limit, room)
	m.check(found, room)
	return found, next, err
}

func (m *measured) DueOf(ctx context.Context, webhook domain.WebhookID, replays bool, cursor relay.Cursor, now time.Time, limit, room int) ([]relay.Delivery, error) {
	found, err := m.Store.DueOf(ctx, webhook, replays, cursor, now, limit, room)
	m.check(found, room)
	return found, err
}

func (m *measured) Held(ctx context.Context, webhook domain.WebhookID, order int64, limit, room int) ([]relay.Delivery, error) {
	found, err := m.Store.Held(ctx, webhook, order, limit, room)
	m.check(found, room)
	return found, err
}

func (m *measured) Body(ctx context.Context, key domain.DeliveryKey) (body []byte, cancels int64, err error) {
	m.fetched.Add(1)
	return m.Store.Body(ctx, key)
}

// TestLargeBodiesComeBackAsThereIsRoom: from overflow, holds, retries and
// replays, in their order, whole, and no more of them at once than there is
// room for.
func TestLargeBodiesComeBackAsThereIsRoom(t *testing.T) {
	t.Parallel()
	const n, size = 24, 300 << 10
	b := newBench(t)
	hook := b.webhook(1, "/hook", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	b.webhook(1, "/unordered", func(s *domain.Settings) { s.OrderHold = 0 })
	var status atomic.Int32
	status.Store(500)
	b.receiver.on("/hook", failing(&status))
	b.receiver.on("/unordered", failing(&status))
	var store *measured
	b.start(func(c *relay.Config) {
		store = &measured{Store: c.Store, t: t}
		c.Store = store
		c.Policy = domain.RetryPolicy{Delays: slices.Repeat([]time.Duration{time.Second}, 200)}
	})
	b.exec(`
INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT 1, 'message_created', json_build_object('id', i, 'content', CASE i % 3 WHEN 0 THEN 'short' ELSE repeat('x', $2::integer) END), 'a' FROM generate_series(1, $1::integer) i`, n, size)
	b.awaitStatus("held", n-1)
	status.Store(200)
	b.awaitStatus("succeeded", 2*n)
	b.exec(`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 hour', until => now() + interval '1 hour', webhook_id => $1))`, int64(hook.ID))
	b.awaitStatus("succeeded", 3*n)
	bodies := map[string]string{}
	var first, again []int
	for _, p := range b.receiver.got("") {
		if before, seen := bodies[p.webhookID]; seen && before != p.body {
			t.Errorf("a body of %d bytes came again as one of %d", len(before), len(p.body))
		}
		bodies[p.webhookID] = p.body
		switch id := numbers(t, []post{p})[0]; {
		case p.path != "/hook":
		case p.replay != "":
			again = append(again, id)
		case len(first) == 0 || first[len(first)-1] != id: // else a retry
			first = append(first, id)
		}
		if id := numbers(t, []post{p})[0]; id%3 != 0 && strings.Count(p.body, "x") < size {
			t.Errorf("event %d came with %d bytes", id, len(p.body))
		}
	}
	want := make([]int, n)
	for i := range want {
		want[i] = i + 1
	}
	if !slices.Equal(first, want) || !slices.Equal(again, want) {
		t.Errorf("the conversation came as %v, its replay as %v", first, again)
	}
	if fetched := store.fetched.Load(); fetched == 0 {
		t.Error("no body was fetched when its turn came: nothing was too large for a read")
	} else {
		t.Log(fmt.Sprint(fetched, " bodies were fetched"))
	}
}
