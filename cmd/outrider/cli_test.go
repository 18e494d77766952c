package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

// Tables and timelines show local times.
func init() { time.Local = time.UTC }

func TestMain(m *testing.M) {
	pgtest.Main(m)
	if dir := binaryDir.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
}

// result is what a command line gave.
type result struct {
	out, err string
	code     int
}

// cli runs command lines in this process.
type cli struct {
	t     *testing.T
	env   map[string]string
	in    string
	asks  bool
	width int
	now   func() time.Time
}

// newCLI gives a command line; dsn may be empty.
func newCLI(t *testing.T, dsn string) *cli {
	t.Helper()
	return &cli{t: t, env: map[string]string{"OUTRIDER_DATABASE_URL": dsn}, now: time.Now}
}

func (c *cli) run(args ...string) result {
	c.t.Helper()
	var out, err bytes.Buffer
	a := &app{
		in: strings.NewReader(c.in), out: &out, err: &err, env: func(name string) string { return c.env[name] },
		now: c.now, width: func() int { return c.width }, errWidth: func() int { return 0 }, asks: c.asks,
	}
	code := a.run(c.t.Context(), args)
	return result{out.String(), err.String(), code}
}

// ok runs a command line that must succeed, and gives its output.
func (c *cli) ok(args ...string) string {
	c.t.Helper()
	r := c.run(args...)
	if r.code != exitDone {
		c.t.Fatalf("outrider %s: exit %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// fails runs a command line that must fail with texts in what it says.
func (c *cli) fails(code int, texts []string, args ...string) {
	c.t.Helper()
	r := c.run(args...)
	if r.code != code {
		c.t.Errorf("outrider %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	if r.out != "" {
		c.t.Errorf("outrider %s: wrote to stdout: %s", strings.Join(args, " "), r.out)
	}
	for _, text := range texts {
		if !strings.Contains(r.err, text) {
			c.t.Errorf("outrider %s: %q is not in\n%s", strings.Join(args, " "), text, r.err)
		}
	}
	if !strings.HasPrefix(r.err, "outrider: ") {
		c.t.Errorf("outrider %s: says %q", strings.Join(args, " "), r.err)
	}
}

// object runs a command line that prints one JSON object.
func (c *cli) object(args ...string) map[string]any {
	c.t.Helper()
	found := c.objects(append(args, "--format", "json")...)
	if len(found) != 1 {
		c.t.Fatalf("outrider %s: %d objects", strings.Join(args, " "), len(found))
	}
	return found[0]
}

// objects runs a command line that prints JSON Lines.
func (c *cli) objects(args ...string) []map[string]any {
	c.t.Helper()
	var found []map[string]any
	for line := range strings.Lines(c.ok(args...)) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			c.t.Fatalf("outrider %s: %v in %s", strings.Join(args, " "), err, line)
		}
		found = append(found, object)
	}
	return found
}

// members are the names of a JSON object's members.
func members(object map[string]any) string {
	return strings.Join(slices.Sorted(maps.Keys(object)), " ")
}

// asRole gives the database's URL for a login role that the test gets, with
// the given rights.
func asRole(t *testing.T, db *pgtest.DB, name string, grants ...string) string {
	t.Helper()
	role := fmt.Sprintf("%s_%s", name, uuid.NewString()[:8])
	statements := []string{`CREATE ROLE ` + role + ` LOGIN PASSWORD 'hunter2hunter2'`}
	for _, grant := range grants {
		statements = append(statements, `GRANT `+grant+` TO `+role)
	}
	for _, statement := range statements {
		mustExec(t, db.SQL, statement)
	}
	u, err := url.Parse(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "hunter2hunter2")
	return u.String()
}

func mustExec(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%v in %s", err, statement)
	}
}

// storyStart is when the events of stories are inserted.
var storyStart = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// story is a chat event with its history, written as a relay writes it.
type story struct {
	t   *testing.T
	db  *sql.DB
	id  uuid.UUID
	seq int64
	pos int64
	domain.AccountID
	versions map[domain.DeliveryKey]int
}

// insert commits a chat event of account 1.
func insert(t *testing.T, db *sql.DB, event string, id uuid.UUID, metadata string) *story {
	t.Helper()
	return insertOf(t, db, 1, event, id, metadata)
}

// insertOf commits one of any account.
func insertOf(t *testing.T, db *sql.DB, account domain.AccountID, event string, id uuid.UUID, metadata string) *story {
	t.Helper()
	s := &story{t: t, db: db, id: id, AccountID: account, versions: map[domain.DeliveryKey]int{}}
	err := db.QueryRowContext(t.Context(), `INSERT INTO outbox.events (account_id, event, payload, id, metadata, inserted_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING seq`,
		int64(account), event, `{"id":1,"content":"secret of the chat"}`, id.String(), sql.NullString{String: metadata, Valid: metadata != ""}, storyStart).Scan(&s.seq)
	if err != nil {
		t.Fatal(err)
	}
	s.pos = s.seq << 20
	return s
}

// after is a time counted from the insert.
func after(d time.Duration) time.Time { return storyStart.Add(d) }

func (s *story) write(key domain.DeliveryKey, entry domain.Entry, relay int64, delivery uuid.UUID) {
	s.t.Helper()
	s.pos++
	s.versions[key]++
	var event, id sql.NullString
	if s.versions[key] == 1 {
		event = sql.NullString{String: s.id.String(), Valid: true}
	}
	if delivery != uuid.Nil {
		id = sql.NullString{String: delivery.String(), Valid: true}
	}
	mustExec(s.t, s.db, `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $10::json ->> 'routing')`,
		key.EventSeq, int64(key.WebhookID), int64(key.ReplayID), int64(s.AccountID), s.pos, relay, entry.At, s.versions[key], entry.Type,
		string(entry.Data), event, id)
	if entry.Excerpt != "" {
		mustExec(s.t, s.db, `INSERT INTO relay.responses (event_seq, webhook_id, replay_id, version, account_id, salt, excerpt) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			key.EventSeq, int64(key.WebhookID), int64(key.ReplayID), s.versions[key], int64(s.AccountID), entry.Salt[:], entry.Excerpt)
	}
}

// routed writes the decision about the event.
func (s *story) routed(r domain.Routed) {
	s.t.Helper()
	s.write(domain.DeliveryKey{EventSeq: s.seq}, domain.Entry{Type: domain.TypeRouted, At: after(2 * time.Millisecond), Data: domain.EncodeRouted(r)}, 7, uuid.Nil)
}

// delivered writes events of a delivery; relay is who wrote them.
func (s *story) delivered(webhook domain.WebhookID, replay domain.ReplayID, relay int64, events ...domain.DeliveryEvent) {
	s.t.Helper()
	key := domain.DeliveryKey{EventSeq: s.seq, WebhookID: webhook, ReplayID: replay}
	for _, event := range events {
		id := uuid.Nil
		if _, first := event.(domain.Scheduled); first {
			id = domain.NewDeliveryID(domain.NewNotificationID(s.AccountID, s.id, webhook), s.seq, replay)
		}
		s.write(key, domain.EncodeDelivery(event), relay, id)
	}
}

// routedToNobody is a decision that schedules nothing.
var routedToNobody = domain.Routed{Routing: domain.Routing{Kind: domain.RoutingNoSubscriber}, EventName: "message_created"}
