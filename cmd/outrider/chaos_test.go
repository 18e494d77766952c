package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// What make chaos sets; the defaults are those of make test.
var (
	chaosSeed = flag.Uint64("chaos.seed", 0, "the seed of the faults; 0 for another one each time")
	chaosRuns = flag.Uint64("chaos.runs", 1, "how many runs, with the seeds that follow")
	chaosTime = flag.Duration("chaos.time", 20*time.Second, "how long there are faults in each")
)

const (
	chaosRelays        = 3
	chaosAccounts      = 4
	chaosHooks         = 4 // of each account
	chaosConversations = 12
	chaosRoom          = 16 // in flight, of one relay
)

// chaos is a run: a trial with relays that each reach the server by a line of
// their own.
type chaos struct {
	*trial
	rand   *rand.Rand
	server *devpg.Server
	relays [chaosRelays]*process
	lines  [chaosRelays]*line
}

// TestChaos lets relays, the database and the network between them fail at
// random, and then asks for all that the promises say: see trial.verdict. A seed
// gives the same faults at the same times again.
func TestChaos(t *testing.T) {
	t.Parallel()
	first := *chaosSeed
	if first == 0 {
		first = rand.Uint64() >> 32 //nolint:gosec // a short one is easier to copy
	}
	var all verdict
	for seed := first; seed < first+*chaosRuns; seed++ {
		t.Run(fmt.Sprintf("SEED=%d", seed), func(t *testing.T) { all.add(runChaos(t, seed)) })
	}
	t.Logf("the verdict of all:\n%s", &all)
}

func runChaos(t *testing.T, seed uint64) verdict {
	t.Helper()
	c := &chaos{rand: rand.New(rand.NewPCG(seed, 0)), server: pgtest.NewServer(t, nil)} //nolint:gosec // it is to be repeatable
	c.trial = newTrial(t, pgtest.NewOn(t, c.server), seed, chaosAccounts, chaosHooks)
	for i := range c.relays {
		c.lines[i] = newLine(t, c.server.Port())
		c.start(i)
	}
	c.produce(chaosConversations)
	for end := time.Now().Add(*chaosTime); time.Now().Before(end); {
		c.wait(time.Duration(300+c.rand.IntN(1200)) * time.Millisecond)
		c.fault()
	}
	c.stop()
	c.calm()
	return c.verdict()
}

// start starts a relay. The last one has so little room in flight that attempts
// wait for it.
func (c *chaos) start(i int) {
	args := []string{"serve", "--allow-unsafe", "--relay-name", fmt.Sprintf("relay-%d", i)}
	if i == chaosRelays-1 {
		args = append(args, "--max-in-flight", strconv.Itoa(chaosRoom))
	}
	c.relays[i] = startProcess(c.t, c.lines[i].dsn(c.t, c.db.DSN), args...)
}

