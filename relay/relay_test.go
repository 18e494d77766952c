package relay_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// post is a POST that the receiver saw.
type post struct {
	path, webhookID, delivery, previous, replay, event string
	attempt                                            int
	body                                               string
	at                                                 time.Time
}

// receiver is an HTTP server that remembers what it got.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	posts []post
	// answer decides by path; nil answers 204.
	answer map[string]http.HandlerFunc
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{answer: map[string]http.HandlerFunc{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

// on sets the answer of a path.
func (r *receiver) on(path string, f http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer[path] = f
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	*req = *req.WithContext(context.WithValue(req.Context(), bodyKey{}, string(body)))
	attempt, _ := strconv.Atoi(req.Header.Get("Outrider-Attempt"))
	r.mu.Lock()
	r.posts = append(r.posts, post{
		path: req.URL.Path, webhookID: req.Header.Get("webhook-id"), delivery: req.Header.Get("Outrider-Delivery"),
		previous: req.Header.Get("Outrider-Previous-Outcome"), replay: req.Header.Get("Outrider-Replay"),
		event: req.Header.Get("Outrider-Event"), attempt: attempt, body: string(body), at: time.Now(),
	})
	answer := r.answer[req.URL.Path]
	r.mu.Unlock()
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, req)
}

type bodyKey struct{}

// last gives the body of a request in its handler.
func (r *receiver) last(req *http.Request) string {
	body, _ := req.Context().Value(bodyKey{}).(string)
	return body
}

// got gives the POSTs to a path.
func (r *receiver) got(path string) []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []post
	for _, p := range r.posts {
		if path == "" || p.path == path {
			got = append(got, p)
		}
	}
	return got
}

// bench is a database, a receiver and what a test does with them.
type bench struct {
	t        *testing.T
	db       *sql.DB
	dsn      string
	receiver *receiver
	webhooks *postgres.Webhooks
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db := pgtest.New(t)
	return &bench{t, db.SQL, db.DSN, newReceiver(t), postgres.NewWebhooks(db.SQL)}
}

var loopback = domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// webhook registers a webhook at a path of the receiver.
func (b *bench) webhook(account domain.AccountID, path string, change func(*domain.Settings)) domain.Webhook {
	b.t.Helper()
	settings := domain.Settings{URL: b.receiver.URL + path, OrderHold: domain.DefaultOrderHold}
	if change != nil {
		change(&settings)
	}
	secret, err := domain.ParseSecret("a-secret-for-tests")
	if err != nil {
		b.t.Fatal(err)
	}
	hook, _, err := b.webhooks.Change(b.t.Context(), account, 0, "test", domain.RegisterWebhook{Settings: settings, Secret: secret, Addresses: loopback})
	if err != nil {
		b.t.Fatal(err)
	}
	return hook
}

func (b *bench) command(hook domain.Webhook, command domain.WebhookCommand) {
	b.t.Helper()
	if _, _, err := b.webhooks.Change(b.t.Context(), hook.AccountID, hook.ID, "test", command); err != nil {
		b.t.Fatal(err)
	}
}

// publish inserts events of a conversation, numbered from first.
func (b *bench) publish(account domain.AccountID, conversation string, first, n int) {
	b.t.Helper()
	b.exec(`INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT $1, 'message_created', json_build_object('id', i, 'conversation', $2::text), $2::text FROM generate_series($3::int, $4::int) i`,
		int64(account), conversation, first, first+n-1)
}

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.t.Context(), query, args...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

func scan[T any](b *bench, query string, args ...any) T {
	b.t.Helper()
	var v T
	if err := b.db.QueryRowContext(b.t.Context(), query, args...).Scan(&v); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
	return v
}

// running is a relay at work in this process.
type running struct {
	relay *relay.Relay
	stop  func()
	// cut says that it may be cut off from the database: then it may end anyhow.
	cut atomic.Bool
}

