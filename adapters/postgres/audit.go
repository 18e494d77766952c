package postgres

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// Audit reads the history through the views of the schema audit: whoever may
// read those may use it. All lists are newest first, by the chat events' place
// in the outbox, and a page costs what is on it.
type Audit struct{ db database }

// database is a *sql.DB.
type database interface {
	querier
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error)
}

// NewAudit gives the history of a database.
func NewAudit(db *sql.DB) *Audit { return &Audit{db} }

// AuditFilter selects records; its zero values select all.
type AuditFilter struct {
	AccountID domain.AccountID
	WebhookID domain.WebhookID
	EventID   uuid.UUID
	// Event is a chat event's name.
	Event string
	// OrderingKey is what is kept in order, "" for what is not; nil is any.
	OrderingKey *string
	// ReplayID selects what a replay asked for, of deliveries and attempts.
	ReplayID domain.ReplayID
	// Status is a routing of events, a status of deliveries, an outcome of
	// attempts or the kind of a change.
	Status string
	// Since and Until are a range of time: of the routing of events, of the
	// scheduling of deliveries, of the start of attempts, of changes. Until
	// is not in it. What waits to be routed is after all times.
	Since, Until time.Time
	// Limit is how many records are wanted, at least 1.
	Limit int
}

// during tells whether a time is in the range.
func (f *AuditFilter) during(at time.Time) bool {
	return !at.Before(f.Since) && (f.Until.IsZero() || at.Before(f.Until))
}

// ordered tells whether an ordering key is the wanted one.
func (f *AuditFilter) ordered(key string) bool { return f.OrderingKey == nil || *f.OrderingKey == key }

// named tells whether a chat event's name is the wanted one.
func (f *AuditFilter) named(event string) bool { return f.Event == "" || f.Event == event }

// of tells whether something is of the wanted account and chat event.
func (f *AuditFilter) of(account domain.AccountID, event uuid.UUID) bool {
	return (f.AccountID == 0 || f.AccountID == account) && (f.EventID == uuid.Nil || f.EventID == event)
}

// conditions builds a WHERE clause. Values are always parameters.
type conditions struct {
	text []string
	args []any
}

// add appends a condition whose ? are the args.
func (c *conditions) add(text string, args ...any) {
	for _, arg := range args {
		c.args = append(c.args, arg)
		text = strings.Replace(text, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	c.text = append(c.text, text)
}

func (c *conditions) where() string {
	if len(c.text) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.text, " AND ")
}

// common adds what every view has a column for.
func (c *conditions) common(f *AuditFilter) {
	if f.AccountID != 0 {
		c.add("account_id = ?", int64(f.AccountID))
	}
	if f.EventID != uuid.Nil {
		c.add("event_id = ?::uuid", f.EventID.String())
	}
}

// ofWebhook adds what the views of deliveries and attempts have columns for. A
// webhook is of one account; the planner, who does not know, would take both
// conditions together for rare, and sort all that it finds: NOT NULL is taken
// for nearly always so.
func (c *conditions) ofWebhook(f *AuditFilter) {
	if f.AccountID != 0 {
		c.add("CASE WHEN account_id = ? THEN true END IS NOT NULL", int64(f.AccountID))
	}
	c.common(&AuditFilter{EventID: f.EventID})
	c.add("webhook_id = ?", int64(f.WebhookID))
}

// list reads all rows of a query.
func list[T any](ctx context.Context, db querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var found []T
	for rows.Next() {
		record, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, record)
	}
	return found, rows.Err()
}

// querier is *sql.DB or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}
