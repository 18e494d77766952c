package postgres

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// Projection keeps the statistics of webhooks. It implements relay.Projection.
type Projection struct{ db *sql.DB }

// NewProjection gives the statistics of a database.
func NewProjection(db *sql.DB) *Projection { return &Projection{db} }

var _ relay.Projection = (*Projection)(nil)

// fenced is the relay's row, held so that a take-over waits for what is written
// under it. It is none where the relay is fenced: then nothing is written.
const fenced = `
fence AS MATERIALIZED (SELECT relay_id FROM relay.relays WHERE relay_id = $1::bigint AND fenced_at IS NULL FOR SHARE)`

const beginStatement = `
WITH ` + fenced + `
INSERT INTO relay.projected (writer, commit, batch, low) SELECT relay_id, 0, 0, $2::bigint FROM fence`

// Begin implements relay.Projection.
func (p *Projection) Begin(ctx context.Context, relayID, low int64) error {
	result, err := p.db.ExecContext(ctx, beginStatement, relayID, low)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return relay.ErrFenced
}

// Batch implements relay.Projection. Who tailed before is fenced, or adds no
// batch any more: it does not move.
func (p *Projection) Batch(ctx context.Context) (batch int64, err error) {
	err = p.db.QueryRowContext(ctx, `
SELECT coalesce((SELECT max(p.batch) FROM relay.projected p), (SELECT max(b.no) FROM relay.batches b), 0)`).Scan(&batch)
	return batch, err
}

// tallyColumns are the rows of a tally, as arrays.
type tallyColumns struct {
	webhook, account                                                     []int64
	success, failure, since                                              []sql.NullString
	failures, pending                                                    []int64
	slotWebhook, slotAccount, begin                                      []int64
	succeeded, failed, unknown, dead, expired, cancelled, first, isWhole []int64
	scheduled                                                            []int64
	latency, latencyN                                                    []string
}

func (c *tallyColumns) standing(id domain.WebhookID, account domain.AccountID, s domain.Standing) {
	if s == (domain.Standing{}) {
		return
	}
	c.webhook, c.account = append(c.webhook, int64(id)), append(c.account, int64(account))
	c.success, c.failure = append(c.success, instant(s.LastSuccessAt)), append(c.failure, instant(s.LastFailureAt))
	c.failures, c.pending = append(c.failures, s.Failures), append(c.pending, s.Pending)
	c.since = append(c.since, instant(s.FailingSince))
}

func (c *tallyColumns) slot(id domain.WebhookID, account domain.AccountID, begin int64, whole bool, s *domain.Stats) {
	c.slotWebhook, c.slotAccount, c.begin = append(c.slotWebhook, int64(id)), append(c.slotAccount, int64(account)), append(c.begin, begin)
	c.isWhole = append(c.isWhole, map[bool]int64{true: 1}[whole])
	c.scheduled = append(c.scheduled, s.Scheduled)
	c.succeeded, c.failed, c.unknown = append(c.succeeded, s.Succeeded), append(c.failed, s.Failed), append(c.unknown, s.Unknown)
	c.dead, c.expired, c.cancelled = append(c.dead, s.Dead), append(c.expired, s.Expired), append(c.cancelled, s.Cancelled)
	c.first = append(c.first, s.FirstSeq)
	buckets := make([]int, 0, len(s.Latency))
	for bucket := range s.Latency {
		buckets = append(buckets, bucket)
	}
	slices.Sort(buckets)
	var names, counts strings.Builder
	for i, bucket := range buckets {
		if i > 0 {
			names.WriteByte(',')
			counts.WriteByte(',')
		}
		names.WriteString(strconv.Itoa(bucket))
		counts.WriteString(strconv.FormatInt(s.Latency[bucket], 10))
	}
	c.latency, c.latencyN = append(c.latency, "{"+names.String()+"}"), append(c.latencyN, "{"+counts.String()+"}")
}

// instant is a time as text, which each connection takes; NULL for never.
func instant(t time.Time) sql.NullString {
	return sql.NullString{String: t.UTC().Format(time.RFC3339Nano), Valid: !t.IsZero()}
}

func columnsOf(tally relay.Tally) *tallyColumns {
	var c tallyColumns
	for id, w := range tally {
		c.standing(id, w.AccountID, w.Standing)
		for begin, slot := range w.Slots {
			c.slot(id, w.AccountID, begin, false, slot)
		}
	}
	return &c
}

