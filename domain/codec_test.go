package domain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a golden file, or writes it under -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./domain -update writes it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: rows of this form are kept for as long as the log is\ngot  %swant %s", path, got, want)
	}
}

// t0 is when the tests' stories begin: with nanoseconds, to see them kept.
var t0 = time.Date(2026, time.March, 4, 5, 6, 7, 89, time.UTC)

// goldenEvents has at least one case of every delivery event, by the name of
// its golden file.
var goldenEvents = map[string]domain.DeliveryEvent{
	"scheduled":                 domain.Scheduled{At: t0, Deadline: t0.Add(7 * 24 * time.Hour), WebhookVersion: 42},
	"scheduled.no_deadline":     domain.Scheduled{At: t0},
	"attempt_started.first":     domain.AttemptStarted{At: t0, Attempt: 1, WebhookVersion: 42, Timeout: 5 * time.Second},
	"attempt_started.retry":     domain.AttemptStarted{At: t0, Attempt: 7, WebhookVersion: 43, PreviousOutcome: domain.OutcomeUnknown, Timeout: 30 * time.Second},
	"attempt_succeeded":         domain.AttemptSucceeded{At: t0, Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: 12345 * time.Microsecond, RemoteIP: "2606:4700::1111"}},
	"attempt_succeeded.excerpt": domain.AttemptSucceeded{At: t0, Attempt: 2, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 200, Duration: time.Second, RemoteIP: "192.0.2.1", Excerpt: "{\"ok\":true}\n"}.Digested([16]byte{1, 2, 3})},
	"attempt_failed.status": domain.AttemptFailed{
		At: t0, Attempt: 3,
		Outcome: domain.Outcome{
			Kind: domain.OutcomeFailed, StatusCode: 503, Class: domain.ErrorStatus, Detail: "503 Service Unavailable",
			Duration: 250 * time.Millisecond, RemoteIP: "192.0.2.1", Excerpt: "<h1>„Wartung“</h1>", RetryAfter: 90 * time.Second,
		},
		RetryAt: t0.Add(2 * time.Minute),
	},
	"attempt_failed.last": domain.AttemptFailed{
		At: t0, Attempt: 12,
		Outcome: domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorDNS, Detail: `lookup "hooks.example.com": no such host`, Duration: time.Millisecond},
	},
	"attempt_unknown":      domain.AttemptUnknown{At: t0, Attempt: 1, Reason: "relay_lost", RetryAt: t0},
	"attempt_unknown.last": domain.AttemptUnknown{At: t0, Attempt: 12, Reason: "relay_lost"},
	"held.order":           domain.Held{At: t0, Reason: domain.HoldOrder, Until: t0.Add(30 * time.Second)},
	"held.paused":          domain.Held{At: t0, Reason: domain.HoldPaused},
	"released":             domain.Released{At: t0, Reason: domain.ReleaseTurn},
	"expired":              domain.Expired{At: t0, Reason: domain.ExpiredDeadline},
	"dead":                 domain.Dead{At: t0, Reason: domain.DeadAttempts},
	"cancelled":            domain.Cancelled{At: t0, Reason: domain.CancelledDisabled},
}

// entryFile is a golden file: a log entry in one line.
type entryFile struct {
	Type    string          `json:"type"`
	At      time.Time       `json:"at"`
	Data    json.RawMessage `json:"data"`
	Excerpt string          `json:"excerpt,omitempty"`
	Salt    [16]byte        `json:"salt,omitzero"`
}

func TestDeliveryEntriesAreGolden(t *testing.T) {
	t.Parallel()
	for name, event := range goldenEvents {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entry := domain.EncodeDelivery(event)
			if typ, _, _ := strings.Cut(name, "."); entry.Type != typ {
				t.Errorf("type %q, want %q", entry.Type, typ)
			}
			line, err := json.Marshal(entryFile{Type: entry.Type, At: entry.At, Data: entry.Data, Excerpt: entry.Excerpt, Salt: entry.Salt})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", append(line, '\n'))
			if kept := readEntry(t, name+".json"); !reflect.DeepEqual(kept, event) {
				t.Errorf("the golden file gives\n\t%#v\nwant\n\t%#v", kept, event)
			}
		})
	}
}

