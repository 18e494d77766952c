package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
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
	// chaosPause is between two inserts of a conversation's producer.
	chaosPause = 40 * time.Millisecond
)

// chaos is a run: a server, relays that each reach it by a line of their own,
// producers, and receivers that remember all they get.
type chaos struct {
	t      *testing.T
	rand   *rand.Rand
	server *devpg.Server
	db     *pgtest.DB
	relays [chaosRelays]*process
	lines  [chaosRelays]*line
	*chaosReceiver
	produced sync.Map // uuid.UUID to chaosEvent
	faults   map[string]int
}

// chaosEvent is the n-th event of a conversation of an account.
type chaosEvent struct {
	account, conversation, n int
}

// TestChaos lets relays, the database and the network between them fail at
// random, and then asks for all that the promises say: see chaosVerdict. A seed
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
	c := &chaos{
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), server: pgtest.NewServer(t, nil), //nolint:gosec // it is to be repeatable
		chaosReceiver: newChaosReceiver(t, seed), faults: map[string]int{},
	}
	c.db = pgtest.NewOn(t, c.server)
	for account := range chaosAccounts {
		for hook := range chaosHooks {
			register(t, c.db.SQL, domain.AccountID(account+1), fmt.Sprintf("%s/%d/%d", c.URL, account, hook), func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
		}
	}
	for i := range c.relays {
		c.lines[i] = newLine(t, c.server.Port())
		c.start(i)
	}
	producing, stop := context.WithCancel(t.Context())
	defer stop()
	var producers sync.WaitGroup
	for account := range chaosAccounts {
		for conversation := range chaosConversations {
			producers.Go(func() { c.produce(producing, account, conversation) })
		}
	}
	for end := time.Now().Add(*chaosTime); time.Now().Before(end); {
		c.wait(time.Duration(300+c.rand.IntN(1200)) * time.Millisecond)
		c.fault()
	}
	stop()
	producers.Wait()
	c.calm()
	return c.verdict()
}

func (c *chaos) start(i int) {
	c.relays[i] = startProcess(c.t, c.lines[i].dsn(c.t, c.db.DSN), "serve", "--allow-unsafe", "--relay-name", fmt.Sprintf("relay-%d", i))
}

func (c *chaos) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.t.Context().Done():
	}
}

// produce inserts the events of a conversation one after the other. One whose
// answer was lost is inserted again, with its id.
func (c *chaos) produce(ctx context.Context, account, conversation int) {
	for n := 1; ctx.Err() == nil; n++ {
		id := uuid.Must(uuid.NewV7())
		for {
			_, err := c.db.SQL.ExecContext(context.WithoutCancel(ctx), `
INSERT INTO outbox.events (account_id, event, payload, id, ordering_key)
VALUES ($1::int, 'message_created', json_build_object('account', $1::int, 'conversation', $2::int, 'n', $3::int), $4, 'c' || $2::int)`, account+1, conversation, n, id)
			if err == nil {
				break
			}
			if pg := (*pq.Error)(nil); errors.As(err, &pg) && pg.Code.Class() == "22" || pg != nil && pg.Code.Class() == "42" {
				c.t.Errorf("insert: %v", err)
				return
			}
			c.wait(20 * time.Millisecond)
			if c.t.Context().Err() != nil {
				return
			}
		}
		c.produced.Store(id, chaosEvent{account, conversation, n})
		select {
		case <-time.After(chaosPause):
		case <-ctx.Done():
		}
	}
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

// left counts what is not finished: events without a decision, deliveries
// without success.
func (c *chaos) left() int {
	return query[int](c.t, c.db.SQL, `
SELECT count(*) FROM outbox.events e
 WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0 OFFSET 0)
    OR EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.version = 1 AND l.webhook_id > 0
                  AND NOT EXISTS (SELECT FROM relay.log s WHERE s.event_seq = l.event_seq AND s.webhook_id = l.webhook_id AND s.type = 'attempt_succeeded' OFFSET 0) OFFSET 0)`)
}

// line is the network between a relay and the database.
type line struct {
	net.Listener
	mu     sync.Mutex
	port   int
	open   map[net.Conn]struct{}
	silent chan struct{} // closed when it is not
}

func newLine(t *testing.T, port int) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // on this machine
	if err != nil {
		t.Fatal(err)
	}
	l := &line{Listener: listener, port: port, open: map[net.Conn]struct{}{}, silent: make(chan struct{})}
	close(l.silent)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.lead(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.silence(false)
		l.reset()
		wg.Wait()
	})
	return l
}

func (l *line) lead(conn net.Conn) {
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port)) //nolint:noctx // on this machine
	if err != nil {
		_ = conn.Close()
		return
	}
	l.mu.Lock()
	l.open[conn], l.open[server] = struct{}{}, struct{}{}
	l.mu.Unlock()
	back := make(chan struct{})
	go func() { defer close(back); l.copy(conn, server) }()
	l.copy(server, conn)
	<-back
	l.mu.Lock()
	delete(l.open, conn)
	delete(l.open, server)
	l.mu.Unlock()
}

// copy passes on what comes. While the line is silent nothing gets through, and
// nobody is told.
func (l *line) copy(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		silent := l.silent
		l.mu.Unlock()
		<-silent
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (l *line) silence(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.silent:
		if on {
			l.silent = make(chan struct{})
		}
	default:
		if !on {
			close(l.silent)
		}
	}
}

// reset breaks all connections.
func (l *line) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		_ = conn.Close()
	}
}

func (l *line) dsn(t *testing.T, direct string) string {
	t.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	return u.String()
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
	r.mu.Unlock()
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

// chaosAttempt is an attempt as it is on record.
type chaosAttempt struct{ outcome, class string }

func (c *chaos) attempts() map[string]chaosAttempt {
	rows, err := c.db.SQL.QueryContext(c.t.Context(), `SELECT delivery_id::text || '/' || attempt, outcome, coalesce(error_class, '') FROM audit.attempts`)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	found := map[string]chaosAttempt{}
	for rows.Next() {
		var key string
		var a chaosAttempt
		if err := rows.Scan(&key, &a.outcome, &a.class); err != nil {
			c.t.Fatal(err)
		}
		found[key] = a
	}
	if err := rows.Err(); err != nil {
		c.t.Fatal(err)
	}
	return found
}
