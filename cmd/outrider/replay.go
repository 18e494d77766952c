package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) replayCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "replay",
		Short:   "Send old events again",
		GroupID: groupHistory,
		Long: `Send old events again: as new deliveries with the same webhook-id and the same body,
in a lane of their own, so that fresh events do not wait for them. A receiver that
drops what it has seen drops replays too, unless it reads the header Outrider-Replay.

SQL can do the same: SELECT relay.request_replay(…).`,
	})
	cmd.AddCommand(a.replayRun())
	return cmd
}

// maxReplayed is how many ids the database takes.
const maxReplayed = 10_000

// The waits of --wait.
const (
	replayPoll = 200 * time.Millisecond
	// replayPatience is when somebody who waits is told that no relay has
	// taken up the request.
	replayPatience = 10 * time.Second
)

// replayState is how far a replay is, as it is printed.
type replayState struct {
	id       domain.ReplayID
	progress postgres.ReplayProgress
}

var replayColumns = []column[replayState]{
	{name: "replay_id", value: func(r *replayState) any { return r.id }, shown: "replay"},
	{name: "state", value: func(r *replayState) any { return r.progress.State }, shown: "state"},
	{name: "scheduled", value: func(r *replayState) any { return r.progress.Scheduled }, shown: "deliveries"},
}

func (a *app) replayRun() *cobra.Command {
	var selection postgres.ReplaySelection
	var format string
	var wait bool
	cmd := &cobra.Command{
		Use:   "run (--event ID ... | --since TIME --until TIME)",
		Short: "Send events again",
		Long: `Send events again: those named, or those routed at or after --since and before
--until. They go to the webhooks that they were routed to, and to those that were
passed over because they were disabled.

It takes a user with the role outrider_operator, and with --wait outrider_relay.`,
		Example: `  outrider replay run --event 0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f
  outrider replay run --since 2h --until 0s --account 1 --wait`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagsOf(flags, &selection.EventIDs, "event", "ID", "event to send again; again for more", parseUUID)
	flagOf(flags, &selection.Since, "since", "TIME", "", "from when: RFC 3339, or a duration that counts back from now", a.parseTime)
	flagOf(flags, &selection.Until, "until", "TIME", "", "before when", a.parseTime)
	flagOf(flags, &selection.AccountID, "account", "N", "", "only of this account", parseID[domain.AccountID])
	flagOf(flags, &selection.WebhookID, "webhook", "N", "", "only to this webhook", parseID[domain.WebhookID])
	flags.BoolVar(&wait, "wait", false, "until the relay has scheduled all deliveries")
	thingFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		switch {
		case c.given("event") && (c.given("since") || c.given("until")):
			c.add("--event and a range of time are both given")
		case c.given("event"):
			if n := len(selection.EventIDs); n > maxReplayed {
				c.add("--event: %d are given, %d are taken at once", n, maxReplayed)
			}
		case !c.given("since") && !c.given("until"):
			c.add("nothing is selected: give --event, or --since and --until")
		default:
			c.need("since", "until")
			if !selection.Since.IsZero() && !selection.Until.IsZero() && !selection.Since.Before(selection.Until) {
				c.add("--since is not before --until")
			}
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			id, err := postgres.RequestReplay(cmd.Context(), db, selection)
			if err != nil {
				return err
			}
			state := replayState{id, postgres.ReplayProgress{State: "requested"}}
			if wait {
				if state.progress, err = a.awaitReplay(cmd.Context(), db, id); err != nil {
					return err
				}
			}
			if format == formatJSON {
				return writeObject(a.out, replayColumns, &state)
			}
			if !wait {
				fmt.Fprintf(a.out, "Replay %d is requested; a running relay takes it up at once.\n", id)
				return nil
			}
			fmt.Fprintf(a.out, "Replay %d: %s.\n", id, count(state.progress.Scheduled, "delivery is scheduled", "deliveries are scheduled"))
			if len(selection.EventIDs) == 1 && selection.EventIDs[0] != uuid.Nil {
				fmt.Fprintf(a.out, "\n  outrider audit trace %s\n", selection.EventIDs[0])
			}
			return nil
		})
	}
	return cmd
}

// awaitReplay waits until all deliveries are scheduled.
func (a *app) awaitReplay(ctx context.Context, db *sql.DB, id domain.ReplayID) (postgres.ReplayProgress, error) {
	patience := time.After(replayPatience)
	ticker := time.NewTicker(replayPoll)
	defer ticker.Stop()
	for {
		progress, err := postgres.ReadReplay(ctx, db, id)
		if err != nil || progress.Done() {
			return progress, err
		}
		select {
		case <-ticker.C:
		case <-patience:
			if progress.State == "requested" {
				fmt.Fprintf(a.err, "No relay has taken up replay %d yet; is outrider serve running?\n", id)
			}
		case <-ctx.Done():
			return progress, &failure{fmt.Sprintf("interrupted; replay %d goes on", id), ""}
		}
	}
}

// count is "1 delivery" or "2 deliveries".
func count[N ~int | ~int64](n N, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
