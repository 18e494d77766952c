-- +goose Up
-- Replays. Each begins as a plan, which has its deliveries by name, so that
-- what happens later cannot change what it means; a plan runs once. The stream
-- replay_log tells its life, and version is its last entry. The counts are a
-- fold over the log, as far as relay.replay_counts says, so that they are exact
-- however often a relay dies.
CREATE TABLE relay.replays (
    replay_id     bigint           PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account_id    bigint,          -- NULL: several
    selection     json             NOT NULL,
    requested_by  text             NOT NULL,
    requested_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    state         text             NOT NULL DEFAULT 'planned', -- planned, requested, running, paused, cancelling, cancelled, finished
    version       integer          NOT NULL DEFAULT 1,
    to_webhook_id bigint,          -- NULL: to the webhooks of the plan
    rate          double precision, -- deliveries per second; NULL: as fast as they are taken
    total         bigint           NOT NULL DEFAULT 0,
    seq_min       bigint           NOT NULL DEFAULT 0,
    seq_max       bigint           NOT NULL DEFAULT 0,
    scheduled     bigint           NOT NULL DEFAULT 0,
    gone          bigint           NOT NULL DEFAULT 0,  -- their events' payloads went while it ran
    succeeded     bigint           NOT NULL DEFAULT 0,
    dead          bigint           NOT NULL DEFAULT 0,
    cancelled     bigint           NOT NULL DEFAULT 0,
    expired       bigint           NOT NULL DEFAULT 0,
    finished_at   timestamptz
);
CREATE INDEX replays_open ON relay.replays (replay_id) WHERE state IN ('requested', 'running', 'paused', 'cancelling');

CREATE TABLE relay.replay_log (
    replay_id  bigint      NOT NULL REFERENCES relay.replays,
    version    integer     NOT NULL,
    account_id bigint,
    type       text        NOT NULL, -- planned, requested, started, paused, resumed, cancelling, cancelled, finished
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text        NOT NULL,
    data       json        NOT NULL,
    PRIMARY KEY (replay_id, version)
);

-- What a plan has, by webhook, and what it passed over: since the webhook could
-- get nothing when it was made, or the payload was gone.
CREATE TABLE relay.replay_webhooks (
    replay_id   bigint      NOT NULL,
    webhook_id  bigint      NOT NULL,
    account_id  bigint      NOT NULL,
    deliveries  bigint      NOT NULL,
    gone        bigint      NOT NULL, -- besides: their events have no payload any more
    passed_over text,       -- NULL: planned; else the webhook's state
    first_at    timestamptz NOT NULL, -- when the events were routed
    last_at     timestamptz NOT NULL,
    PRIMARY KEY (replay_id, webhook_id)
);

-- The deliveries of plans. pos is the place in the log where the event was
-- routed: the order in which they are sent.
CREATE TABLE relay.replay_deliveries (
    replay_id  bigint NOT NULL,
    webhook_id bigint NOT NULL,
    pos        bigint NOT NULL,
    event_seq  bigint NOT NULL,
    PRIMARY KEY (replay_id, webhook_id, pos)
);

-- A running plan's webhooks, and how far each is: a slow one holds up itself.
-- Each is the matter of the relay that has the webhook's shard.
CREATE TABLE relay.replay_streams (
    replay_id  bigint  NOT NULL,
    webhook_id bigint  NOT NULL,
    cursor     bigint  NOT NULL DEFAULT -1, -- pos of the last delivery that is scheduled
    scheduled  bigint  NOT NULL DEFAULT 0,
    gone       bigint  NOT NULL DEFAULT 0,
    drained    boolean NOT NULL DEFAULT false, -- nothing more of it will be scheduled
    PRIMARY KEY (replay_id, webhook_id)
);

-- How far a running plan's entries are counted, by who wrote them.
CREATE TABLE relay.replay_counts (
    replay_id bigint  NOT NULL,
    writer    bigint  NOT NULL,
    counted   bigint  NOT NULL, -- place in the log
    final     boolean NOT NULL, -- the writer was fenced: it has no others
    PRIMARY KEY (replay_id, writer)
);
-- Finds who may have written some: whoever was not fenced when it was requested.
CREATE INDEX relays_fenced ON relay.relays (fenced_at);

-- The entries of replays, each writer's in their order. Others do not pay for it.
CREATE INDEX log_replay_entries ON relay.log (replay_id, writer, pos) WHERE replay_id > 0;

