package pgtest

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/migrations"
)

// NewWholeServer is NewServer for Restore, SetEpoch and SetSystemIdentifier,
// which run programs that come with a server but not with each of its packages:
// where the version under test has none of them, it is another version.
func NewWholeServer(t testing.TB) *devpg.Server {
	t.Helper()
	binDir, _, err := devpg.FindWith(t.Context(), "pg_dump", "pg_restore", "pg_resetwal")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, binDir, nil)
}

// Restore gives the test a copy of a database: its dump, restored on a server
// by pg_restore. On another server it has the same name.
func Restore(t testing.TB, from *DB, onto *devpg.Server) *DB {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	admin, err := sql.Open("postgres", onto.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	for _, role := range migrations.Roles { // a dump has none
		_, err := admin.ExecContext(ctx, `DO $$ BEGIN CREATE ROLE `+role+`; EXCEPTION WHEN duplicate_object THEN END $$`)
		if err != nil {
			t.Fatal(err)
		}
	}
	name := databaseName(t.Name())
	if onto != from.Server {
		u, err := url.Parse(from.DSN)
		if err != nil {
			t.Fatal(err)
		}
		name = strings.TrimPrefix(u.Path, "/")
	}
	if _, err := admin.ExecContext(ctx, `CREATE DATABASE `+pq.QuoteIdentifier(name)+` TEMPLATE template0`); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(from.Server.Dir(), "run", name+".dump")
	defer func() { _ = os.Remove(file) }()
	if err := from.Server.Program(ctx, "pg_dump", "--format=custom", "--file="+file, from.DSN); err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	if err := onto.Program(ctx, "pg_restore", "--exit-on-error", "--dbname="+onto.DSN(name), file); err != nil {
		t.Fatalf("pg_restore: %v", err)
	}
	return open(t, onto, name)
}

// Offline shuts a server down, lets change work on its data directory, and
// starts it again. It fails the test where change fails.
func Offline(t testing.TB, server *devpg.Server, change func(ctx context.Context, data string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := server.Halt(ctx); err != nil {
		t.Fatalf("shut the server down: %v", err)
	}
	changed := change(ctx, server.Data())
	if err := server.Restart(ctx); err != nil {
		t.Fatalf("start the server again: %v", err)
	}
	if changed != nil {
		t.Fatal(changed)
	}
}

// SetEpoch moves a server's counter of transactions into another epoch, that is
// by 2^32 each: nothing else makes it lie so far from another server's.
func SetEpoch(t testing.TB, server *devpg.Server, epoch string) {
	t.Helper()
	Offline(t, server, func(ctx context.Context, data string) error {
		return server.Program(ctx, "pg_resetwal", "--epoch="+epoch, "-D", data)
	})
}

// SetSystemIdentifier gives a server another system identifier, and leaves the
// rest as it is: what pg_upgrade does. No tool of PostgreSQL does it alone, but
// pg_resetwal takes over what the control file says, also where its checksum
// does not fit, if it is forced to.
func SetSystemIdentifier(t testing.TB, server *devpg.Server) {
	t.Helper()
	Offline(t, server, func(ctx context.Context, data string) error {
		path := filepath.Join(data, "global", "pg_control")
		control, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the test's own server
		if err != nil {
			return err
		}
		var first [1]byte // of the identifier, which the file begins with
		if _, err := control.ReadAt(first[:], 0); err != nil {
			return err
		}
		first[0]++
		if _, err := control.WriteAt(first[:], 0); err != nil {
			return err
		}
		if err := control.Close(); err != nil {
			return err
		}
		return server.Program(ctx, "pg_resetwal", "--force", "-D", data)
	})
}

// CopyFiles copies a data directory, owners kept.
func CopyFiles(ctx context.Context, from, to string) error {
	return exec.CommandContext(ctx, "cp", "-a", from, to).Run() //nolint:gosec // folders of the test's own server
}

// PutBack puts a copy in the place of a data directory, and lets the server
// recover to the end of what the copy has, on a timeline of its own: what a
// restore to an earlier time gives, and the promotion of a standby. Whoever
// connects from this machine is let in, since the copy may be another server's.
func PutBack(earlier, data string) error {
	return replaceData(earlier, data, map[string]string{
		"recovery.signal":      "",
		"postgresql.auto.conf": "restore_command = 'false'\n",
	})
}

// Follow makes a server a hot standby of another one, of which it has all from
// then on: what it had itself is gone, its port and settings stay. The other one
// is shut down for the copy.
func Follow(t testing.TB, standby, primary *devpg.Server) {
	t.Helper()
	copied := filepath.Join(standby.Dir(), "copied")
	Offline(t, primary, func(ctx context.Context, data string) error { return CopyFiles(ctx, data, copied) })
	Offline(t, standby, func(_ context.Context, data string) error {
		return replaceData(copied, data, map[string]string{
			"standby.signal":       "",
			"postgresql.auto.conf": "primary_conninfo = '" + primary.DSN("postgres") + "'\n",
		})
	})
}

// replaceData puts a copy, with some files written anew, in the place of a data
// directory. Whoever connects from this machine is let in.
func replaceData(copied, data string, files map[string]string) error {
	hba := filepath.Join(copied, "pg_hba.conf")
	rules, err := os.ReadFile(hba) //nolint:gosec // the test's own server
	if err != nil {
		return err
	}
	files["pg_hba.conf"] = "host all all 127.0.0.1/32 trust\n" + string(rules)
	for file, text := range files {
		// The account that runs the server owns what is there, and reads what is new.
		if err := os.WriteFile(filepath.Join(copied, file), []byte(text), 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	return os.Rename(copied, data)
}
