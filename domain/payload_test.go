package domain_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

const mebibyte = 1 << 20

// inspect judges a payload as the tail hands it over.
func inspect(event, payload string) (domain.Facts, domain.Quarantine) {
	return domain.Inspect(domain.ChatEvent{Name: event, Payload: []byte(payload), PayloadBytes: len(payload)}, mebibyte)
}

// Payloads as Chatwoot 4.16 builds them.
func TestInspectChatwootPayloads(t *testing.T) {
	t.Parallel()
	table := map[string]struct {
		event, orderingKey string
		inbox              int64
	}{
		"agentbot.conversation_opened":             {"conversation_opened", "conversation:346", 12},
		"agentbot.conversation_resolved":           {"conversation_resolved", "conversation:346", 12},
		"automation_event.message_created":         {"automation_event.message_created", "", 0},
		"contact_created":                          {"contact_created", "contact:901", 0},
		"contact_updated":                          {"contact_updated", "contact:901", 0},
		"conversation_created":                     {"conversation_created", "conversation:346", 12},
		"conversation_status_changed":              {"conversation_status_changed", "conversation:346", 12},
		"conversation_typing_off":                  {"conversation_typing_off", "conversation:346", 12},
		"conversation_typing_on":                   {"conversation_typing_on", "conversation:346", 12},
		"conversation_typing_on.by_contact":        {"conversation_typing_on", "conversation:346", 12},
		"conversation_updated":                     {"conversation_updated", "conversation:346", 12},
		"inbox_created":                            {"inbox_created", "", 15},
		"inbox_updated":                            {"inbox_updated", "", 15},
		"inbox_updated.reauthorization":            {"inbox_updated", "", 15},
		"macro.executed":                           {"macro.executed", "", 0},
		"message_created":                          {"message_created", "conversation:346", 12},
		"message_created.outgoing_with_attachment": {"message_created", "conversation:346", 12},
		"message_created.private_note":             {"message_created", "conversation:346", 12},
		"message_updated":                          {"message_updated", "conversation:346", 12},
		"webwidget_triggered":                      {"webwidget_triggered", "", 12},
	}
	files, err := filepath.Glob(filepath.Join("testdata", "chatwoot", "*.json"))
	if err != nil || len(files) != len(table) {
		t.Fatalf("%d files for %d rows, %v", len(files), len(table), err)
	}
	for name, want := range table {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload, err := os.ReadFile(filepath.Join("testdata", "chatwoot", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			facts, quarantine := inspect(want.event, string(payload))
			if quarantine != domain.QuarantineNone {
				t.Fatalf("quarantined: %s", quarantine)
			}
			if facts.OrderingKey != want.orderingKey || facts.InboxID != want.inbox {
				t.Errorf("key %q, inbox %d; want %q, %d", facts.OrderingKey, facts.InboxID, want.orderingKey, want.inbox)
			}
			if !bytes.Equal(facts.Body, payload) {
				t.Error("the body is not the payload, byte for byte")
			}

			// As a producer may send it: without "event", which the column has.
			bare := withoutEvent(t, payload)
			facts, quarantine = inspect(want.event, string(bare))
			if quarantine != domain.QuarantineNone || facts.OrderingKey != want.orderingKey || facts.InboxID != want.inbox {
				t.Errorf("without event: %q, key %q, inbox %d", quarantine, facts.OrderingKey, facts.InboxID)
			}
			if spliced := string(bare[:len(bare)-1]) + `,"event":"` + want.event + `"}`; string(facts.Body) != spliced {
				t.Errorf("without event: body %s", facts.Body)
			}
			if _, quarantine := inspect("other_event", string(payload)); quarantine != domain.QuarantineEventMismatch {
				t.Errorf("under another name: %q", quarantine)
			}
		})
	}
}

