package audit

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// TimelineRecord is a row of audit.timeline about a chat event or a delivery.
type TimelineRecord struct {
	Seq        int64
	At         time.Time
	AccountID  domain.AccountID
	Stream     string
	StreamID   string
	Version    int64
	Type       string
	EventID    uuid.UUID
	DeliveryID uuid.NullUUID
	Data       json.RawMessage
}
