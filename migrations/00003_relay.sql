-- +goose Up
-- Which database this is: written by the first relay that runs on it, the
-- newest row counts. A dump restored elsewhere brings the rows along, and the
-- relay sees that they do not fit.
CREATE TABLE relay.identity (
    system_identifier bigint      NOT NULL,
    database_oid      oid         NOT NULL,
    database_name     name        NOT NULL,
    since             timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Relays, one row for each start of a process. One whose row has fenced_at
-- writes nothing any more. Every recording takes its own row FOR SHARE, so that
-- fencing waits for it.
--
-- recorder is the number of the chain of seals that it writes, see
-- audit.chain_name: the lowest that no other relay has which may write.
CREATE TABLE relay.relays (
    relay_id   bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name       text        NOT NULL,
    version    text        NOT NULL,
    sends      boolean     NOT NULL DEFAULT true, -- false: it only routes
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leaving_at timestamptz, -- it stops, and takes nothing any more
    fenced_at  timestamptz,
    fenced_by  bigint, -- the relay that did, 0 for none; NULL where it stopped itself
    seen_at    timestamptz, -- its last sign of life, kept where others fenced it; NULL where it stopped itself
    recorder   smallint    NOT NULL
);
CREATE UNIQUE INDEX relays_recorder ON relay.relays (recorder) WHERE fenced_at IS NULL;

-- Signs of life, insert-only, so that neither a long transaction nor a
-- recording in flight slows them. position and low say where a successor has
-- to begin with shards, a set of bits.
CREATE TABLE relay.heartbeats (
    relay_id bigint      NOT NULL,
    n        bigint      NOT NULL,
    position bigint      NOT NULL,
    low      bigint      NOT NULL,
    shards   bigint      NOT NULL DEFAULT -1,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (relay_id, n)
);

-- 64 shards of webhooks (slots 0 to 63: webhook_id & 63) and the tail (slot 64).
-- A slot names its owner; position and low are where the owner found it.
CREATE TABLE relay.slots (
    slot     smallint PRIMARY KEY,
    relay_id bigint,
    position bigint   NOT NULL DEFAULT 0,
    low      bigint   NOT NULL DEFAULT 0,
    since    timestamptz
);
INSERT INTO relay.slots (slot) SELECT generate_series(0, 64);

-- Where a relay that takes over each shard now has to begin.
CREATE VIEW relay.places AS
SELECT s.slot, s.relay_id,
       CASE WHEN (h.shards >> s.slot) & 1 = 1 THEN h.position ELSE s.position END AS position,
       CASE WHEN (h.shards >> s.slot) & 1 = 1 THEN h.low ELSE s.low END           AS low
  FROM relay.slots s
  LEFT JOIN LATERAL (SELECT b.position, b.low, b.shards FROM relay.heartbeats b WHERE b.relay_id = s.relay_id ORDER BY b.n DESC LIMIT 1) h ON true
 WHERE s.slot < 64;

-- The chain: one row for each routed batch, numbered without gaps. The primary
-- key refuses a second reader's row, NOT NULL of prev one whose predecessor
-- never committed: together they are the tail's fence.
CREATE TABLE relay.batches (
    no           bigint      PRIMARY KEY,
    prev         bigint      NOT NULL CHECK (prev = no - 1),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    consumed     pg_snapshot NOT NULL,
    target       pg_snapshot,
    cursor       bigint      NOT NULL,
    floor        bigint      NOT NULL,
    window_floor bigint      NOT NULL,
    high         bigint      NOT NULL,
    low          bigint      NOT NULL,
    seq_min      bigint      NOT NULL,
    seq_max      bigint      NOT NULL,
    commit       bigint      NOT NULL, -- the group commit that wrote it: finds its entries in the log
    relay_id     bigint      NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX batches_at ON relay.batches (at);
-- The first link: nothing is consumed yet, every transaction is ahead.
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
VALUES (0, -1, '3:3:', 0, 0, 0, 0, 0, 0, -1, 0, 0);

-- Numbers of group commits. An entry's pos is its commit's number times 2^20
-- plus its ordinal within it.
CREATE SEQUENCE relay.commits;

-- The log. One stream for each chat event (webhook_id 0) and one for each
-- delivery, identified by event_seq, webhook_id and replay_id. It is
-- partitioned by the chat event's seq with the bounds of outbox.events, so
-- that a stream stays in one partition and a second writer of the same version
-- is refused.
CREATE TABLE relay.log (
    event_seq   bigint      NOT NULL,
    webhook_id  bigint      NOT NULL,
    replay_id   bigint      NOT NULL,
    account_id  bigint      NOT NULL,
    pos         bigint      NOT NULL,
    writer      bigint      NOT NULL,
    at          timestamptz NOT NULL,
    version     integer     NOT NULL,
    type        text        NOT NULL,
    data        json        NOT NULL,
    routing     text,       -- of a chat event's decision: also in data, and here so that no index has to parse it
    event_id    uuid,
    delivery_id uuid,
    PRIMARY KEY (event_seq, webhook_id, replay_id, version)
) PARTITION BY RANGE (event_seq);
-- Finds the attempts that a dead relay left open.
CREATE INDEX log_started ON relay.log (pos) WHERE type = 'attempt_started';
-- Those of a chat event's decision are apart from those of its deliveries: the
-- look-up of duplicates must find this one fit, and no other.
CREATE INDEX log_event_id ON relay.log (event_id) WHERE webhook_id = 0;
CREATE INDEX log_scheduled_event_id ON relay.log (event_id) WHERE type = 'scheduled';
CREATE INDEX log_account ON relay.log (account_id, event_seq) WHERE type IN ('routed', 'scheduled');
CREATE INDEX log_delivery_id ON relay.log (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX log_webhook ON relay.log (webhook_id, event_seq) WHERE delivery_id IS NOT NULL;
-- What is rare is found without walking what is common.
CREATE INDEX log_rare ON relay.log (type, event_seq)
    WHERE type IN ('attempt_failed', 'attempt_unknown', 'held', 'expired', 'dead', 'cancelled');
CREATE INDEX log_not_routed ON relay.log (event_seq) WHERE routing <> 'routed';
CREATE TABLE relay.log_net PARTITION OF relay.log DEFAULT;

-- What receivers answered: the beginning of each body, by the log entry of the
-- outcome, which has its digest. It stands apart so that it can be erased while
-- the log stays as it is, with the salt, without which nobody can guess it from
-- the digest.
CREATE TABLE relay.responses (
    event_seq  bigint  NOT NULL,
    webhook_id bigint  NOT NULL,
    replay_id  bigint  NOT NULL,
    version    integer NOT NULL,
    account_id bigint  NOT NULL,
    salt       bytea   NOT NULL,
    excerpt    text    NOT NULL,
    PRIMARY KEY (event_seq, webhook_id, replay_id, version)
) PARTITION BY RANGE (event_seq);
CREATE TABLE relay.responses_net PARTITION OF relay.responses DEFAULT;

-- What must wait: retries, holds, overflow. Small, and read from the time last
-- read, so that the dead rows behind are not walked.
CREATE TABLE relay.due (
    event_seq  bigint      NOT NULL,
    webhook_id bigint      NOT NULL,
    replay_id  bigint      NOT NULL,
    version    integer     NOT NULL, -- of the stream when it began to wait
    kind       "char"      NOT NULL, -- r: retry, h: held for order, p: held by a pause, o: overflow
    at         timestamptz NOT NULL,
    pos        bigint      NOT NULL, -- of the entry that scheduled it: the routing order
    key        bigint      NOT NULL, -- hash of the ordering key, 0 for none
    PRIMARY KEY (event_seq, webhook_id, replay_id, version)
);
CREATE INDEX due_at ON relay.due (at, pos, webhook_id) WHERE kind <> 'o';
-- The lanes of a webhook, each in the order in which it is read: 0 and 1 of
-- what waits for its time, 2 and 3 of overflow, the odd ones of replays. Where a
-- lane ends the next one is found by one look-up, however much waits in it.
CREATE INDEX due_lane ON relay.due (webhook_id, (CASE WHEN kind = 'o' THEN 2 ELSE 0 END + CASE WHEN replay_id > 0 THEN 1 ELSE 0 END), at, pos);
CREATE INDEX due_key ON relay.due (webhook_id, kind, key, pos) WHERE kind IN ('h', 'p');
-- Rows come and go fast here: vacuum by count, not by share.
ALTER TABLE relay.due SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- An account's configuration version. Changes take the row's lock and hold it
-- to their commit, so that versions are allotted in commit order.
CREATE TABLE relay.accounts (
    account_id bigint PRIMARY KEY,
    version    bigint NOT NULL
);

-- Webhooks as they are now: a fold over webhook_log, but for the secrets and
-- the values of headers, which stand only here so that they can be erased.
CREATE TABLE relay.webhooks (
    id              bigint  PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    account_id      bigint  NOT NULL,
    version         bigint  NOT NULL,
    state           text    NOT NULL,
    settings        json    NOT NULL,
    url             text    NOT NULL,
    credential      text    NOT NULL,
    secret          text    NOT NULL,
    previous_secret text    NOT NULL,
    previous_until  timestamptz,
    headers         text    NOT NULL DEFAULT '', -- a line for each, values included
    breaker_opened_at timestamptz, -- since when its circuit breaker is open: a fold over webhook_log, as all here
    xid             xid8    NOT NULL DEFAULT pg_current_xact_id() -- of the last change: finds what changed since a snapshot
);
CREATE UNIQUE INDEX webhooks_account_url ON relay.webhooks (account_id, url) WHERE state <> 'deleted';
CREATE INDEX webhooks_account ON relay.webhooks (account_id);
CREATE INDEX webhooks_xid ON relay.webhooks (xid);
CREATE INDEX webhooks_breaker ON relay.webhooks (breaker_opened_at) WHERE breaker_opened_at IS NOT NULL;

-- The webhooks' stream: every change with who and when. before and after hold
-- no secret, no userinfo and no header's value.
CREATE TABLE relay.webhook_log (
    account_id bigint      NOT NULL,
    version    bigint      NOT NULL,
    webhook_id bigint      NOT NULL,
    type       text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text        NOT NULL,
    before     json,
    after      json        NOT NULL,
    PRIMARY KEY (account_id, version)
);
CREATE UNIQUE INDEX webhook_log_webhook ON relay.webhook_log (webhook_id, version);

-- The bounds of the partitions of outbox.events, relay.log and relay.responses.
CREATE TABLE relay.partitions (
    lower          bigint      PRIMARY KEY, -- inclusive
    upper          bigint      NOT NULL,    -- exclusive
    events_done    boolean     NOT NULL DEFAULT false,
    log_done       boolean     NOT NULL DEFAULT false,
    responses_done boolean     NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    left_over      bigint      NOT NULL DEFAULT 0, -- how many places were passed over when retention let the outbox go on in the next one,
    left_at        timestamptz,                    -- and when: they are no traffic
    CHECK (lower < upper)
);

GRANT SELECT ON ALL TABLES IN SCHEMA relay TO outrider_relay;
GRANT INSERT ON relay.identity, relay.relays, relay.heartbeats, relay.batches, relay.log, relay.responses, relay.due, relay.accounts, relay.webhooks, relay.webhook_log TO outrider_relay;
GRANT UPDATE (leaving_at, fenced_at, fenced_by, seen_at) ON relay.relays TO outrider_relay;
GRANT UPDATE (relay_id, position, low, since) ON relay.slots TO outrider_relay;
GRANT UPDATE (at) ON relay.due TO outrider_relay;
GRANT UPDATE ON relay.accounts, relay.webhooks TO outrider_relay;
GRANT DELETE ON relay.heartbeats, relay.due, relay.batches TO outrider_relay;
GRANT USAGE ON SEQUENCE relay.commits TO outrider_relay;
