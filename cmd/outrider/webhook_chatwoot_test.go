package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

const chatwootToken = "an-access-token"

// newChatwoot is an installation's API: its answers by account.
func newChatwoot(t *testing.T, accounts map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/api/v1/accounts/"), "/webhooks")
		answer, ok := accounts[account]
		switch {
		case len(r.Header["Api_access_token"]) != 1 || r.Header["Api_access_token"][0] != chatwootToken:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"Invalid Access Token"}`)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":"Resource could not be found"}`)
		default:
			fmt.Fprintf(w, `{"payload":{"webhooks":[%s]}}`, answer)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestImportFromChatwootsAPI(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	base := newChatwoot(t, map[string]string{
		"7": `{"id":41,"name":"CRM sync","url":"https://hooks.crm.example/chatwoot","account_id":7,"subscriptions":["message_created","inbox_updated"],"secret":"hV3kQ9tZrB2mXw7cNf5pLd8s"},
		      {"id":42,"name":null,"url":"https://n8n.meadow.example/webhook/abc","account_id":7,"subscriptions":["message_created"],"secret":"q2W8eR4tY6uI1oP9aS3dF7gH","inbox":{"id":12,"name":"Website chat"}}`,
		"8": `{"id":43,"name":"Old","url":"https://old.example/hook","account_id":8,"subscriptions":["contact_created"]}`,
		"9": `{"id":44,"name":"Mute","url":"see https://mute.example/hook","account_id":9,"subscriptions":[],"secret":""}`,
	})
	from := []string{"webhook", "import", "--chatwoot-url", base, "--account", "7,8"}
	c.fails(exitUsage, []string{"the access token is missing: give --token-file, or set OUTRIDER_CHATWOOT_TOKEN"}, from...)
	c.env[chatwootTokenVariable] = "wrong-token"
	c.fails(exitFailed, []string{"account 7: Chatwoot at ", "401: Invalid Access Token; use the access token", "account 8: "}, from...)
	c.env[chatwootTokenVariable] = chatwootToken
	r := c.run(append(from, "--state", "disabled")...)
	if r.code != exitDone || !strings.Contains(r.out, "Imported 3 webhooks: 3 created, 0 updated, 0 unchanged, 0 refused.") ||
		!strings.Contains(r.err, "webhook 42 of account 7: names inbox 12, by which Chatwoot does not filter") ||
		!strings.Contains(r.err, "webhook 43 of account 8: it came without a secret; a new one was drawn") || strings.Contains(r.out+r.err, "hV3k") {
		t.Errorf("the import says %+v", r)
	}
	exported := c.objects("webhook", "export", "--account", "7", "--with-secrets")
	want := []string{
		"map[account_id:7 deadline:168h0m0s headers:map[] inbox_id:<nil> max_concurrency:16 name:CRM sync order_hold:30s rate_limit:<nil> retries:<nil> secret:hV3kQ9tZrB2mXw7cNf5pLd8s state:disabled subscriptions:[message_created inbox_updated] timeout:5s url:https://hooks.crm.example/chatwoot]",
		"map[account_id:7 deadline:168h0m0s headers:map[] inbox_id:<nil> max_concurrency:16 name: order_hold:30s rate_limit:<nil> retries:<nil> secret:q2W8eR4tY6uI1oP9aS3dF7gH state:disabled subscriptions:[message_created] timeout:5s url:https://n8n.meadow.example/webhook/abc]",
	}
	for i, hook := range exported {
		if fmt.Sprint(hook) != want[i] {
			t.Errorf("imported is %v\nwant        %s", hook, want[i])
		}
	}
	// Later again, when one account is switched over and tuned: nothing of that
	// is undone.
	c.ok("webhook", "enable", "1")
	c.ok("webhook", "update", "1", "--timeout", "9s", "--inbox", "3")
	if out := c.ok(append(from, "--state", "disabled")...); !strings.Contains(out, "0 created, 0 updated, 3 unchanged, 0 refused") {
		t.Errorf("the same import again says %s", out)
	}

	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(chatwootToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.env[chatwootTokenVariable] = ""
	c.fails(exitFailed, []string{"webhook 44 of account 9: subscriptions: name no event: Chatwoot sends it nothing", "webhook 44 of account 9: url: cannot be parsed"},
		"webhook", "import", "--chatwoot-url", base, "--account", "9", "--token-file", tokenFile)
	c.fails(exitFailed, []string{"account 10: Chatwoot at ", "404: Resource could not be found", "is there such an account"},
		"webhook", "import", "--chatwoot-url", base, "--account", "7", "--account", "10", "--token-file", tokenFile)
	for _, usage := range []struct {
		want string
		args []string
	}{
		{"--account is missing", []string{"--chatwoot-url", base, "--token-file", tokenFile}},
		{"--chatwoot-url and --chatwoot-database are both given", []string{"--chatwoot-url", base, "--chatwoot-database", "postgres://localhost/x"}},
		{"--account is for webhooks from Chatwoot", []string{"--account", "1"}},
		{"is not an address like https://chat.example.com", []string{"--chatwoot-url", "chat"}},
		{"unexpected argument", []string{"--chatwoot-url", base, "file"}},
		{"the database URL cannot be parsed", []string{"--chatwoot-database", "postgres://%zz"}},
		{"--token-file is for --chatwoot-url", []string{"--token-file", tokenFile, "--chatwoot-database", "postgres://localhost/x"}},
	} {
		c.fails(exitUsage, []string{usage.want}, append([]string{"webhook", "import"}, usage.args...)...)
	}
}

// chatwootTable is the table as Chatwoot 4.16 makes it.
const chatwootTable = `
CREATE TABLE webhooks (
    id bigserial PRIMARY KEY, account_id integer, inbox_id integer, url text, created_at timestamp(6) NOT NULL DEFAULT now(), updated_at timestamp(6) NOT NULL DEFAULT now(),
    webhook_type integer DEFAULT 0, name varchar, secret varchar,
    subscriptions jsonb DEFAULT '["conversation_status_changed","conversation_updated","conversation_created","contact_created","contact_updated","message_created","message_updated","webwidget_triggered"]')`

func TestImportFromChatwootsDatabase(t *testing.T) {
	t.Parallel()
	own, theirs := pgtest.New(t), pgtest.New(t)
	c := newCLI(t, own.DSN)
	const missing = "has no table webhooks"
	c.fails(exitFailed, []string{missing, "is it Chatwoot's?"}, "webhook", "import", "--chatwoot-database", theirs.DSN)
	run(t, theirs.SQL, chatwootTable)
	reader := asRole(t, theirs, "reader")
	c.fails(exitFailed, []string{"may not read Chatwoot's table webhooks", "GRANT SELECT ON webhooks TO"}, "webhook", "import", "--chatwoot-database", reader)
	run(t, theirs.SQL, `GRANT SELECT ON webhooks TO PUBLIC`)
	run(t, theirs.SQL, `
INSERT INTO webhooks (account_id, url, name, secret, inbox_id, webhook_type) VALUES
    (1, 'https://a.example/hook', 'A', 'hV3kQ9tZrB2mXw7cNf5pLd8s', NULL, 0), (1, 'https://b.example/hook', NULL, NULL, 5, 0),
    (2, 'https://c.example/hook', 'C', 'q2W8eR4tY6uI1oP9aS3dF7gH', 5, 1), (3, 'https://d.example/hook', 'D', 'zz-8chars', NULL, 0)`)
	c.env[chatwootDatabaseVariable] = reader
	r := c.run("webhook", "import", "--account", "1,2", "--state", "disabled")
	if r.code != exitDone || !strings.Contains(r.out, "2 created") || !strings.Contains(r.err, "webhook 3 of account 2 is passed over: it is an inbox's") || !strings.Contains(r.err, "webhook 2 of account 1: names inbox 5") {
		t.Errorf("the import says %+v", r)
	}
	if got := query[string](t, own.SQL, `SELECT string_agg(account_id || ' ' || url || ' ' || state, ', ' ORDER BY id) FROM relay.webhooks`); got != "1 https://a.example/hook disabled, 1 https://b.example/hook disabled" {
		t.Errorf("imported are %s", got)
	}
	// All accounts; an encrypted secret is nobody's key.
	run(t, theirs.SQL, `UPDATE webhooks SET secret = '{"p":"n7J0/ol+a7DRMeaE","h":{"iv":"DXZMDWUKfp3bg/Yu","at":"X1/YjMHbHD4talgF9dt61A=="}}' WHERE id = 4`)
	r = c.run("webhook", "import")
	for _, text := range []string{"webhook 4 of account 3: secret: the secret is encrypted", "--chatwoot-url", "rails runner", "nothing was imported; 2 webhooks can be"} {
		if r.code != exitFailed || !strings.Contains(r.err, text) {
			t.Errorf("with an encrypted secret %q is not in %+v", text, r)
		}
	}
	// A version of Chatwoot before secrets and names.
	run(t, theirs.SQL, `ALTER TABLE webhooks DROP COLUMN secret, DROP COLUMN name`)
	r = c.run("webhook", "import")
	if r.code != exitDone || !strings.Contains(r.out, "Imported 3 webhooks: 1 created, 0 updated, 2 unchanged, 0 refused.") || !strings.Contains(r.err, "webhook 4 of account 3: it came without a secret; a new one was drawn") {
		t.Errorf("without the columns the import says %+v", r)
	}
	c.env[chatwootDatabaseVariable] = "postgres://%zz"
	c.fails(exitUsage, []string{"OUTRIDER_CHATWOOT_DATABASE_URL: the database URL cannot be parsed"}, "webhook", "import")
	c.env[chatwootDatabaseVariable] = "postgres://nobody@127.0.0.1:1/none"
	c.fails(exitFailed, []string{"PostgreSQL at 127.0.0.1:1 refuses connections"}, "webhook", "import")
}
