package relay

import (
	"context"
	"slices"
)

// recordedAfter runs f in the dispatcher's goroutine, and waits until all steps
// that were begun before are on record.
func (d *dispatcher) recordedAfter(ctx context.Context, f func()) error {
	recorded := make(chan struct{})
	d.inbox.call(func() {
		f()
		begun := d.submitted
		for _, s := range d.out {
			begun.count(s)
		}
		d.barriers = append(d.barriers, barrier{begun, recorded})
	})
	select {
	case <-recorded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// barrier is opened once that many steps came back from the recorder.
type barrier struct {
	steps tally
	open  chan struct{}
}

// tally counts steps, each kind apart that the recorder keeps in an order of its
// own.
type tally struct{ fresh, spilled, replays int64 }

func (t *tally) count(s *step) {
	switch {
	case s.replays():
		t.replays++
	case s.spills():
		t.spilled++
	default:
		t.fresh++
	}
}

// covers says whether each kind has come as far as in other.
func (t tally) covers(other tally) bool {
	return t.fresh >= other.fresh && t.spilled >= other.spilled && t.replays >= other.replays
}

func (d *dispatcher) openBarriers() {
	d.barriers = slices.DeleteFunc(d.barriers, func(b barrier) bool {
		if !d.cameBack.covers(b.steps) {
			return false
		}
		close(b.open)
		return true
	})
}
