package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
)

func TestVerifySignature(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "") // without a database
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	c.now = func() time.Time { return now }
	const secret, body, id = "an-opaque-secret", `{"event":"message_created","id":1}`, "msg_1"
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stamp, signed := "1782907200", now.Unix()
	args := func(more ...string) []string {
		return append([]string{
			"verify-signature", "--body", "-", "--header", "webhook-id: " + id, "--header", "webhook-timestamp:" + stamp,
			"--header", "Webhook-Signature: " + httpsend.StandardSignature([]byte(secret), id, signed, []byte(body)),
			"--header", "x-chatwoot-timestamp: " + stamp, "--header", "x-chatwoot-signature: " + httpsend.ChatwootSignature(secret, signed, []byte(body)),
		}, more...)
	}
	c.in = body
	if out := c.ok(args("--secret-file", secretFile)...); out != "✓ Standard Webhooks  verifies\n✓ Chatwoot           verifies\n" {
		t.Errorf("a genuine request gives %s", out)
	}
	c.env[secretVariable] = secret
	found := c.objects(args("--format", "json")...)
	if len(found) != 2 || !reflect.DeepEqual(found[0]["verified"], true) || members(found[0]) != "advice present problem scheme verified" {
		t.Errorf("as JSON it is %v", found)
	}
	c.in = body + "\n"
	r := c.run(args()...)
	if r.code != exitFailed || strings.Count(r.out, "the body has a line break at its end") != 2 || !strings.Contains(r.out, "  verify the raw bytes") || !strings.Contains(r.err, "the request does not verify") {
		t.Errorf("with a line break added: %+v", r)
	}
	c.in = body
	now = now.Add(time.Hour)
	if r := c.run(args()...); r.code != exitFailed || strings.Count(r.out, "too old: 1h0m0s") != 2 {
		t.Errorf("an hour later: %+v", r)
	}
	c.ok(args("--at", "1h")...)
	c.ok(args("--at", "2026-07-01T12:04:59Z")...)
	if r := c.run("verify-signature", "--body", "-", "--header", "Content-Type: application/json"); r.code != exitFailed || !strings.Contains(r.err, "the request is not signed") {
		t.Errorf("without signatures: %+v", r)
	}

	c.env[secretVariable] = ""
	c.fails(exitUsage, []string{"--body is missing", "the secret is missing: give --secret-file, or set OUTRIDER_WEBHOOK_SECRET", "--header: the value 1 is not like", `unexpected argument "x"`},
		"verify-signature", "x", "--header", "webhook-id")
	c.fails(exitFailed, []string{"no such file"}, "verify-signature", "--secret-file", secretFile, "--body", secretFile+"none", "--header", "a: b")
}
