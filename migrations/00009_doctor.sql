-- +goose Up
-- Whoever operates a relay may see how it does without being able to relay:
-- outrider doctor. None of these tables has a secret or a payload.
GRANT SELECT ON relay.identity, relay.relays, relay.heartbeats, relay.slots, relay.places, relay.due, relay.partitions TO outrider_operator;
GRANT SELECT ON relay.log_net TO outrider_operator;

-- Where a row lies, without what is in it.
CREATE VIEW relay.outbox_rows AS SELECT e.xid, e.seq, e.inserted_at FROM outbox.events e;
CREATE VIEW relay.outbox_net_rows AS SELECT e.xid, e.seq, e.inserted_at FROM outbox.events_net e;
GRANT SELECT ON relay.outbox_rows, relay.outbox_net_rows TO outrider_operator, outrider_relay;
