package relay

import (
	"github.com/outrider-relay/outrider/domain"
)

// pump starts what a webhook's queue may start now.
func (d *dispatcher) pump(q *queue) {
	if q.dropped {
		return
	}
	for l := range lanes {
		for q.room(l) && len(q.lanes[l].runnable) > 0 && d.lets(q, l) && d.mayStart(q, q.lanes[l].runnable[0], false) {
			d.start(q, q.lanes[l].pop(), false)
		}
		if idle := l == freshLane && q.room(l) && len(q.lanes[l].runnable) == 0; q.counts != beingCounted && q.lanes[l].wantsRead(idle) && d.mayRead(q, l) {
			d.readLane(q, l)
		}
	}
	d.beginAhead(q.account)
}

// start asks for the next attempt of an item, in room or ahead of it.
func (d *dispatcher) start(q *queue, it *item, ahead bool) {
	now := d.now()
	if reason, cancels := d.cancels(q, it); cancels {
		d.end(q, it, domain.Cancel{At: now, Reason: reason})
		return
	}
	if command := d.ending(it.Key.EventSeq); command != nil {
		d.end(q, it, command)
		return
	}
	if reason, pauses := d.pauses(q, it); pauses {
		if now.After(it.State.Deadline) {
			d.end(q, it, domain.Expire{At: now, Reason: domain.ExpiredDeadline})
		} else {
			d.hold(q, it, reason)
		}
		return
	}
	switch {
	case it.Unread:
		d.fetch(q, it)
		return
	case it.Body == nil:
		d.end(q, it, domain.GiveUp{At: now, Reason: domain.DeadPayload})
		return
	}
	release := it.release
	if release == "" {
		release = domain.ReleaseResumed // held by a pause that is over
	}
	events, err := domain.Decide(it.State, domain.Start{At: now, WebhookVersion: q.hook.Version, Timeout: q.hook.Settings.Timeout, Release: release})
	if err != nil {
		d.drop(q, it, err)
		return
	}
	s := d.step(stepEnd, it, events)
	if it.State.Open {
		s.kind = stepStart
		s.request = &Request{
			Webhook: q.hook, EventID: it.EventID, Delivery: deliveryID(it), Notification: domain.NewNotificationID(it.AccountID, it.EventID, it.Key.WebhookID),
			Replay: it.Key.ReplayID, Event: it.Event, Attempt: it.State.Attempts, Previous: it.State.LastOutcome,
			Traceparent: it.Traceparent, Body: it.Body,
		}
		d.leave(q, it)
		d.lift(q, it)
		it.begun = now
		q.spend(now)
		if ahead {
			q.inFlight[it.lane()]++
			d.list(s)
		} else {
			d.fly(q, it.lane(), 1)
			d.ahead.urgent = true
		}
		d.open[it.Key] = openAttempt{(d.commit + 1) << 20, it} // until it is known
		if it.order != 0 {
			q.conversation(it.order).busy = true
		}
	} else {
		d.leave(q, it)
		d.settled(q, it)
	}
	d.out = append(d.out, s)
}

func deliveryID(it *item) domain.DeliveryID {
	return domain.NewDeliveryID(domain.NewNotificationID(it.AccountID, it.EventID, it.Key.WebhookID), it.Key.EventSeq, it.Key.ReplayID)
}

// step turns events into the change that records them, and folds them.
func (d *dispatcher) step(kind stepKind, it *item, events []domain.DeliveryEvent) *step {
	s := &step{kind: kind, item: it, events: events, Change: Change{Key: it.Key, AccountID: it.AccountID, First: it.State.Version + 1, Ends: it.Due.Version}}
	for _, event := range events {
		it.State = domain.Evolve(it.State, event)
		s.Entries = append(s.Entries, domain.EncodeDelivery(event))
	}
	if it.State.Status == domain.DeliveryDead {
		s.Tells = d.tellDead(it, events)
	}
	it.Due = Due{}
	return s
}

// leave takes an item out of its queue.
func (d *dispatcher) leave(q *queue, it *item) {
	q.take(it)
	if it.batch != nil {
		d.unkeep(q, it)
	}
	d.free(it.back)
	it.back = 0
	d.begin(it)
	if !it.State.Open {
		d.land(q, it) // it was fetched, and does not start
	}
}

// settled lets the next one of a finished delivery's conversation go.
func (d *dispatcher) settled(q *queue, it *item) {
	if it.order == 0 {
		return
	}
	if it.State.Failed && it.State.Status.Final() {
		q.block(it.order, -1, 0)
	}
	d.nextOf(q, q.conversation(it.order))
}

// end finishes a delivery without an attempt.
func (d *dispatcher) end(q *queue, it *item, command domain.DeliveryCommand) {
	events, err := domain.Decide(it.State, command)
	if err != nil {
		d.drop(q, it, err)
		return
	}
	s := d.step(stepEnd, it, events)
	d.leave(q, it)
	d.out = append(d.out, s)
	d.settled(q, it)
}

// drop forgets an item that cannot go on: its stream says otherwise.
func (d *dispatcher) drop(q *queue, it *item, err error) {
	d.logger.Error("a delivery cannot go on", "event_seq", it.Key.EventSeq, "webhook_id", it.Key.WebhookID, "error", err)
	d.leave(q, it)
	delete(d.parked, it.Key)
	d.onRecord(it)
	d.settled(q, it)
}
