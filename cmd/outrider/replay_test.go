package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

func TestReplayRun(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	s := insert(t, db.SQL, "message_created", tracedID, "")
	s.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingNoSubscriber}, EventName: "message_created"})

	requested := c.object("replay", "run", "--event", tracedID.String())
	if members(requested) != "replay_id scheduled state" || requested["replay_id"] != 1.0 || requested["state"] != "requested" {
		t.Errorf("requested is %v", requested)
	}
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a")
	c.now = func() time.Time { return storyStart }
	if out := c.ok("replay", "run", "--since", "2h", "--until", "2026-07-01T12:00:00+00:00", "--account", "1", "--webhook", "1"); !strings.Contains(out, "Replay 2 is requested") {
		t.Errorf("a replay by time says %s", out)
	}
	var selected string
	if err := db.SQL.QueryRowContext(t.Context(), `SELECT format('%s %s %s %s', account_id, webhook_id, since AT TIME ZONE 'UTC', until AT TIME ZONE 'UTC') FROM relay.replays WHERE replay_id = 2`).Scan(&selected); err != nil {
		t.Fatal(err)
	}
	if selected != "1 1 2026-07-01 10:00:00 2026-07-01 12:00:00" {
		t.Errorf("selected is %s", selected)
	}

	// A relay that takes it up, after a while.
	done := make(chan error, 1)
	go func() {
		for {
			result, err := db.SQL.ExecContext(t.Context(), `UPDATE relay.replays SET state = 'scheduled', scheduled = 3 WHERE replay_id = 3`)
			n := int64(0)
			if err == nil {
				n, err = result.RowsAffected()
			}
			if err != nil || n > 0 {
				done <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if out := c.ok("replay", "run", "--event", tracedID.String(), "--wait"); !strings.Contains(out, "Replay 3: 3 deliveries are scheduled") || !strings.Contains(out, "outrider audit trace "+tracedID.String()) {
		t.Errorf("a replay that was waited for says %s", out)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}

	// What only the database knows.
	c.fails(exitFailed, []string{"no routed event has the id " + uuid.Max.String(), "audit.events"}, "replay", "run", "--event", uuid.Max.String())
	c.fails(exitFailed, []string{"no webhook 9"}, "replay", "run", "--event", tracedID.String(), "--webhook", "9")
	c.ok("webhook", "disable", "1")
	c.fails(exitFailed, []string{"webhook 1 is disabled", "Enable it first"}, "replay", "run", "--event", tracedID.String(), "--webhook", "1")
}

func TestReplayUsage(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "postgres://nobody@127.0.0.1:1/none")
	for want, args := range map[string][]string{
		"nothing is selected":            {"replay", "run"},
		"--until is missing":             {"replay", "run", "--since", "2h"},
		"are both given":                 {"replay", "run", "--since", "2h", "--event", tracedID.String()},
		"--since is not before --until":  {"replay", "run", "--since", "1h", "--until", "2h"},
		`--event: "17" is not a UUID`:    {"replay", "run", "--event", "17"},
		`--since: "noon" is not a time`:  {"replay", "run", "--since", "noon", "--until", "1h"},
		`--webhook: "a" is not a number`: {"replay", "run", "--since", "1d", "--until", "1h", "--webhook", "a"},
		`unknown command "start"`:        {"replay", "start"},
	} {
		c.fails(exitUsage, []string{want}, args...)
	}
}
