package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var update = flag.Bool("update", false, "write the golden file anew")

// contractQuery lists what others build on: columns, functions and rights of
// the public schemas, and that each has a COMMENT.
const contractQuery = `
SELECT line FROM (
  SELECT format('column %I.%I.%I %s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END) AS line,
         1 AS kind, n.nspname, c.relname, a.attnum
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
   WHERE n.nspname IN ('outbox', 'audit') AND c.relkind IN ('p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT format('function %I.%I(%s) %s', n.nspname, p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)), 2, n.nspname, p.proname, 0
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname IN ('outbox', 'audit') OR n.nspname = 'relay' AND obj_description(p.oid, 'pg_proc') IS NOT NULL
  UNION ALL
  SELECT format('right %s on %I.%I to %s', string_agg(g.privilege_type || coalesce('(' || g.columns || ')', ''), ', ' ORDER BY g.privilege_type), g.table_schema, g.table_name, g.grantee), 3, g.table_schema, g.table_name, 0
    FROM (SELECT grantee, table_schema, table_name, privilege_type, NULL AS columns FROM information_schema.table_privileges
           UNION ALL
          SELECT x.grantee, x.table_schema, x.table_name, x.privilege_type, string_agg(x.column_name, ' ' ORDER BY x.column_name)
            FROM information_schema.column_privileges x
           WHERE NOT EXISTS (SELECT FROM information_schema.table_privileges t
                              WHERE t.grantee = x.grantee AND t.table_schema = x.table_schema AND t.table_name = x.table_name AND t.privilege_type = x.privilege_type)
           GROUP BY x.grantee, x.table_schema, x.table_name, x.privilege_type) g
   WHERE g.table_schema IN ('outbox', 'audit') AND g.grantee LIKE 'outrider\_%' AND g.grantee <> 'outrider_views' AND g.table_name NOT LIKE 'events\_%'
   GROUP BY g.table_schema, g.table_name, g.grantee
) l ORDER BY kind, nspname, relname, attnum, line`

func TestTheContractOnlyGrowsWithItsVersion(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	var b strings.Builder
	var version string
	if err := db.QueryRowContext(t.Context(), `SELECT outbox.contract_version()`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	b.WriteString("contract " + version + "\n")
	for _, line := range column[string](t, db, contractQuery) {
		b.WriteString(line + "\n")
	}
	const golden = "testdata/contract.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the public contract changed. If it only grew, raise the minor version and run with -update. It is now:\n%s", b.String())
	}
}

func TestEverythingPublicHasAComment(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	missing := column[string](t, db, `
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE (n.nspname = 'outbox' AND c.relkind IN ('p', 'v') OR n.nspname = 'audit' AND c.relkind NOT IN ('i', 'I')) AND obj_description(c.oid, 'pg_class') IS NULL
UNION ALL
SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'audit'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE (n.nspname = 'outbox' AND c.relkind IN ('p', 'v') OR n.nspname = 'audit' AND c.relkind NOT IN ('i', 'I')) AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
UNION ALL
SELECT n.nspname FROM pg_namespace n WHERE n.nspname IN ('outbox', 'relay', 'audit') AND obj_description(n.oid, 'pg_namespace') IS NULL`)
	if len(missing) > 0 {
		t.Errorf("no COMMENT on %v", missing)
	}
}

