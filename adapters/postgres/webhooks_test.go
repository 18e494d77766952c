package postgres_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

const (
	secretText   = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	rotatedText  = "whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
	userPassword = "hunter2hunter2"
	headerValue  = "open-sesame"
)

func secret(t *testing.T, text string) domain.Secret {
	t.Helper()
	s, err := domain.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func register(t *testing.T, url string) domain.RegisterWebhook {
	t.Helper()
	return domain.RegisterWebhook{Settings: domain.Settings{URL: url, OrderHold: domain.DefaultOrderHold}, Secret: secret(t, secretText)}
}

// change carries out a command that must succeed.
func change(t *testing.T, w *postgres.Webhooks, account domain.AccountID, id domain.WebhookID, command domain.WebhookCommand) domain.Webhook {
	t.Helper()
	hook, changed, err := w.Change(t.Context(), account, id, "test", command)
	if err != nil {
		t.Fatalf("%T: %v", command, err)
	}
	if !changed {
		t.Fatalf("%T changed nothing", command)
	}
	return hook
}

// version reads an account's version, 0 where there is none.
func version(t *testing.T, db *sql.DB, account domain.AccountID) int64 {
	t.Helper()
	var v int64
	if err := db.QueryRowContext(t.Context(), `SELECT coalesce((SELECT version FROM relay.accounts WHERE account_id = $1), 0)`, int64(account)).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWebhooksLife(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)

	hook := change(t, w, 7, 0, register(t, "https://user:"+userPassword+"@example.com/hook?token=1"))
	want := domain.Webhook{
		ID: hook.ID, AccountID: 7, Version: 1, State: domain.WebhookEnabled,
		Settings: domain.Settings{
			URL: "https://example.com/hook?token=1", Subscriptions: hook.Settings.Subscriptions,
			Timeout: domain.DefaultTimeout, MaxConcurrency: domain.DefaultMaxConcurrency, OrderHold: domain.DefaultOrderHold,
			Deadline: domain.DefaultDeadline,
		},
		Credential: domain.CredentialFromText("user:" + userPassword), Secret: secret(t, secretText),
	}
	equal(t, hook, want)

	settings := hook.Settings
	settings.Name, settings.InboxID, settings.OrderHold, settings.Timeout = "CRM", 3, domain.HoldForever, 1500*time.Millisecond
	settings.Deadline, settings.Retries = time.Hour, []time.Duration{1500 * time.Millisecond, time.Minute}
	want.Settings, want.Headers, want.Version = settings, domain.HeadersFromText("X-Api-Key: "+headerValue+"\n"), 2
	equal(t, change(t, w, 7, hook.ID, domain.UpdateWebhook{Settings: settings, Headers: []domain.Header{domain.NewHeader("X-Api-Key", headerValue)}}), want)

	until := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	want.Secret, want.PreviousSecret, want.PreviousUntil, want.Version = secret(t, rotatedText), want.Secret, until, 3
	equal(t, change(t, w, 7, hook.ID, domain.RotateSecret{Secret: secret(t, rotatedText), Until: until}), want)

	want.State, want.Version = domain.WebhookPaused, 4
	equal(t, change(t, w, 7, hook.ID, domain.PauseWebhook{}), want)
	want.State, want.Version, want.DisabledVersion = domain.WebhookDisabled, 5, 5
	equal(t, change(t, w, 7, hook.ID, domain.DisableWebhook{Reason: "too\x00 slow"}), want)
	want.State, want.Version = domain.WebhookEnabled, 6
	equal(t, change(t, w, 7, hook.ID, domain.EnableWebhook{}), want)
	for range 2 { // each time is on record, and nothing else changes
		want.Version++
		equal(t, change(t, w, 7, hook.ID, domain.RevealSecret{}), want)
	}

	read, err := w.Get(t.Context(), hook.ID)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, read, want)
	listed, err := w.List(t.Context(), 7)
	if err != nil || len(listed) != 1 {
		t.Fatalf("listed %d webhooks, error %v", len(listed), err)
	}
	equal(t, listed[0], want)

	// Deleted: the secrets are erased, the row stays.
	want.State, want.Version = domain.WebhookDeleted, 9
	want.Secret, want.PreviousSecret, want.Credential, want.Headers = domain.Secret{}, domain.Secret{}, domain.Secret{}, domain.Headers{}
	equal(t, change(t, w, 7, hook.ID, domain.DeleteWebhook{}), want)
	loaded, err := w.Load(t.Context(), []domain.WebhookID{hook.ID, 999})
	if err != nil || len(loaded) != 1 {
		t.Fatalf("loaded %d webhooks, error %v", len(loaded), err)
	}
	equal(t, loaded[0], want)
	if listed, err := w.List(t.Context(), 0); err != nil || len(listed) != 0 {
		t.Errorf("listed %v, error %v, after the deletion", listed, err)
	}
	if _, _, err := w.Change(t.Context(), 7, hook.ID, "test", domain.EnableWebhook{}); !errors.Is(err, domain.ErrWebhookGone) {
		t.Errorf("enable of a deleted webhook: %v", err)
	}

	got := texts(t, db.SQL, `SELECT type || ' ' || version || ' ' || actor || ' ' || (after ->> 'state') FROM relay.webhook_log ORDER BY version`)
	if want := []string{
		"registered 1 test enabled", "updated 2 test enabled", "secret_rotated 3 test enabled", "paused 4 test paused",
		"disabled 5 test disabled", "enabled 6 test enabled", "secret_revealed 7 test enabled", "secret_revealed 8 test enabled", "deleted 9 test deleted",
	}; !slices.Equal(got, want) {
		t.Errorf("history is %q, want %q", got, want)
	}
	for _, entry := range texts(t, db.SQL, `SELECT coalesce(before::text, '') || after::text FROM relay.webhook_log ORDER BY version`) {
		for _, hidden := range []string{secretText, rotatedText, userPassword, headerValue, strings.TrimPrefix(secretText, "whsec_")} {
			if strings.Contains(entry, hidden) {
				t.Errorf("the history shows %q: %s", hidden, entry)
			}
		}
		if !strings.Contains(entry, "https://example.com/hook?token=1") {
			t.Errorf("the history lacks the full URL: %s", entry)
		}
	}
	reasons := texts(t, db.SQL, `SELECT after ->> 'reason' FROM relay.webhook_log WHERE after ->> 'reason' IS NOT NULL`)
	if !slices.Equal(reasons, []string{"too slow"}) {
		t.Errorf("reasons are %q", reasons)
	}
	// The view reads all of it.
	if got := texts(t, db.SQL, `SELECT (before -> 'headers')::text || ' ' || (after -> 'headers')::text FROM audit.webhook_changes WHERE webhook_version = 3`); len(got) != 1 || got[0] != `{"X-Api-Key": null} {"X-Api-Key": null}` {
		t.Errorf("of the headers the history has %q", got)
	}
	if n := len(texts(t, db.SQL, `SELECT before::text || after::text FROM audit.webhook_changes WHERE before IS NOT NULL`)); n != 8 {
		t.Errorf("audit.webhook_changes has %d changes with a before", n)
	}
}

