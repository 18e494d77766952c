package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// TestAReplayIsKilledOnTheWay, twice, with SIGKILL, of one relay and of two that
// share it: each delivery of its plan is made, none again that has an outcome, in
// the order of its conversation, and what it says of itself in the end is what
// the log has. Fresh events come meanwhile.
func TestAReplayIsKilledOnTheWay(t *testing.T) {
	t.Parallel()
	for _, relays := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d relays", relays), func(t *testing.T) {
			t.Parallel()
			killAReplay(t, relays)
		})
	}
}

func killAReplay(t *testing.T, relays int) {
	t.Helper()
	const events, conversations, webhooks = 1500, 3, 2 // fewer conversations than a replay has attempts under way to a webhook
	const planned = events * webhooks
	db := pgtest.New(t)
	receiver := newCatcher(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Outrider-Replay") == "" {
			return
		}
		select { // so that kills meet attempts under way
		case <-time.After(3 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	for w := range webhooks {
		register(t, db.SQL, 1, fmt.Sprintf("%s/%d", receiver.URL, w), func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	}
	insert := func(first, last int) {
		mustExec(t, db.SQL, `
INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT 1, 'message_created', json_build_object('n', n, 'conversation', n % $3), 'c' || n % $3 FROM generate_series($1::int, $2::int) n`, first, last, conversations)
	}
	insert(1, events)
	processes := make([]*process, relays)
	for i := range processes {
		processes[i] = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	}
	within(t, time.Minute, "shares", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(DISTINCT relay_id) FROM relay.slots`)
		return n == relays, fmt.Sprint(n)
	})
	posts := func(replay string) (n int) {
		for _, p := range receiver.all() {
			if p.replay == replay {
				n++
			}
		}
		return n
	}
	arrived := func(what, replay string, least int) {
		t.Helper()
		within(t, 5*time.Minute, what, func() (bool, string) { n := posts(replay); return n >= least, fmt.Sprintf("%d POSTs", n) })
	}
	arrived("the first deliveries", "", planned)

	operator := newCLI(t, asRole(t, db, "operator", "outrider_operator"))
	if plan := operator.object("replay", "plan", "--since", "1h", "--account", "1"); plan["total"] != float64(planned) {
		t.Fatalf("the plan is %v", plan)
	}
	operator.ok("replay", "run", "1")
	for kill := range 2 {
		arrived(fmt.Sprintf("part %d of the replay", kill), "1", planned*(kill+1)/4)
		processes[kill%relays].signal(syscall.SIGKILL)
		processes[kill%relays] = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	}
	insert(events+1, events+conversations)
	arrived("the fresh events", "", planned+conversations*webhooks)
	within(t, 5*time.Minute, "the end of the replay", func() (bool, string) {
		r := operator.object("replay", "show", "1")
		return r["state"] == "finished", fmt.Sprintf("%v of %v", r["done"], r["total"])
	})
	for _, process := range processes {
		process.signal(syscall.SIGTERM)
	}

	counted := query[string](t, db.SQL, `SELECT format('%s %s %s %s', scheduled, succeeded, dead + cancelled + expired, gone) FROM relay.replays`)
	logged := query[string](t, db.SQL, `SELECT format('%s %s %s 0', count(*), count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status <> 'succeeded')) FROM audit.deliveries WHERE replay_id = 1`)
	if want := fmt.Sprintf("%d %d 0 0", planned, planned); counted != want || logged != want {
		t.Errorf("the replay says %s, the log %s, want %s", counted, logged, want)
	}
	if n := query[int](t, db.SQL, `SELECT count(*) FROM relay.log WHERE replay_id = 1 AND type = 'attempt_unknown'`); n == 0 {
		t.Error("no kill met an attempt under way: the test shows nothing")
	}
	checkRecord(t, db.SQL, receiver.all())
	last := map[string]int{}
	for _, p := range receiver.all() {
		if p.replay == "" {
			continue
		}
		var body struct{ N, Conversation int }
		if err := json.Unmarshal([]byte(p.body), &body); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(p.path, "/", body.Conversation)
		if repeat := p.previous != "" && body.N == last[key]; !repeat && body.N <= last[key] {
			t.Errorf("%s: %d came after %d", key, body.N, last[key])
		}
		last[key] = body.N
	}
}
