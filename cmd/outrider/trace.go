package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) auditTrace() *cobra.Command {
	var account domain.AccountID
	var format string
	cmd := &cobra.Command{
		Use:   "trace ID",
		Short: "Show one event's whole life as a timeline",
		Long: `Show one event's whole life as a timeline: when it was inserted, where it was routed,
each attempt with its outcome, why one was repeated, and what comes next. Times on
the left count from the insert.

ID is the event's, or that of one of its deliveries, or what a receiver saw as
webhook-id or Outrider-Delivery.`,
		Args: cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &account, "account", "N", "", "of this account, where several use the same ids", parseAccount)
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		event := c.eventID(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			return a.trace(cmd.Context(), db, account, event, format)
		})
	}
	return cmd
}

// trace writes the lives of the events with an id.
func (a *app) trace(ctx context.Context, db *sql.DB, account domain.AccountID, event uuid.UUID, format string) error {
	history := postgres.NewAudit(db)
	traces, err := history.Trace(ctx, account, event)
	if err != nil {
		return err
	}
	if len(traces) == 0 {
		owner, of, found, err := history.EventOf(ctx, event)
		if err != nil {
			return err
		}
		if found && (account == 0 || account == owner) {
			if traces, err = history.Trace(ctx, owner, of); err != nil {
				return err
			}
		}
	}
	if len(traces) == 0 {
		erased, err := history.LogErasedAt(ctx)
		if err != nil {
			return err
		}
		if !erased.IsZero() {
			return &failure{fmt.Sprintf("there is no event %s, nor a delivery or notification, or no more: what had reached the log's age was erased, last on %s", event, erased.Local().Format("2006-01-02")),
				"outrider audit events lists those there are"}
		}
		return &failure{fmt.Sprintf("there is no event %s, nor a delivery or notification", event), "outrider audit events lists those there are"}
	}
	for i := range traces {
		if format == formatJSON {
			if err := a.traceJSON(&traces[i]); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		t := &timeline{p: a.paint(), width: a.width(), now: a.now(), start: traces[i].Event.InsertedAt}
		t.draw(&traces[i])
		if _, err := a.out.Write(t.out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// tracedEvent is a trace in JSON: the event as audit events shows it, its
// deliveries as audit deliveries does, each with its attempts and entries.
type tracedEvent struct {
	Event           raw              `json:"event"`
	PayloadErasedAt *time.Time       `json:"payload_erased_at"`
	Skips           []domain.Skip    `json:"skips"`
	Deliveries      []tracedDelivery `json:"deliveries"`
}

type tracedDelivery struct {
	Delivery    raw           `json:"delivery"`
	WebhookName string        `json:"webhook_name"`
	Attempts    []raw         `json:"attempts"`
	Timeline    []tracedEntry `json:"timeline"`
}

type tracedEntry struct {
	Version int             `json:"version"`
	At      time.Time       `json:"at"`
	Type    string          `json:"type"`
	Data    json.RawMessage `json:"data"`
}

// traceJSON writes a trace as one object.
func (a *app) traceJSON(t *audit.Trace) error {
	event, err := rawObject(eventColumns, &t.Event)
	if err != nil {
		return err
	}
	traced := tracedEvent{Event: event, PayloadErasedAt: orNoTime(t.PayloadErasedAt), Skips: append([]domain.Skip{}, t.Skips...), Deliveries: []tracedDelivery{}}
	for i := range t.Deliveries {
		d := &t.Deliveries[i]
		delivery := tracedDelivery{WebhookName: d.WebhookName, Attempts: []raw{}}
		if delivery.Delivery, err = rawObject(deliveryColumns, &d.Delivery); err != nil {
			return err
		}
		for j := range d.Attempts {
			attempt, err := rawObject(attemptColumns, &d.Attempts[j])
			if err != nil {
				return err
			}
			delivery.Attempts = append(delivery.Attempts, attempt)
		}
		for _, e := range d.Entries {
			delivery.Timeline = append(delivery.Timeline, tracedEntry(e))
		}
		traced.Deliveries = append(traced.Deliveries, delivery)
	}
	var line bytes.Buffer
	if err := encode(&line, traced); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = a.out.Write(line.Bytes())
	return err
}

func rawObject[T any](columns []column[T], record *T) (raw, error) {
	var b bytes.Buffer
	err := writeObject(&b, columns, record)
	return bytes.TrimSpace(b.Bytes()), err
}

// raw is JSON that is written already.
type raw []byte

// MarshalJSON implements json.Marshaler.
func (r raw) MarshalJSON() ([]byte, error) { return r, nil }

// timeline draws a trace.
type timeline struct {
	p     paint
	width int
	now   time.Time
	// start is what times count from.
	start time.Time
	out   bytes.Buffer
}

// gutter is the width of the times on the left.
const gutter = 13

// The pieces of the drawing. Every character has the width 1 in every terminal.
const (
	dot       = "●"
	trunk     = "│ "
	branch    = "├─"
	lastOne   = "└─"
	blank     = "  "
	mark      = "├ "
	lastMark  = "└ "
	succeeded = "✓"
	failed    = "✗"
	nobody    = "?"
	underWay  = "…"
	again     = "↻"
	later     = "○"
)

// line writes one line: a time, nil for none, and what is on the right of it.
func (t *timeline) line(at *time.Time, parts ...string) {
	left := ""
	if at != nil {
		left = since(t.start, *at)
	}
	t.write(left, parts...)
}

func (t *timeline) write(left string, parts ...string) {
	t.plain(t.p.as(faint, fmt.Sprintf("%*s", gutter, left)) + "  " + strings.Join(parts, ""))
}

// plain writes a line as far as the terminal goes.
func (t *timeline) plain(line string) {
	if t.width > 0 {
		line = text.Snip(line, t.width, "…")
	}
	t.out.WriteString(strings.TrimRight(line, " ") + "\n")
}

func (t *timeline) draw(trace *audit.Trace) {
	e := &trace.Event
	t.plain(t.p.as(bold, printable(e.Event)) + "  " + e.EventID.String())
	facts := []string{fmt.Sprintf("account %d", e.AccountID)}
	if e.OrderingKey != "" {
		facts = append(facts, keyName(e.OrderingKey))
	}
	if e.BodyBytes > 0 {
		facts = append(facts, size(e.BodyBytes))
	}
	facts = append(facts, fmt.Sprintf("seq %d", e.Seq))
	if len(e.Metadata) > 0 {
		facts = append(facts, "metadata "+printable(string(e.Metadata)))
	}
	t.plain(t.p.as(faint, strings.Join(facts, " · ")))
	if gone := trace.PayloadErasedAt; !gone.IsZero() {
		why := "it had reached its age"
		if trace.ErasureID > 0 {
			why = fmt.Sprintf("asked for by erasure %d", trace.ErasureID)
		}
		t.plain(t.p.as(waiting, fmt.Sprintf("payload erased on %s: %s", gone.Local().Format("2006-01-02"), why)))
	}
	t.plain("")

	if t.start.IsZero() { // the outbox row is gone, its history is not
		t.start = e.RoutedAt
	}
	local := t.start.Local()
	if e.InsertedAt.IsZero() {
		t.write(local.Format("15:04:05.000"), t.p.as(good, dot), " routed on ", local.Format("2006-01-02"), "; the row is no longer in the outbox")
	} else {
		t.write(local.Format("15:04:05.000"), t.p.as(good, dot), " inserted on ", local.Format("2006-01-02"))
	}
	t.line(orNoTime(e.RoutedAt), t.p.as(routingTint(string(e.Routing)), dot), " ", routingText(trace))
	for i := range trace.Deliveries {
		t.line(nil, trunk)
		t.delivery(&trace.Deliveries[i], i == len(trace.Deliveries)-1)
	}
}

func orNoTime(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// routingText says what routing made of the event.
func routingText(trace *audit.Trace) string {
	e := &trace.Event
	var b strings.Builder
	switch e.Routing {
	case domain.RoutingWaiting:
		return "waits to be routed; is outrider serve running?"
	case domain.RoutingRouted:
		b.WriteString("routed to ")
		var first []string
		for i := range trace.Deliveries {
			if trace.Deliveries[i].ReplayID == 0 {
				first = append(first, fmt.Sprint(trace.Deliveries[i].WebhookID))
			}
		}
		b.WriteString(webhooks(first))
	case domain.RoutingNoSubscriber:
		b.WriteString("routed to nobody: no webhook of the account subscribes to " + printable(e.Event))
	case domain.RoutingSkipped:
		b.WriteString("routed to nobody")
	case domain.RoutingDuplicate:
		return "not sent: its id was there before, within the duplicate window"
	case domain.RoutingQuarantined:
		return "quarantined: " + quarantineText(e.Reason)
	default:
		return printable(string(e.Routing) + " " + e.Reason)
	}
	for _, reason := range []domain.SkipReason{domain.SkipDisabled, domain.SkipInbox, domain.SkipUnreadable} {
		var skipped []string
		for _, s := range trace.Skips {
			if s.Reason == reason {
				skipped = append(skipped, fmt.Sprint(s.WebhookID))
			}
		}
		if len(skipped) > 0 {
			b.WriteString("; " + webhooks(skipped) + " passed over: ")
			switch reason {
			case domain.SkipDisabled:
				b.WriteString("disabled")
			case domain.SkipInbox:
				b.WriteString("for another inbox")
			case domain.SkipUnreadable:
				b.WriteString("the settings cannot be read")
			}
		}
	}
	return b.String()
}

func quarantineText(reason string) string {
	texts := map[string]string{
		string(domain.QuarantineEventName):     "the event's name is not one: a lower-case letter, then up to 99 of a-z, 0-9, _ and dot",
		string(domain.QuarantineNotObject):     "the payload is not a JSON object",
		string(domain.QuarantineEventMismatch): `the payload's "event" differs from the column`,
		string(domain.QuarantineEventRepeated): `the payload has more than one "event"`,
		string(domain.QuarantineTooLarge):      "the body is too large",
		string(domain.QuarantineOrderingKey):   "the ordering key is too long",
		string(domain.QuarantineReserved):      "the account is the operator's, whose events the relay alone writes",
		string(domain.QuarantinePanic):         "routing it failed inside of Outrider; its log says how",
	}
	if known, ok := texts[reason]; ok {
		return known
	}
	return printable(reason)
}

// webhooks is "webhook 1" or "webhooks 1, 2 and 3".
func webhooks(ids []string) string {
	switch n := len(ids); n {
	case 0:
		return "no webhook"
	case 1:
		return "webhook " + ids[0]
	default:
		return "webhooks " + strings.Join(ids[:n-1], ", ") + " and " + ids[n-1]
	}
}

// delivery draws one delivery as a branch.
func (t *timeline) delivery(d *audit.DeliveryTrace, last bool) {
	stem, rest := branch, trunk
	if last {
		stem, rest = lastOne, blank
	}
	title := []string{fmt.Sprintf("webhook %d", d.WebhookID)}
	if d.ReplayID > 0 {
		title = append(title, fmt.Sprintf("%s replay %d", again, d.ReplayID))
	}
	if d.WebhookName != "" {
		title = append(title, printable(d.WebhookName))
	}
	name := t.p.as(bold, strings.Join(title, " · "))
	url := ""
	if d.URL != "" {
		url = t.p.as(faint, " · "+printable(d.URL))
	}
	t.line(nil, stem, t.p.as(statusTint(string(d.Status)), dot), " ", name, url)
	steps := steps(d, t.now)
	for i, s := range steps {
		stem := mark
		switch {
		case s.beside:
			stem = trunk
			if i == len(steps)-1 {
				stem = blank
			}
		case i == len(steps)-1 || i == len(steps)-2 && steps[i+1].beside && i+2 == len(steps):
			stem = lastMark
		}
		t.line(s.at, rest, stem, t.p.as(s.tint, s.text), t.p.as(faint, s.aside))
	}
}

// step is a line of a delivery.
type step struct {
	at   *time.Time
	tint tint
	text string
	// aside follows, less visible.
	aside string
	// beside belongs to the line above: it explains it.
	beside bool
}

// underText indents what explains an attempt to below its outcome.
const underText = "           "

// steps tells a delivery's entries in words.
func steps(d *audit.DeliveryTrace, now time.Time) []step {
	var list []step
	add := func(at time.Time, t tint, line string) {
		list = append(list, step{at: &at, tint: t, text: line})
	}
	explain := func(at *time.Time, t tint, line string) {
		list = append(list, step{at: at, tint: t, text: underText + line, beside: true})
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
				add(e.At, noTint, fmt.Sprintf("scheduled again by replay %d", d.ReplayID))
			}
		case domain.AttemptStarted:
			aside := ""
			if by := relayOf(d, e.Attempt); by != relay {
				if relay != 0 {
					aside = fmt.Sprintf("  by relay %d", by)
				}
				relay = by
			}
			var outcome domain.DeliveryEvent
			if i+1 < len(events) {
				outcome = events[i+1]
			}
			list = append(list, attempt(d, e, outcome, aside, now))
		case domain.AttemptFailed:
			if !e.RetryAt.IsZero() {
				explain(nil, waiting, repeat(events[i+1:], e.Attempt, e.At, e.RetryAt, now, ""))
			}
		case domain.AttemptUnknown:
			at := e.At
			explain(&at, unknown, printable(e.Reason))
			if !e.RetryAt.IsZero() {
				explain(nil, waiting, repeat(events[i+1:], e.Attempt, e.At, e.RetryAt, now, "; the receiver is told that the outcome before is unknown"))
			}
		case domain.AttemptSucceeded:
			end := "delivered"
			if e.Attempt > 1 {
				end += fmt.Sprintf(" after %d attempts", e.Attempt)
			}
			add(e.At, good, end)
		case domain.Held:
			add(e.At, waiting, holdReason(d, e))
		case domain.Released:
			add(e.At, noTint, "goes on: "+releaseReason(e.Reason))
		case domain.Dead:
			add(e.At, bad, "given up: "+deadReason(d, e.Reason))
		case domain.Cancelled:
			add(e.At, bad, "cancelled: "+cancelReason(e.Reason))
		case domain.Expired:
			add(e.At, bad, "expired: "+expireReason(e.Reason))
		case nil:
			add(d.Entries[i].At, noTint, printable(d.Entries[i].Type))
		}
	}
	if d.Status == domain.DeliveryPending && d.AttemptCount == 0 {
		list = append(list, step{tint: waiting, text: later + " waits for its first attempt"})
	}
	return list
}

// attempt tells of an attempt and its outcome on one line.
func attempt(d *audit.DeliveryTrace, e domain.AttemptStarted, outcome domain.DeliveryEvent, aside string, now time.Time) step {
	at := e.At
	s := step{at: &at, aside: aside}
	head := fmt.Sprintf("attempt %-2d ", e.Attempt)
	switch o := outcome.(type) {
	case domain.AttemptSucceeded:
		s.tint = good
		s.text = head + fmt.Sprintf("%s %d in %s", succeeded, o.Outcome.StatusCode, short(o.Outcome.Duration))
	case domain.AttemptFailed:
		s.tint = bad
		s.text = head + failed + " " + failureText(o.Outcome)
		if excerpt := excerptOf(d, e.Attempt); excerpt != "" {
			s.aside = "  “" + excerpt + "”" + s.aside
		}
	case domain.AttemptUnknown:
		s.tint = unknown
		s.text = head + nobody + " unknown"
	default:
		s.tint = waiting
		s.text = head + underWay + " under way for " + short(now.Sub(e.At))
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
	fmt.Fprintf(&b, " in %s", short(o.Duration))
	if o.Detail != "" && o.Class != domain.ErrorStatus {
		b.WriteString(": " + printable(o.Detail))
	}
	return b.String()
}

// maxExcerpt is how much of an answer the timeline quotes.
const maxExcerpt = 60

func excerptOf(d *audit.DeliveryTrace, attempt int) string {
	for i := range d.Attempts {
		if d.Attempts[i].Number == attempt {
			return text.Snip(strings.TrimSpace(printable(orZero(d.Attempts[i].ResponseExcerpt))), maxExcerpt, "…")
		}
	}
	return ""
}

func relayOf(d *audit.DeliveryTrace, attempt int) int64 {
	for i := range d.Attempts {
		if d.Attempts[i].Number == attempt {
			return d.Attempts[i].RelayID
		}
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
			return fmt.Sprintf("%s repeated %s later%s", again, short(wait), told)
		case domain.Dead, domain.Cancelled, domain.Expired:
			return later + " no attempt follows"
		default:
		}
	}
	if wait := due.Sub(now); wait > 0 {
		return fmt.Sprintf("%s attempt %d is due in %s, at %s%s", later, attempt+1, short(wait), clock(due, now), told)
	}
	return fmt.Sprintf("%s attempt %d is due%s", later, attempt+1, told)
}

// clock is a time of day, with the day where that is another.
func clock(at, now time.Time) string {
	at, now = at.Local(), now.Local()
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05")
	}
	return at.Format("2006-01-02 15:04:05")
}

func holdReason(d *audit.DeliveryTrace, e domain.Held) string {
	switch e.Reason {
	case domain.HoldOrder:
		held := "held: an earlier delivery of " + keyName(d.OrderingKey) + " has not succeeded yet"
		if !e.Until.IsZero() {
			held += fmt.Sprintf("; for %s at most", short(e.Until.Sub(e.At)))
		}
		return held
	case domain.HoldPaused:
		return "held: the webhook is paused"
	case domain.HoldReplay:
		return "held: the replay is paused"
	default:
		return "held: " + printable(string(e.Reason))
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
		return printable(string(reason))
	}
}

func deadReason(d *audit.DeliveryTrace, reason string) string {
	switch reason {
	case domain.DeadAttempts:
		return count(d.AttemptCount, "attempt is used up", "attempts are used up")
	case domain.DeadPayload:
		return "the payload is gone, or is not the one that was routed"
	default:
		return printable(reason)
	}
}

func cancelReason(reason string) string {
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
		return printable(reason)
	}
}

func expireReason(reason string) string {
	switch reason {
	case domain.ExpiredDeadline:
		return "its deadline passed before it could be sent"
	case domain.ExpiredRetention:
		return "its payload reached its age"
	default:
		return printable(reason)
	}
}

// keyName is an ordering key for people: "conversation 42".
func keyName(key string) string {
	kind, id, derived := strings.Cut(key, ":")
	if derived && (kind == "conversation" || kind == "contact") {
		return kind + " " + printable(id)
	}
	return strings.TrimSpace("ordering key " + printable(key))
}

// since is a time after the start: "+12ms".
func since(start, at time.Time) string {
	d := at.Sub(start)
	if d < 0 {
		return "-" + short(-d) // the clocks of database and relay differ
	}
	if d >= time.Second && d < time.Minute-5*time.Millisecond {
		return fmt.Sprintf("+%.2fs", d.Seconds()) // the same digits in each line
	}
	return "+" + short(d)
}

// short is a duration in as few digits as tell it from others.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute-5*time.Millisecond: // below, it rounds to a minute
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour-time.Second/2:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day-time.Minute/2:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		d = d.Round(time.Hour)
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

func size(n int) string {
	const kib = 1 << 10
	if n < kib {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/kib)
}
