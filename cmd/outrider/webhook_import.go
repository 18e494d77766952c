package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// exported is a webhook as export writes it and import reads it: one object on
// one line. The order of the members is theirs here.
type exported struct {
	AccountID           domain.AccountID    `json:"account_id"`
	URL                 string              `json:"url"`
	HasCredential       bool                `json:"has_credential,omitempty"`
	Name                string              `json:"name"`
	Subscriptions       []string            `json:"subscriptions"`
	InboxID             *int64              `json:"inbox_id"`
	State               domain.WebhookState `json:"state"`
	Timeout             string              `json:"timeout"`
	MaxConcurrency      int                 `json:"max_concurrency"`
	OrderHold           string              `json:"order_hold"`
	Deadline            string              `json:"deadline"`
	Retries             []string            `json:"retries"`
	Headers             shownHeaders        `json:"headers"`
	RateLimit           *float64            `json:"rate_limit"`
	Secret              string              `json:"secret,omitempty"`
	PreviousSecret      string              `json:"previous_secret,omitempty"`
	PreviousSecretUntil *time.Time          `json:"previous_secret_until,omitempty"`
}

// export gives a webhook's form. Without its secrets, userinfo among them, it
// says that there is one; of headers it gives the names.
func export(hook *domain.Webhook, secrets bool, now time.Time) exported {
	s := &hook.Settings
	e := exported{
		AccountID: hook.AccountID, URL: s.URL, Name: s.Name, Subscriptions: s.Subscriptions, State: hook.State,
		Timeout: s.Timeout.String(), MaxConcurrency: s.MaxConcurrency, OrderHold: holdText(s.OrderHold),
		Deadline: s.Deadline.String(), Retries: retriesText(s.Retries), Headers: showHeaders(hook.Headers, secrets),
	}
	if s.InboxID != 0 {
		e.InboxID = &s.InboxID
	}
	if s.RateLimit != 0 {
		e.RateLimit = &s.RateLimit
	}
	switch {
	case hook.Credential.IsZero():
	case secrets:
		if u, err := url.Parse(s.URL); err == nil { // it was parsed when it was registered
			name, password, _ := strings.Cut(hook.Credential.Reveal(), ":")
			u.User = url.UserPassword(name, password)
			e.URL = u.String()
		}
	default:
		e.HasCredential = true
	}
	if secrets {
		e.Secret = hook.Secret.Reveal()
		if hook.PreviousUntil.After(now) && !hook.PreviousSecret.IsZero() {
			e.PreviousSecret, e.PreviousSecretUntil = hook.PreviousSecret.Reveal(), &hook.PreviousUntil
		}
	}
	return e
}

func (a *app) webhookExport() *cobra.Command {
	var account domain.AccountID
	var secrets bool
	var file string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write webhooks as JSON Lines, for import",
		Long: `Write webhooks as JSON Lines, one object for each, as "outrider webhook import" reads
them. Secrets, the values of headers, and user and password of a URL are left out
unless --with-secrets asks for them, which goes on record for each webhook: an import
keeps what it already has of them, and draws a new secret for a webhook that is new to
it.`,
		Example: "  outrider webhook export --with-secrets --output webhooks.jsonl",
		Args:    cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &account, "account", "N", "", "only this account's", parseAccount)
	cmd.Flags().BoolVar(&secrets, "with-secrets", false, "write the secrets too")
	flagOf(cmd.Flags(), &file, "output", "FILE", "", "write a new file that only its owner may read (default: standard output)", anyText)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withWebhooks(cmd.Context(), conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
			read := hooks.List
			if secrets {
				read = func(ctx context.Context, account domain.AccountID) ([]domain.Webhook, error) {
					return revealAll(ctx, db, hooks, account)
				}
			}
			found, err := read(cmd.Context(), account)
			if err == nil {
				err = unreadable(found) // or an import would not bring all
			}
			if err != nil {
				return err
			}
			var lines bytes.Buffer
			for i := range found {
				if err := encode(&lines, export(&found[i], secrets, a.now())); err != nil {
					return err
				}
				lines.WriteByte('\n')
			}
			if file == "" {
				if secrets && a.width() > 0 {
					fmt.Fprintln(a.err, "These lines have secrets: they stay in the terminal's memory. --output writes them to a file that only you may read.")
				}
				_, err = a.out.Write(lines.Bytes())
				return err
			}
			if err := writeNew(file, lines.Bytes()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "%s.\n", count(len(found), "webhook is in "+file, "webhooks are in "+file))
			return nil
		})
	}
	return cmd
}

