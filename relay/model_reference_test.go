package relay_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// reference is the model that the relay is compared with. It hears what is on
// record, entry by entry in the order of the log, and says what must not be there.
// It knows the promises only: of each webhook a line of deliveries for each
// ordering key, and for each replay lines of its own, which have nothing to do
// with the others.
type reference struct {
	policy domain.RetryPolicy
	hooks  map[domain.WebhookID]*modelHook
	// keys are the ordering keys of the chat events, by their place in the outbox.
	keys  map[int64]string
	lines map[line][]*duty
	all   map[domain.DeliveryKey]*duty
	flaws []flaw
}

// modelHook is what the reference knows of a webhook.
type modelHook struct {
	hold time.Duration // order_hold
	// paused says that it ever was; disabled and deleted are the versions that did
	// that last, 0 for never.
	paused            bool
	disabled, deleted int64
}

// line is what keeps an order of its own.
type line struct {
	hook   domain.WebhookID
	replay domain.ReplayID
	key    string
}

// duty is a delivery as the reference has it.
type duty struct {
	key       domain.DeliveryKey
	line      line
	hold      time.Duration // 0 where it is in no order
	version   int
	hooked    int64 // the webhook's version that it was scheduled at
	scheduled time.Time
	deadline  time.Time
	attempts  []modelAttempt
	failed    bool
	unknowns  int // in a row
	next      time.Time
	held      domain.HoldReason
	until     time.Time
	status    domain.DeliveryStatus
	reason    string
}

// modelAttempt is an attempt as it is on record.
type modelAttempt struct {
	started int64 // place in the log
	outcome domain.OutcomeKind
	status  int
}

// flaw is something that must not be.
type flaw struct {
	of   line
	text string
}

// entry is an entry of the log.
type entry struct {
	key     domain.DeliveryKey
	pos     int64
	version int
	writer  int64
	event   domain.DeliveryEvent
}

// grain is how exact times on record are: the relay has nanoseconds in memory,
// the database keeps microseconds.
const grain = 2 * time.Microsecond

func newReference(policy domain.RetryPolicy, hooks map[domain.WebhookID]*modelHook, keys map[int64]string) *reference {
	return &reference{policy: policy, hooks: hooks, keys: keys, lines: map[line][]*duty{}, all: map[domain.DeliveryKey]*duty{}}
}

// hear takes the next entry of the log.
func (r *reference) hear(e entry) {
	if s, first := e.event.(domain.Scheduled); first {
		r.schedule(e, s)
		return
	}
	d := r.all[e.key]
	if d == nil {
		r.flaws = append(r.flaws, flaw{line{hook: e.key.WebhookID, replay: e.key.ReplayID}, fmt.Sprintf("%s before it is scheduled", tell(e))})
		return
	}
	d.version++
	r.must(d, e, e.version == d.version, "the version is not the next, %d", d.version)
	r.must(d, e, !d.status.Final(), "it is %s already", d.status)
	switch event := e.event.(type) {
	case domain.AttemptStarted:
		r.start(d, e, event)
	case domain.AttemptSucceeded:
		r.end(d, e, event.Attempt, domain.OutcomeSucceeded, event.Outcome.StatusCode)
		d.status = domain.DeliverySucceeded
	case domain.AttemptFailed:
		r.end(d, e, event.Attempt, domain.OutcomeFailed, event.Outcome.StatusCode)
		d.failed, d.unknowns, d.next = true, 0, event.RetryAt
		if asked := min(event.Outcome.RetryAfter, r.policy.RetryAfterCap); len(d.attempts) < r.policy.MaxAttempts() {
			r.between(d, e, event.RetryAt.Sub(event.At), r.policy.Delays[len(d.attempts)-1], asked)
		}
	case domain.AttemptUnknown:
		r.end(d, e, event.Attempt, domain.OutcomeUnknown, 0)
		again := len(d.attempts) < r.policy.MaxAttempts()
		switch wait := event.RetryAt.Sub(event.At); {
		case again && d.unknowns == 0:
			r.must(d, e, wait >= 0 && wait <= grain, "it is to be repeated at once, not in %s", wait)
		case again:
			r.between(d, e, wait, r.policy.Delays[d.unknowns-1], 0)
		}
		d.failed, d.unknowns, d.next = true, d.unknowns+1, event.RetryAt
	case domain.Held:
		r.heldUp(d, e, event)
	case domain.Released:
		r.release(d, e, event)
	case domain.Expired:
		r.must(d, e, event.Reason == domain.ExpiredDeadline && event.At.After(d.deadline.Add(-grain)), "its deadline is %s, the reason %s", short(d.deadline), event.Reason)
		d.status, d.reason = domain.DeliveryExpired, event.Reason
	case domain.Dead:
		r.must(d, e, event.Reason == domain.DeadAttempts && len(d.attempts) == r.policy.MaxAttempts(), "after %d of %d attempts, for %s", len(d.attempts), r.policy.MaxAttempts(), event.Reason)
		d.status, d.reason = domain.DeliveryDead, event.Reason
	case domain.Cancelled:
		r.cancel(d, e, event)
	case domain.Scheduled:
	}
}

