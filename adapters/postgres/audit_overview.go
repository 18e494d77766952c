package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// spansQuery adds up the hours of all webhooks of an account, or of all, by
// spans from $1 on. As the view of statistics it looks up the rows of each
// webhook; quantiles cannot be added up, buckets can.
const spansQuery = `
WITH found AS MATERIALIZED (
  SELECT date_bin($2::interval, t.hour, $1::timestamptz) AS span, w.id AS webhook_id, t.scheduled, t.succeeded, t.failed, t.unknown, t.dead, t.expired, t.cancelled, t.latency, t.latency_n
    FROM relay.webhooks w
   CROSS JOIN LATERAL (SELECT s.* FROM relay.webhook_stats s WHERE s.webhook_id = w.id AND s.hour >= $1::timestamptz AND s.epoch >= 0 OFFSET 0) t%s),
quantiles AS (
  SELECT b.span, relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.5 * b.total))::integer)  AS p50,
                 relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.95 * b.total))::integer) AS p95,
                 relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.99 * b.total))::integer) AS p99
    FROM (SELECT h.span, h.bucket, sum(h.n) OVER (PARTITION BY h.span ORDER BY h.bucket ROWS UNBOUNDED PRECEDING) AS upto, sum(h.n) OVER (PARTITION BY h.span) AS total
            FROM (SELECT f.span, u.bucket, sum(u.n::double precision) AS n
                    FROM found f CROSS JOIN LATERAL unnest(f.latency, f.latency_n) AS u (bucket, n) GROUP BY f.span, u.bucket) h) b
   GROUP BY b.span)
SELECT c.span, c.scheduled, c.succeeded, c.failed, c.unknown, c.dead, c.expired, c.cancelled, c.tried, c.failing, q.p50, q.p95, q.p99
  FROM (SELECT h.span, sum(h.scheduled)::bigint AS scheduled, sum(h.succeeded)::bigint AS succeeded, sum(h.failed)::bigint AS failed, sum(h.unknown)::bigint AS unknown,
               sum(h.dead)::bigint AS dead, sum(h.expired)::bigint AS expired, sum(h.cancelled)::bigint AS cancelled,
               count(*) FILTER (WHERE h.succeeded + h.failed + h.unknown > 0) AS tried, count(*) FILTER (WHERE h.succeeded = 0 AND h.failed + h.unknown > 0) AS failing
          FROM (SELECT f.span, f.webhook_id, sum(f.scheduled) AS scheduled, sum(f.succeeded) AS succeeded, sum(f.failed) AS failed, sum(f.unknown) AS unknown,
                       sum(f.dead) AS dead, sum(f.expired) AS expired, sum(f.cancelled) AS cancelled
                  FROM found f GROUP BY f.span, f.webhook_id) h
         GROUP BY h.span) c
  LEFT JOIN quantiles q ON q.span = c.span
 ORDER BY c.span`

// pendingOfAll and pendingOfAccount add up the deliveries that have not ended.
const (
	pendingOfAll     = `SELECT coalesce(sum(s.pending), 0)::bigint FROM relay.webhook_standings s WHERE s.epoch >= 0`
	pendingOfAccount = `
SELECT coalesce(sum(s.pending), 0)::bigint
  FROM relay.webhooks w CROSS JOIN LATERAL (SELECT s.pending FROM relay.webhook_standings s WHERE s.webhook_id = w.id AND s.epoch >= 0 OFFSET 0) s
 WHERE w.account_id = $1`
)

