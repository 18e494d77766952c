package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// TestKilledWhileItTellsTheOperator: relays are killed while deliveries die, and
// as soon as a webhook is disabled. Each death and the disabling is told by one
// event, and its POSTs have one id and one body.
func TestKilledWhileItTellsTheOperator(t *testing.T) {
	t.Parallel()
	const deaths = 300
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "operator", "--url", receiver.URL+"/ops", "--allow-cidrs", "127.0.0.0/8")
	register(t, db.SQL, 1, receiver.URL+"/hook", func(s *domain.Settings) { s.OrderHold = 0 })
	register(t, db.SQL, 2, receiver.URL+"/gone", nil)
	c.ok("webhook", "pause", "2")
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.SQL.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	count := func(query string) (n int) {
		t.Helper()
		if err := db.SQL.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const dead = `SELECT count(*) FROM relay.log WHERE type = 'dead'`
	insert := func(account, n int) {
		t.Helper()
		exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT $1, 'message_created', json_build_object('n', n) FROM generate_series(1, $2::int) n`, account, n)
	}

	relay := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	insert(1, deaths)
	until(t, "the pause to hold them", func() (bool, string) {
		n := count(`SELECT count(*) FROM relay.due`)
		return n == deaths, fmt.Sprint(n)
	})
	// What is not what was routed is given up: nothing dies sooner.
	exec(`UPDATE outbox.events SET payload = '{"changed":true}' WHERE account_id = 1`)
	c.ok("webhook", "enable", "2")
	for _, moment := range []string{dead, `SELECT count(*) FROM relay.webhooks WHERE id = 3 AND state = 'disabled'`} {
		until(t, "the moment of a kill", func() (bool, string) {
			return count(moment) > 0, moment
		})
		relay.signal(syscall.SIGKILL)
		relay = startProcess(t, db.DSN, "serve", "--allow-unsafe")
		if moment == dead {
			insert(2, 1)
		}
	}
	until(t, "the end of all that is told", func() (bool, string) {
		n := count(`SELECT count(*) FROM audit.deliveries WHERE account_id = -1 AND status = 'succeeded'`)
		return n == deaths+1, fmt.Sprintf("%d of %d", n, deaths+1)
	})
	relay.signal(syscall.SIGTERM)

	bodies, deliveries, disabled := map[string]string{}, map[string]bool{}, 0
	for _, p := range receiver.all() {
		if p.path != "/ops" {
			continue
		}
		body, again := bodies[p.id]
		if again && body != p.body {
			t.Errorf("%s has two bodies", p.id)
		}
		if bodies[p.id] = p.body; again {
			continue
		}
		var told struct {
			Event    string
			Delivery struct {
				ID     string `json:"delivery_id"`
				Reason string
			}
		}
		switch err := json.Unmarshal([]byte(p.body), &told); {
		case err != nil:
			t.Errorf("%s: %v", p.body, err)
		case told.Event == domain.EventWebhookDisabled:
			disabled++
		case told.Delivery.Reason != domain.DeadPayload || deliveries[told.Delivery.ID]:
			t.Errorf("told again, or of something else: %s", p.body)
		default:
			deliveries[told.Delivery.ID] = true
		}
	}
	if len(deliveries) != deaths || disabled != 1 {
		t.Errorf("the operator was told of %d dead deliveries and %d disabled webhooks, want %d and 1", len(deliveries), disabled, deaths)
	}
	if n := count(`SELECT count(*) FROM outbox.events WHERE account_id = -1`); n != deaths+1 {
		t.Errorf("%d events tell of %d things", n, deaths+1)
	}
	checkRecord(t, db.SQL, receiver.all())
	if out := c.ok("audit", "deliveries", "--account", "operator", "--limit", "1", "--format", "json"); !strings.Contains(out, `"account_id":-1`) {
		t.Errorf("audit deliveries lists %s", out)
	}
}
