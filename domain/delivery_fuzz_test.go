package domain_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// script reads commands from bytes: three for each, its kind, how far the
// clock moves before it, and what it says.
type script struct {
	bytes  []byte
	now    time.Time
	policy domain.RetryPolicy
}

// ticks are the steps of the clock. It may step back: commands come from the
// clocks of several relays.
var ticks = []time.Duration{
	0, time.Microsecond, time.Second, 11 * time.Second, time.Minute, 3 * time.Hour, 8 * 24 * time.Hour, -2 * time.Second,
}

func (s *script) next() (domain.DeliveryCommand, bool) {
	if len(s.bytes) < 3 {
		return nil, false
	}
	kind, tick, arg := s.bytes[0], s.bytes[1], s.bytes[2]
	s.bytes = s.bytes[3:]
	s.now = s.now.Add(ticks[int(tick)%len(ticks)])
	attempt, jitter := int(arg&7), float64(arg)/256
	switch kind % 9 {
	case 0:
		return domain.Schedule{At: s.now, Deadline: []time.Duration{domain.DefaultDeadline, 10 * time.Second}[arg&1], WebhookVersion: int64(arg)}, true
	case 1, 2: // twice, to be reached more often
		return domain.Start{
			At: s.now, WebhookVersion: int64(arg), Timeout: time.Duration(arg) * time.Millisecond,
			Release: []domain.ReleaseReason{domain.ReleaseTurn, domain.ReleaseElapsed, domain.ReleaseResumed}[arg%3],
		}, true
	case 3:
		return domain.RecordOutcome{At: s.now, Attempt: attempt, Outcome: outcomes[int(arg>>3)%len(outcomes)], Policy: s.policy, Jitter: jitter}, true
	case 4:
		return domain.LoseAttempt{At: s.now, Attempt: attempt, Reason: "relay_lost", Policy: s.policy, Jitter: jitter}, true
	case 5:
		hold := domain.Hold{At: s.now, Reason: []domain.HoldReason{domain.HoldOrder, domain.HoldPaused}[arg&1]}
		if arg&2 != 0 {
			hold.Until = s.now.Add(time.Duration(arg) * time.Second)
		}
		return hold, true
	case 6:
		return domain.Expire{At: s.now, Reason: domain.ExpiredDeadline}, true
	case 7:
		return domain.Cancel{At: s.now, Reason: []string{domain.CancelledDisabled, domain.CancelledDeleted}[arg&1]}, true
	default:
		return domain.GiveUp{At: s.now, Reason: domain.DeadPayload}, true
	}
}

var outcomes = []domain.Outcome{
	{Kind: domain.OutcomeFailed, StatusCode: 500, Class: domain.ErrorStatus, Detail: "500", Duration: time.Millisecond, RemoteIP: "192.0.2.1", Excerpt: "no"},
	{Kind: domain.OutcomeFailed, StatusCode: 429, Class: domain.ErrorStatus, RetryAfter: 90 * time.Second},
	{Kind: domain.OutcomeFailed, StatusCode: 503, Class: domain.ErrorStatus, RetryAfter: 1000 * time.Hour},
	{Kind: domain.OutcomeFailed, Class: domain.ErrorTimeout, RetryAfter: -time.Hour},
	{Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: 3 * time.Microsecond, Excerpt: "yes"},
	{},
	{Kind: domain.OutcomeUnknown},
	{Kind: domain.OutcomeStarted, Class: domain.ErrorReset},
}

// policyFrom makes a valid policy of zero to seven retries.
func policyFrom(b byte) domain.RetryPolicy {
	all := []time.Duration{0, time.Microsecond, time.Second, time.Minute, time.Hour, 24 * time.Hour, 72 * time.Hour}
	return domain.RetryPolicy{
		Delays:        all[:int(b&7)],
		Spread:        float64(b>>3&3) / 3,
		RetryAfterCap: time.Duration(b>>5) * time.Hour,
	}
}

