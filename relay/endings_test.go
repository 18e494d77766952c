package relay_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// retentionWaits does steps until retention waits for what is told.
func (b *bench) retentionWaits(ages postgres.Ages, want string) {
	b.t.Helper()
	b.eventually("retention waits: "+want, func() (bool, string) {
		step, idle, err := postgres.Retain(b.t.Context(), b.db, ages)
		if err != nil && !errors.Is(err, postgres.ErrHeld) {
			b.t.Fatal(err)
		}
		return idle && strings.Contains(step, want), step
	})
}

// TestRetentionEndsWhatIsOpenAtEachRelay: a relay ends what waits in its own
// shards, and what waits in those that it gains.
func TestRetentionEndsWhatIsOpenAtEachRelay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const hooks = 4
	for i := range hooks {
		b.receiver.on(fmt.Sprintf("/hook%d", i), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	}
	b.hooks(hooks)
	b.start(func(c *relay.Config) { c.Policy = patient })
	b.publish(1, "c", 1, 2) // of which one fails and one is held
	b.awaitStatus("held", hooks)
	b.nextPartition(8)
	p := b.phantom()
	b.age(month + time.Hour)
	ages := postgres.Ages{Payloads: month}
	theirs := scan[int](b, `SELECT count(*) FROM relay.due WHERE `+p.has())
	if theirs == 0 || theirs == 2*hooks {
		t.Fatalf("the phantom has %d of what waits", theirs)
	}
	b.retentionWaits(ages, fmt.Sprintf("below seq 1000000 %d deliveries wait; the relays at work end them", theirs))
	if n := scan[int](b, `SELECT count(*) FROM relay.due WHERE at > now() AND `+p.has()); n != theirs {
		t.Errorf("%d of %d deliveries that wait in the phantom's shards still have their time", n, theirs)
	}
	p.leave()
	says(t, b.retained(ages), "erased outbox.events_0")
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'expired' AND reason = 'retention'`); n != 2*hooks {
		t.Errorf("%d deliveries say that retention ended them, want %d", n, 2*hooks)
	}
	if n := len(b.receiver.got("")); n != hooks {
		t.Errorf("%d POSTs were made, want %d", n, hooks)
	}
}

// TestRetentionWaitsForEachRelay to say that it begins nothing, though nothing is
// open; not for one that was fenced.
func TestRetentionWaitsForEachRelay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	b.publish(8, "c", 1, 3) // to nobody
	b.nextPartition(8)
	p := b.phantom()
	b.age(month + time.Hour)
	ages := postgres.Ages{Payloads: month}
	const waits = "a relay at work has not said yet that it begins nothing below seq 1000000"
	b.retentionWaits(ages, waits)
	b.eventually("what the relay at work says", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM relay.endings_seen WHERE version = 1 AND relay_id <> $1`, p.id) == 1, ""
	})
	b.retentionWaits(ages, waits)
	store := postgres.NewStore(b.db)
	endings, err := store.Endings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.EndingsSeen(t.Context(), p.id, endings); err != nil {
		t.Fatal(err)
	}
	says(t, b.retained(ages), "erased outbox.events_0")

	// The next time it says nothing, and dies.
	b.nextPartition(8)
	b.age(month + time.Hour)
	b.retentionWaits(ages, strings.Replace(waits, "1000000", "2000000", 1))
	p.kill()
	says(t, b.retained(ages), "erased outbox.events_1000000")
	if n := scan[int](b, `SELECT count(*) FROM relay.endings_seen WHERE relay_id = $1`, p.id); n != 1 {
		t.Errorf("the dead relay said %d times what it had seen", n)
	}
	b.exec(`SELECT relay.next_ending()`)
	if n := scan[int](b, `SELECT count(*) FROM relay.endings_seen`); n != 1 {
		t.Errorf("what %d relays have seen is kept, want the one", n)
	}
}

// TestErasingWithTwoRelays at work: both end what they have, and say so.
func TestErasingWithTwoRelays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const hooks = 4
	for i := range hooks {
		b.receiver.on(fmt.Sprintf("/hook%d", i), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	}
	b.hooks(hooks)
	b.start(func(c *relay.Config) { c.Name, c.Policy = "a", patient })
	b.shares("a 64")
	b.start(func(c *relay.Config) { c.Name, c.Policy = "b", patient })
	b.shares("a 32, b 32")
	b.publish(1, "c", 1, 3)
	b.awaitStatus("held", 2*hooks)
	if done := b.erase(postgres.ErasureSelection{AccountID: domain.AccountID(1)}); done.Events != 3 || done.Open != 0 || done.Unattended {
		t.Errorf("erased: %+v", done)
	}
	if n := scan[int](b, `SELECT count(DISTINCT l.writer) FROM relay.log l WHERE l.type = 'cancelled'`); n != 2 {
		t.Errorf("%d relays cancelled what was open, want 2", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.endings_seen WHERE version = 1`); n != 2 {
		t.Errorf("%d relays said what they have seen, want 2", n)
	}
	if got := b.deliveries(); got["cancelled"] != 3*hooks {
		t.Errorf("deliveries are %v", got)
	}
}
