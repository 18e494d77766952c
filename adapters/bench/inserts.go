package bench

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// bareTable has the columns and defaults of the outbox and their primary key,
// as any table of a chat system has one, and nothing else: no other index, no
// wake-up, no partitions.
const bareTable = `
CREATE SCHEMA IF NOT EXISTS outrider_bench;
CREATE TABLE IF NOT EXISTS outrider_bench.events (LIKE outbox.events INCLUDING DEFAULTS INCLUDING IDENTITY, PRIMARY KEY (seq));
ALTER TABLE outrider_bench.events ALTER inserted_at SET DEFAULT clock_timestamp()`

// insertBare is insertEvent for it.
const insertBare = `INSERT INTO outrider_bench.events (account_id, event, payload) VALUES ($1::bigint, $2::text, $3::json)`

// wakeUp sets what a relay that is busy sets: no insert wakes it.
const wakeUp = `SELECT setval('outbox.wake', 0)`

// inserted is what producers did.
type inserted struct {
	rate float64
	// took is how long each transaction took, in milliseconds.
	took []float64
	// seconds is how long they did it.
	seconds float64
}

// add takes in what they did in another slice.
func (i *inserted) add(other *inserted) {
	i.took = append(i.took, other.took...)
	i.seconds += other.seconds
	i.rate = float64(len(i.took)) / i.seconds
}

// turns are the slices of a repetition: the bare table and the outbox have
// their share of each moment of a machine whose disk is now faster, now slower.
// The order keeps either from always coming after the other.
var turns = []bool{false, true, true, false, false, true, true, false}

