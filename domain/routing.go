package domain

import (
	"slices"
	"time"
)

// RoutingKind says what routing made of a chat event.
type RoutingKind string

// The routings, as audit.events shows them.
const (
	RoutingWaiting      RoutingKind = "waiting"       // committed, not routed yet
	RoutingRouted       RoutingKind = "routed"        // to at least one webhook
	RoutingNoSubscriber RoutingKind = "no_subscriber" // no webhook of the account asked for it
	RoutingSkipped      RoutingKind = "skipped"       // subscribed, but every such webhook was passed over
	RoutingDuplicate    RoutingKind = "duplicate"     // the same event id within the duplicate window
	RoutingQuarantined  RoutingKind = "quarantined"   // cannot be routed
)

// SkipReason says why a subscribed webhook was passed over.
type SkipReason string

// The reasons of a skip.
const (
	SkipDisabled SkipReason = "disabled" // the webhook is disabled
	SkipInbox    SkipReason = "inbox"    // its inbox filter names another inbox, or the event has none
	// SkipUnreadable: its settings, and so its subscriptions, cannot be read.
	SkipUnreadable SkipReason = "settings_unreadable"
)

// Configuration is an account's webhooks in one snapshot.
type Configuration struct {
	Version  int64
	Webhooks []Webhook
}

// Target is a webhook that an event was routed to, at the version in force.
type Target struct {
	WebhookID WebhookID
	Version   int64
	// Deadline is how long after the routing an attempt may start: that
	// version's. Whoever schedules the delivery takes it from here.
	Deadline time.Duration
}

// Skip is a subscribed webhook that was passed over.
type Skip struct {
	WebhookID WebhookID  `json:"webhook_id"`
	Reason    SkipReason `json:"reason"`
}

// Routing is the decision about one chat event.
type Routing struct {
	Kind    RoutingKind
	Reason  string
	Targets []Target
	Skips   []Skip
}

// Route decides which webhooks of the account get an event: those subscribed
// to it, neither deleted nor disabled, whose inbox filter, if any, names the
// event's inbox. A paused webhook is routed to: its deliveries wait. One whose
// settings cannot be read is passed over, on record, and stops no other.
func Route(event string, inbox int64, config Configuration) Routing {
	var r Routing
	for i := range config.Webhooks {
		w := &config.Webhooks[i]
		switch {
		case w.Unreadable != "" && w.State != WebhookDeleted:
			r.Skips = append(r.Skips, Skip{w.ID, SkipUnreadable})
		case w.State == WebhookDeleted || !slices.Contains(w.Settings.Subscriptions, event):
		case w.State == WebhookDisabled:
			r.Skips = append(r.Skips, Skip{w.ID, SkipDisabled})
		case w.Settings.InboxID != 0 && w.Settings.InboxID != inbox:
			r.Skips = append(r.Skips, Skip{w.ID, SkipInbox})
		default:
			r.Targets = append(r.Targets, Target{w.ID, w.Version, w.Settings.DeadlineOf(event)})
		}
	}
	return r.concluded()
}

// RouteTest decides about a test of one webhook: it gets the event whatever
// its subscriptions and its inbox filter, and no other webhook does.
func RouteTest(webhook WebhookID, config Configuration) Routing {
	var r Routing
	for i := range config.Webhooks {
		switch w := &config.Webhooks[i]; {
		case w.ID != webhook || w.State == WebhookDeleted:
		case w.Unreadable != "":
			r.Skips = append(r.Skips, Skip{w.ID, SkipUnreadable})
		case w.State == WebhookDisabled:
			r.Skips = append(r.Skips, Skip{w.ID, SkipDisabled})
		default:
			r.Targets = append(r.Targets, Target{w.ID, w.Version, w.Settings.DeadlineOf(EventWebhookTest)})
		}
	}
	return r.concluded()
}

// concluded says what targets and skips come to.
func (r Routing) concluded() Routing {
	switch {
	case len(r.Targets) > 0:
		r.Kind = RoutingRouted
	case len(r.Skips) > 0:
		r.Kind = RoutingSkipped
		r.Reason = string(r.Skips[0].Reason)
	default:
		r.Kind = RoutingNoSubscriber
	}
	return r
}
