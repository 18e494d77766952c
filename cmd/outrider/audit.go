package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "audit",
		Short:   "See what became of events",
		GroupID: groupHistory,
		Long: `See what became of events, from the views of the schema audit, which SQL can read as
well: audit.events, audit.deliveries, audit.attempts.

It takes a user with the role outrider_auditor. Lists are newest first.`,
	})
	cmd.AddCommand(
		auditList(a, listing[postgres.EventRecord]{
			use: "events", short: "List chat events, and how they were routed", status: "routing",
			statuses: []string{"waiting", "routed", "no_subscriber", "skipped", "duplicate", "quarantined"},
			columns:  eventColumns, cursor: "the seq of one", place: placeOfEvent,
			read: (*postgres.Audit).Events,
		}),
		auditList(a, listing[postgres.DeliveryRecord]{
			use: "deliveries", short: "List deliveries: an event for one webhook each", status: "status",
			statuses: []string{"pending", "held", "succeeded", "dead", "cancelled", "expired"},
			columns:  deliveryColumns, cursor: "the delivery_id of one", place: placeOfDelivery,
			read: (*postgres.Audit).Deliveries,
		}),
		auditList(a, listing[postgres.AttemptRecord]{
			use: "attempts", short: "List attempts: one POST each", status: "outcome",
			statuses: []string{"started", "succeeded", "failed", "unknown"},
			columns:  attemptColumns, cursor: "delivery_id/attempt of one", place: placeOfAttempt,
			read: (*postgres.Audit).Attempts,
		}),
		a.auditTrace(),
		a.auditVerify(),
		a.auditHeads(),
		a.auditHealth(),
		a.auditStats(),
	)
	return cmd
}

// listing is what the lists of the audit differ in.
type listing[T any] struct {
	use, short string
	// status is what --status selects, statuses are its words.
	status   string
	statuses []string
	columns  []column[T]
	// cursor says what --before takes, place reads it.
	cursor string
	place  func(string) (place, error)
	read   func(*postgres.Audit, context.Context, postgres.AuditFilter, *postgres.AuditCursor) (postgres.Page[T], error)
}

const (
	defaultLimit = 100
	maxLimit     = 10_000
)

func auditList[T any](a *app, l listing[T]) *cobra.Command {
	var filter postgres.AuditFilter
	var before place
	var format string
	cmd := &cobra.Command{Use: l.use, Short: l.short, Args: cobra.ArbitraryArgs}
	flags := cmd.Flags()
	flagOf(flags, &filter.AccountID, "account", "N", "", "only of this account", parseID[domain.AccountID])
	flagOf(flags, &filter.WebhookID, "webhook", "N", "", "only to this webhook", parseID[domain.WebhookID])
	flagOf(flags, &filter.Status, "status", "S", "", "only with this "+l.status+": "+strings.Join(l.statuses, ", "), oneOf(l.statuses...))
	flagOf(flags, &filter.EventID, "event-id", "ID", "", "only of this event", parseUUID)
	flagOf(flags, &filter.Limit, "limit", "N", strconv.Itoa(defaultLimit), fmt.Sprintf("at most so many, up to %d", maxLimit), parseLimit)
	flagOf(flags, &before, "before", "PLACE", "", "go on behind "+l.cursor, l.place)
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			audit := postgres.NewAudit(db)
			cursor, err := before.find(cmd.Context(), audit)
			if err != nil {
				return err
			}
			page, err := l.read(audit, cmd.Context(), filter, cursor)
			if err != nil {
				return err
			}
			if err := writeList(a, format, l.columns, page.Records); err != nil {
				return err
			}
			a.sayMore(page.Searched, page.Next)
			return nil
		})
	}
	return cmd
}

// sayMore says how to read on, beside the list.
func (a *app) sayMore(searched int, next *postgres.AuditCursor) {
	if next == nil {
		return
	}
	if searched > 0 {
		fmt.Fprintf(a.err, "Looked at the newest %d only; ", searched)
	}
	fmt.Fprintf(a.err, "more with: --before %s\n", placeText(next))
}

func parseLimit(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", text, maxLimit)
	}
	return n, nil
}

// place is a --before: made of what the lists show.
type place struct {
	seq      int64
	delivery uuid.UUID
	attempt  int
}

func placeOfEvent(text string) (place, error) {
	seq, err := parseID[int64](text)
	return place{seq: seq}, err
}

func placeOfDelivery(text string) (place, error) {
	delivery, err := parseUUID(text)
	return place{delivery: delivery}, err
}