// revealAll reads the webhooks of an account, 0 for all, once it is on record
// for each that its secrets were shown.
func revealAll(ctx context.Context, db *sql.DB, hooks *postgres.Webhooks, account domain.AccountID) ([]domain.Webhook, error) {
	by, err := actor(ctx, db)
	if err != nil {
		return nil, err
	}
	revealed, err := hooks.ChangeAll(ctx, postgres.WebhookSelection{AccountID: account}, by, domain.RevealSecret{})
	found := make([]domain.Webhook, len(revealed))
	for i := range revealed {
		found[i] = revealed[i].After
	}
	return found, err
}

// writeNew writes a file that must not be there yet: the mode of one that is
// would stay what it was.
func writeNew(name string, content []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the file that the user names
	if errors.Is(err, os.ErrExist) {
		return &failure{name + " is there already", "name another file, or remove it: it is not overwritten"}
	}
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

// description is a webhook to import, with where it was described.
type description struct {
	// at is the place in the source: "line 3", or "webhook 41 of account 7".
	at string
	postgres.WebhookImport
	problems []string
	// notes are what its owner should know.
	notes []string
}

func (d *description) problem(format string, args ...any) {
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// importFields reads the members of a line.
var importFields = map[string]func(*description, json.RawMessage) error{
	"account_id": func(d *description, raw json.RawMessage) error {
		if member(raw, &d.AccountID, "") == nil && d.AccountID == domain.OperatorAccount {
			return nil
		}
		return idMember(raw, &d.AccountID, "a number of 1 or more")
	},
	"url": func(d *description, raw json.RawMessage) error { return member(raw, &d.URL, "text") },
	"has_credential": func(d *description, raw json.RawMessage) error {
		return member(raw, &d.CredentialWithheld, "true or false")
	},
	"name": func(d *description, raw json.RawMessage) error { return optional(raw, &d.Name, "text") },
	"subscriptions": func(d *description, raw json.RawMessage) error {
		return member(raw, &d.Subscriptions, "a list of event names")
	},
	"inbox_id": func(d *description, raw json.RawMessage) error {
		d.InboxID = new(int64)
		if string(raw) == "null" {
			return nil // of all inboxes
		}
		return idMember(raw, d.InboxID, "null (all inboxes), or a number of 1 or more")
	},
	"state": func(d *description, raw json.RawMessage) (err error) {
		var text string
		if err = member(raw, &text, "text"); err == nil {
			d.State, err = parseNewState(text)
		}
		return err
	},
	"timeout":    func(d *description, raw json.RawMessage) error { return durationMember(raw, &d.Timeout, parseDuration) },
	"order_hold": func(d *description, raw json.RawMessage) error { return durationMember(raw, &d.OrderHold, parseHold) },
	"max_concurrency": func(d *description, raw json.RawMessage) error {
		return optional(raw, &d.MaxConcurrency, "a number")
	},
	"deadline": func(d *description, raw json.RawMessage) error {
		return durationMember(raw, &d.Deadline, parseDuration)
	},
	"retries": func(d *description, raw json.RawMessage) error { return retriesMember(raw, &d.Retries) },
	"headers": func(d *description, raw json.RawMessage) error { return headersMember(raw, &d.Headers) },
	"rate_limit": func(d *description, raw json.RawMessage) error {
		d.RateLimit = new(float64)
		if string(raw) == "null" {
			return nil // no limit
		}
		return member(raw, d.RateLimit, "null (no limit), or a number")
	},
	"secret":          func(d *description, raw json.RawMessage) error { return secretMember(raw, &d.Secret) },
	"previous_secret": func(d *description, raw json.RawMessage) error { return secretMember(raw, &d.PreviousSecret) },
	"previous_secret_until": func(d *description, raw json.RawMessage) error {
		return member(raw, &d.PreviousUntil, "a time like 2026-07-01T12:00:00Z")
	},
}

// member reads a JSON value. No problem quotes it: it may be a secret in the
// wrong place.
func member[T any](raw json.RawMessage, dest *T, kind string) error {
	if err := json.Unmarshal(raw, dest); err != nil {
		return errors.New("is not " + kind)
	}
	return nil
}

func optional[T any](raw json.RawMessage, dest **T, kind string) error {
	*dest = new(T)
	return member(raw, *dest, kind)
}

func idMember[T ~int64](raw json.RawMessage, dest *T, kind string) error {
	if err := member(raw, dest, kind); err != nil || *dest < 1 {
		return errors.New("is not " + kind)
	}
	return nil
}

func durationMember(raw json.RawMessage, dest **time.Duration, parse func(string) (time.Duration, error)) error {
	var text string
	if err := member(raw, &text, `text like "30s"`); err != nil {
		return err
	}
	d, err := parse(text)
	*dest = &d
	return err
}

func secretMember(raw json.RawMessage, dest *domain.Secret) error {
	text := ""
	if len(raw) > 0 && raw[0] == '{' {
		text = string(raw) // an envelope that was not taken for text
	} else if err := member(raw, &text, "text"); err != nil || text == "" {
		return err
	}
	secret, err := domain.ParseSecret(text)
	if errors.Is(err, domain.ErrEncryptedSecret) {
		return errors.New(err.Error() + ". " + decryptAdvice)
	}
	*dest = secret
	return err
}

// decryptAdvice is how to come by secrets that Rails has encrypted.
const decryptAdvice = `Read them from Chatwoot's API (--chatwoot-url), or have Chatwoot write them: ` + railsExport

// railsExport makes Chatwoot itself write what import reads.
const railsExport = `bundle exec rails runner 'Webhook.account_type.find_each { |w| puts w.slice(:account_id, :url, :name, :subscriptions, :secret).compact.to_json }' | outrider webhook import -`

func parseNewState(text string) (domain.WebhookState, error) {
	state, err := oneOf(string(domain.WebhookEnabled), string(domain.WebhookPaused), string(domain.WebhookDisabled))(text)
	return domain.WebhookState(state), err
}

// readLines reads descriptions from JSON Lines. Blank lines are passed over.
func readLines(in io.Reader) ([]description, error) {
	var found []description
	lines := bufio.NewReader(in)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")) // a mark that some editors write
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			found = append(found, describe(fmt.Sprintf("line %d", n), line))
		}
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, err
		}
	}
}

