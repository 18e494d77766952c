package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestAClientOfChatwootsTakesOutriderForIt: what reads webhooks from Chatwoot
// reads them from outrider web, with another address and another token: names,
// subscriptions in their order, and secrets.
func TestAClientOfChatwootsTakesOutriderForIt(t *testing.T) {
	t.Parallel()
	from, to := pgtest.New(t), pgtest.New(t)
	c := newCLI(t, from.DSN)
	c.ok("webhook", "add", "--account", "7", "--url", "https://hooks.crm.example/in?a=1&b=2", "--name", "CRM <sync>", "--event", "message_created", "--event", "contact_created", "--secret", "hV3kQ9tZrB2mXw7cNf5pLd8s")
	c.ok("webhook", "add", "--account", "7", "--url", "https://user:pass@n8n.example/hook", "--inbox", "12")
	c.ok("webhook", "add", "--account", "8", "--url", "https://other.example/hook")
	m := mountWeb(t, asRole(t, from, "web", "outrider_web"), nil)
	token, _ := c.object("token", "create", "--account", "7", "--role", "administrator", "--name", "move")["token"].(string)
	viewer, _ := c.object("token", "create", "--account", "7", "--role", "viewer", "--name", "look")["token"].(string)

	other := newCLI(t, to.DSN)
	read := []string{"webhook", "import", "--chatwoot-url", m.url, "--account", "7"}
	other.env[chatwootTokenVariable] = "wrong-token"
	other.fails(exitFailed, []string{"401: Invalid Access Token", "use the access token of an administrator"}, read...)
	other.env[chatwootTokenVariable] = viewer
	other.fails(exitFailed, []string{"401: You are not authorized to do this action", "use the access token of an administrator"}, read...)
	other.env[chatwootTokenVariable] = token
	other.fails(exitFailed, []string{"401: You are not authorized to access this account"}, "webhook", "import", "--chatwoot-url", m.url, "--account", "8")
	if out := other.ok(read...); !strings.Contains(out, "Imported 2 webhooks: 2 created") {
		t.Errorf("the import says %s", out)
	}
	was, is := c.objects("webhook", "export", "--account", "7", "--with-secrets"), other.objects("webhook", "export", "--account", "7", "--with-secrets")
	// It keeps no inbox of Chatwoot's, which does not filter by it, and the user
	// and password are shown to nobody.
	was[1]["inbox_id"], was[1]["url"] = nil, "https://n8n.example/hook"
	if fmt.Sprint(is) != fmt.Sprint(was) {
		t.Errorf("imported is %v\nwant        %v", is, was)
	}
}
