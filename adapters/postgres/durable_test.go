package postgres_test

import (
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
)

// TestTheRelaysCommitsAreDurable: an attempt on record is on disk before its
// POST, also where the database's default is not to wait.
func TestTheRelaysCommitsAreDurable(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t)
	if _, err := database.SQL.ExecContext(t.Context(), `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$`); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.OpenRelay(database.DSN, "durable", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var setting string
	if err := db.QueryRowContext(t.Context(), `SHOW synchronous_commit`).Scan(&setting); err != nil {
		t.Fatal(err)
	}
	if setting != "on" {
		t.Errorf("synchronous_commit is %s", setting)
	}
}