// describe reads one object.
func describe(at string, object []byte) description {
	d := description{at: at}
	var members map[string]json.RawMessage
	switch {
	case object[0] == '[':
		d.problem("is a list; write one webhook on each line (jq -c '.[]' does that)")
		return d
	case json.Unmarshal(object, &members) != nil:
		d.problem("is not one JSON object")
		return d
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		read, known := importFields[name]
		switch {
		case !known:
			d.problem("%s: there is no such member; there are: %s", printable(name), strings.Join(slices.Sorted(maps.Keys(importFields)), ", "))
		case string(members[name]) == "null" && name != "inbox_id" && name != "retries" && name != "rate_limit":
		default:
			if err := read(&d, members[name]); err != nil {
				d.problem("%s: %v", name, err)
			}
		}
	}
	if d.AccountID == 0 && !d.has("account_id: ") {
		d.problem("account_id: is missing")
	}
	if !d.PreviousSecret.IsZero() && (d.Secret.IsZero() || d.PreviousUntil.IsZero()) {
		d.problem("previous_secret: wants secret and previous_secret_until beside it")
	}
	return d
}

func (d *description) has(prefix string) bool {
	return slices.ContainsFunc(d.problems, func(p string) bool { return strings.HasPrefix(p, prefix) })
}

// judge adds what the domain says against each description, and URLs that are
// there twice: without a database, so that all is known before the first is
// written.
func judge(descriptions []description) {
	first := map[string]string{}
	for i := range descriptions {
		d := &descriptions[i]
		_, err := domain.DecideWebhook(domain.Webhook{AccountID: d.AccountID}, withoutWithheld(d.ImportWebhook))
		if invalid, ok := errors.AsType[*domain.InvalidSettingsError](err); ok {
			for _, problem := range invalid.Problems {
				if name, _, _ := strings.Cut(problem, ": "); !d.has(name + ": ") {
					d.problem("%s", problem)
				}
			}
		}
		shown, _, err := domain.ParseWebhookURL(d.URL, d.Addresses)
		if err != nil {
			continue
		}
		key := fmt.Sprint(d.AccountID, " ", shown)
		if other, again := first[key]; again {
			d.problem("url: is the same as in %s: an account has a URL once, whatever user and password are in it", other)
		} else {
			first[key] = d.at
		}
	}
}

// withoutWithheld leaves the question open that only the database answers:
// whether what was left out, a credential or the value of a header, is there.
func withoutWithheld(c domain.ImportWebhook) domain.ImportWebhook {
	c.CredentialWithheld = false
	c.Headers = slices.DeleteFunc(slices.Clone(c.Headers), func(h domain.Header) bool { return h.Value.IsZero() })
	return c
}

// importResult is what became of a description, for the list.
type importResult struct {
	description *description
	*postgres.Imported
}

