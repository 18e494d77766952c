package relay

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// The limits of the dispatcher's memory.
const (
	// maxFresh is how many first deliveries may be in memory before the tail
	// waits.
	maxFresh = 4000
	// maxQueue is how many of them one webhook may have before it overflows.
	maxQueue = maxFresh / 2
	// maxBodies is how many bytes of bodies may wait in memory before the tail
	// waits.
	maxBodies = 32 << 20
	// patience is how long a first delivery may wait in memory; longer, and
	// its webhook overflows. It bounds how long the tail can be held up by
	// webhooks that stopped answering all at once.
	patience = 250 * time.Millisecond
	// maxInFlight bounds the attempts under way, and with them connections.
	maxInFlight = 4096
	// dueLimit and laneLimit bound what one read brings back into memory.
	dueLimit  = 500
	laneLimit = 64
	// maxBatches is how many routed batches may wait in memory.
	maxBatches = 4
)

// dispatcher decides what is sent when. One goroutine owns all its state; the
// others hand in what happened.
type dispatcher struct {
	store    Store
	webhooks Webhooks
	recorder *recorder
	send     func(*item, *Request)
	moved    func(Place) // hears where a successor would have to begin
	now      func() time.Time
	policy   domain.RetryPolicy
	logger   *slog.Logger
	inbox    inbox

	queues  map[domain.WebhookID]*queue
	marked  []*queue                        // to be looked at
	out     []*step                         // for the recorder
	steps   int                             // with the recorder
	parked  map[domain.DeliveryKey]struct{} // in memory and in the due table
	open    map[domain.DeliveryKey]int64    // attempts under way, by the place of their start
	lost    []lostAttempt                   // of dead relays, to be given up
	fresh   int                             // first deliveries in memory
	crowded map[*queue]struct{}             // queues that may have some
	looked  time.Time                       // when shed last looked, and the place was told
	bodies  int                             // their bytes
	flying  int
	commit  int64 // newest group commit known

	feed     feed
	due      dueReader
	stale    staleness
	starved  []*queue                // have work, but maxInFlight is reached
	reads    []func(context.Context) // to begin
	stopping bool
	hungry   atomic.Bool   // the tail may route on
	more     chan struct{} // tells a waiting tail so
}

// feed takes batches in the order of the chain.
type feed struct {
	head     int64 // newest committed
	last     int64 // last taken
	position int64 // all up to here is started, finished or due
	ready    []*outbox.Batch
	progress []*progress
	reading  bool
}

// progress counts the deliveries of a batch that are not on record yet.
type progress struct {
	no   int64
	left int
}

// dueReader reads the due table from the time last read, so that rows that are
// gone are not walked again.
type dueReader struct {
	cursor  Cursor
	next    time.Time // when something may be due; zero for never
	reading bool
	unsaved map[*step]struct{} // rows on their way into the table: the cursor may not pass them
}

// lostAttempt is an open attempt of a dead relay. It becomes unknown when it
// can no longer be under way.
type lostAttempt struct {
	at time.Time
	it *item
}

// inbox is what other goroutines hand to the dispatcher.
type inbox struct {
	mu       sync.Mutex
	batches  []*outbox.Batch
	recorded []*step
	outcomes []outcome
	calls    []func()
	wake     chan struct{}
}

type outcome struct {
	it      *item
	attempt int
	outcome domain.Outcome
}

