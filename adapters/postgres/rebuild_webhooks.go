package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
)

// webhookChange is an entry of an account's history.
type webhookChange struct {
	account domain.AccountID
	webhook domain.WebhookID
	version int64
	kind    string
	after   []byte
}

// foldedAccount is what an account's history says of it.
type foldedAccount struct {
	version  int64
	webhooks map[domain.WebhookID]domain.Webhook
}

// evolve folds an entry. Secrets, credentials and headers are not in the history.
func (a *foldedAccount) evolve(c *webhookChange) error {
	event, err := c.event()
	if err != nil {
		return fmt.Errorf("account %d, version %d: %w", c.account, c.version, err)
	}
	hook := domain.EvolveWebhook(a.webhooks[c.webhook], event)
	hook.ID, hook.AccountID, hook.Version = c.webhook, c.account, c.version
	if _, disabled := event.(domain.WebhookWasDisabled); disabled {
		hook.DisabledVersion = c.version
	}
	a.version, a.webhooks[c.webhook] = c.version, hook
	return nil
}

// event is the way back of changeName and newHistoryEntry.
func (c *webhookChange) event() (domain.WebhookEvent, error) {
	var entry historyEntry
	if err := json.Unmarshal(c.after, &entry); err != nil {
		return nil, err
	}
	switch c.kind {
	case "registered", "updated":
		settings, err := entry.settings()
		if err != nil {
			return nil, err
		}
		if c.kind == "registered" {
			return domain.WebhookRegistered{Settings: settings}, nil
		}
		return domain.WebhookUpdated{Settings: settings}, nil
	case "secret_rotated":
		if entry.PreviousSecretUntil == nil {
			return domain.WebhookSecretRotated{}, nil
		}
		return domain.WebhookSecretRotated{Until: entry.PreviousSecretUntil.UTC()}, nil
	case "paused":
		return domain.WebhookWasPaused{}, nil
	case "enabled":
		return domain.WebhookEnabledAgain{}, nil
	case "disabled":
		return domain.WebhookWasDisabled{Reason: entry.Reason}, nil
	case "deleted":
		return domain.WebhookWasDeleted{}, nil
	case "breaker_opened":
		opened := domain.WebhookBreakerOpened{Reason: entry.Reason}
		if entry.BreakerOpenedAt != nil {
			opened.At = entry.BreakerOpenedAt.UTC()
		}
		return opened, nil
	case "breaker_closed":
		return domain.WebhookBreakerClosed{}, nil
	case "secret_revealed":
		return domain.WebhookSecretRevealed{}, nil
	}
	return nil, fmt.Errorf("unknown change %q: a newer outrider wrote it", c.kind)
}

// accountBook is the history of accounts folded, and the projections beside it.
type accountBook struct {
	folded   map[domain.AccountID]*foldedAccount
	versions map[domain.AccountID]int64
	webhooks map[domain.WebhookID]domain.Webhook
	// unreadable are webhooks whose settings cannot be read.
	unreadable map[domain.WebhookID]bool
}

const (
	historyQuery = `
SELECT account_id, webhook_id, version, type, after FROM relay.webhook_log
 WHERE $1::bigint[] IS NULL OR account_id = ANY ($1) ORDER BY account_id, version`
	accountsQuery = `SELECT account_id, version FROM relay.accounts WHERE $1::bigint[] IS NULL OR account_id = ANY ($1)`
	allHooksQuery = `SELECT ` + webhookColumns + ` FROM relay.webhooks w WHERE $1::bigint[] IS NULL OR w.account_id = ANY ($1)`
)

