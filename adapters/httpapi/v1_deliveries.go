package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (v *v1) addDeliveries() {
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/deliveries", id: "listDeliveries", tag: tagHistory, may: domain.Read,
		summary: "List deliveries: an event for one webhook each",
		about: "Newest first: by their event's place in the outbox, so that what a replay scheduled stands beside the first delivery. " +
			"since and until are of the scheduling: the event's routing, or the replay.",
	}, v.listDeliveries)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/deliveries/{delivery_id}", id: "getDelivery", tag: tagHistory, may: domain.Read,
		summary: "Get a delivery with its attempts and the entries of its stream",
	}, v.getDelivery)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/attempts", id: "listAttempts", tag: tagHistory, may: domain.Read,
		summary: "List attempts: one POST each",
		about: "By delivery, the deliveries of the newest event first, and the last attempt of each first. since and until are of the attempt's start. " +
			"status is the same as outcome, as on the command line.",
	}, v.listAttempts)
}

// v1Delivery is a row of audit.deliveries.
type v1Delivery struct {
	ScheduledAt    time.Time  `json:"scheduled_at" doc:"When the event was routed, or the replay scheduled it." example:"2026-07-01T12:00:00Z"`
	DeliveryID     string     `json:"delivery_id" format:"uuid" doc:"Its id: Outrider-Delivery of its POSTs." example:"0199d4c2-8a71-8c3e-9d2b-7a1f4e5b6c0d"`
	NotificationID string     `json:"notification_id" format:"uuid" doc:"The event for this webhook, whatever the replays: webhook-id of its POSTs." example:"0199d4c2-8a71-8f10-a4c6-1b2d3e4f5a6b"`
	EventID        string     `json:"event_id" format:"uuid" doc:"The event." example:"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
	EventSeq       int64      `json:"event_seq" doc:"The event's place in the outbox." example:"1024"`
	AccountID      int64      `json:"account_id" doc:"Its account." example:"1"`
	Event          string     `json:"event" doc:"The event's name." example:"message_created"`
	OrderingKey    string     `json:"ordering_key" doc:"What it is kept in order by; empty for no order." example:"conversation:346"`
	WebhookID      int64      `json:"webhook_id" doc:"The webhook." example:"7"`
	WebhookVersion int64      `json:"webhook_version" doc:"The webhook's version that was used last." example:"12"`
	URL            string     `json:"url" doc:"Where it went last, without userinfo and query." example:"https://example.com/hooks"`
	Status         string     `json:"status" doc:"pending, held, succeeded, dead, cancelled or expired. There may be more one day." example:"succeeded"`
	AttemptCount   int        `json:"attempt_count" doc:"How many attempts were started." example:"1"`
	LastOutcome    *string    `json:"last_outcome" doc:"What came of the last attempt." example:"succeeded"`
	LastStatusCode *int       `json:"last_status_code" doc:"The last answer's HTTP status." example:"200"`
	Reason         *string    `json:"reason" doc:"Why it is held, dead, cancelled or expired." example:"attempts_used_up"`
	FirstAttemptAt *time.Time `json:"first_attempt_at" doc:"When the first attempt began." example:"2026-07-01T12:00:00Z"`
	LastAttemptAt  *time.Time `json:"last_attempt_at" doc:"When the last attempt began." example:"2026-07-01T12:00:00Z"`
	NextAttemptAt  *time.Time `json:"next_attempt_at" doc:"When the next one is due." example:"2026-07-01T12:00:05Z"`
	CompletedAt    *time.Time `json:"completed_at" doc:"When it ended." example:"2026-07-01T12:00:01Z"`
	ReplayID       int64      `json:"replay_id" doc:"The replay that scheduled it; 0 for the first delivery." example:"0"`
}

func showDelivery(d *audit.Delivery) v1Delivery {
	return v1Delivery{
		ScheduledAt: d.ScheduledAt.UTC(), DeliveryID: d.DeliveryID.String(), NotificationID: d.NotificationID.String(), EventID: d.EventID.String(), EventSeq: d.EventSeq,
		AccountID: int64(d.AccountID), Event: d.Event, OrderingKey: d.OrderingKey, WebhookID: int64(d.WebhookID), WebhookVersion: d.WebhookVersion, URL: d.URL,
		Status: string(d.Status), AttemptCount: d.AttemptCount, LastOutcome: orNil(string(d.LastOutcome)), LastStatusCode: orNil(d.LastStatusCode), Reason: orNil(d.Reason),
		FirstAttemptAt: orNever(d.FirstAttemptAt), LastAttemptAt: orNever(d.LastAttemptAt), NextAttemptAt: orNever(d.NextAttemptAt), CompletedAt: orNever(d.CompletedAt),
		ReplayID: int64(d.ReplayID),
	}
}

// OfReplays is the filter on replays.
type OfReplays struct {
	Replay int64 `query:"replay" minimum:"1" doc:"Only what this replay asked for." example:"3"`
}

func (v *v1) listDeliveries(ctx context.Context, in *struct {
	InAccount
	OfEvents
	OfReplays
	Status string `query:"status" enum:"pending,held,succeeded,dead,cancelled,expired" doc:"Only with this status." example:"dead"`
	During
	Paging
}) (*v1List[v1Delivery], error) {
	cursor, err := in.historyCursor(audit.DeliveryList)
	if err == nil {
		err = in.judge()
	}
	if err != nil {
		return nil, err
	}
	page, err := v.config.History.Deliveries(ctx, filterOf(in.account(), &in.OfEvents, &in.During, &in.Paging, in.Replay, in.Status), cursor)
	if err != nil {
		return nil, err
	}
	return v1ListOfHistory(&in.Paging, &page, showDelivery), nil
}

func (v *v1) getDelivery(ctx context.Context, in *struct {
	InAccount
	DeliveryID uuid.UUID `path:"delivery_id" format:"uuid" doc:"The delivery." example:"0199d4c2-8a71-8c3e-9d2b-7a1f4e5b6c0d"`
}) (*struct{ Body v1DeliveryTrace }, error) {
	gone := newProblem(http.StatusNotFound, fmt.Sprintf("there is no delivery %s of the account", in.DeliveryID))
	owner, event, found, err := v.config.History.EventOf(ctx, in.DeliveryID)
	if err != nil {
		return nil, err
	}
	if !found || owner != in.account() {
		return nil, gone
	}
	traces, err := v.config.History.Trace(ctx, owner, event)
	if err != nil {
		return nil, err
	}
	for i := range traces {
		for j := range traces[i].Deliveries {
			if d := &traces[i].Deliveries[j]; d.DeliveryID == in.DeliveryID {
				return &struct{ Body v1DeliveryTrace }{showDeliveryTrace(d)}, nil
			}
		}
	}
	return nil, gone // the id is a notification's
}

// v1Attempt is a row of audit.attempts.
type v1Attempt struct {
	StartedAt       time.Time  `json:"started_at" doc:"When it began." example:"2026-07-01T12:00:00Z"`
	DeliveryID      string     `json:"delivery_id" format:"uuid" doc:"The delivery." example:"0199d4c2-8a71-8c3e-9d2b-7a1f4e5b6c0d"`
	NotificationID  string     `json:"notification_id" format:"uuid" doc:"The event for this webhook: webhook-id of the POST." example:"0199d4c2-8a71-8f10-a4c6-1b2d3e4f5a6b"`
	EventID         string     `json:"event_id" format:"uuid" doc:"The event." example:"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
	AccountID       int64      `json:"account_id" doc:"Its account." example:"1"`
	WebhookID       int64      `json:"webhook_id" doc:"The webhook." example:"7"`
	WebhookVersion  int64      `json:"webhook_version" doc:"The webhook's version that was used." example:"12"`
	URL             string     `json:"url" doc:"Where it went, without userinfo and query." example:"https://example.com/hooks"`
	Attempt         int        `json:"attempt" doc:"Its number, from 1." example:"1"`
	Outcome         string     `json:"outcome" doc:"started, succeeded, failed or unknown. There may be more one day." example:"succeeded"`
	StatusCode      *int       `json:"status_code" doc:"The answer's HTTP status." example:"200"`
	DurationMS      *float64   `json:"duration_ms" doc:"How long it took, in milliseconds." example:"12.5"`
	ErrorClass      *string    `json:"error_class" doc:"At which step it failed: refused_address, dns, connect, tls, timeout, reset, status or body." example:"timeout"`
	ErrorDetail     *string    `json:"error_detail" doc:"What went wrong there." example:"no answer within 5s"`
	FinishedAt      *time.Time `json:"finished_at" doc:"When it ended." example:"2026-07-01T12:00:01Z"`
	PreviousOutcome *string    `json:"previous_outcome" doc:"What the receiver was told of the attempt before." example:"failed"`
	RemoteIP        *string    `json:"remote_ip" doc:"The address that was dialled." example:"93.184.215.14"`
	ResponseExcerpt *string    `json:"response_excerpt" doc:"The beginning of the answer's body." example:"ok"`
	RelayID         int64      `json:"relay_id" doc:"The relay that made it." example:"1"`
}

