package audit

import (
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// Filter selects records; its zero values select all.
type Filter struct {
	AccountID domain.AccountID
	WebhookID domain.WebhookID
	EventID   uuid.UUID
	// Event is a chat event's name.
	Event string
	// OrderingKey is what is kept in order, "" for what is not; nil is any.
	OrderingKey *string
	// ReplayID selects what a replay asked for, of deliveries and attempts.
	ReplayID domain.ReplayID
	// Status is a routing of events, a status of deliveries, an outcome of
	// attempts or the kind of a change.
	Status string
	// Since and Until are a range of time: of the routing of events, of the
	// scheduling of deliveries, of the start of attempts, of changes. Until
	// is not in it. What waits to be routed is after all times.
	Since, Until time.Time
	// Limit is how many records are wanted, at least 1.
	Limit int
	// Look is how many events or deliveries are looked at, at the most and about,
	// for what no index leads to; 0 is for 20,000, about a second's reading.
	Look int
}

// During tells whether a time is in the range.
func (f *Filter) During(at time.Time) bool {
	return !at.Before(f.Since) && (f.Until.IsZero() || at.Before(f.Until))
}

// Ordered tells whether an ordering key is the wanted one.
func (f *Filter) Ordered(key string) bool { return f.OrderingKey == nil || *f.OrderingKey == key }

// Named tells whether a chat event's name is the wanted one.
func (f *Filter) Named(event string) bool { return f.Event == "" || f.Event == event }

// Of tells whether something is of the wanted account and chat event.
func (f *Filter) Of(account domain.AccountID, event uuid.UUID) bool {
	return (f.AccountID == 0 || f.AccountID == account) && (f.EventID == uuid.Nil || f.EventID == event)
}
