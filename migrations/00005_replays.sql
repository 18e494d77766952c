-- +goose Up
-- Replays: what was asked for, and how far it is. The stream replay_log tells
-- its life; cursor is the last chat event whose deliveries are scheduled.
CREATE TABLE relay.replays (
    replay_id    bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account_id   bigint,
    webhook_id   bigint,
    event_ids    uuid[],
    since        timestamptz,
    until        timestamptz,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state        text        NOT NULL DEFAULT 'requested', -- requested, running, scheduled
    cursor       bigint      NOT NULL DEFAULT 0,
    scheduled    bigint      NOT NULL DEFAULT 0,
    finished_at  timestamptz
);
CREATE INDEX replays_open ON relay.replays (replay_id) WHERE state <> 'scheduled';

CREATE TABLE relay.replay_log (
    replay_id  bigint      NOT NULL REFERENCES relay.replays,
    version    integer     NOT NULL,
    account_id bigint,
    type       text        NOT NULL, -- requested, scheduled
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text        NOT NULL,
    data       json        NOT NULL,
    PRIMARY KEY (replay_id, version)
);

-- +goose StatementBegin
CREATE FUNCTION relay.request_replay(
    account_id bigint DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    webhook_id bigint DEFAULT NULL, event_ids uuid[] DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_id  bigint;
    unknown uuid[];
    owner   bigint;
    state   text;
BEGIN
    IF event_ids IS NULL AND (since IS NULL OR until IS NULL) THEN
        RAISE EXCEPTION 'nothing is selected' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give event_ids, or both since and until.';
    ELSIF event_ids IS NOT NULL AND (since IS NOT NULL OR until IS NOT NULL) THEN
        RAISE EXCEPTION 'event_ids and a time range are given' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give one of the two.';
    ELSIF since >= until THEN
        RAISE EXCEPTION 'the range is empty: since % is not before until %', since, until USING ERRCODE = 'invalid_parameter_value';
    ELSIF cardinality(event_ids) NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION '% event ids are given; 1 to 10000 are accepted', cardinality(event_ids) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF event_ids IS NOT NULL THEN
        SELECT array_agg(i) INTO unknown FROM unnest(event_ids) i
         WHERE NOT EXISTS (
            SELECT FROM relay.log l WHERE l.event_id = i AND l.webhook_id = 0
               AND (request_replay.account_id IS NULL OR l.account_id = request_replay.account_id));
        IF unknown IS NOT NULL THEN
            RAISE EXCEPTION 'no routed event has the id %', array_to_string(unknown[1:3], ', ') USING ERRCODE = 'no_data_found',
                HINT = 'audit.events lists what was routed.';
        END IF;
    END IF;
    IF webhook_id IS NOT NULL THEN
        SELECT w.account_id, w.state INTO owner, state FROM relay.webhooks w WHERE w.id = request_replay.webhook_id;
        IF owner IS NULL OR owner <> coalesce(request_replay.account_id, owner) THEN
            RAISE EXCEPTION 'no webhook % in account %', webhook_id, coalesce(account_id::text, '(any)') USING ERRCODE = 'no_data_found';
        ELSIF state IN ('disabled', 'deleted') THEN
            RAISE EXCEPTION 'webhook % is %', webhook_id, state USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Enable it first; deliveries to it would be cancelled.';
        END IF;
    END IF;
    INSERT INTO relay.replays (account_id, webhook_id, event_ids, since, until, requested_by)
    VALUES (request_replay.account_id, request_replay.webhook_id, request_replay.event_ids,
            request_replay.since, request_replay.until, session_user)
    RETURNING replay_id INTO new_id;
    INSERT INTO relay.replay_log (replay_id, version, account_id, type, actor, data)
    VALUES (new_id, 1, request_replay.account_id, 'requested', session_user,
            json_strip_nulls(json_build_object('since', since, 'until', until, 'webhook_id', webhook_id, 'event_ids', event_ids)));
    PERFORM pg_notify('outrider_relay', 'replay');
    RETURN new_id;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.request_replay(bigint, timestamptz, timestamptz, bigint, uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.request_replay(bigint, timestamptz, timestamptz, bigint, uuid[]) TO outrider_operator, outrider_relay;
COMMENT ON FUNCTION relay.request_replay(bigint, timestamptz, timestamptz, bigint, uuid[]) IS 'Asks for new deliveries of old chat events: of event_ids, or of all routed at or after since and before until; of one account or, with NULL, of all; to the webhooks they were routed to (and those passed over because they were disabled), or to webhook_id alone of these. Returns the replay''s id.';

GRANT SELECT ON relay.replays, relay.replay_log TO outrider_relay;
GRANT INSERT ON relay.replay_log TO outrider_relay;
GRANT UPDATE (state, cursor, scheduled, finished_at) ON relay.replays TO outrider_relay;

-- Operators manage webhooks and follow replays; deliveries are the relay's.
GRANT SELECT ON relay.accounts, relay.webhooks, relay.webhook_log, relay.replays, relay.replay_log, relay.log, relay.batches, relay.schema_migrations TO outrider_operator;
GRANT INSERT ON relay.accounts, relay.webhooks, relay.webhook_log TO outrider_operator;
GRANT UPDATE ON relay.accounts, relay.webhooks TO outrider_operator;
