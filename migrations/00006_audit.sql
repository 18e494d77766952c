-- +goose Up
-- Ids are derived, so that an auditor can recompute them: a UUID version 8
-- with the first 48 bits of prefix and SHA-256 of the input behind them.
-- +goose StatementBegin
CREATE FUNCTION audit.derived_id(prefix uuid, input bytea) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT encode(
        set_byte(set_byte(b.raw, 6, get_byte(b.raw, 6) & 15 | 128), 8, get_byte(b.raw, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT substring(uuid_send(prefix) FOR 6) || substring(sha256(input) FOR 10) AS raw) b
$$;
CREATE FUNCTION audit.notification_id(account_id bigint, event_id uuid, webhook_id bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT audit.derived_id(event_id, 'n'::bytea || int8send(account_id) || uuid_send(event_id) || int8send(webhook_id))
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION audit.notification_id(bigint, uuid, bigint) IS 'The webhook-id that receivers see: derived from account, event and webhook, the same for retries and replays.';

-- What an auditor may see of a URL.
-- +goose StatementBegin
CREATE FUNCTION audit.shown_url(url text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT regexp_replace(url, '[?#].*$', '') $$;
-- +goose StatementEnd

COMMENT ON FUNCTION audit.derived_id(uuid, bytea) IS 'A UUID version 8 with the first 48 bits of prefix and the beginning of SHA-256 over input: how ids are derived.';
COMMENT ON FUNCTION audit.shown_url(text) IS 'A URL without its query.';

-- Shaped so that a page, newest first, reads a page: PostgreSQL merges the arms
-- of a UNION ALL by an index only where the large arm is a bare table without
-- WHERE and the columns of both have the very same types. So the condition on
-- webhook_id stands outside, the constants are cast, and what belongs to the
-- chat event is joined behind.
CREATE VIEW audit.events AS
SELECT x.event_id,
       x.seq,
       x.account_id,
       CASE WHEN x.data IS NULL THEN e.event ELSE x.data ->> 'event' END AS event,
       CASE WHEN x.data IS NULL THEN e.ordering_key ELSE coalesce(x.data ->> 'ordering_key', '') END AS ordering_key,
       e.occurred_at,
       e.inserted_at,
       x.routed_at,
       x.routing,
       x.data ->> 'reason'                             AS reason,
       CASE WHEN x.data IS NOT NULL THEN coalesce((x.data ->> 'config_version')::bigint, 0) END AS config_version,
       CASE WHEN x.data IS NOT NULL THEN coalesce((x.data ->> 'body_bytes')::integer, 0) END AS body_bytes,
       coalesce((x.data ->> 'deliveries')::integer, 0) AS delivery_count,
       e.metadata
  FROM (SELECT r.event_seq AS seq, r.webhook_id, r.type, r.event_id, r.account_id, r.at AS routed_at, r.routing, r.data
          FROM relay.log r
         UNION ALL
        -- What waits, as the tail looks for it: rows of transactions that were
        -- under way when the position was taken, and of newer ones. A
        -- transaction that is open for days so costs its own rows, not all
        -- that came since. OFFSET 0, + 0 and LIMIT 1 keep each a look-up by
        -- key, whatever the statistics say.
        SELECT w.seq, 0::bigint, 'routed'::text, w.id, w.account_id, NULL::timestamptz, 'waiting'::text, NULL::json
          FROM (SELECT pg_snapshot_xip(b.consumed) AS xid, b.low
                  FROM (SELECT * FROM relay.batches ORDER BY no DESC LIMIT 1) b) t
         CROSS JOIN LATERAL (
               SELECT o.seq, o.id, o.account_id FROM outbox.events o WHERE o.xid = t.xid AND o.seq + 0 > t.low OFFSET 0) w
         WHERE (SELECT true FROM relay.log r WHERE r.event_seq = w.seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 LIMIT 1) IS NULL
         UNION ALL
        SELECT w.seq, 0::bigint, 'routed'::text, w.id, w.account_id, NULL::timestamptz, 'waiting'::text, NULL::json
          FROM outbox.events w
         WHERE w.xid >= (SELECT pg_snapshot_xmax(b.consumed) FROM relay.batches b ORDER BY b.no DESC LIMIT 1)
           AND w.seq > (SELECT b.floor FROM relay.batches b ORDER BY b.no DESC LIMIT 1)
           AND (SELECT true FROM relay.log r WHERE r.event_seq = w.seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 LIMIT 1) IS NULL) x
  LEFT JOIN outbox.events e ON e.seq = x.seq
 WHERE x.webhook_id = 0 AND x.type = 'routed';

-- All conditions are on s, of which an index leads to each page, and what
-- belongs to it is looked up: LATERAL with LIMIT or OFFSET keeps that so. Of a
-- partitioned table as a whole the planner knows nothing, since autovacuum looks
-- at partitions alone, and it would join history with history.
CREATE VIEW audit.deliveries AS
SELECT s.delivery_id,
       audit.notification_id(s.account_id, s.event_id, s.webhook_id) AS notification_id,
       s.event_id,
       s.event_seq,
       s.account_id,
       r.data ->> 'event'                              AS event,
       coalesce(r.data ->> 'ordering_key', '')         AS ordering_key,
       s.webhook_id,
       coalesce(f.webhook_version, (s.data ->> 'webhook_version')::bigint) AS webhook_version,
       audit.shown_url(w.after ->> 'url')              AS url,
       CASE f.last_type
            WHEN 'held' THEN 'held' WHEN 'attempt_succeeded' THEN 'succeeded' WHEN 'dead' THEN 'dead'
            WHEN 'cancelled' THEN 'cancelled' WHEN 'expired' THEN 'expired' ELSE 'pending' END AS status,
       CASE WHEN f.last_type IN ('held', 'dead', 'cancelled', 'expired') THEN f.last_data ->> 'reason' END AS reason,
       f.attempt_count,
       s.at                                            AS scheduled_at,
       f.first_attempt_at,
       f.last_attempt_at,
       CASE WHEN f.last_type IN ('attempt_failed', 'attempt_unknown') THEN (f.last_data ->> 'retry_at')::timestamptz END AS next_attempt_at,
       CASE WHEN f.last_type IN ('attempt_succeeded', 'dead', 'cancelled', 'expired') THEN f.last_at END AS completed_at,
       f.last_outcome,
       f.last_status_code,
       s.replay_id
  FROM relay.log s
 CROSS JOIN LATERAL (
       SELECT d.data FROM relay.log d WHERE d.event_seq = s.event_seq AND d.webhook_id = 0 AND d.replay_id = 0 AND d.version = 1 LIMIT 1) r
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE l.type = 'attempt_started')::integer AS attempt_count,
              min(l.at) FILTER (WHERE l.type = 'attempt_started')         AS first_attempt_at,
              max(l.at) FILTER (WHERE l.type = 'attempt_started')         AS last_attempt_at,
              max((l.data ->> 'webhook_version')::bigint) FILTER (WHERE l.type = 'attempt_started') AS webhook_version,
              (array_agg(l.type ORDER BY l.version DESC))[1]              AS last_type,
              (array_agg(l.data ORDER BY l.version DESC))[1]              AS last_data,
              max(l.at)                                                   AS last_at,
              CASE (array_agg(l.type ORDER BY l.version DESC) FILTER (WHERE l.type LIKE 'attempt\_%'))[1]
                   WHEN 'attempt_started' THEN 'started' WHEN 'attempt_succeeded' THEN 'succeeded'
                   WHEN 'attempt_failed' THEN 'failed' WHEN 'attempt_unknown' THEN 'unknown' END AS last_outcome,
              (array_agg((l.data ->> 'status_code')::integer ORDER BY l.version DESC)
                   FILTER (WHERE l.type IN ('attempt_succeeded', 'attempt_failed')))[1] AS last_status_code
         FROM relay.log l
        WHERE l.event_seq = s.event_seq AND l.webhook_id = s.webhook_id AND l.replay_id = s.replay_id) f
  LEFT JOIN relay.webhook_log w ON w.webhook_id = s.webhook_id
       AND w.version = coalesce(f.webhook_version, (s.data ->> 'webhook_version')::bigint)
 WHERE s.delivery_id IS NOT NULL AND s.type = 'scheduled';

CREATE VIEW audit.attempts AS
SELECT s.delivery_id,
       audit.notification_id(r.account_id, r.event_id, s.webhook_id) AS notification_id,
       (a.data ->> 'attempt')::integer                 AS attempt,
       r.event_id,
       r.account_id,
       s.webhook_id,
       (a.data ->> 'webhook_version')::bigint          AS webhook_version,
       audit.shown_url(w.after ->> 'url')              AS url,
       a.at                                            AS started_at,
       o.at                                            AS finished_at,
       CASE o.type WHEN 'attempt_succeeded' THEN 'succeeded' WHEN 'attempt_failed' THEN 'failed'
                   WHEN 'attempt_unknown' THEN 'unknown' ELSE 'started' END AS outcome,
       a.data ->> 'previous_outcome'                   AS previous_outcome,
       (o.data ->> 'status_code')::integer             AS status_code,
       o.data ->> 'error_class'                        AS error_class,
       coalesce(o.data ->> 'error_detail', o.data ->> 'reason') AS error_detail,
       round((o.data ->> 'duration_us')::numeric / 1000, 3) AS duration_ms,
       (o.data ->> 'remote_ip')::inet                  AS remote_ip,
       (SELECT p.excerpt FROM relay.responses p
         WHERE p.event_seq = a.event_seq AND p.webhook_id = a.webhook_id AND p.replay_id = a.replay_id AND p.version = a.version + 1) AS response_excerpt,
       a.writer                                        AS relay_id
  FROM relay.log s
  JOIN relay.log r ON r.event_seq = s.event_seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 AND r.type = 'routed'
  JOIN relay.log a ON a.event_seq = s.event_seq AND a.webhook_id = s.webhook_id AND a.replay_id = s.replay_id AND a.type = 'attempt_started'
  -- While an attempt is open nothing else enters its stream, so its outcome is
  -- the next entry.
  LEFT JOIN relay.log o ON o.event_seq = a.event_seq AND o.webhook_id = a.webhook_id AND o.replay_id = a.replay_id AND o.version = a.version + 1
  LEFT JOIN relay.webhook_log w ON w.webhook_id = s.webhook_id AND w.version = (a.data ->> 'webhook_version')::bigint
 WHERE s.delivery_id IS NOT NULL;

CREATE VIEW audit.timeline AS
SELECT l.pos                                           AS seq,
       l.at,
       r.account_id,
       CASE l.webhook_id WHEN 0 THEN 'event' ELSE 'delivery' END AS stream,
       coalesce(s.delivery_id, s.event_id)::text       AS stream_id,
       l.version,
       l.type,
       r.event_id,
       s.delivery_id,
       l.data
  FROM relay.log l
  JOIN relay.log s ON s.event_seq = l.event_seq AND s.webhook_id = l.webhook_id AND s.replay_id = l.replay_id AND s.version = 1
  JOIN relay.log r ON r.event_seq = l.event_seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 AND r.type = 'routed'
UNION ALL
SELECT NULL, w.at, w.account_id, 'webhook', w.webhook_id::text, w.version, w.type, NULL, NULL,
       json_build_object('actor', w.actor, 'url', audit.shown_url(w.after ->> 'url'), 'state', w.after ->> 'state')
  FROM relay.webhook_log w
UNION ALL
SELECT NULL, p.at, p.account_id, 'replay', p.replay_id::text, p.version, p.type, NULL, NULL, p.data
  FROM relay.replay_log p;

CREATE VIEW audit.webhook_changes AS
SELECT w.at,
       w.account_id,
       w.webhook_id,
       w.version                                       AS webhook_version,
       w.actor,
       w.type                                          AS change,
       CASE WHEN w.before IS NOT NULL THEN jsonb_set(w.before::jsonb, '{url}', to_jsonb(audit.shown_url(w.before ->> 'url'))) END AS before,
       jsonb_set(w.after::jsonb, '{url}', to_jsonb(audit.shown_url(w.after ->> 'url'))) AS after
  FROM relay.webhook_log w;

GRANT SELECT ON ALL TABLES IN SCHEMA audit TO outrider_auditor, outrider_relay, outrider_operator;

COMMENT ON VIEW audit.events IS 'One row for each chat event: what came in, and how it was routed.';
COMMENT ON COLUMN audit.events.event_id IS 'The idempotency key; NULL for a waiting event inserted with NULL, which gets its id when it is routed.';
COMMENT ON COLUMN audit.events.seq IS 'Place in the outbox.';
COMMENT ON COLUMN audit.events.account_id IS 'The account.';
COMMENT ON COLUMN audit.events.event IS 'The event''s name.';
COMMENT ON COLUMN audit.events.ordering_key IS 'What is kept in order, given or derived; empty for nothing. NULL while an event waits whose key will be derived.';
COMMENT ON COLUMN audit.events.occurred_at IS 'As the producer gave it.';
COMMENT ON COLUMN audit.events.inserted_at IS 'When the row was inserted, by the database''s clock.';
COMMENT ON COLUMN audit.events.routed_at IS 'When it was routed, by the relay''s clock. NULL while it waits.';
COMMENT ON COLUMN audit.events.routing IS 'waiting, routed, no_subscriber, skipped, duplicate or quarantined.';
COMMENT ON COLUMN audit.events.reason IS 'Why it was skipped or quarantined.';
COMMENT ON COLUMN audit.events.config_version IS 'The version of the account''s configuration that decided.';
COMMENT ON COLUMN audit.events.body_bytes IS 'Size of the POSTed body.';
COMMENT ON COLUMN audit.events.delivery_count IS 'How many webhooks it was routed to.';
COMMENT ON COLUMN audit.events.metadata IS 'As the producer gave it.';

COMMENT ON VIEW audit.deliveries IS 'One row for each delivery: a chat event for one webhook, first time or by a replay.';
COMMENT ON COLUMN audit.deliveries.delivery_id IS 'The delivery.';
COMMENT ON COLUMN audit.deliveries.notification_id IS 'What receivers see as webhook-id: the same for every retry and replay of the event to this webhook.';
COMMENT ON COLUMN audit.deliveries.event_id IS 'The chat event.';
COMMENT ON COLUMN audit.deliveries.event_seq IS 'The chat event''s place in the outbox.';
COMMENT ON COLUMN audit.deliveries.account_id IS 'The account.';
COMMENT ON COLUMN audit.deliveries.event IS 'The event''s name.';
COMMENT ON COLUMN audit.deliveries.ordering_key IS 'What it is kept in order by; empty for nothing.';
COMMENT ON COLUMN audit.deliveries.webhook_id IS 'The webhook.';
COMMENT ON COLUMN audit.deliveries.webhook_version IS 'The webhook''s version that the last attempt used, or that routing saw.';
COMMENT ON COLUMN audit.deliveries.url IS 'The URL of that version, without userinfo and query.';
COMMENT ON COLUMN audit.deliveries.status IS 'pending, held, succeeded, dead, cancelled or expired.';
COMMENT ON COLUMN audit.deliveries.reason IS 'Why it is held, dead, cancelled or expired.';
COMMENT ON COLUMN audit.deliveries.attempt_count IS 'Attempts started so far.';
COMMENT ON COLUMN audit.deliveries.scheduled_at IS 'When it was routed.';
COMMENT ON COLUMN audit.deliveries.first_attempt_at IS 'When the first attempt started.';
COMMENT ON COLUMN audit.deliveries.last_attempt_at IS 'When the last attempt started.';
COMMENT ON COLUMN audit.deliveries.next_attempt_at IS 'When the next attempt is due, where one is.';
COMMENT ON COLUMN audit.deliveries.completed_at IS 'When it was finished.';
COMMENT ON COLUMN audit.deliveries.last_outcome IS 'Outcome of the last attempt: started, succeeded, failed or unknown.';
COMMENT ON COLUMN audit.deliveries.last_status_code IS 'The last HTTP status that came.';
COMMENT ON COLUMN audit.deliveries.replay_id IS 'The replay that asked for it; 0 for the first delivery.';

COMMENT ON VIEW audit.attempts IS 'One row for each POST, on record before its first byte left.';
COMMENT ON COLUMN audit.attempts.delivery_id IS 'The delivery.';
COMMENT ON COLUMN audit.attempts.notification_id IS 'What the receiver saw as webhook-id.';
COMMENT ON COLUMN audit.attempts.attempt IS 'Number within the delivery, from 1.';
COMMENT ON COLUMN audit.attempts.event_id IS 'The chat event.';
COMMENT ON COLUMN audit.attempts.account_id IS 'The account.';
COMMENT ON COLUMN audit.attempts.webhook_id IS 'The webhook.';
COMMENT ON COLUMN audit.attempts.webhook_version IS 'The webhook''s version that was used.';
COMMENT ON COLUMN audit.attempts.url IS 'The URL of that version, without userinfo and query.';
COMMENT ON COLUMN audit.attempts.started_at IS 'When it was recorded, just before the POST.';
COMMENT ON COLUMN audit.attempts.finished_at IS 'When its outcome came, or was given up.';
COMMENT ON COLUMN audit.attempts.outcome IS 'started, succeeded, failed, or unknown: the relay died or could not record the outcome.';
COMMENT ON COLUMN audit.attempts.previous_outcome IS 'What the receiver was told of the attempt before; NULL for the first.';
COMMENT ON COLUMN audit.attempts.status_code IS 'The HTTP status, where one came.';
COMMENT ON COLUMN audit.attempts.error_class IS 'refused_address, dns, connect, tls, timeout, reset, status or body.';
COMMENT ON COLUMN audit.attempts.error_detail IS 'What went wrong, in words.';
COMMENT ON COLUMN audit.attempts.duration_ms IS 'From before the dial to the end of the kept response, by the relay''s monotonic clock.';
COMMENT ON COLUMN audit.attempts.remote_ip IS 'The address really dialled.';
COMMENT ON COLUMN audit.attempts.response_excerpt IS 'The first 4 KiB of the response body; NULL also where it was erased.';
COMMENT ON COLUMN audit.attempts.relay_id IS 'The relay that made it.';

COMMENT ON VIEW audit.timeline IS 'Every log entry: of chat events, deliveries, webhooks and replays.';
COMMENT ON COLUMN audit.timeline.seq IS 'Place in the log, growing within one relay; NULL for webhooks and replays.';
COMMENT ON COLUMN audit.timeline.at IS 'When it was written, by the writer''s clock.';
COMMENT ON COLUMN audit.timeline.account_id IS 'The account; NULL for a replay of several.';
COMMENT ON COLUMN audit.timeline.stream IS 'event, delivery, webhook or replay.';
COMMENT ON COLUMN audit.timeline.stream_id IS 'The id of what it is about.';
COMMENT ON COLUMN audit.timeline.version IS 'Number within the stream; for webhooks the account''s configuration version.';
COMMENT ON COLUMN audit.timeline.type IS 'What happened, in the past tense.';
COMMENT ON COLUMN audit.timeline.event_id IS 'The chat event, where there is one.';
COMMENT ON COLUMN audit.timeline.delivery_id IS 'The delivery, where there is one.';
COMMENT ON COLUMN audit.timeline.data IS 'The entry''s details.';

COMMENT ON VIEW audit.webhook_changes IS 'Who changed which webhook, when, and how.';
COMMENT ON COLUMN audit.webhook_changes.at IS 'When.';
COMMENT ON COLUMN audit.webhook_changes.account_id IS 'The account.';
COMMENT ON COLUMN audit.webhook_changes.webhook_id IS 'The webhook.';
COMMENT ON COLUMN audit.webhook_changes.webhook_version IS 'The version that the change made.';
COMMENT ON COLUMN audit.webhook_changes.actor IS 'Who: the database role, or what the caller named.';
COMMENT ON COLUMN audit.webhook_changes.change IS 'registered, updated, secret_rotated, paused, enabled, disabled or deleted.';
COMMENT ON COLUMN audit.webhook_changes.before IS 'Settings and state before, without secrets; NULL for a new webhook.';
COMMENT ON COLUMN audit.webhook_changes.after IS 'Settings and state after, without secrets.';
