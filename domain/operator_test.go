package domain_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// deadly is a delivery whose only attempt has failed.
func deadly(account domain.AccountID) *domain.DeadDelivery {
	events := []domain.DeliveryEvent{
		domain.AttemptFailed{At: after(2 * time.Second), Attempt: 1, Outcome: domain.Outcome{
			Kind: domain.OutcomeFailed, StatusCode: 503, Class: domain.ErrorStatus, Detail: "hidden", Excerpt: "hidden", RemoteIP: "192.0.2.1",
		}},
		domain.Dead{At: after(2*time.Second + 123456789*time.Nanosecond), Reason: domain.DeadAttempts},
	}
	scheduled := []domain.DeliveryEvent{
		domain.Scheduled{At: t0, Deadline: after(time.Hour), WebhookVersion: 4}, domain.AttemptStarted{At: after(time.Second), Attempt: 1, WebhookVersion: 4},
	}
	return &domain.DeadDelivery{
		Key: domain.DeliveryKey{EventSeq: 88231, WebhookID: 3, ReplayID: 1}, AccountID: account, EventID: chatEventID, Event: "message_created",
		Settings: domain.Settings{URL: "https://example.com/hook?token=hidden#hidden", Name: `C"R"M`},
		State:    domain.Fold(append(scheduled, events...)...), Events: events,
	}
}

// What receivers of the operator's events get is a contract.
func TestTellDead(t *testing.T) {
	t.Parallel()
	told := domain.TellDead(deadly(7))
	const want = `{"event":"delivery_dead","account":{"id":7},"webhook":{"id":3,"name":"C\"R\"M","url":"https://example.com/hook"},` +
		`"delivery":{"delivery_id":"019cb6e0-1f2d-8635-b253-d4f9d94efb23","notification_id":"019cb6e0-1f2d-8cec-84de-f48da6bbf5a7","event_id":"019cb6e0-1f2d-7c4b-9a3e-5d6f70819203",` +
		`"event_seq":88231,"event":"message_created","replay_id":1,"status":"dead","reason":"attempts_used_up","attempt_count":1,` +
		`"last_outcome":"failed","last_status_code":503,"last_error_class":"status","scheduled_at":"2026-03-04T05:06:07Z","completed_at":"2026-03-04T05:06:09.123456Z"}}`
	if got := string(told.Payload); got != want {
		t.Errorf("the payload is\n%s, want\n%s", got, want)
	}
	if told.Name != "delivery_dead" || told.OrderingKey != "" || !told.At.Equal(after(2*time.Second+123456789*time.Nanosecond)) {
		t.Errorf("it is %s, in the order of %q, at %s", told.Name, told.OrderingKey, told.At)
	}
	if got := told.ID.String(); got != "019cb6e0-1f2d-8706-9423-6ca3a0221ce2" {
		t.Errorf("the id is %s", got)
	}
	again, other := domain.TellDead(deadly(7)), domain.TellDead(deadly(8))
	if again.ID != told.ID || other.ID == told.ID || !wellFormed(told.ID, chatEventID) {
		t.Errorf("the ids are %s, again %s, of another account %s", told.ID, again.ID, other.ID)
	}
}

func TestTellDisabled(t *testing.T) {
	t.Parallel()
	hook := domain.Webhook{ID: 3, AccountID: 7, Settings: settings, Secret: secretA, Credential: credential}
	hook.Settings.URL += "?token=hidden"
	told := domain.TellDisabled(hook, 12, domain.DisabledGone, "relay", t0)
	const want = `{"event":"webhook_disabled","account":{"id":7},"webhook":{"id":3,"name":"CRM","url":"https://example.com/hook"},` +
		`"change":{"change":"disabled","webhook_version":12,"reason":"the receiver answered 410 Gone twice","actor":"relay","at":"2026-03-04T05:06:07Z"}}`
	if got := string(told.Payload); got != want {
		t.Errorf("the payload is\n%s, want\n%s", got, want)
	}
	if told.Name != "webhook_disabled" || told.OrderingKey != "webhook:3" || !told.At.Equal(t0) {
		t.Errorf("it is %s, in the order of %q, at %s", told.Name, told.OrderingKey, told.At)
	}
	if got := told.ID.String(); got != "019cb73d-3218-8c6c-91fe-15ec1947a85a" {
		t.Errorf("the id is %s", got)
	}
	again, later := domain.TellDisabled(hook, 12, "", "", t0), domain.TellDisabled(hook, 13, domain.DisabledGone, "relay", t0)
	if again.ID != told.ID || later.ID == told.ID {
		t.Errorf("the ids are %s, again %s, of another change %s", told.ID, again.ID, later.ID)
	}
}

// Else one that fails would make the next, for ever.
func TestNothingIsToldOfTheOperatorsAccount(t *testing.T) {
	t.Parallel()
	if told := domain.TellDead(deadly(domain.OperatorAccount)); told != nil {
		t.Errorf("told %s", told.Payload)
	}
	if told := domain.TellDisabled(domain.Webhook{ID: 3, AccountID: domain.OperatorAccount}, 12, "", "", t0); told != nil {
		t.Errorf("told %s", told.Payload)
	}
}

func TestAWebhookOfTheOperatorsAccount(t *testing.T) {
	t.Parallel()
	ops := domain.Webhook{AccountID: domain.OperatorAccount}
	plain := domain.Settings{URL: "https://example.com/ops"}
	for _, command := range []domain.WebhookCommand{
		domain.RegisterWebhook{Settings: plain, Secret: secretA}, domain.ImportWebhook{URL: plain.URL, Fresh: secretA},
	} {
		events, err := domain.DecideWebhook(ops, command)
		if err != nil {
			t.Fatal(err)
		}
		if got := foldWebhook(events...).Settings.Subscriptions; !slices.Equal(got, domain.OperatorEvents) {
			t.Errorf("%T subscribes to %v", command, got)
		}
	}
	ops = domain.EvolveWebhook(ops, domain.WebhookRegistered{Settings: plain})
	ops.AccountID = domain.OperatorAccount
	plain.Subscriptions, plain.InboxID = []string{"webhook_disabled", "message_created"}, 12
	for _, command := range []domain.WebhookCommand{domain.UpdateWebhook{Settings: plain}, domain.ImportWebhook{URL: plain.URL, Subscriptions: plain.Subscriptions, InboxID: &plain.InboxID}} {
		_, err := domain.DecideWebhook(ops, command)
		if !errors.Is(err, domain.ErrInvalidSettings) || !strings.Contains(err.Error(), `"message_created" is no event of the operator's account`) || !strings.Contains(err.Error(), "inbox_id") {
			t.Errorf("%T: %v", command, err)
		}
	}
	// Elsewhere the names are like any others.
	if _, err := domain.DecideWebhook(domain.Webhook{AccountID: 1}, domain.RegisterWebhook{Settings: plain, Secret: secretA}); err != nil {
		t.Error(fmt.Errorf("account 1: %w", err))
	}
}
