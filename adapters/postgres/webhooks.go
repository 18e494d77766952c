package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
	"github.com/outrider-relay/outrider/relay"
)

// Webhooks keeps the accounts' webhooks and their history. It implements
// relay.Webhooks, and is what the CLI changes webhooks through.
type Webhooks struct{ db *sql.DB }

// NewWebhooks gives the webhooks of a database.
func NewWebhooks(db *sql.DB) *Webhooks { return &Webhooks{db} }

var _ relay.Webhooks = (*Webhooks)(nil)

// Change carries out a command on an account's webhook and tells whether it
// changed anything. id 0 registers a webhook under a new id. actor is who asked
// for it, for the history; empty takes the database session's user.
//
// The account's configuration version grows by one for each change, without
// gaps; a command that changes nothing takes none. The error may be an
// *domain.InvalidSettingsError, a *domain.URLTakenError, domain.ErrWebhookGone (also
// where the webhook is another account's) or domain.ErrWebhookExists.
func (w *Webhooks) Change(ctx context.Context, account domain.AccountID, id domain.WebhookID, actor string, command domain.WebhookCommand) (domain.Webhook, bool, error) {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return domain.Webhook{}, false, err
	}
	defer func() { _ = tx.Rollback() }()
	version, err := lockAccount(ctx, tx, account)
	if err != nil {
		return domain.Webhook{}, false, fmt.Errorf("lock account %d: %w", account, err)
	}
	before, err := lockWebhook(ctx, tx, account, id)
	if err != nil {
		return domain.Webhook{}, false, fmt.Errorf("read webhook %d: %w", id, err)
	}
	before.ID, before.AccountID = id, account
	after, err := change(ctx, tx, version, before, actor, command)
	if err != nil || after.Version == before.Version {
		return after, false, err
	}
	return after, true, tx.Commit()
}

// change carries out a command on a webhook within a transaction that holds
// the lock of its account, whose version is given. A command that changes
// nothing gives the webhook as it was.
func change(ctx context.Context, tx *sql.Tx, version int64, before domain.Webhook, actor string, command domain.WebhookCommand) (domain.Webhook, error) {
	events, err := domain.DecideWebhook(before, command)
	if err != nil || len(events) == 0 {
		return before, err
	}
	after := before
	for _, event := range events {
		after = domain.EvolveWebhook(after, event)
		version++
		after.Version = version
		if _, disabled := event.(domain.WebhookWasDisabled); disabled {
			after.DisabledVersion = version
		}
	}
	if err := refuseTaken(ctx, tx, after); err != nil {
		return domain.Webhook{}, err
	}
	after, err = writeWebhook(ctx, tx, before.State == domain.WebhookNone, after)
	switch {
	case isUniqueViolation(err, "webhooks_pkey"):
		return domain.Webhook{}, domain.ErrWebhookExists // under another account
	case err != nil:
		return domain.Webhook{}, fmt.Errorf("write webhook %d: %w", before.ID, err)
	}
	if err := appendHistory(ctx, tx, before, after, actor, events); err != nil {
		return domain.Webhook{}, fmt.Errorf("append to the history of webhook %d: %w", after.ID, err)
	}
	const finish = `WITH v AS (UPDATE relay.accounts SET version = $2 WHERE account_id = $1) SELECT pg_notify('` + relayChannel + `', 'webhooks')`
	if _, err := tx.ExecContext(ctx, finish, int64(after.AccountID), version); err != nil {
		return domain.Webhook{}, fmt.Errorf("count the version of account %d: %w", after.AccountID, err)
	}
	return after, nil
}

// lockAccount gives the account's version and holds its row until the
// transaction ends, so that versions are allotted in commit order and without
// gaps. FOR UPDATE alone takes no version; a rollback leaves the row as it was.
func lockAccount(ctx context.Context, tx *sql.Tx, account domain.AccountID) (version int64, err error) {
	const lock = `SELECT version FROM relay.accounts WHERE account_id = $1 FOR UPDATE`
	err = tx.QueryRowContext(ctx, lock, int64(account)).Scan(&version)
	if !errors.Is(err, sql.ErrNoRows) {
		return version, err
	}
	// Of two first changes the slower waits here for the faster, then finds
	// its row.
	const create = `INSERT INTO relay.accounts (account_id, version) VALUES ($1, 0) ON CONFLICT (account_id) DO NOTHING`
	if _, err = tx.ExecContext(ctx, create, int64(account)); err != nil {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, lock, int64(account)).Scan(&version)
	return version, err
}

