package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// ChangeNames are the kinds of changes.
var ChangeNames = []string{
	changeName(domain.WebhookRegistered{}), changeName(domain.WebhookUpdated{}), changeName(domain.WebhookSecretRotated{}),
	changeName(domain.WebhookWasPaused{}), changeName(domain.WebhookEnabledAgain{}), changeName(domain.WebhookWasDisabled{}),
	changeName(domain.WebhookWasDeleted{}), changeName(domain.WebhookBreakerOpened{}), changeName(domain.WebhookBreakerClosed{}),
	changeName(domain.WebhookSecretRevealed{}),
}

const changeColumns = `at, account_id, webhook_id, webhook_version, actor, change, before::text, after::text`

func (c *conditions) change(f *audit.Filter) {
	if f.AccountID != 0 {
		c.add("account_id = ?", int64(f.AccountID))
	}
	if f.WebhookID != 0 {
		c.add("webhook_id = ?", int64(f.WebhookID))
	}
	if f.Status != "" {
		c.add("change = ?", f.Status)
	}
}

// Changes reads changes of webhooks behind a cursor, by their time.
func (a *Audit) Changes(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Change], error) {
	at := func(r *audit.Change) audit.Cursor {
		return audit.Cursor{List: audit.ChangeList, Seq: r.At.UnixMicro(), AccountID: r.AccountID, Version: r.WebhookVersion}
	}
	read := func(after *audit.Cursor, n int) (found chunk[audit.Change], err error) {
		var c conditions
		c.change(&f)
		if !f.Since.IsZero() {
			c.add("at >= ?::timestamptz", f.Since.UTC())
		}
		if !f.Until.IsZero() {
			c.add("at < ?::timestamptz", f.Until.UTC())
		}
		if after != nil {
			c.add("(at, account_id, webhook_version) < (?::timestamptz, ?, ?)", time.UnixMicro(after.Seq).UTC(), int64(after.AccountID), after.Version)
		}
		found.records, err = list(ctx, a.db, scanChangeRecord,
			`SELECT `+changeColumns+` FROM audit.webhook_changes`+c.where()+` ORDER BY at DESC, account_id DESC, webhook_version DESC LIMIT `+strconv.Itoa(n), c.args...)
		found.looked, found.end = len(found.records), endOf(found.records, n, at)
		return found, err
	}
	keep := func(r *audit.Change) bool { return f.Of(r.AccountID, uuid.Nil) }
	return search(&f, after, read, keep, at)
}

func scanChangeRecord(row scanner) (audit.Change, error) {
	var r audit.Change
	var before, after sql.NullString
	err := row.Scan(&r.At, &r.AccountID, &r.WebhookID, &r.WebhookVersion, &r.Actor, &r.Change, &before, &after)
	r.At = r.At.UTC()
	if before.Valid {
		r.Before = json.RawMessage(before.String)
	}
	if after.Valid {
		r.After = json.RawMessage(after.String)
	}
	return r, err
}
