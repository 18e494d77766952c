package domain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OperatorAccount is the account of whoever operates the relay. Its chat events
// are what the relay tells of itself, and its webhooks get them as any account's
// do. No chat system has an account of this number; 0 would be what a missing
// one becomes in most languages.
const OperatorAccount AccountID = -1

// The names of the chat events of the operator's account.
const (
	EventWebhookDisabled = "webhook_disabled"
	EventDeliveryDead    = "delivery_dead"
)

// OperatorEvents are all of them, which is also what a webhook of the operator's
// account gets that names none.
var OperatorEvents = []string{EventDeliveryDead, EventWebhookDisabled}

// defaultSubscriptions are what a webhook of an account gets that names none.
func defaultSubscriptions(account AccountID) []string {
	if account == OperatorAccount {
		return slices.Clone(OperatorEvents)
	}
	return slices.Clone(DefaultSubscriptions)
}

// unfit says what of some settings could never work in the operator's account.
func (s *Settings) unfit(account AccountID) (problems []string) {
	if account != OperatorAccount {
		return nil
	}
	for _, name := range s.Subscriptions {
		if ValidEventName(name) && !slices.Contains(OperatorEvents, name) {
			problems = append(problems, fmt.Sprintf("subscriptions: %q is no event of the operator's account, which has %s", name, strings.Join(OperatorEvents, " and ")))
		}
	}
	if s.InboxID > 0 {
		problems = append(problems, "inbox_id: the events of the operator's account are of no inbox")
	}
	return problems
}

// OperatorEvent is a chat event of the operator's account, which the relay
// inserts itself, in the transaction that records what it tells of.
type OperatorEvent struct {
	// ID is derived from what it tells of: writing it again gives a duplicate.
	ID   EventID
	Name string
	// OrderingKey is "" for no order.
	OrderingKey string
	// Payload is the JSON that receivers get: no secret, no header, no body.
	Payload []byte
	// At is when it happened.
	At time.Time
}

// DeadDelivery is a delivery that was given up, and what is known of it.
type DeadDelivery struct {
	Key       DeliveryKey
	AccountID AccountID
	EventID   EventID
	Event     string
	// Settings are its webhook's as they are now, the zero value where they are
	// not known.
	Settings Settings
	// State is the delivery's, Events are those of the step that gave it up.
	State  Delivery
	Events []DeliveryEvent
}

// TellDead gives what the operator is told of a dead delivery, nil where it is
// one of the operator's own account: else each that fails would make the next.
//
// These events are in no order: in one, those of a webhook would come one after
// the other, and an outage can leave very many.
func TellDead(d *DeadDelivery) *OperatorEvent {
	if d.AccountID == OperatorAccount {
		return nil
	}
	notification := NewNotificationID(d.AccountID, d.EventID, d.Key.WebhookID)
	delivery := &toldDelivery{
		DeliveryID: NewDeliveryID(notification, d.Key.EventSeq, d.Key.ReplayID), NotificationID: notification,
		EventID: d.EventID, EventSeq: d.Key.EventSeq, Event: d.Event, ReplayID: d.Key.ReplayID, Status: DeliveryDead,
		AttemptCount: d.State.Attempts, ScheduledAt: told(d.State.ScheduledAt), LastOutcome: d.State.LastOutcome,
	}
	e := &OperatorEvent{ID: newDeadID(delivery.DeliveryID), Name: EventDeliveryDead}
	for _, event := range d.Events {
		switch event := event.(type) {
		case AttemptFailed:
			delivery.LastStatusCode, delivery.LastErrorClass = event.Outcome.StatusCode, event.Outcome.Class
		case Dead:
			e.At, delivery.CompletedAt, delivery.Reason = event.At, told(event.At), event.Reason
		default:
		}
	}
	e.encode(&toldPayload{Account: toldAccount{d.AccountID}, Webhook: tellWebhook(d.Key.WebhookID, d.Settings), Delivery: delivery})
	return e
}

// TellDisabled gives what the operator is told of a webhook that actor disabled
// at a version of its account's configuration, nil where it is the operator's
// own: the others of that account could not be told for ever either.
func TellDisabled(w Webhook, version int64, reason, actor string, at time.Time) *OperatorEvent {
	if w.AccountID == OperatorAccount {
		return nil
	}
	e := &OperatorEvent{
		ID: newDisabledID(w.AccountID, version, at), Name: EventWebhookDisabled,
		OrderingKey: "webhook:" + strconv.FormatInt(int64(w.ID), 10), At: at,
	}
	e.encode(&toldPayload{
		Account: toldAccount{w.AccountID}, Webhook: tellWebhook(w.ID, w.Settings),
		Change: &toldChange{Change: string(WebhookDisabled), WebhookVersion: version, Reason: reason, Actor: actor, At: told(at)},
	})
	return e
}

// toldPayload is the JSON of an operator's event. Its members have the names of
// the columns of audit.deliveries and audit.webhook_changes. It is a contract:
// members are added to it, and none is changed.
type toldPayload struct {
	Event    string        `json:"event"`
	Account  toldAccount   `json:"account"`
	Webhook  toldWebhook   `json:"webhook"`
	Delivery *toldDelivery `json:"delivery,omitempty"`
	Change   *toldChange   `json:"change,omitempty"`
}

type toldAccount struct {
	ID AccountID `json:"id"`
}

type toldWebhook struct {
	ID   WebhookID `json:"id"`
	Name string    `json:"name"`
	URL  string    `json:"url"`
}

type toldDelivery struct {
	DeliveryID     DeliveryID     `json:"delivery_id"`
	NotificationID NotificationID `json:"notification_id"`
	EventID        EventID        `json:"event_id"`
	EventSeq       int64          `json:"event_seq"`
	Event          string         `json:"event"`
	ReplayID       ReplayID       `json:"replay_id"`
	Status         DeliveryStatus `json:"status"`
	Reason         string         `json:"reason"`
	AttemptCount   int            `json:"attempt_count"`
	LastOutcome    OutcomeKind    `json:"last_outcome,omitempty"`
	LastStatusCode int            `json:"last_status_code,omitempty"`
	LastErrorClass ErrorClass     `json:"last_error_class,omitempty"`
	ScheduledAt    time.Time      `json:"scheduled_at"`
	CompletedAt    time.Time      `json:"completed_at"`
}

type toldChange struct {
	Change         string    `json:"change"`
	WebhookVersion int64     `json:"webhook_version"`
	Reason         string    `json:"reason"`
	Actor          string    `json:"actor"`
	At             time.Time `json:"at"`
}

// tellWebhook leaves out of the URL what may be a secret: the query. A user and
// a password are not in it.
func tellWebhook(id WebhookID, s Settings) toldWebhook {
	shown := s.URL
	if i := strings.IndexAny(shown, "?#"); i >= 0 {
		shown = shown[:i]
	}
	return toldWebhook{id, printable(s.Name), shown}
}

// told gives a time as the database keeps it.
func told(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }

func (e *OperatorEvent) encode(payload *toldPayload) {
	payload.Event = e.Name
	e.Payload, _ = json.Marshal(payload) // numbers, texts and times: cannot fail
}
