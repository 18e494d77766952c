package relay

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/outrider-relay/outrider/domain"
)

// onOutcome ends an attempt. The conversation goes on at once: its next start
// is recorded behind this outcome.
func (d *dispatcher) onOutcome(o outcome) {
	it, now := o.it, d.now()
	q := d.queueOf(it)
	if o.outcome.Kind == domain.OutcomeSucceeded {
		q.succeeded = now
	}
	d.fly(q, it.lane(), -1)
	d.turnoverOf(q.account).now++
	q.pace(o.outcome)
	d.judge(q, it.begun, o.outcome)
	d.lasts(q, o.outcome)
	if q.confirmGone(o.outcome, it.begun, now) && !q.disabling {
		q.disabling = true
		d.disable(q.hook.AccountID, q.hook.ID, domain.DisabledGone)
	}
	d.land(q, it)
	d.feedStarved()
	d.endAttempt(q, it, domain.RecordOutcome{
		At: now, Attempt: o.attempt, Outcome: o.outcome, Policy: q.hook.Settings.RetryPolicy(d.policy), Jitter: rand.Float64(), //nolint:gosec // spreads retries
	})
}

// disable disables a webhook whose receiver says that it is gone, or seems to be.
// What waits of it is cancelled once the change is seen, as with any other.
func (d *dispatcher) disable(account domain.AccountID, id domain.WebhookID, reason string) {
	d.chores.add(func(done func()) {
		d.later("disable", func(ctx context.Context) (func(), error) {
			return done, d.webhooks.Disable(ctx, account, id, reason)
		}, func() {
			done()
			d.disable(account, id, reason)
		})
	})
}

// endAttempt records how an attempt ended, and what follows from it.
func (d *dispatcher) endAttempt(q *queue, it *item, command domain.DeliveryCommand) {
	before := it.State
	events, err := domain.Decide(it.State, command)
	if err != nil {
		d.logger.Error("an outcome does not fit its delivery", "event_seq", it.Key.EventSeq, "webhook_id", it.Key.WebhookID, "error", err)
		return
	}
	s := d.step(stepOutcome, it, events)
	it.open = before
	it.measure(command)
	if !it.State.Status.Final() {
		if reason, cancels := d.cancels(q, it); cancels {
			cancelled := domain.Cancelled{At: d.now(), Reason: reason}
			it.State = domain.Evolve(it.State, cancelled)
			s.Entries, s.events = append(s.Entries, domain.EncodeDelivery(cancelled)), append(s.events, cancelled)
		} else {
			d.wait(s, it, DueRetry, it.looked())
		}
	}
	d.out = append(d.out, s)
	switch {
	case it.State.Failed && !before.Failed && !it.State.Status.Final():
		q.block(it.order, 1, 0)
	case before.Failed && it.State.Status.Final():
		q.block(it.order, -1, 0)
	}
	if it.order != 0 {
		c := q.conversation(it.order)
		c.busy = false
		d.nextOf(q, c)
	}
	d.mark(q)
}

// onRecorded goes on from what is on record now.
func (d *dispatcher) onRecorded(s *step) {
	d.steps--
	d.cameBack.count(s)
	d.commit = max(d.commit, s.commit)
	it := s.item
	if s.err != nil {
		d.onRefused(s)
		return
	}
	if it != nil {
		if s.Ends != 0 {
			delete(d.parked, it.Key)
			d.stale.move(it.Key)
		}
		d.onRecord(it)
	}
	if s.Waits.Kind != DueNone {
		d.saved(s)
	}
	switch s.kind {
	case stepStart:
		if s.commit != 0 { // else its answer was lost, and it is not before where it was begun
			d.open[it.Key] = openAttempt{s.commit << 20, it}
		}
		switch {
		case s.ahead:
			s.recorded = true
			d.ahead.recorded++
		case !s.withdrawn:
			d.send(it, s.request)
		}
	case stepOutcome:
		delete(d.open, it.Key)
		d.tell(s)
	case stepSchedule:
		s.scheduled()
	case stepEnd:
		d.tell(s)
	case stepWait:
	}
}

