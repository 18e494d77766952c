package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// How much there is: rows of the log, and events that wait in the outbox.
const (
	historyRows = 5_000_000
	waitingRows = 1_000_000
)

// growth are workloads e, g and i, which share what takes long to prepare: a
// database with a history, one with a million events that wait, and the
// backlogs that are measured next to them.
type growth struct {
	*Run
	names []string

	historyRows, waitingRows int
	// withHistory is used again and again, and grows by what is delivered;
	// each measurement gets a copy of waiting.
	withHistory, waiting *Database

	e, g, i measures
	limited limits // of e
}

func (r *Run) growth(ctx context.Context, names []string) ([]Workload, error) {
	g := &growth{Run: r, names: names, historyRows: historyRows, waitingRows: waitingRows}
	if r.Quick {
		g.historyRows, g.waitingRows = 8000, 12_000 // more than a relay has in memory
	}
	if !r.Rig.Private() {
		return g.elsewhere(ctx)
	}
	if err := r.warmUp(ctx, names[0]); err != nil {
		return nil, err
	}
	if err := g.prepare(ctx); err != nil {
		return nil, err
	}
	for repetition := range r.Repetitions {
		for _, measure := range []func(context.Context, int) error{g.rates, g.memory, g.start} {
			if err := measure(ctx, repetition); err != nil {
				return nil, err
			}
		}
	}
	return g.workloads(), nil
}

func (g *growth) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(g.names, name) })
}

func (g *growth) progress(name string, repetition int) Progress {
	return Progress{Workload: name, Repetition: repetition + 1, Repetitions: g.Repetitions}
}

// prepare makes the databases that are wanted.
func (g *growth) prepare(ctx context.Context) (err error) {
	progress := Progress{Workload: g.names[0]}
	if g.wants("e", "i") {
		if g.withHistory, err = g.Rig.Database(ctx); err != nil {
			return err
		}
		if err := g.history(ctx, g.withHistory, g.historyRows/entriesOfEach, progress); err != nil {
			return err
		}
	}
	if g.wants("e", "g") {
		if g.waiting, err = g.Rig.Database(ctx); err != nil {
			return err
		}
		if err := g.fill(ctx, g.waiting, preparedRun, g.waitingRows, progress); err != nil {
			return err
		}
		if _, err := g.waiting.DB.ExecContext(ctx, `VACUUM ANALYZE`); err != nil {
			return err
		}
	}
	return nil
}

// rates is workload e: backlogs as in a, on an empty database, behind a
// history, and in front of a million more, by turns.
func (g *growth) rates(ctx context.Context, repetition int) error {
	if !g.wants("e") {
		return nil
	}
	n := min(g.backlogOf(g.warm.relay), g.waitingRows/2)
	progress := g.progress("e", repetition)
	var plain, history, waiting *delivered
	steps := []func() error{
		func() (err error) { plain, err = g.onEmpty(ctx, n, progress); return err },
		func() (err error) { history, err = g.relayed(ctx, g.withHistory, n, progress); return err },
		func() (err error) { waiting, err = g.first(ctx, n, progress); return err },
	}
	for turn := range steps {
		if err := steps[(turn+repetition)%len(steps)](); err != nil {
			return err
		}
	}
	for _, d := range []*delivered{plain, history, waiting} {
		g.limited.noteBacklog(d)
	}
	m := &g.e
	m.add("plain", "deliveries of a backlog alone", PerSecond, Higher, plain.rate(0, 1))
	m.add("history", "behind the history", PerSecond, Higher, history.rate(0, 1))
	m.add("history_ratio", "of the backlog alone, behind the history", Ratio, Higher, history.rate(0, 1)/plain.rate(0, 1))
	m.add("waiting", "the first of the rows waiting", PerSecond, Higher, waiting.rate(0, 1))
	m.add("waiting_ratio", "of the backlog alone, with the rows waiting", Ratio, Higher, waiting.rate(0, 1)/plain.rate(0, 1))
	// What is behind the history are the last rows of a million and more.
	m.add("first_last", "the first against the last", Ratio, Higher, waiting.rate(0, 1)/history.rate(0, 1))
	m.add("plain_start", "start to first arrival, backlog alone", Milliseconds, Lower, milliseconds(plain.startUp))
	m.add("waiting_start", "start to first arrival, with the rows waiting", Milliseconds, Lower, milliseconds(waiting.startUp))
	m.add("events", "events in each backlog that is measured", Count, Neither, float64(n))
	if g.wants("g") {
		g.g.add("memory", memoryTitle, Bytes, Lower, float64(plain.usage.Memory))
	}
	return nil
}

const memoryTitle = "relay's memory with a backlog, at most"

// onEmpty measures a backlog on a database of its own.
func (g *growth) onEmpty(ctx context.Context, n int, progress Progress) (*delivered, error) {
	db, err := g.Rig.Database(ctx)
	if err != nil {
		return nil, err
	}
	d, err := g.relayed(ctx, db, n, progress)
	return d, errors.Join(err, g.Rig.Drop(context.WithoutCancel(ctx), db))
}

// first measures the first n deliveries where many more rows wait.
func (g *growth) first(ctx context.Context, n int, progress Progress) (*delivered, error) {
	db, err := g.Rig.Copy(ctx, g.waiting)
	if err != nil {
		return nil, err
	}
	progress.Step = "the relay, with the rows waiting"
	d, err := g.send(ctx, sending{
		prepared: true, events: g.waitingRows, want: n, start: func(int) (Process, error) { return g.Rig.Relay(ctx, db, 0) },
	}, progress)
	return d, errors.Join(err, g.Rig.Drop(context.WithoutCancel(ctx), db))
}

