package domain_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// after gives the moment d after the story's beginning.
func after(d time.Duration) time.Time { return t0.Add(d) }

var (
	week = 7 * 24 * time.Hour
	// steady is a policy whose waits are easy to read: 1 min, then 1 h; three
	// attempts.
	steady = domain.RetryPolicy{Delays: []time.Duration{time.Minute, time.Hour}, RetryAfterCap: 10 * time.Minute}

	scheduled = domain.Scheduled{At: t0, Deadline: t0.Add(week), WebhookVersion: 7}
	ok        = domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 200}
	broken    = domain.Outcome{Kind: domain.OutcomeFailed, StatusCode: 500, Class: domain.ErrorStatus}
)

func started(attempt int, previous domain.OutcomeKind, at time.Duration) domain.AttemptStarted {
	return domain.AttemptStarted{At: after(at), Attempt: attempt, WebhookVersion: 7, PreviousOutcome: previous, Timeout: 5 * time.Second}
}

func failed(attempt int, at, retry time.Duration) domain.AttemptFailed {
	return domain.AttemptFailed{At: after(at), Attempt: attempt, Outcome: broken, RetryAt: after(retry)}
}

func unknown(attempt int, at, retry time.Duration) domain.AttemptUnknown {
	return domain.AttemptUnknown{At: after(at), Attempt: attempt, Reason: "relay_lost", RetryAt: after(retry)}
}

func start(at time.Duration) domain.Start {
	return domain.Start{At: after(at), WebhookVersion: 7, Timeout: 5 * time.Second, Release: domain.ReleaseTurn}
}

func record(attempt int, outcome domain.Outcome, at time.Duration) domain.RecordOutcome {
	return domain.RecordOutcome{At: after(at), Attempt: attempt, Outcome: outcome, Policy: steady, Jitter: 0.5}
}

func lose(attempt int, at time.Duration) domain.LoseAttempt {
	return domain.LoseAttempt{At: after(at), Attempt: attempt, Reason: "relay_lost", Policy: steady, Jitter: 0.5}
}

// events writes a list of a scenario.
func events(e ...domain.DeliveryEvent) []domain.DeliveryEvent { return e }

