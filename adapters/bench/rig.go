package bench

import (
	"context"
	"database/sql"
	"time"
)

// Rig gives the workloads what they run on.
type Rig interface {
	// Database gives a database with the schema and the workloads' webhooks:
	// on a private server a new one each time, else always the same.
	Database(ctx context.Context) (*Database, error)
	// Private says that the server was started for the workloads.
	Private() bool
	// Copy gives a copy of a database of a private server, which nobody may be
	// using meanwhile.
	Copy(ctx context.Context, from *Database) (*Database, error)
	// Drop drops one of them that is needed no more, if it was made for the
	// workloads.
	Drop(ctx context.Context, db *Database) error
	// Other gives another database of the same server, nil where there is none
	// to be used.
	Other() *sql.DB
	// Discard drops the databases that were given, if they were made for it.
	Discard(ctx context.Context) error
	// Relay starts a relay on a database, with at most so many POSTs under way, 0
	// for its default.
	Relay(ctx context.Context, db *Database, inFlight int) (Process, error)
	// Active waits until a relay is at work.
	Active(ctx context.Context, relay Process) error
	// Site starts the process of the pages on a database.
	Site(ctx context.Context, db *Database) (*Site, error)
	// Client starts a bare client.
	Client(ctx context.Context, client Client) (Process, error)
}

// Database is one to measure on.
type Database struct {
	DSN string
	// DB is a pool with room for all producers.
	DB *sql.DB
	// Webhooks are the ids of the accounts' webhooks, in their order.
	Webhooks []int64
}

// Process is one that is measured.
type Process interface {
	// Ended is closed when it has ended.
	Ended() <-chan struct{}
	// Failure is why it ended, with the end of its log; only after Ended.
	Failure() error
	// Stop asks it to end, waits, and tells what it used. One that ended by
	// itself without an error is as good.
	Stop(ctx context.Context) (Usage, error)
}

// Usage is what a process used in its life.
type Usage struct {
	CPU time.Duration
	// Memory is the most it had resident, in bytes.
	Memory int64
}
