package main

import (
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

func TestWebhookHeaders(t *testing.T) {
	t.Parallel()
	c := newCLI(t, pgtest.New(t).DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://user:pw@example.com/hook", "--header", "X-Api-Key: one, two", "--header", "x-team:crm")
	headers := func() string { return fmt.Sprint(c.object("webhook", "show", "1", "--reveal-secret")["headers"]) }
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"--name", "CRM"}, "map[X-Api-Key:one, two x-team:crm]"},
		{[]string{"--header", "x-api-key: three"}, "map[x-api-key:three x-team:crm]"},
		{[]string{"--remove-header", "X-TEAM", "--header", "X-More: 4"}, "map[X-More:4 x-api-key:three]"},
		{[]string{"--header", "Authorization: Bearer t"}, "map[Authorization:Bearer t X-More:4 x-api-key:three]"},
	} {
		c.ok(append([]string{"webhook", "update", "1"}, step.args...)...)
		if got := headers(); got != step.want {
			t.Errorf("%v gives %s, want %s", step.args, got, step.want)
		}
	}
	if shown := c.object("webhook", "show", "1"); fmt.Sprint(shown["has_credential"], shown["headers"]) != "false map[Authorization:<nil> X-More:<nil> x-api-key:<nil>]" {
		t.Errorf("with an Authorization of its own it is %v", shown)
	}
	if out := c.ok("webhook", "update", "1", "--remove-header", "X-None"); !strings.Contains(out, "Nothing changes") {
		t.Errorf("removing what is not there says %s", out)
	}
	if out := c.ok("webhook", "show", "1"); !strings.Contains(out, "Authorization, X-More, x-api-key\n") {
		t.Errorf("it is shown as %s", out)
	}
	c.ok("webhook", "update", "1", "--url", "https://user:pw@example.com/hook")
	if shown := c.object("webhook", "show", "1"); fmt.Sprint(shown["has_credential"], shown["headers"]) != "true map[X-More:<nil> x-api-key:<nil>]" {
		t.Errorf("with a user and password again it is %v", shown)
	}
	c.ok("webhook", "remove", "1", "--yes")
	if got := headers(); got != "map[]" {
		t.Errorf("a removed webhook has %s", got)
	}
}

// TestNothingShowsAHeadersValue but what was asked to: not the command line,
// whatever it says, not a view, whoever reads it, not a relay's log.
func TestNothingShowsAHeadersValue(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const value, other, wrong = "open-sesame-1", "open-sesame-2", "open-sesame-wrong"
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != value && r.Header.Get("X-Api-Key") != other {
			t.Errorf("a POST came with %v", r.Header)
		}
		w.WriteHeader(http.StatusUnauthorized)
	})
	tenant := asRole(t, db, "acme", "outrider_tenant")
	auditor := asRole(t, db, "auditor", "outrider_auditor")
	c := newCLI(t, db.DSN)
	c.env["OUTRIDER_ALLOW_CIDRS"] = "127.0.0.0/8"
	var said []string
	say := func(args ...string) {
		r := c.run(args...)
		said = append(said, strings.Join(args[:min(2, len(args))], " ")+": "+r.out+r.err)
	}
	c.ok("tenant", "add", userOf(t, tenant), "--account", "1")
	say("webhook", "add", "--account", "1", "--url", receiver.URL+"/hook", "--retries", "none", "--header", "X-Api-Key: "+value, "--header", "Authorization: "+value)
	say("webhook", "update", "1", "--header", "X-Api-Key: "+other, "--format", "json")
	relay := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`)
	until(t, "a delivery that is dead", func() (bool, string) {
		return query[int](t, db.SQL, `SELECT count(*) FROM audit.deliveries WHERE status = 'dead'`) == 1, ""
	})
	say("webhook", "test", "1")
	say("webhook", "update", "1", "--remove-header", "Authorization")
	say("webhook", "update", "1", "--header", "X-Api-Key: "+value)
	event := query[string](t, db.SQL, `SELECT event_id::text FROM audit.deliveries WHERE event = 'message_created'`)
	for _, format := range []string{"table", "json", "csv"} {
		say("webhook", "list", "--format", format)
		for _, list := range []string{"events", "deliveries", "attempts", "changes", "health", "gaps"} {
			say("audit", list, "--format", format)
		}
		say("webhook", "show", "1", "--format", format)
		say("audit", "trace", event, "--format", format)
	}
	say("webhook", "export")
	for _, list := range []string{"events", "deliveries", "attempts", "changes", "timeline"} {
		say("audit", "export", list)
	}
	say("doctor")
	say("rebuild", "--check")
	// What is refused is not quoted, wherever it stands.
	for _, line := range []string{wrong, "Bearer " + wrong + ": x", "Host: " + wrong, "X-A: " + wrong + "\n" + wrong, "X-A: " + strings.Repeat(wrong, 500), "X A: " + wrong} {
		say("webhook", "update", "1", "--header", line)
		say("webhook", "add", "--account", "1", "--url", "https://a:b@example.com", "--header", line, "--header", "Authorization: "+wrong)
	}
	for _, line := range []string{
		`"headers": {"Host": "` + wrong + `"}`, `"headers": {"` + wrong + ` x": "1"}`, `"headers": "` + wrong + `"`, `"headers": {"X-A": ["` + wrong + `"]}`,
	} {
		c.in = `{"account_id": 1, "url": "https://example.com", ` + line + `}`
		say("webhook", "import", "-")
	}
	relay.signal(syscall.SIGTERM)
	said = append(said, "the relay's log: "+relay.log.String())

	for name, dsn := range map[string]string{"an auditor": auditor, "a tenant": tenant} {
		said = append(said, readAll(t, name, dsn)...)
	}
	for _, text := range said {
		if strings.Contains(text, "sesame") {
			t.Errorf("a value is shown by %s", text)
		}
	}
	if len(said) < 60 || !strings.Contains(strings.Join(said, ""), "X-Api-Key") {
		t.Errorf("%d outputs, which name no header", len(said))
	}
	// What asks for secrets gets them: the test has something to find.
	for _, args := range [][]string{{"webhook", "show", "1", "--reveal-secret"}, {"webhook", "export", "--with-secrets"}} {
		if out := c.ok(args...); !strings.Contains(out, value) {
			t.Errorf("%v does not show the value: %s", args, out)
		}
	}
}

// readAll gives the rows of all views of the schema audit, as a role sees them.
func readAll(t *testing.T, name, dsn string) (rows []string) {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	views := texts(t, db, `SELECT format('%I.%I', schemaname, viewname) FROM pg_views WHERE schemaname = 'audit' AND has_table_privilege(format('%I.%I', schemaname, viewname), 'SELECT') ORDER BY 1`)
	changes := 0
	for _, view := range views {
		for _, row := range texts(t, db, `SELECT v::text FROM `+view+` v`) {
			rows = append(rows, name+" in "+view+": "+row)
			if view == "audit.webhook_changes" {
				changes++
			}
		}
	}
	if changes != 4 {
		t.Errorf("%s sees %d changes of the webhook, want 4", name, changes)
	}
	return rows
}
