package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// Spans add up the hours of all webhooks, and quantiles are those of all
// attempts of a span. A webhook fails in one where none of its attempts succeeded.
func TestSpans(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.SQL.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO relay.webhooks (account_id, version, state, settings, url, credential, secret, previous_secret)
SELECT 1 + i / 3, 1, 'enabled', '{}', 'https://chat.example/' || i, '', '', '' FROM generate_series(1, 3) i`) // 1 and 2 of account 1, 3 of account 2
	since := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	hour := func(webhook, at, slot, epoch, succeeded, failed, dead int, bucket int) {
		t.Helper()
		exec(`INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
VALUES ($1, 1, $2, $3, $4, $5, $6, 1, $7, 2, 3, 1, ARRAY[$8::smallint], ARRAY[$5::bigint + $6], 10 * $5 + 1)`,
			webhook, since.Add(time.Duration(at)*time.Hour), slot, epoch, succeeded, failed, dead, bucket)
	}
	fast, slow := domain.LatencyBucket(time.Millisecond), domain.LatencyBucket(time.Second)
	hour(1, -1, -1, 0, 500, 0, 0, slow) // before
	hour(1, 0, -1, 0, 90, 0, 1, fast)
	hour(2, 1, 0, 0, 4, 2, 1, slow)
	hour(2, 1, 1, 0, 4, 0, 0, slow)
	hour(1, 1, -1, -3, 500, 0, 0, slow) // a rebuild's, not in force yet
	hour(3, 1, -1, 0, 7, 0, 0, fast)
	hour(1, 7, -1, 0, 1, 0, 0, fast)
	hour(1, 8, 0, 0, 0, 1, 0, slow)
	hour(2, 8, 0, 0, 0, 0, 0, slow) // one whose outcome is unknown
	hour(2, 8, 1, 0, 0, 2, 0, slow)
	exec(`INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, failures, pending) VALUES (1, 1, 1, 0, 0, 5), (1, 1, 2, 0, 0, -7), (2, 1, 1, -1, 0, 100), (3, 2, 1, 0, 0, 40)`)
	audit := postgres.NewAudit(db.SQL)
	for _, test := range []struct {
		account domain.AccountID
		hours   int
		want    string
		pending int64
	}{
		{1, 6, "00h 983: 98+2+3 2+6+9 0 of 2 fail p50 1 p95 1000 p99 1000; 06h 14: 1+3+4 0+8+12 1 of 2 fail p50 1000 p95 1000 p99 1000; ", -2},
		{1, 1, "00h 901: 90+0+1 1+2+3 0 of 1 fail p50 1 p95 1 p99 1; 01h 82: 8+2+2 1+4+6 0 of 1 fail p50 1000 p95 1000 p99 1000; " +
			"07h 11: 1+0+1 0+2+3 0 of 1 fail p50 1 p95 1 p99 1; 08h 3: 0+3+3 0+6+9 2 of 2 fail p50 1000 p95 1000 p99 1000; ", -2},
		{2, 6, "00h 71: 7+0+1 0+2+3 0 of 1 fail p50 1 p95 1 p99 1; ", 40},
		{0, 24, "00h 1068: 106+5+8 2+16+24 0 of 3 fail p50 1 p95 1000 p99 1000; ", 38},
		{3, 24, "", 0},
	} {
		spans, pending, err := audit.Spans(t.Context(), test.account, since, test.hours)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range spans {
			got += fmt.Sprintf("%sh %d: %d+%d+%d %d+%d+%d %d of %d fail p50 %.0f p95 %.0f p99 %.0f; ", s.From.Format("15"), s.Scheduled, s.Succeeded, s.Failed, s.Unknown,
				s.Dead, s.Expired, s.Cancelled, s.Failing, s.Tried, rough(*s.P50MS), rough(*s.P95MS), rough(*s.P99MS))
		}
		if got != test.want || pending != test.pending {
			t.Errorf("account %d by %d hours, %d pending:\n%s, want %d and\n%s", test.account, test.hours, pending, got, test.pending, test.want)
		}
	}
}

// rough takes a bucket's middle for the round number in it.
func rough(ms float64) float64 {
	for _, round := range []float64{1, 1000} {
		if ms > round*0.96 && ms < round*1.04 {
			return round
		}
	}
	return ms
}

// Who fails is found among all webhooks: a failure that was followed by a
// success, in whatever row, is none any more.
func TestFailing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.SQL.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO relay.webhooks (account_id, version, state, settings, url, credential, secret, previous_secret)
SELECT i, 1, 'enabled', '{}', 'https://chat.example/' || i, '', '', '' FROM generate_series(1, 5) i`)
	standing := func(webhook, commit int, succeeded bool, failures, pending int, failing string) {
		t.Helper()
		exec(`INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
VALUES ($1, $1, $2, 0, CASE WHEN $3 THEN now() END, now(), $4, $5, nullif($6, '')::timestamptz)`, webhook, commit, succeeded, failures, pending, failing)
	}
	standing(1, 1, true, 0, 10, "")
	standing(2, 1, true, 3, 5, "2026-07-02") // failed behind its success
	standing(3, 1, false, 2, 0, "2026-07-01")
	standing(3, 2, true, 0, -3, "") // and succeeded since
	standing(4, 1, true, 0, 0, "")
	standing(4, 2, false, 9, 1, "2026-07-01")
	standing(4, 3, false, 1, 0, "2026-07-03")
	a := postgres.NewAudit(db.SQL)
	failing, err := a.Failing(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, h := range failing {
		got += fmt.Sprintf("%d since %s, %d; ", h.WebhookID, h.FailingSince.Format("01-02"), h.ConsecutiveFailures)
	}
	if want := "4 since 07-01, 10; 2 since 07-02, 3; "; got != want {
		t.Errorf("there fail %s, want %s", got, want)
	}
	for i, kind := range []string{"r", "r", "o", "h", "h", "h", "p"} {
		at := time.Now().Add(time.Hour)
		if i == 0 {
			at = time.Now().Add(-time.Minute)
		}
		exec(`INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES ($1::bigint, 1 + $1::bigint % 2, 0, 1, $2, $3, 1, 0)`, i, kind, at)
	}
	for account, want := range map[domain.AccountID]string{0: "{2 1 3 1 false}", 1: "{1 1 1 1 false}", 2: "{1 0 2 0 false}", 5: "{0 0 0 0 false}"} {
		if b, err := a.Backlog(t.Context(), account); err != nil || fmt.Sprint(b) != want {
			t.Errorf("account %d has %v, %v, want %s", account, b, err, want)
		}
	}
}

