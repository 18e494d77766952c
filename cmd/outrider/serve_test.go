package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/relay"
)

var listenLine = regexp.MustCompile(`listen=(\S+)`)

// ready asks a process whether it is ready; ok is false while it does not
// answer.
func (p *process) ready(t *testing.T) (answer readiness, status int, ok bool) {
	t.Helper()
	match := listenLine.FindStringSubmatch(p.log.String())
	if match == nil {
		return answer, 0, false
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+match[1]+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer, 0, false
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatalf("the answer of /readyz: %v", err)
	}
	return answer, response.StatusCode, true
}

// awaitReady waits until the process is ready.
func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	until(t, "a ready relay", func() (bool, string) {
		answer, status, ok := p.ready(t)
		return ok && status == http.StatusOK && answer.Ready, fmt.Sprintf("%d %+v\n%s", status, answer, p.log)
	})
}

// awaitShare waits until the process has so many shards, and tails or does not.
func (p *process) awaitShare(t *testing.T, shards int, tails bool) {
	t.Helper()
	until(t, fmt.Sprintf("a relay with %d shards", shards), func() (bool, string) {
		answer, _, ok := p.ready(t)
		return ok && answer.Ready && answer.Shards == shards && answer.Tails == tails, fmt.Sprintf("%+v\n%s", answer, p.log)
	})
}

// awaitShards waits until the process has so many shards, whether it tails or not.
func (p *process) awaitShards(t *testing.T, shards int) {
	t.Helper()
	until(t, fmt.Sprintf("a relay with %d shards", shards), func() (bool, string) {
		answer, _, ok := p.ready(t)
		return ok && answer.Ready && answer.Shards == shards, fmt.Sprintf("%+v\n%s", answer, p.log)
	})
}

// awaitProblem waits until the process says why it is not ready, also in its log.
func (p *process) awaitProblem(t *testing.T, want string) {
	t.Helper()
	until(t, "the problem "+want, func() (bool, string) {
		answer, status, ok := p.ready(t)
		said := strings.Join(answer.Problems, "; ")
		return ok && status == http.StatusServiceUnavailable && strings.Contains(said, want), fmt.Sprintf("%d %q\n%s", status, said, p.log)
	})
	until(t, "a log that says "+want, func() (bool, string) {
		log := p.log.String()
		return strings.Contains(log, want), log
	})
}

func query[T any](t *testing.T, db *sql.DB, text string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRowContext(t.Context(), text, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func run(t *testing.T, db *sql.DB, text string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func awaitSucceeded(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d deliveries", n), func() (bool, string) {
		got := query[int](t, db, `SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded'`)
		return got == n, fmt.Sprint(got)
	})
}

const insertOne = `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{"id": 1}')`

func answer204(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func TestServeWaitsForTheDatabaseAndCarriesOnWhenItReturns(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{"fsync": "on"})
	db := pgtest.NewOn(t, server)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, db.DSN, "serve")
	p.awaitProblem(t, "refuses connections")
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.awaitReady(t)
	run(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 1)
	for round := range 3 { // down later: what was committed is delivered once it is back
		run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 50)`)
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, "a connection", func() (bool, string) {
			err := db.SQL.PingContext(t.Context())
			return err == nil, fmt.Sprint(err)
		})
		awaitSucceeded(t, db.SQL, 1+50*(round+1))
	}
	p.signal(syscall.SIGTERM)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	checkRecord(t, db.SQL, receiver.all())
}

func TestServeSaysWhatIsWrongWithTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{"fsync": "on"})
	for name, test := range map[string]struct {
		prepare string // in the database
		as      string // user, without password
		want    string
	}{
		"not migrated": {`DROP SCHEMA relay, outbox, audit CASCADE`, "", "outrider migrate"},
		"older":        {`DELETE FROM relay.schema_migrations WHERE version_id > 3`, "", "outrider migrate"},
		"read-only":    {`ALTER DATABASE %s SET default_transaction_read_only = on`, "", "read-only"},
		"no rights":    {`CREATE ROLE nobody_special LOGIN PASSWORD 'p'`, "nobody_special", "GRANT outrider_relay TO"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.NewOn(t, server)
			dsn, err := url.Parse(db.DSN)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(test.prepare, "%s") {
				test.prepare = fmt.Sprintf(test.prepare, strings.TrimPrefix(dsn.Path, "/"))
			}
			run(t, db.SQL, test.prepare)
			if test.as != "" {
				dsn.User = url.UserPassword(test.as, "p")
			}
			startProcess(t, dsn.String(), "serve").awaitProblem(t, test.want)
		})
	}
}

func TestServeRefusesWhatNoWaitingMends(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t) // with fsync = off
	p := startProcess(t, db.DSN, "serve")
	<-p.done
	if code := p.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(p.log.String(), "fsync") {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	goForward(t, db.SQL)
	outgrow(t, db.SQL)
	p = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	<-p.done
	if code := p.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(p.log.String(), "newer") {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
}

func TestNoSendRoutesAndSendsNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	p.awaitShare(t, 0, true)
	if answer, _, _ := p.ready(t); !answer.NoSend || !strings.Contains(p.log.String(), "nothing is sent") {
		t.Errorf("--no-send shows neither in %+v nor in the log:\n%s", answer, p.log)
	}
	run(t, db.SQL, insertOne)
	until(t, "the routing", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(*) FROM audit.deliveries WHERE status = 'pending' AND attempt_count = 0`)
		return n == 1, fmt.Sprint(n)
	})
	p.signal(syscall.SIGTERM)
	if n := len(receiver.all()); n != 0 {
		t.Errorf("%d POSTs were made", n)
	}
	p = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	awaitSucceeded(t, db.SQL, 1)
	p.awaitShare(t, relay.ShardCount, true)
	if answer, _, _ := p.ready(t); answer.NoSend || strings.Contains(p.log.String(), "nothing is sent") {
		t.Errorf("a relay that sends says that it does not: %+v\n%s", answer, p.log)
	}
}

