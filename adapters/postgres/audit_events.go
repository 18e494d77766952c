package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

const eventColumns = `coalesce(event_id, '00000000-0000-0000-0000-000000000000')::text, seq, account_id, coalesce(event, ''), coalesce(ordering_key, ''), ordering_key IS NULL,
       occurred_at::text, inserted_at, routed_at, routing, coalesce(reason, ''), coalesce(config_version, 0), coalesce(body_bytes, 0), delivery_count, metadata::text`

func keepsEvent(f *audit.Filter, e *audit.Event) bool {
	at := f.During(e.RoutedAt)
	if e.RoutedAt.IsZero() {
		at = f.Until.IsZero()
	}
	return at && f.Of(e.AccountID, e.EventID) && f.Named(e.Event) && f.Ordered(e.OrderingKey) && (f.OrderingKey == nil || !e.Keyless) &&
		(f.Status == "" || string(e.Routing) == f.Status)
}

// Events reads chat events behind a cursor. A WebhookID selects those with a
// delivery to it.
func (a *Audit) Events(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Event], error) {
	places, err := a.places(ctx, f.Since, f.Until)
	if err != nil {
		return audit.Page[audit.Event]{}, err
	}
	at := func(e *audit.Event) audit.Cursor { return audit.Cursor{List: audit.EventList, Seq: e.Seq} }
	read := func(after *audit.Cursor, n int) (chunk[audit.Event], error) {
		var c conditions
		c.common(&f)
		places.bound(&c, "seq")
		if after != nil {
			c.add("seq < ?", after.Seq)
		}
		// The common ones are picked out here: the planner takes any for rare.
		switch domain.RoutingKind(f.Status) {
		case "", domain.RoutingRouted, domain.RoutingNoSubscriber:
		case domain.RoutingWaiting:
			c.add("routed_at IS NULL") // says the same, and spares the log
			c.add("routing = 'waiting'")
		default:
			c.add("routing = ?", f.Status)
		}
		var found chunk[audit.Event]
		if f.WebhookID != 0 {
			seqs, err := a.eventsOf(ctx, &f, places, after, n)
			if err != nil {
				return found, err
			}
			c.add("seq = ANY (?::bigint[])", pq.Array(seqs))
			found.looked = len(seqs)
			found.end = endOf(seqs, n, func(seq *int64) audit.Cursor { return audit.Cursor{List: audit.EventList, Seq: *seq} })
		}
		var err error
		found.records, err = list(ctx, a.db, scanEventRecord,
			`SELECT `+eventColumns+` FROM audit.events`+c.where()+` ORDER BY seq DESC LIMIT `+strconv.Itoa(n), c.args...)
		if f.WebhookID == 0 {
			found.looked, found.end = len(found.records), endOf(found.records, n, at)
		}
		return found, err
	}
	return search(&f, after, read, func(e *audit.Event) bool { return keepsEvent(&f, e) }, at)
}

// eventsOf lists the places of the newest events with a delivery to a webhook.
// They go into the next query as a list: the planner follows a list into the
// view, a subquery it does not.
func (a *Audit) eventsOf(ctx context.Context, f *audit.Filter, places places, after *audit.Cursor, n int) ([]int64, error) {
	var c conditions
	c.ofWebhook(f)
	places.bound(&c, "event_seq")
	if after != nil {
		c.add("event_seq < ?", after.Seq)
	}
	return list(ctx, a.db, scanPlace,
		`SELECT DISTINCT event_seq FROM audit.deliveries`+c.where()+` ORDER BY event_seq DESC LIMIT `+strconv.Itoa(n), c.args...)
}

func scanPlace(row scanner) (seq int64, err error) {
	err = row.Scan(&seq)
	return seq, err
}

func scanEventRecord(row scanner) (audit.Event, error) {
	var e audit.Event
	var occurred, metadata sql.NullString
	var inserted, routed sql.NullTime
	err := row.Scan(&e.EventID, &e.Seq, &e.AccountID, &e.Event, &e.OrderingKey, &e.Keyless, &occurred, &inserted, &routed,
		&e.Routing, &e.Reason, &e.ConfigVersion, &e.BodyBytes, &e.DeliveryCount, &metadata)
	e.InsertedAt, e.RoutedAt = inserted.Time.UTC(), routed.Time.UTC()
	e.OccurredAt = producersTime(occurred.String)
	if metadata.Valid {
		e.Metadata = json.RawMessage(metadata.String)
	}
	return e, err
}

// producersTime reads a timestamptz that a producer gave: it may be infinite,
// before Christ or of the year 20000, and is then left out. So is one whose year
// has four digits where it was written, and more of them in UTC.
func producersTime(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999-07:00"} {
		if t, err := time.Parse(layout, text); err == nil && t.UTC().Year() >= 0 && t.UTC().Year() <= 9999 {
			return t.UTC()
		}
	}
	return time.Time{}
}