// schedule puts a delivery at the end of its line. Chat events were inserted one
// after the other: so they are routed, and so a replay sends them again.
func (r *reference) schedule(e entry, s domain.Scheduled) {
	hook := r.hooks[e.key.WebhookID]
	l := line{e.key.WebhookID, e.key.ReplayID, r.keys[e.key.EventSeq]}
	d := &duty{key: e.key, line: l, version: 1, hooked: s.WebhookVersion, scheduled: s.At, deadline: s.Deadline, status: domain.DeliveryPending}
	if l.key != "" {
		d.hold = hook.hold
	}
	before := r.lines[l]
	r.must(d, e, r.all[e.key] == nil && e.version == 1, "it is scheduled twice")
	r.must(d, e, d.hold == 0 || len(before) == 0 || before[len(before)-1].key.EventSeq < e.key.EventSeq, "a later event of its line was scheduled before")
	r.lines[l], r.all[e.key] = append(before, d), d
}

// start is where the order shows.
func (r *reference) start(d *duty, e entry, s domain.AttemptStarted) {
	last := d.last()
	r.must(d, e, s.Attempt == len(d.attempts)+1, "attempt %d comes after %d", s.Attempt, len(d.attempts))
	r.must(d, e, last != domain.OutcomeStarted, "an attempt is under way")
	r.must(d, e, s.PreviousOutcome == last, "it says that the attempt before %s, which %s", s.PreviousOutcome, last)
	r.must(d, e, s.Attempt <= r.policy.MaxAttempts(), "the policy has %d attempts", r.policy.MaxAttempts())
	r.must(d, e, d.held == "", "it is held for %s", d.held)
	r.must(d, e, !s.At.Before(d.next.Add(-grain)), "it is due at %s", short(d.next))
	r.must(d, e, !s.At.After(d.deadline.Add(grain)), "its deadline was %s", short(d.deadline))
	if d.hold != 0 {
		earlier := true
		for _, other := range r.lines[d.line] {
			if other == d {
				earlier = false
				continue
			}
			r.must(d, e, other.last() != domain.OutcomeStarted, "an attempt of event %d is under way, of the same line", other.key.EventSeq)
			if !earlier || other.status.Final() {
				continue
			}
			if !r.must(d, e, other.failed, "event %d is before it and had no attempt", other.key.EventSeq) ||
				!r.must(d, e, d.failed || d.elapsed(s.At), "event %d is before it and has failed; the hold lasts", other.key.EventSeq) {
				break // the others before it say the same
			}
		}
	}
	d.attempts = append(d.attempts, modelAttempt{started: e.pos, outcome: domain.OutcomeStarted})
}

// elapsed says whether a follower has waited as long as it may have to.
func (d *duty) elapsed(at time.Time) bool {
	return d.hold != domain.HoldForever && !at.Before(d.scheduled.Add(d.hold-grain))
}

func (d *duty) last() domain.OutcomeKind {
	if len(d.attempts) == 0 {
		return domain.OutcomeNone
	}
	return d.attempts[len(d.attempts)-1].outcome
}

func (r *reference) end(d *duty, e entry, attempt int, outcome domain.OutcomeKind, status int) {
	if r.must(d, e, d.last() == domain.OutcomeStarted && attempt == len(d.attempts), "no such attempt is under way") {
		last := &d.attempts[attempt-1]
		last.outcome, last.status = outcome, status
	}
}

// between checks the wait before a repeat. A receiver may ask for a longer one.
func (r *reference) between(d *duty, e entry, wait, delay, asked time.Duration) {
	spread := time.Duration(r.policy.Spread * float64(delay))
	r.must(d, e, wait >= max(delay-spread, asked)-grain && wait <= max(delay+spread, asked)+grain, "it is to be repeated in %s, by the policy in %s, and the receiver asks for %s", wait, delay, asked)
}

