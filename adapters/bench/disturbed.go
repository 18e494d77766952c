package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A disturbance may cost its neighbours this much of their p99: a fifth, or
// two milliseconds where that is more.
const (
	disturbedTimes  = 1.2
	disturbedBeyond = 2.0
)

// disturbedBound is that in words.
const disturbedBound = "≤ 1.20, or 2 ms more"

// variant is one of the ways in which the same traffic is measured: the first
// one is the control.
type variant struct {
	name, title string
	measure     func(Progress) (*arrivals, error)
}

// byTurns measures variants by turns, so that drift favours none, and bounds
// what each disturbed one's p99 may be next to the control's.
func (r *Run) byTurns(m *measures, workload, suffix, suffixTitle string, variants []variant, limited *limits) error {
	p99 := make([][]float64, len(variants))
	for repetition := range r.Repetitions {
		found := make([]*arrivals, len(variants))
		for turn := range variants {
			i := (turn + repetition) % len(variants)
			progress := Progress{Workload: workload, Step: variants[i].title + suffixTitle, Repetition: repetition + 1, Repetitions: r.Repetitions}
			var err error
			if found[i], err = variants[i].measure(progress); err != nil {
				return err
			}
			limited.note(found[i])
		}
		for i, one := range found {
			p99[i] = append(p99[i], one.p99())
			m.add(variants[i].name+"_p50"+suffix, "p50"+suffixTitle+", "+variants[i].title, Milliseconds, Lower, one.p50())
			m.add(variants[i].name+"_p99"+suffix, "p99"+suffixTitle+", "+variants[i].title, Milliseconds, Lower, one.p99())
			if i > 0 {
				m.add(variants[i].name+"_beyond"+suffix, "beyond the control's", Milliseconds, Lower, one.p99()-found[0].p99())
				m.add(variants[i].name+"_ratio"+suffix, "against the control's p99"+suffixTitle+", "+variants[i].title, Ratio, Lower, one.p99()/found[0].p99())
			}
		}
	}
	for i := range variants[1:] {
		ratio := variants[i+1].name + "_ratio" + suffix
		m.bind(ratio, disturbedBound, undisturbed(p99[0], p99[i+1]))
	}
	return nil
}

// undisturbed judges pairs of a control's p99 and a disturbed one's, in
// milliseconds: in the middle one of them the disturbed is within what it may
// be.
func undisturbed(control, disturbed []float64) bool {
	excess := make([]float64, len(control))
	for i := range control {
		excess[i] = disturbed[i] - max(disturbedTimes*control[i], control[i]+disturbedBeyond)
	}
	return Median(excess) <= 0
}

// hangingAccount is the one that hangs.
const hangingAccount = 7

// hanging is workload c: one of the webhooks hangs.
func (r *Run) hanging(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "c", Title: Titles["c"]}
	var limited limits
	for _, t := range []traffic{
		r.lasting(calmRate, 2*time.Second, 10*time.Second),
		r.lasting(steadyRate, 2*time.Second, 8*time.Second),
	} {
		if err := r.beside(ctx, &m, w.Name, t, &limited); err != nil {
			return nil, err
		}
	}
	w.Notes = limited.notes()
	w.Measures = m.done()
	return []Workload{w}, nil
}

// beside measures a traffic while one webhook hangs, next to none.
func (r *Run) beside(ctx context.Context, m *measures, workload string, t traffic, limited *limits) error {
	disturbed := t
	disturbed.hanging = []int{hangingAccount}
	return r.byTurns(m, workload, fmt.Sprintf("_%d", t.rate), fmt.Sprintf(" at %s events/s", grouped(float64(t.rate))), []variant{
		{"control", "none hangs", func(progress Progress) (*arrivals, error) { return r.fresh(ctx, t, progress) }},
		{"hanging", "one hangs", func(progress Progress) (*arrivals, error) { return r.fresh(ctx, disturbed, progress) }},
	}, limited)
}

// fresh observes a traffic with a relay and a database of its own.
func (r *Run) fresh(ctx context.Context, t traffic, progress Progress) (found *arrivals, err error) {
	err = r.withRelay(ctx, func(db *Database, relay Process) (err error) {
		found, err = r.observe(ctx, db, relay, t, progress)
		return err
	})
	return found, err
}

// holdQuery begins a transaction that writes into the outbox, as a producer
// does that is slow to commit. It has an xid from here on.
const holdQuery = `INSERT INTO outbox.events (account_id, event, payload) VALUES ($1::bigint, $2::text, '{"held":true}')`

// holdElsewhere does so in a database that has nothing to do with it.
const holdElsewhere = `CREATE TEMPORARY TABLE outrider_bench_held ON COMMIT DROP AS SELECT pg_current_xact_id()::text AS xid`

// longTransaction is workload d: a writing transaction is open meanwhile.
func (r *Run) longTransaction(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "d", Title: Titles["d"]}
	// Two seconds of the twenty are for warming up.
	t := r.lasting(steadyRate, 2*time.Second, 18*time.Second)
	variants := []variant{
		{"control", "none is open", func(progress Progress) (*arrivals, error) { return r.fresh(ctx, t, progress) }},
		{"here", "one open in this database", func(progress Progress) (found *arrivals, err error) {
			err = r.withRelay(ctx, func(db *Database, relay Process) error {
				return held(ctx, db.DB, func() (err error) {
					found, err = r.observe(ctx, db, relay, t, progress)
					return err
				}, holdQuery, FirstAccount, EventName)
			})
			return found, err
		}},
	}
	if other := r.Rig.Other(); other != nil {
		variants = append(variants, variant{"elsewhere", "one open in another database", func(progress Progress) (found *arrivals, err error) {
			err = held(ctx, other, func() (err error) {
				found, err = r.fresh(ctx, t, progress)
				return err
			}, holdElsewhere)
			return found, err
		}})
	} else {
		w.Notes = append(w.Notes, "a transaction in another database is left out: a private server has one, the given database's server may not be written to elsewhere")
	}
	var limited limits
	if err := r.byTurns(&m, w.Name, "", "", variants, &limited); err != nil {
		return nil, err
	}
	w.Notes = append(w.Notes, limited.notes()...)
	w.Measures = m.done()
	return []Workload{w}, nil
}

// held does something while a transaction is open that has written, and rolls
// it back.
func held(ctx context.Context, db *sql.DB, do func() error, query string, args ...any) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, query, args...); err != nil {
		_ = tx.Rollback()
		return fmt.Errorf("write in a transaction that stays open: %w", err)
	}
	err = do()
	if rollbackErr := tx.Rollback(); !errors.Is(rollbackErr, sql.ErrTxDone) {
		err = errors.Join(err, rollbackErr)
	}
	return err
}
