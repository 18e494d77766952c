-- +goose Up
-- Seals: whoever holds a copy of the newest ones can tell that nothing below
-- them was changed. What is hashed is defined here, as expressions, so that an
-- auditor can recompute all of it in SQL. Numbers are hashed as int8send and
-- int4send give them, times as timestamptz_send does, and whatever has no fixed
-- length stands behind its length, so that no two contents give the same bytes.
-- +goose StatementBegin
CREATE FUNCTION audit.measured(bytes bytea) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(int4send(octet_length(bytes)) || bytes, int4send(-1));

CREATE FUNCTION audit.canonical_entry(
    event_seq bigint, webhook_id bigint, replay_id bigint, account_id bigint, ordinal integer, writer bigint, at timestamptz, version integer,
    type text, data json, routing text, event_id uuid, delivery_id uuid
) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN int8send(event_seq) || int8send(webhook_id) || int8send(replay_id) || int8send(account_id)
        || int4send(ordinal) || int8send(writer) || timestamptz_send(at) || int4send(version)
        || audit.measured(convert_to(type, 'UTF8')) || audit.measured(convert_to(data::text, 'UTF8')) || audit.measured(convert_to(routing, 'UTF8'))
        || audit.measured(uuid_send(event_id)) || audit.measured(uuid_send(delivery_id));

CREATE FUNCTION audit.canonical_seal(
    chain text, no bigint, relay_id bigint, at timestamptz, stretches bigint[], entries integer[], digests bytea, links bytea,
    prev_hash bytea, prev_commit bigint
) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN audit.measured(convert_to(chain, 'UTF8')) || int8send(no) || int8send(relay_id) || timestamptz_send(at)
        || int4send(cardinality(stretches))
        || coalesce((SELECT string_agg(int8send(u.stretch) || int4send(u.entries), ''::bytea ORDER BY u.ord)
                       FROM unnest(stretches, entries) WITH ORDINALITY AS u (stretch, entries, ord)), ''::bytea)
        || audit.measured(digests) || audit.measured(links) || audit.measured(prev_hash) || int8send(prev_commit);

-- The view audit.change_seals hands these two what its readers may not see:
-- with a fixed search path nobody can put a function of theirs in between.
CREATE FUNCTION audit.canonical_webhook_change(
    account_id bigint, version bigint, webhook_id bigint, type text, at timestamptz, actor text, before json, after json
) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT int8send(account_id) || int8send(version) || int8send(webhook_id) || audit.measured(convert_to(type, 'UTF8')) || timestamptz_send(at)
        || audit.measured(convert_to(actor, 'UTF8')) || audit.measured(convert_to(before::text, 'UTF8')) || audit.measured(convert_to(after::text, 'UTF8'))
$$;

CREATE FUNCTION audit.canonical_replay_change(
    replay_id bigint, version integer, account_id bigint, type text, at timestamptz, actor text, data json
) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT int8send(replay_id) || int4send(version) || audit.measured(int8send(account_id)) || audit.measured(convert_to(type, 'UTF8')) || timestamptz_send(at)
        || audit.measured(convert_to(actor, 'UTF8')) || audit.measured(convert_to(data::text, 'UTF8'))
$$;

CREATE FUNCTION audit.canonical_change_seal(
    no bigint, source text, id bigint, version bigint, at timestamptz, digest bytea, links bytea, prev_hash bytea
) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN int8send(no) || audit.measured(convert_to(source, 'UTF8')) || int8send(id) || int8send(version) || timestamptz_send(at)
        || audit.measured(digest) || audit.measured(links) || audit.measured(prev_hash);

-- Chains have names, and in links numbers.
CREATE FUNCTION audit.chain_name(number integer) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE number WHEN 0 THEN 'changes' WHEN 1 THEN 'tail' WHEN 2 THEN 'recorder' ELSE 'recorder ' || (number::bigint - 2)::text END;