// heldUp checks that there is something to wait for, and how long.
func (r *reference) heldUp(d *duty, e entry, h domain.Held) {
	r.must(d, e, d.last() != domain.OutcomeStarted, "an attempt is under way")
	until := d.deadline
	switch h.Reason {
	case domain.HoldOrder:
		if d.hold != domain.HoldForever && d.scheduled.Add(d.hold).Before(until) {
			until = d.scheduled.Add(d.hold)
		}
		r.must(d, e, d.hold != 0, "it is in no order")
		r.must(d, e, !d.failed, "a repeat waits for nobody")
		r.must(d, e, slices.ContainsFunc(r.before(d), func(other *duty) bool { return other.failed || other.held == domain.HoldOrder }), "nothing before it has failed")
	case domain.HoldPaused:
		r.must(d, e, r.hooks[d.key.WebhookID].paused, "its webhook was never paused")
	case domain.HoldReplay:
		r.must(d, e, d.key.ReplayID != 0, "it is of no replay")
	}
	r.must(d, e, h.Until.Sub(until).Abs() <= grain, "it may be held until %s, not %s", short(until), short(h.Until))
	d.held, d.until = h.Reason, h.Until
}

// before gives the unfinished deliveries before one of its line.
func (r *reference) before(d *duty) (open []*duty) {
	for _, other := range r.lines[d.line] {
		if other == d {
			break
		}
		if !other.status.Final() {
			open = append(open, other)
		}
	}
	return open
}

// release checks that what it waited for is over.
func (r *reference) release(d *duty, e entry, f domain.Released) {
	switch d.held {
	case domain.HoldOrder:
		switch f.Reason {
		case domain.ReleaseTurn:
			r.must(d, e, len(r.before(d)) == 0, "it is not its turn")
		case domain.ReleaseElapsed:
			r.must(d, e, !f.At.Before(d.until.Add(-grain)), "it is held until %s", short(d.until))
		case domain.ReleaseResumed:
			r.must(d, e, false, "it was held for the order")
		}
	case domain.HoldPaused, domain.HoldReplay:
		r.must(d, e, f.Reason == domain.ReleaseResumed, "it was held by a pause")
	default:
		r.must(d, e, false, "it is not held")
	}
	d.held = ""
}

// cancel checks that somebody asked for it.
func (r *reference) cancel(d *duty, e entry, c domain.Cancelled) {
	hook := r.hooks[d.key.WebhookID]
	switch c.Reason {
	case domain.CancelledDisabled:
		r.must(d, e, hook.disabled >= d.hooked, "its webhook was not disabled since")
	case domain.CancelledDeleted:
		r.must(d, e, hook.deleted != 0, "its webhook is not deleted")
	case domain.CancelledReplay:
		r.must(d, e, d.key.ReplayID != 0, "it is of no replay")
	default:
		r.must(d, e, false, "nobody asked for it")
	}
	d.status, d.reason = domain.DeliveryCancelled, c.Reason
}

// must notes a flaw where a condition does not hold.
func (r *reference) must(d *duty, e entry, holds bool, format string, args ...any) bool {
	if !holds {
		r.flaws = append(r.flaws, flaw{d.line, fmt.Sprintf("%s: %s", tell(e), fmt.Sprintf(format, args...))})
	}
	return holds
}

// tell says what an entry is, for the reader of a flaw.
func tell(e entry) string {
	text := strings.TrimPrefix(fmt.Sprintf("%T", e.event), "domain.")
	at := time.Time{}
	switch event := e.event.(type) {
	case domain.Scheduled:
		at = event.At
	case domain.AttemptStarted:
		at, text = event.At, fmt.Sprintf("%s %d", text, event.Attempt)
	case domain.AttemptSucceeded:
		at, text = event.At, fmt.Sprintf("%s %d", text, event.Attempt)
	case domain.AttemptFailed:
		at, text = event.At, fmt.Sprintf("%s %d (%s %d), again at %s", text, event.Attempt, event.Outcome.Class, event.Outcome.StatusCode, short(event.RetryAt))
	case domain.AttemptUnknown:
		at, text = event.At, fmt.Sprintf("%s %d, again at %s", text, event.Attempt, short(event.RetryAt))
	case domain.Held:
		at, text = event.At, fmt.Sprintf("%s for %s until %s", text, event.Reason, short(event.Until))
	case domain.Released:
		at, text = event.At, fmt.Sprintf("%s, %s", text, event.Reason)
	case domain.Expired:
		at, text = event.At, fmt.Sprintf("%s, %s", text, event.Reason)
	case domain.Dead:
		at, text = event.At, fmt.Sprintf("%s, %s", text, event.Reason)
	case domain.Cancelled:
		at, text = event.At, fmt.Sprintf("%s, %s", text, event.Reason)
	}
	return fmt.Sprintf("%s event %d to webhook %d, replay %d: %s", short(at), e.key.EventSeq, e.key.WebhookID, e.key.ReplayID, text)
}

func short(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format("15:04:05.000000")
}
