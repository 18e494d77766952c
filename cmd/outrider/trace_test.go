package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// tracedID is the event of the stories below.
var tracedID = uuid.MustParse("0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f")

// lively writes an event with everything that can happen to one.
func lively(t *testing.T, c *cli, db *pgtest.DB) {
	t.Helper()
	for _, name := range []string{"crm", "bot", "archive", "audit"} {
		c.ok("webhook", "add", "--account", "1", "--url", "https://"+name+".example.com/hook?token=1", "--name", strings.ToUpper(name))
	}
	c.ok("webhook", "disable", "4")
	s := insert(t, db.SQL, "message_created", tracedID, `{"shard":3}`)
	s.routed(domain.Routed{
		Routing: domain.Routing{
			Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 1, Version: 1}, {WebhookID: 2, Version: 2}, {WebhookID: 3, Version: 3}},
			Skips: []domain.Skip{{WebhookID: 4, Reason: domain.SkipDisabled}},
		},
		EventName: "message_created", OrderingKey: "conversation:42", ConfigVersion: 5, BodyBytes: 1234,
	})
	at := after
	ms := time.Millisecond
	scheduled := func(version int64) domain.DeliveryEvent {
		return domain.Scheduled{At: at(2 * ms), Deadline: at(7 * 24 * time.Hour), WebhookVersion: version}
	}
	started := func(attempt int, after time.Duration, version int64, previous domain.OutcomeKind) domain.DeliveryEvent {
		return domain.AttemptStarted{At: at(after), Attempt: attempt, WebhookVersion: version, PreviousOutcome: previous, Timeout: 5 * time.Second}
	}
	s.delivered(1, 0, 7, scheduled(1), started(1, 3*ms, 1, ""),
		domain.AttemptSucceeded{At: at(15 * ms), Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 200, Duration: 12 * ms, RemoteIP: "93.184.215.14"}})
	s.delivered(2, 0, 7, scheduled(2), started(1, 3*ms, 2, ""),
		domain.AttemptFailed{At: at(51 * ms), Attempt: 1, RetryAt: at(5051 * ms), Outcome: domain.Outcome{
			Kind: domain.OutcomeFailed, StatusCode: 503, Class: domain.ErrorStatus, Duration: 48 * ms, Excerpt: "upstream is \x1b[31mrestarting\n",
		}},
		started(2, 5062*ms, 2, domain.OutcomeFailed))
	s.delivered(2, 0, 8,
		domain.AttemptUnknown{At: at(9200 * ms), Attempt: 2, Reason: "its relay stopped before the outcome was recorded", RetryAt: at(9200 * ms)},
		started(3, 9201*ms, 2, domain.OutcomeUnknown),
		domain.AttemptSucceeded{At: at(9212 * ms), Attempt: 3, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 202, Duration: 11 * ms}})
	s.delivered(3, 0, 7, scheduled(3),
		domain.Held{At: at(4 * ms), Reason: domain.HoldOrder, Until: at(30002 * ms)},
		domain.Released{At: at(30002 * ms), Reason: domain.ReleaseElapsed},
		started(1, 30002*ms, 3, ""),
		domain.AttemptFailed{At: at(35003 * ms), Attempt: 1, RetryAt: at(40003 * ms), Outcome: domain.Outcome{
			Kind: domain.OutcomeFailed, Class: domain.ErrorTimeout, Detail: "no answer within 5s", Duration: 5001 * ms,
		}})
}

