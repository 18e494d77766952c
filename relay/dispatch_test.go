package relay_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// failing answers 500 as long as it is told to.
func failing(status *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }
}

func TestAFailedDeliveryIsRepeatedAsItWas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	var n atomic.Int32
	b.receiver.on("/hook", func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	b.start(nil)
	b.publish(1, "c", 1, 1)
	b.awaitStatus("succeeded", 1)
	posts := b.receiver.got("/hook")
	if len(posts) != 3 {
		t.Fatalf("the receiver saw %d POSTs, want 3", len(posts))
	}
	for i, p := range posts {
		if p.webhookID != posts[0].webhookID || p.delivery != posts[0].delivery || p.body != posts[0].body {
			t.Errorf("POST %d differs from the first: %+v", i+1, p)
		}
		if p.attempt != i+1 || (p.previous == "failed") != (i > 0) {
			t.Errorf("POST %d says attempt %d after %q", i+1, p.attempt, p.previous)
		}
	}
	if got := scan[string](b, `SELECT string_agg(outcome || coalesce(status_code::text, ''), ' ' ORDER BY attempt) FROM audit.attempts`); got != "failed503 failed503 succeeded200" {
		t.Errorf("attempts on record: %s", got)
	}
	if got := scan[string](b, `SELECT string_agg(coalesce(previous_outcome, 'none'), ' ' ORDER BY attempt) FROM audit.attempts`); got != "none failed failed" {
		t.Errorf("what the receiver was told, on record: %s", got)
	}
	if due := scan[int](b, `SELECT count(*) FROM relay.due`); due != 0 {
		t.Errorf("%d rows are left in the due table", due)
	}
}

func TestADeliveryWhoseAttemptsAreUsedUpIsDead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	b.receiver.on("/hook", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	b.start(nil)
	b.publish(1, "c", 1, 1)
	b.awaitStatus("dead", 1)
	if n := len(b.receiver.got("/hook")); n != quick.MaxAttempts() {
		t.Errorf("the receiver saw %d POSTs, want %d", n, quick.MaxAttempts())
	}
	if reason := scan[string](b, `SELECT reason FROM audit.deliveries`); reason != domain.DeadAttempts {
		t.Errorf("reason is %s", reason)
	}
}