func TestDecide(t *testing.T) {
	t.Parallel()
	firstFailed := events(scheduled, started(1, domain.OutcomeNone, 0), failed(1, time.Second, time.Minute+time.Second))
	firstUnknown := events(scheduled, started(1, domain.OutcomeNone, 0), unknown(1, time.Second, time.Second))
	lastOpen := append(slices.Clone(firstFailed),
		started(2, domain.OutcomeFailed, 2*time.Minute), failed(2, 3*time.Minute, time.Hour+3*time.Minute),
		started(3, domain.OutcomeFailed, 2*time.Hour))

	for _, c := range []struct {
		name  string
		given []domain.DeliveryEvent
		when  domain.DeliveryCommand
		then  []domain.DeliveryEvent
		err   error
	}{
		{
			name: "ScheduledWithADeadlineOfAWeek",
			when: domain.Schedule{At: t0, Deadline: week, WebhookVersion: 7},
			then: events(scheduled),
		},
		{
			name: "ScheduledWithAShortDeadline",
			when: domain.Schedule{At: t0, Deadline: 10 * time.Second, WebhookVersion: 7},
			then: events(domain.Scheduled{At: t0, Deadline: after(10 * time.Second), WebhookVersion: 7}),
		},
		{
			name:  "FirstAttemptHasNoPreviousOutcome",
			given: events(scheduled),
			when:  start(time.Second),
			then:  events(started(1, domain.OutcomeNone, time.Second)),
		},
		{
			name:  "AnAttemptNamesTheWebhookVersionItUses",
			given: firstFailed,
			when:  domain.Start{At: after(2 * time.Minute), WebhookVersion: 9, Timeout: time.Second},
			then: events(domain.AttemptStarted{
				At: after(2 * time.Minute), Attempt: 2, WebhookVersion: 9, PreviousOutcome: domain.OutcomeFailed, Timeout: time.Second,
			}),
		},
		{
			name:  "SuccessEndsIt",
			given: events(scheduled, started(1, domain.OutcomeNone, 0)),
			when:  record(1, ok, time.Second),
			then:  events(domain.AttemptSucceeded{At: after(time.Second), Attempt: 1, Outcome: ok}),
		},
		{
			name:  "FailureIsRetriedByThePolicy",
			given: events(scheduled, started(1, domain.OutcomeNone, 0)),
			when:  record(1, broken, time.Second),
			then:  events(failed(1, time.Second, time.Minute+time.Second)),
		},
		{
			name:  "RetryAfterIsHonoured",
			given: events(scheduled, started(1, domain.OutcomeNone, 0)),
			when:  record(1, domain.Outcome{Kind: domain.OutcomeFailed, StatusCode: 429, RetryAfter: 3 * time.Minute}, 0),
			then: events(domain.AttemptFailed{
				At: t0, Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeFailed, StatusCode: 429, RetryAfter: 3 * time.Minute}, RetryAt: after(3 * time.Minute),
			}),
		},
		{
			name:  "WhatDidNotSucceedHasFailed",
			given: events(scheduled, started(1, domain.OutcomeNone, 0)),
			when:  record(1, domain.Outcome{}, 0),
			then:  events(domain.AttemptFailed{At: t0, Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeFailed}, RetryAt: after(time.Minute)}),
		},
		{
			name:  "TheSecondAttemptSaysThatTheFirstFailed",
			given: firstFailed,
			when:  start(2 * time.Minute),
			then:  events(started(2, domain.OutcomeFailed, 2*time.Minute)),
		},
		{
			name:  "TheLastFailureIsItsDeath",
			given: lastOpen,
			when:  record(3, broken, 3*time.Hour),
			then: events(
				domain.AttemptFailed{At: after(3 * time.Hour), Attempt: 3, Outcome: broken},
				domain.Dead{At: after(3 * time.Hour), Reason: domain.DeadAttempts}),
		},
		{
			name:  "TheLastAttemptMaySucceed",
			given: lastOpen,
			when:  record(3, ok, 3*time.Hour),
			then:  events(domain.AttemptSucceeded{At: after(3 * time.Hour), Attempt: 3, Outcome: ok}),
		},
		{
			name:  "TheLastAttemptUnknownIsItsDeath",
			given: lastOpen,
			when:  lose(3, 3*time.Hour),
			then: events(
				domain.AttemptUnknown{At: after(3 * time.Hour), Attempt: 3, Reason: "relay_lost"},
				domain.Dead{At: after(3 * time.Hour), Reason: domain.DeadAttempts}),
		},
		{
			name:  "UnknownIsRepeatedAtOnce",
			given: events(scheduled, started(1, domain.OutcomeNone, 0)),
			when:  lose(1, time.Second),
			then:  events(unknown(1, time.Second, time.Second)),
		},
		{
			name:  "TheRepeatSaysThatTheFirstIsUnknown",
			given: firstUnknown,
			when:  start(time.Second),
			then:  events(started(2, domain.OutcomeUnknown, time.Second)),
		},
		{
			name:  "UnknownTwiceInARowWaitsAsAfterAFirstFailure",
			given: append(slices.Clone(firstUnknown), started(2, domain.OutcomeUnknown, time.Second)),
			when:  lose(2, 2*time.Second),
			then:  events(unknown(2, 2*time.Second, time.Minute+2*time.Second)),
		},
		{
			name:  "UnknownAfterAFailureIsRepeatedAtOnce",
			given: append(slices.Clone(firstFailed), started(2, domain.OutcomeFailed, 2*time.Minute)),
			when:  lose(2, 3*time.Minute),
			then:  events(unknown(2, 3*time.Minute, 3*time.Minute)),
		},
		{
			name:  "TheFirstAttemptMayStartAtTheDeadline",
			given: events(scheduled),
			when:  start(week),
			then:  events(started(1, domain.OutcomeNone, week)),
		},
		{
			name:  "TheFirstAttemptMayNotStartAfterTheDeadline",
			given: events(scheduled),
			when:  start(week + 1),
			then:  events(domain.Expired{At: after(week + 1), Reason: domain.ExpiredDeadline}),
		},
		{
			name:  "HeldPastTheDeadlineItExpiresWithoutARelease",
			given: events(scheduled, domain.Held{At: t0, Reason: domain.HoldPaused}),
			when:  start(week + 1),
			then:  events(domain.Expired{At: after(week + 1), Reason: domain.ExpiredDeadline}),
		},
		{
			name:  "TheDeadlineBindsRetriesAsWell",
			given: firstFailed,
			when:  start(week + time.Hour),
			then:  events(domain.Expired{At: after(week + time.Hour), Reason: domain.ExpiredDeadline}),
		},
		{
			name:  "HeldWhileAnEarlierOneFails",
			given: events(scheduled),
			when:  domain.Hold{At: t0, Reason: domain.HoldOrder, Until: after(30 * time.Second)},
			then:  events(domain.Held{At: t0, Reason: domain.HoldOrder, Until: after(30 * time.Second)}),
		},
		{
			name:  "TheSameHoldAgainIsNothingNew",
			given: events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder, Until: after(30 * time.Second)}),
			when:  domain.Hold{At: after(time.Second), Reason: domain.HoldOrder, Until: after(30 * time.Second)},
		},
		{
			name:  "AHoldMayBeProlonged",
			given: events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder, Until: after(30 * time.Second)}),
			when:  domain.Hold{At: after(time.Second), Reason: domain.HoldOrder, Until: after(time.Minute)},
			then:  events(domain.Held{At: after(time.Second), Reason: domain.HoldOrder, Until: after(time.Minute)}),
		},
		{
			name:  "AHoldForAnotherReasonIsNew",
			given: events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder}),
			when:  domain.Hold{At: after(time.Second), Reason: domain.HoldPaused},
			then:  events(domain.Held{At: after(time.Second), Reason: domain.HoldPaused}),
		},
		{
			name:  "ReleasedWhenItsTurnComes",
			given: events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder, Until: after(30 * time.Second)}),
			when:  start(10 * time.Second),
			then: events(
				domain.Released{At: after(10 * time.Second), Reason: domain.ReleaseTurn},
				started(1, domain.OutcomeNone, 10*time.Second)),
		},
		{
			name:  "HeldBetweenTwoAttempts",
			given: firstFailed,
			when:  domain.Hold{At: after(time.Minute), Reason: domain.HoldPaused},
			then:  events(domain.Held{At: after(time.Minute), Reason: domain.HoldPaused}),
		},
		{
			name:  "ReleasedForItsRetry",
			given: append(slices.Clone(firstFailed), domain.Held{At: after(time.Minute), Reason: domain.HoldPaused}),
			when:  domain.Start{At: after(time.Hour), WebhookVersion: 7, Timeout: 5 * time.Second, Release: domain.ReleaseResumed},
			then: events(
				domain.Released{At: after(time.Hour), Reason: domain.ReleaseResumed},
				started(2, domain.OutcomeFailed, time.Hour)),
		},
		{
			name:  "CancelledWithItsReason",
			given: firstFailed,
			when:  domain.Cancel{At: after(time.Hour), Reason: domain.CancelledDeleted},
			then:  events(domain.Cancelled{At: after(time.Hour), Reason: domain.CancelledDeleted}),
		},
		{
			name:  "GivenUpWithItsReason",
			given: events(scheduled),
			when:  domain.GiveUp{At: after(time.Hour), Reason: domain.DeadPayload},
			then:  events(domain.Dead{At: after(time.Hour), Reason: domain.DeadPayload}),
		},
		{
			name:  "ExpiredOnRequest",
			given: events(scheduled, domain.Held{At: t0, Reason: domain.HoldPaused}),
			when:  domain.Expire{At: after(week + time.Hour), Reason: domain.ExpiredDeadline},
			then:  events(domain.Expired{At: after(week + time.Hour), Reason: domain.ExpiredDeadline}),
		},
		{
			name:  "TheOutcomeOfAnEarlierAttemptIsRefused",
			given: append(slices.Clone(firstFailed), started(2, domain.OutcomeFailed, 2*time.Minute)),
			when:  record(1, ok, 3*time.Minute),
			err:   domain.ErrNoSuchAttempt,
		},
		{
			name:  "TheOutcomeOfALaterAttemptIsRefused",
			given: events(scheduled, started(1, domain.OutcomeNone, 0)),
			when:  record(2, ok, 3*time.Minute),
			err:   domain.ErrNoSuchAttempt,
		},
		{
			name:  "ALateOutcomeOfALostAttemptIsRefused",
			given: firstUnknown,
			when:  record(1, ok, 3*time.Minute),
			err:   domain.ErrNoSuchAttempt,
		},
		{
			name:  "AnAttemptIsNotLostTwice",
			given: firstUnknown,
			when:  lose(1, 3*time.Minute),
			err:   domain.ErrNoSuchAttempt,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.Decide(domain.Fold(c.given...), c.when)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if !reflect.DeepEqual(got, c.then) {
				t.Errorf("given %v\nwhen %#v\ngot  %#v\nwant %#v", c.given, c.when, got, c.then)
			}
		})
	}
}

