package postgres

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// ChangeBreaker implements relay.Webhooks. A webhook that is gone, or whose
// settings cannot be read, gives the zero value: it is sent nothing.
func (w *Webhooks) ChangeBreaker(ctx context.Context, account domain.AccountID, id domain.WebhookID, command domain.WebhookCommand) (domain.Webhook, error) {
	hook, _, err := w.Change(ctx, account, id, "relay", command)
	if _, unreadable := errors.AsType[*unreadableError](err); unreadable || errors.Is(err, domain.ErrWebhookGone) {
		return domain.Webhook{}, nil
	}
	return hook, err
}

// failingSinceQuery adds up the standings of a webhook, as audit.webhook_health
// does, and looks up who changed it last: enabling it, or giving it another URL,
// lets the time begin anew. A relay's own changes are passed over.
const failingSinceQuery = `
SELECT greatest(s.since, c.at)
  FROM (SELECT min(x.failing_since) FILTER (WHERE x.commit >= coalesce(x.success, 0)) AS since
          FROM (SELECT t.commit, t.failing_since, max(t.commit) FILTER (WHERE t.last_success_at IS NOT NULL) OVER () AS success
                  FROM relay.webhook_standings t WHERE t.webhook_id = $1 AND t.epoch >= 0) x) s
  LEFT JOIN LATERAL (SELECT l.at FROM relay.webhook_log l
                      WHERE l.webhook_id = $1 AND l.type IN ('registered', 'updated', 'enabled') ORDER BY l.version DESC LIMIT 1) c ON true
 WHERE s.since IS NOT NULL`

// FailingSince implements relay.Webhooks.
func (w *Webhooks) FailingSince(ctx context.Context, id domain.WebhookID) (time.Time, error) {
	var since time.Time
	err := w.db.QueryRowContext(ctx, failingSinceQuery, int64(id)).Scan(&since)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return since.UTC(), err
}

// nullTime is NULL for the zero time.
func nullTime(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }
