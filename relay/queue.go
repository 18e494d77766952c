package relay

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/outrider-relay/outrider/domain"
)

// item is a delivery in memory.
type item struct {
	Delivery
	// order is the hash of its ordering key, 0 where it keeps no order.
	order int64
	// weight is how many bytes of its body count as those of a first delivery that
	// waits, back how many as come back, aloft how many as on their way.
	weight, back, aloft int
	// batch is the batch that it holds back, nil once it is on record.
	batch *progress
	// since is when it came into memory.
	since time.Time
	// open is the delivery with that attempt open, to fall back to where its
	// outcome cannot be recorded.
	open domain.Delivery
	// begun is when its attempt under way was begun.
	begun time.Time
	// end is how its last attempt went.
	end Ended
	// release says why its hold ends, where it is held.
	release domain.ReleaseReason
	// fetching says that its body is being read.
	fetching bool
	// resumed says that a pause held it.
	resumed bool
	// dropped is the queue of its attempt under way whose shard was given up.
	dropped *queue
}

// mayPass says whether it may start although an earlier delivery of its
// conversation has failed: a repeat does, and one that was held long enough.
func (it *item) mayPass(now time.Time) bool {
	if it.release == domain.ReleaseTurn && !it.State.HeldUntil.After(now) {
		it.release = domain.ReleaseElapsed
	}
	return it.State.Failed || it.release == domain.ReleaseElapsed
}

// spillable says whether it is a first delivery that may go to the due table
// instead of waiting in memory.
func (it *item) spillable() bool { return it.batch != nil && !it.fetching && it.lane() == freshLane }

// looked is when a delivery that failed is looked at again: once its next
// attempt is due, or its deadline has passed, so that it expires then, however
// late that attempt would have been.
func (it *item) looked() time.Time {
	if end := it.State.Deadline.Add(time.Microsecond); end.Before(it.State.NextAttemptAt) {
		return end
	}
	return it.State.NextAttemptAt
}

func (it *item) lane() int {
	if it.Key.ReplayID != 0 {
		return replayLane
	}
	return freshLane
}

// orderHash identifies an ordering key within a webhook. A collision makes two
// conversations wait for each other, no more. Replays keep an order of their
// own: they never hold fresh events.
func orderHash(key string, replay domain.ReplayID, hold time.Duration) int64 {
	if key == "" || hold == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	if replay != 0 {
		_, _ = h.Write(strconv.AppendInt([]byte{0}, int64(replay), 10))
	}
	return int64(h.Sum64() | 1) //nolint:gosec // a hash: any bits will do
}

// The lanes of a webhook: first deliveries and replays.
const (
	freshLane = iota
	replayLane
	lanes
)

// queue is one webhook's work in memory. A slow webhook has a long queue, or
// an overflowing one; no other webhook notices.
type queue struct {
	// hook is replaced and never changed: requests under way share it.
	hook     *domain.Webhook
	account  *account
	inFlight [lanes]int
	lanes    [lanes]lane
	aloft    int // bytes of bodies on their way
	// conversations have an attempt under way or deliveries waiting in memory;
	// blocked has those whose deliveries wait in the due table.
	conversations map[int64]*conversation
	blocked       map[int64]blocked
	// counts says whether blocked is all there is: see counting.go.
	counts countState
	// limit is how many attempts may be under way now, up to the webhook's
	// max_concurrency: halved by an answer that it is too much, raised again by
	// each success.
	limit float64
	// gone is when an attempt was first answered with 410, zero for never since
	// the last other answer. disabling says that the webhook is being disabled.
	gone      time.Time
	disabling bool
	// dropped says that its shard was given up: nothing of it starts any more.
	dropped bool
	// breaker, failing and rate keep attempts from it; rate is nil for none.
	breaker breaker
	failing failing
	rate    *rate.Limiter
	alarm   alarm
	// succeeded is when an attempt last succeeded.
	succeeded time.Time
	// oldest is no later than since when any of its first deliveries waits in memory.
	oldest time.Time
	// hurrying counts the statements under way that make what waits due now.
	hurrying int
	// marked says that the queue is listed to be looked at, starved that it is
	// listed for when there is room for its bodies, inLine that it waits for room
	// in flight.
	marked, starved, inLine bool
}

