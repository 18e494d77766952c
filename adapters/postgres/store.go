package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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

// readBack completes deliveries found by d: the entry that scheduled each, the
// routing decision, the payload, and its stream. What its webhook's disabling or
// deletion cancels needs no payload: such a backlog is as long as it likes. Nor
// is more sent than the room that d gives, whatever the payloads' size: only
// how large the others are.
//
// LATERAL with LIMIT makes each a look-up by key, whatever the statistics say. Of
// a partition that is still empty they say that all indexes are alike, and a plan
// that is kept may be older than what is in it: (SELECT 0) and the order leave
// the planner no index but that of the primary key.
//
// scheduled gives what is asked of the entry that scheduled each, stream all its
// entries, or what and when that one is where it is alone. within bounds the
// place of an event further, where that is known: partitions out of these bounds
// cost nothing then, also in a plan that is kept.
func readBack(scheduled, stream string, within func(seq string) string, order string) string {
	return `
SELECT d.event_seq, d.webhook_id, d.replay_id, d.version, d.kind, d.at, d.key,
       d.pos, d.starter, s.account_id, s.event_id, r.data, k.lower, k.bits, k.key,
       CASE WHEN octet_length(e.payload) <= d.room AND sum(octet_length(e.payload)) FILTER (WHERE octet_length(e.payload) <= d.room) OVER (ORDER BY ` + order + ` ROWS UNBOUNDED PRECEDING) <= d.room THEN e.payload END,
       octet_length(e.payload), e.metadata, e.inserted_at, coalesce(w.version, 0), st.entries, st.data, st.at
  FROM d
 CROSS JOIN LATERAL (` + scheduled + `) s
 CROSS JOIN LATERAL (
       SELECT l.data::text AS data FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = (SELECT 0) AND l.replay_id = 0 AND l.version = 1` + within("l.event_seq") + ` LIMIT 1) r
  LEFT JOIN LATERAL (
       SELECT h.version FROM relay.webhooks h WHERE h.id = d.webhook_id AND (h.state = 'deleted' OR h.disabled_version > 0 AND h.disabled_version > s.webhook_version) LIMIT 1) w ON true
  LEFT JOIN LATERAL (
       SELECT o.payload::text AS payload, o.metadata::text AS metadata, CASE WHEN isfinite(o.inserted_at) THEN o.inserted_at END AS inserted_at FROM outbox.events o
        WHERE o.seq >= d.event_seq AND o.seq <= d.event_seq AND w.version IS NULL` + within("o.seq") + ` ORDER BY o.seq LIMIT 1) e ON true
  LEFT JOIN LATERAL (
       SELECT t.lower, t.bits, t.key FROM relay.salts t WHERE t.lower <= d.event_seq ORDER BY t.lower DESC LIMIT 1) k ON true
 CROSS JOIN LATERAL (` + stream + `) st
 ORDER BY ` + order
}

// anywhere bounds no place, inBatches those of batchesQuery.
func anywhere(string) string { return "" }

func inBatches(seq string) string { return ` AND ` + seq + ` >= $1 AND ` + seq + ` <= $2` }

// webhookVersion is the version in a scheduled entry, NULL where that is none.
func webhookVersion(data string) string {
	return `substring(` + data + ` ->> 'webhook_version' from '^[0-9]{1,18}$')::bigint AS webhook_version`
}

// byKey reads back what a delivery's own key leads to.
func byKey(order string) string {
	return readBack(`
       SELECT l.account_id, l.event_id::text AS event_id, `+webhookVersion("l.data")+` FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id AND l.version = 1 LIMIT 1`, `
       SELECT json_agg(json_build_object('type', l.type, 'at', l.at, 'data', l.data) ORDER BY l.version)::text AS entries, NULL AS data, NULL AS at FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id`, anywhere, order)
}

const byTime, byPlace = `d.at, d.pos`, `d.pos`

func (s *Store) read(ctx context.Context, query string, args ...any) ([]relay.Delivery, error) {
	return readDeliveries(ctx, s.db, query, args...)
}

