package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/migrations"
)

// objectsCTE tells our own objects from others'. Each member of a schema
// depends on it in pg_depend. closure is all that goes with ours by itself:
// indexes, constraints, triggers, row types.
//
// $1, $2, $3 kinds, schemas and names of what migrations make, $4 the schemas.
const objectsCTE = `
WITH RECURSIVE known (kind, schema, name) AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[])),
space AS (SELECT n.oid, n.nspname::text AS nspname FROM pg_namespace n WHERE n.nspname = ANY ($4::text[])),
member AS (
  SELECT d.classid, d.objid, i.type, s.nspname AS schema, i.identity,
         coalesce(i.name, (SELECT p.proname::text FROM pg_proc p WHERE p.oid = d.objid)) AS name
    FROM pg_depend d JOIN space s ON s.oid = d.refobjid CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) i
   WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n'),
own AS (
  SELECT m.*, EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = m.objid) AS partition, false AS owned
    FROM member m
   WHERE EXISTS (SELECT FROM known k WHERE (k.kind, k.schema, k.name) = (m.type, m.schema, m.name))
      OR m.type = 'table' AND (m.schema, regexp_replace(m.name, '\d+$', '')) IN (('outbox', 'events_'), ('relay', 'log_'), ('relay', 'responses_'))
  UNION ALL
  SELECT m.*, false, true
    FROM member m
   WHERE m.type = 'sequence' AND EXISTS (
         SELECT FROM pg_depend o JOIN pg_class t ON t.oid = o.refobjid JOIN known k ON k.kind = 'table' AND k.schema = m.schema AND k.name = t.relname
          WHERE o.classid = 'pg_class'::regclass AND o.objid = m.objid AND o.deptype IN ('a', 'i') AND o.refclassid = 'pg_class'::regclass
            AND t.relnamespace IN (SELECT s.oid FROM space s))),
closure (classid, objid) AS (
  SELECT x.classid, x.objid FROM (
     SELECT 'pg_namespace'::regclass::oid AS classid, s.oid AS objid FROM space s
     UNION ALL SELECT o.classid, o.objid FROM own o) x
  UNION
  SELECT d.classid, d.objid FROM closure c JOIN pg_depend d ON (d.refclassid, d.refobjid) = (c.classid, c.objid)
   WHERE d.deptype IN ('i', 'a', 'P', 'S'))`

// foreignQuery names what is not ours and would stop a DROP, or would go
// silently with one: triggers, publications and partitions in other schemas.
const foreignQuery = objectsCTE + `
SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass
            THEN (SELECT pg_describe_object('pg_class'::regclass, r.ev_class, 0) FROM pg_rewrite r WHERE r.oid = d.objid)
            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS description
  FROM closure c JOIN pg_depend d ON (d.refclassid, d.refobjid) = (c.classid, c.objid)
  LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
  LEFT JOIN pg_class r ON d.classid = 'pg_class'::regclass AND r.oid = d.objid
 WHERE d.deptype = 'n' AND NOT EXISTS (SELECT FROM closure o WHERE (o.classid, o.objid) = (d.classid, d.objid))
    OR d.deptype = 'a' AND (
       NOT t.tgisinternal AND t.tgparentid = 0 AND NOT EXISTS (SELECT FROM known k WHERE k.kind = 'trigger' AND k.name = t.tgname)
       OR d.classid::regclass::text IN ('pg_publication_rel', 'pg_publication_namespace')
       OR r.relkind IN ('r', 'p', 'f', 'S') AND r.relnamespace NOT IN (SELECT s.oid FROM space s))
 ORDER BY description`

// ownQuery lists what is ours.
const ownQuery = objectsCTE + `
SELECT o.type, o.identity, o.partition, o.owned,
       coalesce((SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE o.classid = 'pg_class'::regclass AND c.oid = o.objid AND NOT pg_has_role(c.relowner, 'USAGE')), '')
  FROM own o ORDER BY o.type, o.identity`

// callersQuery finds functions by their text: for PostgreSQL the body of a
// function is no dependency. $5 matches the names of our tables and functions,
// $6 a search_path with one of our schemas.
const callersQuery = objectsCTE + `
SELECT p.oid::regprocedure::text,
       ARRAY(SELECT format('%I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
              WHERE t.tgfoid = p.oid AND NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY 1)::text[]
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.oid NOT IN (SELECT s.oid FROM space s)
   AND (p.prosrc ~* $5 OR array_to_string(p.proconfig, ' ') ~* $6)
   AND NOT EXISTS (SELECT FROM closure c WHERE c.classid = 'pg_proc'::regclass AND c.objid = p.oid)
 ORDER BY 1`

