-- +goose Up
-- Who may come in by the pages and the APIs: tokens, and the sessions that are
-- opened with them. outrider_web is the group of what outrider web connects as.
-- It may change webhooks, ask for replays and tests and read the history, as an
-- operator may, and see who comes in. It may not make tokens, bind tenants,
-- erase or adopt: whoever gets hold of the process gets no further than a token
-- for all accounts.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'outrider_web') THEN
        BEGIN
            CREATE ROLE outrider_web NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL; -- another migration was faster
        END;
    END IF;
END
$$;
-- +goose StatementEnd

-- A token is 32 random bytes, kept as their SHA-256 alone: a digest cannot be
-- turned back, and nobody guesses 256 bits, so salt and slowness would add
-- nothing.
CREATE TABLE relay.tokens (
    token_id     bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    hash         bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    account_id   bigint,     -- NULL: all accounts
    role         text        NOT NULL CHECK (role IN ('viewer', 'operator', 'administrator')),
    name         text        NOT NULL CHECK (name <> ''),
    created_by   text        NOT NULL DEFAULT session_user,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz, -- NULL: never
    revoked_at   timestamptz,
    last_used_at timestamptz  -- to the minute
);

-- What a browser has in place of the token. It ends with it: whoever looks a
-- session up looks at its token too.
CREATE TABLE relay.sessions (
    hash       bytea       PRIMARY KEY CHECK (octet_length(hash) = 32),
    token_id   bigint      NOT NULL REFERENCES relay.tokens,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_expires_at ON relay.sessions (expires_at);

-- Who made a token, and when, is not for its maker to say.
GRANT SELECT, INSERT (hash, account_id, role, name, expires_at), UPDATE (revoked_at) ON relay.tokens TO outrider_operator;
GRANT SELECT, UPDATE (last_used_at) ON relay.tokens TO outrider_web;
GRANT SELECT, INSERT, UPDATE (expires_at), DELETE ON relay.sessions TO outrider_web; -- SKIP LOCKED takes UPDATE

GRANT USAGE ON SCHEMA relay, audit TO outrider_web;
GRANT SELECT ON relay.accounts, relay.webhooks, relay.webhook_log, relay.replays, relay.replay_webhooks, relay.log, relay.batches, relay.schema_migrations,
    relay.relays, relay.heartbeats, relay.slots, relay.places TO outrider_web;
GRANT INSERT ON relay.accounts, relay.webhooks, relay.webhook_log TO outrider_web;
GRANT UPDATE ON relay.accounts, relay.webhooks TO outrider_web;
GRANT EXECUTE ON FUNCTION
    relay.plan_replay(bigint, timestamptz, timestamptz, bigint, uuid[], text[], text, text[]), relay.request_replay(bigint, bigint, double precision),
    relay.pause_replay(bigint), relay.resume_replay(bigint), relay.cancel_replay(bigint), relay.request_webhook_test(bigint),
    relay.tell_operator(uuid[], text[], text[], json[], timestamptz[]), relay.compatible_since() TO outrider_web;
GRANT SELECT ON ALL TABLES IN SCHEMA audit TO outrider_web;
GRANT EXECUTE ON FUNCTION audit.seq_from(timestamptz), audit.seq_to(timestamptz), audit.seq_range(timestamptz, timestamptz), audit.places(text, bigint, bigint, integer),
    audit.head(), audit.routed_after(bigint, integer), audit.replayed_after(bigint, integer), audit.stretch_dropped(bigint) TO outrider_web;

-- relay.guard() lets relays and operators pass; of the guarded tables these four
-- are read by outrider web itself, the others through the views.
CREATE POLICY web ON relay.replays FOR SELECT TO outrider_web USING (true);
CREATE POLICY web ON relay.webhook_log TO outrider_web USING (true) WITH CHECK (true);
CREATE POLICY web ON relay.webhooks TO outrider_web USING (true) WITH CHECK (true);
CREATE POLICY web ON relay.log FOR SELECT TO outrider_web USING (true);

-- What all webhooks of an account did together: quantiles cannot be made of each
-- one's, which the views show.
GRANT SELECT ON relay.webhook_stats, relay.webhook_standings, relay.due TO outrider_web;
CREATE POLICY web ON relay.webhook_stats FOR SELECT TO outrider_web USING (true);
CREATE POLICY web ON relay.webhook_standings FOR SELECT TO outrider_web USING (true);

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION relay.may_see_all() RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN pg_has_role(session_user, 'outrider_auditor', 'MEMBER')
        OR pg_has_role(session_user, 'outrider_operator', 'MEMBER')
        OR pg_has_role(session_user, 'outrider_relay', 'MEMBER')
        OR pg_has_role(session_user, 'outrider_web', 'MEMBER')
        OR pg_has_role(session_user, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'relay.log'::regclass), 'MEMBER');
END
$$;

CREATE OR REPLACE FUNCTION relay.guard_views() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v regclass;
BEGIN
    GRANT CREATE ON SCHEMA audit TO outrider_views; -- which an owner must have at the time
    FOR v IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('v', 'm')
               AND c.relname NOT IN ('entries', 'seals', 'change_seals', 'heads', 'retentions') ORDER BY c.relname LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO outrider_views', v);
        EXECUTE format('GRANT SELECT ON %s TO outrider_auditor, outrider_tenant, outrider_relay, outrider_operator, outrider_web', v);
    END LOOP;
    REVOKE CREATE ON SCHEMA audit FROM outrider_views;
END
$$;

-- Who asks: the role that logged in and, where a transaction says so by
-- outrider.actor, for whom, on one line. A setting cannot hide the role: it
-- always comes first.
CREATE FUNCTION relay.asker() RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN session_user || coalesce(' for ' || nullif(left(regexp_replace(current_setting('outrider.actor', true), '[[:cntrl:]]+', ' ', 'g'), 200), ''), '');
END
$$;

-- The functions of replays write down the role; these say for whom as well,
-- whichever function it is. What a relay writes of itself names no role.
CREATE FUNCTION relay.note_replay_asker() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.requested_by = session_user THEN
        NEW.requested_by := relay.asker();
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION relay.note_replay_actor() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.actor = session_user AND NEW.actor <> relay.asker() THEN
        NEW.actor := relay.asker();
        NEW.data := NEW.data::jsonb || jsonb_build_object('actor', NEW.actor);
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION relay.request_webhook_test(webhook_id bigint) RETURNS uuid
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
            new_id, '', clock_timestamp(), json_build_object('webhook_id', webhook_id, 'requested_by', relay.asker()))
    RETURNING seq INTO new_seq;
    INSERT INTO relay.webhook_tests (event_seq, webhook_id, requested_by) VALUES (new_seq, request_webhook_test.webhook_id, relay.asker());
    RETURN new_id;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.asker(), relay.note_replay_asker(), relay.note_replay_actor() FROM PUBLIC;

CREATE TRIGGER note_asker BEFORE INSERT OR UPDATE OF requested_by ON relay.replays
    FOR EACH ROW EXECUTE FUNCTION relay.note_replay_asker();
CREATE TRIGGER note_actor BEFORE INSERT ON relay.replay_log
    FOR EACH ROW EXECUTE FUNCTION relay.note_replay_actor();

COMMENT ON COLUMN audit.replays.requested_by IS 'Who asked for it to run, the database role and for whom; while it is only planned, who planned it. audit.timeline has both.';
COMMENT ON COLUMN audit.webhook_changes.change IS 'registered, updated, secret_rotated, paused, enabled, disabled, deleted, breaker_opened, breaker_closed or secret_revealed.';
