package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) webhookCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "webhook",
		Short:   "Register webhooks, change and list them",
		GroupID: groupConfigure,
		Long: `Register webhooks, change and list them. Each change is kept with who made it and
when: audit.webhook_changes. A running relay takes it up within milliseconds.

It takes a user with the role outrider_operator.`,
	})
	cmd.AddCommand(
		a.webhookAdd(), a.webhookList(), a.webhookShow(), a.webhookUpdate(),
		a.webhookPause(), a.webhookDisable(), a.webhookEnable(), a.webhookRemove(), a.webhookRotate(),
		a.webhookTest(), a.webhookImport(), a.webhookExport(),
	)
	return cmd
}

// shownWebhook is a webhook with what is shown of it beside.
type shownWebhook struct {
	domain.Webhook
	// secret and previous are empty unless they are to be shown.
	secret, previous string
	// reveal shows the values of headers too.
	reveal bool
}

var webhookColumns = []column[shownWebhook]{
	{name: "id", value: func(w *shownWebhook) any { return w.ID }, shown: "id"},
	{name: "account_id", value: func(w *shownWebhook) any { return w.AccountID }, shown: "account"},
	{name: "version", value: func(w *shownWebhook) any { return w.Version }},
	{name: "state", value: func(w *shownWebhook) any { return w.State }, shown: "state", tint: stateTint},
	{name: "problem", value: func(w *shownWebhook) any { return orNil(w.Problem()) }, shown: "problem", flexible: true, tint: badTint},
	{name: "name", value: settingOf(func(s *domain.Settings) any { return s.Name }), shown: "name", flexible: true},
	{name: "url", value: settingOf(func(s *domain.Settings) any { return s.URL }), shown: "url", flexible: true},
	{name: "subscriptions", value: settingOf(func(s *domain.Settings) any { return s.Subscriptions }), shown: "events", flexible: true},
	{name: "inbox_id", value: settingOf(func(s *domain.Settings) any { return orNil(s.InboxID) }), shown: "inbox"},
	{name: "timeout", value: settingOf(func(s *domain.Settings) any { return s.Timeout.String() }), shown: "timeout"},
	{name: "max_concurrency", value: settingOf(func(s *domain.Settings) any { return s.MaxConcurrency }), shown: "concurrency"},
	{name: "order_hold", value: settingOf(func(s *domain.Settings) any { return holdText(s.OrderHold) }), shown: "order hold"},
	{name: "deadline", value: settingOf(func(s *domain.Settings) any { return s.Deadline.String() }), shown: "deadline", alone: true},
	{name: "retries", value: settingOf(func(s *domain.Settings) any { return shownRetries(retriesText(s.Retries)) }), shown: "retries", alone: true},
	{name: "headers", value: func(w *shownWebhook) any { return showHeaders(w.Headers, w.reveal) }, shown: "headers", alone: true},
	{name: "rate_limit", value: settingOf(func(s *domain.Settings) any { return orNil(s.RateLimit) }), shown: "rate"},
	{name: "breaker", value: func(w *shownWebhook) any { return w.Breaker() }},
	{name: "breaker_opened_at", value: func(w *shownWebhook) any { return orNever(w.BreakerOpenedAt) }, shown: "down since", tint: badTint},
	{name: "has_credential", value: func(w *shownWebhook) any { return !w.Credential.IsZero() }},
	{name: "previous_secret_until", value: func(w *shownWebhook) any { return orNever(w.PreviousUntil) }},
}

// settingOf gives a value of the settings, nil where they cannot be read.
func settingOf(value func(*domain.Settings) any) func(*shownWebhook) any {
	return func(w *shownWebhook) any {
		if w.Unreadable != "" {
			return nil
		}
		return value(&w.Settings)
	}
}

// withSecret are webhookColumns, and the secrets.
var withSecret = append(append([]column[shownWebhook](nil), webhookColumns...),
	column[shownWebhook]{name: "secret", value: func(w *shownWebhook) any { return orNil(w.secret) }, shown: "secret"},
	column[shownWebhook]{name: "previous_secret", value: func(w *shownWebhook) any { return orNil(w.previous) }, shown: "previous"},
)

func stateTint(state string) tint {
	switch domain.WebhookState(state) {
	case domain.WebhookEnabled:
		return good
	case domain.WebhookPaused:
		return waiting
	default:
		return bad
	}
}