// readEntry decodes a golden file, which stands for rows that were written by
// an older version.
func readEntry(t *testing.T, name string) domain.DeliveryEvent {
	t.Helper()
	line, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	var file entryFile
	if err := json.Unmarshal(line, &file); err != nil {
		t.Fatal(err)
	}
	event, err := domain.DecodeDelivery(domain.Entry{Type: file.Type, At: file.At, Data: file.Data, Excerpt: file.Excerpt, Salt: file.Salt})
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestEveryDeliveryEventIsGolden(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{}
	typeOf := map[string]string{} // entry type by Go type: one each
	for _, event := range goldenEvents {
		name := typeName(event)
		covered[name] = true
		entryType := domain.EncodeDelivery(event).Type
		if was, ok := typeOf[name]; ok && was != entryType {
			t.Errorf("%s is written as %q and as %q", name, was, entryType)
		}
		typeOf[name] = entryType
	}
	expectAll(t, implementers(t, "delivery.go", "deliveryEvent"), covered)
	seen := map[string]string{}
	for name, entryType := range typeOf {
		if other, ok := seen[entryType]; ok {
			t.Errorf("%s and %s are both written as %q", name, other, entryType)
		}
		seen[entryType] = name
	}
}

// An event is read back as it was written, whatever its fields: also zero
// times, and fields that JSON leaves out.
func TestZeroEventsRoundTrip(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]domain.DeliveryEvent{
		"Scheduled":        domain.Scheduled{},
		"AttemptStarted":   domain.AttemptStarted{},
		"AttemptSucceeded": domain.AttemptSucceeded{Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded}},
		"AttemptFailed":    domain.AttemptFailed{Outcome: domain.Outcome{Kind: domain.OutcomeFailed}},
		"AttemptUnknown":   domain.AttemptUnknown{},
		"Held":             domain.Held{},
		"Released":         domain.Released{},
		"Expired":          domain.Expired{},
		"Dead":             domain.Dead{},
		"Cancelled":        domain.Cancelled{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entry := domain.EncodeDelivery(event)
			if string(entry.Data) != "{}" {
				t.Errorf("data %s, want {}", entry.Data)
			}
			got, err := domain.DecodeDelivery(entry)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, event) {
				t.Errorf("got %#v, want %#v", got, event)
			}
		})
	}
}

// Times are written in UTC, so that equal events give equal bytes.
func TestEntryTimesAreUTC(t *testing.T) {
	t.Parallel()
	elsewhere := time.FixedZone("UTC+5:45", 5*3600+45*60)
	here := domain.EncodeDelivery(domain.Held{At: t0, Until: t0})
	there := domain.EncodeDelivery(domain.Held{At: t0, Until: t0.In(elsewhere)})
	if !bytes.Equal(here.Data, there.Data) {
		t.Errorf("%s and %s differ by the time zone", here.Data, there.Data)
	}
}

// What PostgreSQL's text and json cannot hold never reaches the data.
func TestEntryTextIsPrintable(t *testing.T) {
	t.Parallel()
	entry := domain.EncodeDelivery(domain.AttemptFailed{At: t0, Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeFailed, Detail: "a\x00b\xffc\u2028\"<"}})
	if !json.Valid(entry.Data) || bytes.Contains(entry.Data, []byte(`\u0000`)) {
		t.Fatalf("data %q", entry.Data)
	}
	got, err := domain.DecodeDelivery(entry)
	if err != nil {
		t.Fatal(err)
	}
	if failed, ok := got.(domain.AttemptFailed); !ok || failed.Outcome.Detail != "abc\u2028\"<" {
		t.Errorf("got %#v", got)
	}
}

func TestDecodeDeliveryRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, entryType, data string
		unknown               bool
	}{
		{"NoType", "", `{}`, true},
		{"NewerType", "throttled", `{}`, true},
		{"OtherCase", "Scheduled", `{}`, true},
		{"RoutedIsNoDeliveryEntry", domain.TypeRouted, `{}`, true},
		{"NewerTypeWithItsOwnMembers", "throttled", `{"reason":{"rate":5},"attempt":"first"}`, true},
		{"NewerTypeWithBrokenData", "throttled", `{`, true},
		{"NoData", domain.TypeHeld, ``, false},
		{"BrokenData", domain.TypeHeld, `{"reason":`, false},
		{"TrailingData", domain.TypeHeld, `{}{}`, false},
		{"Array", domain.TypeHeld, `[]`, false},
		{"WrongType", domain.TypeAttemptStarted, `{"attempt":"1"}`, false},
		{"Fraction", domain.TypeAttemptStarted, `{"attempt":1.5}`, false},
		{"TooLarge", domain.TypeAttemptStarted, `{"attempt":99999999999999999999}`, false},
		{"NoTime", domain.TypeHeld, `{"until":"tomorrow"}`, false},
		{"InfiniteTime", domain.TypeHeld, `{"until":"infinity"}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			event, err := domain.DecodeDelivery(domain.Entry{Type: c.entryType, At: t0, Data: []byte(c.data)})
			if err == nil {
				t.Fatalf("decoded as %#v", event)
			}
			if errors.Is(err, domain.ErrUnknownEntry) != c.unknown {
				t.Errorf("error %q; is ErrUnknownEntry: %t, want %t", err, !c.unknown, c.unknown)
			}
			if c.entryType != "" && !strings.Contains(err.Error(), c.entryType) {
				t.Errorf("error %q does not name the type %q", err, c.entryType)
			}
		})
	}
}

// Members that a newer version adds to a known type do no harm.
func TestDecodeDeliveryIgnoresNewMembers(t *testing.T) {
	t.Parallel()
	got, err := domain.DecodeDelivery(domain.Entry{Type: domain.TypeDead, At: t0, Data: []byte(`{"reason":"x","since":{"a":[1]}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if want := (domain.Dead{At: t0, Reason: "x"}); got != want {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestRoutedIsGolden(t *testing.T) {
	t.Parallel()
	for name, routed := range map[string]domain.Routed{
		"routed": {
			Routing: domain.Routing{
				Kind:    domain.RoutingRouted,
				Targets: []domain.Target{{WebhookID: 1, Version: 10}, {WebhookID: 3, Version: 12}},
				Skips:   []domain.Skip{{WebhookID: 2, Reason: domain.SkipInbox}, {WebhookID: 4, Reason: domain.SkipDisabled}},
			},
			EventName: "message_created", OrderingKey: "conversation:346", ConfigVersion: 12, BodyBytes: 4391,
			Digest: strings.Repeat("0123456789abcdef", 4),
		},
		"routed.no_subscriber": {
			Routing:   domain.Routing{Kind: domain.RoutingNoSubscriber},
			EventName: "contact_created", OrderingKey: "contact:901", ConfigVersion: 12, BodyBytes: 475,
		},
		"routed.skipped": {
			Routing: domain.Routing{
				Kind: domain.RoutingSkipped, Reason: string(domain.SkipDisabled),
				Skips: []domain.Skip{{WebhookID: 2, Reason: domain.SkipDisabled}},
			},
			EventName: "contact_created", OrderingKey: "contact:901", ConfigVersion: 12, BodyBytes: 475,
		},
		"routed.duplicate": {
			Routing:   domain.Routing{Kind: domain.RoutingDuplicate},
			EventName: "message_created", DuplicateOf: 1234567890123,
		},
		"routed.quarantined": {
			Routing:   domain.Routing{Kind: domain.RoutingQuarantined, Reason: string(domain.QuarantineEventName)},
			EventName: "Message \x00\"created\"\xff", OrderingKey: "a\u2029b",
		},
		"routed.zero": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := domain.EncodeRouted(routed)
			if !json.Valid(got) {
				t.Fatalf("not JSON: %s", got)
			}
			golden(t, name+".json", append(got, '\n'))
			read, err := domain.DecodeRouted(got)
			want := domain.Routed{EventName: asText(routed.EventName), OrderingKey: routed.OrderingKey, Digest: routed.Digest}
			if err != nil || !reflect.DeepEqual(read, want) {
				t.Errorf("read back as %+v, %v; want %+v", read, err, want)
			}
		})
	}
}

// asText is what a name becomes that is no text for PostgreSQL.
func asText(name string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(name, "\x00", ""), "")
}

// FuzzRouted: what is read of a decision is what encoding/json finds there.
func FuzzRouted(f *testing.F) {
	for _, data := range []string{
		``, ` `, `null`, `[]`, `7`, `"event"`, `{}`, `{"event":"a","ordering_key":"b","digest":"c","skips":[{"event":"d"}]}`,
		` { "event" : "a" , "event" : "b" } `, `{"event":7}`, `{"event":null}`, `{"digest":["a"]}`, `{"\u0065vent":"\u0000\ud800"}`, `{"ordering_key":"\"\\"}`,
		string(domain.EncodeRouted(domain.Routed{EventName: "macro.executed", OrderingKey: "a\u2029b", Digest: "00"})),
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		got, err := domain.DecodeRouted(data)
		if !bytes.Equal(before, data) {
			t.Fatalf("%q became %q", before, data)
		}
		if !json.Valid(data) || !utf8.Valid(data) {
			return // PostgreSQL has refused it
		}
		all := topLevel(t, data)
		if all == nil {
			if err == nil {
				t.Errorf("%q is taken for a decision", data)
			}
			return
		}
		want := map[string]string{}
		for _, m := range all {
			if m.key != "event" && m.key != "ordering_key" && m.key != "digest" {
				continue
			}
			var text *string
			if json.Unmarshal(m.value, &text) != nil || text == nil {
				if err == nil {
					t.Errorf("%q is taken for a decision", data)
				}
				return
			}
			want[m.key] = *text
		}
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		for key, read := range map[string]string{"event": got.EventName, "ordering_key": got.OrderingKey, "digest": got.Digest} {
			if read != want[key] && strings.ToValidUTF8(read, "\uFFFD") != want[key] { // half a surrogate pair is no text
				t.Errorf("%q: %s is %q, want %q", data, key, read, want[key])
			}
		}
	})
}

