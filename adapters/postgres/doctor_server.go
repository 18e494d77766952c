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

func lookAtConnection(ctx context.Context, p *patient) error {
	begun := time.Now()
	var database string
	err := p.row(ctx, `SELECT current_database(), current_user, EXISTS (SELECT FROM pg_namespace WHERE nspname = 'relay')`, nil, &database, &p.user, &p.installed)
	if err != nil {
		return err
	}
	p.at.user = p.user // as the server calls it
	p.add(Healthy, fmt.Sprintf("database %q at %s answers user %q in %s", database, strings.TrimPrefix(p.at.server, "PostgreSQL at "), p.user, ago(time.Since(begun))), "")
	return nil
}

func lookAtVersion(ctx context.Context, p *patient) error {
	var server, encoding string
	var number int
	var seen bool
	// Whether the user may read the schema's version is asked of the catalog:
	// naming the table would be an error.
	err := p.row(ctx, `
SELECT current_setting('server_version'), current_setting('server_version_num')::integer, current_setting('server_encoding'),
       coalesce((SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'relay' AND c.relname = 'schema_migrations'), false)`,
		nil, &server, &number, &encoding, &seen)
	if err != nil {
		return err
	}
	const oldest = 140000
	if number < oldest {
		p.add(Problem, fmt.Sprintf("PostgreSQL %s is too old", server), "use PostgreSQL 14 or newer")
	}
	if encoding != "UTF8" {
		_, advice := p.at.explainCondition(ErrEncoding)
		p.add(Problem, "the database's encoding is "+encoding+", and outrider needs UTF8", advice)
	}
	found := fmt.Sprintf("PostgreSQL %s; outrider %s, which has schema version %d", strings.Fields(server)[0], p.config.Release, migrations.Version)
	if !p.installed {
		p.add(Problem, found+"; the database has none: nothing of Outrider is in it", migrateCommand)
		return nil
	}
	if !seen {
		p.add(Unseen, found+"; which one the database has takes the role "+operatorRole+" to see", p.at.grantOf(operatorRole))
		return nil
	}
	var schema int64
	if err := p.row(ctx, `SELECT coalesce(max(version_id), 0) FROM relay.schema_migrations WHERE is_applied`, nil, &schema); err != nil {
		return err
	}
	switch {
	case schema < migrations.Version:
		p.older = true
		p.add(Problem, fmt.Sprintf("%s; the database has version %d, so this binary does not serve it", found, schema), migrateCommand)
	case schema > migrations.Version:
		var since int64
		if err := p.row(ctx, `SELECT relay.compatible_since()`, nil, &since); err != nil {
			return err
		}
		if since > migrations.Version {
			p.add(Problem, fmt.Sprintf("%s; the database has version %d, so this binary does not serve it", found, schema), "install a newer version of outrider; the schema only goes forward")
			break
		}
		p.add(Healthy, fmt.Sprintf("%s; the database has version %d, on which it works", found, schema), "")
	default:
		p.add(Healthy, found+", as the database has", "")
	}
	return nil
}

// rightsQuery tells what the user may do, by the catalog alone: a name in a
// schema that the user may not use would be an error. inherited is false for a
// member that would have to SET ROLE first.
const rightsQuery = `
WITH t AS (
  SELECT n.nspname || '.' || c.relname AS name, c.oid, has_schema_privilege(n.oid, 'USAGE') AS seen
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('outbox', 'relay', 'audit') AND c.relkind IN ('r', 'p', 'v')),
f AS (
  SELECT n.nspname || '.' || p.proname AS name, bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')) AS may
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('outbox', 'relay') GROUP BY 1),
need (role, kind, name, privilege) AS (VALUES
  ('outrider_relay', 't', 'outbox.events', 'SELECT'), ('outrider_relay', 't', 'relay.log', 'INSERT'), ('outrider_relay', 't', 'relay.responses', 'INSERT'), ('outrider_relay', 't', 'relay.batches', 'INSERT'),
  ('outrider_relay', 't', 'relay.due', 'INSERT'), ('outrider_relay', 't', 'relay.due', 'DELETE'), ('outrider_relay', 't', 'relay.heartbeats', 'INSERT'),
  ('outrider_relay', 'f', 'relay.extend_partitions', 'EXECUTE'),
  ('outrider_operator', 't', 'relay.webhooks', 'UPDATE'), ('outrider_operator', 't', 'relay.webhook_log', 'INSERT'), ('outrider_operator', 't', 'relay.identity', 'SELECT'),
  ('outrider_operator', 'f', 'relay.plan_replay', 'EXECUTE'), ('outrider_operator', 'f', 'relay.request_replay', 'EXECUTE'),
  ('outrider_auditor', 't', 'audit.events', 'SELECT'), ('outrider_auditor', 't', 'audit.attempts', 'SELECT'),
  ('outrider_web', 't', 'relay.sessions', 'INSERT'), ('outrider_web', 't', 'relay.webhooks', 'UPDATE'), ('outrider_web', 't', 'audit.events', 'SELECT'),
  ('outrider_web', 'f', 'relay.plan_replay', 'EXECUTE'), ('outrider_web', 'f', 'relay.request_webhook_test', 'EXECUTE'))
SELECT need.role,
       bool_and(CASE need.kind WHEN 't' THEN coalesce(t.seen AND has_table_privilege(t.oid, need.privilege), false) ELSE coalesce(f.may, false) END),
       coalesce(bool_or(pg_has_role(r.oid, 'MEMBER')), false)
  FROM need LEFT JOIN t ON need.kind = 't' AND t.name = need.name LEFT JOIN f ON need.kind = 'f' AND f.name = need.name
  LEFT JOIN pg_roles r ON r.rolname = need.role
 GROUP BY need.role`

