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
	// Drained says that nothing more of it will be scheduled: its plan is at the
	// end, or the replay was cancelled.
	Drained bool
}

// ReplayDelivery is a planned delivery.
type ReplayDelivery struct {
	Delivery
	// Begun says that it is scheduled already, by a relay that died, or lost the
	// webhook's shard, before it moved the cursor.
	Begun bool
	// Gone says that its event is in the log no more, or has no payload.
	Gone bool
}

// ReplayStep moves a stream's cursor from where it was.
type ReplayStep struct {
	ReplayStream
	From            int64
	Scheduled, Gone int
}

// Replays keeps plans and how far they are. Each relay carries out the streams
// of the webhooks whose shards it has; all of them count.
type Replays interface {
	// Open lists the replays that are not over, oldest first.
	Open(ctx context.Context) ([]Replay, error)
	// Streams lists those webhooks of a replay that are in some shards.
	Streams(ctx context.Context, replay domain.ReplayID, shards Shards) ([]ReplayStream, error)
	// Undrained counts the streams of a replay, whoever has them, of which
	// something remains to be scheduled.
	Undrained(ctx context.Context, replay domain.ReplayID) (int, error)
	// Unbegun reads which of a replay's scheduled deliveries have had no attempt,
	// of each webhook at most limit.
	Unbegun(ctx context.Context, replay domain.ReplayID, webhooks []domain.WebhookID, limit int) ([]domain.DeliveryKey, error)
	// Next reads the planned deliveries behind each stream's cursor, in routing
	// order, limits[i] of the i-th at most.
	Next(ctx context.Context, replay domain.ReplayID, streams []ReplayStream, limits []int) ([]ReplayDelivery, error)
	// Advance moves cursors. all is false where another relay has moved some of
	// them: these stay where they are. ErrFenced where another relay has taken
	// over.
	Advance(ctx context.Context, relayID int64, replay domain.ReplayID, steps []ReplayStep) (all bool, err error)
	// Count counts what is finished, by whichever relay, and gives the state that
	// follows. ErrFenced as Advance.
	Count(ctx context.Context, relayID int64, replay domain.ReplayID) (ReplayState, error)
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
	// catchUpStreams is how many streams are caught up with at a time.
	catchUpStreams = 16
)

// replayer schedules replays: new deliveries of old notifications, in a lane
// of their own. It reads each webhook's part of a plan forward, a little ahead
// of what is sent, where the relay has the webhook's shard. Deliveries go through
// the due table at once, so that a crash on the way loses none; the cursors move
// behind them. A stream that the relay loses it just leaves: who takes it up finds
// what is scheduled beyond the cursor, as after a crash.
type replayer struct {
	replays    Replays
	relayID    int64
	shards     func() Shards // those that the relay has
	dispatcher *dispatcher
	now        func() time.Time
	logger     *slog.Logger

	open map[domain.ReplayID]*openReplay
	// told tells of what was asked for; look, that it has and nobody looked yet.
	told <-chan struct{}
	look bool
	// changed tells of deliveries that were begun: there is room for others;
	// shared, that the relay gained or lost shards.
	changed, shared chan struct{}
	mu              sync.Mutex // guards what is ahead
}

// openReplay is a replay in memory. All of it may be forgotten and read again.
type openReplay struct {
	Replay
	// limiter has this relay's part of the rate, and part is what that is of the
	// whole.
	limiter *rate.Limiter
	part    float64
	// known says that its streams are those of these shards.
	known   bool
	shards  Shards
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
	rests   time.Time          // its webhook is paused: until when it is left alone
	read    bool               // its webhook was read since it was taken up
}

