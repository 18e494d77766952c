package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// Store reads what waits to be delivered. It implements relay.Store.
type Store struct{ db *sql.DB }

// NewStore gives the store of a database.
func NewStore(db *sql.DB) *Store { return &Store{db} }

// Head implements relay.Store.
func (s *Store) Head(ctx context.Context) (no, commit int64, err error) {
	err = s.db.QueryRowContext(ctx, outbox.PreparedMark+`
SELECT no, greatest(0, commit) FROM relay.batches ORDER BY no DESC LIMIT 1`).Scan(&no, &commit)
	return no, commit, err
}

// byKey completes deliveries found by d from what their keys lead to: the entry
// that scheduled each, what goes with it, and all entries of its stream.
func byKey(order string) string {
	return `
SELECT d.event_seq, d.webhook_id, d.replay_id, d.version, d.kind, d.at, d.key, d.pos, d.starter, s.account_id, s.event_id, st.entries, ` + withEvent(order) + `
  FROM d
 CROSS JOIN LATERAL (
       SELECT l.account_id, l.event_id::text AS event_id, ` + webhookVersion("l.data") + ` FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id AND l.version = 1 LIMIT 1) s` + event(anywhere) + `
 CROSS JOIN LATERAL (
       SELECT json_agg(json_build_object('type', l.type, 'at', l.at, 'data', l.data) ORDER BY l.version)::text AS entries FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id) st
 ORDER BY ` + order
}

// withEvent are the columns of event, as eventScan takes them. No more payload is
// sent than the room that d gives, whatever the payloads' size: only how large
// the others are.
func withEvent(order string) string {
	return `r.data, k.lower, k.bits, k.key,
       CASE WHEN octet_length(e.payload) <= d.room AND sum(octet_length(e.payload)) FILTER (WHERE octet_length(e.payload) <= d.room) OVER (ORDER BY ` + order + ` ROWS UNBOUNDED PRECEDING) <= d.room THEN e.payload END,
       octet_length(e.payload), e.metadata, e.inserted_at, coalesce(w.version, 0)`
}

// event joins what goes with a delivery of d that s says more about: the routing
// decision, the salt's key, and the event. What its webhook's disabling or
// deletion cancels needs no payload: such a backlog is as long as it likes.
//
// LATERAL with LIMIT makes each a look-up by key, whatever the statistics say. Of
// a partition that is still empty they say that all indexes are alike, and a plan
// that is kept may be older than what is in it: (SELECT 0) and the order leave
// the planner no index but that of the primary key.
//
// within bounds the place of an event further, where that is known: partitions
// out of these bounds cost nothing then, also in a plan that is kept.
func event(within func(seq string) string) string {
	return `
 CROSS JOIN LATERAL (
       SELECT l.data::text AS data FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = (SELECT 0) AND l.replay_id = 0 AND l.version = 1` + within("l.event_seq") + ` LIMIT 1) r
  LEFT JOIN LATERAL (
       SELECT h.version FROM relay.webhooks h WHERE h.id = d.webhook_id AND (h.state = 'deleted' OR h.disabled_version > 0 AND h.disabled_version > s.webhook_version) LIMIT 1) w ON true
  LEFT JOIN LATERAL (
       SELECT o.payload::text AS payload, o.metadata::text AS metadata, CASE WHEN isfinite(o.inserted_at) THEN o.inserted_at END AS inserted_at FROM outbox.events o
        WHERE o.seq >= d.event_seq AND o.seq <= d.event_seq AND w.version IS NULL` + within("o.seq") + ` ORDER BY o.seq LIMIT 1) e ON true
  LEFT JOIN LATERAL (
       SELECT t.lower, t.bits, t.key FROM relay.salts t WHERE t.lower <= d.event_seq ORDER BY t.lower DESC LIMIT 1) k ON true`
}

func anywhere(string) string { return "" }

// webhookVersion is the version in a scheduled entry, NULL where that is none.
func webhookVersion(data string) string {
	return `substring(` + data + ` ->> 'webhook_version' from '^[0-9]{1,18}$')::bigint AS webhook_version`
}

const byTime, byPlace = `d.at, d.pos`, `d.pos`

func (s *Store) read(ctx context.Context, query string, args ...any) ([]relay.Delivery, error) {
	return readDeliveries(ctx, s.db, query, args...)
}

