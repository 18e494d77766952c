-- +goose Up
-- Tenants: roles that see the history of one account. outrider_tenant is the
-- group that they are in, outrider_views owns what they read. The owner of the
-- schema has to be a member of outrider_views: else it could neither give it
-- the views nor replace them.
-- +goose StatementBegin
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['outrider_tenant', 'outrider_views'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL; -- another migration was faster
            END;
        END IF;
    END LOOP;
    IF NOT pg_has_role('outrider_views', 'USAGE') THEN
        BEGIN
            EXECUTE format('GRANT outrider_views TO %I', current_user);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION '% is not a member of outrider_views, which the views of the schema audit are to belong to', current_user
                    USING ERRCODE = 'insufficient_privilege', HINT = format('As an administrator: GRANT outrider_views TO %I', current_user);
            WHEN OTHERS THEN
                -- The migration of another database of this owner was faster.
                IF NOT pg_has_role('outrider_views', 'USAGE') THEN
                    RAISE;
                END IF;
        END;
    END IF;
END
$$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA audit TO outrider_tenant;

-- Which account a role may see. By name, so a role that is dropped and made
-- anew is the same here: a binding is taken back before its role is dropped.
CREATE TABLE relay.tenant_roles (
    role       name   PRIMARY KEY,
    account_id bigint NOT NULL
);
GRANT SELECT, INSERT, DELETE ON relay.tenant_roles TO outrider_operator;

-- Who looks is whoever logged in, whatever SET ROLE and the owners of functions
-- say. sees_all() is for those who may read all accounts; seen_account() is the
-- one that others may, NULL for none. The setting outrider.account_id narrows
-- both and widens neither. They are functions since a query over the views asks
-- several times, and planning subqueries anew takes longer than asking.
--
-- sees_all() is true or NULL, and the policies ask whether it is NOT NULL: that
-- is estimated as nearly always so. A boolean would be taken for half of the
-- rows, of each of the four places where a view reads the log: a sixteenth in
-- all, and a page would be sorted instead of read by its index.
-- +goose StatementBegin
CREATE FUNCTION relay.may_see_all() RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pg_has_role(session_user, 'outrider_auditor', 'MEMBER')
        OR pg_has_role(session_user, 'outrider_operator', 'MEMBER')
        OR pg_has_role(session_user, 'outrider_relay', 'MEMBER')
        OR pg_has_role(session_user, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'relay.log'::regclass), 'MEMBER');
END
$$;

CREATE FUNCTION relay.narrowed_to() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('outrider.account_id', true), '')::bigint;

CREATE FUNCTION relay.sees_all() RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN relay.may_see_all() AND relay.narrowed_to() IS NULL THEN true END;
END
$$;

CREATE FUNCTION relay.seen_account() RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF relay.may_see_all() THEN
        RETURN relay.narrowed_to();
    END IF;
    RETURN (SELECT t.account_id FROM relay.tenant_roles t
             WHERE t.role = session_user AND t.account_id = coalesce(relay.narrowed_to(), t.account_id));
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.may_see_all(), relay.narrowed_to() FROM PUBLIC;
-- sees_all and seen_account run with the rights of whoever reads a view, and
-- tell only what concerns that session: PUBLIC keeps its right to them.

-- A table that a view of the schema audit reads is given to this function, once,
-- by the migration that makes it: that is its whole share of the tenants'
-- boundary. The table needs a column account_id. Only outrider_views reads it
-- for the views, and sees the rows that the session may; those who read it
-- directly are decided by GRANT, and by the first policy, as good as free: a
-- constant, of which nothing is left in a plan.
-- +goose StatementBegin
CREATE FUNCTION relay.guard(tbl regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = tbl AND a.attname = 'account_id') THEN
        RAISE EXCEPTION '% has no column account_id to tell whose its rows are', tbl;
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tbl);
    EXECUTE format('CREATE POLICY direct ON %s TO outrider_relay, outrider_operator USING (true) WITH CHECK (true)', tbl);
    EXECUTE format('CREATE POLICY views ON %s FOR SELECT TO outrider_views USING ((SELECT relay.sees_all()) IS NOT NULL OR account_id = (SELECT relay.seen_account()))', tbl);
    EXECUTE format('GRANT SELECT ON %s TO outrider_views', tbl);
    PERFORM relay.hide_statistics(tbl);