func placeOfAttempt(text string) (p place, err error) {
	delivery, attempt, several := strings.Cut(text, "/")
	if p.delivery, err = parseUUID(delivery); err == nil && several {
		p.attempt, err = parseID[int](attempt)
	}
	if err != nil {
		return place{}, fmt.Errorf("%q is not DELIVERY_ID/ATTEMPT", text)
	}
	return p, nil
}

// placeText is the way back.
func placeText(c *postgres.AuditCursor) string {
	switch {
	case c.DeliveryID == uuid.Nil:
		return strconv.FormatInt(c.Seq, 10)
	case c.Attempt == 0:
		return c.DeliveryID.String()
	}
	return fmt.Sprintf("%s/%d", c.DeliveryID, c.Attempt)
}

// find gives the cursor, nil for none.
func (p place) find(ctx context.Context, audit *postgres.Audit) (*postgres.AuditCursor, error) {
	if p == (place{}) {
		return nil, nil //nolint:nilnil // none
	}
	cursor := postgres.AuditCursor{Seq: p.seq}
	if p.delivery != uuid.Nil {
		var err error
		if cursor, err = audit.Place(ctx, p.delivery); errors.Is(err, postgres.ErrNoDelivery) {
			return nil, &failure{fmt.Sprintf("--before: there is no delivery %s", p.delivery), "take what the list shows as delivery_id"}
		} else if err != nil {
			return nil, err
		}
		cursor.Attempt = p.attempt
	}
	return &cursor, nil
}

var eventColumns = []column[postgres.EventRecord]{
	{name: "inserted_at", value: func(e *postgres.EventRecord) any { return orNever(e.InsertedAt) }, shown: "inserted"},
	{name: "event_id", value: func(e *postgres.EventRecord) any { return idOrNil(e.EventID) }, shown: "event id"},
	{name: "seq", value: func(e *postgres.EventRecord) any { return e.Seq }, shown: "seq"},
	{name: "account_id", value: func(e *postgres.EventRecord) any { return e.AccountID }, shown: "account"},
	{name: "event", value: func(e *postgres.EventRecord) any { return e.Event }, shown: "event", flexible: true},
	{name: "ordering_key", value: func(e *postgres.EventRecord) any { return e.OrderingKey }, shown: "order", flexible: true},
	{name: "occurred_at", value: func(e *postgres.EventRecord) any { return orNever(e.OccurredAt) }},
	{name: "routed_at", value: func(e *postgres.EventRecord) any { return orNever(e.RoutedAt) }},
	{name: "routing", value: func(e *postgres.EventRecord) any { return e.Routing }, shown: "routing", tint: routingTint},
	{name: "delivery_count", value: func(e *postgres.EventRecord) any { return e.DeliveryCount }, shown: "deliveries"},
	{name: "reason", value: func(e *postgres.EventRecord) any { return orNil(e.Reason) }, shown: "reason", flexible: true},
	{name: "config_version", value: func(e *postgres.EventRecord) any { return unless(e.Routing == domain.RoutingWaiting, e.ConfigVersion) }},
	{name: "body_bytes", value: func(e *postgres.EventRecord) any { return unless(e.Routing == domain.RoutingWaiting, e.BodyBytes) }},
	{name: "metadata", value: func(e *postgres.EventRecord) any {
		if e.Metadata == nil {
			return nil
		}
		return e.Metadata
	}},
}