func (in *inbox) put(add func()) {
	in.mu.Lock()
	add()
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// call runs f in the dispatcher's goroutine.
func (in *inbox) call(f func()) { in.put(func() { in.calls = append(in.calls, f) }) }

func newDispatcher(store Store, webhooks Webhooks, policy domain.RetryPolicy, now func() time.Time, logger *slog.Logger) *dispatcher {
	return &dispatcher{
		store: store, webhooks: webhooks, policy: policy, now: now, logger: logger,
		inbox:   inbox{wake: make(chan struct{}, 1)},
		more:    make(chan struct{}, 1),
		due:     dueReader{unsaved: map[*step]struct{}{}},
		stale:   staleness{open: map[int]int{}, gone: map[domain.DeliveryKey]int{}},
		queues:  map[domain.WebhookID]*queue{},
		crowded: map[*queue]struct{}{},
		parked:  map[domain.DeliveryKey]struct{}{},
		open:    map[domain.DeliveryKey]int64{},
	}
}

// confirmed takes a batch that the tail has seen committed. It never blocks:
// what memory does not hold is read from the log.
func (d *dispatcher) confirmed(batch *outbox.Batch) {
	d.inbox.put(func() { d.inbox.batches = append(d.inbox.batches, batch) })
}

// reloaded takes the number of the chain's head.
func (d *dispatcher) reloaded(no int64) {
	d.inbox.call(func() { d.feed.head = max(d.feed.head, no) })
}

// ready makes the tail wait while memory is full.
func (d *dispatcher) ready(stop <-chan struct{}) {
	for !d.hungry.Load() {
		select {
		case <-d.more:
		case <-stop:
			return
		}
	}
}

// recorded takes a group of steps from the recorder.
func (d *dispatcher) recorded(steps []*step) {
	d.inbox.put(func() { d.inbox.recorded = append(d.inbox.recorded, steps...) })
}

// finished takes the outcome of an attempt.
func (d *dispatcher) finished(it *item, attempt int, o domain.Outcome) {
	d.inbox.put(func() { d.inbox.outcomes = append(d.inbox.outcomes, outcome{it, attempt, o}) })
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
	d.inbox.mu.Lock()
	batches, recorded, outcomes, calls := d.inbox.batches, d.inbox.recorded, d.inbox.outcomes, d.inbox.calls
	d.inbox.batches, d.inbox.recorded, d.inbox.outcomes, d.inbox.calls = nil, nil, nil, nil
	d.inbox.mu.Unlock()
	for _, s := range recorded {
		d.onRecorded(s)
	}
	for _, o := range outcomes {
		d.onOutcome(o)
	}
	for _, f := range calls {
		f()
	}
	for _, batch := range batches {
		d.feed.head = max(d.feed.head, batch.No)
		d.commit = max(d.commit, batch.Commit) // what is started from here on comes later
		if len(d.feed.ready) < 4*maxBatches {
			d.feed.ready = append(d.feed.ready, batch)
		}
	}
}

// work does all that can be done now.
func (d *dispatcher) work(ctx context.Context) {
	if !d.stopping {
		d.giveUpLost()
		d.takeBatches()
		d.readDue()
		for len(d.marked) > 0 {
			q := d.marked[0]
			d.marked = d.marked[1:]
			q.marked = false
			d.pump(q)
		}
		for _, read := range d.reads {
			read(ctx)
		}
		d.reads = d.reads[:0]
	}
	if now := d.now(); now.Sub(d.looked).Abs() >= patience/4 {
		d.looked = now
		d.moved(d.place()) // older ones were lower: a successor loses nothing by them
		if !d.stopping {
			d.shed()
		}
	}
	d.steps += len(d.out)
	d.recorder.submit(d.out)
	d.out = nil
	if wants := d.fresh < maxFresh && d.bodies < maxBodies && len(d.feed.ready) < maxBatches; wants != d.hungry.Load() {
		d.hungry.Store(wants)
		select {
		case d.more <- struct{}{}:
		default:
		}
	}
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
	for _, l := range d.lost {
		wait = min(wait, l.at.Sub(now))
	}
	return max(wait, time.Millisecond)
}

func (d *dispatcher) mark(q *queue) {
	if !q.marked {
		q.marked = true
		d.marked = append(d.marked, q)
	}
}

// ---- new work

// takeBatches moves routed batches into the queues, in the order of the chain:
// from memory where the tail of this process handed them over, else from the
// log.
func (d *dispatcher) takeBatches() {
	for d.fresh < maxFresh && d.bodies < maxBodies && !d.feed.reading && d.feed.last < d.feed.head {
		for len(d.feed.ready) > 0 && d.feed.ready[0].No <= d.feed.last {
			d.feed.ready = d.feed.ready[1:]
		}
		no := d.feed.last + 1
		if len(d.feed.ready) > 0 && d.feed.ready[0].No == no {
			batch := d.feed.ready[0]
			d.feed.ready = d.feed.ready[1:]
			d.admit(no, fromBatch(batch))
			continue
		}
		d.feed.reading = true
		d.later("batch", func(ctx context.Context) (func(), error) {
			found, err := d.store.Batch(ctx, no)
			return func() { d.feed.reading = false; d.admit(no, found) }, err
		}, func() { d.feed.reading = false })
	}
}

// fromBatch gives the deliveries that a batch scheduled.
func fromBatch(batch *outbox.Batch) []Delivery {
	var found []Delivery
	ord := int64(0)
	for _, row := range batch.Rows {
		ord++ // the routing decision's own entry
		for _, target := range row.Routed.Targets {
			ord++
			found = append(found, Delivery{
				Key:       domain.DeliveryKey{EventSeq: row.Seq, WebhookID: target.WebhookID},
				AccountID: row.AccountID, EventID: row.ID, Event: row.Name,
				OrderingKey: row.Routed.OrderingKey, Traceparent: row.Traceparent,
				Pos: batch.Commit<<20 + ord,
				State: domain.Evolve(domain.Delivery{}, domain.Scheduled{
					At: batch.At, Deadline: batch.At.Add(domain.Deadline(row.Name)), WebhookVersion: target.Version,
				}),
				Body: row.Body,
			})
		}
	}
	return found
}

// admit takes a batch's deliveries. Those of webhooks that are not known yet
// make the whole batch wait for them: order.
func (d *dispatcher) admit(no int64, found []Delivery) {
	unknown := d.unknown(found)
	if len(unknown) > 0 {
		d.feed.reading = true
		d.load(unknown, func() { d.feed.reading = false; d.admit(no, found) }, func() { d.feed.reading = false; d.admit(no, found) })
		return
	}
	d.feed.last = no
	p := &progress{no: no, left: len(found)}
	d.feed.progress = append(d.feed.progress, p)
	for i := range found {
		it := d.newItem(&found[i])
		it.batch = p
		q := d.queues[it.Key.WebhookID]
		l := &q.lanes[freshLane]
		if l.size >= maxQueue {
			d.overflow(q, freshLane)
		}
		d.fresh++
		d.bodies += len(it.Body)
		if l.overflow {
			d.spill(q, it)
			continue
		}
		d.crowded[q] = struct{}{}
		d.enqueue(q, it)
	}
	d.advance()
}

func (d *dispatcher) unknown(found []Delivery) []domain.WebhookID {
	var ids []domain.WebhookID
	for i := range found {
		if _, ok := d.queues[found[i].Key.WebhookID]; !ok && !slices.Contains(ids, found[i].Key.WebhookID) {
			ids = append(ids, found[i].Key.WebhookID)
		}
	}
	return ids
}

func (d *dispatcher) newItem(found *Delivery) *item {
	it := &item{Delivery: *found, since: d.now()}
	if q := d.queues[found.Key.WebhookID]; q != nil {
		it.order = orderHash(found.OrderingKey, found.Key.ReplayID, q.hook.Settings.OrderHold)
	}
	return it
}

// enqueue puts an item into its webhook's queue.
func (d *dispatcher) enqueue(q *queue, it *item) {
	q.add(it)
	if it.order != 0 {
		d.nextOf(q, q.conversations[it.order])
	}
	d.mark(q)
}

// nextOf makes a conversation's next delivery runnable, and holds those that
// must wait for a failed one.
func (d *dispatcher) nextOf(q *queue, c *conversation) {
	for {
		it := q.next(c, d.now())
		if it == nil {
			break
		}
		if it.release == domain.ReleaseTurn {
			d.putBack(q, it)
		} else {
			d.hold(q, it, domain.HoldOrder)
		}
	}
	if b := q.blocked[c.order]; !c.busy && !c.loading && len(c.waiting) == 0 && b.failed == 0 && b.held > 0 {
		d.readHeld(q, c)
		return
	}
	q.forget(c)
}

// advance moves the position over batches whose deliveries are all on record.
func (d *dispatcher) advance() {
	for len(d.feed.progress) > 0 && d.feed.progress[0].left == 0 {
		d.feed.position = d.feed.progress[0].no
		d.feed.progress = d.feed.progress[1:]
	}
}

// place is where a successor would have to begin.
func (d *dispatcher) place() Place {
	low := (d.commit + 1) << 20
	for _, at := range d.open {
		low = min(low, at)
	}
	return Place{Position: d.feed.position, Low: low}
}

// ---- starting

// pump starts what a webhook's queue may start now.
func (d *dispatcher) pump(q *queue) {
	for l := range lanes {
		for d.flying < maxInFlight && q.room(l) {
			it := q.lanes[l].pop()
			if it == nil {
				break
			}
			d.start(q, it)
		}
		if lane := &q.lanes[l]; lane.overflow && !lane.loading && lane.size < laneLimit/4 {
			d.readLane(q, l)
		}
	}
	if d.flying >= maxInFlight && !q.starved {
		q.starved = true
		d.starved = append(d.starved, q)
	}
}

// start asks for the next attempt of an item.
func (d *dispatcher) start(q *queue, it *item) {
	now := d.now()
	switch {
	case q.hook.State == domain.WebhookDisabled:
		d.end(q, it, domain.Cancel{At: now, Reason: domain.CancelledDisabled})
		return
	case q.hook.State == domain.WebhookDeleted:
		d.end(q, it, domain.Cancel{At: now, Reason: domain.CancelledDeleted})
		return
	case q.hook.State == domain.WebhookPaused:
		if now.After(it.State.Deadline) {
			d.end(q, it, domain.Expire{At: now})
		} else {
			d.hold(q, it, domain.HoldPaused)
		}
		return
	case it.Body == nil:
		d.end(q, it, domain.GiveUp{At: now, Reason: domain.DeadPayload})
		return
	}
	release := it.release
	if release == "" {
		release = domain.ReleaseResumed // held by a pause that is over
	}
	events, err := domain.Decide(it.State, domain.Start{At: now, WebhookVersion: q.hook.Version, Timeout: q.hook.Settings.Timeout, Release: release})
	if err != nil {
		d.drop(q, it, err)
		return
	}
	s := d.step(stepEnd, it, events)
	if it.State.Open {
		s.kind = stepStart
		s.request = &Request{
			Webhook: q.hook, Delivery: deliveryID(it), Notification: domain.NewNotificationID(it.AccountID, it.EventID, it.Key.WebhookID),
			Replay: it.Key.ReplayID, Event: it.Event, Attempt: it.State.Attempts, Previous: it.State.LastOutcome,
			Traceparent: it.Traceparent, Body: it.Body,
		}
		d.leave(q, it)
		q.inFlight[it.lane()]++
		d.flying++
		d.open[it.Key] = (d.commit + 1) << 20 // until it is known
		if it.order != 0 {
			q.conversation(it.order).busy = true
		}
	} else {
		d.leave(q, it)
		d.settled(q, it)
	}
	d.out = append(d.out, s)
}

func deliveryID(it *item) domain.DeliveryID {
	return domain.NewDeliveryID(domain.NewNotificationID(it.AccountID, it.EventID, it.Key.WebhookID), it.Key.EventSeq, it.Key.ReplayID)
}

// step turns events into the change that records them, and folds them.
func (d *dispatcher) step(kind stepKind, it *item, events []domain.DeliveryEvent) *step {
	s := &step{kind: kind, item: it, Change: Change{Key: it.Key, AccountID: it.AccountID, First: it.State.Version + 1, Ends: it.Due.Version}}
	for _, event := range events {
		it.State = domain.Evolve(it.State, event)
		s.Entries = append(s.Entries, domain.EncodeDelivery(event))
	}
	it.Due = Due{}
	return s
}

// leave takes an item out of its queue.
func (d *dispatcher) leave(q *queue, it *item) {
	q.take(it)
	if it.batch != nil {
		d.fresh--
		d.bodies -= len(it.Body)
	}
}

// settled lets the next one of a finished delivery's conversation go.
func (d *dispatcher) settled(q *queue, it *item) {
	if it.order == 0 {
		return
	}
	if it.State.Failed && it.State.Status.Final() {
		q.block(it.order, -1, 0)
	}
	d.nextOf(q, q.conversation(it.order))
}

// end finishes a delivery without an attempt.
func (d *dispatcher) end(q *queue, it *item, command domain.DeliveryCommand) {
	events, err := domain.Decide(it.State, command)
	if err != nil {
		d.drop(q, it, err)
		return
	}
	s := d.step(stepEnd, it, events)
	d.leave(q, it)
	d.out = append(d.out, s)
	d.settled(q, it)
}

// drop forgets an item that cannot go on: its stream says otherwise.
func (d *dispatcher) drop(q *queue, it *item, err error) {
	d.logger.Error("a delivery cannot go on", "event_seq", it.Key.EventSeq, "webhook_id", it.Key.WebhookID, "error", err)
	d.leave(q, it)
	delete(d.parked, it.Key)
	d.onRecord(it)
	d.settled(q, it)
}

// ---- waiting

// hold makes an item wait in the due table, on record.
func (d *dispatcher) hold(q *queue, it *item, reason domain.HoldReason) {
	until := it.State.Deadline
	kind := DuePaused
	if reason == domain.HoldOrder {
		kind = DueHold
		if wait := q.hook.Settings.OrderHold; wait != domain.HoldForever && it.State.ScheduledAt.Add(wait).Before(until) {
			until = it.State.ScheduledAt.Add(wait)
		}
	}
	now := d.now()
	events, err := domain.Decide(it.State, domain.Hold{At: now, Reason: reason, Until: until})
	if err != nil {
		d.drop(q, it, err)
		return
	}
	if len(events) == 0 {
		// It is held already: this hold goes on.
		d.leave(q, it)
		delete(d.parked, it.Key)
		return
	}
	s := d.step(stepWait, it, events)
	d.leave(q, it)
	if kind == DueHold {
		q.block(it.order, 0, 1)
	}
	d.wait(s, it, kind, until)
	d.out = append(d.out, s)
	if reason == domain.HoldPaused && it.order != 0 {
		d.nextOf(q, q.conversation(it.order))
	}
}

// putBack lets an item that was to be released stay held: its due row is still
// there.
func (d *dispatcher) putBack(q *queue, it *item) {
	d.leave(q, it)
	delete(d.parked, it.Key)
	q.block(it.order, 0, 1)
}

// spill sends an item to the due table for lack of room.
func (d *dispatcher) spill(q *queue, it *item) {
	s := d.step(stepWait, it, nil)
	d.fresh--
	d.bodies -= len(it.Body)
	q.lanes[it.lane()].asked++
	d.wait(s, it, DueOverflow, d.now())
	d.out = append(d.out, s)
}

// wait gives a step the due row that it begins.
func (d *dispatcher) wait(s *step, it *item, kind DueKind, at time.Time) {
	at = at.Truncate(time.Microsecond)
	// Behind what was read nobody would read it.
	if kind == DueOverflow {
		lane := &d.queues[it.Key.WebhookID].lanes[it.lane()]
		if !at.After(lane.read) {
			at = lane.read.Add(time.Microsecond)
		}
		if n := len(lane.unsaved); n > 0 {
			at = later(lane.unsaved[n-1], at)
		}
		lane.unsaved = append(lane.unsaved, at)
	} else {
		if !at.After(d.due.cursor.At) {
			at = d.due.cursor.At.Add(time.Microsecond)
		}
		d.due.unsaved[s] = struct{}{}
	}
	s.Waits = Due{Key: it.Key, Version: it.State.Version, Kind: kind, At: at, Pos: it.Pos, Order: it.order}
	it.Body = nil
}

// overflow sends all new work of a lane through the due table.
func (d *dispatcher) overflow(q *queue, l int) {
	lane := &q.lanes[l]
	lane.asked++
	if !lane.overflow {
		lane.overflow = true
		lane.cursor = Cursor{}
	}
	d.mark(q)
}

// shed lets webhooks overflow whose first deliveries waited too long in
// memory, so that they neither hold up the tail nor the position.
func (d *dispatcher) shed() {
	if d.fresh == 0 {
		return
	}
	late := d.now().Add(-patience)
	if d.fresh < maxFresh/4 && d.bodies < maxBodies/4 {
		late = d.now().Add(-8 * patience)
	}
	for q := range d.crowded {
		if q.lanes[freshLane].size == 0 {
			delete(d.crowded, q)
			continue
		}
		old := q.waitingSince(late)
		if len(old) == 0 {
			continue
		}
		d.overflow(q, freshLane)
		for _, it := range old {
			q.take(it)
			d.spill(q, it)
		}
		for _, c := range q.conversations {
			d.nextOf(q, c)
		}
	}
}

// ---- what happened

// onOutcome ends an attempt. The conversation goes on at once: its next start
// is recorded behind this outcome.
func (d *dispatcher) onOutcome(o outcome) {
	it := o.it
	q := d.queues[it.Key.WebhookID]
	q.inFlight[it.lane()]--
	d.flying--
	for _, starved := range d.starved {
		starved.starved = false
		d.mark(starved)
	}
	d.starved = d.starved[:0]
	d.endAttempt(q, it, domain.RecordOutcome{
		At: d.now(), Attempt: o.attempt, Outcome: o.outcome, Policy: d.policy, Jitter: rand.Float64(), //nolint:gosec // spreads retries
	})
}

// endAttempt records how an attempt ended, and what follows from it.
func (d *dispatcher) endAttempt(q *queue, it *item, command domain.DeliveryCommand) {
	before := it.State
	events, err := domain.Decide(it.State, command)
	if err != nil {
		d.logger.Error("an outcome does not fit its delivery", "event_seq", it.Key.EventSeq, "webhook_id", it.Key.WebhookID, "error", err)
		return
	}
	s := d.step(stepOutcome, it, events)
	s.before = before
	if !it.State.Status.Final() {
		switch q.hook.State {
		case domain.WebhookDisabled, domain.WebhookDeleted:
			reason := domain.CancelledDisabled
			if q.hook.State == domain.WebhookDeleted {
				reason = domain.CancelledDeleted
			}
			cancelled := domain.Cancelled{At: d.now(), Reason: reason}
			it.State = domain.Evolve(it.State, cancelled)
			s.Entries = append(s.Entries, domain.EncodeDelivery(cancelled))
		case domain.WebhookNone, domain.WebhookEnabled, domain.WebhookPaused:
			d.wait(s, it, DueRetry, it.State.NextAttemptAt)
		}
	}
	d.out = append(d.out, s)
	switch {
	case it.State.Failed && !before.Failed && !it.State.Status.Final():
		q.block(it.order, 1, 0)
	case before.Failed && it.State.Status.Final():
		q.block(it.order, -1, 0)
	}
	if it.order != 0 {
		c := q.conversation(it.order)
		c.busy = false
		d.nextOf(q, c)
	}
	d.mark(q)
}

// onRecorded goes on from what is on record now.
func (d *dispatcher) onRecorded(s *step) {
	d.steps--
	d.commit = max(d.commit, s.commit)
	it := s.item
	if s.err != nil {
		d.onRefused(s)
		return
	}
	if it != nil {
		if s.Ends != 0 {
			delete(d.parked, it.Key)
			d.stale.move(it.Key)
		}
		d.onRecord(it)
	}
	if s.Waits.Kind != DueNone {
		d.saved(s)
	}
	switch s.kind {
	case stepStart:
		d.open[it.Key] = s.commit << 20
		d.send(it, s.request)
	case stepOutcome:
		delete(d.open, it.Key)
	case stepSchedule:
		s.scheduled()
	case stepWait, stepEnd:
	}
}

// saved notes that a due row is in the table.
func (d *dispatcher) saved(s *step) {
	if s.Waits.Kind == DueOverflow {
		if q := d.queues[s.Waits.Key.WebhookID]; q != nil {
			l := &q.lanes[freshLane]
			if s.Waits.Key.ReplayID != 0 {
				l = &q.lanes[replayLane]
			}
			l.unsaved = l.unsaved[1:] // they are recorded in the order in which they were spilled
			d.mark(q)
		}
		return
	}
	delete(d.due.unsaved, s)
	if d.due.next.IsZero() || s.Waits.At.Before(d.due.next) {
		d.due.next = s.Waits.At
	}
}

// onRecord lets the batch of a delivery go on.
func (d *dispatcher) onRecord(it *item) {
	if it.batch != nil {
		it.batch.left--
		it.batch = nil
		d.advance()
	}
}

// onRefused goes on from a step that could not be recorded. A start was not
// sent; an outcome becomes unknown, with the reason; all else waits for a
// restart, since its stream does not take it.
func (d *dispatcher) onRefused(s *step) {
	it := s.item
	if it == nil {
		return
	}
	q := d.queues[it.Key.WebhookID]
	if s.Waits.Kind != DueNone {
		d.saved(s)
	}
	delete(d.parked, it.Key)
	d.onRecord(it)
	switch s.kind {
	case stepStart:
		delete(d.open, it.Key)
		q.inFlight[it.lane()]--
		d.flying--
		if it.order != 0 {
			c := q.conversation(it.order)
			c.busy = false
			d.nextOf(q, c)
		}
		d.mark(q)
	case stepOutcome:
		delete(d.open, it.Key)
		if s.before.Status == domain.DeliveryNone {
			return // this was the fallback already
		}
		if errors.Is(s.err, ErrConflict) {
			return // a successor has ended the attempt
		}
		wasFinal := it.State.Status.Final()
		it.State = s.before
		events, err := domain.Decide(it.State, domain.LoseAttempt{
			At: d.now(), Attempt: it.State.Attempts, Reason: "the outcome could not be recorded: " + s.err.Error(), Policy: d.policy, Jitter: 0.5,
		})
		if err != nil {
			return
		}
		again := d.step(stepOutcome, it, events)
		if !it.State.Status.Final() {
			d.wait(again, it, DueRetry, it.State.NextAttemptAt)
			if wasFinal {
				q.block(it.order, 1, 0)
			}
		}
		d.out = append(d.out, again)
	case stepSchedule:
		s.scheduled() // a predecessor had scheduled it
	case stepWait, stepEnd:
	}
	if s.kind != stepOutcome && s.kind != stepSchedule {
		// Its stream is not as memory had it: what waits of it is read again.
		q.lanes[it.lane()].cursor = Cursor{}
		d.overflow(q, it.lane())
	}
}

// giveUpLost ends the attempts of dead relays that can no longer be under way.
func (d *dispatcher) giveUpLost() {
	now := d.now()
	kept := d.lost[:0]
	for _, l := range d.lost {
		if now.Before(l.at) {
			kept = append(kept, l)
			continue
		}
		q := d.queues[l.it.Key.WebhookID]
		d.endAttempt(q, l.it, domain.LoseAttempt{
			At: now, Attempt: l.it.State.Attempts, Reason: "its relay stopped before the outcome was recorded",
			Policy: d.policy, Jitter: rand.Float64(), //nolint:gosec // spreads retries
		})
	}
	d.lost = kept
}

// ---- reading back

// read runs a read of the store beside the dispatcher, and its result in it.
// After an error it is tried again later: again lets that happen.
func (d *dispatcher) read(ctx context.Context, what string, f func(context.Context) (func(), error), again func()) {
	begun := d.stale.begin()
	go func() {
		timeout, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		result, err := f(timeout)
		if err == nil {
			d.inbox.call(func() {
				d.stale.now = begun
				result()
				d.stale.end(begun)
			})
			return
		}
		d.inbox.call(func() { d.stale.end(begun) })
		if ctx.Err() == nil {
			d.logger.Warn("reading back failed, trying again", "what", what, "error", err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
			d.inbox.call(again)
		case <-ctx.Done():
		}
	}()
}

// staleness tells which deliveries moved on since a read began: what that read
// found of them is out of date.
type staleness struct {
	last int                        // number of the newest read
	now  int                        // of the read whose result is being taken
	open map[int]int                // reads whose result may still be taken
	gone map[domain.DeliveryKey]int // the newest read when it moved on
	old  []domain.DeliveryKey       // in the order in which they moved on
}

func (s *staleness) begin() int {
	s.last++
	s.open[s.last] = 1
	return s.last
}

// end forgets what no read that is still open can have seen before.
func (s *staleness) end(read int) {
	s.open[read]--
	if s.open[read] <= 0 {
		delete(s.open, read)
	}
	first := s.last + 1
	for n := range s.open {
		first = min(first, n)
	}
	for len(s.old) > 0 && s.gone[s.old[0]] < first {
		delete(s.gone, s.old[0])
		s.old = s.old[1:]
	}
}

func (s *staleness) move(key domain.DeliveryKey) {
	if len(s.open) == 0 {
		return
	}
	if _, listed := s.gone[key]; !listed {
		s.old = append(s.old, key)
	}
	s.gone[key] = s.last
}

func (s *staleness) moved(key domain.DeliveryKey) bool {
	newest, gone := s.gone[key]
	return gone && s.now <= newest
}

// load reads webhooks that are not known yet.
func (d *dispatcher) load(ids []domain.WebhookID, then, again func()) {
	d.later("webhooks", func(ctx context.Context) (func(), error) {
		hooks, err := d.webhooks.Load(ctx, ids)
		return func() {
			for _, hook := range hooks {
				d.configure(hook)
			}
			for _, id := range ids {
				if d.queues[id] == nil { // nobody deletes rows, but what is not there gets nothing
					d.configure(domain.Webhook{ID: id, State: domain.WebhookDeleted})
				}
			}
			then()
		}, err
	}, again)
}

// configure takes a webhook's present settings.
func (d *dispatcher) configure(hook domain.Webhook) {
	q := d.queues[hook.ID]
	if q == nil {
		q = newQueue(hook)
		d.queues[hook.ID] = q
		d.mark(q)
		return
	}
	if q.hook.Version > hook.Version {
		return
	}
	before := q.hook.State
	q.hook = hook
	d.mark(q)
	if before == hook.State {
		return
	}
	switch hook.State {
	case domain.WebhookDisabled, domain.WebhookDeleted:
		d.hurry(q, true)
	case domain.WebhookEnabled:
		d.hurry(q, false)
	case domain.WebhookNone, domain.WebhookPaused:
	}
}

// hurry brings back what waits of a webhook: all, or what its pause held.
func (d *dispatcher) hurry(q *queue, all bool) {
	id := q.hook.ID
	d.later("waiting", func(ctx context.Context) (func(), error) {
		err := d.store.Hurry(ctx, id, all)
		return func() {
			for l := range lanes {
				d.overflow(q, l)
				q.lanes[l].cursor = Cursor{}
			}
		}, err
	}, func() { d.hurry(q, all) })
}

// later begins a read at the end of this round.
func (d *dispatcher) later(what string, f func(context.Context) (func(), error), again func()) {
	d.reads = append(d.reads, func(ctx context.Context) { d.read(ctx, what, f, again) })
}

// comeBack takes deliveries from the due table into memory. timed says that
// their time has come, whether or not their webhooks have room.
func (d *dispatcher) comeBack(found []Delivery, release domain.ReleaseReason, timed bool) {
	if unknown := d.unknown(found); len(unknown) > 0 {
		read := d.stale.now
		d.stale.open[read]++ // what was found is as old as it is
		later := func() {
			d.stale.now = read
			d.comeBack(found, release, timed)
			d.stale.end(read)
		}
		d.load(unknown, later, later)
		return
	}
	touched := map[*conversation]*queue{}
	for i := range found {
		f := &found[i]
		if _, here := d.parked[f.Key]; here || d.stale.moved(f.Key) || f.State.Status.Final() || f.State.Open {
			continue
		}
		q := d.queues[f.Key.WebhookID]
		it := d.newItem(f)
		if l := it.lane(); timed && q.lanes[l].size >= 2*laneLimit {
			d.overflow(q, l) // no room now: it is read again with what overflowed
			q.lanes[l].cursor = Cursor{}
			continue
		}
		it.order = f.Due.Order
		d.parked[f.Key] = struct{}{}
		if f.Due.Kind == DueHold {
			q.block(it.order, 0, -1)
			it.release = release
		}
		q.add(it)
		if it.order != 0 {
			touched[q.conversations[it.order]] = q
		}
		d.mark(q)
	}
	for c, q := range touched {
		d.nextOf(q, c)
	}
}

// readDue brings back retries and holds whose time has come.
func (d *dispatcher) readDue() {
	now := d.now()
	if d.due.reading || d.due.next.IsZero() || now.Before(d.due.next) {
		return
	}
	until := now
	for s := range d.due.unsaved {
		if !s.Waits.At.After(until) {
			until = s.Waits.At.Add(-time.Microsecond) // the cursor may not pass it
		}
	}
	if !until.After(d.due.cursor.At) {
		return
	}
	d.due.reading, d.due.next = true, time.Time{}
	cursor := d.due.cursor
	// Rows that come later must not fall behind the cursor.
	d.due.cursor = Cursor{At: until.Truncate(time.Microsecond), Pos: 1<<63 - 1}
	read := d.due.cursor
	d.later("due", func(ctx context.Context) (func(), error) {
		found, next, err := d.store.DueBefore(ctx, cursor, read.At, dueLimit)
		return func() {
			d.due.reading = false
			if !next.IsZero() && (d.due.next.IsZero() || next.Before(d.due.next)) {
				d.due.next = next // else something saved meanwhile is due before
			}
			if len(found) == dueLimit {
				last := found[len(found)-1].Due
				d.due.cursor, d.due.next = Cursor{At: last.At, Pos: last.Pos}, now
			}
			d.comeBack(found, domain.ReleaseElapsed, true)
		}, err
	}, func() { d.due.reading, d.due.cursor, d.due.next = false, cursor, now })
}

// readLane brings back what overflowed. Once nothing is left, new work goes
// into memory again.
func (d *dispatcher) readLane(q *queue, l int) {
	lane := &q.lanes[l]
	now := d.now().Truncate(time.Microsecond)
	if len(lane.unsaved) > 0 {
		// The cursor may not pass rows on their way into the table.
		if oldest := lane.unsaved[0].Add(-time.Microsecond); oldest.Before(now) {
			now = oldest
		}
		if !now.After(lane.cursor.At) {
			return // it is looked at again when they are saved
		}
	}
	lane.loading, lane.read = true, later(lane.read, now)
	id, cursor, asked, unsaved := q.hook.ID, lane.cursor, lane.asked, len(lane.unsaved)
	d.later("overflow", func(ctx context.Context) (func(), error) {
		found, err := d.store.DueOf(ctx, id, l == replayLane, cursor, now, laneLimit)
		return func() {
			lane.loading = false
			if n := len(found); n > 0 && lane.cursor == cursor {
				lane.cursor = Cursor{At: found[n-1].Due.At, Pos: found[n-1].Due.Pos}
			}
			// Drained, unless something was added that the read did not see.
			if len(found) < laneLimit && unsaved == 0 && lane.asked == asked {
				lane.overflow = false
			}
			d.comeBack(found, domain.ReleaseElapsed, false)
			d.mark(q)
		}, err
	}, func() { lane.loading = false; d.mark(q) })
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// readHeld brings back the deliveries held in a conversation whose failed ones
// are finished.
func (d *dispatcher) readHeld(q *queue, c *conversation) {
	c.loading = true
	id := q.hook.ID
	d.later("held", func(ctx context.Context) (func(), error) {
		found, err := d.store.Held(ctx, id, c.order, laneLimit)
		return func() {
			c.loading = false
			if len(found) == 0 {
				if d.holding(id, c.order) {
					// They are on their way into the table: look again shortly.
					time.AfterFunc(5*time.Millisecond, func() { d.inbox.call(func() { d.nextOf(q, q.conversation(c.order)) }) })
					return
				}
				q.block(c.order, 0, -q.blocked[c.order].held) // none is held, whatever was counted
			}
			d.comeBack(found, domain.ReleaseTurn, false)
			d.nextOf(q, c)
		}, err
	}, func() { c.loading = false; d.nextOf(q, q.conversation(c.order)) })
}

// holding tells whether a hold of a conversation is on its way into the table.
func (d *dispatcher) holding(webhook domain.WebhookID, order int64) bool {
	for s := range d.due.unsaved {
		if s.Waits.Kind == DueHold && s.Waits.Order == order && s.Waits.Key.WebhookID == webhook {
			return true
		}
	}
	return false
}