// FuzzDelivery: whatever is asked of a delivery, in whatever order and at
// whatever times, its stream tells one true story.
func FuzzDelivery(f *testing.F) {
	f.Add(byte(0), []byte{})
	f.Add(byte(0x43), []byte{0, 0, 0, 1, 0, 9, 3, 2, 0x21, 1, 0, 0})                                              // succeeds at once
	f.Add(byte(0x42), []byte{0, 0, 0, 1, 2, 1, 3, 2, 1, 1, 4, 1, 3, 2, 2, 1, 5, 1, 3, 2, 3, 1, 0, 0, 7, 0, 0})    // fails three times: dead
	f.Add(byte(0x07), []byte{0, 0, 0, 1, 0, 0, 4, 2, 1, 1, 0, 0, 4, 2, 2, 1, 4, 0, 4, 2, 3, 1, 5, 0, 3, 1, 0x24}) // lost three times, then succeeds
	f.Add(byte(0x2b), []byte{0, 0, 0, 5, 0, 2, 5, 0, 3, 5, 0, 3, 1, 4, 1, 3, 2, 1, 5, 0, 1, 7, 0, 1})             // held, prolonged, released, cancelled
	f.Add(byte(0x05), []byte{0, 0, 1, 5, 0, 0, 1, 3, 0, 1, 0, 0, 6, 0, 0})                                        // typing, too late
	f.Add(byte(0x05), []byte{0, 0, 0, 1, 0, 0, 3, 0, 1, 1, 6, 0, 3, 0, 2, 6, 6, 0, 0, 0, 0})                      // retried past the deadline
	f.Add(byte(0xff), []byte{0, 0, 0, 1, 7, 0, 3, 7, 0x19, 4, 0, 1, 8, 7, 0})
	f.Fuzz(func(t *testing.T, policy byte, commands []byte) {
		s := &script{bytes: commands, now: t0, policy: policyFrom(policy)}
		var (
			state domain.Delivery
			log   []domain.DeliveryEvent
			check chronicle
		)
		for {
			command, more := s.next()
			if !more {
				return
			}
			decided, err := domain.Decide(state, command)
			if err != nil && len(decided) > 0 {
				t.Fatalf("%#v gives %v and the error %q", command, decided, err)
			}
			if err != nil && !errors.Is(err, domain.ErrNotScheduled) && !errors.Is(err, domain.ErrAttemptOpen) &&
				!errors.Is(err, domain.ErrNoSuchAttempt) && !errors.Is(err, domain.ErrFinal) {
				t.Fatalf("%#v gives an error that no caller knows: %v", command, err)
			}
			for _, event := range decided {
				check.add(t, s.policy, event)
				state = domain.Evolve(state, event)
				log = append(log, event)
				roundTrip(t, event)
			}
			if state.Version != len(log) {
				t.Fatalf("version %d after %d events", state.Version, len(log))
			}
			if folded := domain.Fold(log...); folded != state {
				t.Fatalf("the fold is\n\t%+v\nthe state is\n\t%+v", folded, state)
			}
			check.compare(t, state)
		}
	})
}

// chronicle is the test's own account of a stream, kept from its events only.
type chronicle struct {
	events   int
	attempts int
	open     bool
	last     domain.OutcomeKind
	mustEnd  bool // the last attempt has no retry: only Dead may follow
	ended    domain.DeliveryStatus
	held     bool
	deadline time.Time
}

