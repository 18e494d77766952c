package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
)

// file writes a configuration file.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outrider.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigPrecedence(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const wrong = "postgres://nobody@127.0.0.1:1/none"
	for name, test := range map[string]struct {
		flag, variable, file string
		ok                   bool
	}{
		"flag first":          {db.DSN, wrong, wrong, true},
		"then the variable":   {"", db.DSN, wrong, true},
		"then the file":       {"", "", db.DSN, true},
		"a wrong flag":        {wrong, db.DSN, db.DSN, false},
		"a wrong variable":    {"", wrong, db.DSN, false},
		"a file alone, wrong": {"", "", wrong, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCLI(t, test.variable)
			c.env["OUTRIDER_CONFIG"] = file(t, "database_url: "+test.file+"\n")
			args := []string{"webhook", "list"}
			if test.flag != "" {
				args = append(args, "--database-url", test.flag)
			}
			if r := c.run(args...); (r.code == exitDone) != test.ok {
				t.Errorf("exit %d: %s", r.code, r.err)
			}
		})
	}
}

func TestConfigFile(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, "")
	path := file(t, "# settings\ndatabase_url: "+db.DSN+"\nallow_cidrs:\n  - 127.0.0.0/8\n  - \"::1\"\n")
	c.ok("webhook", "add", "--account", "1", "--url", "http://[::1]:80/", "--config", path)
	// The variable names another file than the flag.
	c.env["OUTRIDER_CONFIG"] = "/nowhere.yaml"
	c.ok("webhook", "list", "--config", path)
	c.fails(exitUsage, []string{"OUTRIDER_CONFIG: open /nowhere.yaml"}, "webhook", "list")
	c.env["OUTRIDER_CONFIG"] = ""

	for content, problems := range map[string][]string{
		"databse_url: x\nallow_cidr: y\n":                                             {"line 1: unknown setting \"databse_url\"", "line 2: unknown setting \"allow_cidr\"", "database_url", "is missing"},
		"database_url: a\ndatabase_url: postgres://:x:y\nallow_cidrs: [10.0.0.1/8]\n": {"line 2: database_url is set twice", "line 3: allow_cidrs: \"10.0.0.1/8\" has address bits", "10.0.0.0/8"},
		"database_url: {host: x}\n":                                                   {"line 1: database_url: is not a value"},
		"- database_url\n":                                                            {"line 1: settings are lines like"},
		"database_url: 'x\n":                                                          {"outrider.yaml: "},
		"":                                                                            {"database_url is missing"},
		"database_url: \"\"\n":                                                        {"line 1: database_url: is empty"},
		"database_url: http://[::1\n":                                                 {"the database URL cannot be parsed"},
		"database_url: null\n":                                                        {"database_url: is empty"},
		"allow_cidrs: [[10.0.0.0/8]]\n":                                               {"allow_cidrs: is not a value or a list"},
	} {
		c.fails(exitUsage, problems, "webhook", "list", "--config", file(t, content))
	}
	// A broken line of the file may hold the password.
	if r := c.run("webhook", "list", "--config", file(t, "database_url: postgres://u:hunter2@[::/x\n")); strings.Contains(r.err, "hunter2") || r.code != exitUsage {
		t.Errorf("the password is shown: %s", r.err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	commands := map[string][]string{
		"webhook":  {"webhook", "list"},
		"audit":    {"audit", "events"},
		"trace":    {"audit", "trace", tracedID.String()},
		"replay":   {"replay", "run", "--event-id", tracedID.String()},
		"deliver":  {"audit", "deliveries"},
		"attempts": {"audit", "attempts"},
	}
	empty := strings.Replace(db.DSN, "/"+databaseOf(t, db), "/postgres", 1)
	plain := asRole(t, db, "plain")
	for name, args := range commands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newCLI(t, "postgres://app:hunter2hunter2@127.0.0.1:1/chat").fails(exitFailed, []string{"PostgreSQL at 127.0.0.1:1 refuses connections", "is the server running"}, args...)
			newCLI(t, empty).fails(exitFailed, []string{"outrider migrate"}, args...)
			c := newCLI(t, plain)
			c.fails(exitFailed, []string{"lacks rights", "GRANT outrider_"}, args...)
			if r := c.run(args...); strings.Contains(r.err, "hunter2") {
				t.Errorf("the password is shown: %s", r.err)
			}
		})
	}
	newCLI(t, plain).fails(exitFailed, []string{"lacks rights", "GRANT CREATE ON DATABASE"}, "migrate", "--database-url", strings.Replace(plain, "/"+databaseOf(t, db), "/postgres", 1))
	if r := newCLI(t, db.DSN).run("audit", "events", "--format"); r.code != exitUsage {
		t.Errorf("a flag without its value: exit %d, %s", r.code, r.err)
	}
}

