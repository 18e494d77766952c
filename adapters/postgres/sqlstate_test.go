package postgres_test

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/migrations"
)

// explained checks that an error is explained with texts in it.
func explained(t *testing.T, dsn string, err error, problem, advice string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	got := postgres.ExplainAt(dsn, fmt.Errorf("read: %w", err))
	e, ok := errors.AsType[*postgres.Error](got)
	switch {
	case !ok:
		t.Errorf("%v (%T) is not explained", err, err)
	case !strings.Contains(e.Problem, problem) || !strings.Contains(e.Advice, advice):
		t.Errorf("%v is explained as\n%s\n  %s\nwant\n%s\n  %s", err, e.Problem, e.Advice, problem, advice)
	case !errors.Is(got, err):
		t.Errorf("the cause of %v is lost", err)
	case strings.Contains(e.Problem+e.Advice, userPassword):
		t.Errorf("the password is shown: %s; %s", e.Problem, e.Advice)
	}
}

// with changes a part of a database URL.
func with(t *testing.T, dsn string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

// fails connects, runs a statement and gives its error.
func fails(t *testing.T, dsn, statement string) error {
	t.Helper()
	db, err := postgres.Open(dsn, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), statement)
	return err
}

func TestExplainConnections(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	secret := func(u *url.URL) { u.User = url.UserPassword("app", userPassword) }
	tests := []struct {
		name, problem, advice string
		dsn                   string
	}{
		{"refused", "PostgreSQL at " + free + " refuses connections", "is the server running",
			"postgres://app:" + userPassword + "@" + free + "/chat?sslmode=disable"},
		{"unknown host", `the database host "nowhere.invalid"`, "", "postgres://app:" + userPassword + "@nowhere.invalid/chat"},
		{"no socket", "PostgreSQL at the socket in /nowhere does not exist", "is the server running", "host=/nowhere user=app dbname=chat sslmode=disable"},
		{"no database", `database "nowhere" does not exist at `, "CREATE DATABASE", with(t, db.DSN, func(u *url.URL) { u.Path = "/nowhere" })},
		{"wrong password", `refuses the password of user "app"`, "check the password", with(t, db.DSN, secret)},
		{"no TLS", "does not speak TLS", "sslmode=disable", with(t, db.DSN, func(u *url.URL) {
			query := u.Query()
			query.Set("sslmode", "require")
			u.RawQuery = query.Encode()
		})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			explained(t, test.dsn, fails(t, test.dsn, `SELECT 1`), test.problem, test.advice)
		})
	}
}

func TestExplainAnswers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	role := strings.ReplaceAll(texts(t, db.SQL, `SELECT current_database()::text`)[0], "t", "r") + "-app"
	if _, err := db.SQL.ExecContext(t.Context(), `CREATE ROLE `+pq.QuoteIdentifier(role)+` LOGIN PASSWORD '`+userPassword+`'`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = db.SQL.ExecContext(context.WithoutCancel(t.Context()), `DROP ROLE `+pq.QuoteIdentifier(role))
	})
	plain := with(t, db.DSN, func(u *url.URL) { u.User = url.UserPassword(role, userPassword) })
	empty := with(t, db.DSN, func(u *url.URL) { u.Path = "/postgres" })
	grant := func(to string) string { return "GRANT " + to + ` TO "` + role + `"` }
	tests := []struct{ name, dsn, statement, problem, advice string }{
		{"not migrated", empty, `SELECT * FROM relay.webhooks`, "has no schema of Outrider", "outrider migrate"},
		{"no function", empty, `SELECT relay.plan_replay()`, "has no schema of Outrider", "outrider migrate"},
		{"an older schema", db.DSN, `SELECT nothing FROM relay.nothing`, "or an older one", "outrider migrate"},
		{"rights on relay", plain, `SELECT * FROM relay.webhooks`, "lacks rights", grant("outrider_relay")},
		{"rights on audit", plain, `SELECT * FROM audit.events`, "lacks rights", grant("outrider_auditor")},
		{"rights on outbox", plain, `INSERT INTO outbox.events (account_id) VALUES (1)`, "lacks rights", grant("outrider_producer")},
		{"rights to migrate", plain, `CREATE SCHEMA mine`, "lacks rights", "GRANT CREATE ON DATABASE"},
		{"rights to make roles", plain, `CREATE ROLE mine`, "lacks rights", "CREATE ROLE outrider_relay"},
		{"read-only", db.DSN, `SET TRANSACTION READ ONLY; INSERT INTO relay.accounts VALUES (1, 1)`, "read-only", "primary"},
		{"a hint", db.DSN, `SELECT relay.plan_replay()`, "nothing is selected", "event_ids"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			explained(t, test.dsn, fails(t, test.dsn, test.statement), test.problem, test.advice)
		})
	}
}