// saved notes that a due row is in the table.
func (d *dispatcher) saved(s *step) {
	if s.Waits.Kind == DueOverflow {
		if q := d.queues[s.Waits.Key.WebhookID]; q != nil {
			l := &q.lanes[freshLane]
			if s.Waits.Key.ReplayID != 0 {
				l = &q.lanes[replayLane]
			}
			at := l.unsaved[0]
			l.unsaved = l.unsaved[1:] // they are recorded in the order in which they were spilled
			if len(l.unsaved) == 0 || l.unsaved[0].After(at) {
				l.news = true
				d.mark(q)
			}
		}
		return
	}
	delete(d.due.unsaved, s)
	if q := d.queues[s.Waits.Key.WebhookID]; q != nil {
		// Its webhook's state changed while it was on its way: what hurried the
		// others has missed it.
		switch q.hook.State {
		case domain.WebhookEnabled:
			if s.Waits.Kind == DuePaused && d.replays[s.Waits.Key.ReplayID] != ReplayPaused {
				d.missed[q] = struct{}{}
			}
		case domain.WebhookDisabled, domain.WebhookDeleted:
			if s.Waits.Kind != DueHold {
				d.missed[q] = struct{}{}
			}
		case domain.WebhookNone, domain.WebhookPaused:
		}
	}
	if d.due.next.IsZero() || s.Waits.At.Before(d.due.next) {
		d.due.next = s.Waits.At
	}
}

// onRecord lets the batch of a delivery go on.
func (d *dispatcher) onRecord(it *item) {
	if it.batch != nil {
		it.batch.left--
		it.batch = nil
	}
}

// onRefused goes on from a step that could not be recorded. A start was not
// sent; an outcome becomes unknown, with the reason; all else waits for a
// restart, since its stream does not take it.
func (d *dispatcher) onRefused(s *step) {
	it := s.item
	if it == nil {
		return
	}
	if s.Waits.Kind != DueNone {
		d.saved(s)
	}
	delete(d.parked, it.Key)
	d.onRecord(it)
	q := d.queueOf(it)
	if q == nil { // its shard was given up
		if s.kind == stepSchedule {
			s.scheduled()
		}
		return
	}
	switch s.kind {
	case stepStart:
		delete(d.open, it.Key)
		if s.withdrawn {
			break
		}
		if s.ahead {
			d.unlist(s)
			q.inFlight[it.lane()]--
		} else {
			d.fly(q, it.lane(), -1)
		}
		d.land(q, it)
		d.feedStarved()
		if it.order != 0 {
			c := q.conversation(it.order)
			c.busy = false
			d.nextOf(q, c)
		}
		d.mark(q)
	case stepOutcome:
		delete(d.open, it.Key)
		if it.open.Status == domain.DeliveryNone {
			return // this was the fallback already
		}
		if errors.Is(s.err, ErrConflict) {
			return // a successor has ended the attempt
		}
		wasFinal := it.State.Status.Final()
		it.State, it.open, it.end = it.open, domain.Delivery{}, Ended{}
		events, err := domain.Decide(it.State, domain.LoseAttempt{
			At: d.now(), Attempt: it.State.Attempts, Reason: "the outcome could not be recorded: " + s.err.Error(), Policy: q.hook.Settings.RetryPolicy(d.policy), Jitter: 0.5,
		})
		if err != nil {
			return
		}
		again := d.step(stepOutcome, it, events)
		if !it.State.Status.Final() {
			d.wait(again, it, DueRetry, it.looked())
			if wasFinal {
				q.block(it.order, 1, 0)
			}
		}
		d.out = append(d.out, again)
	case stepSchedule:
		s.scheduled() // a predecessor had scheduled it
	case stepWait, stepEnd:
	}
	if s.kind != stepOutcome && s.kind != stepSchedule {
		// Its stream is not as memory had it: what waits of it is read again.
		q.lanes[it.lane()].cursor = Cursor{}
		d.overflow(q, it.lane())
	}
}
