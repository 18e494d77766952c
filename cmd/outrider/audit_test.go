package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// busy writes n events: each goes to webhook 1, where it fails once and then
// succeeds; every third also to webhook 2, where it dies.
func busy(t *testing.T, db *pgtest.DB, n int) []uuid.UUID {
	t.Helper()
	var ids []uuid.UUID
	for i := range n {
		s := insert(t, db.SQL, "message_created", uuid.New(), "")
		ids = append(ids, s.id)
		targets := []domain.Target{{WebhookID: 1, Version: 1}}
		if i%3 == 0 {
			targets = append(targets, domain.Target{WebhookID: 2, Version: 2})
		}
		s.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingRouted, Targets: targets}, EventName: "message_created", ConfigVersion: 2, BodyBytes: 40})
		scheduled := domain.Scheduled{At: after(0), Deadline: after(time.Hour), WebhookVersion: 1}
		started := domain.AttemptStarted{At: after(0), Attempt: 1, WebhookVersion: 1, Timeout: time.Second}
		failed := domain.AttemptFailed{At: after(time.Millisecond), Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorDNS, Detail: "no such host", Duration: 1500 * time.Microsecond}}
		again := started
		again.Attempt, again.PreviousOutcome = 2, domain.OutcomeFailed
		s.delivered(1, 0, 7, scheduled, started, failed, again,
			domain.AttemptSucceeded{At: after(time.Second), Attempt: 2, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: time.Millisecond, RemoteIP: "2606:4700::1"}})
		if i%3 == 0 {
			s.delivered(2, 0, 7, scheduled, started, failed, domain.Dead{At: after(time.Second), Reason: domain.DeadAttempts})
		}
	}
	return ids
}

func TestAuditLists(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a?token=1")
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/b")
	ids := busy(t, db, 9)
	quarantined := insert(t, db.SQL, "odd", uuid.New(), `{"a":"b&c"}`)
	quarantined.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingQuarantined, Reason: "payload_object"}, EventName: "odd"})
	waits := insert(t, db.SQL, "message_created", uuid.New(), "")

	list := func(name string, args ...string) []map[string]any {
		t.Helper()
		return c.objects(append([]string{"audit", name, "--format", "json"}, args...)...)
	}
	tests := []struct {
		list string
		args []string
		want int
	}{
		{"events", nil, 11},
		{"events", []string{"--account", "2"}, 0},
		{"events", []string{"--webhook", "2"}, 3},
		{"events", []string{"--webhook", "2", "--limit", "2"}, 2},
		{"events", []string{"--status", "waiting"}, 1},
		{"events", []string{"--status", "quarantined", "--account", "1"}, 1},
		{"events", []string{"--event-id", ids[3].String()}, 1},
		{"deliveries", nil, 12},
		{"deliveries", []string{"--account", "1", "--webhook", "1"}, 9},
		{"deliveries", []string{"--status", "dead"}, 3},
		{"deliveries", []string{"--status", "dead", "--account", "1", "--webhook", "1"}, 0},
		{"deliveries", []string{"--status", "succeeded", "--limit", "4"}, 4},
		{"deliveries", []string{"--status", "pending"}, 0},
		{"deliveries", []string{"--event-id", ids[0].String()}, 2},
		{"attempts", nil, 21},
		{"attempts", []string{"--status", "failed"}, 12},
		{"attempts", []string{"--status", "succeeded", "--webhook", "1"}, 9},
		{"attempts", []string{"--status", "unknown"}, 0},
		{"attempts", []string{"--status", "started"}, 0},
		{"attempts", []string{"--event-id", ids[0].String(), "--webhook", "1"}, 2},
		{"attempts", []string{"--account", "1", "--limit", "5"}, 5},
		{"attempts", []string{"--outcome", "failed", "--webhook", "2"}, 3},
		{"events", []string{"--event", "odd"}, 1},
		{"events", []string{"--ordering-key", ""}, 10},
		{"events", []string{"--ordering-key", "conversation:1"}, 0},
		{"deliveries", []string{"--event", "message_created", "--webhook", "2"}, 3},
		{"deliveries", []string{"--replay", "1"}, 0},
		{"attempts", []string{"--event", "odd"}, 0},
	}
	for _, test := range tests {
		if got := list(test.list, test.args...); len(got) != test.want {
			t.Errorf("audit %s %v lists %d, want %d", test.list, test.args, len(got), test.want)
		}
	}

	// The members are those of the views.
	shapes := map[string]string{
		"events":     "account_id body_bytes config_version delivery_count event event_id inserted_at metadata occurred_at ordering_key reason routed_at routing seq",
		"deliveries": "account_id attempt_count completed_at delivery_id event event_id event_seq first_attempt_at last_attempt_at last_outcome last_status_code next_attempt_at notification_id ordering_key reason replay_id scheduled_at status url webhook_id webhook_version",
		"attempts":   "account_id attempt delivery_id duration_ms error_class error_detail event_id finished_at notification_id outcome previous_outcome relay_id remote_ip response_excerpt started_at status_code url webhook_id webhook_version",
	}
	for name, want := range shapes {
		if got := members(list(name)[0]); got != want {
			t.Errorf("audit %s has the members\n%s, want\n%s", name, got, want)
		}
	}
	event := list("events", "--event-id", quarantined.id.String())[0]
	if meta, _ := event["metadata"].(map[string]any); meta["a"] != "b&c" || event["reason"] != "payload_object" || event["routed_at"] != "2026-07-01T12:00:00.002Z" || event["occurred_at"] != nil {
		t.Errorf("a quarantined event is %v", event)
	}
	if event := list("events", "--event-id", waits.id.String())[0]; event["routed_at"] != nil || event["config_version"] != nil || event["delivery_count"] != 0.0 {
		t.Errorf("a waiting event is %v", event)
	}
	attempt := list("attempts", "--event-id", ids[0].String(), "--webhook", "1")[0]
	if attempt["attempt"] != 2.0 || attempt["previous_outcome"] != "failed" || attempt["duration_ms"] != 1.0 || attempt["remote_ip"] != "2606:4700::1" || attempt["url"] != "https://example.com/a" {
		t.Errorf("an attempt is %v", attempt)
	}
}