func readDeliveries(ctx context.Context, db querier, query string, args ...any) ([]relay.Delivery, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var found []relay.Delivery
	var salts salts
	for rows.Next() {
		d, err := scanDelivery(rows, &salts)
		if err != nil {
			return nil, err
		}
		// The webhooks of a chat event share its body.
		if n := len(found) - 1; n >= 0 && found[n].Key.EventSeq == d.Key.EventSeq && d.Body != nil && bytes.Equal(found[n].Body, d.Body) {
			d.Body = found[n].Body
		}
		found = append(found, d)
	}
	return found, rows.Err()
}

// salts derives salts from the keys that come along with the events.
type salts struct {
	domain.Salts
	from domain.SaltKey
}

func (s *salts) of(seq int64, key domain.SaltKey) []byte {
	if key != s.from {
		s.from = key
		s.Take(key)
	}
	return s.Of(seq)
}

// scanDelivery reads one delivery. What is wrong with its log is told in it, so
// that no other delivery of the read suffers.
func scanDelivery(rows *sql.Rows, salts *salts) (relay.Delivery, error) {
	var (
		d                 relay.Delivery
		kind              string
		at, inserted      sql.NullTime
		eventID           sql.NullString
		routed            []byte
		stream            stream
		lower             sql.NullInt64
		bits              sql.NullInt16
		key               []byte
		payload, metadata []byte
		size              sql.NullInt32
	)
	err := rows.Scan(&d.Key.EventSeq, &d.Key.WebhookID, &d.Key.ReplayID, &d.Due.Version, &kind, &at, &d.Due.Order,
		&d.Pos, &d.Starter, &d.AccountID, &eventID, &routed, &lower, &bits, &key, &payload, &size, &metadata, &inserted, &d.Cancels, &stream.entries, &stream.scheduled, &stream.at)
	if err != nil {
		return d, err
	}
	if kind != "" {
		d.Due.Kind, d.Due.Key, d.Due.At, d.Due.Pos = relay.DueKind(kind[0]), d.Key, at.Time, d.Pos
	} else {
		d.Due = relay.Due{}
	}
	d.InsertedAt = inserted.Time
	d.Unread, d.Size = size.Valid && payload == nil, int(size.Int32)
	var salt []byte
	if lower.Valid {
		k := domain.SaltKey{Lower: lower.Int64, Bits: int(bits.Int16)}
		copy(k.Key[:], key)
		salt = salts.of(d.Key.EventSeq, k)
	}
	d.Unreadable = decode(&d, eventID.String, &stream, routed, salt, payload, metadata)
	return d, nil
}

