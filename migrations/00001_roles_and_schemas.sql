-- +goose Up
-- The roles are groups without login. They are cluster-wide, so another
-- database may have made them already, or be making them at this moment.
-- +goose StatementBegin
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['outrider_producer', 'outrider_relay', 'outrider_operator', 'outrider_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL; -- another migration was faster
            END;
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE SCHEMA outbox;
CREATE SCHEMA audit;

COMMENT ON SCHEMA outbox IS 'Where the chat system inserts its events. Public contract: see outbox.contract_version().';
COMMENT ON SCHEMA relay IS 'Outrider''s own tables and commands. Only the functions with a COMMENT are for others.';
COMMENT ON SCHEMA audit IS 'What happened, for reading: role outrider_auditor.';

GRANT USAGE ON SCHEMA outbox TO outrider_producer, outrider_relay, outrider_operator;
GRANT USAGE ON SCHEMA relay TO outrider_relay, outrider_operator;
GRANT USAGE ON SCHEMA audit TO outrider_auditor, outrider_relay, outrider_operator;
