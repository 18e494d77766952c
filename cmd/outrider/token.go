package main

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "token",
		Short:   "Let people and programs in to the pages and APIs of outrider web",
		GroupID: groupConfigure,
		Long: `Let people and programs in to the pages and APIs of outrider web. A token is for one
account or for all, and has a role:

  viewer         sees webhooks, without their secrets, and the history
  operator       also pauses, enables and tests webhooks, and replays
  administrator  also adds, changes and deletes webhooks, and sees their secrets

These commands take a user with the role outrider_operator.`,
	})
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

// shownToken is a token in a list and, where it was made just now, its text.
type shownToken struct {
	postgres.Token
	state, text string
}

var tokenColumns = []column[shownToken]{
	{name: "token_id", value: func(t *shownToken) any { return t.TokenID }, shown: "id"},
	{name: "name", value: func(t *shownToken) any { return t.Name }, shown: "name", flexible: true},
	{name: "account_id", value: func(t *shownToken) any { return orNil(t.AccountID) }},
	{name: "accounts", value: func(t *shownToken) any { return accountsOf(t.AccountID) }, shown: "account"},
	{name: "role", value: func(t *shownToken) any { return t.Role }, shown: "role"},
	{name: "state", value: func(t *shownToken) any { return t.state }, shown: "state", tint: func(text string) tint {
		if text == postgres.TokenStates[0] {
			return good
		}
		return bad
	}},
	{name: "created_by", value: func(t *shownToken) any { return t.CreatedBy }, shown: "created by", flexible: true},
	{name: "created_at", value: func(t *shownToken) any { return t.CreatedAt }},
	{name: "expires_at", value: func(t *shownToken) any { return orNever(t.ExpiresAt) }, shown: "expires"},
	{name: "revoked_at", value: func(t *shownToken) any { return orNever(t.RevokedAt) }, shown: "revoked"},
	{name: "last_used_at", value: func(t *shownToken) any { return orNever(t.LastUsedAt) }, shown: "last used"},
}

// accountsOf says which accounts a token is for.
func accountsOf(account domain.AccountID) string {
	switch account {
	case 0:
		return "all"
	case domain.OperatorAccount:
		return operatorAccount
	}
	return strconv.FormatInt(int64(account), 10)
}

func parseRole(text string) (domain.Role, error) {
	words := make([]string, len(domain.Roles))
	for i, role := range domain.Roles {
		words[i] = string(role)
	}
	word, err := oneOf(words...)(text)
	return domain.Role(word), err
}

func parseTokenName(text string) (string, error) {
	if err := domain.CheckTokenName(text); err != nil {
		return "", fmt.Errorf("the name %w", err)
	}
	return text, nil
}

// longestToken keeps the time of a token's end within what PostgreSQL and JSON
// write.
const longestToken = 100 * 365 * 24 * time.Hour

func parseExpiry(text string) (time.Duration, error) {
	d, err := parseDuration(text)
	if err == nil && (d == 0 || d > longestToken) {
		err = fmt.Errorf("%q is not within 1s to 36500d; a token without it lasts until it is revoked", text)
	}
	return d, err
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var access domain.Access
	var all bool
	var expiresIn time.Duration
	var format string
	cmd := &cobra.Command{
		Use:   "create --account N|--all-accounts --role ROLE --name NAME",
		Short: "Make a token",
		Long: `Make a token and print it. It is shown this once: what is kept is its SHA-256, which
nobody can turn back. The history names a token by its number and name.`,
		Example: `  outrider token create --account 7 --role administrator --name "CRM sync"
  outrider token create --all-accounts --role viewer --name "wall display" --expires-in 30d`,
		Args: cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &access.AccountID, "account", "N", "", "the account it is for", parseAccount)
	cmd.Flags().BoolVar(&all, "all-accounts", false, "it is for all accounts, the operator's among them")
	flagOf(cmd.Flags(), &access.Role, "role", "ROLE", "", "what its holder may do: viewer, operator or administrator", parseRole)
	flagOf(cmd.Flags(), &access.Name, "name", "NAME", "", "who or what it is for", parseTokenName)
	flagOf(cmd.Flags(), &expiresIn, "expires-in", "DURATION", "", "after how long it lets in no more, like 30d (default: when it is revoked)", parseExpiry)
	thingFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		c.need("role", "name")
		if c.given("account") == all {
			c.add("give either --account or --all-accounts")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			var expires time.Time
			if expiresIn > 0 {
				expires = a.now().Add(expiresIn)
			}
			tokens := postgres.NewTokens(db)
			id, text, err := tokens.Create(cmd.Context(), access, expires)
			if err != nil {
				return err
			}
			access.TokenID = id
			shown := shownToken{postgres.Token{Access: access, ExpiresAt: expires.UTC()}, postgres.TokenStates[0], text}
			if format == formatJSON {
				return writeObject(a.out, newTokenColumns, &shown)
			}
			fmt.Fprintf(a.out, "Token %d is made. It is shown this once:\n\n  %s\n\n", id, text)
			writeThing(a, tokenColumns[1:6], &shown)
			if !expires.IsZero() {
				fmt.Fprintf(a.out, "  %s  %s\n", a.paint().as(faint, "expires"), expires.Local().Format(thingTime))
			}
			return nil
		})
	}
	return cmd
}

// newTokenColumns are what is known of a token that is made at this moment, and
// its text.
var newTokenColumns = []column[shownToken]{
	tokenColumns[0], tokenColumns[1], tokenColumns[2], tokenColumns[4], tokenColumns[8],
	{name: "token", value: func(t *shownToken) any { return t.text }},
}

func (a *app) tokenListCommand() *cobra.Command {
	var account domain.AccountID
	var all bool
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens that let in, and when each was last used",
		Args:  cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &account, "account", "N", "", "only those for this account alone", parseAccount)
	cmd.Flags().BoolVar(&all, "all", false, "also those that are revoked or expired")
	listFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			tokens, err := postgres.NewTokens(db).List(cmd.Context(), account)
			if err != nil {
				return err
			}
			shown := make([]shownToken, 0, len(tokens))
			for i := range tokens {
				if state := tokens[i].State(a.now()); all || state == postgres.TokenStates[0] {
					shown = append(shown, shownToken{tokens[i], state, ""})
				}
			}
			return writeList(a, format, tokenColumns, shown)
		})
	}
	return cmd
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a token and the sessions that were opened with it",
		Long: `End a token: it lets in no more from the next request on, and whoever logged in with
it is logged out. There is no way back.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		var id domain.TokenID
		if text := c.one(args, "the token's ID"); text != "" {
			var err error
			if id, err = parseID[domain.TokenID](text); err != nil {
				c.add("the token's ID: %v", err)
			}
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			revoked, err := postgres.NewTokens(db).Revoke(cmd.Context(), id)
			switch {
			case errors.Is(err, domain.ErrNoToken):
				return &failure{fmt.Sprintf("there is no token %d", id), "outrider token list --all shows those there are"}
			case err != nil:
				return err
			case revoked:
				fmt.Fprintf(a.out, "Token %d is revoked.\n", id)
			default:
				fmt.Fprintf(a.out, "Nothing changes: token %d is revoked already.\n", id)
			}
			return nil
		})
	}
	return cmd
}