func (c *chronicle) add(t *testing.T, policy domain.RetryPolicy, event domain.DeliveryEvent) {
	t.Helper()
	if c.ended != "" {
		t.Fatalf("%#v after the delivery was %s", event, c.ended)
	}
	_, first := event.(domain.Scheduled)
	if first != (c.events == 0) {
		t.Fatalf("%#v is event %d", event, c.events+1)
	}
	if _, dead := event.(domain.Dead); c.mustEnd && !dead {
		t.Fatalf("%#v after the last attempt", event)
	}
	c.events++
	switch e := event.(type) {
	case domain.Scheduled:
		c.deadline = e.Deadline
		if !e.Deadline.After(e.At) {
			t.Fatalf("the deadline %s is not after %s", e.Deadline, e.At)
		}
	case domain.AttemptStarted:
		c.attempts++
		switch {
		case c.open:
			t.Fatalf("%#v beside an open attempt", e)
		case c.held:
			t.Fatalf("%#v while it is held", e)
		case e.Attempt != c.attempts:
			t.Fatalf("attempt %d is the delivery's number %d", e.Attempt, c.attempts)
		case e.PreviousOutcome != c.last:
			t.Fatalf("attempt %d says %q of the one before, which was %q", e.Attempt, e.PreviousOutcome, c.last)
		case e.Attempt > policy.MaxAttempts():
			t.Fatalf("attempt %d of at most %d", e.Attempt, policy.MaxAttempts())
		case e.At.After(c.deadline):
			t.Fatalf("an attempt is at %s, past the deadline %s", e.At, c.deadline)
		}
		c.open = true
	case domain.AttemptSucceeded:
		c.finish(t, e.Attempt, domain.OutcomeSucceeded, e.Outcome.Kind)
		c.ended = domain.DeliverySucceeded
	case domain.AttemptFailed:
		c.finish(t, e.Attempt, domain.OutcomeFailed, e.Outcome.Kind)
		c.retry(t, policy, e.At, e.RetryAt)
	case domain.AttemptUnknown:
		c.finish(t, e.Attempt, domain.OutcomeUnknown, domain.OutcomeUnknown)
		c.retry(t, policy, e.At, e.RetryAt)
	case domain.Held:
		c.idle(t, event)
		c.held = true
	case domain.Released:
		c.idle(t, event)
		if !c.held {
			t.Fatalf("%#v, but it is not held", e)
		}
		c.held = false
	case domain.Expired:
		c.idle(t, event)
		c.ended = domain.DeliveryExpired
	case domain.Dead:
		c.idle(t, event)
		c.ended = domain.DeliveryDead
	case domain.Cancelled:
		c.idle(t, event)
		c.ended = domain.DeliveryCancelled
	}
}

func (c *chronicle) finish(t *testing.T, attempt int, kind, recorded domain.OutcomeKind) {
	t.Helper()
	if !c.open || attempt != c.attempts || recorded != kind {
		t.Fatalf("attempt %d is %s as %q; open: %t, number %d", attempt, kind, recorded, c.open, c.attempts)
	}
	c.open, c.last = false, kind
}

func (c *chronicle) retry(t *testing.T, policy domain.RetryPolicy, at, retry time.Time) {
	t.Helper()
	c.mustEnd = retry.IsZero()
	if !c.mustEnd && retry.Before(at) {
		t.Fatalf("a retry at %s, before the outcome at %s", retry, at)
	}
	if c.mustEnd != (c.attempts == policy.MaxAttempts()) {
		t.Fatalf("no retry: %t after attempt %d of %d", c.mustEnd, c.attempts, policy.MaxAttempts())
	}
}

func (c *chronicle) idle(t *testing.T, event domain.DeliveryEvent) {
	t.Helper()
	if c.open {
		t.Fatalf("%#v beside an open attempt", event)
	}
}

// compare holds the state against the account.
func (c *chronicle) compare(t *testing.T, d domain.Delivery) {
	t.Helper()
	want := c.ended
	switch {
	case c.events == 0:
		want = domain.DeliveryNone
	case want != "":
	case c.held:
		want = domain.DeliveryHeld
	default:
		want = domain.DeliveryPending
	}
	if d.Status != want || d.Open != c.open || d.Attempts != c.attempts || d.LastOutcome != c.last {
		t.Fatalf("the state is\n\t%+v\nthe events say %s, %d attempts, open: %t, last %q", d, want, c.attempts, c.open, c.last)
	}
	if failed := c.last == domain.OutcomeFailed || c.last == domain.OutcomeUnknown; failed && !d.Failed {
		t.Fatalf("the state %+v does not say that an attempt has failed", d)
	}
	if c.mustEnd && c.ended != domain.DeliveryDead {
		t.Fatalf("the last attempt has failed, but the delivery is %s", d.Status)
	}
}

func roundTrip(t *testing.T, event domain.DeliveryEvent) {
	t.Helper()
	entry := domain.EncodeDelivery(event)
	got, err := domain.DecodeDelivery(entry)
	if err != nil {
		t.Fatalf("%#v is written as %s: %v", event, entry.Data, err)
	}
	if !reflect.DeepEqual(got, event) {
		t.Fatalf("%#v is written as %s and read as %#v", event, entry.Data, got)
	}
}
