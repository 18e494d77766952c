package domain_test

import (
	"math"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// The default schedule, worked out: what users read in the documentation.
func TestDefaultRetryPolicy(t *testing.T) {
	t.Parallel()
	table := []struct {
		attempt int
		// wait is the middle of the range; earliest and latest are its ends.
		wait, earliest, latest time.Duration
		// since is the time from the first attempt to the next one, at the
		// middle of each range and with attempts that take no time.
		since time.Duration
	}{
		{1, 5 * time.Second, 4500 * time.Millisecond, 5500 * time.Millisecond, 5 * time.Second},
		{2, 30 * time.Second, 27 * time.Second, 33 * time.Second, 35 * time.Second},
		{3, 2 * time.Minute, 108 * time.Second, 132 * time.Second, 2*time.Minute + 35*time.Second},
		{4, 10 * time.Minute, 9 * time.Minute, 11 * time.Minute, 12*time.Minute + 35*time.Second},
		{5, 30 * time.Minute, 27 * time.Minute, 33 * time.Minute, 42*time.Minute + 35*time.Second},
		{6, 2 * time.Hour, 108 * time.Minute, 132 * time.Minute, 2*time.Hour + 42*time.Minute + 35*time.Second},
		{7, 5 * time.Hour, 270 * time.Minute, 330 * time.Minute, 7*time.Hour + 42*time.Minute + 35*time.Second},
		{8, 10 * time.Hour, 9 * time.Hour, 11 * time.Hour, 17*time.Hour + 42*time.Minute + 35*time.Second},
		{9, 14 * time.Hour, 756 * time.Minute, 924 * time.Minute, 31*time.Hour + 42*time.Minute + 35*time.Second},
		{10, 20 * time.Hour, 18 * time.Hour, 22 * time.Hour, 51*time.Hour + 42*time.Minute + 35*time.Second},
		{11, 24 * time.Hour, 1296 * time.Minute, 1584 * time.Minute, 75*time.Hour + 42*time.Minute + 35*time.Second},
	}
	policy := domain.DefaultRetryPolicy
	if policy.MaxAttempts() != 12 || len(table) != 11 {
		t.Errorf("%d attempts and %d waits, want 12 and 11", policy.MaxAttempts(), len(table))
	}
	var since time.Duration
	for _, row := range table {
		for _, c := range []struct {
			jitter float64
			want   time.Duration
		}{{0, row.earliest}, {0.5, row.wait}, {1, row.latest}} { // 1 is the end that no jitter reaches
			if got, again := policy.Next(row.attempt, 0, c.jitter); !again || got != c.want {
				t.Errorf("attempt %d, jitter %g: %s, %t; want %s", row.attempt, c.jitter, got, again, c.want)
			}
		}
		since += row.wait
		if since != row.since {
			t.Errorf("after attempt %d: %s since the first, want %s", row.attempt, since, row.since)
		}
	}
	// The deadline of a delivery outlives its retries, so that what was tried
	// in time does not expire while it is held.
	latest := time.Duration(float64(since) * (1 + policy.Spread))
	if deadline := domain.Deadline("message_created"); latest >= deadline {
		t.Errorf("the retries take up to %s, the deadline is %s", latest, deadline)
	}
}

func TestRetryPolicyNext(t *testing.T) {
	t.Parallel()
	policy := domain.RetryPolicy{Delays: []time.Duration{time.Minute, time.Hour}, Spread: 0.5, RetryAfterCap: 10 * time.Minute}
	for _, c := range []struct {
		name       string
		policy     domain.RetryPolicy
		attempt    int
		retryAfter time.Duration
		jitter     float64
		want       time.Duration
		again      bool
	}{
		{"First", policy, 1, 0, 0.5, time.Minute, true},
		{"Second", policy, 2, 0, 0.5, time.Hour, true},
		{"UsedUp", policy, 3, 0, 0.5, 0, false},
		{"FarBeyond", policy, math.MaxInt, 0, 0.5, 0, false},
		{"NoAttempt", policy, 0, 0, 0.5, 0, false},
		{"Negative", policy, -1, 0, 0.5, 0, false},
		{"Earliest", policy, 1, 0, 0, 30 * time.Second, true},
		{"Quarter", policy, 1, 0, 0.25, 45 * time.Second, true},
		{"NoSpread", domain.RetryPolicy{Delays: []time.Duration{time.Minute}}, 1, 0, 0, time.Minute, true},
		{"FullSpread", domain.RetryPolicy{Delays: []time.Duration{time.Minute}, Spread: 1}, 1, 0, 0, 0, true},
		{"NoDelays", domain.RetryPolicy{}, 1, 0, 0.5, 0, false},
		{"RetryAfterIsLonger", policy, 1, 5 * time.Minute, 0.5, 5 * time.Minute, true},
		{"RetryAfterIsShorter", policy, 1, time.Second, 0.5, time.Minute, true},
		{"RetryAfterIsCapped", policy, 1, 24 * time.Hour, 0.5, 10 * time.Minute, true},
		{"TheCapDoesNotShortenThePolicy", policy, 2, 24 * time.Hour, 0.5, time.Hour, true},
		{"RetryAfterHasNoJitter", policy, 1, 5 * time.Minute, 0, 5 * time.Minute, true},
		{"RetryAfterIsNegative", policy, 1, -time.Hour, 0.5, time.Minute, true},
		{"NoCapMeansNoRetryAfter", domain.RetryPolicy{Delays: []time.Duration{time.Minute}}, 1, time.Hour, 0.5, time.Minute, true},
		{"RetryAfterGivesNoFurtherAttempt", policy, 3, time.Minute, 0.5, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, again := c.policy.Next(c.attempt, c.retryAfter, c.jitter)
			if got != c.want || again != c.again {
				t.Errorf("got %s, %t; want %s, %t", got, again, c.want, c.again)
			}
		})
	}
}

