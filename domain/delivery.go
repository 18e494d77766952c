package domain

import (
	"errors"
	"fmt"
	"time"
)

// DeliveryStatus is where a delivery is in its life, as audit.deliveries shows
// it.
type DeliveryStatus string

// The statuses of a delivery. The last four are final.
const (
	DeliveryNone      DeliveryStatus = ""          // not scheduled yet
	DeliveryPending   DeliveryStatus = "pending"   // waits for its first or next attempt, or has one under way
	DeliveryHeld      DeliveryStatus = "held"      // waits for an earlier one of its ordering key, or for a paused webhook
	DeliverySucceeded DeliveryStatus = "succeeded" // an attempt was answered with 2xx
	DeliveryDead      DeliveryStatus = "dead"      // given up
	DeliveryCancelled DeliveryStatus = "cancelled" // its webhook was disabled or deleted, its replay cancelled, or its payload erased
	DeliveryExpired   DeliveryStatus = "expired"   // its deadline passed, or its payload reached its age
)

// Final reports whether nothing more will happen to the delivery.
func (s DeliveryStatus) Final() bool {
	switch s {
	case DeliverySucceeded, DeliveryDead, DeliveryCancelled, DeliveryExpired:
		return true
	case DeliveryNone, DeliveryPending, DeliveryHeld:
		return false
	}
	return false
}

// Delivery is the fold of one delivery's events.
type Delivery struct {
	Status DeliveryStatus
	// Version counts the stream's events.
	Version int
	// ScheduledAt is when it was routed, Deadline the last moment at which an
	// attempt may start.
	ScheduledAt time.Time
	Deadline    time.Time
	// WebhookVersion is the webhook's version that scheduled it.
	WebhookVersion int64
	// Attempts counts the attempts started; Open says that the last one has
	// no outcome yet.
	Attempts int
	Open     bool
	// Timeout bounds how long the open attempt may take.
	Timeout time.Duration
	// Failed says that an attempt has failed or is unknown: the delivery holds
	// those behind it in its ordering key.
	Failed bool
	// LastOutcome is the outcome of the last finished attempt, Unknowns how
	// many in a row up to it are unknown.
	LastOutcome OutcomeKind
	Unknowns    int
	// NextAttemptAt is when the next attempt is due, zero for at once.
	NextAttemptAt time.Time
	// HeldFor is what a held delivery waits for, HeldUntil when the hold ends
	// by itself, zero for never.
	HeldFor   HoldReason
	HeldUntil time.Time
}

// DeliveryEvent is an entry of a delivery's stream.
type DeliveryEvent interface{ deliveryEvent() }

type (
	// Scheduled begins the stream: routed to a webhook at this version.
	Scheduled struct {
		At             time.Time
		Deadline       time.Time
		WebhookVersion int64
	}
	// AttemptStarted is on record before the first byte of the POST leaves.
	AttemptStarted struct {
		At             time.Time
		Attempt        int
		WebhookVersion int64
		// PreviousOutcome is what the receiver is told of the attempt before.
		PreviousOutcome OutcomeKind
		// Timeout bounds how long the attempt may be open.
		Timeout time.Duration
	}
	// AttemptSucceeded ends the delivery.
	AttemptSucceeded struct {
		At      time.Time
		Attempt int
		Outcome Outcome
	}
	// AttemptFailed has an outcome other than 2xx. RetryAt is zero where no
	// attempt follows.
	AttemptFailed struct {
		At      time.Time
		Attempt int
		Outcome Outcome
		RetryAt time.Time
	}
	// AttemptUnknown ends an attempt whose outcome nobody knows, since its
	// relay died or could not record it; or one without its POST, for which there
	// was no room before the relay gave the webhook up, or that was paused.
	AttemptUnknown struct {
		At      time.Time
		Attempt int
		Reason  string
		RetryAt time.Time
	}
	// Held makes it wait. Until is zero where only an event ends the hold.
	Held struct {
		At     time.Time
		Reason HoldReason
		Until  time.Time
	}
	// Released ends the wait.
	Released struct {
		At     time.Time
		Reason ReleaseReason
	}
	// Expired ends a delivery whose deadline passed before its next attempt, or
	// whose payload has reached its age.
	Expired struct {
		At     time.Time
		Reason string
	}
	// Dead ends a delivery that used up its attempts.
	Dead struct {
		At     time.Time
		Reason string
	}
	// Cancelled ends a delivery whose webhook is gone, whose replay is called
	// off, or whose payload is to be erased.
	Cancelled struct {
		At     time.Time
		Reason string
	}
)

func (Scheduled) deliveryEvent()        {}
func (AttemptStarted) deliveryEvent()   {}
func (AttemptSucceeded) deliveryEvent() {}
func (AttemptFailed) deliveryEvent()    {}
func (AttemptUnknown) deliveryEvent()   {}
func (Held) deliveryEvent()             {}
func (Released) deliveryEvent()         {}
func (Expired) deliveryEvent()          {}
func (Dead) deliveryEvent()             {}
func (Cancelled) deliveryEvent()        {}