// lockWebhook gives the account's webhook; one that is not there, or another
// account's, is the zero value. FOR UPDATE keeps anybody out who changes the
// row without the account's lock.
func lockWebhook(ctx context.Context, tx *sql.Tx, account domain.AccountID, id domain.WebhookID) (domain.Webhook, error) {
	if id == 0 {
		return domain.Webhook{}, nil
	}
	hook, err := scanWebhook(tx.QueryRowContext(ctx,
		`SELECT `+webhookColumns+` FROM relay.webhooks w WHERE w.id = $1 AND w.account_id = $2 FOR UPDATE`, int64(id), int64(account)))
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Webhook{}, nil
	}
	return hook, err
}

// refuseTaken looks for another webhook of the account with the URL. No race:
// every change holds the account's lock.
func refuseTaken(ctx context.Context, tx *sql.Tx, hook domain.Webhook) error {
	if hook.State == domain.WebhookDeleted {
		return nil
	}
	var other domain.WebhookID
	err := tx.QueryRowContext(ctx, `SELECT id FROM relay.webhooks WHERE account_id = $1 AND url = $2 AND id <> $3 AND state <> 'deleted'`,
		int64(hook.AccountID), hook.Settings.URL, int64(hook.ID)).Scan(&other)
	switch {
	case err == nil:
		return &domain.URLTakenError{WebhookID: other}
	case errors.Is(err, sql.ErrNoRows):
		return nil
	}
	return err
}

const insertWebhook = `
INSERT INTO relay.webhooks AS w (account_id, version, state, settings, url, credential, secret, previous_secret, previous_until, disabled_version, headers, breaker_opened_at)
VALUES ($1, $2, $3, $4::json, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING ` + webhookColumns

const insertNumberedWebhook = `
INSERT INTO relay.webhooks AS w (account_id, version, state, settings, url, credential, secret, previous_secret, previous_until, disabled_version, headers, breaker_opened_at, id)
VALUES ($1, $2, $3, $4::json, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING ` + webhookColumns

const updateWebhook = `
UPDATE relay.webhooks AS w
   SET account_id = $1, version = $2, state = $3, settings = $4::json, url = $5, credential = $6, secret = $7,
       previous_secret = CASE WHEN $9::timestamptz > clock_timestamp() THEN $8 ELSE '' END,
       previous_until = $9, disabled_version = $10, headers = $11, breaker_opened_at = $12, xid = pg_current_xact_id()
 WHERE id = $13 RETURNING ` + webhookColumns

// writeWebhook writes the projection and gives it back as it is kept: with its
// id, and without the secrets that are of no more use.
func writeWebhook(ctx context.Context, tx *sql.Tx, first bool, hook domain.Webhook) (domain.Webhook, error) {
	if hook.State == domain.WebhookDeleted {
		hook.Credential, hook.Secret, hook.PreviousSecret = domain.Secret{}, domain.Secret{}, domain.Secret{}
		hook.Headers = domain.Headers{}
	}
	settings, err := json.Marshal(shownSettings(hook.Settings))
	if err != nil {
		return domain.Webhook{}, err
	}
	args := []any{
		int64(hook.AccountID), hook.Version, string(hook.State), string(settings), hook.Settings.URL, hook.Credential.Reveal(),
		hook.Secret.Reveal(), hook.PreviousSecret.Reveal(), sql.NullTime{Time: hook.PreviousUntil, Valid: !hook.PreviousUntil.IsZero()},
		hook.DisabledVersion, hook.Headers.Text(), nullTime(hook.BreakerOpenedAt),
	}
	query := updateWebhook
	switch {
	case hook.ID == 0:
		query = insertWebhook
	case first:
		query = insertNumberedWebhook
		args = append(args, int64(hook.ID))
	default:
		args = append(args, int64(hook.ID))
	}
	return scanWebhook(tx.QueryRowContext(ctx, query, args...))
}

// The types of the entries of a webhook's history, as audit.webhook_changes
// shows them.
func changeName(event domain.WebhookEvent) string {
	switch event.(type) {
	case domain.WebhookRegistered:
		return "registered"
	case domain.WebhookUpdated:
		return "updated"
	case domain.WebhookSecretRotated:
		return "secret_rotated"
	case domain.WebhookWasPaused:
		return "paused"
	case domain.WebhookEnabledAgain:
		return "enabled"
	case domain.WebhookWasDisabled:
		return "disabled"
	case domain.WebhookWasDeleted:
		return "deleted"
	case domain.WebhookBreakerOpened:
		return "breaker_opened"
	case domain.WebhookBreakerClosed:
		return "breaker_closed"
	case domain.WebhookSecretRevealed:
		return "secret_revealed"
	}
	panic(fmt.Sprintf("no name for %T", event)) // a new event type without a case: a test over all of them fails
}