func TestDeliveriesOfAConversationLeaveInRoutingOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	busy := sync.Map{}
	var first sync.Once
	second := make(chan struct{})
	b.receiver.on("/hook", func(w http.ResponseWriter, req *http.Request) {
		body := b.receiver.last(req)
		_, conversation, _ := strings.Cut(body, `"conversation"`)
		if _, twice := busy.LoadOrStore(conversation, true); twice {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		defer busy.Delete(conversation)
		waits := false
		first.Do(func() { waits = true })
		if waits {
			select { // two conversations are delivered at once
			case <-second:
			case <-req.Context().Done():
			}
		} else {
			select {
			case second <- struct{}{}:
			default:
			}
		}
		if strings.Contains(body, `"id" : 3,`) || strings.Contains(body, `"id" : 9,`) {
			w.WriteHeader(http.StatusInternalServerError) // until it is dead
		}
	})
	b.start(nil)
	const conversations, each = 20, 15
	for c := range conversations {
		b.publish(1, fmt.Sprint("c", c), 1, each)
	}
	b.eventually("an end of all", func() (bool, string) {
		counts := b.deliveries()
		return counts["succeeded"]+counts["dead"] == conversations*each, fmt.Sprint(counts)
	})
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE status_code = 418`); n != 0 {
		t.Errorf("%d POSTs came while another of their conversation was under way", n)
	}
	// Within a conversation a delivery starts only when the one before it is
	// finished, or has failed and the hold has elapsed; with no failure before,
	// strictly in order.
	if n := scan[int](b, `
SELECT count(*) FROM audit.deliveries a JOIN audit.deliveries d ON a.ordering_key = d.ordering_key AND a.event_seq < d.event_seq
 WHERE a.completed_at > d.first_attempt_at AND NOT EXISTS (
       SELECT FROM audit.timeline l WHERE l.delivery_id = d.delivery_id AND l.type = 'released' AND l.data ->> 'reason' = 'elapsed')`); n != 0 {
		t.Errorf("%d deliveries overtook an earlier one", n)
	}
	if counts := b.deliveries(); counts["dead"] != 2*conversations {
		t.Errorf("deliveries ended as %v", counts)
	}
	for c := range conversations {
		var ids []int
		for _, p := range b.receiver.got("/hook") {
			if strings.Contains(p.body, fmt.Sprintf(`"c%d"`, c)) && p.attempt == 1 {
				ids = append(ids, numbers(t, []post{p})...)
			}
		}
		if len(ids) != each || !slices.IsSorted(ids) {
			t.Errorf("conversation %d came as %v", c, ids)
		}
	}
}

func TestAFailingHeadHoldsOnlyItsConversationAndForABoundedTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", func(s *domain.Settings) { s.OrderHold = 300 * time.Millisecond })
	b.receiver.on("/hook", func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(b.receiver.last(req), `"id" : 1,`) {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b.start(func(c *relay.Config) {
		c.Policy = domain.RetryPolicy{Delays: []time.Duration{time.Hour}}
	})
	b.publish(1, "stuck", 1, 1)
	b.awaitStatus("pending", 1)
	b.eventually("the failure", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'failed'`) == 1, "no failure"
	})
	b.publish(1, "stuck", 2, 3)
	b.publish(1, "free", 10, 5)
	b.awaitStatus("succeeded", 8)
	if n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'held' AND data ->> 'reason' = 'order'`); n != 3 {
		t.Errorf("%d deliveries were held, want 3", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'released' AND data ->> 'reason' = 'elapsed'`); n != 3 {
		t.Errorf("%d holds elapsed, want 3", n)
	}
	if early := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE ordering_key = 'stuck' AND status = 'succeeded' AND first_attempt_at < scheduled_at + interval '300 ms'`); early != 0 {
		t.Errorf("%d deliveries did not wait", early)
	}
	var stuck []int
	for _, id := range numbers(t, b.receiver.got("/hook")) {
		if id < 10 {
			stuck = append(stuck, id)
		}
	}
	if !slices.Equal(stuck, []int{1, 2, 3, 4}) {
		t.Errorf("the conversation's POSTs came as %v", stuck)
	}
}

func TestAHeldDeliveryGoesOnWhenItsTurnComes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	var status atomic.Int32
	status.Store(500)
	b.receiver.on("/hook", failing(&status))
	b.start(func(c *relay.Config) {
		c.Policy = domain.RetryPolicy{Delays: slices.Repeat([]time.Duration{100 * time.Millisecond}, 100)}
	})
	b.publish(1, "c", 1, 5)
	b.awaitStatus("held", 4)
	status.Store(200)
	b.awaitStatus("succeeded", 5)
	if n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'released' AND data ->> 'reason' = 'turn'`); n != 4 {
		t.Errorf("%d deliveries were released by their turn, want 4", n)
	}
	var ids []int
	for _, id := range numbers(t, b.receiver.got("/hook")) {
		if id != 1 {
			ids = append(ids, id)
		}
	}
	if !slices.Equal(ids, []int{2, 3, 4, 5}) {
		t.Errorf("POSTs came as %v", ids)
	}
}

func TestAHangingWebhookDelaysNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hanging", func(s *domain.Settings) { s.OrderHold = 0; s.Timeout = 30 * time.Second })
	b.webhook(1, "/healthy", func(s *domain.Settings) { s.OrderHold = 0 })
	release := make(chan struct{})
	b.receiver.on("/hanging", func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-release:
		case <-req.Context().Done():
		}
	})
	r := b.start(nil)
	const n = 3000 // more than memory holds for one webhook
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', json_build_object('id', i) FROM generate_series(1, $1::int) i`, n)
	b.eventually("the healthy webhook's POSTs", func() (bool, string) {
		got := len(b.receiver.got("/healthy"))
		return got == n, fmt.Sprintf("%d of %d came", got, n)
	})
	if got := len(b.receiver.got("/hanging")); got > domain.DefaultMaxConcurrency {
		t.Errorf("the hanging webhook had %d POSTs, more than its concurrency allows", got)
	}
	b.eventually("the overflow", func() (bool, string) {
		due := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'o'`)
		return due > 1000, fmt.Sprintf("%d rows", due)
	})
	close(release)
	b.awaitStatus("succeeded", 2*n)
	if due := scan[int](b, `SELECT count(*) FROM relay.due`); due != 0 {
		t.Errorf("%d rows are left in the due table", due)
	}
	if got := len(b.receiver.got("/hanging")); got != n {
		t.Errorf("the hanging webhook had %d POSTs for %d deliveries", got, n)
	}
	r.stop()
}

func TestOverflowKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/slow", func(s *domain.Settings) { s.MaxConcurrency = 2 })
	gate := make(chan struct{})
	b.receiver.on("/slow", func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-gate:
		case <-req.Context().Done():
		}
	})
	b.start(nil)
	for c := range 10 {
		b.publish(1, fmt.Sprint("c", c), 1, 30)
	}
	b.eventually("the overflow", func() (bool, string) {
		due := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'o'`)
		return due > 250, fmt.Sprintf("%d rows", due)
	})
	close(gate)
	b.awaitStatus("succeeded", 300)
	for c := range 10 {
		var ids []int
		for _, p := range b.receiver.got("/slow") {
			if strings.Contains(p.body, fmt.Sprintf(`"c%d"`, c)) {
				ids = append(ids, numbers(t, []post{p})...)
			}
		}
		if !slices.IsSorted(ids) || len(ids) != 30 {
			t.Errorf("conversation %d came as %v", c, ids)
		}
	}
}

