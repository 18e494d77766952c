-- +goose Up
-- Ids are derived, so that an auditor can recompute them: a UUID version 8
-- with the first 48 bits of prefix and SHA-256 of the input behind them.
--
-- What the views call would be looked up by the search_path of whoever reads
-- them, and so could be somebody else's, who would see whole URLs: a body that is
-- not a string is looked up once, here.
CREATE FUNCTION audit.derived_id(prefix uuid, input bytea) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT encode(
        set_byte(set_byte(b.raw, 6, get_byte(b.raw, 6) & 15 | 128), 8, get_byte(b.raw, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT substring(uuid_send(prefix) FOR 6) || substring(sha256(input) FOR 10) AS raw) b);
CREATE FUNCTION audit.notification_id(account_id bigint, event_id uuid, webhook_id bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN audit.derived_id(event_id, 'n'::bytea || int8send(account_id) || uuid_send(event_id) || int8send(webhook_id));
COMMENT ON FUNCTION audit.notification_id(bigint, uuid, bigint) IS 'The webhook-id that receivers see: derived from account, event and webhook, the same for retries and replays.';

-- What an auditor may see of a URL.
CREATE FUNCTION audit.shown_url(url text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN regexp_replace(url, '[?#].*$', '');

COMMENT ON FUNCTION audit.derived_id(uuid, bytea) IS 'A UUID version 8 with the first 48 bits of prefix and the beginning of SHA-256 over input: how ids are derived.';
COMMENT ON FUNCTION audit.shown_url(text) IS 'A URL without its query.';

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

COMMENT ON VIEW audit.webhook_changes IS 'Who changed which webhook, when, and how.';
COMMENT ON COLUMN audit.webhook_changes.at IS 'When.';
COMMENT ON COLUMN audit.webhook_changes.account_id IS 'The account.';
COMMENT ON COLUMN audit.webhook_changes.webhook_id IS 'The webhook.';
COMMENT ON COLUMN audit.webhook_changes.webhook_version IS 'The version that the change made.';
COMMENT ON COLUMN audit.webhook_changes.actor IS 'Who: the database role, or what the caller named.';
COMMENT ON COLUMN audit.webhook_changes.change IS 'registered, updated, secret_rotated, paused, enabled, disabled, deleted, breaker_opened or breaker_closed.';
COMMENT ON COLUMN audit.webhook_changes.before IS 'Settings and state before, without secrets; NULL for a new webhook.';
COMMENT ON COLUMN audit.webhook_changes.after IS 'Settings and state after, without secrets.';
