package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

// defaultSearch is how many rows below the position doctor searches: a second's
// work or less.
const defaultSearch = 100_000

func (a *app) doctorCommand() *cobra.Command {
	config := postgres.DoctorConfig{Rows: defaultSearch}
	var format string
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Examine the database and the relay, and say what mends what is wrong",
		GroupID: groupRun,
		Long: `Look at the database, its settings, and how the relay does, and say what is wrong,
why it matters, and the command that mends it. It writes nothing, and ends whatever the
server does: each check has its time.

It takes a user with the role outrider_operator. Others see less, and are told what they
do not see; pg_read_all_stats shows the transactions of others besides.

Exit code 0 says that there is no problem; there may be warnings. 1 says that there is
one.`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	listFormat(flags, &format)
	flagOf(flags, &config.Timeout, "timeout", "DURATION", "5s", "how long each check may take", func(text string) (time.Duration, error) {
		d, err := parseDuration(text)
		if err == nil && d < 100*time.Millisecond {
			err = fmt.Errorf("%q is too short; 100ms is the least", text)
		}
		return d, err
	})
	flagOf(flags, &config.Rows, "rows", "N", fmt.Sprint(defaultSearch), "how many rows below the position to search for those it has passed over", parseID[int])
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		config.DSN, config.Release = conf.databaseURL, version().release
		return a.withDatabase(conf, func(db *sql.DB) error {
			return a.doctor(cmd.Context(), db, config, format)
		})
	}
	return cmd
}

var findingColumns = []column[postgres.Finding]{
	{name: "check", value: func(f *postgres.Finding) any { return f.Check }},
	{name: "state", value: func(f *postgres.Finding) any { return string(f.Health) }},
	{name: "found", value: func(f *postgres.Finding) any { return f.Found }},
	{name: "advice", value: func(f *postgres.Finding) any { return orNil(f.Advice) }},
}

func (a *app) doctor(ctx context.Context, db *sql.DB, config postgres.DoctorConfig, format string) error {
	findings := postgres.Examine(ctx, db, config)
	if err := ctx.Err(); err != nil {
		return err
	}
	if format == formatTable {
		a.showFindings(findings)
	} else if err := writeList(a, format, findingColumns, findings); err != nil {
		return err
	}
	problems := 0
	for i := range findings {
		if findings[i].Health == postgres.Problem {
			problems++
		}
	}
	if problems > 0 {
		return &failure{"doctor found " + count(problems, "problem", "problems"), ""}
	}
	return nil
}

// healthLook is how a state is shown.
var healthLook = map[postgres.Health]struct {
	sign string
	tint tint
}{
	postgres.Healthy: {"✓", good},
	postgres.Note:    {"i", faint},
	postgres.Unseen:  {"?", unknown},
	postgres.Warning: {"!", waiting},
	postgres.Problem: {"✗", bad},
}

// showFindings writes findings for people: what is wrong with what mends it
// below, and last, where a terminal ends, a line that sums it up.
func (a *app) showFindings(findings []postgres.Finding) {
	p := a.paint()
	findings = gather(findings)
	widest, counts, names := 0, map[postgres.Health]int{}, map[postgres.Health][]string{}
	for i := range findings {
		if !strings.Contains(findings[i].Check, ",") {
			widest = max(widest, len(findings[i].Check))
		}
		health := findings[i].Health
		counts[health]++
		if !slices.Contains(names[health], findings[i].Check) {
			names[health] = append(names[health], findings[i].Check)
		}
	}
	indent := strings.Repeat(" ", widest+4)
	for i := range findings {
		f := &findings[i]
		look := healthLook[f.Health]
		found := printable(f.Found)
		if f.Health == postgres.Problem || f.Health == postgres.Warning {
			found = p.as(look.tint, found)
		}
		fmt.Fprintf(a.out, "%s %s  %s\n", p.as(look.tint, look.sign), p.as(bold, fmt.Sprintf("%-*s", widest, f.Check)), found)
		if f.Advice != "" {
			fmt.Fprintf(a.out, "%s%s %s\n", indent, p.as(faint, "→"), printable(f.Advice))
		}
	}
	sum := func(h postgres.Health, one, several string) string {
		if counts[h] == 0 {
			return "no " + one
		}
		return p.as(healthLook[h].tint, fmt.Sprintf("%s (%s)", count(counts[h], one, several), strings.Join(names[h], ", ")))
	}
	fmt.Fprintf(a.out, "\n%s, %s, %s; %d in order", sum(postgres.Problem, "problem", "problems"), sum(postgres.Warning, "warning", "warnings"),
		sum(postgres.Note, "note", "notes"), counts[postgres.Healthy])
	if n := counts[postgres.Unseen]; n > 0 {
		fmt.Fprint(a.out, p.as(unknown, "; not all could be looked at"))
	}
	fmt.Fprintln(a.out)
}

// gather makes one of the checks that could not be made for the same reason.
func gather(findings []postgres.Finding) []postgres.Finding {
	var gathered []postgres.Finding
	at := map[postgres.Finding]int{}
	for _, f := range findings {
		key := postgres.Finding{Health: f.Health, Found: f.Found, Advice: f.Advice}
		if i, known := at[key]; known && f.Health == postgres.Unseen {
			gathered[i].Check += ", " + f.Check
			continue
		}
		at[key] = len(gathered)
		gathered = append(gathered, f)
	}
	return gathered
}