// rolesQuery tells who else uses a role. pg_shdepend has the grants of all
// databases.
const rolesQuery = objectsCTE + `
SELECT r.rolname,
       ARRAY(SELECT pg_get_userbyid(m.member) FROM pg_auth_members m WHERE m.roleid = r.oid AND m.member <> r.oid ORDER BY 1)::text[],
       ARRAY(
         SELECT DISTINCT format('database %I', d.datname)
           FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
          WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND d.datname <> current_database()
         UNION
         SELECT DISTINCT pg_describe_object(s.classid, s.objid, 0)
           FROM pg_shdepend s
          WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
            AND (s.dbid = 0 AND s.classid <> 'pg_auth_members'::regclass
                 OR s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                    AND NOT EXISTS (SELECT FROM closure c WHERE (c.classid, c.objid) = (s.classid, s.objid)))
         UNION
         SELECT format('its membership in %I', g.rolname)
           FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
          WHERE m.member = r.oid AND g.rolname <> ALL ($5::text[])
         ORDER BY 1)::text[]
  FROM pg_roles r WHERE r.rolname = ANY ($5::text[]) ORDER BY array_position($5::text[], r.rolname::text)`

// relaysQuery finds relays: by their signs of life, by the database's own clock,
// and by the names of their connections, which also those have that wait for a
// schema.
const relaysQuery = `
SELECT format('relay %s, whose last sign of life came %s s ago', b.relay_id, round(extract(epoch FROM clock_timestamp() - b.at)))
  FROM (SELECT DISTINCT ON (h.relay_id) h.relay_id, h.at FROM relay.heartbeats h ORDER BY h.relay_id, h.n DESC) b
 WHERE b.at > clock_timestamp() - interval '10 s'
UNION ALL
SELECT format('%s connections named "%s"', count(*), a.application_name)
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.application_name LIKE 'outrider %' AND a.pid <> pg_backend_pid()
 GROUP BY a.application_name`

// Relays names those that work on a database or wait to, each with what shows
// it. Connections of the asking pool are among them, if it is named as a
// relay's are and has more than one.
func Relays(ctx context.Context, db *sql.DB) ([]string, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	return textsOf(ctx, tx, relaysQuery)
}

// ownObject is one of ours, named as a DROP wants it.
type ownObject struct {
	kind, name       string
	partition, owned bool
}

type ownObjects []ownObject

// names are those of a kind that are dropped by name: partitions and identity
// sequences go with their table.
func (o ownObjects) names(kind string) []string {
	var names []string
	for _, object := range o {
		if object.kind == kind && !object.partition && !object.owned {
			names = append(names, object.name)
		}
	}
	return names
}

