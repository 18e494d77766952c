package relay_test

import (
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

// name lets a relay be told from others.
func name(name string) func(*relay.Config) {
	return func(c *relay.Config) { c.Name = name }
}

// ownersQuery gives how many shards each relay has, by name.
const ownersQuery = `
SELECT coalesce(string_agg(o.name || ' ' || o.n, ', ' ORDER BY o.name), '')
  FROM (SELECT r.name, count(*) AS n FROM relay.slots s JOIN relay.relays r USING (relay_id) WHERE s.slot < 64 GROUP BY r.name) o`

// shares waits until shards belong to relays as told.
func (b *bench) shares(want string) {
	b.t.Helper()
	b.eventually("shares "+want, func() (bool, string) {
		got := scan[string](b, ownersQuery)
		return got == want, got
	})
}

// owns waits until a relay is at work with that many shards.
func (b *bench) owns(r *running, n int) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d shards of a relay at work", n), func() (bool, string) {
		state := r.relay.State()
		return state == relay.Active && r.relay.Share().Shards.Count() == n, fmt.Sprintf("%s, %d shards", state, r.relay.Share().Shards.Count())
	})
}

// exactly fails where deliveries were not each sent once, in routing order.
func (b *bench) exactly(paths, each int) {
	b.t.Helper()
	b.awaitStatus("succeeded", paths*each)
	for p := range paths {
		path := fmt.Sprintf("/hook%d", p)
		if ids := numbers(b.t, b.receiver.got(path)); len(ids) != each || !slices.IsSorted(ids) {
			b.t.Errorf("%s saw %d POSTs for %d deliveries: %v", path, len(ids), each, ids)
		}
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome <> 'succeeded'`); n != 0 {
		b.t.Errorf("%d attempts did not succeed", n)
	}
}

func TestRelaysShareTheWork(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const paths = 12
	for p := range paths {
		b.webhook(1, fmt.Sprintf("/hook%d", p), nil)
	}
	b.start(name("a"))
	b.shares("a 64")
	second := b.start(name("b"))
	b.shares("a 32, b 32")
	third := b.start(name("c"))
	b.shares("a 22, b 21, c 21")
	b.publish(1, "x", 1, 50)
	b.exactly(paths, 50)
	if n := scan[int](b, `SELECT count(DISTINCT relay_id) FROM audit.attempts`); n != 3 {
		t.Errorf("%d relays made the attempts, want 3", n)
	}
	third.stop()
	b.shares("a 32, b 32")
	second.stop()
	b.shares("a 64")
	b.publish(1, "x", 51, 50)
	b.exactly(paths, 100)
}

func TestTheOneThatTailsStopsAndAnotherGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook0", nil)
	b.webhook(1, "/hook1", nil)
	first := b.start(name("a"))
	b.shares("a 64")
	second := b.start(name("b"))
	b.shares("a 32, b 32")
	b.publish(1, "x", 1, 20)
	b.exactly(2, 20)
	first.stop()
	b.shares("b 64")
	b.publish(1, "x", 21, 20)
	b.exactly(2, 40)
	if !second.relay.Share().Tail {
		t.Error("it does not tail")
	}
	b.eventually("statistics of all", func() (bool, string) {
		got := scan[string](b, `
SELECT coalesce(string_agg(DISTINCT h.pending::text, ' '), '') || ' pending, ' || coalesce((SELECT sum(s.succeeded) FROM audit.webhook_stats s), 0) || ' succeeded' FROM audit.webhook_health h`)
		return got == "0 pending, 80 succeeded", got
	})
}

// Relays come and go while events come: each delivery leaves once and in order.
func TestRebalancingUnderLoadRepeatsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const paths, rounds, each = 16, 6, 60
	for p := range paths {
		b.webhook(1, fmt.Sprintf("/hook%d", p), nil)
	}
	b.start(name("a"))
	b.shares("a 64")
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range rounds * each {
			b.publish(1, "x", n+1, 1)
		}
	})
	for range rounds / 2 {
		other := b.start(name("b"))
		b.shares("a 32, b 32")
		third := b.start(name("c"))
		b.shares("a 22, b 21, c 21")
		other.stop()
		b.shares("a 32, c 32")
		third.stop()
		b.shares("a 64")
	}
	wg.Wait()
	b.exactly(paths, rounds*each)
}

// A shard changes hands while an attempt of it hangs: the other webhooks of the
// shard go on with the new owner, the attempt's own relay says how it ended, and
// its conversation goes on behind it.
func TestAShardChangesHandsWhileAnAttemptIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scenario string
		status   int
		attempts int
	}{{"it succeeds", http.StatusNoContent, 3}, {"it fails", http.StatusInternalServerError, 4}} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			// Of the same shard, one that another relay gets.
			hanging := b.webhook(1, "/hanging", func(s *domain.Settings) { s.Timeout = 30 * time.Second })
			fine := b.webhook(1, "/hook0", nil)
			b.exec(`UPDATE relay.webhooks SET id = id + 1000 * 64 + 63 - (id % 64)  WHERE id = $1`, int64(hanging.ID))
			b.exec(`UPDATE relay.webhooks SET id = id + 2000 * 64 + 63 - (id % 64)  WHERE id = $1`, int64(fine.ID))
			var once atomic.Bool
			hung, gate := make(chan struct{}), make(chan struct{})
			open := sync.OnceFunc(func() { close(gate) })
			t.Cleanup(open)
			b.receiver.on("/hanging", func(w http.ResponseWriter, _ *http.Request) {
				if once.CompareAndSwap(false, true) {
					close(hung)
					<-gate
					w.WriteHeader(c.status)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})
			first := b.start(name("a"))
			b.shares("a 64")
			b.publish(1, "x", 1, 3)
			<-hung
			b.awaitStatus("succeeded", 3) // those of the other
			second := b.start(name("b"))
			b.shares("a 32, b 32")
			b.publish(1, "y", 4, 3)
			b.awaitStatus("succeeded", 9) // also those of another conversation of the hanging one
			if n := scan[int](b, `SELECT count(DISTINCT relay_id) FROM audit.attempts`); n != 2 {
				t.Errorf("%d relays made attempts", n)
			}
			open()
			b.awaitStatus("succeeded", 12)
			if got := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'unknown'`); got != 0 {
				t.Errorf("%d attempts are unknown", got)
			}
			if got := scan[string](b, `
SELECT string_agg(r.name, ' ' ORDER BY l.pos) FROM relay.log l JOIN relay.relays r ON r.relay_id = l.writer
 WHERE l.webhook_id % 64 = 63 AND l.type LIKE 'attempt_%' AND l.event_seq = (SELECT min(seq) FROM audit.events) AND l.webhook_id = (SELECT min(webhook_id) FROM relay.log WHERE webhook_id > 0)`); !strings.HasPrefix(got, "a a") {
				t.Errorf("its first attempt was recorded by %s", got)
			}
			if n := len(b.receiver.got("/hanging")); n != c.attempts+3 {
				t.Errorf("the receiver saw %d POSTs, want %d", n, c.attempts+3)
			}
			ids := numbers(t, slices.DeleteFunc(b.receiver.got("/hanging"), func(p post) bool { return !strings.Contains(p.body, `"x"`) }))
			if !slices.IsSorted(ids) {
				t.Errorf("its conversation came as %v", ids)
			}
			_, _ = first, second
		})
	}
}

// A relay that stops lets others have its shards at once, however long its last
// attempts take.
func TestARelayThatStopsHoldsUpNothingButItsOpenAttempts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hanging", func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	b.webhook(1, "/hook0", nil)
	var once atomic.Bool
	hung, gate := make(chan struct{}), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	b.receiver.on("/hanging", func(w http.ResponseWriter, _ *http.Request) {
		if once.CompareAndSwap(false, true) {
			close(hung)
			<-gate
		}
		w.WriteHeader(http.StatusNoContent)
	})
	first := b.start(name("a"))
	b.shares("a 64")
	b.publish(1, "x", 1, 1)
	<-hung
	b.start(name("b"))
	b.shares("a 32, b 32")
	stopped := make(chan struct{})
	go func() { first.stop(); close(stopped) }()
	b.shares("b 64")
	b.publish(1, "y", 2, 5)
	b.awaitStatus("succeeded", 11)
	select {
	case <-stopped:
		t.Fatal("the first did not wait for its attempt")
	default:
	}
	open()
	<-stopped
	b.awaitStatus("succeeded", 12)
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts`); n != 12 {
		t.Errorf("%d attempts for 12 deliveries", n)
	}
}
