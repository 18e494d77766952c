package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// testPoll is how often the outcome of a test is looked for.
const testPoll = 100 * time.Millisecond

// testResult is how far a test has come.
type testResult struct {
	event   uuid.UUID
	webhook domain.WebhookID
	// attempt is the first one, nil while there is none.
	attempt *audit.Attempt
}

var testColumns = []column[testResult]{
	{name: "event_id", value: func(r *testResult) any { return r.event }},
	{name: "webhook_id", value: func(r *testResult) any { return r.webhook }},
	{name: "outcome", value: func(r *testResult) any { return orNil(r.of().Outcome) }},
	{name: "status_code", value: func(r *testResult) any { return orNil(r.of().StatusCode) }},
	{name: "duration_ms", value: func(r *testResult) any { return pointed(r.of().DurationMS) }},
	{name: "remote_ip", value: func(r *testResult) any { return orNil(r.of().RemoteIP) }},
	{name: "error_class", value: func(r *testResult) any { return orNil(r.of().ErrorClass) }},
	{name: "error_detail", value: func(r *testResult) any { return orNil(r.of().ErrorDetail) }},
	{name: "response_excerpt", value: func(r *testResult) any { return orNil(orZero(r.of().ResponseExcerpt)) }},
}

// of gives the attempt, the zero value for none.
func (r *testResult) of() audit.Attempt {
	if r.attempt == nil {
		return audit.Attempt{}
	}
	return *r.attempt
}

func (a *app) webhookTest() *cobra.Command {
	var wait time.Duration
	var format string
	cmd := &cobra.Command{
		Use:   "test ID",
		Short: "Send a test to a webhook, and say what came of it",
		Long: `Send an event webhook_test to this webhook alone, whatever its subscriptions and its
inbox. It goes the way of every event: through the outbox and a running relay, signed,
and on record with who asked for it. A test that fails is tried again for a minute.

It takes a user with the role outrider_operator. Exit code 0 says that the receiver
answered the first attempt with 2xx.`,
		Args: cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &wait, "wait", "DURATION", "15s", "how long to wait for the outcome; 0 not at all", parseDuration)
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.webhookID(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			event, err := hooks.RequestTest(cmd.Context(), id, "")
			if err != nil {
				return err
			}
			result := testResult{event: event, webhook: id}
			if wait == 0 {
				if format == formatJSON {
					return writeObject(a.out, testColumns, &result)
				}
				fmt.Fprintf(a.out, "A test of webhook %d is in the outbox. What becomes of it:\n\n  outrider audit trace %s\n", id, event)
				return nil
			}
			if err := awaitTest(cmd.Context(), db, wait, &result); err != nil {
				return err
			}
			if format == formatJSON {
				if err := writeObject(a.out, testColumns, &result); err != nil {
					return err
				}
			}
			if at := result.of(); at.Outcome != domain.OutcomeSucceeded {
				return testFailure(id, &at)
			} else if format != formatJSON {
				fmt.Fprintf(a.out, "Webhook %d answered %d in %s, from %s.\n\n  outrider audit trace %s\n", id, at.StatusCode, inMillis(orZero(at.DurationMS)), at.RemoteIP, event)
			}
			return nil
		})
	}
	return cmd
}

func inMillis(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(100 * time.Microsecond).String()
}

// awaitTest waits for the outcome of the first attempt. An error says how far
// the test came without one.
func awaitTest(ctx context.Context, db *sql.DB, wait time.Duration, result *testResult) error {
	patience := time.After(wait)
	ticker := time.NewTicker(testPoll)
	defer ticker.Stop()
	for {
		traces, err := postgres.NewAudit(db).Trace(ctx, 0, result.event)
		if err != nil {
			return err
		}
		problem := &failure{"no relay has taken the test up within " + wait.String(), "is outrider serve running? The test waits in the outbox, and is sent when one does"}
		if len(traces) > 0 && traces[0].Event.Routing != domain.RoutingWaiting {
			attempt, why, final := testOutcome(result.webhook, &traces[0], wait)
			switch {
			case final && why != nil:
				return why
			case final:
				result.attempt = attempt
				return nil
			}
			problem = why
		}
		select {
		case <-ticker.C:
		case <-patience:
			return problem
		case <-ctx.Done():
			return &failure{"interrupted; the test goes on", "outrider audit trace " + result.event.String()}
		}
	}
}

// testOutcome reads a routed test's trace: the first attempt where it has an
// outcome, else what is to be said if the test comes no further. final says
// that waiting is no use.
func testOutcome(id domain.WebhookID, trace *audit.Trace, wait time.Duration) (attempt *audit.Attempt, problem *failure, final bool) {
	if len(trace.Deliveries) == 0 {
		return nil, &failure{fmt.Sprintf("webhook %d was disabled or removed before the test was routed", id), ""}, true
	}
	d := &trace.Deliveries[0]
	if len(d.Attempts) > 0 {
		if d.Attempts[0].Outcome != domain.OutcomeStarted {
			return &d.Attempts[0], nil, true
		}
		return nil, &failure{fmt.Sprintf("the POST to webhook %d has no outcome within %s", id, wait), "give it more time: --wait 1m; or see: outrider audit trace " + trace.Event.EventID.String()}, false
	}
	switch d.Status {
	case domain.DeliveryCancelled:
		return nil, &failure{fmt.Sprintf("the test of webhook %d was cancelled: %s", id, audit.CancelReason(d.Reason)), ""}, true
	case domain.DeliveryHeld:
		return nil, &failure{fmt.Sprintf("webhook %d was paused before the test was sent", id), fmt.Sprintf("enable it: outrider webhook enable %d", id)}, true
	case domain.DeliveryNone, domain.DeliveryPending, domain.DeliverySucceeded, domain.DeliveryDead, domain.DeliveryExpired:
	}
	return nil, &failure{fmt.Sprintf("the test is routed to webhook %d, and no attempt was started within %s", id, wait),
		"does every relay run with --no-send, or is the webhook busy? outrider audit deliveries --webhook " + fmt.Sprint(id)}, false
}

// testFailure says what went wrong with an attempt and what mends it.
func testFailure(id domain.WebhookID, at *audit.Attempt) error {
	if at.Outcome == domain.OutcomeUnknown {
		return &failure{fmt.Sprintf("nobody knows whether the test reached webhook %d: %s", id, at.ErrorDetail), "it is sent again; outrider audit trace " + at.EventID.String()}
	}
	problem := fmt.Sprintf("webhook %d did not take the test: %s, after %s", id, at.ErrorDetail, inMillis(orZero(at.DurationMS)))
	if at.RemoteIP != "" {
		problem += ", from " + at.RemoteIP
	}
	if said := orZero(at.ResponseExcerpt); said != "" {
		problem += "; it said: " + text.Snip(printable(said), 200, "…")
	}
	return &failure{problem, testAdvice(id, at)}
}

// testAdvice is what mends a failure, with the command that does it.
func testAdvice(id domain.WebhookID, at *audit.Attempt) string {
	advice, setting := at.Advice()
	if setting != "" {
		advice += fmt.Sprintf(": outrider webhook update %d %s", id, setting)
	}
	return advice
}
