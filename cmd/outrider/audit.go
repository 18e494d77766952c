package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := parent(&cobra.Command{
		Use:     "audit",
		Short:   "See what became of events",
		GroupID: groupHistory,
		Long: `See what became of events, from the views of the schema audit, which SQL can read as
well: audit.events, audit.deliveries, audit.attempts, audit.webhook_changes, audit.gaps.

It takes a user with the role outrider_auditor. Lists are newest first; --follow
shows what is new as it comes, oldest first.`,
	})
	cmd.AddCommand(
		auditList(a, a.eventListing()),
		auditList(a, a.deliveryListing()),
		auditList(a, a.attemptListing()),
		auditList(a, a.changeListing()),
		a.auditGaps(),
		a.auditTrace(),
		a.auditVerify(),
		a.auditHeads(),
		a.auditHealth(),
		a.auditStats(),
		a.auditExport(),
	)
	return cmd
}

// listing is what the lists of the audit differ in.
type listing[T any] struct {
	list        audit.List
	short, long string
	filters     filterKinds
	columns     []column[T]
	// table shows records to people, where that is not a table of the columns.
	table func(records []T) error
	read  func(*postgres.Audit, context.Context, audit.Filter, *audit.Cursor) (audit.Page[T], error)

	follow func(*postgres.Audit, context.Context, audit.Filter) (postgres.Following[T], error)
	// followed says what --follow shows, never which statuses it never sees.
	followed string
	never    []string
}

const (
	defaultLimit = 100
	maxLimit     = 10_000
)

func auditList[T any](a *app, l listing[T]) *cobra.Command {
	var filter audit.Filter
	var after *audit.Cursor
	var format string
	var follow bool
	cmd := &cobra.Command{Use: string(l.list), Short: l.short, Long: l.long, Args: cobra.ArbitraryArgs}
	flags := cmd.Flags()
	a.filterFlags(flags, &filter, l.filters)
	flagOf(flags, &filter.Limit, "limit", "N", strconv.Itoa(defaultLimit), fmt.Sprintf("at most so many, up to %d", maxLimit), parseLimit)
	flagOf(flags, &after, "after", "CURSOR", "", "go on behind a page: what it ended with", parseCursor(l.list))
	flags.BoolVar(&follow, "follow", false, "show what is new until Ctrl-C: "+l.followed)
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		c.filter(&filter)
		if follow {
			c.following(&filter, l.filters, l.never)
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			history := postgres.NewAudit(db)
			if follow {
				return followList(cmd.Context(), a, history, l, filter, format)
			}
			page, err := l.read(history, cmd.Context(), filter, after)
			if err != nil {
				return err
			}
			if format == formatTable && l.table != nil && len(page.Records) > 0 {
				err = l.table(page.Records)
			} else {
				err = writeList(a, format, l.columns, page.Records)
			}
			if err != nil {
				return err
			}
			a.sayMore(page.Searched, page.Next)
			return nil
		})
	}
	return cmd
}

// following notes what --follow cannot be combined with.
func (c *check) following(filter *audit.Filter, k filterKinds, never []string) {
	for _, flag := range []string{"after", "limit", "since", "until"} {
		if c.given(flag) {
			c.add("--%s is for lists, and --follow shows what is new", flag)
		}
	}
	if slices.Contains(never, filter.Status) {
		c.add("--%s: %s is none that --follow shows", k.statusFlag(), filter.Status)
	}
}

// sayMore says how to read on, beside the list.
func (a *app) sayMore(searched int, next *audit.Cursor) {
	if next == nil {
		return
	}
	if searched > 0 {
		fmt.Fprintf(a.err, "Stopped after a look at %s; ", grouped(searched))
	}
	fmt.Fprintf(a.err, "more with: --after %s\n", next)
}

func parseLimit(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", text, maxLimit)
	}
	return n, nil
}

func parseCursor(list audit.List) func(string) (*audit.Cursor, error) {
	return func(text string) (*audit.Cursor, error) {
		cursor, err := audit.ParseCursor(list, text)
		return &cursor, err
	}
}

func idOrNil(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id.String()
}

// unless gives nil where a value has no meaning.
func unless(meaningless bool, v any) any {
	if meaningless {
		return nil
	}
	return v
}
