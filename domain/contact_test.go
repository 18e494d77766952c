package domain_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

func TestPayloadsThatTellOfAContact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event, payload string
		tells          bool
	}{
		{"contact_updated", `{"id": 901, "name": "Lena"}`, true},
		{"contact_updated", `{"id": "901"}`, true},
		{"contact_updated", `{"id": 902, "inbox": {"id": 901}}`, false},
		{"conversation_created", `{"id": 901, "meta": {"sender": {"id": 5, "type": "user"}}}`, false},
		{"conversation_created", `{"id": 1, "meta": {"sender": {"type": "contact", "id": 901}}}`, true},
		{"conversation_created", `{"id": 1, "contact_inbox": {"id": 4, "contact_id": 901}}`, true},
		{"message_created", `{"id": 1, "conversation": {"messages": [{"sender_type": "Contact", "sender_id": 901}]}}`, true},
		{"message_created", `{"id": 1, "conversation": {"messages": [{"sender_type": "User", "sender_id": 901}]}}`, false},
		{"webwidget_triggered", `{"id": 455, "contact": {"name": "\u0000", "id": 901}}`, true},
		{"message_created", `{"id": 901, "account": {"id": 901}, "inbox": {"id": 901}}`, false},
		{"message_created", `[901, "contact_id", {"contact_id": 9010}]`, false},
		{"message_created", `901`, false},
		{"message_created", strings.Repeat(`{"a":`, 100_000) + `{"contact_id":901}` + strings.Repeat(`}`, 100_000), false},
	} {
		if got := domain.TellsOfContact(c.event, []byte(c.payload), 901); got != c.tells {
			shown := c.payload[:min(len(c.payload), 100)]
			t.Errorf("%s %s: %t", c.event, shown, got)
		}
	}
}

// Every payload of Chatwoot's with a person in it is found by that contact, and
// by no other.
func TestChatwootsPayloadsTellOfTheirContact(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "chatwoot", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d samples: %v", len(files), err)
	}
	for _, file := range files {
		payload, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		event, _, _ := strings.Cut(filepath.Base(file), ".")
		personal := strings.Contains(string(payload), "lena@customer.example")
		if got := domain.TellsOfContact(event, payload, 901); personal && !got {
			t.Errorf("%s names the contact and is not found", file)
		}
		if domain.TellsOfContact(event, payload, 31337) {
			t.Errorf("%s tells of a contact that is not in it", file)
		}
	}
}