func TestTrace(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.now = func() time.Time { return after(36 * time.Second) }
	lively(t, c, db)
	golden(t, "trace.txt", c.ok("audit", "trace", tracedID.String()))

	// On a terminal: in colours, and cut where it ends.
	c.width = 60
	wide := c.ok("audit", "trace", tracedID.String())
	if !strings.Contains(wide, "\x1b[32m") || strings.Contains(wide, "\x1b[31mrestarting") {
		t.Errorf("the colours are wrong:\n%q", wide)
	}
	for line := range strings.Lines(wide) {
		if n := text.StringWidthWithoutEscSequences(strings.TrimRight(line, "\n")); n > c.width {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	c.env["NO_COLOR"] = "1"
	if plain := c.ok("audit", "trace", tracedID.String()); strings.Contains(plain, "\x1b") {
		t.Errorf("NO_COLOR is not honoured:\n%q", plain)
	}

	traced := c.object("audit", "trace", tracedID.String())
	// The ids that a receiver sees lead to the same.
	notification := domain.NewNotificationID(1, tracedID, 2)
	for _, id := range []string{notification.String(), domain.NewDeliveryID(notification, 1, 0).String()} {
		if got := c.ok("audit", "trace", id); !strings.HasPrefix(got, "message_created  "+tracedID.String()) {
			t.Errorf("the trace of %s is\n%s", id, got)
		}
		c.fails(exitFailed, []string{"there is no event " + id}, "audit", "trace", id, "--account", "2")
	}
	deliveries, _ := traced["deliveries"].([]any)
	if members(traced) != "deliveries event payload_erased_at skips" || len(deliveries) != 3 {
		t.Fatalf("the object is %v", traced)
	}
	second, _ := deliveries[1].(map[string]any)
	attempts, _ := second["attempts"].([]any)
	timeline, _ := second["timeline"].([]any)
	if members(second) != "attempts delivery timeline webhook_name" || len(attempts) != 3 || len(timeline) != 7 || second["webhook_name"] != "BOT" {
		t.Errorf("a delivery is %v", second)
	}
	if attempt, _ := attempts[1].(map[string]any); attempt["outcome"] != "unknown" || attempt["previous_outcome"] != "failed" {
		t.Errorf("an attempt is %v", attempt)
	}
}

// golden compares with a file below testdata, which -update writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed; it is now\n%s", path, got)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// TestTraceTells checks the ends that a delivery and an event can come to.
func TestTraceTells(t *testing.T) {
	t.Parallel()
	scheduled := domain.Scheduled{At: after(time.Millisecond), Deadline: after(time.Hour), WebhookVersion: 1}
	started := domain.AttemptStarted{At: after(2 * time.Millisecond), Attempt: 1, WebhookVersion: 1, Timeout: time.Second}
	failed := domain.AttemptFailed{At: after(3 * time.Millisecond), Attempt: 1, Outcome: domain.Outcome{
		Kind: domain.OutcomeFailed, Class: domain.ErrorRefusedAddress, Detail: "169.254.169.254 is link-local",
	}}
	retried := failed
	retried.RetryAt = after(time.Hour)
	tests := []struct {
		name   string
		routed domain.Routing
		then   []domain.DeliveryEvent
		want   []string
	}{
		{"dead", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{scheduled, started, failed, domain.Dead{At: after(3 * time.Millisecond), Reason: domain.DeadAttempts}},
			[]string{"attempt 1  ✗ refused address in 0s: 169.254.169.254 is link-local", "└ given up: 1 attempt is used up"}},
		{"cancelled", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{scheduled, started, retried, domain.Cancelled{At: after(time.Minute), Reason: domain.CancelledDeleted}},
			[]string{"○ no attempt follows", "└ cancelled: the webhook was removed"}},
		{"expired", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{scheduled, domain.Expired{At: after(2 * time.Hour), Reason: domain.ExpiredDeadline}},
			[]string{"+2h00m    └ expired: its deadline passed"}},
		{"paused", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{scheduled, domain.Held{At: after(time.Millisecond), Reason: domain.HoldPaused}},
			[]string{"└ held: the webhook is paused"}},
		{"resumed", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{
			scheduled, domain.Held{At: after(time.Millisecond), Reason: domain.HoldPaused}, domain.Released{At: after(26 * time.Hour), Reason: domain.ReleaseResumed}, started,
		}, []string{"+1d02h    ├ goes on: the webhook is enabled again", "└ attempt 1  … under way for 1m00s"}},
		{"waits", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{scheduled}, []string{"└ ○ waits for its first attempt"}},
		{"due", domain.Routing{Kind: domain.RoutingRouted}, []domain.DeliveryEvent{scheduled, started, retried}, []string{"○ attempt 2 is due in 59m00s, at 13:00:00"}},
		{"no subscriber", domain.Routing{Kind: domain.RoutingNoSubscriber}, nil, []string{"routed to nobody: no webhook of the account subscribes to message_created"}},
		{"skipped", domain.Routing{Kind: domain.RoutingSkipped, Skips: []domain.Skip{{WebhookID: 1, Reason: domain.SkipInbox}, {WebhookID: 2, Reason: domain.SkipInbox}}}, nil,
			[]string{"routed to nobody; webhooks 1 and 2 passed over: for another inbox"}},
		{"quarantined", domain.Routing{Kind: domain.RoutingQuarantined, Reason: string(domain.QuarantineNotObject)}, nil, []string{"quarantined: the payload is not a JSON object"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			c := newCLI(t, db.DSN)
			c.now = func() time.Time { return after(time.Minute) }
			s := insert(t, db.SQL, "message_created", tracedID, "")
			if test.then != nil {
				test.routed.Targets = []domain.Target{{WebhookID: 1, Version: 1}}
			}
			s.routed(domain.Routed{Routing: test.routed, EventName: "message_created"})
			s.delivered(1, 0, 7, test.then...)
			got := c.ok("audit", "trace", tracedID.String())
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in\n%s", want, got)
				}
			}
		})
	}
}

func TestTraceOfSeveral(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.now = func() time.Time { return after(time.Minute) }
	first := insert(t, db.SQL, "message_created", tracedID, "")
	first.routed(domain.Routed{
		Routing:   domain.Routing{Kind: domain.RoutingSkipped, Skips: []domain.Skip{{WebhookID: 9, Reason: domain.SkipDisabled}}},
		EventName: "message_created",
	})
	second := insert(t, db.SQL, "message_created", tracedID, "")
	second.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingDuplicate}, EventName: "message_created", DuplicateOf: first.seq})
	// A replay of the first to a webhook that was disabled then, and one that waits.
	first.delivered(9, 3, 7, domain.Scheduled{At: after(10 * time.Second), Deadline: after(time.Hour), WebhookVersion: 1})
	insert(t, db.SQL, "message_created", uuid.New(), "")

	got := c.ok("audit", "trace", tracedID.String())
	for _, want := range []string{
		"routed to nobody; webhook 9 passed over: disabled", "webhook 9 · ↻ replay 3", "+10.00s    ├ scheduled again by replay 3",
		"not sent: its id was there before",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not once in\n%s", want, got)
		}
	}
	if n := len(c.objects("audit", "trace", tracedID.String(), "--format", "json")); n != 2 {
		t.Errorf("%d objects", n)
	}
	waits := insert(t, db.SQL, "message_created", uuid.New(), "")
	if got := c.ok("audit", "trace", waits.id.String()); !strings.Contains(got, "waits to be routed") {
		t.Errorf("an event that waits:\n%s", got)
	}
	c.fails(exitFailed, []string{"there is no event " + uuid.Max.String(), "outrider audit events"}, "audit", "trace", uuid.Max.String())
	c.fails(exitFailed, []string{"there is no event"}, "audit", "trace", tracedID.String(), "--account", "2")
	c.fails(exitUsage, []string{`"17" is not a UUID`, "outrider audit trace --help"}, "audit", "trace", "17")
	c.fails(exitUsage, []string{"the event's ID is missing"}, "audit", "trace")
}
