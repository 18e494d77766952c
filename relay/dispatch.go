package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// The limits of the dispatcher's memory.
const (
	// maxFresh is how many first deliveries may be in memory before the tail
	// waits: those of some full batches, so that there is work while the next is
	// read.
	maxFresh = 8000
	// maxBodies is how many bytes of bodies may wait in memory before the tail
	// waits.
	maxBodies = 32 << 20
	// plenty is how many first deliveries are enough for the time that it takes to
	// route more, and plentyBodies how many bytes: then the tail waits as well if it
	// has a backlog, but no longer than composure. It would run away from the sending
	// by the little that it is faster, until what is sent in good time has waited too
	// long.
	plenty       = maxFresh / 4
	plentyBodies = maxBodies / 4
	// maxQueue is how many of them one webhook may have before it overflows.
	maxQueue = maxFresh / 2
	// patience is how long a first delivery may wait in memory; longer, and
	// its webhook overflows. It bounds how long the tail can be held up by
	// webhooks that stopped answering all at once.
	patience = 250 * time.Millisecond
	// composure is how long a tail with a backlog waits where there is plenty. It
	// bounds what one account's plenty costs others whose events come behind it.
	composure = patience / 2
	// DefaultInFlight bounds the attempts of a relay under way, and with them its
	// connections to receivers.
	DefaultInFlight = 4096
	// dueLimit and laneLimit bound what one read brings back into memory.
	dueLimit  = 500
	laneLimit = 64
	// maxLane is how much of what overflowed a webhook may have in memory: enough
	// for it to have other conversations at work than those whose turn it is not.
	maxLane = 8 * laneLimit
	// dueLook is how often a relay that has not all shards looks at the due table
	// although nothing of its own is there, so that what others left behind its
	// cursor is not walked when something is.
	dueLook = time.Minute
	// maxBatches is how many routed batches may wait in memory.
	maxBatches = 2
)

// dispatcher decides what is sent when. One goroutine owns all its state; the
// others hand in what happened.
type dispatcher struct {
	store    Store
	webhooks Webhooks
	recorder *recorder
	send     func(*item, *Request)
	moved    func(Place)      // hears where a successor would have to begin
	now      func() time.Time // never goes back: see steady
	policy   domain.RetryPolicy
	logger   *slog.Logger
	meter    Meter
	inbox    inbox
	spare    mail // takes turns with the inbox's

	most    int             // attempts under way
	shards  Shards          // whose webhooks it has
	gained  [ShardCount]int // the newest read when each was gained: older ones are of an earlier time
	feeds   []*feed         // of all these shards
	head    int64           // newest committed batch
	batches []*outbox.Batch // that the tail of this process handed over
	queues  map[domain.WebhookID]*queue
	since   string                              // snapshot behind which refresh looks for changes
	loads   int                                 // webhooks being read
	newer   map[domain.WebhookID]domain.Webhook // changed meanwhile
	marked  []*queue                            // to be looked at
	out     []*step                             // for the recorder
	steps   int                                 // with the recorder
	// submitted and cameBack count all that went to the recorder and came back;
	// barriers wait for some of them.
	submitted, cameBack tally
	replayReads         laneReads
	counting            counting
	barriers            []barrier
	parked              map[domain.DeliveryKey]struct{} // in memory and in the due table
	open                map[domain.DeliveryKey]openAttempt
	left                leftAttempts
	leaving             []Place // of shards that were given up, until that is on record

	unreadable map[domain.DeliveryKey]struct{} // passed over, and told

	replays     map[domain.ReplayID]ReplayState // those that are not over
	resumes     map[domain.ReplayID][]*queue    // whose pause held something that is being made due
	replayBegun func(domain.DeliveryKey)        // hears of their deliveries that wait no longer

	endings endings // what ends although its time has not come

	alarms       alarms // when queues are looked at again
	breaking     domain.BreakerPolicy
	broken       map[*queue]struct{} // their breakers are open
	chores       chores
	disableAfter time.Duration // of nothing but failure; 0 for never

	fresh   int                 // first deliveries in memory
	crowded map[*queue]struct{} // queues that may have some
	missed  map[*queue]struct{} // have due rows that came too late to be hurried
	looked  time.Time           // when shed last looked, and the place was told
	bodies  int                 // their bytes
	flying  int
	ahead   ahead

	accounts map[domain.AccountID]*account
	keeping  int  // accounts with first deliveries in memory
	line     line // those that wait for room in flight

	returned int // bytes of bodies that came back, and that reads may bring
	aloft    int // bytes of bodies on their way
	fetching int // bodies being read

	commit int64 // newest group commit known

	ended       []Ended // to be told to the meter
	overflowing int     // webhooks whose first deliveries overflow

	due         dueReader
	stale       staleness
	starved     []*queue                // have work, but there is no room for its bodies
	reads       []func(context.Context) // to begin
	stopping    bool
	hungry      atomic.Bool   // the tail may route on
	sated       atomic.Bool   // it had better wait if it has a backlog
	plentySince time.Time     // when it was first seen, or seen again after a batch came; zero where there is none
	more        chan struct{} // tells a waiting tail so
}

