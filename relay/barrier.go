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

// tally counts steps. Those of replays are apart: the recorder keeps each kind in
// its order.
type tally struct{ fresh, replays int64 }

func (t *tally) count(s *step) {
	if s.replays() {
		t.replays++
	} else {
		t.fresh++
	}
}

func (d *dispatcher) openBarriers() {
	d.barriers = slices.DeleteFunc(d.barriers, func(b barrier) bool {
		if d.cameBack.fresh < b.steps.fresh || d.cameBack.replays < b.steps.replays {
			return false
		}
		close(b.open)
		return true
	})
}
