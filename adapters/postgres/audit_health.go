package postgres

import (
	"context"
	"database/sql"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// HealthRecord is a row of audit.webhook_health. Zero times are NULL there.
type HealthRecord struct {
	AccountID           domain.AccountID
	WebhookID           domain.WebhookID
	State               domain.WebhookState
	LastSuccessAt       time.Time
	LastFailureAt       time.Time
	ConsecutiveFailures int64
	SuccessRate1h       sql.NullFloat64
	P50MS1h             sql.NullFloat64
	P99MS1h             sql.NullFloat64
	Pending             int64
	FailingSince        time.Time
	Breaker             domain.BreakerState
	BreakerOpenedAt     time.Time
}

// StatsRecord is a row of audit.webhook_stats.
type StatsRecord struct {
	AccountID   domain.AccountID
	WebhookID   domain.WebhookID
	Hour        time.Time
	Attempts    int64
	Succeeded   int64
	Failed      int64
	Unknown     int64
	SuccessRate sql.NullFloat64
	P50MS       sql.NullFloat64
	P95MS       sql.NullFloat64
	P99MS       sql.NullFloat64
	Dead        int64
	Expired     int64
	Cancelled   int64
}

// StatsFilter selects hours; its zero values select all.
type StatsFilter struct {
	AccountID domain.AccountID
	WebhookID domain.WebhookID
	// Since and Until take the hours that begin at or after the one, and before
	// the other.
	Since, Until time.Time
}

// Health lists how webhooks do, in the order of account and id: those of an
// account, or one; 0 is for all.
func (a *Audit) Health(ctx context.Context, account domain.AccountID, webhook domain.WebhookID) ([]HealthRecord, error) {
	c := ofWebhook(account, webhook)
	return list(ctx, a.db, scanHealthRecord, `
SELECT account_id, webhook_id, state, last_success_at, last_failure_at, consecutive_failures, success_rate_1h, p50_ms_1h, p99_ms_1h, pending, failing_since, breaker, breaker_opened_at
  FROM audit.webhook_health`+c.where()+` ORDER BY account_id, webhook_id`, c.args...)
}

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

func scanHealthRecord(row scanner) (HealthRecord, error) {
	var h HealthRecord
	var success, failure, since, opened sql.NullTime
	err := row.Scan(&h.AccountID, &h.WebhookID, &h.State, &success, &failure, &h.ConsecutiveFailures, &h.SuccessRate1h, &h.P50MS1h, &h.P99MS1h, &h.Pending,
		&since, &h.Breaker, &opened)
	h.LastSuccessAt, h.LastFailureAt, h.FailingSince, h.BreakerOpenedAt = success.Time.UTC(), failure.Time.UTC(), since.Time.UTC(), opened.Time.UTC()
	return h, err
}

// Stats lists what became of attempts and deliveries by webhook and hour, the
// newest hour first.
func (a *Audit) Stats(ctx context.Context, f StatsFilter) ([]StatsRecord, error) {
	c := ofWebhook(f.AccountID, f.WebhookID)
	if !f.Since.IsZero() {
		c.add("hour >= ?::timestamptz", f.Since.UTC())
	}
	if !f.Until.IsZero() {
		c.add("hour < ?::timestamptz", f.Until.UTC())
	}
	return list(ctx, a.db, scanStatsRecord, `
SELECT account_id, webhook_id, hour, attempts, succeeded, failed, unknown, success_rate, p50_ms, p95_ms, p99_ms, dead, expired, cancelled
  FROM audit.webhook_stats`+c.where()+` ORDER BY hour DESC, account_id, webhook_id`, c.args...)
}

func scanStatsRecord(row scanner) (StatsRecord, error) {
	var s StatsRecord
	err := row.Scan(&s.AccountID, &s.WebhookID, &s.Hour, &s.Attempts, &s.Succeeded, &s.Failed, &s.Unknown, &s.SuccessRate, &s.P50MS, &s.P95MS, &s.P99MS,
		&s.Dead, &s.Expired, &s.Cancelled)
	s.Hour = s.Hour.UTC()
	return s, err
}
