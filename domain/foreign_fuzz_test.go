package domain_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

// FuzzEventName: an event name is what the pattern in the README says.
func FuzzEventName(f *testing.F) {
	for _, name := range []string{"", "a", "message_created", "macro.executed", "9a", "_a", "A", "a-b", "a\n", "a\x00", "é", strings.Repeat("a", 100), strings.Repeat("a", 101)} {
		f.Add(name)
	}
	pattern := regexp.MustCompile(`\A[a-z][a-z0-9_.]{0,99}\z`)
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := domain.ValidEventName(name), pattern.MatchString(name); got != want {
			t.Errorf("%q is an event name: %t, want %t", name, got, want)
		}
	})
}

// FuzzMetadata: the trace context of metadata is the text that encoding/json
// finds there, and no metadata does harm.
func FuzzMetadata(f *testing.F) {
	const trace = `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`
	for _, metadata := range []string{
		``, `null`, `[]`, `"traceparent"`, `{}`, `{"traceparent":"` + trace + `"}`, `{"traceparent":7}`, `{"traceparent":null,"a":1}`, `{"a":{"traceparent":"x"}}`,
		`{"\u0074raceparent":"x"}`, `{"traceparent":"\u0000\ud800"}`, `[{"traceparent":"x"}]`, `{"traceparent":"x`, `{"traceparent":"x","traceparent":"y"}`, `{"traceparent.a":"x"}`,
	} {
		f.Add([]byte(metadata))
	}
	f.Fuzz(func(t *testing.T, metadata []byte) {
		before := bytes.Clone(metadata)
		got := domain.Traceparent(metadata)
		if !bytes.Equal(before, metadata) {
			t.Fatalf("%q became %q", before, metadata)
		}
		if !json.Valid(metadata) || !utf8.Valid(metadata) {
			return // PostgreSQL has refused it
		}
		want := ""
		for _, m := range topLevel(t, metadata) {
			if m.key == "traceparent" {
				if json.Unmarshal(m.value, &want) != nil {
					want = ""
				}
				break // the first one counts, as it does for a payload
			}
		}
		if got != want && strings.ToValidUTF8(got, "\uFFFD") != want { // half a surrogate pair is no text
			t.Errorf("%q has the trace context %q, want %q", metadata, got, want)
		}
	})
}

// FuzzSecret: a secret that is taken is a key in each of its spellings, is the
// same when it is read again, and is never printed.
func FuzzSecret(f *testing.F) {
	for _, text := range []string{
		"", "short", opaqueSecret, standardSecret, standardSecret + "\n", "whsec_", "whsec_====", "whsec_!", "WHSEC_abcdefgh", "whsec_" + strings.Repeat("A", 684),
		strings.Repeat("x", 512), strings.Repeat("x", 513), "eight or more", "schlüssel", "\xff\xff\xff\xff\xff\xff\xff\xff", `{"p":"n7J0/ol+a7DRMeaE","h":{"iv":"x"}}`, `{"p":"x"}`,
		"whsec_AAAAAAAAAAAAAAAAAAAAAB==",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		secret, err := domain.ParseSecret(text)
		if err != nil {
			if !secret.IsZero() {
				t.Fatalf("%q is a secret beside the error %v", text, err)
			}
			if len(text) > 20 && strings.Contains(err.Error(), text) {
				t.Fatalf("the error quotes the secret: %v", err)
			}
			return
		}
		if secret.Reveal() != text {
			t.Fatalf("%q is revealed as %q", text, secret.Reveal())
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) || len(text) > 1000 {
			t.Fatalf("%q is taken for a secret", text)
		}
		key, spelled := secret.StandardKey(), secret.StandardText()
		encoded, ok := strings.CutPrefix(spelled, "whsec_")
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || !bytes.Equal(decoded, key) {
			t.Fatalf("%q is spelled %q, whose key is not its own: %v", text, spelled, err)
		}
		if len(key) < 8 || len(key) > 512 {
			t.Fatalf("the key of %q has %d bytes", text, len(key))
		}
		if again, err := domain.ParseSecret(spelled); len(key) >= 16 && (err != nil || !bytes.Equal(again.StandardKey(), key)) {
			t.Fatalf("%q is spelled %q, which is another key: %v", text, spelled, err)
		}
		shown, err := json.Marshal(secret)
		if printed := fmt.Sprintf("%v %+v %#v %s %q", secret, secret, secret, secret, secret); err != nil || strings.Contains(printed, text) || bytes.Contains(shown, []byte(text)) {
			t.Fatalf("%q is printed as %s and %s", text, printed, shown)
		}
	})
}

