package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

var replayColumns = []column[audit.Replay]{
	{name: "replay_id", value: func(r *audit.Replay) any { return r.ID }, shown: "replay"},
	{name: "state", value: func(r *audit.Replay) any { return r.State }, shown: "state", tint: replayTint},
	{name: "account_id", value: func(r *audit.Replay) any { return orNil(r.AccountID) }, shown: "account"},
	{name: "requested_by", value: func(r *audit.Replay) any { return r.RequestedBy }, shown: "by", flexible: true},
	{name: "requested_at", value: func(r *audit.Replay) any { return orNever(r.RequestedAt) }, shown: "at"},
	{name: "total", value: func(r *audit.Replay) any { return r.Total }, shown: "deliveries"},
	{name: "scheduled", value: func(r *audit.Replay) any { return r.Scheduled }},
	{name: "done", value: func(r *audit.Replay) any { return r.Done() }, shown: "done"},
	{name: "succeeded", value: func(r *audit.Replay) any { return r.Succeeded }, shown: "succeeded"},
	{name: "dead", value: func(r *audit.Replay) any { return r.Dead }, shown: "dead"},
	{name: "cancelled", value: func(r *audit.Replay) any { return r.Cancelled }},
	{name: "expired", value: func(r *audit.Replay) any { return r.Expired }},
	{name: "gone", value: func(r *audit.Replay) any { return r.Gone }},
	{name: "to_webhook_id", value: func(r *audit.Replay) any { return orNil(r.ToWebhookID) }, shown: "to webhook"},
	{name: "rate", value: func(r *audit.Replay) any { return orNil(r.Rate) }, shown: "rate"},
	{name: "finished_at", value: func(r *audit.Replay) any { return orNever(r.FinishedAt) }, shown: "finished"},
	{name: "selection", value: func(r *audit.Replay) any { return r.Selection }, shown: "selection", flexible: true},
}

func replayTint(state string) tint {
	switch state {
	case "finished":
		return good
	case "cancelled", "cancelling":
		return bad
	case "planned":
		return faint
	default:
		return waiting
	}
}

func (a *app) replayList() *cobra.Command {
	var account domain.AccountID
	var before domain.ReplayID
	var state, format string
	var limit int
	cmd := &cobra.Command{Use: "list", Short: "List replays and plans, newest first", Args: cobra.ArbitraryArgs}
	flags := cmd.Flags()
	flagOf(flags, &account, "account", "N", "", "only of this account", parseAccount)
	flagOf(flags, &state, "state", "S", "", "only in this state", oneOf(domain.ReplayStates...))
	flagOf(flags, &limit, "limit", "N", strconv.Itoa(defaultLimit), fmt.Sprintf("at most so many, up to %d", maxLimit), parseLimit)
	flagOf(flags, &before, "before", "ID", "", "go on behind this one", parseID[domain.ReplayID])
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			replays, err := postgres.NewReplayPlans(db).List(cmd.Context(), account, state, before, limit)
			if err != nil {
				return err
			}
			return writeList(a, format, replayColumns, replays)
		})
	}
	return cmd
}

