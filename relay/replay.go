package relay

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/outrider-relay/outrider/domain"
)

// Replay is a plan that was asked to run: new deliveries of old chat events.
type Replay struct {
	ID    domain.ReplayID
	State ReplayState
	// Rate bounds how many deliveries begin in a second, 0 for no bound.
	Rate float64
}

// ReplayState is what a replay may do.
type ReplayState string

// The states of a replay that the relay has to do with.
const (
	ReplayRunning    ReplayState = "running"
	ReplayPaused     ReplayState = "paused"     // nothing of it is sent
	ReplayCancelling ReplayState = "cancelling" // what is not finished of it is cancelled
)

// over says that nothing more will happen to it.
func (s ReplayState) over() bool {
	return s != ReplayRunning && s != ReplayPaused && s != ReplayCancelling
}

// ReplayStream is one webhook's part of a replay, and how far it is.
type ReplayStream struct {
	WebhookID domain.WebhookID
	// Cursor is the Pos of the last delivery that is scheduled.
	Cursor int64
}

// ReplayDelivery is a planned delivery.
type ReplayDelivery struct {
	Delivery
	// Begun says that it is scheduled already, by a relay that died before it
	// moved the cursor.
	Begun bool
	// Gone says that its event is in the log no more, or has no payload.
	Gone bool
}

// ReplayStep moves a stream's cursor.
type ReplayStep struct {
	ReplayStream
	Scheduled, Gone int
}

// Replays keeps plans and how far they are.
type Replays interface {
	// Open lists the replays that are not over, oldest first.
	Open(ctx context.Context) ([]Replay, error)
	// Streams lists the webhooks of a replay.
	Streams(ctx context.Context, replay domain.ReplayID) ([]ReplayStream, error)
	// Unbegun reads which of a replay's scheduled deliveries have had no attempt,
	// of each webhook at most limit.
	Unbegun(ctx context.Context, replay domain.ReplayID, webhooks []domain.WebhookID, limit int) ([]domain.DeliveryKey, error)
	// Next reads the planned deliveries behind each stream's cursor, in routing
	// order, limits[i] of the i-th at most.
	Next(ctx context.Context, replay domain.ReplayID, streams []ReplayStream, limits []int) ([]ReplayDelivery, error)
	// Advance moves cursors. ErrFenced where another relay has taken over.
	Advance(ctx context.Context, relayID int64, replay domain.ReplayID, steps []ReplayStep) error
	// Count counts what is finished and gives the state that follows. drained
	// says that nothing remains to be scheduled. ErrFenced as Advance.
	Count(ctx context.Context, relayID int64, replay domain.ReplayID, drained bool) (ReplayState, error)
	// Hurry makes due now what waits of a replay because it is paused or its
	// webhook is, or all that waits of it, and names the webhooks of which
	// something is there.
	Hurry(ctx context.Context, replay domain.ReplayID, webhooks []domain.WebhookID, all bool, now time.Time) ([]domain.WebhookID, error)
}

const (
	// replayChunk is how many deliveries are scheduled at a time.
	replayChunk = 128
	// maxAhead is how many deliveries of a replay may be scheduled to a webhook
	// and not begun. A slow webhook so has no more of them in the due table; the
	// rest stays in the plan.
	maxAhead = 256
	// replayLook is when what was requested is looked for where nobody told,
	// and what waits of a replay is looked at again.
	replayLook = 2 * time.Second
	// The times between two counts, while there is something to count and while
	// there is not.
	countSoon, countLate = 500 * time.Millisecond, 4 * time.Second
)

// replayer schedules replays: new deliveries of old notifications, in a lane
// of their own. It reads each webhook's part of a plan forward, a little ahead
// of what is sent. Deliveries go through the due table at once, so that a crash
// on the way loses none; the cursors move behind them.
type replayer struct {
	replays    Replays
	relayID    int64
	dispatcher *dispatcher
	now        func() time.Time
	logger     *slog.Logger

	open map[domain.ReplayID]*openReplay
	// told tells of what was asked for; look, that it has and nobody looked yet.
	told <-chan struct{}
	look bool
	// changed tells of deliveries that were begun: there is room for others.
	changed chan struct{}
	mu      sync.Mutex // guards what is ahead
}

// openReplay is a replay in memory. All of it may be forgotten and read again.
type openReplay struct {
	Replay
	limiter *rate.Limiter
	streams []*replayStream
	at      map[domain.WebhookID]*replayStream
	turn    int // the stream that is first next time
	// ahead is how many deliveries may be scheduled to a webhook and not begun.
	ahead int
	hurry int           // how often what waits is still to be brought back, where it runs
	count time.Time     // when it is counted next
	pause time.Duration // between counts
	begun bool          // deliveries were begun since the last count; guarded
}

