package httpapi

import (
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// OfEvents are the filters on chat events that lists of the history have.
type OfEvents struct {
	Webhook int64     `query:"webhook" minimum:"1" doc:"Only what is of this webhook; of events those with a delivery to it." example:"7"`
	Event   string    `query:"event" doc:"Only of events with this name." example:"message_created"`
	EventID uuid.UUID `query:"event_id" format:"uuid" doc:"Only of this event." example:"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
	// huma knows no parameter that is there and empty.
	OrderingKey string `query:"ordering_key" doc:"Only what is kept in order by this; empty for what is not." example:"conversation:346"`

	orderingKey *string
}

// Resolve implements huma.Resolver: it tells an empty key from none, and the
// zero UUID from none, which would select all.
func (o *OfEvents) Resolve(ctx huma.Context) []error {
	url := ctx.URL()
	query := url.Query()
	if query.Has(mayBeEmpty) {
		o.orderingKey = &o.OrderingKey
	}
	if id, err := uuid.Parse(query.Get("event_id")); err == nil && id == uuid.Nil {
		return []error{&huma.ErrorDetail{Location: "query.event_id", Message: "is the UUID of nothing"}}
	}
	return nil
}

// During is a range of time.
type During struct {
	Since time.Time `query:"since" doc:"Only from then on, in RFC 3339." example:"2026-07-01T12:00:00Z"`
	Until time.Time `query:"until" doc:"Only before then, in RFC 3339." example:"2026-07-01T13:00:00Z"`
}

// judge refuses a range that has nothing in it.
func (d *During) judge() error {
	if !d.Since.IsZero() && !d.Until.IsZero() && !d.Since.Before(d.Until) {
		return invalid(v1Reason{"query.since", "is not before until"})
	}
	return nil
}

// looked is how many events or deliveries a page looks at for what no index
// leads to: one stretch, so that it comes in the time of any other.
const looked = 1000

// filterOf makes the filter of a list of the history.
func filterOf(account domain.AccountID, o *OfEvents, d *During, p *Paging, replay int64, status string) audit.Filter {
	return audit.Filter{
		AccountID: account, WebhookID: domain.WebhookID(o.Webhook), Event: o.Event, EventID: o.EventID, OrderingKey: o.orderingKey,
		ReplayID: domain.ReplayID(replay), Status: status, Since: d.Since, Until: d.Until, Limit: p.Limit, Look: looked,
	}
}
