package relay

import (
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// setRate takes the webhook's rate. A limit that is new begins with a burst: a
// tenth of what it lets through in a second. A relay that gains the shard begins
// so too.
func (q *queue) setRate(now time.Time) {
	limit := q.hook.Settings.RateLimit
	burst := max(1, int(math.Ceil(limit/10)))
	switch {
	case limit == 0:
		q.rate = nil
	case q.rate == nil:
		q.rate = rate.NewLimiter(rate.Limit(limit), burst)
	default:
		q.rate.SetLimitAt(now, rate.Limit(limit))
		q.rate.SetBurstAt(now, burst)
	}
}

// paced says whether the rate lets an attempt begin, and else when it is worth
// to look again: where many are let through, for some of them.
func (q *queue) paced(now time.Time) (ok bool, again time.Time) {
	if q.rate == nil {
		return true, time.Time{}
	}
	tokens := q.rate.TokensAt(now)
	if tokens > 1-1e-6 { // whole, but for what sums of fractions lose
		return true, time.Time{}
	}
	want := max(1, float64(q.rate.Burst())/4)
	return false, now.Add(time.Duration(math.Ceil((want - tokens) / float64(q.rate.Limit()) * float64(time.Second))))
}

// spend counts an attempt that begins.
func (q *queue) spend(now time.Time) {
	if q.rate != nil {
		q.rate.ReserveN(now, 1)
	}
}

// lets says whether the webhook's breaker and its rate let the first of a lane
// begin. Where they do not, an alarm is set, and what would make no POST leaves
// the lane all the same: what was cancelled does not wait for a receiver.
func (d *dispatcher) lets(q *queue, l int) bool {
	if q.rate == nil && !q.breaker.open {
		return true
	}
	now := d.now()
	ok, again := q.paced(now)
	if q.breaker.open {
		switch {
		case q.inFlight[freshLane]+q.inFlight[replayLane] > 0:
			ok, again = false, time.Time{} // its end tells
		case now.Before(q.breaker.probe):
			ok, again = false, later(again, q.breaker.probe)
		}
	}
	if ok || d.postless(q, q.lanes[l].runnable[0], now) {
		return true
	}
	if !again.IsZero() {
		d.alarms.set(q, again)
	}
	lane := &q.lanes[l]
	var leave []*item
	lane.runnable = slices.DeleteFunc(lane.runnable, func(it *item) bool {
		if d.postless(q, it, now) {
			leave = append(leave, it)
			return true
		}
		return false
	})
	for _, it := range leave {
		d.start(q, it, false)
	}
	return false
}

// postless says whether a start would make no POST: the delivery ends, or is
// held.
func (d *dispatcher) postless(q *queue, it *item, now time.Time) bool {
	if _, cancels := d.cancels(q, it); cancels {
		return true
	}
	if _, pauses := d.pauses(q, it); pauses {
		return true
	}
	return now.After(it.State.Deadline) || d.ending(it.Key.EventSeq) != nil
}
