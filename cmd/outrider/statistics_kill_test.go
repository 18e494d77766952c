package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// TestStatisticsAreExactAfterKills kills relays at random moments under load:
// nothing is counted twice, and nothing is left out.
func TestStatisticsAreExactAfterKills(t *testing.T) {
	t.Parallel()
	const kills = 6
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if rand.IntN(10) == 0 { //nolint:gosec // a flaky receiver
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		select {
		case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond): //nolint:gosec // a varying receiver
		case <-r.Context().Done():
		}
	})
	for account := range 4 {
		register(t, db.SQL, domain.AccountID(account+1), fmt.Sprintf("%s/%d", receiver.URL, account), nil)
	}
	producing, stopProducing := context.WithCancel(t.Context())
	defer stopProducing()
	var produced sync.WaitGroup
	produced.Go(func() {
		for n := 1; producing.Err() == nil; n++ {
			if _, err := db.SQL.ExecContext(context.WithoutCancel(producing), `
INSERT INTO outbox.events (account_id, event, payload) VALUES (1 + $1::int % 4, 'message_created', json_build_object('n', $1::int))`, n); err != nil {
				t.Errorf("insert: %v", err)
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-producing.Done():
			}
		}
	})
	relays := []*process{startProcess(t, db.DSN, "serve", "--allow-unsafe"), startProcess(t, db.DSN, "serve", "--allow-unsafe")}
	for kill := range kills {
		before := len(receiver.all())
		until(t, "a relay at work", func() (bool, string) {
			n := len(receiver.all())
			return n > before+50, fmt.Sprintf("kill %d: %d POSTs", kill, n)
		})
		select {
		case <-time.After(time.Duration(rand.IntN(3000)) * time.Millisecond): //nolint:gosec // before, in and behind an addition
		case <-t.Context().Done():
		}
		relays[kill%2].signal(syscall.SIGKILL)
		relays[kill%2] = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	}
	// One replay, whose deliveries begin otherwise; and a webhook whose waiting
	// ones are cancelled.
	c := newCLI(t, db.DSN)
	c.ok("replay", "run", "--since", "1h", "--until", "0s", "--account", "1")
	until(t, "all deliveries of the replay", func() (bool, string) {
		left := query[int](t, db.SQL, `SELECT total - scheduled FROM relay.replays`)
		return left == 0, fmt.Sprintf("%d are not scheduled", left)
	})
	c.ok("webhook", "disable", "2")
	stopProducing()
	produced.Wait()
	within(t, 5*time.Minute, "an empty outbox", func() (bool, string) {
		left := texts(t, db.SQL, `
SELECT e.seq::text FROM outbox.events e WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0 OFFSET 0)
UNION ALL
SELECT l.event_seq::text FROM relay.log l WHERE l.type = 'attempt_started'
   AND (SELECT true FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = l.version + 1) IS NULL`)
		return len(left) == 0, fmt.Sprint(len(left))
	})
	for _, p := range relays {
		p.signal(syscall.SIGTERM)
	}
	// What the last one did not fold is folded by the next.
	last := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	until(t, "the rest of dead relays", func() (bool, string) {
		left := texts(t, db.SQL, `SELECT p.writer::text FROM relay.projected p JOIN relay.relays r ON r.relay_id = p.writer WHERE r.fenced_at IS NOT NULL`)
		return len(left) == 0, fmt.Sprint(left)
	})
	last.signal(syscall.SIGTERM)
	checkStatistics(t, db.SQL)
}
