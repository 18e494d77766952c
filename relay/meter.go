package relay

import (
	"context"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// unmetered is the Meter of a relay that nobody watches.
type unmetered struct{}

func (unmetered) Routed(*outbox.Batch, time.Duration) {}
func (unmetered) Recorded(int, time.Duration, error)  {}
func (unmetered) Ended([]Ended)                       {}
func (unmetered) Load(Load)                           {}
func (unmetered) Beat(time.Time)                      {}

// meteredLeases tell the meter of signs of life.
type meteredLeases struct {
	Leases
	meter Meter
}

// Beat gives a sign of life, and tells of it where it was taken.
func (l meteredLeases) Beat(ctx context.Context, relayID, n int64, place Place) error {
	begun := time.Now()
	err := l.Leases.Beat(ctx, relayID, n, place)
	if err == nil {
		l.meter.Beat(begun)
	}
	return err
}

// confirmed tells of a batch that is on record, and hands it on.
func (r *Relay) confirmed(next func(*outbox.Batch)) func(*outbox.Batch) {
	return func(batch *outbox.Batch) {
		r.config.Meter.Routed(batch, r.config.Now().Sub(batch.Began))
		if r.config.Tracer != nil {
			r.config.Tracer.Routed(batch)
		}
		if next != nil {
			next(batch)
		}
	}
}

// measure notes how an attempt went, for when its end is on record.
func (it *item) measure(command domain.DeliveryCommand) {
	it.end = Ended{}
	record, ok := command.(domain.RecordOutcome)
	if !ok {
		return
	}
	it.end.Class, it.end.Took = record.Outcome.Class, record.Outcome.Duration
	// A replay arrives long after the insertion, which says nothing about the
	// relay.
	if record.Outcome.Kind == domain.OutcomeSucceeded && it.Key.ReplayID == 0 && !it.InsertedAt.IsZero() {
		it.end.Arrived, it.end.Arrival = true, max(0, record.At.Sub(it.InsertedAt))
	}
}

// tell takes what ended by a step that is on record. The meter hears of all of
// them once in each round.
func (d *dispatcher) tell(s *step) {
	end := Ended{}
	if s.kind == stepOutcome {
		end = s.item.end
		end.Outcome = s.item.State.LastOutcome
	}
	if status := s.item.State.Status; status.Final() {
		end.Status = status
	}
	d.ended = append(d.ended, end)
}

// flush hands the meter what was gathered.
func (d *dispatcher) flush() {
	if len(d.ended) > 0 {
		d.meter.Ended(d.ended)
		d.ended = d.ended[:0]
	}
}

func (d *dispatcher) weigh() Load {
	halfOpen := 0
	for q := range d.broken {
		if q.inFlight[freshLane]+q.inFlight[replayLane] > 0 {
			halfOpen++
		}
	}
	return Load{
		Open: len(d.broken) - halfOpen, HalfOpen: halfOpen,
		InFlight: d.flying, Waiting: d.fresh, Bodies: d.bodies,
		Overflowing: d.overflowing, Undispatched: d.head - d.place().Position,
	}
}
