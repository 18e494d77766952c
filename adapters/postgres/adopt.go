package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"
)

// Adoption is what an adoption changes: a database that was restored elsewhere,
// upgraded or cloned becomes one that relays work on.
type Adoption struct {
	// Changed says that the database is another one than its history was
	// written on. Where it is false nothing needs adopting.
	Changed bool
	// Is is this database, Was the one that its history was written on; Was is
	// empty where no relay ever ran. Since is when the first relay ran there, or
	// when it was adopted.
	Is, Was Place
	Since   time.Time
	// Batch is the newest link of the chain, of RelayID at BatchAt.
	Batch, RelayID int64
	BatchAt        time.Time
	// Undecided are events that no relay has routed. Waiting are deliveries that
	// wait for their time, Unsent those that were not begun, Open those under
	// way when the copy was taken.
	Undecided, Waiting, Unsent, Open Count
}

// Place says which database one is.
type Place struct {
	// System is PostgreSQL's identifier of the cluster, as pg_controldata shows
	// it; OID tells the databases of a cluster apart.
	System int64
	OID    uint32
	Name   string
}

const adoptionQuery = `
SELECT changed, system_identifier, database_oid::bigint, database_name, coalesce(was_system_identifier, 0), coalesce(was_database_oid::bigint, 0), coalesce(was_database_name, ''),
       since, batch, batch_at, batch_relay_id, undecided, waiting, unsent, open_attempts
  FROM relay.adoption()`

// PlanAdoption looks at what an adoption would do. It changes nothing.
func PlanAdoption(ctx context.Context, db *sql.DB) (*Adoption, error) {
	if err := CheckSchema(ctx, db); err != nil {
		return nil, err
	}
	var a Adoption
	var since sql.NullTime
	var undecided, waiting, unsent, open int
	err := db.QueryRowContext(ctx, adoptionQuery).Scan(&a.Changed, &a.Is.System, &a.Is.OID, &a.Is.Name, &a.Was.System, &a.Was.OID, &a.Was.Name,
		&since, &a.Batch, &a.BatchAt, &a.RelayID, &undecided, &waiting, &unsent, &open)
	if err != nil {
		return nil, err
	}
	a.Since = since.Time
	a.Undecided, a.Waiting, a.Unsent, a.Open = countOf(undecided), countOf(waiting), countOf(unsent), countOf(open)
	return &a, nil
}

// adoptPatience is how long an adoption tries to get its lock, adoptPause the
// time between two tries, in which producers go on.
const (
	adoptPatience = 30 * time.Second
	adoptPause    = 300 * time.Millisecond
)

// touchQuery makes webhooks whose last change was a transaction that this
// server has not come to ones of now: a running relay looks for those changed
// since a snapshot, and would read these again and again. It does no harm where
// the adoption fails.
const touchQuery = `UPDATE relay.webhooks SET xid = pg_current_xact_id() WHERE xid > pg_current_xact_id()`

// Adopt adopts the database; adopted is false where nothing needs it, or
// somebody else was faster. The lock that keeps producers from inserting is
// waited for in short tries and held for milliseconds. ErrHeld says that it did
// not come, ErrRelayAlive that a relay works on the database.
func Adopt(ctx context.Context, db *sql.DB) (adopted bool, err error) {
	if _, err := db.ExecContext(ctx, touchQuery); err != nil {
		return false, err
	}
	for deadline := time.Now().Add(adoptPatience); ; {
		var bound sql.NullInt64
		err := db.QueryRowContext(ctx, `SELECT relay.adopt()`).Scan(&bound)
		switch {
		case err == nil:
			return bound.Valid, nil
		case isInUse(err):
			return false, fmt.Errorf("%w: %s", ErrRelayAlive, pq.As(err).Message)
		case !isLockTimeout(err) && !isSerialization(err):
			return false, err
		case time.Now().After(deadline):
			return false, held(ctx, db, []string{"outbox"})
		}
		select {
		case <-time.After(adoptPause):
		case <-ctx.Done():
			return false, errors.Join(ctx.Err(), err)
		}
	}
}
