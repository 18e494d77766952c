package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) replayCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "replay",
		Short:   "Send old events again",
		GroupID: groupHistory,
		Long: `Send old events again: as new deliveries with the same webhook-id and the same body,
in a lane of their own, so that fresh events do not wait for them. A receiver that
drops what it has seen drops replays too, unless it reads the header Outrider-Replay.

A replay is planned and then run, both on record. A plan has its deliveries by name:
what happens after it was made does not change it.

It takes a user with the role outrider_operator. SQL can do the same, with the
functions relay.plan_replay, relay.request_replay, relay.pause_replay,
relay.resume_replay and relay.cancel_replay.`,
	})
	cmd.AddCommand(
		a.replayPlan(), a.replayRun(), a.replayList(), a.replayShow(),
		a.replayChange("pause", "Send nothing more of a replay", `Send nothing more of a replay until it is resumed. Attempts under way are finished.`, (*postgres.ReplayPlans).Pause),
		a.replayChange("resume", "Go on with a paused replay", `Go on with a paused replay.`, (*postgres.ReplayPlans).Resume),
		a.replayChange("cancel", "End a replay, or drop a plan", `End a replay: what is scheduled and not finished becomes cancelled, on record; what is
not scheduled yet never is; attempts under way are finished. Or drop a plan.`, (*postgres.ReplayPlans).Cancel),
	)
	return cmd
}

// paceFlag adds --rate.
func paceFlag(cmd *cobra.Command, rate *float64) {
	flagOf(cmd.Flags(), rate, "rate", "N", "", "so many deliveries a second at most, retries not counted (default: as fast as they are taken)", parseRate)
}

func (a *app) replayPlan() *cobra.Command {
	var s replaySelection
	var format string
	var rate float64
	cmd := &cobra.Command{
		Use:   "plan (--since TIME [--until TIME] | --event-id ID ... | --events-from FILE)",
		Short: "Select what to send again, and say how much that is",
		Long: `Select what to send again: by when it was routed, or by the events' ids; of that only
what fits the other flags. The plan has the deliveries to the webhooks that the events
were routed to, and to those that were passed over because they were disabled. Webhooks
that are disabled or deleted now are counted and left out, unless --webhook names one.
Nothing else changes.

How long it would take is estimated from --rate, and from how fast the webhooks with
the most deliveries answered lately.`,
		Example: `  outrider replay plan --since 2h --account 1
  outrider replay plan --since 2026-07-01T08:00:00Z --until 2026-07-01T09:00:00Z --webhook 1 --status undelivered
  outrider audit deliveries --status dead --format json | outrider replay plan --events-from - --status dead`,
		Args: cobra.ArbitraryArgs,
	}
	s.addTo(a, cmd)
	paceFlag(cmd, &rate)
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		s.judge(a, c)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			id, err := postgres.NewReplayPlans(db).Plan(cmd.Context(), "", s.ReplaySelection)
			if err != nil {
				return err
			}
			plan, err := readPlan(cmd.Context(), db, id, rate)
			if err != nil {
				return err
			}
			if format == formatJSON {
				return writeObject(a.out, planColumns, plan)
			}
			return a.showPlan(plan, rate)
		})
	}
	return cmd
}