// feed takes batches in the order of the chain, for some shards. There is one for
// all shards, and one more for each part that was gained with batches behind.
type feed struct {
	shards   Shards
	last     int64 // last taken
	progress []*progress
	reading  bool
}

// progress counts the deliveries of some batches that are not on record yet.
type progress struct {
	first int64 // of these batches
	left  int
}

// dueReader reads the due table from the time last read, so that rows that are
// gone are not walked again.
type dueReader struct {
	cursor  Cursor
	next    time.Time // when something may be due; zero for never
	reading bool
	unsaved map[*step]struct{} // rows on their way into the table: the cursor may not pass them
}

// openAttempt is an attempt under way: the place of its start in the log, and
// its item where it is this relay's own.
type openAttempt struct {
	at int64
	it *item
}

// inbox is where other goroutines hand over what the dispatcher is to do.
type inbox struct {
	mu   sync.Mutex
	mail mail
	wake chan struct{}
}

type mail struct {
	batches  []*outbox.Batch
	recorded []*step
	outcomes []outcome
	calls    []func()
}

// empty gives the same lists for the next mail.
func (m mail) empty() mail {
	clear(m.batches)
	clear(m.recorded)
	clear(m.outcomes)
	clear(m.calls)
	return mail{m.batches[:0], m.recorded[:0], m.outcomes[:0], m.calls[:0]}
}

type outcome struct {
	it      *item
	attempt int
	outcome domain.Outcome
}

