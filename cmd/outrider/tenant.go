package main

import (
	"database/sql"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) tenantCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "tenant",
		Short:   "Let roles see the history of one account",
		GroupID: groupConfigure,
		Long: `Let roles of the database see the history of one account, through the views of the
schema audit: SELECT * FROM audit.deliveries gives a tenant what is of its account,
and nothing of others.

An administrator makes the role: CREATE ROLE acme LOGIN PASSWORD '…' IN ROLE
outrider_tenant. These commands take a user with the role outrider_operator.`,
	})
	cmd.AddCommand(a.tenantAddCommand(), a.tenantListCommand(), a.tenantRemoveCommand())
	return cmd
}

func (a *app) tenantAddCommand() *cobra.Command {
	var account domain.AccountID
	cmd := &cobra.Command{
		Use:   "add ROLE --account N",
		Short: "Bind a role to an account",
		Long: `Bind a role to the account whose history it sees, from its next query on. The role
must be a member of outrider_tenant, and of no group that sees all accounts.`,
		Example: `  outrider tenant add acme --account 1`,
		Args:    cobra.ArbitraryArgs,
	}
	flagOf(cmd.Flags(), &account, "account", "N", "", "the account", parseID[domain.AccountID])
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		role := c.one(args, "the role")
		c.need("account")
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			sight, err := postgres.SightOf(cmd.Context(), db, role)
			quoted := postgres.RoleName(role)
			switch {
			case err != nil:
				return err
			case sight == postgres.SeesNoRole:
				return &failure{fmt.Sprintf("there is no role %q", role),
					fmt.Sprintf("let an administrator make it: CREATE ROLE %s LOGIN PASSWORD '…' IN ROLE outrider_tenant", quoted)}
			case sight == postgres.SeesNoGroup:
				return &failure{fmt.Sprintf("role %q is not a member of outrider_tenant, so it could read nothing", role),
					"as an administrator: GRANT outrider_tenant TO " + quoted}
			case sight == postgres.SeesAllAnyway:
				return &failure{fmt.Sprintf("role %q sees all accounts: it is a superuser, the owner of the schema, or a member of outrider_auditor, outrider_operator, outrider_relay or outrider_web", role),
					"bind a role that is none of these"}
			}
			bound, err := postgres.BindTenant(cmd.Context(), db, role, account)
			switch {
			case err != nil:
				return err
			case bound != account:
				return &failure{fmt.Sprintf("role %q is bound to account %d already", role, bound), "take that back first: outrider tenant remove " + role}
			}
			fmt.Fprintf(a.out, "Role %q sees the history of account %d.\n", role, account)
			return nil
		})
	}
	return cmd
}

var tenantColumns = []column[postgres.Tenant]{
	{name: "role", value: func(t *postgres.Tenant) any { return t.Role }, shown: "role", flexible: true},
	{name: "account_id", value: func(t *postgres.Tenant) any { return t.AccountID }, shown: "account"},
	{name: "sees", value: func(t *postgres.Tenant) any { return string(t.Sees) }, shown: "sees", flexible: true, tint: func(text string) tint {
		if text == string(postgres.SeesAccount) {
			return good
		}
		return bad
	}},
}

func (a *app) tenantListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List who is bound to which account, and what comes of it",
		Args:  cobra.ArbitraryArgs,
	}
	listFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			tenants, err := postgres.Tenants(cmd.Context(), db)
			if err != nil {
				return err
			}
			return writeList(a, format, tenantColumns, tenants)
		})
	}
	return cmd
}

func (a *app) tenantRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove ROLE",
		Short: "Take a binding back",
		Long: `Take a binding back: the role sees nothing from its next query on. Do so before a
role is dropped, since the next role of its name would have the binding.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		role := c.one(args, "the role")
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			found, err := postgres.UnbindTenant(cmd.Context(), db, role)
			switch {
			case err != nil:
				return err
			case !found:
				return &failure{fmt.Sprintf("role %q is bound to no account", role), "outrider tenant list shows those that are"}
			}
			fmt.Fprintf(a.out, "Role %q sees nothing any more.\n", role)
			return nil
		})
	}
	return cmd
}