// TestNoRoleCanChangeTheLog shows that the history is append-only for all
// roles of ours (P7).
func TestNoRoleCanChangeTheLog(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	if _, err := db.ExecContext(t.Context(), `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data) VALUES (1, 0, 0, 1, 1, 1, now(), 1, 'routed', '{}');
INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`); err != nil {
		t.Fatal(err)
	}
	for _, role := range migrations.Roles {
		for _, statement := range []string{
			`UPDATE relay.log SET data = '{}'`, `DELETE FROM relay.log`, `TRUNCATE relay.log`, `UPDATE relay.log_0 SET data = '{}'`, `DELETE FROM relay.log_0`,
			`TRUNCATE relay.log_0`, `DROP TABLE relay.log_0`, `ALTER TABLE relay.log DETACH PARTITION relay.log_0`, `DELETE FROM relay.log_net`,
			`UPDATE relay.responses SET excerpt = ''`, `DELETE FROM relay.responses`, `TRUNCATE relay.responses_0`, `DELETE FROM relay.salts`, `SELECT relay.drop_salts(0, 1)`,
			`DELETE FROM relay.retentions`, `UPDATE relay.erasures SET events = 0`, `DELETE FROM relay.erased`, `UPDATE relay.partitions SET payloads_gone = now()`,
			`UPDATE outbox.events SET payload = '{}'`, `DELETE FROM outbox.events`, `TRUNCATE outbox.events`, `UPDATE outbox.events_0 SET payload = '{}'`,
			`UPDATE relay.webhook_log SET actor = ''`, `DELETE FROM relay.webhook_log`, `UPDATE relay.replay_log SET actor = ''`, `DELETE FROM relay.replay_log`,
			`UPDATE relay.seals SET relay_id = 1`, `DELETE FROM relay.seals`, `TRUNCATE relay.seals`, `UPDATE relay.change_seals SET digest = ''`, `DELETE FROM relay.change_seals`,
			`INSERT INTO relay.change_seals SELECT 1, 'webhook_log', 1, 1, now(), '', '', '', ''`, `SELECT relay.seal_change('webhook_log', 1, 1, now(), '')`,
			`INSERT INTO relay.operator_events VALUES (1)`, `DELETE FROM relay.operator_events`,
			`UPDATE relay.batches SET consumed = '3:3:'`, `UPDATE audit.attempts SET outcome = 'succeeded'`, `DELETE FROM audit.deliveries`,
		} {
			if err := as(t, db, role, statement); err == nil {
				t.Errorf("%s may %s", role, statement)
			} else if !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "must be owner") && !strings.Contains(err.Error(), "cannot ") {
				t.Errorf("%s: %s: %v", role, statement, err)
			}
		}
	}
}

// TestWhoMayErase: operators by age and on request, a relay by age alone, and
// what each may erase is bounded.
func TestWhoMayErase(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for statement, may := range map[string]string{
		`SELECT relay.retain('1 day')`:                              "outrider_relay outrider_operator",
		`SELECT * FROM relay.retention_plan('1 day', NULL, NULL)`:   "outrider_relay outrider_operator",
		`SELECT relay.begin_erasure(1, '{}')`:                       "outrider_operator",
		`SELECT relay.payload_gone(1)`:                              "outrider_relay outrider_operator",
		`SELECT relay.salt_key(1)`:                                  "outrider_relay",
		`SELECT * FROM relay.salts`:                                 "outrider_relay",
		`SELECT relay.retain('1 hour')`:                             "",
		`SELECT relay.retain('1 day', '1 day', '6 days')`:           "",
		`SELECT relay.erase(1, '{1}')`:                              "", // no such erasure
		`SELECT relay.erase(1, array_fill(1::bigint, ARRAY[1001]))`: "",
	} {
		for _, role := range []string{"outrider_producer", "outrider_relay", "outrider_operator", "outrider_auditor"} {
			if err := as(t, db, role, statement); (err == nil) != strings.Contains(may, role) {
				t.Errorf("%s: %s: %v", role, statement, err)
			}
		}
	}
}

