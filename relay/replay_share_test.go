package relay

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/outrider-relay/outrider/domain"
)

// planned is a replay whose streams other relays move too.
type planned struct {
	Replays
	replay  Replay
	streams map[domain.WebhookID]ReplayStream
	next    []ReplayDelivery
	hurried []domain.WebhookID
	reads   int
}

func (p *planned) Open(context.Context) ([]Replay, error) { return []Replay{p.replay}, nil }

func (p *planned) Streams(_ context.Context, _ domain.ReplayID, shards Shards) (found []ReplayStream, err error) {
	p.reads++
	for _, id := range slices.Sorted(maps.Keys(p.streams)) {
		if shards.Has(id) {
			found = append(found, p.streams[id])
		}
	}
	return found, nil
}

func (p *planned) Undrained(context.Context, domain.ReplayID) (n int, err error) {
	for _, s := range p.streams {
		if !s.Drained {
			n++
		}
	}
	return n, nil
}

func (p *planned) Unbegun(_ context.Context, id domain.ReplayID, webhooks []domain.WebhookID, _ int) (keys []domain.DeliveryKey, err error) {
	for _, webhook := range webhooks {
		keys = append(keys, domain.DeliveryKey{EventSeq: 1, WebhookID: webhook, ReplayID: id})
	}
	return keys, nil
}

func (p *planned) Hurry(_ context.Context, _ domain.ReplayID, webhooks []domain.WebhookID, _ bool, _ time.Time) ([]domain.WebhookID, error) {
	p.hurried = append(p.hurried, webhooks...)
	return nil, nil
}

func (p *planned) Next(_ context.Context, _ domain.ReplayID, streams []ReplayStream, _ []int) (found []ReplayDelivery, err error) {
	for _, next := range p.next {
		if slices.ContainsFunc(streams, func(s ReplayStream) bool { return s.WebhookID == next.Key.WebhookID && s.Cursor < next.Pos }) {
			found = append(found, next)
		}
	}
	return found, nil
}

func (p *planned) Advance(_ context.Context, _ int64, _ domain.ReplayID, steps []ReplayStep) (all bool, err error) {
	all = true
	for _, step := range steps {
		if p.streams[step.WebhookID].Cursor != step.From {
			all = false
			continue
		}
		p.streams[step.WebhookID] = step.ReplayStream
	}
	return all, nil
}

func (p *planned) Count(context.Context, int64, domain.ReplayID) (ReplayState, error) {
	return p.replay.State, nil
}

// carrying is a replayer of a plan, and the shards that it has.
func carrying(t *testing.T, p *planned, shards *Shards) *replayer {
	t.Helper()
	d := newDispatcher(nil, nil, domain.RetryPolicy{}, time.Now, slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-d.inbox.wake:
				d.take()
			case <-ended:
				return
			}
		}
	}()
	t.Cleanup(func() { close(ended) })
	return newReplayer(p, 1, func() Shards { return *shards }, d, time.Now, d.logger)
}

func streamsOf(n int) map[domain.WebhookID]ReplayStream {
	streams := map[domain.WebhookID]ReplayStream{}
	for i := range n {
		streams[domain.WebhookID(i)] = ReplayStream{WebhookID: domain.WebhookID(i), Cursor: -1}
	}
	return streams
}

// looksUp lets a replayer look, and checks which streams it has then.
func (r *replayer) looksUp(t *testing.T, want ...domain.WebhookID) {
	t.Helper()
	if err := r.lookUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := r.open[1]
	if got := webhooksOf(o.streams); !slices.Equal(got, want) || len(o.at) != len(want) {
		t.Errorf("the streams are %v, want %v", got, want)
	}
}

