package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// binary builds the program once for all tests that run it as a process: as a
// release is built, which the cache has from the tests of releases and images.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outrider-test-")
	if err != nil {
		return "", err
	}
	binaryDir.Store(&dir)
	path := filepath.Join(dir, "outrider")
	build := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // also where the tests have it, for the detector
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// binaryDir is removed by TestMain.
var binaryDir atomic.Pointer[string]

// process is the program running as users run it.
type process struct {
	*exec.Cmd
	log  *syncBuffer
	done chan struct{}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startProcess runs the program with arguments and the environment of a test.
func startProcess(t *testing.T, dsn string, args ...string) *process {
	t.Helper()
	return startProcessWith(t, dsn, nil, args...)
}

// startProcessWith gives it variables besides.
func startProcessWith(t *testing.T, dsn string, env []string, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.CommandContext(context.WithoutCancel(t.Context()), path, args...), log: &syncBuffer{}, done: make(chan struct{})}
	p.Env = append(os.Environ(), "OUTRIDER_DATABASE_URL="+dsn, "OUTRIDER_ALLOW_CIDRS=127.0.0.0/8", "OUTRIDER_LISTEN=127.0.0.1:0")
	p.Env = append(p.Env, env...)
	p.Stdout, p.Stderr = p.log, p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.done) }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("log of %v:\n%s", args, p.log)
		}
	})
	return p
}

// signal sends a signal and waits for the end.
func (p *process) signal(sig syscall.Signal) {
	_ = p.Process.Signal(sig)
	<-p.done
}

// seen is a POST that arrived.
type seen struct {
	id, delivery, attempt, previous, body, path, replay string
}

// catcher remembers every POST before it answers.
type catcher struct {
	*httptest.Server
	mu    sync.Mutex
	posts []seen
}

func newCatcher(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *catcher {
	t.Helper()
	c := &catcher{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the relay died in mid-request: it is not a POST that was received
		}
		c.mu.Lock()
		c.posts = append(c.posts, seen{r.Header.Get("webhook-id"), r.Header.Get("Outrider-Delivery"), r.Header.Get("Outrider-Attempt"), r.Header.Get("Outrider-Previous-Outcome"), string(body), r.URL.Path, r.Header.Get("Outrider-Replay")})
		c.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *catcher) all() []seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]seen(nil), c.posts...)
}

// register adds a webhook.
func register(t *testing.T, db *sql.DB, account domain.AccountID, url string, change func(*domain.Settings)) {
	t.Helper()
	settings := domain.Settings{URL: url, OrderHold: domain.DefaultOrderHold, Timeout: time.Second}
	if change != nil {
		change(&settings)
	}
	secret, err := domain.ParseSecret("a-secret-for-tests")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = postgres.NewWebhooks(db).Change(t.Context(), account, 0, "test", domain.RegisterWebhook{Settings: settings, Secret: secret, Addresses: loopbackAllowed})
	if err != nil {
		t.Fatal(err)
	}
}

// loopbackAllowed lets webhooks live on this machine.
var loopbackAllowed = domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// until waits until the condition holds, for a minute at most.
func until(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	within(t, time.Minute, what, condition)
}

// within waits until the condition holds.
func within(t *testing.T, limit time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := condition()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s did not come: %s", what, state)
		}
	}
}