// TestWhoMayTellTheOperator: who records what is told.
func TestWhoMayTellTheOperator(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for _, role := range migrations.Roles {
		err := as(t, db, role, `SELECT relay.tell_operator('{}', '{}', '{}', '{}', '{}')`)
		if may := role == "outrider_relay" || role == "outrider_operator" || role == "outrider_web"; (err == nil) != may {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// webQuery lists what outrider_web may, and which of it neither operators nor
// auditors may.
const webQuery = `
SELECT r.line FROM (
  SELECT format('%s of %s', p.privilege, c.oid::regclass) AS line,
         has_table_privilege('outrider_operator', c.oid, p.privilege) OR has_table_privilege('outrider_auditor', c.oid, p.privilege) AS others
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) p (privilege)
   WHERE n.nspname IN ('outbox', 'relay', 'audit') AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege('outrider_web', c.oid, p.privilege)
  UNION ALL
  SELECT format('UPDATE of %s.%I', a.attrelid::regclass, a.attname), has_column_privilege('outrider_operator', a.attrelid, a.attnum, 'UPDATE')
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname IN ('outbox', 'relay', 'audit') AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0
     AND has_column_privilege('outrider_web', a.attrelid, a.attnum, 'UPDATE') AND NOT has_table_privilege('outrider_web', a.attrelid, 'UPDATE')
  UNION ALL
  SELECT 'call of ' || p.oid::regprocedure, has_function_privilege('outrider_operator', p.oid, 'EXECUTE') OR has_function_privilege('outrider_auditor', p.oid, 'EXECUTE')
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('outbox', 'relay', 'audit') AND has_function_privilege('outrider_web', p.oid, 'EXECUTE')
) r WHERE NOT r.others ORDER BY r.line`

// TestTheWebMayNoMoreThanItNeeds: of what is not an operator's or an auditor's,
// only what sessions and sums of statistics take; and not all that an operator may.
func TestTheWebMayNoMoreThanItNeeds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	want := "DELETE of relay.sessions\nINSERT of relay.sessions\nSELECT of relay.sessions\nSELECT of relay.webhook_standings\nSELECT of relay.webhook_stats\nUPDATE of relay.sessions.expires_at\nUPDATE of relay.tokens.last_used_at"
	if got := strings.Join(column[string](t, db, webQuery), "\n"); got != want {
		t.Errorf("besides what operators and auditors may, outrider_web has:\n%s", got)
	}
	for _, view := range column[string](t, db, `SELECT format('%I.%I', schemaname, viewname) FROM pg_views WHERE schemaname = 'audit'`) {
		if err := as(t, db, "outrider_web", `SELECT * FROM `+view); err != nil {
			t.Errorf("%s: %v", view, err)
		}
	}
	// What the views and lists of the history call, a reader must be able to.
	if lacks := column[string](t, db, `
SELECT p.oid::regprocedure::text FROM pg_proc p
 WHERE p.pronamespace = 'audit'::regnamespace AND has_function_privilege('outrider_auditor', p.oid, 'EXECUTE') AND NOT has_function_privilege('outrider_web', p.oid, 'EXECUTE')`); strings.Join(lacks, " ") != "audit.verify(bigint,bigint,json)" {
		t.Errorf("of what auditors may call, outrider_web may not call %v", lacks)
	}
	const token = `INSERT INTO relay.tokens (hash, role, name) VALUES (sha256('x'), 'viewer', 'x')`
	for _, statement := range []string{
		token, `UPDATE relay.tokens SET revoked_at = NULL`, `UPDATE relay.tokens SET role = 'administrator'`, `DELETE FROM relay.tokens`,
		`INSERT INTO relay.tenant_roles VALUES ('me', 1)`, `SELECT relay.retain('1 day')`, `SELECT relay.begin_erasure(1, '{}')`, `SELECT relay.adopt()`,
		`SELECT payload FROM outbox.events`, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'x', '{}')`, `SELECT * FROM relay.salts`,
	} {
		if err := as(t, db, "outrider_web", statement); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("outrider_web may %s: %v", statement, err)
		}
	}
	if err := as(t, db, "outrider_operator", token); err != nil {
		t.Errorf("an operator may not make a token: %v", err)
	}
	for _, statement := range []string{
		`INSERT INTO relay.tokens (hash, role, name, created_by) VALUES (sha256('x'), 'viewer', 'x', 'somebody else')`,
		`UPDATE relay.tokens SET role = 'administrator'`, `UPDATE relay.tokens SET account_id = NULL`, `SELECT * FROM relay.sessions`,
	} {
		if err := as(t, db, "outrider_operator", statement); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("outrider_operator may %s: %v", statement, err)
		}
	}
	for _, role := range []string{"outrider_producer", "outrider_relay", "outrider_auditor", "outrider_tenant", "outrider_views"} {
		if err := as(t, db, role, `SELECT * FROM relay.tokens`); err == nil {
			t.Errorf("%s may see tokens", role)
		}
	}
}

// as runs a statement in a transaction of a role, and undoes it.
func as(t *testing.T, db *sql.DB, role, statement string) error {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SET LOCAL ROLE `+role); err != nil {
		t.Fatal(err)
	}
	_, err = tx.ExecContext(t.Context(), statement)
	return err
}

func TestTheAuditorReadsTheAuditOnly(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for _, view := range column[string](t, db, `SELECT format('%I.%I', schemaname, viewname) FROM pg_views WHERE schemaname = 'audit'`) {
		if err := as(t, db, "outrider_auditor", `SELECT * FROM `+view); err != nil {
			t.Errorf("%s: %v", view, err)
		}
	}
	for _, table := range column[string](t, db, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('relay', 'outbox')`) {
		if err := as(t, db, "outrider_auditor", `SELECT * FROM `+table); err == nil {
			t.Errorf("the auditor may read %s", table)
		}
	}
	for _, view := range column[string](t, db, `SELECT format('%I.%I', table_schema, table_name) FROM information_schema.columns WHERE table_schema = 'audit' AND (column_name LIKE '%secret%' OR column_name LIKE '%credential%' OR column_name LIKE '%header%')`) {
		t.Errorf("%s has a column of secrets", view)
	}
}

// An auditor who may make functions cannot have them called with what
// audit.change_seals digests: the queries of URLs.
func TestAFunctionOfAnAuditorSeesNoURL(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for _, statement := range []string{
		`CREATE SCHEMA evil`, `GRANT USAGE ON SCHEMA evil TO outrider_auditor`,
		`INSERT INTO relay.webhook_log (account_id, version, webhook_id, type, actor, after) VALUES (1, 1, 1, 'registered', 'me', '{"url":"https://example.com/?token=hidden"}')`,
		`CREATE FUNCTION evil.convert_to(content text, encoding name) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'seen: %', content; END $$`,
		`CREATE FUNCTION evil.octet_length(content bytea) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'seen: %', content; END $$`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	const look = `SET LOCAL search_path = evil, pg_catalog; SELECT * FROM audit.change_seals`
	if err := as(t, db, "outrider_auditor", look); err != nil {
		t.Errorf("audit.change_seals calls a function of its reader: %v", err)
	}
}

func TestUpInParallelAndWithoutSuperuser(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	admin, err := sql.Open("postgres", server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	for _, statement := range []string{
		`CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'p'`, `CREATE DATABASE one OWNER owner`, `CREATE DATABASE two OWNER owner`,
	} {
		if _, err := admin.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var migrating sync.WaitGroup
	for i := range 6 {
		migrating.Go(func() {
			dsn := strings.Replace(server.DSN([]string{"one", "two"}[i%2]), "//outrider:", "//owner:", 1)
			before, after, _ := strings.Cut(dsn, "@")
			dsn = before[:strings.LastIndex(before, ":")] + ":p@" + after
			db, err := sql.Open("postgres", dsn)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = db.Close() }()
			if err := migrations.Up(context.WithoutCancel(t.Context()), db); err != nil {
				t.Errorf("migrate: %v", err)
			}
			if version, err := migrations.Current(context.WithoutCancel(t.Context()), db); err != nil || version != migrations.Version {
				t.Errorf("version is %d, %v", version, err)
			}
		})
	}
	migrating.Wait()
}

func TestANewerSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	if _, err := db.ExecContext(t.Context(), `INSERT INTO relay.schema_migrations (version_id, is_applied) VALUES (99, true)`); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(t.Context(), db); err != nil {
		t.Errorf("on a schema that only has more: %v", err)
	}
	exec(t, db, `CREATE OR REPLACE FUNCTION relay.compatible_since() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 98::bigint`)
	if err := migrations.Up(t.Context(), db); !errors.Is(err, migrations.ErrNewer) || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), "version 98 or later") {
		t.Errorf("error is %v", err)
	}
	if version, err := migrations.Current(t.Context(), db); err != nil || version != 99 {
		t.Errorf("version is %d, %v", version, err)
	}
}

func column[T any](t *testing.T, db *sql.DB, query string) []T {
	t.Helper()
	return columnOf[T](t, db, query)
}

// queryer is a pool or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func columnOf[T any](t *testing.T, db queryer, query string) []T {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var values []T
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}
