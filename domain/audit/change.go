package audit

import (
	"encoding/json"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Change is a row of audit.webhook_changes.
type Change struct {
	At             time.Time
	AccountID      domain.AccountID
	WebhookID      domain.WebhookID
	WebhookVersion int64
	Actor          string
	Change         string
	// Before is nil for a new webhook.
	Before, After json.RawMessage
}
