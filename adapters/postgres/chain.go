package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// Chain keeps the tail's positions and the decisions of routing. It implements
// outbox.Chain.
type Chain struct{ db *sql.DB }

// NewChain gives the chain of a database.
func NewChain(db *sql.DB) *Chain { return &Chain{db} }

const headQuery = `
SELECT no, xid::text, consumed::text, target::text, cursor, floor, window_floor, high, low, relay_id, commit
  FROM relay.batches ORDER BY no DESC LIMIT 1`

// Head implements outbox.Chain.
func (c *Chain) Head(ctx context.Context) (outbox.Head, error) {
	var h outbox.Head
	var xid, consumed string
	var target sql.NullString
	err := c.db.QueryRowContext(ctx, headQuery).Scan(&h.No, &xid, &consumed, &target, &h.Cursor, &h.Floor, &h.WindowFloor, &h.High, &h.Low, &h.RelayID, &h.Commit)
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
// predecessor never committed (23502). That is the tail's fence.
const batchStatement = `
WITH c AS (SELECT nextval('relay.commits') AS commit),
link AS (
  INSERT INTO relay.batches (no, prev, consumed, target, cursor, floor, window_floor, high, low, seq_min, seq_max, relay_id, at, commit)
  SELECT $13::bigint, (SELECT b.no FROM relay.batches b WHERE b.no = $13::bigint - 1), $14::pg_snapshot, $15::pg_snapshot,
         $16::bigint, $17::bigint, $18::bigint, $19::bigint, $20::bigint, $21::bigint, $22::bigint, $23::bigint, $24::timestamptz, c.commit FROM c)
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, salt, excerpt)
SELECT e.event_seq, e.webhook_id, e.replay_id, e.account_id, (c.commit << 20) + e.ord, $23::bigint, e.at, e.version, e.type, e.data::json,
       e.event_id, e.delivery_id, e.salt, e.excerpt
  FROM ` + entryColumns + `, c`

// Statement implements outbox.Chain: for each row its decision, followed by
// the deliveries it scheduled.
func (c *Chain) Statement(batch *outbox.Batch) (string, []any) {
	e := newEntries(2 * len(batch.Rows))
	for _, row := range batch.Rows {
		e.seq.integer(row.Seq)
		e.webhook.integer(0)
		e.replay.integer(0)
		e.account.integer(int64(row.AccountID))
		e.version.integer(1)
		e.at.time(batch.At)
		e.kind.string([]byte(domain.TypeRouted))
		e.data.string(domain.EncodeRouted(row.Routed))
		e.event.uuid(row.ID)
		e.delivery.null()
		e.salt.bytes(row.Salt)
		e.excerpt.null()
		for _, target := range row.Routed.Targets {
			entry := domain.EncodeDelivery(domain.Scheduled{
				At: batch.At, Deadline: batch.At.Add(domain.Deadline(row.Name)), WebhookVersion: target.Version,
			})
			notification := domain.NewNotificationID(row.AccountID, row.ID, target.WebhookID)
			e.seq.integer(row.Seq)
			e.webhook.integer(int64(target.WebhookID))
			e.replay.integer(0)
			e.account.integer(int64(row.AccountID))
			e.version.integer(1)
			e.at.time(entry.At)
			e.kind.string([]byte(entry.Type))
			e.data.string(entry.Data)
			e.event.uuid(row.ID)
			e.delivery.uuid(domain.NewDeliveryID(notification, row.Seq, 0))
			e.salt.null()
			e.excerpt.null()
		}
	}
	var target any
	if batch.Target != nil {
		target = batch.Target.String()
	}
	return batchStatement, append(e.args(), batch.No, batch.Consumed.String(), target, batch.Cursor, batch.Floor, batch.WindowFloor,
		batch.High, batch.Low, batch.SeqMin, batch.SeqMax, batch.RelayID, batch.At.UTC().Format(time.RFC3339Nano))
}
