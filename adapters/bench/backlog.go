package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// rates of the last warm-up, by which backlogs are sized.
type rates struct{ bare, relay float64 }

// backlogSeconds is how long a backlog should last: a little more than 10 s,
// since a run may be faster than the one by which it is sized.
const backlogSeconds = 11

// backlogOf gives the size of a backlog that lasts.
func (r *Run) backlogOf(rate float64) int {
	if r.Quick {
		return 2000
	}
	const step, least, most = 1000, 10_000, 2_000_000
	return min(max(int(math.Ceil(rate*backlogSeconds/step))*step, least), most)
}

// insertBacklog commits events 0 to n of a run, of as many accounts.
const insertBacklog = `
INSERT INTO outbox.events (account_id, event, payload)
SELECT $1::bigint + i % $2::int, $3::text,
       ('{"run":"' || $4::text || '","n":"' || lpad(i::text, $5::int, '0') || '","conversation":{"id":' || i % $6::int || '},"content":"' || $7::text || '"}')::json
  FROM generate_series($8::int, $9::int - 1) i`

// fill commits a backlog of all accounts. A large one takes several transactions.
func (r *Run) fill(ctx context.Context, db *Database, run, n int, progress Progress) error {
	return r.fillOf(ctx, db, Accounts, run, n, progress)
}

// fillOf commits a backlog of the first accounts.
func (r *Run) fillOf(ctx context.Context, db *Database, accounts, run, n int, progress Progress) error {
	const most = 50_000
	for from := 0; from < n; from += most {
		progress.Step, progress.Done, progress.All = "inserting the backlog", from, n
		r.Progress(progress)
		_, err := db.DB.ExecContext(ctx, insertBacklog, FirstAccount, accounts, EventName, fmt.Sprintf("%0*d", runDigits, run), numberDigits, conversations, filler,
			from, min(from+most, n))
		if err != nil {
			return fmt.Errorf("insert a backlog: %w", err)
		}
	}
	// So that none comes by itself meanwhile. It takes a right that the user
	// may not have, and nothing depends on it.
	_, _ = db.DB.ExecContext(ctx, `CHECKPOINT`)
	return nil
}

// delivered is what one sender did.
type delivered struct {
	events int
	// times of the arrivals, ascending, Unix nanoseconds.
	times []int64
	usage Usage
	// startUp is from the start of the process to the first arrival.
	startUp time.Duration
	arrived Arrived
	// receiverCPU is the receiver's meanwhile.
	receiverCPU time.Duration
	// wal is what was written to the database's log meanwhile, in bytes.
	wal float64
}

// rate is that of arrivals from to the end of part, as shares of them: 0 and 1
// for all.
func (d *delivered) rate(from, to float64) float64 {
	first, last := int(from*float64(len(d.times)-1)), int(to*float64(len(d.times)-1))
	if last <= first {
		return math.NaN()
	}
	return float64(last-first) / time.Duration(d.times[last]-d.times[first]).Seconds()
}

func (d *delivered) seconds() float64 {
	if len(d.times) == 0 {
		return 0
	}
	return time.Duration(d.times[len(d.times)-1] - d.times[0]).Seconds()
}

// cpu is the sender's for each event, in microseconds.
func (d *delivered) cpu() float64 {
	return float64(d.usage.CPU.Microseconds()) / float64(d.events)
}

// sending is what one sender is to do.
type sending struct {
	// events of the receiver's run; want is how many of them must arrive.
	events, want int
	// prepared: the events are in the database already, as those of
	// preparedRun.
	prepared bool
	// prepare is called with the run's number before the sender starts; nil
	// for nothing.
	prepare func(run int) error
	start   func(run int) (Process, error)
	// mayEnd: the sender ends by itself when it is done.
	mayEnd bool
}

