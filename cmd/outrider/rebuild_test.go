package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// differs runs a rebuild that must find differences, and name these.
func (c *cli) differs(wanted []string, args ...string) {
	c.t.Helper()
	r := c.run(args...)
	if r.code != exitFailed {
		c.t.Errorf("outrider %s: exit %d, want %d", strings.Join(args, " "), r.code, exitFailed)
	}
	for _, text := range wanted {
		if !strings.Contains(r.err, text) {
			c.t.Errorf("outrider %s: %q is not in\n%s", strings.Join(args, " "), text, r.err)
		}
	}
}

// TestARebuildGivesTheSameRows rebuilds while a relay works, from rows that are
// gone and rows that are wrong, and gets what the log says.
func TestARebuildGivesTheSameRows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, _ *http.Request) {
		if rand.IntN(5) == 0 { //nolint:gosec // a flaky receiver
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	for n := range 6 {
		register(t, db.SQL, domain.AccountID(1+n%3), fmt.Sprintf("%s/%d", receiver.URL, n), nil)
	}
	c := newCLI(t, db.DSN)
	relay := startProcess(t, db.DSN, "serve", "--allow-unsafe")

	// Events go on while it is rebuilt, with all that can be changed meanwhile.
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for n := range 40 {
			run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT 1 + i % 3, 'message_created', json_build_object('n', i), 'c' || i % 5 FROM generate_series($1::int, $2::int) i`, 50*n, 50*n+49)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-t.Context().Done():
			}
		}
	})
	until(t, "statistics of all webhooks", func() (bool, string) {
		found := texts(t, db.SQL, `SELECT DISTINCT webhook_id::text FROM audit.webhook_stats WHERE attempts > 50`)
		return len(found) == 6, fmt.Sprint(found)
	})
	c.ok("rebuild", "--check")
	c.ok("rebuild")
	c.ok("webhook", "pause", "4")
	c.ok("webhook", "disable", "5")
	c.ok("webhook", "rotate-secret", "3")
	c.ok("rebuild")
	run(t, db.SQL, `DELETE FROM relay.webhook_stats`)
	run(t, db.SQL, `DELETE FROM relay.webhook_standings`)
	c.differs([]string{"webhook_stats: webhook 1, ", "webhook_standings: webhook 1: ", "are not as the log has them"}, "rebuild", "--check")
	c.ok("rebuild")
	publishing.Wait()
	c.ok("webhook", "enable", "4")
	until(t, "the end of all first attempts", func() (bool, string) {
		left := texts(t, db.SQL, `
SELECT e.seq::text FROM outbox.events e WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0 OFFSET 0)
UNION ALL
SELECT l.event_seq::text FROM relay.log l
 WHERE l.delivery_id IS NOT NULL AND NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.version > 1 OFFSET 0)`)
		return len(left) == 0, fmt.Sprint(len(left))
	})
	c.ok("rebuild")
	relay.signal(syscall.SIGTERM)
	// The order of the rest and of what was added must not matter.
	last := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	until(t, "the rest of the relay", func() (bool, string) {
		left := texts(t, db.SQL, `SELECT p.writer::text FROM relay.projected p JOIN relay.relays r ON r.relay_id = p.writer WHERE r.fenced_at IS NOT NULL`)
		return len(left) == 0, fmt.Sprint(left)
	})
	last.signal(syscall.SIGTERM)
	checkStatistics(t, db.SQL)
	before := texts(t, db.SQL, `SELECT x::text FROM (`+statisticsGiven+`) x UNION ALL SELECT x::text FROM (`+healthGiven+`) x ORDER BY 1`)
	c.ok("rebuild", "--check")
	if out := c.ok("rebuild", "--format", "json"); strings.Contains(out, `"differences":1`) || strings.Count(out, "\n") != 5 {
		t.Errorf("a rebuild of what is right gives %s", out)
	}
	checkStatistics(t, db.SQL)
	after := texts(t, db.SQL, `SELECT x::text FROM (`+statisticsGiven+`) x UNION ALL SELECT x::text FROM (`+healthGiven+`) x ORDER BY 1`)
	if strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("before the rebuild\n%s\nbehind it\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// TestARebuildMendsWebhooks shows what of a webhook's row is mended, and what
// is told of that cannot be.
func TestARebuildMendsWebhooks(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for n := range 4 {
		register(t, db.SQL, 1, fmt.Sprintf("https://chat.example/%d", n), nil)
	}
	c := newCLI(t, db.DSN)
	c.ok("webhook", "disable", "1")
	c.ok("webhook", "enable", "1")
	c.ok("webhook", "pause", "2")
	c.ok("webhook", "rotate-secret", "3")
	c.ok("webhook", "update", "2", "--header", "X-Key: kept", "--deadline", "1h", "--retries", "none")
	c.ok("rebuild", "--check")
	rows := `SELECT (id, account_id, version, state, settings::text, url, credential, secret, previous_secret, previous_until, disabled_version, headers)::text FROM relay.webhooks ORDER BY id`
	before := texts(t, db.SQL, rows)
	run(t, db.SQL, `UPDATE relay.webhooks SET state = 'deleted', disabled_version = 0 WHERE id = 1`)
	run(t, db.SQL, `UPDATE relay.webhooks SET version = 99, url = 'https://elsewhere.example' WHERE id = 2`)
	run(t, db.SQL, `UPDATE relay.webhooks SET settings = '{"url": 1}', previous_until = NULL WHERE id = 3`)
	run(t, db.SQL, `UPDATE relay.accounts SET version = 1`)
	c.differs([]string{"webhooks: webhook 1: is version", "webhooks: webhook 3", "accounts: account 1: version is 1, by the history 9", "4 rows are not"}, "rebuild", "--check")
	c.ok("rebuild")
	if after := texts(t, db.SQL, rows); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("before\n%s\nbehind the rebuild\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if got := texts(t, db.SQL, `SELECT version::text FROM relay.accounts`); strings.Join(got, " ") != "9" {
		t.Errorf("the account's version is %v", got)
	}
	run(t, db.SQL, `DELETE FROM relay.webhooks WHERE id = 4`)
	c.differs([]string{"webhook 4: is not there", "register https://chat.example/3 anew", "1 row is not"}, "rebuild")
}

// TestARebuildTellsOfTheDueTable: a row that is missing or left over is told
// of, and stays as it is.
func TestARebuildTellsOfTheDueTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	register(t, db.SQL, 1, receiver.URL, nil)
	relay := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 3)`)
	until(t, "three retries", func() (bool, string) {
		return len(texts(t, db.SQL, `SELECT event_seq::text FROM relay.due`)) == 3, ""
	})
	relay.signal(syscall.SIGTERM)
	c := newCLI(t, db.DSN)
	c.ok("rebuild", "--check")
	run(t, db.SQL, `DELETE FROM relay.due WHERE event_seq = 1`)
	run(t, db.SQL, `UPDATE relay.due SET version = version - 1 WHERE event_seq = 2`)
	c.differs([]string{"due: missing: event_seq 1, webhook 1", "due: missing: event_seq 2", "due: surplus: event_seq 2"}, "rebuild")
	if got := texts(t, db.SQL, `SELECT event_seq || '/' || version FROM relay.due ORDER BY 1`); strings.Join(got, " ") != "2/2 3/3" {
		t.Errorf("the due table is %v", got)
	}
}

