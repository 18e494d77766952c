package pgtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestEachTestHasItsOwnDatabase(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(fmt.Sprintf("clone %d", i), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			version, err := migrations.Current(t.Context(), db.SQL)
			if err != nil || version != migrations.Version {
				t.Errorf("schema version is %d, %v", version, err)
			}
			// Fails where another test made it.
			exec(t, db.SQL, `CREATE TABLE only_mine ()`)
		})
	}
}

func TestServerOfItsOwn(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{"fsync": "on", "max_connections": "33"})
	first, second := pgtest.NewOn(t, server), pgtest.NewOn(t, server)
	if first.DSN == second.DSN || first.Server != server {
		t.Errorf("databases are %+v, %+v", first, second)
	}
	var fsync, connections string
	row := first.SQL.QueryRowContext(t.Context(), `SELECT current_setting('fsync'), current_setting('max_connections')`)
	if err := row.Scan(&fsync, &connections); err != nil {
		t.Fatal(err)
	}
	if fsync != "on" || connections != "33" {
		t.Errorf("fsync is %s, max_connections %s", fsync, connections)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if version, err := migrations.Current(t.Context(), second.SQL); err != nil || version != migrations.Version {
		t.Errorf("after the crash the schema version is %d, %v", version, err)
	}
}

func TestPassedTestDropsItsDatabase(t *testing.T) {
	t.Parallel()
	watch := pgtest.New(t)
	inner := &recorder{TB: t}
	exec(t, pgtest.New(inner).SQL, `SELECT`)
	inner.end()
	if inner.failed {
		t.Errorf("the test failed: %s", inner.log.String())
	}
	if names := databasesLike(t, watch.SQL, "%passedtestdrops%"); len(names) != 1 {
		t.Errorf("databases are %v, want the watching test's only", names)
	}
}

func TestFailedTestKeepsItsDatabase(t *testing.T) {
	t.Parallel()
	inner := &recorder{TB: t}
	db := pgtest.New(inner)
	inner.failed = true
	inner.end()
	if !strings.Contains(inner.log.String(), db.DSN) {
		t.Errorf("the log has no DSN: %s", inner.log.String())
	}
	again, err := sql.Open("postgres", db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if err := again.PingContext(t.Context()); err != nil {
		t.Errorf("the database is gone: %v", err)
	}
}

func TestLeakedConnectionFailsTheTest(t *testing.T) {
	t.Parallel()
	inner := &recorder{TB: t}
	db := pgtest.New(inner)
	leaked, err := sql.Open("postgres", db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = leaked.Close() }()
	exec(t, leaked, `SELECT 'who left me here'`)
	inner.end()
	if !inner.failed || !strings.Contains(inner.log.String(), "who left me here") {
		t.Errorf("failed: %v, log: %s", inner.failed, inner.log.String())
	}
}

func BenchmarkClone(b *testing.B) {
	pgtest.New(b) // starts the server and builds the template
	for b.Loop() {
		inner := &recorder{TB: b}
		pgtest.New(inner)
		inner.end()
	}
}

// recorder is a test in a test, which may fail.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failed   bool
	log      strings.Builder
	cleanups []func()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Context() context.Context  { return r.TB.Context() }
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool              { return r.failed }
func (r *recorder) Logf(f string, a ...any)   { r.write(false, f, a...) }
func (r *recorder) Errorf(f string, a ...any) { r.write(true, f, a...) }

func (r *recorder) write(failed bool, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	fmt.Fprintf(&r.log, format+"\n", args...)
}

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func databasesLike(t *testing.T, db *sql.DB, pattern string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT datname FROM pg_database WHERE datname LIKE $1`, pattern)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}
