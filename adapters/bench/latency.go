package bench

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// commitTable is what one-row commits are measured on. It is dropped in the
// end.
const commitTable = `
CREATE SCHEMA IF NOT EXISTS outrider_bench;
CREATE TABLE IF NOT EXISTS outrider_bench.commits (n bigint NOT NULL)`

// DropTables drops the tables that the workloads made beside the outbox.
const DropTables = `DROP SCHEMA IF EXISTS outrider_bench CASCADE`

// commitLatency is the median of one-row commits by one producer, at a rate,
// in milliseconds: what the database asks for each.
func commitLatency(ctx context.Context, db *Database, rate int, lasting time.Duration) (float64, error) {
	if _, err := db.DB.ExecContext(ctx, commitTable); err != nil {
		return 0, fmt.Errorf("make a table to measure commits on: %w", err)
	}
	var took []float64
	err := withStatement(ctx, db.DB, `INSERT INTO outrider_bench.commits (n) VALUES ($1::bigint)`, func(insert *sql.Stmt) error {
		begun := time.Now()
		for i := range max(10, int(float64(rate)*lasting.Seconds())) {
			if !until(ctx, begun.Add(time.Duration(i)*time.Second/time.Duration(rate))) {
				return ctx.Err()
			}
			before := time.Now()
			if _, err := insert.ExecContext(ctx, i); err != nil {
				return err
			}
			took = append(took, milliseconds(time.Since(before)))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	_, err = db.DB.ExecContext(ctx, DropTables)
	return Median(took), err
}

// The rates of traffic, in events per second.
const (
	calmRate   = 100
	steadyRate = 1000
	briskRate  = 3000
)

// lasting shortens what is measured where it is a quick run.
func (r *Run) lasting(rate int, warm, measured time.Duration) traffic {
	if r.Quick {
		warm, measured = 100*time.Millisecond, 400*time.Millisecond
	}
	return traffic{rate: rate, warm: warm, measured: measured}
}

// latency is workload b: from commit to arrival.
func (r *Run) latency(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "b", Title: Titles["b"]}
	var limited limits
	for repetition := range r.Repetitions {
		progress := Progress{Workload: w.Name, Repetition: repetition + 1, Repetitions: r.Repetitions}
		err := r.withRelay(ctx, func(db *Database, relay Process) error {
			calm, brisk := r.lasting(calmRate, time.Second, 10*time.Second), r.lasting(briskRate, time.Second, 5*time.Second)
			progress.Step = "one-row commits"
			r.Progress(progress)
			commit, err := commitLatency(ctx, db, calmRate, calm.measured/5)
			if err != nil {
				return err
			}
			progress.Step = fmt.Sprintf("%d events/s", calm.rate)
			slow, err := r.observe(ctx, db, relay, calm, progress)
			if err != nil {
				return err
			}
			progress.Step = fmt.Sprintf("%d events/s", brisk.rate)
			fast, err := r.observe(ctx, db, relay, brisk, progress)
			if err != nil {
				return err
			}
			addLatency(&m, commit, slow, fast)
			limited.note(slow)
			limited.note(fast)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	m.atMost("p50_beyond", 1.5)
	m.atMost("p99", 8)
	m.atMost("p99_3000", 30)
	w.Notes = limited.notes()
	w.Measures = m.done()
	return []Workload{w}, nil
}

func addLatency(m *measures, commit float64, slow, fast *arrivals) {
	m.add("commit", "one-row commit, median", Milliseconds, Neither, commit)
	m.add("p50", "p50 at 100 events/s", Milliseconds, Lower, slow.p50())
	m.add("p50_beyond", "p50 beyond two commits", Milliseconds, Lower, slow.p50()-2*commit)
	m.add("p99", "p99 at 100 events/s", Milliseconds, Lower, slow.p99())
	m.add("p50_3000", "p50 at 3,000 events/s", Milliseconds, Lower, fast.p50())
	m.add("p99_3000", "p99 at 3,000 events/s", Milliseconds, Lower, fast.p99())
	m.add("rate_3000", "rate of the producers then", PerSecond, Neither, fast.rate)
}
