package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
)

// ReplayStatuses are the words of ReplaySelection.Statuses: what became of a
// notification's latest delivery, and three more. passed_over: none was made,
// since the webhook was disabled. unknown: an attempt of it is. undelivered:
// none succeeded, and none is under way.
var ReplayStatuses = []string{"pending", "held", "succeeded", "dead", "cancelled", "expired", "passed_over", "unknown", "undelivered"}

// ReplaySelection says which deliveries to make again: of the named events, or
// of those routed at or after Since and before Until, zero for now. Of these
// only those that fit what else is set.
type ReplaySelection struct {
	AccountID    domain.AccountID
	WebhookID    domain.WebhookID
	EventIDs     []uuid.UUID
	Since, Until time.Time
	// Events are names of events.
	Events []string
	// OrderingKey is nil for any; the empty one is that of events without.
	OrderingKey *string
	Statuses    []string
}

// ReplayRun says how a plan is run: to the webhooks that it has or, where it is
// not 0, to one; with so many deliveries in a second, 0 for no bound.
type ReplayRun struct {
	ToWebhookID domain.WebhookID
	Rate        float64
}

const planReplay = `relay.plan_replay(account_id => $1::bigint, since => $2::timestamptz, until => $3::timestamptz, webhook_id => $4::bigint,
       event_ids => $5::uuid[], events => $6::text[], ordering_key => $7::text, statuses => $8::text[])`

func (s ReplaySelection) args() []any {
	var ids, events, statuses any
	if len(s.EventIDs) > 0 {
		ids = pq.Array(s.EventIDs)
	}
	if len(s.Events) > 0 {
		events = pq.Array(s.Events)
	}
	if len(s.Statuses) > 0 {
		statuses = pq.Array(s.Statuses)
	}
	at := func(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }
	return []any{numberOrNull(s.AccountID), at(s.Since), at(s.Until), numberOrNull(s.WebhookID), ids, events, s.OrderingKey, statuses}
}

func (r ReplayRun) args() []any {
	return []any{numberOrNull(r.ToWebhookID), sql.NullFloat64{Float64: r.Rate, Valid: r.Rate != 0}}
}

func numberOrNull[N ~int64](n N) sql.NullInt64 { return sql.NullInt64{Int64: int64(n), Valid: n != 0} }

// PlanReplay records a plan, with the deliveries that it has. What is wrong
// with the selection is judged by the database, and told by ExplainAt.
func PlanReplay(ctx context.Context, db *sql.DB, s ReplaySelection) (id domain.ReplayID, err error) {
	err = db.QueryRowContext(ctx, `SELECT `+planReplay, s.args()...).Scan(&id)
	return id, err
}

// RequestReplay asks for a plan to be run, which the relay then does. What is
// wrong with it is judged by the database, and told by ExplainAt.
func RequestReplay(ctx context.Context, db *sql.DB, id domain.ReplayID, run ReplayRun) error {
	_, err := db.ExecContext(ctx, `SELECT relay.request_replay($1, $2, $3)`, append([]any{int64(id)}, run.args()...)...)
	return err
}

// PlanAndRequestReplay does both, or neither.
func PlanAndRequestReplay(ctx context.Context, db *sql.DB, s ReplaySelection, run ReplayRun) (id domain.ReplayID, err error) {
	err = db.QueryRowContext(ctx, `SELECT relay.request_replay(`+planReplay+`, $9, $10)`, append(s.args(), run.args()...)...).Scan(&id)
	return id, err
}

// PauseReplay lets nothing more of a replay be sent. It gives the state that
// follows, as ResumeReplay and CancelReplay do.
func PauseReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (state string, err error) {
	err = db.QueryRowContext(ctx, `SELECT relay.pause_replay($1)`, int64(id)).Scan(&state)
	return state, err
}

// ResumeReplay goes on with a paused replay.
func ResumeReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (state string, err error) {
	err = db.QueryRowContext(ctx, `SELECT relay.resume_replay($1)`, int64(id)).Scan(&state)
	return state, err
}

// CancelReplay ends a replay, or drops a plan.
func CancelReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (state string, err error) {
	err = db.QueryRowContext(ctx, `SELECT relay.cancel_replay($1)`, int64(id)).Scan(&state)
	return state, err
}

// ReplayStates are the states of a replay, in the order of its life.
var ReplayStates = []string{"planned", "requested", "running", "paused", "cancelling", "cancelled", "finished"}

// ReplayRecord is a replay and how far it is.
type ReplayRecord struct {
	ID          domain.ReplayID
	AccountID   domain.AccountID // 0: several
	RequestedBy string
	RequestedAt time.Time
	State       string
	Selection   json.RawMessage
	ToWebhookID domain.WebhookID // 0: those of the plan
	Rate        float64          // deliveries per second, 0 for no bound
	// Total is how many deliveries it has. Scheduled ones have begun their lives;
	// of those the others are finished; Gone ones lost their event before.
	Total, Scheduled, Succeeded, Dead, Cancelled, Expired, Gone int64
	FinishedAt                                                  time.Time
}

// Done is how many deliveries are finished, whatever came of them.
func (r *ReplayRecord) Done() int64 { return r.Succeeded + r.Dead + r.Cancelled + r.Expired + r.Gone }