// lane is one of the two ways into a queue.
type lane struct {
	// runnable may start now, in this order.
	runnable []*item
	// size counts the items in memory that are not started.
	size int
	// overflow sends all new work through the due table until that is drained,
	// so that nothing overtakes what waits there.
	overflow bool
	// cleared says that what waited in memory when it began to overflow waits in
	// the due table.
	cleared bool
	// late says that some of what is read from the due table is no overflow, but
	// what came by time and found no room, or was left by an earlier owner.
	late    bool
	loading bool
	// news says that there may be rows behind the cursor: else a read would only
	// find again that there are none.
	news bool
	// awaits says that it is listed to be read when it is its turn.
	awaits bool
	// resuming says that what a pause held comes back: see resume. resumed counts
	// those that came back and wait, hurried the statements that made them due.
	resuming         bool
	resumed, hurried int
	cursor           Cursor
	read             time.Time // up to when the last read looked
	// unsaved are the times of rows on their way to the due table, asked counts
	// the reasons to read it: a read that began before the newest of them ends
	// no overflow.
	unsaved []time.Time
	asked   int
}

// blocked counts an ordering key's deliveries that wait in the due table, or
// came back from it and are not finished.
type blocked struct{ failed, held int32 }

// conversation keeps the deliveries of one ordering key in routing order, one
// at a time.
type conversation struct {
	order   int64
	busy    bool // an attempt is under way
	offered bool // its head is among the runnable
	loading bool // held ones are being read back
	waiting []*item
	// upTo is the place up to which those held in the due table are back in
	// memory.
	upTo int64
}

func newQueue(hook domain.Webhook) *queue {
	return &queue{
		hook: &hook, account: &account{}, limit: float64(hook.Settings.MaxConcurrency),
		conversations: map[int64]*conversation{}, blocked: map[int64]blocked{},
	}
}

// room says whether an item of the lane may start. Replays get a quarter of
// the webhook's concurrency, so that they never starve fresh events.
func (q *queue) room(l int) bool {
	limit := max(1, min(q.hook.Settings.MaxConcurrency, int(q.limit)))
	if q.inFlight[freshLane]+q.inFlight[replayLane] >= limit {
		return false
	}
	return l == freshLane || q.inFlight[replayLane] < max(1, limit/4)
}

// pace adapts to what the webhook answers, as TCP does to loss: half as many at
// once after an answer that it is too much, one more after as many successes
// as are allowed at once.
func (q *queue) pace(o domain.Outcome) {
	switch {
	case o.Overloaded():
		q.limit = max(1, q.limit/2)
	case o.Kind == domain.OutcomeSucceeded:
		q.limit = min(float64(q.hook.Settings.MaxConcurrency), q.limit+1/max(1, q.limit))
	}
}

// confirmGone takes an answer and says whether it confirms that the receiver is
// gone: a 410 to an attempt that began after another 410.
func (q *queue) confirmGone(o domain.Outcome, begun, now time.Time) bool {
	switch {
	case !o.Gone():
		if o.StatusCode != 0 {
			q.gone = time.Time{}
		}
		return false
	case q.gone.IsZero():
		q.gone = now
		return false
	default:
		return begun.After(q.gone)
	}
}

// add takes an item into memory, behind the earlier ones of its ordering key.
func (q *queue) add(it *item) {
	l := &q.lanes[it.lane()]
	l.size++
	if it.since.Before(q.oldest) {
		q.oldest = it.since
	}
	if it.order == 0 {
		l.runnable = append(l.runnable, it)
		return
	}
	c := q.conversation(it.order)
	// Routing order. What comes back from the due table was routed before what
	// is in memory, so the place is near the end for fresh items, near the
	// front for others.
	at := len(c.waiting)
	for at > 0 && c.waiting[at-1].Pos > it.Pos {
		at--
	}
	if at == 0 && c.offered {
		q.retract(c)
	}
	c.waiting = slices.Insert(c.waiting, at, it)
}

func (q *queue) conversation(order int64) *conversation {
	c := q.conversations[order]
	if c == nil {
		c = &conversation{order: order}
		q.conversations[order] = c
	}
	return c
}

// retract takes a conversation's head from the runnable: an earlier delivery
// has come back.
func (q *queue) retract(c *conversation) {
	head := c.waiting[0]
	l := &q.lanes[head.lane()]
	if i := slices.Index(l.runnable, head); i >= 0 {
		l.runnable = slices.Delete(l.runnable, i, i+1)
	}
	c.offered = false
}

// next makes the head of a conversation runnable where it may start. It gives
// the head back where that must be held first, for earlier ones have failed or
// are held. Where nobody knows that yet, the head waits.
func (q *queue) next(c *conversation, now time.Time) (hold *item) {
	if c.busy || c.offered || c.loading {
		return nil
	}
	if len(c.waiting) == 0 {
		return nil
	}
	head := c.waiting[0]
	if q.waitsForResumed(head) {
		return nil
	}
	if q.counts != counted && !head.mayPass(now) {
		return nil
	}
	if q.behindHeld(c) {
		return nil
	}
	// One released by its turn was read back in order, ahead of those that are
	// still held.
	b := q.blocked[c.order]
	if blocked := b.failed > 0 || b.held > 0 && head.release != domain.ReleaseTurn && !head.resumed; blocked && !head.mayPass(now) && !q.overheld(head, now) {
		return head
	}
	c.offered = true
	l := &q.lanes[head.lane()]
	l.runnable = append(l.runnable, head)
	return nil
}

