-- +goose Up
-- Keys that the salts of payload digests are derived from: one for each range of
-- 2^20 events, and where salts of a range were erased, one for each part of it
-- that is left. See domain.SaltKey: this is its tree.
CREATE TABLE relay.salts (
    lower bigint   PRIMARY KEY,
    bits  smallint NOT NULL CHECK (bits BETWEEN 0 AND 20),
    key   bytea    NOT NULL
);

-- The key that covers an event which is about to be routed. Where the range has
-- none it gets one; where the event's was erased, which is then not new, it gets
-- one of its own.
-- +goose StatementBegin
CREATE FUNCTION relay.salt_key(event_seq bigint, OUT lower bigint, OUT bits smallint, OUT key bytea)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first constant bigint := event_seq >> 20 << 20;
BEGIN
    LOOP
        SELECT s.lower, s.bits, s.key INTO lower, bits, key FROM relay.salts s WHERE s.lower <= event_seq ORDER BY s.lower DESC LIMIT 1;
        EXIT WHEN lower >> bits = event_seq >> bits;
        INSERT INTO relay.salts (lower, bits, key)
        SELECT CASE WHEN r.taken THEN event_seq ELSE first END, CASE WHEN r.taken THEN 0 ELSE 20 END,
               sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
          FROM (SELECT EXISTS (SELECT FROM relay.salts s WHERE s.lower BETWEEN first AND first + 1048575) AS taken) r
            ON CONFLICT DO NOTHING; -- another relay was faster
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.salt_key(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.salt_key(bigint) TO outrider_relay;
GRANT SELECT ON relay.salts TO outrider_relay;

-- Erases the salts of the events from first to before past: keys that cover
-- others too are replaced by those of the halves, down to what is left.
-- +goose StatementBegin
CREATE FUNCTION relay.drop_salts(first bigint, past bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    keys relay.salts[];
    k    relay.salts;
BEGIN
    LOCK TABLE relay.salts IN SHARE ROW EXCLUSIVE MODE; -- one at a time
    keys := ARRAY(SELECT s FROM relay.salts s WHERE s.lower > first - 1048576 AND s.lower < past AND s.lower + (1::bigint << s.bits) > first);
    DELETE FROM relay.salts s WHERE s.lower > first - 1048576 AND s.lower < past AND s.lower + (1::bigint << s.bits) > first;
    WHILE cardinality(keys) > 0 LOOP
        k := keys[cardinality(keys)];
        keys := trim_array(keys, 1);
        IF k.lower >= past OR k.lower + (1::bigint << k.bits) <= first THEN
            INSERT INTO relay.salts (lower, bits, key) VALUES (k.lower, k.bits, k.key);
        ELSIF k.lower < first OR k.lower + (1::bigint << k.bits) > past THEN
            keys := keys || ROW(k.lower, k.bits - 1, sha256('\x00'::bytea || k.key))::relay.salts
                         || ROW(k.lower + (1::bigint << (k.bits - 1)), k.bits - 1, sha256('\x01'::bytea || k.key))::relay.salts;
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.drop_salts(bigint, bigint) FROM PUBLIC;

-- What of a partition is gone since when, and which of its tables is dropped.
ALTER TABLE relay.partitions
    ADD COLUMN payloads_gone     timestamptz,
    ADD COLUMN responses_gone    timestamptz, -- the last time: replays may write others
    ADD COLUMN log_gone          timestamptz,
    ADD COLUMN events_dropped    boolean NOT NULL DEFAULT false,
    ADD COLUMN responses_dropped boolean NOT NULL DEFAULT false,
    ADD COLUMN log_dropped       boolean NOT NULL DEFAULT false;

-- What retention did.
CREATE TABLE relay.retentions (
    retention_id bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text        NOT NULL,
    what         text        NOT NULL, -- payloads, responses, log, chain, outbox
    action       text        NOT NULL, -- closed, erased, dropped, rolled
    storage      text        NOT NULL, -- the table
    lower        bigint      NOT NULL, -- of the events' places, inclusive
    upper        bigint      NOT NULL, -- exclusive
    kept         interval,             -- the age that was asked for
    row_estimate bigint,
    bytes        bigint
);
CREATE INDEX retentions_net ON relay.retentions (lower) WHERE storage = 'outbox.events_net';

-- What is to end has a version: whoever asks for it takes the next one and holds
-- the row to the commit, so that versions become visible in their order.
CREATE TABLE relay.endings (version bigint NOT NULL);
INSERT INTO relay.endings (version) VALUES (0);

-- Up to which version each relay has said that it begins nothing more of it, and
-- that all that it had begun before is on record (relay/ending.go).
CREATE TABLE relay.endings_seen (
    relay_id bigint      PRIMARY KEY,
    version  bigint      NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Deliveries of events below a place end: their payloads are about to go.
CREATE TABLE relay.closings (
    below        bigint      PRIMARY KEY,
    version      bigint      NOT NULL,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Erasures that somebody asked for, and their events: at is NULL until an event
-- is erased, which waits for its deliveries to end, as above.
CREATE TABLE relay.erasures (
    erasure_id   bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account_id   bigint      NOT NULL,
    selection    json        NOT NULL,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    events       bigint      NOT NULL DEFAULT 0,
    finished_at  timestamptz
);
CREATE TABLE relay.erased (
    event_seq  bigint PRIMARY KEY,
    version    bigint NOT NULL,
    account_id bigint NOT NULL,
    erasure_id bigint NOT NULL REFERENCES relay.erasures,
    at         timestamptz
);
CREATE INDEX erased_open ON relay.erased (version, event_seq) WHERE at IS NULL;

-- The place below which every event is older than an age: what a batch of that
-- time knew to be routed wholly (relay.decided_up_to). Later rows lie above it.
-- +goose StatementBegin
CREATE FUNCTION relay.older_than(age interval) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT CASE WHEN b.bound > 0 THEN b.cursor ELSE b.low END + 1 FROM relay.batches b WHERE b.at < now() - age ORDER BY b.at DESC LIMIT 1), 0)
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.older_than(interval) FROM PUBLIC;

-- The next version. What relays have said that are gone is forgotten.
-- +goose StatementBegin
CREATE FUNCTION relay.next_ending() RETURNS bigint
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM relay.endings_seen s WHERE NOT EXISTS (SELECT FROM relay.relays r WHERE r.relay_id = s.relay_id AND r.fenced_at IS NULL);
    UPDATE relay.endings SET version = version + 1 RETURNING version
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.next_ending() FROM PUBLIC;

-- The relays that may begin a delivery: not fenced, not with --no-send, and
-- alive. One that comes later than this looks reads first what is to end.
-- +goose StatementBegin
CREATE FUNCTION relay.senders() RETURNS SETOF bigint
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.relay_id FROM relay.relays r
     WHERE r.fenced_at IS NULL AND r.sends
       AND greatest(r.started_at, (SELECT h.at FROM relay.heartbeats h WHERE h.relay_id = r.relay_id ORDER BY h.n DESC LIMIT 1)) >= clock_timestamp() - interval '10 s'
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.senders() FROM PUBLIC;

-- Fences the relays that senders() does not list any more, as another relay
-- would (Leases.Fence): one that wakes up must not go on with what it remembers,
-- since nobody has waited for it. fenced_by is 0: no relay did it.
-- +goose StatementBegin
CREATE FUNCTION relay.fence_silent() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    silent bigint;
BEGIN
    FOR silent IN SELECT r.relay_id FROM relay.relays r WHERE r.fenced_at IS NULL AND r.sends AND r.relay_id NOT IN (SELECT relay.senders()) ORDER BY r.relay_id LOOP
        -- It waits for what the relay is recording.
        UPDATE relay.relays r
           SET fenced_at = clock_timestamp(), fenced_by = 0,
               seen_at = coalesce((SELECT h.at FROM relay.heartbeats h WHERE h.relay_id = r.relay_id ORDER BY h.n DESC LIMIT 1), r.started_at)
         WHERE r.relay_id = silent AND r.fenced_at IS NULL;
        CONTINUE WHEN NOT FOUND;
        UPDATE relay.slots s SET position = p.position, low = p.low FROM relay.places p WHERE p.slot = s.slot AND s.relay_id = silent;
        UPDATE relay.slots s SET relay_id = NULL, since = clock_timestamp() WHERE s.relay_id = silent;
        DELETE FROM relay.heartbeats h WHERE h.relay_id = silent;
        PERFORM pg_notify('outrider_relay', 'released');
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.fence_silent() FROM PUBLIC;

-- Whether no relay is at work that sends.
-- +goose StatementBegin
CREATE FUNCTION relay.unattended() RETURNS boolean
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (SELECT FROM relay.senders())
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.unattended() FROM PUBLIC;

-- The version up to which all of them have said that they begin nothing; where
-- there is none, the newest that whoever comes will see. Ask it before what is
-- open is looked for: what is found then is all.
-- +goose StatementBegin
CREATE FUNCTION relay.endings_agreed() RETURNS bigint
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT min(coalesce(e.version, 0)) FROM relay.senders() AS s (relay_id) LEFT JOIN relay.endings_seen e ON e.relay_id = s.relay_id),
                    (SELECT n.version FROM relay.endings n))
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.endings_agreed() FROM PUBLIC;

