package domain_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestValidEventName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"message_created":                  true,
		"automation_event.message_created": true,
		"macro.executed":                   true,
		"a":                                true,
		"a1_.":                             true,
		"a" + strings.Repeat("b", 99):      true,
		"a" + strings.Repeat("b", 100):     false,
		"":                                 false,
		"1a":                               false,
		"_a":                               false,
		".a":                               false,
		"Message_created":                  false,
		"message-created":                  false,
		"message created":                  false,
		" message_created":                 false,
		"message_created ":                 false,
		"message_created\n":                false,
		"message\x00":                      false,
		"message\"":                        false,
		"größe":                            false,
		"a\xff":                            false,
	} {
		if got := domain.ValidEventName(name); got != want {
			t.Errorf("%q: %t, want %t", name, got, want)
		}
	}
	for _, name := range domain.DefaultSubscriptions {
		if !domain.ValidEventName(name) {
			t.Errorf("the default %q is no event name", name)
		}
	}
}

// The column default of Chatwoot's webhooks table, in its order.
func TestDefaultSubscriptions(t *testing.T) {
	t.Parallel()
	want := []string{
		"conversation_status_changed", "conversation_updated", "conversation_created", "contact_created",
		"contact_updated", "message_created", "message_updated", "webwidget_triggered",
	}
	if !slices.Equal(domain.DefaultSubscriptions, want) {
		t.Errorf("got %v", domain.DefaultSubscriptions)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]time.Duration{
		"conversation_typing_on":  10 * time.Second,
		"conversation_typing_off": 10 * time.Second,
		"conversation_updated":    7 * 24 * time.Hour,
		"message_created":         7 * 24 * time.Hour,
		"something_new":           7 * 24 * time.Hour,
		domain.EventWebhookTest:   time.Minute,
	} {
		if got := domain.Deadline(event); got != want {
			t.Errorf("%s: %s, want %s", event, got, want)
		}
	}
}
