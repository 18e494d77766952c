package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) eraseCommand() *cobra.Command {
	var selection postgres.ErasureSelection
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:     "erase --account N [--contact ID | --ordering-key KEY | --event-id ID]...",
		Short:   "Erase payloads, metadata and responses of one contact, or of an account",
		GroupID: groupRun,
		Long: `Erase the payloads, the metadata and the responses of some events: of those that
tell of a contact, of an ordering key, or of those named; of all that the account
ever had where none of these is given. It says how many there are, and asks.

--contact N finds the events with the ordering key contact:N, the events contact_*
whose payload has this id, and those in whose payload the id stands anywhere as
contact_id, as the id of an object that is called contact or whose type is contact,
or as sender_id where sender_type is Contact. It finds no text: not the name, nor the
number, of somebody who is mentioned in another one's conversation.

Deliveries of these events that are still open are cancelled first, by the relay at
work; where none is, such events are left, and said. The log stays as it is: that
there was an event, its name, id and ordering key, where it went and when. It cannot
be replayed any more. Backups, WAL archives and the receivers keep what they have.

It takes a user with the role outrider_operator, and with --contact outrider_relay
too, which may read payloads.`,
		Example: `  outrider erase --account 7 --contact 901 --dry-run
  outrider erase --account 7 --ordering-key conversation:346
  outrider erase --account 7 --yes`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &selection.AccountID, "account", "N", "", "the account", parseAccount)
	flagOf(flags, &selection.ContactID, "contact", "ID", "", "what tells of this contact", parseID[int64])
	flags.StringArrayVar(&selection.OrderingKeys, "ordering-key", nil, "what has this ordering key, like conversation:346; again for more")
	flagsOf(flags, &selection.EventIDs, "event-id", "ID", "this event; again for more", parseUUID)
	flags.BoolVar(&dryRun, "dry-run", false, "only say how many there are")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		c.need("account")
		for _, key := range selection.OrderingKeys {
			if key == "" {
				c.add("--ordering-key is empty")
			}
		}
		if !yes && !dryRun && !a.asks {
			c.add("nobody can be asked whether to erase it: give --yes, or --dry-run")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			return a.erase(cmd.Context(), db, selection, yes, dryRun)
		})
	}
	return cmd
}

func (a *app) erase(ctx context.Context, db *sql.DB, selection postgres.ErasureSelection, yes, dryRun bool) error {
	plan, err := postgres.PlanErasure(ctx, db, selection)
	if err != nil {
		return err
	}
	a.showErasure(plan, selection)
	if len(plan.Events) == 0 || dryRun {
		return nil
	}
	if !yes {
		fmt.Fprintf(a.err, "Type the account's number, %d, to erase this for ever: ", selection.AccountID)
		typed, err := a.readLine(ctx)
		if err != nil || typed != fmt.Sprint(selection.AccountID) {
			return errors.Join(err, &failure{"nothing was erased: the number was not typed", ""})
		}
	}
	done, err := plan.Erase(ctx, db, func(done int) {
		if len(plan.Events) > 1000 && a.errWidth() > 0 {
			fmt.Fprintf(a.err, "\r%s of %s", grouped(done), grouped(len(plan.Events)))
		}
	})
	fmt.Fprintf(a.out, "Erasure %d: %s erased.\n", done.ID, count(done.Events, "event is", "events are"))
	switch {
	case errors.Is(err, postgres.ErrHeld):
		return &failure{"not all was erased: " + err.Error(), "let them finish, then run the same command again"}
	case err != nil:
		return err
	case done.Open > 0 && done.Unattended:
		return &failure{count(done.Open, "event is", "events are") + " left: deliveries of theirs are open, and no relay is at work to cancel them: one with --no-send does not",
			"start outrider serve, which cancels them, then run the same command again"}
	case done.Open > 0:
		return &failure{count(done.Open, "event is", "events are") + " left: the relays at work have not ended their deliveries in time",
			"run the same command again when it has"}
	}
	return nil
}

// showErasure says what an erasure would erase.
func (a *app) showErasure(plan *postgres.Erasure, selection postgres.ErasureSelection) {
	var what []string
	if selection.ContactID != 0 {
		what = append(what, fmt.Sprintf("what tells of contact %d", selection.ContactID))
	}
	for _, key := range selection.OrderingKeys {
		what = append(what, audit.KeyName(key))
	}
	if n := len(selection.EventIDs); n > 0 {
		what = append(what, count(n, "event by its id", "events by their ids"))
	}
	if len(what) == 0 {
		what = append(what, "all that it ever had")
	}
	fmt.Fprintf(a.out, "Account %d, %s: %s to be erased.\n", selection.AccountID, strings.Join(what, ", "), count(len(plan.Events), "event is", "events are"))
	if plan.Before > 0 {
		fmt.Fprintf(a.out, "%s erased before.\n", count(plan.Before, "more was", "more were"))
	}
	if plan.Waiting > 0 {
		fmt.Fprintf(a.out, "%s for a relay to route, and %s not looked at: run this again then.\n",
			count(plan.Waiting, "event of the account waits", "events of the account wait"), map[bool]string{true: "is", false: "are"}[plan.Waiting == 1])
	}
	for _, id := range plan.Unknown {
		fmt.Fprintf(a.out, "The account has no routed event %s.\n", id)
	}
}