// Each command in each state. A cell has the types of the events that follow,
// "-" where the command repeats what is on record, or the error.
func TestDecideInEachState(t *testing.T) {
	t.Parallel()
	opened := events(scheduled, started(1, domain.OutcomeNone, 0))
	states := map[string][]domain.DeliveryEvent{
		"none":      nil,
		"pending":   events(scheduled),
		"open":      opened,
		"failed":    append(slices.Clone(opened), failed(1, time.Second, time.Minute)),
		"unknown":   append(slices.Clone(opened), unknown(1, time.Second, time.Second)),
		"held":      events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder, Until: after(time.Minute)}),
		"succeeded": append(slices.Clone(opened), domain.AttemptSucceeded{At: after(time.Second), Attempt: 1, Outcome: ok}),
		"dead":      events(scheduled, domain.Dead{At: t0, Reason: domain.DeadPayload}),
		"cancelled": events(scheduled, domain.Cancelled{At: t0, Reason: domain.CancelledDeleted}),
		"expired":   events(scheduled, domain.Expired{At: t0, Reason: domain.ExpiredDeadline}),
	}
	commands := []domain.DeliveryCommand{
		domain.Schedule{At: after(2 * time.Minute), Deadline: week, WebhookVersion: 7},
		start(2 * time.Minute),
		record(1, ok, 2*time.Minute),
		record(1, broken, 2*time.Minute),
		lose(1, 2*time.Minute),
		domain.Hold{At: after(2 * time.Minute), Reason: domain.HoldPaused},
		domain.Expire{At: after(2 * week), Reason: domain.ExpiredDeadline},
		domain.Cancel{At: after(2 * time.Minute), Reason: domain.CancelledDisabled},
		domain.GiveUp{At: after(2 * time.Minute), Reason: domain.DeadPayload},
	}
	sentinels := map[string]error{
		"!scheduled": domain.ErrNotScheduled, "!open": domain.ErrAttemptOpen,
		"!attempt": domain.ErrNoSuchAttempt, "!final": domain.ErrFinal,
	}
	table := map[string][]string{
		//            Schedule     Start                    succeeded           failed           LoseAttempt       Hold          Expire        Cancel        GiveUp
		"none":      {"Scheduled", "!scheduled", "!scheduled", "!scheduled", "!scheduled", "!scheduled", "!scheduled", "!scheduled", "!scheduled"},
		"pending":   {"-", "AttemptStarted", "!attempt", "!attempt", "!attempt", "Held", "Expired", "Cancelled", "Dead"},
		"open":      {"-", "!open", "AttemptSucceeded", "AttemptFailed", "AttemptUnknown", "!open", "!open", "!open", "!open"},
		"failed":    {"-", "AttemptStarted", "!attempt", "!attempt", "!attempt", "Held", "Expired", "Cancelled", "Dead"},
		"unknown":   {"-", "AttemptStarted", "!attempt", "!attempt", "!attempt", "Held", "Expired", "Cancelled", "Dead"},
		"held":      {"-", "Released AttemptStarted", "!attempt", "!attempt", "!attempt", "Held", "Expired", "Cancelled", "Dead"},
		"succeeded": {"-", "!final", "!attempt", "!attempt", "!attempt", "!final", "-", "-", "-"},
		"dead":      {"-", "!final", "!attempt", "!attempt", "!attempt", "!final", "-", "-", "-"},
		"cancelled": {"-", "!final", "!attempt", "!attempt", "!attempt", "!final", "-", "-", "-"},
		"expired":   {"-", "!final", "!attempt", "!attempt", "!attempt", "!final", "-", "-", "-"},
	}

	covered := map[string]bool{}
	for _, command := range commands {
		covered[typeName(command)] = true
	}
	expectAll(t, implementers(t, "delivery.go", "deliveryCommand"), covered)
	if len(table) != len(states) {
		t.Errorf("%d rows for %d states", len(table), len(states))
	}
	for state, given := range states {
		for i, command := range commands {
			t.Run(state+"/"+typeName(command), func(t *testing.T) {
				t.Parallel()
				want := table[state][i]
				got, err := domain.Decide(domain.Fold(given...), command)
				var types []string
				for _, event := range got {
					types = append(types, typeName(event))
				}
				switch {
				case strings.HasPrefix(want, "!"):
					if !errors.Is(err, sentinels[want]) || got != nil {
						t.Errorf("got %v, %v; want %v", types, err, sentinels[want])
					}
				case want == "-":
					if err != nil || got != nil {
						t.Errorf("got %v, %v; want nothing", types, err)
					}
				default:
					if err != nil || strings.Join(types, " ") != want {
						t.Errorf("got %v, %v; want %s", types, err, want)
					}
				}
			})
		}
	}
}

