package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/relay"
)

// What happens when the database … fails in one way: each test has producers
// that go on inserting, relays as users run them, and ends with a verdict on all
// that was inserted, recorded and received. The README has a table of them.

const (
	databaseAccounts      = 2
	databaseHooks         = 2
	databaseConversations = 3
)

// newDatabaseTrial is a trial whose receivers are well.
func newDatabaseTrial(t *testing.T, db *pgtest.DB) *trial {
	t.Helper()
	c := newTrial(t, db, 1, databaseAccounts, databaseHooks)
	c.behave()
	return c
}

// fails counts a fault, and lets it come.
func (c *trial) fails(fault string, how func()) {
	c.t.Helper()
	c.faults[fault]++
	how()
}

// says waits until a line of the log has all of the texts.
func (p *process) says(t *testing.T, texts ...string) {
	t.Helper()
	until(t, "a line of the log with "+strings.Join(texts, " and "), func() (bool, string) {
		log := p.log.String()
		for line := range strings.Lines(log) {
			if containsAll(line, texts) {
				return true, ""
			}
		}
		return false, log
	})
}

func containsAll(line string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(line, text) {
			return false
		}
	}
	return true
}

// stops stops relays, which must end well.
func stops(t *testing.T, relays ...*process) {
	t.Helper()
	for _, p := range relays {
		p.signal(syscall.SIGTERM)
		if code := p.ProcessState.ExitCode(); code != 0 {
			t.Errorf("a relay stopped with exit code %d", code)
		}
	}
}