var deliveryColumns = []column[postgres.DeliveryRecord]{
	{name: "scheduled_at", value: func(d *postgres.DeliveryRecord) any { return orNever(d.ScheduledAt) }, shown: "scheduled"},
	{name: "delivery_id", value: func(d *postgres.DeliveryRecord) any { return idOrNil(d.DeliveryID) }},
	{name: "notification_id", value: func(d *postgres.DeliveryRecord) any { return idOrNil(d.NotificationID) }},
	{name: "event_id", value: func(d *postgres.DeliveryRecord) any { return idOrNil(d.EventID) }, shown: "event id"},
	{name: "event_seq", value: func(d *postgres.DeliveryRecord) any { return d.EventSeq }},
	{name: "account_id", value: func(d *postgres.DeliveryRecord) any { return d.AccountID }, shown: "account"},
	{name: "event", value: func(d *postgres.DeliveryRecord) any { return d.Event }, shown: "event", flexible: true},
	{name: "ordering_key", value: func(d *postgres.DeliveryRecord) any { return d.OrderingKey }},
	{name: "webhook_id", value: func(d *postgres.DeliveryRecord) any { return d.WebhookID }, shown: "webhook"},
	{name: "webhook_version", value: func(d *postgres.DeliveryRecord) any { return d.WebhookVersion }},
	{name: "url", value: func(d *postgres.DeliveryRecord) any { return d.URL }, shown: "url", flexible: true},
	{name: "status", value: func(d *postgres.DeliveryRecord) any { return d.Status }, shown: "status", tint: statusTint},
	{name: "attempt_count", value: func(d *postgres.DeliveryRecord) any { return d.AttemptCount }, shown: "attempts"},
	{name: "last_outcome", value: func(d *postgres.DeliveryRecord) any { return orNil(d.LastOutcome) }, shown: "last", tint: outcomeTint},
	{name: "last_status_code", value: func(d *postgres.DeliveryRecord) any { return orNil(d.LastStatusCode) }, shown: "http"},
	{name: "reason", value: func(d *postgres.DeliveryRecord) any { return orNil(d.Reason) }, shown: "reason", flexible: true},
	{name: "first_attempt_at", value: func(d *postgres.DeliveryRecord) any { return orNever(d.FirstAttemptAt) }},
	{name: "last_attempt_at", value: func(d *postgres.DeliveryRecord) any { return orNever(d.LastAttemptAt) }},
	{name: "next_attempt_at", value: func(d *postgres.DeliveryRecord) any { return orNever(d.NextAttemptAt) }},
	{name: "completed_at", value: func(d *postgres.DeliveryRecord) any { return orNever(d.CompletedAt) }},
	{name: "replay_id", value: func(d *postgres.DeliveryRecord) any { return d.ReplayID }},
}

var attemptColumns = []column[postgres.AttemptRecord]{
	{name: "started_at", value: func(r *postgres.AttemptRecord) any { return orNever(r.StartedAt) }, shown: "started"},
	{name: "delivery_id", value: func(r *postgres.AttemptRecord) any { return idOrNil(r.DeliveryID) }},
	{name: "notification_id", value: func(r *postgres.AttemptRecord) any { return idOrNil(r.NotificationID) }},
	{name: "event_id", value: func(r *postgres.AttemptRecord) any { return idOrNil(r.EventID) }, shown: "event id"},
	{name: "account_id", value: func(r *postgres.AttemptRecord) any { return r.AccountID }, shown: "account"},
	{name: "webhook_id", value: func(r *postgres.AttemptRecord) any { return r.WebhookID }, shown: "webhook"},
	{name: "webhook_version", value: func(r *postgres.AttemptRecord) any { return r.WebhookVersion }},
	{name: "url", value: func(r *postgres.AttemptRecord) any { return r.URL }, shown: "url", flexible: true},
	{name: "attempt", value: func(r *postgres.AttemptRecord) any { return r.Attempt }, shown: "attempt"},
	{name: "outcome", value: func(r *postgres.AttemptRecord) any { return r.Outcome }, shown: "outcome", tint: outcomeTint},
	{name: "status_code", value: func(r *postgres.AttemptRecord) any { return orNil(r.StatusCode) }, shown: "http"},
	{name: "duration_ms", value: func(r *postgres.AttemptRecord) any {
		if !r.DurationMS.Valid {
			return nil
		}
		return r.DurationMS.Float64
	}, shown: "ms"},
	{name: "error_class", value: func(r *postgres.AttemptRecord) any { return orNil(r.ErrorClass) }, shown: "error"},
	{name: "error_detail", value: func(r *postgres.AttemptRecord) any { return orNil(r.ErrorDetail) }, shown: "detail", flexible: true},
	{name: "finished_at", value: func(r *postgres.AttemptRecord) any { return orNever(r.FinishedAt) }},
	{name: "previous_outcome", value: func(r *postgres.AttemptRecord) any { return orNil(r.PreviousOutcome) }},
	{name: "remote_ip", value: func(r *postgres.AttemptRecord) any { return orNil(r.RemoteIP) }},
	{name: "response_excerpt", value: func(r *postgres.AttemptRecord) any {
		if !r.ResponseExcerpt.Valid {
			return nil
		}
		return r.ResponseExcerpt.String
	}},
	{name: "relay_id", value: func(r *postgres.AttemptRecord) any { return r.RelayID }},
}

func idOrNil(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id.String()
}

// unless gives nil where a value has no meaning.
func unless(meaningless bool, v any) any {
	if meaningless {
		return nil
	}
	return v
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