// withoutEvent gives a compact copy of a payload without its "event".
func withoutEvent(t *testing.T, payload []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, m := range topLevel(t, payload) {
		if m.key == "event" {
			continue
		}
		b.WriteByte(",{"[btoi(b.Len() == 0)])
		key, err := json.Marshal(m.key)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

type member struct {
	key   string
	value json.RawMessage
}

// topLevel reads an object's members as encoding/json sees them, in order and
// with repetitions; nil where the document is no object.
func topLevel(t *testing.T, document []byte) []member {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber() // JSON has numbers beyond float64
	token, err := decoder.Token()
	if err != nil {
		t.Fatalf("%q: %v", document, err)
	}
	if token != json.Delim('{') {
		return nil
	}
	members := []member{}
	for decoder.More() {
		token, err := decoder.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			t.Fatalf("%q: %v, %v", document, token, err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%q: %v", document, err)
		}
		members = append(members, member{key, value})
	}
	return members
}

func TestBody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, payload string
		want          string // "" where it is the payload itself
		quarantine    domain.Quarantine
	}{
		{"Present", `{"event":"message_created","id":1}`, "", ""},
		{"PresentLast", `{"id":1,"event":"message_created"}`, "", ""},
		{"PresentWithSpaces", " \t{ \"id\" : 1 ,\r\n \"event\" : \"message_created\" } \n", "", ""},
		{"PresentBesideNested", `{"a":{"event":"x"},"event":"message_created"}`, "", ""},
		{"PresentBesideOtherCase", `{"Event":"x","EVENT":1,"event":"message_created"}`, "", ""},
		{"EscapedKey", `{"\u0065vent":"message_created"}`, "", ""},
		{"EscapedValue", `{"event":"message\u005fcreated"}`, "", ""},
		{"FullyEscaped", `{"\u0065\u0076\u0065\u006e\u0074":"\u006dessage_created"}`, "", ""},

		{"Absent", `{"id":1}`, `{"id":1,"event":"message_created"}`, ""},
		{"AbsentWithSpaces", "\n{ \"id\" : 1 \n} \t\r\n", "\n{ \"id\" : 1 \n,\"event\":\"message_created\"} \t\r\n", ""},
		{"EmptyObject", `{}`, `{"event":"message_created"}`, ""},
		{"EmptyObjectWithSpaces", " { \n } ", " { \n \"event\":\"message_created\"} ", ""},
		{"NestedOnly", `{"a":{"event":"x"},"b":[{"event":"y"}]}`, `{"a":{"event":"x"},"b":[{"event":"y"}],"event":"message_created"}`, ""},
		{"OtherCase", `{"Event":"x"}`, `{"Event":"x","event":"message_created"}`, ""},
		{"LongerKeys", `{"event ":"x"," event":"x","events":"x","event\u0000":"x","\u0000event":"x"}`, `{"event ":"x"," event":"x","events":"x","event\u0000":"x","\u0000event":"x","event":"message_created"}`, ""},
		{"EmptyKey", `{"":1}`, `{"":1,"event":"message_created"}`, ""},
		{"InAString", `{"a":"\",\"event\":\"x\""}`, `{"a":"\",\"event\":\"x\"","event":"message_created"}`, ""},
		{"InAKey", `{"a\",\"event":"x"}`, `{"a\",\"event":"x","event":"message_created"}`, ""},
		{"KeyOfBackslashes", `{"\\":1,"\\\\":2,"\\\"":3}`, `{"\\":1,"\\\\":2,"\\\"":3,"event":"message_created"}`, ""},
		{"ValueOfBackslashes", `{"a":"\\","b":"\\\\\""}`, `{"a":"\\","b":"\\\\\"","event":"message_created"}`, ""},
		{"LoneSurrogates", `{"\ud800":"\udc00","\ud800\u0065vent":"x"}`, `{"\ud800":"\udc00","\ud800\u0065vent":"x","event":"message_created"}`, ""},
		{"Dots", `{"a.event":"x","event.a":"y"}`, `{"a.event":"x","event.a":"y","event":"message_created"}`, ""},
		{"Wildcards", `{"*":"x","e?ent":"y","@this":1,"#":2}`, `{"*":"x","e?ent":"y","@this":1,"#":2,"event":"message_created"}`, ""},
		{"NULEscape", `{"a":"\u0000"}`, `{"a":"\u0000","event":"message_created"}`, ""},
		{"BracesInStrings", `{"a":"}{","b":["]","}"]}`, `{"a":"}{","b":["]","}"],"event":"message_created"}`, ""},
		{"AllKinds", `{"a":null,"b":true,"c":false,"d":-1.5e+3,"e":[],"f":{},"g":""}`, `{"a":null,"b":true,"c":false,"d":-1.5e+3,"e":[],"f":{},"g":"","event":"message_created"}`, ""},

		{"Mismatch", `{"event":"message_updated"}`, "", domain.QuarantineEventMismatch},
		{"MismatchByCase", `{"event":"Message_Created"}`, "", domain.QuarantineEventMismatch},
		{"MismatchBySpace", `{"event":"message_created "}`, "", domain.QuarantineEventMismatch},
		{"MismatchByNUL", `{"event":"message_created\u0000"}`, "", domain.QuarantineEventMismatch},
		{"MismatchEmpty", `{"event":""}`, "", domain.QuarantineEventMismatch},
		{"MismatchNull", `{"event":null}`, "", domain.QuarantineEventMismatch},
		{"MismatchNumber", `{"event":1}`, "", domain.QuarantineEventMismatch},
		{"MismatchBool", `{"event":true}`, "", domain.QuarantineEventMismatch},
		{"MismatchObject", `{"event":{"event":"message_created"}}`, "", domain.QuarantineEventMismatch},
		{"MismatchArray", `{"event":["message_created"]}`, "", domain.QuarantineEventMismatch},
		{"MismatchEscapedKey", `{"\u0065vent":"message_updated"}`, "", domain.QuarantineEventMismatch},

		{"Repeated", `{"event":"message_created","event":"message_created"}`, "", domain.QuarantineEventRepeated},
		{"RepeatedFirstDiffers", `{"event":"x","event":"message_created"}`, "", domain.QuarantineEventRepeated},
		{"RepeatedLastDiffers", `{"event":"message_created","id":1,"event":"x"}`, "", domain.QuarantineEventRepeated},
		{"RepeatedEscaped", `{"event":"message_created","\u0065vent":"message_created"}`, "", domain.QuarantineEventRepeated},
		{"RepeatedNulls", `{"event":null,"event":null}`, "", domain.QuarantineEventRepeated},

		{"Array", `[{"event":"message_created"}]`, "", domain.QuarantineNotObject},
		{"EmptyArray", `[]`, "", domain.QuarantineNotObject},
		{"String", `"message_created"`, "", domain.QuarantineNotObject},
		{"StringOfAnObject", `"{}"`, "", domain.QuarantineNotObject},
		{"Number", `1`, "", domain.QuarantineNotObject},
		{"Null", `null`, "", domain.QuarantineNotObject},
		{"True", ` true `, "", domain.QuarantineNotObject},
		{"Nothing", ``, "", domain.QuarantineNotObject},
		{"Blank", " \n", "", domain.QuarantineNotObject},
		{"OneBrace", `{`, "", domain.QuarantineNotObject},
		{"ByteOrderMark", "\ufeff{}", "", domain.QuarantineNotObject}, // PostgreSQL refuses it
		{"VerticalTab", "\v{}", "", domain.QuarantineNotObject},       // no white space of JSON
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, quarantine := domain.Body("message_created", []byte(c.payload))
			if quarantine != c.quarantine {
				t.Fatalf("quarantine %q, want %q", quarantine, c.quarantine)
			}
			want := c.want
			switch {
			case c.quarantine != "":
				if got != nil {
					t.Errorf("a body: %s", got)
				}
				return
			case want == "":
				want = c.payload
			}
			if string(got) != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// Splicing writes into no array that the payload shares.
func TestBodyLeavesThePayloadAlone(t *testing.T) {
	t.Parallel()
	buffer := []byte(`{"id":1}  next row of the same buffer`)
	payload := buffer[:8:len(buffer)]
	if _, quarantine := domain.Body("message_created", payload); quarantine != "" {
		t.Fatal(quarantine)
	}
	if string(buffer) != `{"id":1}  next row of the same buffer` {
		t.Errorf("the buffer became %q", buffer)
	}
}

func TestInspectOrderingKey(t *testing.T) {
	t.Parallel()
	key := func(s string) *string { return &s }
	for _, c := range []struct {
		name, event, payload string
		given                *string
		want                 string
		quarantine           domain.Quarantine
	}{
		{"DerivedForAConversation", "conversation_updated", `{"id":346}`, nil, "conversation:346", ""},
		{"DerivedForAMessage", "message_created", `{"id":1,"conversation":{"id":346}}`, nil, "conversation:346", ""},
		{"DerivedForTyping", "conversation_typing_on", `{"id":1,"conversation":{"id":346}}`, nil, "conversation:346", ""},
		{"DerivedForAContact", "contact_updated", `{"id":901}`, nil, "contact:901", ""},
		{"DerivedForANameToCome", "message_deleted", `{"conversation":{"id":346}}`, nil, "conversation:346", ""},
		{"NoneForAWidget", "webwidget_triggered", `{"id":1,"conversation":{"id":346}}`, nil, "", ""},
		{"NoneForAnInbox", "inbox_updated", `{"id":1}`, nil, "", ""},
		{"NoneForAnUnknownFamily", "macro.executed", `{"id":1}`, nil, "", ""},
		{"NoneForAPrefixWithoutUnderscore", "conversation.updated", `{"id":1}`, nil, "", ""},

		{"TheProducersKey", "conversation_updated", `{"id":346}`, key("ticket-1"), "ticket-1", ""},
		{"TheProducersKeyOfNoFamily", "macro.executed", `{}`, key("ticket-1"), "ticket-1", ""},
		{"EmptyIsUnordered", "conversation_updated", `{"id":346}`, key(""), "", ""},
		{"LongestKey", "macro.executed", `{}`, key(strings.Repeat("k", 512)), strings.Repeat("k", 512), ""},
		{"KeyTooLong", "macro.executed", `{}`, key(strings.Repeat("k", 513)), "", domain.QuarantineOrderingKey},
		{"KeyTooLongInBytes", "macro.executed", `{}`, key(strings.Repeat("é", 257)), "", domain.QuarantineOrderingKey},

		{"StringID", "conversation_updated", `{"id":"346"}`, nil, "conversation:346", ""},
		{"UUID", "conversation_updated", `{"id":"7c0c29b2-2c2e-4bd4-9d1a-0f7f2a8d6a11"}`, nil, "conversation:7c0c29b2-2c2e-4bd4-9d1a-0f7f2a8d6a11", ""},
		{"EscapedStringID", "conversation_updated", `{"id":"\u0033\t\"é\u00e9"}`, nil, "conversation:3\t\"éé", ""},
		{"StringIDWithNUL", "conversation_updated", `{"id":"a\u0000b"}`, nil, "conversation:ab", ""},
		{"StringIDOfNULs", "conversation_updated", `{"id":"\u0000\u0000"}`, nil, "", ""},
		{"StringIDWithLoneSurrogate", "conversation_updated", `{"id":"a\ud800b"}`, nil, "conversation:a\ufffdb", ""},
		{"StringIDWithPair", "conversation_updated", `{"id":"\ud83d\udc0e"}`, nil, "conversation:🐎", ""},
		{"EmptyStringID", "conversation_updated", `{"id":""}`, nil, "", ""},
		{"StringIDTooLong", "conversation_updated", `{"id":"` + strings.Repeat("k", 512) + `"}`, nil, "", domain.QuarantineOrderingKey},
		{"Zero", "conversation_updated", `{"id":0}`, nil, "conversation:0", ""},
		{"Negative", "conversation_updated", `{"id":-5}`, nil, "conversation:-5", ""},
		{"WholeFloat", "conversation_updated", `{"id":346.0}`, nil, "conversation:346", ""},
		{"Exponent", "conversation_updated", `{"id":3.46e2}`, nil, "conversation:346", ""},
		{"Fraction", "conversation_updated", `{"id":1.5}`, nil, "conversation:1.5", ""},
		{"BeyondFloats", "conversation_updated", `{"id":9007199254740993}`, nil, "conversation:9007199254740993", ""},
		{"BeyondIntegers", "conversation_updated", `{"id":18446744073709551962}`, nil, "conversation:18446744073709551962", ""},
		{"BeyondEverything", "conversation_updated", `{"id":1e999}`, nil, "conversation:+Inf", ""},
		{"TooManyDigits", "conversation_updated", `{"id":` + strings.Repeat("1", 512) + `}`, nil, "", domain.QuarantineOrderingKey},
		{"Null", "conversation_updated", `{"id":null}`, nil, "", ""},
		{"True", "conversation_updated", `{"id":true}`, nil, "", ""},
		{"Object", "conversation_updated", `{"id":{"id":346}}`, nil, "", ""},
		{"Array", "conversation_updated", `{"id":[346]}`, nil, "", ""},
		{"Missing", "conversation_updated", `{}`, nil, "", ""},
		{"MissingConversation", "message_created", `{"id":346}`, nil, "", ""},
		{"NullConversation", "message_created", `{"conversation":null}`, nil, "", ""},
		{"ConversationIsANumber", "message_created", `{"conversation":346}`, nil, "", ""},
		{"ConversationIsAList", "message_created", `{"conversation":[{"id":346}]}`, nil, "", ""},

		{"DottedKeyIsNoPath", "message_created", `{"conversation.id":1}`, nil, "", ""},
		{"NestedIDDoesNotCount", "conversation_updated", `{"meta":{"id":1},"list":[{"id":2}],"id":3}`, nil, "conversation:3", ""},
		{"IDInAString", "conversation_updated", `{"a":"\"id\":1","id":3}`, nil, "conversation:3", ""},
		{"EscapedKey", "conversation_updated", `{"\u0069d":3}`, nil, "conversation:3", ""},
		{"EscapedKeyInside", "message_created", `{"conversatio\u006e":{"\u0069d":3}}`, nil, "conversation:3", ""},
		{"TheFirstOfTwoCounts", "conversation_updated", `{"id":1,"id":2}`, nil, "conversation:1", ""},
		{"OtherCaseIsAnotherKey", "conversation_updated", `{"ID":1,"Id":2}`, nil, "", ""},
		{"SpacesAround", "conversation_updated", " \n{ \"id\" : 346 , \"a\":1 }", nil, "conversation:346", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			facts, quarantine := domain.Inspect(domain.ChatEvent{
				Name: c.event, OrderingKey: c.given, Payload: []byte(c.payload), PayloadBytes: len(c.payload),
			}, mebibyte)
			if quarantine != c.quarantine || facts.OrderingKey != c.want {
				t.Errorf("got %q, %q; want %q, %q", facts.OrderingKey, quarantine, c.want, c.quarantine)
			}
		})
	}
}

func TestInspectInbox(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, event, payload string
		want                 int64
	}{
		{"Conversation", "conversation_created", `{"inbox_id":12}`, 12},
		{"ConversationTakesNoOther", "conversation_created", `{"inbox":{"id":12}}`, 0},
		{"Message", "message_created", `{"inbox":{"id":12}}`, 12},
		{"MessageWithoutInbox", "message_created", `{"conversation":{"inbox_id":12}}`, 12},
		{"MessageTakesTheFirst", "message_created", `{"conversation":{"inbox_id":13},"inbox":{"id":12}}`, 12},
		{"MessageWithNullInbox", "message_created", `{"inbox":null,"conversation":{"inbox_id":12}}`, 12},
		{"Typing", "conversation_typing_on", `{"inbox_id":1,"conversation":{"inbox_id":12}}`, 12},
		{"Widget", "webwidget_triggered", `{"inbox":{"id":12}}`, 12},
		{"Inbox", "inbox_created", `{"working_hours":[{"inbox_id":15},{"inbox_id":16}]}`, 15},
		{"InboxWithoutHours", "inbox_created", `{"working_hours":[]}`, 0},
		{"InboxWithNullHours", "inbox_created", `{"working_hours":null}`, 0},
		{"InboxHoursNested", "inbox_created", `{"working_hours":[[{"inbox_id":15}]]}`, 0},
		{"InboxSecondHourOnly", "inbox_created", `{"working_hours":[{},{"inbox_id":15}]}`, 0},
		{"Contact", "contact_created", `{"inbox_id":12,"inbox":{"id":12}}`, 0},
		{"Macro", "macro.executed", `{"inbox_id":12}`, 0},
		{"WholeFloat", "conversation_created", `{"inbox_id":12.0}`, 12},
		{"Exponent", "conversation_created", `{"inbox_id":1.2e1}`, 12},
		{"Fraction", "conversation_created", `{"inbox_id":12.5}`, 0},
		{"String", "conversation_created", `{"inbox_id":"12"}`, 0},
		{"Null", "conversation_created", `{"inbox_id":null}`, 0},
		{"Object", "conversation_created", `{"inbox_id":{"id":12}}`, 0},
		{"Largest", "conversation_created", `{"inbox_id":9223372036854775807}`, 9223372036854775807},
		{"BeyondFloats", "conversation_created", `{"inbox_id":9007199254740993}`, 9007199254740993},
		{"BeyondIntegers", "conversation_created", `{"inbox_id":18446744073709551628}`, 0}, // 2^64 + 12
		{"BeyondEverything", "conversation_created", `{"inbox_id":1e999}`, 0},
		{"JustBeyondIntegers", "conversation_created", `{"inbox_id":9223372036854775808}`, 0},
		{"Negative", "conversation_created", `{"inbox_id":-12}`, -12},
		{"DottedKeyIsNoPath", "message_created", `{"inbox.id":12,"conversation.inbox_id":12}`, 0},
		{"DottedKeyIsNoPathOfHours", "inbox_created", `{"working_hours.0.inbox_id":12}`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			facts, quarantine := inspect(c.event, c.payload)
			if quarantine != domain.QuarantineNone || facts.InboxID != c.want {
				t.Errorf("got %d, %q; want %d", facts.InboxID, quarantine, c.want)
			}
		})
	}
}

