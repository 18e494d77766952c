package main

import (
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) attemptListing() listing[audit.Attempt] {
	return listing[audit.Attempt]{
		list: audit.AttemptList, short: "List attempts: one POST each",
		long: `List attempts by delivery, the deliveries of the newest event first, and the last
attempt of each first. So a retry stands beside the attempts before it.

--since and --until are of the attempt's start. Deliveries of some days before are
looked at too, since they may be tried again in that time.`,
		filters: filterKinds{
			time: "started", webhook: "only to this webhook", event: true, replay: true,
			status: []string{"started", "succeeded", "failed", "unknown"}, statusOf: "outcome",
		},
		columns: attemptColumns, read: (*postgres.Audit).Attempts,
		follow: (*postgres.Audit).FollowAttempts, followed: "each that starts from now on, when it has its outcome", never: []string{"started"},
	}
}

var attemptColumns = []column[audit.Attempt]{
	{name: "started_at", value: func(r *audit.Attempt) any { return orNever(r.StartedAt) }, shown: "started"},
	{name: "delivery_id", value: func(r *audit.Attempt) any { return idOrNil(r.DeliveryID) }},
	{name: "notification_id", value: func(r *audit.Attempt) any { return idOrNil(r.NotificationID) }},
	{name: "event_id", value: func(r *audit.Attempt) any { return idOrNil(r.EventID) }, shown: "event id"},
	{name: "account_id", value: func(r *audit.Attempt) any { return r.AccountID }, shown: "account"},
	{name: "webhook_id", value: func(r *audit.Attempt) any { return r.WebhookID }, shown: "webhook"},
	{name: "webhook_version", value: func(r *audit.Attempt) any { return r.WebhookVersion }},
	{name: "url", value: func(r *audit.Attempt) any { return r.URL }, shown: "url", flexible: true},
	{name: "attempt", value: func(r *audit.Attempt) any { return r.Number }, shown: "attempt"},
	{name: "outcome", value: func(r *audit.Attempt) any { return r.Outcome }, shown: "outcome", tint: outcomeTint},
	{name: "status_code", value: func(r *audit.Attempt) any { return orNil(r.StatusCode) }, shown: "http"},
	{name: "duration_ms", value: func(r *audit.Attempt) any { return pointed(r.DurationMS) }, shown: "ms"},
	{name: "error_class", value: func(r *audit.Attempt) any { return orNil(r.ErrorClass) }, shown: "error"},
	{name: "error_detail", value: func(r *audit.Attempt) any { return orNil(r.ErrorDetail) }, shown: "detail", flexible: true},
	{name: "finished_at", value: func(r *audit.Attempt) any { return orNever(r.FinishedAt) }},
	{name: "previous_outcome", value: func(r *audit.Attempt) any { return orNil(r.PreviousOutcome) }},
	{name: "remote_ip", value: func(r *audit.Attempt) any { return orNil(r.RemoteIP) }},
	{name: "response_excerpt", value: func(r *audit.Attempt) any { return pointed(r.ResponseExcerpt) }},
	{name: "relay_id", value: func(r *audit.Attempt) any { return r.RelayID }},
}

func outcomeTint(text string) tint {
	switch domain.OutcomeKind(text) {
	case domain.OutcomeSucceeded:
		return good
	case domain.OutcomeFailed:
		return bad
	case domain.OutcomeUnknown:
		return unknown
	case domain.OutcomeStarted:
		return waiting
	default:
		return noTint
	}
}
