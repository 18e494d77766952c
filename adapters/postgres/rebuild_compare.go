package postgres

import (
	"context"
	"time"
)

// floorOf is the lowest chat event that the log's partitions still have. The
// net beside them is left out: what is in it may be older than what was dropped.
const floorOf = `(SELECT coalesce(min(l.event_seq), 0) FROM relay.log l WHERE l.tableoid <> 'relay.log_net'::regclass)`

// keptHours are the hours of which the log has not all any more: they stay as
// they are.
const keptHours = `
kept AS MATERIALIZED (
  SELECT s.webhook_id, s.hour FROM relay.webhook_stats s
   WHERE s.epoch >= 0 AND s.epoch < $1 GROUP BY s.webhook_id, s.hour HAVING min(s.first_seq) < ` + floorOf + `)`

// statsCompared gives what is there and what the log has, by webhook and hour,
// where the two differ.
const statsCompared = `
WITH` + keptHours + `,
r AS MATERIALIZED (
  SELECT s.* FROM relay.webhook_stats s
   WHERE s.epoch < $1 AND NOT EXISTS (SELECT FROM kept k WHERE k.webhook_id = s.webhook_id AND k.hour = s.hour)),
sums AS (
  SELECT webhook_id, hour, epoch < 0 AS anew, sum(scheduled) AS scheduled, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(unknown) AS unknown,
         sum(dead) AS dead, sum(expired) AS expired, sum(cancelled) AS cancelled
    FROM r GROUP BY webhook_id, hour, anew),
latencies AS (
  SELECT webhook_id, hour, anew, array_agg(bucket ORDER BY bucket) AS latency, array_agg(n ORDER BY bucket) AS latency_n
    FROM (SELECT r.webhook_id, r.hour, r.epoch < 0 AS anew, u.bucket, sum(u.n) AS n FROM r CROSS JOIN LATERAL unnest(r.latency, r.latency_n) AS u (bucket, n) GROUP BY 1, 2, 3, 4) b
   GROUP BY webhook_id, hour, anew),
compared AS (SELECT s.*, l.latency, l.latency_n FROM sums s LEFT JOIN latencies l USING (webhook_id, hour, anew))
SELECT coalesce(i.webhook_id, o.webhook_id), coalesce(i.hour, o.hour),
       concat_ws('/', o.scheduled, o.succeeded, o.failed, o.unknown, o.dead, o.expired, o.cancelled),
       concat_ws('/', i.scheduled, i.succeeded, i.failed, i.unknown, i.dead, i.expired, i.cancelled)
  FROM (SELECT * FROM compared WHERE NOT anew) o
  FULL JOIN (SELECT * FROM compared WHERE anew) i ON i.webhook_id = o.webhook_id AND i.hour = o.hour
 WHERE (o.scheduled, o.succeeded, o.failed, o.unknown, o.dead, o.expired, o.cancelled, o.latency, o.latency_n)
       IS DISTINCT FROM (i.scheduled, i.succeeded, i.failed, i.unknown, i.dead, i.expired, i.cancelled, i.latency, i.latency_n)
 ORDER BY 1, 2`

// standingsFolded gives each webhook's standing as it is, and as the log has
// it. Of a webhook with kept hours the log may have lost the last success or
// failure: then the one known is the newest there was.
const standingsFolded = keptHours + `,
old AS (
  SELECT x.webhook_id, max(x.account_id) AS account_id, max(x.last_success_at) AS success, max(x.last_failure_at) AS failure,
         coalesce(sum(x.failures) FILTER (WHERE x.commit >= coalesce(x.place, 0)), 0)::bigint AS failures, sum(x.pending)::bigint AS pending,
         min(x.failing_since) FILTER (WHERE x.commit >= coalesce(x.place, 0)) AS since
    FROM (SELECT s.*, max(s.commit) FILTER (WHERE s.last_success_at IS NOT NULL) OVER (PARTITION BY s.webhook_id) AS place
            FROM relay.webhook_standings s WHERE s.epoch >= 0 AND s.epoch < $1) x
   GROUP BY x.webhook_id),
anew AS (
  SELECT coalesce(s.webhook_id, o.webhook_id) AS webhook_id, coalesce(s.account_id, o.account_id) AS account_id,
         CASE WHEN k.lost THEN coalesce(s.last_success_at, o.success) ELSE s.last_success_at END AS success,
         CASE WHEN k.lost THEN coalesce(s.last_failure_at, o.failure) ELSE s.last_failure_at END AS failure,
         CASE WHEN k.lost AND s.last_success_at IS NULL THEN greatest(s.failures, o.failures) ELSE coalesce(s.failures, 0) END AS failures,
         coalesce(s.pending, 0) AS pending,
         CASE WHEN k.lost AND s.last_success_at IS NULL THEN least(s.failing_since, o.since) ELSE s.failing_since END AS since
    FROM (SELECT * FROM relay.webhook_standings WHERE epoch < 0) s
    FULL JOIN old o ON o.webhook_id = s.webhook_id
   CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM kept k WHERE k.webhook_id = coalesce(s.webhook_id, o.webhook_id)) AS lost) k)`

