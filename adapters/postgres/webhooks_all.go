package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/outrider-relay/outrider/domain"
)

// WebhookSelection names webhooks. Deleted ones are never in it.
type WebhookSelection struct {
	// AccountID is whose; 0 takes those of all accounts.
	AccountID domain.AccountID
	// DisabledFor takes only those that are disabled, for this reason; ""
	// takes all.
	DisabledFor string
}

// ChangedWebhook is what a command made of a webhook.
type ChangedWebhook struct{ Before, After domain.Webhook }

// Changed reports whether the command changed anything.
func (c *ChangedWebhook) Changed() bool { return c.Before.Version != c.After.Version }

// ChangeAll carries out a command on each webhook of a selection as Change
// does, in one transaction: on all or on none. It gives what became of each, in
// the order of account and id.
func (w *Webhooks) ChangeAll(ctx context.Context, selection WebhookSelection, actor string, command domain.WebhookCommand) ([]ChangedWebhook, error) {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	versions, err := lockAccounts(ctx, tx, selection.AccountID)
	if err != nil {
		return nil, fmt.Errorf("lock accounts: %w", err)
	}
	hooks, err := lockWebhooks(ctx, tx, selection)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	results := make([]ChangedWebhook, 0, len(hooks))
	changed := false
	for _, before := range hooks {
		version, locked := versions[before.AccountID]
		if !locked {
			continue // its account came after the others were locked: it is later than this
		}
		after, err := change(ctx, tx, version, before, actor, command)
		if err != nil {
			return nil, fmt.Errorf("webhook %d: %w", before.ID, err)
		}
		result := ChangedWebhook{before, after}
		if result.Changed() {
			versions[before.AccountID], changed = after.Version, true
		}
		results = append(results, result)
	}
	if !changed {
		return results, nil
	}
	return results, tx.Commit()
}

// By account: of two such changes at once, or of one and an import, the slower
// waits for the faster, and never each for the other.
const lockAccountsQuery = `SELECT account_id, version FROM relay.accounts WHERE $1::bigint IN (0, account_id) ORDER BY account_id FOR UPDATE`

// lockAccounts is lockAccount for one or, with 0, for all accounts.
func lockAccounts(ctx context.Context, tx *sql.Tx, account domain.AccountID) (map[domain.AccountID]int64, error) {
	rows, err := tx.QueryContext(ctx, lockAccountsQuery, int64(account))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	versions := map[domain.AccountID]int64{}
	for rows.Next() {
		var id domain.AccountID
		var version int64
		if err := rows.Scan(&id, &version); err != nil {
			return nil, err
		}
		versions[id] = version
	}
	return versions, rows.Err()
}

const lockWebhooksQuery = `
SELECT ` + webhookColumns + ` FROM relay.webhooks w
 WHERE $1::bigint IN (0, w.account_id) AND w.state <> 'deleted'
   AND ($2::text = '' OR w.state = 'disabled' AND $2::text = (
        SELECT l.after ->> 'reason' FROM relay.webhook_log l WHERE l.webhook_id = w.id AND l.version = w.disabled_version))
 ORDER BY w.account_id, w.id FOR UPDATE OF w`

// lockWebhooks reads the webhooks of a selection and keeps anybody out who
// changes a row without the account's lock.
func lockWebhooks(ctx context.Context, tx *sql.Tx, selection WebhookSelection) ([]domain.Webhook, error) {
	rows, err := tx.QueryContext(ctx, lockWebhooksQuery, int64(selection.AccountID), keepable(selection.DisabledFor))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var hooks []domain.Webhook
	for rows.Next() {
		hook, err := scanWebhook(rows)
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, hook)
	}
	return hooks, rows.Err()
}