// Spans lists what began and became of attempts and deliveries in the spans of
// some whole hours each from since, a full hour, on: of an account or, with 0,
// of all. Those in which nothing began or ended are left out. pending is how many
// deliveries have not ended behind the last of them, from the same snapshot, so
// that one can count back from it. It is negative where relays have told of the
// end of deliveries, and not of their beginning yet.
func (a *Audit) Spans(ctx context.Context, account domain.AccountID, since time.Time, hours int) (spans []audit.Span, pending int64, err error) {
	tx, err := a.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = tx.Rollback() }()
	var c conditions
	c.args = []any{since.UTC(), fmt.Sprintf("%d hours", hours)}
	query, args := pendingOfAll, []any{}
	if account != 0 {
		c.add("w.account_id = ?", int64(account))
		query, args = pendingOfAccount, []any{int64(account)}
	}
	spans, err = list(ctx, tx, func(row scanner) (s audit.Span, err error) {
		err = row.Scan(&s.From, &s.Scheduled, &s.Succeeded, &s.Failed, &s.Unknown, &s.Dead, &s.Expired, &s.Cancelled, &s.Tried, &s.Failing, &s.P50MS, &s.P95MS, &s.P99MS)
		s.From = s.From.UTC()
		return s, err
	}, fmt.Sprintf(spansQuery, c.where()), c.args...)
	if err != nil {
		return nil, 0, err
	}
	err = tx.QueryRowContext(ctx, query, args...).Scan(&pending)
	return spans, pending, err
}

// backlogQuery counts what waits in the due table, $1 rows of it at most.
const (
	backlogQuery = `
SELECT count(*) FILTER (WHERE d.kind IN ('r', 'o') AND d.at > clock_timestamp()), count(*) FILTER (WHERE d.kind IN ('r', 'o') AND d.at <= clock_timestamp()),
       count(*) FILTER (WHERE d.kind = 'h'), count(*) FILTER (WHERE d.kind = 'p')
  FROM (%s LIMIT $1) d`
	allDue       = `SELECT d.kind, d.at FROM relay.due d`
	dueOfAccount = `SELECT d.kind, d.at FROM relay.webhooks w CROSS JOIN LATERAL (SELECT d.kind, d.at FROM relay.due d WHERE d.webhook_id = w.id LIMIT $1) d WHERE w.account_id = $2`
)

// Backlog counts what waits of an account or, with 0, of all.
func (a *Audit) Backlog(ctx context.Context, account domain.AccountID) (b audit.Backlog, err error) {
	from, args := allDue, []any{countLimit + 1}
	if account != 0 {
		from, args = dueOfAccount, append(args, int64(account))
	}
	err = a.db.QueryRowContext(ctx, fmt.Sprintf(backlogQuery, from), args...).Scan(&b.Later, &b.Due, &b.Held, &b.Paused)
	b.More = b.Later+b.Due+b.Held+b.Paused > countLimit
	return b, err
}

// failingQuery finds the webhooks of all accounts whose last attempt did not
// succeed, those first that fail for the longest time. It reads a row or a few
// of each webhook.
const failingQuery = `
SELECT s.webhook_id FROM relay.webhook_standings s WHERE s.epoch >= 0
 GROUP BY s.webhook_id
HAVING min(s.failing_since) FILTER (WHERE s.failing_since IS NOT NULL) IS NOT NULL
   AND coalesce(max(s.commit) FILTER (WHERE s.last_success_at IS NOT NULL) <= max(s.commit) FILTER (WHERE s.failing_since IS NOT NULL), true)
 ORDER BY min(s.failing_since), s.webhook_id LIMIT $1`

// Failing lists how webhooks of all accounts do that fail, those first that do
// for the longest time.
func (a *Audit) Failing(ctx context.Context, limit int) ([]audit.Health, error) {
	ids, err := list(ctx, a.db, scanPlace, failingQuery, limit)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	var c conditions
	c.add("webhook_id = ANY (?::bigint[])", pq.Array(ids))
	return list(ctx, a.db, scanHealthRecord, healthQuery+c.where()+` AND failing_since IS NOT NULL ORDER BY failing_since, webhook_id`, c.args...)
}

// Commits is the last number that was given to a group commit, which may not be
// visible yet: where it is the same as before, nothing was written since.
func (a *Audit) Commits(ctx context.Context) (int64, error) {
	l, err := a.look(ctx)
	return l.now, err
}
