-- +goose Up
-- Adopting a database that was restored elsewhere, upgraded or cloned. Its rows
-- tell transactions of another server: compared with those of this one, some
-- would seem to lie ahead and never be read, others to be read already. So the
-- link that adopts has an absolute bound: what lies at or below it is routed by
-- whether it has a decision, what lies above by transactions, all of which are
-- this server's. See outbox/window.go.
ALTER TABLE relay.batches ADD COLUMN bound bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN relay.batches.bound IS 'While what an adoption found is being routed: its highest seq. Else 0.';

ALTER TABLE relay.identity ADD COLUMN adopted_by text;
COMMENT ON COLUMN relay.identity.adopted_by IS 'Who adopted the database; NULL where the first relay found it new.';

-- Whether this is another database than the one its history was written on. One
-- on which no relay ever ran has no identity yet; it was moved if it has rows of
-- transactions that this server has not come to. None relays on such a one until
-- relay.adopt().
-- +goose StatementBegin
CREATE FUNCTION relay.database_changed() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT i.system_identifier <> c.system_identifier OR i.database_oid <> d.oid
           FROM relay.identity i, pg_control_system() c, pg_database d
          WHERE d.datname = current_database() ORDER BY i.since DESC LIMIT 1),
        EXISTS (SELECT FROM outbox.events e WHERE e.xid >= pg_snapshot_xmax(pg_current_snapshot())))
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.database_changed() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.database_changed() TO outrider_relay, outrider_operator;

-- The place in the outbox at or below which every committed row has a decision,
-- by the newest link. While an adoption is being routed that is its cursor.
-- Else it is low, the high of a link whose transaction W came before all that
-- were under way in consumed: a row of a transaction after W lies above low,
-- for it drew its seq when all up to low were delivered; one of a transaction
-- before W is visible in consumed, and all that is was routed. The link, those
-- before it and their decisions are of one snapshot, so a copy has them all.
-- +goose StatementBegin
CREATE FUNCTION relay.decided_up_to() RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN b.bound > 0 THEN b.cursor ELSE b.low END FROM relay.batches b ORDER BY b.no DESC LIMIT 1 $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.decided_up_to() FROM PUBLIC;

-- What outrider adopt shows. Counts end at 10001. It takes outrider_operator,
-- which may not read these tables.
-- +goose StatementBegin
CREATE FUNCTION relay.adoption(
    OUT changed boolean, OUT system_identifier bigint, OUT database_oid oid, OUT database_name name,
    OUT was_system_identifier bigint, OUT was_database_oid oid, OUT was_database_name name, OUT since timestamptz,
    OUT batch bigint, OUT batch_at timestamptz, OUT batch_relay_id bigint,
    OUT undecided integer, OUT waiting integer, OUT unsent integer, OUT open_attempts integer
)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS (
        SELECT least(coalesce((SELECT b.commit << 20 FROM relay.batches b WHERE b.no = p.position), 0), p.low - 1) AS pos
          FROM (SELECT min(p.position) AS position, min(p.low) AS low FROM relay.places p) p),
    unfinished AS MATERIALIZED (
        SELECT l.type FROM relay.log l, place p
         WHERE l.pos > p.pos AND (l.delivery_id IS NOT NULL OR l.type = 'attempt_started')
           AND NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = l.version + 1)
           AND NOT EXISTS (SELECT FROM relay.due w WHERE w.event_seq = l.event_seq AND w.webhook_id = l.webhook_id AND w.replay_id = l.replay_id)
         LIMIT 10001)
    SELECT relay.database_changed(), c.system_identifier, d.oid, d.datname,
           i.system_identifier, i.database_oid, i.database_name, i.since,
           b.no, b.at, b.relay_id,
           (SELECT count(*) FROM (
                SELECT FROM outbox.events e
                  LEFT JOIN LATERAL (SELECT true AS decided FROM relay.log l
                        WHERE l.event_seq = e.seq AND l.webhook_id = 0 AND l.replay_id = 0 AND l.version = 1 LIMIT 1) l ON true
                 WHERE e.seq > relay.decided_up_to() AND l.decided IS NULL LIMIT 10001) x),
           (SELECT count(*) FROM (SELECT FROM relay.due LIMIT 10001) x),
           (SELECT count(*) FROM unfinished u WHERE u.type <> 'attempt_started'),
           (SELECT count(*) FROM unfinished u WHERE u.type = 'attempt_started')
      FROM pg_control_system() c
      JOIN pg_database d ON d.datname = current_database()
      JOIN (SELECT * FROM relay.batches ORDER BY no DESC LIMIT 1) b ON true
      LEFT JOIN (SELECT * FROM relay.identity ORDER BY since DESC LIMIT 1) i ON true
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.adoption() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.adoption() TO outrider_operator;

