package migrations_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// unguardedQuery names what would let a tenant see rows of others: each line
// says what is wrong. relay.guard() and relay.guard_views() make it right.
const unguardedQuery = `
WITH readable AS ( -- by the views, which read as their owner
  SELECT c.oid, c.relkind, c.relrowsecurity, c.reloptions, c.relnamespace
    FROM pg_class c
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'audit'::regnamespace)
     AND (has_table_privilege('outrider_views', c.oid, 'SELECT') OR has_any_column_privilege('outrider_views', c.oid, 'SELECT'))),
policies AS (
  SELECT p.*, pg_get_expr(p.polqual, p.polrelid) AS qual FROM pg_policy p
   WHERE p.polrelid IN (SELECT r.oid FROM readable r) AND p.polpermissive AND p.polcmd IN ('r', '*')
     AND (p.polroles = '{0}' OR 'outrider_views'::regrole::oid = ANY (p.polroles)))
SELECT c.oid::regclass || ' does not belong to outrider_views: end the migration with SELECT relay.guard_views()'
  FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relowner <> 'outrider_views'::regrole
   AND c.relname NOT IN ('entries', 'seals', 'change_seals', 'heads', 'retentions')
UNION ALL
-- Seals are of all accounts.
SELECT c.oid::regclass || ' can be read by ' || r.rolname
  FROM pg_class c, pg_roles r WHERE c.relnamespace = 'audit'::regnamespace AND c.relname IN ('entries', 'seals', 'change_seals', 'heads', 'retentions')
   AND r.rolname IN ('outrider_tenant', 'outrider_views') AND has_table_privilege(r.oid, c.oid, 'SELECT')
UNION ALL
SELECT 'audit.verify() can be called by outrider_tenant' WHERE has_function_privilege('outrider_tenant', 'audit.verify(bigint, bigint, json)', 'EXECUTE')
    OR has_function_privilege('outrider_tenant', 'audit.stretch_dropped(bigint)', 'EXECUTE')
UNION ALL
SELECT v.oid::regclass || ' is not a plain view' FROM pg_class v WHERE v.relnamespace = 'audit'::regnamespace AND v.relkind IN ('r', 'p', 'm', 'f')
UNION ALL
SELECT v.oid::regclass || ' cannot be read by ' || r.name
  FROM pg_class v, (VALUES ('outrider_tenant'), ('outrider_auditor'), ('outrider_operator'), ('outrider_relay')) r (name)
 WHERE v.relnamespace = 'audit'::regnamespace AND v.relkind = 'v' AND v.relname NOT IN ('entries', 'seals', 'change_seals', 'heads', 'retentions') AND NOT has_table_privilege(r.name, v.oid, 'SELECT')
UNION ALL
-- relay.batches belongs to no account.
SELECT r.oid::regclass || ' can be read by the views, whosever its rows are: SELECT relay.guard(''' || r.oid::regclass || ''')'
  FROM readable r
 WHERE r.relkind IN ('r', 'p', 'm', 'f') AND r.oid <> 'relay.batches'::regclass
   AND NOT (r.relrowsecurity AND EXISTS (SELECT FROM policies p WHERE p.polrelid = r.oid))
UNION ALL
SELECT p.polname || ' on ' || p.polrelid::regclass || ' shows the views more than one account: ' || p.qual
  FROM policies p WHERE p.qual <> '((( SELECT relay.sees_all() AS sees_all) IS NOT NULL) OR (account_id = ( SELECT relay.seen_account() AS seen_account)))'
UNION ALL
SELECT r.oid::regclass || ' can be read by the views and is no security barrier that asks relay.seen_account()'
  FROM readable r WHERE r.relkind = 'v'
   AND NOT (coalesce(r.reloptions, '{}') @> '{security_barrier=true}' AND pg_get_viewdef(r.oid) LIKE '%( SELECT relay.sees_all()%relay.seen_account()%')
UNION ALL
SELECT o.rolname || ' could pass by the policies' FROM pg_roles o
 WHERE o.rolname IN ('outrider_views', 'outrider_tenant') AND (o.rolsuper OR o.rolbypassrls OR o.rolcanlogin OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = o.oid))
UNION ALL
SELECT c.oid::regclass || ' can be read by outrider_tenant'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('outbox', 'relay') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
   AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege('outrider_tenant', c.oid, 'SELECT') OR has_sequence_privilege('outrider_tenant', c.oid, 'USAGE')
       ELSE has_table_privilege('outrider_tenant', c.oid, 'SELECT') OR has_any_column_privilege('outrider_tenant', c.oid, 'SELECT') END
   AND c.oid <> 'outbox.wake'::regclass -- is the relay asleep: whoever inserts reads it
UNION ALL
SELECT p.oid::regprocedure || ' can be called by outrider_tenant'
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('outbox', 'relay') AND has_function_privilege('outrider_tenant', p.oid, 'EXECUTE')
   AND p.oid::regprocedure::text NOT IN ('relay.sees_all()', 'relay.seen_account()', 'relay.latency_ms(integer)', 'outbox.new_event_id()', 'outbox.contract_version()')
UNION ALL
SELECT p.oid::regprocedure || ' looks names up by the search_path of whoever reads a view: give it a body without quotes'
  FROM pg_proc p WHERE p.pronamespace = 'audit'::regnamespace
   AND NOT (p.prolang = (SELECT l.oid FROM pg_language l WHERE l.lanname = 'sql') AND p.prosqlbody IS NOT NULL)
   AND NOT coalesce(array_to_string(p.proconfig, ' ') LIKE '%search_path=%', false)
UNION ALL
SELECT format('%s.%I keeps statistics, which EXPLAIN tells to all: see relay.hide_statistics()', a.attrelid::regclass, a.attname)
  FROM pg_attribute a
 WHERE a.attnum > 0 AND NOT a.attisdropped AND NOT (coalesce(a.attstattarget, -1) BETWEEN 0 AND 1)
   AND a.attrelid IN (SELECT t.relid FROM (SELECT r.oid FROM readable r WHERE r.relkind IN ('r', 'p') UNION SELECT 'outbox.events'::regclass) s CROSS JOIN LATERAL pg_partition_tree(s.oid) t)
   AND (a.attname IN ('account_id', 'webhook_id') OR a.atttypid IN ('text'::regtype, 'bytea'::regtype, 'inet'::regtype))
   AND a.attname NOT IN ('type', 'routing', 'state')`

