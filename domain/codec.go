package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// ErrUnknownEntry is the error of decoding a log entry whose type this version
// does not know: the log was written by a newer one.
var ErrUnknownEntry = errors.New("unknown type of log entry")

// The types of a delivery's log entries. They and the JSON beside them are
// contracts: rows of them are kept for as long as the log is.
const (
	TypeScheduled        = "scheduled"
	TypeAttemptStarted   = "attempt_started"
	TypeAttemptSucceeded = "attempt_succeeded"
	TypeAttemptFailed    = "attempt_failed"
	TypeAttemptUnknown   = "attempt_unknown"
	TypeHeld             = "held"
	TypeReleased         = "released"
	TypeExpired          = "expired"
	TypeDead             = "dead"
	TypeCancelled        = "cancelled"
)

// Entry is a delivery event as the log keeps it.
type Entry struct {
	Type string
	At   time.Time
	// Data is a JSON object with the event's other fields.
	Data []byte
	// Excerpt is the beginning of the response, "" where there was none, and
	// Salt what its digest in the data begins with. They stand beside the data
	// so that they can be erased without it.
	Excerpt string
	Salt    [16]byte
}

// EncodeDelivery gives an event's log entry. The JSON is built by hand: it is
// written for every step of every delivery.
func EncodeDelivery(event DeliveryEvent) Entry {
	switch e := event.(type) {
	case Scheduled:
		o := object{}.integer("webhook_version", e.WebhookVersion).time("deadline", e.Deadline)
		return Entry{Type: TypeScheduled, At: e.At, Data: o.done()}
	case AttemptStarted:
		o := object{}.integer("attempt", int64(e.Attempt)).integer("webhook_version", e.WebhookVersion).
			integer("timeout_ms", e.Timeout.Milliseconds()).text("previous_outcome", string(e.PreviousOutcome))
		return Entry{Type: TypeAttemptStarted, At: e.At, Data: o.done()}
	case AttemptSucceeded:
		return Entry{TypeAttemptSucceeded, e.At, object{}.integer("attempt", int64(e.Attempt)).outcome(e.Outcome).done(), e.Outcome.Excerpt, e.Outcome.ExcerptSalt}
	case AttemptFailed:
		o := object{}.integer("attempt", int64(e.Attempt)).outcome(e.Outcome).time("retry_at", e.RetryAt)
		return Entry{TypeAttemptFailed, e.At, o.done(), e.Outcome.Excerpt, e.Outcome.ExcerptSalt}
	case AttemptUnknown:
		o := object{}.integer("attempt", int64(e.Attempt)).text("reason", e.Reason).time("retry_at", e.RetryAt)
		return Entry{Type: TypeAttemptUnknown, At: e.At, Data: o.done()}
	case Held:
		o := object{}.text("reason", string(e.Reason)).time("until", e.Until)
		return Entry{Type: TypeHeld, At: e.At, Data: o.done()}
	case Released:
		return Entry{Type: TypeReleased, At: e.At, Data: object{}.text("reason", string(e.Reason)).done()}
	case Expired:
		return Entry{Type: TypeExpired, At: e.At, Data: object{}.text("reason", e.Reason).done()}
	case Dead:
		return Entry{Type: TypeDead, At: e.At, Data: object{}.text("reason", e.Reason).done()}
	case Cancelled:
		return Entry{Type: TypeCancelled, At: e.At, Data: object{}.text("reason", e.Reason).done()}
	}
	panic(fmt.Sprintf("no encoding for %T", event)) // a new event type without a case: a test over all of them fails
}