// insertAll lets all producers insert as fast as they can, for a slice.
func (r *Run) insertAll(ctx context.Context, db *Database, query string, progress Progress) (*inserted, error) {
	warm, measured := 300*time.Millisecond, 1200*time.Millisecond
	if r.Quick {
		warm, measured = 50*time.Millisecond, 100*time.Millisecond
	}
	r.Progress(progress)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from := time.Now().Add(warm)
	to := from.Add(measured)
	var workers sync.WaitGroup
	var next atomic.Int64
	took := make([][]float64, producers)
	const least = 3 // of each, however slow it is
	var last atomic.Int64
	for i := range producers {
		workers.Go(func() {
			err := withStatement(ctx, db.DB, query, func(insert *sql.Stmt) error {
				for {
					n := int(next.Add(1)) - 1
					content := payload(preparedRun, n)
					begun := time.Now()
					if _, err := insert.ExecContext(ctx, FirstAccount+n%Accounts, EventName, content); err != nil {
						return err
					}
					ended := time.Now()
					if ended.After(to) && len(took[i]) >= least {
						return nil
					}
					if ended.After(from) {
						took[i] = append(took[i], milliseconds(ended.Sub(begun)))
						raise(&last, int64(ended.Sub(from)))
					}
				}
			})
			if err != nil {
				cancel(fmt.Errorf("insert: %w", err))
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	done := &inserted{}
	for _, each := range took {
		done.took = append(done.took, each...)
	}
	done.seconds = max(measured, time.Duration(last.Load())).Seconds()
	done.rate = float64(len(done.took)) / done.seconds
	return done, nil
}

// inserts is workload f: what the outbox costs producers.
//
// The bound is kept without a relay at work, so that only the inserts count
// and not what a relay takes of the machine meanwhile; the wake-up is off, as
// it is while a relay is busy, which at this rate one is. With a relay at work
// on the same machine it is measured too, without a bound.
func (r *Run) inserts(ctx context.Context, _ []string) ([]Workload, error) {
	var m measures
	w := Workload{Name: "f", Title: Titles["f"]}
	for repetition := range r.Repetitions {
		progress := Progress{Workload: w.Name, Repetition: repetition + 1, Repetitions: r.Repetitions}
		db, err := r.Rig.Database(ctx)
		if err != nil {
			return nil, err
		}
		for _, statement := range []string{bareTable, wakeUp} {
			if _, err := db.DB.ExecContext(ctx, statement); err != nil {
				return nil, fmt.Errorf("prepare the tables: %w", err)
			}
		}
		bare, outbox := &inserted{}, &inserted{}
		for _, ours := range turns {
			sum, query := bare, insertBare
			if progress.Step = "into a bare table"; ours {
				sum, query, progress.Step = outbox, insertEvent, "into outbox.events"
			}
			slice, err := r.insertAll(ctx, db, query, progress)
			if err != nil {
				return nil, err
			}
			sum.add(slice)
		}
		progress.Step = "into outbox.events, with a relay at work"
		relay, err := r.Rig.Relay(ctx, db, 0)
		if err != nil {
			return nil, err
		}
		busy := &inserted{}
		if err = r.Rig.Active(ctx, relay); err == nil {
			for range len(turns) / 2 {
				var slice *inserted
				if slice, err = r.insertAll(ctx, db, insertEvent, progress); err != nil {
					break
				}
				busy.add(slice)
			}
		}
		if err == nil {
			err = r.settle(ctx, db, relay, progress)
		}
		if _, err := r.stop(ctx, relay, err); err != nil {
			return nil, err
		}
		if _, err := db.DB.ExecContext(ctx, DropTables); err != nil {
			return nil, err
		}
		if err := r.Rig.Drop(ctx, db); err != nil {
			return nil, err
		}
		addInserts(&m, bare, outbox, busy)
	}
	m.atLeast("ratio", 0.90)
	m.atMost("p99_ratio", 1.2)
	w.Measures = m.done()
	return []Workload{w}, nil
}

func addInserts(m *measures, bare, outbox, busy *inserted) {
	m.add("inserts", "inserts into outbox.events", PerSecond, Higher, outbox.rate)
	m.add("bare", "into a bare table", PerSecond, Neither, bare.rate)
	m.add("ratio", "of the bare table's", Ratio, Higher, outbox.rate/bare.rate)
	m.add("p99", "p99 of an insert", Milliseconds, Lower, Percentile(outbox.took, 99))
	m.add("bare_p99", "p99 into the bare table", Milliseconds, Neither, Percentile(bare.took, 99))
	m.add("p99_ratio", "times the bare table's", Ratio, Lower, Percentile(outbox.took, 99)/Percentile(bare.took, 99))
	m.add("busy", "while a relay delivers them here", PerSecond, Higher, busy.rate)
	m.add("busy_p99", "p99 then", Milliseconds, Lower, Percentile(busy.took, 99))
}

// routedQuery says how far routing is, and has to come.
const routedQuery = `
SELECT (SELECT high FROM relay.batches ORDER BY no DESC LIMIT 1), coalesce((SELECT max(seq) FROM outbox.events), 0)`

// settle waits until all is routed, where the database stays: what is left
// would be taken for the next measurement's.
func (r *Run) settle(ctx context.Context, db *Database, relay Process, progress Progress) error {
	if r.Rig.Private() {
		return nil
	}
	progress.Step = "waiting until all is delivered"
	return r.untilRouted(ctx, db, relay, progress)
}

// untilRouted waits until the tail has come to the end of the outbox.
func (r *Run) untilRouted(ctx context.Context, db *Database, relay Process, progress Progress) error {
	ticker := time.NewTicker(2 * pollInterval)
	defer ticker.Stop()
	last, changed := int64(-1), time.Now()
	for {
		var high, end int64
		if err := db.DB.QueryRowContext(ctx, routedQuery).Scan(&high, &end); err != nil {
			return err
		}
		if high >= end {
			return nil
		}
		if high != last {
			last, changed = high, time.Now()
		}
		if time.Since(changed) > stallTimeout {
			return fmt.Errorf("nothing was routed for %s, after %d of %d rows", stallTimeout, high, end)
		}
		progress.Done, progress.All = int(high), int(end)
		r.Progress(progress)
		select {
		case <-ticker.C:
		case <-relay.Ended():
			return endedEarly(relay)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