// fault lets something fail.
func (c *chaos) fault() {
	i := c.rand.IntN(chaosRelays)
	long := time.Duration(c.rand.IntN(5500)) * time.Millisecond
	var name string
	switch n := c.rand.IntN(100); {
	case n < 25:
		name = "relay killed"
		c.relays[i].signal(syscall.SIGKILL)
		c.start(i)
	case n < 40:
		name = "relay stopped in an orderly way"
		_ = c.relays[i].Process.Signal(syscall.SIGTERM)
		old := c.relays[i]
		c.start(i)
		c.t.Cleanup(func() { <-old.done })
	case n < 55:
		name = "relay suspended"
		_ = c.relays[i].Process.Signal(syscall.SIGSTOP)
		c.wait(long)
		_ = c.relays[i].Process.Signal(syscall.SIGCONT)
	case n < 67:
		name = "network silent"
		c.lines[i].silence(true)
		c.wait(long)
		c.lines[i].silence(false)
	case n < 77:
		name = "connections reset"
		c.lines[i].reset()
	case n < 85:
		name = "backends terminated"
		c.try(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'outrider %' AND random() < 0.5`)
	case n < 92:
		name = "statements cancelled"
		c.try(`SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'outrider %' AND state = 'active'`)
	case n < 96:
		name = "table locked"
		c.lock(long / 4)
	case n < 98:
		name = "database restarted"
		c.restart(func(ctx context.Context) error { return c.server.Restart(ctx) })
	default:
		name = "database crashed"
		c.restart(func(ctx context.Context) error {
			if err := c.server.Kill(); err != nil {
				return err
			}
			return c.server.Restart(ctx)
		})
	}
	c.faults[name]++
}

// try runs a statement; where the database does not answer, that is a fault too.
func (c *chaos) try(query string) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	_, _ = c.db.SQL.ExecContext(ctx, query)
}

// lock holds a table that all relays need.
func (c *chaos) lock(d time.Duration) {
	tx, err := c.db.SQL.BeginTx(c.t.Context(), nil)
	if err != nil {
		return
	}
	defer func() { _ = tx.Rollback() }()
	table := []string{"relay.due", "relay.log", "relay.slots", "relay.batches", "relay.relays", "relay.webhooks"}[c.rand.IntN(6)]
	if _, err := tx.ExecContext(c.t.Context(), `SET LOCAL lock_timeout = '500ms'; LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`); err == nil {
		c.wait(d)
	}
}

func (c *chaos) restart(how func(context.Context) error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	if err := how(ctx); err != nil {
		c.t.Fatalf("restart the database: %v", err)
	}
}

// calm lets all that was begun come to its end. Retries that are due only in
// minutes are made due: relays that start read them.
func (c *chaos) calm() {
	c.behave()
	for _, l := range c.lines {
		l.silence(false)
	}
	until(c.t, "a database that answers", func() (bool, string) {
		err := c.db.SQL.PingContext(c.t.Context())
		return err == nil, fmt.Sprint(err)
	})
	for round := 0; ; round++ {
		if left := c.left(); left == 0 {
			return
		} else if round == 10 {
			c.t.Fatalf("%d deliveries are not finished", left)
		}
		for i := range c.relays {
			c.relays[i].signal(syscall.SIGTERM)
		}
		run(c.t, c.db.SQL, `UPDATE relay.due SET at = now() WHERE kind = 'r' AND at > now()`)
		for i := range c.relays {
			c.start(i)
		}
		for calm := 0; calm < 100 && c.left() > 0; calm++ {
			c.wait(100 * time.Millisecond)
		}
	}
}

// chaosPost is a POST that arrived.
type chaosPost struct {
	seen
	at time.Time
}

// chaosReceiver is all receivers in one. Of an account's webhooks the first is
// well, the second fails now and then, the third is slow and sometimes too slow,
// and the fourth does not answer until it is to behave.
type chaosReceiver struct {
	*httptest.Server
	mu    sync.Mutex
	rand  *rand.Rand
	posts []chaosPost
	calm  bool
	held  chan struct{} // until it is closed no POST is answered
}

func newChaosReceiver(t *testing.T, seed uint64) *chaosReceiver {
	t.Helper()
	r := &chaosReceiver{rand: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // it is to be repeatable
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

func (r *chaosReceiver) behave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calm = true
}

// hold lets no POST that comes be answered until release.
func (r *chaosReceiver) hold() (release func()) {
	held := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held = nil
		close(held)
	}
}

func (r *chaosReceiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // its relay died in the middle of it: it did not arrive
	}
	h := req.Header
	post := chaosPost{seen{h.Get("webhook-id"), h.Get("Outrider-Delivery"), h.Get("Outrider-Attempt"), h.Get("Outrider-Previous-Outcome"), string(body), req.URL.Path, ""}, time.Now()}
	r.mu.Lock()
	r.posts = append(r.posts, post)
	pause, status, cut := time.Duration(0), http.StatusNoContent, false
	if !r.calm {
		n := r.rand.IntN(1000)
		switch req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:] {
		case "1":
			pause = time.Duration(n%20) * time.Millisecond
			if n < 30 {
				status = http.StatusServiceUnavailable
			}
			cut = n > 980
		case "2":
			pause = time.Duration(n) * 200 * time.Microsecond
			if n < 10 {
				pause = 2 * time.Second // beyond the timeout
			}
		case "3":
			pause = time.Minute
		}
	}
	held := r.held
	r.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-req.Context().Done():
			return
		}
	}
	select {
	case <-time.After(pause):
	case <-req.Context().Done():
		return
	}
	if cut {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	w.WriteHeader(status)
}

func (r *chaosReceiver) arrived() []chaosPost {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]chaosPost(nil), r.posts...)
}
