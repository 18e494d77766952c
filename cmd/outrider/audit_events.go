package main

import (
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) eventListing() listing[audit.Event] {
	return listing[audit.Event]{
		list: audit.EventList, short: "List chat events, and how they were routed",
		long: `List chat events, newest first: by their place in the outbox.

--since and --until are of the routing. What waits to be routed comes after all
times: it is shown unless --until is given.`,
		filters: filterKinds{
			time: "routed", webhook: "only those with a delivery to this webhook", event: true,
			status: []string{"waiting", "routed", "no_subscriber", "skipped", "duplicate", "quarantined"}, statusOf: "routing",
		},
		columns: eventColumns, read: (*postgres.Audit).Events,
		follow: (*postgres.Audit).FollowEvents, followed: "each when it is routed", never: []string{"waiting"},
	}
}

var eventColumns = []column[audit.Event]{
	{name: "inserted_at", value: func(e *audit.Event) any { return orNever(e.InsertedAt) }, shown: "inserted"},
	{name: "event_id", value: func(e *audit.Event) any { return idOrNil(e.EventID) }, shown: "event id"},
	{name: "seq", value: func(e *audit.Event) any { return e.Seq }, shown: "seq"},
	{name: "account_id", value: func(e *audit.Event) any { return e.AccountID }, shown: "account"},
	{name: "event", value: func(e *audit.Event) any { return e.Event }, shown: "event", flexible: true},
	{name: "ordering_key", value: func(e *audit.Event) any { return e.OrderingKey }, shown: "order", flexible: true},
	{name: "occurred_at", value: func(e *audit.Event) any { return orNever(e.OccurredAt) }},
	{name: "routed_at", value: func(e *audit.Event) any { return orNever(e.RoutedAt) }},
	{name: "routing", value: func(e *audit.Event) any { return e.Routing }, shown: "routing", tint: routingTint},
	{name: "delivery_count", value: func(e *audit.Event) any { return e.DeliveryCount }, shown: "deliveries"},
	{name: "reason", value: func(e *audit.Event) any { return orNil(e.Reason) }, shown: "reason", flexible: true},
	{name: "config_version", value: func(e *audit.Event) any { return unless(e.Routing == domain.RoutingWaiting, e.ConfigVersion) }},
	{name: "body_bytes", value: func(e *audit.Event) any { return unless(e.Routing == domain.RoutingWaiting, e.BodyBytes) }},
	{name: "metadata", value: func(e *audit.Event) any {
		if e.Metadata == nil {
			return nil
		}
		return e.Metadata
	}},
}

func routingTint(text string) tint {
	switch domain.RoutingKind(text) {
	case domain.RoutingRouted:
		return good
	case domain.RoutingQuarantined:
		return bad
	case domain.RoutingWaiting:
		return waiting
	default:
		return faint
	}
}
