package audit

import (
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Health is a row of audit.webhook_health. Zero times and nil are NULL there.
type Health struct {
	AccountID           domain.AccountID
	WebhookID           domain.WebhookID
	State               domain.WebhookState
	LastSuccessAt       time.Time
	LastFailureAt       time.Time
	ConsecutiveFailures int64
	SuccessRate1h       *float64
	P50MS1h             *float64
	P99MS1h             *float64
	Pending             int64
	FailingSince        time.Time
	Breaker             domain.BreakerState
	BreakerOpenedAt     time.Time
}
