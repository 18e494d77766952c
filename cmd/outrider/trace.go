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
		facts = append(facts, audit.KeyName(e.OrderingKey))
	}
	if e.BodyBytes > 0 {
		facts = append(facts, audit.Size(e.BodyBytes))
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
	t.line(orNoTime(e.RoutedAt), t.p.as(routingTint(string(e.Routing)), dot), " ", trace.RoutingText())
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
	steps := d.Story(t.now.Local())
	for i, s := range steps {
		stem := mark
		switch {
		case s.Beside:
			stem = trunk
			if i == len(steps)-1 {
				stem = blank
			}
		case i == len(steps)-1 || i == len(steps)-2 && steps[i+1].Beside && i+2 == len(steps):
			stem = lastMark
		}
		line, aside := stepText(d, &s)
		t.line(orNoTime(s.At), rest, stem, t.p.as(toneTints[s.Tone], line), t.p.as(faint, aside))
	}
}

// toneTints are the colours of the lines.
var toneTints = map[audit.Tone]tint{audit.Good: good, audit.Bad: bad, audit.Waiting: waiting, audit.Unknown: unknown}

// underText indents what explains an attempt to below its outcome.
const underText = "           "

// maxExcerpt is how much of an answer the timeline quotes.
const maxExcerpt = 60

// stepText gives a line of a delivery and what follows, less visible.
func stepText(d *audit.DeliveryTrace, s *audit.Step) (line, aside string) {
	line = s.Text
	switch {
	case s.Beside:
		line = underText + line
	case s.Attempt > 0:
		line = fmt.Sprintf("attempt %-2d ", s.Attempt) + line
	}
	if a := d.AttemptOf(s.Attempt); a != nil && s.Tone == audit.Bad {
		if excerpt := text.Snip(strings.TrimSpace(printable(orZero(a.ResponseExcerpt))), maxExcerpt, "…"); excerpt != "" {
			aside = "  “" + excerpt + "”"
		}
	}
	if s.Relay != 0 {
		aside += fmt.Sprintf("  by relay %d", s.Relay)
	}
	return line, aside
}

// since is a time after the start: "+12ms".
func since(start, at time.Time) string {
	d := at.Sub(start)
	if d < 0 {
		return "-" + audit.Short(-d) // the clocks of database and relay differ
	}
	if d >= time.Second && d < time.Minute-5*time.Millisecond {
		return fmt.Sprintf("+%.2fs", d.Seconds()) // the same digits in each line
	}
	return "+" + audit.Short(d)
}
