package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// prepare reads what the dispatcher must know before it has any shard.
func (d *dispatcher) prepare(ctx context.Context) (err error) {
	if d.head, d.commit, err = d.store.Head(ctx); err != nil {
		return fmt.Errorf("read the chain: %w", err)
	}
	if d.endings, err = d.readEndings(ctx); err != nil {
		return fmt.Errorf("read what is to end: %w", err)
	}
	// Before any webhook is read, so that no change falls in between.
	if _, d.since, err = d.webhooks.Changed(ctx, ""); err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}
	return nil
}

// inheritance is all that goes with shards.
type inheritance struct {
	places []Place
	// live are the relays that may still end attempts that they began.
	live  []int64
	head  int64
	left  Left
	at    time.Time // what of left is due is so at this time
	hooks []domain.Webhook
}

// gain takes up shards that are this relay's from now on: how far the chain was
// dispatched, of which webhooks something waits, and which attempts have no
// outcome. It reads neither history nor what waits: that is read lane by lane,
// and counted when it matters (counting.go). It runs beside the dispatcher, which
// has none of these shards yet; now is the relay's clock.
func (d *dispatcher) gain(ctx context.Context, places []Place, live []int64, now time.Time) error {
	// Changes of webhooks that are seen from here on are kept: what is read may be
	// older.
	if err := d.inbox.within(ctx, func() { d.loads++ }); err != nil {
		return err
	}
	in, err := d.readLeft(ctx, places, now)
	if err != nil {
		d.inbox.call(d.loaded)
		return err
	}
	in.live = live
	return d.inbox.within(ctx, func() { d.inherit(in); d.loaded() })
}

func (d *dispatcher) readLeft(ctx context.Context, places []Place, now time.Time) (*inheritance, error) {
	in := &inheritance{places: places, at: now.Truncate(time.Microsecond)}
	var shards Shards
	low := places[0].Low
	for _, p := range places {
		shards |= p.Shards
		low = min(low, p.Low)
	}
	var err error
	if in.left, err = d.store.Left(ctx, shards, low, in.at); err != nil {
		return nil, fmt.Errorf("read what was left: %w", err)
	}
	if in.head, _, err = d.store.Head(ctx); err != nil {
		return nil, fmt.Errorf("read the chain: %w", err)
	}
	wanted := map[domain.WebhookID]struct{}{}
	for _, w := range in.left.Waiting {
		wanted[w.WebhookID] = struct{}{}
	}
	for _, f := range in.left.Open {
		wanted[f.Key.WebhookID] = struct{}{}
	}
	ids := make([]domain.WebhookID, 0, len(wanted))
	for id := range wanted {
		ids = append(ids, id)
	}
	if in.hooks, err = d.webhooks.Load(ctx, ids); err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	return in, nil
}

// inherit makes memory fit what the last owner of some shards left.
func (d *dispatcher) inherit(in *inheritance) {
	had := d.shards
	d.head = max(d.head, in.head)
	for _, p := range in.places {
		d.shards |= p.Shards
		d.feeds = append(d.feeds, &feed{shards: p.Shards, last: p.Position})
		for n := range ShardCount {
			if p.Shards&(1<<n) != 0 {
				d.gained[n] = d.stale.last
			}
		}
	}
	for _, hook := range in.hooks {
		d.configureNewest(hook)
	}
	for _, w := range in.left.Waiting {
		if q := d.queues[w.WebhookID]; q != nil {
			d.wake(q, w)
		}
	}
	d.left.live(in.live)
	for i := range in.left.Open {
		d.adopt(&in.left.Open[i], in.places)
	}
	for _, w := range in.left.Waiting {
		// Once all open attempts are known. It may be the turn of what is held.
		if q := d.queues[w.WebhookID]; q != nil && w.Held {
			d.askCounts(q)
		}
	}
	// What of these shards is due by then is read by its lanes, what comes later
	// from the due table.
	first := Cursor{At: in.at, Pos: 1<<63 - 1}
	if now := d.now(); now.Before(first.At) {
		first.At = now.Truncate(time.Microsecond)
	}
	if had == 0 {
		d.due.cursor = first
	}
	d.due.cursor.setBack(first)
	d.due.next = d.now()
	d.moved(d.place())
}

// wake lets what an earlier owner left of a webhook in the due table be read,
// ahead of all new work.
func (d *dispatcher) wake(q *queue, w Waiting) {
	if w.Timed {
		q.counts = uncounted
	}
	for l, waits := range [lanes]bool{freshLane: w.Fresh, replayLane: w.Replays} {
		if waits {
			d.overflow(q, l)
			q.lanes[l].late = q.lanes[l].late || w.Timed
		}
	}
	// What waits of a webhook that was disabled while no relay was at work is
	// cancelled now, and what the pause held of one that was enabled goes on, not
	// when its time comes.
	if _, cancels := q.hook.Cancels(q.hook.Version); cancels {
		d.hurry(q, true)
	} else if w.Paused && q.hook.State == domain.WebhookEnabled {
		d.hurry(q, false)
	}
}

