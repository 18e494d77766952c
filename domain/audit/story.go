package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Tone is how a line of a story is meant, for its colour.
type Tone int

// The tones.
const (
	NoTone  Tone = iota
	Good         // went well
	Bad          // went wrong
	Waiting      // will go on
	Unknown      // nobody knows
)

// Step is a line of a delivery's story. Its texts are safe for a terminal.
type Step struct {
	// At is when it happened, zero where it has no time of its own.
	At   time.Time
	Tone Tone
	Text string
	// Attempt is the number of the attempt that the line tells of, 0 for none.
	Attempt int
	// Relay is the one that made the attempt where that is another than before,
	// else 0.
	Relay int64
	// Beside says that it explains the line above.
	Beside bool
}

// The marks in the texts. Every one has the width 1 in every terminal.
const (
	succeeded = "✓"
	failed    = "✗"
	nobody    = "?"
	underWay  = "…"
	again     = "↻"
	later     = "○"
)

// Story tells a delivery's entries in words, in their order. Times of day in it
// are of now's time zone.
func (d *DeliveryTrace) Story(now time.Time) []Step {
	var steps []Step
	add := func(at time.Time, tone Tone, line string) {
		steps = append(steps, Step{At: at, Tone: tone, Text: line})
	}
	explain := func(at time.Time, tone Tone, line string) {
		steps = append(steps, Step{At: at, Tone: tone, Text: line, Beside: true})
	}
	events := make([]domain.DeliveryEvent, len(d.Entries))
	for i, e := range d.Entries {
		events[i], _ = e.Decode() // nil for an entry of a newer version
	}
	relay := int64(0)
	for i, event := range events {
		switch e := event.(type) {
		case domain.Scheduled:
			if d.ReplayID > 0 {
				add(e.At, NoTone, fmt.Sprintf("scheduled again by replay %d", d.ReplayID))
			}
		case domain.AttemptStarted:
			var outcome domain.DeliveryEvent
			if i+1 < len(events) {
				outcome = events[i+1]
			}
			step := attemptStep(e, outcome, now)
			if by := d.relayOf(e.Attempt); by != relay {
				if relay != 0 {
					step.Relay = by
				}
				relay = by
			}
			steps = append(steps, step)
		case domain.AttemptFailed:
			if !e.RetryAt.IsZero() {
				explain(time.Time{}, Waiting, repeat(events[i+1:], e.Attempt, e.At, e.RetryAt, now, ""))
			}
		case domain.AttemptUnknown:
			explain(e.At, Unknown, Printable(e.Reason))
			if !e.RetryAt.IsZero() {
				explain(time.Time{}, Waiting, repeat(events[i+1:], e.Attempt, e.At, e.RetryAt, now, "; the receiver is told that the outcome before is unknown"))
			}
		case domain.AttemptSucceeded:
			end := "delivered"
			if e.Attempt > 1 {
				end += fmt.Sprintf(" after %d attempts", e.Attempt)
			}
			add(e.At, Good, end)
		case domain.Held:
			add(e.At, Waiting, d.holdReason(e))
		case domain.Released:
			add(e.At, NoTone, "goes on: "+releaseReason(e.Reason))
		case domain.Dead:
			add(e.At, Bad, "given up: "+d.deadReason(e.Reason))
		case domain.Cancelled:
			add(e.At, Bad, "cancelled: "+CancelReason(e.Reason))
		case domain.Expired:
			add(e.At, Bad, "expired: "+expireReason(e.Reason))
		case nil:
			add(d.Entries[i].At, NoTone, Printable(d.Entries[i].Type))
		}
	}
	if d.Status == domain.DeliveryPending && d.AttemptCount == 0 {
		steps = append(steps, Step{Tone: Waiting, Text: later + " waits for its first attempt"})
	}
	return steps
}

// attemptStep tells of an attempt and its outcome on one line.
func attemptStep(e domain.AttemptStarted, outcome domain.DeliveryEvent, now time.Time) Step {
	s := Step{At: e.At, Attempt: e.Attempt}
	switch o := outcome.(type) {
	case domain.AttemptSucceeded:
		s.Tone = Good
		s.Text = fmt.Sprintf("%s %d in %s", succeeded, o.Outcome.StatusCode, Short(o.Outcome.Duration))
	case domain.AttemptFailed:
		s.Tone = Bad
		s.Text = failed + " " + failureText(o.Outcome)
	case domain.AttemptUnknown:
		s.Tone = Unknown
		s.Text = nobody + " unknown"
	default:
		s.Tone = Waiting
		s.Text = underWay + " under way for " + Short(now.Sub(e.At))
	}
	return s
}

