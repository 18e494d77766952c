package relay_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// brisk is a breaker for tests.
var brisk = domain.BreakerPolicy{Failures: 5, First: 50 * time.Millisecond, Last: 200 * time.Millisecond}

// often tries again so soon and so often that nothing is ever dead.
var often = domain.RetryPolicy{Delays: slices.Repeat([]time.Duration{100 * time.Millisecond}, 10_000)}

// changes gives what happened to a webhook, but for its settings.
func (b *bench) changes(hook domain.Webhook) string {
	b.t.Helper()
	return scan[string](b, `SELECT string_agg(actor || ' ' || change, ', ' ORDER BY webhook_version) FROM audit.webhook_changes WHERE webhook_id = $1`, int64(hook.ID))
}

// overlapping counts the attempts of a webhook that began while another one was
// under way, from the attempt at a place on.
func (b *bench) overlapping(hook domain.Webhook, from time.Time) int {
	b.t.Helper()
	return scan[int](b, `
SELECT count(*) FROM audit.attempts a JOIN audit.attempts o ON o.webhook_id = a.webhook_id AND (o.delivery_id, o.attempt) <> (a.delivery_id, a.attempt)
   AND a.started_at > o.started_at AND a.started_at < coalesce(o.finished_at, 'infinity')
 WHERE a.webhook_id = $1 AND a.started_at > $2 AND o.started_at > $2`, int64(hook.ID), from)
}

