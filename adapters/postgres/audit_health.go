package postgres

import (
	"context"
	"database/sql"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// Health lists how webhooks do, in the order of account and id: those of an
// account, or one; 0 is for all.
func (a *Audit) Health(ctx context.Context, account domain.AccountID, webhook domain.WebhookID) ([]audit.Health, error) {
	c := ofWebhook(account, webhook)
	return list(ctx, a.db, scanHealthRecord, healthQuery+c.where()+` ORDER BY account_id, webhook_id`, c.args...)
}

const healthQuery = `
SELECT account_id, webhook_id, state, last_success_at, last_failure_at, consecutive_failures, success_rate_1h, p50_ms_1h, p99_ms_1h, pending, failing_since, breaker, breaker_opened_at
  FROM audit.webhook_health`

func ofWebhook(account domain.AccountID, webhook domain.WebhookID) *conditions {
	var c conditions
	if account != 0 {
		c.add("account_id = ?", int64(account))
	}
	if webhook != 0 {
		c.add("webhook_id = ?", int64(webhook))
	}
	return &c
}

func scanHealthRecord(row scanner) (audit.Health, error) {
	var h audit.Health
	var success, failure, since, opened sql.NullTime
	err := row.Scan(&h.AccountID, &h.WebhookID, &h.State, &success, &failure, &h.ConsecutiveFailures, &h.SuccessRate1h, &h.P50MS1h, &h.P99MS1h, &h.Pending,
		&since, &h.Breaker, &opened)
	h.LastSuccessAt, h.LastFailureAt, h.FailingSince, h.BreakerOpenedAt = success.Time.UTC(), failure.Time.UTC(), since.Time.UTC(), opened.Time.UTC()
	return h, err
}

// Stats lists what began and became of attempts and deliveries by webhook and hour, the
// newest hour first.
func (a *Audit) Stats(ctx context.Context, f audit.StatsFilter) ([]audit.Stats, error) {
	c := ofWebhook(f.AccountID, f.WebhookID)
	if !f.Since.IsZero() {
		c.add("hour >= ?::timestamptz", f.Since.UTC())
	}
	if !f.Until.IsZero() {
		c.add("hour < ?::timestamptz", f.Until.UTC())
	}
	return list(ctx, a.db, scanStatsRecord, `
SELECT account_id, webhook_id, hour, attempts, succeeded, failed, unknown, success_rate, p50_ms, p95_ms, p99_ms, dead, expired, cancelled, scheduled
  FROM audit.webhook_stats`+c.where()+` ORDER BY hour DESC, account_id, webhook_id`, c.args...)
}

func scanStatsRecord(row scanner) (audit.Stats, error) {
	var s audit.Stats
	err := row.Scan(&s.AccountID, &s.WebhookID, &s.Hour, &s.Attempts, &s.Succeeded, &s.Failed, &s.Unknown, &s.SuccessRate, &s.P50MS, &s.P95MS, &s.P99MS,
		&s.Dead, &s.Expired, &s.Cancelled, &s.Scheduled)
	s.Hour = s.Hour.UTC()
	return s, err
}
