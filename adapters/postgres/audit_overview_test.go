package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// Spans add up the hours of all webhooks, and quantiles are those of all
// attempts of a span.
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
		exec(`INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n)
VALUES ($1, 1, $2, $3, $4, $5, $6, 1, $7, 2, 3, 1, ARRAY[$8::smallint], ARRAY[$5::bigint + $6])`,
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
	audit := postgres.NewAudit(db.SQL)
	for _, test := range []struct {
		account domain.AccountID
		hours   int
		want    string
	}{
		{1, 6, "00h 98+2+3 2+6+9 p50 1 p95 1000 p99 1000; 06h 1+0+1 0+2+3 p50 1 p95 1 p99 1; "},
		{1, 1, "00h 90+0+1 1+2+3 p50 1 p95 1 p99 1; 01h 8+2+2 1+4+6 p50 1000 p95 1000 p99 1000; 07h 1+0+1 0+2+3 p50 1 p95 1 p99 1; "},
		{2, 6, "00h 7+0+1 0+2+3 p50 1 p95 1 p99 1; "},
		{0, 24, "00h 106+2+5 2+10+15 p50 1 p95 1000 p99 1000; "},
		{3, 24, ""},
	} {
		spans, err := audit.Spans(t.Context(), test.account, since, test.hours)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range spans {
			got += fmt.Sprintf("%sh %d+%d+%d %d+%d+%d p50 %.0f p95 %.0f p99 %.0f; ", s.From.Format("15"), s.Succeeded, s.Failed, s.Unknown, s.Dead, s.Expired, s.Cancelled,
				rough(*s.P50MS), rough(*s.P95MS), rough(*s.P99MS))
		}
		if got != test.want {
			t.Errorf("account %d by %d hours:\n%s, want\n%s", test.account, test.hours, got, test.want)
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
	if n, err := a.Pending(t.Context()); err != nil || n != 13 {
		t.Errorf("%d are pending, %v", n, err)
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
