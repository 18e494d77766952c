package postgres

import (
	"context"
	"database/sql"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain/audit"
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

// common adds what every view has a column for. Where an event's id is given,
// the account's index must not lead: the planner would walk all of the account
// for it. NOT NULL it takes for nearly always so.
func (c *conditions) common(f *audit.Filter) {
	switch {
	case f.AccountID == 0:
	case f.EventID != uuid.Nil:
		c.add("CASE WHEN account_id = ? THEN true END IS NOT NULL", int64(f.AccountID))
	default:
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
func (c *conditions) ofWebhook(f *audit.Filter) {
	if f.AccountID != 0 {
		c.add("CASE WHEN account_id = ? THEN true END IS NOT NULL", int64(f.AccountID))
	}
	c.common(&audit.Filter{EventID: f.EventID})
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