const forever = "forever"

func holdText(d time.Duration) string {
	if d == domain.HoldForever {
		return forever
	}
	return d.String()
}

func parseHold(text string) (time.Duration, error) {
	if text == forever {
		return domain.HoldForever, nil
	}
	if d, err := parseDuration(text); err == nil {
		return d, nil
	}
	return 0, fmt.Errorf("%q is neither a duration, like 30s, nor 0 (no order), nor %q", text, forever)
}

// settingsFlags are the flags of add and update.
func settingsFlags(flags *pflag.FlagSet, s *domain.Settings, defaults bool) {
	def := func(text string) string {
		if defaults {
			return text
		}
		return ""
	}
	flagOf(flags, &s.URL, "url", "URL", "", "where to POST; a user and password in it are sent as Basic authorization and not shown again", anyText)
	flagsOf(flags, &s.Subscriptions, "event", "NAME", "event to subscribe to; again for more (default: Chatwoot's eight; of the operator's account, all)", anyText)
	flagOf(flags, &s.Name, "name", "TEXT", "", "name for people", anyText)
	flagOf(flags, &s.InboxID, "inbox", "N", "", "only events of this inbox", parseID[int64])
	flagOf(flags, &s.Timeout, "timeout", "DURATION", def(domain.DefaultTimeout.String()), "total deadline of an attempt, 1s to 30s", parseDuration)
	flagOf(flags, &s.MaxConcurrency, "max-concurrency", "N", def(fmt.Sprint(domain.DefaultMaxConcurrency)), "most attempts at once, 1 to 256", parseID[int])
	flagOf(flags, &s.OrderHold, "order-hold", "DURATION", def(domain.DefaultOrderHold.String()),
		"how long a delivery waits for a failed earlier one of its conversation: up to 24h, 0 for no order, or forever", parseHold)
	flagOf(flags, &s.Deadline, "deadline", "DURATION", def("7d"), "how long after its routing a delivery may still start an attempt, 1s to 7d; typing events never longer than 10s", parseDuration)
	flagOf(flags, &s.Retries, "retries", "WAIT,...", "",
		"the waits after the first, second, ... failed attempt: up to 20, each 1s to 7d; none for one attempt only, or default: eleven over three days", parseRetries)
	flagOf(flags, &s.RateLimit, "rate-limit", "N", "", "most attempts a second, of retries and replays too, like 10 or 0.5; 0 for no limit", parseRateLimit)
	allowCIDRs.addTo(flags)
}

// parseRateLimit reads a number of attempts a second. The domain judges it.
func parseRateLimit(text string) (float64, error) {
	limit, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number; write it like 10 or 0.5, or 0 for no limit", text)
	}
	return limit, nil
}

// flagNames are the flags for the members that the domain names.
var flagNames = map[string]string{
	"url": "url", "name": "name", "subscriptions": "event", "timeout": "timeout",
	"max_concurrency": "max-concurrency", "order_hold": "order-hold", "inbox_id": "inbox",
	"deadline": "deadline", "retries": "retries", "headers": "header",
	"rate_limit": "rate-limit",
}

// refused notes what the domain says against settings, by flag. Other errors
// come back.
func (c *check) refused(err error) error {
	invalid, ok := errors.AsType[*domain.InvalidSettingsError](err)
	if !ok {
		return err
	}
	for _, problem := range invalid.Problems {
		member, rest, _ := strings.Cut(problem, ": ")
		flag, known := flagNames[member]
		if !known {
			c.add("%s", problem)
			continue
		}
		if already := "--" + flag + ": "; !c.has(already) {
			c.add("%s%s", already, rest)
		}
	}
	return nil
}

// has reports whether a problem of a flag is noted already.
func (c *check) has(prefix string) bool {
	for _, problem := range c.problems {
		if strings.HasPrefix(problem, prefix) {
			return true
		}
	}
	return false
}

// secretFlag adds --secret.
func secretFlag(flags *pflag.FlagSet, secret *domain.Secret) {
	flagOf(flags, secret, "secret", "TEXT", "", "signing secret: whsec_ and base64, or any text of 8 to 512 characters (default: a new one)", domain.ParseSecret)
}