CREATE FUNCTION audit.chain_number(chain text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE chain WHEN 'changes' THEN 0 WHEN 'tail' THEN 1 WHEN 'recorder' THEN 2
                ELSE substring(chain FROM '^recorder ([1-9][0-9]{0,4})$')::integer + 2 END;

-- STRICT: else the planner would take it for its generate_series, of which it
-- thinks that it gives a thousand rows.
CREATE FUNCTION audit.links(links bytea) RETURNS TABLE (chain text, no bigint, hash bytea)
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 3
BEGIN ATOMIC
    SELECT audit.chain_name(('x' || encode(substring(links FROM p.place FOR 4), 'hex'))::bit(32)::integer),
           ('x' || encode(substring(links FROM p.place + 4 FOR 8), 'hex'))::bit(64)::bigint,
           substring(links FROM p.place + 12 FOR 32)
      FROM generate_series(1, octet_length(links) - 43, 44) AS p (place);
END;
-- +goose StatementEnd
COMMENT ON FUNCTION audit.chain_name(integer) IS 'The name of a chain of seals: changes, tail, recorder, recorder 1 and so on from number 0.';
COMMENT ON FUNCTION audit.chain_number(text) IS 'The number of a chain of seals, which links have; NULL for what is no name of one.';
COMMENT ON FUNCTION audit.links(bytea) IS 'The seals that the links of a seal name. Each has 44 bytes: the chain''s number in four, the seal''s in eight, and its hash.';
COMMENT ON FUNCTION audit.measured(bytea) IS 'Bytes behind their length in four bytes; -1 alone for NULL.';
COMMENT ON FUNCTION audit.canonical_entry(bigint, bigint, bigint, bigint, integer, bigint, timestamptz, integer, text, json, text, uuid, uuid) IS 'The bytes of a row of audit.entries that its digest, SHA-256, is of. ordinal is pos & 1048575.';
COMMENT ON FUNCTION audit.canonical_seal(text, bigint, bigint, timestamptz, bigint[], integer[], bytea, bytea, bytea, bigint) IS 'The bytes of a row of audit.seals that its hash, SHA-256, is of. prev_hash and prev_commit are those of the seal before it in its chain.';
COMMENT ON FUNCTION audit.canonical_webhook_change(bigint, bigint, bigint, text, timestamptz, text, json, json) IS 'The bytes of a change of a webhook that its digest is of, behind the salt of its seal.';
COMMENT ON FUNCTION audit.canonical_replay_change(bigint, integer, bigint, text, timestamptz, text, json) IS 'The bytes of a step of a replay that its digest is of, behind the salt of its seal.';
COMMENT ON FUNCTION audit.canonical_change_seal(bigint, text, bigint, bigint, timestamptz, bytea, bytea, bytea) IS 'The bytes of a row of audit.change_seals that its hash, SHA-256, is of. prev_hash is that of the seal before it.';

-- The beginning of an entry's digest. It names the entry that was changed where
-- the seal can only tell that one of its group was.
ALTER TABLE relay.log ADD COLUMN mark integer;

-- One seal for each group commit that writes to the log: of routing in the chain
-- tail, of all else in a chain of the relay's own: recorder, recorder 1 and so
-- on. A chain's numbers have no gap, and go on from relay to relay: the fences
-- let one relay at a time write to each. There are as many chains as relays ever
-- were at work at once.
--
-- stretches, entries and digests are its leaves: for each stretch of the outbox
-- (100,000 places: event_seq / 100000) how many entries it has, and SHA-256 over
-- their digests in the order of their ordinals. Retention drops whole stretches,
-- since partitions begin and end with one. Leaves and seals stay, and the chain
-- can still be verified.
--
-- The commit's number is drawn by the statement that writes the seal, so that
-- the next seal of the chain covers it.
CREATE TABLE relay.seals (
    chain     text        NOT NULL,
    no        bigint      NOT NULL,
    commit    bigint      NOT NULL,
    relay_id  bigint      NOT NULL,
    at        timestamptz NOT NULL, -- the latest of its entries
    stretches bigint[]    NOT NULL,
    entries   integer[]   NOT NULL,
    digests   bytea       NOT NULL, -- 32 bytes for each stretch
    links     bytea,                -- of a relay's first seal in a chain: the heads of all other chains, in the order of their numbers
    hash      bytea       NOT NULL,
    PRIMARY KEY (chain, no)
);
CREATE UNIQUE INDEX seals_commit ON relay.seals (commit, chain);
CREATE INDEX seals_at ON relay.seals USING brin (at);
CREATE INDEX seals_genesis ON relay.seals (chain) WHERE no = 0; -- which chains there are

-- Where the chains begin: what the log has up to here was written without seals.
-- links is random here, so that no other database has the same chain. A relay
-- that is the first with its number begins that one's chain, at the same commit.
INSERT INTO relay.seals (chain, no, commit, relay_id, at, stretches, entries, digests, links, hash)
SELECT c.chain, 0, c.commit, 0, c.at, '{}', '{}', '', c.links, sha256(audit.canonical_seal(c.chain, 0, 0, c.at, '{}', '{}', '', c.links, NULL, 0))
  FROM (SELECT v.chain, CASE WHEN q.is_called THEN q.last_value ELSE 0 END AS commit, now() AS at, uuid_send(gen_random_uuid()) AS links
          FROM relay.commits q, (VALUES ('tail'), ('recorder')) AS v (chain)) c;

-- Changes of webhooks and steps of replays are sealed by the transaction that
-- writes them. Their digests are salted: a URL may have a secret in its query.
CREATE TABLE relay.change_seals (
    no      bigint      PRIMARY KEY,
    source  text        NOT NULL, -- webhook_log or replay_log; empty for the first
    id      bigint      NOT NULL, -- account or replay
    version bigint      NOT NULL,
    at      timestamptz NOT NULL,
    salt    bytea       NOT NULL,
    digest  bytea       NOT NULL,
    links   bytea       NOT NULL, -- the heads of all other chains, in the order of their numbers
    hash    bytea       NOT NULL
);
CREATE UNIQUE INDEX change_seals_row ON relay.change_seals (source, id, version);
INSERT INTO relay.change_seals (no, source, id, version, at, salt, digest, links, hash)
SELECT 0, '', 0, 0, now(), '', c.digest, '', sha256(audit.canonical_change_seal(0, '', 0, 0, now(), c.digest, '', NULL))
  FROM (SELECT uuid_send(gen_random_uuid()) AS digest) c;

-- Each chain's head is a look-up by key.
CREATE VIEW audit.heads AS
SELECT 0 AS number, 'changes' AS chain, c.no, 0::bigint AS commit, c.hash
  FROM (SELECT s.no, s.hash FROM relay.change_seals s ORDER BY s.no DESC LIMIT 1) c
UNION ALL
SELECT audit.chain_number(g.chain), g.chain, h.no, h.commit, h.hash
  FROM relay.seals g
 CROSS JOIN LATERAL (SELECT s.no, s.commit, s.hash FROM relay.seals s WHERE s.chain = g.chain ORDER BY s.no DESC LIMIT 1) h
 WHERE g.no = 0;
COMMENT ON VIEW audit.heads IS 'The newest seal of each chain.';
COMMENT ON COLUMN audit.heads.number IS 'The chain''s number, which links have.';
COMMENT ON COLUMN audit.heads.chain IS 'The chain.';
COMMENT ON COLUMN audit.heads.no IS 'The seal''s number in the chain.';
COMMENT ON COLUMN audit.heads.commit IS 'The number of the group commit; 0 in the chain changes.';
COMMENT ON COLUMN audit.heads.hash IS 'The seal''s hash.';

-- The lock is taken at commit, after all others, so that nobody who holds it
-- waits for anybody.
-- +goose StatementBegin
CREATE FUNCTION relay.seal_change(source text, id bigint, version bigint, at timestamptz, bytes bytea) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    prev   relay.change_seals;
    salt   bytea := uuid_send(gen_random_uuid());
    digest bytea := sha256(salt || bytes);
    links  bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('outrider'), hashtext('seal_change'));
    SELECT * INTO prev FROM relay.change_seals s ORDER BY s.no DESC LIMIT 1;
    links := (SELECT string_agg(int4send(h.number) || int8send(h.no) || h.hash, ''::bytea ORDER BY h.number) FROM audit.heads h WHERE h.chain <> 'changes');
    INSERT INTO relay.change_seals (no, source, id, version, at, salt, digest, links, hash)
    VALUES (prev.no + 1, seal_change.source, seal_change.id, seal_change.version, seal_change.at, salt, digest, links,
            sha256(audit.canonical_change_seal(prev.no + 1, seal_change.source, seal_change.id, seal_change.version, seal_change.at, digest, links, prev.hash)));