// A read of what overflowed may bring a few conversations only: the webhook's
// concurrency is used all the same.
func TestOverflowOfFewConversationsUsesTheConcurrency(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/slow", func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	var spilled atomic.Bool
	var atOnce atomic.Int32
	gate, all := make(chan struct{}), make(chan struct{})
	b.receiver.on("/slow", func(_ http.ResponseWriter, req *http.Request) {
		if !spilled.Load() {
			select {
			case <-gate:
			case <-req.Context().Done():
			}
			return
		}
		if atOnce.Add(1) == domain.DefaultMaxConcurrency {
			close(all)
		}
		select {
		case <-all:
		case <-req.Context().Done():
			atOnce.Add(-1)
		}
	})
	b.start(nil)
	b.exec(`
INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT 1, 'message_created', '{}', (i / 20)::text FROM generate_series(0, 799) i`)
	b.eventually("the overflow", func() (bool, string) {
		due := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'o'`)
		return due > 700, fmt.Sprintf("%d rows", due)
	})
	spilled.Store(true)
	close(gate)
	b.awaitStatus("succeeded", 800)
	select {
	case <-all:
	default:
		t.Errorf("never more than %d of %d attempts were under way at once", atOnce.Load(), domain.DefaultMaxConcurrency)
	}
}

func TestPausedIsKeptAndComesInOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	b.start(nil)
	b.publish(1, "c", 1, 2)
	b.awaitStatus("succeeded", 2)
	b.command(hook, domain.PauseWebhook{})
	b.eventually("the pause", func() (bool, string) {
		b.publish(1, "d", 1, 1)
		held := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'held' AND reason = 'paused'`)
		return held > 0, "nothing is held"
	})
	b.publish(1, "c", 3, 5)
	b.eventually("the holds", func() (bool, string) {
		held := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'held' AND ordering_key = 'c'`)
		return held == 5, fmt.Sprintf("%d are held", held)
	})
	b.command(hook, domain.EnableWebhook{})
	b.eventually("all deliveries", func() (bool, string) {
		counts := b.deliveries()
		return counts["held"]+counts["pending"] == 0, fmt.Sprint(counts)
	})
	var ids []int
	for _, p := range b.receiver.got("/hook") {
		if strings.Contains(p.body, `"c"`) {
			ids = append(ids, numbers(t, []post{p})...)
		}
	}
	if !slices.Equal(ids, []int{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("POSTs came as %v", ids)
	}
}

func TestDisabledIsSkippedAndWhatWasPendingCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	b.receiver.on("/hook", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	b.start(func(c *relay.Config) { c.Policy = domain.RetryPolicy{Delays: []time.Duration{time.Hour}} })
	b.publish(1, "c", 1, 4)
	b.awaitStatus("held", 3)
	b.command(hook, domain.DisableWebhook{Reason: "test"})
	b.awaitStatus("cancelled", 4)
	b.publish(1, "c", 5, 1)
	b.eventually("the skip", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.events WHERE routing = 'skipped' AND reason = 'disabled'`)
		return n == 1, fmt.Sprintf("%d are skipped", n)
	})
	if due := scan[int](b, `SELECT count(*) FROM relay.due`); due != 0 {
		t.Errorf("%d rows are left in the due table", due)
	}
}

// unreadSeen counts what came back from the due table without its body.
type unreadSeen struct {
	relay.Store
	n atomic.Int32
}

func (s *unreadSeen) DueOf(ctx context.Context, webhook domain.WebhookID, replays bool, cursor relay.Cursor, now time.Time, limit, room int) ([]relay.Delivery, error) {
	found, err := s.Store.DueOf(ctx, webhook, replays, cursor, now, limit, room)
	for _, f := range found {
		if f.Unread {
			s.n.Add(1)
		}
	}
	return found, err
}

