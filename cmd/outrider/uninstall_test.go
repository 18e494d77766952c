package main

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/migrations"
)

const countOurs = `SELECT count(*) FROM pg_namespace WHERE nspname IN ('outbox', 'relay', 'audit')`

// installed fails the test unless all three schemas are there, or none is.
func installed(t *testing.T, db *sql.DB, want bool) {
	t.Helper()
	if n := query[int](t, db, countOurs); n != map[bool]int{true: 3, false: 0}[want] {
		t.Fatalf("%d of our schemas are there, want %t", n, want)
	}
}

// TestUninstallAndMigrateAgain is a life: installed, used, uninstalled,
// installed again. Its server has one database, so that nothing else uses the
// roles.
func TestUninstallAndMigrateAgain(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	root, err := sql.Open("postgres", server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	mustExec(t, root, `CREATE DATABASE chat`)
	db, err := sql.Open("postgres", server.DSN("chat"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	c := newCLI(t, server.DSN("chat"))
	if out := c.ok("uninstall", "--yes"); !strings.Contains(out, "nothing of Outrider") {
		t.Errorf("an empty database: %s", out)
	}
	c.ok("migrate")
	mustExec(t, db, `CREATE TABLE messages (id bigint); CREATE ROLE chat_app LOGIN IN ROLE outrider_producer; INSERT INTO messages VALUES (1)`)
	receiver := newCatcher(t, answer204)
	register(t, db, 1, receiver.URL, nil)
	p := startProcess(t, server.DSN("chat"), "serve", "--allow-unsafe")
	mustExec(t, db, insertOne)
	awaitSucceeded(t, db, 1)

	c.fails(exitFailed, []string{"a relay runs on the database", "stop outrider serve", "nothing was dropped"}, "uninstall", "--yes")
	installed(t, db, true)
	p.signal(syscall.SIGTERM)
	mustExec(t, db, insertOne) // is never routed
	mustExec(t, db, `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES (1, 1, 0, 9, 'r', now(), 1, 0)`)

	c.fails(exitUsage, []string{"give --yes"}, "uninstall")
	c.asks, c.in = true, "chatt\n"
	r := c.run("uninstall")
	for _, text := range []string{"outbox.events", "2 rows", "events that no relay has routed: 1.", "or a paused webhook: 1.", "gets errors from now on", "role outrider_producer; its members chat_app stay"} {
		if !strings.Contains(r.out, text) {
			t.Errorf("it does not show %q:\n%s", text, r.out)
		}
	}
	if r.code != exitFailed || !strings.Contains(r.err, "Type the database's name, chat,") || strings.Contains(r.out, "not begun") {
		t.Errorf("exit %d: %s%s", r.code, r.err, r.out)
	}
	installed(t, db, true)
	c.in = "chat\n"
	if out := c.ok("uninstall"); !strings.Contains(out, `Outrider is gone from database "chat".`) {
		t.Error(out)
	}
	installed(t, db, false)
	if got := query[string](t, db, `SELECT coalesce(string_agg(rolname, ' ' ORDER BY rolname), '') FROM pg_roles WHERE rolname ~ '^outrider_|chat_app'`); got != "chat_app" {
		t.Errorf("roles left: %s", got)
	}
	if n := query[int](t, db, `SELECT count(*) FROM messages`); n != 1 {
		t.Errorf("%d messages", n)
	}
	c.ok("migrate")
	mustExec(t, db, insertOne)
	if n := query[int](t, db, `SELECT count(*) FROM outbox.events WHERE seq = 1`); n != 1 {
		t.Error("the new outbox does not begin at 1")
	}
	c.ok("uninstall", "--yes", "--keep-roles")
	installed(t, db, false)
	if n := query[int](t, db, `SELECT count(*) FROM pg_roles WHERE rolname = ANY (string_to_array($1, ' '))`, strings.Join(migrations.Roles, " ")); n != len(migrations.Roles) {
		t.Errorf("%d roles are kept", n)
	}
}

// TestUninstallDropsNothingOfOthers: each thing of others that hangs on ours is
// named, and stops it; without them it goes on, and theirs stay.
func TestUninstallDropsNothingOfOthers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	mustExec(t, db.SQL, `
CREATE SCHEMA chat;
CREATE TABLE chat.messages (id bigint, webhook_id bigint, event_id uuid);
CREATE FUNCTION chat.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	for _, test := range []struct{ add, named, remove string }{
		{`CREATE VIEW chat.report AS SELECT event_id FROM audit.events`, "view chat.report", `DROP VIEW chat.report`},
		{`CREATE MATERIALIZED VIEW chat.report AS SELECT id FROM outbox.events`, "materialized view chat.report", `DROP MATERIALIZED VIEW chat.report`},
		{`ALTER TABLE chat.messages ADD CONSTRAINT hook FOREIGN KEY (webhook_id) REFERENCES relay.webhooks`, "constraint hook on table chat.messages", `ALTER TABLE chat.messages DROP CONSTRAINT hook`},
		{`ALTER TABLE chat.messages ALTER event_id SET DEFAULT outbox.new_event_id()`, "default value for column event_id of table chat.messages", `ALTER TABLE chat.messages ALTER event_id DROP DEFAULT`},
		{`CREATE TRIGGER wake AFTER INSERT ON chat.messages EXECUTE FUNCTION relay.align_partition()`, "trigger wake on table chat.messages", `DROP TRIGGER wake ON chat.messages`},
		{`CREATE TRIGGER theirs AFTER INSERT ON outbox.events EXECUTE FUNCTION chat.note()`, "trigger theirs on table outbox.events", `DROP TRIGGER theirs ON outbox.events`},
		{`CREATE FUNCTION chat.id() RETURNS uuid BEGIN ATOMIC SELECT outbox.new_event_id(); END`, "function chat.id()", `DROP FUNCTION chat.id()`},
		{`CREATE TABLE audit.report (id bigint)`, "table audit.report", `DROP TABLE audit.report`},
		{`CREATE FUNCTION relay.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'`, "function relay.theirs()", `DROP FUNCTION relay.theirs()`},
		{`CREATE TABLE chat.part PARTITION OF outbox.events FOR VALUES FROM (900000000000) TO (900000000001)`, "table chat.part", `DROP TABLE chat.part`},
		{`CREATE PUBLICATION theirs FOR TABLE relay.webhooks`, "publication theirs", `DROP PUBLICATION theirs`},
	} {
		mustExec(t, db.SQL, test.add)
		c.fails(exitFailed, []string{test.named, "nothing was dropped"}, "uninstall", "--yes")
		if n := strings.Count(c.run("uninstall", "--yes").err, "outrider: this is not"); n != 1 {
			t.Errorf("%s: %d things are named, want 1: %s", test.add, n, c.run("uninstall", "--yes").err)
		}
		installed(t, db.SQL, true)
		mustExec(t, db.SQL, test.remove)
	}
	// An index of others holds nothing, and goes with its table.
	mustExec(t, db.SQL, `CREATE INDEX theirs ON relay.webhook_log (at)`)
	out := c.ok("uninstall", "--yes")
	installed(t, db.SQL, false)
	// The other databases of this server use the roles.
	for _, role := range migrations.Roles {
		if !strings.Contains(out, "Role "+role+" stays: ") || query[int](t, db.SQL, `SELECT count(*) FROM pg_roles WHERE rolname = $1`, role) != 1 {
			t.Errorf("%s is gone, or nothing says that it stays: %s", role, out)
		}
	}
	if n := query[int](t, db.SQL, `SELECT count(*) FROM pg_proc WHERE oid = 'chat.note'::regproc`); n != 1 {
		t.Error("their function is gone")
	}
}

// TestUninstallFindsFunctionsThatWouldFail: PostgreSQL does not know what the
// body of a function names.
func TestUninstallFindsFunctionsThatWouldFail(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	mustExec(t, db.SQL, `
CREATE TABLE messages (id bigint, content text);
CREATE FUNCTION message_to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO "outbox" . "events" (account_id, event, payload) VALUES (1, 'message_created', json_build_object('id', NEW.id));
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION message_to_outbox();
CREATE FUNCTION harmless() RETURNS text LANGUAGE sql AS $$ SELECT 'my_outbox.events and outbox.eventsourcing'::text $$;
INSERT INTO messages VALUES (1, 'x')`)
	c.fails(exitFailed, []string{
		"function public.message_to_outbox()", "every write that fires trigger announce ON public.messages",
		"DROP TRIGGER announce ON public.messages; DROP FUNCTION public.message_to_outbox()", "--force-functions", "nothing was dropped",
	}, "uninstall", "--yes")
	if said := c.run("uninstall", "--yes").err; strings.Contains(said, "harmless") {
		t.Error(said)
	}
	installed(t, db.SQL, true)
	mustExec(t, db.SQL, `DROP TRIGGER announce ON messages`)
	c.fails(exitFailed, []string{"DROP FUNCTION public.message_to_outbox()"}, "uninstall", "--yes")
	mustExec(t, db.SQL, `DROP FUNCTION message_to_outbox()`)
	mustExec(t, db.SQL, `CREATE FUNCTION by_path() RETURNS bigint LANGUAGE sql SET search_path = outbox AS $$ SELECT count(*) FROM events $$`)
	c.fails(exitFailed, []string{"function public.by_path()"}, "uninstall", "--yes")
	if out := c.ok("uninstall", "--yes", "--force-functions"); !strings.Contains(out, "Forced: function public.by_path()") {
		t.Error(out)
	}
	installed(t, db.SQL, false)
	mustExec(t, db.SQL, `INSERT INTO messages VALUES (2, 'y')`)
}

// TestUninstallDoesNotWaitForProducers: an open transaction with an event stops
// it, and the transaction goes on.
func TestUninstallDoesNotWaitForProducers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	tx, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), insertOne); err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := tx.QueryRowContext(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	r := c.run("uninstall", "--yes")
	if r.code != exitFailed || !strings.Contains(r.err, fmt.Sprintf("others use the tables: process %d of user", pid)) {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	installed(t, db.SQL, true)
	c.ok("uninstall", "--yes")
	installed(t, db.SQL, false)
}

func TestUninstallTakesTheOwner(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, asRole(t, db, "stranger", migrations.Roles...))
	c.fails(exitFailed, []string{"belong to role", "the user that migrated"}, "uninstall", "--yes")
	installed(t, db.SQL, true)
	mustExec(t, db.SQL, `INSERT INTO relay.schema_migrations (version_id, is_applied) VALUES (99, true)`)
	newCLI(t, db.DSN).fails(exitFailed, []string{"newer"}, "uninstall", "--yes")
	installed(t, db.SQL, true)
}

// TestObjectsAreAllThatMigrationsMake: what uninstall takes for ours is what is
// there, no less.
func TestObjectsAreAllThatMigrationsMake(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var known []string
	for _, o := range migrations.Objects() {
		known = append(known, o.Kind+" "+o.Schema+"."+o.Name)
	}
	if !slices.Contains(known, "trigger relay.align") || !slices.Contains(known, "table outbox.events_net") || !slices.Contains(known, "view audit.events") {
		t.Errorf("%q", known)
	}
	roles := query[string](t, db.SQL, `SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname ~ '^outrider_' AND NOT rolcanlogin`)
	if want := slices.Sorted(slices.Values(migrations.Roles)); roles != strings.Join(want, " ") {
		t.Errorf("roles: %s, want %s", roles, want)
	}
	newCLI(t, db.DSN).ok("uninstall", "--yes") // RESTRICT: fails for what is not known
}
