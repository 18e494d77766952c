-- +goose Up
-- Since when a webhook's circuit breaker is open; NULL while it is closed. Each
-- opening and closing is an entry of relay.webhook_log: this is a fold over it.
ALTER TABLE relay.webhooks ADD COLUMN breaker_opened_at timestamptz;
CREATE INDEX webhooks_breaker ON relay.webhooks (breaker_opened_at) WHERE breaker_opened_at IS NOT NULL;
GRANT SELECT (breaker_opened_at) ON relay.webhooks TO outrider_views;

-- When the first of the failures ended.
ALTER TABLE relay.webhook_standings ADD COLUMN failing_since timestamptz;

-- As in 00013, with three columns at the end.
CREATE OR REPLACE VIEW audit.webhook_health AS
SELECT w.account_id,
       w.id                                            AS webhook_id,
       w.state,
       s.last_success_at,
       s.last_failure_at,
       coalesce(s.failures, 0)                         AS consecutive_failures,
       round(c.succeeded / nullif(c.attempts, 0), 4)   AS success_rate_1h,
       q.p50                                           AS p50_ms_1h,
       q.p99                                           AS p99_ms_1h,
       greatest(0, coalesce(s.pending, 0))             AS pending,
       s.failing_since,
       CASE WHEN w.breaker_opened_at IS NULL THEN 'closed' ELSE 'open' END AS breaker,
       w.breaker_opened_at
  FROM relay.webhooks w
  LEFT JOIN LATERAL (
       SELECT max(x.last_success_at) AS last_success_at, max(x.last_failure_at) AS last_failure_at,
              sum(x.failures) FILTER (WHERE x.commit >= coalesce(x.success, 0))::bigint AS failures, sum(x.pending)::bigint AS pending,
              min(x.failing_since) FILTER (WHERE x.commit >= coalesce(x.success, 0)) AS failing_since
         FROM (SELECT t.*, max(t.commit) FILTER (WHERE t.last_success_at IS NOT NULL) OVER () AS success
                 FROM relay.webhook_standings t WHERE t.webhook_id = w.id AND t.epoch >= 0) x) s ON true
  LEFT JOIN LATERAL (
       SELECT sum(t.succeeded) AS succeeded, sum(t.succeeded + t.failed + t.unknown) AS attempts
         FROM relay.webhook_stats t
        WHERE t.webhook_id = w.id AND t.epoch >= 0 AND t.slot >= 0 AND t.hour > now() - interval '125 minutes'
          AND t.hour + t.slot * interval '5 minutes' > now() - interval '65 minutes') c ON true
  LEFT JOIN LATERAL (
       SELECT relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.5 * b.total))::integer)  AS p50,
              relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.99 * b.total))::integer) AS p99
         FROM (SELECT h.bucket, sum(h.n) OVER (ORDER BY h.bucket ROWS UNBOUNDED PRECEDING) AS upto, sum(h.n) OVER () AS total
                 FROM (SELECT u.bucket, sum(u.n::double precision) AS n
                         FROM relay.webhook_stats t CROSS JOIN LATERAL unnest(t.latency, t.latency_n) AS u (bucket, n)
                        WHERE t.webhook_id = w.id AND t.epoch >= 0 AND t.slot >= 0 AND t.hour > now() - interval '125 minutes'
                          AND t.hour + t.slot * interval '5 minutes' > now() - interval '65 minutes'
                        GROUP BY u.bucket) h) b) q ON true
 WHERE w.state <> 'deleted';

COMMENT ON COLUMN audit.webhook_health.failing_since IS 'When the first of the consecutive failures ended; NULL where the last attempt succeeded.';
COMMENT ON COLUMN audit.webhook_health.breaker IS 'The circuit breaker: open while the receiver is down and gets probes only, else closed.';
COMMENT ON COLUMN audit.webhook_health.breaker_opened_at IS 'Since when it is open; NULL while it is closed.';
COMMENT ON COLUMN audit.webhook_changes.change IS 'registered, updated, secret_rotated, paused, enabled, disabled, deleted, breaker_opened or breaker_closed.';