// memory is workload g: what a relay has resident with a backlog, while a
// million deliveries come to wait since no webhook answers, and when it begins
// again with these.
func (g *growth) memory(ctx context.Context, repetition int) error {
	if !g.wants("g") {
		return nil
	}
	progress := g.progress("g", repetition)
	if !g.wants("e") {
		plain, err := g.onEmpty(ctx, g.backlogOf(g.warm.relay), progress)
		if err != nil {
			return err
		}
		g.g.add("memory", memoryTitle, Bytes, Lower, float64(plain.usage.Memory))
	}
	db, err := g.Rig.Copy(ctx, g.waiting)
	if err != nil {
		return err
	}
	err = g.waitingMemory(ctx, db, progress)
	return errors.Join(err, g.Rig.Drop(context.WithoutCancel(ctx), db))
}

func (g *growth) waitingMemory(ctx context.Context, db *Database, progress Progress) error {
	all := make([]int, Accounts)
	for account := range all {
		all[account] = account
	}
	if err := g.Receiver.Behave(ctx, Behaviour{Hang: all, HangFor: hangFor}); err != nil {
		return err
	}
	progress.Step = "letting deliveries come to wait"
	relay, err := g.Rig.Relay(ctx, db, 0)
	if err != nil {
		return err
	}
	err = g.Rig.Active(ctx, relay)
	if err == nil {
		err = g.untilRouted(ctx, db, relay, progress)
	}
	var usage Usage
	if usage, err = g.stop(ctx, relay, err); err != nil {
		return err
	}
	var waiting int64
	if err := db.DB.QueryRowContext(ctx, `SELECT count(*) FROM relay.due`).Scan(&waiting); err != nil {
		return err
	}
	g.g.add("waiting", "deliveries that wait", Count, Neither, float64(waiting))
	g.g.add("waiting_memory", "memory until they wait, at most", Bytes, Lower, float64(usage.Memory))

	progress.Step = "delivering what waits"
	d, err := g.send(ctx, sending{
		prepared: true, events: g.waitingRows, want: min(int(waiting/2), 20_000), start: func(int) (Process, error) { return g.Rig.Relay(ctx, db, 0) },
	}, progress)
	if err != nil {
		return err
	}
	g.g.add("again_memory", "memory of a relay that begins with these, at most", Bytes, Lower, float64(d.usage.Memory))
	return nil
}

// start is workload i: how long a relay takes from its start to the first
// arrival, where there is a history.
func (g *growth) start(ctx context.Context, repetition int) error {
	if !g.wants("i") {
		return nil
	}
	var rows float64
	if err := g.withHistory.DB.QueryRowContext(ctx, historySize).Scan(&rows); err != nil {
		return err
	}
	d, err := g.relayed(ctx, g.withHistory, Accounts, g.progress("i", repetition))
	if err != nil {
		return err
	}
	g.i.add("start_up", "start to first arrival", Milliseconds, Lower, milliseconds(d.startUp))
	g.i.add("rows", "rows of the log", Count, Neither, rows)
	return nil
}

// historySize is an estimate that costs nothing: the entries of each event.
var historySize = fmt.Sprintf(`SELECT %d * coalesce(max(seq), 0)::float8 FROM outbox.events`, entriesOfEach)

// workloads gives what was measured, with its bounds.
func (g *growth) workloads() []Workload {
	for _, name := range []string{"history_ratio", "waiting_ratio", "first_last"} {
		g.e.atLeast(name, 0.95)
	}
	for _, name := range []string{"memory", "waiting_memory", "again_memory"} {
		g.g.atMost(name, maxMemory)
	}
	g.i.atMost("start_up", float64(time.Second/time.Millisecond))
	var list []Workload
	for _, one := range []struct {
		name  string
		m     *measures
		notes []string
	}{{"e", &g.e, g.limited.notes()}, {"g", &g.g, nil}, {"i", &g.i, nil}} {
		if g.wants(one.name) {
			list = append(list, Workload{Name: one.name, Title: Titles[one.name], Measures: one.m.done(), Notes: one.notes})
		}
	}
	return list
}

// elsewhere is for a database that is the user's: it is given no history, and
// not filled with rows that wait. What is left is the memory with a backlog.
func (g *growth) elsewhere(ctx context.Context) ([]Workload, error) {
	var list []Workload
	for _, name := range g.names {
		w := Workload{Name: name, Title: Titles[name], Measures: []Measure{}, Notes: []string{"left out: it would fill the given database with rows; leave the database out for a private server"}}
		if name == "g" {
			if err := g.warmUp(ctx, name); err != nil {
				return nil, err
			}
			for repetition := range g.Repetitions {
				d, err := g.onEmpty(ctx, g.backlogOf(g.warm.relay), g.progress(name, repetition))
				if err != nil {
					return nil, err
				}
				g.g.add("memory", memoryTitle, Bytes, Lower, float64(d.usage.Memory))
			}
			g.g.atMost("memory", maxMemory)
			w.Measures = g.g.done()
			w.Notes = []string{"with deliveries waiting it is left out: it would fill the given database with rows"}
		}
		list = append(list, w)
	}
	return list, nil
}
