package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/cmd/outrider/testdata/readme/chat"
	"github.com/outrider-relay/outrider/cmd/outrider/testdata/receivers/receive"
	"github.com/outrider-relay/outrider/domain"
)

// readmeStory runs the README's examples on one database, each as the user who
// would run it.
type readmeStory struct {
	t        *testing.T
	blocks   []*readmeBlock
	ran      map[*readmeBlock]bool
	server   *devpg.Server
	admin    *sql.DB
	receiver *readmeReceiver
	secret   string
}

// The README's own names.
const (
	readmeDatabase = "chat"
	readmePassword = "change-me"
	readmeEvent    = "0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"
)

// TestReadmeExamples runs every marked block of the README and checks that it
// does what the text says.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	// Roles belong to a whole server, and those of the README have fixed names.
	s := &readmeStory{t: t, ran: map[*readmeBlock]bool{}, server: pgtest.NewServer(t, nil), receiver: newReadmeReceiver(t)}
	s.blocks, _ = readmeBlocks(t, readReadme(t))
	root := s.open("postgres", "")
	s.do(root, `CREATE DATABASE `+readmeDatabase)
	s.admin = s.open(readmeDatabase, "")

	s.install()
	s.registerWebhooks()
	s.insert()
	relay := s.killInMidPOST()
	s.lookBack()
	s.doctor()
	s.tokens()
	s.rebuild()
	s.replay()
	s.configureByOwnAPI()
	s.verify()
	s.seals()
	s.sizes()
	s.erase()
	s.retain()
	s.told()
	s.configureByChatwootsAPI()
	relay.signal(syscall.SIGTERM)
	if code := relay.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the relay stopped with exit code %d", code)
	}
	s.adopt()
	s.uninstall()

	for _, b := range s.blocks {
		switch {
		case strings.HasPrefix(b.run, "move "): // see TestMoveOverAndBackOut
		case b.run != "" && b.run != "config" && !s.ran[b]:
			t.Errorf("%s was not run", b.name())
		case b.run == "" && b.lang != "text" && b.lang != "sh":
			t.Errorf("%s says nobody who runs it", b.name())
		}
	}
}

// dsn is the URL of a role; "" is the superuser.
func (s *readmeStory) dsn(database, role string) string {
	if role == "" {
		return s.server.DSN(database)
	}
	u, err := url.Parse(s.server.DSN(database))
	if err != nil {
		s.t.Fatal(err)
	}
	u.User = url.UserPassword(role, readmePassword)
	return u.String()
}

func (s *readmeStory) open(database, role string) *sql.DB {
	s.t.Helper()
	db, err := sql.Open("postgres", s.dsn(database, role))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() })
	return db
}

// take gives the blocks with a marker, in their order.
func (s *readmeStory) take(run string, want int) []*readmeBlock {
	s.t.Helper()
	var found []*readmeBlock
	for _, b := range s.blocks {
		if b.run == run {
			found = append(found, b)
			s.ran[b] = true
		}
	}
	if len(found) != want && want > 0 || len(found) == 0 {
		s.t.Fatalf("%d blocks are marked %q, want %d", len(found), run, want)
	}
	return found
}

func (s *readmeStory) run(db *sql.DB, b *readmeBlock) {
	s.t.Helper()
	if _, err := db.ExecContext(s.t.Context(), b.text); err != nil {
		s.t.Fatalf("%s: %v", b.name(), err)
	}
}

