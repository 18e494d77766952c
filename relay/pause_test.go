package relay_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// TestWhatAPauseHeldGoesOnWithAnotherRelay that never had the webhook in memory,
// whenever it is resumed, and ahead of what comes then.
func TestWhatAPauseHeldGoesOnWithAnotherRelay(t *testing.T) {
	t.Parallel()
	for _, resumed := range []string{"before its start", "behind its start"} {
		t.Run(resumed, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			hook := b.webhook(1, "/hook", nil)
			b.command(hook, domain.PauseWebhook{})
			first := b.start(nil)
			b.publish(1, "c", 1, 100) // more than one read brings back
			b.awaitStatus("held", 100)
			first.stop()
			if resumed == "before its start" {
				b.command(hook, domain.EnableWebhook{})
			}
			second := b.start(nil)
			b.owns(second, relay.ShardCount)
			if resumed == "behind its start" {
				b.command(hook, domain.EnableWebhook{})
			}
			b.publish(1, "c", 101, 20)
			b.awaitStatus("succeeded", 120)
			if ids := numbers(t, b.receiver.got("/hook")); len(ids) != 120 || !slices.IsSorted(ids) {
				t.Errorf("POSTs came as %v", ids)
			}
		})
	}
}

// TestARepeatThatAPauseHoldsHasItsFollowersHeldByTheNextRelay, too.
func TestARepeatThatAPauseHoldsHasItsFollowersHeldByTheNextRelay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	var status atomic.Int32
	status.Store(http.StatusInternalServerError)
	b.receiver.on("/hook", failing(&status))
	policy := func(c *relay.Config) {
		c.Policy = domain.RetryPolicy{Delays: slices.Repeat([]time.Duration{200 * time.Millisecond}, 1000)}
	}
	first := b.start(policy)
	b.publish(1, "c", 1, 1)
	b.eventually("a failure", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'failed'`) > 0, ""
	})
	b.command(hook, domain.PauseWebhook{})
	b.awaitStatus("held", 1)
	first.stop()
	b.start(policy)
	b.publish(1, "c", 2, 3)
	b.eventually("the followers' holds", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'held' AND data ->> 'reason' = 'order'`)
		return n == 3, fmt.Sprint(n)
	})
	b.command(hook, domain.EnableWebhook{})
	b.eventually("another failure", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'released' AND data ->> 'reason' = 'resumed'`)
		return n == 1, fmt.Sprint(n)
	})
	status.Store(http.StatusNoContent)
	b.awaitStatus("succeeded", 4)
	ids := slices.DeleteFunc(numbers(t, b.receiver.got("/hook")), func(id int) bool { return id == 1 })
	if !slices.Equal(ids, []int{2, 3, 4}) {
		t.Errorf("the followers came as %v", ids)
	}
}