func TestInspectQuarantines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", 513)
	spliced := `{"id":1,"event":"message_created"}`
	for _, c := range []struct {
		name  string
		event domain.ChatEvent
		limit int
		want  domain.Quarantine
	}{
		{"NoName", domain.ChatEvent{Payload: []byte(`{}`)}, 100, domain.QuarantineEventName},
		{"BadName", domain.ChatEvent{Name: "Message", Payload: []byte(`{}`)}, 100, domain.QuarantineEventName},
		{"NameThatWouldBreakTheBody", domain.ChatEvent{Name: `a","b":"`, Payload: []byte(`{}`)}, 100, domain.QuarantineEventName},
		{"NameFirst", domain.ChatEvent{Name: "A", OrderingKey: &long}, 100, domain.QuarantineEventName},
		{"KeyBeforePayload", domain.ChatEvent{Name: "a", OrderingKey: &long, Payload: []byte(`[]`)}, 100, domain.QuarantineOrderingKey},
		{"PayloadLeftOut", domain.ChatEvent{Name: "a", PayloadBytes: 101}, 100, domain.QuarantineTooLarge},
		{"PayloadTooLarge", domain.ChatEvent{Name: "a", Payload: []byte(`[]`), PayloadBytes: 101}, 100, domain.QuarantineTooLarge},
		{"EmptyPayload", domain.ChatEvent{Name: "a", Payload: []byte{}}, 100, domain.QuarantineNotObject},
		{"NotAnObject", domain.ChatEvent{Name: "a", Payload: []byte(`[]`), PayloadBytes: 2}, 100, domain.QuarantineNotObject},
		{"Mismatch", domain.ChatEvent{Name: "a", Payload: []byte(`{"event":"b"}`), PayloadBytes: 13}, 100, domain.QuarantineEventMismatch},
		{"BodyAtTheLimit", domain.ChatEvent{Name: "message_created", Payload: []byte(spliced), PayloadBytes: len(spliced)}, len(spliced), domain.QuarantineNone},
		{"BodyOverTheLimit", domain.ChatEvent{Name: "message_created", Payload: []byte(spliced), PayloadBytes: len(spliced)}, len(spliced) - 1, domain.QuarantineTooLarge},
		{"SplicedAtTheLimit", domain.ChatEvent{Name: "message_created", Payload: []byte(`{"id":1}`), PayloadBytes: 8}, len(spliced), domain.QuarantineNone},
		{"SplicedOverTheLimit", domain.ChatEvent{Name: "message_created", Payload: []byte(`{"id":1}`), PayloadBytes: 8}, len(spliced) - 1, domain.QuarantineTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			facts, quarantine := domain.Inspect(c.event, c.limit)
			if quarantine != c.want {
				t.Errorf("got %q, want %q", quarantine, c.want)
			}
			if quarantine != domain.QuarantineNone && (facts.Body != nil || facts.OrderingKey != "" || facts.InboxID != 0) {
				t.Errorf("facts of what is quarantined: %+v", facts)
			}
		})
	}
}

