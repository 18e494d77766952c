package relay_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// noSend makes a relay that routes and records only.
func noSend(c *relay.Config) { c.NoSend = true }

// deaf hears of no change of a webhook.
type deaf struct{ relay.Webhooks }

func (deaf) Changed(context.Context, string) ([]domain.Webhook, string, error) { return nil, "", nil }

// TestWhatADisablingCancelledIsNeverSent: a backlog recorded without sending,
// and a retry and what it holds, are cancelled by a disabling although
// the webhook is enabled again before any relay looks.
func TestWhatADisablingCancelledIsNeverSent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	waiting, fresh := b.webhook(1, "/waiting", nil), b.webhook(2, "/fresh", nil)
	var status atomic.Int32
	status.Store(http.StatusInternalServerError)
	b.receiver.on("/waiting", failing(&status))
	r := b.start(func(c *relay.Config) { c.Policy = domain.RetryPolicy{Delays: []time.Duration{time.Hour}} })
	b.publish(1, "c", 1, 3)
	b.awaitStatus("held", 2)
	r.stop()

	r = b.start(noSend)
	const backlog = 4500 // more than one batch, and more than one webhook has in memory
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 2, 'message_created', json_build_object('id', i) FROM generate_series(1, $1::int) i`, backlog)
	b.awaitStatus("pending", backlog)
	r.stop()

	for _, hook := range []domain.Webhook{waiting, fresh} {
		b.command(hook, domain.DisableWebhook{Reason: "test"})
		b.command(hook, domain.EnableWebhook{})
	}
	// Such a backlog is worked off without its payloads.
	store := postgres.NewStore(b.db)
	head, _, err := store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for last := int64(0); last < head; {
		var found []relay.Delivery
		if found, last, err = store.Batches(t.Context(), relay.AllShards, last+1, head, 1<<30); err != nil {
			t.Fatal(err)
		}
		read += len(found)
		for i := range found {
			if found[i].Body != nil {
				t.Fatalf("the payload of event %d is read, which is cancelled", found[i].Key.EventSeq)
			}
		}
	}
	if read != backlog {
		t.Fatalf("%d deliveries are read back, want %d", read, backlog)
	}
	status.Store(http.StatusNoContent)
	// The retry is due now, for an hour is too long for a test.
	b.exec(`UPDATE relay.due SET at = now()`)
	b.start(nil)
	for account := range 2 {
		b.publish(domain.AccountID(account+1), "c", 9001, 1)
	}
	b.awaitStatus("succeeded", 2)
	b.awaitStatus("cancelled", backlog+3)
	if got := append(numbers(t, b.receiver.got("/waiting")), numbers(t, b.receiver.got("/fresh"))...); fmt.Sprint(got) != "[1 9001 9001]" {
		t.Errorf("POSTs came of %v, want the first attempt, and those after the disabling only", got)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'cancelled' AND reason <> $1`, domain.CancelledDisabled); n != 0 {
		t.Errorf("%d are cancelled for another reason", n)
	}
}