// tallyRows insert a tally's rows: $4 to $24, with the commit in $2 and the
// epoch that a row named epoch gives.
const tallyRows = `
standing AS (
  INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
  SELECT t.webhook_id, t.account_id, $2::bigint, e.epoch, t.success::timestamptz, t.failure::timestamptz, t.failures, t.pending, t.since::timestamptz
    FROM epoch e, unnest($4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $23::text[])
         AS t (webhook_id, account_id, success, failure, failures, pending, since)),
stats AS (
  INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, scheduled, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n)
  SELECT t.webhook_id, t.account_id, to_timestamp(t.begin - t.begin % 3600), CASE t.whole WHEN 1 THEN -1 ELSE t.begin % 3600 / 300 END, e.epoch,
         t.scheduled, t.succeeded, t.failed, t.unknown, t.dead, t.expired, t.cancelled, t.first_seq, t.latency::smallint[], t.latency_n::bigint[]
    FROM epoch e, unnest($10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::text[], $22::text[], $24::bigint[])
         AS t (webhook_id, account_id, begin, whole, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled))`

func (c *tallyColumns) args() []any {
	return []any{
		pq.Array(c.webhook), pq.Array(c.account), pq.Array(c.success), pq.Array(c.failure), pq.Array(c.failures), pq.Array(c.pending),
		pq.Array(c.slotWebhook), pq.Array(c.slotAccount), pq.Array(c.begin), pq.Array(c.isWhole),
		pq.Array(c.succeeded), pq.Array(c.failed), pq.Array(c.unknown), pq.Array(c.dead), pq.Array(c.expired), pq.Array(c.cancelled), pq.Array(c.first),
		pq.Array(c.latency), pq.Array(c.latencyN), pq.Array(c.since), pq.Array(c.scheduled),
	}
}

// addStatement adds a tally and its place, or nothing. FOR SHARE of the epoch
// makes a rebuild that begins wait for it, and makes it wait for one and see
// its number.
const addStatement = `
WITH ` + fenced + `,
epoch AS MATERIALIZED (SELECT e.epoch FROM relay.projection_epoch e WHERE EXISTS (SELECT FROM fence) FOR SHARE),
place AS (INSERT INTO relay.projected (writer, commit, batch, low) SELECT $1, $2, $25::bigint, $3::bigint FROM epoch),` + tallyRows + `
SELECT count(*) FROM epoch`

// Add implements relay.Projection.
func (p *Projection) Add(ctx context.Context, relayID int64, to relay.Projected, tally relay.Tally) error {
	args := append([]any{relayID, to.Commit, to.Low}, columnsOf(tally).args()...)
	var written int
	err := p.db.QueryRowContext(ctx, addStatement, append(args, to.Batch)...).Scan(&written)
	if err != nil {
		if err = classify(err); errors.Is(err, relay.ErrConflict) {
			return nil // the answer of the first time was lost
		}
		return err
	}
	if written == 0 {
		return relay.ErrFenced
	}
	return nil
}

// Unfolded implements relay.Projection.
func (p *Projection) Unfolded(ctx context.Context) ([]int64, error) {
	return list(ctx, p.db, scanInt, `
SELECT DISTINCT r.relay_id FROM relay.relays r JOIN relay.projected p ON p.writer = r.relay_id
 WHERE r.fenced_at IS NOT NULL ORDER BY r.relay_id`)
}

func scanInt(row scanner) (n int64, err error) {
	err = row.Scan(&n)
	return n, err
}

// restQuery finds outcomes by the starts of their attempts, which are at low or
// behind, and all else by its own place: also unknown ones, since their attempts
// may be another relay's that was taken over from.
const restQuery = `
SELECT e.event_seq, e.webhook_id, e.replay_id, e.account_id, e.pos, e.type, e.at, e.data::text FROM (
  SELECT o.* FROM relay.log a
   CROSS JOIN LATERAL (
         SELECT n.event_seq, n.webhook_id, n.replay_id, n.account_id, n.pos, n.writer, n.type, n.at, n.data FROM relay.log n
          WHERE n.event_seq = a.event_seq AND n.webhook_id = a.webhook_id AND n.replay_id = a.replay_id AND n.version = a.version + 1 LIMIT 1) o
   WHERE a.pos >= $2 AND a.type = 'attempt_started' AND o.type IN ('attempt_succeeded', 'attempt_failed')
  UNION ALL
  SELECT n.event_seq, n.webhook_id, n.replay_id, n.account_id, n.pos, n.writer, n.type, n.at, n.data FROM relay.log n
   WHERE n.pos >= $3 AND (n.type IN ('attempt_unknown', 'expired', 'dead', 'cancelled') OR n.type = 'scheduled' AND n.replay_id > 0)) e
 WHERE e.writer = $1 AND e.pos >= $3
 ORDER BY e.pos`

