package bench

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// sharedInFlight and sharedAnswer bound what one relay can do, so that a
	// second one shows.
	sharedInFlight = 100
	sharedAnswer   = 20 * time.Millisecond
	// sharedSeconds is how long one relay has to do at that rate: two have half as
	// long.
	sharedSeconds = 20
)

// sharing is workload k: two relays against one.
func (r *Run) sharing(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "k", Title: Titles["k"]}
	for repetition := range r.Repetitions {
		progress := Progress{Workload: w.Name, Repetition: repetition + 1, Repetitions: r.Repetitions}
		var one, two float64
		steps := []func() error{
			func() (err error) {
				progress.Step = "one relay"
				one, err = r.capped(ctx, 1, progress)
				return err
			},
			func() (err error) {
				progress.Step = "two relays"
				two, err = r.capped(ctx, 2, progress)
				return err
			},
		}
		if repetition%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
		}
		m.add("most", "the most that one may do", PerSecond, Neither, sharedInFlight/sharedAnswer.Seconds())
		m.add("one", "one relay", PerSecond, Higher, one)
		m.add("two", "two relays", PerSecond, Higher, two)
		m.add("ratio", "two against one", Ratio, Higher, two/one)
	}
	m.atLeast("ratio", 1.8)
	w.Measures = m.done()
	return []Workload{w}, nil
}

// capped gives the rate at which relays deliver a backlog while each may have few
// POSTs under way, of which none is answered at once.
func (r *Run) capped(ctx context.Context, relays int, progress Progress) (rate float64, err error) {
	n := int(sharedSeconds * sharedInFlight / sharedAnswer.Seconds())
	if r.Quick {
		n = 2000
	}
	db, err := r.Rig.Database(ctx)
	if err != nil {
		return 0, err
	}
	accounts := make([]int, Accounts)
	for i := range accounts {
		accounts[i] = i
	}
	if err := r.Receiver.Behave(ctx, Behaviour{Hang: accounts, HangFor: sharedAnswer}); err != nil {
		return 0, err
	}
	var processes []Process
	defer func() {
		for _, p := range processes {
			_, stopErr := r.stop(ctx, p, nil)
			err = errors.Join(err, stopErr)
		}
		err = errors.Join(err, r.Rig.Drop(context.WithoutCancel(ctx), db))
	}()
	for range relays {
		p, err := r.Rig.Relay(ctx, db, sharedInFlight)
		if err != nil {
			return 0, err
		}
		processes = append(processes, p)
		if err := r.Rig.Active(ctx, p); err != nil {
			return 0, err
		}
	}
	run, err := r.Receiver.Begin(ctx, n)
	if err != nil {
		return 0, err
	}
	if err := r.fill(ctx, db, run, n, progress); err != nil {
		return 0, err
	}
	if _, err := r.await(ctx, processes[0], false, n, progress); err != nil {
		return 0, err
	}
	times, err := r.Receiver.Arrivals(ctx)
	if err != nil {
		return 0, err
	}
	slices.Sort(times)
	return (&delivered{times: times}).rate(0.1, 0.9), nil
}