func TestAReplayersStreamsFollowItsShards(t *testing.T) {
	t.Parallel()
	p := &planned{replay: Replay{ID: 1, State: ReplayRunning}, streams: streamsOf(4)}
	shards := ShardOf(0) | ShardOf(1)
	r := carrying(t, p, &shards)
	r.looksUp(t, 0, 1)
	r.looksUp(t, 0, 1)
	if p.reads != 1 {
		t.Errorf("streams that stay were read %d times", p.reads)
	}
	kept := r.open[1].at[1]
	kept.unbegun = map[int64]struct{}{7: {}}
	p.hurried = nil
	shards = ShardOf(1) | ShardOf(2)
	r.looksUp(t, 1, 2)
	if r.open[1].at[1] != kept || len(kept.unbegun) != 1 || len(r.open[1].at[2].unbegun) != 1 {
		t.Error("what is known of a stream that stays is forgotten, or not read of one that came")
	}
	if !slices.Contains(p.hurried, 2) {
		t.Errorf("what waits of a stream that came was not brought back: %v", p.hurried)
	}
	// Lost and gained between two looks, and moved meanwhile: the step that fails
	// tells.
	p.streams[1] = ReplayStream{WebhookID: 1, Cursor: 5}
	p.next = []ReplayDelivery{{Delivery: Delivery{Key: domain.DeliveryKey{EventSeq: 9, WebhookID: 1, ReplayID: 1}, Pos: 3}, Begun: true}}
	if _, err := r.schedule(t.Context(), r.open[1]); err != nil || !r.look {
		t.Errorf("after a step from where the stream is not: looks again: %t; %v", r.look, err)
	}
	r.looksUp(t, 1, 2)
	if s := r.open[1].at[1]; s.Cursor != 5 || p.streams[1].Cursor != 5 {
		t.Errorf("the stream is at %d, in the database at %d, want 5", s.Cursor, p.streams[1].Cursor)
	}
	shards = 0
	r.looksUp(t)
}

// TestAReplayerLooksAtOnceWhenShardsChange, and not when it would look anyway.
func TestAReplayerLooksAtOnceWhenShardsChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &planned{replay: Replay{ID: 1, State: ReplayRunning}, streams: streamsOf(4)}
		shards := ShardOf(0)
		r := carrying(t, p, &shards)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx, nil) }()
		synctest.Wait()
		begun := time.Now()
		shards = AllShards
		r.sharesChanged()
		synctest.Wait()
		if p.reads != 2 || time.Since(begun) != 0 {
			t.Errorf("the streams were read %d times after %s", p.reads, time.Since(begun))
		}
		stop()
		<-ended
	})
}

func TestARelayTakesItsPartOfAReplaysRate(t *testing.T) {
	t.Parallel()
	p := &planned{replay: Replay{ID: 1, State: ReplayRunning, Rate: 100}, streams: streamsOf(4)}
	shards := AllShards
	r := carrying(t, p, &shards)
	for _, c := range []struct {
		scenario string
		change   func()
		want     rate.Limit
	}{
		{"it has all", func() {}, 100},
		{"it has one of four", func() { shards = ShardOf(0) }, 25},
		{"another's is drained", func() { p.streams[3] = ReplayStream{WebhookID: 3, Drained: true} }, 100.0 / 3},
		{"it has two of three", func() { shards = ShardOf(0) | ShardOf(2) | ShardOf(3) }, 200.0 / 3},
		{"its own are drained", func() { r.open[1].at[0].Drained, r.open[1].at[2].Drained = true, true }, 0},
	} {
		c.change()
		if err := r.lookUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.open[1].limiter.Limit(); math.Abs(float64(got-c.want)) > 1e-9 {
			t.Errorf("%s: its rate is %v, want %v", c.scenario, got, c.want)
		}
	}
	if wait, err := r.schedule(t.Context(), r.open[1]); err != nil || wait != replayLook {
		t.Errorf("with no part of the rate it comes back after %s, %v", wait, err)
	}
}