// A payload nested as deeply as PostgreSQL lets through is no danger.
func TestInspectDeepPayload(t *testing.T) {
	t.Parallel()
	deep := `{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `,"id":1}`
	facts, quarantine := inspect("conversation_updated", deep)
	if quarantine != domain.QuarantineNone || facts.OrderingKey != "conversation:1" {
		t.Errorf("got %q, %q", facts.OrderingKey, quarantine)
	}
}

var fuzzedPayloads = []string{
	`{}`, ` { } `, `[]`, `null`, `"event"`, `1`, ``, `{`, `}`, `{}{}`, `{"a":1}}`, `{"event"}`, `{"event":}`, `{"event":"a`, "{\"\xff\":1}",
	`{"event":"a"}`, `{"event":"message_created"}`, `{"\u0065vent":"\u0061"}`, `{"event":"a","event":"a"}`, `{"e":{"event":"a"}}`, `{"a":["event","a"]}`,
	`{"\ud800":"\ud800\u0065vent","\\":"\\"}`, `{"a":"\"}","b":-0.1E-2,"c":[[{}]]}`, "\t{\"event\"\r:\n\"a\"}\n", `{"event":null}`, `{"id":1e5,"inbox_id":12.0}`,
	`{"conversation":{"id":346,"inbox_id":12},"inbox":{"id":12},"id":"x"}`, `{"working_hours":[{"inbox_id":15}]}`, `{"conversation":{"id":null},"conversation":{"id":"2"}}`,
	`{"id":"\u0000"}`, `{"id":{"id":1}}`, `{"conversation.id":1,"*":2,"\u0069d":3}`,
}

// FuzzBody: the body of valid JSON is valid JSON with exactly one top-level
// "event", which is the name; it is the payload itself where that has one.
// What is no JSON never gets here, since PostgreSQL has read it before, and
// does no harm.
func FuzzBody(f *testing.F) {
	for _, payload := range fuzzedPayloads {
		f.Add("a", []byte(payload))
	}
	f.Add("message_created", []byte(`{"event":"message_created"}`))
	f.Fuzz(checkBody)
}

func checkBody(t *testing.T, name string, payload []byte) {
	t.Helper()
	before := bytes.Clone(payload)
	body, quarantine := domain.Body(name, payload)
	if !bytes.Equal(before, payload) {
		t.Fatalf("the payload %q became %q", before, payload)
	}
	if (quarantine == domain.QuarantineNone) != (body != nil) {
		t.Fatalf("%q: body %q, quarantine %q", payload, body, quarantine)
	}
	if !json.Valid(payload) || !domain.ValidEventName(name) {
		return
	}
	members := topLevel(t, payload)
	events, matches := 0, false
	for _, m := range members {
		if m.key == "event" {
			events++
			var value *string // nil for null
			matches = json.Unmarshal(m.value, &value) == nil && value != nil && *value == name
		}
	}
	want := domain.QuarantineNone
	switch {
	case members == nil:
		want = domain.QuarantineNotObject
	case events > 1:
		want = domain.QuarantineEventRepeated
	case events == 1 && !matches:
		want = domain.QuarantineEventMismatch
	}
	if quarantine != want {
		t.Fatalf("%q: quarantine %q, want %q", payload, quarantine, want)
	}
	if want != domain.QuarantineNone {
		return
	}
	if events == 1 {
		if !bytes.Equal(body, payload) {
			t.Fatalf("%q has its event, but became %q", payload, body)
		}
		return
	}
	if !json.Valid(body) {
		t.Fatalf("%q became %q, which is no JSON", payload, body)
	}
	after := topLevel(t, body)
	if len(after) != len(members)+1 {
		t.Fatalf("%q became %q", payload, body)
	}
	for i, m := range members {
		if after[i].key != m.key || !bytes.Equal(after[i].value, m.value) {
			t.Fatalf("%q became %q: member %d differs", payload, body, i)
		}
	}
	if last := after[len(members)]; last.key != "event" || string(last.value) != `"`+name+`"` {
		t.Fatalf("%q became %q", payload, body)
	}
	if again, quarantine := domain.Body(name, body); quarantine != domain.QuarantineNone || !bytes.Equal(again, body) {
		t.Fatalf("the body %q became %q, %q", body, again, quarantine)
	}
}

// FuzzInspect: what routing reads from valid JSON is what encoding/json finds
// there, and it depends on nothing but the event.
func FuzzInspect(f *testing.F) {
	for _, payload := range fuzzedPayloads {
		for i := range inspectedNames {
			f.Add(byte(i), []byte(payload))
		}
	}
	f.Fuzz(checkInspect)
}

func checkInspect(t *testing.T, pick byte, payload []byte) {
	t.Helper()
	rule := inspectedNames[int(pick)%len(inspectedNames)]
	event := domain.ChatEvent{Name: rule.event, Payload: payload, PayloadBytes: len(payload)}
	facts, quarantine := domain.Inspect(event, mebibyte)
	again, _ := domain.Inspect(event, mebibyte)
	if facts.OrderingKey != again.OrderingKey || facts.InboxID != again.InboxID || !bytes.Equal(facts.Body, again.Body) {
		t.Fatalf("%q: %+v, then %+v", payload, facts, again)
	}
	if !utf8.ValidString(facts.OrderingKey) || strings.ContainsRune(facts.OrderingKey, 0) {
		t.Fatalf("%q: the ordering key %q cannot be kept", payload, facts.OrderingKey)
	}
	if !json.Valid(payload) || !utf8.Valid(payload) || quarantine != domain.QuarantineNone {
		return
	}
	if got, want := facts.OrderingKey != "", rule.order != nil && isID(at(t, payload, rule.order)); got != want {
		t.Fatalf("%s %q: the ordering key is %q; the payload has one: %t", rule.event, payload, facts.OrderingKey, want)
	}
	var inbox int64
	for _, path := range rule.inbox {
		if value := at(t, payload, path); len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9') {
			if err := json.Unmarshal(value, &inbox); err != nil { // a fraction, an exponent, too large: the tables have them
				return
			}
			break
		}
	}
	if facts.InboxID != inbox {
		t.Fatalf("%s %q: inbox %d, want %d", rule.event, payload, facts.InboxID, inbox)
	}
}