// TestKilledAtAnyMoment kills the relay with SIGKILL at random moments under
// load: no event is lost (P1, P3), every POST that arrived is on record (P2),
// and it comes again only where the attempt before is unknown or failed (P3).
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const kills = 20
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if rand.IntN(20) == 0 && r.Header.Get("Outrider-Attempt") == "1" { //nolint:gosec // a flaky receiver
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		// Some answers take a while, so that kills meet open attempts.
		select {
		case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond): //nolint:gosec // a varying receiver
		case <-r.Context().Done():
		}
	})
	for account := range 4 {
		register(t, db.SQL, domain.AccountID(account+1), fmt.Sprintf("%s/%d", receiver.URL, account), nil)
	}

	producing, stopProducing := context.WithCancel(t.Context())
	defer stopProducing()
	var produced sync.WaitGroup
	for producer := range 3 {
		produced.Go(func() {
			for n := 1; producing.Err() == nil; n++ {
				if _, err := db.SQL.ExecContext(context.WithoutCancel(producing), `
INSERT INTO outbox.events (account_id, event, payload, ordering_key)
VALUES (1 + $1::int % 4, 'message_created', json_build_object('n', $1::int, 'producer', $2::int), 'c' || $1::int % 7)`, n, producer); err != nil {
					t.Errorf("insert: %v", err)
					return
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-producing.Done():
				}
			}
		})
	}

	// Two relays: of what one has that is dead, the other takes over.
	relays := []*process{startProcess(t, db.DSN, "serve", "--allow-unsafe"), startProcess(t, db.DSN, "serve", "--allow-unsafe")}
	for kill := range kills {
		before := len(receiver.all())
		until(t, "a relay at work", func() (bool, string) {
			n := len(receiver.all())
			return n > before+20, fmt.Sprintf("kill %d: %d POSTs", kill, n)
		})
		victim := kill % 2 // with what it has of the work
		select {
		case <-time.After(time.Duration(rand.IntN(200)) * time.Millisecond): //nolint:gosec // a random moment
		case <-t.Context().Done():
		}
		relays[victim].signal(syscall.SIGKILL)
		relays[victim] = startProcess(t, db.DSN, "serve", "--allow-unsafe")
	}
	stopProducing()
	produced.Wait()
	// A delivery that met several kills in a row waits as the schedule says:
	// 2 min after the fourth.
	within(t, 5*time.Minute, "the end of all deliveries", func() (bool, string) {
		// By key, not by the views: asked many times a second, those would fold
		// the whole log each time.
		var left int
		var which, waiting string
		if err := db.SQL.QueryRowContext(t.Context(), `
SELECT count(*), coalesce(left(string_agg(e.seq::text, ' '), 100), ''),
       (SELECT coalesce(string_agg(concat_ws('/', w.event_seq, w.kind::text, w.at), ' '), '') FROM (SELECT * FROM relay.due ORDER BY at LIMIT 5) w)
  FROM outbox.events e
 WHERE NOT EXISTS (SELECT FROM relay.log l
        WHERE l.event_seq = e.seq AND l.webhook_id > 0 AND l.replay_id = 0 AND l.type = 'attempt_succeeded' OFFSET 0)`).Scan(&left, &which, &waiting); err != nil {
			t.Fatal(err)
		}
		return left == 0, fmt.Sprintf("%d events are not delivered: %s; due: %s", left, which, waiting)
	})
	var open, deliveries, events int
	if err := db.SQL.QueryRowContext(t.Context(), `
SELECT count(*) FILTER (WHERE status <> 'succeeded'), count(*), (SELECT count(*) FROM outbox.events) FROM audit.deliveries`).Scan(&open, &deliveries, &events); err != nil {
		t.Fatal(err)
	}
	if open != 0 || deliveries != events {
		t.Errorf("%d events have %d deliveries, of which %d did not succeed", events, deliveries, open)
	}
	for _, p := range relays {
		p.signal(syscall.SIGTERM)
		if code := p.ProcessState.ExitCode(); code != 0 {
			t.Errorf("a relay stopped with exit code %d", code)
		}
	}
	checkRecord(t, db.SQL, receiver.all())
	if out := newCLI(t, db.DSN).ok("audit", "verify"); !strings.Contains(out, "as they were written") { // also the seals of those that were killed
		t.Errorf("audit verify says: %s", out)
	}
	var unknown int
	if err := db.SQL.QueryRowContext(t.Context(), `SELECT count(*) FROM audit.attempts WHERE outcome = 'unknown'`).Scan(&unknown); err != nil {
		t.Fatal(err)
	}
	if unknown == 0 {
		t.Error("no kill met an open attempt: the test shows nothing")
	}
}

// checkRecord compares what a receiver saw with the record.
func checkRecord(t *testing.T, db *sql.DB, posts []seen) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `
SELECT a.delivery_id, a.attempt, a.outcome, coalesce(a.previous_outcome, ''), a.notification_id,
       coalesce(lag(a.outcome) OVER (PARTITION BY a.delivery_id ORDER BY a.attempt), ''), coalesce(a.error_class, '')
  FROM audit.attempts a`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	type record struct{ outcome, previous, notification, before, class string }
	records := map[string]record{}
	for rows.Next() {
		var delivery, attempt string
		var r record
		if err := rows.Scan(&delivery, &attempt, &r.outcome, &r.previous, &r.notification, &r.before, &r.class); err != nil {
			t.Fatal(err)
		}
		records[delivery+"/"+attempt] = r
		if r.previous != r.before {
			t.Errorf("attempt %s of %s says %q of the one before, which was %q", attempt, delivery, r.previous, r.before)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	bodies, sent, begun := map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, p := range posts {
		r, ok := records[p.delivery+"/"+p.attempt]
		switch {
		case !ok:
			t.Errorf("a POST is not on record: %+v", p)
		case r.notification != p.id || r.previous != p.previous:
			t.Errorf("a POST is not as recorded: %+v, %+v", p, r)
		}
		if sent[p.delivery+"/"+p.attempt] {
			t.Errorf("an attempt was sent twice: %+v", p)
		}
		sent[p.delivery+"/"+p.attempt] = true
		if body, again := bodies[p.id]; again && body != p.body || begun[p.delivery] && p.previous != "unknown" && p.previous != "failed" {
			t.Errorf("a repeat differs, or follows %q: %+v", p.previous, p)
		}
		bodies[p.id], begun[p.delivery] = p.body, true
	}
	for key, r := range records {
		// On a busy machine one may time out before the receiver has looked.
		if !sent[key] && r.outcome != "unknown" && r.class != "timeout" {
			t.Errorf("attempt %s is on record as %s, and nobody saw it", key, r.outcome)
		}
	}
}