// Rest implements relay.Projection.
func (p *Projection) Rest(ctx context.Context, writer int64) ([]relay.LogEntry, error) {
	var commit, low int64
	err := p.db.QueryRowContext(ctx, `SELECT commit, low FROM relay.projected WHERE writer = $1 ORDER BY commit DESC, batch DESC LIMIT 1`, writer).Scan(&commit, &low)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := list(ctx, p.db, scanLogEntry, restQuery, writer, low, (commit+1)<<commitShift)
	return slices.DeleteFunc(entries, func(e relay.LogEntry) bool { return e.Event == nil }), err
}

func scanLogEntry(row scanner) (relay.LogEntry, error) {
	var e relay.LogEntry
	var pos int64
	var kind string
	var data []byte
	if err := row.Scan(&e.Key.EventSeq, &e.Key.WebhookID, &e.Key.ReplayID, &e.AccountID, &pos, &kind, &e.At, &data); err != nil {
		return e, err
	}
	e.Commit = pos >> commitShift
	e.Event, _ = domain.DecodeDelivery(domain.Entry{Type: kind, At: e.At, Data: data}) // nil where its data are damaged
	return e, nil
}

// finishStatement forgets the dead relay's places, which only one does, and
// adds its rest. The batch that it came to is kept as nobody's.
const finishStatement = `
WITH ` + fenced + `,
held AS MATERIALIZED (SELECT e.epoch FROM relay.projection_epoch e WHERE EXISTS (SELECT FROM fence) FOR SHARE),
gone AS (DELETE FROM relay.projected WHERE writer = $3::bigint AND EXISTS (SELECT FROM held) RETURNING writer, batch),
kept AS (INSERT INTO relay.projected (writer, commit, batch, low) SELECT 0, 0, max(g.batch), 0 FROM gone g HAVING max(g.batch) > 0 ON CONFLICT DO NOTHING),
older AS (DELETE FROM relay.projected p WHERE p.writer = 0 AND p.batch < (SELECT max(g.batch) FROM gone g)),
epoch AS MATERIALIZED (SELECT h.epoch FROM held h WHERE EXISTS (SELECT FROM gone)),` + tallyRows + `
SELECT count(*) FROM held`

// Finish implements relay.Projection.
func (p *Projection) Finish(ctx context.Context, relayID, writer, commit int64, rest relay.Tally) error {
	args := append([]any{relayID, commit, writer}, columnsOf(rest).args()...)
	var held int
	if err := p.db.QueryRowContext(ctx, finishStatement, args...).Scan(&held); err != nil {
		return err
	}
	if held == 0 {
		return relay.ErrFenced
	}
	return nil
}

// Scheduled implements relay.Projection. As in Store.Batch, the batch's bounds
// are read first, so that the planner sees them and prunes partitions.
func (p *Projection) Scheduled(ctx context.Context, batch int64) ([]relay.Beginnings, error) {
	var commit, low, high int64
	err := p.db.QueryRowContext(ctx, `SELECT commit, seq_min, seq_max FROM relay.batches WHERE no = $1`, batch).Scan(&commit, &low, &high)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return list(ctx, p.db, func(row scanner) (b relay.Beginnings, err error) {
		err = row.Scan(&b.WebhookID, &b.AccountID, &b.FirstSeq, &b.At, &b.Count)
		return b, err
	}, `
SELECT l.webhook_id, l.account_id, min(l.event_seq), l.at, count(*) FROM relay.log l
 WHERE l.event_seq BETWEEN $3 AND $4 AND l.pos > $1 AND l.pos < $2 AND l.delivery_id IS NOT NULL GROUP BY l.webhook_id, l.account_id, l.at`,
		commit<<commitShift, (commit+1)<<commitShift, low, high)
}

// wholeAfter is how old an hour is once it needs no slots.
const wholeAfter = 2 * time.Hour

// mergeLock is held while rows are merged, and by a rebuild, which must know
// all there are.
const mergeLock = `hashtext('outrider'), hashtext('merge_statistics')`

const mergeStandings = `
WITH several AS MATERIALIZED (
  SELECT s.webhook_id FROM relay.webhook_standings s
   WHERE s.webhook_id = ANY ($1::bigint[]) AND s.epoch >= 0 GROUP BY s.webhook_id HAVING count(*) > 1),
gone AS (
  DELETE FROM relay.webhook_standings s USING several v WHERE s.webhook_id = v.webhook_id AND s.epoch >= 0
  RETURNING s.webhook_id, s.account_id, s.commit, s.epoch, s.last_success_at, s.last_failure_at, s.failures, s.pending, s.failing_since)
INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
SELECT g.webhook_id, max(g.account_id), max(g.commit), max(g.epoch), max(g.last_success_at), max(g.last_failure_at),
       sum(g.failures) FILTER (WHERE g.commit >= coalesce(g.success, 0)), sum(g.pending),
       min(g.failing_since) FILTER (WHERE g.commit >= coalesce(g.success, 0))
  FROM (SELECT gone.*, max(gone.commit) FILTER (WHERE gone.last_success_at IS NOT NULL) OVER (PARTITION BY gone.webhook_id) AS success FROM gone) g
 GROUP BY g.webhook_id`

