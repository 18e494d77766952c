package domain_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func webhook(id domain.WebhookID, state domain.WebhookState, inbox int64, subscriptions ...string) domain.Webhook {
	return domain.Webhook{
		ID: id, Version: int64(id) * 10, State: state,
		Settings: domain.Settings{InboxID: inbox, Subscriptions: subscriptions},
	}
}

func target(id domain.WebhookID) domain.Target {
	return domain.Target{WebhookID: id, Version: int64(id) * 10, Deadline: domain.DefaultDeadline}
}

func disabled(id domain.WebhookID) domain.Skip {
	return domain.Skip{WebhookID: id, Reason: domain.SkipDisabled}
}

func otherInbox(id domain.WebhookID) domain.Skip {
	return domain.Skip{WebhookID: id, Reason: domain.SkipInbox}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	const event, enabled = "message_created", domain.WebhookEnabled
	for _, c := range []struct {
		name     string
		inbox    int64
		webhooks []domain.Webhook
		want     domain.Routing
	}{
		{"NoWebhooks", 12, nil, domain.Routing{Kind: domain.RoutingNoSubscriber}},
		{
			"Subscribed", 12, []domain.Webhook{webhook(1, enabled, 0, event)},
			domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{target(1)}},
		},
		{
			"OneOfSeveralSubscriptions", 12, []domain.Webhook{webhook(1, enabled, 0, "contact_created", event)},
			domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{target(1)}},
		},
		{
			"NotSubscribed", 12, []domain.Webhook{webhook(1, enabled, 0, "message_updated"), webhook(2, enabled, 0)},
			domain.Routing{Kind: domain.RoutingNoSubscriber},
		},
		{
			"SubscriptionsAreNoPrefixes", 12, []domain.Webhook{webhook(1, enabled, 0, "message", "message_", "message_created_", "MESSAGE_CREATED", "*")},
			domain.Routing{Kind: domain.RoutingNoSubscriber},
		},
		{
			"PausedIsRouted", 12, []domain.Webhook{webhook(1, domain.WebhookPaused, 0, event)},
			domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{target(1)}},
		},
		{
			"DisabledIsSkipped", 12, []domain.Webhook{webhook(1, domain.WebhookDisabled, 0, event)},
			domain.Routing{Kind: domain.RoutingSkipped, Reason: "disabled", Skips: []domain.Skip{disabled(1)}},
		},
		{
			"DisabledAndNotSubscribed", 12, []domain.Webhook{webhook(1, domain.WebhookDisabled, 0, "message_updated")},
			domain.Routing{Kind: domain.RoutingNoSubscriber},
		},
		{
			"DeletedIsNoSubscriber", 12, []domain.Webhook{webhook(1, domain.WebhookDeleted, 0, event)},
			domain.Routing{Kind: domain.RoutingNoSubscriber},
		},
		{
			"TheInboxMatches", 12, []domain.Webhook{webhook(1, enabled, 12, event)},
			domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{target(1)}},
		},
		{
			"AnotherInbox", 13, []domain.Webhook{webhook(1, enabled, 12, event)},
			domain.Routing{Kind: domain.RoutingSkipped, Reason: "inbox", Skips: []domain.Skip{otherInbox(1)}},
		},
		{
			"TheEventHasNoInbox", 0, []domain.Webhook{webhook(1, enabled, 12, event)},
			domain.Routing{Kind: domain.RoutingSkipped, Reason: "inbox", Skips: []domain.Skip{otherInbox(1)}},
		},
		{
			"NoInboxAndNoFilter", 0, []domain.Webhook{webhook(1, enabled, 0, event)},
			domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{target(1)}},
		},
		{
			"DisabledAndAnotherInbox", 13, []domain.Webhook{webhook(1, domain.WebhookDisabled, 12, event)},
			domain.Routing{Kind: domain.RoutingSkipped, Reason: "disabled", Skips: []domain.Skip{disabled(1)}},
		},
		{
			"SeveralInTheirOrder", 12,
			[]domain.Webhook{
				webhook(5, enabled, 0, event), webhook(1, domain.WebhookDisabled, 0, event), webhook(4, domain.WebhookPaused, 12, event),
				webhook(2, enabled, 13, event), webhook(3, domain.WebhookDeleted, 0, event), webhook(6, enabled, 0, "contact_created"),
			},
			domain.Routing{
				Kind: domain.RoutingRouted, Targets: []domain.Target{target(5), target(4)}, Skips: []domain.Skip{disabled(1), otherInbox(2)},
			},
		},
		{
			"TheFirstSkipIsTheReason", 12, []domain.Webhook{webhook(1, enabled, 13, event), webhook(2, domain.WebhookDisabled, 0, event)},
			domain.Routing{Kind: domain.RoutingSkipped, Reason: "inbox", Skips: []domain.Skip{otherInbox(1), disabled(2)}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := domain.Route(event, c.inbox, domain.Configuration{Version: 99, Webhooks: c.webhooks})
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestATargetHasTheDeadlineOfItsWebhook: the shorter one of the webhook's and the
// event's own.
func TestATargetHasTheDeadlineOfItsWebhook(t *testing.T) {
	t.Parallel()
	const message, typing = "message_created", "conversation_typing_on"
	var hooks []domain.Webhook
	for i, deadline := range []time.Duration{0, domain.DefaultDeadline, time.Hour, 3 * time.Second} {
		w := webhook(domain.WebhookID(i+1), domain.WebhookEnabled, 0, message, typing)
		w.Settings.Deadline = deadline
		hooks = append(hooks, w)
	}
	config := domain.Configuration{Webhooks: hooks}
	of := func(routings ...domain.Routing) (deadlines []time.Duration) {
		for _, r := range routings {
			for _, target := range r.Targets {
				deadlines = append(deadlines, target.Deadline)
			}
		}
		return deadlines
	}
	for name, c := range map[string]struct{ got, want []time.Duration }{
		message: {of(domain.Route(message, 0, config)), []time.Duration{7 * 24 * time.Hour, 7 * 24 * time.Hour, time.Hour, 3 * time.Second}},
		typing:  {of(domain.Route(typing, 0, config)), []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second, 3 * time.Second}},
		"a test": {
			of(domain.RouteTest(1, config), domain.RouteTest(2, config), domain.RouteTest(3, config), domain.RouteTest(4, config)),
			[]time.Duration{time.Minute, time.Minute, time.Minute, 3 * time.Second},
		},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("the deadlines of %s are %v, want %v", name, c.got, c.want)
		}
	}
}