// FuzzHeads: heads that somebody hands in are those that were signed, or they do
// not verify: their text cannot be taken for that of others.
func FuzzHeads(f *testing.F) {
	hash := strings.Repeat("0123456789abcdef", 4)
	one := `{"database":"chat","at":"2026-07-01T12:00:00Z","heads":[{"chain":"tail","no":5,"commit":9,"hash":"` + hash + `"},{"chain":"recorder 1","no":1,"commit":2,"hash":"` + hash + `"}]}`
	f.Add([]byte(one), []byte(one))
	f.Add([]byte(one), []byte(`{"database":"chat","at":"2026-07-01T12:00:00.5+00:00","heads":[{"chain":"tail","no":5,"commit":9,"hash":"`+hash+`\nrecorder 1 1 2 `+hash+`"}]}`))
	f.Add([]byte(one), []byte(`{"database":"chat","at":"2026-07-01T12:00:00Z","heads":[{"chain":"tail 5 9 `+hash+`\nrecorder 1","no":1,"commit":2,"hash":"`+hash+`"}]}`))
	f.Add([]byte(`{"database":"\n","heads":null}`), []byte(`{"heads":[{"chain":"a 1","no":2,"commit":3,"hash":""}]}`))
	f.Add([]byte(`{"heads":[{"chain":"a","no":1,"commit":2,"hash":"3"}]}`), []byte(`{"heads":[{"chain":"a","no":1,"commit":2,"hash":"3"}],"at":"0001-01-01T00:00:00.9Z"}`))
	f.Add([]byte(`[]`), []byte(`{`))
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public, _ := key.Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, ours, theirs []byte) {
		var signed, handed domain.Heads
		if json.Unmarshal(ours, &signed) != nil || json.Unmarshal(theirs, &handed) != nil {
			return
		}
		signed.Sign(key)
		handed.PublicKey, handed.Signature = signed.PublicKey, signed.Signature
		if handed.Verify(public) == nil && !sameHeads(&signed, &handed) {
			t.Fatalf("signed were %+v, and %+v verify", signed, handed)
		}
		if signed.Verify(public) != nil {
			return // what no database has
		}
		text, err := json.Marshal(signed)
		if err != nil {
			t.Fatal(err)
		}
		var read domain.Heads
		if err := json.Unmarshal(text, &read); err != nil || read.Verify(public) != nil {
			t.Fatalf("%s does not verify when it is read again: %v, %v", text, err, read.Verify(public))
		}
	})
}

// sameHeads compares what a signature is of: the time to the second.
func sameHeads(a, b *domain.Heads) bool {
	if a.Database != b.Database || a.At.Unix() != b.At.Unix() || len(a.Heads) != len(b.Heads) {
		return false
	}
	for i := range a.Heads {
		if a.Heads[i] != b.Heads[i] {
			return false
		}
	}
	return true
}

// FuzzTellsOfContact: what an erasure finds in a payload is what encoding/json
// finds there.
func FuzzTellsOfContact(f *testing.F) {
	for _, payload := range fuzzedPayloads {
		f.Add("message_created", []byte(payload), int64(1))
	}
	for _, payload := range []string{
		`{"id":901}`, `{"contact":{"id":"901"}}`, `[{"contact_id":901}]`, `{"sender_id":901,"sender_type":"CONTACT"}`, `{"type":"Contact","id":901}`, `{"type":"contact","type":"user","id":901}`,
		`{"a":{"b":[[{"contact":{"x":{"id":901}}}]]}}`, `{"contact":[{"id":901}]}`, `{"\u0069d":901,"t\u0079pe":"contact"}`, `{"contact_id":-901}`, `{"contact_id":901.5}`,
	} {
		f.Add("contact_updated", []byte(payload), int64(901))
		f.Add("conversation_created", []byte(payload), int64(901))
	}
	f.Fuzz(func(t *testing.T, event string, payload []byte, contact int64) {
		got := domain.TellsOfContact(event, payload, contact)
		// Numbers that are no plain integers, halves of surrogate pairs and a depth
		// of more than 64 are told apart by the tables.
		if !json.Valid(payload) || !utf8.Valid(payload) || odd.Match(payload) || surrogate.Match(payload) ||
			bytes.Count(payload, []byte("{"))+bytes.Count(payload, []byte("[")) > 60 {
			return
		}
		if want := tells(t, payload, strings.HasPrefix(event, "contact_"), strconv.FormatInt(contact, 10)); got != want {
			t.Errorf("%s %q tells of contact %d: %t, want %t", event, payload, contact, got, want)
		}
	})
}

var (
	odd       = regexp.MustCompile(`\d[.eE]`)
	surrogate = regexp.MustCompile(`(?i)\\ud[89a-f]`)
)

// tells is domain.TellsOfContact by encoding/json.
func tells(t *testing.T, value json.RawMessage, contact bool, wanted string) bool {
	t.Helper()
	is := func(value json.RawMessage, of string) bool {
		var text string
		return string(value) == wanted && of == "id" || json.Unmarshal(value, &text) == nil && value[0] == '"' && (of == "id" && text == wanted || of == "contact" && strings.EqualFold(text, of))
	}
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil {
		return slices.ContainsFunc(list, func(item json.RawMessage) bool { return tells(t, item, false, wanted) })
	}
	if value = bytes.TrimSpace(value); value[0] != '{' {
		return false
	}
	var id, sender, senderIsContact bool
	for _, m := range topLevel(t, value) {
		switch {
		case m.key == "contact_id" && is(m.value, "id"), tells(t, m.value, m.key == "contact", wanted):
			return true
		case m.key == "id":
			id = id || is(m.value, "id")
		case m.key == "sender_id":
			sender = sender || is(m.value, "id")
		case m.key == "type":
			contact = contact || is(m.value, "contact")
		case m.key == "sender_type":
			senderIsContact = senderIsContact || is(m.value, "contact")
		}
	}
	return contact && id || sender && senderIsContact
}