EXCEPTION WHEN unique_violation THEN
    -- The transaction's snapshot is older than the lock: it is not READ COMMITTED.
    RAISE EXCEPTION 'another change was sealed since this transaction began' USING ERRCODE = 'serialization_failure', HINT = 'Run it again.';
END
$$;

CREATE FUNCTION relay.seal_webhook_change() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM relay.seal_change('webhook_log', NEW.account_id, NEW.version, NEW.at,
        audit.canonical_webhook_change(NEW.account_id, NEW.version, NEW.webhook_id, NEW.type, NEW.at, NEW.actor, NEW.before, NEW.after));
    RETURN NULL;
END
$$;

CREATE FUNCTION relay.seal_replay_change() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM relay.seal_change('replay_log', NEW.replay_id, NEW.version, NEW.at,
        audit.canonical_replay_change(NEW.replay_id, NEW.version, NEW.account_id, NEW.type, NEW.at, NEW.actor, NEW.data));
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER seal AFTER INSERT ON relay.webhook_log DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION relay.seal_webhook_change();
CREATE CONSTRAINT TRIGGER seal AFTER INSERT ON relay.replay_log DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION relay.seal_replay_change();

-- What was written before there were seals.
DO $$
BEGIN
    PERFORM relay.seal_change('webhook_log', w.account_id, w.version, w.at,
            audit.canonical_webhook_change(w.account_id, w.version, w.webhook_id, w.type, w.at, w.actor, w.before, w.after))
       FROM (SELECT * FROM relay.webhook_log ORDER BY account_id, version) w;
    PERFORM relay.seal_change('replay_log', p.replay_id, p.version, p.at,
            audit.canonical_replay_change(p.replay_id, p.version, p.account_id, p.type, p.at, p.actor, p.data))
       FROM (SELECT * FROM relay.replay_log ORDER BY replay_id, version) p;
