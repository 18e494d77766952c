package postgres_test

import (
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// A connection prepares what is marked, once, and the server keeps one plan for
// it; a statement that fails is prepared anew.
func TestMarkedStatementsArePlannedOnce(t *testing.T) {
	t.Parallel()
	db, err := postgres.OpenRelay(pgtest.New(t).DSN, "prepared", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	do(t, db, `CREATE TABLE thing (id bigint PRIMARY KEY, name text)`, `INSERT INTO thing VALUES (1, 'one')`)

	const query = outbox.PreparedMark + `SELECT name FROM thing WHERE id = $1`
	read := func() (name string, err error) {
		err = db.QueryRowContext(t.Context(), query, 1).Scan(&name)
		return name, err
	}
	for range 10 {
		if name, err := read(); err != nil || name != "one" {
			t.Fatal(name, err)
		}
		if _, err := db.ExecContext(t.Context(), outbox.PreparedMark+`UPDATE thing SET name = name WHERE id = $1`, 1); err != nil {
			t.Fatal(err)
		}
	}
	var statements, plans int
	count := func() {
		t.Helper()
		err := db.QueryRowContext(t.Context(), `SELECT count(*), coalesce(sum(generic_plans), 0) FROM pg_prepared_statements WHERE statement LIKE '/* prepared */%thing%'`).Scan(&statements, &plans)
		if err != nil {
			t.Fatal(err)
		}
	}
	count()
	if statements != 2 || plans < 2 {
		t.Errorf("%d statements are prepared and were run %d times by a kept plan, want 2 and some", statements, plans)
	}

	do(t, db, `ALTER TABLE thing ALTER name TYPE integer USING 5`)
	if name, err := read(); err == nil {
		t.Errorf("a plan with another result type gave %q", name)
	}
	if name, err := read(); err != nil || name != "5" {
		t.Errorf("prepared anew it gave %q and %v", name, err)
	}
	count()
	if statements != 2 {
		t.Errorf("%d statements are prepared, want 2", statements)
	}
}

// What the relay runs for every few events is planned once.
func TestTheHotStatementsAreMarked(t *testing.T) {
	t.Parallel()
	statement, _ := postgres.NewChain(nil).Statement(&outbox.Batch{})
	for what, query := range map[string]string{"batch": statement, "head": postgres.HeadQuery, "recording": postgres.RecordStatement} {
		if query[:len(outbox.PreparedMark)] != outbox.PreparedMark {
			t.Errorf("the %s is not marked", what)
		}
	}
}
