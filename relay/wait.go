package relay

import (
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// hold makes an item wait in the due table, on record.
func (d *dispatcher) hold(q *queue, it *item, reason domain.HoldReason) {
	until := it.State.Deadline
	kind := DuePaused
	if reason == domain.HoldOrder {
		kind = DueHold
		if wait := q.hook.Settings.OrderHold; wait != domain.HoldForever && it.State.ScheduledAt.Add(wait).Before(until) {
			until = it.State.ScheduledAt.Add(wait)
		}
	}
	now := d.now()
	events, err := domain.Decide(it.State, domain.Hold{At: now, Reason: reason, Until: until})
	if err != nil {
		d.drop(q, it, err)
		return
	}
	if len(events) == 0 {
		// It is held already: this hold goes on.
		d.leave(q, it)
		delete(d.parked, it.Key)
		if kind == DuePaused && it.order != 0 {
			d.nextOf(q, q.conversation(it.order))
		}
		return
	}
	s := d.step(stepWait, it, events)
	d.leave(q, it)
	if kind == DueHold {
		q.block(it.order, 0, 1)
		q.conversation(it.order).upTo = 0
	}
	d.wait(s, it, kind, until)
	d.out = append(d.out, s)
	if kind == DuePaused && it.order != 0 {
		d.nextOf(q, q.conversation(it.order))
	}
}

// putBack lets an item that was to be released stay held: its due row is still
// there.
func (d *dispatcher) putBack(q *queue, it *item) {
	d.leave(q, it)
	delete(d.parked, it.Key)
	q.block(it.order, 0, 1)
	q.conversation(it.order).upTo = 0
}

// putAway forgets an item that came back from the due table: it is read again.
func (d *dispatcher) putAway(q *queue, it *item) {
	if it.Due.Kind == DueHold {
		d.putBack(q, it)
		return
	}
	d.leave(q, it)
	delete(d.parked, it.Key)
}

// spill sends an item to the due table for lack of room.
func (d *dispatcher) spill(q *queue, it *item) {
	s := d.step(stepWait, it, nil)
	d.unkeep(q, it)
	q.lanes[it.lane()].asked++
	d.wait(s, it, DueOverflow, d.now())
	d.out = append(d.out, s)
}

// wait gives a step the due row that it begins.
func (d *dispatcher) wait(s *step, it *item, kind DueKind, at time.Time) {
	at = at.Truncate(time.Microsecond)
	// Behind what was read nobody would read it.
	if kind == DueOverflow {
		lane := &d.queues[it.Key.WebhookID].lanes[it.lane()]
		if !at.After(lane.read) {
			at = lane.read.Add(time.Microsecond)
		}
		if n := len(lane.unsaved); n > 0 {
			at = later(lane.unsaved[n-1], at)
		}
		lane.unsaved = append(lane.unsaved, at)
	} else {
		if !at.After(d.due.cursor.At) {
			at = d.due.cursor.At.Add(time.Microsecond)
		}
		d.due.unsaved[s] = struct{}{}
	}
	s.Waits = Due{Key: it.Key, Version: it.State.Version, Kind: kind, At: at, Pos: it.Pos, Order: it.order}
	it.Body = nil
}

// overflow sends all new work of a lane through the due table.
func (d *dispatcher) overflow(q *queue, l int) {
	if q.dropped {
		return
	}
	lane := &q.lanes[l]
	lane.asked++
	lane.news = true
	if !lane.overflow {
		lane.overflow, lane.cleared = true, false
		if l == freshLane {
			d.overflowing++
		}
		lane.cursor = Cursor{}
	}
	d.mark(q)
}

// shed lets webhooks overflow whose first deliveries waited too long in
// memory, so that they neither hold up the tail nor the position.
func (d *dispatcher) shed() {
	if d.fresh == 0 {
		return
	}
	now := d.now()
	for q := range d.crowded {
		switch {
		case q.lanes[freshLane].size == 0:
			delete(d.crowded, q)
		case q.waitsSince(now.Add(-d.patienceWith(q, now))):
			d.overflow(q, freshLane)
			d.spillAll(q)
		}
	}
}

// clear sends the first deliveries of an overflowing webhook that wait in memory
// to the due table, before later ones get there: a successor reads what is there
// first.
func (d *dispatcher) clear(q *queue) {
	lane := &q.lanes[freshLane]
	if lane.cleared {
		return
	}
	lane.cleared = true
	d.spillAll(q)
}

func (d *dispatcher) spillAll(q *queue) {
	for _, it := range q.unload(freshLane, (*item).spillable) {
		q.take(it)
		d.spill(q, it)
	}
	for _, c := range q.conversations {
		d.nextOf(q, c)
	}
}