// A command that was carried out and comes again changes nothing: it gives no
// event, and it either is nothing new or is refused.
func TestCommandsAreNotCarriedOutTwice(t *testing.T) {
	t.Parallel()
	opened := events(scheduled, started(1, domain.OutcomeNone, 0))
	for _, c := range []struct {
		name    string
		given   []domain.DeliveryEvent
		command domain.DeliveryCommand
		err     error
	}{
		{"Schedule", nil, domain.Schedule{At: t0, Deadline: week}, nil},
		{"Start", events(scheduled), start(0), domain.ErrAttemptOpen},
		{"RecordSuccess", opened, record(1, ok, 0), domain.ErrNoSuchAttempt},
		{"RecordFailure", opened, record(1, broken, 0), domain.ErrNoSuchAttempt},
		{"LoseAttempt", opened, lose(1, 0), domain.ErrNoSuchAttempt},
		{"Hold", events(scheduled), domain.Hold{At: t0, Reason: domain.HoldPaused}, nil},
		{"Expire", events(scheduled), domain.Expire{At: after(2 * week), Reason: domain.ExpiredDeadline}, nil},
		{"StartTooLate", events(scheduled), start(2 * week), domain.ErrFinal},
		{"Cancel", events(scheduled), domain.Cancel{At: t0, Reason: domain.CancelledDeleted}, nil},
		{"GiveUp", events(scheduled), domain.GiveUp{At: t0, Reason: domain.DeadPayload}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first, err := domain.Decide(domain.Fold(c.given...), c.command)
			if err != nil || len(first) == 0 {
				t.Fatalf("the first time: %v, %v", first, err)
			}
			state := domain.Fold(append(slices.Clone(c.given), first...)...)
			again, err := domain.Decide(state, c.command)
			if len(again) != 0 || !errors.Is(err, c.err) {
				t.Errorf("the second time: %v, %v; want no event and %v", again, err, c.err)
			}
		})
	}
}

