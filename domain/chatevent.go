package domain

import "time"

// ChatEvent is a row of the outbox as the tail read it.
type ChatEvent struct {
	// Seq is the row's sequence number, its place in the outbox.
	Seq int64
	// ID is the idempotency key; the zero value where the producer gave NULL.
	ID        EventID
	AccountID AccountID
	// Name routes: message_created, conversation_updated, …
	Name string
	// OrderingKey is the producer's: nil derives one, "" asks for no order.
	OrderingKey *string
	// Payload is the JSON as inserted; nil where it is over the size limit.
	Payload []byte
	// PayloadBytes is the payload's size, also where Payload is nil.
	PayloadBytes int
	// InsertedAt is the database's clock when the row was inserted.
	InsertedAt time.Time
}

// DefaultSubscriptions are what a webhook gets whose owner named no events:
// the column default of Chatwoot's webhooks table, in its order.
var DefaultSubscriptions = []string{
	"conversation_status_changed", "conversation_updated", "conversation_created",
	"contact_created", "contact_updated", "message_created", "message_updated", "webwidget_triggered",
}

// ValidEventName reports whether name is one the relay routes: a lower-case
// letter and up to 99 more letters, digits, underscores or dots. There is no
// list of known names.
func ValidEventName(name string) bool {
	const longest = 100
	if name == "" || len(name) > longest || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// typingDeadline: a typing indicator that comes later than this misleads.
const typingDeadline = 10 * time.Second

// EventWebhookTest is the name of the event by which an operator tests a
// webhook.
const EventWebhookTest = "webhook_test"

// testDeadline leaves a test three attempts: nobody waits for it longer.
const testDeadline = time.Minute

// Deadline is how long after its routing a delivery of the named event may
// still start an attempt, whatever its webhook's settings; past it the delivery
// expires. For most it is DefaultDeadline, which outlives the default retry
// schedule of three days.
func Deadline(event string) time.Duration {
	switch event {
	case "conversation_typing_on", "conversation_typing_off":
		return typingDeadline
	case EventWebhookTest:
		return testDeadline
	default:
		return DefaultDeadline
	}
}
