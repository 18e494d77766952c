package relay

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Attempts are begun ahead. An attempt takes room in flight from its beginning to
// its end, and at first a commit puts it on record: where all room is taken, a part
// of it would always wait for commits. So an account in line for room begins some
// attempts without, and each is sent at the moment in which the account gets room.
// They are as many as ended of the account's within aheadFor, at the pace of late:
// none waits for long, nobody has more room than by fair.go, and a relay that dies
// leaves few more attempts that are unknown.
//
// Nobody waits for their commits. So these gather: few and large, they cost less
// than many small ones.
//
// The next owner of a shard takes what is on record for under way, and for over
// once its timeout has passed. So when a shard is given up, nothing of it may wait
// for room any more.
const (
	aheadFor = 20 * time.Millisecond
	// turnoverSpan is how long attempts that end are counted: turnoverSpans times
	// aheadFor.
	turnoverSpan  = turnoverSpans * aheadFor
	turnoverSpans = 5
	// gatherFor is how long a commit gathers at most.
	gatherFor = aheadFor / 2
	// drainFor is how long what was begun ahead may take to get room before shards
	// are given up. It takes longer where receivers have begun to hang: what still
	// waits then becomes unknown, and is repeated by the next owner at once.
	drainFor = 100 * time.Millisecond
)

// ahead is what a dispatcher has begun ahead, of all accounts.
type ahead struct {
	attempts int           // that wait for room
	recorded int           // of these, on record
	span     int           // the number of the present span
	since    time.Time     // when that began
	urgent   bool          // something waits for what is to be recorded
	gathers  time.Time     // since when that gathers, zero where it does not
	closed   bool          // nothing is begun ahead
	drained  chan struct{} // closed once nothing waits for room
}

// turnover is how many attempts of an account ended.
type turnover struct {
	now, before int // in a span, and in the one before
	span        int // its number
}

// at brings the counts to a span.
func (t *turnover) at(span int) {
	switch span - t.span {
	case 0:
		return
	case 1:
		t.before = t.now
	default:
		t.before = 0
	}
	t.now, t.span = 0, span
}

// turnoverOf gives that of an account, as of now.
func (d *dispatcher) turnoverOf(a *account) *turnover {
	now := d.now()
	if past := now.Sub(d.ahead.since); past >= turnoverSpan {
		d.ahead.since = now
		d.ahead.span++
		if past >= 2*turnoverSpan {
			d.ahead.span++ // in the one before, nothing ended
		}
	}
	a.turnover.at(d.ahead.span)
	return &a.turnover
}

// mayBeginAhead says whether an account may begin one more attempt ahead.
func (d *dispatcher) mayBeginAhead(a *account) bool {
	if d.ahead.closed || d.ahead.attempts >= d.most {
		return false
	}
	return len(a.ahead)*turnoverSpans < d.turnoverOf(a).before
}

// beginAhead lets the webhooks of an account that wait for room begin attempts
// without, in turn. Where a webhook's rate or breaker says when a POST may leave,
// that is not asked before there is room for it.
func (d *dispatcher) beginAhead(a *account) {
	for len(a.waiting) > 0 && d.mayBeginAhead(a) {
		i := slices.IndexFunc(a.waiting, func(q *queue) bool { return q.rate == nil && !q.breaker.open })
		if i < 0 {
			break
		}
		if q := a.take(i); d.startNext(q, true) {
			d.mark(q) // its lanes may want to be read
		}
	}
	d.line.settle(a)
}

// launch gives room to what an account began ahead, the first of it first. Where
// that is not on record yet, it is sent once it is.
func (d *dispatcher) launch(a *account) {
	s := a.ahead[0]
	q := d.queueOf(s.item)
	_, cancels := d.cancels(q, s.item)
	_, pauses := d.pauses(q, s.item)
	if cancels || pauses {
		d.withdraw(s, "it was paused or cancelled before there was room for the POST")
		return
	}
	d.unlist(s)
	d.occupy(a, 1)
	s.item.begun = d.now()
	if s.recorded {
		d.send(s.item, s.request)
	} else {
		d.ahead.urgent = true
	}
}

// withdraw ends an attempt that was begun ahead, without its POST.
func (d *dispatcher) withdraw(s *step, reason string) {
	s.withdrawn = true
	d.unlist(s)
	it := s.item
	q := d.queueOf(it)
	q.inFlight[it.lane()]--
	d.land(q, it)
	d.feedStarved()
	d.endAttempt(q, it, domain.LoseAttempt{
		At: d.now(), Attempt: s.request.Attempt, Reason: reason,
		Policy: q.hook.Settings.RetryPolicy(d.policy), Jitter: rand.Float64(), //nolint:gosec // spreads retries
	})
}

// list counts an attempt as begun ahead, unlist no more.
func (d *dispatcher) list(s *step) {
	a := d.queueOf(s.item).account
	s.ahead = true
	a.ahead = append(a.ahead, s)
	d.ahead.attempts++
	d.line.settle(a)
}

func (d *dispatcher) unlist(s *step) {
	a := d.queueOf(s.item).account
	s.ahead = false
	a.ahead = slices.DeleteFunc(a.ahead, func(other *step) bool { return other == s })
	d.ahead.attempts--
	if s.recorded {
		d.ahead.recorded--
	}
	if d.ahead.attempts == 0 && d.ahead.drained != nil {
		close(d.ahead.drained)
		d.ahead.drained = nil
	}
	d.line.settle(a)
}

// gather gives for how long what is to be recorded may wait for more: while more
// than half of what was begun ahead is on record, and nothing waits for the rest.
func (d *dispatcher) gather(now time.Time) time.Duration {
	if len(d.out) == 0 || d.stopping || d.ahead.urgent || len(d.barriers) > 0 || 2*d.ahead.recorded <= d.ahead.attempts {
		return 0
	}
	if d.ahead.gathers.IsZero() {
		d.ahead.gathers = now
	}
	return max(0, gatherFor-now.Sub(d.ahead.gathers))
}

// drain begins nothing ahead any more, until reopen, and waits for what was to
// get room, for drainFor at most.
func (d *dispatcher) drain(ctx context.Context) {
	drained := make(chan struct{})
	d.inbox.call(func() {
		d.ahead.closed, d.ahead.drained = true, drained
		if d.ahead.attempts == 0 {
			close(drained)
			d.ahead.drained = nil
		}
	})
	select {
	case <-drained:
	case <-time.After(drainFor):
	case <-ctx.Done():
	}
}

func (d *dispatcher) reopen() {
	d.inbox.call(func() { d.ahead.closed, d.ahead.drained = false, nil })
}

// abandon ends what was begun ahead in some shards and has no room.
func (d *dispatcher) abandon(shards Shards) {
	for _, a := range d.accounts {
		for _, s := range slices.Clone(a.ahead) {
			if shards.Has(s.Key.WebhookID) {
				d.withdraw(s, "its relay gave the webhook up before there was room for the POST")
			}
		}
	}
}
