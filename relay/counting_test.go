package relay_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// slowCounts lets nothing be counted before goOn is closed.
type slowCounts struct {
	relay.Store
	goOn chan struct{}
	deep atomic.Int64 // how often all rows of one webhook were read
}

func (s *slowCounts) Blocked(ctx context.Context, webhooks []domain.WebhookID, but []domain.DeliveryKey, most int, take func(relay.Blocked)) ([]domain.WebhookID, error) {
	select {
	case <-s.goOn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if most == 0 {
		s.deep.Add(1)
	}
	return s.Store.Blocked(ctx, webhooks, but, most, take)
}

// TestATakeOverWithManyWaitingIsComplete: conversations of a webhook that fails
// wait, each with its first delivery failed and others held, when its relay
// stops. The next one sends at once what others get. What waits of that webhook is
// counted first, and then comes, all of it and in order.
func TestATakeOverWithManyWaitingIsComplete(t *testing.T) {
	t.Parallel()
	const conversations, each = 250, 4 // more rows than are counted of one of many
	b := newBench(t)
	var status atomic.Int32
	status.Store(http.StatusInternalServerError)
	b.receiver.on("/dead", failing(&status))
	dead := b.webhook(1, "/dead", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	b.webhook(2, "/other", nil)
	first := b.start(func(c *relay.Config) { c.Policy = patient })
	say := func(account, n int) {
		b.exec(`INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT $1, 'message_created', json_build_object('id', $2::int, 'conversation', 'c' || c), 'c' || c FROM generate_series(1, $3::int) c ORDER BY c`, account, n, conversations)
	}
	for n := range each {
		say(1, n+1)
	}
	waiting := func(want string) {
		t.Helper()
		b.eventually("what waits: "+want, func() (bool, string) {
			got := scan[string](b, `SELECT concat_ws(' ', count(*) FILTER (WHERE kind = 'r'), count(*) FILTER (WHERE kind = 'h')) FROM relay.due WHERE webhook_id = $1`, int64(dead.ID))
			return got == want, got
		})
	}
	waiting(fmt.Sprint(conversations, conversations*(each-1)))
	first.stop()
	posts := len(b.receiver.got("/dead"))

	// Half of what has failed is due; what the first one of a conversation held
	// back is alone, since its relay died before it let the next one go.
	b.exec(`UPDATE relay.due SET at = now() WHERE kind = 'r' AND event_seq % 2 = 0`)
	b.exec(`DELETE FROM relay.due WHERE kind = 'r' AND event_seq = (SELECT min(event_seq) FROM relay.due WHERE kind = 'r' AND event_seq % 2 = 1)`)
	status.Store(http.StatusNoContent)
	slow := &slowCounts{goOn: make(chan struct{})}
	second := b.start(func(c *relay.Config) {
		slow.Store = c.Store
		c.Store, c.Policy = slow, patient
	})
	say(1, each+1)
	say(2, 1)
	b.eventually("all for the other webhook", func() (bool, string) {
		n := len(b.receiver.got("/other"))
		return n == conversations, fmt.Sprint(n)
	})
	if n := len(b.receiver.got("/dead")) - posts; n != 0 {
		t.Errorf("%d POSTs were made before it was known what they have to wait for", n)
	}
	close(slow.goOn)
	b.eventually("half of all", func() (bool, string) {
		n := len(b.receiver.got("/dead")) - posts
		// The half that was repeated, and what was held alone.
		return n == conversations/2*(each+1)+each, fmt.Sprint(n)
	})
	second.stop()
	b.exec(`UPDATE relay.due SET at = now() WHERE kind = 'r'`)
	b.start(func(c *relay.Config) { c.Policy = patient })
	b.awaitStatus("succeeded", conversations+conversations*(each+1)-1)
	if slow.deep.Load() == 0 {
		t.Error("all was counted at once: the test shows nothing")
	}
	orders := map[string][]int{}
	got := b.receiver.got("/dead")[posts:]
	for i, n := range numbers(t, got) {
		_, conversation, _ := strings.Cut(got[i].body, `"conversation" : `)
		orders[conversation] = append(orders[conversation], n)
	}
	for conversation, order := range orders {
		if !slices.IsSorted(order) {
			t.Errorf("%s came as %v", conversation, order)
		}
	}
	if len(orders) != conversations {
		t.Errorf("%d conversations, want %d", len(orders), conversations)
	}
}

// TestWhatAPauseHeldGoesOnThoughNobodySawItsEnd: the webhook was enabled while no
// relay was at work.
func TestWhatAPauseHeldGoesOnThoughNobodySawItsEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	b.command(hook, domain.PauseWebhook{})
	running := b.start(nil)
	b.publish(1, "c", 1, 5)
	b.awaitStatus("held", 5)
	running.stop()
	b.command(hook, domain.EnableWebhook{})
	b.start(nil)
	b.awaitStatus("succeeded", 5)
	if ids := numbers(t, b.receiver.got("/hook")); !slices.IsSorted(ids) || len(ids) != 5 {
		t.Errorf("they came as %v", ids)
	}
}
