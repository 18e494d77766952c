package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/migrations"
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
	return sql.OpenDB(connector), nil
}

// OpenRelay makes the pool of a running relay. Each connection, when it is
// made and thus after each loss, is set up so that a lost server or a lock is
// noticed before a lease ends, and checked to be one to the relay's own
// database: see Identity.
func OpenRelay(dsn, application string, identity *Identity) (*sql.DB, error) {
	config, err := parseDSN(dsn, application)
	if err != nil {
		return nil, err
	}
	// One round trip for a statement with parameters instead of two.
	config.BinaryParameters = true
	for name, value := range map[string]string{
		"synchronous_commit":                  "on", // P2: a started attempt survives a crash of the server
		"lock_timeout":                        "500ms",
		"idle_in_transaction_session_timeout": "10s",
		"tcp_user_timeout":                    "3s",
		"tcp_keepalives_idle":                 "2",
		"tcp_keepalives_interval":             "1",
		"tcp_keepalives_count":                "2",
		"timezone":                            "UTC",
		"datestyle":                           "ISO",
	} {
		config.Runtime[name] = value
	}
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	return sql.OpenDB(checkedConnector{connector, identity}), nil
}

func parseDSN(dsn, application string) (pq.Config, error) {
	config, err := pq.NewConfig(dsn)
	if err != nil {
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

// checkedConnector hands out only connections to the expected database.
type checkedConnector struct {
	driver.Connector
	identity *Identity
}

// Connect implements driver.Connector.
func (c checkedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.identity.check(ctx, conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

var (
	// ErrIdentity says that the database is not the one the relay's history
	// belongs to: a restored dump, or a clone.
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
type Identity struct {
	// AllowUnsafe accepts fsync = off, for private databases.
	AllowUnsafe bool
}

const identityQuery = `
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
       current_setting('fsync')::boolean, current_setting('server_encoding'),
       coalesce((SELECT i.system_identifier = c.system_identifier AND i.database_oid = d.oid
                   FROM relay.identity i, pg_control_system() c, pg_database d
                  WHERE d.datname = current_database() ORDER BY i.since DESC LIMIT 1), true)`

func (i *Identity) check(ctx context.Context, conn driver.Conn) error {
	queryer, ok := conn.(driver.QueryerContext)
	if !ok {
		return fmt.Errorf("%T cannot query", conn)
	}
	rows, err := queryer.QueryContext(ctx, identityQuery, nil)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	values := make([]driver.Value, 4)
	if err := rows.Next(values); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	standby, _ := values[0].(bool)
	fsync, _ := values[1].(bool)
	encoding := fmt.Sprintf("%s", values[2])
	same, _ := values[3].(bool)
	switch {
	case standby:
		return ErrStandby
	case !fsync && !i.AllowUnsafe:
		return ErrUnsafe
	case encoding != "UTF8":
		return ErrEncoding
	case !same:
		return ErrIdentity
	}
	return nil
}

// RegisterIdentity notes which database this is, where no relay has before.
func RegisterIdentity(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `
INSERT INTO relay.identity (system_identifier, database_oid, database_name)
SELECT c.system_identifier, d.oid, d.datname FROM pg_control_system() c, pg_database d
 WHERE d.datname = current_database() AND NOT EXISTS (SELECT FROM relay.identity)`)
	return err
}

// CheckSchema tells whether the database has the schema of this binary.
func CheckSchema(ctx context.Context, db *sql.DB) error {
	version, err := migrations.Current(ctx, db)
	switch {
	case err != nil:
		return err
	case version > migrations.Version:
		return fmt.Errorf("%w: it has version %d, this binary knows %d", migrations.ErrNewer, version, migrations.Version)
	case version < migrations.Version:
		return fmt.Errorf("%w: it has version %d, this binary needs %d", ErrNotMigrated, version, migrations.Version)
	}
	return nil
}
