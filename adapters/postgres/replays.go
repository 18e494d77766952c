package postgres

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// Replays keeps plans of replays and how far they are. It implements
// relay.Replays.
type Replays struct{ db *sql.DB }

// NewReplays gives the replays of a database.
func NewReplays(db *sql.DB) *Replays { return &Replays{db} }

const openReplaysQuery = `
SELECT replay_id, CASE state WHEN 'requested' THEN 'running' ELSE state END, coalesce(rate, 0)
  FROM relay.replays WHERE state IN ('requested', 'running', 'paused', 'cancelling') ORDER BY replay_id`

// Open implements relay.Replays. What is requested runs: counting it says so.
func (r *Replays) Open(ctx context.Context) ([]relay.Replay, error) {
	return list(ctx, r.db, func(row scanner) (o relay.Replay, err error) {
		err = row.Scan(&o.ID, &o.State, &o.Rate)
		return o, err
	}, openReplaysQuery)
}

var streamsQuery = `
SELECT webhook_id, cursor, drained FROM relay.replay_streams WHERE replay_id = $1 AND ` + inShards("webhook_id", "$2") + ` ORDER BY webhook_id`

// Streams implements relay.Replays.
func (r *Replays) Streams(ctx context.Context, replay domain.ReplayID, shards relay.Shards) ([]relay.ReplayStream, error) {
	return list(ctx, r.db, func(row scanner) (s relay.ReplayStream, err error) {
		err = row.Scan(&s.WebhookID, &s.Cursor, &s.Drained)
		return s, err
	}, streamsQuery, int64(replay), mask(shards))
}

// Undrained implements relay.Replays.
func (r *Replays) Undrained(ctx context.Context, replay domain.ReplayID) (n int, err error) {
	err = r.db.QueryRowContext(ctx, `SELECT count(*) FROM relay.replay_streams WHERE replay_id = $1 AND NOT drained`, int64(replay)).Scan(&n)
	return n, err
}

// unbegunQuery finds what waits in each webhook's lane of replays and is no
// retry. It may find some that had an attempt, and were paused since.
var unbegunQuery = `
SELECT d.event_seq, d.webhook_id
  FROM unnest($2::bigint[]) AS w (id)
 CROSS JOIN LATERAL (
      (SELECT u.event_seq, u.webhook_id FROM relay.due u
        WHERE u.webhook_id = w.id AND ` + laneOf("u") + ` = 3 AND u.replay_id = $1 ORDER BY u.at, u.pos LIMIT $3)
       UNION ALL
      (SELECT u.event_seq, u.webhook_id FROM relay.due u
        WHERE u.webhook_id = w.id AND ` + laneOf("u") + ` = 1 AND u.replay_id = $1 AND u.kind <> 'r' ORDER BY u.at, u.pos LIMIT $3)
       LIMIT $3) d`

// Unbegun implements relay.Replays.
func (r *Replays) Unbegun(ctx context.Context, replay domain.ReplayID, webhooks []domain.WebhookID, limit int) ([]domain.DeliveryKey, error) {
	return list(ctx, r.db, func(row scanner) (domain.DeliveryKey, error) {
		key := domain.DeliveryKey{ReplayID: replay}
		err := row.Scan(&key.EventSeq, &key.WebhookID)
		return key, err
	}, unbegunQuery, int64(replay), pq.Array(webhooks), limit)
}

// nextQuery reads plans forward by their key. Each delivery's event, and
// whether the delivery has begun, are look-ups by key as well: LATERAL with
// LIMIT keeps them so, whatever the statistics say (see event). The last one
// compares with d.replay_id: with $1 the planner might walk all entries of the
// replay.
const nextQuery = outbox.PreparedMark + `
SELECT d.webhook_id, d.pos, d.event_seq, coalesce(e.account_id, 0), coalesce(e.event_id::text, ''), coalesce(e.data ->> 'event', ''),
       coalesce(e.data ->> 'ordering_key', ''), b.begun IS NOT NULL, b.begun IS NULL AND (e.event_id IS NULL OR e.gone)
  FROM unnest($2::bigint[], $3::bigint[], $4::integer[]) AS s (webhook_id, cursor, n)
 CROSS JOIN LATERAL (
       SELECT p.replay_id, p.webhook_id, p.pos, p.event_seq FROM relay.replay_deliveries p
        WHERE p.replay_id = $1 AND p.webhook_id = s.webhook_id AND p.pos > s.cursor ORDER BY p.pos LIMIT s.n) d
  LEFT JOIN LATERAL (
       SELECT l.account_id, l.event_id, l.data,
              (SELECT true FROM outbox.events o WHERE o.seq >= d.event_seq AND o.seq <= d.event_seq ORDER BY o.seq LIMIT 1) IS NULL
              OR (SELECT true FROM relay.erased x WHERE x.event_seq = d.event_seq AND x.at IS NOT NULL LIMIT 1) IS NOT NULL AS gone
         FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = (SELECT 0) AND l.replay_id = 0 AND l.version = 1 LIMIT 1) e ON true
  LEFT JOIN LATERAL (
       SELECT true AS begun FROM relay.log l
        WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id AND l.version = 1 LIMIT 1) b ON true
 ORDER BY d.pos, d.webhook_id`