func databaseOf(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	var name string
	if err := db.SQL.QueryRowContext(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestRoles: what each group may do by the command line, and no more.
func TestRoles(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := insert(t, db.SQL, "message_created", tracedID, "")
	s.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 1, Version: 1}}}, EventName: "message_created"})
	s.delivered(1, 0, 7, domain.Scheduled{At: after(0), Deadline: after(time.Hour), WebhookVersion: 1})
	relay, auditor, operator := newCLI(t, asRole(t, db, "relay", "outrider_relay")), newCLI(t, asRole(t, db, "auditor", "outrider_auditor")), newCLI(t, asRole(t, db, "operator", "outrider_operator"))
	operator.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a")
	operator.ok("webhook", "disable", "1")
	operator.ok("webhook", "enable", "1")
	relay.ok("webhook", "list")
	for _, c := range []*cli{relay, auditor, operator} {
		for _, args := range [][]string{{"audit", "events"}, {"audit", "deliveries"}, {"audit", "attempts"}, {"audit", "trace", tracedID.String()}} {
			c.ok(args...)
		}
	}
	operator.ok("replay", "run", "--event-id", tracedID.String())
	relay.ok("replay", "run", "--event-id", tracedID.String())
	auditor.fails(exitFailed, []string{"lacks rights", "GRANT outrider_"}, "replay", "run", "--event-id", tracedID.String())
	auditor.fails(exitFailed, []string{"lacks rights", "GRANT outrider_relay"}, "webhook", "list")
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	name := databaseOf(t, db) + "_new"
	mustExec(t, db.SQL, `CREATE DATABASE `+name)
	t.Cleanup(func() {
		_, _ = db.SQL.ExecContext(context.WithoutCancel(t.Context()), `DROP DATABASE `+name)
	})
	c := newCLI(t, strings.Replace(db.DSN, "/"+databaseOf(t, db), "/"+name, 1))
	if out := c.ok("migrate"); out != fmt.Sprintf("The schema is made, at version %d.\n", migrations.Version) {
		t.Errorf("the first migrate says %s", out)
	}
	if out := c.ok("migrate"); !strings.Contains(out, "already") {
		t.Errorf("the second migrate says %s", out)
	}
	c.fails(exitUsage, []string{`unexpected argument "up"`}, "migrate", "up")

	newer := newCLI(t, db.DSN)
	goForward(t, db.SQL)
	if out := newer.ok("migrate"); !strings.Contains(out, fmt.Sprintf("newer than this binary's %d, which works on it", migrations.Version)) {
		t.Errorf("migrate on a newer schema says %s", out)
	}
	newer.ok("webhook", "list")
	outgrow(t, db.SQL)
	for _, args := range [][]string{{"migrate"}, {"webhook", "list"}} {
		newer.fails(exitFailed, []string{"newer than this binary", "install a newer version"}, args...)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "")
	if out := c.ok("version"); !strings.HasPrefix(out, "outrider ") || out != c.ok("--version") {
		t.Errorf("the version is %q", out)
	}
	c.fails(exitUsage, []string{"unexpected argument"}, "version", "now")
}
