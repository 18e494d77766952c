package main

import (
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// TestRetentionKilledAtAnyMoment: relays that serve with ages are killed again
// and again, until one comes to the end. What is erased is erased once, as a
// whole, and on record; nothing that was open is left hanging.
func TestRetentionKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://crm.example.com/hook")
	s := old(t, db, tracedID)
	// Deliveries of the same partition that wait for their next attempt.
	for replay := domain.ReplayID(1); replay <= 300; replay++ {
		s.delivered(1, replay, 7, domain.Scheduled{At: storyStart, Deadline: after(1000 * day), WebhookVersion: 1})
	}
	mustExec(t, db.SQL, `
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT 1, 1, i, 1, 'r', now() + interval '1 hour', i, 0 FROM generate_series(1, 300) i`)
	count := func(query string) (n int) {
		t.Helper()
		if err := db.SQL.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for records := 1; count(`SELECT count(*) FROM pg_class WHERE oid = to_regclass('relay.log_0')`) == 1; records++ {
		p := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--retain-payloads", "30d", "--retain-log", "60d")
		until(t, "another step, or the end", func() (bool, string) {
			n := count(`SELECT count(*) FROM relay.retentions`)
			return n >= records || count(`SELECT count(*) FROM pg_class WHERE oid = to_regclass('relay.log_0')`) == 0, p.log.String()
		})
		p.signal(syscall.SIGKILL)
	}
	if n := count(`SELECT count(*) FROM relay.due`); n != 0 {
		t.Errorf("%d deliveries still wait", n)
	}
	if n := count(`SELECT count(*) FROM (SELECT FROM audit.retentions WHERE action IN ('erased', 'dropped') GROUP BY storage, action HAVING count(*) <> 1) x`); n != 0 {
		t.Errorf("%d things were done more than once", n)
	}
	if n := count(`SELECT count(*) FROM audit.retentions WHERE action = 'erased'`); n != 3 {
		t.Errorf("%d tables were erased, want 3", n)
	}
	for _, table := range []string{"outbox.events", "relay.log", "relay.responses"} {
		if n := count(`SELECT count(*) FROM ` + table); n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
	}
}
