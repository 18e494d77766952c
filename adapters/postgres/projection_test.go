package postgres_test

import (
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// TestTheRestOfADeadRelayHasWhatItTookOver: it began later than an attempt that
// it ended as unknown, and died before it told from where on others have to look.
func TestTheRestOfADeadRelayHasWhatItTookOver(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	projection, leases := postgres.NewProjection(db), postgres.NewLeases(db)
	first, _ := registered(t, db)
	key := domain.DeliveryKey{EventSeq: 1, WebhookID: 7}
	record := func(relayID int64, version int, event domain.DeliveryEvent) int64 {
		t.Helper()
		commit, err := postgres.NewLog(db).Record(t.Context(), relayID, []relay.Change{{
			Key: key, AccountID: 1, First: version, Entries: []domain.Entry{domain.EncodeDelivery(event)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return commit
	}
	begun := record(first, 2, domain.AttemptStarted{At: time.Now(), Attempt: 1, WebhookVersion: 1, Timeout: time.Second})
	second, _ := registered(t, db)
	if err := projection.Begin(t.Context(), second, (begun+1)<<20); err != nil {
		t.Fatal(err)
	}
	if err := leases.Fence(t.Context(), second, first); err != nil {
		t.Fatal(err)
	}
	commit := record(second, 3, domain.AttemptUnknown{At: time.Now(), Attempt: 1, Reason: "its relay stopped"})
	third, _ := registered(t, db)
	if err := leases.Fence(t.Context(), third, second); err != nil {
		t.Fatal(err)
	}
	rest, err := projection.Rest(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) != 1 || rest[0].Key != key || rest[0].Commit != commit {
		t.Errorf("the rest is %+v, want the outcome in commit %d", rest, commit)
	}
}