func (a *app) replayRun() *cobra.Command {
	var s replaySelection
	var how domain.ReplayRun
	var format string
	var wait bool
	cmd := &cobra.Command{
		Use:   "run (PLAN | --since TIME [--until TIME] | --event-id ID ... | --events-from FILE)",
		Short: "Send events again",
		Long: `Run a plan, once; or plan and run in one step what the flags select, as "outrider
replay plan" does.

The deliveries go to the plan's webhooks, with their present settings. With --to-webhook
each event of the plan goes once to that webhook instead, which must be of the same
account: to fill a new integration with what another one got. Either way they go in
the order in which the events were routed, conversation by conversation.

Nothing is done, and the reason is told, where a webhook is disabled or deleted, or
where events of the plan have no payload any more.`,
		Example: `  outrider replay run 12 --rate 50 --wait
  outrider replay run 12 --to-webhook 7
  outrider replay run --event-id 0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f
  outrider replay run --since 2h --account 1 --wait`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	s.addTo(a, cmd)
	flagOf(flags, &how.ToWebhookID, "to-webhook", "N", "", "each event once to this webhook, not to those of the plan", parseID[domain.WebhookID])
	paceFlag(cmd, &how.Rate)
	flags.BoolVar(&wait, "wait", false, "show its progress until it is over")
	thingFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		var id domain.ReplayID
		if len(args) > 0 {
			id = c.replayID(args)
			if s.given(c) {
				c.add("a PLAN is given and a selection too: a plan has its deliveries already")
			}
		} else {
			s.judge(a, c)
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) (err error) {
			if id != 0 {
				err = postgres.NewReplayPlans(db).Request(cmd.Context(), "", id, how)
			} else {
				id, err = postgres.NewReplayPlans(db).PlanAndRequest(cmd.Context(), "", s.ReplaySelection, how)
			}
			if err != nil {
				return err
			}
			return a.requested(cmd.Context(), db, id, wait, format)
		})
	}
	return cmd
}

// requested says what became of a request.
func (a *app) requested(ctx context.Context, db *sql.DB, id domain.ReplayID, wait bool, format string) error {
	if wait {
		return a.follow(ctx, db, id, a.err, format)
	}
	replay, err := a.readReplay(ctx, db, id)
	if err != nil {
		return err
	}
	if format == formatJSON {
		return writeObject(a.out, replayColumns, &replay)
	}
	fmt.Fprintf(a.out, "Replay %d is requested: %s. A running relay takes it up at once. To see how far it is:\n\n  outrider replay show %d --follow\n",
		id, deliveries(replay.Total), id)
	return nil
}

// replayID gives the only argument, a replay's id.
func (c *check) replayID(args []string) domain.ReplayID {
	text := c.one(args, "the replay's ID")
	if text == "" {
		return 0
	}
	id, err := parseID[domain.ReplayID](text)
	if err != nil {
		c.add("the replay's ID: %v", err)
	}
	return id
}

// readReplay reads a replay that must be there.
func (a *app) readReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (audit.Replay, error) {
	replay, err := postgres.NewReplayPlans(db).Read(ctx, id)
	if errors.Is(err, domain.ErrNoReplay) {
		return replay, &failure{fmt.Sprintf("there is no replay %d", id), "outrider replay list shows those there are"}
	}
	return replay, err
}

// replayChange is a command that takes a replay from one state to another.
func (a *app) replayChange(use, short, long string, change func(plans *postgres.ReplayPlans, ctx context.Context, actor string, id domain.ReplayID) (string, error)) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: use + " REPLAY", Short: short, Long: long, Args: cobra.ArbitraryArgs}
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.replayID(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			state, err := change(postgres.NewReplayPlans(db), cmd.Context(), "", id)
			if err != nil {
				return err
			}
			replay, err := a.readReplay(cmd.Context(), db, id)
			if err != nil {
				return err
			}
			if format == formatJSON {
				return writeObject(a.out, replayColumns, &replay)
			}
			fmt.Fprintf(a.out, "Replay %d is %s: %s.\n", id, state, progressOf(&replay))
			return nil
		})
	}
	return cmd
}

// deliveries is "1 delivery" or "1,204 deliveries".
func deliveries(n int64) string {
	if n == 1 {
		return "1 delivery"
	}
	return grouped(int(n)) + " deliveries"
}

// progressOf is how far a replay is, in words.
func progressOf(r *audit.Replay) string {
	if r.State == "planned" {
		return deliveries(r.Total) + ", none sent"
	}
	text := fmt.Sprintf("%s of %s done", grouped(int(r.Done())), deliveries(r.Total))
	var parts []string
	for _, part := range []struct {
		n    int64
		what string
	}{{r.Succeeded, "succeeded"}, {r.Dead, "dead"}, {r.Cancelled, "cancelled"}, {r.Expired, "expired"}, {r.Gone, "gone"}} {
		if part.n > 0 {
			parts = append(parts, grouped(int(part.n))+" "+part.what)
		}
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// count is "1 delivery" or "2 deliveries".
func count[N ~int | ~int64](n N, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
