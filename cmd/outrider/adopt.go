package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

func (a *app) adoptCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "adopt",
		Short:   "Let relays work on a database that was restored, upgraded or cloned",
		GroupID: groupRun,
		Long: `Make a database the one that relays work on, after it was restored from a dump,
moved to another cluster, upgraded by pg_upgrade or cloned. Until then outrider serve
stays unready on it and sends nothing, for two databases with one history would both
send what waits in it.

It shows which database this is and which it was, and what waits: events that were
not routed yet, and deliveries to make. All that is sent from here from then on. What
another relay sent after the copy was taken is not known here, and may be sent again:
so stop the relays of the database it was taken from first, unless that is gone.

It asks for the database's name before it changes anything. A serve that waits goes on
by itself, within 10 s. Where nothing needs adopting it says so, and is done.

It does nothing while a relay is at work, and waits only briefly for its lock, so that
the chat system's inserts do not queue up behind it. It takes outrider_operator.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if !yes && !a.asks {
			c.add("nobody can be asked whether to adopt it: give --yes")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error { return a.adopt(cmd.Context(), db, yes) })
	}
	return cmd
}

func (a *app) adopt(ctx context.Context, db *sql.DB, yes bool) error {
	plan, err := postgres.PlanAdoption(ctx, db)
	if err != nil {
		return err
	}
	nothing := fmt.Sprintf("Nothing needs adopting: database %q is the one that its history belongs to.\n", plan.Is.Name)
	if !plan.Changed {
		fmt.Fprint(a.out, nothing)
		return nil
	}
	a.showAdoption(plan)
	if !yes {
		fmt.Fprintf(a.err, "Type the database's name, %s, to send from it: ", printable(plan.Is.Name))
		typed, err := a.readLine(ctx)
		if err != nil || typed != plan.Is.Name {
			return errors.Join(err, &failure{"nothing was adopted: the name was not typed", ""})
		}
	}
	adopted, err := postgres.Adopt(ctx, db)
	switch {
	case errors.Is(err, postgres.ErrHeld):
		return &failure{"nothing was adopted: " + err.Error(),
			"their transactions have inserted events, and did not end in time. Let them end, or stop what writes to the outbox, then try again"}
	case errors.Is(err, postgres.ErrRelayAlive):
		return &failure{"nothing was adopted: " + err.Error(),
			"stop outrider serve where it works on this database; a copy that was made while a relay worked has its sign of life, which counts for 10 s"}
	case err != nil:
		return err
	case !adopted:
		fmt.Fprint(a.out, nothing) // somebody else did meanwhile
		return nil
	}
	fmt.Fprintf(a.out, "Database %q is adopted. A waiting outrider serve goes on within 10 s; start one where none waits.\n", plan.Is.Name)
	return nil
}

// showAdoption says what the database is and was, and what will be sent.
func (a *app) showAdoption(plan *postgres.Adoption) {
	p := a.paint()
	name := func(place postgres.Place) string {
		return fmt.Sprintf("%s, oid %d in the cluster %d", printable(place.Name), place.OID, place.System)
	}
	fmt.Fprintf(a.out, "This is database  %s\n", name(plan.Is))
	if plan.Was == (postgres.Place{}) {
		fmt.Fprintln(a.out, "It was filled on  another cluster, where no relay ever worked on it")
	} else {
		fmt.Fprintf(a.out, "Its history is of %s,\n                  where relays worked since %s\n", name(plan.Was), stamp(plan.Since))
	}
	if plan.Batch > 0 {
		by := fmt.Sprintf("routed by relay %d", plan.RelayID)
		if plan.RelayID == 0 {
			by = "written when it was adopted"
		}
		fmt.Fprintf(a.out, "The newest batch  %d, %s at %s\n", plan.Batch, by, stamp(plan.BatchAt))
	}
	fmt.Fprintln(a.out)
	waits := false
	for _, work := range []struct {
		count postgres.Count
		what  string
	}{
		{plan.Undecided, "events that no relay has routed"},
		{plan.Waiting, "deliveries that wait: for a retry, an earlier one, or a paused webhook"},
		{plan.Unsent, "deliveries whose attempt was not begun"},
		{plan.Open, "deliveries whose attempt was under way; each is made again"},
	} {
		if work.count.N > 0 {
			waits = true
			fmt.Fprintln(a.out, p.as(waiting, fmt.Sprintf("To be sent from here: %s: %s.", work.what, work.count)))
		}
	}
	if !waits {
		fmt.Fprintln(a.out, "Nothing waits to be sent.")
	}
	fmt.Fprintln(a.out, p.as(bad, "What was sent elsewhere after this copy was taken is unknown here, and may be sent again."))
	fmt.Fprintln(a.out)
}

// stamp is a time for people, to the second.
func stamp(t time.Time) string { return t.Local().Format(thingTime) }