// A relay was at work from its start to its end: until it stopped, until its last
// sign of life where it was killed, and to now where it is not silent.
func TestRelayTimes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	leases := postgres.NewLeases(db)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	hour := time.Now().UTC().Truncate(time.Hour)
	ago := func(hours int) time.Time { return hour.Add(-time.Duration(hours) * time.Hour) }
	begin := func(hours int) int64 {
		t.Helper()
		id, err := leases.Register(t.Context(), "one", "1", true)
		if err != nil {
			t.Fatal(err)
		}
		if err := leases.Beat(t.Context(), id, 1, relay.Place{}); err != nil {
			t.Fatal(err)
		}
		exec(`UPDATE relay.relays SET started_at = $1 WHERE relay_id = $2`, ago(hours), id)
		return id
	}
	sign := func(id int64, hours int) {
		t.Helper()
		exec(`UPDATE relay.heartbeats SET at = $1 WHERE relay_id = $2`, ago(hours), id)
	}
	before, stopped, killed, erased := begin(50), begin(20), begin(19), begin(18)
	working := begin(9)
	silent := begin(8)
	for _, id := range []int64{before, stopped} {
		if err := leases.Release(t.Context(), id, relay.Place{}); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE relay.relays SET fenced_at = CASE relay_id WHEN $1 THEN $3 ELSE $4 END::timestamptz WHERE relay_id IN ($1, $2)`, before, stopped, ago(30), ago(15))
	sign(killed, 12)
	if err := leases.Fence(t.Context(), working, killed); err != nil {
		t.Fatal(err)
	}
	sign(erased, 11)
	sign(silent, 3)
	exec(`UPDATE relay.relays SET sends = false WHERE relay_id = $1`, silent)
	exec(`SELECT relay.fence_silent()`)
	for since, want := range map[int]string{
		24: "20h to 15h, 19h to 12h, 18h to 11h, 9h on, 8h to 3h",
		12: "19h to 12h, 18h to 11h, 9h on, 8h to 3h",
		2:  "9h on",
	} {
		times, err := postgres.NewAudit(db).RelayTimes(t.Context(), ago(since))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range times {
			text := fmt.Sprintf("%.0fh on", hour.Sub(r.From).Hours())
			if !r.To.IsZero() {
				text = fmt.Sprintf("%.0fh to %.0fh", hour.Sub(r.From).Hours(), hour.Sub(r.To).Hours())
			}
			got = append(got, text)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("since %d hours there were %q, want %q", since, got, want)
		}
	}
}
