package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/outrider-relay/outrider/domain"
)

// WebhookImport describes one webhook of an account.
type WebhookImport struct {
	AccountID domain.AccountID
	domain.ImportWebhook
}

// Imported is what became of a description.
type Imported struct {
	// Before is the webhook that the account had with the URL, the zero value
	// for none; After is what it is now. A dry run gives a new webhook no id
	// that it will have.
	Before, After domain.Webhook
	// Refused is why nothing was made of it: an *domain.InvalidSettingsError.
	Refused error
}

// Changed reports whether the import changed anything.
func (i *Imported) Changed() bool { return i.Before.Version != i.After.Version }

// ImportMode says what an import writes.
type ImportMode struct {
	// DryRun does all and keeps nothing.
	DryRun bool
	// SkipRefused keeps the others where one is refused; else all or nothing is
	// kept.
	SkipRefused bool
}

// Import carries out descriptions, found by account and URL, in one
// transaction, and gives what became of each, in their order. actor is who
// asked for it.
func (w *Webhooks) Import(ctx context.Context, actor string, imports []WebhookImport, mode ImportMode) ([]Imported, error) {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	// By account: of two imports at once the slower waits for the faster, and
	// never each for the other.
	order := make([]int, len(imports))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(imports[a].AccountID, imports[b].AccountID) })
	results := make([]Imported, len(imports))
	refused, changed := false, false
	for _, i := range order {
		if results[i], err = importOne(ctx, tx, actor, &imports[i]); err != nil {
			return nil, err
		}
		refused = refused || results[i].Refused != nil
		changed = changed || results[i].Changed()
	}
	if mode.DryRun || !changed || refused && !mode.SkipRefused {
		return results, nil
	}
	return results, tx.Commit()
}

func importOne(ctx context.Context, tx *sql.Tx, actor string, description *WebhookImport) (Imported, error) {
	account := description.AccountID
	version, err := lockAccount(ctx, tx, account)
	if err != nil {
		return Imported{}, fmt.Errorf("lock account %d: %w", account, err)
	}
	// A URL that cannot be used is no webhook's, and refused below.
	shown, _, _ := domain.ParseWebhookURL(description.URL, description.Addresses)
	before, err := scanWebhook(tx.QueryRowContext(ctx,
		`SELECT `+webhookColumns+` FROM relay.webhooks w WHERE w.account_id = $1 AND w.url = $2 AND w.state <> 'deleted' FOR UPDATE`, int64(account), shown))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Imported{}, fmt.Errorf("read the webhook of account %d: %w", account, err)
	}
	before.AccountID = account
	after, err := change(ctx, tx, version, before, actor, description.ImportWebhook)
	if errors.Is(err, domain.ErrInvalidSettings) {
		return Imported{Before: before, After: before, Refused: err}, nil
	}
	return Imported{Before: before, After: after}, err
}
