package postgres

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// hurryLimit is how many rows one statement of Hurry changes. The recorder
// waits for their locks, and with it every webhook: that must be short.
const hurryLimit = 1000

// hurryAllQuery changes the next rows of a lane behind a place. Rows that the
// recorder has locked are on their way out: SKIP LOCKED, so that the two cannot
// wait for each other. All of a call get the same time, so that routing order
// counts. What a pause held is due before all else: it was before what overflowed
// meanwhile. What is in overflow waits for no time.
var hurryAllQuery = `
WITH next AS MATERIALIZED (
  SELECT u.event_seq, u.webhook_id, u.replay_id, u.version, u.at, u.pos FROM relay.due u
   WHERE u.webhook_id = $1 AND ` + laneOf("u") + ` = $2 AND (u.at, u.pos) > ($3::timestamptz, $4::bigint)
   ORDER BY u.at, u.pos LIMIT $5 FOR UPDATE SKIP LOCKED),
hurried AS (
  UPDATE relay.due d SET at = CASE d.kind WHEN 'p' THEN $7::timestamptz ELSE $6::timestamptz END FROM next n
   WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version)
SELECT n.at, n.pos FROM next n ORDER BY n.at DESC, n.pos DESC LIMIT 1`

// hurryPausedQuery does the same with what a pause holds, in the order of its
// own index: among a million retries that may be little. The place is the last
// row of the page before, since others may share it.
const hurryPausedQuery = `
WITH next AS MATERIALIZED (
  SELECT u.event_seq, u.webhook_id, u.replay_id, u.version, u.at, u.key, u.pos FROM relay.due u
   WHERE u.webhook_id = $1 AND u.kind = 'p' AND (u.key, u.pos) >= ($2::bigint, $3::bigint)
   ORDER BY u.key, u.pos LIMIT $4 FOR UPDATE SKIP LOCKED),
hurried AS (
  UPDATE relay.due d SET at = $5::timestamptz FROM next n
   WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version AND n.at > $5::timestamptz)
SELECT n.key, n.pos, count(*) OVER () FROM next n ORDER BY n.key DESC, n.pos DESC LIMIT 1`

// longAgo is longer than anything may wait.
const longAgo = 8 * 24 * time.Hour

// Hurry implements relay.Store.
func (s *Store) Hurry(ctx context.Context, webhook domain.WebhookID, all bool, now time.Time) error {
	now = now.UTC().Truncate(time.Microsecond)
	if !all {
		return s.hurryPaused(ctx, webhook, now.Add(-longAgo))
	}
	for _, lane := range []int{freshLane, replayLane} {
		place := relay.Cursor{At: now, Pos: math.MaxInt64}
		for {
			err := s.db.QueryRowContext(ctx, hurryAllQuery, int64(webhook), lane, place.At.UTC(), place.Pos, hurryLimit, now, now.Add(-longAgo)).Scan(&place.At, &place.Pos)
			if errors.Is(err, sql.ErrNoRows) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) hurryPaused(ctx context.Context, webhook domain.WebhookID, at time.Time) error {
	key, pos := int64(math.MinInt64), int64(math.MinInt64)
	for n := hurryLimit; n == hurryLimit; {
		err := s.db.QueryRowContext(ctx, hurryPausedQuery, int64(webhook), key, pos, hurryLimit, at).Scan(&key, &pos, &n)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