-- An entry in a replay's stream; the caller holds the lock of its row.
-- +goose StatementBegin
CREATE FUNCTION relay.note_replay(replay_id bigint, type text, actor text, data json) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH r AS (UPDATE relay.replays p SET version = p.version + 1 WHERE p.replay_id = note_replay.replay_id RETURNING p.version, p.account_id)
    INSERT INTO relay.replay_log (replay_id, version, account_id, type, actor, data)
    SELECT note_replay.replay_id, r.version, r.account_id, note_replay.type, note_replay.actor,
           (jsonb_build_object('actor', note_replay.actor) || jsonb_strip_nulls(note_replay.data::jsonb))::json
      FROM r
$$;

-- Fails where events of a plan have no payload any more, or are about to lose
-- it. Each is looked up by its key, as a subquery that cannot become a join:
-- that would read the outbox.
CREATE FUNCTION relay.check_replay_payloads(replay_id bigint) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
DECLARE
    closed CONSTANT bigint := coalesce((SELECT max(c.below) FROM relay.closings c), 0);
    seen   record;
BEGIN
    SELECT count(*) AS total,
           count(*) FILTER (WHERE d.event_seq < closed OR (SELECT true FROM outbox.events e WHERE e.seq = d.event_seq LIMIT 1) IS NULL
                               OR (SELECT true FROM relay.erased x WHERE x.event_seq = d.event_seq LIMIT 1) IS NOT NULL) AS gone
      INTO seen FROM relay.replay_deliveries d WHERE d.replay_id = check_replay_payloads.replay_id;
    IF seen.gone > 0 THEN
        RAISE EXCEPTION 'the events of % of % deliveries have no payload any more', seen.gone, seen.total
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Plan anew, which leaves them out. audit.retentions and audit.erased_events say what went.';
    END IF;
END
$$;

