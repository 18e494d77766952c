package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/outrider-relay/outrider/relay"
)

// Leases are claims to the work. It implements relay.Leases.
type Leases struct{ db *sql.DB }

// NewLeases gives the leases of a database.
func NewLeases(db *sql.DB) *Leases { return &Leases{db} }

// tailSlot is the tail; the slots below are shards of webhooks.
const tailSlot = 64

// beatsKept are the signs of life left when older ones are deleted.
const beatsKept = 100

// Register implements relay.Leases.
func (l *Leases) Register(ctx context.Context, name, version string) (int64, error) {
	var id int64
	err := l.db.QueryRowContext(ctx, `INSERT INTO relay.relays (name, version) VALUES ($1, $2) RETURNING relay_id`, name, version).Scan(&id)
	return id, err
}

// Owner implements relay.Leases.
func (l *Leases) Owner(ctx context.Context) (relayID, beat int64, err error) {
	err = l.db.QueryRowContext(ctx, `
SELECT coalesce(s.relay_id, 0), coalesce((SELECT max(h.n) FROM relay.heartbeats h WHERE h.relay_id = s.relay_id), 0)
  FROM relay.slots s WHERE s.slot = $1`, tailSlot).Scan(&relayID, &beat)
	return relayID, beat, err
}

// Claim implements relay.Leases. Fencing waits for the owner's recording in
// flight, which holds its row FOR SHARE; what comes after finds the row fenced.
func (l *Leases) Claim(ctx context.Context, relayID, from int64) (relay.Place, error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return relay.Place{}, err
	}
	defer func() { _ = tx.Rollback() }()
	// The row lock makes one of two claimants wait, and see the other's result.
	var owner sql.NullInt64
	var place relay.Place
	err = tx.QueryRowContext(ctx, `SELECT relay_id, position, low FROM relay.slots WHERE slot = $1 FOR UPDATE`, tailSlot).
		Scan(&owner, &place.Position, &place.Low)
	if err != nil {
		return relay.Place{}, err
	}
	if owner.Int64 != from {
		return relay.Place{}, relay.ErrFenced
	}
	if from != 0 {
		if _, err := tx.ExecContext(ctx, `
UPDATE relay.relays SET fenced_at = clock_timestamp(), fenced_by = $1 WHERE relay_id = $2 AND fenced_at IS NULL`, relayID, from); err != nil {
			return relay.Place{}, fmt.Errorf("fence relay %d: %w", from, err)
		}
		err := tx.QueryRowContext(ctx, `SELECT position, low FROM relay.heartbeats WHERE relay_id = $1 ORDER BY n DESC LIMIT 1`, from).
			Scan(&place.Position, &place.Low)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return relay.Place{}, err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM relay.heartbeats WHERE relay_id = $1`, from); err != nil {
			return relay.Place{}, err
		}
	}
	if _, err := tx.ExecContext(ctx, `
UPDATE relay.slots SET relay_id = $1, position = $2, low = $3, since = clock_timestamp()`, relayID, place.Position, place.Low); err != nil {
		return relay.Place{}, err
	}
	return place, tx.Commit()
}

// Beat implements relay.Leases.
func (l *Leases) Beat(ctx context.Context, relayID, n int64, place relay.Place) error {
	result, err := l.db.ExecContext(ctx, `
INSERT INTO relay.heartbeats (relay_id, n, position, low)
SELECT $1::bigint, $2::bigint, $3::bigint, $4::bigint
 WHERE EXISTS (SELECT FROM relay.relays WHERE relay_id = $1::bigint AND fenced_at IS NULL)`, relayID, n, place.Position, place.Low)
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err == nil && rows == 0 {
		return relay.ErrFenced
	}
	if n%beatsKept == 0 {
		_, err = l.db.ExecContext(ctx, `DELETE FROM relay.heartbeats WHERE relay_id = $1 AND n < $2`, relayID, n-beatsKept)
	}
	return err
}

// Release implements relay.Leases.
func (l *Leases) Release(ctx context.Context, relayID int64, place relay.Place) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, statement := range []struct {
		query string
		args  []any
	}{
		{`UPDATE relay.slots SET relay_id = NULL, position = $2, low = $3, since = clock_timestamp() WHERE relay_id = $1`, []any{relayID, place.Position, place.Low}},
		{`UPDATE relay.relays SET fenced_at = clock_timestamp() WHERE relay_id = $1 AND fenced_at IS NULL`, []any{relayID}},
		{`DELETE FROM relay.heartbeats WHERE relay_id = $1`, []any{relayID}},
		{`SELECT pg_notify('outrider_relay', 'released')`, nil},
	} {
		if _, err := tx.ExecContext(ctx, statement.query, statement.args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}
