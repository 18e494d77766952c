package postgres

import (
	"context"
	"database/sql"

	"github.com/lib/pq"
	"github.com/lib/pq/oid"

	"github.com/outrider-relay/outrider/domain"
)

// toldColumns are the arguments of relay.tell_operator.
type toldColumns struct{ id, event, orderingKey, payload, at *column }

func newToldColumns() *toldColumns {
	return &toldColumns{
		newColumn(oid.T_uuid, 0, 0), newColumn(oid.T_text, 0, 0), newColumn(oid.T_text, 0, 0), newColumn(oid.T_json, 0, 0), newColumn(oid.T_timestamptz, 0, 0),
	}
}

func (c *toldColumns) all() []*column {
	return []*column{c.id, c.event, c.orderingKey, c.payload, c.at}
}

func (c *toldColumns) empty() bool { return c.id.n == 0 }

func (c *toldColumns) reset() {
	for _, one := range c.all() {
		one.reset()
	}
}

func (c *toldColumns) add(e *domain.OperatorEvent) {
	c.id.uuid(e.ID)
	c.event.text(e.Name)
	c.orderingKey.text(e.OrderingKey)
	c.payload.bytes(e.Payload)
	c.at.time(e.At)
}

func (c *toldColumns) appendArgs(args []any) []any {
	for _, one := range c.all() {
		args = append(args, one)
	}
	return args
}

// tellOperator inserts an event of the operator's account where one of its
// webhooks has subscribed to it.
func tellOperator(ctx context.Context, tx *sql.Tx, e *domain.OperatorEvent) error {
	const tell = `SELECT relay.tell_operator(ARRAY[$1::uuid], ARRAY[$2::text], ARRAY[$3::text], ARRAY[$4::json], ARRAY[$5::timestamptz])`
	_, err := tx.ExecContext(ctx, tell, e.ID.String(), e.Name, e.OrderingKey, string(e.Payload), e.At.UTC())
	return err
}

// Told implements relay.Webhooks.
func (w *Webhooks) Told(ctx context.Context, tx *sql.Tx, eventSeqs []int64) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, `SELECT event_seq FROM relay.operator_events WHERE event_seq = ANY ($1::bigint[])`, pq.Array(eventSeqs))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var told []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, err
		}
		told = append(told, seq)
	}
	return told, rows.Err()
}