// What a webhook's disabling cancels is read back without its payload. A relay that
// has not heard of that yet must not take it for gone.
func TestWhatIsCancelledUnheardOfIsNotDead(t *testing.T) {
	t.Parallel()
	const large = 300 << 10
	for _, c := range []struct {
		scenario     string
		events, size int
		end          domain.WebhookCommand
		unread       int32
	}{
		{"a retry of one that is disabled", 1, 10, domain.DisableWebhook{Reason: "test"}, 0},
		{"a retry of one that is deleted", 1, 10, domain.DeleteWebhook{}, 0},
		{"bodies to be fetched for one that is disabled", 3, large, domain.DisableWebhook{Reason: "test"}, 2},
		{"bodies to be fetched for one that is deleted", 3, large, domain.DeleteWebhook{}, 2},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			hook := b.webhook(1, "/hook", func(s *domain.Settings) { s.OrderHold, s.MaxConcurrency = 0, 1 })
			begun, release := make(chan struct{}), make(chan struct{})
			b.receiver.on("/hook", func(w http.ResponseWriter, _ *http.Request) {
				close(begun)
				<-release
				w.WriteHeader(http.StatusInternalServerError)
			})
			var store *unreadSeen
			b.start(func(c *relay.Config) {
				store = &unreadSeen{Store: c.Store}
				c.Webhooks, c.Store = deaf{c.Webhooks}, store
			})
			b.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', json_build_object('text', repeat('x', $2)) FROM generate_series(1, $1::int)`, c.events, c.size)
			<-begun
			b.eventually("what came back without its body", func() (bool, string) {
				n := store.n.Load()
				return n >= c.unread, fmt.Sprintf("%d of %d", n, c.unread)
			})
			b.command(hook, c.end)
			close(release)
			b.awaitStatus("cancelled", c.events)
		})
	}
}

func TestARefusedOutcomeIsRecordedAsUnknownAndRepeated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.exec(`ALTER TABLE relay.responses ADD CONSTRAINT poison CHECK (excerpt <> 'poison')`)
	b.webhook(1, "/hook", func(s *domain.Settings) { s.OrderHold = 0 })
	var n atomic.Int32
	b.receiver.on("/hook", func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(b.receiver.last(req), `"id" : 7,`) && n.Add(1) == 1 {
			_, _ = w.Write([]byte("poison"))
		}
	})
	b.start(nil)
	b.publish(1, "c", 1, 50)
	b.awaitStatus("succeeded", 50)
	if got := scan[string](b, `
SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM audit.attempts a JOIN outbox.events e ON e.id = a.event_id WHERE e.payload ->> 'id' = '7'`); got != "unknown succeeded" {
		t.Errorf("attempts of the poisoned delivery: %s", got)
	}
	if all := scan[int](b, `SELECT count(*) FROM audit.attempts`); all != 51 {
		t.Errorf("%d attempts are on record, want 51", all)
	}
}

func TestAWebhookThatIsGoneIsDisabled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/gone", nil)
	b.webhook(1, "/hook", nil)
	b.receiver.on("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	// The third attempt is far off, however slow the machine is.
	b.start(func(c *relay.Config) { c.Policy.Delays = []time.Duration{50 * time.Millisecond, time.Hour} })
	b.publish(1, "c", 1, 1)
	b.awaitStatus("cancelled", 1)
	if got := scan[string](b, `SELECT actor || ' ' || change || ': ' || (after ->> 'reason') FROM audit.webhook_changes ORDER BY webhook_version DESC LIMIT 1`); got != "relay disabled: "+domain.DisabledGone {
		t.Errorf("the last change is %s", got)
	}
	// By the record: on a busy machine a POST may time out although it arrived.
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE status_code = 410`); n != 2 {
		t.Errorf("%d attempts were answered 410, want 2: the first and the probe", n)
	}
	seen := len(b.receiver.got("/gone"))
	b.publish(1, "c", 2, 1)
	b.awaitStatus("succeeded", 2)
	if n := len(b.receiver.got("/gone")); n != seen {
		t.Errorf("the receiver saw a POST after it was disabled")
	}
}

func TestNoMoreAttemptsAreUnderWayThanARelayMayHave(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const most, hooks, each = 3, 4, 5
	for i := range hooks {
		path := fmt.Sprintf("/hook%d", i)
		b.webhook(1, path, nil)
	}
	var now atomic.Int32
	var over atomic.Bool
	full := make(chan struct{})
	fill := sync.OnceFunc(func() { close(full) })
	for i := range hooks {
		b.receiver.on(fmt.Sprintf("/hook%d", i), func(w http.ResponseWriter, req *http.Request) {
			n := now.Add(1)
			defer now.Add(-1)
			if n > most {
				over.Store(true)
			}
			if n == most {
				fill()
			}
			select { // until it is full for the first time
			case <-full:
			case <-req.Context().Done():
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	b.start(func(c *relay.Config) { c.MaxInFlight = most })
	for i := range each {
		b.publish(1, fmt.Sprint("c", i), 1, 1)
	}
	b.awaitStatus("succeeded", hooks*each)
	if over.Load() {
		t.Errorf("more than %d attempts were under way at once", most)
	}
}