// quick is a retry policy for tests.
var quick = domain.RetryPolicy{Delays: []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}, Spread: 0.1, RetryAfterCap: time.Second}

// start runs a relay on the database until stop.
func (b *bench) start(change func(*relay.Config)) *running {
	b.t.Helper()
	db, err := postgres.OpenRelay(b.dsn, "test relay", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		b.t.Fatal(err)
	}
	db.SetMaxOpenConns(12)
	db.SetMaxIdleConns(12)
	sender, err := httpsend.New(httpsend.Config{UserAgentVersion: "test", Addresses: loopback})
	if err != nil {
		b.t.Fatal(err)
	}
	store := postgres.NewStore(db)
	logger := slog.New(slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	config := relay.Config{
		Name: "test", Version: "test", DB: db, Chain: postgres.NewChain(db), Log: postgres.NewLog(db), Store: store,
		Webhooks: postgres.NewWebhooks(db), Leases: postgres.NewLeases(db), Replays: postgres.NewReplays(db), Projection: postgres.NewProjection(db), Sender: sender,
		Breaker:    domain.BreakerPolicy{Failures: -1}, // most tests are about what fails again and again
		Partitions: store.ExtendPartitions, Policy: quick, Logger: logger, Notices: relay.NewNotices(),
	}
	if change != nil {
		change(&config)
	}
	r, err := relay.New(config)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	started := &running{relay: r}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil && !started.cut.Load() {
			b.t.Errorf("run the relay: %v", err)
		}
	})
	wg.Go(func() {
		if err := postgres.Listen(ctx, b.dsn, config.Notices, logger); err != nil {
			b.t.Errorf("listen: %v", err)
		}
	})
	started.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		sender.CloseIdle()
		if err := db.Close(); err != nil {
			b.t.Errorf("close the pool: %v", err)
		}
	})
	b.t.Cleanup(started.stop)
	return started
}

// eventually waits until the condition holds.
func (b *bench) eventually(what string, condition func() (bool, string)) {
	b.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := condition()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			b.t.Fatalf("%s did not come: %s", what, state)
		}
	}
}

// deliveries counts deliveries by status.
func (b *bench) deliveries() map[string]int {
	b.t.Helper()
	rows, err := b.db.QueryContext(b.t.Context(), `SELECT status, count(*) FROM audit.deliveries GROUP BY status`)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	counts := map[string]int{}
	for rows.Next() {
		var status string
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			b.t.Fatal(err)
		}
		counts[status] = n
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return counts
}

// awaitStatus waits until that many deliveries have the status.
func (b *bench) awaitStatus(status string, n int) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d deliveries %s", n, status), func() (bool, string) {
		counts := b.deliveries()
		return counts[status] >= n, fmt.Sprint(counts)
	})
}

// numbers are the payloads' ids in the order in which they arrived.
func numbers(t *testing.T, posts []post) []int {
	t.Helper()
	ids := make([]int, len(posts))
	for i, p := range posts {
		var payload struct{ ID int }
		if err := json.Unmarshal([]byte(p.body), &payload); err != nil {
			t.Fatalf("body %q: %v", p.body, err)
		}
		ids[i] = payload.ID
	}
	return ids
}

func TestAnInsertedRowIsPostedAndOnRecord(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(7, "/hook", nil)
	b.start(nil)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (7, 'message_created', '{"id": 1, "conversation": {"id": 12}}')`)
	b.awaitStatus("succeeded", 1)
	posts := b.receiver.got("/hook")
	if len(posts) != 1 {
		t.Fatalf("the receiver saw %d POSTs, want 1", len(posts))
	}
	if want := `{"id": 1, "conversation": {"id": 12},"event":"message_created"}`; posts[0].body != want {
		t.Errorf("body is %s, want %s", posts[0].body, want)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'succeeded' AND status_code = 204 AND notification_id = $1 AND delivery_id = $2`,
		posts[0].webhookID, posts[0].delivery); n != 1 {
		t.Errorf("the attempt is not on record as it was sent")
	}
}
