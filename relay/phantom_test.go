package relay_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/relay"
)

// phantom is a relay that has shards and does nothing with them. It says that it
// has dispatched all that is routed: nothing may be routed to its webhooks.
type phantom struct {
	id     int64
	shards relay.Shards
	// leave gives its shards up, kill lets it die.
	leave, kill func()
}

// phantom registers one beside a relay at work, and waits until it has half of
// the shards.
func (b *bench) phantom() *phantom {
	b.t.Helper()
	leases := postgres.NewLeases(b.db)
	id, err := leases.Register(b.t.Context(), "phantom", "test", true)
	if err != nil {
		b.t.Fatal(err)
	}
	p := &phantom{id: id}
	store := postgres.NewStore(b.db)
	var shards atomic.Uint64
	alive, stop := context.WithCancel(b.t.Context())
	var beats sync.WaitGroup
	p.kill = func() { stop(); beats.Wait() }
	b.t.Cleanup(p.kill)
	beats.Go(func() {
		beat := time.NewTicker(200 * time.Millisecond)
		defer beat.Stop()
		for n := int64(1); alive.Err() == nil; n++ {
			has := relay.Shards(shards.Load())
			head, commit, err := store.Head(alive)
			if err == nil {
				err = leases.Beat(alive, id, n, relay.Place{Position: head, Low: commit << 20, Shards: has})
			}
			if err != nil && alive.Err() == nil {
				b.t.Errorf("a sign of life: %v", err)
				return
			}
			select {
			case <-beat.C:
			case <-alive.Done():
			}
		}
	})
	b.eventually("half of the shards", func() (bool, string) {
		claimed, _, err := leases.Claim(b.t.Context(), id, relay.Share{Shards: relay.AllShards})
		if err != nil {
			b.t.Fatal(err)
		}
		p.shards |= claimed.Shards
		shards.Store(uint64(p.shards))
		return p.shards.Count() == relay.ShardCount/2, scan[string](b, ownersQuery)
	})
	p.leave = func() {
		p.kill()
		if err := leases.Release(b.t.Context(), id, relay.Place{}); err != nil {
			b.t.Fatal(err)
		}
	}
	return p
}

// has is the condition that a webhook is in its shards.
func (p *phantom) has() string {
	return fmt.Sprintf(`(1::bigint << (webhook_id & 63)::integer) & (%d)::bigint <> 0`, int64(p.shards)) //nolint:gosec // the same bits
}