// do runs what the README leaves to its readers.
func (s *readmeStory) do(db *sql.DB, statement string) {
	s.t.Helper()
	if _, err := db.ExecContext(s.t.Context(), statement); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// rows runs a block and gives the number of rows of each of its results.
func (s *readmeStory) rows(db *sql.DB, b *readmeBlock) []int {
	s.t.Helper()
	rows, err := db.QueryContext(s.t.Context(), b.text)
	if err != nil {
		s.t.Fatalf("%s: %v", b.name(), err)
	}
	defer func() { _ = rows.Close() }()
	var counts []int
	for more := true; more; more = rows.NextResultSet() {
		n := 0
		for rows.Next() {
			n++
		}
		counts = append(counts, n)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatalf("%s: %v", b.name(), err)
	}
	return counts
}

// shell runs the lines of a block in this process and gives what they print.
func (s *readmeStory) shell(b *readmeBlock, role string) []string {
	s.t.Helper()
	c := newCLI(s.t, s.dsn(readmeDatabase, role))
	var printed []string
	for line := range strings.Lines(b.text) {
		words := shellWords(line)
		switch {
		case len(words) == 0:
		case words[0] == "export":
			name, value, _ := strings.Cut(words[1], "=")
			u, err := url.Parse(s.server.DSN(readmeDatabase))
			if err != nil {
				s.t.Fatal(err)
			}
			if !strings.Contains(value, "localhost:5432") {
				s.t.Errorf("%s: %s does not name localhost:5432", b.name(), words[1])
			}
			c.env[name] = strings.Replace(value, "localhost:5432", u.Host, 1)
		case words[0] == "outrider":
			printed = append(printed, c.ok(words[1:]...))
		default:
			s.t.Errorf("%s: the test cannot run %q", b.name(), line)
		}
	}
	return printed
}

// shellWords splits a line as a shell does, without expansions.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	inWord := false
	var quote rune
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			return words
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// count is a number that the superuser sees.
func (s *readmeStory) count(query string, args ...any) int {
	s.t.Helper()
	var n int
	if err := s.admin.QueryRowContext(s.t.Context(), query, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// until waits for a number that the superuser sees.
func (s *readmeStory) until(what string, least int, query string, args ...any) {
	s.t.Helper()
	until(s.t, what, func() (bool, string) {
		n := s.count(query, args...)
		return n >= least, fmt.Sprintf("%d, want %d", n, least)
	})
}

// install: the schema is made without a superuser, and each user gets a role.
func (s *readmeStory) install() {
	s.t.Helper()
	s.do(s.admin, `CREATE ROLE chat_app LOGIN PASSWORD '`+readmePassword+`'`) // the chat system has one already
	blocks := s.take("admin", 2)
	s.run(s.admin, blocks[0])
	printed := s.shell(s.take("sh owner", 1)[0], "")
	if n := s.count(`SELECT count(*) FROM pg_tables WHERE schemaname IN ('outbox', 'relay') AND tableowner = 'outrider_owner'`); n == 0 {
		s.t.Fatalf("migrate made nothing: %s", printed)
	}
	s.run(s.admin, blocks[1])
	s.run(s.admin, s.take("admin tenant", 1)[0])
	s.run(s.open(readmeDatabase, "ops"), s.take("operator tenant", 1)[0])
}

// registerWebhooks: of the two webhooks that the README registers, the first is
// left enabled, the second removed. The first is then moved to the test's
// receiver.
func (s *readmeStory) registerWebhooks() {
	s.t.Helper()
	printed := s.shell(s.take("sh relay", 1)[0], "relay_app")
	if !strings.Contains(printed[0], "whsec_") {
		s.t.Errorf("webhook add prints no secret: %s", printed[0])
	}
	if n := s.count(`SELECT count(*) FROM relay.webhooks WHERE (id, state) IN ((1, 'enabled'), (2, 'deleted'))`); n != 2 {
		s.t.Fatalf("%d webhooks are in the state that the README's commands leave them in, want 2", n)
	}
	c := newCLI(s.t, s.dsn(readmeDatabase, "relay_app"))
	c.ok("webhook", "update", "1", "--url", s.receiver.URL+"/hooks", "--timeout", "1s", "--allow-cidrs", "127.0.0.0/8")
	secret, ok := c.object("webhook", "show", "1", "--reveal-secret")["secret"].(string)
	if !ok {
		s.t.Fatal("webhook show tells no secret")
	}
	s.secret = secret
}

// readmeTables are the chat system's, in a schema of its own.
const readmeTables = `
CREATE SCHEMA %[1]s AUTHORIZATION chat_app;
CREATE TABLE %[1]s.conversations (id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, account_id bigint, last_activity_at timestamptz);
CREATE TABLE %[1]s.messages (
    id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, account_id bigint,
    conversation_id bigint NOT NULL REFERENCES %[1]s.conversations, content text);
ALTER TABLE %[1]s.conversations OWNER TO chat_app;
ALTER TABLE %[1]s.messages OWNER TO chat_app;
INSERT INTO %[1]s.conversations (id, account_id) VALUES (1001, 1), (1002, 1);`

const countContent = `SELECT count(*) FROM outbox.events WHERE payload ->> 'content' = $1`

// insert: each way to insert puts one row into the outbox, with its
// transaction.
func (s *readmeStory) insert() {
	s.t.Helper()
	app := s.open(readmeDatabase, "chat_app")
	for i, b := range s.take("producer", 2) {
		s.run(app, b)
		if n := s.count(`SELECT count(*) FROM outbox.events`); n != i+1 {
			s.t.Errorf("%s: %d rows are in the outbox, want %d", b.name(), n, i+1)
		}
	}
	s.do(app, `INSERT INTO outbox.events (account_id, event, payload) VALUES (9, 'message_created', '{}'), (1, 'conversation_typing_on', '{}')`) // nobody wants them

	s.do(s.admin, fmt.Sprintf(readmeTables, "with_trigger"))
	s.do(s.admin, `ALTER ROLE chat_app SET search_path = with_trigger`)
	s.trigger(s.open(readmeDatabase, "chat_app"))

	s.do(s.admin, fmt.Sprintf(readmeTables, "app"))
	s.do(s.admin, `ALTER ROLE chat_app SET search_path = app`)
	s.saveFromGo(s.open(readmeDatabase, "chat_app"))
	s.saveFromRails()

	waiting := s.take("auditor waiting", 1)[0]
	var n int
	var since time.Time
	if err := s.open(readmeDatabase, "support").QueryRowContext(s.t.Context(), waiting.text).Scan(&n, &since); err != nil || n < 5 || since.IsZero() {
		s.t.Errorf("%s: %d events are waiting since %s: %v", waiting.name(), n, since, err)
	}
}

// tokens: one is left, which lets in to the pages that the README's user serves.
func (s *readmeStory) tokens() {
	s.t.Helper()
	printed := s.shell(s.take("sh operator tokens", 1)[0], "ops")
	token := regexp.MustCompile(`outrider_[A-Za-z0-9_-]{43}`)
	first, second := token.FindString(printed[0]), token.FindString(printed[1])
	if first == "" || second == "" || !strings.Contains(printed[2], "wall display") {
		s.t.Fatalf("the tokens are printed as %q", printed)
	}
	tokens := postgres.NewTokens(s.open(readmeDatabase, "web_app"))
	if _, err := tokens.Authenticate(s.t.Context(), first); !errors.Is(err, domain.ErrNoToken) {
		s.t.Errorf("the first token, which is revoked: %v", err)
	}
	access, err := tokens.Authenticate(s.t.Context(), second)
	if err != nil || access.Role != domain.RoleViewer || access.AccountID != 0 {
		s.t.Errorf("the second token lets in %+v, %v", access, err)
	}
	web := startWeb(s.t, s.dsn(readmeDatabase, "web_app"))
	web.awaitReady(s.t)
	web.signal(syscall.SIGTERM)
}

// trigger: the row comes with the message's transaction, and goes with it.
func (s *readmeStory) trigger(app *sql.DB) {
	s.t.Helper()
	s.run(app, s.take("trigger", 1)[0])
	say := func(content string) *sql.Tx {
		tx, err := app.BeginTx(s.t.Context(), nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := tx.ExecContext(s.t.Context(), `INSERT INTO messages (account_id, conversation_id, content) VALUES (1, 1001, $1)`, content); err != nil {
			s.t.Fatal(err)
		}
		return tx
	}
	if err := say("rolled back").Rollback(); err != nil {
		s.t.Fatal(err)
	}
	if n := s.count(countContent, "rolled back"); n != 0 {
		s.t.Errorf("%d rows of a transaction that was rolled back are in the outbox", n)
	}
	tx := say("committed")
	var xid string
	if err := errors.Join(tx.QueryRowContext(s.t.Context(), `SELECT pg_current_xact_id()::text`).Scan(&xid), tx.Commit()); err != nil {
		s.t.Fatal(err)
	}
	if n := s.count(countContent+` AND event = 'message_created' AND xid = $2::xid8`, "committed", xid); n != 1 {
		s.t.Errorf("%d rows of the message's transaction are in the outbox, want 1", n)
	}
	s.do(app, `UPDATE messages SET content = 'edited' WHERE content = 'committed'`)
	if n := s.count(countContent+` AND event = 'message_updated'`, "edited"); n != 1 {
		s.t.Errorf("%d rows tell of the message's update, want 1", n)
	}
}

// saveFromGo: the README has the file that is compiled into this test.
func (s *readmeStory) saveFromGo(app *sql.DB) {
	s.t.Helper()
	b := s.take("go chat/save.go", 1)[0]
	file := filepath.Join("testdata", "readme", "chat", "save.go")
	source, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.HasSuffix(string(source), "\n)\n\n"+b.text) {
		s.t.Errorf("%s is not what stands below the imports of %s, which the test runs", b.name(), file)
	}
	if err := chat.SaveMessage(s.t.Context(), app, 1, 1001, "from Go"); err != nil {
		s.t.Fatalf("%s: %v", b.name(), err)
	}
	if n := s.count(countContent+` AND account_id = 1 AND (payload #>> '{conversation,id}')::bigint = 1001`, "from Go"); n != 1 {
		s.t.Errorf("%s: %d rows are in the outbox, want 1", b.name(), n)
	}
	if err := chat.SaveMessage(s.t.Context(), app, 1, 4, "to nobody"); err == nil {
		s.t.Errorf("%s: a message of no conversation is stored", b.name())
	}
	if n := s.count(countContent, "to nobody"); n != 0 {
		s.t.Errorf("%s: a message that failed is announced", b.name())
	}
}

// saveFromRails: see testdata/readme/rails.rb for what it checks by itself.
func (s *readmeStory) saveFromRails() {
	s.t.Helper()
	b := s.take("rails", 1)[0]
	out := s.rubyWithRails("rails.rb", b, "DATABASE_URL="+s.dsn(readmeDatabase, "chat_app"))
	conversation := strings.TrimSpace(out)
	if n := s.count(countContent+` AND payload #>> '{conversation,id}' = $2`, "It is kept.", conversation); n != 1 {
		s.t.Errorf("%s: %d rows are in the outbox, want 1", b.name(), n)
	}
	for _, content := range []string{"It is rolled back.", "It cannot be announced."} {
		if n := s.count(countContent, content); n != 0 {
			s.t.Errorf("%s: %q is in the outbox", b.name(), content)
		}
	}
}

// rubyWithRails runs a script of testdata/readme with a block of the README.
func (s *readmeStory) rubyWithRails(name string, b *readmeBlock, env ...string) string {
	s.t.Helper()
	if err := osexec.CommandContext(s.t.Context(), runtimeOf(s.t, "ruby"), "-e", `require "active_record"; require "pg"`).Run(); err != nil {
		s.t.Fatalf("Ruby has no ActiveRecord and pg (%v); to install them: make runtimes", err)
	}
	file := filepath.Join(s.t.TempDir(), "readme.rb")
	if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return script(s.t, "ruby", nil, env, filepath.Join("testdata", "readme", name), file)
}

// killInMidPOST kills a relay while its POSTs are under way, and gives the one
// that goes on: it repeats them and says that their outcome is unknown.
func (s *readmeStory) killInMidPOST() *process {
	s.t.Helper()
	s.receiver.answerWith(0)
	first := startProcess(s.t, s.dsn(readmeDatabase, "relay_app"), "serve", "--allow-unsafe")
	select {
	case <-s.receiver.arrived:
	case <-first.done:
		s.t.Fatalf("the relay ended: %s", first.log)
	case <-time.After(time.Minute):
		s.t.Fatalf("no POST arrived: %s", first.log)
	}
	first.signal(syscall.SIGKILL)
	cut := s.receiver.all()
	s.receiver.answerWith(http.StatusOK)
	second := startProcess(s.t, s.dsn(readmeDatabase, "relay_app"), "serve", "--allow-unsafe")
	s.until("the delivery of the README's event", 1, `SELECT count(*) FROM audit.deliveries WHERE event_id = $1 AND status = 'succeeded'`, readmeEvent)
	s.until("a repeat of what was cut off", 1, `
SELECT count(*) FROM audit.attempts u JOIN audit.attempts r ON r.delivery_id = u.delivery_id AND r.attempt = u.attempt + 1
 WHERE u.outcome = 'unknown' AND r.outcome = 'succeeded'`)
	repeat := slices.IndexFunc(s.receiver.all(), func(r readmeRequest) bool {
		return r.header.Get("Outrider-Previous-Outcome") == "unknown" && r.header.Get("webhook-id") == cut[0].header.Get("webhook-id") && bytes.Equal(r.body, cut[0].body)
	})
	if repeat < 0 {
		s.t.Errorf("no repeat of %s says that the outcome before is unknown", cut[0].header.Get("webhook-id"))
	}
	return second
}

// lookBack: while one delivery fails and another is held behind it, every query
// of the history finds something.
func (s *readmeStory) lookBack() {
	s.t.Helper()
	s.receiver.answerWith(http.StatusInternalServerError)
	app := s.open(readmeDatabase, "chat_app")
	s.do(app, `
INSERT INTO outbox.events (account_id, event, payload)
SELECT 1, 'message_created', json_build_object('id', i, 'conversation', json_build_object('id', 500)) FROM generate_series(1, 3) i`)
	s.until("a failed delivery", 1, `SELECT count(*) FROM audit.deliveries WHERE status = 'pending' AND last_outcome = 'failed' AND last_status_code = 500`)
	s.until("those that it holds", 2, `SELECT count(*) FROM audit.deliveries WHERE status = 'held' AND reason = 'order'`)

	for run, role := range map[string]string{"auditor rows": "support", "tenant rows": "acme"} {
		for _, b := range s.take(run, 0) {
			if strings.Contains(b.text, "replay_id =") {
				continue // there is none yet
			}
			if n := s.rows(s.open(readmeDatabase, role), b); len(n) != 1 || n[0] == 0 {
				s.t.Errorf("%s finds nothing: %v", b.name(), n)
			}
		}
	}
	s.until("statistics of the failed attempt", 1, `SELECT count(*) FROM audit.webhook_health WHERE consecutive_failures > 0`)
	statistics := s.take("auditor statistics", 1)[0]
	if n := s.rows(s.open(readmeDatabase, "support"), statistics); len(n) != 2 || n[0] == 0 || n[1] == 0 {
		s.t.Errorf("%s finds nothing: %v", statistics.name(), n)
	}
	breakers := s.take("auditor breakers", 1)[0]
	if n := s.rows(s.open(readmeDatabase, "support"), breakers); len(n) != 2 {
		s.t.Errorf("%s: %d queries gave an answer", breakers.name(), len(n))
	}
	b := s.take("sh auditor", 1)[0]
	for i, printed := range s.shell(b, "support") {
		if strings.TrimSpace(printed) == "" || strings.Contains(printed, "Nothing found") {
			s.t.Errorf("%s: command %d finds nothing: %q", b.name(), i+1, printed)
		}
	}
}

// doctor: while a relay works nothing is wrong but what the tests' server saves
// for speed. The list of relays has it, and the one that was killed.
func (s *readmeStory) doctor() {
	s.t.Helper()
	for i, printed := range s.shell(s.take("sh operator relays", 1)[0], "ops") {
		if !strings.Contains(printed, "working") || strings.Contains(printed, "fenced") != (i == 1) {
			s.t.Errorf("command %d lists %s", i+1, printed)
		}
	}
	b := s.take("sh operator doctor", 1)[0]
	c := newCLI(s.t, s.dsn(readmeDatabase, "ops"))
	for line := range strings.Lines(b.text) {
		r := c.run(shellWords(line)[1:]...)
		if r.code != exitFailed || r.err != "outrider: doctor found 1 problem\n" || !strings.Contains(r.out, "fsync = off") || !strings.Contains(r.out, " is at work since ") {
			s.t.Errorf("%s: exit %d: %s%s", b.name(), r.code, r.out, r.err)
		}
	}
}

// rebuild: while a relay works nothing differs.
func (s *readmeStory) rebuild() {
	s.t.Helper()
	for i, printed := range s.shell(s.take("sh relay rebuild", 1)[0], "relay_app") {
		if !strings.Contains(printed, "webhook_stats") || !strings.Contains(printed, "due") {
			s.t.Errorf("command %d: %q", i+1, printed)
		}
	}
}

// replay: the same notifications come again, with the same bodies, and say so.
func (s *readmeStory) replay() {
	s.t.Helper()
	// The README replays what a webhook never got: here, because it was
	// disabled while three deliveries waited, or more that its breaker kept.
	relay := newCLI(s.t, s.dsn(readmeDatabase, "relay_app"))
	relay.ok("webhook", "disable", "1")
	s.until("the end of what waited", 1, `SELECT (count(*) = 0)::int FROM audit.deliveries WHERE webhook_id = 1 AND status IN ('pending', 'held')`)
	cancelled := s.count(`SELECT count(*) FROM audit.deliveries WHERE status = 'cancelled'`)
	if cancelled < 3 {
		s.t.Errorf("%d deliveries were cancelled, want three at the least", cancelled)
	}
	s.receiver.answerWith(http.StatusOK)
	relay.ok("webhook", "enable", "1")

	ops := s.open(readmeDatabase, "ops")
	b := s.take("operator", 1)[0]
	if n := s.rows(ops, b); !slices.Equal(n, []int{1, 1, 1}) {
		s.t.Errorf("%s: the statements give %v rows, want one each", b.name(), n)
	}
	plan := s.take("operator plan", 1)[0]
	s.receiver.answerWith(0) // so that it is under way when it is paused
	for i, statement := range strings.Split(strings.TrimSpace(plan.text), "\n") {
		one := *plan
		if one.text = statement; !slices.Equal(s.rows(ops, &one), []int{1}) {
			s.t.Errorf("%s: statement %d does not give one row", plan.name(), i+1)
		}
	}
	s.receiver.answerWith(http.StatusOK)
	// The new integration.
	elsewhere := newReadmeReceiver(s.t)
	elsewhere.answerWith(http.StatusOK)
	relay.ok("webhook", "add", "--account", "1", "--url", elsewhere.URL, "--allow-cidrs", "127.0.0.0/8")
	s.until("what webhook 1 never got", 1, `SELECT count(*) FROM audit.replays WHERE replay_id = 3 AND state = 'finished'`)
	shell := s.take("sh operator", 1)[0]
	printed := s.shell(shell, "ops")
	for i, want := range []string{"Replay 4 is finished: 1 of 1 delivery done (1 succeeded)", "Plan 5: ", "Replay 5 is requested", "Replay 5 is finished", "finished", "Plan 6: ", "Replay 6 is finished"} {
		if !strings.Contains(printed[i], want) {
			s.t.Errorf("%s: command %d does not say %q: %s", shell.name(), i+1, want, printed[i])
		}
	}
	const requested = 6
	s.until("all replays", requested, `SELECT count(*) FROM audit.replays WHERE state = 'finished' AND total > 0 AND succeeded = total`)
	if n := s.count(`SELECT count(*) FROM audit.deliveries d WHERE replay_id = 6 AND webhook_id = 3 AND EXISTS (SELECT FROM audit.deliveries o WHERE o.event_id = d.event_id AND o.webhook_id = 1)`); n == 0 || n != s.count(`SELECT total FROM audit.replays WHERE replay_id = 6`) {
		s.t.Errorf("the new integration got %d of what webhook 1 got", n)
	}
	relay.ok("webhook", "remove", "3", "--yes")
	if n := s.count(`SELECT count(*) FROM audit.deliveries WHERE replay_id = 3 AND event_id IN (SELECT event_id FROM audit.deliveries WHERE status = 'cancelled')`); n != cancelled {
		s.t.Errorf("%d deliveries that were cancelled came by the third replay, of %d", n, cancelled)
	}
	if n := s.count(`SELECT count(*) FROM audit.timeline WHERE stream = 'replay' AND type = 'requested'`); n != requested {
		s.t.Errorf("%d requests are on record, want %d", n, requested)
	}

	firsts := map[string][]byte{}
	replayed := 0
	for _, r := range s.receiver.all() {
		id := r.header.Get("webhook-id")
		if r.header.Get("Outrider-Replay") == "" {
			firsts[id] = r.body
			continue
		}
		if body, known := firsts[id]; known {
			replayed++
			if !bytes.Equal(body, r.body) {
				s.t.Errorf("the replay of %s has another body", id)
			}
		}
	}
	if replayed == 0 {
		s.t.Error("no replay has the webhook-id of a first delivery")
	}

	support := s.open(readmeDatabase, "support")
	for _, b := range s.take("auditor rows", 0) {
		if n := s.rows(support, b); strings.Contains(b.text, "replay_id =") && (len(n) != 1 || n[0] == 0) {
			s.t.Errorf("%s finds nothing: %v", b.name(), n)
		}
	}
}

// verify: what the relay has sent is genuine to the check of receivers.md. The
// requests have two signatures, since the README has rotated the secret.
func (s *readmeStory) verify() {
	s.t.Helper()
	all := s.receiver.all()
	last := all[len(all)-1]
	if n := len(strings.Fields(last.header.Get("webhook-signature"))); n != 2 {
		s.t.Errorf("%d signatures are on a request while the secret is rotated, want 2", n)
	}
	if !receive.Genuine(s.secret, last.header, last.body) || receive.Genuine(s.secret, last.header, append(last.body, ' ')) {
		s.t.Error("the check of receivers.md takes what is not genuine, or refuses what is")
	}
}

// seals: while a relay writes, all that it wrote is as it wrote it, with heads
// that were exported a moment ago.
func (s *readmeStory) seals() {
	s.t.Helper()
	dir := s.t.TempDir()
	c := newCLI(s.t, s.dsn(readmeDatabase, "support"))
	public, verified := "", 0
	b := s.take("sh auditor heads", 1)[0]
	for line := range strings.Lines(b.text) {
		words := shellWords(line)[1:]
		for i, word := range words {
			switch {
			case word == "heads.key" || word == "heads.json":
				words[i] = filepath.Join(dir, word)
			case i > 0 && words[i-1] == "--public-key":
				words[i] = public
			}
		}
		file := ""
		if n := len(words); words[n-2] == ">" {
			file, words = words[n-1], words[:n-2]
		}
		out := c.ok(words...)
		switch {
		case file != "":
			if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
				s.t.Fatal(err)
			}
		case public == "":
			public = strings.TrimSpace(out)
		case strings.Contains(out, "are as they were written"):
			verified++
		}
	}
	if verified != 2 {
		s.t.Errorf("%s: %d commands say that all is as it was written, want 2", b.name(), verified)
	}
	b = s.take("auditor none", 1)[0]
	if n := s.rows(s.open(readmeDatabase, "support"), b); len(n) != 1 || n[0] != 0 {
		s.t.Errorf("%s finds something wrong: %v", b.name(), n)
	}
}

// sizes: the README's way to measure what an event takes, with fewer of them.
func (s *readmeStory) sizes() {
	s.t.Helper()
	const many, few = "generate_series(1, 100000)", "generate_series(1, 100)"
	b := s.take("producer sizes", 1)[0]
	insert := strings.Replace(b.text, many, few, 1)
	if insert == b.text {
		s.t.Fatalf("%s does not insert %s", b.name(), many)
	}
	delivered := s.count(`SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded'`)
	s.do(s.open(readmeDatabase, "chat_app"), insert)
	s.until("their deliveries", delivered+100, `SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded'`)
	if n := s.count(`SELECT count(*) FROM outbox.events WHERE account_id = 1 AND octet_length(payload::text) BETWEEN 950 AND 1050`); n != 100 {
		s.t.Errorf("%s: %d events have about 1 KB, want 100", b.name(), n)
	}
	b = s.take("owner sizes", 1)[0]
	rows, err := s.open(readmeDatabase, "outrider_owner").QueryContext(s.t.Context(), b.text)
	if err != nil {
		s.t.Fatalf("%s: %v", b.name(), err)
	}
	defer func() { _ = rows.Close() }()
	var parts []string
	for rows.Next() {
		var part string
		var inRows, inIndexes float64
		if err := rows.Scan(&part, &inRows, &inIndexes); err != nil {
			s.t.Fatal(err)
		}
		parts = append(parts, part)
		if inRows < 500 || inIndexes < 20 {
			s.t.Errorf("%s: %s takes %.0f and %.0f bytes for each event", b.name(), part, inRows, inIndexes)
		}
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(parts)
	if !slices.Equal(parts, []string{"outbox.events", "relay.log"}) {
		s.t.Errorf("%s: the parts are %v", b.name(), parts)
	}
}

// uninstall: the README's trigger stands against it, and nothing else. What the
// administrator has made, the roles, is for the administrator to drop.
func (s *readmeStory) adopt() {
	s.t.Helper()
	// As the dump of another database tells.
	s.do(s.admin, `INSERT INTO relay.identity (system_identifier, database_oid, database_name) VALUES (1, 1, 'chat')`)
	b := s.take("sh operator adopt", 1)[0]
	c := newCLI(s.t, s.dsn(readmeDatabase, "ops"))
	c.asks, c.in = true, readmeDatabase+"\n"
	for line := range strings.Lines(b.text) {
		if out := c.ok(shellWords(line)[1:]...); !strings.Contains(out, `Database "chat" is adopted`) {
			s.t.Errorf("%s: %s", b.name(), out)
		}
	}
}

// erase: what the README erases is gone, and the rest is there.
func (s *readmeStory) erase() {
	s.t.Helper()
	s.run(s.admin, s.take("admin erase", 1)[0])
	app := s.open(readmeDatabase, "chat_app")
	s.do(app, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'contact_updated', '{"id": 901, "email": "lena@customer.example"}')`)
	s.until("the contact's delivery", 1, `SELECT count(*) FROM audit.deliveries WHERE event = 'contact_updated' AND status = 'succeeded'`)
	b := s.take("sh privacy", 1)[0]
	for i, printed := range s.shell(b, "privacy") {
		if want := []string{"1 event is to be erased", "1 event is erased", "are erased"}[i]; !strings.Contains(printed, want) {
			s.t.Errorf("%s: command %d does not say %q: %s", b.name(), i+1, want, printed)
		}
	}
	if n := s.count(`SELECT count(*) FROM outbox.events WHERE payload::text LIKE '%lena@%' OR payload::text LIKE '%"id": 346}%'`); n != 0 {
		s.t.Errorf("%s: %d payloads are left", b.name(), n)
	}
}

// retain: a month later the README's ages have come for what was there.
func (s *readmeStory) retain() {
	s.t.Helper()
	app := s.open(readmeDatabase, "chat_app")
	s.do(s.admin, `SELECT setval('outbox.events_seq_seq', 1000000)`)
	until(s.t, "a batch that knows of nothing older", func() (bool, string) {
		s.do(app, `INSERT INTO outbox.events (account_id, event, payload) VALUES (9, 'message_created', '{}')`)
		return s.count(`SELECT relay.older_than('0')`) > 1_000_000, ""
	})
	s.do(s.admin, `UPDATE relay.batches SET at = at - interval '31 days'`)
	b := s.take("sh operator retain", 1)[0]
	printed := s.shell(b, "ops")
	for i, want := range []string{"outbox.events_0", "erased outbox.events_0"} {
		if !strings.Contains(printed[i], want) {
			s.t.Errorf("%s: command %d does not name %s: %s", b.name(), i+1, want, printed[i])
		}
	}
	block := s.take("retentions auditor", 1)[0]
	if n := s.rows(s.open(readmeDatabase, "support"), block); n[0] < 4 {
		s.t.Errorf("%s: %d rows", block.name(), n[0])
	}
	if n := s.count(`SELECT count(*) FROM audit.deliveries WHERE status = 'succeeded' AND event_seq < 1000000`); n == 0 {
		s.t.Error("the history went with the payloads")
	}
}

// told: the operator's account has a webhook that asks for all of its events.
func (s *readmeStory) told() {
	s.t.Helper()
	b := s.take("sh operator told", 1)[0]
	if printed := s.shell(b, "ops"); !strings.Contains(printed[0], "delivery_dead, webhook_disabled") {
		s.t.Errorf("%s: %s", b.name(), printed[0])
	}
}

func (s *readmeStory) uninstall() {
	s.t.Helper()
	c := newCLI(s.t, s.dsn(readmeDatabase, "outrider_owner"))
	c.fails(exitFailed, []string{"function with_trigger.message_to_outbox()"}, "uninstall", "--yes")
	s.do(s.admin, `DROP SCHEMA with_trigger, app CASCADE`)
	b := s.take("sh owner uninstall", 1)[0]
	c.asks, c.in = true, readmeDatabase+"\n"
	for line := range strings.Lines(b.text) {
		if out := c.ok(shellWords(line)[1:]...); !strings.Contains(out, "is gone from database") || !strings.Contains(out, "Role outrider_relay stays") {
			s.t.Errorf("%s: %s", b.name(), out)
		}
	}
	if n := s.count(countOurs); n != 0 {
		s.t.Errorf("%s: %d schemas are left", b.name(), n)
	}
}
