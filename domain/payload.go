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
	QuarantineReserved      Quarantine = "account_reserved" // it is of the operator's account, and the relay did not write it
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
	orderedBy string    // prefix of the derived ordering key, "" for none
	orderPath string    // where its id stands
	inboxPath []string  // where the inbox's id stands, first match wins
	roots     [2]string // the top-level members that these paths begin with
}

var (
	conversationFamily = family{"conversation:", "id", []string{"inbox_id"}, [2]string{"id", "inbox_id"}}
	messageFamily      = family{"conversation:", "conversation.id", []string{"inbox.id", "conversation.inbox_id"}, [2]string{"conversation", "inbox"}}
	typingFamily       = family{"conversation:", "conversation.id", []string{"conversation.inbox_id"}, [2]string{"conversation"}}
	contactFamily      = family{"contact:", "id", nil, [2]string{"id"}}
	widgetFamily       = family{"", "", []string{"inbox.id"}, [2]string{"inbox"}}
	inboxFamily        = family{"", "", []string{"working_hours.0.inbox_id"}, [2]string{"working_hours"}}
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
	family := familyOf(event.Name)
	found := findings{first: family.roots}
	body, quarantine := found.body(event.Name, event.Payload)
	if quarantine != QuarantineNone {
		return Facts{}, quarantine
	}
	if len(body) > maxBody {
		return Facts{}, QuarantineTooLarge
	}
	facts := Facts{Body: body}
	switch {
	case event.OrderingKey != nil:
		facts.OrderingKey = *event.OrderingKey
	case family.orderPath != "":
		if text := printable(idText(found.get(family.orderPath))); text != "" {
			facts.OrderingKey = family.orderedBy + text
		}
	}
	if len(facts.OrderingKey) > MaxOrderingKey {
		return Facts{}, QuarantineOrderingKey
	}
	for _, path := range family.inboxPath {
		if id, ok := integer(found.get(path)); ok {
			facts.InboxID = id
			break
		}
	}
	return facts, QuarantineNone
}

// isString reports whether a JSON value is the string text.
func isString(value []byte, text string) bool { return value[0] == '"' && isKey(value, text) }

// integer gives a JSON number that is a whole number of 64 bits, however it is
// spelled. gjson's own conversion cuts fractions off and takes what is too
// large for the largest number.
func integer(value []byte) (int64, bool) {
	if !isNumber(value) {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 { // 12.0, 1.2e1
		return int64(f), true
	}
	return 0, false
}

func isNumber(value []byte) bool {
	return len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9')
}

// idText gives a number or a string as the text of an id, "" for anything else.
// 346.0 and 3.46e2 are the id 346.
func idText(value []byte) string {
	switch {
	case len(value) > 0 && value[0] == '"':
		return unquoted(value)
	case !isNumber(value):
		return ""
	case bytes.ContainsAny(value, ".eE"):
		return gjson.ParseBytes(value).String()
	default:
		return string(value)
	}
}

// printable drops what PostgreSQL's text cannot hold.
func printable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
}

// Body gives the bytes to POST for a payload: the payload itself where it has
// a top-level "event" equal to name, else the payload with that member spliced
// in behind the last one. No other byte changes.
func Body(name string, payload []byte) ([]byte, Quarantine) {
	return (&findings{}).body(name, payload)
}

// findings are the top-level members of a payload that routing asks for, picked
// up on the walk that builds the body.
type findings struct {
	first [2]string // their names, "" for none
	value [2][]byte // the first member of each
}

// get gives what stands at a path that begins with one of the members, nil
// where there is nothing.
func (f *findings) get(path string) []byte {
	root, rest, _ := strings.Cut(path, ".")
	for i, name := range f.first {
		if name == root {
			return lookup(f.value[i], rest)
		}
	}
	return nil
}

func (f *findings) body(name string, payload []byte) ([]byte, Quarantine) {
	trimmed := bytes.TrimRight(payload, " \t\r\n")
	open := bytes.TrimLeft(trimmed, " \t\r\n")
	if len(open) < 2 || open[0] != '{' || open[len(open)-1] != '}' {
		return nil, QuarantineNotObject
	}
	empty, events, matches := true, 0, false
	members(open, func(key, value []byte) bool {
		empty = false
		if isKey(key, "event") {
			events++
			matches = isString(value, name)
		}
		for i, root := range f.first {
			if root != "" && f.value[i] == nil && isKey(key, root) {
				f.value[i] = value
			}
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
	if !empty {
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