// FuzzComposedPayload: the same for payloads that are always JSON, composed of
// what has fooled readers of JSON: escapes, repetitions, odd keys and spaces.
func FuzzComposedPayload(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 0, 7, 1, 8, 2, 9})
	f.Add([]byte("a longer seed, whose bytes choose members of several kinds, nested in one another"))
	f.Fuzz(func(t *testing.T, choices []byte) {
		payload := compose(choices)
		if !json.Valid(payload) {
			t.Fatalf("composed %q", payload)
		}
		checkBody(t, "a", payload)
		for i := range inspectedNames {
			checkInspect(t, byte(i), payload)
		}
	})
}

var (
	composedKeys = []string{
		`"event"`, `"\u0065vent"`, `"even\u0074"`, `"Event"`, `"event\u0000"`, `"\ud800event"`, `"\ud800\u0065vent"`, `"\""`, `"\\"`, `"\\\""`, `""`,
		`"id"`, `"i\u0064"`, `"inbox"`, `"inbox_id"`, `"\u0069nbox_id"`, `"conversation"`, `"conversat\u0069on"`, `"conversation.id"`, `"inbox.id"`,
		`"*"`, `"?d"`, `"#"`, `"@this"`, `"@reverse"`, `"!1"`, `"|"`, `"id|"`, `"{"`, `"}"`, `"["`, `"\/"`, `"é"`, `"\ud83d\udc0e"`,
	}
	composedValues = []string{
		`"a"`, `"\u0061"`, `"a\u0000"`, `""`, `"\u0000"`, `"}"`, `"\"}"`, `"\\"`, `"\\\""`, `"\ud800"`, `"\udc00\ud800"`, `",\"event\":\"a\""`, `"12"`,
		`0`, `-0`, `12`, `-12`, `12.0`, `1.2e1`, `1.2E+1`, `12e-1`, `1e999`, `-1e999`, `1e-999`, `9007199254740993`, `9223372036854775808`, `18446744073709551628`,
		`null`, `true`, `false`, `{}`, `[]`, `[[]]`, `[{"id":1}]`, `{"id":{"id":1}}`,
	}
	composedSpaces = []string{"", "", "", " ", "\n", "\t\r\n "}
)

