package relay

import (
	"context"
	"slices"

	"github.com/outrider-relay/outrider/domain"
)

// The limits of bodies in memory, whatever their size and however many
// webhooks have stopped answering. Those of first deliveries that wait are
// bounded by maxBodies.
const (
	// maxReturned is how many bytes of what came back from the due table may
	// wait in memory. What is beyond waits without its body, which is fetched
	// when its turn comes.
	maxReturned = 32 << 20
	// laneBytes and dueBytes are how much of that one read may take.
	laneBytes = 256 << 10
	dueBytes  = 8 << 20
	// batchBytes is how much one read of batches may take.
	batchBytes = 8 << 20
	// maxAloft is how many bytes may be on their way to receivers.
	maxAloft = 256 << 20
	// maxFetches is how many bodies are fetched at once: each takes a
	// connection that the recorder may want.
	maxFetches = 4
)

// reserve gives a read its part of the room for bodies, until d.free.
func (d *dispatcher) reserve(most int) int {
	room := max(0, min(most, maxReturned-d.returned))
	d.returned += room
	return room
}

func (d *dispatcher) free(room int) { d.returned -= room }

// fits says whether an item's body may be on its way beside the others'. A
// webhook may have a quarter of what is left: however many hang with large
// bodies, there is room for the small ones of those that answer. Its account
// may have as many times what is left as of the attempts under way. Whoever does
// not fit is looked at again when something has landed, and something is under
// way then.
func (d *dispatcher) fits(q *queue, it *item) bool {
	if it.Unread && d.fetching >= maxFetches {
		return false
	}
	if it.aloft > 0 || d.flying == 0 && d.fetching == 0 {
		return true
	}
	left := maxAloft - d.aloft
	return q.aloft+it.Size <= left/4 && q.account.aloft+it.Size <= (headroom-1)*left
}

// lift counts a body as on its way, land no more.
func (d *dispatcher) lift(q *queue, it *item) {
	if it.aloft == 0 {
		it.aloft = it.Size
		d.aloft += it.aloft
		q.aloft += it.aloft
		q.account.aloft += it.aloft
	}
}

func (d *dispatcher) land(q *queue, it *item) {
	d.aloft -= it.aloft
	q.aloft -= it.aloft
	q.account.aloft -= it.aloft
	it.aloft = 0
}

// full says that there is no room in flight, or hardly any.
func (d *dispatcher) full() bool { return d.flying >= d.most-d.most/headroom }

// starve lists a queue that has work and no room for its bodies.
func (d *dispatcher) starve(q *queue) {
	if !q.starved {
		q.starved = true
		d.starved = append(d.starved, q)
	}
}

// feedStarved looks at them again.
func (d *dispatcher) feedStarved() {
	for _, q := range d.starved {
		q.starved = false
		d.mark(q)
	}
	d.starved = d.starved[:0]
}

// fetch reads the body of an item whose turn has come. Until then its place in
// its webhook's concurrency and its conversation are taken.
func (d *dispatcher) fetch(q *queue, it *item) {
	d.fetching++
	it.fetching = true
	q.inFlight[it.lane()]++
	d.lift(q, it)
	if it.order != 0 {
		q.conversation(it.order).busy = true
	}
	// Afterwards it is looked at anew: meanwhile an earlier one of its
	// conversation may have come back, or its webhook may have changed.
	done := func() {
		d.fetching--
		it.fetching = false
		if q.dropped {
			d.dropItem(q, it)
			d.feedStarved()
			return
		}
		l := it.lane()
		q.inFlight[l]--
		if it.order == 0 {
			q.lanes[l].runnable = slices.Insert(q.lanes[l].runnable, 0, it)
		} else {
			c := q.conversation(it.order)
			c.busy, c.offered = false, false
			d.nextOf(q, c)
		}
		d.mark(q)
		d.feedStarved()
	}
	d.later("a body", func(ctx context.Context) (func(), error) {
		body, cancels, err := d.store.Body(ctx, it.Key)
		return func() {
			if q.hook.Version < cancels { // it is unread still, and cancelled once that is known here
				d.load([]domain.WebhookID{it.Key.WebhookID}, done, done)
				return
			}
			it.Body, it.Unread = body, false
			done()
		}, err
	}, done)
}