func TestExplainCodes(t *testing.T) {
	t.Parallel()
	const dsn = "postgres://app:" + userPassword + "@db.example.com:5432/chat"
	tests := []struct {
		err             error
		problem, advice string
	}{
		{&pq.Error{Code: pqerror.InvalidPassword}, `PostgreSQL at db.example.com:5432 refuses the password of user "app"`, "check the password"},
		{&pq.Error{Code: pqerror.InvalidAuthorizationSpecification, Message: `no pg_hba.conf entry for host "::1", user "app", database "chat", no encryption`},
			"no pg_hba.conf entry", "sslmode=require"},
		{&pq.Error{Code: pqerror.InvalidAuthorizationSpecification, Message: `role "app" does not exist`}, "does not exist", "CREATE ROLE app LOGIN"},
		{&pq.Error{Code: pqerror.InvalidAuthorizationSpecification, Message: `role "app" is not permitted to log in`}, "not permitted", "IN ROLE app"},
		{&pq.Error{Code: pqerror.TooManyConnections, Message: "sorry, too many clients already"}, "too many clients", "max_connections"},
		{&pq.Error{Code: pqerror.CannotConnectNow, Message: "the database system is starting up"}, "starting up", "when it is up"},
		{&pq.Error{Code: pqerror.AdminShutdown, Message: "terminating connection"}, "ended the connection", "again"},
		{&pq.Error{Code: pqerror.InvalidSQLStatementName, Message: `prepared statement "1" does not exist`}, "pooler in transaction mode", "session mode"},
		{&pq.Error{Code: pqerror.ProtocolViolation, Message: "unsupported startup parameter: lock_timeout"}, "pooler in transaction mode", "session mode"},
		{&pq.Error{Code: pqerror.LockNotAvailable, Message: "canceling statement due to lock timeout"}, "holds a lock", "again"},
		{&pq.Error{Code: pqerror.TooManyConnections, Message: `too many connections for role "app"`}, "for role", "CONNECTION LIMIT"},
		{&pq.Error{Code: pqerror.QueryCanceled, Message: "canceling statement due to user request"}, "was cancelled", "somebody cancelled it"},
		{&pq.Error{Code: pqerror.QueryCanceled, Message: "canceling statement due to statement timeout"}, "was cancelled", "statement_timeout"},
		{&pq.Error{Code: pqerror.DiskFull, Message: "could not extend file"}, "disk of PostgreSQL at db.example.com:5432 is full: could not extend", "room"},
		{&pq.Error{Code: pqerror.InternalError, Message: "could not extend file: File too large", Hint: "Check free disk space."}, "is full: could not extend file", "room"},
		{errors.New("session is read-only"), "takes writes (read: session is read-only)", "promoted"},
		{fmt.Errorf("pq: could not connect to any of the hosts:\n%w", errors.Join(
			fmt.Errorf("connecting to a:1: %w", syscall.ECONNREFUSED), fmt.Errorf("connecting to b:2: %w", errors.New("session is read-only")))),
			"none takes writes (a:1: connection refused; b:2: session is read-only)", "promoted"},
		{postgres.ErrStandby, "read-only", "primary"},
		{postgres.ErrUnsafe, "fsync", "fsync = on"},
		{postgres.ErrNotMigrated, "missing or older", "outrider migrate"},
		{postgres.ErrEncoding, "UTF8", "ENCODING 'UTF8'"},
		{postgres.ErrIdentity, "restored dump", "outrider adopt"},
		{postgres.ErrVersion, "PostgreSQL 14", "or newer"},
		{postgres.ErrPooler, "pooler", "session mode"},
		{postgres.ErrRights, "lacks rights", "GRANT outrider_relay TO app"},
		{postgres.ErrWebRights, "lacks rights", "GRANT outrider_web TO app"},
		{migrations.ErrNewer, "newer than this binary", "newer version of outrider"},
		{x509.UnknownAuthorityError{}, "unknown authority", "sslrootcert"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "db"}, "another host", "verify-ca"},
		{context.DeadlineExceeded, "does not answer", "firewall"},
		{net.ErrClosed, "broke", "again"},
	}
	for _, test := range tests {
		explained(t, dsn, test.err, test.problem, test.advice)
	}
}

func TestExplainLeavesTheRest(t *testing.T) {
	t.Parallel()
	if err := postgres.Explain(nil); err != nil {
		t.Errorf("nil is explained as %v", err)
	}
	for _, err := range []error{
		errors.New("something else"), context.Canceled, sql.ErrNoRows,
		&pq.Error{Code: pqerror.UndefinedTable, Message: `relation "users" does not exist`},
	} {
		if got := postgres.Explain(err); got != err { //nolint:errorlint // the very same value
			t.Errorf("%v is explained as %v", err, got)
		}
	}
	once := postgres.Explain(postgres.ErrStandby)
	if again := postgres.ExplainAt("postgres://x", once); again != once { //nolint:errorlint // the very same value
		t.Errorf("explained again as %v", again)
	}
}

func TestIsCode(t *testing.T) {
	t.Parallel()
	state := func(code pqerror.Code) error { return fmt.Errorf("write: %w", &pq.Error{Code: code}) }
	if !postgres.IsCode(state("42P01"), "3F000", "42P01") || postgres.IsCode(state("42P01"), "3F000") || postgres.IsCode(errors.New("42P01"), "42P01") {
		t.Error("IsCode")
	}
	if !postgres.IsLockTimeout(state(pqerror.LockNotAvailable)) || !postgres.IsSerialization(state("40P01")) {
		t.Error("IsLockTimeout, IsSerialization")
	}
}
