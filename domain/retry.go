package domain

import "time"

// RetryPolicy says when a failed delivery is tried again.
type RetryPolicy struct {
	// Delays are the waits after the first, second, … failed attempt. A
	// delivery whose last delay is used up is dead.
	Delays []time.Duration
	// Spread is the share by which a delay may be moved either way, 0 to 1.
	Spread float64
	// RetryAfterCap bounds what a receiver may ask for by Retry-After.
	RetryAfterCap time.Duration
}

// DefaultRetryPolicy makes 12 attempts in about three days, the span of the
// Standard Webhooks example schedule, with a denser beginning: most outages of
// a receiver are deploys.
var DefaultRetryPolicy = RetryPolicy{
	Delays: []time.Duration{
		5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	},
	Spread:        0.10,
	RetryAfterCap: time.Hour,
}

// Next gives the wait after the given failed attempt, numbered from 1, and
// false where the policy has no further attempt. jitter is uniform in [0, 1)
// and moves the delay within ±Spread. A receiver's Retry-After counts up to
// RetryAfterCap, and only where it is longer than the policy's own wait.
func (p RetryPolicy) Next(attempt int, retryAfter time.Duration, jitter float64) (time.Duration, bool) {
	if attempt < 1 || attempt > len(p.Delays) {
		return 0, false
	}
	delay := p.Delays[attempt-1]
	delay += time.Duration((2*jitter - 1) * p.Spread * float64(delay))
	return max(delay, min(retryAfter, p.RetryAfterCap)), true
}

// MaxAttempts is the number of attempts after which a delivery is dead.
func (p RetryPolicy) MaxAttempts() int { return len(p.Delays) + 1 }