// orNew gives a new secret where none is given.
func orNew(secret domain.Secret) domain.Secret {
	if !secret.IsZero() {
		return secret
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	return domain.NewSecret(random)
}

func (a *app) webhookAdd() *cobra.Command {
	var (
		settings domain.Settings
		account  domain.AccountID
		headers  []domain.Header
		secret   domain.Secret
		format   string
	)
	cmd := &cobra.Command{
		Use:     "add --account N --url URL",
		Short:   "Register a webhook",
		Example: "  outrider webhook add --account 1 --url https://example.com/hooks --event message_created --event conversation_updated",
		Args:    cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &account, "account", "N", "", "the account; operator for the one whose events tell what goes wrong", parseAccount)
	settingsFlags(cmd.Flags(), &settings, true)
	headerFlag(cmd.Flags(), &headers, "a header to send with each POST, whose value is a secret; again for more")
	secretFlag(cmd.Flags(), &secret)
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		c.need("account", "url")
		register := domain.RegisterWebhook{Settings: settings, Headers: headers, Secret: orNew(secret), Addresses: domain.AddressPolicy{Allow: conf.allow}}
		if c.given("url") {
			// The same decision as below, without a database: so that all
			// problems are named together.
			if _, err := domain.DecideWebhook(domain.Webhook{AccountID: account}, register); err != nil {
				if err := c.refused(err); err != nil {
					return err
				}
			}
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			hook, _, err := change(cmd.Context(), db, hooks, account, 0, register)
			if err != nil {
				return err
			}
			shown := shownWebhook{Webhook: hook, secret: hook.Secret.Reveal()}
			if format == formatJSON {
				return writeObject(a.out, withSecret, &shown)
			}
			fmt.Fprintf(a.out, "Webhook %d is registered. Its receiver needs the secret to verify signatures.\n\n", hook.ID)
			writeThing(a, withSecret, &shown)
			return nil
		})
	}
	return cmd
}

// withWebhooks runs a command on the webhooks of a database that is migrated.
func (a *app) withWebhooks(ctx context.Context, c config, do func(*sql.DB, *postgres.Webhooks) error) error {
	return a.withDatabase(c, func(db *sql.DB) error {
		if err := postgres.CheckSchema(ctx, db); err != nil {
			return err
		}
		return do(db, postgres.NewWebhooks(db))
	})
}

// change carries out a command on behalf of who runs the program.
func change(ctx context.Context, db *sql.DB, hooks *postgres.Webhooks, account domain.AccountID, id domain.WebhookID, command domain.WebhookCommand) (domain.Webhook, bool, error) {
	actor, err := actor(ctx, db)
	if err != nil {
		return domain.Webhook{}, false, err
	}
	hook, changed, err := hooks.Change(ctx, account, id, actor, command)
	if taken, ok := errors.AsType[*domain.URLTakenError](err); ok {
		return hook, false, &failure{fmt.Sprintf("account %d has a webhook with this URL already: %d", account, taken.WebhookID),
			fmt.Sprintf("change that one: outrider webhook update %d", taken.WebhookID)}
	}
	return hook, changed, err
}

// get reads a webhook that must be there.
func get(ctx context.Context, hooks *postgres.Webhooks, id domain.WebhookID) (domain.Webhook, error) {
	hook, err := hooks.Get(ctx, id)
	return hook, gone(id, err)
}

// gone says which webhook is not there.
func gone(id domain.WebhookID, err error) error {
	if errors.Is(err, domain.ErrWebhookGone) {
		return &failure{fmt.Sprintf("there is no webhook %d", id), "outrider webhook list shows those there are"}
	}
	return err
}

func (a *app) webhookList() *cobra.Command {
	var account domain.AccountID
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List webhooks", Args: cobra.ArbitraryArgs}
	flagOf(cmd.Flags(), &account, "account", "N", "", "only this account's", parseAccount)
	listFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(_ *sql.DB, hooks *postgres.Webhooks) error {
			found, err := hooks.List(cmd.Context(), account)
			if err != nil {
				return err
			}
			shown := make([]shownWebhook, len(found))
			for i := range found {
				shown[i].Webhook = found[i]
			}
			if err := writeList(a, format, webhookColumns, shown); err != nil {
				return err
			}
			return unreadable(found)
		})
	}
	return cmd
}