func TestRouteTest(t *testing.T) {
	t.Parallel()
	config := domain.Configuration{Webhooks: []domain.Webhook{
		webhook(1, domain.WebhookEnabled, 12), webhook(2, domain.WebhookPaused, 0), webhook(3, domain.WebhookDisabled, 0),
		webhook(4, domain.WebhookDeleted, 0), webhook(5, domain.WebhookEnabled, 0, domain.EventWebhookTest),
	}}
	for id, want := range map[domain.WebhookID]domain.Routing{
		1: {Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 1, Version: 10, Deadline: time.Minute}}},
		2: {Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 2, Version: 20, Deadline: time.Minute}}},
		3: {Kind: domain.RoutingSkipped, Reason: "disabled", Skips: []domain.Skip{disabled(3)}},
		4: {Kind: domain.RoutingNoSubscriber},
		6: {Kind: domain.RoutingNoSubscriber},
	} {
		if got := domain.RouteTest(id, config); !reflect.DeepEqual(got, want) {
			t.Errorf("webhook %d: got %+v, want %+v", id, got, want)
		}
	}
}

// FuzzRoute: every webhook that asked for the event is a target or is skipped,
// never both and nobody else; the same question has the same answer, and one
// webhook has no influence on another.
func FuzzRoute(f *testing.F) {
	f.Add(byte(0), []byte{})
	f.Add(byte(1), []byte{0, 0x10, 0x21, 0x32, 0x43})
	f.Add(byte(2), []byte{0xff, 0x0f, 0xf0, 0x1a, 0x2b, 0x3c})
	states := []domain.WebhookState{domain.WebhookEnabled, domain.WebhookPaused, domain.WebhookDisabled, domain.WebhookDeleted}
	names := []string{"message_created", "message_updated", "contact_created"}
	f.Fuzz(func(t *testing.T, inbox byte, hooks []byte) {
		event, inboxID := names[int(inbox>>4)%len(names)], int64(inbox&3)
		var config domain.Configuration
		for i, b := range hooks {
			w := webhook(domain.WebhookID(i+1), states[b&3], int64(b>>2&3))
			for j, name := range names {
				if b>>4&(1<<j) != 0 {
					w.Settings.Subscriptions = append(w.Settings.Subscriptions, name)
				}
			}
			config.Webhooks = append(config.Webhooks, w)
		}
		got := domain.Route(event, inboxID, config)
		if again := domain.Route(event, inboxID, config); !reflect.DeepEqual(got, again) {
			t.Fatalf("got %+v, then %+v", got, again)
		}
		targets, skips := map[domain.WebhookID]int64{}, map[domain.WebhookID]domain.SkipReason{}
		for _, target := range got.Targets {
			targets[target.WebhookID] = target.Version
		}
		for _, skip := range got.Skips {
			skips[skip.WebhookID] = skip.Reason
		}
		if len(targets) != len(got.Targets) || len(skips) != len(got.Skips) {
			t.Fatalf("a webhook twice: %+v", got)
		}
		for _, w := range config.Webhooks {
			version, isTarget := targets[w.ID]
			_, isSkipped := skips[w.ID]
			asked := w.State != domain.WebhookDeleted && slices.Contains(w.Settings.Subscriptions, event)
			if isTarget && isSkipped || asked != (isTarget || isSkipped) {
				t.Fatalf("webhook %+v: target: %t, skipped: %t", w, isTarget, isSkipped)
			}
			if isTarget && version != w.Version {
				t.Fatalf("webhook %+v: at version %d", w, version)
			}
			alone := domain.Route(event, inboxID, domain.Configuration{Webhooks: []domain.Webhook{w}})
			if isTarget != (len(alone.Targets) == 1) || isSkipped != (len(alone.Skips) == 1) {
				t.Fatalf("webhook %+v: alone it has %+v, among others %+v", w, alone, got)
			}
			delete(targets, w.ID)
			delete(skips, w.ID)
		}
		if len(targets) > 0 || len(skips) > 0 {
			t.Fatalf("webhooks from elsewhere: %v, %v", targets, skips)
		}
		want := domain.RoutingNoSubscriber
		switch {
		case len(got.Targets) > 0:
			want = domain.RoutingRouted
		case len(got.Skips) > 0:
			want = domain.RoutingSkipped
		}
		if got.Kind != want || (got.Reason != "") != (want == domain.RoutingSkipped) {
			t.Fatalf("%+v; want %s", got, want)
		}
	})
}