// TestWhatWaitsOfAWebhookDisabledMeanwhileIsCancelledAtTheStart: not at the end
// of its wait, days later.
func TestWhatWaitsOfAWebhookDisabledMeanwhileIsCancelledAtTheStart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	b.command(hook, domain.PauseWebhook{})
	r := b.start(nil)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`) // held for 7 days, in no order
	b.awaitStatus("held", 1)
	r.stop()
	b.command(hook, domain.DisableWebhook{})
	b.start(nil)
	b.awaitStatus("cancelled", 1)
}

// TestAnEnabledWebhookGetsWhatIsRoutedToIt although the dispatcher has not heard
// that it is enabled again: neither a replay nor a fresh event is cancelled.
func TestAnEnabledWebhookGetsWhatIsRoutedToIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	r := b.start(noSend)
	b.publish(1, "c", 1, 2)
	b.awaitStatus("pending", 2)
	r.stop()
	b.command(hook, domain.DisableWebhook{})
	isDeaf := func(c *relay.Config) { c.Webhooks = deaf{c.Webhooks} }
	r = b.start(isDeaf)
	b.awaitStatus("cancelled", 2)
	b.command(hook, domain.EnableWebhook{})
	b.exec(`SELECT relay.request_replay(relay.plan_replay(account_id => 1, event_ids => array_agg(event_id))) FROM audit.events`)
	b.awaitStatus("succeeded", 2)

	// Once more, by a fresh event.
	r.stop()
	r = b.start(noSend)
	b.publish(1, "c", 3, 1)
	b.awaitStatus("pending", 1)
	r.stop()
	b.command(hook, domain.DisableWebhook{})
	b.start(isDeaf)
	b.awaitStatus("cancelled", 3)
	b.command(hook, domain.EnableWebhook{})
	b.publish(1, "c", 4, 1)
	b.awaitStatus("succeeded", 3)
}

// slowHeld takes its time to tell what a conversation holds, and says when a
// webhook's held rows came another way.
type slowHeld struct {
	relay.Store
	asked, brought, goOn chan struct{}
}

func (s slowHeld) Held(ctx context.Context, webhook domain.WebhookID, order int64, limit, room int) ([]relay.Delivery, error) {
	found, err := s.Store.Held(ctx, webhook, order, limit, room)
	s.asked <- struct{}{}
	<-s.goOn
	return found, err
}

func (s slowHeld) DueOf(ctx context.Context, webhook domain.WebhookID, replays bool, cursor relay.Cursor, now time.Time, limit, room int) ([]relay.Delivery, error) {
	found, err := s.Store.DueOf(ctx, webhook, replays, cursor, now, limit, room)
	if len(found) > 0 && found[0].Due.Kind == relay.DueHold {
		s.brought <- struct{}{}
	}
	return found, err
}

// TestWhatADisablingBringsBackBesideTheTurnIsCancelled: a webhook is disabled
// while what its conversation holds is being read, since the failed delivery in
// front of it has succeeded. Nothing else would look at the webhook again.
func TestWhatADisablingBringsBackBesideTheTurnIsCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	b.webhook(2, "/other", nil)
	var status atomic.Int32
	status.Store(http.StatusInternalServerError)
	b.receiver.on("/hook", failing(&status))
	slow := slowHeld{asked: make(chan struct{}, 10), brought: make(chan struct{}, 10), goOn: make(chan struct{})}
	b.start(func(c *relay.Config) {
		slow.Store = c.Store
		c.Store = slow
	})
	b.publish(1, "c", 1, 3)
	b.awaitStatus("held", 2)
	status.Store(http.StatusNoContent)
	<-slow.asked
	b.command(hook, domain.DisableWebhook{Reason: "for the test"})
	<-slow.brought
	b.publish(2, "d", 1, 1) // by when this is sent, what was brought is in memory
	b.awaitStatus("succeeded", 2)
	close(slow.goOn)
	b.awaitStatus("cancelled", 2)
}

// TestAClockBehindTheDatabasesFindsWhatIsHurried: what waits is made due by the
// clock that is asked whether it is.
func TestAClockBehindTheDatabasesFindsWhatIsHurried(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	paused, ends := b.webhook(1, "/paused", nil), b.webhook(2, "/ends", nil)
	b.command(paused, domain.PauseWebhook{})
	b.command(ends, domain.PauseWebhook{})
	b.start(func(c *relay.Config) { c.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) } })
	b.publish(1, "c", 1, 3)
	b.publish(2, "c", 1, 3)
	b.awaitStatus("held", 6)
	b.command(paused, domain.EnableWebhook{})
	b.command(ends, domain.DisableWebhook{Reason: "test"})
	b.awaitStatus("succeeded", 3)
	b.awaitStatus("cancelled", 3)
}

// TestASuccessorWhoseClockIsBehindFindsWhatOverflowed, though a predecessor's
// clock says that it comes later.
func TestASuccessorWhoseClockIsBehindFindsWhatOverflowed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", func(s *domain.Settings) { s.Timeout = time.Second })
	answering := make(chan struct{})
	b.receiver.on("/hook", func(w http.ResponseWriter, req *http.Request) {
		select {
		case <-answering:
			w.WriteHeader(http.StatusNoContent)
		case <-req.Context().Done():
		}
	})
	first := b.start(func(c *relay.Config) {
		c.Now = func() time.Time { return time.Now().Add(10 * time.Minute) }
		c.Grace = 10 * time.Millisecond
	})
	const n = 6000 // more than one webhook has in memory
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', json_build_object('id', i) FROM generate_series(1, $1::int) i`, n)
	b.eventually("an overflow", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'o' AND at > now() + interval '5 min'`)
		return n > 0, fmt.Sprint(n)
	})
	first.stop()
	close(answering)
	b.exec(`UPDATE relay.due SET at = clock_timestamp() WHERE kind = 'r'`) // where the overflow took longer than an attempt may
	b.start(nil)
	b.awaitStatus("succeeded", n)
}
