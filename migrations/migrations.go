// Package migrations brings a database to the schema that this version of
// Outrider needs. The SQL is embedded; migrations only go forward.
//
// It is a leaf: nothing of Outrider is imported here. Up may run in several
// processes at once: a lock lets one work and the others find nothing to do.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

// table is where goose keeps what was applied.
const table = "relay.schema_migrations"

// Version is the newest migration of this binary.
const Version int64 = 19

// ErrNewer is the error of a database whose schema is newer than the binary.
var ErrNewer = errors.New("the database's schema is newer than this binary")

// Up applies what is missing. It needs a role that owns what earlier
// migrations made, may create schemas in the database, and may create roles or
// finds the outrider_* roles made and is a member of outrider_views.
func Up(ctx context.Context, db *sql.DB) error {
	current, err := Current(ctx, db)
	if err != nil {
		return err
	}
	if current > Version {
		return fmt.Errorf("%w: it has version %d, the binary knows %d", ErrNewer, current, Version)
	}
	// goose keeps its table in the schema relay, so that must be there first.
	// IF NOT EXISTS still fails for the slower of two: then it is there.
	if _, err := db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS relay`); err != nil {
		if _, again := db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS relay`); again != nil {
			return fmt.Errorf("create schema relay: %w", err)
		}
	}
	provider, err := newProvider(db)
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

func newProvider(db *sql.DB) (*goose.Provider, error) {
	store, err := database.NewStore(database.DialectPostgres, table)
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300), lock.WithUnlockTimeout(1, 60))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider("", db, files, goose.WithStore(store), goose.WithSessionLocker(locker))
}
