package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/migrations"
	"github.com/outrider-relay/outrider/relay"
)

// connectTimeout bounds each attempt to connect.
const connectTimeout = 5 * time.Second

// Open makes a pool of connections for commands that people run: no connection
// is made yet. application names them in pg_stat_activity.
func Open(dsn, application string) (*sql.DB, error) {
	config, err := parseDSN(dsn, application)
	if err != nil {
		return nil, err
	}
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	return sql.OpenDB(plainConnector{connector, ""}), nil
}

// OpenWeb makes the pool of the pages and APIs, of so many connections at most:
// who asks for more of them waits. A statement, or a wait for a lock in it, ends
// by itself after longest, also where nobody waits for it any more.
func OpenWeb(dsn, application string, connections int, longest time.Duration) (*sql.DB, error) {
	config, err := parseDSN(dsn, application)
	if err != nil {
		return nil, err
	}
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	ms := strconv.FormatInt(longest.Milliseconds(), 10)
	db := sql.OpenDB(plainConnector{connector, "SET statement_timeout = " + ms + "; SET idle_in_transaction_session_timeout = " + ms + ";"})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(time.Minute)
	return db, nil
}

// OpenRelay makes the pool of a running relay. Each connection, when it is
// made and thus after each loss, is set up so that a lost server or a lock is
// noticed before a lease ends, and checked to be one to the relay's own
// database: see Identity. A statement whose context ends is over a second later,
// also where the network swallows everything.
func OpenRelay(dsn, application string, identity *Identity) (*sql.DB, error) {
	config, err := parseDSN(dsn, application)
	if err != nil {
		return nil, err
	}
	// One round trip for a statement with parameters instead of two.
	config.BinaryParameters = true
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	connector.Dialer(newWireDialer())
	return sql.OpenDB(checkedConnector{connector, identity}), nil
}

// withSSLMode asks for TLS where the server has it, as psql does, unless the
// user says otherwise: lib/pq's own default fails with a server without TLS.
func withSSLMode(dsn string) string {
	switch {
	case strings.Contains(dsn, "sslmode") || os.Getenv("PGSSLMODE") != "":
		return dsn
	case !strings.Contains(dsn, "://"):
		return dsn + " sslmode=prefer"
	case strings.Contains(dsn, "?"):
		return dsn + "&sslmode=prefer"
	default:
		return dsn + "?sslmode=prefer"
	}
}

