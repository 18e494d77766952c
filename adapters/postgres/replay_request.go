package postgres

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
)

// ReplaySelection says which deliveries to make again: of the named events, or
// of those routed at or after Since and before Until; of one account or, with
// 0, of all; to all of their webhooks or, where it is not 0, to one.
type ReplaySelection struct {
	AccountID    domain.AccountID
	WebhookID    domain.WebhookID
	EventIDs     []uuid.UUID
	Since, Until time.Time
}

// RequestReplay records a request, which the relay then carries out. What is
// wrong with the selection is judged by the database, and told by ExplainAt.
func RequestReplay(ctx context.Context, db *sql.DB, s ReplaySelection) (domain.ReplayID, error) {
	var ids any
	if len(s.EventIDs) > 0 {
		ids = pq.Array(s.EventIDs)
	}
	number := func(n int64) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: n != 0} }
	at := func(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }
	var id domain.ReplayID
	err := db.QueryRowContext(ctx, `
SELECT relay.request_replay(account_id => $1::bigint, since => $2::timestamptz, until => $3::timestamptz, webhook_id => $4::bigint, event_ids => $5::uuid[])`,
		number(int64(s.AccountID)), at(s.Since), at(s.Until), number(int64(s.WebhookID)), ids).Scan(&id)
	return id, err
}

// ReplayProgress is how far a replay is.
type ReplayProgress struct {
	// State is requested, running or scheduled.
	State string
	// Scheduled counts the deliveries made so far, in State "scheduled" all.
	Scheduled int64
}

// Done reports whether all deliveries are scheduled. Their outcomes are in
// audit.deliveries.
func (p ReplayProgress) Done() bool { return p.State == "scheduled" }

// ErrNoReplay says that there is no such replay.
var ErrNoReplay = errors.New("no such replay")

// ReadReplay tells how far a replay is.
func ReadReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (ReplayProgress, error) {
	var p ReplayProgress
	err := db.QueryRowContext(ctx, `SELECT state, scheduled FROM relay.replays WHERE replay_id = $1`, int64(id)).Scan(&p.State, &p.Scheduled)
	if errors.Is(err, sql.ErrNoRows) {
		return p, ErrNoReplay
	}
	return p, err
}

// SessionUser gives the name of the role that the pool is connected as.
func SessionUser(ctx context.Context, db *sql.DB) (string, error) {
	var user string
	err := db.QueryRowContext(ctx, `SELECT session_user::text`).Scan(&user)
	return user, err
}