-- What is open of the events below a place: deliveries that wait, batches that
-- were not dispatched, attempts without an outcome. Counts end at 10001.
-- +goose StatementBegin
CREATE FUNCTION relay.open_below(place bigint, OUT waiting bigint, OUT batches bigint, OUT attempts bigint)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH here AS MATERIALIZED (SELECT min(p.position) AS position, min(p.low) AS low FROM relay.places p)
    SELECT (SELECT count(*) FROM (SELECT FROM relay.due d WHERE d.event_seq < place LIMIT 10001) x),
           (SELECT count(*) FROM (SELECT FROM relay.batches b, here WHERE b.no > here.position AND b.seq_min < place AND b.seq_max >= b.seq_min LIMIT 10001) x),
           (SELECT count(*) FROM (
                SELECT FROM relay.log l, here
                 WHERE l.event_seq < place AND l.pos >= here.low AND l.type = 'attempt_started'
                   AND NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = l.version + 1)
                 LIMIT 10001) x)
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.open_below(bigint) FROM PUBLIC;

-- Whether nothing is open below a place, and nothing will be begun there. NULL
-- where it is; else what it waits for.
-- +goose StatementBegin
CREATE FUNCTION relay.waits_below(place bigint) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agreed boolean := relay.endings_agreed() >= (SELECT min(c.version) FROM relay.closings c WHERE c.below >= place); -- NULL: nobody asked
    o      record;
    many   text;