func parseDSN(dsn, application string) (pq.Config, error) {
	_, err := pq.NewConfig(dsn)
	config, sslErr := pq.NewConfig(withSSLMode(dsn))
	if err != nil || sslErr != nil {
		// The text may hold a password: say what is wrong without quoting it.
		return pq.Config{}, errors.New("the database URL cannot be parsed; write it like postgres://user:password@host:5432/database?sslmode=require")
	}
	if config.ApplicationName == "" {
		config.ApplicationName = application
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.Runtime == nil {
		config.Runtime = map[string]string{}
	}
	return config, nil
}

// sessionSettings are set on each connection once it is made: a pooler would
// refuse them in the start-up packet. Every statement of a relay finds its rows
// by an index; without fresh statistics the planner would now and then read the
// whole history instead, so it may not.
const sessionSettings = `
SET synchronous_commit = on;
SET lock_timeout = '500ms';
SET idle_in_transaction_session_timeout = '10s';
SET tcp_user_timeout = '3s';
SET tcp_keepalives_idle = 2;
SET tcp_keepalives_interval = 1;
SET tcp_keepalives_count = 2;
SET enable_seqscan = off;
SET jit = off;
SET timezone = 'UTC';
SET datestyle = 'ISO'`

// plainConnector makes connections for commands. What they ask reads little, and
// the planner, who knows nothing of a partitioned table as a whole, takes it for
// much: compiling it would take longer than the answer.
type plainConnector struct {
	driver.Connector
	// settings are statements that each connection begins with.
	settings string
}

// Connect implements driver.Connector.
func (c plainConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T runs no statement", conn), conn.Close())
	}
	if _, err := execer.ExecContext(ctx, c.settings+`SET jit = off`, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// checkedConnector hands out only connections to the expected database.
type checkedConnector struct {
	driver.Connector
	identity *Identity
}

// Connect implements driver.Connector.
func (c checkedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	life := c.identity.present()
	var below *wire
	conn, err := c.Connector.Connect(context.WithValue(ctx, wireKey{}, &below))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	checked, err := c.check(ctx, conn, below, life)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return checked, nil
}

func (c checkedConnector) check(ctx context.Context, conn driver.Conn, below *wire, life int) (driver.Conn, error) {
	whole, ok := conn.(pqConn)
	if !ok || below == nil {
		return nil, fmt.Errorf("%T lacks what lib/pq's connections have", conn)
	}
	below.expect(ctx)
	if err := prepare(ctx, whole); err != nil {
		return nil, err
	}
	if err := c.identity.check(ctx, whole, life); err != nil {
		return nil, err
	}
	return checkedConn{&preparing{pqConn: whole, wire: below, statements: map[string]pqStatement{}}, c.identity, life}, nil
}

// pqConn is all that database/sql looks for in a connection of lib/pq.
type pqConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// checkedConn is a connection of one life of a relay.
type checkedConn struct {
	*preparing
	identity *Identity
	life     int
}

// ResetSession implements driver.SessionResetter: it is called before a
// connection is used again, and keeps one of an earlier life from it.
func (c checkedConn) ResetSession(ctx context.Context) error {
	if c.life != c.identity.present() {
		return driver.ErrBadConn
	}
	return c.preparing.ResetSession(ctx)
}

func prepare(ctx context.Context, conn pqConn) error {
	_, err := conn.ExecContext(ctx, sessionSettings, nil)
	return err
}

var (
	// ErrVersion says that the server is older than what Outrider runs on.
	ErrVersion = errors.New("the server is older than PostgreSQL 14")
	// ErrPooler says that connections go through a pooler in transaction mode.
	ErrPooler = errors.New("the connections go through a pooler in transaction mode")
	// ErrRights says that the role lacks the rights of a relay.
	ErrRights = errors.New("the role lacks the rights of outrider_relay")
	// ErrWebRights says that the role lacks the rights of the pages and APIs.
	ErrWebRights = errors.New("the role lacks the rights of outrider_web")
	// ErrIdentity says that the database is not the one the relay's history
	// belongs to: a restored dump, a clone, or one behind pg_upgrade. Nothing
	// relays on it until it is adopted: see Adoption.
	ErrIdentity = errors.New("the database has another identity than its relay history")
	// ErrStandby says that the server is read-only.
	ErrStandby = errors.New("the server is a standby in recovery, or read-only")
	// ErrUnsafe says that the server may lose commits in a crash.
	ErrUnsafe = errors.New("the server runs with fsync = off and may lose commits in a crash")
	// ErrNotMigrated says that the schema is missing or older.
	ErrNotMigrated = errors.New("the database's schema is missing or older than this binary")
	// ErrEncoding says that the database is not UTF8.
	ErrEncoding = errors.New("the database's encoding is not UTF8")
)

// Identity tells one database from another: PostgreSQL's system identifier,
// which a new cluster, a restore into another one and pg_upgrade change, and
// the database's oid, which a restore beside the old one changes. A disk-level
// clone keeps both and is not noticed.
//
// It also keeps the connections of one life of a relay at one start of one
// server. What a relay has in memory holds only there: the next one may be a
// standby that lacks the last commits, or the same server restored to an earlier
// time. The zero value is ready.
type Identity struct {
	// AllowUnsafe accepts fsync = off, for private databases.
	AllowUnsafe bool

	mu     sync.Mutex
	life   int
	server string // where the life's connections lead, "" before the first
}

// Renew begins a new life: connections made before are not used again, and the
// next one says which server the life is on.
func (i *Identity) Renew() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.life++
	i.server = ""
}

func (i *Identity) present() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.life
}

// join takes a connection to a server into a life.
func (i *Identity) join(life int, server string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.life == life && i.server == "" {
		i.server = server
	}
	if i.life != life || i.server != server {
		return relay.ErrAnotherServer
	}
	return nil
}

// A crash of one of its processes leaves a server's start time as it is, and
// loses no commit.
const identityQuery = `
SELECT current_setting('server_version_num')::integer >= 140000,
       pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
       current_setting('fsync')::boolean, current_setting('server_encoding'),
       to_regprocedure('relay.database_changed()') IS NOT NULL,
       concat_ws(' ', c.system_identifier, d.oid, pg_postmaster_start_time())
  FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()`

func (i *Identity) check(ctx context.Context, conn pqConn, life int) error {
	values, err := queryRow(ctx, conn, identityQuery, 6)
	if err != nil {
		return err
	}
	current, _ := values[0].(bool)
	standby, _ := values[1].(bool)
	fsync, _ := values[2].(bool)
	encoding := fmt.Sprintf("%s", values[3])
	migrated, _ := values[4].(bool)
	switch {
	case !current:
		return ErrVersion
	case standby:
		return ErrStandby
	case !fsync && !i.AllowUnsafe:
		return ErrUnsafe
	case encoding != "UTF8":
		return ErrEncoding
	}
	if err := i.join(life, fmt.Sprintf("%s", values[5])); err != nil || !migrated {
		return err // CheckSchema says what is not migrated
	}
	if values, err = queryRow(ctx, conn, `SELECT relay.database_changed()`, 1); err != nil {
		return err
	}
	if changed, _ := values[0].(bool); changed {
		return ErrIdentity
	}
	return nil
}