// The results of an import.
const (
	importCreated   = "created"
	importUpdated   = "updated"
	importUnchanged = "unchanged"
	importRefused   = "refused"
)

func (r *importResult) result() string {
	switch {
	case r.Refused != nil || r.Imported == nil:
		return importRefused
	case r.Before.State == domain.WebhookNone:
		return importCreated
	case r.Changed():
		return importUpdated
	default:
		return importUnchanged
	}
}

var importColumns = []column[importResult]{
	{name: "at", value: func(r *importResult) any { return r.description.at }, shown: "at"},
	{name: "result", value: func(r *importResult) any { return r.result() }, shown: "result", tint: func(text string) tint {
		return map[string]tint{importCreated: good, importUpdated: good, importRefused: bad}[text]
	}},
	{name: "id", value: func(r *importResult) any { return orNil(r.After.ID) }, shown: "id"},
	{name: "account_id", value: func(r *importResult) any { return r.description.AccountID }, shown: "account"},
	{name: "url", value: func(r *importResult) any { return r.After.Settings.URL }, shown: "url", flexible: true},
	{name: "state", value: func(r *importResult) any { return r.After.State }, shown: "state", tint: stateTint},
	{name: "changed", value: func(r *importResult) any { return r.changed() }, shown: "changed", flexible: true},
}

// changed names what an update changed.
func (r *importResult) changed() []string {
	if r.result() != importUpdated {
		return []string{}
	}
	return domain.Differences(r.Before, r.After)
}

// importFlags are how an import is to go.
type importFlags struct {
	state       domain.WebhookState
	format      string
	dryRun      bool
	skipRefused bool
}

func (a *app) webhookImport() *cobra.Command {
	var f importFlags
	var source chatwootSource
	cmd := &cobra.Command{
		Use:   "import (FILE | --chatwoot-url URL --account N ... | --chatwoot-database URL)",
		Short: "Register and update webhooks from JSON Lines, or from Chatwoot",
		Long: `Register and update webhooks from a file of JSON Lines, or from standard input where
FILE is -: one object for each webhook, as "outrider webhook export" writes them, with
account_id and url, and whatever else is to be said.

Or from Chatwoot: by its API, with the access token of an administrator of the
accounts, which a file has or the variable ` + chatwootTokenVariable + `; or from the
table webhooks of its database, which is only read. Its URL may be in the variable
` + chatwootDatabaseVariable + `, a password in a .pgpass file.

A webhook that the account has with this URL is brought in line; what the source does
not say stays as it is. The same import again changes nothing. All are judged before
the first is written, and all are written together or not at all.`,
		Example: `  outrider webhook import webhooks.jsonl --dry-run
  outrider webhook import --chatwoot-url https://chat.example.com --account 1 --account 2 --token-file token.txt --state disabled
  outrider webhook import --chatwoot-database postgres://reader@localhost/chatwoot_production --state disabled`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	source.addTo(cmd)
	flagOf(flags, &f.state, "state", "STATE", "", "make new webhooks enabled, paused or disabled, whatever the source says; those that are there keep their state", parseNewState)
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would change, and change nothing")
	flags.BoolVar(&f.skipRefused, "skip-refused", false, "import the others where some are refused")
	allowCIDRs.addTo(flags)
	listFormat(flags, &f.format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		var read func(context.Context) ([]description, error)
		if source.chosen(a, c, args) {
			read = source.reader(a, c, args)
		} else if name := c.one(args, "the FILE of webhooks (- for standard input), or --chatwoot-url, or --chatwoot-database"); name != "" {
			read = func(context.Context) ([]description, error) { return a.readImport(name) }
		}
		if err := c.err(); err != nil {
			return err
		}
		descriptions, err := read(cmd.Context())
		if err != nil {
			return err
		}
		return a.importAll(cmd.Context(), conf, descriptions, f)
	}
	return cmd
}

// readImport reads a file, or standard input.
func (a *app) readImport(name string) ([]description, error) {
	if name == "-" {
		return readLines(a.in)
	}
	file, err := os.Open(name) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, err
	}
	descriptions, err := readLines(file)
	return descriptions, errors.Join(err, file.Close())
}

