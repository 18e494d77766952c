package main

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) auditVerify() *cobra.Command {
	var selected postgres.VerifyRange
	var heads, format string
	var public ed25519.PublicKey
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Recompute the seals of the history, and say what was changed",
		Long: `Recompute the seals of the history and compare them with what is there: an entry that
was changed, added or taken away does not fit its seal, and a seal that was changed does
not fit the next one. It names the entry where it can, else the group commit.

With --heads it also checks that the newest seals of some time ago are still there: only
that shows that the end was cut off, or that all was written anew. Take a copy that was
kept away from the database, and the public key from whoever signed it.

A partition that was dropped is not wrong; it says how many entries are gone. Changes of
webhooks and replays are verified in whole, whatever the range.

It takes a user with the role outrider_auditor. Exit code 0 says that all is as it was
written, 1 that something is not.`,
		Example: `  outrider audit verify
  outrider audit verify --since 24h
  outrider audit verify --heads heads.json --public-key MCowBQYDK2VwAyEA…`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &selected.Since, "since", "TIME", "", "only what was written from then on: RFC 3339, or 2h for two hours ago", a.parseTime)
	flagOf(flags, &selected.Until, "until", "TIME", "", "only what was written before", a.parseTime)
	flagOf(flags, &selected.From, "from", "COMMIT", "", "only from this group commit on", parseID[int64])
	flagOf(flags, &selected.To, "to", "COMMIT", "", "only up to this group commit", parseID[int64])
	flagOf(flags, &heads, "heads", "FILE", "", "check that these heads are in it: what audit heads printed", anyText)
	flagOf(flags, &public, "public-key", "KEY", "", "the key that the heads must be signed by, in base64", parsePublicKey)
	thingFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if c.given("heads") != c.given("public-key") {
			c.add("--heads and --public-key go together: a signature proves nothing without a key from elsewhere")
		}
		if err := c.err(); err != nil {
			return err
		}
		var kept *domain.Heads
		if heads != "" {
			var err error
			if kept, err = readHeads(heads, public); err != nil {
				return err
			}
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			return a.verifySeals(cmd.Context(), postgres.NewAudit(db), selected, kept, format)
		})
	}
	return cmd
}

// sealsReport is what a verification shows.
type sealsReport struct {
	postgres.Verification
	heads *domain.Heads
}

var sealsColumns = []column[sealsReport]{
	{name: "verified", value: func(r *sealsReport) any { return r.Found == 0 }},
	{name: "from_commit", value: func(r *sealsReport) any { return r.From }},
	{name: "to_commit", value: func(r *sealsReport) any { return r.To }},
	{name: "seals", value: func(r *sealsReport) any { return r.Seals }},
	{name: "entries", value: func(r *sealsReport) any { return r.Entries }},
	{name: "changes", value: func(r *sealsReport) any { return r.Changes }},
	{name: "dropped_entries", value: func(r *sealsReport) any { return r.Dropped }},
	{name: "dropped_from_event_seq", value: func(r *sealsReport) any { return unless(r.Dropped == 0, r.DroppedFrom) }},
	{name: "dropped_to_event_seq", value: func(r *sealsReport) any { return unless(r.Dropped == 0, r.DroppedTo) }},
	{name: "heads_at", value: func(r *sealsReport) any {
		if r.heads == nil {
			return nil
		}
		return r.heads.At
	}},
	{name: "flaws_found", value: func(r *sealsReport) any { return r.Found }},
	{name: "flaws", value: func(r *sealsReport) any { return append([]postgres.Flaw{}, r.Flaws...) }},
}

var flawColumns = []column[postgres.Flaw]{
	{name: "chain", value: func(f *postgres.Flaw) any { return f.Chain }, shown: "chain"},
	{name: "seal", value: func(f *postgres.Flaw) any { return orNil(f.Seal) }, shown: "seal"},
	{name: "commit", value: func(f *postgres.Flaw) any { return orNil(f.Commit) }, shown: "commit"},
	{name: "event_seq", value: func(f *postgres.Flaw) any { return orNil(f.EventSeq) }, shown: "event seq"},
	{name: "webhook_id", value: func(f *postgres.Flaw) any { return orNil(f.WebhookID) }, shown: "webhook"},
	{name: "replay_id", value: func(f *postgres.Flaw) any { return orNil(f.ReplayID) }, shown: "replay"},
	{name: "version", value: func(f *postgres.Flaw) any { return orNil(f.Version) }, shown: "version"},
	{name: "problem", value: func(f *postgres.Flaw) any { return f.Problem }, shown: "problem", flexible: true},
}

func (a *app) verifySeals(ctx context.Context, history *postgres.Audit, selected postgres.VerifyRange, heads *domain.Heads, format string) error {
	live := &liveLine{out: a.err, width: a.errWidth, printed: time.Now()}
	if live.width == nil {
		live.width = func() int { return 0 }
	}
	found, err := history.Verify(ctx, selected, func(done, all int64) {
		live.show(fmt.Sprintf("%d %% of %s read", 100*done/max(all, 1), count(all, "entry", "entries")), 10*time.Second)
	})
	live.clear()
	if err != nil {
		return err
	}
	report := sealsReport{found, heads}
	if heads != nil {
		missing, err := history.CompareHeads(ctx, heads.Heads)
		if err != nil {
			return err
		}
		report.Flaws, report.Found = append(missing, report.Flaws...), report.Found+len(missing)
	}
	if format == formatJSON {
		err = writeObject(a.out, sealsColumns, &report)
	} else {
		err = a.showSeals(&report)
	}
	if err == nil && report.Found > 0 {
		err = &failure{
			"the history is not as it was written: " + count(report.Found, "flaw", "flaws"),
			"change nothing in the database before it is copied; what the entries were is in a backup, and who could write there is told by the server's log",
		}
	}
	return err
}

func (a *app) showSeals(r *sealsReport) error {
	p := a.paint()
	commits := ""
	if r.Seals > 0 {
		commits = fmt.Sprintf(", commits %d to %d", r.From, r.To)
	}
	if r.Found == 0 {
		fmt.Fprintf(a.out, "%s %s in %s%s, and %s of webhooks and replays are as they were written.\n", p.as(good, succeeded),
			count(r.Entries, "entry", "entries"), count(r.Seals, "seal", "seals"), commits, count(r.Changes, "change", "changes"))
	} else {
		if err := writeTable(a, flawColumns, r.Flaws); err != nil {
			return err
		}
		if more := r.Found - len(r.Flaws); more > 0 {
			fmt.Fprintf(a.out, "… and %d more.\n", more)
		}
		fmt.Fprintf(a.out, "\n%s in %s were read%s.\n", count(r.Entries, "entry", "entries"), count(r.Seals, "seal", "seals"), commits)
	}
	if r.Dropped > 0 {
		fmt.Fprintf(a.out, "  %s of the events %d to %d are gone with their partitions. Compare that with what is kept.\n", count(r.Dropped, "entry", "entries"), r.DroppedFrom, r.DroppedTo)
	}
	switch {
	case r.heads == nil:
		fmt.Fprintln(a.out, "  Whether the end was cut off is shown by heads that were kept elsewhere: see outrider audit heads --help.")
	case r.Found == 0:
		fmt.Fprintf(a.out, "  The heads of %s are in it.\n", r.heads.At.Local().Format(thingTime))
	}
	return nil
}