// FuzzScheduled: an entry in the form in which it is written is read as
// encoding/json reads it, and so is all that looks nearly like one.
func FuzzScheduled(f *testing.F) {
	written := string(domain.EncodeDelivery(domain.Scheduled{At: t0, Deadline: t0.Add(time.Hour), WebhookVersion: 12}).Data)
	f.Add([]byte(written))
	for _, data := range []string{
		`{"deadline":"2026-03-04T05:06:07Z"}`, `{"webhook_version":0,"deadline":"2026-03-04T05:06:07Z"}`, `{"webhook_version":01,"deadline":"2026-03-04T05:06:07Z"}`,
		`{"webhook_version":-1,"deadline":"2026-03-04T05:06:07Z"}`, `{"webhook_version":1e3,"deadline":"2026-03-04T05:06:07Z"}`, `{"webhook_version":,"deadline":"2026-03-04T05:06:07Z"}`,
		`{"webhook_version":999999999999999999,"deadline":"2026-03-04T05:06:07Z"}`, `{"webhook_version":9223372036854775807,"deadline":"2026-03-04T05:06:07Z"}`,
		`{"webhook_version":9223372036854775808,"deadline":"2026-03-04T05:06:07Z"}`, `{"webhook_version":1,"deadline":""}`, `{"webhook_version":1,"deadline":null}`,
		`{"webhook_version":1,"deadline":"2026-03-04T05:06:07,5Z"}`, `{"webhook_version":1,"deadline":"2026-03-04T05:06:07.123456789+01:00"}`,
		`{"webhook_version":1,"deadline":"2026-03-04T05:06:07Z","deadline":"2027-03-04T05:06:07Z"}`, `{"webhook_version":1,"deadline":"2026-03-04T05:06:07Z","webhook_version":2}`,
		`{"webhook_version":1,"deadline":"2026-03-04T05:06:07\u005a"}`, `{"webhook_version":1,"deadline":"2026-03-04T05:06:07Z"} `, `{"webhook_version":1,"deadline":"2026-03-04T05:06:07Z"}}`,
		`{"webhook_version":1,"deadline":"2026-03-04T05:06:07Z"`, `{"webhook_version":1,"deadline":"0000-01-01T00:00:00Z"}`, `{"webhook_version":1,"deadline":"2026-3-4T5:6:7Z"}`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want struct {
			Version  int64     `json:"webhook_version"`
			Deadline time.Time `json:"deadline"`
		}
		wrong := json.Unmarshal(data, &want)
		got, err := domain.DecodeDelivery(domain.Entry{Type: domain.TypeScheduled, At: t0, Data: data})
		if wrong == nil && err != nil {
			// What it has besides may be of another type than an entry's.
			if strictly(data) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		if wrong != nil && err == nil {
			t.Fatalf("%q is read as %#v, want an error like %v", data, got, wrong)
		}
		if err == nil {
			if read, ok := got.(domain.Scheduled); !ok || read.WebhookVersion != want.Version || !read.Deadline.Equal(want.Deadline) || !read.At.Equal(t0) {
				t.Errorf("%q is read as %#v, want %+v", data, got, want)
			}
		}
	})
}