// HoldReason says what a held delivery waits for.
type HoldReason string

// The reasons of a hold.
const (
	HoldOrder  HoldReason = "order"         // an earlier delivery of its ordering key has failed
	HoldPaused HoldReason = "paused"        // its webhook is paused
	HoldReplay HoldReason = "replay_paused" // its replay is paused
)

// ReleaseReason says what ended a hold.
type ReleaseReason string

// The reasons of a release.
const (
	ReleaseTurn    ReleaseReason = "turn"    // the earlier deliveries are finished
	ReleaseElapsed ReleaseReason = "elapsed" // it waited as long as order_hold allows
	ReleaseResumed ReleaseReason = "resumed" // its webhook is enabled again, or its replay goes on
)

// The reasons why a delivery is dead, expired or cancelled.
const (
	DeadAttempts      = "attempts_used_up"
	DeadPayload       = "payload_changed"
	ExpiredDeadline   = "deadline_passed"
	ExpiredRetention  = "retention"
	CancelledDisabled = "webhook_disabled"
	CancelledDeleted  = "webhook_deleted"
	CancelledReplay   = "replay_cancelled"
	CancelledErased   = "payload_erased"
)

// DisabledGone is the reason of a webhook disabled by its receiver.
const DisabledGone = "the receiver answered 410 Gone twice"

// DisabledFailing is the reason of a webhook disabled because no attempt
// succeeded for as long as this.
func DisabledFailing(after time.Duration) string {
	const day = 24 * time.Hour
	if days := after / day; days > 1 && after%day == 0 {
		return fmt.Sprintf("no attempt succeeded for %d days", days)
	}
	return "no attempt succeeded for " + after.String()
}

// DeliveryCommand asks for a step of a delivery.
type DeliveryCommand interface{ deliveryCommand() }

type (
	// Schedule begins a delivery.
	Schedule struct {
		At time.Time
		// Deadline is how long after At an attempt may start: DeadlineOf the
		// webhook at this version.
		Deadline       time.Duration
		WebhookVersion int64
	}
	// Start asks for the next attempt. It gives Expired instead where the
	// deadline has passed, and Released first where the delivery was held.
	Start struct {
		At             time.Time
		WebhookVersion int64
		Timeout        time.Duration
		// Release is the reason of the release where it is held.
		Release ReleaseReason
	}
	// RecordOutcome ends the open attempt.
	RecordOutcome struct {
		At      time.Time
		Attempt int
		Outcome Outcome
		Policy  RetryPolicy
		// Jitter is uniform in [0, 1).
		Jitter float64
	}
	// LoseAttempt ends the open attempt as unknown.
	LoseAttempt struct {
		At      time.Time
		Attempt int
		Reason  string
		Policy  RetryPolicy
		Jitter  float64
	}
	// Hold makes the delivery wait until Until, zero for as long as it takes.
	Hold struct {
		At     time.Time
		Reason HoldReason
		Until  time.Time
	}
	// Expire ends a delivery whose time is over.
	Expire struct {
		At     time.Time
		Reason string
	}
	// Cancel ends a delivery whose webhook is gone, whose replay is called off, or
	// whose payload is to be erased.
	Cancel struct {
		At     time.Time
		Reason string
	}
	// GiveUp ends a delivery that cannot be sent as it was routed.
	GiveUp struct {
		At     time.Time
		Reason string
	}
)

func (Schedule) deliveryCommand()      {}
func (Start) deliveryCommand()         {}
func (RecordOutcome) deliveryCommand() {}
func (LoseAttempt) deliveryCommand()   {}
func (Hold) deliveryCommand()          {}
func (Expire) deliveryCommand()        {}
func (Cancel) deliveryCommand()        {}
func (GiveUp) deliveryCommand()        {}

var (
	// ErrNotScheduled refuses commands before Schedule.
	ErrNotScheduled = errors.New("the delivery is not scheduled")
	// ErrAttemptOpen refuses a second attempt beside an open one, and ends of
	// a delivery whose attempt is under way.
	ErrAttemptOpen = errors.New("an attempt is under way")
	// ErrNoSuchAttempt refuses the outcome of an attempt that is not open.
	ErrNoSuchAttempt = errors.New("no such attempt is under way")
	// ErrFinal refuses attempts and holds of a finished delivery.
	ErrFinal = errors.New("the delivery is finished")
)

// Decide turns a command into the events that happened. A command that repeats
// what is on record gives no event and no error.
func Decide(d Delivery, command DeliveryCommand) ([]DeliveryEvent, error) {
	if c, ok := command.(Schedule); ok {
		if d.Status != DeliveryNone {
			return nil, nil
		}
		return []DeliveryEvent{Scheduled{c.At, c.At.Add(c.Deadline), c.WebhookVersion}}, nil
	}
	if d.Status == DeliveryNone {
		return nil, ErrNotScheduled
	}
	switch c := command.(type) {
	case Start:
		return decideStart(d, c)
	case RecordOutcome:
		return decideOutcome(d, c)
	case LoseAttempt:
		return decideLost(d, c)
	case Hold:
		switch {
		case d.Status.Final():
			return nil, ErrFinal
		case d.Open:
			return nil, ErrAttemptOpen
		case d.Status == DeliveryHeld && d.HeldFor == c.Reason && d.HeldUntil.Equal(c.Until):
			return nil, nil
		}
		return []DeliveryEvent{Held(c)}, nil
	case Expire:
		return decideEnd(d, Expired(c))
	case Cancel:
		return decideEnd(d, Cancelled(c))
	case GiveUp:
		return decideEnd(d, Dead(c))
	case Schedule:
	}
	return nil, fmt.Errorf("unknown delivery command %T", command)
}