// readAccounts reads the history and the projections of accounts, nil for all,
// in a transaction that sees all three as they were at one time, or holds the
// accounts' locks.
func readAccounts(ctx context.Context, tx *sql.Tx, accounts []int64) (*accountBook, error) {
	book := &accountBook{
		folded: map[domain.AccountID]*foldedAccount{}, versions: map[domain.AccountID]int64{},
		webhooks: map[domain.WebhookID]domain.Webhook{}, unreadable: map[domain.WebhookID]bool{},
	}
	only := pq.Array(accounts)
	changes, err := list(ctx, tx, func(row scanner) (c webhookChange, err error) {
		err = row.Scan(&c.account, &c.webhook, &c.version, &c.kind, &c.after)
		return c, err
	}, historyQuery, only)
	if err != nil {
		return nil, err
	}
	for i := range changes {
		c := &changes[i]
		if book.folded[c.account] == nil {
			book.folded[c.account] = &foldedAccount{webhooks: map[domain.WebhookID]domain.Webhook{}}
		}
		if err := book.folded[c.account].evolve(c); err != nil {
			return nil, err
		}
	}
	type version struct {
		account domain.AccountID
		version int64
	}
	versions, err := list(ctx, tx, func(row scanner) (v version, err error) {
		err = row.Scan(&v.account, &v.version)
		return v, err
	}, accountsQuery, only)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		book.versions[v.account] = v.version
	}
	hooks, err := list(ctx, tx, scanAnyWebhook, allHooksQuery, only)
	if err != nil {
		return nil, err
	}
	for i := range hooks {
		book.webhooks[hooks[i].ID] = hooks[i]
		book.unreadable[hooks[i].ID] = hooks[i].Unreadable != ""
	}
	return book, nil
}

// accountDifference is a row that is not as the history has it.
type accountDifference struct {
	account domain.AccountID
	// webhook is 0 where it is the account's own row.
	webhook domain.WebhookID
	text    string
	// mend is nil where nothing mends it.
	mend func(ctx context.Context, tx *sql.Tx) error
}

func (b *accountBook) differences() []accountDifference {
	var found []accountDifference
	for account, folded := range b.folded {
		if is, there := b.versions[account]; !there || is != folded.version {
			found = append(found, accountDifference{account, 0, fmt.Sprintf("account %d: version is %d, by the history %d", account, is, folded.version), mendAccount(account, folded.version)})
		}
		for id, want := range folded.webhooks {
			is, there := b.webhooks[id]
			switch {
			case there && !b.unreadable[id] && sameWebhook(is, want):
			case there:
				found = append(found, accountDifference{account, id, fmt.Sprintf("webhook %d: is %s, by the history %s", id, toldWebhook(is), toldWebhook(want)), mendWebhook(want)})
			case want.State == domain.WebhookDeleted:
				found = append(found, accountDifference{account, id, fmt.Sprintf("webhook %d: is not there, by the history deleted", id), insertDeleted(want)})
			default:
				found = append(found, accountDifference{account, id, fmt.Sprintf(
					"webhook %d: is not there, and its secret is nowhere else: register %s anew", id, want.Settings.URL), nil})
			}
		}
	}
	for id, is := range b.webhooks {
		if folded := b.folded[is.AccountID]; folded == nil || folded.webhooks[id].State == domain.WebhookNone {
			found = append(found, accountDifference{is.AccountID, id, fmt.Sprintf("webhook %d: is there, and has no history", id), nil})
		}
	}
	slices.SortFunc(found, func(a, b accountDifference) int {
		return slices.Compare([]int64{int64(a.account), int64(a.webhook)}, []int64{int64(b.account), int64(b.webhook)})
	})
	return found
}

// sameWebhook compares all that the history tells. PostgreSQL rounds the time
// to microseconds.
func sameWebhook(a, b domain.Webhook) bool {
	return a.AccountID == b.AccountID && a.Version == b.Version && a.State == b.State && a.DisabledVersion == b.DisabledVersion &&
		a.PreviousUntil.Sub(b.PreviousUntil).Abs() <= time.Microsecond && a.BreakerOpenedAt.Equal(b.BreakerOpenedAt) && reflect.DeepEqual(a.Settings, b.Settings)
}

func toldWebhook(w domain.Webhook) string {
	return fmt.Sprintf("version %d, %s, %s", w.Version, w.State, w.Settings.URL)
}

