package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Names of the workloads that run where none is named, in their order.
var Names = []string{"a", "b", "c", "d", "e", "f", "g", "i"}

// AllNames are those and four that are run by name: h takes long to prepare, j
// takes a replay beside what others measure, k two relays, and l is c at length.
var AllNames = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}

// Run measures.
type Run struct {
	Rig         Rig
	Receiver    *ReceiverAt
	Repetitions int
	// Quick makes everything small, to see that it works.
	Quick bool
	// Progress hears what is being done. It must not block.
	Progress func(Progress)

	warm rates
}

// Progress is what is being done.
type Progress struct {
	Workload, Step string
	// Repetition of Repetitions; 0 is the preparation.
	Repetition, Repetitions int
	// Done of All; 0 of 0 where nothing is counted.
	Done, All int
}

// Do runs workloads and gives the outcome of each. What was measured before
// an error is given with it.
func (r *Run) Do(ctx context.Context, names []string) ([]Workload, error) {
	if r.Progress == nil {
		r.Progress = func(Progress) {}
	}
	var done []Workload
	for _, group := range []struct {
		names []string
		run   func(context.Context, []string) ([]Workload, error)
	}{
		{[]string{"a"}, r.backlog},
		{[]string{"b"}, r.latency},
		{[]string{"c"}, r.hanging},
		{[]string{"d"}, r.longTransaction},
		{[]string{"e", "g", "i"}, r.growth},
		{[]string{"f"}, r.inserts},
		{[]string{"h"}, r.audit},
		{[]string{"j"}, r.replaying},
		{[]string{"k"}, r.sharing},
		{[]string{"l"}, r.isolated},
	} {
		wanted := slices.DeleteFunc(slices.Clone(group.names), func(name string) bool { return !slices.Contains(names, name) })
		if len(wanted) == 0 {
			continue
		}
		begun := time.Now()
		workloads, err := group.run(ctx, wanted)
		err = errors.Join(err, r.Receiver.Behave(context.WithoutCancel(ctx), Behaviour{}), r.Rig.Discard(context.WithoutCancel(ctx)))
		if err != nil {
			return done, fmt.Errorf("workload %s: %w", strings.Join(wanted, ", "), err)
		}
		for i := range workloads {
			workloads[i].Seconds = time.Since(begun).Seconds() / float64(len(workloads))
		}
		done = append(done, workloads...)
	}
	return done, nil
}

// stallTimeout is how long nothing may arrive while something should.
const stallTimeout = 60 * time.Second

// pollInterval is how often the receiver is asked: the clock does not depend
// on it, since each arrival has its time.
const pollInterval = 20 * time.Millisecond

// await waits until n events of the receiver's run have arrived. It is an
// error if the process that sends them ends before, unless it may.
func (r *Run) await(ctx context.Context, sender Process, mayEnd bool, n int, progress Progress) (Arrived, error) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	last, changed := int64(-1), time.Now()
	for {
		arrived, err := r.Receiver.Arrived(ctx)
		if err != nil {
			return arrived, err
		}
		if arrived.Events >= int64(n) {
			return arrived, nil
		}
		if arrived.Events != last {
			last, changed = arrived.Events, time.Now()
		}
		if time.Since(changed) > stallTimeout {
			return arrived, fmt.Errorf("nothing has arrived for %s, after %d of %d events", stallTimeout, arrived.Events, n)
		}
		progress.Done, progress.All = int(arrived.Events), n
		r.Progress(progress)
		select {
		case <-ticker.C:
		case <-sender.Ended():
			if err := sender.Failure(); err != nil || !mayEnd {
				return arrived, fmt.Errorf("the process that is measured ended by itself, after %d of %d events: %w", arrived.Events, n, err)
			}
		case <-ctx.Done():
			return arrived, ctx.Err()
		}
	}
}

// clock notices when the machine's clock is set, which would change latencies.
type clock struct{ begun time.Time }

func startClock() clock { return clock{time.Now()} }

// errClock: the clock was set.
var errClock = errors.New("the machine's clock was set during a measurement: run it again")

// check compares the wall clock, by which processes are compared, with the
// monotonic one.
func (c clock) check() error {
	now := time.Now()
	monotonic := now.Sub(c.begun)
	wall := now.Round(0).Sub(c.begun.Round(0))
	const slack = time.Millisecond
	if (wall - monotonic).Abs() > slack+monotonic/1000 { // NTP may slew by 0.05 %
		return errClock
	}
	return nil
}

// Titles say what the workloads are.
var Titles = map[string]string{
	"a": "a backlog of 10 s, one delivery for each event",
	"b": "from commit to arrival, at 100 and at 3,000 events/s",
	"c": "one of 50 webhooks hangs: what the others notice",
	"d": "a writing transaction is open for 20 s: what others notice, at 1,000 events/s",
	"e": "a backlog behind 5,000,000 rows of history, and with 1,000,000 rows waiting",
	"f": "32 producers, one event in each transaction, next to a bare table",
	"g": "memory with a backlog, and with 1,000,000 deliveries waiting",
	"h": "audit queries over 10,000,000 attempts of 30 days",
	"i": "from a relay's start to the first arrival, behind 5,000,000 rows of history",
	"j": "100,000 deliveries are replayed: what fresh events notice, at 1,000 events/s",
	"k": "two relays against one, each with 100 POSTs at once, answered after 20 ms",
	"l": "one of 50 webhooks hangs for 30 s at 100 and at 3,000 events/s; 1,000,000 deliveries wait for dead ones at 1,000 events/s",
}
