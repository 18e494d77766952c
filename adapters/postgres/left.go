package postgres

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// leftLanesQuery finds each lane of each webhook of which something waits by one
// look-up behind the lane before: it reads one row of each, however many there
// are. at is the time of the first one.
var leftLanesQuery = `
WITH RECURSIVE lane AS (
  (SELECT d.webhook_id, ` + laneOf("d") + ` AS lane, d.at FROM relay.due d ORDER BY d.webhook_id, ` + laneOf("d") + `, d.at LIMIT 1)
  UNION ALL
  SELECT n.webhook_id, n.lane, n.at
    FROM lane l
   CROSS JOIN LATERAL (
         SELECT d.webhook_id, ` + laneOf("d") + ` AS lane, d.at FROM relay.due d
          WHERE (d.webhook_id, ` + laneOf("d") + `) > (l.webhook_id, l.lane) ORDER BY d.webhook_id, ` + laneOf("d") + `, d.at LIMIT 1) n)
SELECT l.webhook_id, l.lane, l.at <= $1::timestamptz FROM lane l WHERE ` + inShards("l.webhook_id", "$2")

// leftHeldQuery does the same for what is held.
var leftHeldQuery = `
WITH RECURSIVE held AS (
  (SELECT d.webhook_id, d.kind FROM relay.due d WHERE d.kind IN ('h', 'p') ORDER BY d.webhook_id, d.kind LIMIT 1)
  UNION ALL
  SELECT n.webhook_id, n.kind
    FROM held h
   CROSS JOIN LATERAL (
         SELECT d.webhook_id, d.kind FROM relay.due d
          WHERE d.kind IN ('h', 'p') AND (d.webhook_id, d.kind) > (h.webhook_id, h.kind) ORDER BY d.webhook_id, d.kind LIMIT 1) n)
SELECT h.webhook_id, h.kind = 'p' FROM held h WHERE ` + inShards("h.webhook_id", "$1")

// Left implements relay.Store.
func (s *Store) Left(ctx context.Context, shards relay.Shards, low int64, now time.Time) (left relay.Left, err error) {
	now = now.UTC().Truncate(time.Microsecond)
	// In one snapshot: another relay may still end attempts of these shards.
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return left, err
	}
	defer func() { _ = tx.Rollback() }()
	if left.Open, err = readDeliveries(ctx, tx, openQuery, low, mask(shards)); err != nil {
		return left, err
	}
	waiting := map[int64]*relay.Waiting{}
	of := func(webhook int64) *relay.Waiting {
		w := waiting[webhook]
		if w == nil {
			w = &relay.Waiting{WebhookID: domain.WebhookID(webhook)}
			waiting[webhook] = w
		}
		return w
	}
	var overflowing overflows
	type found struct {
		webhook int64
		lane    int
		yes     bool
	}
	lanes, err := list(ctx, tx, func(row scanner) (f found, err error) {
		err = row.Scan(&f.webhook, &f.lane, &f.yes)
		return f, err
	}, leftLanesQuery, now, mask(shards))
	if err != nil {
		return left, err
	}
	for _, f := range lanes {
		w := of(f.webhook)
		if f.lane < overflow {
			w.Timed = true
		} else {
			overflowing.add(f.webhook, f.lane)
		}
		if f.yes || f.lane >= overflow {
			w.Fresh, w.Replays = w.Fresh || f.lane%2 == freshLane, w.Replays || f.lane%2 == replayLane
		}
	}
	held, err := list(ctx, tx, func(row scanner) (f found, err error) {
		err = row.Scan(&f.webhook, &f.yes)
		return f, err
	}, leftHeldQuery, mask(shards))
	if err != nil {
		return left, err
	}
	for _, f := range held {
		w := of(f.webhook)
		w.Held, w.Paused = w.Held || !f.yes, w.Paused || f.yes
	}
	for _, id := range slices.Sorted(maps.Keys(waiting)) {
		left.Waiting = append(left.Waiting, *waiting[id])
	}
	if err := tx.Rollback(); err != nil {
		return left, err
	}
	return left, overflowing.lower(ctx, s.db, now)
}

// overflows are lanes with overflow.
type overflows struct{ webhooks, lanes []int64 }

func (o *overflows) add(webhook int64, lane int) {
	o.webhooks, o.lanes = append(o.webhooks, webhook), append(o.lanes, int64(lane))
}

