package main

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/migrations"
)

func (a *app) migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "migrate",
		Short:   "Bring the database to this version's schema",
		GroupID: groupRun,
		Long: `Bring the database to the schema that this version needs: the schemas outbox,
relay and audit, and the roles outrider_producer, outrider_relay,
outrider_operator, outrider_auditor, outrider_tenant and outrider_web, which are groups
without login, and outrider_views, which the views of the history belong to.

It takes a user that may create schemas in the database and roles, or finds the
roles made and is a member of outrider_views; no superuser. Running it again, or
several times at once, does no harm. The schema only goes forward.

Relays work and producers insert meanwhile. It waits for a lock no longer than 2 s
at a time, and so does whoever comes behind it; then it says who is in its way and
tries again, for 10 minutes.`,
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
				var said string
				err = postgres.Migrate(cmd.Context(), db, migrations.Up, func(held error) {
					if text := held.Error(); text != said {
						said = text
						fmt.Fprintf(a.err, "Waiting: %s.\n", text)
					}
				})
				if errors.Is(err, postgres.ErrHeld) {
					return &failure{"not all is migrated: " + err.Error(), "let their transactions end, or stop them, then run this again; what is applied already stays so"}
				}
				if err != nil {
					return err
				}
				after, err := migrations.Current(cmd.Context(), db)
				switch {
				case err != nil:
					return err
				case after > migrations.Version:
					fmt.Fprintf(a.out, "The schema is at version %d, newer than this binary's %d, which works on it: nothing to do.\n", after, migrations.Version)
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
