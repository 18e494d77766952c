package main

import (
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) deliveryListing() listing[audit.Delivery] {
	statuses := []string{"pending", "held", "succeeded", "dead", "cancelled", "expired"}
	return listing[audit.Delivery]{
		list: audit.DeliveryList, short: "List deliveries: an event for one webhook each",
		long: `List deliveries, newest first: by their event's place in the outbox, so that what a
replay scheduled stands beside the first delivery.

--since and --until are of the scheduling: the event's routing, or the replay.`,
		filters: filterKinds{
			time: "scheduled", webhook: "only to this webhook", event: true, replay: true,
			status: statuses, statusOf: "status",
		},
		columns: deliveryColumns, read: (*postgres.Audit).Deliveries,
		follow: (*postgres.Audit).FollowDeliveries, followed: "each when it is scheduled (audit attempts --follow shows what becomes of it)", never: statuses,
	}
}

var deliveryColumns = []column[audit.Delivery]{
	{name: "scheduled_at", value: func(d *audit.Delivery) any { return orNever(d.ScheduledAt) }, shown: "scheduled"},
	{name: "delivery_id", value: func(d *audit.Delivery) any { return idOrNil(d.DeliveryID) }},
	{name: "notification_id", value: func(d *audit.Delivery) any { return idOrNil(d.NotificationID) }},
	{name: "event_id", value: func(d *audit.Delivery) any { return idOrNil(d.EventID) }, shown: "event id"},
	{name: "event_seq", value: func(d *audit.Delivery) any { return d.EventSeq }},
	{name: "account_id", value: func(d *audit.Delivery) any { return d.AccountID }, shown: "account"},
	{name: "event", value: func(d *audit.Delivery) any { return d.Event }, shown: "event", flexible: true},
	{name: "ordering_key", value: func(d *audit.Delivery) any { return d.OrderingKey }},
	{name: "webhook_id", value: func(d *audit.Delivery) any { return d.WebhookID }, shown: "webhook"},
	{name: "webhook_version", value: func(d *audit.Delivery) any { return d.WebhookVersion }},
	{name: "url", value: func(d *audit.Delivery) any { return d.URL }, shown: "url", flexible: true},
	{name: "status", value: func(d *audit.Delivery) any { return d.Status }, shown: "status", tint: statusTint},
	{name: "attempt_count", value: func(d *audit.Delivery) any { return d.AttemptCount }, shown: "attempts"},
	{name: "last_outcome", value: func(d *audit.Delivery) any { return orNil(d.LastOutcome) }, shown: "last", tint: outcomeTint},
	{name: "last_status_code", value: func(d *audit.Delivery) any { return orNil(d.LastStatusCode) }, shown: "http"},
	{name: "reason", value: func(d *audit.Delivery) any { return orNil(d.Reason) }, shown: "reason", flexible: true},
	{name: "first_attempt_at", value: func(d *audit.Delivery) any { return orNever(d.FirstAttemptAt) }},
	{name: "last_attempt_at", value: func(d *audit.Delivery) any { return orNever(d.LastAttemptAt) }},
	{name: "next_attempt_at", value: func(d *audit.Delivery) any { return orNever(d.NextAttemptAt) }},
	{name: "completed_at", value: func(d *audit.Delivery) any { return orNever(d.CompletedAt) }},
	{name: "replay_id", value: func(d *audit.Delivery) any { return d.ReplayID }},
}

func statusTint(text string) tint {
	switch domain.DeliveryStatus(text) {
	case domain.DeliverySucceeded:
		return good
	case domain.DeliveryDead, domain.DeliveryExpired:
		return bad
	case domain.DeliveryPending, domain.DeliveryHeld:
		return waiting
	default:
		return faint
	}
}
