package postgres

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"
)

// Ages are how long content is kept, counted from the insert of its event. 0 is
// for ever.
type Ages struct{ Payloads, Responses, Log time.Duration }

// seconds are the arguments of the functions that take ages.
func (a Ages) seconds() []any {
	args := make([]any, 0, 3)
	for _, age := range []time.Duration{a.Payloads, a.Responses, a.Log} {
		args = append(args, sql.NullFloat64{Float64: age.Seconds(), Valid: age > 0})
	}
	return args
}

const agesInSQL = `justify_hours(make_interval(secs => $1)), justify_hours(make_interval(secs => $2)), justify_hours(make_interval(secs => $3))`

// Retain does one step of erasing what has reached its age, and says what it
// did. Idle says that another would do nothing now: what waits to end first is
// in waits then, "" for nothing. ErrHeld says that somebody else's lock is in
// the way: the next call tries again.
func Retain(ctx context.Context, db *sql.DB, ages Ages) (step string, idle bool, err error) {
	err = db.QueryRowContext(ctx, `SELECT relay.retain(`+agesInSQL+`)`, ages.seconds()...).Scan(&step)
	if err != nil {
		if isLockTimeout(err) {
			err = errors.Join(ErrHeld, err)
		}
		return "", false, err
	}
	if step == "nothing to do" {
		return "", true, nil
	}
	if waits, idle := strings.CutPrefix(step, "waits: "); idle {
		return waits, true, nil
	}
	return step, false, nil
}

// Retain is one step of a relay's own retention. Its ages are never all 0.
func (s *Store) Retain(ages Ages) func(context.Context) (string, bool, error) {
	return func(ctx context.Context) (string, bool, error) { return Retain(ctx, s.db, ages) }
}

// Aged is a table whose rows have reached their age.
type Aged struct {
	// What is payloads, responses or log.
	What, Table string
	// First and Last are the places of its events.
	First, Last int64
	// Rows is an estimate, Bytes the disk that it takes, -1 where rows alone go.
	Rows, Bytes int64
	// Waits says what has to end before, "" for nothing.
	Waits string
}

const retentionPlan = `
SELECT what, storage, lower, upper - 1, row_estimate, coalesce(bytes, -1), coalesce(waits, '') FROM relay.retention_plan(` + agesInSQL + `) ORDER BY lower, what`

// PlanRetention lists what Retain would erase now. It changes nothing.
func PlanRetention(ctx context.Context, db *sql.DB, ages Ages) ([]Aged, error) {
	return list(ctx, db, func(row scanner) (a Aged, err error) {
		err = row.Scan(&a.What, &a.Table, &a.First, &a.Last, &a.Rows, &a.Bytes, &a.Waits)
		return a, err
	}, retentionPlan, ages.seconds()...)
}

// Holders names the sessions whose locks on the tables are in the way of
// retention.
func Holders(ctx context.Context, db *sql.DB) error {
	return held(ctx, db, []string{"outbox", "relay"})
}
