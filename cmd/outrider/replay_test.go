package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// routedStory is a database with six events of two conversations, each routed
// to webhooks 1 and 2 of account 1. No relay works on it.
func routedStory(t *testing.T) (*cli, *pgtest.DB, []uuid.UUID) {
	t.Helper()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a", "--max-concurrency", "8")
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/b")
	var ids []uuid.UUID
	for i := range 6 {
		id := tracedID
		id[15] = byte(i + 1)
		ids = append(ids, id)
		s := insert(t, db.SQL, "message_created", id, "")
		s.routed(domain.Routed{
			Routing:   domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 1, Version: 1}, {WebhookID: 2, Version: 2}}},
			EventName: "message_created", OrderingKey: fmt.Sprintf("conversation:%d", i%2),
		})
		scheduled := domain.Scheduled{At: after(time.Millisecond), Deadline: after(time.Hour), WebhookVersion: 1}
		started := domain.AttemptStarted{At: after(2 * time.Millisecond), Attempt: 1, WebhookVersion: 1, Timeout: 5 * time.Second}
		s.delivered(1, 0, 7, scheduled, started, domain.AttemptSucceeded{At: after(3 * time.Millisecond), Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 200, Duration: 2 * time.Second}})
		s.delivered(2, 0, 7, scheduled, domain.Dead{At: after(4 * time.Millisecond), Reason: domain.DeadAttempts})
	}
	return c, db, ids
}

// follower is where a command writes that follows a replay: what it reads there
// lets the replay go on.
type follower struct {
	t    *testing.T
	db   *sql.DB
	text bytes.Buffer
	then map[string]string // a statement by what is read first; each once
}

func (f *follower) Write(p []byte) (int, error) {
	for read, statement := range f.then {
		if bytes.Contains(p, []byte(read)) {
			delete(f.then, read)
			mustExec(f.t, f.db, statement)
		}
	}
	return f.text.Write(p)
}

// followed runs a command line that writes to f, on a terminal of a width.
func (c *cli) followed(f *follower, width int, args ...string) int {
	a := &app{in: strings.NewReader(""), out: f, err: f, env: func(name string) string { return c.env[name] }, now: c.now, width: func() int { return width }}
	return a.run(c.t.Context(), args)
}

