package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// Log appends to the log. It implements relay.Log.
type Log struct{ db *sql.DB }

// NewLog gives the log of a database.
func NewLog(db *sql.DB) *Log { return &Log{db} }

// recordStatement writes entries and moves due rows, or nothing where the
// relay is fenced: then it gives no row. FOR SHARE makes a take-over wait for
// it, and makes it wait for a take-over and see its result.
const recordStatement = `
WITH fence AS MATERIALIZED (
  SELECT relay_id FROM relay.relays WHERE relay_id = $13::bigint AND fenced_at IS NULL FOR SHARE),
c AS MATERIALIZED (SELECT nextval('relay.commits') AS commit FROM fence),
entry AS (
  INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, salt, excerpt)
  SELECT e.event_seq, e.webhook_id, e.replay_id, e.account_id, (c.commit << 20) + e.ord, $13::bigint, e.at, e.version, e.type, e.data::json,
         e.event_id, e.delivery_id, e.salt, e.excerpt
    FROM ` + entryColumns + `, c),
over AS (
  DELETE FROM relay.due d
   USING unnest($14::bigint[], $15::bigint[], $16::bigint[], $17::integer[]) AS o (event_seq, webhook_id, replay_id, version), fence
   WHERE d.event_seq = o.event_seq AND d.webhook_id = o.webhook_id AND d.replay_id = o.replay_id AND d.version = o.version),
wait AS (
  INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
  SELECT w.event_seq, w.webhook_id, w.replay_id, w.version, w.kind::"char", w.at, CASE w.pos WHEN 0 THEN (c.commit << 20) + w.entry ELSE w.pos END, w.key
    FROM unnest($18::bigint[], $19::bigint[], $20::bigint[], $21::integer[], $22::text[], $23::timestamptz[], $24::bigint[], $25::bigint[], $26::bigint[])
         AS w (event_seq, webhook_id, replay_id, version, kind, at, pos, key, entry), c)
SELECT commit FROM c`

// Record implements relay.Log.
func (l *Log) Record(ctx context.Context, relayID int64, changes []relay.Change) (int64, error) {
	e := newEntries(2 * len(changes))
	ends := [4]*array{newArray(0), newArray(0), newArray(0), newArray(0)}
	waits := [9]*array{newArray(0), newArray(0), newArray(0), newArray(0), newArray(0), newArray(0), newArray(0), newArray(0), newArray(0)}
	ord := int64(0)
	for i := range changes {
		c := &changes[i]
		first := ord + 1
		for n, entry := range c.Entries {
			ord++
			e.seq.integer(c.Key.EventSeq)
			e.webhook.integer(int64(c.Key.WebhookID))
			e.replay.integer(int64(c.Key.ReplayID))
			e.account.integer(int64(c.AccountID))
			e.version.integer(int64(c.First + n))
			e.at.time(entry.At)
			e.kind.string([]byte(entry.Type))
			e.data.string(entry.Data)
			if entry.Type == domain.TypeScheduled {
				e.event.uuid(c.EventID)
				e.delivery.uuid(domain.NewDeliveryID(domain.NewNotificationID(c.AccountID, c.EventID, c.Key.WebhookID), c.Key.EventSeq, c.Key.ReplayID))
			} else {
				e.event.null()
				e.delivery.null()
			}
			e.salt.null()
			if entry.Excerpt == "" {
				e.excerpt.null()
			} else {
				e.excerpt.string([]byte(entry.Excerpt))
			}
		}
		if c.Ends != 0 {
			ends[0].integer(c.Key.EventSeq)
			ends[1].integer(int64(c.Key.WebhookID))
			ends[2].integer(int64(c.Key.ReplayID))
			ends[3].integer(int64(c.Ends))
		}
		if w := c.Waits; w.Kind != relay.DueNone {
			waits[0].integer(w.Key.EventSeq)
			waits[1].integer(int64(w.Key.WebhookID))
			waits[2].integer(int64(w.Key.ReplayID))
			waits[3].integer(int64(w.Version))
			waits[4].string([]byte{byte(w.Kind)})
			waits[5].time(w.At)
			waits[6].integer(w.Pos)
			waits[7].integer(w.Order)
			waits[8].integer(first)
		}
	}
	args := append(e.args(), relayID)
	for _, a := range ends {
		args = append(args, a)
	}
	for _, a := range waits {
		args = append(args, a)
	}
	var commit int64
	err := l.db.QueryRowContext(ctx, recordStatement, args...).Scan(&commit)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, relay.ErrFenced
	case err != nil:
		return 0, classify(err)
	}
	return commit, nil
}

// classify tells what trying again would bring.
func classify(err error) error {
	var pg *pq.Error
	if !errors.As(err, &pg) {
		return err
	}
	switch code := string(pg.Code); {
	case code == "23505": // unique_violation: the stream has that version
		return fmt.Errorf("%w: %w", relay.ErrConflict, err)
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "23"), strings.HasPrefix(code, "54"): // data, constraint, program limit
		return fmt.Errorf("%w: %w", relay.ErrRefused, err)
	}
	return err
}

// Written implements relay.Log. The time tells this change from another one of
// the same relay that was faster.
func (l *Log) Written(ctx context.Context, relayID int64, change relay.Change) (bool, error) {
	if len(change.Entries) == 0 {
		var due bool
		err := l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM relay.due WHERE event_seq = $1 AND webhook_id = $2 AND replay_id = $3 AND version = $4 AND at = $5::timestamptz)`,
			change.Key.EventSeq, int64(change.Key.WebhookID), int64(change.Key.ReplayID), change.Waits.Version, change.Waits.At.UTC().Truncate(time.Microsecond)).Scan(&due)
		return due, err
	}
	var written int
	err := l.db.QueryRowContext(ctx, `
SELECT count(*) FROM relay.log
 WHERE event_seq = $1 AND webhook_id = $2 AND replay_id = $3 AND version = $4 AND writer = $5 AND type = $6 AND at = $7::timestamptz`,
		change.Key.EventSeq, int64(change.Key.WebhookID), int64(change.Key.ReplayID), change.First, relayID, change.Entries[0].Type,
		change.Entries[0].At.UTC().Truncate(time.Microsecond)).Scan(&written)
	return written == 1, err
}
