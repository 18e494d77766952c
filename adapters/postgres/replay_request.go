package postgres

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// ReplayPlans are replays as those who ask for them see them: they plan them,
// have them run, and look at how far they are.
//
// The history has who asked: the database session's user and, where an actor is
// given, for whom, as in "web for token 3 (CRM sync)". An empty actor asks for
// nobody else.
type ReplayPlans struct{ db *sql.DB }

// NewReplayPlans gives the replays of a database.
func NewReplayPlans(db *sql.DB) *ReplayPlans { return &ReplayPlans{db} }

const planReplay = `relay.plan_replay(account_id => $1::bigint, since => $2::timestamptz, until => $3::timestamptz, webhook_id => $4::bigint,
       event_ids => $5::uuid[], events => $6::text[], ordering_key => $7::text, statuses => $8::text[])`

func selectionArgs(s domain.ReplaySelection) []any {
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

func runArgs(r domain.ReplayRun) []any {
	return []any{numberOrNull(r.ToWebhookID), sql.NullFloat64{Float64: r.Rate, Valid: r.Rate != 0}}
}

func numberOrNull[N ~int64](n N) sql.NullInt64 { return sql.NullInt64{Int64: int64(n), Valid: n != 0} }

// asFor makes a statement of a call that is made in the name of an actor, the
// parameter behind those of the call: the setting ends with the transaction,
// which is the statement.
func asFor(call string, parameters int) string {
	return `WITH actor AS MATERIALIZED (SELECT set_config('outrider.actor', $` + strconv.Itoa(parameters+1) + `, true)) SELECT ` + call + ` FROM actor`
}

// Plan records a plan, with the deliveries that it has. What is wrong
// with the selection is judged by the database, and told by ExplainAt.
func (p *ReplayPlans) Plan(ctx context.Context, actor string, s domain.ReplaySelection) (id domain.ReplayID, err error) {
	args := append(selectionArgs(s), keepable(actor))
	err = p.db.QueryRowContext(ctx, asFor(planReplay, len(args)-1), args...).Scan(&id)
	return id, err
}

// Request asks for a plan to be run, which the relay then does. What is
// wrong with it is judged by the database, and told by ExplainAt.
func (p *ReplayPlans) Request(ctx context.Context, actor string, id domain.ReplayID, run domain.ReplayRun) error {
	args := append(append([]any{int64(id)}, runArgs(run)...), keepable(actor))
	_, err := p.db.ExecContext(ctx, asFor(`relay.request_replay($1, $2, $3)`, len(args)-1), args...)
	return err
}

// PlanAndRequest does both, or neither.
func (p *ReplayPlans) PlanAndRequest(ctx context.Context, actor string, s domain.ReplaySelection, run domain.ReplayRun) (id domain.ReplayID, err error) {
	args := append(append(selectionArgs(s), runArgs(run)...), keepable(actor))
	err = p.db.QueryRowContext(ctx, asFor(`relay.request_replay(`+planReplay+`, $9, $10)`, len(args)-1), args...).Scan(&id)
	return id, err
}

// Pause lets nothing more of a replay be sent. It gives the state that
// follows, as Resume and Cancel do.
func (p *ReplayPlans) Pause(ctx context.Context, actor string, id domain.ReplayID) (state string, err error) {
	return p.move(ctx, actor, id, `relay.pause_replay($1)`)
}

// Resume goes on with a paused replay.
func (p *ReplayPlans) Resume(ctx context.Context, actor string, id domain.ReplayID) (state string, err error) {
	return p.move(ctx, actor, id, `relay.resume_replay($1)`)
}

// Cancel ends a replay, or drops a plan.
func (p *ReplayPlans) Cancel(ctx context.Context, actor string, id domain.ReplayID) (state string, err error) {
	return p.move(ctx, actor, id, `relay.cancel_replay($1)`)
}

func (p *ReplayPlans) move(ctx context.Context, actor string, id domain.ReplayID, call string) (state string, err error) {
	err = p.db.QueryRowContext(ctx, asFor(call, 1), int64(id), keepable(actor)).Scan(&state)
	return state, err
}

const replayQuery = `
SELECT replay_id, coalesce(account_id, 0), requested_by, requested_at, state, selection, coalesce(to_webhook_id, 0), coalesce(rate, 0),
       total, scheduled, succeeded, dead, cancelled, expired, gone, finished_at
  FROM relay.replays`

func scanReplay(row scanner) (r audit.Replay, err error) {
	var finished sql.NullTime
	err = row.Scan(&r.ID, &r.AccountID, &r.RequestedBy, &r.RequestedAt, &r.State, &r.Selection, &r.ToWebhookID, &r.Rate,
		&r.Total, &r.Scheduled, &r.Succeeded, &r.Dead, &r.Cancelled, &r.Expired, &r.Gone, &finished)
	r.FinishedAt = finished.Time
	return r, err
}

// Read reads one replay. The error is domain.ErrNoReplay where there is none.
func (p *ReplayPlans) Read(ctx context.Context, id domain.ReplayID) (audit.Replay, error) {
	r, err := scanReplay(p.db.QueryRowContext(ctx, replayQuery+` WHERE replay_id = $1`, int64(id)))
	if errors.Is(err, sql.ErrNoRows) {
		err = domain.ErrNoReplay
	}
	return r, err
}

// List lists replays, newest first: of one account or, with 0, of all;
// in one state or, with "", in any; below an id, 0 for from the newest on.
func (p *ReplayPlans) List(ctx context.Context, account domain.AccountID, state string, before domain.ReplayID, limit int) ([]audit.Replay, error) {
	return list(ctx, p.db, scanReplay, replayQuery+`
 WHERE ($1::bigint IS NULL OR account_id = $1) AND ($2 = '' OR state = $2) AND ($3::bigint IS NULL OR replay_id < $3) ORDER BY replay_id DESC LIMIT $4`,
		numberOrNull(account), state, numberOrNull(before), limit)
}

// Parts lists what a plan has by webhook, the most first.
func (p *ReplayPlans) Parts(ctx context.Context, id domain.ReplayID) ([]audit.ReplayPart, error) {
	return list(ctx, p.db, func(row scanner) (part audit.ReplayPart, err error) {
		err = row.Scan(&part.AccountID, &part.WebhookID, &part.Deliveries, &part.Gone, &part.PassedOver, &part.FirstAt, &part.LastAt)
		return part, err
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

// Estimate says how long a plan would take at a rate, 0 for none: bounded
// by the rate and, where they have answered lately, by how fast its webhooks
// do. It is 0 where neither is known.
func (p *ReplayPlans) Estimate(ctx context.Context, r *audit.Replay, rate float64) (time.Duration, error) {
	var seconds sql.NullFloat64
	if err := p.db.QueryRowContext(ctx, paceQuery, int64(r.ID)).Scan(&seconds); err != nil {
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
