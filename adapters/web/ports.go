package web

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// Sessions lets people in by their tokens. domain.ErrNoToken is what each of
// them says of a token or session that does not let in (any more).
type Sessions interface {
	// OpenSession gives a new session of the token's access.
	OpenSession(ctx context.Context, token string) (session string, err error)
	// Session gives the access as it is now: a role that changed counts.
	Session(ctx context.Context, session string) (domain.Access, error)
	// CloseSession ends a session. One that is no more is no error.
	CloseSession(ctx context.Context, session string) error
}

// Webhooks are changed by commands, each on record with who gave it. Get and
// List are of all accounts: who calls them looks whose a webhook is.
type Webhooks interface {
	Change(ctx context.Context, account domain.AccountID, id domain.WebhookID, actor string, command domain.WebhookCommand) (domain.Webhook, bool, error)
	// List gives those of an account that are not deleted, by id; 0 is for all.
	List(ctx context.Context, account domain.AccountID) ([]domain.Webhook, error)
	// Get gives a deleted one too; domain.ErrWebhookGone where there never was
	// one.
	Get(ctx context.Context, id domain.WebhookID) (domain.Webhook, error)
	// RequestTest inserts an event that is routed to this webhook alone.
	RequestTest(ctx context.Context, id domain.WebhookID, actor string) (uuid.UUID, error)
	// Missed counts what was passed over while a webhook, which was just enabled
	// again, was disabled.
	Missed(ctx context.Context, hook domain.Webhook, since time.Time) (audit.Missed, error)
}

// Audit reads the history. Account 0 is all of them: who calls it gives the one
// that the session sees.
type Audit interface {
	// Health tells how an account's webhooks do, or with webhook not 0 one of
	// them.
	Health(ctx context.Context, account domain.AccountID, webhook domain.WebhookID) ([]audit.Health, error)
	// Stats gives what became of attempts and deliveries by webhook and hour.
	Stats(ctx context.Context, filter audit.StatsFilter) ([]audit.Stats, error)
	// Changes gives the changes of webhooks, the newest first.
	Changes(ctx context.Context, filter audit.Filter, after *audit.Cursor) (audit.Page[audit.Change], error)
	History
}

// Replays plans and runs replays.
type Replays interface {
	Plans
}