// TestACancelledReplayIsCaughtUpWith: what a relay had scheduled that did not
// move the cursor counts, and what is behind it in the plan stays there.
func TestACancelledReplayIsCaughtUpWith(t *testing.T) {
	t.Parallel()
	p := &planned{replay: Replay{ID: 1, State: ReplayCancelling}, streams: streamsOf(40)}
	for i, begun := range []bool{true, false, true, false} {
		p.next = append(p.next, ReplayDelivery{Delivery: Delivery{Key: domain.DeliveryKey{WebhookID: 7, ReplayID: 1}, Pos: int64(i)}, Begun: begun})
	}
	shards := AllShards
	r := carrying(t, p, &shards)
	if err := r.lookUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, s := range p.streams {
		if want := map[bool]int64{true: 2, false: -1}[id == 7]; s.Cursor != want || !s.Drained {
			t.Errorf("the stream of webhook %d is at %d, want %d, and drained: %t", id, s.Cursor, want, s.Drained)
		}
	}
	mine := passed(p.next)
	step := (&replayStream{}).over(mine, true)
	if step.Scheduled != 2 || step.Gone != 1 {
		t.Errorf("%d were scheduled and %d gone, want 2 and 1", step.Scheduled, step.Gone)
	}
}

// TestOnlyOwnDeliveriesOfAReplayAreScheduled: those of shards that the relay has
// not, or lost on the way, stay in the plan, and nothing looks for what waits
// there.
func TestOnlyOwnDeliveriesOfAReplayAreScheduled(t *testing.T) {
	t.Parallel()
	d := newDispatcher(nil, nil, domain.RetryPolicy{}, time.Now, slog.New(slog.DiscardHandler))
	d.shards = ShardOf(1) | ShardOf(3)
	for _, id := range []domain.WebhookID{1, 2} {
		d.queues[id] = newQueue(domain.Webhook{ID: id, State: domain.WebhookEnabled})
	}
	var found []Delivery
	for id := range 3 {
		found = append(found, Delivery{Key: domain.DeliveryKey{EventSeq: 5, WebhookID: domain.WebhookID(id + 1), ReplayID: 1}, Event: "message_created"})
	}
	var kept []domain.WebhookID
	done := false
	d.scheduleReplay(1, found, func(k []domain.WebhookID, _ []domain.DeliveryKey) { kept, done = k, true })
	if len(d.out) != 1 || d.out[0].Key.WebhookID != 1 || done {
		t.Fatalf("%d deliveries are scheduled", len(d.out))
	}
	d.out[0].scheduled()
	if !done || !slices.Equal(kept, []domain.WebhookID{2, 3}) {
		t.Errorf("the deliveries to %v stay in the plan, want those to 2 and 3", kept)
	}
	d.beginReplay(1, found[1:2], []domain.WebhookID{2}, func(k []domain.WebhookID, _ []domain.DeliveryKey) { kept = k })
	if !slices.Equal(kept, []domain.WebhookID{2}) || len(d.reads) != 0 {
		t.Errorf("a delivery of another relay's webhook: %v stays, and %d reads are begun", kept, len(d.reads))
	}
	d.lookAgain([]domain.WebhookID{2, 4})
	d.bringForward([]domain.WebhookID{2, 4})
	if len(d.reads) != 0 || d.queues[2].lanes[replayLane].overflow || d.queues[2].lanes[freshLane].overflow {
		t.Error("what waits of another relay's webhooks is looked for")
	}
}

// A replay may be paused while its deliveries are on their way to the record, and
// go on before anybody has looked again.
func TestAPauseThatNoLookFoundIsOver(t *testing.T) {
	t.Parallel()
	shards := AllShards
	p := &planned{replay: Replay{ID: 7, State: ReplayRunning}, streams: streamsOf(3)}
	r := carrying(t, p, &shards)
	step := func(state ReplayState, look func(context.Context) error) {
		t.Helper()
		p.replay.State, p.hurried = state, nil
		if err := look(t.Context()); err != nil {
			t.Fatal(err)
		}
		var told ReplayState
		if err := r.dispatcher.inbox.within(t.Context(), func() { told = r.dispatcher.replays[7] }); err != nil {
			t.Fatal(err)
		}
		if told != state {
			t.Errorf("the dispatcher was told that it is %s, want %s", told, state)
		}
	}
	step(ReplayRunning, r.lookUp)
	step(ReplayPaused, r.tellStates)
	step(ReplayRunning, r.lookUp)
	if want := []domain.WebhookID{0, 1, 2}; !slices.Equal(p.hurried, want) {
		t.Errorf("what waits for the webhooks %v was brought back, want %v", p.hurried, want)
	}
}
