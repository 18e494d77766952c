package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/chatwoot"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// What is secret comes from a file or from a variable: a flag's value would be
// seen in the list of processes.
const (
	chatwootTokenVariable    = "OUTRIDER_CHATWOOT_TOKEN" //nolint:gosec // a name
	chatwootDatabaseVariable = "OUTRIDER_CHATWOOT_DATABASE_URL"
)

// chatwootTimeout bounds each request to Chatwoot.
const chatwootTimeout = 30 * time.Second

// chatwootSource is a Chatwoot installation to import from.
type chatwootSource struct {
	base      *url.URL
	database  string
	tokenFile string
	accounts  []int64
}

func (s *chatwootSource) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flagOf(flags, &s.base, "chatwoot-url", "URL", "", "read the webhooks from Chatwoot's API there, like https://chat.example.com", func(text string) (*url.URL, error) {
		u, err := chatwoot.ParseURL(text)
		if err != nil {
			return nil, fmt.Errorf("%q %w", text, err)
		}
		return u, nil
	})
	flagOf(flags, &s.tokenFile, "token-file", "FILE", "", "file with a Chatwoot access token ["+chatwootTokenVariable+": the token itself]", anyText)
	flagOf(flags, &s.database, "chatwoot-database", "URL", "", "read the webhooks from Chatwoot's database ["+chatwootDatabaseVariable+"]", databaseText)
	flagsOf(flags, &s.accounts, "account", "N", "account to read from Chatwoot; again for more (default, of its database: all)", parseID[int64])
}

// databaseText takes the URL of a database, whose problems never quote it.
func databaseText(text string) (string, error) {
	db, err := postgres.Open(text, "") // connects to nothing
	if err != nil {
		return "", err
	}
	return text, db.Close()
}

// chosen reports whether Chatwoot is to be read: a flag says so, or the
// variable where nothing else does.
func (s *chatwootSource) chosen(a *app, c *check, args []string) bool {
	return c.given("chatwoot-url") || c.given("chatwoot-database") || c.given("token-file") || c.given("account") ||
		len(args) == 0 && a.env(chatwootDatabaseVariable) != ""
}

// reader checks what is given and gives what reads the webhooks.
func (s *chatwootSource) reader(a *app, c *check, args []string) func(context.Context) ([]description, error) {
	c.none(args)
	if !c.given("chatwoot-url") {
		if c.given("token-file") {
			c.add("--token-file is for --chatwoot-url")
		}
		if s.database == "" && !c.given("chatwoot-database") {
			if text := a.env(chatwootDatabaseVariable); text == "" {
				c.add("--account is for webhooks from Chatwoot: give --chatwoot-url, or --chatwoot-database")
			} else if _, err := databaseText(text); err != nil {
				c.add("%s: %v", chatwootDatabaseVariable, err)
			} else {
				s.database = text
			}
		}
		return func(ctx context.Context) ([]description, error) { return s.fromDatabase(ctx, a) }
	}
	if c.given("chatwoot-database") {
		c.add("--chatwoot-url and --chatwoot-database are both given")
	}
	c.need("account")
	token, err := s.token(a)
	if err != nil {
		c.add("%v", err)
	}
	return func(ctx context.Context) ([]description, error) { return s.fromAPI(ctx, a, token) }
}

func (s *chatwootSource) token(a *app) (string, error) {
	text := a.env(chatwootTokenVariable)
	if s.tokenFile != "" {
		content, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		text = string(content)
	}
	switch text = strings.TrimSpace(text); {
	case text == "":
		return "", fmt.Errorf("the access token is missing: give --token-file, or set %s", chatwootTokenVariable)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("the access token is not one: it has characters that no token has")
	}
	return text, nil
}

// fromAPI reads the accounts, and names all that cannot be read.
func (s *chatwootSource) fromAPI(ctx context.Context, a *app, token string) ([]description, error) {
	if addr, err := netip.ParseAddr(s.base.Hostname()); s.base.Scheme == "http" && s.base.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
		fmt.Fprintln(a.err, "The token and the webhooks' secrets are not encrypted on their way: the address begins with http://.")
	}
	api := chatwoot.NewAPI(s.base, token, chatwootTimeout)
	var found []description
	var refused []*chatwoot.Error
	for _, account := range s.accounts {
		hooks, err := api.Webhooks(ctx, account)
		if e, ok := errors.AsType[*chatwoot.Error](err); ok {
			if refused = append(refused, e); e.Account == 0 {
				break // of the installation: the next account would have it too
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, a.fromChatwoot(hooks)...)
	}
	switch len(refused) {
	case 0:
		return found, nil
	case 1:
		return nil, refused[0]
	}
	problems := make([]error, len(refused))
	for i, e := range refused {
		problems[i] = fmt.Errorf("%w; %s", e, e.Advice)
	}
	return nil, &refusals{problems, "nothing was imported"}
}

func (s *chatwootSource) fromDatabase(ctx context.Context, a *app) ([]description, error) {
	db, err := postgres.Open(s.database, "outrider webhook import")
	if err != nil {
		return nil, err
	}
	hooks, err := chatwoot.ReadTable(ctx, db, s.accounts)
	if err := postgres.ExplainAt(s.database, errors.Join(err, db.Close())); err != nil {
		return nil, err
	}
	return a.fromChatwoot(hooks), nil
}

// fromChatwoot describes webhooks so that Outrider sends what Chatwoot sends.
func (a *app) fromChatwoot(hooks []chatwoot.Webhook) []description {
	var found []description
	for i := range hooks {
		h := &hooks[i]
		d := description{at: fmt.Sprintf("webhook %d of account %d", h.ID, h.AccountID)}
		if h.OfInbox {
			fmt.Fprintf(a.err, "%s is passed over: it is an inbox's (webhook_type 1), to which Chatwoot sends nothing.\n", d.at)
			continue
		}
		d.AccountID, d.URL, d.Name, d.Subscriptions = domain.AccountID(h.AccountID), h.URL, h.Name, h.Subscriptions
		if h.AccountID < 1 {
			d.problem("account_id: is missing")
		}
		if len(h.Subscriptions) == 0 {
			d.problem("subscriptions: name no event: Chatwoot sends it nothing")
		}
		if h.InboxID != 0 {
			d.notes = append(d.notes, fmt.Sprintf("names inbox %d, by which Chatwoot does not filter; so the import does not either (outrider webhook update ID --inbox %d does)", h.InboxID, h.InboxID))
		}
		if h.Secret != "" {
			secret, err := domain.ParseSecret(h.Secret)
			switch {
			case errors.Is(err, domain.ErrEncryptedSecret):
				d.problem("secret: %v. %s", err, decryptAdvice)
			case err != nil:
				d.problem("secret: %v", err)
			}
			d.Secret = secret
		}
		found = append(found, d)
	}
	return found
}
