-- +goose Up
-- What the relay tells its operator: chat events of the account -1, which is
-- reserved for them. They are routed and delivered as any others. A row that the
-- relay wrote is known by its place, which no producer can choose; any other one
-- of that account is quarantined.
CREATE TABLE relay.operator_events (
    event_seq bigint PRIMARY KEY
);
GRANT SELECT ON relay.operator_events TO outrider_relay;

-- Inserts those that a webhook of the operator's account has subscribed to: also
-- a paused one, which keeps them, and a disabled one, which may have them
-- replayed. It is called by the transaction that records what they tell of, and
-- must not keep that from the record: another one's trigger or constraint on the
-- outbox may refuse a row. What passes by itself is left to the caller, who
-- tries again.
-- +goose StatementBegin
CREATE FUNCTION relay.tell_operator(ids uuid[], events text[], ordering_keys text[], payloads json[], at timestamptz[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH told AS (
        INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at)
        SELECT -1, n.event, n.payload, n.id, n.ordering_key, n.at
          FROM unnest(tell_operator.ids, tell_operator.events, tell_operator.ordering_keys, tell_operator.payloads, tell_operator.at)
               AS n (id, event, ordering_key, payload, at)
         WHERE n.event IN (
               SELECT s.name FROM relay.webhooks w
                CROSS JOIN json_array_elements_text(CASE WHEN json_typeof(w.settings -> 'subscriptions') = 'array' THEN w.settings -> 'subscriptions' END) AS s (name)
                WHERE w.account_id = -1 AND w.state <> 'deleted')
        RETURNING seq)
    INSERT INTO relay.operator_events (event_seq) SELECT t.seq FROM told t;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
        RAISE;
    WHEN OTHERS THEN
        RAISE WARNING 'outrider could not tell its operator of %: %', tell_operator.events, SQLERRM;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.tell_operator(uuid[], text[], text[], json[], timestamptz[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.tell_operator(uuid[], text[], text[], json[], timestamptz[]) TO outrider_relay, outrider_operator;

-- Once its row is gone nobody asks who wrote it.
-- +goose StatementBegin
CREATE FUNCTION relay.forget_operator_events() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM relay.operator_events o WHERE o.event_seq >= NEW.lower AND o.event_seq < NEW.upper;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.forget_operator_events() FROM PUBLIC;
CREATE TRIGGER forget_operator_events AFTER UPDATE OF payloads_gone ON relay.partitions
    FOR EACH ROW WHEN (NEW.payloads_gone IS NOT NULL) EXECUTE FUNCTION relay.forget_operator_events();

-- The operator's account is no tenant's: what it is told is of all accounts.
ALTER TABLE relay.tenant_roles ADD CONSTRAINT tenant_roles_account_id CHECK (account_id <> -1);

COMMENT ON COLUMN outbox.events.account_id IS 'The account whose webhooks are asked. -1 is the operator''s, whose events the relay alone writes: such a row of anybody else is quarantined.';
