package relay

import (
	"context"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// endings is what the dispatcher keeps of Endings.
type endings struct {
	below  int64
	events map[int64]struct{}
}

// ending gives the command that ends the deliveries of an event whose payload
// is about to be erased, nil for all others.
func (d *dispatcher) ending(eventSeq int64) domain.DeliveryCommand {
	if eventSeq < d.endings.below {
		return domain.Expire{At: d.now(), Reason: domain.ExpiredRetention}
	}
	if _, erased := d.endings.events[eventSeq]; erased {
		return domain.Cancel{At: d.now(), Reason: domain.CancelledErased}
	}
	return nil
}

func (d *dispatcher) readEndings(ctx context.Context) (endings, error) {
	read, err := d.store.Endings(ctx)
	return newEndings(read), err
}

func newEndings(read Endings) endings {
	e := endings{below: read.Below, events: make(map[int64]struct{}, len(read.Events))}
	for _, seq := range read.Events {
		e.events[seq] = struct{}{}
	}
	return e
}

// watchEndings lets the dispatcher end what is to end, until ctx ends: at once
// when told, else every interval, so that what waits in shards that were gained
// meanwhile ends too.
func (d *dispatcher) watchEndings(ctx context.Context, relayID int64, shards func() Shards, clock func() time.Time, told <-chan struct{}, interval time.Duration) {
	var seen Endings
	for {
		read, err := d.store.Endings(ctx)
		if err == nil {
			err = d.enforce(ctx, relayID, shards, clock, read, seen)
		}
		switch {
		case err == nil:
			seen = read
		case ctx.Err() == nil:
			d.logger.Warn("ending what is to be erased failed, trying again", "error", err)
		}
		select {
		case <-told:
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
	}
}

// enforce makes the dispatcher know the endings, says so on record once nothing
// that it had begun before is on its way there, and brings back what waits.
func (d *dispatcher) enforce(ctx context.Context, relayID int64, shards func() Shards, clock func() time.Time, now, seen Endings) error {
	if now.Version != seen.Version || !slices.Equal(now.Events, seen.Events) {
		if err := d.recordedAfter(ctx, func() { d.endings = newEndings(now) }); err != nil {
			return err
		}
		if err := d.store.EndingsSeen(ctx, relayID, now); err != nil {
			return err
		}
	}
	if now.Below == 0 && len(now.Events) == 0 {
		return nil
	}
	ids, err := d.store.HurryEndings(ctx, now, shards(), clock())
	if len(ids) > 0 {
		d.inbox.call(func() { d.bringForward(ids) })
	}
	return err
}

// bringForward reads back what is due of webhooks, whether or not memory knows
// them. Shards that were lost meanwhile are another relay's matter.
func (d *dispatcher) bringForward(ids []domain.WebhookID) {
	var unknown []domain.WebhookID
	for _, id := range ids {
		if !d.shards.Has(id) {
			continue
		}
		q := d.queues[id]
		if q == nil {
			unknown = append(unknown, id)
			continue
		}
		for l := range lanes {
			d.overflow(q, l)
			q.lanes[l].cursor = Cursor{}
		}
	}
	if len(unknown) > 0 {
		d.load(unknown, func() { d.bringForward(unknown) }, func() { d.bringForward(unknown) })
	}
}
