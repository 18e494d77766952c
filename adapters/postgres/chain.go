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
type Chain struct {
	db *sql.DB
	// sealing is of the newest seal, which Head reads along with the newest
	// link: each batch is sealed, and a batch that is not behind that link is
	// not written.
	sealing sealing
	sealer  domain.Sealer
	seal    domain.Seal // of the batch of the last Statement
}

// NewChain gives the chain of a database.
func NewChain(db *sql.DB) *Chain { return &Chain{db: db, sealing: sealing{chain: domain.ChainTail}} }

// headQuery spares relay $1 the heads that it need not link to: it wrote the
// newest seal itself.
const headQuery = outbox.PreparedMark + `
SELECT b.no, b.xid::text, b.consumed::text, b.target::text, b.cursor, b.floor, b.window_floor, b.high, b.low, b.bound, b.relay_id, b.commit,
       s.no, s.hash, s.commit, s.relay_id, CASE WHEN s.relay_id <> $1::bigint THEN` + otherHeads + ` END
  FROM (SELECT * FROM relay.batches ORDER BY no DESC LIMIT 1) b,
       (SELECT * FROM relay.seals WHERE chain = 'tail' ORDER BY no DESC LIMIT 1) s`

// Head implements outbox.Chain.
func (c *Chain) Head(ctx context.Context, relayID int64) (outbox.Head, error) {
	var h outbox.Head
	var xid, consumed string
	var target sql.NullString
	var sealed []byte
	s := &c.sealing
	err := c.db.QueryRowContext(ctx, headQuery, relayID).Scan(&h.No, &xid, &consumed, &target, &h.Cursor, &h.Floor, &h.WindowFloor, &h.High, &h.Low, &h.Bound, &h.RelayID, &h.Commit,
		&s.head.No, &sealed, &s.head.Commit, &s.relayID, &s.others)
	if err != nil {
		return outbox.Head{}, err
	}
	s.set(sealed)
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
// $26 and $27 are the seal that the batch's builds on.
//
// The longest argument is the first: lib/pq gathers them in one buffer, which
// would be copied again and again on its way to that length.
const batchStatement = outbox.PreparedMark + `
WITH link AS (
  INSERT INTO relay.batches (no, prev, consumed, target, cursor, floor, window_floor, high, low, seq_min, seq_max, relay_id, at, commit, bound)
  VALUES ($2::bigint, (SELECT b.no FROM relay.batches b WHERE b.no = $2::bigint - 1), $3::pg_snapshot, $4::pg_snapshot,
          $5::bigint, $6::bigint, $7::bigint, $8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::bigint, $13::timestamptz, nextval('relay.commits'), $18::bigint)
  RETURNING commit, commit << 20 AS pos),
seal AS (
  INSERT INTO relay.seals (chain, no, commit, relay_id, at, stretches, entries, digests, links, hash)
  SELECT 'tail', (SELECT s.no + 1 FROM relay.seals s WHERE s.chain = 'tail' AND s.no = $26::bigint AND s.hash = $27::bytea), link.commit, $12::bigint,
         $28::timestamptz, $29::bigint[], $30::integer[], $31::bytea, $32::bytea, $33::bytea
    FROM link),
routed AS (
  INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, mark)
  SELECT ($14::bigint[])[e.ord], 0, 0, ($15::bigint[])[e.ord], link.pos + e.ord, $12::bigint, $13::timestamptz, 1, 'routed', e.data, e.routing,
         ($16::uuid[])[e.ord], ($24::integer[])[e.ord]
    FROM unnest($1::json[], $17::text[]) WITH ORDINALITY AS e (data, routing, ord), link),
scheduled AS (
  INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, mark)
  SELECT ($14::bigint[])[r.n], ($21::bigint[])[d.ord], 0, ($15::bigint[])[r.n], link.pos + $19::bigint + d.ord, $12::bigint, $13::timestamptz, 1, 'scheduled', d.data,
         ($16::uuid[])[r.n], ($22::uuid[])[d.ord], ($25::integer[])[d.ord]
    FROM unnest($23::json[]) WITH ORDINALITY AS d (data, ord) CROSS JOIN LATERAL (SELECT ($20::integer[])[d.ord] AS n) r, link)
SELECT commit, pg_current_xact_id()::text::bigint FROM link`

// Statement implements outbox.Chain.
func (c *Chain) Statement(batch *outbox.Batch) (string, []any) {
	n := len(batch.Rows)
	seq, account, event := newColumn(oid.T_int8, n, 8), newColumn(oid.T_int8, n, 8), newColumn(oid.T_uuid, n, 16)
	data, routing := newColumn(oid.T_json, n, 300), newColumn(oid.T_text, n, 8)
	dRow, dWebhook := newColumn(oid.T_int4, n, 4), newColumn(oid.T_int8, n, 8)
	dID, dData := newColumn(oid.T_uuid, n, 16), newColumn(oid.T_json, n, 80)
	mark, dMark := newColumn(oid.T_int4, n, 4), newColumn(oid.T_int4, n, 4)
	at := batch.At.UTC().Truncate(time.Microsecond) // as it is kept
	c.sealer.Reset()
	entry := domain.SealedEntry{Writer: batch.RelayID, At: microseconds(at), Version: 1, Type: []byte(domain.TypeRouted)}
	for i, row := range batch.Rows {
		seq.bigint(row.Seq)
		account.bigint(int64(row.AccountID))
		event.uuid(row.ID)
		routing.text(string(row.Routed.Kind))
		entry.EventSeq, entry.AccountID, entry.Ordinal = row.Seq, int64(row.AccountID), entry.Ordinal+1
		entry.Data, entry.Routing, entry.EventID = domain.EncodeRouted(row.Routed), routing.last(len(row.Routed.Kind)), idBytes(&row.ID)
		data.bytes(entry.Data)
		mark.integer(int(c.sealer.Add(&entry)))
		for _, target := range row.Routed.Targets {
			dRow.integer(i + 1)
			dWebhook.bigint(int64(target.WebhookID))
		}
	}
	entry.Type, entry.Routing = []byte(domain.TypeScheduled), nil
	for _, row := range batch.Rows {
		for _, target := range row.Routed.Targets {
			notification := domain.NewNotificationID(row.AccountID, row.ID, target.WebhookID)
			entry.EventSeq, entry.WebhookID, entry.AccountID, entry.Ordinal = row.Seq, int64(target.WebhookID), int64(row.AccountID), entry.Ordinal+1
			entry.Data = domain.EncodeDelivery(domain.Scheduled{
				At: batch.At, Deadline: batch.At.Add(target.Deadline), WebhookVersion: target.Version,
			}).Data
			dID.uuid(domain.NewDeliveryID(notification, row.Seq, 0))
			entry.EventID, entry.Delivery = idBytes(&row.ID), dID.last(len(notification))
			dData.bytes(entry.Data)
			dMark.integer(int(c.sealer.Add(&entry)))
		}
	}
	var target any
	if batch.Target != nil {
		target = batch.Target.String()
	}
	args := []any{
		data, batch.No, batch.Consumed.String(), target, batch.Cursor, batch.Floor, batch.WindowFloor, batch.High, batch.Low,
		batch.SeqMin, batch.SeqMax, batch.RelayID, at.Format(time.RFC3339Nano),
		seq, account, event, routing, batch.Bound,
		n, dRow, dWebhook, dID, dData,
		mark, dMark,
	}
	c.seal = c.sealing.seal(&c.sealer, batch.RelayID)
	return batchStatement, newSealColumns().appendArgs(args, c.sealing.head, &c.seal)
}

// Written implements outbox.Chain.
func (c *Chain) Written(commit int64) { c.sealing.written(&c.seal, commit) }