// TestAReceiverThatIsDownGetsProbesOnly: it opens its breaker, which is on
// record and closes when it answers again. What waits uses up no attempt, stays
// in order, and outlives the relay; nobody else notices.
func TestAReceiverThatIsDownGetsProbesOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	down := b.webhook(1, "/down", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	good := b.webhook(1, "/good", nil)
	var status atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	b.receiver.on("/down", failing(&status))
	change := func(c *relay.Config) { c.Breaker, c.Policy = brisk, often }
	first := b.start(change)
	const conversations, each = 10, 30
	for c := range conversations {
		b.publish(1, fmt.Sprint("c", c), 1, each)
	}
	b.awaitStatus("succeeded", conversations*each) // those of /good
	opened := func() time.Time {
		b.t.Helper()
		return scan[time.Time](b, `SELECT coalesce(max(breaker_opened_at), 'epoch') FROM audit.webhook_health WHERE webhook_id = $1`, int64(down.ID))
	}
	b.eventually("an open breaker on record", func() (bool, string) { return opened().Unix() > 0, b.changes(down) })
	at := opened()
	probes := func() int {
		b.t.Helper()
		return scan[int](b, `SELECT count(*) FROM audit.attempts WHERE webhook_id = $1 AND started_at > $2 AND outcome = 'failed'`, int64(down.ID), at)
	}
	b.eventually("some probes", func() (bool, string) { n := probes(); return n >= 4, fmt.Sprint(n) })
	if n := b.overlapping(down, at); n != 0 {
		t.Errorf("%d probes began beside another one", n)
	}
	if soon := scan[float64](b, `
SELECT min(extract(epoch FROM a.started_at - o.finished_at)) FROM audit.attempts a
  JOIN LATERAL (SELECT max(finished_at) AS finished_at FROM audit.attempts o WHERE o.webhook_id = a.webhook_id AND o.started_at > $2 AND o.started_at < a.started_at) o ON true
 WHERE a.webhook_id = $1 AND a.started_at > $2`, int64(down.ID), at); soon < 2*brisk.First.Seconds() {
		t.Errorf("a probe began %v s after one that had failed, want twice the first wait or more", soon)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE webhook_id = $1 AND attempt_count = 0`, int64(down.ID)); n < conversations*(each-5) {
		t.Errorf("%d deliveries wait without an attempt, want nearly all", n)
	}
	if got := b.changes(down); got != "test registered, relay breaker_opened" {
		t.Errorf("on record is %s", got)
	}

	// Whoever looks at the secret disturbs nothing of it: probes go on as they did.
	revealed, changed, err := b.webhooks.Change(t.Context(), 1, down.ID, "test", domain.RevealSecret{})
	if err != nil || !changed || revealed.Breaker() != domain.BreakerOpen {
		t.Fatalf("revealed: %v, %v", changed, err)
	}
	b.eventually("a probe after that", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.attempts a WHERE webhook_id = $1 AND webhook_version >= $2`, int64(down.ID), revealed.Version)
		return n > 0, fmt.Sprint(n)
	})
	if n := b.overlapping(down, at); n != 0 {
		t.Errorf("after the reveal %d probes began beside another one", n)
	}

	// Another relay takes it up, and begins with a probe.
	first.stop()
	second := scan[time.Time](b, `SELECT clock_timestamp()`)
	b.start(change)
	b.eventually("probes of the successor", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE webhook_id = $1 AND started_at > $2`, int64(down.ID), second)
		return n >= 3, fmt.Sprint(n)
	})
	if n := b.overlapping(down, second); n != 0 {
		t.Errorf("%d attempts of the successor began beside another one", n)
	}

	status.Store(http.StatusNoContent)
	b.awaitStatus("succeeded", 2*conversations*each)
	if got := b.changes(down); got != "test registered, relay breaker_opened, test secret_revealed, relay breaker_closed" {
		t.Errorf("on record is %s", got)
	}
	if got := scan[string](b, `SELECT after ->> 'reason' FROM audit.webhook_changes WHERE change = 'breaker_opened'`); got != "5 attempts in a row failed, the last one with: status 503" {
		t.Errorf("the reason is %q", got)
	}
	if got := scan[string](b, `SELECT string_agg(breaker, ' ') FROM audit.webhook_health`); got != "closed closed" {
		t.Errorf("the breakers are %s", got)
	}
	if got := b.changes(good); got != "test registered" {
		t.Errorf("the other webhook: %s", got)
	}
	if n := scan[int](b, `
SELECT count(*) FROM audit.attempts a JOIN audit.deliveries d USING (delivery_id) JOIN audit.deliveries e ON e.webhook_id = d.webhook_id AND e.ordering_key = d.ordering_key AND e.event_seq < d.event_seq
 WHERE a.webhook_id = $1 AND a.attempt = 1 AND a.started_at < e.completed_at`, int64(down.ID)); n != 0 {
		t.Errorf("%d deliveries began before an earlier one of their conversation was finished", n)
	}
}

// TestWhatWaitsForAReceiverOrItsRateIsCancelled at once, and not when it is its
// turn: its webhook is disabled, or its replay cancelled.
func TestWhatWaitsForAReceiverOrItsRateIsCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	down := b.webhook(1, "/down", nil)
	limited := b.webhook(2, "/limited", func(s *domain.Settings) { s.RateLimit = domain.MinRateLimit })
	var status atomic.Int32
	status.Store(http.StatusNoContent)
	b.receiver.on("/down", failing(&status))
	b.start(func(c *relay.Config) {
		c.Breaker = domain.BreakerPolicy{Failures: 5, First: time.Hour, Last: time.Hour}
		c.Policy.Delays = []time.Duration{time.Hour}
	})
	const old, n = 20, 30
	b.publish(1, "", 1, old)
	b.awaitStatus("succeeded", old)
	status.Store(http.StatusBadGateway)
	b.publish(1, "", old+1, n)
	b.publish(2, "", 1, n)
	b.awaitStatus("succeeded", old+1)
	b.eventually("an open breaker", func() (bool, string) {
		got := b.changes(down)
		return got == "test registered, relay breaker_opened", got
	})
	tried := len(b.receiver.got("/down")) - old
	if tried > 5+domain.DefaultMaxConcurrency {
		t.Errorf("%d were tried until it was open", tried)
	}
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 hour', webhook_id => $1, statuses => ARRAY['succeeded']))`, int64(down.ID))
	b.eventually("deliveries of the replay", func() (bool, string) {
		got := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE replay_id = $1`, replay)
		return got == old, fmt.Sprint(got)
	})
	b.exec(`SELECT relay.cancel_replay($1)`, replay)
	b.awaitStatus("cancelled", old)
	b.command(down, domain.DisableWebhook{Reason: "test"})
	b.command(limited, domain.DisableWebhook{Reason: "test"})
	b.awaitStatus("cancelled", old+n+n-1)
	if got := len(b.receiver.got("/down")) - old; got != tried {
		t.Errorf("%d more were tried", got-tried)
	}
	if got := len(b.receiver.got("/limited")); got != 1 {
		t.Errorf("%d came to the limited one, want 1", got)
	}
}

// TestARateLimitIsKept by first deliveries and replays together, in order, while
// what waits goes through the due table and another webhook of the account gets
// all at once.
func TestARateLimitIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const limit, burst, n, again, more = 50, 5, 130, 40, 20 // so many that some wait longer than memory has patience
	limited := b.webhook(1, "/limited", func(s *domain.Settings) { s.RateLimit = limit })
	b.webhook(1, "/other", nil)
	b.start(nil)
	b.publish(1, "c", 1, n)
	b.eventually("overflow", func() (bool, string) {
		got := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'o'`)
		return got > 0, fmt.Sprint(got)
	})
	b.awaitStatus("succeeded", 2*n)
	if ids := numbers(t, b.receiver.got("/limited")); len(ids) != n || !slices.IsSorted(ids) {
		t.Errorf("they came as %v", ids)
	}
	b.exec(`SELECT relay.request_replay(relay.plan_replay(webhook_id => $1, event_ids => (SELECT array_agg(event_id) FROM (SELECT event_id FROM audit.events ORDER BY seq LIMIT $2) e)))`,
		int64(limited.ID), again)
	b.publish(1, "c", n+1, more)
	b.awaitStatus("succeeded", 2*n+again+2*more)
	var begun []float64
	rows, err := b.db.QueryContext(t.Context(), `SELECT extract(epoch FROM started_at) FROM audit.attempts WHERE webhook_id = $1 ORDER BY started_at`, int64(limited.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var at float64
		if err := rows.Scan(&at); err != nil {
			t.Fatal(err)
		}
		begun = append(begun, at)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(begun) != n+again+more {
		t.Fatalf("%d attempts were made", len(begun))
	}
	for i := range begun {
		for j := i + 1; j < len(begun); j++ {
			if most := burst + limit*(begun[j]-begun[i]) + 0.1; float64(j-i+1) > most {
				t.Fatalf("%d attempts began within %.3f s, want %.0f at most", j-i+1, begun[j]-begun[i], math.Floor(most))
			}
		}
	}
}

// TestARateLimitCanBeChanged: what waits goes on at the new one at once.
func TestARateLimitCanBeChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", func(s *domain.Settings) { s.RateLimit = domain.MinRateLimit })
	b.start(nil)
	b.publish(1, "c", 1, 20)
	b.awaitStatus("succeeded", 1)
	settings := hook.Settings
	settings.RateLimit = 0
	b.command(hook, domain.UpdateWebhook{Settings: settings, Addresses: loopback})
	b.awaitStatus("succeeded", 20)
}

