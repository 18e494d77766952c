package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// producers insert at the same time, each over a connection of its own.
const producers = 32

// insertEvent commits one event: outside a transaction block it is one.
const insertEvent = `INSERT INTO outbox.events (account_id, event, payload) VALUES ($1::bigint, $2::text, $3::json)`

// traffic is events that are committed at a rate, one in each transaction.
type traffic struct {
	rate int // events per second
	// warm is how long before what counts, measured how long that lasts.
	warm, measured time.Duration
	// hanging are the accounts that hang: their events do not count.
	hanging []int
}

// hangFor is how long a hanging webhook keeps a POST: the relay's timeout.
const hangFor = 5 * time.Second

func (t traffic) warmEvents() int { return int(float64(t.rate) * t.warm.Seconds()) }

func (t traffic) events() int {
	return t.warmEvents() + max(1, int(float64(t.rate)*t.measured.Seconds()))
}

// arrivals are what a producer and the receiver noted of a traffic.
type arrivals struct {
	// latencies of the events that count, in milliseconds.
	latencies []float64
	// rate is at which they were committed; late, that it was not the one
	// wanted.
	rate float64
	late bool
	// full says that the receiver used all it may.
	full bool
}

func (a *arrivals) p50() float64 { return Percentile(a.latencies, 50) }
func (a *arrivals) p99() float64 { return Percentile(a.latencies, 99) }

// observe makes a traffic and waits until all of it that counts has arrived.
func (r *Run) observe(ctx context.Context, db *Database, relay Process, t traffic, progress Progress) (*arrivals, error) {
	n := t.events()
	run, err := r.Receiver.Begin(ctx, n)
	if err != nil {
		return nil, err
	}
	if len(t.hanging) > 0 {
		if err := r.Receiver.Behave(ctx, Behaviour{Hang: t.hanging, HangFor: hangFor}); err != nil {
			return nil, err
		}
	}
	before, err := r.Receiver.Arrived(ctx)
	if err != nil {
		return nil, err
	}
	clock := startClock()
	commits, err := r.produce(ctx, db, run, n, t.rate, relay, progress)
	if err != nil {
		return nil, err
	}
	times, err := r.all(ctx, relay, t.counts)
	if err != nil {
		return nil, err
	}
	if err := clock.check(); err != nil {
		return nil, err
	}
	arrived, err := r.Receiver.Arrived(ctx)
	if err != nil {
		return nil, err
	}
	a := t.judge(commits, times)
	a.full = usedAll(arrived.CPU-before.CPU, time.Since(clock.begun))
	return a, nil
}

// counts says whether event n does.
func (t traffic) counts(n int) bool { return !slices.Contains(t.hanging, n%Accounts) }

// judge gives the latencies of what counts.
func (t traffic) judge(commits, times []int64) *arrivals {
	warm := t.warmEvents()
	a := &arrivals{rate: math.NaN()}
	first, last := int64(math.MaxInt64), int64(0)
	for n := warm; n < len(commits); n++ {
		first, last = min(first, commits[n]), max(last, commits[n])
		if t.counts(n) {
			a.latencies = append(a.latencies, milliseconds(time.Duration(times[n]-commits[n])))
		}
	}
	if last > first {
		a.rate = float64(len(commits)-warm-1) / time.Duration(last-first).Seconds()
		a.late = a.rate < 0.95*float64(t.rate)
	}
	return a
}

// produce commits n events at a rate, 0 for as fast as they go, and tells when
// each COMMIT had returned. A producer that is late does not slow the rate:
// the next event is due at its own time.
func (r *Run) produce(ctx context.Context, db *Database, run, n, rate int, relay Process, progress Progress) ([]int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	commits := make([]int64, n)
	begun := time.Now()
	var next, done atomic.Int64
	var workers sync.WaitGroup
	for range producers {
		workers.Go(func() {
			err := withStatement(ctx, db.DB, insertEvent, func(insert *sql.Stmt) error {
				for {
					i := int(next.Add(1)) - 1
					if i >= n {
						return nil
					}
					if rate > 0 && !until(ctx, begun.Add(time.Duration(i)*time.Second/time.Duration(rate))) {
						return ctx.Err()
					}
					if _, err := insert.ExecContext(ctx, FirstAccount+i%Accounts, EventName, payload(run, i)); err != nil {
						return err
					}
					commits[i] = time.Now().UnixNano()
					done.Add(1)
				}
			})
			if err != nil {
				cancel(fmt.Errorf("insert an event: %w", err))
			}
		})
	}
	finished := make(chan struct{})
	go func() { workers.Wait(); close(finished) }()
	ticker := time.NewTicker(10 * pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-finished:
			return commits, context.Cause(ctx)
		case <-relay.Ended():
			cancel(endedEarly(relay))
			<-finished
			return nil, context.Cause(ctx)
		case <-ticker.C:
			progress.Done, progress.All = int(done.Load()), n
			r.Progress(progress)
		}
	}
}

// withStatement prepares a statement on a connection of its own.
func withStatement(ctx context.Context, db *sql.DB, query string, do func(*sql.Stmt) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	statement, err := conn.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = statement.Close() }()
	return do(statement)
}

// until waits for a time; it gives false if ctx ends before.
func until(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// all waits until all events that count have arrived, and gives the times.
func (r *Run) all(ctx context.Context, relay Process, counts func(int) bool) ([]int64, error) {
	ticker := time.NewTicker(5 * pollInterval)
	defer ticker.Stop()
	fewest, changed := math.MaxInt, time.Now()
	for {
		times, err := r.Receiver.Arrivals(ctx)
		if err != nil {
			return nil, err
		}
		missing := 0
		for n, at := range times {
			if at == 0 && counts(n) {
				missing++
			}
		}
		if missing == 0 {
			return times, nil
		}
		if missing < fewest {
			fewest, changed = missing, time.Now()
		}
		if time.Since(changed) > stallTimeout {
			return nil, fmt.Errorf("nothing has arrived for %s, and %d of %d events are missing", stallTimeout, missing, len(times))
		}
		select {
		case <-ticker.C:
		case <-relay.Ended():
			return nil, endedEarly(relay)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func endedEarly(relay Process) error {
	return errors.Join(errors.New("the relay ended by itself"), relay.Failure())
}

// withRelay runs a relay on a database of its own while something is measured.
func (r *Run) withRelay(ctx context.Context, do func(db *Database, relay Process) error) error {
	db, err := r.Rig.Database(ctx)
	if err != nil {
		return err
	}
	relay, err := r.Rig.Relay(ctx, db, 0)
	if err != nil {
		return err
	}
	err = r.Rig.Active(ctx, relay)
	if err == nil {
		err = do(db, relay)
	}
	_, err = r.stop(ctx, relay, err)
	return errors.Join(err, r.Rig.Drop(context.WithoutCancel(ctx), db))
}

// stop ends a relay. Webhooks that hang answer first: a stop waits for the
// POSTs under way. err, of what was done before, counts before that of the stop.
func (r *Run) stop(ctx context.Context, relay Process, err error) (Usage, error) {
	ctx = context.WithoutCancel(ctx)
	behaveErr := r.Receiver.Behave(ctx, Behaviour{})
	usage, stopErr := relay.Stop(ctx)
	if err == nil {
		err = errors.Join(behaveErr, stopErr)
	}
	return usage, err
}
