// Package migrations brings a database to the schema that this version of
// Outrider needs. The SQL is embedded; migrations only go forward.
//
// It is a leaf: nothing of Outrider is imported here. Up may run in several
// processes at once: a lock lets one work and the others find nothing to do.
//
// Relays work and producers insert meanwhile. So a migration of a schema that is
// in use gives up where a lock does not come at once, and the caller tries again;
// and one after which older binaries cannot work says so in the schema, by
// relay.compatible_since(). Each is one transaction: what locks outbox.events
// comes last in it.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

// table is where goose keeps what was applied.
const table = "relay.schema_migrations"

// Version is the newest migration of this binary.
const Version int64 = 21

// LockTimeout is how long a migration of a schema that is in use waits for a
// lock, and with it whoever comes behind it: an insert into outbox.events, say.
// PostgreSQL makes autovacuum give way after its deadlock_timeout, by default
// 1 s: it is longer than that.
const LockTimeout = 2 * time.Second

// ErrNewer is the error of a database whose schema is newer than the binary, and
// not made for it to work on.
var ErrNewer = errors.New("the database's schema is newer than this binary")

// Up applies what is missing. It needs a role that owns what earlier
// migrations made, may create schemas in the database, and may create roles or
// finds the outrider_* roles made and is a member of outrider_views. A newer
// schema is left alone; the error is ErrNewer where this binary cannot work on it.
func Up(ctx context.Context, db *sql.DB) error {
	current, err := Current(ctx, db)
	if err != nil {
		return err
	}
	if current > Version {
		return Outgrown(ctx, db)
	}
	return Apply(ctx, db, files)
}

// Apply applies what is missing of some migrations, of which those of this
// binary are the first. Each that is applied stays, also where the next one fails.
func Apply(ctx context.Context, db *sql.DB, files fs.FS) error {
	current, err := Current(ctx, db)
	if err != nil {
		return err
	}
	// goose keeps its table in the schema relay, so that must be there first.
	// IF NOT EXISTS still fails for the slower of two: then it is there.
	if _, err := db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS relay`); err != nil {
		if _, again := db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS relay`); again != nil {
			return fmt.Errorf("create schema relay: %w", err)
		}
	}
	provider, err := newProvider(db, files, current > 0)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Current tells the schema version of the database, 0 where there is none.
func Current(ctx context.Context, db *sql.DB) (int64, error) {
	var exists bool
	err := db.QueryRowContext(ctx, `SELECT to_regclass('relay.schema_migrations') IS NOT NULL`).Scan(&exists)
	if err != nil || !exists {
		return 0, err
	}
	var version int64
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM relay.schema_migrations WHERE is_applied`).Scan(&version)
	return version, err
}

// Outgrown gives ErrNewer where the schema is made for newer binaries than this
// one. It asks a schema that has all the migrations of this binary.
func Outgrown(ctx context.Context, db *sql.DB) error {
	var version, since int64
	if err := db.QueryRowContext(ctx, `SELECT (SELECT max(version_id) FROM relay.schema_migrations WHERE is_applied), relay.compatible_since()`).Scan(&version, &since); err != nil {
		return err
	}
	if since > Version {
		return fmt.Errorf("%w: it has version %d, on which binaries for version %d or later can work, and this one is for %d", ErrNewer, version, since, Version)
	}
	return nil
}

// waitsQuery finds whoever is in the way of the backend that holds the lock of
// migrations. A prepared transaction has no process.
const waitsQuery = `
SELECT DISTINCT CASE WHEN b.pid = 0 THEN 'a prepared transaction'
       ELSE concat('process ', b.pid, ' of user ', a.usename, ' (' || nullif(a.application_name, '') || ')',
                   ', in a transaction since ' || date_trunc('second', a.xact_start)) END
  FROM pg_locks m CROSS JOIN LATERAL unnest(pg_blocking_pids(m.pid)) AS b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid
 WHERE m.locktype = 'advisory' AND m.objsubid = 1 AND m.granted AND m.classid::bigint << 32 | m.objid::bigint = $1
   AND m.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())`

// Waits says who holds what a migration under way waits for now, if it does.
func Waits(ctx context.Context, db *sql.DB) (holders []string, err error) {
	rows, err := db.QueryContext(ctx, waitsQuery, lock.DefaultLockID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var holder string
		if err := rows.Scan(&holder); err != nil {
			return nil, err
		}
		holders = append(holders, holder)
	}
	return holders, rows.Err()
}

func newProvider(db *sql.DB, files fs.FS, inUse bool) (*goose.Provider, error) {
	store, err := database.NewStore(database.DialectPostgres, table)
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300), lock.WithUnlockTimeout(1, 60))
	if err != nil {
		return nil, err
	}
	if inUse { // else nobody can wait behind it
		locker = brief{locker}
	}
	return goose.NewProvider("", db, files, goose.WithStore(store), goose.WithSessionLocker(locker))
}

// brief makes a session wait LockTimeout at most for each lock, but for the lock
// of migrations itself, which it tries again and again.
type brief struct{ lock.SessionLocker }

// SessionLock implements lock.SessionLocker.
func (b brief) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, false)`, fmt.Sprint(LockTimeout.Milliseconds())); err != nil {
		return err
	}
	return b.SessionLocker.SessionLock(ctx, conn)
}

// SessionUnlock implements lock.SessionLocker.
func (b brief) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `RESET lock_timeout`)
	return errors.Join(err, b.SessionLocker.SessionUnlock(ctx, conn))
}