const standingsCompared = `
WITH` + standingsFolded + `
SELECT n.webhook_id, concat_ws('/', o.success, o.failure, o.failures, o.since, o.pending), concat_ws('/', n.success, n.failure, n.failures, n.since, n.pending)
  FROM anew n LEFT JOIN old o ON o.webhook_id = n.webhook_id
 WHERE (o.success, o.failure, coalesce(o.failures, 0), o.since, coalesce(o.pending, 0)) IS DISTINCT FROM (n.success, n.failure, n.failures, n.since, n.pending)
 ORDER BY 1`

// compare tells how the rows to replace differ from those folded anew.
func (f *folding) compare(ctx context.Context, mended bool) (statistics, standings Rebuilt, err error) {
	statistics, standings = Rebuilt{Projection: "webhook_stats"}, Rebuilt{Projection: "webhook_standings"}
	rows, err := f.conn.QueryContext(ctx, statsCompared, f.epoch)
	if err != nil {
		return statistics, standings, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		var hour time.Time
		var was, is string
		if err := rows.Scan(&id, &hour, &was, &is); err != nil {
			return statistics, standings, err
		}
		statistics.differs(mended, "webhook %d, %s: scheduled/succeeded/failed/unknown/dead/expired/cancelled are %s, by the log %s",
			id, hour.UTC().Format(time.RFC3339), orNone(was), orNone(is))
	}
	if err := rows.Err(); err != nil {
		return statistics, standings, err
	}
	stood, err := f.conn.QueryContext(ctx, standingsCompared, f.epoch)
	if err != nil {
		return statistics, standings, err
	}
	defer func() { _ = stood.Close() }()
	for stood.Next() {
		var id int64
		var was, is string
		if err := stood.Scan(&id, &was, &is); err != nil {
			return statistics, standings, err
		}
		standings.differs(mended, "webhook %d: last success/last failure/failures in a row/since/pending are %s, by the log %s", id, orNone(was), orNone(is))
	}
	if err := stood.Err(); err != nil {
		return statistics, standings, err
	}
	err = f.conn.QueryRowContext(ctx, `
SELECT (SELECT count(*) FROM (SELECT DISTINCT webhook_id, hour FROM relay.webhook_stats WHERE epoch < 0) s),
       (SELECT count(*) FROM relay.webhook_standings WHERE epoch < 0)`).Scan(&statistics.Rows, &standings.Rows)
	return statistics, standings, err
}

func orNone(text string) string {
	if text == "" {
		return "not there"
	}
	return text
}

const swapStandings = `
WITH` + standingsFolded + `,
gone AS (DELETE FROM relay.webhook_standings WHERE epoch < $1)
INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
SELECT n.webhook_id, n.account_id, 0, $1, n.success, n.failure, n.failures, n.pending, n.since FROM anew n`

const swapOld = `
WITH` + keptHours + `
DELETE FROM relay.webhook_stats s
 WHERE s.epoch >= 0 AND s.epoch < $1 AND NOT EXISTS (SELECT FROM kept k WHERE k.webhook_id = s.webhook_id AND k.hour = s.hour)`

// swapNew drops what was folded of kept hours: behind swapOld those are the
// ones that still have old rows.
const swapNew = `
WITH gone AS (
  DELETE FROM relay.webhook_stats s WHERE s.epoch < 0 RETURNING s.*, s.slot AS target, $1::bigint AS new_epoch),
fresh AS (
  SELECT g.* FROM gone g
   WHERE NOT EXISTS (SELECT FROM relay.webhook_stats o WHERE o.webhook_id = g.webhook_id AND o.hour = g.hour AND o.epoch >= 0 AND o.epoch < $1)),`

// swap puts the rows folded anew in the place of the others. Nobody else
// changes either of them, and those that a relay adds have a newer epoch.
func (f *folding) swap(ctx context.Context) error {
	tx, err := f.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, statement := range []string{swapStandings, swapOld, swapNew + summedOf("fresh")} {
		if _, err := tx.ExecContext(ctx, statement, f.epoch); err != nil {
			return err
		}
	}
	return tx.Commit()
}
