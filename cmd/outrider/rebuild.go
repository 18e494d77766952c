package main

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

// rebuildTold is how often a rebuild says how far it is.
const rebuildTold = 2 * time.Second

func (a *app) rebuildCommand() *cobra.Command {
	var check bool
	var format string
	cmd := &cobra.Command{
		Use:     "rebuild",
		Short:   "Fold the projections again from the log",
		GroupID: groupRun,
		Long: `Fold the projections again from the log and from the webhooks' history, while
relays are at work, and say what was not as those have it:

  webhook_stats, webhook_standings  what audit.webhook_stats and audit.webhook_health
                                    show; replaced
  webhooks, accounts                mended, but for secrets, which stand nowhere else
  due                               what waits; compared only: it is the relay's, which
                                    reads it anew when it is started

Hours of which the log has dropped events stay as they are. It reads the whole log
once, and takes a user with the role outrider_relay. Exit code 1 says that something
differs: with --check, or where it could not be mended.`,
		Example: `  outrider rebuild --check
  outrider rebuild`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&check, "check", false, "compare, and change nothing")
	listFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			rebuild := postgres.Rebuild{DB: db, Check: check, Now: a.now, Progress: a.tellRebuild()}
			rebuilt, err := rebuild.Run(cmd.Context())
			if errors.Is(err, postgres.ErrRebuilding) {
				return &failure{err.Error(), "wait until it is over"}
			}
			if err != nil {
				return err
			}
			if err := writeList(a, format, rebuiltColumns, rebuilt); err != nil {
				return err
			}
			return a.tellDifferences(rebuilt)
		})
	}
	return cmd
}

var rebuiltColumns = []column[postgres.Rebuilt]{
	{name: "projection", value: func(r *postgres.Rebuilt) any { return r.Projection }, shown: "projection"},
	{name: "rows", value: func(r *postgres.Rebuilt) any { return r.Rows }, shown: "rows"},
	{name: "differences", value: func(r *postgres.Rebuilt) any { return r.Differences }, shown: "differences", tint: failuresTint},
	{name: "mended", value: func(r *postgres.Rebuilt) any { return r.Mended }, shown: "mended"},
	{name: "examples", value: func(r *postgres.Rebuilt) any { return append([]string{}, r.Examples...) }},
}

// tellRebuild says from time to time how far a rebuild is, beside its result.
func (a *app) tellRebuild() func(postgres.RebuildProgress) {
	told := a.now()
	return func(p postgres.RebuildProgress) {
		now := a.now()
		if now.Sub(told) < rebuildTold {
			return
		}
		told = now
		fmt.Fprintf(a.err, "%d %% of the log read: up to event %d of %d\n", 100*p.Seq/max(1, p.LastSeq), p.Seq, p.LastSeq)
	}
}

// tellDifferences names differences, and fails where some are left.
func (a *app) tellDifferences(rebuilt []postgres.Rebuilt) error {
	left := int64(0)
	for _, r := range rebuilt {
		left += r.Differences - r.Mended
		for _, example := range r.Examples {
			fmt.Fprintf(a.err, "%s: %s\n", r.Projection, printable(example))
		}
		if more := r.Differences - int64(len(r.Examples)); more > 0 {
			fmt.Fprintf(a.err, "%s: and %d more\n", r.Projection, more)
		}
	}
	if left == 0 {
		return nil
	}
	return &failure{count(left, "row is not as the log has it", "rows are not as the log has them"), "what differs is named above; outrider rebuild mends what it can"}
}
