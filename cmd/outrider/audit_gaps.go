package main

import (
	"database/sql"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

var gapColumns = []column[postgres.GapRecord]{
	{name: "inserted_at", value: func(g *postgres.GapRecord) any { return orNever(g.InsertedAt) }, shown: "inserted"},
	{name: "seq", value: func(g *postgres.GapRecord) any { return g.Seq }, shown: "seq"},
	{name: "event_id", value: func(g *postgres.GapRecord) any { return idOrNil(g.EventID) }, shown: "event id"},
	{name: "account_id", value: func(g *postgres.GapRecord) any { return g.AccountID }, shown: "account"},
	{name: "event", value: func(g *postgres.GapRecord) any { return g.Event }, shown: "event", flexible: true},
}

// defaultLook is how many places are looked at: some seconds' work.
const defaultLook = 1_000_000

func (a *app) auditGaps() *cobra.Command {
	var account domain.AccountID
	var look int64
	var format string
	cmd := &cobra.Command{
		Use:   "gaps",
		Short: "Find events that are committed and were never routed",
		Long: `Find events that are committed and were never routed, though the relay's position is
past them, oldest first. There are none, unless rows were restored or the position
was moved by hand. What merely waits is in: outrider audit events --status waiting.

Exit code 1 says that there are some.`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &account, "account", "N", "", "only of this account", parseAccount)
	flagOf(flags, &look, "rows", "N", strconv.Itoa(defaultLook), "look at about so many rows, from the position down; all for all", parseRows)
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			var gaps []postgres.GapRecord
			n := 0
			search, err := postgres.NewAudit(db).Gaps(cmd.Context(), account, look, func(g postgres.GapRecord) error {
				n++
				if n <= maxLimit {
					gaps = append(gaps, g)
				}
				return nil
			})
			if err != nil {
				return err
			}
			slices.Reverse(gaps)
			return a.tellGaps(format, gaps, n, search)
		})
	}
	return cmd
}

func (a *app) tellGaps(format string, gaps []postgres.GapRecord, n int, search postgres.GapSearch) error {
	where := fmt.Sprintf("from seq %s up", grouped(int(search.Lowest)))
	if search.Whole {
		where = "in all of the outbox"
	}
	if n == 0 {
		if format == formatTable {
			fmt.Fprintf(a.out, "No gaps %s.\n", where)
			return nil
		}
		return writeList(a, format, gapColumns, gaps)
	}
	if err := writeList(a, format, gapColumns, gaps); err != nil {
		return err
	}
	if n > len(gaps) {
		fmt.Fprintf(a.err, "These are the newest %s of them.\n", grouped(len(gaps)))
	}
	return &failure{
		fmt.Sprintf("%s committed and never routed, %s", count(n, "event is", "events are"), where),
		"outrider doctor prints the statement that puts them in once more",
	}
}

func parseRows(text string) (int64, error) {
	if text == "all" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf(`%q is neither a number of 1 or more nor "all"`, text)
	}
	return n, nil
}