// historyEntry is what an entry tells of the webhook before and after: never a
// secret, the URL without userinfo, and headers without their values.
type historyEntry struct {
	settingsJSON
	Headers map[string]*string  `json:"headers,omitempty"`
	State   domain.WebhookState `json:"state"`
	// PreviousSecretUntil is when a replaced secret stops to sign.
	PreviousSecretUntil *time.Time `json:"previous_secret_until,omitempty"`
	// BreakerOpenedAt is since when the breaker is open, where it is.
	BreakerOpenedAt *time.Time `json:"breaker_opened_at,omitempty"`
	Reason          string     `json:"reason,omitempty"`
}

func newHistoryEntry(hook domain.Webhook, event domain.WebhookEvent) (string, error) {
	entry := historyEntry{settingsJSON: shownSettings(hook.Settings), Headers: map[string]*string{}, State: hook.State}
	for name := range hook.Headers.All() {
		entry.Headers[name] = nil
	}
	if !hook.BreakerOpenedAt.IsZero() {
		opened := hook.BreakerOpenedAt.UTC()
		entry.BreakerOpenedAt = &opened
	}
	switch e := event.(type) {
	case domain.WebhookSecretRotated:
		until := e.Until.UTC()
		entry.PreviousSecretUntil = &until
	case domain.WebhookWasDisabled:
		entry.Reason = keepable(e.Reason)
	case domain.WebhookBreakerOpened:
		entry.Reason = keepable(e.Reason)
	default:
	}
	text, err := json.Marshal(entry)
	return string(text), err
}

const appendWebhookLog = `
INSERT INTO relay.webhook_log (account_id, version, webhook_id, type, actor, before, after)
VALUES ($1, $2, $3, $4, coalesce(nullif($5, ''), session_user::text), $6::json, $7::json) RETURNING actor, at`

