package postgres

import (
	"context"
	"database/sql"
	"sync/atomic"
	"time"
)

// clockInterval is the time between two looks at the database's clock, in which
// an ordinary clock goes off by less than a millisecond.
const clockInterval = 10 * time.Second

// Clock is the database's clock, read now and then, and gone on from by this
// process's monotonic one. All relays of a database have it in common: what one
// of them made due, another one finds when it is due, whatever the clocks of
// their machines say.
type Clock struct {
	db   *sql.DB
	last atomic.Pointer[reading]
}

// reading is what the database's clock said, and when it did.
type reading struct{ said, at time.Time }

func (r *reading) now() time.Time { return r.said.Add(time.Since(r.at)) }

// NewClock gives the clock of a database. It has this machine's time until Read.
func NewClock(db *sql.DB) *Clock { return &Clock{db: db} }

// Now gives the time. It follows the database's clock where that is set forward
// or back.
func (c *Clock) Now() time.Time {
	if last := c.last.Load(); last != nil {
		return last.now()
	}
	return time.Now()
}

const clockQuery = `SELECT clock_timestamp()`

// Read looks at the database's clock. It said its time somewhere in the round
// trip: what that explains is no difference.
func (c *Clock) Read(ctx context.Context) error {
	begun := time.Now()
	var said time.Time
	if err := c.db.QueryRowContext(ctx, clockQuery).Scan(&said); err != nil {
		return err
	}
	half := time.Since(begun) / 2
	read := &reading{said, begun.Add(half)}
	if last := c.last.Load(); last == nil || read.now().Sub(last.now()).Abs() > half {
		c.last.Store(read)
	}
	return nil
}

// Keep reads it again and again until ctx ends. While the database does not
// answer, the monotonic clock goes on.
func (c *Clock) Keep(ctx context.Context) {
	for {
		select {
		case <-time.After(clockInterval):
		case <-ctx.Done():
			return
		}
		read, cancel := context.WithTimeout(ctx, clockInterval)
		_ = c.Read(read)
		cancel()
	}
}