// commandsOf are what each role is enough for.
var commandsOf = []struct{ role, commands string }{
	{relayRole, "serve"},
	{operatorRole, "webhook, replay, token and all of doctor"},
	{auditorRole, "audit"},
	{webRole, "web"},
}

func lookAtRights(ctx context.Context, p *patient) error {
	p.may = map[string]bool{}
	if !p.installed {
		return nil
	}
	var missing, names []string
	member := map[string]bool{}
	err := p.reading(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname LIKE 'outrider\_%'`).Scan(pq.Array(&names)); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, rightsQuery)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var role string
			var may, isMember bool
			if err := rows.Scan(&role, &may, &isMember); err != nil {
				return err
			}
			p.may[role], member[role] = may, isMember
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	for _, role := range migrations.Roles {
		if !slices.Contains(names, role) && !p.older { // else it comes with the schema
			missing = append(missing, role)
		}
	}
	if len(missing) > 0 {
		p.add(Problem, "roles are missing, and with them what was granted to them: "+strings.Join(missing, ", "),
			"was a dump restored into a cluster without them? Make them before it is restored: CREATE ROLE "+strings.Join(missing, "; CREATE ROLE "))
	}
	var enough, lacking, grants []string
	for _, c := range commandsOf {
		switch {
		case c.role == webRole && p.older: // as the role
		case p.may[c.role]:
			enough = append(enough, c.commands)
		case member[c.role]:
			lacking = append(lacking, c.commands)
			grants = append(grants, fmt.Sprintf("%s is a member of %s without its rights: ALTER ROLE %[1]s INHERIT, and from PostgreSQL 16 on GRANT %[2]s TO %[1]s WITH INHERIT TRUE", roleName(p.user), c.role))
		default:
			lacking = append(lacking, c.commands)
			grants = append(grants, fmt.Sprintf("GRANT %s TO %s", c.role, roleName(p.user)))
		}
	}
	found := fmt.Sprintf("user %q may run: %s", p.user, strings.Join(enough, "; "))
	switch {
	case len(enough) == 0:
		p.add(Problem, fmt.Sprintf("user %q has the rights of no role of Outrider's", p.user), "as an administrator, one of: "+strings.Join(grants, "; "))
	case len(lacking) == 0:
		p.add(Healthy, found, "")
	default:
		p.add(Healthy, found+". Not: "+strings.Join(lacking, "; "), "should it? As an administrator: "+strings.Join(grants, "; "))
	}
	return nil
}

func lookAtSessions(ctx context.Context, p *patient) error {
	if err := checkSessions(ctx, p.db); err != nil {
		return err
	}
	p.add(Healthy, "connections keep their session: no pooler in transaction mode is in between", "")
	return nil
}

func lookAtStandby(ctx context.Context, p *patient) error {
	var recovery, readOnly bool
	err := p.row(ctx, `SELECT pg_is_in_recovery(), (SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only')`, nil, &recovery, &readOnly)
	if err != nil {
		return err
	}
	p.standby = recovery
	_, advice := p.at.explainCondition(ErrStandby)
	switch {
	case recovery:
		p.add(Problem, "the server is a standby in recovery: no relay can work on it, and what it shows may be late", advice)
	case readOnly:
		p.add(Problem, "transactions of this user are read-only here: default_transaction_read_only is on", "ALTER DATABASE … or ALTER ROLE … RESET default_transaction_read_only, wherever it is set")
	default:
		p.add(Healthy, "the server takes writes", "")
	}
	return nil
}

const clonedNote = "a copy of the disk (a volume snapshot, a base backup) has the same identity, and nobody can tell it from the original"

func lookAtIdentity(ctx context.Context, p *patient) error {
	var system, presentSystem, database, presentDatabase sql.NullInt64
	var name, presentName sql.NullString
	var since sql.NullTime
	err := p.row(ctx, `
SELECT i.system_identifier, i.database_oid::bigint, i.database_name::text, i.since, c.system_identifier, d.oid::bigint, d.datname::text
  FROM pg_control_system() c JOIN pg_database d ON d.datname = current_database()
  LEFT JOIN (SELECT * FROM relay.identity ORDER BY since DESC LIMIT 1) i ON true`, nil, &system, &database, &name, &since, &presentSystem, &presentDatabase, &presentName)
	switch {
	case err != nil:
		return err
	case !system.Valid:
		p.add(Note, "no relay has run on this database yet: the first one notes which it is", "")
	case system != presentSystem || database != presentDatabase:
		p.foreign = true
		_, advice := p.at.explainCondition(ErrIdentity)
		what := fmt.Sprintf("cluster %d, now %d", system.Int64, presentSystem.Int64)
		if system == presentSystem {
			what = fmt.Sprintf("database %q (oid %d), now %q (oid %d), of the same cluster", name.String, database.Int64, presentName.String, presentDatabase.Int64)
		}
		p.add(Problem, "this is not the database that its relay history belongs to, but a restored dump or a copy: "+what, advice)
	default:
		p.add(Healthy, fmt.Sprintf("cluster %d, database oid %d, the same since %s", system.Int64, database.Int64, since.Time.UTC().Format(time.DateOnly)), "")
	}
	p.findings = append(p.findings, Finding{"clone", Note, clonedNote,
		"never start outrider serve on a copy that reaches the internet: it would repeat deliveries; look at one with: outrider serve --no-send"})
	return nil
}