// send begins a run, starts a sender, waits until what is wanted has arrived,
// and stops it.
func (r *Run) send(ctx context.Context, s sending, progress Progress) (*delivered, error) {
	run, err := r.begin(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.prepare != nil {
		if err := s.prepare(run); err != nil {
			return nil, err
		}
	}
	before, err := r.Receiver.Arrived(ctx)
	if err != nil {
		return nil, err
	}
	clock := startClock()
	process, err := s.start(run)
	if err != nil {
		return nil, err
	}
	arrived, err := r.await(ctx, process, s.mayEnd, s.want, progress)
	if err == nil && s.mayEnd {
		err = ended(ctx, process)
	}
	usage, stopErr := process.Stop(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	if stopErr != nil {
		return nil, stopErr
	}
	if err := clock.check(); err != nil {
		return nil, err
	}
	times, err := r.Receiver.Arrivals(ctx)
	if err != nil {
		return nil, err
	}
	times = slices.DeleteFunc(times, func(at int64) bool { return at == 0 })
	slices.Sort(times)
	return &delivered{
		events: s.want, times: times[:s.want], usage: usage, arrived: arrived, receiverCPU: arrived.CPU - before.CPU,
		startUp: time.Unix(0, times[0]).Sub(clock.begun.Round(0)),
	}, nil
}

// begin makes the receiver count a new run, or the prepared one.
func (r *Run) begin(ctx context.Context, s sending) (int, error) {
	if s.prepared {
		return preparedRun, r.Receiver.begin(ctx, preparedRun, s.events)
	}
	return r.Receiver.Begin(ctx, s.events)
}

// ended waits until a process that has done its work has ended by itself.
func ended(ctx context.Context, process Process) error {
	select {
	case <-process.Ended():
		return process.Failure()
	case <-time.After(stallTimeout):
		return errors.New("all has arrived, and the process that sent it does not end")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bareClient POSTs n bodies.
func (r *Run) bareClient(ctx context.Context, n int, progress Progress) (*delivered, error) {
	progress.Step = "the bare client"
	return r.send(ctx, sending{events: n, want: n, mayEnd: true, start: func(run int) (Process, error) {
		return r.Rig.Client(ctx, Client{URL: r.Receiver.URL, Run: run, Count: n, Connections: connections})
	}}, progress)
}

// connections are as many as the relay may use: 16 for each webhook.
const connections = Accounts * 16

// relayed lets a relay deliver a backlog of n events.
func (r *Run) relayed(ctx context.Context, db *Database, n int, progress Progress) (*delivered, error) {
	var from string
	progress.Step = "the relay"
	d, err := r.send(ctx, sending{events: n, want: n, prepare: func(run int) error {
		if err := r.fill(ctx, db, run, n, progress); err != nil {
			return err
		}
		return db.DB.QueryRowContext(ctx, `SELECT pg_current_wal_insert_lsn()`).Scan(&from)
	}, start: func(int) (Process, error) { return r.Rig.Relay(ctx, db, 0) }}, progress)
	if err != nil {
		return nil, err
	}
	return d, db.DB.QueryRowContext(ctx, `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn)`, from).Scan(&d.wal)
}

// warmUp finds the rates by which backlogs are sized, once.
func (r *Run) warmUp(ctx context.Context, workload string) error {
	if r.warm.relay > 0 {
		return nil
	}
	n := 20_000
	if r.Quick {
		n = 1000
	}
	progress := Progress{Workload: workload, Step: "warm-up", Repetitions: r.Repetitions}
	bare, err := r.bareClient(ctx, n, progress)
	if err != nil {
		return err
	}
	db, err := r.Rig.Database(ctx)
	if err != nil {
		return err
	}
	relay, err := r.relayed(ctx, db, n, progress)
	if err != nil {
		return err
	}
	r.warm = rates{bare.rate(0, 1), relay.rate(0, 1)}
	return nil
}

// backlog is workload a: a relay meets a backlog, next to a bare client.
func (r *Run) backlog(ctx context.Context, _ []string) ([]Workload, error) {
	if err := r.warmUp(ctx, "a"); err != nil {
		return nil, err
	}
	var m measures
	w := Workload{Name: "a", Title: fmt.Sprintf("a backlog, one delivery for each event, %d accounts, bodies of %d bytes", Accounts, bodyBytes)}
	var limited, short int
	for repetition := range r.Repetitions {
		progress := Progress{Workload: w.Name, Repetition: repetition + 1, Repetitions: r.Repetitions}
		db, err := r.Rig.Database(ctx)
		if err != nil {
			return nil, err
		}
		var bare, relay *delivered
		// By turns first, so that what drifts favours neither.
		steps := []func() error{
			func() (err error) { bare, err = r.bareClient(ctx, r.backlogOf(r.warm.bare), progress); return err },
			func() (err error) { relay, err = r.relayed(ctx, db, r.backlogOf(r.warm.relay), progress); return err },
		}
		if repetition%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
		}
		r.warm = rates{bare.rate(0, 1), relay.rate(0, 1)}
		addBacklog(&m, bare, relay)
		if receiverIsFull(bare) || receiverIsFull(relay) || relay.rate(0, 1) > 0.9*bare.rate(0, 1) {
			limited++
		}
		if !r.Quick && relay.seconds() < 10 {
			short++
		}
	}
	m.atLeast("ratio", 0.40)
	m.atMost("cpu_ratio", 2.5)
	m.atMost("memory", maxMemory)
	if limited > 0 {
		w.Notes = append(w.Notes, fmt.Sprintf("in %d of %d repetitions the receiver was the limit, or near it: the relay may be faster than this", limited, r.Repetitions))
	}
	if short > 0 {
		w.Notes = append(w.Notes, fmt.Sprintf("in %d of %d repetitions the backlog lasted less than 10 s", short, r.Repetitions))
	}
	w.Measures = m.done()
	return []Workload{w}, nil
}

// maxMemory is what a relay may have resident.
const maxMemory = 128 << 20

func addBacklog(m *measures, bare, relay *delivered) {
	m.add("deliveries", "deliveries", PerSecond, Higher, relay.rate(0, 1))
	m.add("bare", "bare client", PerSecond, Neither, bare.rate(0, 1))
	m.add("ratio", "of the bare client's", Ratio, Higher, relay.rate(0, 1)/bare.rate(0, 1))
	m.add("first", "in the first tenth", PerSecond, Higher, relay.rate(0, 0.1))
	m.add("last", "in the last tenth", PerSecond, Higher, relay.rate(0.9, 1))
	m.add("cpu", "relay's CPU for each delivery", Microseconds, Lower, relay.cpu())
	m.add("bare_cpu", "bare client's CPU for each POST", Microseconds, Neither, bare.cpu())
	m.add("cpu_ratio", "times the bare client's CPU", Ratio, Lower, relay.cpu()/bare.cpu())
	m.add("memory", "relay's memory, at most", Bytes, Lower, float64(relay.usage.Memory))
	m.add("start_up", "start to first arrival", Milliseconds, Lower, milliseconds(relay.startUp))
	m.add("wal", "WAL for each delivery", Bytes, Lower, relay.wal/float64(relay.events))
	m.add("repeated", "deliveries that came twice", Count, Lower, float64(relay.arrived.Repeated))
	m.add("connections", "relay's connections to the receiver", Count, Neither, float64(relay.arrived.Connections))
	m.add("receiver_cpu", "receiver's CPU for each POST", Microseconds, Neither, float64(relay.receiverCPU.Microseconds())/float64(relay.events))
	m.add("events", "events in the backlog", Count, Neither, float64(relay.events))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
