-- +goose Up
-- What lists of the history need beside the views: where to begin and to end,
-- and what is new since the last look. The functions give places in the outbox
-- and in the log, which hold nothing of anybody; what is there is read through
-- the views.

-- Deliveries by a replay, by their place and by when they were scheduled.
CREATE INDEX log_replay ON relay.log (replay_id, event_seq) WHERE replay_id > 0 AND delivery_id IS NOT NULL;
CREATE INDEX log_replay_pos ON relay.log (pos) WHERE replay_id > 0 AND delivery_id IS NOT NULL;
CREATE INDEX webhook_log_at ON relay.webhook_log (at, account_id, version);

-- The places of what was routed in a range of time: above < seq <= up_to. They
-- are bounds: between them lie also rows of other times, of transactions that
-- stayed open for long. The chain's times may step back by a minute where
-- another relay took over, whose clock is behind.
--
-- A row that a link or a later one routed lies above what the link says is
-- decided, or is one of the link's own (see relay.decided_up_to). Where the
-- links of that time are pruned, the bound is that of the oldest one left. It
-- sorts by no + 0: by no, the planner would walk the chain from its beginning.
-- +goose StatementBegin
CREATE FUNCTION audit.seq_range(since timestamptz, until timestamptz, OUT above bigint, OUT up_to bigint, OUT replays bigint[])
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN since IS NULL THEN 0 ELSE coalesce(
               (SELECT CASE WHEN f.no > (SELECT b.no FROM relay.batches b ORDER BY b.no LIMIT 1) OR f.no = 0 THEN
                            least(CASE WHEN f.bound > 0 THEN f.cursor ELSE f.low END, CASE WHEN f.seq_min <= f.seq_max THEN f.seq_min - 1 END)
                       ELSE 0 END
                  FROM (SELECT b.at FROM relay.batches b WHERE b.at >= since ORDER BY b.at LIMIT 1) o,
               LATERAL (SELECT b.* FROM relay.batches b WHERE b.at >= o.at AND b.at < o.at + interval '1 minute' ORDER BY b.no + 0 LIMIT 1) f),
               relay.decided_up_to()) END,
           CASE WHEN until IS NULL THEN 9223372036854775807 ELSE coalesce(
               (SELECT max(b.high)
                  FROM (SELECT b.at FROM relay.batches b WHERE b.at < until ORDER BY b.at DESC LIMIT 1) n
                  JOIN relay.batches b ON b.at <= n.at AND b.at > n.at - interval '1 minute'),
               (SELECT b.high FROM relay.batches b ORDER BY b.no LIMIT 1)) END,
           CASE WHEN since IS NOT NULL THEN ARRAY(
               SELECT r.replay_id FROM relay.replays r
                WHERE (seq_range.until IS NULL OR r.requested_at < seq_range.until + interval '1 minute')
                  AND (r.finished_at IS NULL OR r.finished_at > seq_range.since - interval '1 minute')
                  AND r.state <> 'planned') END
$$;

-- The places of chat events with an entry of a rare type, newest first: what
-- failed is found without walking what went well.
CREATE FUNCTION audit.places(entry text, above bigint, up_to bigint, most integer) RETURNS SETOF bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan -- with its values a place is walked to, and partitions are pruned
AS $$
BEGIN
    RETURN QUERY
    SELECT l.event_seq FROM relay.log l
     WHERE l.type IN ('attempt_failed', 'attempt_unknown', 'held', 'expired', 'dead', 'cancelled') AND l.type = entry
       AND l.event_seq > above AND l.event_seq <= up_to
     ORDER BY l.event_seq DESC LIMIT most;
END
$$;

-- How far the history is: the newest link of the chain, and the last number
-- that was given to a group commit, which may not be committed yet.
CREATE FUNCTION audit.head(OUT batch bigint, OUT commit bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT b.no FROM relay.batches b ORDER BY b.no DESC LIMIT 1), coalesce(pg_sequence_last_value('relay.commits'), 0)
$$;

