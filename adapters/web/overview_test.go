package web_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestOverview(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	crm, bot := s.hook(t, 1, "CRM <b>", "https://crm.example.com/"), s.hook(t, 1, "BOT", "https://bot.example.com/")
	other := s.hook(t, 2, "Other", "https://other.example.com/")
	b, all := s.as(t, domain.RoleViewer, 1), s.as(t, domain.RoleViewer, 0)
	b.get("/accounts/1").shows(t, http.StatusOK, "No attempt ended", "Enabled", "CRM &lt;b&gt;")
	all.get("/overview").shows(t, http.StatusOK, "None fails", "No relay is running")
	hour := time.Now().UTC().Truncate(time.Hour)
	for i, webhook := range []domain.WebhookID{crm, bot} {
		s.exec(t, `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n)
VALUES ($1, 1, $2, -1, 0, 1500, $3, 0, 2, 1, 0, 1, ARRAY[$4::smallint], ARRAY[1500])`, int64(webhook), hour.Add(-3*time.Hour), i*500, domain.LatencyBucket(20*time.Millisecond))
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
	p.lacks(t, "None fails")
	// What is long over is kept, and added to what is new.
	add := func(at time.Time, n int) {
		t.Helper()
		s.exec(t, `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n)
VALUES ($1, 2, $2, -1, 0, $3, 0, 0, 0, 0, 0, 1, '{}', '{}')`, int64(other), at, n)
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