// Over reports whether nothing more will happen to it.
func (r *ReplayRecord) Over() bool { return r.State == "finished" || r.State == "cancelled" }

// ErrNoReplay says that there is no such replay.
var ErrNoReplay = errors.New("no such replay")

const replayQuery = `
SELECT replay_id, coalesce(account_id, 0), requested_by, requested_at, state, selection, coalesce(to_webhook_id, 0), coalesce(rate, 0),
       total, scheduled, succeeded, dead, cancelled, expired, gone, finished_at
  FROM relay.replays`

func scanReplay(row scanner) (r ReplayRecord, err error) {
	var finished sql.NullTime
	err = row.Scan(&r.ID, &r.AccountID, &r.RequestedBy, &r.RequestedAt, &r.State, &r.Selection, &r.ToWebhookID, &r.Rate,
		&r.Total, &r.Scheduled, &r.Succeeded, &r.Dead, &r.Cancelled, &r.Expired, &r.Gone, &finished)
	r.FinishedAt = finished.Time
	return r, err
}

// ReadReplay reads one replay. The error is ErrNoReplay where there is none.
func ReadReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (ReplayRecord, error) {
	r, err := scanReplay(db.QueryRowContext(ctx, replayQuery+` WHERE replay_id = $1`, int64(id)))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoReplay
	}
	return r, err
}

// ListReplays lists replays, newest first: of one account or, with 0, of all;
// in one state or, with "", in any; below an id, 0 for from the newest on.
func ListReplays(ctx context.Context, db *sql.DB, account domain.AccountID, state string, before domain.ReplayID, limit int) ([]ReplayRecord, error) {
	return list(ctx, db, scanReplay, replayQuery+`
 WHERE ($1::bigint IS NULL OR account_id = $1) AND ($2 = '' OR state = $2) AND ($3::bigint IS NULL OR replay_id < $3) ORDER BY replay_id DESC LIMIT $4`,
		numberOrNull(account), state, numberOrNull(before), limit)
}

// ReplayPart is what a plan has for one webhook.
type ReplayPart struct {
	AccountID  domain.AccountID
	WebhookID  domain.WebhookID
	Deliveries int64
	// Gone are those left out because their events have no payload any more.
	Gone int64
	// PassedOver is the webhook's state where that was why the plan leaves these
	// deliveries out, else "".
	PassedOver      string
	FirstAt, LastAt time.Time
}

// ReadReplayParts lists what a plan has by webhook, the most first.
func ReadReplayParts(ctx context.Context, db *sql.DB, id domain.ReplayID) ([]ReplayPart, error) {
	return list(ctx, db, func(row scanner) (p ReplayPart, err error) {
		err = row.Scan(&p.AccountID, &p.WebhookID, &p.Deliveries, &p.Gone, &p.PassedOver, &p.FirstAt, &p.LastAt)
		return p, err
	}, `
SELECT account_id, webhook_id, deliveries, gone, coalesce(passed_over, ''), first_at, last_at
  FROM relay.replay_webhooks WHERE replay_id = $1 ORDER BY passed_over NULLS FIRST, deliveries DESC, webhook_id`, int64(id))
}

// paceQuery tells of the webhooks with the most deliveries of a plan how long
// each would take: by the median of its last successes, and a quarter of its
// attempts at once, which is what replays get.
const paceQuery = `
SELECT max(p.deliveries * r.us / 1e6 / greatest(1, (w.settings ->> 'max_concurrency')::integer / 4))
  FROM (SELECT v.webhook_id, v.deliveries FROM relay.replay_webhooks v WHERE v.replay_id = $1 AND v.passed_over IS NULL ORDER BY v.deliveries DESC LIMIT 20) p
  JOIN relay.webhooks w ON w.id = p.webhook_id
 CROSS JOIN LATERAL (
       SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (o.data ->> 'duration_us')::double precision) AS us
         FROM (SELECT s.event_seq, s.replay_id FROM relay.log s WHERE s.webhook_id = p.webhook_id AND s.delivery_id IS NOT NULL ORDER BY s.event_seq DESC LIMIT 50) s
         JOIN relay.log o ON o.event_seq = s.event_seq AND o.webhook_id = p.webhook_id AND o.replay_id = s.replay_id AND o.type = 'attempt_succeeded') r`

// EstimateReplay says how long a plan would take at a rate, 0 for none: bounded
// by the rate and, where they have answered lately, by how fast its webhooks
// do. It is 0 where neither is known.
func EstimateReplay(ctx context.Context, db *sql.DB, r *ReplayRecord, rate float64) (time.Duration, error) {
	var seconds sql.NullFloat64
	if err := db.QueryRowContext(ctx, paceQuery, int64(r.ID)).Scan(&seconds); err != nil {
		return 0, err
	}
	if rate > 0 {
		seconds.Float64 = max(seconds.Float64, float64(r.Total)/rate)
	}
	return time.Duration(min(seconds.Float64, 1e9) * float64(time.Second)), nil
}

// SessionUser gives the name of the role that the pool is connected as.
func SessionUser(ctx context.Context, db *sql.DB) (string, error) {
	var user string
	err := db.QueryRowContext(ctx, `SELECT session_user::text`).Scan(&user)
	return user, err
}