// appendHistory appends one entry for each event, and tells the operator of a
// webhook that is disabled, but for one that begins so.
func appendHistory(ctx context.Context, tx *sql.Tx, before, after domain.Webhook, actor string, events []domain.WebhookEvent) error {
	version := after.Version - int64(len(events))
	state := before
	for _, event := range events {
		version++
		var was sql.NullString
		if state.State != domain.WebhookNone {
			text, err := newHistoryEntry(state, nil)
			if err != nil {
				return err
			}
			was = sql.NullString{String: text, Valid: true}
		}
		state = domain.EvolveWebhook(state, event)
		is, err := newHistoryEntry(state, event)
		if err != nil {
			return err
		}
		var by string
		var at time.Time
		if err := tx.QueryRowContext(ctx, appendWebhookLog,
			int64(after.AccountID), version, int64(after.ID), changeName(event), keepable(actor), was, is).Scan(&by, &at); err != nil {
			return err
		}
		if disabled, ok := event.(domain.WebhookWasDisabled); ok && before.State != domain.WebhookNone {
			if told := domain.TellDisabled(state, version, keepable(disabled.Reason), by, at); told != nil {
				if err := tellOperator(ctx, tx, told); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// keepable makes free text fit for PostgreSQL.
func keepable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
}

// List reads the webhooks of an account, or with account 0 of all accounts, in
// the order of account and id. Deleted ones are not listed. One whose settings
// cannot be read comes without them, see domain.Webhook.
func (w *Webhooks) List(ctx context.Context, account domain.AccountID) ([]domain.Webhook, error) {
	if account == 0 {
		return w.query(ctx, `SELECT `+webhookColumns+` FROM relay.webhooks w WHERE w.state <> 'deleted' ORDER BY w.account_id, w.id`)
	}
	return w.query(ctx, `SELECT `+webhookColumns+` FROM relay.webhooks w WHERE w.account_id = $1 AND w.state <> 'deleted' ORDER BY w.id`, int64(account))
}

// Get reads a webhook, also a deleted one. domain.ErrWebhookGone where there
// never was one.
func (w *Webhooks) Get(ctx context.Context, id domain.WebhookID) (domain.Webhook, error) {
	hook, err := scanWebhook(w.db.QueryRowContext(ctx, `SELECT `+webhookColumns+` FROM relay.webhooks w WHERE w.id = $1`, int64(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Webhook{}, domain.ErrWebhookGone
	}
	return hook, err
}

// Load implements relay.Webhooks. Deleted webhooks are loaded too; ids that
// never were are left out.
func (w *Webhooks) Load(ctx context.Context, ids []domain.WebhookID) ([]domain.Webhook, error) {
	return list(ctx, w.db, scanAnyWebhook, `SELECT `+webhookColumns+` FROM relay.webhooks w WHERE w.id = ANY ($1::bigint[])`, pq.Array(ids))
}

func (w *Webhooks) query(ctx context.Context, query string, args ...any) ([]domain.Webhook, error) {
	return list(ctx, w.db, scanListedWebhook, query, args...)
}

// changedQuery gives at least one row, for the snapshot. The first condition
// is what the index on xid serves; the second leaves out what committed before
// since was taken, however long the oldest transaction then runs.
const changedQuery = `
SELECT pg_current_snapshot()::text, w.id IS NOT NULL, ` + nullableWebhookColumns + `
  FROM (SELECT) one
  LEFT JOIN relay.webhooks w ON w.xid >= pg_snapshot_xmin($1::pg_snapshot) AND NOT pg_visible_in_snapshot(w.xid, $1::pg_snapshot)`

// Changed implements relay.Webhooks: those whose last change committed after
// the snapshot was taken.
func (w *Webhooks) Changed(ctx context.Context, since string) ([]domain.Webhook, string, error) {
	rows, err := w.db.QueryContext(ctx, changedQuery, sql.NullString{String: since, Valid: since != ""})
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }()
	var hooks []domain.Webhook
	var snapshot string
	for rows.Next() {
		var found bool
		hook, err := scanAnyWebhook(prefixed{rows, []any{&snapshot, &found}})
		if err != nil {
			return nil, "", err
		}
		if found {
			hooks = append(hooks, hook)
		}
	}
	return hooks, snapshot, rows.Err()
}

const configurationsQuery = `
SELECT a.account_id, a.version, w.id IS NOT NULL, ` + nullableWebhookColumns + `
  FROM relay.accounts a
  LEFT JOIN relay.webhooks w ON w.account_id = a.account_id AND w.state <> 'deleted'
 WHERE a.account_id = ANY ($1::bigint[])
 ORDER BY a.account_id, w.id`

// Configurations implements relay.Webhooks. An account that never had a
// webhook has version 0.
func (w *Webhooks) Configurations(ctx context.Context, tx *sql.Tx, accounts []domain.AccountID) (map[domain.AccountID]domain.Configuration, error) {
	configurations := make(map[domain.AccountID]domain.Configuration, len(accounts))
	for _, account := range accounts {
		configurations[account] = domain.Configuration{}
	}
	rows, err := tx.QueryContext(ctx, configurationsQuery, pq.Array(accounts))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var account domain.AccountID
		var version int64
		var found bool
		hook, err := scanAnyWebhook(prefixed{rows, []any{&account, &version, &found}})
		if err != nil {
			return nil, err
		}
		configuration := configurations[account]
		configuration.Version = version
		if found {
			configuration.Webhooks = append(configuration.Webhooks, hook)
		}
		configurations[account] = configuration
	}
	return configurations, rows.Err()
}

// Tested implements relay.Webhooks.
func (w *Webhooks) Tested(ctx context.Context, tx *sql.Tx, eventSeq int64) (domain.WebhookID, error) {
	var id domain.WebhookID
	err := tx.QueryRowContext(ctx, `SELECT webhook_id FROM relay.webhook_tests WHERE event_seq = $1`, eventSeq).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// RequestTest inserts an event that is routed to this webhook alone, and gives
// its id. The event's metadata has who asked: the database session's user and,
// where an actor is given, for whom. A webhook that is not enabled is refused by
// the database, in words that Explain keeps.
func (w *Webhooks) RequestTest(ctx context.Context, id domain.WebhookID, actor string) (uuid.UUID, error) {
	var event uuid.UUID
	err := w.db.QueryRowContext(ctx, asFor(`relay.request_webhook_test($1)`, 1), int64(id), keepable(actor)).Scan(&event)
	return event, err
}

// maxMissed bounds the count of missed events.
const maxMissed = 10_000

// missedQuery reads the account's events from the newest down, no further than
// when the webhook was disabled: low bounds what the batches behind it may
// have routed. Their clock is a relay's, so an hour is left for it to differ.
const missedQuery = `
SELECT count(*), coalesce(min(m.at), $4), coalesce(max(m.at), $4)
  FROM (SELECT l.at FROM relay.log l
         WHERE l.account_id = $1 AND l.webhook_id = 0 AND l.type = 'routed'
           AND l.event_seq > coalesce((SELECT b.low FROM relay.batches b WHERE b.at < $4::timestamptz - interval '1 hour' ORDER BY b.at DESC LIMIT 1), 0)
           AND (l.data ->> 'config_version')::bigint >= $3 AND ($6::timestamptz IS NULL OR l.at >= $6::timestamptz)
           AND EXISTS (SELECT FROM json_array_elements(l.data -> 'skips') AS s (skip)
                        WHERE s.skip ->> 'reason' = 'disabled' AND (s.skip ->> 'webhook_id')::bigint = $2)
         ORDER BY l.event_seq DESC LIMIT $5) m`

// Missed counts the events that a webhook missed between its last two changes
// of state: hook is one that was just enabled again. since leaves out what was
// routed before; zero for nothing.
func (w *Webhooks) Missed(ctx context.Context, hook domain.Webhook, since time.Time) (audit.Missed, error) {
	const disabled = `
SELECT d.version, d.at FROM relay.webhook_log d
 WHERE d.webhook_id = $1 AND d.version < $2 AND d.type = 'disabled'
   AND NOT EXISTS (SELECT FROM relay.webhook_log e WHERE e.webhook_id = $1 AND e.version > d.version AND e.version < $2 AND e.type IN ('enabled', 'paused'))`
	var version int64
	var at time.Time
	err := w.db.QueryRowContext(ctx, disabled, int64(hook.ID), hook.Version).Scan(&version, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return audit.Missed{}, nil
	}
	if err != nil {
		return audit.Missed{}, err
	}
	var m audit.Missed
	err = w.db.QueryRowContext(ctx, missedQuery, int64(hook.AccountID), int64(hook.ID), version, at, maxMissed+1, sql.NullTime{Time: since.UTC(), Valid: !since.IsZero()}).Scan(&m.Count, &m.Since, &m.Until)
	if m.Count > maxMissed {
		// The oldest ones were not looked at: they are none from before it was
		// disabled.
		m.Count, m.More, m.Since = maxMissed, true, at
		if since.After(at) {
			m.Since = since
		}
	}
	m.Until = m.Until.Add(time.Microsecond) // a replay's range ends before until
	return m, err
}

// settingsJSON is how settings are kept and shown: durations as text that both
// Go and PostgreSQL's interval read, but for "forever".
type settingsJSON struct {
	URL            string   `json:"url"`
	Name           string   `json:"name,omitempty"`
	Subscriptions  []string `json:"subscriptions"`
	InboxID        int64    `json:"inbox_id,omitempty"`
	Timeout        string   `json:"timeout"`
	MaxConcurrency int      `json:"max_concurrency"`
	OrderHold      string   `json:"order_hold"`
	Deadline       string   `json:"deadline,omitempty"`
	Retries        []string `json:"retries,omitzero"` // an empty list is not none
	RateLimit      float64  `json:"rate_limit,omitempty"`
}

const forever = "forever"

func shownSettings(s domain.Settings) settingsJSON {
	hold := s.OrderHold.String()
	if s.OrderHold == domain.HoldForever {
		hold = forever
	}
	shown := settingsJSON{s.URL, s.Name, s.Subscriptions, s.InboxID, s.Timeout.String(), s.MaxConcurrency, hold, s.Deadline.String(), nil, s.RateLimit}
	if s.Retries != nil {
		shown.Retries = make([]string, len(s.Retries))
	}
	for i, wait := range s.Retries {
		shown.Retries[i] = wait.String()
	}
	return shown
}

func (s settingsJSON) settings() (domain.Settings, error) {
	timeout, err := time.ParseDuration(s.Timeout)
	if err != nil {
		return domain.Settings{}, err
	}
	hold := domain.HoldForever
	if s.OrderHold != forever {
		if hold, err = time.ParseDuration(s.OrderHold); err != nil {
			return domain.Settings{}, err
		}
	}
	deadline := domain.DefaultDeadline // of what was written before there was one
	if s.Deadline != "" {
		if deadline, err = time.ParseDuration(s.Deadline); err != nil {
			return domain.Settings{}, err
		}
	}
	var retries []time.Duration
	if s.Retries != nil {
		retries = make([]time.Duration, len(s.Retries))
	}
	for i, text := range s.Retries {
		if retries[i], err = time.ParseDuration(text); err != nil {
			return domain.Settings{}, err
		}
	}
	return domain.Settings{
		URL: s.URL, Name: s.Name, Subscriptions: s.Subscriptions, InboxID: s.InboxID,
		Timeout: timeout, MaxConcurrency: s.MaxConcurrency, OrderHold: hold,
		Deadline: deadline, Retries: retries, RateLimit: s.RateLimit,
	}, nil
}

const webhookColumns = `w.id, w.account_id, w.version, w.state, w.settings::text, w.credential, w.secret, w.previous_secret, w.previous_until, w.disabled_version, w.headers, w.breaker_opened_at`

// nullableWebhookColumns are webhookColumns on the right of a LEFT JOIN.
const nullableWebhookColumns = `coalesce(w.id, 0), coalesce(w.account_id, 0), coalesce(w.version, 0), coalesce(w.state, ''), coalesce(w.settings::text, ''),
       coalesce(w.credential, ''), coalesce(w.secret, ''), coalesce(w.previous_secret, ''), w.previous_until, coalesce(w.disabled_version, 0), coalesce(w.headers, ''), w.breaker_opened_at`

type scanner interface{ Scan(dest ...any) error }

// prefixed scans the columns before a webhook's.
type prefixed struct {
	row   scanner
	first []any
}

// Scan implements scanner.
func (p prefixed) Scan(dest ...any) error { return p.row.Scan(append(p.first, dest...)...) }

// scanWebhook reads webhookColumns. A row without a webhook gives the zero
// value.
func scanWebhook(row scanner) (domain.Webhook, error) {
	var hook domain.Webhook
	var settings, credential, secret, previous, headers string
	var until, opened sql.NullTime
	if err := row.Scan(&hook.ID, &hook.AccountID, &hook.Version, &hook.State, &settings, &credential, &secret, &previous, &until, &hook.DisabledVersion, &headers, &opened); err != nil {
		return domain.Webhook{}, err
	}
	if settings == "" {
		return domain.Webhook{}, nil
	}
	if opened.Valid {
		hook.BreakerOpenedAt = opened.Time.UTC()
	}
	var kept settingsJSON
	err := json.Unmarshal([]byte(settings), &kept)
	if err == nil {
		hook.Settings, err = kept.settings()
	}
	if err != nil {
		return hook, &unreadableError{hook.ID, err}
	}
	hook.Credential, hook.Secret, hook.PreviousSecret = domain.CredentialFromText(credential), domain.CredentialFromText(secret), domain.CredentialFromText(previous)
	hook.Headers = domain.HeadersFromText(headers)
	if until.Valid {
		hook.PreviousUntil = until.Time.UTC()
	}
	return hook, nil
}

// unreadableError says whose settings are not what this version can read.
type unreadableError struct {
	id    domain.WebhookID
	cause error
}

func (e *unreadableError) Error() string {
	return fmt.Sprintf("the settings of webhook %d cannot be read: %v", e.id, e.cause)
}

func (e *unreadableError) Unwrap() error { return e.cause }

// scanListedWebhook is scanWebhook for who reads many, which one broken row must
// not stop: a webhook whose settings cannot be read comes without them.
func scanListedWebhook(row scanner) (domain.Webhook, error) {
	hook, err := scanWebhook(row)
	if e, unreadable := errors.AsType[*unreadableError](err); unreadable {
		hook.Unreadable = e.cause.Error()
		return hook, nil
	}
	return hook, err
}

// scanAnyWebhook is scanListedWebhook for the relay, to which one whose settings
// cannot be read is paused where it was enabled, so that what is pending is kept
// until they are mended.
func scanAnyWebhook(row scanner) (domain.Webhook, error) {
	hook, err := scanListedWebhook(row)
	if hook.Unreadable != "" {
		hook.Settings = domain.Settings{OrderHold: domain.DefaultOrderHold} // what is kept stays in order
		if hook.State == domain.WebhookEnabled {
			hook.State = domain.WebhookPaused
		}
	}
	return hook, err
}

// Disable implements relay.Webhooks.
func (w *Webhooks) Disable(ctx context.Context, account domain.AccountID, id domain.WebhookID, reason string) error {
	_, _, err := w.Change(ctx, account, id, "relay", domain.DisableWebhook{Reason: reason})
	if errors.Is(err, domain.ErrWebhookGone) {
		return nil
	}
	return err
}