CREATE FUNCTION relay.plan_replay(
    account_id bigint DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, webhook_id bigint DEFAULT NULL,
    event_ids uuid[] DEFAULT NULL, events text[] DEFAULT NULL, ordering_key text DEFAULT NULL, statuses text[] DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- The statement is planned for the values at hand, which prune partitions
    -- and conditions; compiling it costs more than it saves.
    SET plan_cache_mode = force_custom_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    known    CONSTANT text[] := '{pending,held,succeeded,dead,cancelled,expired,passed_over,unknown,undelivered}';
    new_id   bigint;
    sums     record;
    single   bigint;
    wrong    text;
    missing  uuid[];
    owner    bigint;
    low      bigint := 0;
    high     bigint := 9223372036854775807;
    oldest   record;
    closed   CONSTANT bigint := coalesce((SELECT max(c.below) FROM relay.closings c), 0);
BEGIN
    IF event_ids IS NULL AND since IS NULL THEN
        RAISE EXCEPTION 'nothing is selected' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give event_ids, or since and, where it is not now, until.';
    ELSIF event_ids IS NOT NULL AND (since IS NOT NULL OR until IS NOT NULL) THEN
        RAISE EXCEPTION 'event_ids and a time range are given' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give one of the two.';
    END IF;
    until := coalesce(until, clock_timestamp());
    IF since >= until THEN
        RAISE EXCEPTION 'the range is empty: since % is not before until %', since, until USING ERRCODE = 'invalid_parameter_value';
    ELSIF cardinality(event_ids) NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION '% event ids are given; 1 to 100000 are accepted', cardinality(event_ids) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT s INTO wrong FROM unnest(statuses) s WHERE s IS NULL OR s <> ALL (known) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% is no status of a delivery', coalesce(quote_literal(wrong), 'NULL') USING ERRCODE = 'invalid_parameter_value',
            HINT = 'There are: ' || array_to_string(known, ', ') || '.';
    END IF;
    IF event_ids IS NOT NULL THEN
        SELECT array_agg(i) INTO missing FROM unnest(event_ids) i
         WHERE NOT EXISTS (
            SELECT FROM relay.log l WHERE l.event_id = i AND l.webhook_id = 0
               AND (plan_replay.account_id IS NULL OR l.account_id = plan_replay.account_id));
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'no routed event has the id %', array_to_string(missing[1:3], ', ') || CASE WHEN cardinality(missing) > 3 THEN format(' (and %s others)', cardinality(missing) - 3) ELSE '' END
                USING ERRCODE = 'no_data_found', HINT = 'audit.events lists what was routed.';
        END IF;
        -- Its ids are shown with it, so it is an account's only if they all are.
        SELECT CASE WHEN count(DISTINCT l.account_id) = 1 THEN min(l.account_id) END INTO single
          FROM relay.log l WHERE l.event_id = ANY (event_ids) AND l.webhook_id = 0 AND (plan_replay.account_id IS NULL OR l.account_id = plan_replay.account_id);
    ELSE
        -- By place, found from the chain, so that a range of time reads that
        -- range and no more. What the chain has forgotten is searched whole.
        SELECT b.no, b.at, b.high INTO oldest FROM relay.batches b ORDER BY b.no LIMIT 1;
        SELECT coalesce(min(b.seq_min), 0), coalesce(max(b.seq_max), -1) INTO low, high
          FROM relay.batches b WHERE b.at >= since AND b.at < until AND b.no > 0;
        IF oldest.no > 0 AND since < oldest.at THEN
            low := 0;
            high := greatest(high, oldest.high);
        END IF;
    END IF;
    IF webhook_id IS NOT NULL THEN
        SELECT w.account_id INTO owner FROM relay.webhooks w WHERE w.id = plan_replay.webhook_id;
        IF owner IS NULL OR owner <> coalesce(plan_replay.account_id, owner) THEN
            RAISE EXCEPTION 'no webhook % in account %', webhook_id, coalesce(plan_replay.account_id::text, '(any)') USING ERRCODE = 'no_data_found',
                HINT = 'outrider webhook list shows those there are.';
        END IF;
        account_id := owner;
    END IF;
    INSERT INTO relay.replays (account_id, requested_by, selection)
    VALUES (plan_replay.account_id, session_user,
            json_strip_nulls(json_build_object(
                'account_id', plan_replay.account_id, 'since', since, 'until', CASE WHEN since IS NOT NULL THEN until END, 'webhook_id', plan_replay.webhook_id,
                -- All are in the plan; a long list would only be shown.
                'event_ids', event_ids[1:100], 'event_id_count', cardinality(event_ids),
                'events', events, 'ordering_key', ordering_key, 'statuses', statuses)))
    RETURNING replay_id INTO new_id;

    WITH routed AS (
      SELECT r.event_seq, r.pos, r.account_id, r.at, r.data -> 'skips' AS skips FROM relay.log r
       WHERE r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 AND r.type = 'routed' AND r.event_seq BETWEEN low AND high
         AND (plan_replay.event_ids IS NULL OR r.event_id = ANY (plan_replay.event_ids))
         AND (plan_replay.account_id IS NULL OR r.account_id = plan_replay.account_id)
         AND (plan_replay.since IS NULL OR r.at >= plan_replay.since AND r.at < plan_replay.until)
         AND (plan_replay.events IS NULL OR r.data ->> 'event' = ANY (plan_replay.events))
         AND (plan_replay.ordering_key IS NULL OR coalesce(r.data ->> 'ordering_key', '') = plan_replay.ordering_key)),
    -- The webhooks that each was routed to, and those passed over as disabled
    -- or unreadable, with what became of their latest delivery. Payloads are
    -- looked up as relay.check_replay_payloads does.
    found AS MATERIALIZED (
      SELECT r.event_seq, r.pos, r.account_id, r.at, t.webhook_id,
             r.event_seq < closed OR (SELECT true FROM outbox.events e WHERE e.seq = r.event_seq LIMIT 1) IS NULL
                OR (SELECT true FROM relay.erased x WHERE x.event_seq = r.event_seq LIMIT 1) IS NOT NULL AS gone
        FROM routed r
       CROSS JOIN LATERAL (
             SELECT l.webhook_id FROM relay.log l
              WHERE l.event_seq = r.event_seq AND l.replay_id = 0 AND l.version = 1 AND l.delivery_id IS NOT NULL
              UNION ALL
             SELECT (k.skip ->> 'webhook_id')::bigint FROM json_array_elements(r.skips) AS k (skip) WHERE k.skip ->> 'reason' IN ('disabled', 'settings_unreadable')
             ) t
        LEFT JOIN LATERAL (
             SELECT l.type FROM relay.log l WHERE l.event_seq = r.event_seq AND l.webhook_id = t.webhook_id
              ORDER BY l.replay_id DESC, l.version DESC LIMIT 1) n ON plan_replay.statuses IS NOT NULL
       CROSS JOIN LATERAL (
             SELECT CASE n.type WHEN 'attempt_succeeded' THEN 'succeeded' WHEN 'held' THEN 'held' WHEN 'dead' THEN 'dead'
                                WHEN 'cancelled' THEN 'cancelled' WHEN 'expired' THEN 'expired' ELSE CASE WHEN n.type IS NULL THEN 'passed_over' ELSE 'pending' END END AS status) s
       WHERE (plan_replay.webhook_id IS NULL OR t.webhook_id = plan_replay.webhook_id)
         AND (plan_replay.statuses IS NULL OR s.status = ANY (plan_replay.statuses)
              OR 'unknown' = ANY (plan_replay.statuses) AND EXISTS (
                 SELECT FROM relay.log l WHERE l.event_seq = r.event_seq AND l.webhook_id = t.webhook_id AND l.type = 'attempt_unknown')
              OR 'undelivered' = ANY (plan_replay.statuses) AND s.status IN ('dead', 'cancelled', 'expired', 'passed_over') AND NOT EXISTS (
                 SELECT FROM relay.log l WHERE l.event_seq = r.event_seq AND l.webhook_id = t.webhook_id AND l.type = 'attempt_succeeded'))),
    planned AS (
      INSERT INTO relay.replay_deliveries (replay_id, webhook_id, pos, event_seq)
      SELECT new_id, f.webhook_id, f.pos, f.event_seq
        FROM found f JOIN relay.webhooks w ON w.id = f.webhook_id
       WHERE NOT f.gone AND (w.state IN ('enabled', 'paused') OR plan_replay.webhook_id IS NOT NULL)
       ORDER BY f.webhook_id, f.pos),
    counted AS (
      INSERT INTO relay.replay_webhooks (replay_id, webhook_id, account_id, deliveries, gone, passed_over, first_at, last_at)
      SELECT new_id, f.webhook_id, f.account_id, f.deliveries, f.gone,
             CASE WHEN w.id IS NULL THEN 'deleted' WHEN w.state NOT IN ('enabled', 'paused') AND plan_replay.webhook_id IS NULL THEN w.state END, f.first_at, f.last_at
        FROM (SELECT f.webhook_id, f.account_id, count(*) FILTER (WHERE NOT f.gone) AS deliveries, count(*) FILTER (WHERE f.gone) AS gone, coalesce(min(f.at) FILTER (WHERE NOT f.gone), min(f.at)) AS first_at, coalesce(max(f.at) FILTER (WHERE NOT f.gone), max(f.at)) AS last_at FROM found f GROUP BY 1, 2) f
        LEFT JOIN relay.webhooks w ON w.id = f.webhook_id
      RETURNING account_id, deliveries, gone, passed_over)
    SELECT coalesce(sum(c.deliveries) FILTER (WHERE c.passed_over IS NULL), 0)::bigint AS total, coalesce(sum(c.deliveries + c.gone), 0)::bigint AS matching, coalesce(sum(c.gone), 0)::bigint AS gone,
           CASE WHEN count(DISTINCT c.account_id) FILTER (WHERE c.passed_over IS NULL AND c.deliveries > 0) = 1 THEN min(c.account_id) FILTER (WHERE c.passed_over IS NULL AND c.deliveries > 0) END AS account_id,
           (SELECT min(f.event_seq) FROM found f) AS seq_min, (SELECT max(f.event_seq) FROM found f) AS seq_max
      INTO sums FROM counted c;

    IF sums.matching = 0 THEN
        RAISE EXCEPTION 'no delivery is selected' USING ERRCODE = 'no_data_found',
            HINT = 'A replay takes what was routed to a webhook, or passed over because the webhook was disabled. audit.deliveries and audit.events show it.';
    ELSIF sums.total = 0 AND sums.gone > 0 THEN
        RAISE EXCEPTION 'the events of % of % deliveries have no payload any more%', sums.gone, sums.matching,
            CASE WHEN sums.gone < sums.matching THEN ', and the webhooks of the others are disabled or deleted' ELSE '' END
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'audit.retentions and audit.erased_events say what went.';
    ELSIF sums.total = 0 THEN
        RAISE EXCEPTION 'the webhooks of all % deliveries selected are disabled or deleted', sums.matching USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Enable them first; or name one by webhook_id, and run the plan to another webhook.';
    END IF;
    UPDATE relay.replays SET total = sums.total, seq_min = sums.seq_min, seq_max = sums.seq_max, account_id = CASE WHEN plan_replay.event_ids IS NULL THEN sums.account_id ELSE single END WHERE replay_id = new_id;
    INSERT INTO relay.replay_log (replay_id, version, account_id, type, actor, data)
    SELECT new_id, 1, p.account_id, 'planned', session_user, json_strip_nulls(json_build_object('actor', session_user, 'deliveries', p.total, 'without_payload', nullif(sums.gone, 0), 'selection', p.selection))
      FROM relay.replays p WHERE p.replay_id = new_id;
    RETURN new_id;
END
$$;

CREATE FUNCTION relay.request_replay(replay_id bigint, to_webhook_id bigint DEFAULT NULL, rate double precision DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    plan  record;
    hook  record;
    other bigint;
    wanted bigint;
BEGIN
    SELECT * INTO plan FROM relay.replays p WHERE p.replay_id = request_replay.replay_id FOR UPDATE;
    IF plan.replay_id IS NULL THEN
        RAISE EXCEPTION 'there is no replay %', coalesce(request_replay.replay_id::text, 'NULL') USING ERRCODE = 'no_data_found', HINT = 'outrider replay list shows those there are.';
    ELSIF plan.state = 'cancelled' AND plan.scheduled = 0 THEN
        RAISE EXCEPTION 'plan % is cancelled', plan.replay_id USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Plan anew.';
    ELSIF plan.state <> 'planned' THEN
        RAISE EXCEPTION 'plan % ran already: it is %', plan.replay_id, plan.state USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'A plan runs once: plan anew.';
    ELSIF NOT (rate > 0 AND rate < 'Infinity') THEN -- neither is NULL
        RAISE EXCEPTION 'the rate is %; it must be above 0', rate USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is in deliveries per second; NULL is as fast as they are taken.';
    END IF;
    IF to_webhook_id IS NOT NULL THEN
        SELECT w.account_id, w.state INTO hook FROM relay.webhooks w WHERE w.id = request_replay.to_webhook_id;
        IF hook.account_id IS NULL THEN
            RAISE EXCEPTION 'there is no webhook %', to_webhook_id USING ERRCODE = 'no_data_found', HINT = 'outrider webhook list shows those there are.';
        END IF;
        SELECT min(v.account_id) INTO other FROM relay.replay_webhooks v
         WHERE v.replay_id = request_replay.replay_id AND v.passed_over IS NULL AND v.deliveries > 0 AND v.account_id <> hook.account_id;
        IF other IS NOT NULL THEN
            RAISE EXCEPTION 'webhook % is of account %, and the plan has deliveries of account %', to_webhook_id, hook.account_id, other
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Plan for one account.';
        END IF;
    END IF;
    SELECT w.id, w.state INTO hook FROM relay.webhooks w
     WHERE w.state NOT IN ('enabled', 'paused')
       AND (w.id = request_replay.to_webhook_id
            OR request_replay.to_webhook_id IS NULL AND w.id IN (SELECT v.webhook_id FROM relay.replay_webhooks v WHERE v.replay_id = request_replay.replay_id AND v.passed_over IS NULL AND v.deliveries > 0))
     ORDER BY w.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'webhook % is %', hook.id, hook.state USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = CASE hook.state WHEN 'disabled' THEN 'Enable it first' ELSE 'There is no way back' END || '; or plan anew, which leaves it out; or run the plan to another webhook.';
    END IF;
    PERFORM relay.check_replay_payloads(plan.replay_id);
    IF to_webhook_id IS NOT NULL THEN
        -- Each event once, whatever webhooks it is planned for.
        INSERT INTO relay.replay_deliveries (replay_id, webhook_id, pos, event_seq)
        SELECT DISTINCT plan.replay_id, request_replay.to_webhook_id, d.pos, d.event_seq FROM relay.replay_deliveries d
         WHERE d.replay_id = plan.replay_id ORDER BY d.pos
            ON CONFLICT DO NOTHING; -- it is planned for this one besides others
        INSERT INTO relay.replay_streams (replay_id, webhook_id) VALUES (plan.replay_id, request_replay.to_webhook_id);
        SELECT count(*) INTO wanted FROM relay.replay_deliveries d WHERE d.replay_id = plan.replay_id AND d.webhook_id = request_replay.to_webhook_id;
    ELSE
        INSERT INTO relay.replay_streams (replay_id, webhook_id)
        SELECT v.replay_id, v.webhook_id FROM relay.replay_webhooks v WHERE v.replay_id = plan.replay_id AND v.passed_over IS NULL AND v.deliveries > 0;
        wanted := plan.total;
    END IF;
    UPDATE relay.replays p
       SET state = 'requested', to_webhook_id = request_replay.to_webhook_id, rate = request_replay.rate, total = wanted,
           requested_by = session_user, requested_at = clock_timestamp()
     WHERE p.replay_id = plan.replay_id;
    PERFORM relay.note_replay(plan.replay_id, 'requested', session_user,
                              json_build_object('deliveries', wanted, 'to_webhook_id', request_replay.to_webhook_id, 'rate', request_replay.rate));
    PERFORM pg_notify('outrider_relay', 'replay');
    RETURN plan.replay_id;
END
$$;

-- Takes a replay from one of some states to another, on record.
CREATE FUNCTION relay.move_replay(replay_id bigint, wanted text, from_states text[], to_state text, type text) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now_is text;
BEGIN
    SELECT p.state INTO now_is FROM relay.replays p WHERE p.replay_id = move_replay.replay_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no replay %', coalesce(move_replay.replay_id::text, 'NULL') USING ERRCODE = 'no_data_found', HINT = 'outrider replay list shows those there are.';
    ELSIF now_is <> ALL (from_states) THEN
        RAISE EXCEPTION 'replay % cannot be %: it is %', move_replay.replay_id, wanted, now_is USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = format('That takes one that is %s.', array_to_string(from_states, ', '));
    END IF;
    UPDATE relay.replays p SET state = to_state, finished_at = CASE to_state WHEN 'cancelled' THEN clock_timestamp() END WHERE p.replay_id = move_replay.replay_id;
    PERFORM relay.note_replay(move_replay.replay_id, move_replay.type, session_user, '{}');
    PERFORM pg_notify('outrider_relay', 'replay');
    RETURN to_state;
END
$$;

CREATE FUNCTION relay.pause_replay(replay_id bigint) RETURNS text
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT relay.move_replay(replay_id, 'paused', '{requested,running}', 'paused', 'paused') $$;

CREATE FUNCTION relay.resume_replay(replay_id bigint) RETURNS text
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT relay.move_replay(replay_id, 'resumed', '{paused}', 'running', 'resumed') $$;

CREATE FUNCTION relay.cancel_replay(replay_id bigint) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (SELECT FROM relay.replays p WHERE p.replay_id = cancel_replay.replay_id AND p.state = 'planned' FOR UPDATE) THEN
        RETURN relay.move_replay(replay_id, 'cancelled', '{planned}', 'cancelled', 'cancelled');
    END IF;
    -- The relay ends what is scheduled, and says when that is done.
    RETURN relay.move_replay(replay_id, 'cancelled', '{planned,requested,running,paused}', 'cancelling', 'cancelling');
END
$$;

-- What the relays call, each now and then: counts what was finished since the
-- last time, says when a replay is over, and gives its state; NULL to a relay
-- that is fenced. One counts at a time, by the lock of the replay's row. Entries
-- of one writer become visible in the order of their places, so that none ever
-- appears below one that was counted; those of several do not. Whoever sees that
-- a writer is fenced sees all that it wrote, since fencing waits for what it has
-- in flight: that is counted for the last time.
CREATE FUNCTION relay.count_replay(relay_id bigint, replay_id bigint) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    was   relay.replays;
    p     relay.replays;
    news  record;
    made  record;
    actor text := 'relay ' || count_replay.relay_id;
BEGIN
    PERFORM FROM relay.relays r WHERE r.relay_id = count_replay.relay_id AND r.fenced_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO was FROM relay.replays r WHERE r.replay_id = count_replay.replay_id FOR UPDATE;
    IF was.state NOT IN ('requested', 'running', 'paused', 'cancelling') THEN
        RETURN was.state;
    END IF;
    p := was;
    SELECT sum(s.scheduled) AS scheduled, sum(s.gone) AS gone, bool_and(s.drained) AS drained INTO made
      FROM relay.replay_streams s WHERE s.replay_id = count_replay.replay_id;
    -- Writers that were fenced before the request have none; the hour is for a
    -- clock that was set back meanwhile.
    WITH writers AS MATERIALIZED (
      SELECT r.relay_id AS writer, r.fenced_at IS NOT NULL AS final, coalesce(c.counted, -1) AS counted
        FROM relay.relays r
        LEFT JOIN relay.replay_counts c ON c.replay_id = count_replay.replay_id AND c.writer = r.relay_id
       WHERE (r.fenced_at IS NULL OR r.fenced_at > was.requested_at - interval '1 hour') AND c.final IS NOT TRUE),
    found AS MATERIALIZED (
      SELECT w.writer, w.final, w.counted, n.*
        FROM writers w
       CROSS JOIN LATERAL (
             SELECT count(*) FILTER (WHERE l.type = 'attempt_succeeded') AS succeeded, count(*) FILTER (WHERE l.type = 'dead') AS dead,
                    count(*) FILTER (WHERE l.type = 'cancelled') AS cancelled, count(*) FILTER (WHERE l.type = 'expired') AS expired, max(l.pos) AS pos
               FROM relay.log l -- by log_replay_entries: with bounds of event_seq, all between them might be read
              WHERE l.replay_id = count_replay.replay_id AND l.replay_id > 0 AND l.writer = w.writer AND l.pos > w.counted) n),
    noted AS (
      INSERT INTO relay.replay_counts (replay_id, writer, counted, final)
      SELECT count_replay.replay_id, f.writer, coalesce(f.pos, f.counted), f.final FROM found f WHERE f.pos IS NOT NULL OR f.final
          ON CONFLICT (replay_id, writer) DO UPDATE SET counted = excluded.counted, final = excluded.final)
    SELECT coalesce(sum(f.succeeded), 0) AS succeeded, coalesce(sum(f.dead), 0) AS dead, coalesce(sum(f.cancelled), 0) AS cancelled, coalesce(sum(f.expired), 0) AS expired
      INTO news FROM found f;
    p.scheduled := made.scheduled;
    p.gone      := made.gone;
    p.succeeded := was.succeeded + news.succeeded;
    p.dead      := was.dead + news.dead;
    p.cancelled := was.cancelled + news.cancelled;
    p.expired   := was.expired + news.expired;
    IF p.state = 'requested' THEN
        p.state := 'running';
    END IF;
    IF made.drained AND p.succeeded + p.dead + p.cancelled + p.expired >= p.scheduled THEN
        IF p.state = 'cancelling' THEN
            p.state := 'cancelled';
        ELSIF p.scheduled + p.gone >= p.total THEN
            p.state := 'finished';
        END IF;
    END IF;
    IF p.state IN ('cancelled', 'finished') THEN
        p.finished_at := clock_timestamp();
        DELETE FROM relay.replay_counts c WHERE c.replay_id = count_replay.replay_id;
    END IF;
    IF (p.state, p.scheduled, p.gone, p.succeeded, p.dead, p.cancelled, p.expired) = (was.state, was.scheduled, was.gone, was.succeeded, was.dead, was.cancelled, was.expired) THEN
        RETURN p.state;
    END IF;
    UPDATE relay.replays r
       SET state = p.state, scheduled = p.scheduled, gone = p.gone, succeeded = p.succeeded, dead = p.dead,
           cancelled = p.cancelled, expired = p.expired, finished_at = p.finished_at
     WHERE r.replay_id = p.replay_id;
    IF was.state = 'requested' THEN
        PERFORM relay.note_replay(p.replay_id, 'started', actor, '{}');
    END IF;
    IF p.finished_at IS NOT NULL THEN
        PERFORM relay.note_replay(p.replay_id, p.state, actor, json_build_object(
            'deliveries', p.total, 'succeeded', p.succeeded, 'dead', p.dead, 'cancelled', p.cancelled, 'expired', p.expired, 'gone', nullif(p.gone, 0),
            'not_scheduled', nullif(p.total - p.scheduled - p.gone, 0)));
    END IF;
    RETURN p.state;
END
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION relay.note_replay(bigint, text, text, json), relay.check_replay_payloads(bigint), relay.move_replay(bigint, text, text[], text, text),
    relay.plan_replay(bigint, timestamptz, timestamptz, bigint, uuid[], text[], text, text[]), relay.request_replay(bigint, bigint, double precision),
    relay.pause_replay(bigint), relay.resume_replay(bigint), relay.cancel_replay(bigint), relay.count_replay(bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    relay.plan_replay(bigint, timestamptz, timestamptz, bigint, uuid[], text[], text, text[]), relay.request_replay(bigint, bigint, double precision),
    relay.pause_replay(bigint), relay.resume_replay(bigint), relay.cancel_replay(bigint) TO outrider_operator, outrider_relay;
GRANT EXECUTE ON FUNCTION relay.count_replay(bigint, bigint) TO outrider_relay;
COMMENT ON FUNCTION relay.plan_replay(bigint, timestamptz, timestamptz, bigint, uuid[], text[], text, text[]) IS 'Plans new deliveries of old chat events, and changes nothing else: of event_ids, or of all routed at or after since and before until (now, where it is NULL); to the webhooks they were routed to, and those passed over because they were disabled. NULL selects all: account_id and webhook_id are the only ones, events are names of events, statuses what became of the latest delivery to that webhook (pending, held, succeeded, dead, cancelled, expired; passed_over: none was made), or unknown (an attempt of it is), or undelivered (none succeeded or is under way). What is to webhooks that are disabled or deleted is counted and left out, unless webhook_id names the webhook; so is what has no payload any more. Returns the plan''s id.';
COMMENT ON FUNCTION relay.request_replay(bigint, bigint, double precision) IS 'Runs a plan, once: to the webhooks it has, with their present settings; or, where to_webhook_id is given, each event of it once to that webhook of the same account. rate is in deliveries per second, NULL for as fast as they are taken; retries do not count. Returns the replay''s id, which is the plan''s.';
COMMENT ON FUNCTION relay.pause_replay(bigint) IS 'Sends nothing more of a replay until it is resumed; attempts under way are finished. Returns its state.';
COMMENT ON FUNCTION relay.resume_replay(bigint) IS 'Goes on with a paused replay. Returns its state.';
COMMENT ON FUNCTION relay.cancel_replay(bigint) IS 'Ends a replay, or drops a plan: what is scheduled and not finished becomes cancelled, on record; attempts under way are finished. Returns its state: cancelling until the relays have done so, then cancelled.';

CREATE VIEW audit.replays AS
SELECT p.replay_id,
       p.account_id,
       p.requested_by,
       p.requested_at,
       p.state,
       p.selection,
       p.total,
       p.succeeded + p.dead + p.cancelled + p.expired + p.gone AS done,
       p.succeeded,
       p.dead,
       p.finished_at
  FROM relay.replays p;
COMMENT ON VIEW audit.replays IS 'One row for each replay, and each plan of one.';
COMMENT ON COLUMN audit.replays.replay_id IS 'The replay, and its plan.';
COMMENT ON COLUMN audit.replays.account_id IS 'The account; NULL for several.';
COMMENT ON COLUMN audit.replays.requested_by IS 'Who asked for it to run; while it is only planned, who planned it. audit.timeline has both.';
COMMENT ON COLUMN audit.replays.requested_at IS 'When that was.';
COMMENT ON COLUMN audit.replays.state IS 'planned, requested (no relay has taken it up), running, paused, cancelling, cancelled or finished.';
COMMENT ON COLUMN audit.replays.selection IS 'What was asked for; of a long list of ids the first 100.';
COMMENT ON COLUMN audit.replays.total IS 'How many deliveries it has.';
COMMENT ON COLUMN audit.replays.done IS 'How many of them are finished, whatever came of them; counted by the relays about twice a second, and exact.';
COMMENT ON COLUMN audit.replays.succeeded IS 'How many succeeded.';
COMMENT ON COLUMN audit.replays.dead IS 'How many were given up.';
COMMENT ON COLUMN audit.replays.finished_at IS 'When it was finished, or cancelled for good.';

GRANT SELECT ON relay.replays, relay.replay_log, relay.replay_webhooks, relay.replay_deliveries, relay.replay_streams TO outrider_relay;
GRANT UPDATE (cursor, scheduled, gone, drained) ON relay.replay_streams TO outrider_relay;

-- Operators manage webhooks and follow replays; deliveries are the relay's.
GRANT SELECT ON relay.accounts, relay.webhooks, relay.webhook_log, relay.replays, relay.replay_log, relay.replay_webhooks, relay.log, relay.batches, relay.schema_migrations TO outrider_operator;
GRANT INSERT ON relay.accounts, relay.webhooks, relay.webhook_log TO outrider_operator;
GRANT UPDATE ON relay.accounts, relay.webhooks TO outrider_operator;
