package web

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// History is what happened to chat events and deliveries, and how relays and
// webhooks do.
type History interface {
	// Deliveries reads a page behind a cursor, nil for the newest.
	Deliveries(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Delivery], error)
	// Trace reads the lives of the chat events with an id, nothing where there
	// is none.
	Trace(ctx context.Context, account domain.AccountID, event uuid.UUID) ([]audit.Trace, error)
	// EventOf tells which chat event a delivery, or what a receiver saw as
	// webhook-id, is of.
	EventOf(ctx context.Context, id uuid.UUID) (account domain.AccountID, event uuid.UUID, found bool, err error)
	// Commits is a number that is another one once anything was written.
	Commits(ctx context.Context) (int64, error)

	// Spans adds up what began and ended in spans of some hours, and tells how
	// many deliveries have not ended behind them, negative where relays have not
	// told of all yet; account 0 is for all.
	Spans(ctx context.Context, account domain.AccountID, since time.Time, hours int) (spans []audit.Span, pending int64, err error)
	Backlog(ctx context.Context, account domain.AccountID) (audit.Backlog, error)
	// Failing lists those of all accounts that fail, the longest first.
	Failing(ctx context.Context, limit int) ([]audit.Health, error)
	// RelayTimes lists when relays were at work since a time.
	RelayTimes(ctx context.Context, since time.Time) ([]audit.RelayTime, error)
	// Relays lists those at work, with those that ended within a day if ended
	// says so, and as the last one what nobody has.
	Relays(ctx context.Context, ended bool) ([]audit.Relay, error)
}

// Plans are replays as those who ask for them see them. Read, and what changes
// one, are of all accounts: who calls them looks whose a replay is. actor is who
// asks, for the history.
type Plans interface {
	Plan(ctx context.Context, actor string, s domain.ReplaySelection) (domain.ReplayID, error)
	Request(ctx context.Context, actor string, id domain.ReplayID, run domain.ReplayRun) error
	PlanAndRequest(ctx context.Context, actor string, s domain.ReplaySelection, run domain.ReplayRun) (domain.ReplayID, error)
	Pause(ctx context.Context, actor string, id domain.ReplayID) (state string, err error)
	Resume(ctx context.Context, actor string, id domain.ReplayID) (state string, err error)
	Cancel(ctx context.Context, actor string, id domain.ReplayID) (state string, err error)
	// Read gives domain.ErrNoReplay where there is none.
	Read(ctx context.Context, id domain.ReplayID) (audit.Replay, error)
	List(ctx context.Context, account domain.AccountID, state string, before domain.ReplayID, limit int) ([]audit.Replay, error)
	Parts(ctx context.Context, id domain.ReplayID) ([]audit.ReplayPart, error)
	Estimate(ctx context.Context, r *audit.Replay, rate float64) (time.Duration, error)
}