// adopt takes over an open attempt of another relay. It may still be under way
// until its timeout has passed on our monotonic clock, which no step shortens;
// until then its conversation waits.
func (d *dispatcher) adopt(found *Delivery, places []Place) {
	low := placeOf(places, found.Key.WebhookID).Low
	if found.Unreadable != nil {
		d.open[found.Key] = openAttempt{at: low} // so that a version that can read it finds it
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
	d.open[it.Key] = openAttempt{at: low}
	d.left.attempts = append(d.left.attempts, leftAttempt{time.Now().Add(it.State.Timeout + leaseMargin), it})
}

func placeOf(places []Place, id domain.WebhookID) Place {
	for _, p := range places {
		if p.Shards.Has(id) {
			return p
		}
	}
	return Place{}
}

// leftAttempts are open attempts that other relays began. Those of a dead one
// become unknown when they can no longer be under way. One that only gave up
// its shards, or that stops, still records how its own end: those are read
// again and again until it has.
type leftAttempts struct {
	attempts []leftAttempt
	living   map[int64]struct{} // relays that may end theirs
	reading  bool
	next     time.Time // when they are read again
	pause    time.Duration
}

type leftAttempt struct {
	at time.Time
	it *item
}

// The times between two reads of attempts that a living relay may end.
const rereadSoon, rereadLate = 20 * time.Millisecond, 500 * time.Millisecond

func (l *leftAttempts) live(relays []int64) {
	l.living = map[int64]struct{}{}
	for _, id := range relays {
		l.living[id] = struct{}{}
	}
	l.next, l.pause = time.Time{}, rereadSoon
}

// until is how long there is nothing to do.
func (l *leftAttempts) until(now time.Time) time.Duration {
	wait := time.Second
	for _, a := range l.attempts {
		wait = min(wait, a.at.Sub(now))
	}
	if len(l.attempts) > 0 && len(l.living) > 0 && !l.reading {
		wait = min(wait, l.next.Sub(now))
	}
	return wait
}

// settleLeft gives up attempts that can no longer be under way, and looks how
// those of living relays are.
func (d *dispatcher) settleLeft() {
	if len(d.left.attempts) == 0 {
		return
	}
	now := time.Now()
	kept := d.left.attempts[:0]
	for _, l := range d.left.attempts {
		if now.Before(l.at) {
			kept = append(kept, l)
			continue
		}
		q := d.queues[l.it.Key.WebhookID]
		d.endAttempt(q, l.it, domain.LoseAttempt{
			At: d.now(), Attempt: l.it.State.Attempts, Reason: "its relay stopped before the outcome was recorded",
			Policy: q.hook.Settings.RetryPolicy(d.policy), Jitter: rand.Float64(), //nolint:gosec // spreads retries
		})
	}
	d.left.attempts = kept
	if !d.left.reading && !now.Before(d.left.next) {
		d.reread(now)
	}
}

// reread looks for outcomes that other relays have recorded meanwhile.
func (d *dispatcher) reread(now time.Time) {
	var open []Delivery
	for _, l := range d.left.attempts {
		if _, living := d.left.living[l.it.Starter]; living {
			open = append(open, l.it.Delivery)
		}
	}
	if len(open) == 0 {
		clear(d.left.living)
		return
	}
	d.left.reading, d.left.next = true, now.Add(d.left.pause)
	d.left.pause = min(2*d.left.pause, rereadLate)
	again := func() { d.left.reading = false }
	d.later("open attempts", func(ctx context.Context) (func(), error) {
		found, err := d.store.Reread(ctx, open)
		return func() {
			again()
			for _, f := range d.own(found) {
				d.endedElsewhere(&f)
			}
		}, err
	}, again)
}

// endedElsewhere goes on behind an attempt that the relay which began it has
// ended.
func (d *dispatcher) endedElsewhere(f *Delivery) {
	i := slices.IndexFunc(d.left.attempts, func(l leftAttempt) bool { return l.it.Key == f.Key })
	if i < 0 || f.Unreadable != nil || f.State.Open {
		return
	}
	it := d.left.attempts[i].it
	d.left.attempts = slices.Delete(d.left.attempts, i, i+1)
	delete(d.open, it.Key)
	q := d.queues[it.Key.WebhookID]
	switch {
	case f.State.Failed && !it.State.Failed && !f.State.Status.Final():
		q.block(it.order, 1, 0)
	case it.State.Failed && f.State.Status.Final():
		q.block(it.order, -1, 0)
	}
	if it.order != 0 {
		c := q.conversation(it.order)
		c.busy = false
		d.nextOf(q, c)
	}
	d.mark(q)
	switch {
	case f.Due.Kind == DueNone:
	case !f.Due.At.After(d.due.cursor.At):
		d.comeBack([]Delivery{*f}, domain.ReleaseElapsed, true) // nobody reads there again
	case d.due.next.IsZero() || f.Due.At.Before(d.due.next):
		d.due.next = f.Due.At
	}
}