// readDeliveries reads what byKey completed.
func readDeliveries(ctx context.Context, db querier, query string, args ...any) ([]relay.Delivery, error) {
	var (
		d       relay.Delivery
		kind    string
		at      sql.NullTime
		eventID sql.RawBytes
		entries sql.RawBytes
	)
	return scanDeliveries(ctx, db, &d, func() error {
		if kind != "" {
			d.Due.Kind, d.Due.Key, d.Due.At, d.Due.Pos = relay.DueKind(kind[0]), d.Key, at.Time, d.Pos
		} else {
			d.Due = relay.Due{}
		}
		if err := readID(&d, eventID); err != nil {
			return err
		}
		return fold(&d, entries)
	}, []any{
		&d.Key.EventSeq, &d.Key.WebhookID, &d.Key.ReplayID, &d.Due.Version, &kind, &at, &d.Due.Order,
		&d.Pos, &d.Starter, &d.AccountID, &eventID, &entries,
	}, query, args...)
}

// scanDeliveries reads deliveries with what goes with them: their own columns
// are scanned into d, completed by own, and those of withEvent follow. What is
// wrong with a delivery's log is told in it, so that no other one of the read
// suffers.
func scanDeliveries(ctx context.Context, db querier, d *relay.Delivery, own func() error, into []any, query string, args ...any) ([]relay.Delivery, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var found []relay.Delivery
	var event eventScan
	into = event.append(into, d)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		if d.Unreadable = own(); d.Unreadable == nil {
			d.Unreadable = event.complete(d, found)
		}
		found = append(found, *d)
		*d = relay.Delivery{}
	}
	return found, rows.Err()
}

// eventScan is where the columns of withEvent go. What is raw is the
// connection's until the next row.
type eventScan struct {
	routed, key, payload, metadata sql.RawBytes
	lower                          sql.NullInt64
	bits                           sql.NullInt16
	size                           sql.NullInt32
	inserted                       sql.NullTime

	salts domain.Salts
	from  domain.SaltKey
}

func (e *eventScan) append(into []any, d *relay.Delivery) []any {
	return append(into, &e.routed, &e.lower, &e.bits, &e.key, &e.payload, &e.size, &e.metadata, &e.inserted, &d.Cancels)
}

// complete gives a delivery what goes with its event. The webhooks of an event
// share its body.
func (e *eventScan) complete(d *relay.Delivery, found []relay.Delivery) error {
	d.InsertedAt = e.inserted.Time
	d.Unread, d.Size = e.size.Valid && e.payload == nil, int(e.size.Int32)
	if n := len(found) - 1; n >= 0 && e.payload != nil && found[n].Key.EventSeq == d.Key.EventSeq && found[n].Body != nil {
		same := &found[n]
		d.Event, d.OrderingKey, d.Traceparent, d.Body, d.Size = same.Event, same.OrderingKey, same.Traceparent, same.Body, same.Size
		return nil
	}
	decision, err := domain.DecodeRouted(e.routed)
	if err != nil {
		return fmt.Errorf("the event's decision: %w", err)
	}
	d.Event, d.OrderingKey = decision.EventName, decision.OrderingKey
	d.Traceparent = domain.Traceparent(e.metadata)
	// Every attempt sends the bytes that were routed, or none.
	salt := e.salt(d.Key.EventSeq)
	if e.payload == nil || salt == nil {
		return nil
	}
	body, quarantine := domain.Body(d.Event, e.payload)
	if quarantine != domain.QuarantineNone || relay.Digest(salt, body) != decision.Digest {
		return nil
	}
	if &body[0] == &e.payload[0] {
		body = bytes.Clone(body)
	}
	d.Body, d.Size = body, len(body)
	return nil
}

// salt derives the salt of an event from the key that came along, nil where none
// did.
func (e *eventScan) salt(seq int64) []byte {
	if !e.lower.Valid {
		return nil
	}
	key := domain.SaltKey{Lower: e.lower.Int64, Bits: int(e.bits.Int16)}
	copy(key.Key[:], e.key)
	if key != e.from {
		e.from = key
		e.salts.Take(key)
	}
	return e.salts.Of(seq)
}

func readID(d *relay.Delivery, id []byte) (err error) {
	if d.EventID, err = uuid.ParseBytes(id); err != nil {
		return fmt.Errorf("the event's id: %w", err)
	}
	return nil
}