func mendAccount(account domain.AccountID, version int64) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE relay.accounts SET version = $2 WHERE account_id = $1`, int64(account), version)
		return err
	}
}

// mendStatement leaves secrets, credentials and headers, which stand nowhere
// else.
const mendStatement = `
UPDATE relay.webhooks
   SET account_id = $2, version = $3, state = $4, settings = $5::json, url = $6, previous_until = $7, disabled_version = $8, breaker_opened_at = $9, xid = pg_current_xact_id()
 WHERE id = $1`

const insertDeletedStatement = `
INSERT INTO relay.webhooks (id, account_id, version, state, settings, url, previous_until, disabled_version, breaker_opened_at, credential, secret, previous_secret)
VALUES ($1, $2, $3, $4, $5::json, $6, $7, $8, $9, '', '', '')`

func mendWebhook(hook domain.Webhook) func(context.Context, *sql.Tx) error {
	return writeFolded(mendStatement, hook)
}

func insertDeleted(hook domain.Webhook) func(context.Context, *sql.Tx) error {
	return writeFolded(insertDeletedStatement, hook)
}

func writeFolded(statement string, hook domain.Webhook) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		settings, err := json.Marshal(shownSettings(hook.Settings))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, statement, int64(hook.ID), int64(hook.AccountID), hook.Version, string(hook.State), string(settings), hook.Settings.URL,
			sql.NullTime{Time: hook.PreviousUntil, Valid: !hook.PreviousUntil.IsZero()}, hook.DisabledVersion, nullTime(hook.BreakerOpenedAt))
		return err
	}
}

// rebuildWebhooks compares relay.webhooks and relay.accounts with their
// history. What differs is looked at again under the account's lock, which
// every change holds, and mended there.
func rebuildWebhooks(ctx context.Context, db *sql.DB, check bool) (webhooks, accounts Rebuilt, err error) {
	webhooks, accounts = Rebuilt{Projection: "webhooks"}, Rebuilt{Projection: "accounts"}
	snapshot, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return webhooks, accounts, err
	}
	defer func() { _ = snapshot.Rollback() }()
	book, err := readAccounts(ctx, snapshot, nil)
	if err != nil {
		return webhooks, accounts, err
	}
	webhooks.Rows, accounts.Rows = int64(len(book.webhooks)), int64(len(book.versions))
	found := book.differences()
	if err := snapshot.Rollback(); err != nil {
		return webhooks, accounts, err
	}
	var mended []domain.AccountID
	for i, difference := range found {
		if i > 0 && found[i-1].account == difference.account {
			continue
		}
		of := slices.DeleteFunc(slices.Clone(found), func(d accountDifference) bool { return d.account != difference.account })
		if !check {
			if of, err = mendDifferences(ctx, db, difference.account); err != nil {
				return webhooks, accounts, fmt.Errorf("mend account %d: %w", difference.account, err)
			}
			mended = append(mended, difference.account)
		}
		for _, d := range of {
			told := &webhooks
			if d.webhook == 0 {
				told = &accounts
			}
			told.differs(!check && d.mend != nil, "%s", d.text)
		}
	}
	if len(mended) > 0 {
		_, err = db.ExecContext(ctx, `SELECT pg_notify('`+relayChannel+`', 'webhooks')`)
	}
	return webhooks, accounts, err
}

func mendDifferences(ctx context.Context, db *sql.DB, account domain.AccountID) ([]accountDifference, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := lockAccount(ctx, tx, account); err != nil {
		return nil, err
	}
	book, err := readAccounts(ctx, tx, []int64{int64(account)})
	if err != nil {
		return nil, err
	}
	found := book.differences()
	for _, difference := range found {
		if difference.mend == nil {
			continue
		}
		if err := difference.mend(ctx, tx); err != nil {
			return nil, fmt.Errorf("%s: %w", difference.text, err)
		}
	}
	return found, tx.Commit()
}
