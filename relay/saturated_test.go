package relay_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// TestAnAccountThatTakesAllItMayDelaysNoOther: the receivers of an account with
// many webhooks hang, and it inserts more than memory holds. What other accounts
// insert behind that starts, and arrives, before a single attempt of it has ended.
func TestAnAccountThatTakesAllItMayDelaysNoOther(t *testing.T) {
	t.Parallel()
	const (
		seed        = 7
		most        = 64
		hooks, each = 30, 300 // 9,000 first deliveries
		small       = 5
		share       = most - most/8
	)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
	b := newBench(t)
	var under, more atomic.Int64
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	for i := range hooks {
		path := fmt.Sprintf("/hanging%d", i)
		b.webhook(1, path, func(s *domain.Settings) { s.OrderHold, s.Timeout = 0, 30*time.Second })
		b.receiver.on(path, func(w http.ResponseWriter, r *http.Request) {
			if under.Add(1) > share {
				more.Add(1)
			}
			defer under.Add(-1)
			select {
			case <-gate:
			case <-r.Context().Done():
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	for n := range small {
		b.webhook(domain.AccountID(n+2), fmt.Sprintf("/small%d", n), nil)
	}
	r := b.start(func(c *relay.Config) { c.MaxInFlight = most })
	b.publish(1, "flood", 1, each)
	b.eventually("the account to take all it may", func() (bool, string) {
		n := under.Load()
		return n >= share, fmt.Sprintf("%d attempts", n)
	})
	sent := make([]int, small)
	for range 60 { // some of these conversations wait for the one before
		n := random.IntN(small)
		events := 1 + random.IntN(4)
		b.publish(domain.AccountID(n+2), fmt.Sprint("c", random.IntN(3)), sent[n]+1, events)
		sent[n] += events
	}
	all := 0
	for _, n := range sent {
		all += n
	}
	b.eventually("the others' deliveries", func() (bool, string) {
		got := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE account_id > 1 AND status = 'succeeded'`)
		return got == all, fmt.Sprintf("%d of %d", got, all)
	})
	if ended := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE account_id = 1 AND outcome <> 'started'`); ended != 0 {
		t.Errorf("%d attempts of the one that hangs ended meanwhile", ended)
	}
	if begun := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE account_id = 1`); begun != share || more.Load() != 0 {
		t.Errorf("%d attempts of the one that hangs are under way, want %d", begun, share)
	}
	for n := range small {
		if got := len(b.receiver.got(fmt.Sprintf("/small%d", n))); got != sent[n] {
			t.Errorf("account %d had %d POSTs for %d deliveries", n+2, got, sent[n])
		}
	}
	// What waited goes on when there is room.
	open()
	b.eventually("more of the first", func() (bool, string) {
		ended := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE account_id = 1 AND outcome = 'succeeded'`)
		return ended > 10*most, fmt.Sprint(ended)
	})
	r.stop()
}

// crowd is a receiver that answers the POST which came first whenever more than so
// many are under way, and knows the most that ever were.
type crowd struct {
	mu             sync.Mutex
	under          []chan struct{}
	limit, highest int
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := make(chan struct{})
	c.mu.Lock()
	c.under = append(c.under, answer)
	c.highest = max(c.highest, len(c.under))
	c.mu.Unlock()
	c.keep(-1)
	select {
	case <-answer:
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusNoContent)
}

// keep sets the limit, where it is not negative, and answers those beyond it.
func (c *crowd) keep(limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit >= 0 {
		c.limit = limit
	}
	for len(c.under) > c.limit {
		close(c.under[0])
		c.under = c.under[1:]
	}
}

// crowded starts a relay with little room, and events for it, until all of its
// room is taken, no POST is answered any more, and attempts are on record ahead.
func (b *bench) crowded(most, paths, each int) (*running, *crowd) {
	b.t.Helper()
	c := &crowd{limit: most - 2}
	b.t.Cleanup(func() { c.keep(0) })
	for p := range paths {
		path := fmt.Sprintf("/hook%d", p)
		b.webhook(domain.AccountID(1+p%3), path, func(s *domain.Settings) { s.Timeout = 30 * time.Second })
		b.receiver.on(path, c.ServeHTTP)
	}
	r := b.start(func(config *relay.Config) { config.Name, config.MaxInFlight = "a", most })
	b.shares("a 64")
	for account := range 3 {
		b.publish(domain.AccountID(account+1), "x", 1, each)
	}
	ahead := func() (bool, string) {
		open := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'started'`)
		return open > most, fmt.Sprintf("%d attempts on record without outcome", open)
	}
	b.eventually("attempts begun ahead of their room", ahead)
	c.keep(1 << 30)
	b.eventually("attempts that wait for room", ahead)
	return r, c
}

// TestARelayKeepsItsLimit: it begins attempts ahead of their room, so that no room
// stands empty while they go on record, and never has more POSTs under way.
func TestARelayKeepsItsLimit(t *testing.T) {
	t.Parallel()
	const most, paths, each = 8, 12, 200
	b := newBench(t)
	_, receiver := b.crowded(most, paths, each)
	b.eventually("all room to be taken", func() (bool, string) {
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		return len(receiver.under) >= most-1, fmt.Sprintf("%d POSTs", len(receiver.under))
	})
	receiver.keep(0)
	b.exactly(paths, each)
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	if receiver.highest > most {
		t.Errorf("%d POSTs were under way at once, want %d", receiver.highest, most)
	}
}

// TestNothingIsSentOfAShardThatWasGivenUp: receivers hang of a sudden, and what
// was begun ahead waits for room when other relays take its shards over. It is
// unknown, and repeated by them.
func TestNothingIsSentOfAShardThatWasGivenUp(t *testing.T) {
	t.Parallel()
	const most, paths, each = 8, 12, 200
	b := newBench(t)
	first, receiver := b.crowded(most, paths, each)
	b.start(func(c *relay.Config) { c.Name, c.MaxInFlight = "b", most })
	b.shares("a 32, b 32")
	var stopped sync.WaitGroup
	stopped.Go(first.stop)
	b.shares("b 64")
	receiver.keep(0)
	stopped.Wait()
	b.awaitStatus("succeeded", paths*each)
	unsent := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'unknown'`)
	if told := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'attempt_unknown' AND data ->> 'reason' LIKE '%gave the webhook up%'`); told != unsent || unsent == 0 {
		t.Errorf("%d attempts are unknown, %d of them since there was no room", unsent, told)
	}
	// Each delivery was sent once, in order, those that were to be repeated as such.
	repeated := 0
	for p := range paths {
		posts := b.receiver.got(fmt.Sprintf("/hook%d", p))
		if ids := numbers(t, posts); len(ids) != each || !slices.IsSorted(ids) {
			t.Errorf("/hook%d saw %d POSTs for %d deliveries: %v", p, len(ids), each, ids)
		}
		for _, got := range posts {
			if got.attempt == 2 && got.previous == "unknown" {
				repeated++
			}
		}
	}
	if repeated != unsent {
		t.Errorf("%d attempts were repeated, want %d", repeated, unsent)
	}
}