// PlanRemoval looks at what an uninstall would do. It changes nothing.
func PlanRemoval(ctx context.Context, db *sql.DB) (*Removal, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	r := &Removal{NewestEvent: -1}
	if err := r.look(ctx, tx); err != nil || !r.Installed || r.Owner != "" {
		return r, err
	}
	for _, look := range []func(context.Context, *sql.Tx) error{r.lookAtCallers, r.lookAtRoles, r.lookAtTables, r.lookAtRelays, r.lookAtWork} {
		if err := look(ctx, tx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// look finds what is ours, and what of others hangs on it.
func (r *Removal) look(ctx context.Context, tx *sql.Tx) error {
	// Names are told with their schema, unless it is PostgreSQL's own.
	if _, err := tx.ExecContext(ctx, `SET LOCAL search_path = pg_catalog, pg_temp`); err != nil {
		return err
	}
	err := tx.QueryRowContext(ctx, `
SELECT current_database(), c.oid IS NOT NULL, CASE WHEN pg_has_role(c.relowner, 'USAGE') THEN '' ELSE coalesce(pg_get_userbyid(c.relowner), '') END
  FROM (VALUES (1)) one LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace) ON (n.nspname, c.relname) = ('relay', 'schema_migrations')`).
		Scan(&r.Database, &r.Installed, &r.Owner)
	if err != nil || !r.Installed || r.Owner != "" {
		return err
	}
	var version int64
	err = tx.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM relay.schema_migrations WHERE is_applied`).Scan(&version)
	r.schemas = migrations.Schemas
	switch {
	case err != nil:
		return err
	case version > migrations.Version:
		return fmt.Errorf("%w: it has version %d, this binary knows %d", migrations.ErrNewer, version, migrations.Version)
	case version == 0:
		r.schemas = []string{"relay"} // the first migration failed: the other schemas, if any, are somebody else's
	}
	rows, err := tx.QueryContext(ctx, ownQuery, r.arguments()...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	r.own = nil
	for rows.Next() {
		var o ownObject
		var owner string
		if err := rows.Scan(&o.kind, &o.name, &o.partition, &o.owned, &owner); err != nil {
			return err
		}
		if owner != "" {
			r.Owner = owner
		}
		r.own = append(r.own, o)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	r.Views, r.Functions, r.Sequences = len(r.own.names("view")), len(r.own.names("function")), len(r.own.names("sequence"))
	r.Foreign, err = textsOf(ctx, tx, foreignQuery, r.arguments()...)
	return err
}

// arguments are $1 to $4 of objectsCTE.
func (r *Removal) arguments(more ...any) []any {
	var kinds, schemas, names []string
	for _, o := range migrations.Objects() {
		kinds, schemas, names = append(kinds, o.Kind), append(schemas, o.Schema), append(names, o.Name)
	}
	return append([]any{pq.Array(kinds), pq.Array(schemas), pq.Array(names), pq.Array(r.schemas)}, more...)
}

func (r *Removal) lookAtCallers(ctx context.Context, tx *sql.Tx) error {
	names := map[string]bool{}
	for _, o := range migrations.Objects() {
		if o.Kind != "trigger" && o.Kind != "type" {
			names[o.Name] = true
		}
	}
	var list []string
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	schemas := strings.Join(r.schemas, "|")
	rows, err := tx.QueryContext(ctx, callersQuery, r.arguments(
		`\m(`+schemas+`)"?\s*\.\s*"?(`+strings.Join(list, "|")+`)\M`, `search_path=.*\m(`+schemas+`)\M`)...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var c Caller
		if err := rows.Scan(&c.Function, pq.Array(&c.Triggers)); err != nil {
			return err
		}
		r.Callers = append(r.Callers, c)
	}
	return rows.Err()
}

func (r *Removal) lookAtRoles(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, rolesQuery, r.arguments(pq.Array(migrations.Roles))...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var role RemovedRole
		if err := rows.Scan(&role.Name, pq.Array(&role.Members), pq.Array(&role.Needed)); err != nil {
			return err
		}
		r.Roles = append(r.Roles, role)
	}
	return rows.Err()
}

// lookAtTables counts the rows of small tables and takes PostgreSQL's estimate
// for large ones.
func (r *Removal) lookAtTables(ctx context.Context, tx *sql.Tx) error {
	for _, name := range r.own.names("table") {
		t := RemovedTable{Name: name}
		var n int
		// The name is quoted by PostgreSQL itself.
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT FROM `+name+` LIMIT $1 + 1) x`, countLimit).Scan(&n)
		if err != nil {
			return err
		}
		t.Rows = countOf(n)
		err = tx.QueryRowContext(ctx, `
SELECT pg_size_pretty(sum(pg_total_relation_size(c.oid))),
       CASE WHEN bool_or(c.reltuples < 0 AND c.relkind = 'r' AND pg_relation_size(c.oid) > 0) THEN -1 ELSE sum(greatest(c.reltuples, 0)) END::bigint
  FROM pg_class c
 WHERE c.oid = $1::regclass OR c.oid IN (SELECT p.relid FROM pg_partition_tree($1::regclass) p WHERE p.isleaf)`, name).Scan(&t.Size, &t.Estimate)
		if err != nil {
			return err
		}
		r.Tables = append(r.Tables, t)
	}
	return nil
}

func (r *Removal) lookAtRelays(ctx context.Context, tx *sql.Tx) (err error) {
	if r.has("relay.heartbeats") {
		r.Relays, err = textsOf(ctx, tx, relaysQuery)
	}
	return err
}

// has reports whether all of these tables are there.
func (r *Removal) has(tables ...string) bool {
	own := r.own.names("table")
	return !slices.ContainsFunc(tables, func(t string) bool { return !slices.Contains(own, t) })
}

// lookAtWork counts what would never be delivered.
func (r *Removal) lookAtWork(ctx context.Context, tx *sql.Tx) error {
	if !r.has("outbox.events", "relay.batches", "relay.log", "relay.due", "relay.slots", "relay.heartbeats") {
		return nil // a migration failed half-way: nothing was ever routed
	}
	p, err := readPosition(ctx, tx)
	if err != nil {
		return err
	}
	w, err := unrouted(ctx, tx, p)
	if err != nil {
		return err
	}
	r.Unrouted = w.count
	var due, unsent int
	var newest sql.NullFloat64
	err = tx.QueryRowContext(ctx, `
SELECT (SELECT count(*) FROM (SELECT FROM relay.due LIMIT $1 + 1) x),
       (SELECT count(*) FROM (
          SELECT FROM relay.log l
           WHERE l.pos > p.pos AND (l.delivery_id IS NOT NULL OR l.type = 'attempt_started')
             AND NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = l.version + 1)
             AND NOT EXISTS (SELECT FROM relay.due w WHERE w.event_seq = l.event_seq AND w.webhook_id = l.webhook_id AND w.replay_id = l.replay_id)
           LIMIT $1 + 1) x),
       (SELECT extract(epoch FROM clock_timestamp() - e.inserted_at) FROM outbox.events e ORDER BY e.seq DESC LIMIT 1)
  FROM (SELECT least(coalesce((SELECT b.commit << $2 FROM relay.batches b WHERE b.no = o.position), 0), o.low - 1) AS pos
          FROM (SELECT min(position) AS position, min(low) AS low FROM relay.places) o) p`, countLimit, commitShift).Scan(&due, &unsent, &newest)
	if err != nil {
		return err
	}
	r.Waiting, r.Unsent = countOf(due), countOf(unsent)
	if newest.Valid {
		r.NewestEvent = time.Duration(newest.Float64 * float64(time.Second))
	}
	return nil
}
