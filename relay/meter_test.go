package relay_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// listening is a Meter that remembers.
type listening struct {
	mu     sync.Mutex
	counts map[string]int
	last   relay.Load
	most   relay.Load
	beat   time.Time
}

func newListening() *listening { return &listening{counts: map[string]int{}} }

func (l *listening) add(what string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what] += n
}

func (l *listening) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[what]
}

func (l *listening) Routed(batch *outbox.Batch, took time.Duration) {
	l.add("routed", len(batch.Rows))
	if took < 0 || took > time.Minute {
		l.add("odd batches", 1)
	}
}

func (l *listening) Recorded(steps int, took time.Duration, err error) {
	if steps == 0 || took < 0 || err != nil {
		l.add("odd records", 1)
	}
	l.add("steps", steps)
}

func (l *listening) Ended(ends []relay.Ended) {
	for _, end := range ends {
		if end.Outcome != domain.OutcomeNone {
			l.add("attempt "+string(end.Outcome)+" "+string(end.Class), 1)
			if end.Took <= 0 {
				l.add("attempts that took no time", 1)
			}
		}
		if end.Status != domain.DeliveryNone {
			l.add("delivery "+string(end.Status), 1)
		}
		if end.Arrived {
			l.add("arrivals", 1)
			if end.Arrival < 0 || end.Arrival > 10*time.Minute {
				l.add("odd arrivals", 1)
			}
		}
	}
}

func (l *listening) Load(load relay.Load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = load
	l.most.InFlight = max(l.most.InFlight, load.InFlight)
	l.most.Waiting = max(l.most.Waiting, load.Waiting)
	l.most.Bodies = max(l.most.Bodies, load.Bodies)
	l.most.Overflowing = max(l.most.Overflowing, load.Overflowing)
}

func (l *listening) Beat(begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beat = begun
}

// wants waits until the meter has heard of what is on record.
func (l *listening) wants(b *bench, want map[string]int) {
	b.t.Helper()
	b.eventually("what the meter should hear", func() (bool, string) {
		for what, n := range want {
			if got := l.count(what); got != n {
				return false, fmt.Sprintf("%s: %d, want %d", what, got, n)
			}
		}
		return true, ""
	})
}

func TestTheMeterHearsOfEachEndOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	l := newListening()
	b.receiver.on("/down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	b.webhook(1, "/up", nil)
	b.webhook(2, "/down", nil)
	off := b.webhook(3, "/off", nil)
	r := b.start(func(c *relay.Config) { c.Meter = l })
	b.publish(1, "", 1, 20)
	b.publish(2, "", 1, 3)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'no name', '{}')`)
	attempts := 1 + len(quick.Delays)
	l.wants(b, map[string]int{
		"routed": 24, "attempt succeeded ": 20, "attempt failed status": 3 * attempts, "delivery succeeded": 20, "delivery dead": 3, "arrivals": 20,
	})
	// What a disabled webhook cancels ends without an attempt.
	b.command(off, domain.PauseWebhook{})
	b.publish(3, "", 1, 2)
	b.eventually("two that are held", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'p'`)
		return n == 2, fmt.Sprint(n)
	})
	b.command(off, domain.DisableWebhook{})
	l.wants(b, map[string]int{"delivery cancelled": 2})
	// A replay arrives, which says nothing about the way from the insertion.
	b.exec(`SELECT relay.request_replay(relay.plan_replay(1, now() - interval '1 hour', now()))`)
	l.wants(b, map[string]int{"attempt succeeded ": 40, "delivery succeeded": 40, "arrivals": 20})
	r.stop()
	for _, odd := range []string{"odd batches", "odd records", "odd arrivals", "attempts that took no time"} {
		if n := l.count(odd); n != 0 {
			t.Errorf("%d %s", n, odd)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.beat.IsZero() || l.last != (relay.Load{}) {
		t.Errorf("the last sign of life is at %v; a relay that stopped has %+v in memory", l.beat, l.last)
	}
}

func TestTheMeterSeesWhatOverflows(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	l := newListening()
	release := make(chan struct{})
	b.receiver.on("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	b.webhook(1, "/slow", func(s *domain.Settings) { s.MaxConcurrency, s.Timeout = 2, 30*time.Second })
	b.start(func(c *relay.Config) { c.Meter = l })
	b.publish(1, "", 1, 300) // more than come back at once
	b.eventually("the load", func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.last.InFlight == 2 && l.last.Overflowing == 1 && l.last.Undispatched == 0, fmt.Sprintf("%+v", l.last)
	})
	close(release)
	l.wants(b, map[string]int{"delivery succeeded": 300})
	b.eventually("an empty memory", func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.last == relay.Load{}, fmt.Sprintf("%+v", l.last)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most.Waiting == 0 || l.most.Bodies == 0 || l.most.Overflowing != 1 {
		t.Errorf("the most it saw is %+v", l.most)
	}
}
