package audit

import (
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Stats is a row of audit.webhook_stats. nil is NULL there.
type Stats struct {
	AccountID   domain.AccountID
	WebhookID   domain.WebhookID
	Hour        time.Time
	Attempts    int64
	Succeeded   int64
	Failed      int64
	Unknown     int64
	SuccessRate *float64
	P50MS       *float64
	P95MS       *float64
	P99MS       *float64
	Dead        int64
	Expired     int64
	Cancelled   int64
	Scheduled   int64
}

// StatsFilter selects hours; its zero values select all.
type StatsFilter struct {
	AccountID domain.AccountID
	WebhookID domain.WebhookID
	// Since and Until take the hours that begin at or after the one, and before
	// the other.
	Since, Until time.Time
}
