package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestAuditHealthAndStats shows a history of which each attempt is known: see
// busy.
func TestAuditHealthAndStats(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a")
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/b")
	c.ok("webhook", "add", "--account", "2", "--url", "https://example.com/c")
	c.ok("webhook", "pause", "3")
	busy(t, db, 9)
	// A relay that is dead and folded nothing wrote it.
	run(t, db.SQL, `INSERT INTO relay.relays (relay_id, name, version, fenced_at, recorder) OVERRIDING SYSTEM VALUE VALUES (7, 'test', 'test', now(), 0)`)
	c.ok("rebuild")

	health := c.objects("audit", "health", "--format", "json")
	if len(health) != 3 {
		t.Fatalf("%d webhooks are listed, want 3", len(health))
	}
	if got, want := members(health[0]), "account_id breaker breaker_opened_at consecutive_failures failing_since last_failure_at last_success_at p50_ms_1h p99_ms_1h pending state success_rate_1h webhook_id"; got != want {
		t.Errorf("health has the members\n%s\nwant\n%s", got, want)
	}
	for i, want := range []string{"1 enabled 0 0", "2 enabled 3 0", "3 paused 0 0"} {
		h := health[i]
		if got := fmt.Sprint(h["webhook_id"], " ", h["state"], " ", h["consecutive_failures"], " ", h["pending"]); got != want {
			t.Errorf("webhook, state, failures and pending are %s, want %s", got, want)
		}
	}
	if got := c.ok("audit", "health", "--account", "2", "--format", "csv"); !strings.HasSuffix(got, "\n2,3,paused,,,0,,,,0,,closed,\n") {
		t.Errorf("the health of account 2 is\n%s", got)
	}
	if got := c.ok("audit", "health", "--webhook", "4"); got != "Nothing found.\n" {
		t.Errorf("the health of a webhook that is not there is %q", got)
	}

	stats := c.objects("audit", "stats", "--since", "2000-01-01T00:00:00Z", "--format", "json")
	if len(stats) != 2 {
		t.Fatalf("%d rows of statistics, want 2: %v", len(stats), stats)
	}
	if got, want := members(stats[0]), "account_id attempts cancelled dead expired failed hour p50_ms p95_ms p99_ms scheduled succeeded success_rate unknown webhook_id"; got != want {
		t.Errorf("statistics have the members\n%s\nwant\n%s", got, want)
	}
	for i, want := range []string{"1 18 9 9 0 0.5 0", "2 3 0 3 0 0 3"} {
		s := stats[i]
		if got := fmt.Sprint(s["webhook_id"], " ", s["attempts"], " ", s["succeeded"], " ", s["failed"], " ", s["unknown"], " ", s["success_rate"], " ", s["dead"]); got != want {
			t.Errorf("webhook, attempts, succeeded, failed, unknown, rate and dead are %s, want %s", got, want)
		}
	}
	if p50, ok := stats[0]["p50_ms"].(float64); !ok || p50 < 0.97 || p50 > 1.03 {
		t.Errorf("the median of 1 ms and 1.5 ms, nine times each, is %v", stats[0]["p50_ms"])
	}
	if p99, ok := stats[0]["p99_ms"].(float64); !ok || p99 < 1.45 || p99 > 1.55 {
		t.Errorf("the 99th of 1 ms and 1.5 ms, nine times each, is %v", stats[0]["p99_ms"])
	}
	hour := after(0).UTC().Format("2006-01-02T15:00:00Z")
	for _, args := range []string{"--since " + hour, "--until " + hour + " --since 2000-01-01T00:00:00Z", "--account 2 --since 2000-01-01T00:00:00Z", "--webhook 2 --since " + after(0).UTC().Format("2006-01-02T15:04:05Z")} {
		want := 2
		switch {
		case strings.Contains(args, "--until"), strings.Contains(args, "--account"):
			want = 0
		case strings.Contains(args, "--webhook"):
			want = 1
		}
		if got := len(c.objects(append([]string{"audit", "stats", "--format", "json"}, strings.Fields(args)...)...)); got != want {
			t.Errorf("audit stats %s gives %d rows, want %d", args, got, want)
		}
	}
	c.fails(exitUsage, []string{"--since is not before --until"}, "audit", "stats", "--since", "1h", "--until", "5h")

	// Whoever may read the audit may, and reads no table of the relay's.
	auditor := newCLI(t, asRole(t, db, "auditor_of_health", "outrider_auditor"))
	auditor.ok("audit", "health")
	auditor.ok("audit", "stats", "--since", "2000-01-01T00:00:00Z")
	relay := newCLI(t, asRole(t, db, "rebuilder", "outrider_relay"))
	relay.ok("rebuild", "--check")
	relay.ok("rebuild")
}
