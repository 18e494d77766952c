package web_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

func TestOverview(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	crm, bot := s.hook(t, 1, "CRM <b>", "https://crm.example.com/"), s.hook(t, 1, "BOT", "https://bot.example.com/")
	other := s.hook(t, 2, "Other", "https://other.example.com/")
	b, all := s.as(t, domain.RoleViewer, 1), s.as(t, domain.RoleViewer, 0)
	b.get("/accounts/1").shows(t, http.StatusOK, "No attempt ended", "Enabled", "CRM &lt;b&gt;")
	all.get("/overview").shows(t, http.StatusOK, `data-live-empty="hook-rows"><p><strong>None fails`, "No relay is running")
	hour := time.Now().UTC().Truncate(time.Hour)
	for i, webhook := range []domain.WebhookID{crm, bot} {
		s.exec(t, `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
VALUES ($1, 1, $2, -1, 0, 1500, $3, 0, 2, 1, 0, 1, ARRAY[$4::smallint], ARRAY[1500], 1510)`, int64(webhook), hour.Add(-3*time.Hour), i*500, domain.LatencyBucket(20*time.Millisecond))
	}
	s.exec(t, `INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, failures, pending, failing_since) VALUES ($1, 1, 1, 0, now(), 0, 4, NULL), ($2, 1, 1, 0, NULL, 12, 30, now() - interval '2 hours')`, int64(crm), int64(bot))
	s.exec(t, `UPDATE relay.webhooks SET breaker_opened_at = now() - interval '1 hour' WHERE id = $1`, int64(bot))
	p := b.eventually("/accounts/1", "3,000 delivered")
	p.shows(t, http.StatusOK, "3,000 delivered, 6 not, in 24 hours.", "85.7 % of 3,500 attempts succeeded", "Lately half took 20 ms or less", "Down", "2 h ago", "12 attempts in a row", ">34<",
		`<svg class="graph" viewBox="0 0 340 180" role="img" aria-label="Deliveries per hour. 3,000 delivered`, `class="s-none f-good"`, `class="s-p99`, "As a table", hour.Add(-3*time.Hour).Format("2 Jan 15:04"))
	if bad, good := indexOf(p.body, "BOT"), indexOf(p.body, "CRM &lt;b&gt;</a>"); bad > good {
		t.Errorf("who fails is not first")
	}
	b.get("/accounts/1?range=7d").shows(t, http.StatusOK, "Deliveries per 6 hours", "3,000 delivered, 6 not, in 7 days.")
	b.get("/accounts/1?range=9d").shows(t, http.StatusNotFound)
	b.get("/accounts/2").shows(t, http.StatusNotFound)
	b.get("/overview").shows(t, http.StatusNotFound)
	b.get("/relays").shows(t, http.StatusNotFound)
	all.get("/accounts/2").shows(t, http.StatusOK, "No attempt ended")
	p = all.eventually("/overview?range=7d", "Down")
	p.shows(t, http.StatusOK, "3,000 delivered", "Failing webhooks", ">Account 1<", ">34<")
	p.lacks(t, `data-live-empty="hook-rows">`)
	// What is long over is kept, and added to what is new.
	add := func(at time.Time, n int) {
		t.Helper()
		s.exec(t, `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
VALUES ($1, 2, $2, -1, 0, $3, 0, 0, 0, 0, 0, 1, '{}', '{}', $3)`, int64(other), at, n)
	}
	add(hour.Add(-10*time.Hour), 100)
	all.eventually("/accounts/2?range=7d", "100 delivered")
	add(hour, 20)
	all.eventually("/accounts/2?range=7d", "120 delivered")
	add(hour, 3)
	all.eventually("/accounts/2?range=7d", "123 delivered")
	s.exec(t, `INSERT INTO relay.relays (name, version, recorder) VALUES ('host <1>', 'v1', 0)`)
	all.get("/relays").shows(t, http.StatusOK, "host &lt;1&gt;", "Waits for work", "Nobody’s", "0–63")
	all.get("/relays?ended=yes").shows(t, http.StatusOK, "Only those at work")
}

// What was not finished when a step was over is counted back from what is not
// now; who failed in a step, and who was at work, is told for each.
func TestOverviewOverTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	crm, bot := s.hook(t, 1, "CRM", "https://crm.example.com/"), s.hook(t, 1, "BOT", "https://bot.example.com/")
	hour := time.Now().UTC().Truncate(time.Hour)
	ended := func(webhook domain.WebhookID, ago, scheduled, succeeded, failed, dead int) {
		t.Helper()
		s.exec(t, `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, scheduled, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n)
VALUES ($1, 1, $2, -1, 0, $3, $4, $5, 0, $6, 0, 0, 1, '{}', '{}')`, int64(webhook), hour.Add(-time.Duration(ago)*time.Hour), scheduled, succeeded, failed, dead)
	}
	ended(crm, 9, 1000, 200, 0, 0)
	ended(bot, 9, 30, 0, 7, 10)
	ended(crm, 8, 0, 500, 1, 0)
	ended(bot, 8, 0, 0, 0, 20) // nothing was tried
	ended(crm, 7, 100, 500, 0, 0)
	s.exec(t, `INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, failures, pending) VALUES ($1, 1, 1, 0, 0, 105), ($1, 1, 2, 0, 0, -205)`, int64(crm))
	for _, r := range [][2]int{{100, 20}, {10, 7}, {9, -1}} { // from and to, in hours ago
		s.exec(t, `INSERT INTO relay.relays (name, version, recorder, started_at, fenced_at) VALUES ('one', 'v1', $3, $1, $2)`,
			hour.Add(time.Minute-time.Duration(r[0])*time.Hour), hour.Add(time.Minute-time.Duration(r[1])*time.Hour), r[0])
	}
	all, b := s.as(t, domain.RoleViewer, 0), s.as(t, domain.RoleViewer, 1)
	row := func(ago int, figures ...string) string {
		text := `<tr><th scope="row">` + hour.Add(-time.Duration(ago)*time.Hour).Format("2 Jan 15:04") + `</th>`
		for _, figure := range figures {
			text += `<td class="numeric">` + figure + `</td>`
		}
		return text + `</tr>`
	}
	// What ended and has not begun yet is no backlog, and makes none before.
	p := b.eventually("/accounts/1", "Deliveries not finished")
	p.shows(t, http.StatusOK, "0 now, 820 at most at the end of an hour.", row(9, "820", "1,030", "210"), row(8, "300", "0", "520"), row(7, "0", "100", "500"), row(10, "0", "0", "0"),
		"Failing webhooks per hour", "0 of late, 1 at most in an hour.", row(9, "1", "2"), row(8, "0", "1"), row(6, "0", "0"), `aria-label="Deliveries not finished. 0 now`, `class="s-bad"`)
	p.lacks(t, "Relays at work")
	p = all.get("/overview")
	p.shows(t, http.StatusOK, "0 now, 820 at most", "Relays at work", "0 at least and 2 at most at one time in 24 hours.",
		row(21, "1", "1"), row(20, "1", "0"), row(19, "0", "0"), row(10, "1", "0"), row(9, "2", "1"), row(8, "2", "2"), row(7, "2", "1"), row(0, "1", "1"), `class="s-least"`)
	all.get("/overview?range=7d").shows(t, http.StatusOK, "at the end of each 6 hours", "Failing webhooks per 6 hours", "1 at most in 6 hours.")
}