// entryData is the union of the fields of all entries.
type entryData struct {
	Attempt         int         `json:"attempt"`
	WebhookVersion  int64       `json:"webhook_version"`
	TimeoutMS       int64       `json:"timeout_ms"`
	PreviousOutcome OutcomeKind `json:"previous_outcome"`
	StatusCode      int         `json:"status_code"`
	ErrorClass      ErrorClass  `json:"error_class"`
	ErrorDetail     string      `json:"error_detail"`
	DurationUS      int64       `json:"duration_us"`
	RemoteIP        string      `json:"remote_ip"`
	RetryAfterMS    int64       `json:"retry_after_ms"`
	ExcerptDigest   string      `json:"excerpt_digest"`
	RetryAt         time.Time   `json:"retry_at"`
	Deadline        time.Time   `json:"deadline"`
	Until           time.Time   `json:"until"`
	Reason          string      `json:"reason"`
}

func (d entryData) outcome(kind OutcomeKind, entry Entry) Outcome {
	return Outcome{
		Kind: kind, StatusCode: d.StatusCode, Class: d.ErrorClass, Detail: d.ErrorDetail,
		Duration: time.Duration(d.DurationUS) * time.Microsecond, RemoteIP: d.RemoteIP,
		Excerpt: entry.Excerpt, ExcerptSalt: entry.Salt, ExcerptDigest: d.ExcerptDigest,
		RetryAfter: time.Duration(d.RetryAfterMS) * time.Millisecond,
	}
}

// DecodeDelivery gives the event of a log entry. The error is ErrUnknownEntry
// for a type of a newer version.
func DecodeDelivery(entry Entry) (DeliveryEvent, error) {
	if !known(entry.Type) { // judged before its data, whose members may mean something else
		return nil, fmt.Errorf("%w: %q", ErrUnknownEntry, entry.Type)
	}
	if entry.Type == TypeScheduled {
		if scheduled, ok := readScheduled(entry); ok {
			return scheduled, nil
		}
	}
	var d entryData
	if err := json.Unmarshal(entry.Data, &d); err != nil {
		return nil, fmt.Errorf("decode %s entry: %w", entry.Type, err)
	}
	at := entry.At
	switch entry.Type {
	case TypeScheduled:
		return Scheduled{at, d.Deadline, d.WebhookVersion}, nil
	case TypeAttemptStarted:
		return AttemptStarted{at, d.Attempt, d.WebhookVersion, d.PreviousOutcome, time.Duration(d.TimeoutMS) * time.Millisecond}, nil
	case TypeAttemptSucceeded:
		return AttemptSucceeded{at, d.Attempt, d.outcome(OutcomeSucceeded, entry)}, nil
	case TypeAttemptFailed:
		return AttemptFailed{at, d.Attempt, d.outcome(OutcomeFailed, entry), d.RetryAt}, nil
	case TypeAttemptUnknown:
		return AttemptUnknown{at, d.Attempt, d.Reason, d.RetryAt}, nil
	case TypeHeld:
		return Held{at, HoldReason(d.Reason), d.Until}, nil
	case TypeReleased:
		return Released{at, ReleaseReason(d.Reason)}, nil
	case TypeExpired:
		return Expired{at, d.Reason}, nil
	case TypeDead:
		return Dead{at, d.Reason}, nil
	case TypeCancelled:
		return Cancelled{at, d.Reason}, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownEntry, entry.Type)
}

// readScheduled reads the entry in the form in which EncodeDelivery writes it.
// Every delivery that another relay routed is read so once; all that looks
// different is left to encoding/json.
func readScheduled(entry Entry) (Scheduled, bool) {
	data, ok := bytes.CutPrefix(entry.Data, []byte(`{"webhook_version":`))
	number, data, found := bytes.Cut(data, []byte(`,"deadline":"`))
	text, ends := bytes.CutSuffix(data, []byte(`"}`))
	if !ok || !found || !ends || len(number) == 0 || len(number) > 18 {
		return Scheduled{}, false
	}
	var version int64
	for _, digit := range number {
		if digit < '0' || digit > '9' || version == 0 && digit == '0' {
			return Scheduled{}, false
		}
		version = 10*version + int64(digit-'0')
	}
	var deadline time.Time
	if err := deadline.UnmarshalText(text); err != nil { // strict, as encoding/json is
		return Scheduled{}, false
	}
	return Scheduled{entry.At, deadline, version}, true
}