// queryRow reads one row over a connection that is not in a pool yet.
func queryRow(ctx context.Context, conn pqConn, query string, columns int) ([]driver.Value, error) {
	rows, err := conn.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	values := make([]driver.Value, columns)
	if err := rows.Next(values); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return values, nil
}

// RegisterIdentity notes which database this is, where no relay has before.
func RegisterIdentity(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `
INSERT INTO relay.identity (system_identifier, database_oid, database_name)
SELECT c.system_identifier, d.oid, d.datname FROM pg_control_system() c, pg_database d
 WHERE d.datname = current_database() AND NOT EXISTS (SELECT FROM relay.identity)`)
	return err
}

// CheckSchema tells whether the database has the schema of this binary, or a
// newer one on which it can work.
func CheckSchema(ctx context.Context, db *sql.DB) error {
	version, err := migrations.Current(ctx, db)
	switch {
	case err != nil:
		return err
	case version > migrations.Version:
		return migrations.Outgrown(ctx, db)
	case version < migrations.Version:
		return fmt.Errorf("%w: it has version %d, this binary needs %d", ErrNotMigrated, version, migrations.Version)
	}
	return nil
}

// CheckRelay tells whether a relay can work on the database: schema, rights,
// and connections that keep their session.
func CheckRelay(ctx context.Context, db *sql.DB) error {
	if err := CheckSchema(ctx, db); err != nil {
		return err
	}
	var rights bool
	err := db.QueryRowContext(ctx, `
SELECT has_schema_privilege('relay', 'USAGE') AND has_table_privilege('relay.log', 'INSERT') AND has_table_privilege('relay.responses', 'INSERT') AND has_table_privilege('relay.due', 'INSERT, DELETE')
   AND has_table_privilege('outbox.events', 'SELECT') AND has_sequence_privilege('outbox.wake', 'UPDATE')
   AND has_function_privilege('relay.extend_partitions()', 'EXECUTE')`).Scan(&rights)
	switch {
	case err != nil:
		return err
	case !rights:
		return ErrRights
	}
	return checkSessions(ctx, db)
}

// CheckWeb tells whether the pages and APIs can work on the database: schema,
// rights, and connections that keep their session.
func CheckWeb(ctx context.Context, db *sql.DB) error {
	if err := CheckWebNow(ctx, db); err != nil {
		return err
	}
	return checkSessions(ctx, db)
}

// CheckWebNow is CheckWeb but for the connections, which do not change: one
// connection is enough for it.
func CheckWebNow(ctx context.Context, db *sql.DB) error {
	if err := CheckSchema(ctx, db); isDenied(err) {
		return ErrWebRights // who may not look into the schema may nothing there
	} else if err != nil {
		return err
	}
	var rights bool
	err := db.QueryRowContext(ctx, `
SELECT has_schema_privilege('relay', 'USAGE') AND has_schema_privilege('audit', 'USAGE')
   AND has_table_privilege('relay.sessions', 'SELECT, INSERT') AND has_column_privilege('relay.tokens', 'hash', 'SELECT')
   AND has_table_privilege('relay.webhooks', 'UPDATE') AND has_table_privilege('relay.webhook_log', 'INSERT') AND has_table_privilege('audit.deliveries', 'SELECT')
   AND has_function_privilege('relay.request_webhook_test(bigint)', 'EXECUTE')`).Scan(&rights)
	switch {
	case err != nil:
		return err
	case !rights:
		return ErrWebRights
	}
	return nil
}

// checkSessions finds a pooler in transaction mode: there a second connection's
// transaction gets the server process that the first connection just used.
func checkSessions(ctx context.Context, db *sql.DB) error {
	first, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = first.Close() }()
	var pid, other int
	if err := first.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		return err
	}
	second, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = second.Rollback() }()
	if err := second.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&other); err != nil {
		return err
	}
	if pid == other {
		return ErrPooler
	}
	return nil
}

// NetRows tells whether a row newer than the newest partition's beginning lies
// in the net below the partitions.
func NetRows(ctx context.Context, db *sql.DB) (bool, error) {
	var rows bool
	err := db.QueryRowContext(ctx, `
SELECT EXISTS (SELECT FROM outbox.events_net
                WHERE seq > coalesce((SELECT b.high FROM relay.batches b WHERE b.at < now() - interval '1 day' ORDER BY b.at DESC LIMIT 1), 0))`).Scan(&rows)
	return rows, err
}
