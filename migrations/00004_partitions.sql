-- +goose Up
-- One step of keeping the partitions ahead; callers repeat it until it answers
-- 'nothing to do'. A step is one short transaction: with the net in place, a
-- partition is attached only after a validated constraint has shown that the
-- net has no row for it, since ATTACH would scan the net behind a lock that
-- stops the producers. Every lock is waited for 200 ms at most: the caller
-- tries again later.
-- +goose StatementBegin
CREATE FUNCTION relay.extend_partitions() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '200ms'
AS $$
DECLARE
    min_size constant bigint := 1000000;
    max_size constant bigint := 1000000000; -- where the sequence was moved by hand, the rate means nothing
    size     bigint;
    seq_now  bigint;
    last_up  bigint;
    p        relay.partitions;
    tbl      record;
    net_rows boolean;
    fence    record;
BEGIN
    -- One at a time; whoever comes second has nothing to do.
    IF NOT pg_try_advisory_xact_lock(hashtext('outrider'), hashtext('extend_partitions')) THEN
        RETURN 'nothing to do';
    END IF;

    SELECT last_value INTO seq_now FROM outbox.events_seq_seq;
    SELECT max(upper) INTO last_up FROM relay.partitions;
    -- About a day's rows: what came in since the oldest batch of the last day.
    -- now(), which an index is searched by: clock_timestamp() would be compared
    -- with each batch.
    SELECT least(max_size, greatest(min_size, (seq_now - b.high - coalesce((SELECT sum(q.left_over) FROM relay.partitions q WHERE q.left_at > b.at), 0)) * 86400 / greatest(extract(epoch FROM clock_timestamp() - b.at), 3600)))::bigint INTO size
      FROM relay.batches b WHERE b.at > now() - interval '1 day' ORDER BY b.at LIMIT 1;
    size := coalesce(size, min_size);

    SELECT * INTO p FROM relay.partitions WHERE NOT (events_done AND log_done AND responses_done) ORDER BY lower LIMIT 1;

    -- The sequence has come too near to a partition that is not attached yet:
    -- give it up, and with it the constraint that would fail inserts.
    -- The very first one (from 0) is attached to empty tables.
    IF p.lower > 0 AND seq_now > p.lower - min_size / 4 THEN
        ALTER TABLE relay.responses_net DROP CONSTRAINT IF EXISTS outrider_net;
        EXECUTE format('DROP TABLE IF EXISTS relay.responses_%s', p.lower);
        IF p.log_done THEN
            UPDATE relay.partitions SET responses_done = true WHERE lower = p.lower;
            RETURN format('gave up the responses'' partition from %s: rows came near to it before it was attached', p.lower);
        END IF;
        ALTER TABLE relay.log_net DROP CONSTRAINT IF EXISTS outrider_net;
        EXECUTE format('DROP TABLE IF EXISTS relay.log_%s', p.lower);
        IF p.events_done THEN
            -- The events' partition may have rows by now: it stays, and what
            -- is logged of them goes to the nets.
            UPDATE relay.partitions SET log_done = true, responses_done = true WHERE lower = p.lower;
            RETURN format('gave up the log''s partition from %s: rows came near to it before it was attached', p.lower);
        END IF;
        ALTER TABLE outbox.events_net DROP CONSTRAINT IF EXISTS outrider_net;
        EXECUTE format('DROP TABLE IF EXISTS outbox.events_%s', p.lower);
        DELETE FROM relay.partitions WHERE lower = p.lower;
        RETURN format('gave up the partition from %s: rows came near to it before it was attached', p.lower);
    END IF;

    IF p.lower IS NULL THEN
        IF last_up IS NOT NULL AND last_up - seq_now >= 2 * size THEN
            RETURN 'nothing to do';
        END IF;
        INSERT INTO relay.partitions (lower, upper)
        SELECT l, l + size FROM (SELECT CASE
            WHEN last_up IS NULL THEN 0
            WHEN last_up - seq_now >= min_size / 2 THEN last_up
            -- Rows fall into the net already, or soon will: begin a day ahead
            -- of them; what comes before stays in the net.
            ELSE seq_now + size END AS l) b
        RETURNING * INTO p;
        RETURN format('planned the partition from %s to %s', p.lower, p.upper);
    END IF;

    FOR tbl IN
        SELECT * FROM (VALUES
            ('outbox.events', 'outbox.events_net', 'seq', p.events_done),
            ('relay.log', 'relay.log_net', 'event_seq', p.log_done),
            ('relay.responses', 'relay.responses_net', 'event_seq', p.responses_done)) AS t (parent, net, col, done)
    LOOP
        CONTINUE WHEN tbl.done;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', tbl.net) INTO net_rows;
        IF net_rows THEN
            SELECT c.convalidated AS valid, pg_get_constraintdef(c.oid) AS def INTO fence
              FROM pg_constraint c WHERE c.conrelid = tbl.net::regclass AND c.conname = 'outrider_net';
            IF fence.def IS NULL OR position(format('%s < %s', tbl.col, p.lower) IN replace(replace(fence.def, '''', ''), '::bigint', '')) = 0 THEN
                EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS outrider_net', tbl.net);
                EXECUTE format('ALTER TABLE %s ADD CONSTRAINT outrider_net CHECK (%I < %s) NOT VALID', tbl.net, tbl.col, p.lower);
                RETURN format('%s: constraint below %s', tbl.net, p.lower);
            ELSIF NOT fence.valid THEN
                EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT outrider_net', tbl.net);
                RETURN format('%s: constraint validated', tbl.net);
            END IF;
        END IF;
        EXECUTE format('CREATE TABLE IF NOT EXISTS %s_%s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY)', tbl.parent, p.lower, tbl.parent);
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s_%s FOR VALUES FROM (%s) TO (%s)', tbl.parent, tbl.parent, p.lower, p.lower, p.upper);
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS outrider_net', tbl.net);
        UPDATE relay.partitions
           SET events_done = events_done OR tbl.parent = 'outbox.events', log_done = log_done OR tbl.parent = 'relay.log',
               responses_done = responses_done OR tbl.parent = 'relay.responses'
         WHERE lower = p.lower;
        RETURN format('attached %s_%s', tbl.parent, p.lower);
    END LOOP;
    RETURN 'nothing to do';
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.extend_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.extend_partitions() TO outrider_relay, outrider_operator;
COMMENT ON FUNCTION relay.extend_partitions() IS 'One step of keeping the partitions of outbox.events, relay.log and relay.responses two days ahead; says what it did. Repeat until it answers ''nothing to do''. The relay calls it by itself; a cron job may, for the time that no relay runs.';

-- The first partitions, while the tables are empty.
-- +goose StatementBegin
DO $$
DECLARE
    step text;
BEGIN
    FOR i IN 1..40 LOOP
        step := relay.extend_partitions();
        EXIT WHEN step = 'nothing to do';
    END LOOP;
END
$$;
-- +goose StatementEnd