END
$$;

-- EXPLAIN answers from the statistics of all rows, whosever they are: asked
-- often enough, it would tell which values are common and, by halving, the very
-- bounds of the histograms. So none are kept of what tells one account from
-- another, or of anybody's words. What is left tells of all accounts together.
-- Ids keep one value, for how many different ones there are.
CREATE FUNCTION relay.hide_statistics(tbl regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    col record;
BEGIN
    FOR col IN
        SELECT a.attname, CASE WHEN a.atttypid = 'uuid'::regtype THEN 1 ELSE 0 END AS target
          FROM pg_attribute a
         WHERE a.attrelid = tbl AND a.attnum > 0 AND NOT a.attisdropped
           AND (a.attname IN ('account_id', 'webhook_id') OR a.atttypid IN ('uuid'::regtype, 'text'::regtype, 'bytea'::regtype, 'inet'::regtype))
           AND a.attname NOT IN ('type', 'routing', 'state') -- words of ours
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', tbl, col.attname, col.target);
    END LOOP;
END
$$;

-- A new partition is made LIKE its parent, which leaves the targets out.
CREATE FUNCTION relay.keep_targets() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parent    text := CASE WHEN NEW.responses_done AND NOT OLD.responses_done THEN 'relay.responses'
                           WHEN NEW.log_done AND NOT OLD.log_done THEN 'relay.log' ELSE 'outbox.events' END;
    partition regclass := to_regclass(format('%s_%s', parent, NEW.lower));
    col       record;
BEGIN
    FOR col IN
        SELECT a.attname, a.attstattarget AS target FROM pg_attribute a
         WHERE a.attrelid = parent::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0 AND partition IS NOT NULL
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', partition, col.attname, col.target);
    END LOOP;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.guard(regclass), relay.hide_statistics(regclass), relay.keep_targets() FROM PUBLIC;

CREATE TRIGGER keep_targets AFTER UPDATE OF events_done, log_done, responses_done ON relay.partitions
    FOR EACH ROW WHEN (OLD.events_done <> NEW.events_done OR OLD.log_done <> NEW.log_done OR OLD.responses_done <> NEW.responses_done)
    EXECUTE FUNCTION relay.keep_targets();

SELECT relay.guard('relay.log');
SELECT relay.guard('relay.webhook_log');
SELECT relay.guard('relay.replays');
SELECT relay.guard('relay.replay_log');
SELECT relay.guard('relay.webhook_stats');
SELECT relay.guard('relay.webhook_standings');
SELECT relay.guard('relay.webhooks');
-- Of these no view shows a secret, and none can.
REVOKE SELECT ON relay.webhooks FROM outrider_views;
GRANT SELECT (id, account_id, state, breaker_opened_at) ON relay.webhooks TO outrider_views;

-- webhook_id is 0 in a quarter of the log: that one value has to be known.
ALTER TABLE relay.log ALTER COLUMN webhook_id SET STATISTICS 1;

-- Belongs to no account, and is not shown: where the position is.
GRANT SELECT ON relay.batches TO outrider_views;

-- outbox.events has no row-level security: PostgreSQL refuses COPY into a table
-- that has it, and producers may use that. So the views read it through this
-- one, a security barrier: what a query asks for is judged behind it, unless it
-- can tell nothing. It has no payload, which no view may show.
CREATE VIEW relay.shown_events WITH (security_barrier) AS
SELECT e.xid, e.seq, e.account_id, e.id, e.event, e.ordering_key, e.occurred_at, e.inserted_at, e.metadata
  FROM outbox.events e
 WHERE (SELECT relay.sees_all()) IS NOT NULL OR e.account_id = (SELECT relay.seen_account());
GRANT SELECT ON relay.shown_events TO outrider_views;
SELECT relay.hide_statistics('outbox.events');

-- Shaped so that a page, newest first, reads a page: PostgreSQL merges the arms
-- of a UNION ALL by an index only where the large arm is a bare table without
-- WHERE and the columns of both have the very same types. So the condition on
-- webhook_id stands outside, the constants are cast, and what belongs to the
-- chat event is joined behind. A barrier is no longer one where its rows are
-- joined, so each row of relay.shown_events is looked up by itself: OFFSET 0.
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
               SELECT o.seq, o.id, o.account_id FROM relay.shown_events o WHERE o.xid = t.xid AND o.seq + 0 > t.low OFFSET 0) w
         WHERE (SELECT true FROM relay.log r WHERE r.event_seq = w.seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 LIMIT 1) IS NULL
         UNION ALL
        SELECT w.seq, 0::bigint, 'routed'::text, w.id, w.account_id, NULL::timestamptz, 'waiting'::text, NULL::json
          FROM relay.shown_events w
         WHERE w.xid >= (SELECT pg_snapshot_xmax(b.consumed) FROM relay.batches b ORDER BY b.no DESC LIMIT 1)
           AND w.xid <= (SELECT '18446744073709551615'::xid8) -- always so: of a range the planner expects few, of a half-open one a third
           AND w.seq > (SELECT b.floor FROM relay.batches b ORDER BY b.no DESC LIMIT 1)
           AND w.seq <= (SELECT 9223372036854775807)
           AND (SELECT true FROM relay.log r WHERE r.event_seq = w.seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 LIMIT 1) IS NULL) x
  LEFT JOIN LATERAL (
       SELECT o.event, o.ordering_key, o.occurred_at, o.inserted_at, o.metadata FROM relay.shown_events o WHERE o.seq = x.seq OFFSET 0) e ON true
 WHERE x.webhook_id = 0 AND x.type = 'routed';