// TestTheViewsAreGuarded fails for a view or base table of a later migration
// that is not behind the tenants' boundary.
func TestTheViewsAreGuarded(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, nil)).SQL
	for _, wrong := range column[string](t, db, unguardedQuery) {
		t.Error(wrong)
	}
	exec(t, db, `SELECT setval('outbox.events_seq_seq', 1500000)`)
	for step := ""; step != "nothing to do"; {
		step = column[string](t, db, `SELECT relay.extend_partitions()`)[0]
	}
	if n := column[int](t, db, `SELECT count(*) FROM relay.partitions WHERE events_done AND log_done`)[0]; n < 4 {
		t.Errorf("%d partitions are attached", n)
	}
	for _, wrong := range column[string](t, db, unguardedQuery) {
		t.Errorf("with new partitions: %s", wrong)
	}
	// What somebody could do without thinking of it is found.
	for _, test := range []struct{ mistake, found string }{
		{`CREATE VIEW audit.more AS SELECT * FROM relay.webhooks`, "audit.more does not belong"},
		{`CREATE TABLE relay.more (account_id bigint); GRANT SELECT ON relay.more TO outrider_views`, "relay.more can be read by the views"},
		{`CREATE VIEW relay.more AS SELECT * FROM relay.webhooks; GRANT SELECT ON relay.more TO outrider_views`, "no security barrier"},
		{`CREATE POLICY more ON relay.log USING (true)`, "shows the views more"},
		{`CREATE POLICY more ON relay.log TO outrider_views USING (account_id > 0)`, "shows the views more"},
		{`ALTER TABLE relay.log DISABLE ROW LEVEL SECURITY`, "relay.log can be read by the views"},
		{`GRANT SELECT ON ALL TABLES IN SCHEMA relay TO outrider_tenant`, "relay.log_0 can be read by outrider_tenant"},
		{`GRANT EXECUTE ON FUNCTION relay.adopt() TO PUBLIC`, "relay.adopt() can be called"},
		{`ALTER ROLE outrider_views BYPASSRLS`, "could pass by"},
		{`CREATE FUNCTION audit.more(text) RETURNS text LANGUAGE sql AS 'SELECT upper($1)'`, "audit.more(text) looks names up"},
		{`ALTER TABLE relay.responses_0 ALTER excerpt SET STATISTICS 100`, "relay.responses_0.excerpt keeps statistics"},
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), test.mistake); err != nil {
			t.Fatalf("%s: %v", test.mistake, err)
		}
		found := strings.Join(columnOf[string](t, tx, unguardedQuery), "\n")
		if !strings.Contains(found, test.found) {
			t.Errorf("after %s nothing says %q, but:\n%s", test.mistake, test.found, found)
		}
		_ = tx.Rollback()
	}
	// What a later migration does makes it right.
	exec(t, db, `CREATE TABLE relay.more (account_id bigint, text text); SELECT relay.guard('relay.more');
CREATE VIEW audit.more AS SELECT * FROM relay.more; SELECT relay.guard_views()`)
	for _, wrong := range column[string](t, db, unguardedQuery) {
		t.Errorf("after relay.guard(): %s", wrong)
	}
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