// A webhook's own schedule takes the place of the relay's, also an empty one.
func TestRetryPolicyOfAWebhook(t *testing.T) {
	t.Parallel()
	relays := domain.DefaultRetryPolicy
	own := domain.Settings{Retries: []time.Duration{time.Minute}}
	if got := own.RetryPolicy(relays); got.MaxAttempts() != 2 || got.Delays[0] != time.Minute || got.Spread != relays.Spread || got.RetryAfterCap != relays.RetryAfterCap {
		t.Errorf("with its own schedule it has %+v", got)
	}
	if got := (&domain.Settings{Retries: []time.Duration{}}).RetryPolicy(relays); got.MaxAttempts() != 1 {
		t.Errorf("without retries it has %+v", got)
	}
	if got := (&domain.Settings{}).RetryPolicy(relays); got.MaxAttempts() != relays.MaxAttempts() {
		t.Errorf("without a schedule it has %+v", got)
	}
}

// FuzzRetryPolicy: the wait stays within the spread, or is what the receiver
// asked for within its cap, and there are exactly MaxAttempts - 1 waits.
func FuzzRetryPolicy(f *testing.F) {
	f.Add(1, int64(time.Minute), 0.1, 0.5, int64(0), int64(time.Hour))
	f.Add(3, int64(24*time.Hour), 1.0, 0.0, int64(2*time.Hour), int64(time.Hour))
	f.Add(2, int64(1), 0.3, 0.999999, int64(-5), int64(0))
	f.Fuzz(func(t *testing.T, attempt int, delay int64, spread, jitter float64, retryAfter, limit int64) {
		// A year is more than any setting; the jitter is in [0, 1).
		year := int64(365 * 24 * time.Hour)
		if delay < 0 || delay > year || limit < 0 || limit > year || !(spread >= 0 && spread <= 1) || !(jitter >= 0 && jitter < 1) {
			return
		}
		middle := time.Duration(delay)
		policy := domain.RetryPolicy{Delays: []time.Duration{middle, middle, middle}, Spread: spread, RetryAfterCap: time.Duration(limit)}
		wait, again := policy.Next(attempt, time.Duration(retryAfter), jitter)
		if again != (attempt >= 1 && attempt < policy.MaxAttempts()) {
			t.Fatalf("attempt %d of %d: another one: %t", attempt, policy.MaxAttempts(), again)
		}
		if !again {
			if wait != 0 {
				t.Fatalf("a wait of %s for no attempt", wait)
			}
			return
		}
		// One nanosecond of slack for the rounding of floats.
		earliest := middle - time.Duration(spread*float64(delay)) - 1
		latest := max(middle+time.Duration(spread*float64(delay))+1, min(time.Duration(retryAfter), policy.RetryAfterCap))
		if wait < 0 || wait < earliest || wait > latest {
			t.Fatalf("a wait of %s is not within %s and %s", wait, earliest, latest)
		}
		if asked := min(time.Duration(retryAfter), policy.RetryAfterCap); wait < asked {
			t.Fatalf("a wait of %s, but the receiver asked for %s", wait, asked)
		}
	})
}