func TestDecideRefusesNoCommand(t *testing.T) {
	t.Parallel()
	if got, err := domain.Decide(domain.Fold(scheduled), nil); err == nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// With the default schedule, a receiver that never answers sees 12 attempts in
// a little over three days.
func TestDeadAfterTwelveAttempts(t *testing.T) {
	t.Parallel()
	now := t0
	d := domain.Fold(domain.Scheduled{At: now, Deadline: now.Add(week)})
	attempts := 0
	for !d.Status.Final() {
		now = later(now, d.NextAttemptAt)
		d = carryOut(t, d, domain.Start{At: now, Timeout: 5 * time.Second})
		attempts++
		now = now.Add(5 * time.Second)
		d = carryOut(t, d, domain.RecordOutcome{
			At: now, Attempt: attempts, Outcome: domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorTimeout},
			Policy: domain.DefaultRetryPolicy, Jitter: 0.5,
		})
		if attempts > 12 {
			t.Fatal("a thirteenth attempt")
		}
	}
	if attempts != 12 || d.Attempts != 12 || d.Status != domain.DeliveryDead {
		t.Errorf("%s after %d attempts, want dead after 12", d.Status, attempts)
	}
	if took, want := now.Sub(t0), 75*time.Hour+42*time.Minute+35*time.Second+12*5*time.Second; took != want {
		t.Errorf("took %s, want %s", took, want)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func carryOut(t *testing.T, d domain.Delivery, command domain.DeliveryCommand) domain.Delivery {
	t.Helper()
	decided, err := domain.Decide(d, command)
	if err != nil || len(decided) == 0 {
		t.Fatalf("%#v gives %v, %v", command, decided, err)
	}
	for _, event := range decided {
		d = domain.Evolve(d, event)
	}
	return d
}

func TestFold(t *testing.T) {
	t.Parallel()
	until := after(time.Minute)
	for _, c := range []struct {
		name  string
		given []domain.DeliveryEvent
		want  domain.Delivery
	}{
		{"Nothing", nil, domain.Delivery{}},
		{"Scheduled", events(scheduled), domain.Delivery{Status: domain.DeliveryPending, Version: 1, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7}},
		{
			"Open", events(scheduled, started(1, domain.OutcomeNone, 0)),
			domain.Delivery{Status: domain.DeliveryPending, Version: 2, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7, Attempts: 1, Open: true, Timeout: 5 * time.Second},
		},
		{
			"Failed", events(scheduled, started(1, domain.OutcomeNone, 0), failed(1, 0, time.Minute)),
			domain.Delivery{
				Status: domain.DeliveryPending, Version: 3, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7, Attempts: 1, Timeout: 5 * time.Second,
				Failed: true, LastOutcome: domain.OutcomeFailed, NextAttemptAt: until,
			},
		},
		{
			"Unknown", events(scheduled, started(1, domain.OutcomeNone, 0), unknown(1, 0, time.Minute)),
			domain.Delivery{
				Status: domain.DeliveryPending, Version: 3, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7, Attempts: 1, Timeout: 5 * time.Second,
				Failed: true, LastOutcome: domain.OutcomeUnknown, Unknowns: 1, NextAttemptAt: until,
			},
		},
		{
			"OpenAgain", events(scheduled, started(1, domain.OutcomeNone, 0), failed(1, 0, time.Minute), started(2, domain.OutcomeFailed, time.Minute)),
			domain.Delivery{
				Status: domain.DeliveryPending, Version: 4, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7, Attempts: 2, Open: true, Timeout: 5 * time.Second,
				Failed: true, LastOutcome: domain.OutcomeFailed,
			},
		},
		{
			"Held", events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder, Until: until}),
			domain.Delivery{
				Status: domain.DeliveryHeld, Version: 2, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7,
				HeldFor: domain.HoldOrder, HeldUntil: until,
			},
		},
		{
			"Released", events(scheduled, domain.Held{At: t0, Reason: domain.HoldOrder, Until: until}, domain.Released{At: t0}),
			domain.Delivery{Status: domain.DeliveryPending, Version: 3, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7},
		},
		{
			"Succeeded", events(scheduled, started(1, domain.OutcomeNone, 0), domain.AttemptSucceeded{At: t0, Attempt: 1, Outcome: ok}),
			domain.Delivery{
				Status: domain.DeliverySucceeded, Version: 3, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7, Attempts: 1, Timeout: 5 * time.Second,
				LastOutcome: domain.OutcomeSucceeded,
			},
		},
		{"Expired", events(scheduled, domain.Expired{}), domain.Delivery{Status: domain.DeliveryExpired, Version: 2, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7}},
		{"Dead", events(scheduled, domain.Dead{}), domain.Delivery{Status: domain.DeliveryDead, Version: 2, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7}},
		{"Cancelled", events(scheduled, domain.Cancelled{}), domain.Delivery{Status: domain.DeliveryCancelled, Version: 2, ScheduledAt: t0, Deadline: after(week), WebhookVersion: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := domain.Fold(c.given...); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestFinal(t *testing.T) {
	t.Parallel()
	for status, want := range map[domain.DeliveryStatus]bool{
		domain.DeliveryNone: false, domain.DeliveryPending: false, domain.DeliveryHeld: false,
		domain.DeliverySucceeded: true, domain.DeliveryDead: true, domain.DeliveryCancelled: true, domain.DeliveryExpired: true,
		"of a newer version": false,
	} {
		if got := status.Final(); got != want {
			t.Errorf("%q.Final() = %t, want %t", status, got, want)
		}
	}
}
