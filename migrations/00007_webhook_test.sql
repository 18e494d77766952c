-- +goose Up
-- Tests of a webhook that an operator asked for. The row of the outbox that it
-- names is routed to this webhook alone. It is found by its place, which no
-- producer can choose, so that no other row is taken for a test.
CREATE TABLE relay.webhook_tests (
    event_seq    bigint      PRIMARY KEY,
    webhook_id   bigint      NOT NULL,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- +goose StatementBegin
CREATE FUNCTION relay.request_webhook_test(webhook_id bigint) RETURNS uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hook    record;
    new_id  uuid := outbox.new_event_id();
    new_seq bigint;
BEGIN
    SELECT w.account_id, w.state, w.settings ->> 'name' AS name INTO hook FROM relay.webhooks w WHERE w.id = request_webhook_test.webhook_id;
    IF hook.account_id IS NULL THEN
        RAISE EXCEPTION 'there is no webhook %', webhook_id USING ERRCODE = 'no_data_found',
            HINT = 'outrider webhook list shows those there are.';
    ELSIF hook.state = 'deleted' THEN
        RAISE EXCEPTION 'webhook % is deleted', webhook_id USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'There is no way back: register its URL anew.';
    ELSIF hook.state <> 'enabled' THEN
        RAISE EXCEPTION 'webhook % is %: nothing is sent to it', webhook_id, hook.state USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = format('Enable it first: outrider webhook enable %s', webhook_id);
    END IF;
    INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata)
    VALUES (hook.account_id, 'webhook_test',
            json_build_object('event', 'webhook_test', 'account', json_build_object('id', hook.account_id),
                              'webhook', json_build_object('id', webhook_id, 'name', coalesce(hook.name, ''))),
            new_id, '', clock_timestamp(), json_build_object('webhook_id', webhook_id, 'requested_by', session_user))
    RETURNING seq INTO new_seq;
    INSERT INTO relay.webhook_tests (event_seq, webhook_id, requested_by) VALUES (new_seq, request_webhook_test.webhook_id, session_user);
    RETURN new_id;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.request_webhook_test(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.request_webhook_test(bigint) TO outrider_operator, outrider_relay;
COMMENT ON FUNCTION relay.request_webhook_test(bigint) IS 'Inserts an event webhook_test that is routed to this webhook alone, whatever its subscriptions and its inbox, and returns the event''s id. The webhook must be enabled. audit.events shows in its metadata who asked.';

GRANT SELECT ON relay.webhook_tests TO outrider_relay;