// TestARebuildKeepsWhatTheLogHasDropped: of an hour whose events are gone the
// statistics are all there is; one whose events are there is folded anew.
func TestARebuildKeepsWhatTheLogHasDropped(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	register(t, db.SQL, 1, "https://chat.example/1", nil)
	busy(t, db, 1) // its event has seq 1
	run(t, db.SQL, `INSERT INTO relay.relays (relay_id, name, version, fenced_at, recorder) OVERRIDING SYSTEM VALUE VALUES (7, 'test', 'test', now(), 0)`)
	run(t, db.SQL, `
INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
SELECT 1, 1, hour::timestamptz, -1, 0, 5, 0, 0, 0, 0, 0, first_seq, '{40}', '{5}', 6
  FROM (VALUES ('2026-01-01T00:00:00Z', 0), ('2026-01-02T00:00:00Z', 1)) h (hour, first_seq)`)
	run(t, db.SQL, `INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, failures, pending) VALUES (1, 1, 1, 0, '2026-01-01T00:30:00Z', 0, 0)`)
	c := newCLI(t, db.DSN)
	c.differs([]string{"webhook_stats: webhook 1, 2026-01-02T00:00:00Z: ", "by the log not there"}, "rebuild", "--check")
	c.ok("rebuild")
	got := texts(t, db.SQL, `SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' ' || attempts || '/' || scheduled FROM audit.webhook_stats WHERE webhook_id = 1 ORDER BY hour`)
	// No batch of the chain began the delivery of 1 July.
	if want := "2026-01-01 5/6, 2026-07-01 2/0"; strings.Join(got, ", ") != want {
		t.Errorf("attempts and deliveries by day are %v, want %s", got, want)
	}
	c.ok("rebuild", "--check")
}
