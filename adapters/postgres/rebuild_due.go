package postgres

import (
	"context"

	"github.com/lib/pq"
)

// dueCompared looks at those open deliveries again that have no due row, and at
// due rows that fit no delivery, in one snapshot with the relay's place. What
// needs no row is under way, or a first delivery of a batch behind the place of
// which nothing is on record but its beginning: it may be in memory. A row that
// is left has a version that its stream has passed.
const dueCompared = `
WITH place AS MATERIALIZED (
  SELECT coalesce((SELECT b.commit FROM relay.batches b WHERE b.no = (SELECT min(p.position) FROM relay.places p)), 0) AS commit),
open AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o (event_seq, webhook_id, replay_id))
SELECT 'missing', o.event_seq, o.webhook_id, o.replay_id
  FROM open o
 CROSS JOIN LATERAL (SELECT l.type, l.version FROM relay.log l
        WHERE l.event_seq = o.event_seq AND l.webhook_id = o.webhook_id AND l.replay_id = o.replay_id ORDER BY l.version DESC LIMIT 1) l
 CROSS JOIN LATERAL (SELECT b.pos FROM relay.log b
        WHERE b.event_seq = o.event_seq AND b.webhook_id = o.webhook_id AND b.replay_id = o.replay_id AND b.version = 1) b
 WHERE l.type NOT IN ('attempt_started', 'attempt_succeeded', 'dead', 'expired', 'cancelled')
   AND (o.replay_id > 0 OR l.version > 1 OR b.pos >> 20 <= (SELECT p.commit FROM place p))
   AND (SELECT true FROM relay.due d WHERE d.event_seq = o.event_seq AND d.webhook_id + 0 = o.webhook_id AND d.replay_id = o.replay_id AND d.version = l.version LIMIT 1) IS NULL
UNION ALL
SELECT 'surplus', d.event_seq, d.webhook_id, d.replay_id
  FROM relay.due d
 WHERE (SELECT l.version FROM relay.log l
         WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id ORDER BY l.version DESC LIMIT 1) IS DISTINCT FROM d.version`

// compareDue compares the due table with the deliveries that are open. It mends
// nothing: rows are its owner's, which has read what it has read. A relay that
// starts, or takes over, reads them anew.
func (f *folding) compareDue(ctx context.Context) (Rebuilt, error) {
	due := Rebuilt{Projection: "due"}
	events, webhooks, replays := make([]int64, len(f.open)), make([]int64, len(f.open)), make([]int64, len(f.open))
	for i, o := range f.open {
		events[i], webhooks[i], replays[i] = o.key.EventSeq, int64(o.key.WebhookID), int64(o.key.ReplayID)
	}
	rows, err := f.conn.QueryContext(ctx, dueCompared, pq.Array(events), pq.Array(webhooks), pq.Array(replays))
	if err != nil {
		return due, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var what string
		var seq, webhook, replay int64
		if err := rows.Scan(&what, &seq, &webhook, &replay); err != nil {
			return due, err
		}
		due.differs(false, "%s: event_seq %d, webhook %d, replay %d", what, seq, webhook, replay)
	}
	if err := rows.Err(); err != nil {
		return due, err
	}
	return due, f.conn.QueryRowContext(ctx, `SELECT count(*) FROM relay.due`).Scan(&due.Rows)
}
