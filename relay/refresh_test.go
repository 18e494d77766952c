package relay

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// fakeWebhooks answers as a test says, and notes what it was asked.
type fakeWebhooks struct {
	Webhooks
	load    func() []domain.Webhook
	changed func(since string) []domain.Webhook

	mu    sync.Mutex
	asked []string
}

func (w *fakeWebhooks) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, what)
}

func (w *fakeWebhooks) Load(context.Context, []domain.WebhookID) ([]domain.Webhook, error) {
	w.note("load")
	return w.load(), nil
}

func (w *fakeWebhooks) Changed(_ context.Context, since string) ([]domain.Webhook, string, error) {
	w.note("changed since " + since)
	return w.changed(since), "now", nil
}

// nothingWaits is the store of a relay that takes over from an idle one.
type nothingWaits struct{ Store }

func (nothingWaits) Head(context.Context) (no, commit int64, err error) { return 0, 0, nil }
func (nothingWaits) Left(context.Context, Shards, int64, time.Time) (Left, error) {
	return Left{}, nil
}
func (nothingWaits) Endings(context.Context) (Endings, error) { return Endings{}, nil }

func newTestDispatcher(store Store, webhooks Webhooks) *dispatcher {
	d := newDispatcher(store, webhooks, domain.DefaultRetryPolicy, time.Now, slog.New(slog.DiscardHandler))
	d.shards = AllShards
	d.moved = func(Place) {}
	return d
}

// TestNoChangeFallsBetweenReadingWebhooksAndWatchingThem: changes are looked
// for from before the webhooks were read.
func TestNoChangeFallsBetweenReadingWebhooksAndWatchingThem(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	hooks := &fakeWebhooks{load: func() []domain.Webhook { return nil }}
	hooks.changed = func(since string) []domain.Webhook {
		if since != "" {
			cancel() // refresh has asked
		}
		return nil
	}
	d := newTestDispatcher(nothingWaits{}, hooks)
	if err := d.prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := d.readLeft(ctx, []Place{{Shards: AllShards}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	d.refresh(ctx, nil, time.Hour)
	if want := []string{"changed since ", "load", "changed since now"}; !slices.Equal(hooks.asked, want) {
		t.Errorf("asked: %q, want %q", hooks.asked, want)
	}
}

// TestAWebhookThatChangesWhileItIsReadIsTheChangedOne: its row was read before
// the change, and is handed over behind it.
func TestAWebhookThatChangesWhileItIsReadIsTheChangedOne(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan struct{})
	hooks := &fakeWebhooks{
		load: func() []domain.Webhook {
			<-told
			return []domain.Webhook{{ID: 7, Version: 1, State: domain.WebhookEnabled}}
		},
		changed: func(string) []domain.Webhook {
			return []domain.Webhook{{ID: 7, Version: 2, State: domain.WebhookPaused}}
		},
	}
	d := newTestDispatcher(nothingWaits{}, hooks)
	loaded := false
	d.load([]domain.WebhookID{7}, func() { loaded = true }, func() { t.Error("the read failed") })
	for _, read := range d.reads {
		read(ctx)
	}
	refreshed := make(chan struct{})
	go func() { d.refresh(ctx, nil, time.Hour); close(refreshed) }()
	<-d.inbox.wake
	d.take() // the change
	close(told)
	for !loaded {
		<-d.inbox.wake
		d.take()
	}
	if q := d.queues[7]; q.hook.Version != 2 || q.hook.State != domain.WebhookPaused {
		t.Errorf("it is %s at version %d, want paused at 2", q.hook.State, q.hook.Version)
	}
	if len(d.newer) != 0 {
		t.Errorf("%d changes are kept for ever", len(d.newer))
	}
	cancel()
	<-refreshed
}

// hurried hears of what is hurried.
type hurried struct {
	nothingWaits
	all chan bool
}

func (h *hurried) Hurry(_ context.Context, _ domain.WebhookID, all bool, _ time.Time) error {
	h.all <- all
	return nil
}

// TestWhatBeganToWaitWhileItsWebhookChangedIsNotLeftBehind: its due row came
// into the table behind the statement that hurried the others.
func TestWhatBeganToWaitWhileItsWebhookChangedIsNotLeftBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scenario  string
		state     domain.WebhookState
		kind      DueKind
		want, all bool
	}{
		{"held by a pause that is over", domain.WebhookEnabled, DuePaused, true, false},
		{"a retry to a disabled webhook", domain.WebhookDisabled, DueRetry, true, true},
		{"held by the pause of one that is deleted", domain.WebhookDeleted, DuePaused, true, true},
		{"an ordinary retry", domain.WebhookEnabled, DueRetry, false, false},
		{"held by a pause", domain.WebhookPaused, DuePaused, false, false},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			store := &hurried{all: make(chan bool, 1)}
			d := newTestDispatcher(store, nil)
			d.recorder = newRecorder(nil, 1, d.logger, nil)
			d.configure(domain.Webhook{ID: 7, Version: 1, State: c.state})
			d.saved(&step{Change: Change{Waits: Due{Key: domain.DeliveryKey{EventSeq: 1, WebhookID: 7}, Kind: c.kind, At: d.now().Add(time.Hour)}}})
			if _, missed := d.missed[d.queues[7]]; missed != c.want {
				t.Fatalf("it is hurried: %v, want %v", missed, c.want)
			}
			d.work(ctx)
			if !c.want {
				return
			}
			select {
			case all := <-store.all:
				if all != c.all {
					t.Errorf("all that waits is hurried: %v, want %v", all, c.all)
				}
			case <-time.After(time.Minute):
				t.Error("nothing is hurried")
			}
		})
	}
}