func TestAuditPages(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	busy(t, db, 9)
	key := map[string]func(map[string]any) string{
		"events":     func(o map[string]any) string { return fmt.Sprint(int64(o["seq"].(float64))) }, //nolint:errcheck,forcetypeassert // the test fails
		"deliveries": func(o map[string]any) string { return fmt.Sprint(o["delivery_id"]) },
		"attempts":   func(o map[string]any) string { return fmt.Sprintf("%v/%v", o["delivery_id"], o["attempt"]) },
	}
	statuses := map[string][]string{"events": {"", "routed"}, "deliveries": {"", "dead", "succeeded"}, "attempts": {"", "failed", "succeeded"}}
	for name, words := range statuses {
		for _, status := range words {
			for _, filter := range [][]string{nil, {"--webhook", "1"}, {"--account", "1"}} {
				args := append([]string{"audit", name, "--format", "json"}, filter...)
				if status != "" {
					args = append(args, "--status", status)
				}
				var all, paged []string
				for _, object := range c.objects(args...) {
					all = append(all, key[name](object))
				}
				for cursor := ""; len(paged) <= len(all); {
					args := append(slices.Clone(args), "--limit", "2")
					if cursor != "" {
						args = append(args, "--after", cursor)
					}
					r := c.run(args...)
					if r.code != exitDone {
						t.Fatalf("%v: %s", args, r.err)
					}
					for line := range strings.Lines(r.out) {
						var object map[string]any
						if err := json.Unmarshal([]byte(line), &object); err != nil {
							t.Fatal(err)
						}
						paged = append(paged, key[name](object))
					}
					var more bool
					if _, cursor, more = strings.Cut(strings.TrimSpace(r.err), "--after "); !more {
						break
					}
				}
				if !slices.Equal(all, paged) {
					t.Errorf("audit %s %q %v: by pages %q, at once %q", name, status, filter, paged, all)
				}
			}
		}
	}
}

func TestAuditFormats(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	busy(t, db, 2)
	records, err := csv.NewReader(strings.NewReader(c.ok("audit", "attempts", "--format", "csv"))).ReadAll()
	if err != nil || len(records) != 6 || len(records[0]) != len(attemptColumns) || records[0][0] != "started_at" || records[1][0] != "2026-07-01T12:00:00Z" {
		t.Errorf("the CSV is %q, error %v", records, err)
	}
	table := c.ok("audit", "attempts")
	for _, text := range []string{"STARTED", "OUTCOME", "07-01 12:00:00.000", "no such host", "succeeded"} {
		if !strings.Contains(table, text) {
			t.Errorf("%q is not in\n%s", text, table)
		}
	}
	if strings.Contains(table, "URL") { // the webhook is not there, so no row has one
		t.Errorf("a column with nothing in it is shown:\n%s", table)
	}
	if out := c.ok("audit", "events", "--account", "9"); out != "Nothing found.\n" {
		t.Errorf("an empty list says %s", out)
	}
}

func TestAuditUsage(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "postgres://nobody@127.0.0.1:1/none")
	c.fails(exitUsage, []string{
		`--account: "0" is not a number`, `--status: "sent" is none of pending, held`, `--event-id: "1" is not a UUID`, `--limit: "10001" is not a number from 1 to 10000`,
		`--after: it is not a cursor`, `--event: a name is missing`, `--replay: "x" is not a number`, `--since: "yesterday" is not a time`, `unexpected argument "all"`,
	}, "audit", "deliveries", "all", "--account", "0", "--status", "sent", "--event-id", "1", "--limit", "10001", "--after", "x", "--event", "",
		"--replay", "x", "--since", "yesterday")
	c.fails(exitUsage, []string{"--since is not before --until"}, "audit", "events", "--since", "1h", "--until", "2h")
	c.fails(exitUsage, []string{"--after: it is a cursor of events, not of attempts"}, "audit", "attempts", "--after", audit.Cursor{List: audit.EventList, Seq: 7}.String())
	c.fails(exitUsage, []string{`--outcome: "dead" is none of started, succeeded`}, "audit", "attempts", "--outcome", "dead")
	c.fails(exitUsage, []string{"--outcome and --status are the same here"}, "audit", "attempts", "--outcome", "failed", "--status", "failed")
	c.fails(exitUsage, []string{`--change: "sent" is none of registered`}, "audit", "changes", "--change", "sent")
	c.fails(exitUsage, []string{`--rows: "-1" is neither`}, "audit", "gaps", "--rows=-1")
	c.fails(exitUsage, []string{"--after is for lists", "--limit is for lists", "--since is for lists", "--until is for lists", "--status: waiting is none that --follow shows"},
		"audit", "events", "--follow", "--after", audit.Cursor{List: audit.EventList, Seq: 7}.String(), "--limit", "1", "--since", "2h", "--until", "1h", "--status", "waiting")
	c.fails(exitUsage, []string{"--outcome: started is none that --follow shows"}, "audit", "attempts", "--follow", "--outcome", "started")
	c.fails(exitUsage, []string{"--output: the name of a file is missing"}, "audit", "export", "events", "--output", "")
	c.fails(exitUsage, []string{`unknown command "all"`}, "audit", "export", "all")
}
