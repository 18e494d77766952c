package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

const endingsQuery = `
SELECT coalesce((SELECT max(c.below) FROM relay.closings c), 0),
       ARRAY(SELECT x.event_seq FROM relay.erased x WHERE x.at IS NULL ORDER BY x.event_seq LIMIT 100000)`

// Endings implements relay.Store.
func (s *Store) Endings(ctx context.Context) (relay.Endings, error) {
	var e relay.Endings
	var events pq.Int64Array
	err := s.db.QueryRowContext(ctx, endingsQuery).Scan(&e.Below, &events)
	e.Events = events
	return e, err
}

// hurryBelow and hurryEvents change some rows that are due later. Those that the
// recorder has locked are on their way out: SKIP LOCKED, as in hurryQuery.
const hurryBelow = `
WITH next AS MATERIALIZED (
  SELECT event_seq, webhook_id, replay_id, version FROM relay.due
   WHERE event_seq < $1 AND at > $2::timestamptz ORDER BY event_seq LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE relay.due d SET at = $2::timestamptz FROM next n
 WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version
RETURNING d.webhook_id`

const hurryEvents = `
WITH next AS MATERIALIZED (
  SELECT event_seq, webhook_id, replay_id, version FROM relay.due
   WHERE event_seq = ANY ($1::bigint[]) AND at > $2::timestamptz LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE relay.due d SET at = $2::timestamptz FROM next n
 WHERE d.event_seq = n.event_seq AND d.webhook_id = n.webhook_id AND d.replay_id = n.replay_id AND d.version = n.version
RETURNING d.webhook_id`

// HurryEndings implements relay.Store.
func (s *Store) HurryEndings(ctx context.Context, endings relay.Endings, now time.Time) ([]domain.WebhookID, error) {
	now = now.UTC().Truncate(time.Microsecond)
	var all []domain.WebhookID
	hurry := func(query string, selection any) error {
		for {
			ids, err := list(ctx, s.db, func(row scanner) (id domain.WebhookID, err error) {
				err = row.Scan(&id)
				return id, err
			}, query, selection, now, hurryLimit)
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

// EndingsSeen implements relay.Store.
func (s *Store) EndingsSeen(ctx context.Context, relayID int64, endings relay.Endings) error {
	if _, err := s.db.ExecContext(ctx, `
UPDATE relay.closings SET seen_by = $1, seen_at = clock_timestamp() WHERE seen_at IS NULL AND below <= $2`, relayID, endings.Below); err != nil {
		return err
	}
	if len(endings.Events) == 0 {
		return nil
	}
	_, err := s.db.ExecContext(ctx, `
UPDATE relay.erased SET seen_by = $1, seen_at = clock_timestamp() WHERE seen_at IS NULL AND event_seq = ANY ($2::bigint[])`, relayID, pq.Array(endings.Events))
	return err
}
