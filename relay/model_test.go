package relay_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// The defaults are those of make test. With more runs and steps it finds more:
//
//	go test ./relay -run '^TestModel$' -timeout 0 -args -model.runs 500 -model.steps 150 -model.shrink
var (
	modelSeed   = flag.Uint64("model.seed", 0, "the seed of the first history; 0 for another one each time")
	modelRuns   = flag.Uint64("model.runs", 2, "how many histories, with the seeds that follow")
	modelSteps  = flag.Int("model.steps", 60, "how many steps each history has")
	modelShrink = flag.Bool("model.shrink", false, "look for the shortest history that still fails")
)

// TestModel lets relays do what random histories ask for, and compares what is on
// record, what arrived and what the audit views show with a small model of the
// promises: order to the letter, across retries, holds, pauses, overflow, replays,
// restarts and take-over. See reference, history and modelRun.
func TestModel(t *testing.T) {
	t.Parallel()
	first := *modelSeed
	if first == 0 {
		first = rand.Uint64() >> 32 //nolint:gosec // a short one is easier to copy
	}
	for seed := first; seed < first+*modelRuns; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			h := newHistory(seed, *modelSteps)
			v := play(t, h)
			if len(v.reference.flaws) == 0 {
				return
			}
			t.Errorf("to run it again: go test ./relay -run '^TestModel$' -args -model.seed %d -model.runs 1 -model.steps %d\n%s", seed, *modelSteps, v)
			if *modelShrink {
				t.Logf("as short as it could be made:\n%s", shrink(t, v))
			}
		})
	}
}

// shrink leaves steps out as long as what remains fails, too: half of them first,
// in the end one at a time. How the relays' steps fall between the others is
// another one each time, so each try has several goes.
func shrink(t *testing.T, failed verdict) verdict {
	t.Helper()
	const goes = 3
	for part := len(failed.history.steps) / 2; part > 0; part /= 2 {
		for at := 1; at < len(failed.history.steps); {
			h := failed.history
			h.steps = slices.Delete(slices.Clone(h.steps), at, min(at+part, len(h.steps)))
			again := false
			for tries := 0; tries < goes && !again; tries++ {
				t.Run(fmt.Sprintf("%d steps", len(h.steps)), func(t *testing.T) {
					if v := play(t, h); len(v.reference.flaws) > 0 {
						failed, again = v, true
					}
				})
			}
			if !again {
				at += part
			}
		}
	}
	return failed
}