-- It has the shape of audit.deliveries. The log is in the order of event_seq, so
-- that a stretch of it is what a query over a time reads.
CREATE VIEW audit.attempts AS
SELECT s.delivery_id,
       audit.notification_id(s.account_id, s.event_id, s.webhook_id) AS notification_id,
       (a.data ->> 'attempt')::integer                 AS attempt,
       s.event_id,
       s.account_id,
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
       a.writer                                        AS relay_id,
       s.event_seq
  FROM relay.log s
 CROSS JOIN LATERAL (
       SELECT t.event_seq, t.webhook_id, t.replay_id, t.version, t.at, t.writer, t.data FROM relay.log t
        WHERE t.event_seq = s.event_seq AND t.webhook_id = s.webhook_id AND t.replay_id = s.replay_id AND t.type = 'attempt_started' OFFSET 0) a
  -- While an attempt is open nothing else enters its stream, so its outcome is
  -- the next entry.
  LEFT JOIN LATERAL (
       SELECT t.at, t.type, t.data FROM relay.log t
        WHERE t.event_seq = s.event_seq AND t.webhook_id = s.webhook_id AND t.replay_id = s.replay_id AND t.version = a.version + 1 LIMIT 1) o ON true
  LEFT JOIN relay.webhook_log w ON w.webhook_id = s.webhook_id AND w.version = (a.data ->> 'webhook_version')::bigint
 WHERE s.delivery_id IS NOT NULL AND s.type = 'scheduled';

-- Decisions stand alone, so that a condition on the event finds both its
-- decision and its deliveries by an index each.
CREATE VIEW audit.timeline AS
SELECT r.pos                                           AS seq,
       r.at,
       r.account_id,
       'event'                                         AS stream,
       r.event_id::text                                AS stream_id,
       r.version,
       r.type,
       r.event_id,
       NULL::uuid                                      AS delivery_id,
       r.data,
       r.event_seq
  FROM relay.log r
 WHERE r.webhook_id = 0 AND r.type = 'routed'
