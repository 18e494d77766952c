package httpapi

import (
	"encoding/json"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// v1Timeline has a record for each time that an event's id was inserted.
type v1Timeline struct {
	Data []v1Trace `json:"data" doc:"The records, the oldest first."`
}

// v1Trace is what "outrider audit trace --format json" writes.
type v1Trace struct {
	Event           v1Event           `json:"event" doc:"The event, as it is listed."`
	PayloadErasedAt *time.Time        `json:"payload_erased_at" doc:"When its payload was erased." example:"2026-08-01T00:00:00Z"`
	Skips           []v1Skip          `json:"skips" doc:"The webhooks that were passed over."`
	Deliveries      []v1DeliveryTrace `json:"deliveries" doc:"Its deliveries."`
}

type v1Skip struct {
	WebhookID int64  `json:"webhook_id" doc:"The webhook." example:"7"`
	Reason    string `json:"reason" doc:"Why: disabled, inbox or settings_unreadable. There may be more one day." example:"disabled"`
}

// v1DeliveryTrace is a delivery with its life.
type v1DeliveryTrace struct {
	Delivery    v1Delivery  `json:"delivery" doc:"The delivery, as it is listed."`
	WebhookName string      `json:"webhook_name" doc:"What people called the webhook at the version used." example:"CRM"`
	Attempts    []v1Attempt `json:"attempts" doc:"Its attempts, the first one first."`
	Timeline    []v1Entry   `json:"timeline" doc:"The entries of its stream, in their order."`
}

type v1Entry struct {
	Version int             `json:"version" doc:"Its number in the stream, from 1." example:"2"`
	At      time.Time       `json:"at" doc:"When it was." example:"2026-07-01T12:00:00Z"`
	Type    string          `json:"type" doc:"scheduled, attempt_started, attempt_succeeded, attempt_failed, attempt_unknown, held, released, expired, dead or cancelled. There may be more one day." example:"attempt_started"`
	Data    json.RawMessage `json:"data" doc:"What is known of it, as audit.timeline has it."`
}

func showTrace(t *audit.Trace) v1Trace {
	return v1Trace{
		Event: showEvent(&t.Event), PayloadErasedAt: orNever(t.PayloadErasedAt),
		Skips:      showAll(t.Skips, func(s *domain.Skip) v1Skip { return v1Skip{int64(s.WebhookID), string(s.Reason)} }),
		Deliveries: showAll(t.Deliveries, showDeliveryTrace),
	}
}

func showDeliveryTrace(d *audit.DeliveryTrace) v1DeliveryTrace {
	return v1DeliveryTrace{
		Delivery: showDelivery(&d.Delivery), WebhookName: d.WebhookName, Attempts: showAll(d.Attempts, showAttempt),
		Timeline: showAll(d.Entries, func(e *audit.TimelineEntry) v1Entry { return v1Entry{e.Version, e.At.UTC(), e.Type, e.Data} }),
	}
}
