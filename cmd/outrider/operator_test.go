package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestWebhooksOfTheOperator: they are kept as any others, but for what they may
// subscribe to.
func TestWebhooksOfTheOperator(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, asRole(t, db, "ops", "outrider_operator"))
	added := c.object("webhook", "add", "--account", "operator", "--url", "https://example.com/ops")
	if added["account_id"] != -1.0 || fmt.Sprint(added["subscriptions"]) != "[delivery_dead webhook_disabled]" {
		t.Errorf("added is %v", added)
	}
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/hook")
	const foreign = `--event: "message_created" is no event of the operator's account, which has delivery_dead and webhook_disabled`
	c.fails(exitUsage, []string{foreign, "--inbox: the events of the operator's account are of no inbox"},
		"webhook", "add", "--account", "operator", "--url", "https://example.com/in", "--event", "message_created", "--inbox", "3")
	c.fails(exitUsage, []string{foreign}, "webhook", "update", "1", "--event", "message_created")
	c.fails(exitUsage, []string{`--account: "0" is not a number of 1 or more, nor "operator"`}, "webhook", "list", "--account", "0")
	for _, account := range []string{"operator", "-1"} {
		if found := c.objects("webhook", "list", "--account", account, "--format", "json"); len(found) != 1 || found[0]["id"] != 1.0 {
			t.Errorf("account %s has %v", account, found)
		}
	}
	// The history names what others have told.
	c.ok("webhook", "disable", "2", "--reason", "asked for")
	if told := query[string](t, db.SQL, `SELECT string_agg(payload -> 'change' ->> 'reason', ' ') FROM outbox.events WHERE account_id = -1`); told != "asked for" {
		t.Errorf("told: %s", told)
	}
	changes := c.objects("audit", "changes", "--account", "operator", "--format", "json")
	if len(changes) != 1 {
		t.Errorf("changes of the operator's account: %v", changes)
	}
	c.ok("webhook", "update", "1", "--name", "ops")
	first := c.run("audit", "changes", "--account", "operator", "--limit", "1")
	_, after, more := strings.Cut(first.out+first.err, "--after ")
	if !more {
		t.Fatalf("there is no second page: %s%s", first.out, first.err)
	}
	if second := c.ok("audit", "changes", "--account", "operator", "--limit", "1", "--after", strings.Fields(after)[0]); !strings.Contains(second, "registered") {
		t.Errorf("the second page is %s", second)
	}
	// It goes to another database and back.
	c.in = c.ok("webhook", "export", "--account", "operator")
	if out := c.ok("webhook", "import", "-"); !strings.Contains(out, "1 unchanged") || len(c.objects("webhook", "list", "--format", "json")) != 2 {
		t.Errorf("import says %s", out)
	}
	c.fails(exitUsage, []string{`--account: "operator" is not a number of 1 or more`}, "tenant", "add", "acme", "--account", "operator")
	if _, err := db.SQL.ExecContext(t.Context(), `INSERT INTO relay.tenant_roles VALUES ('acme', -1)`); err == nil {
		t.Error("the operator's account can be a tenant's")
	}
}
