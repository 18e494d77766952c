package postgres_test

import (
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// registerAt registers a webhook of account 1.
func registerAt(t *testing.T, hooks *postgres.Webhooks, url string) domain.Webhook {
	t.Helper()
	hook, _, err := hooks.Change(t.Context(), 1, 0, "test", domain.RegisterWebhook{Settings: domain.Settings{URL: url}, Secret: secretOf(t)})
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

func secretOf(t *testing.T) domain.Secret {
	t.Helper()
	secret, err := domain.ParseSecret("a-secret-for-tests")
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestABreakerIsOnRecord: as a change of the webhook, which a rebuild folds to
// the same.
func TestABreakerIsOnRecord(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	hooks := postgres.NewWebhooks(db.SQL)
	hook := registerAt(t, hooks, "https://example.com/")
	at := time.Now()
	opened, err := hooks.ChangeBreaker(t.Context(), 1, hook.ID, domain.OpenBreaker{At: at, Reason: "it is down", URL: hook.Settings.URL})
	if err != nil || opened.Version != 2 || !opened.BreakerOpenedAt.Equal(at.Truncate(time.Microsecond)) {
		t.Fatalf("opened is %+v, %v", opened, err)
	}
	again, err := hooks.ChangeBreaker(t.Context(), 1, hook.ID, domain.OpenBreaker{At: at.Add(time.Hour), URL: hook.Settings.URL})
	if err != nil || again.Version != 2 || !again.BreakerOpenedAt.Equal(opened.BreakerOpenedAt) {
		t.Errorf("opened again it is %+v, %v", again, err)
	}
	loaded, err := hooks.Load(t.Context(), []domain.WebhookID{hook.ID})
	if err != nil || len(loaded) != 1 || !loaded[0].BreakerOpenedAt.Equal(opened.BreakerOpenedAt) {
		t.Errorf("loaded are %+v, %v", loaded, err)
	}
	rebuild := postgres.Rebuild{DB: db.SQL, Check: true, Now: time.Now}
	differences := func() (n int64) {
		t.Helper()
		rebuilt, err := rebuild.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rebuilt {
			n += r.Differences
		}
		return n
	}
	if n := differences(); n != 0 {
		t.Errorf("%d rows differ from the history", n)
	}
	do(t, db.SQL, `UPDATE relay.webhooks SET breaker_opened_at = NULL`)
	if n := differences(); n != 1 {
		t.Errorf("%d rows differ from the history, want 1", n)
	}
	rebuild.Check = false
	differences()
	closed, err := hooks.ChangeBreaker(t.Context(), 1, hook.ID, domain.CloseBreaker{})
	if err != nil || closed.Version != 3 || !closed.BreakerOpenedAt.IsZero() {
		t.Errorf("closed is %+v, %v", closed, err)
	}
	if other, err := hooks.ChangeBreaker(t.Context(), 2, hook.ID, domain.CloseBreaker{}); err != nil || other.ID != 0 {
		t.Errorf("of another account it is %+v, %v", other, err)
	}
	do(t, db.SQL, `UPDATE relay.webhooks SET settings = '{"timeout": 1}'`)
	if broken, err := hooks.ChangeBreaker(t.Context(), 1, hook.ID, domain.OpenBreaker{At: at, URL: hook.Settings.URL}); err != nil || broken.ID != 0 {
		t.Errorf("one that cannot be read is %+v, %v", broken, err)
	}
}

// TestSinceWhenAWebhookFails: behind the last success, and the last change that
// somebody made.
func TestSinceWhenAWebhookFails(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	hooks := postgres.NewWebhooks(db.SQL)
	hook := registerAt(t, hooks, "https://example.com/")
	since := func() time.Time {
		t.Helper()
		at, err := hooks.FailingSince(t.Context(), hook.ID)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	at := func(day int) time.Time { return time.Date(2100, 1, day, 12, 0, 0, 0, time.UTC) }
	row := func(commit int, success, since any) {
		t.Helper()
		if _, err := db.SQL.ExecContext(t.Context(), `
INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
VALUES ($1, 1, $2, 0, $3, $4, 1, 0, $4)`, int64(hook.ID), commit, success, since); err != nil {
			t.Fatal(err)
		}
	}
	if got := since(); !got.IsZero() {
		t.Errorf("before anything it fails since %v", got)
	}
	row(1, nil, at(1))
	row(2, nil, at(2))
	if got := since(); !got.Equal(at(1)) {
		t.Errorf("it fails since %v, want the first", got)
	}
	row(3, at(3), nil)
	if got := since(); !got.IsZero() {
		t.Errorf("behind a success it fails since %v", got)
	}
	row(5, nil, at(6))
	row(4, nil, at(5))
	if got := since(); !got.Equal(at(5)) {
		t.Errorf("it fails since %v, want the first behind the success", got)
	}
	// The breaker is the relay's doing, and changes nothing.
	do(t, db.SQL, `UPDATE relay.webhook_standings SET failing_since = '2020-01-01Z' WHERE commit = 4`)
	if _, err := hooks.ChangeBreaker(t.Context(), 1, hook.ID, domain.OpenBreaker{At: time.Now(), URL: hook.Settings.URL}); err != nil {
		t.Fatal(err)
	}
	registered := since()
	if time.Since(registered).Abs() > time.Hour {
		t.Errorf("it fails since %v, want since it is registered", registered)
	}
	for _, command := range []domain.WebhookCommand{domain.DisableWebhook{}, domain.EnableWebhook{}} {
		if _, _, err := hooks.Change(t.Context(), 1, hook.ID, "test", command); err != nil {
			t.Fatal(err)
		}
	}
	if got := since(); !got.After(registered) {
		t.Errorf("enabled again it fails since %v, want later than %v", got, registered)
	}
}