UNION ALL
SELECT l.pos, l.at, s.account_id, 'delivery', s.delivery_id::text, l.version, l.type, s.event_id, s.delivery_id, l.data, l.event_seq
  FROM relay.log s
  JOIN relay.log l ON l.event_seq = s.event_seq AND l.webhook_id = s.webhook_id AND l.replay_id = s.replay_id
 WHERE s.version = 1 AND s.delivery_id IS NOT NULL AND s.type = 'scheduled'
UNION ALL
SELECT NULL, w.at, w.account_id, 'webhook', w.webhook_id::text, w.version, w.type, NULL, NULL,
       json_build_object('actor', w.actor, 'url', audit.shown_url(w.after ->> 'url'), 'state', w.after ->> 'state'), NULL::bigint
  FROM relay.webhook_log w
UNION ALL
SELECT NULL, p.at, p.account_id, 'replay', p.replay_id::text, p.version, p.type, NULL, NULL, p.data, NULL::bigint
  FROM relay.replay_log p;

-- What was routed in a time lies in a stretch of the log, which the chain tells:
-- whatever is routed after a link lies above its low (see relay.decided_up_to),
-- and what was routed up to it at or below its high. It costs the hot path
-- nothing; an index on the time of each entry took a tenth of an insert's CPU
-- as a BRIN, and a quarter as a btree.
-- +goose StatementBegin
CREATE FUNCTION audit.seq_from(since timestamptz) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT 1 + coalesce((SELECT b.low FROM relay.batches b WHERE b.at < since ORDER BY b.at DESC LIMIT 1), 0) $$;
CREATE FUNCTION audit.seq_to(until timestamptz) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT b.high FROM relay.batches b WHERE b.at < until ORDER BY b.at DESC LIMIT 1),
                    (SELECT b.high FROM relay.batches b ORDER BY b.no LIMIT 1))
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION audit.seq_from(timestamptz), audit.seq_to(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.seq_from(timestamptz), audit.seq_to(timestamptz) TO outrider_auditor, outrider_tenant, outrider_relay, outrider_operator;

-- Every migration that makes a view in the schema audit ends with this: it
-- gives the view to outrider_views, through whom it sees what the session may,
-- and lets read it who may read the history. Not so the views of the seals, nor
-- of what retention did: a seal is of entries of all accounts, and a partition as
-- well, so they are an auditor's alone.
-- +goose StatementBegin
CREATE FUNCTION relay.guard_views() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v regclass;
BEGIN
    GRANT CREATE ON SCHEMA audit TO outrider_views; -- which an owner must have at the time
    FOR v IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('v', 'm')
               AND c.relname NOT IN ('entries', 'seals', 'change_seals', 'heads', 'retentions') ORDER BY c.relname LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO outrider_views', v);
        EXECUTE format('GRANT SELECT ON %s TO outrider_auditor, outrider_tenant, outrider_relay, outrider_operator', v);
    END LOOP;
    REVOKE CREATE ON SCHEMA audit FROM outrider_views;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.guard_views() FROM PUBLIC;

SELECT relay.guard_views();

COMMENT ON SCHEMA audit IS 'What happened, for reading: role outrider_auditor, and outrider_tenant for one account.';

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
COMMENT ON COLUMN audit.attempts.event_seq IS 'The chat event''s place in the outbox.';

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
COMMENT ON COLUMN audit.timeline.event_seq IS 'The chat event''s place in the outbox, where there is one.';

COMMENT ON FUNCTION audit.seq_from(timestamptz) IS 'Where in the log to begin: what was routed at or after this time has an event_seq at or above it.';
COMMENT ON FUNCTION audit.seq_to(timestamptz) IS 'Where in the log to end: what was routed before this time has an event_seq at or below it.';
