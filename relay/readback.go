package relay

import (
	"context"
	"math"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// readTimeout bounds a read of a few rows.
const readTimeout = 30 * time.Second

// read runs a read of the store beside the dispatcher, and its result in it.
// After an error it is tried again later: again lets that happen.
func (d *dispatcher) read(ctx context.Context, limit time.Duration, what string, f func(context.Context) (func(), error), again func()) {
	begun := d.stale.begin()
	go func() {
		timeout, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		result, err := f(timeout)
		if err == nil {
			d.inbox.call(func() {
				d.stale.now = begun
				result()
				d.stale.end(begun)
			})
			return
		}
		d.inbox.call(func() { d.stale.end(begun) })
		if ctx.Err() == nil {
			d.logger.Warn("reading back failed, trying again", "what", what, "error", err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
			d.inbox.call(again)
		case <-ctx.Done():
		}
	}()
}

// load reads webhooks that are not known, or not as they are now.
func (d *dispatcher) load(ids []domain.WebhookID, then, again func()) {
	d.loads++
	d.later("webhooks", func(ctx context.Context) (func(), error) {
		hooks, err := d.webhooks.Load(ctx, ids)
		return func() {
			defer d.loaded()
			for _, hook := range hooks {
				if !d.shards.Has(hook.ID) {
					continue
				}
				d.configureNewest(hook)
			}
			for _, id := range ids {
				if d.queues[id] == nil && d.shards.Has(id) { // nobody deletes rows, but what is not there gets nothing
					d.configure(domain.Webhook{ID: id, State: domain.WebhookDeleted})
				}
			}
			then()
		}, err
	}, func() { d.loaded(); again() })
}

// loaded ends a read of webhooks.
func (d *dispatcher) loaded() {
	d.loads--
	if d.loads == 0 {
		clear(d.newer)
	}
}

// configureNewest takes a webhook as it was read, or as it was seen to be changed
// meanwhile.
func (d *dispatcher) configureNewest(hook domain.Webhook) {
	d.configure(hook)
	if newer, changed := d.newer[hook.ID]; changed {
		d.configure(newer)
	}
}

// configure takes a webhook's present settings.
func (d *dispatcher) configure(hook domain.Webhook) {
	q := d.queues[hook.ID]
	if q == nil {
		q = newQueue(hook)
		q.account = d.accountOf(hook.AccountID)
		d.queues[hook.ID] = q
		d.regulate(q, nil)
		d.mark(q)
		return
	}
	if q.hook.Version > hook.Version {
		return
	}
	before := q.hook
	q.limit = max(1, q.limit+float64(hook.Settings.MaxConcurrency-q.hook.Settings.MaxConcurrency))
	q.hook, q.disabling = &hook, false
	d.regulate(q, before)
	d.mark(q)
	if hook.State != domain.WebhookEnabled {
		for l := range lanes {
			d.resumed(q, l) // no more: what waits is held or cancelled
		}
	}
	switch {
	case hook.State == domain.WebhookDeleted && before.State != hook.State, before.DisabledVersion < hook.DisabledVersion:
		d.hurry(q, true) // it is cancelled, also where the webhook is enabled again already
	case hook.State == domain.WebhookEnabled && before.State != hook.State:
		d.hurry(q, false)
	}
}

// hurry brings back what waits of a webhook: all, or what its pause held.
func (d *dispatcher) hurry(q *queue, all bool) {
	id, now := q.hook.ID, d.now()
	q.hurrying++
	if q.hook.State == domain.WebhookEnabled {
		for l := range lanes {
			q.resume(l)
		}
	}
	d.later("waiting", func(ctx context.Context) (func(), error) {
		err := d.store.Hurry(ctx, id, all, now)
		return func() {
			q.hurrying--
			for l := range lanes {
				q.lanes[l].hurried++
				d.overflow(q, l)
				q.lanes[l].cursor = Cursor{}
			}
		}, err
	}, func() { q.hurrying--; d.hurry(q, all) })
}

// resumed lets all go on: what a pause held is in memory.
func (d *dispatcher) resumed(q *queue, l int) {
	if !q.lanes[l].resuming {
		return
	}
	q.lanes[l].resuming = false
	for _, c := range q.conversations {
		d.nextOf(q, c)
	}
}

// pausing tells whether a pause's hold that is over is on its way into the table:
// once it is there, it is hurried.
func (d *dispatcher) pausing(q *queue, l int) bool {
	for s := range d.due.unsaved {
		key := s.Waits.Key
		if s.Waits.Kind == DuePaused && key.WebhookID == q.hook.ID && (key.ReplayID != 0) == (l == replayLane) && d.replays[key.ReplayID] != ReplayPaused {
			return true
		}
	}
	return false
}

// later begins a read at the end of this round.
func (d *dispatcher) later(what string, f func(context.Context) (func(), error), again func()) {
	d.laterWithin(readTimeout, what, f, again)
}

func (d *dispatcher) laterWithin(limit time.Duration, what string, f func(context.Context) (func(), error), again func()) {
	d.reads = append(d.reads, func(ctx context.Context) { d.read(ctx, limit, what, f, again) })
}

// comeBack takes deliveries from the due table into memory. timed says that
// their time has come, whether or not their webhooks have room.
func (d *dispatcher) comeBack(found []Delivery, release domain.ReleaseReason, timed bool) {
	found = d.readable(d.putOff(d.own(found)))
	unknown := d.unknown(found)
	if len(unknown) == 0 {
		d.bringBack(found, release, timed)
		return
	}
	read := d.stale.now
	d.stale.open[read]++ // what was found is as old as it is
	later := func(then func([]Delivery, domain.ReleaseReason, bool)) func() {
		return func() {
			d.stale.now = read
			then(found, release, timed)
			d.stale.end(read)
		}
	}
	d.load(unknown, later(d.bringBack), later(d.comeBack))
}

// bringBack does what comeBack says with deliveries whose webhooks are known.
func (d *dispatcher) bringBack(found []Delivery, release domain.ReleaseReason, timed bool) {
	touched := map[*conversation]*queue{}
	found = d.putOff(d.own(found))
	for i := range found {
		f := &found[i]
		if _, here := d.parked[f.Key]; here || d.stale.moved(f.Key) || f.State.Status.Final() || f.State.Open {
			continue
		}
		q := d.queues[f.Key.WebhookID]
		it := d.newItem(f)
		// What there is no room for now is read again with what overflowed. So are
		// holds that end while others that ended before are still to be read there:
		// these may be of the same conversation.
		if l := &q.lanes[it.lane()]; timed && (l.size >= 2*laneLimit || l.late && f.Due.Kind == DueHold) {
			d.readLate(q, it.lane(), f.Due)
			continue
		}
		it.order = f.Due.Order
		d.parked[f.Key] = struct{}{}
		it.back = len(it.Body)
		d.returned += it.back
		if f.Due.Kind == DuePaused {
			it.resumed = true
			q.lanes[it.lane()].resumed++
		}
		if f.Due.Kind == DueHold {
			q.block(it.order, 0, -1)
			it.release = release
		}
		q.add(it)
		if it.order != 0 {
			touched[q.conversations[it.order]] = q
		}
		d.mark(q)
	}
	for c, q := range touched {
		d.nextOf(q, c)
	}
}

// readLate lets what came back be read again by its lane, in the order of time.
func (d *dispatcher) readLate(q *queue, l int, due Due) {
	d.overflow(q, l)
	q.lanes[l].late = true
	q.lanes[l].cursor.setBack(Cursor{At: due.At, Pos: due.Pos - 1})
}

// setBack lets what is behind a place be read, again where it was.
func (c *Cursor) setBack(to Cursor) {
	if to.At.Before(c.At) || to.At.Equal(c.At) && to.Pos < c.Pos {
		*c = to
	}
}

// readDue brings back retries and holds whose time has come.
func (d *dispatcher) readDue() {
	now := d.now()
	if d.due.reading || d.due.next.IsZero() || now.Before(d.due.next) {
		return
	}
	if d.shards == 0 {
		d.due.next = time.Time{}
		return
	}
	until := now
	for s := range d.due.unsaved {
		if !s.Waits.At.After(until) {
			until = s.Waits.At.Add(-time.Microsecond) // the cursor may not pass it
		}
	}
	if !until.After(d.due.cursor.At) {
		return
	}
	d.due.reading, d.due.next = true, time.Time{}
	cursor := d.due.cursor
	// Rows that come later must not fall behind the cursor.
	d.due.cursor = Cursor{At: until.Truncate(time.Microsecond), Pos: 1<<63 - 1}
	read, room, shards := d.due.cursor, d.reserve(dueBytes), d.shards
	d.later("due", func(ctx context.Context) (func(), error) {
		found, next, err := d.store.DueBefore(ctx, shards, cursor, read.At, dueLimit, room)
		return func() {
			d.due.reading = false
			d.free(room)
			if !next.IsZero() && (d.due.next.IsZero() || next.Before(d.due.next)) {
				d.due.next = next // else something saved meanwhile is due before
			}
			if next.IsZero() && shards != AllShards && d.due.next.IsZero() {
				d.due.next = now.Add(dueLook)
			}
			if len(found) == dueLimit {
				last := found[len(found)-1].Due
				d.due.cursor.setBack(Cursor{At: last.At, Pos: last.Pos})
				d.due.next = now
			}
			d.comeBack(found, domain.ReleaseElapsed, true)
		}, err
	}, func() {
		d.free(room)
		d.due.cursor.setBack(cursor)
		d.due.reading, d.due.next = false, now
	})
}

// laneReads lets lanes of replays be read one after the other: a replay to many
// webhooks would else read all at once, and fresh deliveries would wait for it.
type laneReads struct {
	reading bool
	waiting []*queue
}

// mayRead says whether a lane may be read now. One that may not is read when it
// is its turn.
func (d *dispatcher) mayRead(q *queue, l int) bool {
	if l == freshLane || !d.replayReads.reading {
		return true
	}
	if lane := &q.lanes[l]; !lane.awaits {
		lane.awaits = true
		d.replayReads.waiting = append(d.replayReads.waiting, q)
	}
	return false
}

// nextRead ends the read of a lane. A lane that wants none any more when it is
// its turn is looked at when that changes.
func (d *dispatcher) nextRead(l int) {
	if l == freshLane {
		return
	}
	r := &d.replayReads
	r.reading = false
	for len(r.waiting) > 0 && !r.reading {
		q := r.waiting[0]
		r.waiting = r.waiting[1:]
		q.lanes[replayLane].awaits = false
		if q.lanes[replayLane].wantsRead(false) {
			d.readLane(q, replayLane)
		}
	}
}

// readLane brings back what overflowed. Once nothing is left, new work goes
// into memory again.
func (d *dispatcher) readLane(q *queue, l int) {
	lane := &q.lanes[l]
	if lane.resuming && q.hurrying > 0 {
		return // it is looked at again when what is to go first is due
	}
	now := d.now().Truncate(time.Microsecond)
	if len(lane.unsaved) > 0 {
		// The cursor may not pass rows on their way into the table.
		if oldest := lane.unsaved[0].Add(-time.Microsecond); oldest.Before(now) {
			now = oldest
		}
		if !now.After(lane.cursor.At) {
			return // it is looked at again when they are saved
		}
	}
	lane.loading, lane.news, lane.read = true, false, later(lane.read, now)
	if l == replayLane {
		d.replayReads.reading = true
	}
	id, cursor, asked, unsaved, hurried := q.hook.ID, lane.cursor, lane.asked, len(lane.unsaved), lane.hurried
	room := d.reserve(laneBytes)
	d.later("overflow", func(ctx context.Context) (func(), error) {
		found, err := d.store.DueOf(ctx, id, l == replayLane, cursor, now, laneLimit, room)
		return func() {
			lane.loading = false
			d.nextRead(l)
			d.free(room)
			if lane.resuming && (lane.hurried != hurried || q.hurrying > 0) {
				lane.news = true // what is to go first may not be in it
				d.mark(q)
				return
			}
			n := len(found)
			// What a pause held is due before all else.
			back := lane.resuming && lane.cursor == cursor &&
				(n < laneLimit || found[n-1].Due.Kind != DuePaused) && !d.pausing(q, l)
			if n > 0 && lane.cursor == cursor {
				lane.cursor = Cursor{At: found[n-1].Due.At, Pos: found[n-1].Due.Pos}
			}
			if back && len(d.unknown(found)) > 0 {
				back, lane.cursor, lane.news = false, Cursor{}, true // they come later
			}
			if n == laneLimit {
				lane.news = true
			}
			// Drained, unless something was added that the read did not see.
			if n < laneLimit && unsaved == 0 && lane.asked == asked {
				if lane.overflow && l == freshLane {
					d.overflowing--
				}
				lane.overflow, lane.late = false, false
			}
			d.comeBack(found, domain.ReleaseElapsed, false)
			if back {
				d.resumed(q, l)
			}
			d.mark(q)
		}, err
	}, func() {
		d.nextRead(l)
		d.free(room)
		lane.loading, lane.news = false, true
		d.mark(q)
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// readHeld brings back the deliveries held in a conversation whose failed ones
// are finished.
func (d *dispatcher) readHeld(q *queue, c *conversation) {
	c.loading = true
	if d.holding(q.hook.ID, c.order) {
		// Some are on their way into the table. Those that were there before, as
		// overflow, would be taken for out of date, and the others overtake them.
		time.AfterFunc(5*time.Millisecond, func() {
			d.inbox.call(func() {
				c.loading = false
				d.nextOf(q, c)
			})
		})
		return
	}
	id, room := q.hook.ID, d.reserve(laneBytes)
	d.later("held", func(ctx context.Context) (func(), error) {
		found, err := d.store.Held(ctx, id, c.order, laneLimit, room)
		return func() {
			c.loading = false
			d.free(room)
			switch n := len(found); {
			case len(d.unknown(found)) > 0: // they come later
			case n < laneLimit:
				c.upTo = math.MaxInt64
			default:
				c.upTo = found[n-1].Pos
			}
			found = d.readable(found)
			if len(found) == 0 {
				q.block(c.order, 0, -q.blocked[c.order].held) // none is held, whatever was counted
			}
			d.comeBack(found, domain.ReleaseTurn, false)
			d.nextOf(q, c)
		}, err
	}, func() { d.free(room); c.loading = false; d.nextOf(q, q.conversation(c.order)) })
}

// holding tells whether a hold of a conversation is on its way into the table.
func (d *dispatcher) holding(webhook domain.WebhookID, order int64) bool {
	for s := range d.due.unsaved {
		if s.Waits.Kind == DueHold && s.Waits.Order == order && s.Waits.Key.WebhookID == webhook {
			return true
		}
	}
	return false
}
