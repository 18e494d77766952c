package bench

import (
	"context"
	"fmt"
	"time"
)

// replayEvents is how many events are replayed: more than a relay gets through
// while something else is measured.
const replayEvents = 100_000

// replayAll asks for all that was routed in the last hour to be delivered again,
// as fast as it is taken.
const replayAll = `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 hour'))`

const replayQuery = `SELECT state, done FROM audit.replays WHERE replay_id = $1::bigint`

// replaying is workload j: a replay runs meanwhile.
func (r *Run) replaying(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "j", Title: Titles["j"]}
	var limited limits
	t := r.lasting(steadyRate, 2*time.Second, 10*time.Second)
	err := r.byTurns(&m, w.Name, "", "", []variant{
		{"control", "none runs", func(progress Progress) (*arrivals, error) {
			return r.delivered(ctx, progress, func(db *Database, relay Process) (*arrivals, error) {
				return r.observe(ctx, db, relay, t, progress)
			})
		}},
		{"replay", "one runs", func(progress Progress) (*arrivals, error) {
			return r.delivered(ctx, progress, func(db *Database, relay Process) (*arrivals, error) {
				return r.replayed(ctx, db, relay, t, progress, &m)
			})
		}},
	}, &limited)
	if err != nil {
		return nil, err
	}
	w.Notes = limited.notes()
	w.Measures = m.done()
	return []Workload{w}, nil
}

// delivered observes something with a relay that has delivered before, as much
// as is to be replayed.
func (r *Run) delivered(ctx context.Context, progress Progress, observe func(*Database, Process) (*arrivals, error)) (found *arrivals, err error) {
	n := replayEvents
	if r.Quick {
		n = 20_000
	}
	err = r.withRelay(ctx, func(db *Database, relay Process) error {
		run, err := r.Receiver.Begin(ctx, n)
		if err != nil {
			return err
		}
		if err := r.fill(ctx, db, run, n, progress); err != nil {
			return err
		}
		if _, err := r.await(ctx, relay, false, n, progress); err != nil {
			return err
		}
		found, err = observe(db, relay)
		return err
	})
	return found, err
}

// replayed observes a traffic while all that was delivered is replayed.
func (r *Run) replayed(ctx context.Context, db *Database, relay Process, t traffic, progress Progress, m *measures) (*arrivals, error) {
	var id int64
	var state string
	if err := db.DB.QueryRowContext(ctx, replayAll).Scan(&id); err != nil {
		return nil, fmt.Errorf("ask for a replay: %w", err)
	}
	// The relay counts twice a second.
	more := func(than int64) (done int64, err error) {
		for begun := time.Now(); ; {
			if err := db.DB.QueryRowContext(ctx, replayQuery, id).Scan(&state, &done); err != nil || done > than || state == "finished" {
				return done, err
			}
			if time.Since(begun) > stallTimeout {
				return 0, fmt.Errorf("nothing was replayed for %s", stallTimeout)
			}
			if !until(ctx, time.Now().Add(pollInterval)) {
				return 0, ctx.Err()
			}
		}
	}
	before, err := more(0)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	found, err := r.observe(ctx, db, relay, t, progress)
	if err != nil {
		return nil, err
	}
	after, err := more(before)
	if err != nil {
		return nil, err
	}
	if state != "running" && !r.Quick {
		return nil, fmt.Errorf("the replay of %s deliveries was over too soon", grouped(replayEvents))
	}
	m.add("replayed", "deliveries of the replay meanwhile", PerSecond, Neither, float64(after-before)/time.Since(begun).Seconds())
	return found, nil
}