// fold gives a delivery the state that its stream leads to.
func fold(d *relay.Delivery, entries []byte) error {
	var all []struct {
		Type string          `json:"type"`
		At   time.Time       `json:"at"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(entries, &all); err != nil {
		return err
	}
	for _, entry := range all {
		event, err := domain.DecodeDelivery(domain.Entry{Type: entry.Type, At: entry.At, Data: entry.Data})
		if err != nil {
			d.State = domain.Delivery{}
			return err
		}
		d.State = domain.Evolve(d.State, event)
	}
	return nil
}

const saltKeyQuery = `SELECT lower, bits, key FROM relay.salt_key($1)`

// SaltKey implements relay.Store.
func (s *Store) SaltKey(ctx context.Context, eventSeq int64) (domain.SaltKey, error) {
	var k domain.SaltKey
	var key []byte
	if err := s.db.QueryRowContext(ctx, saltKeyQuery, eventSeq).Scan(&k.Lower, &k.Bits, &key); err != nil {
		return k, err
	}
	if copy(k.Key[:], key) != len(k.Key) || !k.Covers(eventSeq) {
		return k, fmt.Errorf("the key from %d does not cover event %d", k.Lower, eventSeq)
	}
	return k, nil
}

// inShards is the condition that a webhook is in a set of shards.
func inShards(webhook, parameter string) string {
	return `(1::bigint << (` + webhook + ` & 63)::integer) & ` + parameter + `::bigint <> 0`
}

var dueBeforeQuery = outbox.PreparedMark + `
WITH d AS MATERIALIZED (
  SELECT event_seq, webhook_id, replay_id, version, kind::text AS kind, at, key, pos, 0::bigint AS starter, $5::bigint AS room FROM relay.due
   WHERE kind <> 'o' AND (at, pos) > ($1::timestamptz, $2::bigint) AND at <= $3::timestamptz AND ` + inShards("webhook_id", "$6") + `
   ORDER BY at, pos LIMIT $4)
` + byKey(byTime)

// dueAhead is how many rows are looked at for the next one of some shards.
const dueAhead = 1000

// nextDueQuery looks at the next rows of all shards: those of others may be all
// there are. Where none is of these shards it says when the last one is due.
var nextDueQuery = `
SELECT coalesce(min(n.at) FILTER (WHERE ` + inShards("n.webhook_id", "$2") + `), max(n.at) FILTER (WHERE n.many))
  FROM (SELECT d.at, d.webhook_id, count(*) OVER () = $3 AS many
          FROM (SELECT at, webhook_id FROM relay.due WHERE kind <> 'o' AND at > $1::timestamptz ORDER BY at LIMIT $3) d) n`

// DueBefore implements relay.Store.
func (s *Store) DueBefore(ctx context.Context, shards relay.Shards, cursor relay.Cursor, now time.Time, limit, room int) ([]relay.Delivery, time.Time, error) {
	found, err := s.read(ctx, dueBeforeQuery, cursor.At.UTC(), cursor.Pos, now.UTC(), limit, room, mask(shards))
	if err != nil {
		return nil, time.Time{}, err
	}
	most := dueAhead
	if shards == relay.AllShards {
		most = 1
	}
	var next sql.NullTime
	err = s.db.QueryRowContext(ctx, nextDueQuery, now.UTC(), mask(shards), most).Scan(&next)
	return found, next.Time, err
}

// laneOf gives the lane of a due row, as the index due_lane has it. overflow is
// the distance of a lane's overflow.
func laneOf(row string) string {
	return `(CASE WHEN ` + row + `.kind = 'o' THEN 2 ELSE 0 END + CASE WHEN ` + row + `.replay_id > 0 THEN 1 ELSE 0 END)`
}

const freshLane, replayLane, overflow = 0, 1, 2

func lane(replays bool) int {
	if replays {
		return replayLane
	}
	return freshLane
}

func dueIn(lane string) string {
	return `
   SELECT w.* FROM relay.due w
    WHERE w.webhook_id = $1 AND ` + laneOf("w") + ` = ` + lane + ` AND (w.at, w.pos) > ($3::timestamptz, $4::bigint) AND w.at <= $5::timestamptz
    ORDER BY w.at, w.pos LIMIT $6`
}

var dueOfQuery = outbox.PreparedMark + `
WITH d AS MATERIALIZED (
  SELECT u.event_seq, u.webhook_id, u.replay_id, u.version, u.kind::text AS kind, u.at, u.key, u.pos, 0::bigint AS starter, $7::bigint AS room
    FROM ((` + dueIn("$2::integer") + `) UNION ALL (` + dueIn("$2::integer + 2") + `)) u
   ORDER BY u.at, u.pos LIMIT $6)
` + byKey(byTime)

// DueOf implements relay.Store.
func (s *Store) DueOf(ctx context.Context, webhook domain.WebhookID, replays bool, cursor relay.Cursor, now time.Time, limit, room int) ([]relay.Delivery, error) {
	return s.read(ctx, dueOfQuery, int64(webhook), lane(replays), cursor.At.UTC(), cursor.Pos, now.UTC(), limit, room)
}

var heldQuery = outbox.PreparedMark + `
WITH d AS MATERIALIZED (
  SELECT event_seq, webhook_id, replay_id, version, kind::text AS kind, at, key, pos, 0::bigint AS starter, $4::bigint AS room FROM relay.due
   WHERE webhook_id = $1 AND key = $2 AND kind = 'h' ORDER BY pos LIMIT $3)
` + byKey(byPlace)

// Held implements relay.Store.
func (s *Store) Held(ctx context.Context, webhook domain.WebhookID, order int64, limit, room int) ([]relay.Delivery, error) {
	return s.read(ctx, heldQuery, int64(webhook), order, limit, room)
}

var bodyQuery = outbox.PreparedMark + `
WITH d AS MATERIALIZED (
  SELECT $1::bigint AS event_seq, $2::bigint AS webhook_id, $3::bigint AS replay_id, 0 AS version, ''::text AS kind,
         NULL::timestamptz AS at, 0::bigint AS key, 0::bigint AS pos, 0::bigint AS starter, 1::bigint << 62 AS room)
` + byKey(byPlace)

// Body implements relay.Store.
func (s *Store) Body(ctx context.Context, key domain.DeliveryKey) (body []byte, cancels int64, err error) {
	found, err := s.read(ctx, bodyQuery, key.EventSeq, int64(key.WebhookID), int64(key.ReplayID))
	if err != nil || len(found) == 0 {
		return nil, 0, err
	}
	return found[0].Body, found[0].Cancels, found[0].Unreadable
}

// openQuery finds starts without an end. An open attempt's start is the last
// entry of its stream.
var openQuery = `
WITH d AS MATERIALIZED (
  SELECT l.event_seq, l.webhook_id, l.replay_id, 0 AS version, ''::text AS kind, NULL::timestamptz AS at, 0::bigint AS key,
         (SELECT f.pos FROM relay.log f WHERE f.event_seq = l.event_seq AND f.webhook_id = l.webhook_id AND f.replay_id = l.replay_id AND f.version = 1 LIMIT 1) AS pos,
         l.writer AS starter, 0::bigint AS room
    FROM relay.log l
   WHERE l.pos >= $1 AND l.type = 'attempt_started' AND ` + inShards("l.webhook_id", "$2") + `
     AND (SELECT true FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = l.version + 1 LIMIT 1) IS NULL)
` + byKey(byPlace)

var rereadQuery = `
WITH d AS MATERIALIZED (
  SELECT k.event_seq, k.webhook_id, k.replay_id, coalesce(w.version, 0) AS version, coalesce(w.kind, '') AS kind, w.at, coalesce(w.key, 0) AS key, k.pos, 0::bigint AS starter, 0::bigint AS room
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS k (event_seq, webhook_id, replay_id, pos)
    LEFT JOIN LATERAL (
         SELECT u.version, u.kind::text AS kind, u.at, u.key FROM relay.due u
          WHERE u.event_seq = k.event_seq AND u.webhook_id + 0 = k.webhook_id AND u.replay_id = k.replay_id ORDER BY u.version DESC LIMIT 1) w ON true)
` + byKey(byPlace)

// Reread implements relay.Store.
func (s *Store) Reread(ctx context.Context, wanted []relay.Delivery) ([]relay.Delivery, error) {
	var columns [4][]int64
	for i := range wanted {
		key := wanted[i].Key
		for n, v := range [...]int64{key.EventSeq, int64(key.WebhookID), int64(key.ReplayID), wanted[i].Pos} {
			columns[n] = append(columns[n], v)
		}
	}
	return s.read(ctx, rereadQuery, pq.Array(columns[0]), pq.Array(columns[1]), pq.Array(columns[2]), pq.Array(columns[3]))
}
