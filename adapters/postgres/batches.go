package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// The bounds of one read of batches: how many they are, and how many places of
// the outbox they reach over.
const batchesAtOnce, placesAtOnce = 32, 4096

const boundsQuery = outbox.PreparedMark + `
SELECT no, commit, seq_min, seq_max FROM relay.batches WHERE no >= $1 AND no <= $2 ORDER BY no LIMIT $3`

// batchesQuery finds what batches scheduled and nobody began: that entry is all
// there is of its stream. What must not be there is looked up for each row, by
// subqueries that cannot become joins: one of those would read all that waits.
// Where nothing of the kind is between the batches' bounds, no row is looked up.
//
// It runs for each batch that another relay routes, so each connection plans it
// once. Its conditions are such that the planner, who knows no values, has no
// index but that of the primary key.
var batchesQuery = outbox.PreparedMark + `
WITH d AS MATERIALIZED (
  SELECT l.event_seq, l.webhook_id, l.pos, l.account_id, l.event_id, l.data, CASE WHEN isfinite(l.at) THEN l.at END AS at, $5::bigint AS room
    FROM relay.log l
   WHERE l.webhook_id > 0 AND l.replay_id = 0 AND l.version = 1` + inBatches("l.event_seq") + `
     AND l.pos >> 20 = ANY ($3::bigint[]) AND ` + inShards("l.webhook_id", "$4") + `
     AND ((SELECT true FROM relay.log n WHERE n.webhook_id > 0 AND n.replay_id = 0 AND n.version = 2` + inBatches("n.event_seq") + ` AND ` + inShards("n.webhook_id", "$4") + ` LIMIT 1) IS NULL OR
          (SELECT true FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = 2` + inBatches("n.event_seq") + ` LIMIT 1) IS NULL)
     AND ((SELECT true FROM relay.due w WHERE w.webhook_id + 0 > 0 AND w.replay_id = 0 AND w.version = 1` + inBatches("w.event_seq") + ` LIMIT 1) IS NULL OR
          (SELECT true FROM relay.due w WHERE w.event_seq = l.event_seq AND w.webhook_id + 0 = l.webhook_id AND w.replay_id = l.replay_id AND w.version = 1 LIMIT 1) IS NULL))
SELECT d.event_seq, d.webhook_id, d.pos, d.account_id, d.event_id, d.data, d.at, ` + withEvent(byPlace) + `
  FROM d
 CROSS JOIN LATERAL (SELECT ` + webhookVersion("d.data") + `) s` + event(inBatches) + `
 ORDER BY ` + byPlace

// inBatches bounds a place to those of batchesQuery.
func inBatches(seq string) string { return ` AND ` + seq + ` >= $1 AND ` + seq + ` <= $2` }

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
	found, err = scanBatches(ctx, s.db, low, high, pq.Array(commits), mask(shards), room)
	return found, last, err
}

// scanBatches reads what batchesQuery finds.
func scanBatches(ctx context.Context, db querier, args ...any) ([]relay.Delivery, error) {
	var (
		d             relay.Delivery
		eventID, data sql.RawBytes
		at            sql.NullTime
	)
	return scanDeliveries(ctx, db, &d, func() error {
		if err := readID(&d, eventID); err != nil {
			return err
		}
		if !at.Valid {
			return errors.New("it was scheduled at no time")
		}
		scheduled, err := domain.DecodeDelivery(domain.Entry{Type: domain.TypeScheduled, At: at.Time, Data: data})
		if err == nil {
			d.State = domain.Evolve(d.State, scheduled)
		}
		return err
	}, []any{&d.Key.EventSeq, &d.Key.WebhookID, &d.Pos, &d.AccountID, &eventID, &data, &at}, batchesQuery, args...)
}