func equal(t *testing.T, got, want domain.Webhook) {
	t.Helper()
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) ||
		got.Secret != want.Secret || got.PreviousSecret != want.PreviousSecret || got.Credential != want.Credential || got.Headers != want.Headers ||
		!reflect.DeepEqual(got.Settings.Retries, want.Settings.Retries) {
		t.Errorf("webhook is\n%+v, want\n%+v", got, want)
	}
}

func texts(t *testing.T, db *sql.DB, query string, args ...any) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var found []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		found = append(found, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWebhooksVersionsHaveNoGaps(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	db.SQL.SetMaxOpenConns(20)
	const changes = 50
	var group sync.WaitGroup
	failures := make(chan error, changes)
	for i := range changes {
		group.Go(func() {
			// Two accounts, each new; some commands fail, some change nothing.
			account := domain.AccountID(1 + i%2)
			ctx := context.WithoutCancel(t.Context())
			hook, _, err := w.Change(ctx, account, 0, "", register(t, fmt.Sprintf("https://example.com/%d", i)))
			if err == nil {
				_, _, err = w.Change(ctx, account, hook.ID, "", domain.PauseWebhook{})
			}
			if err == nil {
				_, changed, again := w.Change(ctx, account, hook.ID, "", domain.PauseWebhook{})
				if changed {
					again = errors.New("a second pause changed something")
				}
				err = again
			}
			if err == nil {
				if _, _, refused := w.Change(ctx, account, 0, "", register(t, fmt.Sprintf("https://example.com/%d", i))); !errors.Is(refused, domain.ErrURLTaken) {
					err = fmt.Errorf("a taken URL: %w", refused)
				}
			}
			if err != nil {
				failures <- err
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	for account := domain.AccountID(1); account <= 2; account++ {
		var n, first, last int64
		if err := db.SQL.QueryRowContext(t.Context(), `SELECT count(*), min(version), max(version) FROM relay.webhook_log WHERE account_id = $1`, int64(account)).
			Scan(&n, &first, &last); err != nil {
			t.Fatal(err)
		}
		if n != changes || first != 1 || last != changes || version(t, db.SQL, account) != changes {
			t.Errorf("account %d has %d entries from %d to %d and version %d, want %d", account, n, first, last, version(t, db.SQL, account), changes)
		}
	}
	actors := texts(t, db.SQL, `SELECT DISTINCT actor FROM relay.webhook_log`)
	if !slices.Equal(actors, texts(t, db.SQL, `SELECT session_user::text`)) {
		t.Errorf("actors are %q, want the session's user", actors)
	}
}

func TestWebhooksRefuse(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	first := change(t, w, 1, 0, register(t, "https://example.com/a"))
	second := change(t, w, 1, 0, register(t, "https://example.com/b"))
	before := version(t, db.SQL, 1)

	taken := func(err error, by domain.WebhookID) bool {
		other, ok := errors.AsType[*domain.URLTakenError](err)
		return ok && errors.Is(err, domain.ErrURLTaken) && other.WebhookID == by
	}
	if _, _, err := w.Change(t.Context(), 1, 0, "", register(t, "https://user:pw@example.com/a")); !taken(err, first.ID) {
		t.Errorf("a taken URL: %v", err)
	}
	settings := second.Settings
	settings.URL = first.Settings.URL
	if _, _, err := w.Change(t.Context(), 1, second.ID, "", domain.UpdateWebhook{Settings: settings}); !taken(err, first.ID) {
		t.Errorf("an update to a taken URL: %v", err)
	}
	if _, _, err := w.Change(t.Context(), 2, first.ID, "", domain.DeleteWebhook{}); !errors.Is(err, domain.ErrWebhookGone) {
		t.Errorf("a change by another account: %v", err)
	}
	if _, _, err := w.Change(t.Context(), 2, first.ID, "", register(t, "https://example.com/c")); !errors.Is(err, domain.ErrWebhookExists) {
		t.Errorf("another account takes the id: %v", err)
	}
	if _, _, err := w.Change(t.Context(), 1, first.ID, "", register(t, "https://example.com/c")); !errors.Is(err, domain.ErrWebhookExists) {
		t.Errorf("registered again: %v", err)
	}
	if _, _, err := w.Change(t.Context(), 1, 999, "", domain.PauseWebhook{}); !errors.Is(err, domain.ErrWebhookGone) {
		t.Errorf("a webhook that never was: %v", err)
	}
	if _, _, err := w.Change(t.Context(), 1, 0, "", register(t, "ftp://example.com")); !errors.Is(err, domain.ErrInvalidSettings) {
		t.Errorf("invalid settings: %v", err)
	}
	if _, err := w.Get(t.Context(), 999); !errors.Is(err, domain.ErrWebhookGone) {
		t.Errorf("get a webhook that never was: %v", err)
	}
	if now := version(t, db.SQL, 1); now != before {
		t.Errorf("refused commands moved the version from %d to %d", before, now)
	}
	if now := version(t, db.SQL, 2); now != 0 {
		t.Errorf("refused commands gave account 2 version %d", now)
	}
	// Free again once the other is deleted, and for other accounts always.
	change(t, w, 1, first.ID, domain.DeleteWebhook{})
	change(t, w, 1, second.ID, domain.UpdateWebhook{Settings: settings})
	change(t, w, 2, 0, register(t, "https://example.com/a"))
}

func TestWebhooksChanged(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	a := change(t, w, 1, 0, register(t, "https://example.com/a"))
	hooks, since, err := w.Changed(t.Context(), "")
	if err != nil || len(hooks) != 0 || since == "" {
		t.Fatalf("from now: %v, snapshot %q, error %v", hooks, since, err)
	}
	// A transaction that began before and ends after a look is not missed.
	tx, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `UPDATE relay.webhooks SET state = 'paused', xid = pg_current_xact_id() WHERE id = $1`, int64(a.ID)); err != nil {
		t.Fatal(err)
	}
	b := change(t, w, 2, 0, register(t, "https://example.com/b"))
	steps := []struct {
		name string
		want []domain.WebhookID
		then func()
	}{
		{"committed only", []domain.WebhookID{b.ID}, func() {}},
		{"not twice", nil, func() {
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}},
		{"the straggler", []domain.WebhookID{a.ID}, func() { change(t, w, 2, b.ID, domain.DeleteWebhook{}) }},
		{"deleted", []domain.WebhookID{b.ID}, func() {}},
		{"nothing", nil, func() {}},
	}
	for _, step := range steps {
		hooks, since, err = w.Changed(t.Context(), since)
		if err != nil {
			t.Fatal(err)
		}
		var ids []domain.WebhookID
		for _, hook := range hooks {
			ids = append(ids, hook.ID)
		}
		if !slices.Equal(ids, step.want) {
			t.Errorf("%s: changed are %v, want %v", step.name, ids, step.want)
		}
		step.then()
	}
	if _, _, err := w.Changed(t.Context(), "nonsense"); err == nil {
		t.Error("a snapshot that is none was taken")
	}
}

func TestWebhooksChangedUsesTheIndex(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const fill = `
INSERT INTO relay.webhooks (account_id, version, state, settings, url, credential, secret, previous_secret, xid)
SELECT n, 1, 'enabled', '{}', 'https://example.com/' || n, '', 's', '', (n + 1000)::text::xid8 FROM generate_series(1, 20000) n`
	for _, statement := range []string{fill, `ANALYZE relay.webhooks`} {
		if _, err := db.SQL.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	plan := strings.Join(texts(t, db.SQL, `EXPLAIN `+strings.ReplaceAll(postgres.ChangedQuery, "$1", `'20900:20900:'`)), "\n")
	if !strings.Contains(plan, "webhooks_xid") || strings.Contains(plan, "Seq Scan") {
		t.Errorf("the plan is\n%s", plan)
	}
}

func TestWebhooksConfigurations(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	// As the relay connects: parameters and results in other formats.
	pool, err := postgres.OpenRelay(db.DSN, "test", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pool.Close() }()
	w := postgres.NewWebhooks(pool)
	a := change(t, w, 1, 0, register(t, "https://example.com/a"))
	b := change(t, w, 1, 0, register(t, "https://example.com/b"))
	c := change(t, w, 2, 0, register(t, "https://example.com/c"))
	change(t, w, 2, c.ID, domain.DeleteWebhook{})

	tx, err := pool.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	for range 2 { // the second time after a change that the snapshot does not have
		got, err := w.Configurations(t.Context(), tx, []domain.AccountID{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 || got[1].Version != 2 || got[2].Version != 2 || got[3].Version != 0 || len(got[2].Webhooks)+len(got[3].Webhooks) != 0 {
			t.Errorf("configurations are %+v", got)
		}
		if hooks := got[1].Webhooks; len(hooks) != 2 {
			t.Errorf("account 1 has %d webhooks", len(hooks))
		} else {
			equal(t, hooks[0], a)
			equal(t, hooks[1], b)
		}
		change(t, w, 3, 0, register(t, fmt.Sprintf("https://example.com/%d", version(t, db.SQL, 3))))
	}
}

func TestWebhooksMissed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	hook := change(t, w, 1, 0, register(t, "https://example.com/a"))
	other := change(t, w, 1, 0, register(t, "https://example.com/b"))
	seq := int64(0)
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	routed := func(hook domain.WebhookID, reason domain.SkipReason, n int) {
		t.Helper()
		data := domain.EncodeRouted(domain.Routed{
			Routing:       domain.Routing{Kind: domain.RoutingSkipped, Skips: []domain.Skip{{WebhookID: hook, Reason: reason}}},
			ConfigVersion: version(t, db.SQL, 1),
		})
		if _, err := db.SQL.ExecContext(t.Context(), `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, routing)
SELECT $1::bigint + n, 0, 0, 1, $1::bigint + n, 1, $2::timestamptz + ($1::bigint + n) * interval '1 second', 1, 'routed', $3::json, gen_random_uuid(), $3::json ->> 'routing' FROM generate_series(1, $4) n`,
			seq, start, string(data), n); err != nil {
			t.Fatal(err)
		}
		seq += int64(n)
	}
	since := time.Time{}
	missed := func(want audit.Missed) {
		t.Helper()
		hook = change(t, w, 1, hook.ID, domain.EnableWebhook{})
		got, err := w.Missed(t.Context(), hook, since)
		if err != nil {
			t.Fatal(err)
		}
		if want.Count > 0 && !want.More && (!got.Since.Equal(want.Since) || !got.Until.Equal(want.Until)) {
			t.Errorf("missed from %s to %s, want %s to %s", got.Since, got.Until, want.Since, want.Until)
		}
		if got.Count != want.Count || got.More != want.More {
			t.Errorf("missed %d, more %t; want %d, %t", got.Count, got.More, want.Count, want.More)
		}
	}

	change(t, w, 1, hook.ID, domain.DisableWebhook{})
	routed(hook.ID, domain.SkipDisabled, 3)
	routed(hook.ID, domain.SkipInbox, 1)
	routed(other.ID, domain.SkipDisabled, 1)
	routed(hook.ID, domain.SkipDisabled, 1)
	missed(audit.Missed{Count: 4, Since: start.Add(time.Second), Until: start.Add(6*time.Second + time.Microsecond)})
	// Only since it was disabled for the last time.
	change(t, w, 1, hook.ID, domain.DisableWebhook{})
	missed(audit.Missed{})
	change(t, w, 1, hook.ID, domain.PauseWebhook{})
	missed(audit.Missed{})
	change(t, w, 1, hook.ID, domain.DisableWebhook{})
	routed(hook.ID, domain.SkipDisabled, 10_001)
	missed(audit.Missed{Count: 10_000, More: true})
	// Only since the time given.
	change(t, w, 1, hook.ID, domain.DisableWebhook{})
	routed(hook.ID, domain.SkipDisabled, 5)
	since = start.Add(time.Duration(seq-1) * time.Second)
	missed(audit.Missed{Count: 2, Since: since, Until: since.Add(time.Second + time.Microsecond)})
}

// TestSettingsOfBefore: a webhook that was written when there was no deadline has
// the default, and a schedule of none is not the relay's.
func TestSettingsOfBefore(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	read := func(id domain.WebhookID) domain.Settings {
		t.Helper()
		hook, err := w.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return hook.Settings
	}
	none := register(t, "https://example.com/none")
	none.Settings.Retries = []time.Duration{}
	hook := change(t, w, 1, 0, none)
	if got := read(hook.ID).Retries; got == nil || len(got) != 0 {
		t.Errorf("no retries come back as %#v", got)
	}
	if _, err := db.SQL.ExecContext(t.Context(), `UPDATE relay.webhooks SET settings = (settings::jsonb - 'deadline' - 'retries')::json`); err != nil {
		t.Fatal(err)
	}
	if got := read(hook.ID); got.Deadline != domain.DefaultDeadline || got.Retries != nil {
		t.Errorf("what was written before has %+v", got)
	}
	for _, broken := range []string{`{"deadline": "soon"}`, `{"retries": ["later"]}`} {
		if _, err := db.SQL.ExecContext(t.Context(), `UPDATE relay.webhooks SET settings = (settings::jsonb || $1::jsonb)::json`, broken); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Get(t.Context(), hook.ID); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%s: %v", broken, err)
		}
		if _, err := db.SQL.ExecContext(t.Context(), `UPDATE relay.webhooks SET settings = (settings::jsonb - 'deadline' - 'retries')::json`); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWebhookSettingsAreReadable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	change(t, w, 1, 0, register(t, "https://example.com/a"))
	var shown map[string]any
	text := texts(t, db.SQL, `SELECT after::text FROM audit.webhook_changes`)[0]
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		t.Fatal(err)
	}
	if shown["deadline"] != "168h0m0s" || shown["timeout"] != "5s" || shown["order_hold"] != "30s" || shown["state"] != "enabled" {
		t.Errorf("the change shows %s", text)
	}
	// PostgreSQL reads the durations as well.
	if got := texts(t, db.SQL, `SELECT ((after ->> 'order_hold')::interval / 2)::text FROM audit.webhook_changes`); !slices.Equal(got, []string{"00:00:15"}) {
		t.Errorf("half of order_hold is %q", got)
	}
}
