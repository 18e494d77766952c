package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// restore makes memory fit what a predecessor left: how far the chain was
// dispatched, what waits in the due table, and which attempts have no outcome.
// It reads open work only, never history.
func (d *dispatcher) restore(ctx context.Context, place Place) error {
	head, err := d.store.Head(ctx)
	if err != nil {
		return fmt.Errorf("read the chain: %w", err)
	}
	d.feed.head, d.feed.last, d.feed.position = head, place.Position, place.Position
	d.commit = max(0, place.Low>>20-1)
	if d.endings, err = d.readEndings(ctx); err != nil {
		return fmt.Errorf("read what is to end: %w", err)
	}
	// Before the webhooks are read, so that no change falls in between.
	if _, d.since, err = d.webhooks.Changed(ctx, ""); err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}

	blocked, err := d.store.Blocked(ctx)
	if err != nil {
		return fmt.Errorf("read what waits: %w", err)
	}
	overflowed, err := d.store.Overflowed(ctx, d.now())
	if err != nil {
		return fmt.Errorf("read what overflowed: %w", err)
	}
	open, err := d.store.Open(ctx, place.Low)
	if err != nil {
		return fmt.Errorf("read open attempts: %w", err)
	}
	wanted := map[domain.WebhookID]bool{}
	for _, b := range blocked {
		wanted[b.WebhookID] = true
	}
	for _, id := range overflowed {
		wanted[id] = true
	}
	for _, f := range open {
		wanted[f.Key.WebhookID] = true
	}
	ids := make([]domain.WebhookID, 0, len(wanted))
	for id := range wanted {
		ids = append(ids, id)
	}
	hooks, err := d.webhooks.Load(ctx, ids)
	if err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}
	for _, hook := range hooks {
		d.configure(hook)
	}
	for _, b := range blocked {
		if q := d.queues[b.WebhookID]; q != nil {
			q.block(b.Order, int32(b.Failed), int32(b.Held)) //nolint:gosec // counts of one conversation
		}
	}
	for _, id := range overflowed {
		if q := d.queues[id]; q != nil {
			for l := range lanes {
				d.overflow(q, l)
			}
		}
	}
	// What waits of a webhook that was disabled while no relay was at work is
	// cancelled now, not when its time comes.
	for _, q := range d.queues {
		if _, cancels := q.hook.Cancels(q.hook.Version); cancels {
			d.hurry(q, true)
		}
	}
	for i := range open {
		d.adopt(&open[i], place.Low)
	}
	for _, b := range blocked {
		if q := d.queues[b.WebhookID]; q != nil {
			d.nextOf(q, q.conversation(b.Order)) // it may be the turn of what is held
		}
	}
	d.due.next = d.now()
	return nil
}

// adopt takes over an open attempt of a dead relay. It may still be under way
// until its timeout has passed on our clock; until then its conversation waits.
func (d *dispatcher) adopt(found *Delivery, low int64) {
	if found.Unreadable != nil {
		d.open[found.Key] = low // so that a version that can read it finds it
		d.passOver(found)
		return
	}
	q := d.queues[found.Key.WebhookID]
	if q == nil {
		return
	}
	it := d.newItem(found)
	if it.order != 0 {
		q.conversation(it.order).busy = true
		if it.State.Failed {
			q.block(it.order, 1, 0)
		}
	}
	d.open[it.Key] = low
	d.lost = append(d.lost, lostAttempt{d.now().Add(it.State.Timeout + leaseMargin), it})
}

// refresh keeps the webhooks in memory as they are configured, until ctx ends:
// at once when told, else every interval.
func (d *dispatcher) refresh(ctx context.Context, told <-chan struct{}, interval time.Duration) {
	since := d.since // set before this goroutine began
	for {
		changed, snapshot, err := d.webhooks.Changed(ctx, since)
		switch {
		case err == nil:
			since = snapshot
			if len(changed) > 0 {
				d.inbox.call(func() {
					for _, hook := range changed {
						if d.queues[hook.ID] != nil {
							d.configure(hook)
						} else if d.loads > 0 {
							d.newer[hook.ID] = hook // what is being read may be older
						}
					}
				})
			}
		case ctx.Err() == nil:
			d.logger.Warn("reading webhook changes failed, trying again", "error", err)
		}
		select {
		case <-told:
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
	}
}
