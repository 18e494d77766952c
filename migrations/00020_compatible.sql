-- +goose Up
-- The oldest schema version whose binaries can work on this schema. A migration
-- after which older ones cannot makes this function anew, with its own number;
-- one that only adds leaves it as it is.
CREATE FUNCTION relay.compatible_since() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 20::bigint;

REVOKE ALL ON FUNCTION relay.compatible_since() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION relay.compatible_since() TO outrider_relay, outrider_operator;
