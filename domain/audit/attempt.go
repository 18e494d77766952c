package audit

import (
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// Attempt is a row of audit.attempts.
type Attempt struct {
	DeliveryID     domain.DeliveryID
	NotificationID domain.NotificationID
	// Number counts the attempts of the delivery, from 1.
	Number          int
	EventID         uuid.UUID
	AccountID       domain.AccountID
	WebhookID       domain.WebhookID
	WebhookVersion  int64
	URL             string
	StartedAt       time.Time
	FinishedAt      time.Time
	Outcome         domain.OutcomeKind
	PreviousOutcome domain.OutcomeKind
	StatusCode      int
	ErrorClass      domain.ErrorClass
	ErrorDetail     string
	// DurationMS is nil where the attempt has no outcome with a duration.
	DurationMS      *float64
	RemoteIP        string
	ResponseExcerpt *string
	RelayID         int64
}
