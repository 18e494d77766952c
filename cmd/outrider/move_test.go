package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// move is a chat system that moves over and back by the README's own blocks.
// Its producers insert all the time; what they insert the old sender sends too,
// as long as it is on for the account.
type move struct {
	t        *testing.T
	blocks   map[string]string // by marker, those of the README that are marked so
	ran      map[string]bool
	cli      *cli
	dsn      string
	db       *sql.DB
	accounts map[int]*moveAccount
	webhooks map[int]int // each account's, by account
	hooks    *moveReceiver
	watching *process // sends nothing
	recorded int64    // the last event's place of which it may have recorded a delivery
}

// moveAccount is an account's producer and its old sender, which know of each
// other: at no moment is one event half done.
type moveAccount struct {
	mu     sync.Mutex
	id     int
	n      int
	url    string
	old    bool           // the old sender is on
	outbox bool           // the chat system inserts
	events map[string]int // the number of the event with an id
}

// moveReceiver counts what came, by account and number.
type moveReceiver struct {
	*httptest.Server
	mu                   sync.Mutex
	old, fresh, replayed map[[2]int]int
	tests                int
}

func newMoveReceiver(t *testing.T) *moveReceiver {
	t.Helper()
	r := &moveReceiver{old: map[[2]int]int{}, fresh: map[[2]int]int{}, replayed: map[[2]int]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var event struct{ Account, N int }
		if err == nil && request.Header.Get("Outrider-Event") != "webhook_test" {
			err = json.Unmarshal(body, &event)
		}
		if err != nil {
			t.Errorf("a POST that cannot be read: %v, %s", err, body)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		key := [2]int{event.Account, event.N}
		switch {
		case request.Header.Get("Outrider-Event") == "webhook_test":
			r.tests++
		case request.Header.Get("Outrider-Event") == "":
			r.old[key]++
		case request.Header.Get("Outrider-Replay") == "":
			r.fresh[key]++
		default:
			r.replayed[key]++
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// count gives how many came of an account, 0 for all, from each sender.
func (r *moveReceiver) count(account int) (old, fresh, replayed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := func(came map[[2]int]int) (n int) {
		for key, times := range came {
			if account == 0 || key[0] == account {
				n += times
			}
		}
		return n
	}
	return sum(r.old), sum(r.fresh), sum(r.replayed)
}

// produce commits one event, and lets the old sender send it.
func (m *move) produce(ctx context.Context, a *moveAccount) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	payload := fmt.Sprintf(`{"account": %d, "n": %d, "conversation": {"id": %d}}`, a.id, a.n, a.n%5)
	if a.outbox {
		var id string
		err := m.db.QueryRowContext(ctx, `INSERT INTO outbox.events (account_id, event, payload) VALUES ($1, 'message_created', $2) RETURNING id`, a.id, payload).Scan(&id)
		if err != nil {
			return fmt.Errorf("the chat system's insert: %w", err)
		}
		a.events[id] = a.n
	}
	if !a.old {
		return nil
	}
	return m.send(ctx, a, payload)
}

// send is the old sender.
func (m *move) send(ctx context.Context, a *moveAccount, payload string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, strings.NewReader(payload))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("the old sender: %w", err)
	}
	return response.Body.Close()
}

// turn turns an account's old sender on or off, and gives when.
func (m *move) turn(account int, on bool) time.Time {
	m.t.Helper()
	a := m.accounts[account]
	a.mu.Lock()
	defer a.mu.Unlock()
	a.old = on
	return query[time.Time](m.t, m.db, `SELECT clock_timestamp()`)
}

// block gives the README's text for an account and the time at which its old
// sender was turned.
func (m *move) block(marker string, account int, at time.Time) string {
	m.t.Helper()
	text, ok := m.blocks[marker]
	if !ok {
		m.t.Fatalf("README.md has no block marked %q", marker)
	}
	m.ran[marker] = true
	return strings.NewReplacer(
		"postgres://reader@localhost/chatwoot", m.dsn,
		"account_id = 1", fmt.Sprintf("account_id = %d", account), "account_id => 1", fmt.Sprintf("account_id => %d", account),
		"--account 1", fmt.Sprintf("--account %d", account), "webhook test 1", fmt.Sprintf("webhook test %d", m.webhooks[account]),
		"2026-07-01 08:00:00+00", at.UTC().Format("2006-01-02 15:04:05.999999+00"), "2026-07-01T08:00:00Z", at.UTC().Format(time.RFC3339Nano),
	).Replace(text)
}

// shell runs a block's commands and gives what they print.
func (m *move) shell(marker string, account int, at time.Time) string {
	m.t.Helper()
	var printed strings.Builder
	for line := range strings.Lines(m.block(marker, account, at)) {
		printed.WriteString(m.cli.ok(shellWords(line)[1:]...))
	}
	return printed.String()
}

// nothingWaits waits as step 6 says.
func (m *move) nothingWaits(account int, at time.Time) {
	m.t.Helper()
	statement := m.block("move waiting", account, at)
	until(m.t, "the routing of all that is older", func() (bool, string) {
		n := query[int](m.t, m.db, statement)
		return n == 0, fmt.Sprintf("%d wait", n)
	})
}

// freeze stops all producers until the function that it gives is called.
func (m *move) freeze() (release func()) {
	for _, a := range m.accounts {
		a.mu.Lock()
	}
	return func() {
		for _, a := range m.accounts {
			a.mu.Unlock()
		}
	}
}

// grow waits until an account has so many events more.
func (m *move) grow(account, more int) {
	m.t.Helper()
	a := m.accounts[account]
	number := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.n
	}
	least := number() + more
	until(m.t, "more events", func() (bool, string) { n := number(); return n >= least, fmt.Sprint(n) })
}

