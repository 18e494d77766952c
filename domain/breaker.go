package domain

import "time"

// BreakerState is what the circuit breaker of a webhook lets through.
type BreakerState string

// The states of a circuit breaker. One that is half open is open on record:
// the attempt that is its probe says the rest.
const (
	BreakerClosed   BreakerState = "closed"    // every attempt
	BreakerOpen     BreakerState = "open"      // none
	BreakerHalfOpen BreakerState = "half_open" // one, its probe, which is under way
)

// BreakerPolicy says when a breaker opens, and when it lets a probe through.
type BreakerPolicy struct {
	// Failures is how many attempts in a row have to say that the receiver is
	// down, see Outcome.Down. Below 0 no breaker opens.
	Failures int
	// First is the wait for the first probe. Each probe that fails doubles the
	// wait, up to Last.
	First, Last time.Duration
	// Spread is the share by which a wait may be moved either way, 0 to 1.
	Spread float64
}

// DefaultBreakerPolicy opens after ten failures in a row: five are what Envoy
// ejects a host for, which has others beside it, and a webhook has one receiver
// only. A restart of a receiver is noticed by the second, and after a long
// outage what waits goes out within a minute.
var DefaultBreakerPolicy = BreakerPolicy{Failures: 10, First: time.Second, Last: time.Minute, Spread: 0.10}

// Wait gives the wait for a probe. jitter is uniform in [0, 1) and moves it
// within ±Spread.
func (p BreakerPolicy) Wait(pause time.Duration, jitter float64) time.Duration {
	return pause + time.Duration((2*jitter-1)*p.Spread*float64(pause))
}

// Breaker is the state of the webhook's breaker on record.
func (w Webhook) Breaker() BreakerState {
	if w.BreakerOpenedAt.IsZero() {
		return BreakerClosed
	}
	return BreakerOpen
}

// decideBreaker opens or closes a breaker. What is to open it was seen at a URL:
// where the webhook has another one by now, it says nothing.
func decideBreaker(w Webhook, command WebhookCommand) []WebhookEvent {
	switch c := command.(type) {
	case OpenBreaker:
		sends := w.State == WebhookEnabled || w.State == WebhookPaused
		if sends && w.Breaker() == BreakerClosed && c.URL == w.Settings.URL {
			return []WebhookEvent{WebhookBreakerOpened{c.At.UTC().Truncate(time.Microsecond), c.Reason}}
		}
	case CloseBreaker:
		if w.Breaker() == BreakerOpen {
			return []WebhookEvent{WebhookBreakerClosed{}}
		}
	default:
	}
	return nil
}
