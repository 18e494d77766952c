package relay

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// heldTwo has two of a conversation that are held. What is due by time is found
// at once, what a lane reads once the test lets it.
type heldTwo struct {
	nothingWaits
	first, second Delivery
	lane          chan struct{}
}

func (h *heldTwo) DueBefore(context.Context, Shards, Cursor, time.Time, int, int) ([]Delivery, time.Time, error) {
	return []Delivery{h.second}, time.Time{}, nil
}

func (h *heldTwo) DueOf(_ context.Context, _ domain.WebhookID, _ bool, cursor Cursor, now time.Time, _, _ int) ([]Delivery, error) {
	<-h.lane
	return slices.DeleteFunc([]Delivery{h.first, h.second}, func(found Delivery) bool {
		at := found.Due.At
		return at.After(now) || at.Before(cursor.At) || at.Equal(cursor.At) && found.Due.Pos <= cursor.Pos
	}), nil
}

// TestAHoldThatEndsLaterDoesNotOvertake: what a lane is still to read, since it
// was left by an earlier owner, found no room, or came while its webhook was
// counted, ended its hold before.
func TestAHoldThatEndsLaterDoesNotOvertake(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Microsecond)
	held := func(seq int64, ago time.Duration) Delivery {
		until := now.Add(-ago)
		state := domain.Evolve(domain.Delivery{}, domain.Scheduled{At: until.Add(-time.Minute), Deadline: now.Add(time.Hour), WebhookVersion: 1})
		state = domain.Evolve(state, domain.Held{At: until.Add(-time.Minute), Reason: domain.HoldOrder, Until: until})
		key := domain.DeliveryKey{EventSeq: seq, WebhookID: 7}
		return Delivery{
			Key: key, AccountID: 1, OrderingKey: "c", Pos: seq, State: state, Body: []byte("{}"), Size: 2,
			Due: Due{Key: key, Version: state.Version, Kind: DueHold, At: until, Pos: seq, Order: orderHash("c", 0, time.Minute)},
		}
	}
	for _, c := range []struct {
		scenario string
		begin    func(d *dispatcher, q *queue, first Delivery)
	}{
		{"left by an earlier owner", func(d *dispatcher, q *queue, _ Delivery) {
			d.wake(q, Waiting{WebhookID: 7, Fresh: true, Timed: true, Held: true})
		}},
		{"no room", func(d *dispatcher, q *queue, first Delivery) {
			q.lanes[freshLane].size = 2 * laneLimit
			d.comeBack([]Delivery{first}, domain.ReleaseElapsed, true)
			q.lanes[freshLane].size = 0
		}},
		{"while its webhook was counted", func(d *dispatcher, q *queue, first Delivery) {
			q.counts = beingCounted
			d.comeBack([]Delivery{first}, domain.ReleaseElapsed, true)
			q.counts = counted
		}},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			store := &heldTwo{first: held(1, time.Second), second: held(2, time.Millisecond), lane: make(chan struct{})}
			d := newTestDispatcher(store, nil)
			d.recorder = newRecorder(nil, 1, d.logger, nil)
			d.configure(domain.Webhook{ID: 7, AccountID: 1, Version: 1, State: domain.WebhookEnabled, Settings: domain.Settings{OrderHold: time.Minute, MaxConcurrency: 2}})
			d.stale.now = d.stale.begin()
			c.begin(d, d.queues[7], store.first)
			d.due.cursor, d.due.next = Cursor{At: now.Add(-500 * time.Millisecond)}, now
			d.work(t.Context())
			for d.due.reading {
				<-d.inbox.wake
				d.take()
			}
			d.work(t.Context())
			close(store.lane)
			for len(d.recorder.pending) == 0 {
				<-d.inbox.wake
				d.take()
				d.work(t.Context())
			}
			if seq := d.recorder.pending[0].Key.EventSeq; seq != 1 {
				t.Errorf("the first to start is event %d", seq)
			}
		})
	}
}
