package audit

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// Event is a row of audit.events. Zero times, and numbers and texts that
// cannot be empty or zero, are NULL there.
type Event struct {
	EventID       uuid.UUID
	Seq           int64
	AccountID     domain.AccountID
	Event         string
	OrderingKey   string
	OccurredAt    time.Time
	InsertedAt    time.Time
	RoutedAt      time.Time
	Routing       domain.RoutingKind
	Reason        string
	ConfigVersion int64
	BodyBytes     int
	DeliveryCount int
	Metadata      json.RawMessage
	// Keyless says that the ordering key is not known yet.
	Keyless bool
}
