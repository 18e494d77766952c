package domain

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// ReplayStatuses are the words of ReplaySelection.Statuses: what became of a
// notification's latest delivery, and three more. passed_over: none was made,
// since the webhook was disabled. unknown: an attempt of it is. undelivered:
// none succeeded, and none is under way.
var ReplayStatuses = []string{"pending", "held", "succeeded", "dead", "cancelled", "expired", "passed_over", "unknown", "undelivered"}

// ReplaySelection says which deliveries to make again: of the named events, or
// of those routed at or after Since and before Until, zero for now. Of these
// only those that fit what else is set.
type ReplaySelection struct {
	AccountID    AccountID
	WebhookID    WebhookID
	EventIDs     []uuid.UUID
	Since, Until time.Time
	// Events are names of events.
	Events []string
	// OrderingKey is nil for any; the empty one is that of events without.
	OrderingKey *string
	Statuses    []string
}

// ReplayRun says how a plan is run: to the webhooks that it has or, where it is
// not 0, to one; with so many deliveries in a second, 0 for no bound.
type ReplayRun struct {
	ToWebhookID WebhookID
	Rate        float64
}

// ReplayStates are the states of a replay, in the order of its life.
var ReplayStates = []string{"planned", "requested", "running", "paused", "cancelling", "cancelled", "finished"}

// ErrNoReplay says that there is no such replay.
var ErrNoReplay = errors.New("no such replay")
