package bench

import (
	"context"
	"errors"
	"time"
)

const (
	// isolatedFor is how long a traffic lasts beside what disturbs it.
	isolatedFor = 30 * time.Second
	// deadAccounts are those for whose webhooks a million deliveries wait.
	deadAccounts = 10
	// maxBeset is what a relay may have resident that has these, in bytes.
	maxBeset = 256 << 20
)

// isolated is workload l: what others notice of a webhook that hangs, as in c but
// for longer and at a higher rate; and of dead webhooks for which a million
// deliveries wait.
func (r *Run) isolated(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "l", Title: Titles["l"]}
	var limited limits
	for _, rate := range []int{calmRate, briskRate} {
		if err := r.beside(ctx, &m, w.Name, r.lasting(rate, 2*time.Second, isolatedFor), &limited); err != nil {
			return nil, err
		}
	}
	if r.Rig.Private() {
		if err := r.besideDead(ctx, &m, w.Name, &limited); err != nil {
			return nil, err
		}
	} else {
		w.Notes = append(w.Notes, "with deliveries waiting it is left out: it would fill the given database with rows")
	}
	w.Notes = append(w.Notes, limited.notes()...)
	w.Measures = m.done()
	return []Workload{w}, nil
}

// besideDead measures a traffic of all accounts while a million deliveries wait
// for the webhooks of some, which hang, next to the same traffic alone.
func (r *Run) besideDead(ctx context.Context, m *measures, workload string, limited *limits) error {
	n := waitingRows
	if r.Quick {
		n = 12_000 // more than a relay has in memory
	}
	filled, err := r.Rig.Database(ctx)
	if err != nil {
		return err
	}
	progress := Progress{Workload: workload}
	if err := r.fillOf(ctx, filled, deadAccounts, preparedRun, n, progress); err != nil {
		return err
	}
	if _, err := filled.DB.ExecContext(ctx, `VACUUM ANALYZE`); err != nil {
		return err
	}
	t := r.lasting(steadyRate, 2*time.Second, isolatedFor)
	disturbed := t
	for account := range deadAccounts {
		disturbed.hanging = append(disturbed.hanging, account)
	}
	err = r.byTurns(m, workload, "_waiting", " where deliveries may wait", []variant{
		{"control", "none waits", func(progress Progress) (*arrivals, error) { return r.fresh(ctx, t, progress) }},
		{"dead", "they wait", func(progress Progress) (*arrivals, error) { return r.beset(ctx, filled, disturbed, progress, m) }},
	}, limited)
	m.atMost("dead_memory", maxBeset)
	return errors.Join(err, r.Rig.Drop(context.WithoutCancel(ctx), filled))
}

// beset observes a traffic once all that is in a copy of a database waits for
// webhooks that hang.
func (r *Run) beset(ctx context.Context, filled *Database, t traffic, progress Progress, m *measures) (*arrivals, error) {
	db, err := r.Rig.Copy(ctx, filled)
	if err != nil {
		return nil, err
	}
	if err := r.Receiver.Behave(ctx, Behaviour{Hang: t.hanging, HangFor: hangFor}); err != nil {
		return nil, err
	}
	relay, err := r.Rig.Relay(ctx, db, 0)
	if err != nil {
		return nil, err
	}
	var found *arrivals
	var waiting int64
	err = r.Rig.Active(ctx, relay)
	if err == nil {
		step := progress
		step.Step = "letting deliveries come to wait"
		err = r.untilRouted(ctx, db, relay, step)
	}
	if err == nil {
		found, err = r.observe(ctx, db, relay, t, progress)
	}
	if err == nil {
		err = db.DB.QueryRowContext(ctx, `SELECT count(*) FROM relay.due`).Scan(&waiting)
	}
	usage, err := r.stop(ctx, relay, err)
	if err == nil {
		m.add("dead_waiting", "deliveries that wait", Count, Neither, float64(waiting))
		m.add("dead_memory", "relay's memory with these, at most", Bytes, Lower, float64(usage.Memory))
	}
	return found, errors.Join(err, r.Rig.Drop(context.WithoutCancel(ctx), db))
}