// lowerStatement makes due now what is in overflow at a later time. All of it
// gets the same time, so that routing order counts.
var lowerStatement = `
WITH next AS MATERIALIZED (
  SELECT u.event_seq, u.webhook_id, u.replay_id, u.version
    FROM unnest($1::bigint[], $2::integer[]) AS l (webhook_id, lane)
   CROSS JOIN LATERAL (
         SELECT d.event_seq, d.webhook_id, d.replay_id, d.version FROM relay.due d
          WHERE d.webhook_id = l.webhook_id AND ` + laneOf("d") + ` = l.lane AND d.at > $3::timestamptz ORDER BY d.at, d.pos LIMIT $4) u
   LIMIT $4)
UPDATE relay.due d SET at = $3::timestamptz FROM next n
 WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version`

func (o *overflows) lower(ctx context.Context, db *sql.DB, now time.Time) error {
	for len(o.webhooks) > 0 {
		result, err := db.ExecContext(ctx, lowerStatement, pq.Array(o.webhooks), pq.Array(o.lanes), now, hurryLimit)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < hurryLimit {
			return err
		}
	}
	return nil
}

// blockedQuery reads what waits for its time of each webhook in the order of its
// lanes, so that it can stop, and tells of each ordering key how many it found,
// and of the webhook how many rows it read at most of a lane. A repeat that a
// pause held counts with the other repeats: its stream is scheduled, started,
// failed and held at the least.
var blockedQuery = `
SELECT w.id, b.key, b.failed, b.held, b.rows
  FROM unnest($1::bigint[]) AS w (id)
 CROSS JOIN LATERAL (
       SELECT u.key, count(*) FILTER (WHERE u.kind = 'r') AS failed, count(*) FILTER (WHERE u.kind = 'h') AS held,
              greatest(sum(count(*) FILTER (WHERE NOT u.replay)) OVER (), sum(count(*) FILTER (WHERE u.replay)) OVER ())::bigint AS rows
         FROM ((` + blockedIn("0") + `) UNION ALL (` + blockedIn("1") + `)) u
        GROUP BY u.key) b`

func blockedIn(lane string) string {
	return `
       SELECT CASE WHEN k.kind IN ('r', 'h') THEN d.key ELSE 0 END AS key, k.kind, d.replay_id > 0 AS replay
         FROM relay.due d
        CROSS JOIN LATERAL (
              SELECT CASE WHEN d.kind = 'p' AND d.version > 3 AND (
                     SELECT true FROM relay.log l
                      WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id AND l.type = 'attempt_started' LIMIT 1)
                     THEN 'r' ELSE d.kind END AS kind) k
        WHERE d.webhook_id = w.id AND ` + laneOf("d") + ` = ` + lane + `
          AND (d.event_seq, d.webhook_id, d.replay_id) NOT IN (SELECT k.event_seq, k.webhook_id, k.replay_id FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS k (event_seq, webhook_id, replay_id))
        ORDER BY d.at, d.pos LIMIT nullif($5::bigint, 0)`
}

// Blocked implements relay.Store. A plan that sorts would read all to give some:
// without statistics the planner may take one, so it is told not to.
func (s *Store) Blocked(ctx context.Context, webhooks []domain.WebhookID, but []domain.DeliveryKey, most int, take func(relay.Blocked)) (deep []domain.WebhookID, err error) {
	var columns [3][]int64
	for _, key := range but {
		for n, v := range [...]int64{key.EventSeq, int64(key.WebhookID), int64(key.ReplayID)} {
			columns[n] = append(columns[n], v)
		}
	}
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	if most > 0 {
		if _, err := tx.ExecContext(ctx, `SET LOCAL enable_sort = off`); err != nil {
			return nil, err
		}
	}
	rows, err := tx.QueryContext(ctx, blockedQuery, pq.Array(webhooks), pq.Array(columns[0]), pq.Array(columns[1]), pq.Array(columns[2]), most)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var b relay.Blocked
		var read int
		if err := rows.Scan(&b.WebhookID, &b.Order, &b.Failed, &b.Held, &read); err != nil {
			return nil, err
		}
		if most > 0 && read >= most && !slices.Contains(deep, b.WebhookID) {
			deep = append(deep, b.WebhookID)
		}
		if b.Order != 0 {
			take(b)
		}
	}
	return deep, rows.Err()
}