// TestReadmeReadiness: the README shows what /readyz answers.
func TestReadmeReadiness(t *testing.T) {
	t.Parallel()
	readme := readReadme(t)
	for _, answer := range []readiness{
		{Ready: true, State: relay.Active.String(), Shards: 32, Tails: true},
		{State: relay.Starting.String(), Problems: []string{"…"}},
	} {
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(readme, "`"+string(text)+"`") {
			t.Errorf("README.md does not show %s", text)
		}
	}
}

// TestNoSendBesideARelayThatSends: the one routes, the other sends, whoever of
// them ends first.
func TestNoSendBesideARelayThatSends(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	routes := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	routes.awaitShare(t, 0, true)
	sends := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	sends.awaitShare(t, relay.ShardCount, false)
	run(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 1)
	if n := query[int](t, db.SQL, `SELECT count(DISTINCT relay_id) FROM (SELECT relay_id FROM relay.batches WHERE no > 0 UNION SELECT relay_id FROM audit.attempts) r`); n != 2 {
		t.Errorf("%d relays routed and sent, want one for each", n)
	}
	routes.signal(syscall.SIGTERM)
	sends.awaitShare(t, relay.ShardCount, true)
	routes = startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	until(t, "one that has nothing", func() (bool, string) {
		answer, _, ok := routes.ready(t)
		return ok && answer.Ready && answer.State == relay.Standby.String() && !answer.Tails, fmt.Sprintf("%+v", answer)
	})
	sends.signal(syscall.SIGTERM)
	routes.awaitShare(t, 0, true)
	run(t, db.SQL, insertOne)
	until(t, "the routing", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(*) FROM audit.deliveries WHERE status = 'pending' AND attempt_count = 0`)
		return n == 1, fmt.Sprint(n)
	})
	if n := len(receiver.all()); n != 1 {
		t.Errorf("%d POSTs were made, want 1", n)
	}
}

func TestAStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	register(t, db.SQL, 1, receiver.URL, nil)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, insertOne)
	<-arrived
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, "the stop", func() (bool, string) { return strings.Contains(p.log.String(), "stopping"), p.log.String() })
	run(t, db.SQL, insertOne) // not taken any more
	close(release)
	<-p.done
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := query[string](t, db.SQL, `SELECT string_agg(outcome, ' ') FROM audit.attempts`); got != "succeeded" {
		t.Errorf("attempts: %s", got)
	}
	if n := query[int](t, db.SQL, `SELECT count(*) FROM relay.slots WHERE relay_id IS NOT NULL`); n != 0 {
		t.Errorf("%d slots are still owned", n)
	}
}