func showAttempt(a *audit.Attempt) v1Attempt {
	return v1Attempt{
		StartedAt: a.StartedAt.UTC(), DeliveryID: a.DeliveryID.String(), NotificationID: a.NotificationID.String(), EventID: a.EventID.String(),
		AccountID: int64(a.AccountID), WebhookID: int64(a.WebhookID), WebhookVersion: a.WebhookVersion, URL: a.URL, Attempt: a.Number, Outcome: string(a.Outcome),
		StatusCode: orNil(a.StatusCode), DurationMS: a.DurationMS, ErrorClass: orNil(string(a.ErrorClass)), ErrorDetail: orNil(a.ErrorDetail),
		FinishedAt: orNever(a.FinishedAt), PreviousOutcome: orNil(string(a.PreviousOutcome)), RemoteIP: orNil(a.RemoteIP), RelayID: a.RelayID,
		ResponseExcerpt: a.ResponseExcerpt,
	}
}

func (v *v1) listAttempts(ctx context.Context, in *struct {
	InAccount
	OfEvents
	OfReplays
	Outcome string `query:"outcome" enum:"started,succeeded,failed,unknown" doc:"Only with this outcome." example:"failed"`
	Status  string `query:"status" enum:"started,succeeded,failed,unknown" doc:"The same as outcome: give one." example:"failed"`
	During
	Paging
}) (*v1List[v1Attempt], error) {
	cursor, err := in.historyCursor(audit.AttemptList)
	if err == nil {
		err = in.judge()
	}
	if err == nil && in.Outcome != "" && in.Status != "" {
		err = invalid(v1Reason{"query.status", "is the same as outcome: give one"})
	}
	if err != nil {
		return nil, err
	}
	page, err := v.config.History.Attempts(ctx, filterOf(in.account(), &in.OfEvents, &in.During, &in.Paging, in.Replay, in.Outcome+in.Status), cursor)
	if err != nil {
		return nil, err
	}
	return v1ListOfHistory(&in.Paging, &page, showAttempt), nil
}
