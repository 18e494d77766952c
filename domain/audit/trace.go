package audit

import (
	"encoding/json"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Trace is all that is on record about one chat event.
type Trace struct {
	Event Event
	// Skips are the webhooks that were passed over.
	Skips      []domain.Skip
	Deliveries []DeliveryTrace
	// PayloadErasedAt is when its payload was erased, zero where it was not;
	// ErasureID the erasure that was asked for, 0 where it had reached its age.
	PayloadErasedAt time.Time
	ErasureID       int64
}

// DeliveryTrace is one delivery of a chat event.
type DeliveryTrace struct {
	Delivery
	// WebhookName is what people call the webhook, at the version used.
	WebhookName string
	// WebhookHeaders are the names of the webhook's own headers at that version.
	WebhookHeaders []string
	Attempts       []Attempt
	Entries        []TimelineEntry
}

// TimelineEntry is one entry of a stream.
type TimelineEntry struct {
	Version int
	At      time.Time
	Type    string
	Data    json.RawMessage
}

// Decode gives the event of a delivery's entry.
func (e TimelineEntry) Decode() (domain.DeliveryEvent, error) {
	return domain.DecodeDelivery(domain.Entry{Type: e.Type, At: e.At, Data: e.Data})
}