// overheld says that the time for which an item may be held is over already: it
// came late itself. Held once more, it would be overtaken by one behind it whose
// hold is over, too. Where some are held that are before it, they come first.
func (q *queue) overheld(it *item, now time.Time) bool {
	if !it.resumed && q.blocked[it.order].held > 0 {
		return false
	}
	hold := q.hook.Settings.OrderHold
	return hold != domain.HoldForever && it.release == "" && !it.State.ScheduledAt.Add(hold).After(now)
}

// resume lets what a pause held of a lane go first. Until all of it is back in
// memory, nothing else that keeps an order starts for the first time: what came
// meanwhile, or had been sent to the due table for lack of room, is behind it.
func (q *queue) resume(l int) {
	q.lanes[l].resuming = true
	for _, c := range q.conversations {
		if c.offered && q.waitsForResumed(c.waiting[0]) {
			q.retract(c)
		}
	}
}

// behindHeld says that a pause held the head of a conversation, and that some are
// held for the order which may be before it: these are read back first.
func (q *queue) behindHeld(c *conversation) bool {
	b := q.blocked[c.order]
	return b.failed == 0 && b.held > 0 && c.waiting[0].resumed && c.waiting[0].Pos > c.upTo
}

func (q *queue) waitsForResumed(it *item) bool {
	return q.lanes[it.lane()].resuming && !it.resumed && !it.State.Failed
}

// take removes an item that starts or leaves memory.
func (q *queue) take(it *item) {
	q.lanes[it.lane()].size--
	if it.resumed {
		it.resumed = false
		q.lanes[it.lane()].resumed--
	}
	if it.order == 0 {
		return
	}
	c := q.conversations[it.order]
	if c == nil {
		return
	}
	if i := slices.Index(c.waiting, it); i >= 0 {
		if i == 0 {
			c.offered = false
		}
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
}

// waitsSince says whether a first delivery has waited in memory since before
// late. Those that come are younger than those that are there, so it looks at
// them only where the oldest of the last look would be old enough.
func (q *queue) waitsSince(late time.Time) (waits bool) {
	if !q.oldest.Before(late) {
		return false
	}
	var oldest time.Time
	look := func(items []*item) {
		for _, it := range items {
			if it.batch != nil && (oldest.IsZero() || it.since.Before(oldest)) {
				oldest = it.since
			}
			waits = waits || it.spillable() && it.since.Before(late)
		}
	}
	look(q.lanes[freshLane].runnable)
	for _, c := range q.conversations {
		look(c.waiting)
	}
	q.oldest = oldest
	return waits
}

// unload gives those that wait in memory, in routing order; none of them is
// runnable any more.
func (q *queue) unload(l int, which func(*item) bool) []*item {
	var all []*item
	lane := &q.lanes[l]
	lane.runnable = slices.DeleteFunc(lane.runnable, func(it *item) bool {
		if !which(it) {
			return false
		}
		if it.order == 0 {
			all = append(all, it)
		}
		return true
	})
	for _, c := range q.conversations {
		for _, it := range c.waiting {
			if it.lane() == l && which(it) {
				all = append(all, it)
			}
		}
	}
	slices.SortFunc(all, func(a, b *item) int { return cmp.Compare(a.Pos, b.Pos) })
	return all
}

// forget drops a conversation of which memory holds nothing more.
func (q *queue) forget(c *conversation) {
	if !c.busy && !c.loading && len(c.waiting) == 0 {
		delete(q.conversations, c.order)
	}
}

// block moves the counts of an ordering key.
func (q *queue) block(order int64, failed, held int32) {
	if order == 0 {
		return
	}
	b := q.blocked[order]
	b.failed, b.held = b.failed+failed, max(0, b.held+held)
	if b == (blocked{}) {
		delete(q.blocked, order)
		return
	}
	q.blocked[order] = b
}

// wantsRead says that memory has little left of what overflowed, and the table
// may have more. Where the webhook has room for more than what memory has of it,
// since that is of a few conversations only, idle says so.
func (l *lane) wantsRead(idle bool) bool {
	return l.overflow && l.news && !l.loading && (l.size < laneLimit/4 || idle && l.size < maxLane || l.resuming && l.resumed < laneLimit/4)
}

// pop gives the next runnable item of a lane.
func (l *lane) pop() *item {
	if len(l.runnable) == 0 {
		return nil
	}
	it := l.runnable[0]
	l.runnable[0] = nil
	l.runnable = l.runnable[1:]
	return it
}
