-- +goose Up
-- The statistics of webhooks: a projection of the log, folded by the relay in
-- memory and added every few seconds (relay/project.go). Rows are added up by
-- whoever reads them: nothing is updated, rows are only merged. It may be
-- dropped: outrider rebuild folds it again.

-- What began and ended within a slot: five minutes (0 to 11 of the hour), or the whole
-- hour (-1) once that is two hours old. A rebuild's rows have a negative epoch
-- until they take the place of the others.
CREATE TABLE relay.webhook_stats (
    webhook_id bigint      NOT NULL,
    account_id bigint      NOT NULL,
    hour       timestamptz NOT NULL,
    slot       smallint    NOT NULL,
    epoch      bigint      NOT NULL,
    scheduled  bigint      NOT NULL, -- deliveries that began
    succeeded  bigint      NOT NULL, -- attempts
    failed     bigint      NOT NULL,
    unknown    bigint      NOT NULL,
    dead       bigint      NOT NULL, -- deliveries that ended without success
    expired    bigint      NOT NULL,
    cancelled  bigint      NOT NULL,
    first_seq  bigint      NOT NULL, -- the lowest event_seq in it: tells whether the log still has all of it
    latency    smallint[]  NOT NULL, -- buckets, see relay.latency_ms
    latency_n  bigint[]    NOT NULL  -- and how many attempts are in each
);
CREATE INDEX webhook_stats_hour ON relay.webhook_stats (webhook_id, hour);
ALTER TABLE relay.webhook_stats SET (autovacuum_vacuum_scale_factor = 0.05);

-- How webhooks stand: what cannot be told by time. Rows are added up in the
-- order of commit, the group commit of the log up to which they were folded.
CREATE TABLE relay.webhook_standings (
    webhook_id      bigint NOT NULL,
    account_id      bigint NOT NULL,
    commit          bigint NOT NULL,
    epoch           bigint NOT NULL,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    failures        bigint NOT NULL, -- attempts that did not succeed, behind the last one that did
    pending         bigint NOT NULL, -- deliveries scheduled, less those ended
    failing_since   timestamptz      -- when the first of the failures ended
);
CREATE INDEX webhook_standings_webhook ON relay.webhook_standings (webhook_id);
ALTER TABLE relay.webhook_standings SET (autovacuum_vacuum_scale_factor = 0.05);

-- Up to where a relay's entries are folded: all of its group commits up to this
-- one, and the beginnings of deliveries up to a batch of the chain. An outcome
-- behind it belongs to an attempt that was started at low or later. A relay has
-- rows until it is dead and folded to its end; the newest one counts. It is
-- written by the transaction that adds what it tells of: its key refuses to
-- count anything twice.
CREATE TABLE relay.projected (
    writer bigint NOT NULL,
    commit bigint NOT NULL,
    batch  bigint NOT NULL,
    low    bigint NOT NULL,
    PRIMARY KEY (writer, commit, batch)
);
-- Nobody's row keeps the batch.
INSERT INTO relay.projected (writer, commit, batch, low) SELECT 0, 0, coalesce(max(no), 0), 0 FROM relay.batches;

-- Rebuilds, counted. Whoever adds holds the row FOR SHARE, so that a rebuild
-- knows which rows it replaces.
CREATE TABLE relay.projection_epoch (epoch bigint NOT NULL);
INSERT INTO relay.projection_epoch (epoch) VALUES (0);

-- Finds what a dead relay recorded and did not fold, but for the outcomes of
-- attempts that it began, which are found by log_started. Those of others, which
-- it took over, are unknown.
CREATE INDEX log_ended_or_replayed ON relay.log (pos) WHERE type IN ('attempt_unknown', 'expired', 'dead', 'cancelled') OR type = 'scheduled' AND replay_id > 0;

GRANT SELECT, INSERT, DELETE ON relay.webhook_stats, relay.webhook_standings, relay.projected TO outrider_relay;
GRANT SELECT, UPDATE (epoch) ON relay.projection_epoch TO outrider_relay;

-- The middle of a bucket of latencies, in milliseconds. Bucket b below 32 is b
-- microseconds; above, each power of two has 16 buckets of the same width, so
-- that the middle is at most 1/32 off. domain.LatencyBucket is the way there.
-- +goose StatementBegin
CREATE FUNCTION relay.latency_ms(bucket integer) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT round(CASE WHEN bucket < 32 THEN bucket::numeric
                      ELSE ((16 + bucket % 16)::bigint << (bucket / 16 - 1)) + ((1::bigint << (bucket / 16 - 1)) - 1) / 2.0 END / 1000, 3)
$$;
-- +goose StatementEnd

-- Both views start from the webhooks, and look up the rows of each: a condition
-- on account_id, webhook_id or hour reads no others. Counts of attempts are added
-- up as double precision, which is exact below 2^53 and a third of the time that
-- numeric takes.
CREATE VIEW audit.webhook_health AS
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

