package relay

import (
	"context"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// DefaultDisableAfter is how long a webhook may do nothing but fail.
const DefaultDisableAfter = 5 * 24 * time.Hour

// failingConfirm is how long this relay must have seen failures and nothing else
// before it asks for how long that is so: a webhook that got nothing for days is
// not disabled by the first failure behind them.
const failingConfirm = time.Hour

// failing is how long memory has seen a webhook only fail. How long it really
// does is a fold over the log, which is read when it may matter, a few times in
// all those days.
type failing struct {
	since, last time.Time // the first and the last failure, zero for none
	ask         time.Time // before this the record need not be asked
	asking      bool
}

// lasts takes the outcome of an attempt, and disables the webhook where none has
// succeeded for too long.
func (d *dispatcher) lasts(q *queue, o domain.Outcome) {
	f := &q.failing
	if o.Kind == domain.OutcomeSucceeded {
		*f = failing{asking: f.asking}
		return
	}
	now := d.now()
	if f.since.IsZero() || now.Sub(f.last) > d.disableAfter/2 {
		f.since = now
	}
	f.last = now
	switch {
	case d.disableAfter <= 0, q.dropped, q.disabling, q.hook.State != domain.WebhookEnabled:
	case f.asking, now.Before(f.ask), now.Sub(f.since) < min(failingConfirm, d.disableAfter):
	default:
		d.askFailing(q)
	}
}

// askFailing reads since when a webhook fails.
func (d *dispatcher) askFailing(q *queue) {
	f := &q.failing
	f.asking = true
	id, streak := q.hook.ID, f.since
	d.chores.add(func(done func()) {
		d.later("how long a webhook fails", func(ctx context.Context) (func(), error) {
			since, err := d.webhooks.FailingSince(ctx, id)
			return func() {
				f.asking = false
				d.judgeFailing(q, streak, since)
				done()
			}, err
		}, func() { // the next failure asks again
			f.asking = false
			done()
		})
	})
}

// judgeFailing takes since when a webhook fails, on record; streak is since when
// it does in memory, when that was asked for.
func (d *dispatcher) judgeFailing(q *queue, streak, since time.Time) {
	f := &q.failing
	switch now := d.now(); {
	case q.dropped, q.disabling, !f.since.Equal(streak): // it succeeded meanwhile
	case since.IsZero():
		f.ask = now.Add(failingConfirm) // what is known here is not folded yet
	case now.Sub(since) < d.disableAfter:
		f.ask = since.Add(d.disableAfter)
	default:
		q.disabling = true
		d.disable(q.hook.AccountID, q.hook.ID, domain.DisabledFailing(d.disableAfter))
	}
}