// decode completes a delivery from its log, its event's decision and payload.
func decode(d *relay.Delivery, eventID string, stream *stream, routed, salt, payload, metadata []byte) (err error) {
	if d.EventID, err = uuid.Parse(eventID); err != nil {
		return fmt.Errorf("the event's id: %w", err)
	}
	if d.State, err = stream.fold(); err != nil {
		return err
	}
	var decision struct {
		Event       string `json:"event"`
		OrderingKey string `json:"ordering_key"`
		Digest      string `json:"digest"`
	}
	if err := json.Unmarshal(routed, &decision); err != nil {
		return fmt.Errorf("the event's decision: %w", err)
	}
	d.Event, d.OrderingKey = decision.Event, decision.OrderingKey
	d.Traceparent = domain.Traceparent(metadata)
	// Every attempt sends the bytes that were routed, or none.
	if payload != nil {
		body, quarantine := domain.Body(d.Event, payload)
		if quarantine == domain.QuarantineNone && salt != nil && relay.Digest(salt, body) == decision.Digest {
			d.Body, d.Size = body, len(body)
		}
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

// stream is a delivery's: all entries, or the first one alone.
type stream struct {
	entries, scheduled []byte
	at                 sql.NullTime
}

func (s *stream) fold() (state domain.Delivery, err error) {
	if s.scheduled != nil {
		if !s.at.Valid {
			return state, errors.New("it was scheduled at no time")
		}
		event, err := domain.DecodeDelivery(domain.Entry{Type: domain.TypeScheduled, At: s.at.Time, Data: s.scheduled})
		if err != nil {
			return state, err
		}
		return domain.Evolve(state, event), nil
	}
	var all []struct {
		Type string          `json:"type"`
		At   time.Time       `json:"at"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(s.entries, &all); err != nil {
		return state, err
	}
	for _, entry := range all {
		event, err := domain.DecodeDelivery(domain.Entry{Type: entry.Type, At: entry.At, Data: entry.Data})
		if err != nil {
			return domain.Delivery{}, err
		}
		state = domain.Evolve(state, event)
	}
	return state, nil
}

// inShards is the condition that a webhook is in a set of shards.
func inShards(webhook, parameter string) string {
	return `(1::bigint << (` + webhook + ` & 63)::integer) & ` + parameter + `::bigint <> 0`
}

// The bounds of one read of batches: how many they are, and how many places of
// the outbox they reach over.
const batchesAtOnce, placesAtOnce = 32, 4096

const boundsQuery = outbox.PreparedMark + `
SELECT no, commit, seq_min, seq_max FROM relay.batches WHERE no >= $1 AND no <= $2 ORDER BY no LIMIT $3`

// batchesQuery finds what batches scheduled and nobody began: that entry is all
// there is of its stream. What must not be there is looked up for each row, by
// subqueries that cannot become joins: one of those would read all that waits.
//
// It runs for each batch that another relay routes, so each connection plans it
// once. Its conditions are such that the planner, who knows no values, has no
// index but that of the primary key.
var batchesQuery = outbox.PreparedMark + `
WITH d AS MATERIALIZED (
  SELECT l.event_seq, l.webhook_id, l.replay_id, 0 AS version, ''::text AS kind, NULL::timestamptz AS at, 0::bigint AS key, l.pos, 0::bigint AS starter, $5::bigint AS room,
         l.account_id, l.event_id::text AS event_id, l.data, CASE WHEN isfinite(l.at) THEN l.at END AS scheduled_at
    FROM relay.log l
   WHERE l.webhook_id > 0 AND l.replay_id = 0 AND l.version = 1` + inBatches("l.event_seq") + `
     AND l.pos >> 20 = ANY ($3::bigint[]) AND ` + inShards("l.webhook_id", "$4") + `
     AND (SELECT true FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = 2` + inBatches("n.event_seq") + ` LIMIT 1) IS NULL
     AND (SELECT true FROM relay.due w WHERE w.event_seq = l.event_seq AND w.webhook_id + 0 = l.webhook_id AND w.replay_id = l.replay_id AND w.version = 1 LIMIT 1) IS NULL)
` + readBack(`
       SELECT d.account_id, d.event_id, `+webhookVersion("d.data"), `
       SELECT NULL AS entries, d.data::text AS data, d.scheduled_at AS at`, inBatches, byPlace)

// Batches implements relay.Store. The batches' bounds are read first, so that
// partitions are pruned by their values.
func (s *Store) Batches(ctx context.Context, shards relay.Shards, from, to int64, room int) (found []relay.Delivery, last int64, err error) {
	type bounds struct{ no, commit, low, high int64 }
	all, err := list(ctx, s.db, func(row scanner) (b bounds, err error) {
		err = row.Scan(&b.no, &b.commit, &b.low, &b.high)
		return b, err
	}, boundsQuery, from, to, batchesAtOnce)
	if err != nil {
		return nil, 0, err
	}
	if len(all) == 0 || all[0].no != from {
		return nil, 0, fmt.Errorf("batch %d is not in the chain", from)
	}
	low, high, places := int64(math.MaxInt64), int64(-1), int64(0)
	var commits []int64
	for _, b := range all {
		if n := b.high - b.low + 1; n > 0 { // else it routed nothing
			if places += n; len(commits) > 0 && places > placesAtOnce {
				break
			}
			low, high = min(low, b.low), max(high, b.high)
			commits = append(commits, b.commit)
		}
		last = b.no
	}
	if len(commits) == 0 {
		return nil, last, nil
	}
	found, err = s.read(ctx, batchesQuery, low, high, pq.Array(commits), mask(shards), room)
	return found, last, err
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
