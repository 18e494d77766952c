package relay

import (
	"context"
	"slices"
)

// lose stops with shards, and says where their next owner begins. It returns
// once all that was on its way to the log is there: from then on this relay
// writes nothing of these shards but how the attempts end that it has under way.
// Those the next owner finds open, and waits for.
func (d *dispatcher) lose(ctx context.Context, shards Shards) ([]Place, error) {
	d.recorder.hasten()
	defer d.recorder.relax()
	d.drain(ctx)
	defer d.reopen()
	var places []Place
	if err := d.recordedAfter(ctx, func() { places = d.giveUp(shards) }); err != nil {
		return nil, err // it may be given up all the same, and write places
	}
	return places, nil
}

// giveUp forgets all that memory has of shards, but for attempts under way.
func (d *dispatcher) giveUp(shards Shards) []Place {
	d.abandon(shards)
	low := d.place().Low
	for _, f := range d.feeds {
		if lost := f.shards & shards; lost != 0 {
			d.leaving = append(d.leaving, Place{Position: f.position(), Low: low, Shards: lost})
			f.shards &^= lost
		}
	}
	d.feeds = slices.DeleteFunc(d.feeds, func(f *feed) bool { return f.shards == 0 })
	d.shards &^= shards
	for key, open := range d.open {
		switch {
		case !shards.Has(key.WebhookID):
		case open.it == nil: // another relay began it
			delete(d.open, key)
		case open.it.dropped == nil:
			open.it.dropped = d.queues[key.WebhookID]
		}
	}
	d.left.attempts = slices.DeleteFunc(d.left.attempts, func(l leftAttempt) bool { return shards.Has(l.it.Key.WebhookID) })
	for id, q := range d.queues {
		if shards.Has(id) {
			d.dropQueue(q)
			delete(d.queues, id)
		}
	}
	d.moved(d.place())
	return slices.Clone(d.leaving)
}

// gaveUp says that shards are on record as nobody's, with their places. Until
// then signs of life tell of them: else a successor of a relay that died in
// between would begin where this one had found them, which may be days ago.
func (d *dispatcher) gaveUp(ctx context.Context, shards Shards) error {
	return d.inbox.within(ctx, func() {
		d.leaving = slices.DeleteFunc(d.leaving, func(p Place) bool { return p.Shards&shards != 0 })
		d.moved(d.place())
	})
}

func (d *dispatcher) dropQueue(q *queue) {
	if q.lanes[freshLane].overflow {
		d.overflowing--
	}
	q.dropped = true
	delete(d.crowded, q)
	delete(d.missed, q)
	delete(d.broken, q)
	d.alarms.drop(q)
	for l := range q.lanes {
		q.lanes[l].overflow = false
		for _, it := range q.lanes[l].runnable {
			d.dropItem(q, it)
		}
	}
	for _, c := range q.conversations {
		for _, it := range c.waiting {
			d.dropItem(q, it)
		}
	}
}

// dropItem forgets an item that waits in memory. It may have been forgotten.
func (d *dispatcher) dropItem(q *queue, it *item) {
	if it.batch != nil {
		it.batch.left--
		it.batch = nil
		d.unkeep(q, it)
	}
	d.free(it.back)
	it.back = 0
	d.land(q, it)
	delete(d.parked, it.Key)
}

// queueOf gives the queue of an item, or the one that it was in where its shard
// was given up while its attempt was under way.
func (d *dispatcher) queueOf(it *item) *queue {
	if it.dropped != nil {
		return it.dropped
	}
	return d.queues[it.Key.WebhookID]
}

// own leaves out deliveries of webhooks whose shards this relay does not have,
// or did not have all the time since the read that found them was begun.
func (d *dispatcher) own(found []Delivery) []Delivery {
	return slices.DeleteFunc(found, func(f Delivery) bool {
		id := f.Key.WebhookID
		return !d.shards.Has(id) || d.stale.now <= d.gained[shardNo(id)]
	})
}
