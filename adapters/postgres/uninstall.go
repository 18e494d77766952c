package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// Removal is what an uninstall drops, and what stands against it.
type Removal struct {
	// Database is its name. Installed says that there is something of Outrider
	// in it; where it is false, all else is empty.
	Database  string
	Installed bool
	Tables    []RemovedTable
	// Views, Functions and Sequences count what is dropped beside the tables.
	Views, Functions, Sequences int
	Roles                       []RemovedRole

	// Unrouted are events that no relay has routed, Waiting deliveries that
	// wait for their time, Unsent those that no relay has begun or finished:
	// all are lost with the tables.
	Unrouted, Waiting, Unsent Count
	// NewestEvent is how long ago the newest event was inserted; negative where
	// there is none.
	NewestEvent time.Duration

	// Foreign names objects of others that depend on ours, lie in our schemas,
	// or are attached to our tables. With one of them nothing is dropped.
	Foreign []string
	// Callers are functions of others whose text names ours: PostgreSQL does
	// not know of these, and they would fail once ours are gone.
	Callers []Caller
	// Relays are those that work or wait to.
	Relays []string
	// Owner is set where the present user may not drop: who may.
	Owner string

	own     ownObjects
	schemas []string
}

// RemovedTable is a table with its partitions.
type RemovedTable struct {
	Name string
	Rows Count
	// Estimate is PostgreSQL's own where there are more rows than are counted;
	// -1 where it has none.
	Estimate int64
	Size     string
}

// RemovedRole is a group role.
type RemovedRole struct {
	Name string
	// Members lose the membership, and nothing else.
	Members []string
	// Needed says why the role stays: what else in the cluster uses it. Empty
	// where it is dropped.
	Needed []string
}

// Caller is a function with the triggers that call it.
type Caller struct {
	Function string
	Triggers []string
}

// ErrRelayAlive is the error of an uninstall or an adoption while a relay runs.
var ErrRelayAlive = errors.New("a relay runs")

// The tries to get the locks. Each is short, since inserts wait behind it; the
// last ones are longer than the second after which PostgreSQL stops an
// autovacuum that is in the way.
var lockTimeouts = []time.Duration{
	200 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 1600 * time.Millisecond,
}

// lockPause lets the producers work between two tries.
const lockPause = 500 * time.Millisecond

// Remove drops what the plan shows, all or nothing. Every DROP is a RESTRICT:
// PostgreSQL itself refuses one that would take something of others along. It
// gives the roles that stay with the reason. ErrHeld says that the locks did
// not come.
func (r *Removal) Remove(ctx context.Context, db *sql.DB, keepRoles bool) (kept []RemovedRole, err error) {
	for i, timeout := range lockTimeouts {
		kept, err = r.tryRemove(ctx, db, keepRoles, timeout)
		if !isLockTimeout(err) && !isSerialization(err) {
			return kept, err
		}
		if i == len(lockTimeouts)-1 {
			break
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, held(ctx, db, r.schemas)
}

func (r *Removal) tryRemove(ctx context.Context, db *sql.DB, keepRoles bool, timeout time.Duration) ([]RemovedRole, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	tables := r.own.names("table")
	slices.SortFunc(tables, func(a, b string) int { return strings.Compare(lockOrder(a), lockOrder(b)) })
	for _, statement := range []string{
		fmt.Sprintf(`SET LOCAL lock_timeout = '%dms'`, timeout.Milliseconds()),
		// An insert that waits behind it finds no table when it goes on.
		`LOCK TABLE ` + strings.Join(tables, ", ") + ` IN ACCESS EXCLUSIVE MODE`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	// What came since the plan was made.
	now := &Removal{}
	if err := now.look(ctx, tx); err != nil {
		return nil, err
	}
	if len(now.Foreign) > 0 {
		return nil, fmt.Errorf("others depend on it: %s", strings.Join(now.Foreign, ", "))
	}
	if err := now.lookAtRelays(ctx, tx); err != nil {
		return nil, err
	}
	if len(now.Relays) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrRelayAlive, strings.Join(now.Relays, ", "))
	}
	if err := now.drop(ctx, tx); err != nil {
		return nil, err
	}
	var kept []RemovedRole
	if !keepRoles {
		if kept, err = dropRoles(ctx, tx, r.Roles); err != nil {
			return nil, err
		}
	}
	return kept, tx.Commit()
}

// lockOrder is that of a relay and of producers: the outbox first.
func lockOrder(table string) string {
	if table == "outbox.events" {
		return ""
	}
	return table
}

// drop drops our objects, then the schemas. Kinds depend on each other in both
// directions, so what is still needed waits for the next round.
func (r *Removal) drop(ctx context.Context, tx *sql.Tx) error {
	var statements []string
	for _, kind := range []string{"view", "table", "function", "sequence", "type"} {
		if names := r.own.names(kind); len(names) > 0 {
			statements = append(statements, `DROP `+strings.ToUpper(kind)+` `+strings.Join(names, ", "))
		}
	}
	statements = append(statements, `DROP SCHEMA `+strings.Join(r.schemas, ", "))
	for len(statements) > 0 {
		var waiting []string
		var reason error
		for _, statement := range statements {
			err := try(ctx, tx, statement)
			switch {
			case isCode(err, string(pqerror.DependentObjectsStillExist)):
				waiting, reason = append(waiting, statement), err
			case err != nil:
				return err
			}
		}
		if len(waiting) == len(statements) {
			text := reason.Error()
			if pg := pq.As(reason); pg != nil {
				text = strings.ReplaceAll(pg.Detail, "\n", "; ")
			}
			return fmt.Errorf("others depend on it: %s", text)
		}
		statements = waiting
	}
	return nil
}

// try runs a statement and undoes it alone where it fails.
func try(ctx context.Context, tx *sql.Tx, statement string) error {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT try`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, statement); err != nil {
		_, undo := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT try`)
		return errors.Join(err, undo)
	}
	_, err := tx.ExecContext(ctx, `RELEASE SAVEPOINT try`)
	return err
}

// dropRoles drops the group roles that nothing else needs. A role that cannot
// be dropped does no harm: it stays, with the reason.
func dropRoles(ctx context.Context, tx *sql.Tx, roles []RemovedRole) (kept []RemovedRole, err error) {
	for _, role := range roles {
		if len(role.Needed) == 0 {
			err := try(ctx, tx, `DROP ROLE `+pq.QuoteIdentifier(role.Name))
			pg := pq.As(err)
			switch {
			case err == nil:
				continue
			case pg == nil || isLockTimeout(err) || isSerialization(err):
				return nil, err
			}
			role.Needed = []string{pg.Message}
		}
		kept = append(kept, role)
	}
	return kept, nil
}

// queryer is a pool or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// textsOf reads the only column of a query.
func textsOf(ctx context.Context, db queryer, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var found []string
	for rows.Next() {
		var text sql.NullString
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		found = append(found, text.String)
	}
	return found, rows.Err()
}
