package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// insertFor inserts $2 events of account $1.
const insertFor = `INSERT INTO outbox.events (account_id, event, payload) SELECT $1, 'message_created', json_build_object('id', i) FROM generate_series(1, $2) i`

// awaitConnection waits until a database takes connections again.
func awaitConnection(t *testing.T, db *sql.DB) {
	t.Helper()
	until(t, "a connection", func() (bool, string) {
		err := db.PingContext(t.Context())
		return err == nil, fmt.Sprint(err)
	})
}

// cloneBeside makes a clone by TEMPLATE.
func cloneBeside(t *testing.T, db *pgtest.DB) *pgtest.DB {
	t.Helper()
	admin, err := sql.Open("postgres", db.Server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	dsn, err := url.Parse(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	original := strings.TrimPrefix(dsn.Path, "/")
	dsn.Path += "_copy"
	db.SQL.SetMaxIdleConns(0) // CREATE DATABASE wants its template alone
	until(t, "the clone", func() (bool, string) {
		_, err := admin.ExecContext(t.Context(), fmt.Sprintf(`CREATE DATABASE %s_copy TEMPLATE %s`, original, original))
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() {
		_, _ = admin.ExecContext(context.WithoutCancel(t.Context()), fmt.Sprintf(`DROP DATABASE %s_copy WITH (FORCE)`, original))
	})
	clone := &pgtest.DB{DSN: dsn.String(), Server: db.Server}
	if clone.SQL, err = sql.Open("postgres", clone.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clone.SQL.Close() })
	return clone
}

// TestAdopt is the way of a clone: a relay waits and says why, an operator looks
// and adopts, two of them at once, and the relay goes on; it is killed while it
// routes what was found.
func TestAdopt(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	c := newCLI(t, db.DSN)
	if out := c.ok("adopt", "--yes"); !strings.Contains(out, "Nothing needs adopting") {
		t.Errorf("a new database: %s", out)
	}
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 1)
	p.signal(syscall.SIGTERM)
	run(t, db.SQL, insertFor, 1, 20)
	run(t, db.SQL, insertFor, 2, 8000) // nobody wants them
	run(t, db.SQL, `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES (1, 1, 0, 9, 'r', now() + interval '1 day', 1, 0)`)
	if out := c.ok("adopt", "--yes"); !strings.Contains(out, "Nothing needs adopting") {
		t.Errorf("a used database: %s", out)
	}

	clone := cloneBeside(t, db)
	p = startProcess(t, clone.DSN, "serve", "--allow-unsafe")
	p.awaitProblem(t, "outrider adopt")
	if n := query[int](t, clone.SQL, `SELECT count(*) FROM relay.relays`); n != 1 {
		t.Errorf("%d relays are registered: one began on the clone", n)
	}
	newCLI(t, asRole(t, clone, "relaying", "outrider_relay")).fails(exitFailed, []string{"lacks rights", "GRANT outrider_operator TO"}, "adopt", "--yes")
	c = newCLI(t, asRole(t, clone, "operating", "outrider_operator"))
	c.fails(exitUsage, []string{"give --yes"}, "adopt")
	name := query[string](t, clone.SQL, `SELECT current_database()`)
	c.asks, c.in = true, strings.TrimSuffix(name, "_copy")+"\n"
	r := c.run("adopt")
	for _, text := range []string{
		"This is database  " + name + ", oid ", "Its history is of " + strings.TrimSuffix(name, "_copy") + ", oid ", "The newest batch  1, routed by relay 1 at ",
		"events that no relay has routed: 8,020.", "or a paused webhook: 1.", "may be sent again",
	} {
		if !strings.Contains(r.out, text) {
			t.Errorf("it does not show %q:\n%s", text, r.out)
		}
	}
	if r.code != exitFailed || !strings.Contains(r.err, "nothing was adopted") || strings.Contains(r.out, "not begun") {
		t.Errorf("exit %d: %s%s", r.code, r.err, r.out)
	}
	if n := len(receiver.all()); n != 1 || !query[bool](t, clone.SQL, `SELECT relay.database_changed()`) {
		t.Fatalf("%d POSTs, want 1, or it is adopted", n)
	}

	var both sync.WaitGroup
	results := make([]result, 2)
	for i := range results {
		one := newCLI(t, c.env["OUTRIDER_DATABASE_URL"])
		both.Go(func() { results[i] = one.run("adopt", "--yes") })
	}
	both.Wait()
	adopted := 0
	for _, r := range results {
		if r.code != exitDone {
			t.Errorf("exit %d: %s%s", r.code, r.err, r.out)
		}
		adopted += strings.Count(r.out, "is adopted")
	}
	if adopted != 1 {
		t.Errorf("%d of two say that they adopted it: %+v", adopted, results)
	}
	until(t, "the routing", func() (bool, string) {
		n := query[int](t, clone.SQL, `SELECT count(*) FROM relay.log WHERE webhook_id = 0`)
		return n > 1, fmt.Sprint(n)
	})
	p.signal(syscall.SIGKILL)
	run(t, clone.SQL, insertFor, 1, 3)
	p = startProcess(t, clone.DSN, "serve", "--allow-unsafe")
	p.awaitReady(t)
	awaitSucceeded(t, clone.SQL, 24)
	until(t, "the routing of all", func() (bool, string) {
		n := query[int](t, clone.SQL, `SELECT count(*) FROM audit.events WHERE routing = 'waiting'`)
		return n == 0, fmt.Sprint(n)
	})
	if n := query[int](t, clone.SQL, `SELECT count(*) FROM relay.log WHERE webhook_id = 0`); n != 8024 {
		t.Errorf("%d events are routed, want 8024", n)
	}
	checkRecord(t, clone.SQL, receiver.all())
	if out := c.ok("adopt", "--yes"); !strings.Contains(out, "Nothing needs adopting") {
		t.Error(out)
	}
	if by := query[string](t, clone.SQL, `SELECT string_agg(coalesce(adopted_by, '-'), ' ' ORDER BY since) FROM relay.identity`); !strings.HasPrefix(by, "- operating_") {
		t.Errorf("it was adopted by %q", by)
	}
}

// TestAdoptDoesNothingWhileARelayWorks: then somebody is mistaken.
func TestAdoptDoesNothingWhileARelayWorks(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	p.awaitReady(t)
	until(t, "a sign of life", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(*) FROM relay.heartbeats`)
		return n > 0, fmt.Sprint(n)
	})
	// Its connections were made before, and stay.
	run(t, db.SQL, `INSERT INTO relay.identity (system_identifier, database_oid, database_name) VALUES (1, 1, 'other')`)
	r := newCLI(t, db.DSN).run("adopt", "--yes")
	if r.code != exitFailed || !strings.Contains(r.err, "nothing was adopted: a relay runs: relay 1 was at work") || !strings.Contains(r.err, "stop outrider serve") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
}

// TestAnUpgradedDatabaseIsAdopted gives a server another system identifier
// under a running relay, as pg_upgrade does.
func TestAnUpgradedDatabaseIsAdopted(t *testing.T) {
	t.Parallel()
	server := pgtest.NewWholeServer(t)
	db := pgtest.NewOn(t, server)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, insertFor, 1, 5)
	awaitSucceeded(t, db.SQL, 5)
	pgtest.SetSystemIdentifier(t, server)
	awaitConnection(t, db.SQL)
	run(t, db.SQL, insertFor, 1, 5)
	p.awaitProblem(t, "outrider adopt")
	if answer, _, ok := p.ready(t); !ok || answer.State != "starting" {
		t.Errorf("it answers %+v", answer)
	}
	if n := len(receiver.all()); n != 5 {
		t.Errorf("%d POSTs were made, want 5", n)
	}
	until(t, "the adoption", func() (bool, string) { // the sign of life of before counts for 10 s
		r := newCLI(t, db.DSN).run("adopt", "--yes")
		return r.code == exitDone, r.err
	})
	awaitSucceeded(t, db.SQL, 10)
	p.awaitReady(t)
	p.signal(syscall.SIGTERM)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	checkRecord(t, db.SQL, receiver.all())
}

// asRelaying is the URL of a database for the role relaying.
func asRelaying(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("relaying", "hunter2hunter2")
	return u.String()
}

// TestARunningRelayMeetsACopy: its connections are lost, and come back to a
// restored copy, while the original is still there.
func TestARunningRelayMeetsACopy(t *testing.T) {
	t.Parallel()
	old, restored := pgtest.NewWholeServer(t), pgtest.NewWholeServer(t)
	from := pgtest.NewOn(t, old)
	receiver := newCatcher(t, answer204)
	register(t, from.SQL, 1, receiver.URL, nil)
	const sameRole = `CREATE ROLE relaying LOGIN PASSWORD 'hunter2hunter2' IN ROLE outrider_relay, outrider_operator`
	run(t, from.SQL, sameRole)
	d := newLine(t, old.Port())
	p := startProcess(t, asRelaying(t, d.dsn(t, from.DSN)), "serve", "--allow-unsafe")
	run(t, from.SQL, insertFor, 1, 5)
	awaitSucceeded(t, from.SQL, 5)
	db := pgtest.Restore(t, from, restored)
	run(t, db.SQL, sameRole)
	run(t, from.SQL, insertFor, 1, 5) // only there
	awaitSucceeded(t, from.SQL, 10)
	run(t, db.SQL, insertFor, 1, 7) // only here
	before := len(receiver.all())

	d.to(restored.Port())
	p.awaitProblem(t, "outrider adopt")
	if n := len(receiver.all()); n != before {
		t.Errorf("%d POSTs were made, want %d", n, before)
	}
	if n := query[int](t, db.SQL, `SELECT count(*) FROM relay.log WHERE webhook_id = 0`); n != 5 {
		t.Errorf("%d events are routed in the copy, want 5", n)
	}
	c := newCLI(t, asRelaying(t, d.dsn(t, from.DSN)))
	until(t, "the adoption", func() (bool, string) { // a dump has the sign of life of the relay at work
		r := c.run("adopt", "--yes")
		return r.code == exitDone, r.err
	})
	awaitSucceeded(t, db.SQL, 12)
	run(t, db.SQL, insertFor, 1, 3)
	awaitSucceeded(t, db.SQL, 15)
	if n := query[int](t, from.SQL, `SELECT count(*) FROM audit.deliveries`); n != 10 {
		t.Errorf("the original has %d deliveries, want 10", n)
	}
	if n := len(receiver.all()); n != before+10 {
		t.Errorf("%d POSTs were made, want %d", n, before+10)
	}
	p.signal(syscall.SIGTERM)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// awaitNewTimeline waits until a server that recovers takes writes.
func awaitNewTimeline(t *testing.T, db *sql.DB) {
	t.Helper()
	until(t, "the end of the recovery", func() (bool, string) {
		var recovering bool
		err := db.QueryRowContext(t.Context(), `SELECT pg_is_in_recovery()`).Scan(&recovering)
		return err == nil && !recovering, fmt.Sprint(recovering, err)
	})
	run(t, db, `CHECKPOINT`)
	if n := query[int](t, db, `SELECT timeline_id FROM pg_control_checkpoint()`); n < 2 {
		t.Errorf("the timeline is %d: it is the same", n)
	}
}

// TestARelayRunsAcrossARestoreToAnEarlierTime puts the files of a server back to
// an earlier time under a running relay. The timeline changes, the identity
// does not: nothing is to be adopted, but what the relay has in memory is not so
// any more, and numbers are given anew: of events, batches, commits and relays.
func TestARelayRunsAcrossARestoreToAnEarlierTime(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	db := pgtest.NewOn(t, server)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, insertFor, 1, 5)
	awaitSucceeded(t, db.SQL, 5)
	earlier := filepath.Join(server.Dir(), "earlier")
	pgtest.Offline(t, server, func(ctx context.Context, data string) error { return pgtest.CopyFiles(ctx, data, earlier) })
	awaitConnection(t, db.SQL)
	for range 4 { // batches of their own
		n := query[int](t, db.SQL, `SELECT count(*) FROM outbox.events`)
		run(t, db.SQL, insertFor, 1, 5)
		awaitSucceeded(t, db.SQL, n+5)
	}
	pgtest.Offline(t, server, func(_ context.Context, data string) error { return pgtest.PutBack(earlier, data) })
	awaitNewTimeline(t, db.SQL)
	if n := query[int](t, db.SQL, `SELECT count(*) FROM outbox.events`); n != 5 {
		t.Fatalf("%d events are left, want 5", n)
	}
	before := len(receiver.all())
	run(t, db.SQL, insertFor, 1, 4)
	awaitSucceeded(t, db.SQL, 9)
	for n := range 3 {
		run(t, db.SQL, insertFor, 1, 6)
		awaitSucceeded(t, db.SQL, 9+6*(n+1))
	}
	p.awaitReady(t)
	if n := len(receiver.all()); n != before+22 {
		t.Errorf("%d POSTs were made, want %d", n, before+22)
	}
	if said := p.log.String(); strings.Contains(said, "outrider adopt") || !strings.Contains(said, "forgets what it knew") {
		t.Errorf("the log:\n%s", said)
	}
	if out := newCLI(t, db.DSN).ok("adopt", "--yes"); !strings.Contains(out, "Nothing needs adopting") {
		t.Error(out)
	}
	posts := receiver.all() // those of the time that was undone are on no record
	checkRecord(t, db.SQL, append(posts[:5:5], posts[before:]...))
}

// TestAFailOver leads a running relay to a server that took the place of its
// own, and lacks the last commits, as an asynchronous standby does. It is the
// same cluster: nothing is to be adopted.
func TestAFailOver(t *testing.T) {
	t.Parallel()
	primary, standby := pgtest.NewServer(t, nil), pgtest.NewServer(t, nil)
	db := pgtest.NewOn(t, primary)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	run(t, db.SQL, `CREATE ROLE relaying LOGIN PASSWORD 'hunter2hunter2' IN ROLE outrider_relay, outrider_operator`)
	d := newLine(t, primary.Port())
	p := startProcess(t, asRelaying(t, d.dsn(t, db.DSN)), "serve", "--allow-unsafe")
	run(t, db.SQL, insertFor, 1, 5)
	awaitSucceeded(t, db.SQL, 5)
	copied := filepath.Join(standby.Dir(), "copied")
	pgtest.Offline(t, primary, func(ctx context.Context, data string) error { return pgtest.CopyFiles(ctx, data, copied) })
	awaitConnection(t, db.SQL)
	run(t, db.SQL, insertFor, 1, 5)
	awaitSucceeded(t, db.SQL, 10)

	pgtest.Offline(t, standby, func(_ context.Context, data string) error { return pgtest.PutBack(copied, data) })
	u, err := url.Parse(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = fmt.Sprintf("127.0.0.1:%d", standby.Port())
	promoted, err := sql.Open("postgres", u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = promoted.Close() })
	awaitNewTimeline(t, promoted)
	d.to(standby.Port())
	before := len(receiver.all())
	run(t, promoted, insertFor, 1, 4)
	awaitSucceeded(t, promoted, 9)
	p.awaitReady(t)
	if n := query[int](t, db.SQL, `SELECT count(*) FROM audit.deliveries`); n != 10 {
		t.Errorf("the old primary has %d deliveries, want 10", n)
	}
	p.signal(syscall.SIGTERM)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := p.log.String(); strings.Contains(said, "outrider adopt") {
		t.Errorf("the log:\n%s", said)
	}
	posts := receiver.all()
	checkRecord(t, promoted, append(posts[:5:5], posts[before:]...))
}

// TestWhatAnAdoptionFoundIsToldAsNotRouted, though by their transactions the
// rows might seem to be.
func TestWhatAnAdoptionFoundIsToldAsNotRouted(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	run(t, db.SQL, insertFor, 1, 3)
	run(t, db.SQL, `INSERT INTO relay.identity (system_identifier, database_oid, database_name) VALUES (1, 1, 'other')`)
	c := newCLI(t, db.DSN)
	if out := c.ok("adopt", "--yes"); !strings.Contains(out, "events that no relay has routed: 3.") {
		t.Error(out)
	}
	c.asks, c.in = true, "another name\n"
	if r := c.run("uninstall"); !strings.Contains(r.out, "events that no relay has routed: 3.") {
		t.Errorf("%s%s", r.out, r.err)
	}
}
