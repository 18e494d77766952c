package postgres_test

import (
	"slices"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func TestChangeAllChangesAllOrNone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	a := change(t, w, 1, 0, register(t, "https://example.com/a"))
	b := change(t, w, 1, 0, register(t, "https://example.com/b"))
	c := change(t, w, 2, 0, register(t, "https://example.com/c"))
	gone := change(t, w, 2, 0, register(t, "https://example.com/gone"))
	change(t, w, 2, gone.ID, domain.DeleteWebhook{})
	b = change(t, w, 1, b.ID, domain.DisableWebhook{Reason: "asked for"})

	all := func(selection postgres.WebhookSelection, command domain.WebhookCommand, states ...domain.WebhookState) []postgres.ChangedWebhook {
		t.Helper()
		results, err := w.ChangeAll(t.Context(), selection, "somebody", command)
		if err != nil {
			t.Fatal(err)
		}
		var got []domain.WebhookState
		for i := range results {
			kept, err := w.Get(t.Context(), results[i].After.ID)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, kept, results[i].After)
			if results[i].Changed() {
				got = append(got, results[i].Before.State, results[i].After.State)
			}
		}
		if !slices.Equal(got, states) {
			t.Errorf("%T changes %v, want %v", command, got, states)
		}
		return results
	}
	const enabled, disabled = domain.WebhookEnabled, domain.WebhookDisabled
	moved := domain.DisableWebhook{Reason: "move"}
	if results := all(postgres.WebhookSelection{}, moved, enabled, disabled, enabled, disabled); len(results) != 3 || results[0].After.ID != a.ID || results[1].After.Version != b.Version || results[2].After.ID != c.ID {
		t.Errorf("changed are %+v", results)
	}
	all(postgres.WebhookSelection{}, moved) // again: nothing
	if version(t, db.SQL, 1) != 4 || version(t, db.SQL, 2) != 4 {
		t.Error("the versions of the accounts do not count the changes")
	}
	if got := texts(t, db.SQL, `SELECT concat_ws(' ', webhook_id, change, actor, after ->> 'reason') FROM audit.webhook_changes WHERE actor = 'somebody' ORDER BY webhook_id`); !slices.Equal(got, []string{"1 disabled somebody move", "3 disabled somebody move"}) {
		t.Errorf("on record is %q", got)
	}
	// What was disabled for a reason of its own stays so.
	all(postgres.WebhookSelection{AccountID: 1, DisabledFor: "move"}, domain.EnableWebhook{}, disabled, enabled)
	all(postgres.WebhookSelection{AccountID: 1, DisabledFor: "move"}, domain.EnableWebhook{})
	all(postgres.WebhookSelection{AccountID: 1}, domain.PauseWebhook{}, enabled, domain.WebhookPaused, disabled, domain.WebhookPaused)
	all(postgres.WebhookSelection{AccountID: 9}, domain.PauseWebhook{})

	// One that fails, and nothing is changed.
	if _, err := db.SQL.ExecContext(t.Context(), `ALTER TABLE relay.webhook_log ADD CONSTRAINT broken CHECK (webhook_id <> 3 OR type <> 'enabled')`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ChangeAll(t.Context(), postgres.WebhookSelection{}, "somebody", domain.EnableWebhook{}); err == nil {
		t.Error("a change that the database refuses is no error")
	}
	if got := texts(t, db.SQL, `SELECT string_agg(state, ' ' ORDER BY id) FROM relay.webhooks`); got[0] != "paused paused disabled deleted" {
		t.Errorf("after a change that failed the webhooks are %s", got)
	}
}
