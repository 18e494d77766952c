-- +goose Up
-- A version 7 UUID (RFC 9562): the milliseconds since 1970 in front keep
-- indexes on it local. uuidv7() is built in from PostgreSQL 18 only.
-- +goose StatementBegin
CREATE FUNCTION outbox.new_event_id() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- Wake-up. The relay sets this sequence to 1 before it sleeps and to 0 when it
-- wakes. A sequence is seen at once, also from an old snapshot, and leaves no
-- dead rows. NOTIFY takes a server-wide lock at commit, so it is sent only to
-- a sleeping relay.
CREATE SEQUENCE outbox.wake MINVALUE 0 MAXVALUE 1 START 0;

-- The column order matters: defaults are evaluated in it, and the relay's
-- windows need the transaction id to be assigned before the sequence number is
-- drawn, and before the wake-up's sequence is read. That is done by a default,
-- for a trigger took an eighth of the rate of inserts, and calls nothing of ours, so that
-- whoever may insert may do all that it does. Its inner CASE is there since a
-- void is no timestamptz. No CHECK judges content: what cannot be routed is
-- quarantined by the relay, and never fails the chat system's transaction.
CREATE TABLE outbox.events (
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    account_id   bigint      NOT NULL,
    event        text        NOT NULL,
    payload      json        NOT NULL,
    id           uuid        DEFAULT outbox.new_event_id(),
    ordering_key text,
    occurred_at  timestamptz,
    metadata     json,
    inserted_at  timestamptz NOT NULL DEFAULT CASE
                     WHEN pg_sequence_last_value('outbox.wake') > 0 THEN
                         CASE WHEN pg_notify('outrider_wake', '') IS NULL THEN clock_timestamp() ELSE clock_timestamp() END
                     ELSE clock_timestamp() END,
    seq          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    PRIMARY KEY (seq)
) PARTITION BY RANGE (seq);

CREATE INDEX events_xid_seq ON outbox.events (xid, seq);

-- The net below the partitions: a row that no partition takes still gets in.
CREATE TABLE outbox.events_net PARTITION OF outbox.events DEFAULT;

COMMENT ON TABLE outbox.events IS 'Chat events, inserted by the chat system in its own transactions: INSERT INTO outbox.events (account_id, event, payload) VALUES (...). The relay routes each committed row to the webhooks of its account.';
COMMENT ON COLUMN outbox.events.xid IS 'The inserting transaction. Set by the table.';
COMMENT ON COLUMN outbox.events.account_id IS 'The account whose webhooks are asked.';
COMMENT ON COLUMN outbox.events.event IS 'The event''s name, such as message_created: a lower-case letter, then up to 99 of a-z, 0-9, _ and dot. Other names are quarantined.';
COMMENT ON COLUMN outbox.events.payload IS 'The JSON object to POST, kept byte for byte. A top-level "event" is added where it is missing; one that differs from the column is quarantined.';
COMMENT ON COLUMN outbox.events.id IS 'Idempotency key: a second row of the account with the same id within 7 days is recorded as a duplicate and not sent. Default: a new time-ordered UUID; an explicit NULL takes one derived from seq.';
COMMENT ON COLUMN outbox.events.ordering_key IS 'What must be delivered in order, such as a conversation. NULL derives it from the payload (the conversation of conversation_*, message_* and typing events, the contact of contact_*); the empty string asks for no order.';
COMMENT ON COLUMN outbox.events.occurred_at IS 'When it happened, for the audit. Not judged.';
COMMENT ON COLUMN outbox.events.metadata IS 'Anything the producer wants to find again in audit.events. "traceparent" is passed on to receivers.';
COMMENT ON COLUMN outbox.events.inserted_at IS 'When the row was inserted. Set by the table.';
COMMENT ON COLUMN outbox.events.seq IS 'The row''s place in the outbox. Set by the table; gaps are normal.';

-- +goose StatementBegin
CREATE FUNCTION outbox.publish(
    account_id bigint, event text, payload json, id uuid DEFAULT NULL, ordering_key text DEFAULT NULL,
    occurred_at timestamptz DEFAULT NULL, metadata json DEFAULT NULL
) RETURNS uuid
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata)
    VALUES ($1, $2, $3, coalesce($4, outbox.new_event_id()), $5, $6, $7)
    RETURNING id
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION outbox.publish(bigint, text, json, uuid, text, timestamptz, json) FROM PUBLIC;
COMMENT ON FUNCTION outbox.publish(bigint, text, json, uuid, text, timestamptz, json) IS 'Inserts one row into outbox.events in the caller''s transaction and returns the event''s id.';

-- +goose StatementBegin
CREATE FUNCTION outbox.contract_version() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT '1.0' $$;
-- +goose StatementEnd
COMMENT ON FUNCTION outbox.contract_version() IS 'The version of the public contract: the tables, functions and views of the schemas outbox and audit. Within a major version it only grows.';

GRANT INSERT (account_id, event, payload, id, ordering_key, occurred_at, metadata) ON outbox.events TO outrider_producer;
GRANT SELECT (id, seq) ON outbox.events TO outrider_producer;
GRANT EXECUTE ON FUNCTION outbox.publish(bigint, text, json, uuid, text, timestamptz, json) TO outrider_producer;
GRANT SELECT ON outbox.events, outbox.events_net TO outrider_relay;
-- Whoever inserts reads it, as the role that inserts.
GRANT SELECT ON SEQUENCE outbox.wake TO PUBLIC;
GRANT UPDATE ON SEQUENCE outbox.wake TO outrider_relay;