// An overview changes by itself, and of it what has changed alone is sent.
func TestOverviewIsLive(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	s := newSite(t, func(c *web.Config) { c.Stopping = stopping })
	t.Cleanup(func() { close(stopping) })
	crm, bot := s.hook(t, 1, "CRM", "https://crm.example.com/"), s.hook(t, 1, "BOT", "https://bot.example.com/")
	b, all := s.as(t, domain.RoleViewer, 1), s.as(t, domain.RoleViewer, 0)
	b.get("/accounts/1?range=7d").shows(t, http.StatusOK, `data-live="/accounts/1/live?range=7d"`, `data-live-switch="overview"`)
	b.get("/accounts/1/live?range=9d").shows(t, http.StatusNotFound)
	b.get("/accounts/2/live").shows(t, http.StatusNotFound)
	live, failing := b.stream("/accounts/1/live?range=24h"), all.stream("/overview/live")
	first := live.with("event: parts")
	for _, part := range []string{"tiles", "chart-0-summary", "chart-0-drawing", "chart-0-figures", fmt.Sprintf("w-%d", crm), "unshown"} {
		if !contains(first, `id="`+part+`"`) {
			t.Errorf("%s is not in what comes first: %s", part, first)
		}
	}
	failing.with("event: parts")
	s.exec(t, `
WITH s AS (INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
           VALUES ($1, 1, date_trunc('hour', now()), -1, 0, 1234, 0, 0, 0, 0, 0, 1, '{}', '{}', 1234))
INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_failure_at, failures, pending, failing_since) VALUES ($1, 1, 1, 0, now(), 3, 4, now())`, int64(bot))
	event := live.with("1,234 delivered")
	for _, part := range []string{"tiles", "chart-0-summary", "chart-0-drawing", "chart-0-figures", fmt.Sprintf("w-%d", bot)} {
		if !contains(event, `id="`+part+`"`) {
			t.Errorf("%s has changed, and is not in %s", part, event)
		}
	}
	for _, part := range []string{"chart-2-figures", fmt.Sprintf("w-%d", crm), "unshown"} {
		if contains(event, `id="`+part+`"`) {
			t.Errorf("%s has not changed, and is in %s", part, event)
		}
	}
	if bad, good := indexOf(event, fmt.Sprintf(" w-%d ", bot)), indexOf(event, fmt.Sprintf(" w-%d ", crm)); bad < 0 || bad > good {
		t.Errorf("who fails is not first: %s", event)
	}
	failing.with(fmt.Sprintf(`<tr id="w-%d" data-state="Failing">`, bot))
}

// Relays come and go by themselves on their page and on the overview of all.
func TestRelaysAreLive(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	s := newSite(t, func(c *web.Config) { c.Stopping = stopping })
	t.Cleanup(func() { close(stopping) })
	all := s.as(t, domain.RoleViewer, 0)
	all.get("/relays").shows(t, http.StatusOK, `data-live="/relays/live"`, `data-live-empty="relay-rows"><p><strong>No relay is running`)
	all.get("/relays?ended=yes").shows(t, http.StatusOK, `data-live="/relays/live?ended=yes"`)
	live, ended, overview := all.stream("/relays/live"), all.stream("/relays/live?ended=yes"), all.stream("/overview/live")
	for n := range 6 { // more than the looks that are taken at first, whatever is written
		s.exec(t, `INSERT INTO relay.relays (name, version, recorder) VALUES ('host <' || $1::int || '>', 'v1', $1)`, n)
		live.with(fmt.Sprintf("host &lt;%d&gt;", n))
	}
	ended.with("host &lt;5&gt;")
	overview.with("host &lt;5&gt;")
	s.exec(t, `UPDATE relay.relays SET fenced_at = now()`)
	if event := ended.with("Stopped"); !contains(event, `ended <time`) || !contains(event, "just now") {
		t.Errorf("it does not say when: %s", event)
	}
	event := live.with("event: parts")
	for contains(event, "<tr") { // some had come to be silent before that
		event = live.with("event: parts")
	}
	if contains(event, "r-1") {
		t.Errorf("it is still there: %s", event)
	}
}