// compose builds a JSON object from choices, at most four levels deep.
func compose(choices []byte) []byte {
	var b bytes.Buffer
	next := func(n int) int {
		if len(choices) == 0 {
			return 0
		}
		c := int(choices[0]) % n
		choices = choices[1:]
		return c
	}
	space := func() { b.WriteString(composedSpaces[next(len(composedSpaces))]) }
	var object func(depth int)
	object = func(depth int) {
		b.WriteByte('{')
		for i := range next(6) {
			space()
			if i > 0 {
				b.WriteByte(',')
				space()
			}
			b.WriteString(composedKeys[next(len(composedKeys))])
			space()
			b.WriteByte(':')
			space()
			switch kind := next(4); {
			case kind == 0 && depth > 0:
				object(depth - 1)
			case kind == 1 && depth > 0:
				b.WriteByte('[')
				object(depth - 1)
				b.WriteByte(']')
			default:
				b.WriteString(composedValues[next(len(composedValues))])
			}
		}
		space()
		b.WriteByte('}')
	}
	space()
	object(3)
	space()
	return b.Bytes()
}

// inspectedNames has an event of each family and where its facts stand.
var inspectedNames = []struct {
	event string
	order []string
	inbox [][]string
}{
	{"conversation_updated", []string{"id"}, [][]string{{"inbox_id"}}},
	{"message_created", []string{"conversation", "id"}, [][]string{{"inbox", "id"}, {"conversation", "inbox_id"}}},
	{"conversation_typing_on", []string{"conversation", "id"}, [][]string{{"conversation", "inbox_id"}}},
	{"contact_created", []string{"id"}, nil},
	{"webwidget_triggered", nil, [][]string{{"inbox", "id"}}},
	{"macro.executed", nil, nil},
}

// at finds the first value at a path of object members, as encoding/json sees
// them; nil where there is none.
func at(t *testing.T, document []byte, path []string) json.RawMessage {
	t.Helper()
	if len(path) == 0 {
		return document
	}
	for _, m := range topLevel(t, document) {
		if m.key == path[0] {
			if value := at(t, m.value, path[1:]); value != nil {
				return value
			}
		}
	}
	return nil
}

// isID reports whether a value is a number, or a string with a character that
// PostgreSQL's text can hold.
func isID(value json.RawMessage) bool {
	var decoded any
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	if len(value) == 0 || decoder.Decode(&decoded) != nil {
		return false
	}
	switch v := decoded.(type) {
	case json.Number:
		return true
	case string:
		return strings.Trim(v, "\x00") != ""
	default:
		return false
	}
}