-- Makes such a database one that relays work on: what waits in it is sent from
-- here. Returns the bound, or NULL where nothing needs adopting. Callers are
-- outrider_operator: what serve runs as cannot adopt by itself.
-- +goose StatementBegin
CREATE FUNCTION relay.adopt() RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '200ms' -- inserts queue up behind the lock: callers try again
AS $$
DECLARE
    present pg_snapshot;
    head    relay.batches;
    decided bigint;
    bound   bigint;
    last    bigint;
    owner   bigint;
BEGIN
    -- The snapshot must be newer than the lock, and the link's transaction not
    -- lie in it.
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'adopting needs a transaction of its own' USING ERRCODE = 'active_sql_transaction',
            HINT = 'Run SELECT relay.adopt() alone, in READ COMMITTED.';
    END IF;
    -- One at a time: whoever comes second finds nothing left to adopt.
    LOCK TABLE relay.identity IN SHARE ROW EXCLUSIVE MODE;
    IF NOT relay.database_changed() THEN
        RETURN NULL;
    END IF;
    -- A copy has the signs of life of its original, which age.
    SELECT h.relay_id INTO owner
      FROM relay.heartbeats h JOIN relay.relays r ON r.relay_id = h.relay_id
     WHERE r.fenced_at IS NULL AND h.at BETWEEN clock_timestamp() - interval '10 s' AND clock_timestamp() LIMIT 1;
    IF owner IS NOT NULL THEN
        RAISE EXCEPTION 'relay % was at work on it within the last 10 s', owner USING ERRCODE = 'object_in_use',
            HINT = 'Of a copy that was made while a relay worked, the sign of life counts for 10 s: try again.';
    END IF;

    -- Behind this lock no transaction has a row that is not committed, and none
    -- is inserted. ONLY, since every insert locks the parent too, and vacuum
    -- locks but partitions.
    LOCK TABLE ONLY outbox.events IN SHARE MODE;
    present := pg_current_snapshot();
    SELECT * INTO head FROM relay.batches ORDER BY no DESC LIMIT 1;
    decided := relay.decided_up_to();
    -- Rows to come lie above: the sequence is at its last value. It is moved
    -- there where it was restored to less, as logical replication leaves it.
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END INTO last FROM outbox.events_seq_seq s;
    bound := greatest(last, head.high, head.bound, (SELECT max(e.seq) FROM outbox.events e), (SELECT max(l.event_seq) FROM relay.log l));
    IF last < bound THEN
        PERFORM setval('outbox.events_seq_seq', bound);
    END IF;

    INSERT INTO relay.batches (no, prev, consumed, target, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, bound)
    VALUES (head.no + 1, head.no, '3:3:', present, decided, 0, bound, head.high, decided, bound + 1, bound, nextval('relay.commits'), 0, bound);
    -- Newer than the newest, whatever the clocks of the two servers say.
    INSERT INTO relay.identity (system_identifier, database_oid, database_name, since, adopted_by)
    SELECT c.system_identifier, d.oid, d.datname,
           greatest(clock_timestamp(), (SELECT max(i.since) FROM relay.identity i) + interval '1 microsecond'), session_user
      FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
    RETURN bound;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.adopt() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.adopt() TO outrider_operator;
