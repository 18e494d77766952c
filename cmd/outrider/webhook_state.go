package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// stateChange is a command that brings webhooks into a state: one, or those of
// an account, or all.
type stateChange struct {
	done    string // what they are then
	command func() domain.WebhookCommand
	all     bool
	account domain.AccountID
	// only takes those disabled for this reason.
	only string
	// then goes on with a webhook that changed.
	then func(context.Context, *postgres.Webhooks, domain.Webhook) error
}

const stateTail = `

With --account or --all it changes all these webhooks in one transaction, or none of
them, each on record; those that are that way already stay as they are.`

// stateCommand completes a command that brings webhooks into a state.
func (a *app) stateCommand(cmd *cobra.Command, s *stateChange) *cobra.Command {
	cmd.Use += " (ID | --account N | --all)"
	cmd.Long += stateTail
	cmd.Args = cobra.ArbitraryArgs
	flagOf(cmd.Flags(), &s.account, "account", "N", "", "all webhooks of this account", parseAccount)
	cmd.Flags().BoolVar(&s.all, "all", false, "all webhooks of all accounts")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		var id domain.WebhookID
		switch several := s.all || c.given("account"); {
		case s.all && c.given("account"):
			c.add("--account and --all are both given")
		case several:
			c.none(args)
		default:
			id = c.webhookID(args)
			if c.given("only-disabled-for") {
				c.add("--only-disabled-for is for --account and --all")
			}
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			if id != 0 {
				return a.changeOne(cmd.Context(), db, hooks, id, s)
			}
			return a.changeAll(cmd.Context(), db, hooks, s)
		})
	}
	return cmd
}

func (a *app) changeOne(ctx context.Context, db *sql.DB, hooks *postgres.Webhooks, id domain.WebhookID, s *stateChange) error {
	hook, err := get(ctx, hooks, id)
	if err != nil {
		return err
	}
	hook, changed, err := change(ctx, db, hooks, hook.AccountID, id, s.command())
	if err != nil {
		return gone(id, err)
	}
	a.say(changed, id, s.done)
	if changed && s.then != nil {
		return s.then(ctx, hooks, hook)
	}
	return nil
}

var changedColumns = []column[postgres.ChangedWebhook]{
	{name: "id", value: func(w *postgres.ChangedWebhook) any { return w.After.ID }, shown: "id"},
	{name: "account_id", value: func(w *postgres.ChangedWebhook) any { return w.After.AccountID }, shown: "account"},
	{name: "before", value: func(w *postgres.ChangedWebhook) any { return w.Before.State }, shown: "was", tint: stateTint},
	{name: "state", value: func(w *postgres.ChangedWebhook) any { return w.After.State }, shown: "is", tint: stateTint},
	{name: "name", value: func(w *postgres.ChangedWebhook) any { return w.After.Settings.Name }, shown: "name", flexible: true},
	{name: "url", value: func(w *postgres.ChangedWebhook) any { return w.After.Settings.URL }, shown: "url", flexible: true},
}

func (a *app) changeAll(ctx context.Context, db *sql.DB, hooks *postgres.Webhooks, s *stateChange) error {
	actor, err := actor(ctx, db)
	if err != nil {
		return err
	}
	results, err := hooks.ChangeAll(ctx, postgres.WebhookSelection{AccountID: s.account, DisabledFor: s.only}, actor, s.command())
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return s.nothing()
	}
	if err := writeTable(a, changedColumns, results); err != nil {
		return err
	}
	changed := 0
	for i := range results {
		if results[i].Changed() {
			changed++
		}
	}
	fmt.Fprintf(a.out, "\n%s: %d %s now, %d %s already.\n", count(len(results), "webhook", "webhooks"), changed, s.done, len(results)-changed, s.done)
	for i := range results {
		if results[i].Changed() && s.then != nil {
			if err := s.then(ctx, hooks, results[i].After); err != nil {
				return err
			}
		}
	}
	return nil
}

// nothing says that no webhook is as the selection wants it.
func (s *stateChange) nothing() error {
	var where strings.Builder
	where.WriteString("there is no webhook")
	if !s.all {
		fmt.Fprintf(&where, " of account %d", s.account)
	}
	if s.only != "" {
		fmt.Fprintf(&where, " that is disabled for the reason %q", s.only)
	}
	return &failure{where.String(), "outrider webhook list shows those there are"}
}

func (a *app) webhookPause() *cobra.Command {
	return a.stateCommand(&cobra.Command{
		Use:   "pause",
		Short: "Keep what is routed to it, and send nothing",
		Long: `Stop sending to a webhook. Events are still routed to it: its deliveries are held, and
go out when it is enabled again, unless their deadline passes.`,
	}, &stateChange{done: "paused", command: func() domain.WebhookCommand { return domain.PauseWebhook{} }})
}

func (a *app) webhookDisable() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Route nothing to it, and cancel what waits",
		Long: `Stop routing to a webhook. What waits for it is cancelled, also what "serve --no-send"
recorded; events that it would have got are recorded as skipped. Enabling it says how
many those were.`,
	}
	flagOf(cmd.Flags(), &reason, "reason", "TEXT", "", "why, for the history", anyText)
	return a.stateCommand(cmd, &stateChange{done: "disabled", command: func() domain.WebhookCommand { return domain.DisableWebhook{Reason: reason} }})
}

func (a *app) webhookEnable() *cobra.Command {
	s := &stateChange{done: "enabled", command: func() domain.WebhookCommand { return domain.EnableWebhook{} }}
	var since time.Time
	cmd := &cobra.Command{
		Use:   "enable",
		Short: "Send to a paused or disabled webhook again",
		Long: `Send to a paused or disabled webhook again. What a pause held goes out at once. What
was skipped while it was disabled is counted, with the command that sends it.`,
	}
	flagOf(cmd.Flags(), &since, "missed-since", "TIME", "", "count as missed only what was routed from then on: RFC 3339, or a duration that counts back from now", a.parseTime)
	flagOf(cmd.Flags(), &s.only, "only-disabled-for", "TEXT", "", "with --account or --all: only those that are disabled for this reason", anyText)
	s.then = func(ctx context.Context, hooks *postgres.Webhooks, hook domain.Webhook) error {
		missed, err := hooks.Missed(ctx, hook, since)
		if err != nil || missed.Count == 0 {
			return err
		}
		a.tellMissed(hook, missed, since)
		return nil
	}
	return a.stateCommand(cmd, s)
}

// tellMissed says what a webhook missed while it was disabled.
func (a *app) tellMissed(hook domain.Webhook, missed audit.Missed, since time.Time) {
	number := count(missed.Count, "event", "events")
	if missed.More {
		number = "more than " + number
	}
	from := ""
	if !since.IsZero() {
		from = " from " + since.UTC().Format(time.RFC3339Nano) + " on"
	}
	fmt.Fprintf(a.out, "Webhook %d missed %s while it was disabled%s. To send them:\n\n  outrider replay run --webhook %d --since %s --until %s\n",
		hook.ID, number, from, hook.ID, missed.Since.UTC().Format(time.RFC3339Nano), missed.Until.UTC().Format(time.RFC3339Nano))
}