// failureText says how an attempt failed.
func failureText(o domain.Outcome) string {
	var b strings.Builder
	if o.StatusCode > 0 {
		fmt.Fprintf(&b, "%d", o.StatusCode)
	}
	if o.Class != domain.ErrorStatus {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strings.ReplaceAll(string(o.Class), "_", " "))
	}
	fmt.Fprintf(&b, " in %s", Short(o.Duration))
	if o.Detail != "" && o.Class != domain.ErrorStatus {
		b.WriteString(": " + Printable(o.Detail))
	}
	return b.String()
}

// AttemptOf gives an attempt of the delivery by its number, nil where it has
// none.
func (d *DeliveryTrace) AttemptOf(number int) *Attempt {
	i := slices.IndexFunc(d.Attempts, func(a Attempt) bool { return a.Number == number })
	if i < 0 {
		return nil
	}
	return &d.Attempts[i]
}

func (d *DeliveryTrace) relayOf(attempt int) int64 {
	if a := d.AttemptOf(attempt); a != nil {
		return a.RelayID
	}
	return 0
}

// repeat says when the attempt behind a failed or unknown one came, or comes.
func repeat(behind []domain.DeliveryEvent, attempt int, at, due, now time.Time, told string) string {
	for _, event := range behind {
		switch e := event.(type) {
		case domain.AttemptStarted:
			wait := e.At.Sub(at)
			if wait < time.Second {
				return again + " repeated at once" + told
			}
			return fmt.Sprintf("%s repeated %s later%s", again, Short(wait), told)
		case domain.Dead, domain.Cancelled, domain.Expired:
			return later + " no attempt follows"
		default:
		}
	}
	if wait := due.Sub(now); wait > 0 {
		return fmt.Sprintf("%s attempt %d is due in %s, at %s%s", later, attempt+1, Short(wait), clock(due, now), told)
	}
	return fmt.Sprintf("%s attempt %d is due%s", later, attempt+1, told)
}

// clock is a time of day where now is, with the day where that is another.
func clock(at, now time.Time) string {
	at = at.In(now.Location())
	if at.YearDay() != now.YearDay() || at.Year() != now.Year() {
		return at.Format(time.DateTime)
	}
	return at.Format(time.TimeOnly)
}

func (d *DeliveryTrace) holdReason(e domain.Held) string {
	switch e.Reason {
	case domain.HoldOrder:
		held := "held: an earlier delivery of " + KeyName(d.OrderingKey) + " has not succeeded yet"
		if !e.Until.IsZero() {
			held += fmt.Sprintf("; for %s at most", Short(e.Until.Sub(e.At)))
		}
		return held
	case domain.HoldPaused:
		return "held: the webhook is paused"
	case domain.HoldReplay:
		return "held: the replay is paused"
	default:
		return "held: " + Printable(string(e.Reason))
	}
}

func releaseReason(reason domain.ReleaseReason) string {
	switch reason {
	case domain.ReleaseTurn:
		return "the earlier ones are finished"
	case domain.ReleaseElapsed:
		return "it was held as long as the webhook's order_hold allows"
	case domain.ReleaseResumed:
		return "the webhook is enabled again, or the replay goes on"
	default:
		return Printable(string(reason))
	}
}

func (d *DeliveryTrace) deadReason(reason string) string {
	switch reason {
	case domain.DeadAttempts:
		if d.AttemptCount == 1 {
			return "1 attempt is used up"
		}
		return fmt.Sprintf("%d attempts are used up", d.AttemptCount)
	case domain.DeadPayload:
		return "the payload is gone, or is not the one that was routed"
	default:
		return Printable(reason)
	}
}

// CancelReason says why a delivery was cancelled.
func CancelReason(reason string) string {
	switch reason {
	case domain.CancelledDisabled:
		return "the webhook was disabled"
	case domain.CancelledDeleted:
		return "the webhook was removed"
	case domain.CancelledErased:
		return "the payload was to be erased"
	case domain.CancelledReplay:
		return "the replay was cancelled"
	default:
		return Printable(reason)
	}
}

func expireReason(reason string) string {
	switch reason {
	case domain.ExpiredDeadline:
		return "its deadline passed before it could be sent"
	case domain.ExpiredRetention:
		return "its payload reached its age"
	default:
		return Printable(reason)
	}
}

// ReasonText says why a delivery is where it is, "" where that needs no words.
func (d *Delivery) ReasonText() string {
	of := DeliveryTrace{Delivery: *d}
	switch d.Status {
	case domain.DeliveryHeld:
		return strings.TrimPrefix(of.holdReason(domain.Held{Reason: domain.HoldReason(d.Reason)}), "held: ")
	case domain.DeliveryDead:
		return of.deadReason(d.Reason)
	case domain.DeliveryCancelled:
		return CancelReason(d.Reason)
	case domain.DeliveryExpired:
		return expireReason(d.Reason)
	case domain.DeliveryNone, domain.DeliveryPending, domain.DeliverySucceeded:
	}
	return ""
}
