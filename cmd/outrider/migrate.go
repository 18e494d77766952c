package main

import (
	"database/sql"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/migrations"
)

func (a *app) migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "migrate",
		Short:   "Bring the database to this version's schema",
		GroupID: groupRun,
		Long: `Bring the database to the schema that this version needs: the schemas outbox,
relay and audit, and the roles outrider_producer, outrider_relay,
outrider_operator, outrider_auditor and outrider_tenant, which are groups without
login, and outrider_views, which the views of the history belong to.

It takes a user that may create schemas in the database and roles, or finds the
roles made and is a member of outrider_views; no superuser. Running it again, or
several times at once, does no harm. The schema only goes forward.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, c := a.check(cmd)
			c.none(args)
			if err := c.err(); err != nil {
				return err
			}
			return a.withDatabase(conf, func(db *sql.DB) error {
				before, err := migrations.Current(cmd.Context(), db)
				if err != nil {
					return err
				}
				if err := migrations.Up(cmd.Context(), db); err != nil {
					return err
				}
				after, err := migrations.Current(cmd.Context(), db)
				switch {
				case err != nil:
					return err
				case before == after:
					fmt.Fprintf(a.out, "The schema is at version %d already.\n", after)
				case before == 0:
					fmt.Fprintf(a.out, "The schema is made, at version %d.\n", after)
				default:
					fmt.Fprintf(a.out, "The schema went from version %d to %d.\n", before, after)
				}
				return nil
			})
		},
	}
}
