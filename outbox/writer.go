package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// Event is a chat event to insert.
type Event struct {
	AccountID domain.AccountID
	// Name is the event's name, such as message_created.
	Name string
	// Payload is the JSON object to POST.
	Payload json.RawMessage
	// ID is the idempotency key; the zero value takes a new one.
	ID domain.EventID
	// OrderingKey names what must be delivered in order. nil derives it from
	// the payload, a pointer to "" asks for no order.
	OrderingKey *string
	// OccurredAt and Metadata are kept for the audit; zero values for none.
	OccurredAt time.Time
	Metadata   json.RawMessage
}

// Writer inserts chat events into outbox.events. The zero value is ready, and
// safe for concurrent use.
type Writer struct{}

const insertColumns = `INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata) VALUES `

// rowsPerInsert keeps a statement below PostgreSQL's 65,535 parameters.
const rowsPerInsert = 1000

// Write inserts events in the producer's transaction, in the given order, and
// gives their ids. The relay sees them once tx has committed, and never where
// it has not. To have the events of a conversation delivered in order, lock or
// update the conversation's row in tx before.
//
// An error is PostgreSQL's; tx has failed then and must be rolled back.
func (Writer) Write(ctx context.Context, tx *sql.Tx, events ...Event) ([]domain.EventID, error) {
	ids := make([]domain.EventID, len(events))
	for i := range events {
		ids[i] = events[i].ID
		if ids[i] == uuid.Nil {
			id, err := uuid.NewV7()
			if err != nil {
				return nil, fmt.Errorf("draw an event id: %w", err)
			}
			ids[i] = id
		}
	}
	for first := 0; first < len(events); first += rowsPerInsert {
		last := min(first+rowsPerInsert, len(events))
		if err := insert(ctx, tx, events[first:last], ids[first:last]); err != nil {
			return nil, fmt.Errorf("insert into outbox.events: %w", err)
		}
	}
	return ids, nil
}

func insert(ctx context.Context, tx *sql.Tx, events []Event, ids []domain.EventID) error {
	const columns = 7
	var query strings.Builder
	query.WriteString(insertColumns)
	args := make([]any, 0, columns*len(events))
	for i, e := range events {
		if e.Payload == nil {
			return errors.New("the payload is missing")
		}
		if i > 0 {
			query.WriteByte(',')
		}
		n := columns * i
		fmt.Fprintf(&query, "($%d,$%d,$%d,$%d,$%d,$%d,$%d)", n+1, n+2, n+3, n+4, n+5, n+6, n+7)
		args = append(args, int64(e.AccountID), e.Name, string(e.Payload), ids[i].String(), e.OrderingKey,
			sql.NullTime{Time: e.OccurredAt, Valid: !e.OccurredAt.IsZero()},
			sql.NullString{String: string(e.Metadata), Valid: e.Metadata != nil})
	}
	_, err := tx.ExecContext(ctx, query.String(), args...)
	return err
}
