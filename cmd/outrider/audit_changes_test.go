package main

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

func TestAuditChanges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a?token=1", "--name", "CRM")
	c.ok("webhook", "add", "--account", "2", "--url", "https://example.com/b")
	c.ok("webhook", "update", "1", "--timeout", "10s", "--name", "Sales")
	c.ok("webhook", "disable", "1", "--reason", "asked for")

	changes := c.objects("audit", "changes", "--format", "json")
	if len(changes) != 4 || members(changes[0]) != "account_id actor after at before change webhook_id webhook_version" || changes[0]["change"] != "disabled" || changes[3]["before"] != nil {
		t.Fatalf("the changes are %v", changes)
	}
	for filter, want := range map[string]int{"--account 1": 3, "--webhook 2": 1, "--change updated": 1, "--since 1h": 4, "--until 1h": 0, "--account 1 --webhook 2": 0} {
		if got := c.objects(append([]string{"audit", "changes", "--format", "json"}, strings.Fields(filter)...)...); len(got) != want {
			t.Errorf("%s: %d changes, want %d", filter, len(got), want)
		}
	}
	first := c.run("audit", "changes", "--limit", "3", "--format", "json")
	_, cursor, _ := strings.Cut(strings.TrimSpace(first.err), "--after ")
	if rest := c.objects("audit", "changes", "--format", "json", "--after", cursor); len(rest) != 1 || rest[0]["change"] != "registered" {
		t.Errorf("the second page is %v", rest)
	}
	table := c.ok("audit", "changes", "--webhook", "1")
	for _, text := range []string{"webhook 1 updated", "CRM → Sales", "5s → 10s", "enabled → disabled", "– → asked for", "webhook 1 registered", "https://example.com/a\n", " by "} {
		if !strings.Contains(table, text) {
			t.Errorf("%q is not in\n%s", text, table)
		}
	}
	if strings.Contains(table, "token") || strings.Contains(strings.Split(table, "registered")[0], "url") {
		t.Errorf("more is shown than what changed:\n%s", table)
	}
	if csv := c.ok("audit", "changes", "--format", "csv"); strings.Count(csv, "\n") != 5 {
		t.Errorf("the CSV is %s", csv)
	}
}

func TestAuditGaps(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	if out := c.ok("audit", "gaps"); out != "No gaps in all of the outbox.\n" {
		t.Errorf("on an empty outbox: %s", out)
	}
	var lost uuid.UUID
	for i := range 5 {
		s := insert(t, db.SQL, "message_created", uuid.New(), "")
		if i == 2 {
			lost = s.id
			continue
		}
		if i < 4 {
			s.routed(routedToNobody)
		}
	}
	// The position stands at 4: event 5 waits, and event 3 was passed over.
	mustExec(t, db.SQL, `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
VALUES (1, 0, pg_current_snapshot(), 0, 4, 4, 4, 4, 1, 4, 1, 1)`)
	auditor := newCLI(t, asRole(t, db, "auditor", "outrider_auditor"))
	r := auditor.run("audit", "gaps")
	if r.code != exitFailed || !strings.Contains(r.out, lost.String()) || strings.Count(r.out, "\n") != 2 ||
		!strings.Contains(r.err, "1 event is committed and never routed, in all of the outbox") || !strings.Contains(r.err, "outrider doctor") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
	}
	if r := auditor.run("audit", "gaps", "--format", "json", "--rows", "all"); r.code != exitFailed || strings.Count(r.out, "\n") != 1 || !strings.Contains(r.out, `"seq":3`) {
		t.Errorf("exit %d: %s", r.code, r.out)
	}
	if r := auditor.run("audit", "gaps", "--account", "2"); r.code != exitDone {
		t.Errorf("of another account: exit %d: %s%s", r.code, r.out, r.err)
	}
	if r := auditor.run("audit", "gaps", "--rows", "1"); r.code != exitDone || !strings.Contains(r.out, "No gaps from seq 4 up") {
		t.Errorf("of one row: exit %d: %s%s", r.code, r.out, r.err)
	}
}