-- The chat events that the links behind one have routed, in the chain's order.
-- A link without any gives one row without a place.
CREATE FUNCTION audit.routed_after(batch bigint, most integer) RETURNS TABLE (no bigint, seq bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    link record;
BEGIN
    FOR link IN SELECT b.no, b.seq_min, b.seq_max, b.commit FROM relay.batches b WHERE b.no > batch ORDER BY b.no LIMIT most LOOP
        RETURN QUERY
        SELECT link.no, l.event_seq
          FROM (SELECT true) one
          LEFT JOIN relay.log l ON l.event_seq BETWEEN link.seq_min AND link.seq_max AND l.webhook_id = 0 AND l.replay_id = 0 AND l.version = 1
                               AND l.pos >= link.commit << 20 AND l.pos < (link.commit + 1) << 20
         ORDER BY l.event_seq;
    END LOOP;
END
$$;

-- The deliveries that replays have scheduled behind a place in the log.
CREATE FUNCTION audit.replayed_after(place bigint, most integer) RETURNS TABLE (pos bigint, delivery_id uuid)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN QUERY
    SELECT l.pos, l.delivery_id FROM relay.log l
     WHERE l.replay_id > 0 AND l.delivery_id IS NOT NULL AND l.pos > place
     ORDER BY l.pos LIMIT most;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION audit.seq_range(timestamptz, timestamptz) IS 'Between which places in the outbox lies what was routed at or after since and before until: above < seq <= up_to, and replays that may have scheduled older ones in that time. NULL is no bound.';
COMMENT ON FUNCTION audit.places(text, bigint, bigint, integer) IS 'The places of chat events with an entry of a rare type (attempt_failed, attempt_unknown, held, expired, dead, cancelled), newest first.';
COMMENT ON FUNCTION audit.head() IS 'The newest batch, and the last number given to a group commit.';
COMMENT ON FUNCTION audit.routed_after(bigint, integer) IS 'The places of chat events that the batches behind one have routed.';
COMMENT ON FUNCTION audit.replayed_after(bigint, integer) IS 'The deliveries that replays have scheduled behind a place in the log.';
REVOKE ALL ON FUNCTION audit.seq_range(timestamptz, timestamptz), audit.places(text, bigint, bigint, integer), audit.head(),
    audit.routed_after(bigint, integer), audit.replayed_after(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.seq_range(timestamptz, timestamptz), audit.places(text, bigint, bigint, integer), audit.head(),
    audit.routed_after(bigint, integer), audit.replayed_after(bigint, integer) TO outrider_auditor, outrider_relay, outrider_operator;

-- Committed and never routed: rows without a decision at or below the place to
-- which all should have one, as relay.decided_up_to has it (a view may not ask
-- it: its reader would need the right to). The chain's newest link, the
-- decisions and the rows are of one snapshot, so none is just being routed.
CREATE VIEW audit.gaps AS
SELECT e.seq, e.account_id, e.id AS event_id, e.event, e.inserted_at
  FROM relay.shown_events e
 WHERE e.seq <= (SELECT CASE WHEN b.bound > 0 THEN b.cursor ELSE b.low END FROM relay.batches b ORDER BY b.no DESC LIMIT 1)
   AND (SELECT true FROM relay.log r WHERE r.event_seq = e.seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1 LIMIT 1) IS NULL;
COMMENT ON VIEW audit.gaps IS 'Chat events that are committed and were never routed, though the position is past them: none, unless rows were restored or the position was moved by hand. Bound it by seq: it looks up each row.';
COMMENT ON COLUMN audit.gaps.seq IS 'Place in the outbox.';
COMMENT ON COLUMN audit.gaps.account_id IS 'The account.';
COMMENT ON COLUMN audit.gaps.event_id IS 'The idempotency key; NULL where it was inserted with NULL.';
COMMENT ON COLUMN audit.gaps.event IS 'The event''s name.';
COMMENT ON COLUMN audit.gaps.inserted_at IS 'When the row was inserted, by the database''s clock.';
SELECT relay.guard_views();