// TestTheReferenceSeesWhatMustNotBe: each of these logs breaks one promise, and
// the first none.
func TestTheReferenceSeesWhatMustNotBe(t *testing.T) {
	t.Parallel()
	at := func(seconds float64) time.Time {
		return time.Unix(1_000_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	day := at(7 * 24 * 3600)
	scheduled := domain.Scheduled{At: at(0), Deadline: day, WebhookVersion: 1}
	start := func(seconds float64, attempt int, previous domain.OutcomeKind) domain.DeliveryEvent {
		return domain.AttemptStarted{At: at(seconds), Attempt: attempt, PreviousOutcome: previous}
	}
	fail := func(seconds float64) domain.DeliveryEvent {
		return domain.AttemptFailed{At: at(seconds), Attempt: 1, RetryAt: at(seconds + 1)}
	}
	succeed := func(seconds float64, attempt int) domain.DeliveryEvent {
		return domain.AttemptSucceeded{At: at(seconds), Attempt: attempt}
	}
	hold := func(until time.Time) domain.DeliveryEvent {
		return domain.Held{At: at(1), Reason: domain.HoldOrder, Until: until}
	}
	release := func(seconds float64, reason domain.ReleaseReason) domain.DeliveryEvent {
		return domain.Released{At: at(seconds), Reason: reason}
	}
	type happened struct {
		event int64
		what  domain.DeliveryEvent
	}
	both := []happened{{1, scheduled}, {2, scheduled}}
	failedHead := append(slices.Clone(both), happened{1, start(1, 1, "")}, happened{1, fail(1)})
	const none = domain.OutcomeNone
	for name, c := range map[string]struct {
		hold time.Duration
		log  []happened
		want string
	}{
		"all is well": {modelHold, append(slices.Clone(failedHead),
			happened{2, hold(at(8))}, happened{1, start(2, 2, domain.OutcomeFailed)}, happened{1, succeed(2, 2)}, happened{2, release(2, domain.ReleaseTurn)}, happened{2, start(2, 1, none)}, happened{2, succeed(2, 1)}), ""},
		"in no order": {0, append(slices.Clone(both), happened{2, start(1, 1, none)}, happened{1, start(1, 1, none)}), ""},
		"the hold is over": {modelHold, append(slices.Clone(failedHead),
			happened{2, hold(at(8))}, happened{2, release(8, domain.ReleaseElapsed)}, happened{2, start(8, 1, none)}), ""},
		"it overtakes":               {modelHold, append(slices.Clone(both), happened{2, start(1, 1, none)}), "had no attempt"},
		"it overtakes, strictly":     {domain.HoldForever, append(slices.Clone(failedHead), happened{2, start(1000, 1, none)}), "the hold lasts"},
		"two at once":                {modelHold, append(slices.Clone(both), happened{1, start(1, 1, none)}, happened{2, start(1, 1, none)}), "of the same line"},
		"it does not wait":           {modelHold, append(slices.Clone(failedHead), happened{2, start(2, 1, none)}), "the hold lasts"},
		"the hold ends early":        {modelHold, append(slices.Clone(failedHead), happened{2, hold(at(8))}, happened{2, release(7, domain.ReleaseElapsed)}), "it is held until"},
		"the hold is too long":       {modelHold, append(slices.Clone(failedHead), happened{2, hold(at(9))}), "it may be held until"},
		"it is not its turn":         {domain.HoldForever, append(slices.Clone(failedHead), happened{2, hold(day)}, happened{2, release(7, domain.ReleaseTurn)}), "it is not its turn"},
		"it is held for nothing":     {modelHold, append(slices.Clone(both), happened{2, hold(at(8))}), "nothing before it has failed"},
		"it is held, in no order":    {0, append(slices.Clone(failedHead), happened{2, hold(day)}), "it is in no order"},
		"it starts held":             {modelHold, append(slices.Clone(failedHead), happened{2, hold(at(8))}, happened{2, start(9, 1, none)}), "it is held for order"},
		"an attempt is left out":     {0, append(slices.Clone(both), happened{1, start(1, 2, none)}), "attempt 2 comes after 0"},
		"it is repeated early":       {0, append(slices.Clone(failedHead), happened{1, start(1.5, 2, domain.OutcomeFailed)}), "it is due at"},
		"it goes on after its end":   {0, append(slices.Clone(both), happened{1, start(1, 1, none)}, happened{1, succeed(1, 1)}, happened{1, start(1, 2, domain.OutcomeSucceeded)}), "it is succeeded already"},
		"nobody cancelled it":        {0, append(slices.Clone(both), happened{1, domain.Cancelled{At: at(1), Reason: domain.CancelledDisabled}}), "was not disabled since"},
		"it expires early":           {0, append(slices.Clone(both), happened{1, domain.Expired{At: at(1), Reason: domain.ExpiredDeadline}}), "its deadline is"},
		"given up early":             {0, append(slices.Clone(both), happened{1, domain.Dead{At: at(1), Reason: domain.DeadAttempts}}), "after 0 of 4 attempts"},
		"routed in another order":    {modelHold, []happened{{2, scheduled}, {1, scheduled}}, "a later event of its line"},
		"held by a pause that isn't": {0, append(slices.Clone(both), happened{1, domain.Held{At: at(1), Reason: domain.HoldPaused, Until: day}}), "never paused"},
	} {
		r := newReference(modelPolicy, map[domain.WebhookID]*modelHook{7: {hold: c.hold}}, map[int64]string{1: "a", 2: "a"})
		versions := map[int64]int{}
		for i, h := range c.log {
			versions[h.event]++
			r.hear(entry{domain.DeliveryKey{EventSeq: h.event, WebhookID: 7}, int64(i), versions[h.event], 1, h.what})
		}
		var texts []string
		for _, f := range r.flaws {
			texts = append(texts, f.text)
		}
		if got := strings.Join(texts, "\n"); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: the flaws are %q, want %q", name, got, c.want)
		}
	}
}