func halt(t *testing.T, server *devpg.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.Halt(ctx); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, server *devpg.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestTheDatabaseIsRestarted: an orderly shutdown, with a while in which there is
// no server, and one at once; then a crash.
func TestTheDatabaseIsRestarted(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	c := newDatabaseTrial(t, pgtest.NewOn(t, server))
	p := startProcess(t, c.db.DSN, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	c.goesOn(50)
	c.fails("shut down, and started again", func() {
		halt(t, server)
		p.awaitProblem(t, "refuses connections; is the server running")
		restart(t, server)
	})
	c.goesOn(50)
	p.says(t, "the relay forgets what it knew, and begins again", "the database's server was started anew")
	c.fails("restarted", func() { restart(t, server) })
	c.goesOn(50)
	c.end()
	stops(t, p)
}

// TestTheDatabaseCrashes: the whole server, then one process of it, after which
// the server ends all others and recovers.
func TestTheDatabaseCrashes(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	c := newDatabaseTrial(t, pgtest.NewOn(t, server))
	p := startProcess(t, c.db.DSN, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	for range 2 {
		c.goesOn(50)
		c.fails("crashed", func() {
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			restart(t, server)
		})
	}
	c.goesOn(50)
	p.says(t, "error", "PostgreSQL at 127.0.0.1:"+strconv.Itoa(server.Port()))
	p.says(t, "begins again", "the database's server was started anew")
	c.end()
	stops(t, p)
}

// TestBackendsAreTerminated: all of a relay's at once, again and again. No relay
// is lost by it, and no attempt.
func TestBackendsAreTerminated(t *testing.T) {
	t.Parallel()
	c := newDatabaseTrial(t, pgtest.New(t))
	p := startProcess(t, c.db.DSN, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	for range 5 {
		c.goesOn(30)
		c.fails("backends terminated", func() {
			run(t, c.db.SQL, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'outrider %'`)
		})
	}
	c.goesOn(30)
	c.end()
	stops(t, p)
	if n := query[int](t, c.db.SQL, `SELECT count(*) FROM relay.relays`); n != 1 {
		t.Errorf("%d relays were at work, want one that goes on", n)
	}
	if n := query[int](t, c.db.SQL, `SELECT count(*) FROM audit.attempts WHERE attempt > 1`); n != 0 {
		t.Errorf("%d attempts were repeats, and no relay was lost", n)
	}
}

// TestStatementsAreCancelled: whatever a relay has under way, for a while.
func TestStatementsAreCancelled(t *testing.T) {
	t.Parallel()
	c := newDatabaseTrial(t, pgtest.New(t))
	p := startProcess(t, c.db.DSN, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	c.goesOn(50)
	c.fails("statements cancelled", func() {
		cancelled := 0
		until(t, "statements to cancel", func() (bool, string) {
			for range 20 {
				cancelled += query[int](t, c.db.SQL, `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'outrider %' AND state = 'active'`)
			}
			return cancelled >= 50 && strings.Contains(p.log.String(), "the statement was cancelled"), fmt.Sprintf("%d cancelled\n%s", cancelled, p.log)
		})
	})
	p.says(t, "trying again", "the statement was cancelled", "somebody cancelled it")
	c.goesOn(50)
	c.end()
	stops(t, p)
}

// TestTheLogIsLocked: somebody holds the table for longer than a lock is waited
// for. Inserts go on.
func TestTheLogIsLocked(t *testing.T) {
	t.Parallel()
	c := newDatabaseTrial(t, pgtest.New(t))
	p := startProcess(t, c.db.DSN, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	c.goesOn(50)
	c.fails("log locked", func() {
		tx, err := c.db.SQL.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		release := c.hold() // so that some outcome is to be recorded
		c.goesOn(1)
		if _, err := tx.ExecContext(t.Context(), `LOCK TABLE relay.log IN ACCESS EXCLUSIVE MODE`); err != nil {
			t.Fatal(err)
		}
		release()
		c.inserts(50)
		p.says(t, "recording failed, trying again", "another transaction holds a lock for too long", "pg_stat_activity shows who holds it")
		p.says(t, "tailing failed, trying again", "another transaction holds a lock for too long")
		p.awaitProblem(t, "another transaction holds a lock for too long")
	})
	c.goesOn(50)
	c.end()
	stops(t, p)
	c.noneRefused()
}

// noneRefused: no insert failed.
func (c *trial) noneRefused() {
	c.t.Helper()
	c.refused.Range(func(code, err any) bool {
		c.t.Errorf("an insert failed with %v: %v", code, err)
		return true
	})
}

// TestTheNetworkFallsSilent between one of two relays and the database: what is
// sent gets lost, and nobody is told. It says so, and stops sending; the other
// one takes over. When the network is back it begins again.
func TestTheNetworkFallsSilent(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newDatabaseTrial(t, db)
	l := newLine(t, db.Server.Port())
	cut := startProcess(t, l.dsn(t, db.DSN), "serve", "--allow-unsafe", "--relay-name", "cut")
	cut.awaitShare(t, relay.ShardCount, true)
	other := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--relay-name", "other")
	other.awaitShare(t, relay.ShardCount/2, false)
	c.produce(databaseConversations)
	c.goesOn(50)
	c.fails("network silent", func() {
		l.silence(true)
		other.says(t, "another relay gave no sign of life for too long")
		other.awaitShare(t, relay.ShardCount, true)
		c.goesOn(50)
		cut.awaitProblem(t, "does not answer")
		cut.says(t, "a sign of life failed, trying again; without one no POST is begun", "does not answer")
		l.silence(false)
	})
	cut.says(t, "the relay begins again", "another relay has taken over")
	cut.awaitShare(t, relay.ShardCount/2, false)
	c.goesOn(50)
	c.end()
	stops(t, cut, other)
	c.noneRefused()
}

// TestAStandbyIsPromoted: the primary dies, and its synchronous standby takes its
// place. The relay's URL names both. Nothing is lost, and nothing is to be
// adopted. A relay at the standby waits, and says why.
func TestAStandbyIsPromoted(t *testing.T) {
	t.Parallel()
	primary, standby := pgtest.NewServer(t, nil), pgtest.NewServer(t, nil)
	db := pgtest.NewOn(t, primary)
	t.Cleanup(func() { // for whoever drops the database
		if err := primary.Restart(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	pgtest.Follow(t, standby, primary)
	awaitConnection(t, db.SQL)
	synchronous(t, db.SQL)
	at := func(change func(u *url.URL, query url.Values)) string {
		u, err := url.Parse(db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		change(u, query)
		u.RawQuery = query.Encode()
		return u.String()
	}
	both := at(func(u *url.URL, query url.Values) {
		u.Host = "127.0.0.1,127.0.0.1"
		query.Set("port", fmt.Sprintf("%d,%d", primary.Port(), standby.Port()))
		query.Set("target_session_attrs", "read-write")
	})
	alone := at(func(u *url.URL, _ url.Values) { u.Host = fmt.Sprintf("127.0.0.1:%d", standby.Port()) })
	promoted := open(t, alone)
	c := newDatabaseTrial(t, &pgtest.DB{DSN: both, SQL: open(t, both), Server: primary})

	waits := startProcess(t, alone, "serve", "--allow-unsafe", "--relay-name", "waits")
	p := startProcess(t, both, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	c.goesOn(50)
	waits.awaitProblem(t, "a standby in recovery")
	c.fails("standby promoted", func() {
		if err := primary.Kill(); err != nil {
			t.Fatal(err)
		}
		p.awaitProblem(t, "none takes writes")
		p.says(t, "none takes writes", "is the primary down, and no standby promoted yet?")
		run(t, promoted, `SELECT pg_promote()`)
		awaitNewTimeline(t, promoted)
	})
	c.goesOn(50)
	waits.awaitReady(t)
	p.awaitReady(t)
	p.says(t, "the relay forgets what it knew, and begins again")
	c.end()
	stops(t, p, waits)
	for _, one := range []*process{p, waits} {
		if said := one.log.String(); strings.Contains(said, "outrider adopt") {
			t.Errorf("there is nothing to adopt:\n%s", said)
		}
	}
}

// open opens a database as the tests do.
func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", dsn+"&binary_parameters=yes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// synchronous lets commits wait for the standby, as long as the server runs.
func synchronous(t *testing.T, primary *sql.DB) {
	t.Helper()
	run(t, primary, `ALTER SYSTEM SET synchronous_standby_names = '*'`)
	run(t, primary, `SELECT pg_reload_conf()`)
	until(t, "a synchronous standby", func() (bool, string) {
		state := query[string](t, primary, `SELECT coalesce(string_agg(state || ' ' || sync_state, ', '), '') FROM pg_stat_replication`)
		return state == "streaming sync", state
	})
	run(t, primary, `ALTER SYSTEM RESET synchronous_standby_names`) // for its next start
}

// TestEveryConnectionIsTaken by others, while a relay runs, when it has lost its
// own, and when it starts.
func TestEveryConnectionIsTaken(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{"max_connections": "30"})
	db := pgtest.NewOn(t, server)
	c := newDatabaseTrial(t, db)
	db.SQL.SetMaxOpenConns(databaseAccounts*databaseConversations + 1) // as a chat system that has its connections already
	db.SQL.SetMaxIdleConns(databaseAccounts*databaseConversations + 1)
	relaying, others := asRole(t, db, "relaying", "outrider_relay"), asRole(t, db, "others")
	p := startProcess(t, relaying, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	c.goesOn(50)

	g := &grabber{dsn: others}
	c.fails("connections taken", func() {
		g.grab(t)
		c.goesOn(50) // over the connections that it has
	})
	c.fails("connections taken, and the relay's lost", func() {
		lose := `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'outrider %'`
		until(t, "a relay without a connection", func() (bool, string) {
			n := query[int](t, db.SQL, lose)
			return n == 0 && strings.Contains(p.log.String(), "has no connection left"), fmt.Sprintf("%d of the relay's\n%s", n, p.log)
		})
		p.awaitProblem(t, "has no connection left")
		p.says(t, "has no connection left", "end idle connections, or raise max_connections")
		c.inserts(50)
	})
	c.fails("connections taken, and the relay started", func() {
		p.signal(syscall.SIGKILL)
		p = startProcess(t, relaying, "serve", "--allow-unsafe")
		p.awaitProblem(t, "has no connection left")
		p.says(t, "the relay cannot begin, trying again", "has no connection left")
		c.inserts(50)
	})
	g.release()
	p.awaitReady(t)
	c.goesOn(50)
	c.end()
	stops(t, p)
	c.noneRefused()
}

// grabber takes each connection that is free.
type grabber struct {
	dsn     string
	release func()
}

// grab takes all that are free by now, and goes on until release.
func (g *grabber) grab(t *testing.T) {
	t.Helper()
	db, err := sql.Open("postgres", g.dsn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	g.release = sync.OnceFunc(func() {
		cancel()
		group.Wait()
		_ = db.Close()
	})
	t.Cleanup(g.release)
	full := make(chan struct{})
	group.Go(func() {
		taken := sync.OnceFunc(func() { close(full) })
		var held []*sql.Conn
		for ctx.Err() == nil {
			conn, err := db.Conn(ctx)
			if err == nil {
				held = append(held, conn)
				continue
			}
			taken()
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		for _, conn := range held {
			_ = conn.Close()
		}
	})
	<-full
}

// TestPartitionsRunOut while no relay runs: rows fall into the net below the
// partitions, no insert fails, and a relay delivers them all the same. While a
// transaction is in the way it cannot extend them, and says so.
func TestPartitionsRunOut(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newDatabaseTrial(t, db)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	c.produce(databaseConversations)
	c.goesOn(50)
	stops(t, p)
	doctor := newCLI(t, db.DSN)
	look := func(check, state, text string) {
		t.Helper()
		r := doctor.run("doctor", "--format", "json", "--timeout", "30s")
		if got, found, advice := doctorFound(t, r, check); got != state || !strings.Contains(found+" → "+advice, text) {
			t.Errorf("doctor says of %s: %s: %s → %s; want %s with %q", check, got, found, advice, state, text)
		}
	}
	var inTheWay *sql.Tx
	c.fails("partitions run out", func() {
		run(t, db.SQL, `SELECT setval('outbox.events_seq_seq', (SELECT max(upper) FROM relay.partitions))`)
		c.inserts(50)
		var err error
		if inTheWay, err = db.SQL.BeginTx(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := inTheWay.ExecContext(t.Context(), insertOfTrial, 1, 99, 1, "0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"); err != nil {
			t.Fatal(err)
		}
		look("partitions", "problem", "SELECT relay.extend_partitions()")
		look("net", "warning", "they are delivered all the same")
	})
	p = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	c.goesOn(100)
	p.says(t, "a step of keeping partitions ahead failed, trying again", "another transaction holds a lock for too long")
	if answer, _, ok := p.ready(t); !ok || !answer.Ready || !strings.Contains(strings.Join(answer.Warnings, "; "), "rows fell into the net partition") {
		t.Errorf("/readyz: %+v", answer)
	}
	if err := inTheWay.Commit(); err != nil {
		t.Fatal(err)
	}
	until(t, "partitions", func() (bool, string) { // as README says: by hand, beside the relay
		var step string
		err := db.SQL.QueryRowContext(t.Context(), `SELECT relay.extend_partitions()`).Scan(&step)
		room := query[bool](t, db.SQL, `SELECT max(upper) > (SELECT last_value FROM outbox.events_seq_seq) AND bool_and(events_done AND log_done AND responses_done) FROM relay.partitions`)
		return err == nil && room && step == "nothing to do", fmt.Sprint(step, err)
	})
	look("partitions", "ok", "room for")
	look("net", "warning", "they are delivered all the same")
	c.goesOn(50)
	c.end()
	stops(t, p)
	c.noneRefused()
	if n := query[int](t, db.SQL, `SELECT count(*) FROM outbox.events_net`); n < 51 {
		t.Errorf("%d rows fell into the net, want more than 50", n)
	}
}

// TestTheDiskIsFull: tables cannot grow, then the write-ahead log cannot, of
// which the server dies. Nothing is sent that is not on record; when there is
// room again all goes on.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	const page, segment = 8 << 10, 1 << 20
	server, limit := pgtest.NewLimitedServer(t, nil)
	db := pgtest.NewOn(t, server)
	c := newDatabaseTrial(t, db)
	c.pause = time.Millisecond
	run(t, db.SQL, `
INSERT INTO outbox.events (account_id, event, payload)
SELECT 9, 'message_created', json_build_object('n', i, 'filler', repeat('x', 200)) FROM generate_series(1, 3000) i`)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	p.awaitReady(t)
	c.produce(databaseConversations)
	c.goesOn(50)

	c.fails("disk full for tables", func() {
		limit(segment + 32*page + page/2)
		restart(t, server)
		p.says(t, "tailing failed, trying again", "is full: could not extend file", "make room there")
		p.awaitProblem(t, "is full: could not extend file")
		until(t, "an insert that fails", func() (bool, string) {
			refused := ""
			c.refused.Range(func(code, err any) bool {
				refused += fmt.Sprint(code, ": ", err, "\n")
				return true
			})
			return strings.Contains(refused, "could not extend file"), refused
		})
		select {
		case <-p.done:
			t.Error("the relay ended")
		default:
		}
	})
	c.fails("disk full for the write-ahead log", func() {
		limit(0) // so that what is dirty has room: a recovery would write it, and fail
		restart(t, server)
		run(t, db.SQL, `CHECKPOINT`)
		run(t, db.SQL, `SELECT pg_switch_wal()`)
		limit(segment / 2)
		restart(t, server)
		until(t, "a use of the write-ahead log", func() (bool, string) {
			_, err := db.SQL.ExecContext(t.Context(), `SELECT pg_logical_emit_message(false, 'test', repeat('x', 20000))`)
			return strings.Contains(server.LogTail(500), "PANIC"), fmt.Sprint(err)
		})
		p.awaitProblem(t, "refuses connections")
		until(t, "the server's end", func() (bool, string) {
			// Each try to connect since the PANIC is a line as well.
			log := server.LogTail(100)
			_, since, failed := strings.Cut(log, "startup process failure")
			return failed && strings.Contains(since, "database system is shut down"), log
		})
		limit(0)
		restart(t, server)
	})
	c.goesOn(200)
	c.end()
	stops(t, p)
}
