// Package pgtest gives each test a PostgreSQL database of its own, with the
// schema of this version in it.
//
// It is for tests only. A test process starts one server when it first needs
// one, migrates one template database, and clones it for each test, which takes
// some 20 ms (on a memory file system where there is one; see MemoryDir); so tests run in parallel and see only what they wrote. What a
// test leaves is checked: a connection that stays open fails it. The database
// of a failed test is kept until the process ends; with OUTRIDER_PG_KEEP=1
// that end waits for Ctrl-C, so that one can look into it.
//
// Roles, replication slots and the like belong to the whole server. Open
// transactions do too, in that they hold back the snapshots of every database:
// a test that needs either for itself takes a server with NewServer. Without
// an installed PostgreSQL tests fail, they are not skipped.
package pgtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/migrations"
)

const (
	template = "outrider_template"

	// startTimeout is generous: a loaded machine runs many test processes.
	startTimeout = 2 * time.Minute
	stopTimeout  = 30 * time.Second

	// leakTimeout is how long connections may take to go after a test: a
	// backend notices a closed socket only when it next reads from it.
	leakTimeout  = 5 * time.Second
	leakInterval = 10 * time.Millisecond

	// keepVariable lets the servers of a failed run live until Ctrl-C.
	keepVariable = "OUTRIDER_PG_KEEP"
)

// settings suit many small databases that live for a second each.
var settings = map[string]string{
	"max_connections":    "200",
	"shared_buffers":     "32MB",
	"autovacuum":         "off", // it would come at random moments; tests ANALYZE where they need to
	"checkpoint_timeout": "1h",
	"min_wal_size":       "32MB", // these two for small memory file systems
	"max_wal_size":       "256MB",
}

// DB is the database of one test.
type DB struct {
	// DSN is that of the superuser.
	DSN string
	// SQL is open as the superuser, with binary parameters as a relay has them,
	// and closed when the test ends.
	SQL *sql.DB
	// Server is the one the database is on, shared unless NewServer made it.
	Server *devpg.Server
}

// New gives the test a database on the shared server.
func New(t testing.TB) *DB {
	t.Helper()
	server, err := shared.get()
	if err != nil {
		t.Fatalf("start the tests' PostgreSQL server: %v", err)
	}
	return NewOn(t, server)
}

// NewServer gives the test a server of its own, which ends with the test: to
// be killed, to hold transactions open on, or with other settings, as
// {"fsync": "on"}. Use it with NewOn. It costs about a second.
func NewServer(t testing.TB, more map[string]string) *devpg.Server {
	t.Helper()
	return start(t, "", more)
}

func start(t testing.TB, binDir string, more map[string]string) *devpg.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	all := maps.Clone(settings)
	maps.Copy(all, more)
	server, err := devpg.Start(ctx, devpg.Config{Settings: all, TempDir: MemoryDir(), BinDir: binDir})
	if err != nil {
		t.Fatalf("start a PostgreSQL server: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", server.LogTail(30))
		}
		cloners.Delete(server)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Errorf("stop the server: %v", err)
		}
	})
	return server
}

// NewOn gives the test a database on a server that NewServer gave. The server
// must run again when the test ends, if the test stopped it.
func NewOn(t testing.TB, server *devpg.Server) *DB {
	t.Helper()
	name := databaseName(t.Name())
	if err := clonerOf(server).clone(t.Context(), name); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	return open(t, server, name)
}

// open connects to a database that goes when the test ends.
func open(t testing.TB, server *devpg.Server, name string) *DB {
	t.Helper()
	db := &DB{DSN: server.DSN(name), Server: server}
	var err error
	if db.SQL, err = sql.Open("postgres", db.DSN+"&binary_parameters=yes"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
		defer cancel()
		if err := errors.Join(db.SQL.Close(), finish(ctx, t, db, name)); err != nil {
			t.Errorf("give back database %s: %v", name, err)
		}
	})
	return db
}

// Main runs a package's tests and stops the shared server after them:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// A package without it works as well: on Linux its server ends with the
// process, and the next server to start removes the directory.
func Main(m *testing.M) {
	if code := m.Run(); code != 0 && kept.Load() && os.Getenv(keepVariable) != "" {
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
		defer cancel()
		fmt.Fprintln(os.Stderr, "pgtest: the databases of failed tests are there until Ctrl-C")
		<-ctx.Done()
	}
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest: stop the server:", err)
	}
}

