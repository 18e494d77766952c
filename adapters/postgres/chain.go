package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/lib/pq/oid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// Chain keeps the tail's positions and the decisions of routing. It implements
// outbox.Chain.
type Chain struct{ db *sql.DB }

// NewChain gives the chain of a database.
func NewChain(db *sql.DB) *Chain { return &Chain{db} }

const headQuery = outbox.PreparedMark + `
SELECT no, xid::text, consumed::text, target::text, cursor, floor, window_floor, high, low, bound, relay_id, commit
  FROM relay.batches ORDER BY no DESC LIMIT 1`

// Head implements outbox.Chain.
func (c *Chain) Head(ctx context.Context) (outbox.Head, error) {
	var h outbox.Head
	var xid, consumed string
	var target sql.NullString
	err := c.db.QueryRowContext(ctx, headQuery).Scan(&h.No, &xid, &consumed, &target, &h.Cursor, &h.Floor, &h.WindowFloor, &h.High, &h.Low, &h.Bound, &h.RelayID, &h.Commit)
	if err != nil {
		return outbox.Head{}, err
	}
	if h.XID, err = strconv.ParseUint(xid, 10, 64); err != nil {
		return outbox.Head{}, fmt.Errorf("xid of batch %d: %w", h.No, err)
	}
	if h.Consumed, err = outbox.ParseSnapshot(consumed); err != nil {
		return outbox.Head{}, fmt.Errorf("batch %d: %w", h.No, err)
	}
	if target.Valid {
		snapshot, err := outbox.ParseSnapshot(target.String)
		if err != nil {
			return outbox.Head{}, fmt.Errorf("batch %d: %w", h.No, err)
		}
		h.Target = &snapshot
	}
	return h, nil
}

// SeqAt implements outbox.Chain.
func (c *Chain) SeqAt(ctx context.Context, at time.Time) (int64, error) {
	var high int64
	err := c.db.QueryRowContext(ctx, `
SELECT coalesce((SELECT high FROM relay.batches WHERE at < $1 ORDER BY at DESC LIMIT 1), 0)`, at).Scan(&high)
	return high, err
}

// batchStatement writes a link and its decisions, or nothing: the primary key
// refuses the link of a second reader (23505), NOT NULL of prev a link whose
// predecessor never committed (23502). That is the tail's fence. The entries of
// the decisions come first in the commit, then those of the deliveries, which
// name their decision by its ordinal.
//
// The longest argument is the first: lib/pq gathers them in one buffer, which
// would be copied again and again on its way to that length.
const batchStatement = outbox.PreparedMark + `
WITH link AS (
  INSERT INTO relay.batches (no, prev, consumed, target, cursor, floor, window_floor, high, low, seq_min, seq_max, relay_id, at, commit, bound)
  VALUES ($2::bigint, (SELECT b.no FROM relay.batches b WHERE b.no = $2::bigint - 1), $3::pg_snapshot, $4::pg_snapshot,
          $5::bigint, $6::bigint, $7::bigint, $8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::bigint, $13::timestamptz, nextval('relay.commits'), $24::bigint)
  RETURNING commit << 20 AS pos),
routed AS (
  INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, salt)
  SELECT ($14::bigint[])[e.ord], 0, 0, ($15::bigint[])[e.ord], link.pos + e.ord, $12::bigint, $13::timestamptz, 1, 'routed', e.data, e.routing,
         ($16::uuid[])[e.ord], e.salt
    FROM unnest($1::json[], $17::text[], $18::bytea[]) WITH ORDINALITY AS e (data, routing, salt, ord), link)
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
SELECT ($14::bigint[])[r.n], ($21::bigint[])[d.ord], 0, ($15::bigint[])[r.n], link.pos + $19::bigint + d.ord, $12::bigint, $13::timestamptz, 1, 'scheduled', d.data,
       ($16::uuid[])[r.n], ($22::uuid[])[d.ord]
  FROM unnest($23::json[]) WITH ORDINALITY AS d (data, ord) CROSS JOIN LATERAL (SELECT ($20::integer[])[d.ord] AS n) r, link`

// Statement implements outbox.Chain.
func (c *Chain) Statement(batch *outbox.Batch) (string, []any) {
	n := len(batch.Rows)
	seq, account, event := newColumn(oid.T_int8, n, 8), newColumn(oid.T_int8, n, 8), newColumn(oid.T_uuid, n, 16)
	data, routing, salt := newColumn(oid.T_json, n, 300), newColumn(oid.T_text, n, 8), newColumn(oid.T_bytea, n, 16)
	dRow, dWebhook := newColumn(oid.T_int4, n, 4), newColumn(oid.T_int8, n, 8)
	dID, dData := newColumn(oid.T_uuid, n, 16), newColumn(oid.T_json, n, 80)
	for i, row := range batch.Rows {
		seq.bigint(row.Seq)
		account.bigint(int64(row.AccountID))
		event.uuid(row.ID)
		data.bytes(domain.EncodeRouted(row.Routed))
		routing.text(string(row.Routed.Kind))
		salt.bytes(row.Salt)
		for _, target := range row.Routed.Targets {
			notification := domain.NewNotificationID(row.AccountID, row.ID, target.WebhookID)
			dRow.integer(i + 1)
			dWebhook.bigint(int64(target.WebhookID))
			dID.uuid(domain.NewDeliveryID(notification, row.Seq, 0))
			dData.bytes(domain.EncodeDelivery(domain.Scheduled{
				At: batch.At, Deadline: batch.At.Add(domain.Deadline(row.Name)), WebhookVersion: target.Version,
			}).Data)
		}
	}
	var target any
	if batch.Target != nil {
		target = batch.Target.String()
	}
	return batchStatement, []any{
		data, batch.No, batch.Consumed.String(), target, batch.Cursor, batch.Floor, batch.WindowFloor, batch.High, batch.Low,
		batch.SeqMin, batch.SeqMax, batch.RelayID, batch.At.UTC().Format(time.RFC3339Nano),
		seq, account, event, routing, salt,
		n, dRow, dWebhook, dID, dData,
		batch.Bound,
	}
}