CREATE VIEW audit.webhook_stats AS
SELECT w.account_id,
       w.id                                            AS webhook_id,
       c.hour,
       c.succeeded + c.failed + c.unknown              AS attempts,
       c.succeeded,
       c.failed,
       c.unknown,
       round(c.succeeded::numeric / nullif(c.succeeded + c.failed + c.unknown, 0), 4) AS success_rate,
       q.p50                                           AS p50_ms,
       q.p95                                           AS p95_ms,
       q.p99                                           AS p99_ms,
       c.dead,
       c.expired,
       c.cancelled,
       c.scheduled
  FROM relay.webhooks w
 CROSS JOIN LATERAL (
       SELECT t.hour, sum(t.succeeded)::bigint AS succeeded, sum(t.failed)::bigint AS failed, sum(t.unknown)::bigint AS unknown,
              sum(t.dead)::bigint AS dead, sum(t.expired)::bigint AS expired, sum(t.cancelled)::bigint AS cancelled, sum(t.scheduled)::bigint AS scheduled
         FROM relay.webhook_stats t
        WHERE t.webhook_id = w.id AND t.epoch >= 0
        GROUP BY t.hour) c
 CROSS JOIN LATERAL (
       SELECT relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.5 * b.total))::integer)  AS p50,
              relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.95 * b.total))::integer) AS p95,
              relay.latency_ms((min(b.bucket) FILTER (WHERE b.upto >= 0.99 * b.total))::integer) AS p99
         FROM (SELECT h.bucket, sum(h.n) OVER (ORDER BY h.bucket ROWS UNBOUNDED PRECEDING) AS upto, sum(h.n) OVER () AS total
                 FROM (SELECT u.bucket, sum(u.n::double precision) AS n
                         FROM relay.webhook_stats t CROSS JOIN LATERAL unnest(t.latency, t.latency_n) AS u (bucket, n)
                        WHERE t.webhook_id = w.id AND t.epoch >= 0 AND t.hour = c.hour
                        GROUP BY u.bucket) h) b) q;

GRANT SELECT ON audit.webhook_health, audit.webhook_stats TO outrider_auditor, outrider_relay, outrider_operator;

COMMENT ON VIEW audit.webhook_health IS 'How each webhook does, but for deleted ones. The relay adds what happened every 2 to 10 seconds.';
COMMENT ON COLUMN audit.webhook_health.account_id IS 'The account.';
COMMENT ON COLUMN audit.webhook_health.webhook_id IS 'The webhook.';
COMMENT ON COLUMN audit.webhook_health.state IS 'enabled, paused or disabled.';
COMMENT ON COLUMN audit.webhook_health.last_success_at IS 'When the last attempt that succeeded ended; NULL for never.';
COMMENT ON COLUMN audit.webhook_health.last_failure_at IS 'When the last attempt that failed, or whose outcome is unknown, ended; NULL for never.';
COMMENT ON COLUMN audit.webhook_health.consecutive_failures IS 'Attempts that failed or are unknown since the last one that succeeded, in the order of the log.';
COMMENT ON COLUMN audit.webhook_health.success_rate_1h IS 'The share of the attempts that ended in the last hour that succeeded, from 0 to 1: the last 12 slots of five minutes and the present one. NULL where none ended.';
COMMENT ON COLUMN audit.webhook_health.p50_ms_1h IS 'The median duration of the attempts that succeeded or failed in the same time, in milliseconds, at most 3.2 % off. NULL where none has a duration.';
COMMENT ON COLUMN audit.webhook_health.p99_ms_1h IS 'The same for 99 of 100 attempts.';
COMMENT ON COLUMN audit.webhook_health.pending IS 'Deliveries that were scheduled, by routing or by a replay, and have not ended: those that wait for a retry, for their turn or for a paused webhook, those in the memory of the relay, and those under way. Events that are not routed yet are not in it.';
COMMENT ON COLUMN audit.webhook_health.failing_since IS 'When the first of the consecutive failures ended; NULL where the last attempt succeeded.';
COMMENT ON COLUMN audit.webhook_health.breaker IS 'The circuit breaker: open while the receiver is down and gets probes only, else closed.';
COMMENT ON COLUMN audit.webhook_health.breaker_opened_at IS 'Since when it is open; NULL while it is closed.';

COMMENT ON VIEW audit.webhook_stats IS 'What became of attempts and deliveries, by webhook and hour in which they ended, and how many deliveries began. The relay adds what happened every 2 to 10 seconds. It stays when the log is gone.';
COMMENT ON COLUMN audit.webhook_stats.account_id IS 'The account.';
COMMENT ON COLUMN audit.webhook_stats.webhook_id IS 'The webhook.';
COMMENT ON COLUMN audit.webhook_stats.hour IS 'The beginning of the hour, in UTC. An attempt belongs to the hour in which its outcome came, a delivery to the one in which it began or ended.';
COMMENT ON COLUMN audit.webhook_stats.attempts IS 'Attempts that ended.';
COMMENT ON COLUMN audit.webhook_stats.succeeded IS 'Attempts that succeeded: as many deliveries did.';
COMMENT ON COLUMN audit.webhook_stats.failed IS 'Attempts that failed.';
COMMENT ON COLUMN audit.webhook_stats.unknown IS 'Attempts whose outcome nobody knows.';
COMMENT ON COLUMN audit.webhook_stats.success_rate IS 'The share of attempts that succeeded, from 0 to 1; NULL where none ended.';
COMMENT ON COLUMN audit.webhook_stats.p50_ms IS 'The median duration of the attempts that succeeded or failed, in milliseconds, at most 3.2 % off.';
COMMENT ON COLUMN audit.webhook_stats.p95_ms IS 'The same for 95 of 100 attempts.';
COMMENT ON COLUMN audit.webhook_stats.p99_ms IS 'The same for 99 of 100 attempts.';
COMMENT ON COLUMN audit.webhook_stats.dead IS 'Deliveries given up.';
COMMENT ON COLUMN audit.webhook_stats.expired IS 'Deliveries whose deadline passed.';
COMMENT ON COLUMN audit.webhook_stats.cancelled IS 'Deliveries cancelled, since their webhook was disabled or deleted.';
COMMENT ON COLUMN audit.webhook_stats.scheduled IS 'Deliveries that began, by routing or by a replay. Those of all hours, less those that succeeded, are dead, expired or cancelled, have not ended.';