func (a *app) replayShow() *cobra.Command {
	var format string
	var follow bool
	cmd := &cobra.Command{
		Use:   "show REPLAY",
		Short: "Show a replay and how far it is, or a plan",
		Long: `Show a replay and how far it is, with what its plan has by webhook. With --follow
until it is over; --format json then writes an object whenever something has changed.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "show its progress until it is over")
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.replayID(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			if _, err := a.readReplay(cmd.Context(), db, id); err != nil {
				return err
			}
			if follow {
				return a.follow(cmd.Context(), db, id, a.out, format)
			}
			plan, err := readPlan(cmd.Context(), db, id, 0)
			if err != nil {
				return err
			}
			if format == formatJSON {
				return writeObject(a.out, planColumns, plan)
			}
			writeThing(a, replayColumns, &plan.Replay)
			fmt.Fprintln(a.out)
			return writeTable(a, partColumns, plan.parts)
		})
	}
	return cmd
}

// replayPlan is a replay with what its plan has.
type replayPlan struct {
	audit.Replay
	parts    []audit.ReplayPart
	estimate time.Duration // 0: not known
}

// readPlan reads a replay with its plan. A rate of 0 is that which it has.
func readPlan(ctx context.Context, db *sql.DB, id domain.ReplayID, rate float64) (*replayPlan, error) {
	var p replayPlan
	var err error
	if p.Replay, err = postgres.NewReplayPlans(db).Read(ctx, id); err != nil {
		return nil, err
	}
	if p.parts, err = postgres.NewReplayPlans(db).Parts(ctx, id); err != nil {
		return nil, err
	}
	if rate == 0 {
		rate = p.Rate
	}
	p.estimate, err = postgres.NewReplayPlans(db).Estimate(ctx, &p.Replay, rate)
	return &p, err
}

// span is when the first and the last event of the plan were routed.
func (p *replayPlan) span() (first, last time.Time) {
	for _, part := range p.parts {
		if part.PassedOver != "" || part.Deliveries == 0 {
			continue
		}
		if first.IsZero() || part.FirstAt.Before(first) {
			first = part.FirstAt
		}
		if part.LastAt.After(last) {
			last = part.LastAt
		}
	}
	return first, last
}

// gone counts what the plan leaves out because the payload is gone.
func (p *replayPlan) gone() (n int64) {
	for i := range p.parts {
		n += p.parts[i].Gone
	}
	return n
}

// planColumns are a replay's, and what its plan has.
var planColumns = func() []column[replayPlan] {
	columns := make([]column[replayPlan], 0, len(replayColumns)+4)
	for _, c := range replayColumns {
		columns = append(columns, column[replayPlan]{name: c.name, value: func(p *replayPlan) any { return c.value(&p.Replay) }})
	}
	return append(columns,
		column[replayPlan]{name: "first_at", value: func(p *replayPlan) any { first, _ := p.span(); return orNever(first) }},
		column[replayPlan]{name: "last_at", value: func(p *replayPlan) any { _, last := p.span(); return orNever(last) }},
		column[replayPlan]{name: "estimated_seconds", value: func(p *replayPlan) any { return orNil(p.estimate.Seconds()) }},
		column[replayPlan]{name: "webhooks", value: func(p *replayPlan) any {
			objects := make([]raw, len(p.parts))
			for i := range p.parts {
				object, err := rawObject(partColumns, &p.parts[i])
				if err != nil {
					panic(err) // numbers, times and words: cannot fail
				}
				objects[i] = object
			}
			return objects
		}},
	)
}()

var partColumns = []column[audit.ReplayPart]{
	{name: "account_id", value: func(p *audit.ReplayPart) any { return p.AccountID }, shown: "account"},
	{name: "webhook_id", value: func(p *audit.ReplayPart) any { return p.WebhookID }, shown: "webhook"},
	{name: "deliveries", value: func(p *audit.ReplayPart) any { return p.Deliveries }, shown: "deliveries"},
	{name: "first_at", value: func(p *audit.ReplayPart) any { return p.FirstAt }, shown: "first"},
	{name: "last_at", value: func(p *audit.ReplayPart) any { return p.LastAt }, shown: "last"},
	{name: "gone", value: func(p *audit.ReplayPart) any { return p.Gone }},
	{name: "passed_over", value: func(p *audit.ReplayPart) any { return orNil(p.PassedOver) }, shown: "left out", tint: func(string) tint { return bad }},
}

// showPlan shows a plan that was just made.
func (a *app) showPlan(p *replayPlan, rate float64) error {
	fmt.Fprintf(a.out, "Plan %d: %s. Nothing is sent yet.\n\n", p.ID, deliveries(p.Total))
	if err := writeTable(a, partColumns, p.parts); err != nil {
		return err
	}
	if gone := p.gone(); gone > 0 {
		fmt.Fprintf(a.out, "\nLeft out: %s of events that have no payload any more.\n", deliveries(gone))
	}
	takes, pace := "How long that takes is not known: no webhook of it answered lately.", ""
	if p.estimate > 0 {
		takes = fmt.Sprintf("It takes about %s, as the webhooks answered lately.", audit.Short(p.estimate))
	}
	if rate > 0 {
		pace = " --rate " + strconv.FormatFloat(rate, 'f', -1, 64)
		takes = fmt.Sprintf("It takes about %s.", audit.Short(p.estimate))
	}
	fmt.Fprintf(a.out, "\n%s To run it:\n\n  outrider replay run %d%s\n", takes, p.ID, pace)
	return nil
}

// How a replay is followed.
const (
	replayPoll = 200 * time.Millisecond
	// replayPatience is when somebody who waits is told that no relay has taken
	// up the request.
	replayPatience = 10 * time.Second
	// replayLine is how often a line is written where there is no terminal.
	replayLine = 10 * time.Second
)

// follow shows how far a replay is, until it is over: on a terminal in one line
// that changes, elsewhere by lines, in JSON by an object for each change where
// out is the standard output, else by the last.
func (a *app) follow(ctx context.Context, db *sql.DB, id domain.ReplayID, out io.Writer, format string) error {
	begun := a.now()
	var first, last audit.Replay
	var told time.Time
	patient := true
	ticker := time.NewTicker(replayPoll)
	defer ticker.Stop()
	for {
		replay, err := a.readReplay(ctx, db, id)
		switch {
		case ctx.Err() != nil:
			return &failure{fmt.Sprintf("interrupted; replay %d goes on", id), fmt.Sprintf("to stop it: outrider replay cancel %d", id)}
		case err != nil:
			return err
		case replay.State == "planned":
			return &failure{fmt.Sprintf("replay %d is only planned", id), fmt.Sprintf("run it: outrider replay run %d", id)}
		}
		if first.ID == 0 {
			first = replay
		}
		now := a.now()
		changed := replay.State != last.State || replay.Done() != last.Done()
		last = replay
		switch {
		case format == formatJSON:
			if changed && out == a.out || replay.Over() {
				if err := writeObject(a.out, replayColumns, &replay); err != nil {
					return err
				}
			}
		case a.width() > 0 && !replay.Over():
			fmt.Fprintf(out, "\r%s\x1b[K", a.progress(&first, &replay, now.Sub(begun)))
		case a.width() == 0 && changed && !replay.Over() && now.Sub(told) >= replayLine:
			told = now
			fmt.Fprintln(out, a.progress(&first, &replay, now.Sub(begun)))
		}
		if replay.Over() {
			return a.over(&replay, out, format)
		}
		if replay.State == "requested" && patient && now.Sub(begun) >= replayPatience {
			patient = false
			fmt.Fprintf(a.err, "\nNo relay has taken up replay %d yet; is outrider serve running?\n", id)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// over says how a replay that was followed ended.
func (a *app) over(replay *audit.Replay, out io.Writer, format string) error {
	if format != formatJSON {
		if a.width() > 0 {
			fmt.Fprint(out, "\r\x1b[K")
		}
		fmt.Fprintf(a.out, "Replay %d is %s: %s.\n", replay.ID, replay.State, progressOf(replay))
	}
	if replay.State == "cancelled" {
		return &failure{fmt.Sprintf("replay %d was cancelled", replay.ID), ""}
	}
	return nil
}

// barWidth is how wide a full bar is.
const barWidth = 24

// progress is one line about a replay under way.
func (a *app) progress(first, r *audit.Replay, took time.Duration) string {
	share := 1.0
	if r.Total > 0 {
		share = float64(r.Done()) / float64(r.Total)
	}
	bar := make([]byte, barWidth)
	for i := range bar {
		bar[i] = "-#"[btoi(float64(i) < share*barWidth)]
	}
	line := fmt.Sprintf("%s [%s] %3.0f%%  %s of %s", r.State, bar, 100*share, grouped(int(r.Done())), grouped(int(r.Total)))
	if sent := r.Done() - first.Done(); sent > 0 && took > time.Second && r.State == "running" {
		speed := float64(sent) / took.Seconds()
		left := time.Duration(float64(r.Total-r.Done()) / speed * float64(time.Second))
		line += fmt.Sprintf("  %.0f/s, about %s left", speed, audit.Short(left.Round(time.Second)))
	}
	if r.Dead > 0 {
		line += fmt.Sprintf("  %s dead", grouped(int(r.Dead)))
	}
	return line
}
