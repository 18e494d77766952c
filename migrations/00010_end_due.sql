-- +goose Up
-- Ends the waits of due rows, one look-up by key each. A join would do the same
-- in one step, but its plan is made and kept for a table of the size that this
-- one has now: nearly none, when all is well, and a million rows an hour after
-- a receiver stopped answering. "+ 0" leaves the planner no other index.
-- +goose StatementBegin
CREATE FUNCTION relay.end_due(events bigint[], webhooks bigint[], replays bigint[], versions integer[]) RETURNS void
    LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    FOR i IN 1..coalesce(array_length(events, 1), 0) LOOP
        DELETE FROM relay.due d
         WHERE d.event_seq = events[i] AND d.webhook_id + 0 = webhooks[i] AND d.replay_id = replays[i] AND d.version = versions[i];
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.end_due(bigint[], bigint[], bigint[], integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.end_due(bigint[], bigint[], bigint[], integer[]) TO outrider_relay;
