package bench

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// historyBatch is how many events a batch of the history has, as a relay's.
const historyBatch = 1000

// entriesOfEach are what a relay writes for an event that was delivered at
// once: routed, scheduled, attempt_started, attempt_succeeded.
const entriesOfEach = 4

// historyEvents inserts events as of some time ago. The defaults draw xid and
// seq, in this order.
const historyEvents = `
INSERT INTO outbox.events (account_id, event, payload, inserted_at)
SELECT $1::bigint + i % $2::int, $3::text,
       ('{"run":"0000","n":"' || lpad(i::text, $4::int, '0') || '","conversation":{"id":' || i % $5::int || '},"content":"' || $6::text || '"}')::json,
       $7::timestamptz + (i - $8::int) * interval '1 millisecond'
  FROM generate_series($8::int, $9::int - 1) i`

// historyEntries writes the log of the events above seq $1. Each batch took
// three group commits: decisions and schedules, starts, outcomes.
const historyEntries = `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
SELECT e.seq, CASE k.type WHEN 'routed' THEN 0 ELSE e.hook END, 0, e.account_id,
       (($2::bigint + 3 * (e.n / $3::int) + k.step) << 20) + e.n % $3::int + 1 + CASE k.type WHEN 'scheduled' THEN $3::int ELSE 0 END,
       $4::bigint, e.inserted_at + k.step * interval '1 millisecond', k.version, k.type, k.data,
       CASE k.type WHEN 'routed' THEN 'routed' END,
       CASE WHEN k.step = 0 THEN e.id END,
       CASE k.type WHEN 'scheduled' THEN outbox.new_event_id() END
  FROM (SELECT seq, account_id, id, inserted_at, ($5::bigint[])[account_id - $6::bigint + 1] AS hook, (row_number() OVER (ORDER BY seq) - 1)::bigint AS n
          FROM outbox.events WHERE seq > $1::bigint) e,
       (VALUES (0, 1, 'routed', $7::json), (0, 1, 'scheduled', $8::json), (1, 2, 'attempt_started', $9::json), (2, 3, 'attempt_succeeded', $10::json))
       AS k (step, version, type, data)`

// historyLinks writes the chain over the events above seq $1, in windows that
// were complete with one batch.
const historyLinks = `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT h.no + b.n + 1, h.no + b.n, pg_current_snapshot(), 0, b.low - 1, b.low - 1, b.high, b.low - 1, b.low, b.high, $2::bigint + 3 * b.n, $3::bigint, b.at
  FROM (SELECT max(no) AS no FROM relay.batches) h,
       (SELECT n / $4::int AS n, min(seq) AS low, max(seq) AS high, max(inserted_at) AS at
          FROM (SELECT seq, inserted_at, row_number() OVER (ORDER BY seq) - 1 AS n FROM outbox.events WHERE seq > $1::bigint) e
         GROUP BY n / $4::int) b`

// historyHead ends the chain where a relay stopped that had nothing left to
// do: all that is committed is consumed.
const historyHead = `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
SELECT no + 1, no, pg_current_snapshot(), 0, high, high, high, high, 0, -1, nextval('relay.commits'), relay_id
  FROM relay.batches ORDER BY no DESC LIMIT 1`

const historyPlace = `
UPDATE relay.slots SET position = (SELECT max(no) FROM relay.batches), low = (SELECT last_value + 1 FROM relay.commits) << 20`

// history writes what a relay had written after delivering events, each at
// once, over the last ten days. It is for a database without a history.
func (r *Run) history(ctx context.Context, db *Database, events int, progress Progress) error {
	const most, days = 50_000, 10
	var writer int64
	err := db.DB.QueryRowContext(ctx, `
INSERT INTO relay.relays (name, version, fenced_at, recorder) VALUES ('outrider bench', '', clock_timestamp(), 0) RETURNING relay_id`).Scan(&writer)
	if err != nil {
		return fmt.Errorf("prepare the history: %w", err)
	}
	begun := time.Now().Add(-days * 24 * time.Hour)
	for from := 0; from < events; from += most {
		progress.Step, progress.Done, progress.All = "preparing a history", from, events
		r.Progress(progress)
		if err := extendPartitions(ctx, db.DB); err != nil {
			return err
		}
		at := begun.Add(time.Duration(float64(from) / float64(events) * float64(time.Since(begun))))
		if err := historyStep(ctx, db, writer, from, min(from+most, events), at); err != nil {
			return fmt.Errorf("prepare the history: %w", err)
		}
	}
	progress.Step, progress.Done, progress.All = "preparing a history: vacuum", 0, 0
	r.Progress(progress)
	for _, statement := range []string{historyHead, historyPlace, `VACUUM ANALYZE`, `CHECKPOINT`} {
		if _, err := db.DB.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("prepare the history: %w", err)
		}
	}
	return extendPartitions(ctx, db.DB)
}

// historyStep writes events from to to.
func historyStep(ctx context.Context, db *Database, writer int64, from, to int, at time.Time) error {
	tx, err := db.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var before, commit int64
	commits := 3 * ((to - from + historyBatch - 1) / historyBatch)
	err = tx.QueryRowContext(ctx, `
SELECT coalesce((SELECT max(seq) FROM outbox.events), 0), setval('relay.commits', nextval('relay.commits') + $1) - $1`, commits).Scan(&before, &commit)
	if err != nil {
		return err
	}
	entries := historyData(at)
	for _, step := range []struct {
		query string
		args  []any
	}{
		{historyEvents, []any{FirstAccount, Accounts, EventName, numberDigits, conversations, filler, at, from, to}},
		{historyEntries, []any{before, commit, historyBatch, writer, bigints(db.Webhooks), FirstAccount, entries[0], entries[1], entries[2], entries[3]}},
		{historyLinks, []any{before, commit, writer, historyBatch}},
	} {
		if _, err := tx.ExecContext(ctx, step.query, step.args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// historyData are the entries' data, of one event for all: their size is what
// costs.
func historyData(at time.Time) [entriesOfEach]string {
	const version, digest = 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	return [...]string{
		string(domain.EncodeRouted(domain.Routed{
			Routing:   domain.Routing{Kind: domain.RoutingRouted, Targets: make([]domain.Target, 1)},
			EventName: EventName, OrderingKey: "conversation:1234", ConfigVersion: version, BodyBytes: bodyBytes, Digest: digest,
		})),
		string(domain.EncodeDelivery(domain.Scheduled{At: at, Deadline: at.Add(domain.Deadline(EventName)), WebhookVersion: version}).Data),
		string(domain.EncodeDelivery(domain.AttemptStarted{At: at, Attempt: 1, WebhookVersion: version, Timeout: hangFor}).Data),
		string(domain.EncodeDelivery(domain.AttemptSucceeded{At: at, Attempt: 1, Outcome: domain.Outcome{
			Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: 3 * time.Millisecond, RemoteIP: "127.0.0.1",
		}}).Data),
	}
}

// extendPartitions keeps partitions ahead, as a relay does.
func extendPartitions(ctx context.Context, db *sql.DB) error {
	const enough = 100
	for range enough {
		var step string
		if err := db.QueryRowContext(ctx, `SELECT relay.extend_partitions()`).Scan(&step); err != nil {
			return fmt.Errorf("extend the partitions: %w", err)
		}
		if step == "nothing to do" {
			return nil
		}
	}
	return fmt.Errorf("partitions are not ahead after %d steps", enough)
}

// bigints gives an array's literal.
func bigints(list []int64) string {
	text := []byte{'{'}
	for i, v := range list {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, "%d", v)
	}
	return string(append(text, '}'))
}