func known(entryType string) bool {
	switch entryType {
	case TypeScheduled, TypeAttemptStarted, TypeAttemptSucceeded, TypeAttemptFailed, TypeAttemptUnknown,
		TypeHeld, TypeReleased, TypeExpired, TypeDead, TypeCancelled:
		return true
	default:
		return false
	}
}

// TypeRouted is the type of the one log entry of a chat event's own stream.
const TypeRouted = "routed"

// Routed is the decision about a chat event as the log keeps it.
type Routed struct {
	Routing
	EventName     string
	OrderingKey   string
	ConfigVersion int64
	BodyBytes     int
	// Digest is SHA-256 over salt and body, hex; empty where nothing is sent.
	Digest string
	// DuplicateOf is the sequence number of the first event with the same id.
	DuplicateOf int64
}

// EncodeRouted gives the JSON of a routing decision.
func EncodeRouted(r Routed) []byte {
	o := object{}.text("routing", string(r.Kind)).text("event", r.EventName).text("ordering_key", r.OrderingKey).
		text("reason", r.Reason).integer("config_version", r.ConfigVersion).integer("body_bytes", int64(r.BodyBytes)).
		integer("deliveries", int64(len(r.Targets))).text("digest", r.Digest).integer("duplicate_of", r.DuplicateOf)
	if len(r.Skips) > 0 {
		skips, _ := json.Marshal(r.Skips) // numbers and constants: cannot fail
		o = append(o.key("skips"), skips...)
	}
	return o.done()
}

// DecodeRouted gives what a delivery takes from the decision about its chat
// event: the event's name, what keeps it in order, and the body's digest. The
// decision is JSON; what is none of ours is an error, or empty.
func DecodeRouted(data []byte) (r Routed, err error) {
	if i := skipSpace(data, 0); i == len(data) || data[i] != '{' {
		return Routed{}, errors.New("it is not an object")
	}
	members(data, func(key, value []byte) bool {
		var into *string
		switch {
		case isKey(key, "event"):
			into = &r.EventName
		case isKey(key, "ordering_key"):
			into = &r.OrderingKey
		case isKey(key, "digest"):
			into = &r.Digest
		default:
			return true
		}
		if value[0] != '"' {
			err = fmt.Errorf("its %s is not a string", key)
			return false
		}
		*into = unquoted(value)
		return true
	})
	return r, err
}

// object builds a JSON object member by member. Zero values are left out.
type object []byte

func (o object) key(name string) object {
	if len(o) == 0 {
		o = append(make(object, 0, 160), '{')
	} else {
		o = append(o, ',')
	}
	o = append(o, '"')
	o = append(o, name...)
	return append(o, '"', ':')
}

func (o object) integer(name string, v int64) object {
	if v == 0 {
		return o
	}
	return strconv.AppendInt(o.key(name), v, 10)
}

func (o object) text(name, v string) object {
	if v == "" {
		return o
	}
	if !plain(v) {
		quoted, _ := json.Marshal(printable(v)) // a string: cannot fail
		return append(o.key(name), quoted...)
	}
	o = append(o.key(name), '"')
	o = append(o, v...)
	return append(o, '"')
}

// plain reports whether json.Marshal would write the text as it is.
func plain(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

func (o object) time(name string, t time.Time) object {
	if t.IsZero() {
		return o
	}
	o = append(o.key(name), '"')
	o = t.UTC().AppendFormat(o, time.RFC3339Nano)
	return append(o, '"')
}

func (o object) outcome(out Outcome) object {
	return o.integer("status_code", int64(out.StatusCode)).text("error_class", string(out.Class)).
		text("error_detail", out.Detail).integer("duration_us", out.Duration.Microseconds()).
		text("remote_ip", out.RemoteIP).integer("retry_after_ms", out.RetryAfter.Milliseconds()).text("excerpt_digest", out.ExcerptDigest)
}

func (o object) done() []byte {
	if len(o) == 0 {
		return []byte("{}")
	}
	return append(o, '}')
}
