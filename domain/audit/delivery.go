package audit

import (
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// Delivery is a row of audit.deliveries.
type Delivery struct {
	DeliveryID     domain.DeliveryID
	NotificationID domain.NotificationID
	EventID        uuid.UUID
	EventSeq       int64
	AccountID      domain.AccountID
	Event          string
	OrderingKey    string
	WebhookID      domain.WebhookID
	WebhookVersion int64
	URL            string
	Status         domain.DeliveryStatus
	Reason         string
	AttemptCount   int
	ScheduledAt    time.Time
	FirstAttemptAt time.Time
	LastAttemptAt  time.Time
	NextAttemptAt  time.Time
	CompletedAt    time.Time
	LastOutcome    domain.OutcomeKind
	LastStatusCode int
	ReplayID       domain.ReplayID
}