// TestNothingButFailureDisables after five days, counted from the first failure
// by the log, whichever relay saw it; a success begins them anew.
func TestNothingButFailureDisables(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	bad, mixed := b.webhook(1, "/bad", nil), b.webhook(1, "/mixed", nil)
	var good atomic.Bool
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	b.receiver.on("/mixed", func(w http.ResponseWriter, _ *http.Request) {
		if good.Load() {
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	var ahead atomic.Int64
	change := func(c *relay.Config) {
		c.Policy = often
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
	jump := func(days float64) { ahead.Store(int64(days * 24 * float64(time.Hour))) }
	// failsAt waits until a webhook has failed by the clock as it is now.
	failsAt := func(hook domain.Webhook) {
		t.Helper()
		from := time.Now().Add(time.Duration(ahead.Load()))
		b.eventually("a failure", func() (bool, string) {
			n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE webhook_id = $1 AND outcome = 'failed' AND started_at > $2`, int64(hook.ID), from)
			return n > 0, b.changes(hook)
		})
	}
	first := b.start(change)
	b.publish(1, "", 1, 1)
	failsAt(bad)
	failsAt(mixed)
	first.stop()

	jump(3)
	second := b.start(change)
	failsAt(bad)
	good.Store(true)
	b.awaitStatus("succeeded", 1)
	good.Store(false)
	b.publish(1, "", 2, 1)
	failsAt(mixed)
	jump(4.9)
	failsAt(bad)
	failsAt(mixed)
	second.stop()
	if got := b.changes(bad); got != "test registered" {
		t.Fatalf("before its time: %s", got)
	}

	b.start(change)
	failsAt(bad)
	failsAt(mixed)
	jump(5.1)
	b.awaitStatus("cancelled", 2) // both that wait of it
	if got := b.changes(bad); got != "test registered, relay disabled" {
		t.Errorf("on record is %s", got)
	}
	if got := scan[string](b, `SELECT after ->> 'reason' FROM audit.webhook_changes WHERE change = 'disabled'`); got != domain.DisabledFailing(relay.DefaultDisableAfter) {
		t.Errorf("the reason is %q", got)
	}
	failsAt(mixed)
	if got := b.changes(mixed); got != "test registered" {
		t.Errorf("the one that succeeded meanwhile: %s", got)
	}
}

// unrecorded keeps nothing of a breaker until it is let.
type unrecorded struct {
	relay.Webhooks
	refuse *atomic.Bool
	asked  chan struct{}
}

func (f unrecorded) ChangeBreaker(ctx context.Context, account domain.AccountID, id domain.WebhookID, command domain.WebhookCommand) (domain.Webhook, error) {
	if f.refuse.Load() {
		select {
		case f.asked <- struct{}{}:
		default:
		}
		return domain.Webhook{}, context.DeadlineExceeded
	}
	return f.Webhooks.ChangeBreaker(ctx, account, id, command)
}

// TestABreakerIsKeptAlsoWhereTheRecordFails, and is on record once that works.
func TestABreakerIsKeptAlsoWhereTheRecordFails(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/down", nil)
	var status atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	b.receiver.on("/down", failing(&status))
	var refuse atomic.Bool
	refuse.Store(true)
	asked := make(chan struct{}, 1)
	b.start(func(c *relay.Config) {
		c.Webhooks = unrecorded{c.Webhooks, &refuse, asked}
		c.Breaker = domain.BreakerPolicy{Failures: 5, First: time.Hour, Last: time.Hour}
	})
	b.publish(1, "", 1, 100)
	<-asked
	<-asked
	if n := len(b.receiver.got("/down")); n > 5+domain.DefaultMaxConcurrency {
		t.Errorf("%d POSTs came", n)
	}
	refuse.Store(false)
	b.eventually("a record", func() (bool, string) {
		got := b.changes(hook)
		return got == "test registered, relay breaker_opened", got
	})
	b.command(hook, domain.PauseWebhook{})
	status.Store(http.StatusNoContent)
	b.command(hook, domain.EnableWebhook{}) // who enables it wants it tried
	b.awaitStatus("succeeded", 100)
	if got := b.changes(hook); got != "test registered, relay breaker_opened, test paused, test enabled" {
		t.Errorf("on record is %s", got)
	}
}