func newReplayer(replays Replays, relayID int64, shards func() Shards, d *dispatcher, now func() time.Time, logger *slog.Logger) *replayer {
	r := &replayer{
		replays: replays, relayID: relayID, shards: shards, dispatcher: d, now: now, logger: logger,
		open: map[domain.ReplayID]*openReplay{}, changed: make(chan struct{}, 1), shared: make(chan struct{}, 1),
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
	poke(r.changed)
}

// sharesChanged tells that the relay gained or lost shards: it looks up at once
// which streams are its own now.
func (r *replayer) sharesChanged() { poke(r.shared) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
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
		case <-r.shared:
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

// lookUp reads which replays are open and which streams of theirs this relay has,
// and brings back what waits of those that go on or are cancelled.
func (r *replayer) lookUp(ctx context.Context) error {
	shards := r.shards()
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
			var webhooks []domain.WebhookID
			if o != nil {
				webhooks = webhooksOf(o.streams)
			}
			if err := r.dispatcher.inbox.within(ctx, func() { r.dispatcher.setReplay(f.ID, f.State, webhooks) }); err != nil {
				return err
			}
			if o == nil {
				o = r.begin(f)
			}
			o.become(f.State)
		}
		for _, look := range []func() error{
			func() error { return r.takeUp(ctx, o, shards) },
			func() error { return r.share(ctx, o) },
			func() error { return r.bringBack(ctx, o) },
			func() error { return r.recount(ctx, o) },
		} {
			if err := look(); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin takes a replay into memory, without its streams.
func (r *replayer) begin(replay Replay) *openReplay {
	o := &openReplay{Replay: replay, at: map[domain.WebhookID]*replayStream{}, ahead: maxAhead, limiter: rate.NewLimiter(rate.Inf, 0)}
	if replay.Rate > 0 {
		// What a webhook leaves waiting while it does not answer, it gets at once
		// later.
		o.ahead = int(math.Ceil(math.Min(math.Max(replay.Rate, 4), maxAhead)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[replay.ID] = o
	return o
}

// become takes another state: what waits is brought back where the replay goes on.
func (o *openReplay) become(state ReplayState) {
	o.State, o.hurry, o.pause, o.count = state, 2, countSoon, time.Time{}
}

// takeUp makes a replay's streams those of some shards. What is known of one
// stays, unless another relay had it meanwhile.
func (r *replayer) takeUp(ctx context.Context, o *openReplay, shards Shards) error {
	if o.known && o.shards == shards {
		return nil
	}
	found, err := r.replays.Streams(ctx, o.ID, shards)
	if err != nil {
		return err
	}
	var all, gained []*replayStream
	at := make(map[domain.WebhookID]*replayStream, len(found))
	for _, f := range found {
		s := o.at[f.WebhookID]
		if s == nil || s.ReplayStream != f {
			s = &replayStream{ReplayStream: f, unbegun: map[int64]struct{}{}}
			gained = append(gained, s)
		}
		all = append(all, s)
		at[f.WebhookID] = s
	}
	r.mu.Lock()
	o.streams, o.at = all, at
	r.mu.Unlock()
	if len(gained) > 0 {
		o.hurry = 2
	}
	if err := r.readUnbegun(ctx, o, gained); err != nil {
		return err
	}
	o.known, o.shards = true, shards
	return nil
}

// share takes this relay's part of a replay's rate: what its streams are of all
// that are not drained.
func (r *replayer) share(ctx context.Context, o *openReplay) error {
	if o.Rate == 0 {
		return nil
	}
	own := 0
	for _, s := range o.streams {
		if !s.Drained {
			own++
		}
	}
	part := 0.0
	if own > 0 {
		all, err := r.replays.Undrained(ctx, o.ID)
		if err != nil {
			return err
		}
		part = min(1, float64(own)/float64(max(all, 1)))
	}
	if part == o.part {
		return nil
	}
	// A tenth of a second's at a time; the first at once, but not of each relay.
	limit := o.Rate * part
	burst := int(math.Ceil(math.Min(limit, 10*replayChunk) / 10))
	if o.part == 0 && part == 1 {
		o.limiter = rate.NewLimiter(rate.Limit(limit), burst)
	} else {
		o.limiter.SetLimit(rate.Limit(limit))
		o.limiter.SetBurst(burst)
	}
	o.part = part
	return nil
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
		if !s.Drained && o.ahead-len(s.unbegun) < o.least() {
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
	if len(o.streams) == 0 || o.State == ReplayPaused || o.State == ReplayRunning && o.hurry == 0 {
		return nil
	}
	o.hurry = max(0, o.hurry-1)
	webhooks, err := r.replays.Hurry(ctx, o.ID, webhooksOf(o.streams), o.State == ReplayCancelling, r.now())
	if err != nil {
		return err
	}
	return r.dispatcher.inbox.within(ctx, func() {
		r.dispatcher.endResume(o.ID)
		r.dispatcher.lookAgain(webhooks)
	})
}

// drop forgets a replay that is over.
func (r *replayer) drop(id domain.ReplayID) {
	r.mu.Lock()
	delete(r.open, id)
	r.mu.Unlock()
	r.dispatcher.inbox.call(func() {
		r.dispatcher.endResume(id)
		delete(r.dispatcher.replays, id)
	})
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
	begun := o.begun && len(o.streams) > 0
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
	state, err := r.replays.Count(ctx, r.relayID, o.ID)
	if err != nil {
		return false, err
	}
	if len(o.streams) == 0 {
		o.pause = countLate // others see first what is to be counted
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
	wait = replayLook
	budget := replayChunk
	if o.Rate > 0 {
		if o.part == 0 {
			return wait, nil
		}
		tokens := o.limiter.Tokens()
		if tokens < 1 {
			return min(wait, time.Duration((1-tokens)/(o.Rate*o.part)*float64(time.Second))), nil
		}
		budget = min(budget, int(tokens))
	}
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
	var unread []domain.WebhookID
	for _, s := range streams {
		if !s.read {
			unread = append(unread, s.WebhookID)
		}
	}
	kept, gone, err := r.record(ctx, o.ID, found, unread)
	if err != nil {
		return 0, err
	}
	for i := range found {
		o.at[found[i].Key.WebhookID].read = true
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
		if slices.Contains(kept, s.WebhookID) {
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
		mine := s.of(planned)
		if drained := len(mine) < limits[i]; drained || len(mine) > 0 {
			step := s.over(mine, drained)
			steps = append(steps, step)
			scheduled += step.Scheduled
		}
	}
	o.limiter.AllowN(time.Now(), scheduled)
	if len(steps) == 0 {
		return wait, nil
	}
	if err := r.advance(ctx, o, steps); err != nil {
		return 0, err
	}
	r.mu.Lock()
	o.begun = true
	r.mu.Unlock()
	return 0, nil
}

// advance moves cursors. Where another relay has moved one of them, the streams
// are read again.
func (r *replayer) advance(ctx context.Context, o *openReplay, steps []ReplayStep) error {
	all, err := r.replays.Advance(ctx, r.relayID, o.ID, steps)
	if err == nil && !all {
		o.known, r.look = false, true
	}
	return err
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
		if s.Drained || room < o.least() || now.Before(s.rests) {
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

// of gives those planned deliveries that are of a stream.
func (s *replayStream) of(planned []ReplayDelivery) (mine []ReplayDelivery) {
	for i := range planned {
		if planned[i].Key.WebhookID == s.WebhookID {
			mine = append(mine, planned[i])
		}
	}
	return mine
}

// over moves a stream's cursor over planned deliveries of it. drained says that
// nothing more of it will be scheduled.
func (s *replayStream) over(mine []ReplayDelivery, drained bool) ReplayStep {
	step := ReplayStep{From: s.Cursor}
	for i := range mine {
		s.Cursor = mine[i].Pos
		if mine[i].Gone {
			step.Gone++
		} else {
			step.Scheduled++
		}
	}
	s.Drained = drained
	step.ReplayStream = s.ReplayStream
	return step
}

// catchUp moves the cursors of a cancelled replay over what a relay scheduled
// that died, or lost the shard, before it moved them. Nothing of it is scheduled
// any more.
func (r *replayer) catchUp(ctx context.Context, o *openReplay) error {
	undrained := slices.DeleteFunc(slices.Clone(o.streams), func(s *replayStream) bool { return s.Drained })
	for streams := range slices.Chunk(undrained, catchUpStreams) {
		places, limits := make([]ReplayStream, len(streams)), make([]int, len(streams))
		for i, s := range streams {
			places[i], limits[i] = s.ReplayStream, maxAhead
		}
		planned, err := r.replays.Next(ctx, o.ID, places, limits)
		if err != nil {
			return err
		}
		steps := make([]ReplayStep, len(streams))
		for i, s := range streams {
			steps[i] = s.over(passed(s.of(planned)), true)
		}
		if err := r.advance(ctx, o, steps); err != nil {
			return err
		}
	}
	return nil
}

// passed gives the planned deliveries of a stream that a relay had passed which
// did not move the cursor: up to the last that is scheduled. What lies between
// and is not was gone.
func passed(mine []ReplayDelivery) []ReplayDelivery {
	for len(mine) > 0 && !mine[len(mine)-1].Begun {
		mine = mine[:len(mine)-1]
	}
	for i := range mine {
		mine[i].Gone = !mine[i].Begun
	}
	return mine
}

// record schedules deliveries and waits until they are on record, but for those
// to some webhooks, which it names: these stay in the plan. gone are those that
// never will be, since the payload is about to go. unread are the webhooks to be
// read first.
func (r *replayer) record(ctx context.Context, id domain.ReplayID, found []Delivery, unread []domain.WebhookID) (kept []domain.WebhookID, gone []domain.DeliveryKey, err error) {
	if len(found) == 0 {
		return nil, nil, nil
	}
	done := make(chan struct{})
	r.dispatcher.inbox.call(func() {
		r.dispatcher.beginReplay(id, found, unread, func(k []domain.WebhookID, g []domain.DeliveryKey) {
			kept, gone = k, g
			close(done)
		})
	})
	for {
		select {
		case <-done:
			return kept, gone, nil
		case <-r.told:
			// It may take a while until they are on record: who pauses a replay
			// does not wait for that. Where it fails, the next look tells: what is
			// under way must be awaited, or a cancelled replay might be over before
			// it is on record.
			r.look = true
			if err := r.tellStates(ctx); err != nil && ctx.Err() == nil {
				r.logger.Warn("reading the states of replays failed, trying again", "error", err)
			}
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// tellStates lets the dispatcher know what replays may do now. What it was told is
// noted here too: a pause may be over before the next look, which would find the
// state of the one before.
func (r *replayer) tellStates(ctx context.Context) error {
	found, err := r.replays.Open(ctx)
	if err != nil {
		return err
	}
	webhooks := map[domain.ReplayID][]domain.WebhookID{}
	for id, o := range r.open {
		webhooks[id] = webhooksOf(o.streams)
	}
	err = r.dispatcher.inbox.within(ctx, func() {
		for _, f := range found {
			r.dispatcher.setReplay(f.ID, f.State, webhooks[f.ID])
		}
	})
	if err != nil {
		return err
	}
	for _, f := range found {
		if o := r.open[f.ID]; o != nil && o.State != f.State {
			o.become(f.State)
		}
	}
	return nil
}

// setReplay takes what a replay may do now. Where its pause is over, what that
// held of its webhooks goes first, also before what of it has come no further
// than the due table: see resume.
func (d *dispatcher) setReplay(id domain.ReplayID, state ReplayState, webhooks []domain.WebhookID) {
	before := d.replays[id]
	d.replays[id] = state
	switch {
	case before == state:
	case before == ReplayPaused && state == ReplayRunning:
		for _, webhook := range webhooks {
			if q := d.queues[webhook]; q != nil {
				q.hurrying++
				q.resume(replayLane)
				// It may be of a later page than what was held again.
				for _, it := range q.unload(replayLane, func(it *item) bool { return it.Key.ReplayID == id && !it.fetching }) {
					d.putAway(q, it)
				}
				d.resumes[id] = append(d.resumes[id], q)
			}
		}
	default:
		d.endResume(id)
	}
}

// endResume reads what waits of a replay's webhooks from its beginning: what the
// replay's pause held is due before all else by now.
func (d *dispatcher) endResume(id domain.ReplayID) {
	for _, q := range d.resumes[id] {
		q.hurrying--
		lane := &q.lanes[replayLane]
		lane.hurried++
		lane.cursor = Cursor{}
		d.overflow(q, replayLane)
	}
	delete(d.resumes, id)
}

// beginReplay schedules new deliveries; done hears when they are on record.
// Webhooks that are not known, not as enabled, or unread, are read first: one may
// have been enabled just before the request, be it after a disabling that nobody
// here has heard of, which must cancel nothing of the replay. Deliveries to a
// webhook that is paused stay in the plan, and so do those to one whose shard this
// relay has not, or not any more: kept names these webhooks.
func (d *dispatcher) beginReplay(id domain.ReplayID, found []Delivery, unread []domain.WebhookID, done func(kept []domain.WebhookID, gone []domain.DeliveryKey)) {
	var ids []domain.WebhookID
	for i := range found {
		webhook := found[i].Key.WebhookID
		if q := d.queues[webhook]; d.shards.Has(webhook) && (q == nil || q.hook.State != domain.WebhookEnabled || slices.Contains(unread, webhook)) && !slices.Contains(ids, webhook) {
			ids = append(ids, webhook)
		}
	}
	if len(ids) == 0 {
		d.scheduleReplay(id, found, done)
		return
	}
	d.load(ids, func() { d.scheduleReplay(id, found, done) }, func() { d.beginReplay(id, found, unread, done) })
}

func (d *dispatcher) scheduleReplay(id domain.ReplayID, found []Delivery, done func(kept []domain.WebhookID, gone []domain.DeliveryKey)) {
	now := d.now()
	var kept []domain.WebhookID
	var gone []domain.DeliveryKey
	left := 1
	recorded := func() {
		left--
		if left == 0 {
			done(kept, gone)
		}
	}
	for i := range found {
		f := found[i]
		f.Key.ReplayID = id
		q := d.queues[f.Key.WebhookID] // nil also where its shard was lost, and came back just now
		if !d.shards.Has(f.Key.WebhookID) || q == nil || q.hook.State == domain.WebhookPaused {
			if !slices.Contains(kept, f.Key.WebhookID) {
				kept = append(kept, f.Key.WebhookID)
			}
			continue
		}
		if d.ending(f.Key.EventSeq) != nil {
			gone = append(gone, f.Key)
			continue
		}
		f.State = domain.Delivery{}
		it := d.newItem(&f)
		events, err := domain.Decide(it.State, domain.Schedule{At: now, Deadline: q.hook.Settings.DeadlineOf(f.Event), WebhookVersion: q.hook.Version})
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

// lookAgain reads what waits of webhooks' replays from its beginning. Shards that
// were lost meanwhile are another relay's matter.
func (d *dispatcher) lookAgain(ids []domain.WebhookID) {
	var unknown []domain.WebhookID
	for _, id := range ids {
		if !d.shards.Has(id) {
			continue
		}
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