// put hands over what add puts into the mail.
func (in *inbox) put(add func(*mail)) {
	in.mu.Lock()
	add(&in.mail)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// call runs f in the dispatcher's goroutine.
func (in *inbox) call(f func()) { in.put(func(m *mail) { m.calls = append(m.calls, f) }) }

// within runs f in the dispatcher's goroutine, and waits for it.
func (in *inbox) within(ctx context.Context, f func()) error {
	done := make(chan struct{})
	in.call(func() { f(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take gives what was put, and leaves spare, an empty one, in its place.
func (in *inbox) take(spare mail) mail {
	in.mu.Lock()
	defer in.mu.Unlock()
	taken := in.mail
	in.mail = spare
	return taken
}

func newDispatcher(store Store, webhooks Webhooks, policy domain.RetryPolicy, now func() time.Time, logger *slog.Logger) *dispatcher {
	return &dispatcher{
		store: store, webhooks: webhooks, policy: policy, now: now, logger: logger, meter: unmetered{},
		most: DefaultInFlight,

		breaking: domain.DefaultBreakerPolicy, disableAfter: DefaultDisableAfter,

		inbox:   inbox{wake: make(chan struct{}, 1)},
		more:    make(chan struct{}, 1),
		due:     dueReader{unsaved: map[*step]struct{}{}},
		stale:   staleness{open: map[int]int{}, gone: map[domain.DeliveryKey]int{}},
		queues:  map[domain.WebhookID]*queue{},
		newer:   map[domain.WebhookID]domain.Webhook{},
		crowded: map[*queue]struct{}{},
		missed:  map[*queue]struct{}{},
		broken:  map[*queue]struct{}{},
		parked:  map[domain.DeliveryKey]struct{}{},
		open:    map[domain.DeliveryKey]openAttempt{},

		unreadable: map[domain.DeliveryKey]struct{}{},

		accounts: map[domain.AccountID]*account{},

		replays:     map[domain.ReplayID]ReplayState{},
		resumes:     map[domain.ReplayID][]*queue{},
		replayBegun: func(domain.DeliveryKey) {},
	}
}

// confirmed takes a batch that the tail has seen committed. It never blocks:
// what memory does not hold is read from the log.
func (d *dispatcher) confirmed(batch *outbox.Batch) {
	d.inbox.put(func(m *mail) { m.batches = append(m.batches, batch) })
}

// reloaded takes the number of the chain's head.
func (d *dispatcher) reloaded(no int64) {
	d.inbox.call(func() { d.head = max(d.head, no) })
}

// ready makes the tail wait while memory is full, and in a backlog where there is
// plenty.
func (d *dispatcher) ready(backlog bool, stop <-chan struct{}) {
	for !d.hungry.Load() || backlog && d.sated.Load() {
		select {
		case <-d.more:
		case <-stop:
			return
		}
	}
}

// recorded takes a group of steps from the recorder.
func (d *dispatcher) recorded(steps []*step) {
	d.inbox.put(func(m *mail) { m.recorded = append(m.recorded, steps...) })
}

// finished takes the outcome of an attempt.
func (d *dispatcher) finished(it *item, attempt int, o domain.Outcome) {
	d.inbox.put(func(m *mail) { m.outcomes = append(m.outcomes, outcome{it, attempt, o}) })
}

// run dispatches until ctx ends. When stop is closed it starts nothing more,
// and returns once every attempt has its outcome on record.
func (d *dispatcher) run(ctx context.Context, stop <-chan struct{}) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.inbox.wake:
		case <-timer.C:
		case <-stop:
			d.stopping, stop = true, nil
			d.recorder.hasten()
		case <-ctx.Done():
			return ctx.Err()
		}
		d.take()
		d.work(ctx)
		if d.stopping && d.flying == 0 && d.steps == 0 {
			return nil
		}
		timer.Reset(d.untilNext())
	}
}

// take empties the inbox: outcomes before new work.
func (d *dispatcher) take() {
	in := d.inbox.take(d.spare)
	for _, s := range in.recorded {
		d.onRecorded(s)
	}
	for _, o := range in.outcomes {
		d.onOutcome(o)
	}
	for _, f := range in.calls {
		f()
	}
	d.openBarriers()
	for _, batch := range in.batches {
		d.plentySince = time.Time{} // to be counted again
		d.head = max(d.head, batch.No)
		d.commit = max(d.commit, batch.Commit) // what is started from here on comes later
		if len(d.batches) < 8*maxBatches {
			d.batches = append(d.batches, batch)
		}
	}
	d.spare = in.empty()
}

// work does all that can be done now.
func (d *dispatcher) work(ctx context.Context) {
	if !d.stopping {
		d.settleLeft()
		d.takeBatches()
		d.readDue()
		for q := d.alarms.due(d.now()); q != nil; q = d.alarms.due(d.now()) {
			d.mark(q)
		}
		d.serve()
		for len(d.marked) > 0 {
			q := d.marked[0]
			d.marked = d.marked[1:]
			q.marked = false
			d.pump(q)
		}
		for q := range d.missed {
			d.hurry(q, q.hook.State != domain.WebhookEnabled)
		}
		clear(d.missed)
		for _, read := range d.reads {
			read(ctx)
		}
		d.reads = d.reads[:0]
	}
	if now := d.now(); now.Sub(d.looked).Abs() >= patience/4 {
		d.looked = now
		d.moved(d.place()) // older ones were lower: a successor loses nothing by them
		d.meter.Load(d.weigh())
		if !d.stopping {
			d.shed()
		}
	}
	d.flush()
	if d.gather(d.now()) == 0 {
		d.submit()
	}
	hungry, sated := d.roomy() && len(d.batches) < maxBatches, d.isSated()
	if hungry != d.hungry.Load() || sated != d.sated.Load() {
		d.hungry.Store(hungry)
		d.sated.Store(sated)
		select {
		case d.more <- struct{}{}:
		default:
		}
	}
}

// submit hands what is to be recorded to the recorder.
func (d *dispatcher) submit() {
	d.steps += len(d.out)
	for _, s := range d.out {
		d.submitted.count(s)
	}
	d.recorder.submit(d.out)
	d.out = nil
	d.ahead.urgent, d.ahead.gathers = false, time.Time{}
}

// isSated says that there is plenty of work, and was not for long since the last
// batch.
func (d *dispatcher) isSated() bool {
	if d.fresh < plenty && d.bodies < plentyBodies {
		d.plentySince = time.Time{}
		return false
	}
	if d.plentySince.IsZero() {
		d.plentySince = d.now()
	}
	return d.now().Sub(d.plentySince) < composure
}

// untilNext is how long nothing will be due.
func (d *dispatcher) untilNext() time.Duration {
	wait := time.Second
	now := d.now()
	if d.fresh > 0 {
		wait = patience / 4
	}
	if !d.due.next.IsZero() && !d.due.reading {
		wait = min(wait, d.due.next.Sub(now))
	}
	if len(d.out) > 0 {
		wait = min(wait, d.gather(now))
	}
	wait = min(wait, d.left.until(time.Now()), d.alarms.until(now))
	return max(wait, time.Millisecond)
}

func (d *dispatcher) mark(q *queue) {
	if !q.marked {
		q.marked = true
		d.marked = append(d.marked, q)
	}
}