// listed writes ids into a file, a line each.
func listed(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ids")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReplayPlan(t *testing.T) {
	t.Parallel()
	c, _, ids := routedStory(t)
	var lines []string
	for i, id := range ids {
		lines = append(lines, id.String(), "", fmt.Sprintf(`{"event_id":%q,"n":%d}`, id, i)) // each twice
	}
	file := listed(t, lines...)

	plan := c.object("replay", "plan", "--events-from", file)
	if plan["replay_id"] != 1.0 || plan["state"] != "planned" || plan["total"] != 12.0 || plan["account_id"] != 1.0 || plan["scheduled"] != 0.0 {
		t.Errorf("the plan is %v", plan)
	}
	// 6 deliveries of 2 s each to the webhook that has answered, two at once.
	if plan["estimated_seconds"] != 6.0 {
		t.Errorf("it is estimated to take %v s", plan["estimated_seconds"])
	}
	if first := plan["first_at"]; first != "2026-07-01T12:00:00.002Z" || plan["last_at"] != first {
		t.Errorf("its events are of %v to %v", first, plan["last_at"])
	}
	webhooks, ok := plan["webhooks"].([]any)
	if !ok || len(webhooks) != 2 {
		t.Fatalf("its webhooks are %v", plan["webhooks"])
	}
	if part, ok := webhooks[0].(map[string]any); !ok || part["webhook_id"] != 1.0 || part["deliveries"] != 6.0 || part["passed_over"] != nil {
		t.Errorf("the first webhook has %v", webhooks[0])
	}
	if selection := fmt.Sprint(plan["selection"]); !strings.Contains(selection, "event_id_count:6") {
		t.Errorf("the selection is %s", selection)
	}

	// For people, and from standard input; the rate counts where it is slower.
	c.in = ids[0].String() + "\n" + ids[2].String() + "\n"
	out := c.ok("replay", "plan", "--events-from", "-", "--status", "dead", "--ordering-key", "conversation:0", "--rate", "0.5")
	for _, want := range []string{"Plan 2: 2 deliveries. Nothing is sent yet.", "WEBHOOK", "It takes about 4s.", "outrider replay run 2 --rate 0.5"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	// What is disabled is left out, and said.
	c.ok("webhook", "disable", "2")
	out = c.ok("replay", "plan", "--event-id", ids[0].String())
	for _, want := range []string{"Plan 3: 1 delivery.", "LEFT OUT", "disabled"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestReplayRun(t *testing.T) {
	t.Parallel()
	c, db, ids := routedStory(t)
	requested := c.object("replay", "run", "--event-id", ids[0].String(), "--rate", "5")
	if members(requested) != "account_id cancelled dead done expired finished_at gone rate replay_id requested_at requested_by scheduled selection state succeeded to_webhook_id total" ||
		requested["replay_id"] != 1.0 || requested["state"] != "requested" || requested["rate"] != 5.0 {
		t.Errorf("requested is %v", requested)
	}
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/new")
	c.ok("replay", "plan", "--event-id", ids[0].String(), "--event-id", ids[1].String())
	if out := c.ok("replay", "run", "2", "--to-webhook", "3"); !strings.Contains(out, "Replay 2 is requested: 2 deliveries.") || !strings.Contains(out, "outrider replay show 2 --follow") {
		t.Errorf("a plan to another webhook says %s", out)
	}

	// A relay that takes it up once it is waited for.
	c.ok("replay", "plan", "--event-id", ids[0].String())
	w := &follower{t: t, db: db.SQL, then: map[string]string{
		"requested [": `UPDATE relay.replays SET state = 'finished', scheduled = 2, succeeded = 1, dead = 1, finished_at = now() WHERE replay_id = 3`,
	}}
	if code := c.followed(w, 100, "replay", "run", "3", "--wait"); code != exitDone || !strings.HasSuffix(w.text.String(), "Replay 3 is finished: 2 of 2 deliveries done (1 succeeded, 1 dead).\n") {
		t.Errorf("a replay that was waited for says %s", &w.text)
	}

	// What only the database knows.
	c.fails(exitFailed, []string{"plan 3 ran already: it is finished", "plan anew"}, "replay", "run", "3")
	c.fails(exitFailed, []string{"there is no replay 77", "outrider replay list"}, "replay", "run", "77")
	c.fails(exitFailed, []string{"no routed event has the id " + uuid.Max.String(), "audit.events"}, "replay", "run", "--event-id", uuid.Max.String())
	c.fails(exitFailed, []string{"no webhook 9"}, "replay", "run", "--event-id", ids[0].String(), "--webhook", "9")
	c.ok("webhook", "disable", "1")
	c.fails(exitFailed, []string{"webhook 1 is disabled", "Enable it first"}, "replay", "run", "--event-id", ids[0].String(), "--webhook", "1")
	if n := len(c.objects("replay", "list", "--format", "json")); n != 3 {
		t.Errorf("%d replays are there, want 3: what is refused leaves none", n)
	}
}

// TestReplayOfWhatWentSince: a webhook that was deleted, payloads that are gone.
// Each says so, and nothing is requested.
func TestReplayOfWhatWentSince(t *testing.T) {
	t.Parallel()
	c, db, ids := routedStory(t)
	file := listed(t, ids[0].String(), ids[1].String(), ids[2].String())
	c.ok("replay", "plan", "--events-from", file)
	mustExec(t, db.SQL, `DELETE FROM outbox.events WHERE seq IN (SELECT event_seq FROM relay.log WHERE event_id = $1)`, ids[0].String())
	c.fails(exitFailed, []string{"the events of 2 of 6 deliveries have no payload any more", "Plan anew, which leaves them out"}, "replay", "run", "1")

	out := c.ok("replay", "plan", "--events-from", file)
	for _, want := range []string{"Plan 2: 4 deliveries.", "Left out: 2 deliveries of events that have no payload any more."} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	plan := c.object("replay", "show", "2")
	if part, ok := plan["webhooks"].([]any)[0].(map[string]any); !ok || plan["total"] != 4.0 || part["deliveries"] != 2.0 || part["gone"] != 1.0 {
		t.Errorf("the plan is %v", plan)
	}
	c.fails(exitFailed, []string{"the events of 2 of 2 deliveries have no payload any more", "audit.retentions"}, "replay", "run", "--event-id", ids[0].String())

	c.ok("webhook", "remove", "1", "--yes")
	c.fails(exitFailed, []string{"webhook 1 is deleted", "plan anew"}, "replay", "run", "2")
	c.fails(exitFailed, []string{"webhook 1 is deleted"}, "replay", "run", "--event-id", ids[1].String(), "--webhook", "1")
	if n := len(c.objects("replay", "list", "--state", "planned", "--format", "json")); n != 2 || len(c.objects("replay", "list", "--format", "json")) != 2 {
		t.Errorf("%d plans wait, want the 2 that were made and nothing else", n)
	}
}

func TestReplayListShowAndChange(t *testing.T) {
	t.Parallel()
	c, db, ids := routedStory(t)
	for range 3 {
		c.ok("replay", "plan", "--event-id", ids[0].String())
	}
	c.ok("replay", "run", "2")
	if out := c.ok("replay", "pause", "2"); out != "Replay 2 is paused: 0 of 2 deliveries done.\n" {
		t.Errorf("pause says %s", out)
	}
	if is := c.object("replay", "resume", "2")["state"]; is != "running" {
		t.Errorf("resumed is %v", is)
	}
	if out := c.ok("replay", "cancel", "1"); out != "Replay 1 is cancelled: 0 of 2 deliveries done.\n" {
		t.Errorf("cancel says %s", out)
	}
	c.fails(exitFailed, []string{"replay 1 cannot be resumed: it is cancelled", "one that is paused"}, "replay", "resume", "1")
	c.fails(exitFailed, []string{"there is no replay 9", "replay list"}, "replay", "pause", "9")
	c.fails(exitFailed, []string{"there is no replay 9", "replay list"}, "replay", "show", "9")
	c.fails(exitFailed, []string{"replay 3 is only planned", "outrider replay run 3"}, "replay", "show", "3", "--follow")

	states := func(args ...string) string {
		var found []string
		for _, r := range c.objects(append([]string{"replay", "list", "--format", "json"}, args...)...) {
			found = append(found, fmt.Sprintf("%v %v", r["replay_id"], r["state"]))
		}
		return strings.Join(found, ", ")
	}
	for want, args := range map[string][]string{
		"3 planned, 2 running, 1 cancelled": nil,
		"2 running":                         {"--state", "running"},
		"3 planned":                         {"--limit", "1"},
		"2 running, 1 cancelled":            {"--before", "3"},
		"":                                  {"--account", "2"},
	} {
		if got := states(args...); got != want {
			t.Errorf("list %v gives %q, want %q", args, got, want)
		}
	}
	if out := c.ok("replay", "list"); !strings.Contains(out, "REPLAY") || strings.Count(out, "\n") != 4 {
		t.Errorf("the list is\n%s", out)
	}
	out := c.ok("replay", "show", "2")
	for _, want := range []string{"state", "running", "selection", "WEBHOOK"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if n := len(c.object("replay", "show", "2")["webhooks"].([]any)); n != 2 { //nolint:errcheck // fails the test anyway
		t.Errorf("%d webhooks are shown", n)
	}

	// Followed while it is carried out: on a terminal, in lines, and in JSON.
	const one = `UPDATE relay.replays SET succeeded = 1 WHERE replay_id = 2`
	w := &follower{t: t, db: db.SQL, then: map[string]string{
		"0 of 2": one, "1 of 2": `UPDATE relay.replays SET state = 'finished' WHERE replay_id = 2`,
	}}
	code := c.followed(w, 100, "replay", "show", "2", "--follow")
	for _, want := range []string{"\rrunning [------------------------]   0%  0 of 2", "\rrunning [############------------]  50%  1 of 2", "\r\x1b[KReplay 2 is finished: 1 of 2 deliveries done (1 succeeded).\n"} {
		if code != exitDone || !strings.Contains(w.text.String(), want) {
			t.Errorf("followed on a terminal, exit %d: %q is not in %q", code, want, &w.text)
		}
	}
	const again = `UPDATE relay.replays SET state = 'running', succeeded = 0 WHERE replay_id = 2`
	mustExec(t, db.SQL, again)
	w = &follower{t: t, db: db.SQL, then: map[string]string{"0 of 2": `UPDATE relay.replays SET state = 'finished', succeeded = 2 WHERE replay_id = 2`}}
	if code := c.followed(w, 0, "replay", "show", "2", "--follow"); code != exitDone || strings.Count(w.text.String(), "\n") != 2 || strings.Contains(w.text.String(), "\r") {
		t.Errorf("followed in lines, exit %d: %q", code, &w.text)
	}
	mustExec(t, db.SQL, again)
	w = &follower{t: t, db: db.SQL, then: map[string]string{`"done":0`: one, `"done":1`: `UPDATE relay.replays SET state = 'cancelled' WHERE replay_id = 2`}}
	if code := c.followed(w, 0, "replay", "show", "2", "--follow", "--format", "json"); code != exitFailed || !strings.Contains(w.text.String(), "replay 2 was cancelled") || strings.Count(w.text.String(), `"replay_id":2`) != 3 {
		t.Errorf("followed in JSON, exit %d: %s", code, &w.text)
	}
}

func TestReplayUsage(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "postgres://nobody@127.0.0.1:1/none")
	bad, empty := listed(t, tracedID.String(), "17"), listed(t, "", "")
	for _, usage := range []struct {
		want string
		args []string
	}{
		{"nothing is selected", []string{"run"}},
		{"nothing is selected", []string{"plan", "--account", "1"}},
		{"--since is missing", []string{"plan", "--until", "2h"}},
		{"are both given", []string{"run", "--since", "2h", "--event-id", tracedID.String()}},
		{"are both given", []string{"plan", "--until", "2h", "--events-from", "-"}},
		{"--since is not before --until", []string{"run", "--since", "1h", "--until", "2h"}},
		{"--since is not before --until", []string{"plan", "--since", "2126-07-01T12:00:00Z"}},
		{`--event-id: "17" is not a UUID`, []string{"run", "--event-id", "17"}},
		{`--events-from: line 2: "17" is not a UUID`, []string{"plan", "--events-from", bad}},
		{"there is no id in " + empty, []string{"plan", "--events-from", empty}},
		{"no such file", []string{"plan", "--events-from", empty + "x"}},
		{`--since: "noon" is not a time`, []string{"run", "--since", "noon", "--until", "1h"}},
		{`--webhook: "a" is not a number`, []string{"run", "--since", "1d", "--until", "1h", "--webhook", "a"}},
		{`--status: "lost" is none of`, []string{"plan", "--since", "1d", "--status", "lost"}},
		{`--rate: "0" is not a number`, []string{"run", "1", "--rate", "0"}},
		{`the replay's ID: "x" is not a number`, []string{"run", "x"}},
		{"a PLAN is given and a selection too", []string{"run", "1", "--since", "2h"}},
		{"the replay's ID is missing", []string{"show"}},
		{"the replay's ID is missing", []string{"cancel"}},
		{`--state: "over" is none of`, []string{"list", "--state", "over"}},
		{`unknown command "start"`, []string{"start"}},
	} {
		c.fails(exitUsage, []string{usage.want}, append([]string{"replay"}, usage.args...)...)
	}
}
