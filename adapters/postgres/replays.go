package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/relay"
)

// Replays keeps requests for replays. It implements relay.Replays.
type Replays struct{ db *sql.DB }

// NewReplays gives the replays of a database.
func NewReplays(db *sql.DB) *Replays { return &Replays{db} }

// Open implements relay.Replays.
func (r *Replays) Open(ctx context.Context) ([]relay.Replay, error) {
	rows, err := r.db.QueryContext(ctx, `SELECT replay_id, cursor FROM relay.replays WHERE state <> 'scheduled' ORDER BY replay_id`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var open []relay.Replay
	for rows.Next() {
		var replay relay.Replay
		if err := rows.Scan(&replay.ID, &replay.Cursor); err != nil {
			return nil, err
		}
		open = append(open, replay)
	}
	return open, rows.Err()
}

// nextQuery reads the next chat events of a selection and, for each, the
// webhooks that it was routed to, and those passed over as disabled or unreadable. $2 to $5
// bound the events by place, found from the chain, so that a range of time
// reads that range and no more.
const nextQuery = `
WITH ev AS MATERIALIZED (
  SELECT r.event_seq, r.pos, r.account_id, r.event_id, r.data FROM relay.log r
   WHERE r.webhook_id = 0 AND r.type = 'routed' AND r.event_seq > $1 AND r.event_seq BETWEEN $2 AND $3
     AND ($4::uuid[] IS NULL OR r.event_id = ANY ($4::uuid[]))
     AND ($5::bigint IS NULL OR r.account_id = $5::bigint)
     AND ($6::timestamptz IS NULL OR r.at >= $6::timestamptz) AND ($7::timestamptz IS NULL OR r.at < $7::timestamptz)
   ORDER BY r.event_seq LIMIT $9)
SELECT ev.event_seq, ev.pos, ev.account_id, ev.event_id::text, ev.data ->> 'event', coalesce(ev.data ->> 'ordering_key', ''), coalesce(t.webhook_id, 0)
  FROM ev LEFT JOIN LATERAL (
       SELECT l.webhook_id FROM relay.log l
        WHERE l.event_seq = ev.event_seq AND l.replay_id = 0 AND l.delivery_id IS NOT NULL
        UNION
       SELECT (k.skip ->> 'webhook_id')::bigint FROM json_array_elements(ev.data -> 'skips') AS k (skip) WHERE k.skip ->> 'reason' IN ('disabled', 'settings_unreadable')
       ) t ON $8::bigint IS NULL OR t.webhook_id = $8::bigint
 ORDER BY ev.pos, t.webhook_id`

// Next implements relay.Replays.
func (r *Replays) Next(ctx context.Context, replay relay.Replay, limit int) ([]relay.Delivery, int64, bool, error) {
	var (
		account, webhook sql.NullInt64
		ids              sql.NullString
		since, until     sql.NullTime
		low, high        int64
	)
	err := r.db.QueryRowContext(ctx, `
SELECT p.account_id, p.webhook_id, p.event_ids::text, p.since, p.until,
       CASE WHEN p.since IS NULL THEN 0 ELSE coalesce((SELECT min(b.seq_min) FROM relay.batches b WHERE b.at >= p.since AND b.at < p.until AND b.no > 0), 0) END,
       CASE WHEN p.since IS NULL THEN 9223372036854775807 ELSE coalesce((SELECT max(b.seq_max) FROM relay.batches b WHERE b.at >= p.since AND b.at < p.until AND b.no > 0), 0) END
  FROM relay.replays p WHERE p.replay_id = $1`, int64(replay.ID)).Scan(&account, &webhook, &ids, &since, &until, &low, &high)
	if err != nil {
		return nil, 0, false, err
	}
	rows, err := r.db.QueryContext(ctx, nextQuery, replay.Cursor, low, high, ids, account, since, until, webhook, limit)
	if err != nil {
		return nil, 0, false, err
	}
	defer func() { _ = rows.Close() }()
	var found []relay.Delivery
	var events []int64
	through := replay.Cursor
	for rows.Next() {
		var d relay.Delivery
		var eventID, event sql.NullString
		if err := rows.Scan(&d.Key.EventSeq, &d.Pos, &d.AccountID, &eventID, &event, &d.OrderingKey, &d.Key.WebhookID); err != nil {
			return nil, 0, false, err
		}
		through = max(through, d.Key.EventSeq)
		if !slices.Contains(events, d.Key.EventSeq) {
			events = append(events, d.Key.EventSeq)
		}
		if d.Key.WebhookID == 0 {
			continue
		}
		if d.EventID, err = uuid.Parse(eventID.String); err != nil {
			return nil, 0, false, err
		}
		d.Event = event.String
		found = append(found, d)
	}
	return found, through, len(events) == limit, rows.Err()
}

// Advance implements relay.Replays.
func (r *Replays) Advance(ctx context.Context, relayID int64, replay relay.Replay, through int64, scheduled int, finished bool) error {
	state := "running"
	if finished {
		state = "scheduled"
	}
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	// A fenced relay moves nothing: FOR SHARE waits for a take-over.
	var total int64
	err = tx.QueryRowContext(ctx, `
WITH fence AS (SELECT relay_id FROM relay.relays WHERE relay_id = $1 AND fenced_at IS NULL FOR SHARE)
UPDATE relay.replays p SET state = $3, cursor = $4, scheduled = p.scheduled + $5,
       finished_at = CASE WHEN $6 THEN clock_timestamp() END
  FROM fence WHERE p.replay_id = $2 RETURNING p.scheduled`, relayID, int64(replay.ID), state, through, scheduled, finished).Scan(&total)
	if err != nil {
		return err
	}
	if finished {
		data, err := json.Marshal(map[string]int64{"deliveries": total})
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `
INSERT INTO relay.replay_log (replay_id, version, account_id, type, actor, data)
SELECT p.replay_id, 2, p.account_id, 'scheduled', 'relay ' || $2::text, $3::json FROM relay.replays p WHERE p.replay_id = $1`,
			int64(replay.ID), relayID, string(data)); err != nil {
			return err
		}
	}
	return tx.Commit()
}
