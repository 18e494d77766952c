package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

func userOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
}

func TestTenants(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	busy(t, db, 3)
	acme := asRole(t, db, "acme", "outrider_tenant")
	role := userOf(t, acme)
	c := newCLI(t, asRole(t, db, "ops", "outrider_operator"))

	nobody := userOf(t, asRole(t, db, "nobody"))
	auditor := userOf(t, asRole(t, db, "auditor", "outrider_auditor", "outrider_tenant"))
	c.fails(exitFailed, []string{`there is no role "no such"`, `CREATE ROLE "no such" LOGIN`}, "tenant", "add", "no such", "--account", "1")
	c.fails(exitFailed, []string{"not a member of outrider_tenant", "GRANT outrider_tenant TO"}, "tenant", "add", nobody, "--account", "1")
	c.fails(exitFailed, []string{"sees all accounts"}, "tenant", "add", auditor, "--account", "1")
	c.fails(exitFailed, []string{"sees all accounts"}, "tenant", "add", "outrider", "--account", "1")
	c.fails(exitUsage, []string{"the role is missing", "--account is missing"}, "tenant", "add")
	if out := c.ok("tenant", "list"); out != "Nothing found.\n" {
		t.Errorf("bound are %s", out)
	}

	tenant := newCLI(t, acme)
	seen := func() int { return len(tenant.objects("audit", "deliveries", "--format", "json")) }
	if n := seen(); n != 0 {
		t.Errorf("a role that is not bound sees %d deliveries", n)
	}
	c.ok("tenant", "add", role, "--account", "1")
	c.ok("tenant", "add", role, "--account", "1") // again: it is so already
	if n := seen(); n != 4 {
		t.Errorf("a tenant sees %d deliveries, want 4", n)
	}
	c.fails(exitFailed, []string{"is bound to account 1 already", "outrider tenant remove " + role}, "tenant", "add", role, "--account", "2")
	tenant.fails(exitFailed, []string{"lacks rights"}, "tenant", "add", role, "--account", "2")

	mustExec(t, db.SQL, `INSERT INTO relay.tenant_roles VALUES ('gone', 2), ($1, 3), ($2, 4)`, nobody, auditor)
	var got []string
	for _, o := range c.objects("tenant", "list", "--format", "json") {
		sees, _, _ := strings.Cut(fmt.Sprint(o["sees"]), ":")
		got = append(got, fmt.Sprintf("%v %s", o["account_id"], sees))
	}
	if want := "1 its account, 2 nothing, 3 nothing, 4 all accounts"; strings.Join(got, ", ") != want {
		t.Errorf("bound are %q, want %s", got, want)
	}
	c.ok("tenant", "remove", role)
	c.fails(exitFailed, []string{"bound to no account"}, "tenant", "remove", role)
	if n := seen(); n != 0 {
		t.Errorf("a role that was a tenant sees %d deliveries", n)
	}
}