BEGIN
    SELECT * INTO o FROM relay.open_below(place);
    IF o.waiting + o.batches + o.attempts > 0 THEN
        many := concat_ws(', ', CASE WHEN o.waiting > 0 THEN format('%s deliveries wait', o.waiting) END,
                                CASE WHEN o.attempts > 0 THEN format('%s attempts are under way', o.attempts) END,
                                CASE WHEN o.batches > 0 THEN format('%s batches are not dispatched', o.batches) END);
        RETURN format('below seq %s %s; %s', place, many,
                      CASE WHEN relay.unattended() THEN 'no relay is at work to end them: one with --no-send does not' ELSE 'the relays at work end them' END);
    END IF;
    IF NOT coalesce(agreed, relay.unattended()) THEN
        RETURN format('a relay at work has not said yet that it begins nothing below seq %s', place);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.waits_below(bigint) FROM PUBLIC;

-- Refuses ages that contradict each other. NULL is for ever.
-- +goose StatementBegin
CREATE FUNCTION relay.check_ages(payloads interval, responses interval, log interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF least(payloads, responses, log) < interval '1 day' THEN
        RAISE EXCEPTION 'an age of % is too short', least(payloads, responses, log) USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The shortest is a day.';
    ELSIF log < interval '7 days' THEN
        RAISE EXCEPTION 'the log cannot be kept for %', log USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Duplicates are looked up in it for 7 days: that is the shortest.';
    ELSIF log IS NOT NULL AND (payloads IS NULL OR payloads > log OR responses IS NULL OR responses > log) THEN
        RAISE EXCEPTION 'payloads or responses would be kept longer than the log' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Nobody finds them without it: give them at most its age.';
    END IF;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.check_ages(interval, interval, interval) FROM PUBLIC;

-- Puts down what is about to be done with a table.
-- +goose StatementBegin
CREATE FUNCTION relay.record_retention(what text, action text, storage text, lower bigint, upper bigint, kept interval, bytes bigint DEFAULT NULL, row_estimate bigint DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO relay.retentions (actor, what, action, storage, lower, upper, kept, row_estimate, bytes)
    SELECT session_user, $1, $2, $3, $4, $5, $6,
           coalesce($8, (SELECT nullif(c.reltuples, -1)::bigint FROM pg_class c WHERE c.oid = to_regclass($3))),
           coalesce($7, pg_total_relation_size(to_regclass($3)))
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.record_retention(text, text, text, bigint, bigint, interval, bigint, bigint) FROM PUBLIC;

-- One step of retention; callers repeat it until it answers 'nothing to do', or
-- 'waits: …' for what has to end first. An age counts from the insert of an
-- event. What goes, goes by whole partitions: TRUNCATE locks one that nobody
-- writes to any more, though a relay's cached plans lock it for reading.
-- Dropping the empty table locks its parent, so it is a step of its own, the
-- last; inserts queue up behind it. Both wait 100 ms at most.
-- +goose StatementBegin
CREATE FUNCTION relay.retain(payloads interval DEFAULT NULL, responses interval DEFAULT NULL, log interval DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '100ms'
AS $$
DECLARE
    net_rows        constant integer := 5000;
    payloads_below  bigint;
    responses_below bigint;
    log_below       bigint;
    p               relay.partitions;
    name            text;
    filled          boolean;
    past            bigint;
    start           bigint;
    n               bigint;
    reason          text;
    waits           text;
    began           timestamptz;
    next_seq        bigint;
BEGIN
    PERFORM relay.check_ages(payloads, responses, log);
    IF NOT pg_try_advisory_xact_lock(hashtext('outrider'), hashtext('retain')) THEN
        RETURN 'waits: another session is at it';
    END IF;
    payloads_below := relay.older_than(payloads);
    responses_below := relay.older_than(responses);
    log_below := relay.older_than(log);

    -- Responses are nobody's input: whatever is open goes on, and what it writes
    -- later goes with the next step.
    FOR p IN SELECT * FROM relay.partitions q WHERE q.upper <= responses_below AND q.responses_done AND NOT q.responses_dropped ORDER BY q.lower LOOP
        name := format('relay.responses_%s', p.lower);
        CONTINUE WHEN to_regclass(name) IS NULL; -- it was given up, and the net has its rows
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', name) INTO filled;
        CONTINUE WHEN NOT filled;
        PERFORM relay.record_retention('responses', 'erased', name, p.lower, p.upper, responses);
        EXECUTE format('TRUNCATE %s', name);
        UPDATE relay.partitions SET responses_gone = clock_timestamp() WHERE lower = p.lower;
        RETURN format('erased %s', name);
    END LOOP;
    WITH gone AS (
        DELETE FROM relay.responses_net r WHERE (r.event_seq, r.webhook_id, r.replay_id, r.version) IN (
               SELECT x.event_seq, x.webhook_id, x.replay_id, x.version FROM relay.responses_net x WHERE x.event_seq < responses_below ORDER BY x.event_seq LIMIT net_rows)
        RETURNING r.event_seq)
    SELECT min(g.event_seq), max(g.event_seq) + 1, count(*) INTO start, past, n FROM gone g;
    IF n > 0 THEN
        PERFORM relay.record_retention('responses', 'erased', 'relay.responses_net', start, past, responses, 0, n);
        RETURN format('erased %s rows of relay.responses_net', n);
    END IF;

    -- Payloads: what is open of them ends first. Who closes, closes all that lies
    -- below, so that one number says what is closed.
    SELECT greatest(
        (SELECT max(q.upper) FROM relay.partitions q WHERE q.upper <= payloads_below AND q.events_done AND q.payloads_gone IS NULL),
        (SELECT e.seq + 1 FROM outbox.events_net e WHERE e.seq < payloads_below ORDER BY e.seq DESC LIMIT 1)) INTO past;
    IF past IS NOT NULL OR EXISTS (SELECT FROM relay.partitions q WHERE q.upper <= log_below AND q.payloads_gone IS NOT NULL AND q.log_gone IS NULL) THEN
        PERFORM relay.fence_silent();
    END IF;
    IF past IS NOT NULL AND NOT EXISTS (SELECT FROM relay.closings c WHERE c.below >= past) THEN
        INSERT INTO relay.closings (below, version, requested_by) VALUES (past, relay.next_ending(), session_user);
        PERFORM relay.record_retention('payloads', 'closed', 'relay.log', 0, past, payloads, 0, 0);
        PERFORM pg_notify('outrider_relay', 'endings');
        RETURN format('closes what is open below seq %s', past);
    END IF;
    FOR p IN SELECT * FROM relay.partitions q WHERE q.upper <= payloads_below AND q.events_done AND q.payloads_gone IS NULL ORDER BY q.lower LOOP
        reason := relay.waits_below(p.upper);
        IF reason IS NOT NULL THEN
            waits := coalesce(waits, reason);
            EXIT;
        END IF;
        name := format('outbox.events_%s', p.lower);
        PERFORM relay.record_retention('payloads', 'erased', name, p.lower, p.upper, payloads);
        EXECUTE format('TRUNCATE %s', name);
        PERFORM relay.drop_salts(p.lower, p.upper);
        UPDATE relay.partitions SET payloads_gone = clock_timestamp() WHERE lower = p.lower;
        RETURN format('erased %s', name);
    END LOOP;
    SELECT e.seq + 1 INTO past FROM outbox.events_net e WHERE e.seq < payloads_below ORDER BY e.seq DESC LIMIT 1;
    IF past IS NOT NULL THEN
        reason := relay.waits_below(past);
        IF reason IS NULL THEN
            WITH gone AS (
                DELETE FROM outbox.events_net e WHERE e.seq IN (SELECT x.seq FROM outbox.events_net x WHERE x.seq < past ORDER BY x.seq LIMIT net_rows)
                RETURNING e.seq)
            SELECT min(g.seq), max(g.seq) + 1, count(*) INTO start, past, n FROM gone g;
            PERFORM relay.record_retention('payloads', 'erased', 'outbox.events_net', start, past, payloads, 0, n);
            PERFORM relay.drop_salts(start, past);
            RETURN format('erased %s rows of outbox.events_net', n);
        END IF;
        waits := coalesce(waits, reason);
    END IF;

    -- The log. With its lock nobody writes to it, so what is seen then is all.
    FOR p IN SELECT * FROM relay.partitions q WHERE q.upper <= log_below AND q.payloads_gone IS NOT NULL AND q.log_gone IS NULL ORDER BY q.lower LOOP
        name := format('relay.log_%s', p.lower);
        IF to_regclass(name) IS NOT NULL THEN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', name);
        END IF;
        reason := relay.waits_below(p.upper);
        IF reason IS NOT NULL THEN
            waits := coalesce(waits, reason);
            EXIT;
        END IF;
        IF to_regclass(name) IS NOT NULL THEN
            PERFORM relay.record_retention('log', 'erased', name, p.lower, p.upper, log);
            EXECUTE format('TRUNCATE %s', name);
        ELSE -- it was given up, and the net has its rows: all go, or none, since seals tell whole partitions from lost rows
            DELETE FROM relay.log_net l WHERE l.event_seq >= p.lower AND l.event_seq < p.upper;
            GET DIAGNOSTICS n = ROW_COUNT;
            PERFORM relay.record_retention('log', 'erased', 'relay.log_net', p.lower, p.upper, log, 0, n);
        END IF;
        DELETE FROM relay.webhook_tests t WHERE t.event_seq >= p.lower AND t.event_seq < p.upper;
        DELETE FROM relay.erased x WHERE x.event_seq >= p.lower AND x.event_seq < p.upper;
        UPDATE relay.partitions SET log_gone = clock_timestamp() WHERE lower = p.lower;
        RETURN format('erased %s', name);
    END LOOP;
    -- Beside the partitions it goes by the stretches that seals have leaves of,
    -- whole ones for the same reason.
    SELECT l.event_seq / 100000 * 100000 INTO start FROM relay.log_net l
     WHERE l.event_seq < log_below / 100000 * 100000 AND NOT EXISTS (SELECT FROM relay.partitions q WHERE q.lower <= l.event_seq AND q.upper > l.event_seq)
     ORDER BY l.event_seq LIMIT 1;
    past := start + 100000;
    IF past IS NOT NULL AND NOT EXISTS (SELECT FROM outbox.events_net e WHERE e.seq >= start AND e.seq < past) THEN
        PERFORM relay.fence_silent();
        reason := relay.waits_below(past);
        IF reason IS NULL THEN
            DELETE FROM relay.log_net l WHERE l.event_seq >= start AND l.event_seq < past;
            GET DIAGNOSTICS n = ROW_COUNT;
            DELETE FROM relay.erased x WHERE x.event_seq >= start AND x.event_seq < past;
            PERFORM relay.record_retention('log', 'erased', 'relay.log_net', start, past, log, 0, n);
            RETURN format('erased %s rows of relay.log_net', n);
        END IF;
        waits := coalesce(waits, reason);
    END IF;

    -- The chain, from the left: never the head, nor what a relay has yet to
    -- dispatch or to count, nor the last batch that an age is counted by.
    SELECT least(b.no, (SELECT min(h.position) FROM relay.places h), (SELECT coalesce(max(j.batch), 0) FROM relay.projected j)) INTO past
      FROM (SELECT b.no FROM relay.batches b WHERE b.at < now() - log ORDER BY b.at DESC LIMIT 1) b;
    IF (SELECT count(*) FROM (SELECT FROM relay.batches b WHERE b.no < past ORDER BY b.no LIMIT 1000) x) = 1000 THEN
        WITH gone AS (
            DELETE FROM relay.batches b WHERE b.no IN (SELECT x.no FROM relay.batches x WHERE x.no < past ORDER BY x.no LIMIT 10000)
            RETURNING b.no)
        SELECT min(g.no), max(g.no) + 1, count(*) INTO start, past, n FROM gone g;
        PERFORM relay.record_retention('chain', 'erased', 'relay.batches', start, past, log, 0, n);
        RETURN format('pruned %s batches', n);
    END IF;

    -- A partition of a quiet outbox would last for years, and all in it with it.
    -- Gaps in the sequence are normal, so it goes on in the next partition: after
    -- a tenth of the shortest age, and no sooner than a day.
    SELECT CASE WHEN s.is_called THEN s.last_value + 1 ELSE s.last_value END INTO next_seq FROM outbox.events_seq_seq s;
    SELECT q.* INTO p FROM relay.partitions q
     WHERE q.lower > next_seq + 1000 AND q.events_done AND q.log_done AND q.responses_done ORDER BY q.lower LIMIT 1;
    SELECT e.inserted_at INTO began FROM outbox.events e
     WHERE e.seq >= (SELECT max(q.lower) FROM relay.partitions q WHERE q.lower <= next_seq) AND e.seq < p.lower ORDER BY e.seq LIMIT 1;
    IF p.lower IS NOT NULL AND began < clock_timestamp() - greatest(least(payloads, responses, log) / 10, interval '1 day') THEN
        PERFORM relay.record_retention('outbox', 'rolled', 'outbox.events', next_seq, p.lower, least(payloads, responses, log), 0, 0);
        UPDATE relay.partitions SET left_over = p.lower - next_seq, left_at = clock_timestamp()
         WHERE relay.partitions.lower = (SELECT max(q.lower) FROM relay.partitions q WHERE q.lower <= next_seq);
        PERFORM setval('outbox.events_seq_seq', p.lower, false);
        RETURN format('new events go to the partition from seq %s on', p.lower);
    END IF;

    FOR p IN SELECT * FROM relay.partitions q WHERE q.payloads_gone IS NOT NULL ORDER BY q.lower LOOP
        IF NOT p.events_dropped THEN
            PERFORM relay.record_retention('payloads', 'dropped', format('outbox.events_%s', p.lower), p.lower, p.upper, payloads);
            EXECUTE format('DROP TABLE IF EXISTS outbox.events_%s', p.lower);
            UPDATE relay.partitions SET events_dropped = true WHERE lower = p.lower;
            RETURN format('dropped outbox.events_%s', p.lower);
        ELSIF NOT p.responses_dropped AND p.upper <= responses_below THEN
            PERFORM relay.record_retention('responses', 'dropped', format('relay.responses_%s', p.lower), p.lower, p.upper, responses);
            EXECUTE format('DROP TABLE IF EXISTS relay.responses_%s', p.lower);
            UPDATE relay.partitions SET responses_dropped = true WHERE lower = p.lower;
            RETURN format('dropped relay.responses_%s', p.lower);
        ELSIF NOT p.log_dropped AND p.log_gone IS NOT NULL THEN
            PERFORM relay.record_retention('log', 'dropped', format('relay.log_%s', p.lower), p.lower, p.upper, log);
            EXECUTE format('DROP TABLE IF EXISTS relay.log_%s', p.lower);
            UPDATE relay.partitions SET log_dropped = true WHERE lower = p.lower;
            RETURN format('dropped relay.log_%s', p.lower);
        END IF;
    END LOOP;
    RETURN coalesce('waits: ' || waits, 'nothing to do');
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.retain(interval, interval, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.retain(interval, interval, interval) TO outrider_relay, outrider_operator;
COMMENT ON FUNCTION relay.retain(interval, interval, interval) IS 'One step of erasing payloads, responses and log entries of events older than these ages, NULL for ever; says what it did. Repeat until it answers ''nothing to do'' or ''waits: …''. outrider retain does; so does a relay that is told the ages.';

-- What relay.retain would erase now, table by table. It changes nothing.
-- +goose StatementBegin
CREATE FUNCTION relay.retention_plan(payloads interval, responses interval, log interval)
    RETURNS TABLE (what text, storage text, lower bigint, upper bigint, row_estimate bigint, bytes bigint, waits text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t record;
BEGIN
    PERFORM relay.check_ages(payloads, responses, log);
    FOR t IN
        SELECT k.what, format('%s_%s', k.parent, q.lower) AS storage, q.lower, q.upper, k.closes
          FROM relay.partitions q
         CROSS JOIN LATERAL (VALUES
               ('payloads', 'outbox.events', q.upper <= relay.older_than(payloads) AND q.payloads_gone IS NULL AND q.events_done, true),
               ('responses', 'relay.responses', q.upper <= relay.older_than(responses) AND NOT q.responses_dropped AND q.responses_done, false),
               ('log', 'relay.log', q.upper <= relay.older_than(log) AND q.log_gone IS NULL AND q.log_done, true)) AS k (what, parent, goes, closes)
         WHERE k.goes ORDER BY q.lower, k.what
    LOOP
        CONTINUE WHEN to_regclass(t.storage) IS NULL;
        what := t.what; storage := t.storage; lower := t.lower; upper := t.upper;
        SELECT c.reltuples::bigint, pg_total_relation_size(c.oid) INTO row_estimate, bytes FROM pg_class c WHERE c.oid = to_regclass(t.storage);
        IF row_estimate <= 0 THEN -- never analyzed: then it is counted, as far as a million
            EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT 1000000) x', t.storage) INTO row_estimate;
        END IF;
        CONTINUE WHEN t.what = 'responses' AND row_estimate = 0;
        SELECT CASE WHEN t.closes AND o.waiting + o.batches + o.attempts > 0 THEN relay.waits_below(t.upper) END INTO waits FROM relay.open_below(t.upper) o;
        RETURN NEXT;
    END LOOP;
    RETURN QUERY
        SELECT n.* FROM (
            SELECT 'payloads', 'outbox.events_net', min(e.seq), max(e.seq) + 1, count(*), NULL::bigint, NULL FROM outbox.events_net e WHERE e.seq < relay.older_than(payloads)
            UNION ALL
            SELECT 'responses', 'relay.responses_net', min(r.event_seq), max(r.event_seq) + 1, count(*), NULL, NULL FROM relay.responses_net r WHERE r.event_seq < relay.older_than(responses)
            UNION ALL
            SELECT 'log', 'relay.log_net', min(l.event_seq), max(l.event_seq) + 1, count(*), NULL, NULL FROM relay.log_net l WHERE l.event_seq < relay.older_than(log) / 100000 * 100000) n (a, b, c, d, e, f, g)
         WHERE n.e > 0;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.retention_plan(interval, interval, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.retention_plan(interval, interval, interval) TO outrider_relay, outrider_operator;

-- Since when an event's payload is gone, by retention or by an erasure; NULL
-- where it is there.
-- +goose StatementBegin
CREATE FUNCTION relay.payload_gone(event_seq bigint) RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT x.at FROM relay.erased x WHERE x.event_seq = $1),
        (SELECT p.payloads_gone FROM (SELECT q.* FROM relay.partitions q WHERE q.lower <= $1 ORDER BY q.lower DESC LIMIT 1) p WHERE p.upper > $1),
        (SELECT min(r.at) FROM relay.retentions r
          WHERE r.storage = 'outbox.events_net' AND r.lower <= $1 AND r.upper > $1
            AND NOT EXISTS (SELECT FROM outbox.events e WHERE e.seq = $1)))
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.payload_gone(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.payload_gone(bigint) TO outrider_relay, outrider_operator;

-- Begins an erasure: what it selects is for the record.
-- +goose StatementBegin
CREATE FUNCTION relay.begin_erasure(account_id bigint, selection json) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO relay.erasures (account_id, selection, requested_by) VALUES ($1, $2, session_user) RETURNING erasure_id
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.begin_erasure(bigint, json) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.begin_erasure(bigint, json) TO outrider_operator;

-- Erases the payloads, metadata and responses of some routed events of the
-- erasure's account, 1000 at most, and the salts of their digests. The log stays
-- as it is. asked counts those that it asks the relays to end: they are left, since
-- a relay that begins just now may not see it yet. An event with an open
-- delivery is left until that has ended: callers repeat it with the same events
-- while open is not 0. unattended says that no relay is at work to end them.
-- +goose StatementBegin
CREATE FUNCTION relay.erase(erasure_id bigint, event_seqs bigint[], OUT asked bigint, OUT erased bigint, OUT open bigint, OUT unattended boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '200ms'
AS $$
DECLARE
    account constant bigint := (SELECT e.account_id FROM relay.erasures e WHERE e.erasure_id = erase.erasure_id);
    agreed  bigint;
    mine    bigint;
    ready   bigint[];
    seq     bigint;
    storage regclass;
BEGIN
    IF account IS NULL THEN
        RAISE EXCEPTION 'there is no erasure %', erasure_id USING ERRCODE = 'no_data_found', HINT = 'relay.begin_erasure begins one.';
    ELSIF cardinality(event_seqs) > 1000 THEN
        RAISE EXCEPTION '% events are given; 1000 are taken at once', cardinality(event_seqs) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM relay.fence_silent();
    agreed := relay.endings_agreed();
    unattended := relay.unattended();
    asked := 0;
    IF EXISTS (SELECT FROM unnest(event_seqs) AS s WHERE NOT EXISTS (SELECT FROM relay.erased x WHERE x.event_seq = s)) THEN
        mine := relay.next_ending();
        INSERT INTO relay.erased (event_seq, version, account_id, erasure_id)
        SELECT s, mine, account, erase.erasure_id FROM (SELECT DISTINCT unnest(event_seqs) AS s) x
         WHERE EXISTS (SELECT FROM relay.log l WHERE l.event_seq = x.s AND l.webhook_id = 0 AND l.replay_id = 0 AND l.version = 1 AND l.account_id = account)
         ORDER BY s
            ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS asked = ROW_COUNT;
    END IF;
    IF asked > 0 AND NOT unattended THEN
        PERFORM pg_notify('outrider_relay', 'endings');
    END IF;

    -- Ready is what has no open delivery, and will have none.
    SELECT array_agg(x.event_seq) INTO ready FROM relay.erased x
     WHERE x.event_seq = ANY (event_seqs) AND x.at IS NULL AND x.version <= agreed
       AND NOT EXISTS (
           SELECT FROM relay.log s
            WHERE s.event_seq = x.event_seq AND s.delivery_id IS NOT NULL
              AND (SELECT l.type FROM relay.log l WHERE l.event_seq = s.event_seq AND l.webhook_id = s.webhook_id AND l.replay_id = s.replay_id ORDER BY l.version DESC LIMIT 1)
                  NOT IN ('attempt_succeeded', 'dead', 'cancelled', 'expired'));
    UPDATE outbox.events e SET payload = '{}', metadata = NULL WHERE e.seq = ANY (ready);
    DELETE FROM relay.responses r WHERE r.event_seq = ANY (ready);
    FOREACH seq IN ARRAY coalesce(ready, '{}') LOOP
        PERFORM relay.drop_salts(seq, seq + 1);
    END LOOP;
    UPDATE relay.erased x SET at = clock_timestamp() WHERE x.event_seq = ANY (ready);
    erased := coalesce(cardinality(ready), 0);
    UPDATE relay.erasures e SET events = e.events + erase.erased, finished_at = clock_timestamp() WHERE e.erasure_id = erase.erasure_id;
    open := (SELECT count(*) FROM relay.erased x WHERE x.event_seq = ANY (event_seqs) AND x.at IS NULL);

    -- Nothing else makes dead rows there, so autovacuum would not come for years:
    -- from now on it does for the first one.
    FOREACH storage IN ARRAY ARRAY(
        SELECT DISTINCT t FROM (
            SELECT e.tableoid::regclass AS t FROM outbox.events e WHERE e.seq = ANY (ready)
            UNION ALL
            SELECT c.oid::regclass FROM relay.partitions p JOIN unnest(ready) r ON r >= p.lower AND r < p.upper JOIN pg_class c ON c.oid = to_regclass(format('relay.responses_%s', p.lower))) x
          JOIN pg_class c ON c.oid = x.t AND c.reloptions IS NULL)
    LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %s SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 0, toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 0)', storage);
        EXCEPTION
            WHEN lock_not_available THEN NULL; -- it is being vacuumed: the next erasure does it
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.erase(bigint, bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.erase(bigint, bigint[]) TO outrider_operator;

GRANT SELECT ON relay.endings, relay.endings_seen, relay.closings, relay.erased, relay.erasures, relay.retentions TO outrider_relay, outrider_operator;
GRANT INSERT, UPDATE ON relay.endings_seen TO outrider_relay;
GRANT SELECT ON relay.responses_net TO outrider_operator; -- for doctor, as relay.log_net

CREATE VIEW audit.retentions AS
SELECT r.at, r.actor, r.what, r.action, r.storage, r.lower AS first_seq, r.upper - 1 AS last_seq, r.kept, r.row_estimate, r.bytes
  FROM relay.retentions r;

CREATE VIEW audit.erasures AS
SELECT e.erasure_id, e.account_id, e.requested_by, e.requested_at, e.selection, e.events, e.finished_at
  FROM relay.erasures e;

CREATE VIEW audit.erased_events AS
SELECT x.event_seq, x.account_id, x.erasure_id, x.at
  FROM relay.erased x
 WHERE x.at IS NOT NULL;

GRANT SELECT ON audit.retentions TO outrider_auditor, outrider_relay, outrider_operator;

SELECT relay.guard('relay.responses');
SELECT relay.guard('relay.erasures');
SELECT relay.guard('relay.erased');
SELECT relay.guard_views();

COMMENT ON VIEW audit.retentions IS 'What was erased because it had reached its age, and by whom.';
COMMENT ON COLUMN audit.retentions.at IS 'When.';
COMMENT ON COLUMN audit.retentions.actor IS 'The database role: of a relay, or of who ran outrider retain.';
COMMENT ON COLUMN audit.retentions.what IS 'payloads, responses, log, chain or outbox.';
COMMENT ON COLUMN audit.retentions.action IS 'closed: open deliveries were asked to end. erased: the rows are gone. dropped: the empty table is gone. rolled: new events go to the next partition.';
COMMENT ON COLUMN audit.retentions.storage IS 'The table.';
COMMENT ON COLUMN audit.retentions.first_seq IS 'The first of the events'' places that it concerns; of batches for the chain.';
COMMENT ON COLUMN audit.retentions.last_seq IS 'The last one.';
COMMENT ON COLUMN audit.retentions.kept IS 'The age that was asked for.';
COMMENT ON COLUMN audit.retentions.row_estimate IS 'How many rows, by PostgreSQL''s estimate; NULL where it had none.';
COMMENT ON COLUMN audit.retentions.bytes IS 'How much disk, indexes included.';

COMMENT ON VIEW audit.erasures IS 'Erasures that somebody asked for: of an account, a contact, a conversation, or some events.';
COMMENT ON COLUMN audit.erasures.erasure_id IS 'The erasure.';
COMMENT ON COLUMN audit.erasures.account_id IS 'The account.';
COMMENT ON COLUMN audit.erasures.requested_by IS 'The database role that asked.';
COMMENT ON COLUMN audit.erasures.requested_at IS 'When it was asked for.';
COMMENT ON COLUMN audit.erasures.selection IS 'What was asked for.';
COMMENT ON COLUMN audit.erasures.events IS 'How many events were erased so far.';
COMMENT ON COLUMN audit.erasures.finished_at IS 'When the last of them was.';

COMMENT ON VIEW audit.erased_events IS 'Events whose payload, metadata and responses were erased on request.';
COMMENT ON COLUMN audit.erased_events.event_seq IS 'The event''s place in the outbox.';
COMMENT ON COLUMN audit.erased_events.account_id IS 'The account.';
COMMENT ON COLUMN audit.erased_events.erasure_id IS 'The erasure.';
COMMENT ON COLUMN audit.erased_events.at IS 'When.';