// importAll judges descriptions, imports them and tells what became of each.
func (a *app) importAll(ctx context.Context, conf config, descriptions []description, f importFlags) error {
	now := a.now().UTC().Truncate(time.Microsecond) // what the database keeps
	for i := range descriptions {
		d := &descriptions[i]
		d.Addresses, d.NewState, d.At, d.Fresh = domain.AddressPolicy{Allow: conf.allow}, f.state, now, orNew(domain.Secret{})
	}
	judge(descriptions)
	var fit []*description
	for i := range descriptions {
		if len(descriptions[i].problems) == 0 {
			fit = append(fit, &descriptions[i])
		}
	}
	if len(fit) < len(descriptions) && !f.skipRefused {
		return refusal(descriptions)
	}
	return a.withWebhooks(ctx, conf, func(db *sql.DB, hooks *postgres.Webhooks) error {
		actor, err := actor(ctx, db)
		if err != nil {
			return err
		}
		imports := make([]postgres.WebhookImport, len(fit))
		for i, d := range fit {
			imports[i] = d.WebhookImport
		}
		imported, err := hooks.Import(ctx, actor, imports, postgres.ImportMode{DryRun: f.dryRun, SkipRefused: f.skipRefused})
		if err != nil {
			return err
		}
		for i := range imported {
			if imported[i].Refused != nil {
				fit[i].problem("%v", imported[i].Refused)
			}
			if f.dryRun && imported[i].Before.State == domain.WebhookNone {
				imported[i].After.ID = 0
			}
		}
		if err := refusal(descriptions); err != nil && !f.skipRefused {
			return err
		}
		return a.tellImport(descriptions, fit, imported, f)
	})
}

// refusal lists all that is wrong with descriptions.
func refusal(descriptions []description) error {
	var problems []error
	refused := 0
	for i := range descriptions {
		for _, problem := range descriptions[i].problems {
			problems = append(problems, fmt.Errorf("%s: %s", descriptions[i].at, problem))
		}
		if len(descriptions[i].problems) > 0 {
			refused++
		}
	}
	if refused == 0 {
		return nil
	}
	advice := "nothing was imported"
	if fit := len(descriptions) - refused; fit > 0 {
		advice += fmt.Sprintf("; %s can be: --skip-refused leaves the rest out", count(fit, "webhook", "webhooks"))
	}
	return &refusals{problems, advice}
}

// refusals are what is wrong with what was to be imported.
type refusals struct {
	problems []error
	advice   string
}

// Error joins the problems.
func (e *refusals) Error() string { return errors.Join(e.problems...).Error() }

// tellImport lists what became of each webhook, and what its owner should know.
func (a *app) tellImport(descriptions []description, fit []*description, imported []postgres.Imported, f importFlags) error {
	results := make([]importResult, len(descriptions))
	next := 0
	for i := range descriptions {
		d := &descriptions[i]
		results[i] = importResult{d, &postgres.Imported{Refused: domain.ErrInvalidSettings}}
		if next < len(fit) && fit[next] == d {
			results[i].Imported = &imported[next]
			next++
		}
	}
	if err := writeList(a, f.format, importColumns, results); err != nil {
		return err
	}
	counts := map[string]int{}
	for i := range results {
		r := &results[i]
		counts[r.result()]++
		for _, problem := range r.description.problems {
			fmt.Fprintf(a.err, "%s is refused: %s\n", r.description.at, printable(problem))
		}
		for _, note := range r.description.notes {
			fmt.Fprintf(a.err, "%s: %s\n", r.description.at, printable(note))
		}
		switch drawn := r.result() == importCreated && r.description.Secret.IsZero(); {
		case drawn && f.dryRun:
			fmt.Fprintf(a.err, "%s: it comes without a secret; a new one will be drawn, which its receiver needs\n", r.description.at)
		case drawn:
			fmt.Fprintf(a.err, "%s: it came without a secret; a new one was drawn, which its receiver needs: outrider webhook show %d --reveal-secret\n", r.description.at, r.After.ID)
		}
	}
	if f.format == formatTable {
		of, tense := "Imported", "."
		if f.dryRun {
			of, tense = "Would import", ". Nothing was changed."
		}
		fmt.Fprintf(a.out, "\n%s %s: %d created, %d updated, %d unchanged, %d refused%s\n", of,
			count(len(results), "webhook", "webhooks"), counts[importCreated], counts[importUpdated], counts[importUnchanged], counts[importRefused], tense)
	}
	if counts[importRefused] > 0 {
		return &failure{count(counts[importRefused], "webhook was", "webhooks were") + " refused", "the others are imported; what is wrong is above"}
	}
	return nil
}

// actor is who runs the program, for the history.
func actor(ctx context.Context, db *sql.DB) (string, error) {
	name, err := postgres.SessionUser(ctx, db)
	if err != nil {
		return "", err
	}
	if me, err := user.Current(); err == nil {
		name += "@" + me.Username
	}
	return name, nil
}
