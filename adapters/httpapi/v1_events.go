package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// History is what became of chat events.
type History interface {
	Events(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Event], error)
	Deliveries(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Delivery], error)
	Attempts(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Attempt], error)
	Changes(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Change], error)
	// Trace gives the lives of the chat events with an id, oldest first.
	Trace(ctx context.Context, account domain.AccountID, event uuid.UUID) ([]audit.Trace, error)
	// EventOf tells which chat event a delivery or a notification is of.
	EventOf(ctx context.Context, id uuid.UUID) (account domain.AccountID, event uuid.UUID, found bool, err error)
	// LogErasedAt tells when entries that had reached their age were erased last.
	LogErasedAt(ctx context.Context) (time.Time, error)
	Health(ctx context.Context, account domain.AccountID, webhook domain.WebhookID) ([]audit.Health, error)
	Stats(ctx context.Context, f audit.StatsFilter) ([]audit.Stats, error)
}

const tagHistory = "History"

func (v *v1) addEvents() {
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/events", id: "listEvents", tag: tagHistory, may: domain.Read,
		summary: "List chat events, and how they were routed",
		about: "Newest first: by their place in the outbox. since and until are of the routing; what waits to be routed comes after all times, and is listed unless until is given. " +
			"Payloads are not shown.",
	}, v.listEvents)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/events/{event_id}", id: "getEvent", tag: tagHistory, may: domain.Read,
		summary: "Get a chat event", about: "Where an id was inserted again it is the first one; the list, by event_id, has them all.",
	}, v.getEvent)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/events/{event_id}/timeline", id: "getTimeline", tag: tagHistory, may: domain.Read,
		summary: "Get all that is on record about a chat event",
		about: "With each delivery, its attempts, and the entries of its stream. The id is the event's, or that of one of its deliveries, or what a receiver saw as webhook-id. " +
			"There is one record for each time that the id was inserted, the oldest first.",
	}, v.getTimeline)
}

// v1Event is a row of audit.events.
type v1Event struct {
	InsertedAt    *time.Time      `json:"inserted_at" doc:"When it was inserted; null where its row is no longer in the outbox." example:"2026-07-01T12:00:00Z"`
	EventID       *string         `json:"event_id" format:"uuid" doc:"Its id." example:"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
	Seq           int64           `json:"seq" doc:"Its place in the outbox." example:"1024"`
	AccountID     int64           `json:"account_id" doc:"Its account." example:"1"`
	Event         string          `json:"event" doc:"Its name." example:"message_created"`
	OrderingKey   string          `json:"ordering_key" doc:"What it is kept in order by; empty for no order." example:"conversation:346"`
	OccurredAt    *time.Time      `json:"occurred_at" doc:"When it happened, as whoever inserted it says." example:"2026-07-01T11:59:59Z"`
	RoutedAt      *time.Time      `json:"routed_at" doc:"When it was routed." example:"2026-07-01T12:00:00Z"`
	Routing       string          `json:"routing" doc:"waiting, routed, no_subscriber, skipped, duplicate or quarantined. There may be more one day." example:"routed"`
	DeliveryCount int             `json:"delivery_count" doc:"How many deliveries it has, those of replays among them." example:"1"`
	Reason        *string         `json:"reason" doc:"Why it was skipped or quarantined." example:"disabled"`
	ConfigVersion *int64          `json:"config_version" doc:"The account's configuration version that routed it." example:"12"`
	BodyBytes     *int            `json:"body_bytes" doc:"The size of its body, in bytes." example:"1732"`
	Metadata      json.RawMessage `json:"metadata" doc:"What was inserted as its metadata; null for none."`
}

func showEvent(e *audit.Event) v1Event {
	shown := v1Event{
		InsertedAt: orNever(e.InsertedAt), EventID: idOrNil(e.EventID), Seq: e.Seq, AccountID: int64(e.AccountID), Event: e.Event, OrderingKey: e.OrderingKey,
		OccurredAt: orNever(e.OccurredAt), RoutedAt: orNever(e.RoutedAt), Routing: string(e.Routing), DeliveryCount: e.DeliveryCount,
		Reason: orNil(e.Reason), Metadata: e.Metadata,
	}
	if e.Routing != domain.RoutingWaiting {
		shown.ConfigVersion, shown.BodyBytes = &e.ConfigVersion, &e.BodyBytes
	}
	return shown
}

func idOrNil(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	text := id.String()
	return &text
}

func (v *v1) listEvents(ctx context.Context, in *struct {
	InAccount
	OfEvents
	Status string `query:"status" enum:"waiting,routed,no_subscriber,skipped,duplicate,quarantined" doc:"Only with this routing." example:"quarantined"`
	During
	Paging
}) (*v1List[v1Event], error) {
	cursor, err := in.historyCursor(audit.EventList)
	if err == nil {
		err = in.judge()
	}
	if err != nil {
		return nil, err
	}
	page, err := v.config.History.Events(ctx, filterOf(in.account(), &in.OfEvents, &in.During, &in.Paging, 0, in.Status), cursor)
	if err != nil {
		return nil, err
	}
	return v1ListOfHistory(&in.Paging, &page, showEvent), nil
}

// OfEvent is the path of a chat event.
type OfEvent struct {
	InAccount
	EventID uuid.UUID `path:"event_id" format:"uuid" doc:"The event." example:"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
}

