package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

func TestAuditVerify(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL+"/hook?token=secret-of-the-url", nil)
	deliver := func(n int) {
		relay := startProcess(t, db.DSN, "serve", "--allow-unsafe")
		mustExec(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 5)`)
		until(t, "the deliveries", func() (bool, string) {
			var done int
			if err := db.SQL.QueryRowContext(t.Context(), `SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded'`).Scan(&done); err != nil {
				t.Fatal(err)
			}
			return done == n, fmt.Sprint(done)
		})
		relay.signal(syscall.SIGTERM)
	}
	deliver(5)
	c := newCLI(t, asRole(t, db, "auditor", "outrider_auditor"))
	dir := t.TempDir()
	key, heads := filepath.Join(dir, "heads.key"), filepath.Join(dir, "heads.json")

	public := strings.TrimSpace(newCLI(t, "").ok("audit", "heads", "--new-key", key))
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	c.fails(exitFailed, []string{"is there already"}, "audit", "heads", "--new-key", key)
	c.fails(exitUsage, []string{"give one of --key and --new-key"}, "audit", "heads")
	c.fails(exitFailed, []string{"has no ed25519 key"}, "audit", "heads", "--key", os.Args[0])
	if err := os.WriteFile(heads, []byte(c.ok("audit", "heads", "--key", key)), 0o600); err != nil {
		t.Fatal(err)
	}

	deliver(10)
	out := c.ok("audit", "verify")
	if !strings.Contains(out, "✓ 40 entries in ") || !strings.Contains(out, "1 change of webhooks and replays are as they were written") {
		t.Errorf("audit verify says: %s", out)
	}
	verify := []string{"audit", "verify", "--heads", heads, "--public-key", public}
	if out := c.ok(verify...); !strings.Contains(out, "The heads of 20") {
		t.Errorf("audit verify --heads says: %s", out)
	}
	got := c.object(verify...)
	if verified, _ := got["verified"].(bool); !verified || got["entries"] != 40.0 || got["changes"] != 1.0 || got["dropped_entries"] != 0.0 || got["heads_at"] == nil || len(got["flaws"].([]any)) != 0 { //nolint:errcheck,forcetypeassert // the test fails either way
		t.Errorf("audit verify --format json gives %v", got)
	}
	if some := c.object("audit", "verify", "--from", "3", "--to", "4"); some["seals"] != 2.0 || some["from_commit"] != 3.0 || some["to_commit"] != 4.0 {
		t.Errorf("of a range it gives %v", some)
	}
	if none := c.object("audit", "verify", "--until", "2020-01-01T00:00:00Z"); none["seals"] != 0.0 || none["entries"] != 0.0 || none["flaws_found"] != 0.0 {
		t.Errorf("of a range without commits it gives %v", none)
	}
	if all := c.object("audit", "verify", "--since", "1h"); all["entries"] != 40.0 {
		t.Errorf("of the last hour it gives %v", all)
	}

	c.fails(exitUsage, []string{"--heads and --public-key go together"}, "audit", "verify", "--heads", heads)
	c.fails(exitUsage, []string{`"me" is not the public key`}, "audit", "verify", "--heads", heads, "--public-key", "me")
	other := strings.TrimSpace(c.ok("audit", "heads", "--new-key", filepath.Join(dir, "other.key")))
	c.fails(exitFailed, []string{"the signature is not by this key"}, "audit", "verify", "--heads", heads, "--public-key", other)

	mustExec(t, db.SQL, `UPDATE relay.log SET data = replace(data::text, '204', '500')::json WHERE event_seq = 3 AND type = 'attempt_succeeded'`)
	r := c.run("audit", "verify")
	if r.code != exitFailed || !strings.Contains(r.out, "this entry was changed") || !strings.Contains(r.err, "the history is not as it was written: 1 flaw") || !strings.Contains(r.err, "change nothing in the database before it is copied") {
		t.Errorf("of a changed entry it says, with exit code %d: %s%s", r.code, r.out, r.err)
	}
	r = c.run("audit", "verify", "--format", "json")
	for _, want := range []string{`"verified":false`, `"event_seq":3,"webhook_id":1,"version":3,"problem":"this entry was changed, moved or added"`} {
		if !strings.Contains(r.out, want) {
			t.Errorf("of a changed entry it gives %s", r.out)
		}
	}
	mustExec(t, db.SQL, `UPDATE relay.log SET data = replace(data::text, '500', '204')::json WHERE event_seq = 3 AND type = 'attempt_succeeded'`)
	c.ok(verify...)

	mustExec(t, db.SQL, `WITH s AS (DELETE FROM relay.seals WHERE no > 0) DELETE FROM relay.log`)
	c.ok("audit", "verify") // as if nothing had ever been
	r = c.run(verify...)
	if r.code != exitFailed || !strings.Contains(r.out, "the end of the chain was cut") {
		t.Errorf("of a history that is gone it says, with exit code %d: %s%s", r.code, r.out, r.err)
	}
	// What an auditor sees of the seals tells no secret.
	for _, view := range []string{"change_seals", "seals", "entries"} {
		var n int
		if err := db.SQL.QueryRowContext(t.Context(), `SELECT count(*) FROM audit.`+view+` v WHERE v::text LIKE '%secret-of-the-url%'`).Scan(&n); err != nil || n != 0 {
			t.Errorf("audit.%s shows the query of a URL: %v", view, err)
		}
	}
}
