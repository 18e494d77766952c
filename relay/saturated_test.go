package relay_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
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
