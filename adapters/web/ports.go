package web

import (
	"context"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
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
	RequestTest(ctx context.Context, id domain.WebhookID) (uuid.UUID, error)
}

// Audit reads the history.
type Audit interface{}

// Replays plans and runs replays.
type Replays interface{}