// Next implements relay.Replays.
func (r *Replays) Next(ctx context.Context, replay domain.ReplayID, streams []relay.ReplayStream, limits []int) ([]relay.ReplayDelivery, error) {
	var webhooks, cursors []int64
	for _, s := range streams {
		webhooks, cursors = append(webhooks, int64(s.WebhookID)), append(cursors, s.Cursor)
	}
	return list(ctx, r.db, func(row scanner) (d relay.ReplayDelivery, err error) {
		var eventID string
		d.Key.ReplayID = replay
		if err = row.Scan(&d.Key.WebhookID, &d.Pos, &d.Key.EventSeq, &d.AccountID, &eventID, &d.Event, &d.OrderingKey, &d.Begun, &d.Gone); err != nil {
			return d, err
		}
		if !d.Gone && !d.Begun {
			d.EventID, err = uuid.Parse(eventID)
		}
		return d, err
	}, nextQuery, int64(replay), pq.Array(webhooks), pq.Array(cursors), pq.Array(limits))
}

// advanceQuery gives no row for a relay that is fenced, and changes nothing: FOR
// SHARE waits for a take-over, and makes one wait. Nor does it move a stream that
// is not where the step began: another relay has it now, or had it meanwhile, and
// counted what lies between.
const advanceQuery = `
WITH fence AS MATERIALIZED (SELECT relay_id FROM relay.relays WHERE relay_id = $1 AND fenced_at IS NULL FOR SHARE),
moved AS (
  UPDATE relay.replay_streams s SET cursor = m.cursor, scheduled = s.scheduled + m.scheduled, gone = s.gone + m.gone, drained = m.drained
    FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::boolean[]) AS m (webhook_id, began, cursor, scheduled, gone, drained), fence
   WHERE s.replay_id = $2 AND s.webhook_id = m.webhook_id AND s.cursor = m.began AND NOT s.drained
  RETURNING s.webhook_id)
SELECT (SELECT count(*) FROM moved) FROM fence`

// Advance implements relay.Replays.
func (r *Replays) Advance(ctx context.Context, relayID int64, replay domain.ReplayID, steps []relay.ReplayStep) (all bool, err error) {
	columns := make([][]int64, 5)
	drained := make([]bool, len(steps))
	for i, s := range steps {
		for n, v := range [...]int64{int64(s.WebhookID), s.From, s.Cursor, int64(s.Scheduled), int64(s.Gone)} {
			columns[n] = append(columns[n], v)
		}
		drained[i] = s.Drained
	}
	args := []any{relayID, int64(replay)}
	for _, column := range columns {
		args = append(args, pq.Array(column))
	}
	var moved int
	err = r.db.QueryRowContext(ctx, advanceQuery, append(args, pq.Array(drained))...).Scan(&moved)
	if errors.Is(err, sql.ErrNoRows) {
		err = relay.ErrFenced
	}
	return moved == len(steps), err
}

// Count implements relay.Replays.
func (r *Replays) Count(ctx context.Context, relayID int64, replay domain.ReplayID) (relay.ReplayState, error) {
	var state sql.NullString
	err := r.db.QueryRowContext(ctx, `SELECT relay.count_replay($1, $2)`, relayID, int64(replay)).Scan(&state)
	if err == nil && !state.Valid {
		err = relay.ErrFenced
	}
	return relay.ReplayState(state.String), err
}

// hurryReplayQuery does for a replay what hurryAllQuery does for a webhook.
var hurryReplayQuery = `
WITH next AS MATERIALIZED (
  SELECT d.event_seq, d.webhook_id, d.version
    FROM unnest($2::bigint[]) AS w (id)
   CROSS JOIN LATERAL (
         SELECT u.event_seq, u.webhook_id, u.version FROM relay.due u
          WHERE u.webhook_id = w.id AND ` + laneOf("u") + ` = 1 AND u.at > $3::timestamptz AND u.replay_id = $1 AND (u.kind = 'p' OR $4)
          ORDER BY u.at, u.pos LIMIT $5 FOR UPDATE SKIP LOCKED) d
   LIMIT $5)
UPDATE relay.due d SET at = CASE d.kind WHEN 'p' THEN $6::timestamptz ELSE $3::timestamptz END FROM next n
 WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = $1 AND d.version = n.version`

var waitingOfReplayQuery = `
SELECT w.id FROM unnest($2::bigint[]) AS w (id)
 WHERE coalesce((SELECT true FROM relay.due u WHERE u.webhook_id = w.id AND ` + laneOf("u") + ` = 1 AND u.at <= $3::timestamptz AND u.replay_id = $1 AND (u.kind = 'p' OR $4) ORDER BY u.at, u.pos LIMIT 1),
       $4 AND (SELECT true FROM relay.due u WHERE u.webhook_id = w.id AND ` + laneOf("u") + ` = 3 AND u.replay_id = $1 ORDER BY u.at, u.pos LIMIT 1))`

// Hurry implements relay.Replays.
func (r *Replays) Hurry(ctx context.Context, replay domain.ReplayID, webhooks []domain.WebhookID, all bool, now time.Time) ([]domain.WebhookID, error) {
	at := now.UTC().Truncate(time.Microsecond)
	for {
		result, err := r.db.ExecContext(ctx, hurryReplayQuery, int64(replay), pq.Array(webhooks), at, all, hurryLimit, at.Add(-longAgo))
		if err != nil {
			return nil, err
		}
		if n, err := result.RowsAffected(); err != nil {
			return nil, err
		} else if n == 0 {
			break
		}
	}
	return list(ctx, r.db, func(row scanner) (id domain.WebhookID, err error) {
		err = row.Scan(&id)
		return id, err
	}, waitingOfReplayQuery, int64(replay), pq.Array(webhooks), at, all)
}