func (v *v1) getEvent(ctx context.Context, in *OfEvent) (*struct{ Body v1Event }, error) {
	// Newest first: the first one inserted is the last.
	filter := audit.Filter{AccountID: in.account(), EventID: in.EventID, Limit: 1}
	var first *audit.Event
	for after := (*audit.Cursor)(nil); ; {
		page, err := v.config.History.Events(ctx, filter, after)
		if err != nil {
			return nil, err
		}
		if n := len(page.Records); n > 0 {
			first = &page.Records[n-1]
		}
		if after = page.Next; after == nil {
			break
		}
		filter.Limit = 200 // it is there more than once
	}
	if first == nil || in.EventID == uuid.Nil {
		return nil, v.noEvent(ctx, in.EventID)
	}
	return &struct{ Body v1Event }{showEvent(first)}, nil
}

// noEvent says that there is no event, or no more.
func (v *v1) noEvent(ctx context.Context, id uuid.UUID) error {
	erased, err := v.config.History.LogErasedAt(ctx)
	if err != nil {
		return err
	}
	p := newProblem(http.StatusNotFound, fmt.Sprintf("there is no event %s of the account", id))
	if !erased.IsZero() {
		p.Detail += ", or no more: what had reached the log's age was erased, last on " + erased.UTC().Format(time.DateOnly)
	}
	return p
}

// traces reads the lives of an event of an account, also by the id of a delivery
// or a notification.
func (v *v1) traces(ctx context.Context, account domain.AccountID, id uuid.UUID) ([]audit.Trace, error) {
	if id == uuid.Nil {
		return nil, v.noEvent(ctx, id)
	}
	traces, err := v.config.History.Trace(ctx, account, id)
	if err != nil || len(traces) > 0 {
		return traces, err
	}
	owner, event, found, err := v.config.History.EventOf(ctx, id)
	if err != nil {
		return nil, err
	}
	if !found || owner != account {
		return nil, v.noEvent(ctx, id)
	}
	return v.config.History.Trace(ctx, account, event)
}

func (v *v1) getTimeline(ctx context.Context, in *OfEvent) (*struct{ Body v1Timeline }, error) {
	traces, err := v.traces(ctx, in.account(), in.EventID)
	if err != nil {
		return nil, err
	}
	return &struct{ Body v1Timeline }{v1Timeline{showAll(traces, showTrace)}}, nil
}

// showAll shows each; of none it is an empty list.
func showAll[R, T any](records []R, show func(*R) T) []T {
	shown := make([]T, len(records))
	for i := range records {
		shown[i] = show(&records[i])
	}
	return shown
}
