package domain

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Quarantine is the reason why a chat event cannot be routed; empty where it
// can.
type Quarantine string

// The reasons, as audit.events shows them.
const (
	QuarantineNone          Quarantine = ""
	QuarantineEventName     Quarantine = "event_name"       // the column does not match the pattern of event names
	QuarantineNotObject     Quarantine = "payload_object"   // the payload is JSON, but not an object
	QuarantineEventMismatch Quarantine = "payload_event"    // the payload's "event" differs from the column
	QuarantineEventRepeated Quarantine = "payload_repeated" // the payload has more than one top-level "event"
	QuarantineTooLarge      Quarantine = "body_too_large"   // the body is over the limit
	QuarantineOrderingKey   Quarantine = "ordering_key"     // the ordering key is over the limit
	QuarantinePanic         Quarantine = "internal_error"   // routing it failed in a way nobody foresaw
)

// MaxOrderingKey is the longest ordering key in bytes; it is kept with every
// delivery.
const MaxOrderingKey = 512

// Facts are what routing takes from a payload.
type Facts struct {
	// OrderingKey names what must stay in order, "" for nothing:
	// "conversation:346", "contact:901", or the producer's own text.
	OrderingKey string
	// InboxID is the inbox the event belongs to, 0 where the payload names
	// none.
	InboxID int64
	// Body is what is POSTed: the payload with "event" in it.
	Body []byte
}

// family is a group of chat events whose payloads name their conversation,
// contact and inbox in the same places (chatwoot v4.16, webhook_data).
type family struct {
	orderedBy string   // prefix of the derived ordering key, "" for none
	orderPath string   // where its id stands
	inboxPath []string // where the inbox's id stands, first match wins
}

var (
	conversationFamily = family{"conversation:", "id", []string{"inbox_id"}}
	messageFamily      = family{"conversation:", "conversation.id", []string{"inbox.id", "conversation.inbox_id"}}
	typingFamily       = family{"conversation:", "conversation.id", []string{"conversation.inbox_id"}}
	contactFamily      = family{"contact:", "id", nil}
	widgetFamily       = family{"", "", []string{"inbox.id"}}
	inboxFamily        = family{"", "", []string{"working_hours.0.inbox_id"}}
)

// familyOf finds an event's family by its name. A name that Chatwoot does not
// have yet is treated as its prefix tells.
func familyOf(event string) family {
	switch {
	case strings.HasPrefix(event, "conversation_typing_"):
		return typingFamily
	case strings.HasPrefix(event, "conversation_"):
		return conversationFamily
	case strings.HasPrefix(event, "message_"):
		return messageFamily
	case strings.HasPrefix(event, "contact_"):
		return contactFamily
	case event == "webwidget_triggered":
		return widgetFamily
	case strings.HasPrefix(event, "inbox_"):
		return inboxFamily
	default:
		return family{}
	}
}

// Inspect judges a chat event's content and reads what routing needs, in one
// pass over the payload's top level. maxBody is the limit of the body in
// bytes. It depends on nothing but the event, so that a repeat of the delivery
// builds the same body, byte for byte.
func Inspect(event ChatEvent, maxBody int) (Facts, Quarantine) {
	if !ValidEventName(event.Name) {
		return Facts{}, QuarantineEventName
	}
	if event.OrderingKey != nil && len(*event.OrderingKey) > MaxOrderingKey {
		return Facts{}, QuarantineOrderingKey
	}
	if event.Payload == nil || event.PayloadBytes > maxBody {
		return Facts{}, QuarantineTooLarge
	}
	body, quarantine := Body(event.Name, event.Payload)
	if quarantine != QuarantineNone {
		return Facts{}, quarantine
	}
	if len(body) > maxBody {
		return Facts{}, QuarantineTooLarge
	}
	facts := Facts{Body: body}
	family := familyOf(event.Name)
	switch {
	case event.OrderingKey != nil:
		facts.OrderingKey = *event.OrderingKey
	case family.orderPath != "":
		if id := gjson.GetBytes(event.Payload, family.orderPath); id.Type == gjson.Number || id.Type == gjson.String {
			if text := printable(id.String()); text != "" {
				facts.OrderingKey = family.orderedBy + text
			}
		}
	}
	if len(facts.OrderingKey) > MaxOrderingKey {
		return Facts{}, QuarantineOrderingKey
	}
	for _, path := range family.inboxPath {
		if id, ok := integer(gjson.GetBytes(event.Payload, path)); ok {
			facts.InboxID = id
			break
		}
	}
	return facts, QuarantineNone
}

// integer gives a JSON number that is a whole number of 64 bits, however it is
// spelled. gjson's own conversion cuts fractions off and takes what is too
// large for the largest number.
func integer(value gjson.Result) (int64, bool) {
	if value.Type != gjson.Number {
		return 0, false
	}
	if n, err := strconv.ParseInt(value.Raw, 10, 64); err == nil {
		return n, true
	}
	if f := value.Num; f == math.Trunc(f) && math.Abs(f) < 1<<53 { // 12.0, 1.2e1
		return int64(f), true
	}
	return 0, false
}

// printable drops what PostgreSQL's text cannot hold.
func printable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
}

// Body gives the bytes to POST for a payload: the payload itself where it has
// a top-level "event" equal to name, else the payload with that member spliced
// in behind the last one. No other byte changes.
func Body(name string, payload []byte) ([]byte, Quarantine) {
	trimmed := bytes.TrimRight(payload, " \t\r\n")
	open := bytes.TrimLeft(trimmed, " \t\r\n")
	if len(open) < 2 || open[0] != '{' || open[len(open)-1] != '}' {
		return nil, QuarantineNotObject
	}
	members, events, matches := 0, 0, false
	gjson.ParseBytes(payload).ForEach(func(key, value gjson.Result) bool {
		members++
		if key.String() == "event" {
			events++
			matches = value.Type == gjson.String && value.String() == name
		}
		return true
	})
	switch {
	case events > 1:
		return nil, QuarantineEventRepeated
	case events == 1 && !matches:
		return nil, QuarantineEventMismatch
	case events == 1:
		return payload, QuarantineNone
	}
	body := make([]byte, 0, len(payload)+len(name)+len(`,"event":""`))
	body = append(body, trimmed[:len(trimmed)-1]...)
	if members > 0 {
		body = append(body, ',')
	}
	body = append(body, `"event":"`...)
	body = append(body, name...) // the pattern of event names needs no escaping
	body = append(body, `"}`...)
	return append(body, payload[len(trimmed):]...), QuarantineNone
}

// Traceparent gives the W3C trace context of an event's metadata, "" where
// there is none.
func Traceparent(metadata []byte) string {
	if value := gjson.GetBytes(metadata, "traceparent"); value.Type == gjson.String {
		return value.Str
	}
	return ""
}
