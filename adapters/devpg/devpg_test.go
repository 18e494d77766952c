package devpg_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg"
)

func TestTemporaryServer(t *testing.T) {
	t.Parallel()
	server := start(t, devpg.Config{})

	var encoding, locale, address string
	query(t, server, `SELECT current_setting('server_encoding'), datcollate, current_setting('listen_addresses')
		FROM pg_database WHERE datname = current_database()`, &encoding, &locale, &address)
	if encoding != "UTF8" || locale != "C" || address != "127.0.0.1" {
		t.Errorf("server has encoding %s, locale %s, addresses %s", encoding, locale, address)
	}

	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(server.Dir()); !os.IsNotExist(err) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Errorf("second stop: %v", err)
	}
	if err := server.Kill(); err != nil {
		t.Errorf("kill after stop: %v", err)
	}
	if err := server.Restart(t.Context()); !errors.Is(err, devpg.ErrRemoved) {
		t.Errorf("restart after stop: %v", err)
	}
}

func TestNobodyGetsInWithoutThePassword(t *testing.T) {
	t.Parallel()
	server := start(t, devpg.Config{})
	port := strconv.Itoa(server.Port())
	for name, dsn := range map[string]string{
		"no password over TCP":          "postgres://outrider@127.0.0.1:" + port + "/postgres?sslmode=disable",
		"another password over TCP":     "postgres://outrider:outrider@127.0.0.1:" + port + "/postgres?sslmode=disable",
		"no password over the socket":   "host=" + filepath.Join(server.Dir(), "run") + " port=" + port + " user=outrider dbname=postgres sslmode=disable",
		"another user over the network": "postgres://postgres@127.0.0.1:" + port + "/postgres?sslmode=disable",
	} {
		if err := ping(t, dsn); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	socket := "host=" + filepath.Join(server.Dir(), "run") + " port=" + port +
		" user=outrider dbname=postgres sslmode=disable password=" + strings.TrimSpace(readFile(t, filepath.Join(server.Dir(), "password")))
	if err := ping(t, socket); err != nil {
		t.Errorf("with the password over the socket: %v", err)
	}
}

func TestDataSurvivesKill(t *testing.T) {
	t.Parallel()
	server := start(t, devpg.Config{Durable: true})
	exec(t, server, `CREATE TABLE kept (n int)`)
	exec(t, server, `INSERT INTO kept SELECT generate_series(1, 100)`)
	port := server.Port()

	// A backend that is busy does not look for its postmaster.
	busy := open(t, server)
	go func() { _, _ = busy.Exec(`SELECT count(*) FROM generate_series(1, 1000000000000)`) }() //nolint:noctx // ends with the server
	eventually(t, "the query to run", func() bool {
		var running int
		query(t, server, `SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%1000000000000%' AND pid <> pg_backend_pid()`, &running)
		return running == 1
	})

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := ping(t, server.DSN("postgres")); err == nil {
		t.Error("the server answers after Kill")
	}
	if err := server.Kill(); err != nil {
		t.Errorf("second kill: %v", err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server.Port() != port {
		t.Errorf("port is %d after the restart, was %d", server.Port(), port)
	}
	var rows int
	query(t, server, `SELECT count(*) FROM kept`, &rows)
	if rows != 100 {
		t.Errorf("%d of 100 rows survived", rows)
	}
	if log := server.LogTail(100); !strings.Contains(log, "automatic recovery") {
		t.Errorf("the log knows of no crash:\n%s", log)
	}
}

func TestDirectoryIsReused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(passableDir(t), "server")
	server := start(t, devpg.Config{Dir: dir})
	exec(t, server, `CREATE TABLE kept (n int)`)

	if _, err := devpg.Start(t.Context(), devpg.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the directory: %v", err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatalf("restart of a running server: %v", err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatalf("restart of a stopped server: %v", err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := start(t, devpg.Config{Dir: dir, Settings: map[string]string{"work_mem": "5MB"}})
	var memory string
	query(t, again, `SELECT current_setting('work_mem') FROM kept RIGHT JOIN (VALUES (1)) one (n) ON true`, &memory)
	if memory != "5MB" {
		t.Errorf("work_mem is %s", memory)
	}
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := passableDir(t)
	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devpg.Start(t.Context(), devpg.Config{Dir: dir}); err == nil {
		t.Error("a folder with a letter became a server's")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder was changed: %v, %v", entries, err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const awkward = `it's a \ back` + "\n" + `slash`
	server := start(t, devpg.Config{Settings: map[string]string{"outrider.test": awkward, "max_connections": "17"}})
	var text, connections, fsync string
	query(t, server, `SELECT current_setting('outrider.test'), current_setting('max_connections'), current_setting('fsync')`, &text, &connections, &fsync)
	if text != awkward || connections != "17" || fsync != "off" {
		t.Errorf("settings are %q, %s, %s", text, connections, fsync)
	}

	if _, err := devpg.Start(t.Context(), devpg.Config{Settings: map[string]string{"a = 'b'\nport": "1"}}); err == nil {
		t.Error("a setting's name with a new line was taken")
	}
	_, err := devpg.Start(t.Context(), devpg.Config{Settings: map[string]string{"max_connections": "many"}})
	if err == nil || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("the error does not show the server's log: %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	server := start(t, devpg.Config{})
	_, err := devpg.Start(t.Context(), devpg.Config{Port: server.Port()})
	if err == nil || !strings.Contains(err.Error(), "port is taken") {
		t.Errorf("a second server on the port: %v", err)
	}

	// A restart waits for its own port, since clients know it.
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	var listening net.ListenConfig
	thief, err := listening.Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(server.Port()))
	if err != nil {
		t.Fatal(err)
	}
	restarted := make(chan error, 1)
	go func() { restarted <- server.Restart(t.Context()) }()
	eventually(t, "the restart to find the port taken", func() bool {
		return strings.Contains(server.LogTail(10), "could not bind")
	})
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-restarted; err != nil {
		t.Error(err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if server, err := devpg.Start(ctx, devpg.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v, %v", server, err)
	}
}

func TestStopIsImmediateWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(passableDir(t), "server")
	server := start(t, devpg.Config{Dir: dir, Durable: true})
	exec(t, server, `CREATE TABLE kept (n int)`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, server, `SELECT FROM kept`)
}

func TestEndOfTheServerIsLogged(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	server := start(t, devpg.Config{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if !strings.Contains(log.String(), "ready to accept connections") {
		t.Errorf("the server's own lines are not logged:\n%s", log.String())
	}
	pid, _, _ := strings.Cut(readFile(t, filepath.Join(server.Dir(), "data", "postmaster.pid")), "\n")
	id, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	postmaster, err := os.FindProcess(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := postmaster.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end to be logged", func() bool { return strings.Contains(log.String(), "postgres ended by itself") })
}

// logBuffer is written by the server's goroutines.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// start starts a server that ends with the test.
func start(t *testing.T, config devpg.Config) *devpg.Server {
	t.Helper()
	server, err := devpg.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return server
}

func open(t *testing.T, server *devpg.Server) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t *testing.T, server *devpg.Server, statement string) {
	t.Helper()
	db := open(t, server)
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func query(t *testing.T, server *devpg.Server, statement string, into ...any) {
	t.Helper()
	db := open(t, server)
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(t.Context(), statement).Scan(into...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func ping(t *testing.T, dsn string) error {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	return db.PingContext(t.Context())
}

// passableDir is a t.TempDir that the account which runs PostgreSQL for root
// may pass; t.TempDir's parent is closed to all others.
func passableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "outrider-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// eventually waits for a condition, at most a minute: the machine may be busy.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-ticker.C:
		}
	}
}
