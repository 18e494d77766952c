package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (v *v1) addChanges() {
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/webhook-changes", id: "listWebhookChanges", tag: tagHistory, may: domain.Read,
		summary: "List changes of webhooks: who, when, and what",
		about:   "Newest first; also those of deleted webhooks. Secrets are never shown. since and until are of the change.",
	}, v.listChanges)
}

// v1Change is a row of audit.webhook_changes.
type v1Change struct {
	At             time.Time       `json:"at" doc:"When it was made." example:"2026-07-01T12:00:00Z"`
	AccountID      int64           `json:"account_id" doc:"The account." example:"1"`
	WebhookID      int64           `json:"webhook_id" doc:"The webhook." example:"7"`
	WebhookVersion int64           `json:"webhook_version" doc:"The account's configuration version that it made." example:"12"`
	Actor          string          `json:"actor" doc:"Who made it." example:"token 3 (CRM sync)"`
	Change         string          `json:"change" doc:"registered, updated, secret_rotated, secret_revealed, paused, enabled, disabled, deleted, breaker_opened or breaker_closed. There may be more one day." example:"updated"`
	Before         json.RawMessage `json:"before" doc:"The webhook before; null for a new one."`
	After          json.RawMessage `json:"after" doc:"The webhook afterwards."`
}

func showChange(c *audit.Change) v1Change {
	return v1Change{c.At.UTC(), int64(c.AccountID), int64(c.WebhookID), c.WebhookVersion, c.Actor, c.Change, c.Before, c.After}
}

// lastYear is the last one that times are written with.
const lastYear = 9999

func (v *v1) listChanges(ctx context.Context, in *struct {
	InAccount
	Webhook int64  `query:"webhook" minimum:"1" doc:"Only of this webhook." example:"7"`
	Change  string `query:"change" enum:"registered,updated,secret_rotated,secret_revealed,paused,enabled,disabled,deleted,breaker_opened,breaker_closed" doc:"Only changes of this kind." example:"updated"`
	During
	Paging
}) (*v1List[v1Change], error) {
	cursor, err := in.historyCursor(audit.ChangeList)
	if err == nil && cursor != nil && time.UnixMicro(cursor.Seq).UTC().Year() > lastYear {
		err = invalid(v1Reason{"query.cursor", "is no cursor of changes: take the next_cursor of the page before"})
	}
	if err == nil {
		err = in.judge()
	}
	if err != nil {
		return nil, err
	}
	filter := audit.Filter{
		AccountID: in.account(), WebhookID: domain.WebhookID(in.Webhook), Status: in.Change, Since: in.Since, Until: in.Until, Limit: in.Limit,
	}
	page, err := v.config.History.Changes(ctx, filter, cursor)
	if err != nil {
		return nil, err
	}
	return v1ListOfHistory(&in.Paging, &page, showChange), nil
}