END
$$;

-- Partitions begin and end with a stretch, so that one is dropped whole or not
-- at all.
CREATE FUNCTION relay.align_partition() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.lower := (NEW.lower + 99999) / 100000 * 100000;
    NEW.upper := (NEW.upper + 99999) / 100000 * 100000;
    RETURN NEW;
END
$$;
CREATE TRIGGER align BEFORE INSERT ON relay.partitions FOR EACH ROW EXECUTE FUNCTION relay.align_partition();

-- Whether a stretch was dropped: with all of its partition, as retention does.
CREATE FUNCTION audit.stretch_dropped(stretch bigint) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq >= b.lower AND l.event_seq < b.upper)
      FROM (SELECT coalesce(min(p.lower), stretch * 100000) AS lower, coalesce(max(p.upper), (stretch + 1) * 100000) AS upper
              FROM relay.partitions p WHERE p.lower <= stretch * 100000 AND p.upper > stretch * 100000) b
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION relay.seal_change(text, bigint, bigint, timestamptz, bytea), relay.seal_webhook_change(), relay.seal_replay_change(), relay.align_partition() FROM PUBLIC;
REVOKE ALL ON FUNCTION audit.stretch_dropped(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.stretch_dropped(bigint) TO outrider_auditor, outrider_operator, outrider_relay;
COMMENT ON FUNCTION audit.stretch_dropped(bigint) IS 'Whether no entry is left of the partition that this stretch of the outbox (event_seq / 100000) lies in.';

GRANT SELECT, INSERT ON relay.seals TO outrider_relay;
GRANT SELECT ON relay.change_seals TO outrider_relay;

CREATE VIEW audit.entries AS
SELECT l.event_seq, l.webhook_id, l.replay_id, l.account_id, l.pos, l.writer, l.at, l.version, l.type, l.data, l.routing, l.event_id, l.delivery_id, l.mark
  FROM relay.log l;
COMMENT ON VIEW audit.entries IS 'The log, with all that seals cover.';
COMMENT ON COLUMN audit.entries.event_seq IS 'The chat event''s place in the outbox.';
COMMENT ON COLUMN audit.entries.webhook_id IS 'The webhook; 0 for the decision about the chat event.';
COMMENT ON COLUMN audit.entries.replay_id IS 'The replay; 0 for the first delivery.';
COMMENT ON COLUMN audit.entries.account_id IS 'The account.';
COMMENT ON COLUMN audit.entries.pos IS 'The number of its group commit times 1048576, plus its ordinal in that.';
COMMENT ON COLUMN audit.entries.writer IS 'The relay that wrote it.';
COMMENT ON COLUMN audit.entries.at IS 'When, by the relay''s clock.';
COMMENT ON COLUMN audit.entries.version IS 'Its number within its stream.';
COMMENT ON COLUMN audit.entries.type IS 'What happened.';
COMMENT ON COLUMN audit.entries.data IS 'The details.';
COMMENT ON COLUMN audit.entries.routing IS 'How the chat event was routed; NULL for all other entries.';
COMMENT ON COLUMN audit.entries.event_id IS 'The chat event''s id, in the first entry of a stream.';
COMMENT ON COLUMN audit.entries.delivery_id IS 'The delivery''s id, in the first entry of a stream.';
COMMENT ON COLUMN audit.entries.mark IS 'The first four bytes of the digest that the entry was sealed with; NULL for one from before there were seals.';

CREATE VIEW audit.seals AS
SELECT s.chain, s.no, s.commit, s.relay_id, s.at, s.stretches, s.entries, s.digests, s.links, s.hash FROM relay.seals s;
COMMENT ON VIEW audit.seals IS 'One seal for each group commit that wrote to the log.';
COMMENT ON COLUMN audit.seals.chain IS 'tail for what routing wrote; recorder, recorder 1 and so on for all else, of one relay at a time each.';
COMMENT ON COLUMN audit.seals.no IS 'Its number in the chain, without gaps. 0 is where the chain begins.';
COMMENT ON COLUMN audit.seals.commit IS 'The number of the group commit: that of its entries is pos >> 20. The next seal of the chain covers it.';
COMMENT ON COLUMN audit.seals.relay_id IS 'The relay that wrote it.';
COMMENT ON COLUMN audit.seals.at IS 'When the latest of its entries was written, by the relay''s clock.';
COMMENT ON COLUMN audit.seals.stretches IS 'The stretches of the outbox, event_seq / 100000, that its entries belong to.';
COMMENT ON COLUMN audit.seals.entries IS 'How many entries each stretch has.';
COMMENT ON COLUMN audit.seals.digests IS 'For each stretch 32 bytes: SHA-256 over the digests of its entries, in the order of their ordinals.';
COMMENT ON COLUMN audit.seals.links IS 'In a relay''s first seal of a chain, the heads of all other chains in the order of their numbers: see audit.links. Random where the chain begins.';
COMMENT ON COLUMN audit.seals.hash IS 'SHA-256 of audit.canonical_seal.';

CREATE VIEW audit.change_seals AS
SELECT s.no,
       coalesce(s.source, r.source)   AS source,
       coalesce(s.id, r.id)           AS id,
       coalesce(s.version, r.version) AS version,
       s.at, s.digest, sha256(s.salt || r.bytes) AS found, s.links, s.hash
  FROM relay.change_seals s
  FULL JOIN (
       SELECT 'webhook_log'::text AS source, w.account_id AS id, w.version,
              audit.canonical_webhook_change(w.account_id, w.version, w.webhook_id, w.type, w.at, w.actor, w.before, w.after) AS bytes
         FROM relay.webhook_log w
       UNION ALL
       SELECT 'replay_log', p.replay_id, p.version, audit.canonical_replay_change(p.replay_id, p.version, p.account_id, p.type, p.at, p.actor, p.data)
         FROM relay.replay_log p) r ON r.source = s.source AND r.id = s.id AND r.version = s.version;
COMMENT ON VIEW audit.change_seals IS 'One seal for each change of a webhook and each step of a replay, and what there is without a seal.';
COMMENT ON COLUMN audit.change_seals.no IS 'Its number in the chain changes, without gaps. NULL where a row has no seal.';
COMMENT ON COLUMN audit.change_seals.source IS 'webhook_log or replay_log; empty where the chain begins.';
COMMENT ON COLUMN audit.change_seals.id IS 'The account of a webhook''s change, or the replay.';
COMMENT ON COLUMN audit.change_seals.version IS 'The account''s version that the change made, or the number of the replay''s step.';
COMMENT ON COLUMN audit.change_seals.at IS 'When, by the database''s clock.';
COMMENT ON COLUMN audit.change_seals.digest IS 'The salted digest of the row as it was written.';
COMMENT ON COLUMN audit.change_seals.found IS 'The salted digest of the row as it is; NULL where there is none.';
COMMENT ON COLUMN audit.change_seals.links IS 'The heads of all other chains in the order of their numbers: see audit.links.';
COMMENT ON COLUMN audit.change_seals.hash IS 'SHA-256 of audit.canonical_change_seal.';

GRANT SELECT ON audit.entries, audit.seals, audit.change_seals, audit.heads TO outrider_auditor, outrider_relay, outrider_operator;

-- All that is wrong between two group commits, by SQL alone. The changes of
-- webhooks and replays are all looked at.
-- +goose StatementBegin
CREATE FUNCTION audit.verify(from_commit bigint DEFAULT 0, to_commit bigint DEFAULT 9223372036854775807, heads json DEFAULT NULL)
RETURNS TABLE (chain text, seal bigint, commit bigint, event_seq bigint, webhook_id bigint, replay_id bigint, version bigint, problem text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
WITH s AS MATERIALIZED (
    SELECT s.*, p.hash AS prev_hash, p.commit AS prev_commit
      FROM relay.seals s LEFT JOIN relay.seals p ON p.chain = s.chain AND p.no = s.no - 1
     WHERE s.commit BETWEEN from_commit AND to_commit),
leaf AS MATERIALIZED (
    SELECT s.chain, s.no, s.commit, u.stretch, u.entries, substring(s.digests FROM (32 * u.ord - 31)::integer FOR 32) AS digest
      FROM s, unnest(s.stretches, s.entries) WITH ORDINALITY AS u (stretch, entries, ord)),
entry AS MATERIALIZED (
    SELECT l.event_seq, l.webhook_id, l.replay_id, l.version, l.pos >> 20 AS commit, l.event_seq / 100000 AS stretch, (l.pos & 1048575)::integer AS ordinal, l.mark,
           sha256(audit.canonical_entry(l.event_seq, l.webhook_id, l.replay_id, l.account_id, (l.pos & 1048575)::integer, l.writer, l.at, l.version,
                                        l.type, l.data, l.routing, l.event_id, l.delivery_id)) AS digest
      FROM relay.log l
     WHERE l.pos >> 20 BETWEEN from_commit AND to_commit
       AND (l.pos >> 20 <= 0 OR l.pos >> 20 > coalesce((SELECT g.commit FROM relay.seals g WHERE g.chain = 'tail' AND g.no = 0), 0))),
found AS MATERIALIZED (
    SELECT e.commit, e.stretch, count(*) AS entries, sha256(string_agg(e.digest, ''::bytea ORDER BY e.ordinal)) AS digest
      FROM entry e GROUP BY e.commit, e.stretch),
judged AS MATERIALIZED (
    SELECT x.chain, x.no, commit, stretch, x.entries, f.entries AS found, x.digest IS NOT DISTINCT FROM f.digest AND x.entries = f.entries AS same
      FROM leaf x FULL JOIN found f USING (commit, stretch)),
gone AS MATERIALIZED (
    SELECT j.stretch FROM judged j WHERE j.found IS NULL GROUP BY j.stretch HAVING audit.stretch_dropped(j.stretch)),
bad AS MATERIALIZED (
    SELECT j.*, n.named
      FROM judged j
     CROSS JOIN LATERAL (
           SELECT count(*) AS named FROM entry e
            WHERE e.commit = j.commit AND e.stretch = j.stretch
              AND e.mark IS DISTINCT FROM ('x' || encode(substring(e.digest FOR 4), 'hex'))::bit(32)::integer) n
     WHERE j.chain IS NOT NULL AND NOT coalesce(j.same, false) AND j.stretch NOT IN (SELECT g.stretch FROM gone g)),
linked AS (
    SELECT s.chain, s.no, s.commit, o.chain AS other, o.no AS other_no, o.hash AS other_hash
      FROM (SELECT s.chain, s.no, s.commit, s.links FROM s WHERE s.links IS NOT NULL UNION ALL SELECT 'changes', c.no, NULL, c.links FROM relay.change_seals c) s
     CROSS JOIN LATERAL audit.links(s.links) o)
SELECT s.chain, s.no, s.commit, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, 'the seal before it is missing'
  FROM s WHERE s.no <> 0 AND s.prev_hash IS NULL
UNION ALL
SELECT s.chain, s.no, s.commit, NULL, NULL, NULL, NULL, 'it does not fit its hash: it was changed, or the commit of the seal before it'
  FROM s WHERE (s.no = 0 OR s.prev_hash IS NOT NULL)
   AND s.hash IS DISTINCT FROM sha256(audit.canonical_seal(s.chain, s.no, s.relay_id, s.at, s.stretches, s.entries, s.digests, s.links, s.prev_hash, coalesce(s.prev_commit, 0)))
UNION ALL
SELECT s.chain, s.no, s.commit, NULL, NULL, NULL, NULL, 'its commit does not come after that of the seal before it'
  FROM s WHERE s.commit <= s.prev_commit
UNION ALL
SELECT w.chain, 0, NULL, NULL, NULL, NULL, NULL, CASE WHEN audit.chain_number(w.chain) > 0 THEN 'the chain''s beginning is missing' ELSE 'there is no such chain' END
  FROM (SELECT 'tail' AS chain UNION SELECT 'recorder' UNION SELECT g.chain FROM relay.seals g WHERE g.no = 0 UNION SELECT s.chain FROM s) w
 WHERE audit.chain_number(w.chain) > 0 IS NOT TRUE OR NOT EXISTS (SELECT FROM relay.seals g WHERE g.chain = w.chain AND g.no = 0)
UNION ALL
SELECT g.chain, 0, g.commit, NULL, NULL, NULL, NULL, 'it begins at another commit than the chain tail'
  FROM relay.seals g JOIN relay.seals t ON t.chain = 'tail' AND t.no = 0 WHERE g.no = 0 AND g.commit <> t.commit
UNION ALL
SELECT l.chain, l.no, l.commit, NULL, NULL, NULL, NULL, format('it links to seal %s of the chain %s, which is missing or another one', l.other_no, l.other)
  FROM linked l
  LEFT JOIN (SELECT h.chain, h.no, h.hash FROM relay.seals h UNION ALL SELECT 'changes', h.no, h.hash FROM relay.change_seals h) h ON h.chain = l.other AND h.no = l.other_no
 WHERE h.hash IS DISTINCT FROM l.other_hash
UNION ALL
SELECT j.chain, j.no, e.commit, e.event_seq, e.webhook_id, e.replay_id, e.version, 'no seal covers this entry'
  FROM judged j JOIN entry e ON e.commit = j.commit AND e.stretch = j.stretch WHERE j.chain IS NULL
UNION ALL
SELECT j.chain, j.no, e.commit, e.event_seq, e.webhook_id, e.replay_id, e.version, CASE WHEN j.same THEN 'its mark was changed' ELSE 'this entry was changed, moved or added' END
  FROM judged j JOIN entry e ON e.commit = j.commit AND e.stretch = j.stretch
 WHERE j.chain IS NOT NULL AND e.mark IS DISTINCT FROM ('x' || encode(substring(e.digest FOR 4), 'hex'))::bit(32)::integer
UNION ALL
SELECT b.chain, b.no, b.commit, NULL, NULL, NULL, NULL,
       format('of %s entries between %s and %s there are %s', b.entries, b.stretch * 100000, b.stretch * 100000 + 99999, coalesce(b.found, 0))
  FROM bad b WHERE b.entries IS DISTINCT FROM b.found
UNION ALL
SELECT b.chain, b.no, b.commit, NULL, NULL, NULL, NULL,
       format('one of its entries between %s and %s was changed; none says which', b.stretch * 100000, b.stretch * 100000 + 99999)
  FROM bad b WHERE b.entries = b.found AND b.named = 0
UNION ALL
SELECT 'changes', c.no, NULL, NULL, NULL, NULL, c.version,
       CASE WHEN c.no IS NULL THEN format('no seal covers this row of %s, of %s', c.source, c.id)
            WHEN c.found IS NULL THEN format('the row of %s, of %s, is missing', c.source, c.id)
            ELSE format('the row of %s, of %s, was changed', c.source, c.id) END
  FROM audit.change_seals c WHERE c.no IS NULL OR c.no > 0 AND c.found IS DISTINCT FROM c.digest
UNION ALL
SELECT 'changes', c.no, NULL, NULL, NULL, NULL, NULL, CASE WHEN c.no <> 0 AND p.hash IS NULL THEN 'the seal before it is missing' ELSE 'it does not fit its hash: it was changed' END
  FROM relay.change_seals c LEFT JOIN relay.change_seals p ON p.no = c.no - 1
 WHERE c.no <> 0 AND p.hash IS NULL OR (c.hash IS DISTINCT FROM sha256(audit.canonical_change_seal(c.no, c.source, c.id, c.version, c.at, c.digest, c.links, p.hash)))
UNION ALL
SELECT h.chain, h.no, h.commit, NULL, NULL, NULL, NULL, 'the heads name this seal, and it is missing or another one'
  FROM json_to_recordset(heads -> 'heads') AS h (chain text, no bigint, commit bigint, hash text)
 WHERE NOT EXISTS (SELECT FROM relay.seals x WHERE x.chain = h.chain AND x.no = h.no AND x.commit = h.commit AND encode(x.hash, 'hex') = h.hash)
   AND NOT EXISTS (SELECT FROM relay.change_seals x WHERE h.chain = 'changes' AND x.no = h.no AND encode(x.hash, 'hex') = h.hash)
UNION ALL
SELECT 'changes', 0, NULL, NULL, NULL, NULL, NULL, 'the chain''s beginning is missing'
 WHERE NOT EXISTS (SELECT FROM relay.change_seals g WHERE g.no = 0)
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION audit.verify(bigint, bigint, json) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.verify(bigint, bigint, json) TO outrider_auditor, outrider_operator, outrider_relay;
COMMENT ON FUNCTION audit.verify(bigint, bigint, json) IS 'What does not fit the seals of the group commits from from_commit to to_commit: no row where nothing was changed, and where the exported heads are all there. A partition that was dropped is not wrong.';
