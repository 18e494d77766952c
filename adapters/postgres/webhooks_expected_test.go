package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// TestOneOfManyWhoReadTheSameVersion changes a webhook: the version is compared
// under the lock of its account, and none is overwritten unseen.
func TestOneOfManyWhoReadTheSameVersion(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := postgres.NewWebhooks(db.SQL)
	hook := change(t, w, 1, 0, register(t, "https://example.com/a"))
	for round := range 3 {
		const writers = 8
		var (
			all         sync.WaitGroup
			mu          sync.Mutex
			done, stale int
		)
		for n := range writers {
			all.Go(func() {
				settings := hook.Settings
				settings.Name = fmt.Sprintf("round %d, writer %d", round, n)
				after, changed, err := w.Change(t.Context(), 1, hook.ID, "test",
					domain.ExpectVersion{Versions: []int64{hook.Version}, Command: domain.UpdateWebhook{Settings: settings}})
				mu.Lock()
				defer mu.Unlock()
				refused, ok := errors.AsType[*domain.StaleVersionError](err)
				switch {
				case err == nil && changed && after.Version == hook.Version+1:
					done++
				case ok && refused.Version == hook.Version+1:
					stale++
				default:
					t.Errorf("version %d, changed %t, error %v", after.Version, changed, err)
				}
			})
		}
		all.Wait()
		if done != 1 || stale != writers-1 {
			t.Errorf("round %d: %d changed it, %d were refused; want 1 and %d", round, done, stale, writers-1)
		}
		var err error
		if hook, err = w.Get(t.Context(), hook.ID); err != nil {
			t.Fatal(err)
		}
	}
	if now := version(t, db.SQL, 1); now != hook.Version {
		t.Errorf("the account is at version %d, the webhook at %d", now, hook.Version)
	}
}