func TestMoveOverAndBackOut(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil) // of its own: roles belong to a server, and are dropped
	root, err := sql.Open("postgres", server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	run(t, root, `CREATE DATABASE chat`)
	m := &move{t: t, blocks: map[string]string{}, ran: map[string]bool{}, dsn: server.DSN("chat"), accounts: map[int]*moveAccount{}, webhooks: map[int]int{}, hooks: newMoveReceiver(t)}
	blocks, _ := readmeBlocks(t, readReadme(t))
	for _, b := range blocks {
		if strings.HasPrefix(b.run, "move ") {
			m.blocks[b.run] = b.text
		}
	}
	if m.db, err = sql.Open("postgres", m.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.db.Close() })
	m.cli = newCLI(t, m.dsn)
	m.cli.env["OUTRIDER_ALLOW_CIDRS"] = "127.0.0.0/8"

	// 1: three accounts, of which the third never moves.
	run(t, m.db, chatwootTable)
	for id := 1; id <= 3; id++ {
		a := &moveAccount{id: id, url: fmt.Sprintf("%s/hooks/%d", m.hooks.URL, id), old: true, outbox: true, events: map[string]int{}}
		m.accounts[id] = a
		run(t, m.db, `INSERT INTO webhooks (account_id, url, name, secret) VALUES ($1, $2, 'CRM', 'hV3kQ9tZrB2mXw7cNf5pLd8s')`, id, a.url)
	}
	m.cli.ok("migrate")
	producing, stopProducing := context.WithCancel(t.Context())
	var producers sync.WaitGroup
	defer func() { stopProducing(); producers.Wait() }()
	for _, a := range m.accounts {
		producers.Go(func() {
			for producing.Err() == nil {
				if err := m.produce(context.WithoutCancel(producing), a); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-producing.Done():
				}
			}
		})
	}

	m.watch()
	relay := m.goLive()
	m.switchOver(1)
	m.switchOver(2)
	m.backOut(1)
	m.grow(1, 10)
	m.backOut(2)

	if n := query[int](t, m.db, `SELECT count(*) FROM audit.deliveries WHERE event_seq <= $1 AND replay_id = 0 AND (status <> 'cancelled' OR attempt_count > 0)`, m.recorded); n != 0 {
		t.Errorf("%d deliveries that were recorded with --no-send are not cancelled on record", n)
	}

	// What inserts goes first; the chat system goes on as before.
	for _, a := range m.accounts {
		a.mu.Lock()
		a.outbox = false
		a.mu.Unlock()
	}
	relay.signal(syscall.SIGTERM)
	if out := m.cli.ok("uninstall", "--yes"); !strings.Contains(out, "is gone from database") {
		t.Errorf("uninstall says %s", out)
	}
	installed(t, m.db, false)
	m.grow(1, 5)
	stopProducing()
	producers.Wait()
	m.checkEachCameOnce()
	for marker := range m.blocks {
		if !m.ran[marker] {
			t.Errorf("the README's block %q was not run", marker)
		}
	}
}

