package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// timelineRoutes are those of one chat event. {event_id} is its id.
func timelineRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/accounts/{account}/events/{event_id}", Permission: domain.Read}, (*pages).timeline},
		{Route{Method: "GET", Pattern: "/accounts/{account}/events/{event_id}/live", Permission: domain.Read, Stream: true}, (*pages).timelineLive},
		{Route{Method: "POST", Pattern: "/accounts/{account}/events/{event_id}/again", Permission: domain.Operate}, (*pages).sendAgain},
	}
}

// shownTimeline is the life of a chat event, or of several with one id.
type shownTimeline struct {
	ID     uuid.UUID
	Events []shownEvent
	// State is another one once anything has happened; Live is where that is told.
	State, Live string
}

// shownEvent is a chat event.
type shownEvent struct {
	audit.Event
	Label, Name, Key, Size, Metadata string
	// Routed says what routing made of it, in words.
	Routed     string
	RoutedTint string
	// Erased says since when and why it has no payload any more, "" for that it
	// has.
	Erased     string
	Deliveries []shownLife
}

// shownLife is a delivery with all that happened to it.
type shownLife struct {
	audit.Delivery
	Name  string // the webhook's
	Shown statusOf
	Why   string
	Steps []shownStep
	// Again says that it can be sent again.
	Again bool
}

// shownStep is something that happened.
type shownStep struct {
	At time.Time
	// After is when, counted from the beginning.
	After, Tint, Text string
	// Beside says that it explains the step before.
	Beside bool
	// Attempt is nil for what is none.
	Attempt *shownAttempt
}

// shownAttempt is a POST and what came of it.
type shownAttempt struct {
	audit.Attempt
	// Share of the longest attempt's duration, in hundredths: a bar.
	Share   int
	Took    string
	Advice  string
	Detail  string
	Excerpt string
	Headers []audit.RequestHeader
}

var errNoEvent = &failure{http.StatusNotFound, "There is no such event", "Its id may be of another account, or its history has reached its age and was erased. The list of deliveries shows what there is."}

// timeline tells all that is on record about a chat event. A delivery's id, or
// what a receiver saw as webhook-id, leads to its event.
func (p *pages) timeline(w http.ResponseWriter, r *request) error {
	id, err := uuid.Parse(r.PathValue("event_id"))
	if err != nil {
		return errNoEvent
	}
	traces, err := p.Audit.Trace(r.Context(), r.account, id)
	if err != nil {
		return err
	}
	if len(traces) == 0 {
		account, event, found, err := p.Audit.EventOf(r.Context(), id)
		switch {
		case err != nil:
			return err
		case found && account == r.account && event != id:
			return redirect(w, r, accountPath(account, "events/"+event.String()))
		}
		return errNoEvent
	}
	shown := &shownTimeline{ID: id, State: traceState(traces), Live: accountPath(r.account, "events/"+id.String()+"/live")}
	for i := range traces {
		shown.Events = append(shown.Events, newShownEvent(&traces[i], p.Now().UTC()))
	}
	return p.render(w, r, http.StatusOK, "timeline", &view{
		Title: shown.Events[0].Label, Nav: "deliveries", Scripts: []string{"live.js"}, Styles: []string{"history.css"}, Data: shown,
	})
}

// traceState tells lives of events from what they were before.
func traceState(traces []audit.Trace) string {
	entries, deliveries := 0, 0
	for i := range traces {
		deliveries += len(traces[i].Deliveries)
		for j := range traces[i].Deliveries {
			entries += len(traces[i].Deliveries[j].Entries)
		}
	}
	return fmt.Sprintf("%d.%d.%d", len(traces), deliveries, entries)
}

// timelineLive tells that something has happened. It moves nothing under the
// eyes of who reads: the page offers to be loaded anew.
func (p *pages) timelineLive(w http.ResponseWriter, r *request) error {
	id, err := uuid.Parse(r.PathValue("event_id"))
	if err != nil {
		return errNoEvent
	}
	account := r.account
	switch traces, err := p.Audit.Trace(r.Context(), account, id); {
	case err != nil:
		return err
	case len(traces) == 0:
		return errNoEvent
	}
	return p.stream(w, r, accountPath(account, "events/"+id.String()), subject{read: func(ctx context.Context) ([]fragment, error) {
		traces, err := p.Audit.Trace(ctx, account, id)
		if err != nil {
			return nil, err
		}
		state, err := p.part("timeline", "state", "state", &shownTimeline{State: traceState(traces)})
		return []fragment{state}, err
	}})
}

