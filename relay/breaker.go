package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// breaker keeps attempts from a receiver that is down. It opens after some
// failures in a row; then one attempt at a time is its probe, each after a
// longer wait, until one is answered. What waits meanwhile waits in the due
// table as behind any slow receiver, and no attempt of it is used up.
//
// It is in memory, and follows the last word of the receiver. The record follows
// it: opened and closed are changes of the webhook. A relay that gains the shard
// takes up what is on record, and begins with a probe.
type breaker struct {
	failures int // in a row, while it is closed
	open     bool
	// since is when it opened or closed here: attempts that began before say
	// nothing about it.
	since time.Time
	// probe is when the next probe may begin, pause the wait for it.
	probe time.Time
	pause time.Duration
	// reason is why it opened.
	reason string
	// telling says that its state is on its way to the record.
	telling bool
}

// judge takes the outcome of an attempt and says whether the breaker opened or
// closed by it.
func (b *breaker) judge(p domain.BreakerPolicy, o domain.Outcome, begun, now time.Time, jitter float64) (changed bool) {
	switch {
	case p.Failures < 0, !b.since.IsZero() && !begun.After(b.since):
		return false
	case b.open && o.Down():
		b.pause = min(2*b.pause, p.Last)
		b.probe = now.Add(p.Wait(b.pause, jitter))
		return false
	case b.open:
		b.open, b.since, b.failures = false, now, 0
		return true
	case !o.Down():
		b.failures = 0
		return false
	}
	b.failures++
	if b.failures < p.Failures {
		return false
	}
	// One that closed just now goes on with longer waits: a receiver that comes
	// and goes does not fill the record.
	if !b.since.IsZero() && now.Sub(b.since) <= 2*b.pause {
		b.pause = min(2*b.pause, p.Last)
	} else {
		b.pause = p.First
	}
	b.open, b.since, b.probe = true, now, now.Add(p.Wait(b.pause, jitter))
	b.reason = fmt.Sprintf("%d attempts in a row failed, the last one with: %s", b.failures, told(o))
	return true
}

// told names an outcome by its class and status: its detail may have words of
// the receiver.
func told(o domain.Outcome) string {
	if o.Class == domain.ErrorStatus && o.StatusCode != 0 {
		return fmt.Sprintf("%s %d", o.Class, o.StatusCode)
	}
	return string(o.Class)
}

// resume takes up a breaker that another relay left open: the first that waits
// is its probe. By then it waited about half as long as it is open.
func (b *breaker) resume(p domain.BreakerPolicy, opened, now time.Time) {
	b.open, b.since, b.probe = true, now.Add(-1), now
	b.pause = min(max(now.Sub(opened)/2, p.First), p.Last)
}

// judge lets a webhook's breaker take an outcome.
func (d *dispatcher) judge(q *queue, begun time.Time, o domain.Outcome) {
	if q.dropped {
		return
	}
	if !q.breaker.open && !o.Down() {
		q.breaker.failures = 0 // as nearly always: no time is asked for
		return
	}
	if !q.breaker.judge(d.breaking, o, begun, d.now(), rand.Float64()) { //nolint:gosec // spreads probes
		return
	}
	q.limit = 1 // from there it is raised by what succeeds
	d.breakerChanged(q)
}

// breakerChanged notes which breakers are open, and brings the record in line.
func (d *dispatcher) breakerChanged(q *queue) {
	if q.breaker.open {
		d.broken[q] = struct{}{}
	} else {
		delete(d.broken, q)
	}
	d.tellBreaker(q)
}

// tellBreaker says on record what a breaker does, where that says otherwise.
func (d *dispatcher) tellBreaker(q *queue) {
	sends := q.hook.State == domain.WebhookEnabled || q.hook.State == domain.WebhookPaused && q.hook.Unreadable == ""
	if q.dropped || !sends || q.breaker.telling || q.breaker.open == (q.hook.Breaker() == domain.BreakerOpen) {
		return
	}
	q.breaker.telling = true
	d.chores.add(func(done func()) {
		if q.dropped {
			done()
			return
		}
		var command domain.WebhookCommand = domain.CloseBreaker{}
		if q.breaker.open {
			command = domain.OpenBreaker{At: q.breaker.since, Reason: q.breaker.reason, URL: q.hook.Settings.URL}
		}
		account, id := q.hook.AccountID, q.hook.ID
		told := func() {
			q.breaker.telling = false
			done()
		}
		d.later("a breaker", func(ctx context.Context) (func(), error) {
			hook, err := d.webhooks.ChangeBreaker(ctx, account, id, command)
			return func() {
				known := hook.ID != 0 && !q.dropped
				if known {
					d.configure(hook)
				}
				told()
				if known {
					d.tellBreaker(q) // where it changed meanwhile
				}
			}, err
		}, func() {
			told()
			d.tellBreaker(q)
		})
	})
}

// regulate brings a webhook's rate and breaker in line with its settings; before
// are those of before, nil where memory did not know it.
func (d *dispatcher) regulate(q *queue, before *domain.Webhook) {
	q.setRate(d.now())
	switch {
	case before == nil:
		if q.hook.Breaker() == domain.BreakerOpen && d.breaking.Failures >= 0 {
			q.breaker.resume(d.breaking, q.hook.BreakerOpenedAt, d.now())
		}
	case before.Settings.URL != q.hook.Settings.URL, // another receiver
		q.hook.State == domain.WebhookEnabled && before.State != domain.WebhookEnabled, // which somebody wants tried
		q.hook.State == domain.WebhookDisabled, q.hook.State == domain.WebhookDeleted, before.DisabledVersion < q.hook.DisabledVersion,
		!q.breaker.telling && before.Breaker() == domain.BreakerOpen && q.hook.Breaker() == domain.BreakerClosed: // by somebody else
		q.breaker, q.failing = breaker{telling: q.breaker.telling, since: d.now()}, failing{asking: q.failing.asking}
	}
	d.breakerChanged(q)
}