// strictly tells whether an entry has no members but a scheduled one's.
func strictly(data []byte) bool {
	var only struct {
		Version  int64     `json:"webhook_version"`
		Deadline time.Time `json:"deadline"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(&only) == nil
}

// FuzzEntry: no log entry makes decoding panic, and what it gives is written
// in a form that is read back as the same.
func FuzzEntry(f *testing.F) {
	for _, event := range goldenEvents {
		entry := domain.EncodeDelivery(event)
		f.Add(entry.Type, entry.Data, entry.Excerpt)
	}
	f.Add("throttled", []byte(`{}`), "")
	f.Add("held", []byte(`null`), "")
	f.Add("held", []byte(`{"Reason":"a","reason":null,"until":"2026-03-04T05:06:07+01:00"}`), "x")
	f.Add("attempt_failed", []byte(`{"duration_us":9223372036854775807,"retry_after_ms":-9223372036854775808}`), "\x00")
	f.Fuzz(func(t *testing.T, entryType string, data []byte, excerpt string) {
		event, err := domain.DecodeDelivery(domain.Entry{Type: entryType, At: t0, Data: data, Excerpt: excerpt})
		if err != nil {
			if event != nil {
				t.Fatalf("an event beside the error %q: %#v", err, event)
			}
			return
		}
		once := domain.EncodeDelivery(event)
		if once.Type != entryType || !json.Valid(once.Data) {
			t.Fatalf("%q %q is written as %q %q", entryType, data, once.Type, once.Data)
		}
		again, err := domain.DecodeDelivery(once)
		if err != nil {
			if outsideJSON(event) {
				return
			}
			t.Fatalf("what was written as %q is not read back: %v", once.Data, err)
		}
		if twice := domain.EncodeDelivery(again); !reflect.DeepEqual(once, twice) {
			t.Fatalf("written as %q, then as %q", once.Data, twice.Data)
		}
	})
}

// outsideJSON reports whether an event has a time whose UTC year has no four
// digits. Such a time can be written with an offset, but nothing writes it.
func outsideJSON(event domain.DeliveryEvent) bool {
	v := reflect.ValueOf(event)
	for i := range v.NumField() {
		if at, ok := v.Field(i).Interface().(time.Time); ok && (at.UTC().Year() < 0 || at.UTC().Year() > 9999) {
			return true
		}
	}
	return false
}
