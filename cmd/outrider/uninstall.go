package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

func (a *app) uninstallCommand() *cobra.Command {
	var yes, keepRoles, force bool
	cmd := &cobra.Command{
		Use:     "uninstall",
		Short:   "Drop Outrider's schemas and roles from the database",
		GroupID: groupRun,
		Long: `Drop what outrider migrate made: the schemas outbox, relay and audit with the whole
history, and the group roles where nothing else in the cluster uses them. It
shows what that is and what would never be delivered, and asks for the database's
name before it drops anything. It is all or nothing; outrider migrate makes it anew,
empty.

It drops nothing of others. Where a view, trigger, foreign key, publication or
function of theirs depends on Outrider, it names each and does nothing. A function
that only names Outrider's tables in its text would fail from then on, and the
inserts of a trigger with it: it is named too, and stops the uninstall unless
--force-functions is given.

It does nothing while a relay runs, and waits only briefly for locks, so that the
chat system's inserts do not queue up behind it. It takes the user that migrated.`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&yes, "yes", false, "do not ask")
	flags.BoolVar(&keepRoles, "keep-roles", false, "leave the group roles")
	flags.BoolVar(&force, "force-functions", false, "go on although functions of others name Outrider's tables, and fail from then on")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if !yes && !a.asks {
			c.add("nobody can be asked whether to drop it: give --yes")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			return a.uninstall(cmd.Context(), db, yes, keepRoles, force)
		})
	}
	return cmd
}

func (a *app) uninstall(ctx context.Context, db *sql.DB, yes, keepRoles, force bool) error {
	plan, err := postgres.PlanRemoval(ctx, db)
	if err != nil {
		return err
	}
	if !plan.Installed {
		fmt.Fprintf(a.out, "There is nothing of Outrider in database %q.\n", plan.Database)
		return nil
	}
	if err := a.refuse(plan, force); err != nil {
		return err
	}
	if keepRoles {
		plan.Roles = nil
	}
	a.showRemoval(plan)
	if !yes {
		fmt.Fprintf(a.err, "Type the database's name, %s, to drop all this: ", printable(plan.Database))
		typed, err := a.readLine(ctx)
		if err != nil || typed != plan.Database {
			return errors.Join(err, &failure{"nothing was dropped: the name was not typed", ""})
		}
	}
	kept, err := plan.Remove(ctx, db, keepRoles)
	switch {
	case errors.Is(err, postgres.ErrHeld):
		return &failure{"nothing was dropped: " + err.Error(),
			"they hold locks on the tables for longer than inserts may wait. Let them finish, or stop what writes to and reads the outbox, then try again"}
	case errors.Is(err, postgres.ErrRelayAlive):
		return &failure{"nothing was dropped: " + err.Error(), stopRelays}
	case err != nil:
		return err
	}
	fmt.Fprintf(a.out, "Outrider is gone from database %q.\n", plan.Database)
	for _, role := range kept {
		fmt.Fprintf(a.out, "Role %s stays: %s.\n", role.Name, printable(strings.Join(role.Needed, ", ")))
	}
	return nil
}

const stopRelays = "stop outrider serve everywhere, and keep it from starting again; of one that was killed, the sign of life counts for 10 s"

// refuse names all that stands against an uninstall.
func (a *app) refuse(plan *postgres.Removal, force bool) error {
	reasons := 0
	reason := func(problem, advice string) {
		reasons++
		fmt.Fprintf(a.err, "outrider: %s\n  %s\n", printable(problem), printable(advice))
	}
	if plan.Owner != "" {
		reason(fmt.Sprintf("the schemas belong to role %q, and only it or a superuser may drop them", plan.Owner),
			"give the database URL of the user that migrated")
	}
	if len(plan.Relays) > 0 {
		reason("a relay runs on the database: "+strings.Join(plan.Relays, ", "), stopRelays)
	}
	for _, foreign := range plan.Foreign {
		reason("this is not Outrider's, and depends on it: "+foreign, "drop or change it first, if its owner agrees")
	}
	for _, caller := range plan.Callers {
		if force {
			break
		}
		reason(callerProblem(caller), callerAdvice(caller))
	}
	if reasons == 0 {
		return nil
	}
	return &failure{"nothing was dropped", ""}
}

func callerProblem(c postgres.Caller) string {
	problem := fmt.Sprintf("function %s names Outrider's tables or functions, and would fail from then on", c.Function)
	if len(c.Triggers) > 0 {
		problem += ": as would every write that fires trigger " + strings.Join(c.Triggers, ", ")
	}
	return problem
}

func callerAdvice(c postgres.Caller) string {
	var drops []string
	for _, trigger := range c.Triggers {
		drops = append(drops, "DROP TRIGGER "+trigger)
	}
	drops = append(drops, "DROP FUNCTION "+c.Function)
	return "drop or change it first: " + strings.Join(drops, "; ") + "; or give --force-functions, if it is never called"
}

// showRemoval says what would be dropped and lost.
func (a *app) showRemoval(plan *postgres.Removal) {
	p := a.paint()
	fmt.Fprintf(a.out, "Database %q:\n\n", plan.Database)
	widest := 0
	for _, t := range plan.Tables {
		widest = max(widest, len(t.Name))
	}
	for _, t := range plan.Tables {
		rows := t.Rows.String() + " rows"
		switch {
		case t.Rows.More && t.Estimate > int64(t.Rows.N):
			rows = "about " + grouped(int(t.Estimate)) + " rows (PostgreSQL's estimate)"
		case !t.Rows.More && t.Rows.N == 1:
			rows = "1 row"
		}
		fmt.Fprintf(a.out, "  %-*s  %s, %s\n", widest, t.Name, rows, t.Size)
	}
	fmt.Fprintf(a.out, "  and %d views, %d functions, %d sequences\n", plan.Views, plan.Functions, plan.Sequences)
	for _, role := range plan.Roles {
		switch {
		case len(role.Needed) > 0:
			fmt.Fprintf(a.out, "  role %s stays, it is used by %s\n", role.Name, printable(strings.Join(role.Needed, ", ")))
		case len(role.Members) > 0:
			fmt.Fprintf(a.out, "  role %s; its members %s stay\n", role.Name, printable(strings.Join(role.Members, ", ")))
		default:
			fmt.Fprintf(a.out, "  role %s\n", role.Name)
		}
	}
	fmt.Fprintln(a.out)
	lost := false
	for _, work := range []struct {
		count postgres.Count
		what  string
	}{
		{plan.Unrouted, "events that no relay has routed"},
		{plan.Waiting, "deliveries that wait: for a retry, an earlier one, or a paused webhook"},
		{plan.Unsent, "deliveries whose attempt was not begun, or has no outcome"},
	} {
		if work.count.N > 0 {
			lost = true
			fmt.Fprintln(a.out, p.as(bad, fmt.Sprintf("Never to be delivered: %s: %s.", work.what, work.count)))
		}
	}
	if !lost {
		fmt.Fprintln(a.out, "Nothing waits to be delivered.")
	}
	if plan.NewestEvent >= 0 {
		text := fmt.Sprintf("The newest event was inserted %s ago.", plan.NewestEvent.Round(time.Second))
		if plan.NewestEvent < time.Minute {
			text = p.as(waiting, text+" Whoever still inserts gets errors from now on.")
		}
		fmt.Fprintln(a.out, text)
	}
	for _, caller := range plan.Callers {
		fmt.Fprintln(a.out, p.as(bad, "Forced: "+printable(callerProblem(caller))+"."))
	}
	fmt.Fprintln(a.out)
}
