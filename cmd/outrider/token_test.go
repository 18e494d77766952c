package main

import (
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, asRole(t, db, "ops", "outrider_operator"))
	tokens := postgres.NewTokens(db.SQL)

	out := c.ok("token", "create", "--account", "7", "--role", "administrator", "--name", "CRM sync", "--expires-in", "30d")
	lines := strings.Split(out, "\n")
	if !strings.Contains(out, "Token 1 is made") || len(lines) < 6 || !strings.Contains(out, "CRM sync") || !strings.Contains(out, "expires") {
		t.Fatalf("create says %s", out)
	}
	token := strings.TrimSpace(lines[2])
	want := domain.Access{TokenID: 1, Name: "CRM sync", AccountID: 7, Role: domain.RoleAdministrator}
	if got, err := tokens.Authenticate(t.Context(), token); got != want || err != nil {
		t.Errorf("%q lets in %+v, %v", token, got, err)
	}
	all := c.object("token", "create", "--all-accounts", "--role", "viewer", "--name", "wall display")
	if members(all) != "account_id expires_at name role token token_id" || all["account_id"] != nil || all["expires_at"] != nil || all["role"] != "viewer" {
		t.Errorf("created is %v", all)
	}
	text, _ := all["token"].(string)
	if got, err := tokens.Authenticate(t.Context(), text); got.AccountID != 0 || got.TokenID != 2 || err != nil {
		t.Errorf("%q lets in %+v, %v", text, got, err)
	}
	if own := c.object("token", "create", "--account", "operator", "--role", "operator", "--name", "pager"); own["account_id"] != -1.0 {
		t.Errorf("created is %v", own)
	}

	listed := c.objects("token", "list", "--format", "json")
	if len(listed) != 3 || listed[0]["name"] != "CRM sync" || listed[0]["state"] != "active" || listed[0]["accounts"] != "7" || listed[1]["accounts"] != "all" || listed[2]["accounts"] != "operator" ||
		listed[0]["created_by"] == nil || listed[0]["last_used_at"] == nil || listed[2]["last_used_at"] != nil {
		t.Errorf("listed are %v", listed)
	}
	if of := c.objects("token", "list", "--account", "7", "--format", "json"); len(of) != 1 {
		t.Errorf("of account 7: %v", of)
	}
	table := c.ok("token", "list", "--all") + c.ok("token", "list", "--format", "csv")
	if strings.Contains(table, "outrider_"+strings.TrimPrefix(token, "outrider_")) || !strings.Contains(table, "wall display") {
		t.Errorf("the table is %s", table)
	}

	if out := c.ok("token", "revoke", "1"); out != "Token 1 is revoked.\n" {
		t.Errorf("revoke says %s", out)
	}
	if out := c.ok("token", "revoke", "1"); !strings.Contains(out, "Nothing changes") {
		t.Errorf("revoke again says %s", out)
	}
	if listed := c.objects("token", "list", "--format", "json"); len(listed) != 2 {
		t.Errorf("after it there are %v", listed)
	}
	if listed := c.objects("token", "list", "--all", "--format", "json"); len(listed) != 3 || listed[0]["state"] != "revoked" || listed[0]["revoked_at"] == nil {
		t.Errorf("after it there are, in all, %v", listed)
	}
	later := *c
	later.now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
	if listed := later.objects("token", "list", "--format", "json"); len(listed) != 2 {
		t.Errorf("a month later there are %v", listed)
	}
}

func TestTokenUsage(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.fails(exitUsage, []string{"--role is missing", "--name is missing", "either --account or --all-accounts"}, "token", "create")
	c.fails(exitUsage, []string{"either --account or --all-accounts"}, "token", "create", "--account", "1", "--all-accounts", "--role", "viewer", "--name", "x")
	c.fails(exitUsage, []string{`"root" is none of viewer, operator, administrator`, "the name is empty", `--expires-in: "0s"`, `--account: "0"`},
		"token", "create", "--account", "0", "--role", "root", "--name", "", "--expires-in", "0s")
	c.fails(exitUsage, []string{"one line"}, "token", "create", "--account", "1", "--role", "viewer", "--name", "a\nb")
	c.fails(exitUsage, []string{"the token's ID is missing"}, "token", "revoke")
	c.fails(exitUsage, []string{`"x" is not a number`}, "token", "revoke", "x")
	c.fails(exitFailed, []string{"there is no token 9", "token list"}, "token", "revoke", "9")
	if out := c.ok("token", "list"); out != "Nothing found.\n" {
		t.Errorf("there are %s", out)
	}
	for _, group := range []string{"outrider_web", "outrider_auditor", "outrider_relay"} {
		newCLI(t, asRole(t, db, "other", group)).fails(exitFailed, []string{"lacks rights", "outrider_operator"},
			"token", "create", "--all-accounts", "--role", "administrator", "--name", "mine")
	}
}