// replayStream is a ReplayStream in memory.
type replayStream struct {
	ReplayStream
	unbegun map[int64]struct{} // by EventSeq; guarded
	drained bool
	rests   time.Time // its webhook is paused: until when it is left alone
}

func newReplayer(replays Replays, relayID int64, d *dispatcher, now func() time.Time, logger *slog.Logger) *replayer {
	r := &replayer{
		replays: replays, relayID: relayID, dispatcher: d, now: now, logger: logger,
		open: map[domain.ReplayID]*openReplay{}, changed: make(chan struct{}, 1),
	}
	d.replayBegun = r.begun
	return r
}

// restore tells the dispatcher, before it runs, which replays may send nothing.
func (r *replayer) restore(ctx context.Context) error {
	open, err := r.replays.Open(ctx)
	for _, replay := range open {
		r.dispatcher.replays[replay.ID] = replay.State
	}
	return err
}

// begun hears from the dispatcher that a delivery has left the queue for good.
func (r *replayer) begun(key domain.DeliveryKey) {
	r.mu.Lock()
	if o := r.open[key.ReplayID]; o != nil {
		o.begun = true
		if s := o.at[key.WebhookID]; s != nil {
			delete(s.unbegun, key.EventSeq)
		}
	}
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run carries replays out until ctx ends, or another relay has taken over.
func (r *replayer) run(ctx context.Context, told <-chan struct{}) {
	r.told, r.look = told, true
	var looked time.Time
	for {
		wait, err := replayLook, error(nil)
		if r.look || time.Since(looked) >= replayLook {
			looked, r.look = time.Now(), false
			err = r.lookUp(ctx)
		}
		if err == nil {
			wait, err = r.step(ctx)
		}
		switch {
		case errors.Is(err, ErrFenced):
			return // the lease ends the rest
		case err != nil && ctx.Err() == nil:
			r.logger.Warn("carrying out a replay failed, trying again", "error", err)
			r.forget()
			wait = replayLook / 4
		}
		select {
		case <-told:
			r.look = true
		case <-r.changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// forget drops what is in memory: it is read again.
func (r *replayer) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.open)
}

// lookUp reads which replays are open, and brings back what waits of those that
// go on or are cancelled.
func (r *replayer) lookUp(ctx context.Context) error {
	found, err := r.replays.Open(ctx)
	if err != nil {
		return err
	}
	for id := range r.open {
		if !slices.ContainsFunc(found, func(f Replay) bool { return f.ID == id }) {
			r.drop(id)
		}
	}
	for _, f := range found {
		o := r.open[f.ID]
		if o == nil || o.State != f.State {
			// Before anything of it is brought back.
			if err := r.tell(ctx, func() { r.dispatcher.replays[f.ID] = f.State }); err != nil {
				return err
			}
			if o == nil {
				if o, err = r.read(ctx, f); err != nil {
					return err
				}
			}
			o.State, o.hurry, o.pause, o.count = f.State, 2, countSoon, time.Time{}
		}
		if err := r.bringBack(ctx, o); err != nil {
			return err
		}
		if err := r.recount(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// read takes a replay into memory.
func (r *replayer) read(ctx context.Context, replay Replay) (*openReplay, error) {
	o := &openReplay{Replay: replay, at: map[domain.WebhookID]*replayStream{}, ahead: maxAhead, limiter: rate.NewLimiter(rate.Inf, 0)}
	if replay.Rate > 0 {
		// A tenth of a second's at a time; and what a webhook leaves waiting while
		// it does not answer, it gets at once later.
		o.limiter = rate.NewLimiter(rate.Limit(replay.Rate), int(math.Ceil(math.Min(replay.Rate, 10*replayChunk)/10)))
		o.ahead = int(math.Ceil(math.Min(math.Max(replay.Rate, 4), maxAhead)))
	}
	streams, err := r.replays.Streams(ctx, replay.ID)
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		stream := &replayStream{ReplayStream: s, unbegun: map[int64]struct{}{}}
		o.streams = append(o.streams, stream)
		o.at[s.WebhookID] = stream
	}
	if err := r.readUnbegun(ctx, o, o.streams); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[replay.ID] = o
	return o, nil
}

// readUnbegun reads what is ahead of some streams.
func (r *replayer) readUnbegun(ctx context.Context, o *openReplay, streams []*replayStream) error {
	if len(streams) == 0 {
		return nil
	}
	keys, err := r.replays.Unbegun(ctx, o.ID, webhooksOf(streams), 2*maxAhead)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range streams {
		clear(s.unbegun)
	}
	for _, key := range keys {
		o.at[key.WebhookID].unbegun[key.EventSeq] = struct{}{}
	}
	return nil
}

func webhooksOf(streams []*replayStream) []domain.WebhookID {
	ids := make([]domain.WebhookID, len(streams))
	for i, s := range streams {
		ids[i] = s.WebhookID
	}
	return ids
}

// recount reads anew what is ahead of the streams that are full: what left the
// queues in a way that nobody told must not hold them up.
func (r *replayer) recount(ctx context.Context, o *openReplay) error {
	if o.State != ReplayRunning {
		return nil
	}
	var full []*replayStream
	r.mu.Lock()
	for _, s := range o.streams {
		if !s.drained && o.ahead-len(s.unbegun) < o.least() {
			full = append(full, s)
		}
	}
	r.mu.Unlock()
	return r.readUnbegun(ctx, o, full)
}

// least is for how many deliveries a stream is read on.
func (o *openReplay) least() int { return max(1, o.ahead/4) }

// bringBack lets what waits of a replay come back, once it goes on or is
// cancelled. What was on its way into the due table meanwhile is found by the
// next look.
func (r *replayer) bringBack(ctx context.Context, o *openReplay) error {
	if o.State == ReplayPaused || o.State == ReplayRunning && o.hurry == 0 {
		return nil
	}
	o.hurry = max(0, o.hurry-1)
	webhooks, err := r.replays.Hurry(ctx, o.ID, webhooksOf(o.streams), o.State == ReplayCancelling, r.now())
	if err != nil || len(webhooks) == 0 {
		return err
	}
	return r.tell(ctx, func() { r.dispatcher.lookAgain(webhooks) })
}

// tell runs f in the dispatcher's goroutine, and waits for it.
func (r *replayer) tell(ctx context.Context, f func()) error {
	done := make(chan struct{})
	r.dispatcher.inbox.call(func() { f(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drop forgets a replay that is over.
func (r *replayer) drop(id domain.ReplayID) {
	r.mu.Lock()
	delete(r.open, id)
	r.mu.Unlock()
	r.dispatcher.inbox.call(func() { delete(r.dispatcher.replays, id) })
}

// step schedules a chunk of each replay, and counts. It says how long there is
// nothing to do.
func (r *replayer) step(ctx context.Context) (time.Duration, error) {
	wait := replayLook
	for id, o := range r.open {
		var soon time.Duration
		var err error
		switch o.State {
		case ReplayRunning:
			soon, err = r.schedule(ctx, o)
		case ReplayCancelling:
			soon, err = replayLook, r.catchUp(ctx, o)
		case ReplayPaused:
			soon = replayLook
		}
		if err != nil {
			return 0, err
		}
		wait = min(wait, soon)
		over, err := r.counted(ctx, o)
		switch {
		case err != nil:
			return 0, err
		case over:
			r.drop(id)
		default:
			wait = min(wait, max(0, time.Until(o.count)))
		}
	}
	return wait, nil
}

// counted counts a replay where it is time to, and says whether it is over.
func (r *replayer) counted(ctx context.Context, o *openReplay) (over bool, err error) {
	r.mu.Lock()
	begun := o.begun
	r.mu.Unlock()
	if begun && o.pause > countSoon {
		o.pause = countSoon
		o.count = time.Time{}
	}
	if time.Now().Before(o.count) {
		return false, nil
	}
	r.mu.Lock()
	o.begun = false
	r.mu.Unlock()
	state, err := r.replays.Count(ctx, r.relayID, o.ID, !slices.ContainsFunc(o.streams, func(s *replayStream) bool { return !s.drained }))
	if err != nil {
		return false, err
	}
	o.count = time.Now().Add(o.pause)
	o.pause = min(2*o.pause, countLate)
	if begun {
		o.pause = countSoon
	}
	return state.over(), nil
}

// schedule schedules the next chunk of a replay: of each webhook as many as
// there is room ahead of it.
func (r *replayer) schedule(ctx context.Context, o *openReplay) (wait time.Duration, err error) {
	budget := replayChunk
	if o.Rate > 0 {
		tokens := o.limiter.Tokens()
		if tokens < 1 {
			return time.Duration((1 - tokens) / o.Rate * float64(time.Second)), nil
		}
		budget = min(budget, int(tokens))
	}
	wait = replayLook
	streams, limits := r.room(o, budget)
	if len(streams) == 0 {
		return wait, nil
	}
	places := make([]ReplayStream, len(streams))
	for i, s := range streams {
		places[i] = s.ReplayStream
	}
	planned, err := r.replays.Next(ctx, o.ID, places, limits)
	if err != nil {
		return 0, err
	}
	var found []Delivery
	r.mu.Lock()
	for i := range planned {
		if p := &planned[i]; !p.Begun && !p.Gone {
			found = append(found, p.Delivery)
			o.at[p.Key.WebhookID].unbegun[p.Key.EventSeq] = struct{}{}
		}
	}
	r.mu.Unlock()
	paused, gone, err := r.record(ctx, o.ID, found)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	for i := range planned {
		if p := &planned[i]; slices.Contains(gone, p.Key) {
			p.Gone = true
			delete(o.at[p.Key.WebhookID].unbegun, p.Key.EventSeq)
		}
	}
	r.mu.Unlock()
	var steps []ReplayStep
	scheduled := 0
	for i, s := range streams {
		if slices.Contains(paused, s.WebhookID) {
			s.rests = time.Now().Add(replayLook)
			r.mu.Lock()
			for i := range planned {
				if p := &planned[i]; p.Key.WebhookID == s.WebhookID && !p.Begun {
					delete(s.unbegun, p.Key.EventSeq)
				}
			}
			r.mu.Unlock()
			continue
		}
		step, n := s.over(planned, func(*ReplayDelivery) bool { return true })
		s.drained = n < limits[i]
		if n > 0 {
			steps = append(steps, step)
			scheduled += step.Scheduled
		}
	}
	o.limiter.AllowN(time.Now(), scheduled)
	if len(steps) == 0 {
		return wait, nil
	}
	if err := r.replays.Advance(ctx, r.relayID, o.ID, steps); err != nil {
		return 0, err
	}
	r.mu.Lock()
	o.begun = true
	r.mu.Unlock()
	return 0, nil
}

// room gives the streams that may be read on, and by how many deliveries each.
func (r *replayer) room(o *openReplay, budget int) (streams []*replayStream, limits []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	n := len(o.streams)
	first := o.turn
	for i := range n {
		s := o.streams[(first+i)%n]
		room := o.ahead - len(s.unbegun)
		if s.drained || room < o.least() || now.Before(s.rests) {
			continue
		}
		if budget == 0 {
			break
		}
		limit := min(room, budget, max(16, replayChunk/n))
		budget -= limit
		streams, limits = append(streams, s), append(limits, limit)
		o.turn = (first + i + 1) % n
	}
	return streams, limits
}

// over moves a stream's cursor over those planned deliveries of it that come
// first and that may be passed. n counts them.
func (s *replayStream) over(planned []ReplayDelivery, may func(*ReplayDelivery) bool) (step ReplayStep, n int) {
	for i := range planned {
		p := &planned[i]
		if p.Key.WebhookID != s.WebhookID {
			continue
		}
		if !may(p) {
			break
		}
		n++
		s.Cursor = p.Pos
		if p.Gone {
			step.Gone++
		} else {
			step.Scheduled++
		}
	}
	step.ReplayStream = s.ReplayStream
	return step, n
}

// catchUp moves the cursors of a cancelled replay over what a relay scheduled
// that died before it moved them. Nothing of it is scheduled any more.
func (r *replayer) catchUp(ctx context.Context, o *openReplay) error {
	for _, s := range o.streams {
		if s.drained {
			continue
		}
		planned, err := r.replays.Next(ctx, o.ID, []ReplayStream{s.ReplayStream}, []int{maxAhead})
		if err != nil {
			return err
		}
		if step, n := s.over(planned, func(p *ReplayDelivery) bool { return p.Begun }); n > 0 {
			if err := r.replays.Advance(ctx, r.relayID, o.ID, []ReplayStep{step}); err != nil {
				return err
			}
		}
		s.drained = true
	}
	return nil
}

// record schedules deliveries and waits until they are on record, but for those
// to paused webhooks, which it names: these stay in the plan. gone are those
// that never will be, since the payload is about to go.
func (r *replayer) record(ctx context.Context, id domain.ReplayID, found []Delivery) (paused []domain.WebhookID, gone []domain.DeliveryKey, err error) {
	if len(found) == 0 {
		return nil, nil, nil
	}
	done := make(chan struct{})
	r.dispatcher.inbox.call(func() {
		r.dispatcher.beginReplay(id, found, func(p []domain.WebhookID, g []domain.DeliveryKey) {
			paused, gone = p, g
			close(done)
		})
	})
	for {
		select {
		case <-done:
			return paused, gone, nil
		case <-r.told:
			// It may take a while until they are on record: who pauses a replay
			// does not wait for that.
			r.look = true
			if err := r.tellStates(ctx); err != nil {
				return nil, nil, err
			}
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// tellStates lets the dispatcher know what replays may do now.
func (r *replayer) tellStates(ctx context.Context) error {
	found, err := r.replays.Open(ctx)
	if err != nil {
		return err
	}
	return r.tell(ctx, func() {
		for _, f := range found {
			r.dispatcher.replays[f.ID] = f.State
		}
	})
}

// beginReplay schedules new deliveries; done hears when they are on record.
// Webhooks that are not known, or not as enabled, are read first: one may have
// been enabled just before the request.
func (d *dispatcher) beginReplay(id domain.ReplayID, found []Delivery, done func(paused []domain.WebhookID, gone []domain.DeliveryKey)) {
	var ids []domain.WebhookID
	for i := range found {
		webhook := found[i].Key.WebhookID
		if q := d.queues[webhook]; (q == nil || q.hook.State != domain.WebhookEnabled) && !slices.Contains(ids, webhook) {
			ids = append(ids, webhook)
		}
	}
	if len(ids) == 0 {
		d.scheduleReplay(id, found, done)
		return
	}
	d.load(ids, func() { d.scheduleReplay(id, found, done) }, func() { d.beginReplay(id, found, done) })
}

func (d *dispatcher) scheduleReplay(id domain.ReplayID, found []Delivery, done func(paused []domain.WebhookID, gone []domain.DeliveryKey)) {
	now := d.now()
	var paused []domain.WebhookID
	var gone []domain.DeliveryKey
	left := 1
	recorded := func() {
		left--
		if left == 0 {
			done(paused, gone)
		}
	}
	for i := range found {
		f := found[i]
		f.Key.ReplayID = id
		if d.ending(f.Key.EventSeq) != nil {
			gone = append(gone, f.Key)
			continue
		}
		q := d.queues[f.Key.WebhookID]
		if q.hook.State == domain.WebhookPaused {
			if !slices.Contains(paused, q.hook.ID) {
				paused = append(paused, q.hook.ID)
			}
			continue
		}
		f.State = domain.Delivery{}
		it := d.newItem(&f)
		events, err := domain.Decide(it.State, domain.Schedule{At: now, Event: f.Event, WebhookVersion: q.hook.Version})
		if err != nil {
			d.logger.Error("a replay's delivery cannot be scheduled", "event_seq", f.Key.EventSeq, "error", err)
			gone = append(gone, f.Key) // so that the replay ends
			continue
		}
		s := d.step(stepSchedule, it, events)
		s.EventID = f.EventID
		s.scheduled = recorded
		left++
		d.overflow(q, replayLane)
		d.wait(s, it, DueOverflow, now)
		d.out = append(d.out, s)
	}
	recorded()
}

// lookAgain reads what waits of webhooks' replays from its beginning.
func (d *dispatcher) lookAgain(ids []domain.WebhookID) {
	var unknown []domain.WebhookID
	for _, id := range ids {
		q := d.queues[id]
		if q == nil {
			unknown = append(unknown, id)
			continue
		}
		d.overflow(q, replayLane)
		q.lanes[replayLane].cursor = Cursor{}
	}
	if len(unknown) > 0 {
		again := func() { d.lookAgain(unknown) }
		d.load(unknown, again, again)
	}
}

// cancels says whether a delivery that is not under way ends here, and why.
func (d *dispatcher) cancels(q *queue, it *item) (reason string, cancels bool) {
	if reason, cancels = q.hook.Cancels(it.State.WebhookVersion); !cancels && it.Key.ReplayID != 0 && d.replays[it.Key.ReplayID] == ReplayCancelling {
		return domain.CancelledReplay, true
	}
	return reason, cancels
}

// pauses says whether a delivery waits for its webhook or its replay to go on.
func (d *dispatcher) pauses(q *queue, it *item) (reason domain.HoldReason, pauses bool) {
	switch {
	case q.hook.State == domain.WebhookPaused:
		return domain.HoldPaused, true
	case it.Key.ReplayID != 0 && d.replays[it.Key.ReplayID] == ReplayPaused:
		return domain.HoldReplay, true
	}
	return "", false
}

// begin tells the replayer of a delivery that waits no longer.
func (d *dispatcher) begin(it *item) {
	if it.Key.ReplayID != 0 && (it.State.Open || it.State.Status.Final()) {
		d.replayBegun(it.Key)
	}
}
