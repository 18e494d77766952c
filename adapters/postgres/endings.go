package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// endingsMost is how many events a relay ends at a time. The others wait until
// these are erased.
const endingsMost = 100_000

// endingsQuery reads one more, which tells up to which version all are read.
const endingsQuery = `
WITH open AS MATERIALIZED (SELECT x.event_seq, x.version FROM relay.erased x WHERE x.at IS NULL ORDER BY x.version, x.event_seq LIMIT $1 + 1)
SELECT coalesce((SELECT max(c.below) FROM relay.closings c), 0), ARRAY(SELECT o.event_seq FROM open o ORDER BY o.version, o.event_seq LIMIT $1),
       (SELECT CASE WHEN (SELECT count(*) FROM open) > $1 THEN (SELECT max(o.version) FROM open o) - 1 ELSE e.version END FROM relay.endings e)`

// Endings implements relay.Store.
func (s *Store) Endings(ctx context.Context) (relay.Endings, error) {
	return s.endings(ctx, endingsMost)
}

func (s *Store) endings(ctx context.Context, most int) (relay.Endings, error) {
	var e relay.Endings
	var events pq.Int64Array
	err := s.db.QueryRowContext(ctx, endingsQuery, most).Scan(&e.Below, &events, &e.Version)
	e.Events = events
	return e, err
}

// hurryBelow and hurryEvents change some rows that are due later. Those that the
// recorder has locked are on their way out: SKIP LOCKED, as in hurryAllQuery.
var hurryBelow = `
WITH next AS MATERIALIZED (
  SELECT event_seq, webhook_id, replay_id, version FROM relay.due
   WHERE event_seq < $1 AND at > $2::timestamptz AND ` + inShards("webhook_id", "$4") + ` ORDER BY event_seq LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE relay.due d SET at = $2::timestamptz FROM next n
 WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version
RETURNING d.webhook_id`

var hurryEvents = `
WITH next AS MATERIALIZED (
  SELECT event_seq, webhook_id, replay_id, version FROM relay.due
   WHERE event_seq = ANY ($1::bigint[]) AND at > $2::timestamptz AND ` + inShards("webhook_id", "$4") + ` LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE relay.due d SET at = $2::timestamptz FROM next n
 WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version
RETURNING d.webhook_id`

// HurryEndings implements relay.Store.
func (s *Store) HurryEndings(ctx context.Context, endings relay.Endings, shards relay.Shards, now time.Time) ([]domain.WebhookID, error) {
	now = now.UTC().Truncate(time.Microsecond)
	var all []domain.WebhookID
	hurry := func(query string, selection any) error {
		for {
			ids, err := list(ctx, s.db, func(row scanner) (id domain.WebhookID, err error) {
				err = row.Scan(&id)
				return id, err
			}, query, selection, now, hurryLimit, mask(shards))
			for _, id := range ids {
				if !slices.Contains(all, id) {
					all = append(all, id)
				}
			}
			if err != nil || len(ids) < hurryLimit {
				return err
			}
		}
	}
	if endings.Below > 0 {
		if err := hurry(hurryBelow, endings.Below); err != nil {
			return all, err
		}
	}
	if len(endings.Events) > 0 {
		return all, hurry(hurryEvents, pq.Array(endings.Events))
	}
	return all, nil
}

const endingsSeenStatement = `
INSERT INTO relay.endings_seen (relay_id, version) VALUES ($1, $2)
    ON CONFLICT (relay_id) DO UPDATE SET version = greatest(relay.endings_seen.version, excluded.version), at = excluded.at`

// EndingsSeen implements relay.Store. A relay says it for itself alone, so that
// the conflict is with what it said before.
func (s *Store) EndingsSeen(ctx context.Context, relayID int64, endings relay.Endings) error {
	_, err := s.db.ExecContext(ctx, endingsSeenStatement, relayID, endings.Version)
	return err
}