func newShownEvent(t *audit.Trace, now time.Time) shownEvent {
	e := shownEvent{Event: t.Event, Label: audit.Printable(labelOf(t.Event.Event)), Name: audit.Printable(t.Event.Event), Routed: t.RoutingText(), RoutedTint: routingTint(t.Event.Routing)}
	if e.Label == "" {
		e.Label = "Event"
	}
	if e.OrderingKey != "" {
		e.Key = audit.KeyName(e.OrderingKey)
	}
	if e.BodyBytes > 0 {
		e.Size = audit.Size(e.BodyBytes)
	}
	if len(t.Event.Metadata) > 0 {
		e.Metadata = audit.Printable(string(t.Event.Metadata))
	}
	if gone := t.PayloadErasedAt; !gone.IsZero() {
		e.Erased = "Its payload was erased on " + gone.UTC().Format(time.DateOnly) + ": it had reached its age."
		if t.ErasureID > 0 {
			e.Erased = fmt.Sprintf("Its payload was erased on %s, asked for by erasure %d.", gone.UTC().Format(time.DateOnly), t.ErasureID)
		}
	}
	start := e.InsertedAt
	if start.IsZero() {
		start = e.RoutedAt
	}
	for i := range t.Deliveries {
		d := &t.Deliveries[i]
		life := shownLife{Delivery: d.Delivery, Name: audit.Printable(d.WebhookName), Shown: shownStatus(d.Status), Why: sentence(d.ReasonText()), Again: e.Erased == ""}
		longest := 0.0
		for j := range d.Attempts {
			longest = max(longest, valueOf(d.Attempts[j].DurationMS))
		}
		for _, s := range d.Story(now) {
			step := shownStep{At: s.At, Tint: tints[s.Tone], Text: s.Text, Beside: s.Beside}
			if !s.At.IsZero() {
				step.After = after(start, s.At)
			}
			if a := d.AttemptOf(s.Attempt); a != nil && s.Attempt > 0 {
				step.Attempt = newShownAttempt(d, a, longest)
			}
			life.Steps = append(life.Steps, step)
		}
		e.Deliveries = append(e.Deliveries, life)
	}
	return e
}

func newShownAttempt(d *audit.DeliveryTrace, a *audit.Attempt, longest float64) *shownAttempt {
	shown := &shownAttempt{Attempt: *a, Detail: audit.Printable(a.ErrorDetail), Headers: d.RequestHeaders(a, d.WebhookHeaders), Excerpt: readable(valueOf(a.ResponseExcerpt))}
	if advice, _ := a.Advice(); advice != "" {
		shown.Advice = sentence(advice)
	}
	if a.DurationMS != nil {
		shown.Took = millis(*a.DurationMS)
		shown.Share = max(1, int(100**a.DurationMS/max(longest, 0.001)))
	}
	return shown
}

// readable is an answer as its writer broke its lines; what else is not
// printable is replaced.
func readable(text string) string {
	lines := strings.Split(strings.ReplaceAll(strings.TrimSpace(text), "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = audit.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// tints are the colours of tones.
var tints = map[audit.Tone]string{audit.Good: "good", audit.Bad: "bad", audit.Waiting: "waiting", audit.Unknown: "waiting"}

func routingTint(k domain.RoutingKind) string {
	switch k {
	case domain.RoutingRouted:
		return "good"
	case domain.RoutingQuarantined:
		return "bad"
	case domain.RoutingWaiting:
		return "waiting"
	default:
		return ""
	}
}

// after is a time counted from the beginning.
func after(start, at time.Time) string {
	d := at.Sub(start)
	if d < 0 {
		return "−" + audit.Short(-d) // the clocks of database and relay differ
	}
	return "+" + audit.Short(d)
}

func valueOf[V any](v *V) V {
	if v == nil {
		var zero V
		return zero
	}
	return *v
}

// sendAgain plans and runs a replay of one event to one webhook.
func (p *pages) sendAgain(w http.ResponseWriter, r *request) error {
	if err := r.form.only([]string{"webhook"}, nil); err != nil {
		return err
	}
	event, err := uuid.Parse(r.PathValue("event_id"))
	if err != nil {
		return errNoEvent
	}
	webhook, err := idOf[domain.WebhookID](r.form.text("webhook"))
	if err != nil {
		return errBadForm
	}
	id, err := p.Replays.PlanAndRequest(r.Context(), r.access.Actor(), domain.ReplaySelection{AccountID: r.account, WebhookID: webhook, EventIDs: []uuid.UUID{event}}, domain.ReplayRun{})
	if err != nil {
		return err
	}
	p.say(w, r, flash{Kind: "good", Text: fmt.Sprintf("It is sent to webhook %d again, by replay %d.", webhook, id), Link: accountPath(r.account, "events/"+event.String()), Label: "Back to the event"})
	return redirect(w, r, replayPath(r.account, id))
}
