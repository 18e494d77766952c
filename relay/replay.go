package relay

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Replay is a request for new deliveries of old chat events.
type Replay struct {
	ID     domain.ReplayID
	Cursor int64 // the last chat event whose deliveries are scheduled
}

// Replays keeps requests and how far they are.
type Replays interface {
	// Open lists the replays that are not finished, oldest first.
	Open(ctx context.Context) ([]Replay, error)
	// Next reads the deliveries to make anew of the next chat events behind
	// the replay's cursor, in routing order. Through is the cursor behind them;
	// more says that there may be others.
	Next(ctx context.Context, replay Replay, limit int) (found []Delivery, through int64, more bool, err error)
	// Advance moves the cursor, and finishes the replay where nothing is left.
	Advance(ctx context.Context, relayID int64, replay Replay, through int64, scheduled int, finished bool) error
}

// replayChunk is how many chat events are scheduled at a time.
const replayChunk = 200

// replayer schedules replays: new deliveries of old notifications, in a lane
// of their own. They go through the due table at once, so that a crash on the
// way loses none; the cursor moves behind them.
type replayer struct {
	replays    Replays
	relayID    int64
	dispatcher *dispatcher
	now        func() time.Time
	logger     *slog.Logger
}

// run schedules what is requested until ctx ends: at once when told, else
// every interval.
func (r *replayer) run(ctx context.Context, told <-chan struct{}, interval time.Duration) {
	for {
		open, err := r.replays.Open(ctx)
		for i := 0; err == nil && i < len(open); i++ {
			err = r.schedule(ctx, open[i])
		}
		if err != nil && ctx.Err() == nil {
			r.logger.Warn("scheduling a replay failed, trying again", "error", err)
		}
		select {
		case <-told:
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
	}
}

func (r *replayer) schedule(ctx context.Context, replay Replay) error {
	for {
		found, through, more, err := r.replays.Next(ctx, replay, replayChunk)
		if err != nil {
			return err
		}
		if err := r.record(ctx, replay, found); err != nil {
			return err
		}
		if err := r.replays.Advance(ctx, r.relayID, replay, through, len(found), !more); err != nil {
			return err
		}
		if !more {
			return nil
		}
		replay.Cursor = through
	}
}

// record schedules deliveries and waits until they are on record. One that is
// scheduled already, by a relay that died before it moved the cursor, is left
// as it is: its stream refuses a second beginning.
func (r *replayer) record(ctx context.Context, replay Replay, found []Delivery) error {
	if len(found) == 0 {
		return nil
	}
	done := make(chan struct{}, 1)
	left := len(found)
	r.dispatcher.inbox.call(func() {
		r.dispatcher.replay(replay, found, func() {
			left--
			if left == 0 {
				done <- struct{}{}
			}
		})
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replay submits new deliveries. recorded is called for each that is on
// record. Their webhooks are read anew: one that was enabled just before the
// request may be in memory as disabled.
func (d *dispatcher) replay(replay Replay, found []Delivery, recorded func()) {
	var ids []domain.WebhookID
	for i := range found {
		if id := found[i].Key.WebhookID; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	d.load(ids, func() { d.scheduleReplay(replay, found, recorded) }, func() { d.replay(replay, found, recorded) })
}

func (d *dispatcher) scheduleReplay(replay Replay, found []Delivery, recorded func()) {
	now := d.now()
	for i := range found {
		f := found[i]
		if d.ending(f.Key.EventSeq) != nil {
			recorded() // its payload is about to go
			continue
		}
		q := d.queues[f.Key.WebhookID]
		f.Key.ReplayID = replay.ID
		f.State = domain.Delivery{}
		it := d.newItem(&f)
		events, err := domain.Decide(it.State, domain.Schedule{At: now, Event: f.Event, WebhookVersion: q.hook.Version})
		if err != nil {
			d.logger.Error("a replay's delivery cannot be scheduled", "event_seq", f.Key.EventSeq, "error", err)
			recorded()
			continue
		}
		s := d.step(stepSchedule, it, events)
		s.EventID = f.EventID
		s.scheduled = recorded
		d.overflow(q, replayLane)
		d.wait(s, it, DueOverflow, now)
		d.out = append(d.out, s)
	}
}