// summedOf inserts the sums of rows of statistics that a CTE gives, with the
// slot and the epoch that their sum gets in target and new_epoch.
func summedOf(rows string) string { return strings.ReplaceAll(summed, "gone", rows) }

const summed = `
sums AS (
  SELECT g.webhook_id, max(g.account_id) AS account_id, g.hour, g.target, g.new_epoch, sum(g.scheduled) AS scheduled, sum(g.succeeded) AS succeeded, sum(g.failed) AS failed, sum(g.unknown) AS unknown,
         sum(g.dead) AS dead, sum(g.expired) AS expired, sum(g.cancelled) AS cancelled, min(g.first_seq) AS first_seq
    FROM gone g GROUP BY g.webhook_id, g.hour, g.target, g.new_epoch),
latencies AS (
  SELECT b.webhook_id, b.hour, b.target, b.new_epoch, array_agg(b.bucket ORDER BY b.bucket) AS latency, array_agg(b.n ORDER BY b.bucket) AS latency_n
    FROM (SELECT g.webhook_id, g.hour, g.target, g.new_epoch, u.bucket, sum(u.n)::bigint AS n
            FROM gone g CROSS JOIN LATERAL unnest(g.latency, g.latency_n) AS u (bucket, n)
           GROUP BY g.webhook_id, g.hour, g.target, g.new_epoch, u.bucket) b
   GROUP BY b.webhook_id, b.hour, b.target, b.new_epoch)
INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, scheduled, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n)
SELECT s.webhook_id, s.account_id, s.hour, s.target, s.new_epoch, s.scheduled, s.succeeded, s.failed, s.unknown, s.dead, s.expired, s.cancelled, s.first_seq,
       coalesce(l.latency, '{}'), coalesce(l.latency_n, '{}')
  FROM sums s LEFT JOIN latencies l USING (webhook_id, hour, target, new_epoch)`

// mergeStats makes one row of those of a slot, and one of a whole hour that is
// two hours old. It looks no further back than a day: what the relay did not
// come to in that time stays in slots.
const mergeStats = `
WITH several AS MATERIALIZED (
  SELECT s.webhook_id, s.hour, max(s.epoch) AS epoch, CASE WHEN s.hour < $3::timestamptz THEN -1 ELSE s.slot END AS target FROM relay.webhook_stats s
   WHERE s.webhook_id = ANY ($1::bigint[]) AND s.hour >= $2::timestamptz AND s.epoch >= 0
   GROUP BY s.webhook_id, s.hour, target HAVING count(*) > 1 OR min(s.slot) <> min(CASE WHEN s.hour < $3::timestamptz THEN -1 ELSE s.slot END)),
gone AS (
  DELETE FROM relay.webhook_stats s USING several v
   WHERE s.webhook_id = v.webhook_id AND s.hour = v.hour AND s.epoch >= 0 AND CASE WHEN s.hour < $3::timestamptz THEN -1 ELSE s.slot END = v.target
  RETURNING s.*, v.target, v.epoch AS new_epoch),` + summed

// Merge implements relay.Projection.
func (p *Projection) Merge(ctx context.Context, relayID int64, webhooks []domain.WebhookID, now time.Time) (bool, error) {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }()
	// A relay that is fenced must not merge: its own rest may not be in yet.
	var held int
	if err := tx.QueryRowContext(ctx, `WITH `+fenced+` SELECT count(*) FROM fence`, relayID).Scan(&held); err != nil {
		return false, err
	}
	if held == 0 {
		return false, relay.ErrFenced
	}
	var free bool
	if err := tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock(`+mergeLock+`)`).Scan(&free); err != nil || !free {
		return false, err
	}
	hour := now.UTC().Truncate(time.Hour)
	for _, statement := range []struct {
		query string
		args  []any
	}{
		{mergeStandings, []any{pq.Array(webhooks)}},
		{mergeStats, []any{pq.Array(webhooks), hour.Add(-wholeAfter - 24*time.Hour), hour.Add(-wholeAfter)}},
		{`DELETE FROM relay.projected WHERE writer = $1
		     AND (commit, batch) < (SELECT p.commit, p.batch FROM relay.projected p WHERE p.writer = $1 ORDER BY p.commit DESC, p.batch DESC LIMIT 1)`, []any{relayID}},
	} {
		if _, err := tx.ExecContext(ctx, statement.query, statement.args...); err != nil {
			return false, err
		}
	}
	return true, tx.Commit()
}