// unreadable names the webhooks whose settings cannot be read: nil where there is
// none.
func unreadable(hooks []domain.Webhook) error {
	var problems []error
	for i := range hooks {
		if problem := hooks[i].Problem(); problem != "" {
			problems = append(problems, fmt.Errorf("webhook %d of account %d: %s", hooks[i].ID, hooks[i].AccountID, problem))
		}
	}
	if problems == nil {
		return nil
	}
	return &refusals{problems, "nothing is routed or sent to it meanwhile. Where a newer outrider wrote them, run that version; where they are damaged, outrider rebuild mends them"}
}

func (a *app) webhookShow() *cobra.Command {
	var format string
	var reveal bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show a webhook", Args: cobra.ArbitraryArgs}
	cmd.Flags().BoolVar(&reveal, "reveal-secret", false, "show its secrets too, which goes on record")
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.webhookID(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			hook, err := get(cmd.Context(), hooks, id)
			if err != nil {
				return err
			}
			if reveal && hook.State != domain.WebhookDeleted { // which has no secrets any more
				if hook, _, err = change(cmd.Context(), db, hooks, hook.AccountID, id, domain.RevealSecret{}); err != nil {
					return gone(id, err)
				}
			}
			shown, columns := shownWebhook{Webhook: hook}, webhookColumns
			if reveal {
				columns = withSecret
				shown.secret, shown.previous, shown.reveal = hook.Secret.Reveal(), hook.PreviousSecret.Reveal(), true
			}
			return a.writeWebhook(format, columns, &shown)
		})
	}
	return cmd
}

func (a *app) writeWebhook(format string, columns []column[shownWebhook], shown *shownWebhook) error {
	if format == formatJSON {
		return writeObject(a.out, columns, shown)
	}
	writeThing(a, columns, shown)
	return nil
}

func (a *app) webhookUpdate() *cobra.Command {
	var given domain.Settings
	var set, removed []domain.Header
	var format string
	var anyInbox bool
	cmd := &cobra.Command{
		Use:   "update ID",
		Short: "Change a webhook's settings",
		Long: `Change a webhook's settings: only what is given. Deliveries that wait go to the new
URL. --event replaces all subscriptions; --header replaces the header of that name,
and leaves the others. One called Authorization takes the place of the URL's user and
password, and the other way round.`,
		Args: cobra.ArbitraryArgs,
	}
	settingsFlags(cmd.Flags(), &given, false)
	headerFlag(cmd.Flags(), &set, "a header to send with each POST, new or with a new value, which is a secret; again for more")
	removeHeaderFlag(cmd.Flags(), &removed)
	cmd.Flags().BoolVar(&anyInbox, "any-inbox", false, "events of any inbox again")
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.webhookID(args)
		if anyInbox && c.given("inbox") {
			c.add("--inbox and --any-inbox are both given")
		}
		some := anyInbox || c.given("remove-header")
		for _, flag := range flagNames {
			some = some || c.given(flag)
		}
		if !some {
			c.add("nothing to change is given")
		}
		addresses := domain.AddressPolicy{Allow: conf.allow}
		headers := slices.Concat(set, removed)
		// What can be judged without knowing the webhook.
		trial := merge(domain.Settings{URL: "https://example.com/"}, given, c, anyInbox)
		if _, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: trial, Headers: headers, Addresses: addresses}); err != nil {
			if err := c.refused(err); err != nil {
				return err
			}
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			hook, err := get(cmd.Context(), hooks, id)
			if err != nil {
				return err
			}
			hook, changed, err := change(cmd.Context(), db, hooks, hook.AccountID, id,
				domain.UpdateWebhook{Settings: merge(hook.Settings, given, c, anyInbox), Headers: headers, Addresses: addresses})
			if err != nil {
				if err := c.refused(gone(id, err)); err != nil {
					return err
				}
				return c.err()
			}
			if format != formatJSON {
				a.say(changed, id, "updated")
				fmt.Fprintln(a.out)
			}
			return a.writeWebhook(format, webhookColumns, &shownWebhook{Webhook: hook})
		})
	}
	return cmd
}