func decideStart(d Delivery, c Start) ([]DeliveryEvent, error) {
	switch {
	case d.Status.Final():
		return nil, ErrFinal
	case d.Open:
		return nil, ErrAttemptOpen
	case c.At.After(d.Deadline):
		return []DeliveryEvent{Expired{c.At, ExpiredDeadline}}, nil
	}
	started := AttemptStarted{c.At, d.Attempts + 1, c.WebhookVersion, d.LastOutcome, c.Timeout}
	if d.Status == DeliveryHeld {
		return []DeliveryEvent{Released{c.At, c.Release}, started}, nil
	}
	return []DeliveryEvent{started}, nil
}

func decideOutcome(d Delivery, c RecordOutcome) ([]DeliveryEvent, error) {
	if !d.Open || c.Attempt != d.Attempts {
		return nil, ErrNoSuchAttempt
	}
	if c.Outcome.Kind == OutcomeSucceeded {
		return []DeliveryEvent{AttemptSucceeded{c.At, c.Attempt, c.Outcome}}, nil
	}
	c.Outcome.Kind = OutcomeFailed // what did not succeed has failed, whatever the sender calls it
	delay, again := c.Policy.Next(c.Attempt, c.Outcome.RetryAfter, c.Jitter)
	if !again {
		return []DeliveryEvent{AttemptFailed{At: c.At, Attempt: c.Attempt, Outcome: c.Outcome}, Dead{c.At, DeadAttempts}}, nil
	}
	return []DeliveryEvent{AttemptFailed{c.At, c.Attempt, c.Outcome, c.At.Add(delay)}}, nil
}

func decideLost(d Delivery, c LoseAttempt) ([]DeliveryEvent, error) {
	if !d.Open || c.Attempt != d.Attempts {
		return nil, ErrNoSuchAttempt
	}
	if c.Attempt >= c.Policy.MaxAttempts() {
		return []DeliveryEvent{AttemptUnknown{At: c.At, Attempt: c.Attempt, Reason: c.Reason}, Dead{c.At, DeadAttempts}}, nil
	}
	// One unknown outcome is our crash, so the repeat is due at once. Two in a
	// row may be this delivery's doing: from there the schedule is gone through
	// from its beginning, since none of them is the receiver's.
	delay, _ := c.Policy.Next(d.Unknowns, 0, c.Jitter)
	return []DeliveryEvent{AttemptUnknown{c.At, c.Attempt, c.Reason, c.At.Add(delay)}}, nil
}

func decideEnd(d Delivery, end DeliveryEvent) ([]DeliveryEvent, error) {
	switch {
	case d.Status.Final():
		return nil, nil
	case d.Open:
		return nil, ErrAttemptOpen
	}
	return []DeliveryEvent{end}, nil
}

// Evolve folds one event into the state.
func Evolve(d Delivery, event DeliveryEvent) Delivery {
	d.Version++
	switch e := event.(type) {
	case Scheduled:
		d.Status, d.ScheduledAt, d.Deadline, d.WebhookVersion = DeliveryPending, e.At, e.Deadline, e.WebhookVersion
	case AttemptStarted:
		d.Attempts, d.Open, d.Timeout, d.NextAttemptAt = e.Attempt, true, e.Timeout, time.Time{}
	case AttemptSucceeded:
		d.Status, d.Open, d.LastOutcome, d.Unknowns = DeliverySucceeded, false, OutcomeSucceeded, 0
	case AttemptFailed:
		d.Open, d.Failed, d.LastOutcome, d.Unknowns, d.NextAttemptAt = false, true, OutcomeFailed, 0, e.RetryAt
	case AttemptUnknown:
		d.Open, d.Failed, d.LastOutcome, d.Unknowns, d.NextAttemptAt = false, true, OutcomeUnknown, d.Unknowns+1, e.RetryAt
	case Held:
		d.Status, d.HeldFor, d.HeldUntil = DeliveryHeld, e.Reason, e.Until
	case Released:
		d.Status, d.HeldFor, d.HeldUntil = DeliveryPending, "", time.Time{}
	case Expired:
		d.Status = DeliveryExpired
	case Dead:
		d.Status = DeliveryDead
	case Cancelled:
		d.Status = DeliveryCancelled
	}
	return d
}

// Fold evolves an empty delivery through events.
func Fold(events ...DeliveryEvent) Delivery {
	var d Delivery
	for _, event := range events {
		d = Evolve(d, event)
	}
	return d
}