// watch: steps 2 to 4.
func (m *move) watch() {
	t := m.t
	t.Helper()
	if out := m.shell("move import", 1, time.Time{}); !strings.Contains(out, "Imported 3 webhooks: 3 created") {
		t.Fatalf("the import says %s", out)
	}
	for id := range m.accounts {
		m.webhooks[id] = query[int](t, m.db, `SELECT id FROM relay.webhooks WHERE account_id = $1`, id)
	}
	words := shellWords(m.block("move serve", 1, time.Time{}))
	p := startProcess(t, m.dsn, append(words[1:], "--allow-unsafe")...)
	m.watching = p
	p.awaitReady(t)
	if answer, _, _ := p.ready(t); !answer.NoSend {
		t.Errorf("/readyz does not say that nothing is sent: %+v", answer)
	}
	m.grow(1, 50)
	run(t, m.db, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'conversation_typing_on', '{}')`) // nobody wants it

	// For as long as the comparison takes nothing is inserted.
	defer m.freeze()()
	m.nothingWaits(1, time.Now().Add(time.Hour))
	m.nothingWaits(2, time.Now().Add(time.Hour))
	m.nothingWaits(3, time.Now().Add(time.Hour))
	compared := map[int]int{}
	statements := strings.Split(strings.TrimSpace(m.block("move compare", 1, time.Time{})), ";\n\n")
	if len(statements) != 3 {
		t.Fatalf("%d statements compare, want 3", len(statements))
	}
	rows, err := m.db.QueryContext(t.Context(), statements[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var hour time.Time
		var account, webhook, n int
		var event string
		if err := rows.Scan(&hour, &account, &webhook, &event, &n); err != nil {
			t.Fatal(err)
		}
		compared[account] += n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for id, a := range m.accounts {
		if old, _, _ := m.hooks.count(id); compared[id] != a.n || old != a.n {
			t.Errorf("of account %d Outrider would have sent %d, the old sender sent %d, of %d events", id, compared[id], old, a.n)
		}
	}
	if n := query[int](t, m.db, `SELECT sum(count) FROM (`+statements[1]+`) AS nobody WHERE event = 'conversation_typing_on' AND routing = 'no_subscriber'`); n != 1 {
		t.Errorf("%d events would have gone to nobody, want 1", n)
	}
	if n := query[int](t, m.db, `SELECT count(*) FROM (`+strings.TrimSuffix(statements[2], ";")+`) AS newest WHERE routing = 'routed' AND url = $1`, m.accounts[1].url); n != 19 {
		t.Errorf("%d of the newest events would have gone to the webhook, want 19", n)
	}
	if _, fresh, replayed := m.hooks.count(0); fresh+replayed != 0 {
		t.Errorf("%d POSTs were made with --no-send", fresh+replayed)
	}
}

// goLive: step 5. Nothing of what --no-send recorded is sent.
func (m *move) goLive() *process {
	t := m.t
	t.Helper()
	if out := m.shell("move disable", 1, time.Time{}); !strings.Contains(out, "3 disabled now") {
		t.Errorf("disable says %s", out)
	}
	relay := startProcess(t, m.dsn, "serve", "--allow-unsafe")
	relay.awaitReady(t)
	m.watching.signal(syscall.SIGTERM)
	m.recorded = query[int64](t, m.db, `SELECT max(event_seq) FROM audit.deliveries`)
	// Nobody waits until the backlog is cancelled: a webhook may be enabled
	// before that.
	return relay
}

// switchOver: step 6.
func (m *move) switchOver(account int) {
	t := m.t
	t.Helper()
	off := m.turn(account, false)
	m.grow(account, 3) // the gap
	m.nothingWaits(account, off)
	said := m.shell("move enable", account, off)
	for _, want := range []string{"1 enabled now", fmt.Sprintf("Webhook %d missed ", m.webhooks[account]), fmt.Sprintf("outrider replay run --webhook %d", m.webhooks[account]), "answered 200"} {
		if !strings.Contains(said, want) {
			t.Errorf("enable and test of account %d do not say %q: %s", account, want, said)
		}
	}
	var replay int
	if err := m.db.QueryRowContext(t.Context(), m.block("move gap", account, off)).Scan(&replay); err != nil {
		t.Fatalf("the replay of the gap: %v", err)
	}
	// The last of the gap may have been routed when the webhook was enabled.
	gap := query[int](t, m.db, `SELECT total FROM relay.replays WHERE replay_id = $1`, replay)
	if gap == 0 {
		t.Errorf("the replay of account %d has no event of the gap", account)
	}
	m.grow(account, 20)
	until(t, "the events of the account, and those of its gap", func() (bool, string) {
		_, fresh, replayed := m.hooks.count(account)
		return fresh >= 20 && replayed >= gap, fmt.Sprintf("%d fresh, %d of %d replayed", fresh, replayed, gap)
	})
	if n := query[int](t, m.db, `SELECT count(*) FROM audit.deliveries WHERE account_id = $1 AND replay_id = $2`, account, replay); n != gap {
		t.Errorf("the replay of account %d has %d deliveries, want %d, those of the gap", account, n, gap)
	}
}

// backOut moves an account back, and lets the old sender send what neither of
// them has.
func (m *move) backOut(account int) {
	t := m.t
	t.Helper()
	if out := m.shell("move back", account, time.Time{}); !strings.Contains(out, "1 disabled now") {
		t.Errorf("disable says %s", out)
	}
	m.grow(account, 3) // the gap
	on := m.turn(account, true)
	m.nothingWaits(account, on)
	until(t, "the end of what was pending", func() (bool, string) {
		n := query[int](t, m.db, `SELECT count(*) FROM audit.deliveries WHERE account_id = $1 AND status IN ('pending', 'held')`, account)
		return n == 0, fmt.Sprintf("%d are pending", n)
	})
	rows, err := m.db.QueryContext(t.Context(), m.block("move back gap", account, on))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	a, sent := m.accounts[account], 0
	for rows.Next() {
		var event string
		var attempts int
		if err := rows.Scan(&event, &attempts); err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		n, known := a.events[event]
		a.mu.Unlock()
		if !known || attempts != 0 {
			t.Errorf("event %s of account %d, with %d attempts, is listed as sent by neither", event, account, attempts)
		}
		if err := m.send(t.Context(), a, fmt.Sprintf(`{"account": %d, "n": %d}`, account, n)); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if sent < 3 {
		t.Errorf("%d events of account %d are listed as sent by neither, want those of the gap", sent, account)
	}
}

// checkEachCameOnce: whichever sender it was, and however often that changed.
func (m *move) checkEachCameOnce() {
	t := m.t
	t.Helper()
	m.hooks.mu.Lock()
	defer m.hooks.mu.Unlock()
	for id, a := range m.accounts {
		var outrider int
		for n := 1; n <= a.n; n++ {
			key := [2]int{id, n}
			if old, fresh, replayed := m.hooks.old[key], m.hooks.fresh[key], m.hooks.replayed[key]; old+fresh+replayed != 1 {
				t.Errorf("event %d of account %d came %d times from the old sender, %d times from Outrider, %d times by a replay", n, id, old, fresh, replayed)
			}
			outrider += m.hooks.fresh[key] + m.hooks.replayed[key]
		}
		if id == 3 && outrider != 0 || id != 3 && outrider == 0 {
			t.Errorf("Outrider sent %d events of account %d", outrider, id)
		}
	}
	if m.hooks.tests != 2 {
		t.Errorf("%d tests of a webhook came, want 2", m.hooks.tests)
	}
}