// merge puts the given settings over others.
func merge(s, given domain.Settings, c *check, anyInbox bool) domain.Settings {
	if c.given("url") {
		s.URL = given.URL
	}
	if c.given("event") {
		s.Subscriptions = given.Subscriptions
	}
	if c.given("name") {
		s.Name = given.Name
	}
	if c.given("inbox") || anyInbox {
		s.InboxID = given.InboxID
	}
	if c.given("timeout") {
		s.Timeout = given.Timeout
	}
	if c.given("max-concurrency") {
		s.MaxConcurrency = given.MaxConcurrency
	}
	if c.given("order-hold") {
		s.OrderHold = given.OrderHold
	}
	if c.given("deadline") {
		s.Deadline = given.Deadline
	}
	if c.given("retries") {
		s.Retries = given.Retries
	}
	if c.given("rate-limit") {
		s.RateLimit = given.RateLimit
	}
	return s
}

// say tells what a command did.
func (a *app) say(changed bool, id domain.WebhookID, done string) {
	if changed {
		fmt.Fprintf(a.out, "Webhook %d is %s.\n", id, done)
	} else {
		fmt.Fprintf(a.out, "Nothing changes: webhook %d is that way already.\n", id)
	}
}

func (a *app) webhookRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a webhook; its history stays",
		Long: `Remove a webhook. What waits for it is cancelled, its secrets are erased, its history
stays. There is no way back: register it again for a new one.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.webhookID(args)
		if !yes && !a.asks {
			c.add("nobody can be asked whether to remove it: give --yes")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			hook, err := get(cmd.Context(), hooks, id)
			if err != nil {
				return err
			}
			if !yes && hook.State != domain.WebhookDeleted {
				fmt.Fprintf(a.err, "Remove webhook %d of account %d, %s? [y/N] ", id, hook.AccountID, printable(hook.Settings.URL))
				if sure, err := a.answer(cmd.Context()); err != nil || !sure {
					return errors.Join(err, &failure{"not removed", ""})
				}
			}
			if _, _, err = change(cmd.Context(), db, hooks, hook.AccountID, id, domain.DeleteWebhook{}); err != nil {
				return gone(id, err)
			}
			fmt.Fprintf(a.out, "Webhook %d is removed.\n", id)
			return nil
		})
	}
	return cmd
}

// answer reads yes or no.
func (a *app) answer(ctx context.Context) (bool, error) {
	text, err := a.readLine(ctx)
	switch strings.ToLower(text) {
	case "y", "yes":
		return err == nil, err
	}
	return false, err
}

// readLine reads an answer. An end of input is an empty one, an interrupt does
// not wait for it.
func (a *app) readLine(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() { // ends with the process, if nobody ever answers
		text, _ := bufio.NewReader(a.in).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		return strings.TrimSpace(text), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (a *app) webhookRotate() *cobra.Command {
	var secret domain.Secret
	var overlap time.Duration
	var format string
	cmd := &cobra.Command{
		Use:   "rotate-secret ID",
		Short: "Give a webhook a new secret",
		Long: `Give a webhook a new secret. For the time of the overlap each POST carries two
signatures, of the new secret and of the old one, so that the receiver can change
over; X-Chatwoot-Signature, which has room for one, keeps the old secret until then.`,
		Args: cobra.ArbitraryArgs,
	}
	secretFlag(cmd.Flags(), &secret)
	flagOf(cmd.Flags(), &overlap, "overlap", "DURATION", "24h", "how long the old secret signs too; 0 to end it at once", parseDuration)
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		id := c.webhookID(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			hook, err := get(cmd.Context(), hooks, id)
			if err != nil {
				return err
			}
			// The database keeps microseconds.
			until := a.now().Add(overlap).UTC().Truncate(time.Microsecond)
			hook, changed, err := change(cmd.Context(), db, hooks, hook.AccountID, id, domain.RotateSecret{Secret: orNew(secret), Until: until})
			if err != nil {
				return gone(id, err)
			}
			shown := shownWebhook{Webhook: hook, secret: hook.Secret.Reveal()}
			if format == formatJSON {
				return writeObject(a.out, withSecret, &shown)
			}
			if !changed {
				a.say(changed, id, "")
				return nil
			}
			fmt.Fprintf(a.out, "Webhook %d signs with a new secret:\n\n  %s\n\n", id, shown.secret)
			if overlap > 0 {
				fmt.Fprintf(a.out, "The old one signs too until %s.\n", until.Local().Format(thingTime))
			} else {
				fmt.Fprintln(a.out, "The old one signs no more.")
			}
			return nil
		})
	}
	return cmd
}