// kept says that a failed test's database was not dropped.
var kept atomic.Bool

// finish drops the database of a test that passed. What is connected to it by
// then was leaked, and fails the test.
func finish(ctx context.Context, t testing.TB, db *DB, name string) error {
	t.Helper()
	if t.Failed() {
		kept.Store(true)
		t.Logf("database kept while the process runs (%s=1 makes it wait): %s", keepVariable, db.DSN)
		return nil
	}
	admin, err := sql.Open("postgres", db.Server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	leaked, err := awaitDisconnected(ctx, admin, name)
	if err != nil {
		return err
	}
	if len(leaked) > 0 {
		t.Errorf("%d connections to the test's database were left open; their last statements:\n%s", len(leaked), strings.Join(leaked, "\n"))
	}
	_, err = admin.ExecContext(ctx, `DROP DATABASE `+pq.QuoteIdentifier(name)+` WITH (FORCE)`)
	return err
}

// awaitDisconnected lists who is still connected at the end of leakTimeout.
func awaitDisconnected(ctx context.Context, admin *sql.DB, name string) ([]string, error) {
	deadline := time.After(leakTimeout)
	ticker := time.NewTicker(leakInterval)
	defer ticker.Stop()
	for {
		connected, err := connectedTo(ctx, admin, name)
		if err != nil || len(connected) == 0 {
			return nil, err
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return connected, nil
		}
	}
}

const selectConnected = `
SELECT format('%s (%s): %s', coalesce(nullif(application_name, ''), 'pid ' || pid), state, left(query, 200))
FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend'`

func connectedTo(ctx context.Context, admin *sql.DB, name string) ([]string, error) {
	rows, err := admin.QueryContext(ctx, selectConnected, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var connected []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		connected = append(connected, line)
	}
	return connected, rows.Err()
}

// shared is the process's server.
var shared sharedServer

type sharedServer struct {
	mu     sync.Mutex
	server *devpg.Server
	err    error // of the one start: the next test would only wait for the same
}

func (s *sharedServer) get() (*devpg.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil && s.err == nil {
		// Not a test's context: the server serves all of them.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		s.server, s.err = devpg.Start(ctx, devpg.Config{Settings: settings, TempDir: MemoryDir()})
	}
	return s.server, s.err
}

func (s *sharedServer) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	// At once: nothing in it is to be kept.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.server.Stop(ctx)
}

// cloners has the *cloner of each *devpg.Server.
var cloners sync.Map

func clonerOf(server *devpg.Server) *cloner {
	found, _ := cloners.LoadOrStore(server, &cloner{server: server})
	c, _ := found.(*cloner) // nothing else is in there
	return c
}

// cloner makes the databases of one server.
type cloner struct {
	server *devpg.Server

	mu    sync.Mutex // CREATE DATABASE wants the template to itself
	built bool
	err   error // of the one build: each test would fail in the same way
}

func (c *cloner) clone(ctx context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	admin, err := sql.Open("postgres", c.server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	if !c.built {
		if c.err = c.build(ctx, admin); c.err != nil {
			return c.err
		}
		c.built = true
	}
	_, err = admin.ExecContext(ctx, `CREATE DATABASE `+pq.QuoteIdentifier(name)+` TEMPLATE `+template)
	return err
}

func (c *cloner) build(ctx context.Context, admin *sql.DB) error {
	if _, err := admin.ExecContext(ctx, `CREATE DATABASE `+template); err != nil {
		return err
	}
	db, err := sql.Open("postgres", c.server.DSN(template))
	if err != nil {
		return err
	}
	if err := errors.Join(migrations.Up(ctx, db), db.Close()); err != nil {
		return fmt.Errorf("migrate the template: %w", err)
	}
	// No test can spoil it.
	_, err = admin.ExecContext(ctx, `ALTER DATABASE `+template+` ALLOW_CONNECTIONS false`)
	return err
}

var (
	databases    atomic.Int64
	notInAName   = regexp.MustCompile(`[^a-z0-9]+`)
	nameMaxBytes = 63 // NAMEDATALEN - 1
)

// databaseName is "t7_deliver_in_order".
func databaseName(test string) string {
	test = strings.ToLower(strings.TrimPrefix(test, "Test"))
	name := fmt.Sprintf("t%d_%s", databases.Add(1), strings.Trim(notInAName.ReplaceAllString(test, "_"), "_"))
	return name[:min(len(name), nameMaxBytes)]
}
