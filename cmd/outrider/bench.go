package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/bench"
	"github.com/outrider-relay/outrider/adapters/postgres"
)

// benchOptions are the flags of `outrider bench`.
type benchOptions struct {
	workloads   []string
	repetitions int
	format      string
	quick       bool
	check       bool
	compare     bool
	show        string
	// iKnow: the given database may hold data that no bench wrote.
	iKnow bool
}

// benchRepetitions is the default, of which the median is taken.
const benchRepetitions = 5

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "Measure how fast it is on this machine, and what it costs the database",
		GroupID: groupRun,
		Long: `Measure what a relay does, next to a bare HTTP client that makes the same POSTs
over as many connections to the same receiver, and next to a bare table. Relay,
receiver and client are processes of their own.

Without a database it starts a private PostgreSQL, with fsync on, from the server
binaries that are installed, and removes it in the end. It takes about half an hour
and 15 GB of disk. The figures of a busy machine mean nothing: let it do nothing
else. Workloads h, j, k and l run only where they are named: writing the history of h
takes some ten minutes more, and 20 GB; j takes three minutes, k two, l twenty.

With a database, by --database-url or OUTRIDER_DATABASE_URL, it measures there what
needs no history and no second database. It writes as accounts 900000000000 to
900000000049, with webhooks of its own that it deletes in the end. What it wrote
stays, since the log is only added to: give it a database that you can drop. It
refuses one with other data, unless --i-know, and one on which a relay is at work.

--compare OLD.json NEW.json shows two reports next to each other, and --show
REPORT.json one, made by --format json.

Workloads:
` + benchTitles(),
		Annotations: map[string]string{databaseOptional: "true"},
		Args:        cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, c := a.check(cmd)
			if o.compare {
				if len(args) != 2 {
					c.add("--compare takes two reports: OLD.json NEW.json")
				}
			} else {
				c.none(args)
			}
			if o.compare && o.format == formatMarkdown {
				c.add("--format markdown is for one report")
			}
			if o.iKnow && conf.databaseURL == "" {
				c.add("--i-know is for a database of yours: give --database-url")
			}
			if o.quick && !c.given("repetitions") {
				o.repetitions = 1
			}
			if len(o.workloads) == 0 {
				o.workloads = bench.Names
			}
			if err := c.err(); err != nil {
				return err
			}
			switch {
			case o.compare:
				return a.compareBench(o, args[0], args[1])
			case o.show != "":
				report, err := readBench(o.show)
				if err != nil {
					return err
				}
				return errors.Join(a.showBench(o, report), shortOf(o, report))
			}
			return postgres.ExplainAt(conf.databaseURL, a.bench(cmd.Context(), conf, o))
		},
	}
	flags := cmd.Flags()
	flagsOf(flags, &o.workloads, "workload", "NAME", "only these, as a,b (default: a to g, and i)", oneOf(bench.AllNames...))
	flagOf(flags, &o.repetitions, "repetitions", "N", strconv.Itoa(benchRepetitions), "how often each is measured; the medians count", parseRepetitions)
	flagOf(flags, &o.format, "format", "FORMAT", formatTable, "table, json (one object) or markdown (a table for a document)", oneOf(formatTable, formatJSON, formatMarkdown))
	flags.BoolVar(&o.quick, "quick", false, "do everything small, to see that it works; the figures mean nothing")
	flags.BoolVar(&o.check, "check", false, "exit 1 if a bound is not kept")
	flags.BoolVar(&o.compare, "compare", false, "measure nothing: compare the reports OLD.json NEW.json")
	flags.StringVar(&o.show, "show", "", "measure nothing: show the report in this `FILE`")
	flags.BoolVar(&o.iKnow, "i-know", false, "measure on the given database although it holds data that no bench wrote")
	cmd.AddCommand(a.benchReceiverCommand(), a.benchClientCommand())
	return cmd
}

func benchTitles() string {
	var text strings.Builder
	for _, name := range bench.AllNames {
		fmt.Fprintf(&text, "  %s  %s\n", name, bench.Titles[name])
	}
	return strings.TrimRight(text.String(), "\n")
}

func parseRepetitions(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 100 {
		return 0, fmt.Errorf("%q is not a number from 1 to 100", text)
	}
	return n, nil
}

// bench measures, and shows what was found.
func (a *app) bench(ctx context.Context, conf config, o benchOptions) error {
	begun := a.now()
	live := &liveLine{out: a.err, width: a.errWidth}
	if live.width == nil {
		live.width = func() int { return 0 }
	}
	rig := &benchRig{app: a, live: live, dsn: conf.databaseURL, iKnow: o.iKnow, quick: o.quick}
	report, err := rig.measure(ctx, o)
	live.clear()
	if closeErr := rig.close(); err == nil {
		err = closeErr
	}
	if report != nil && len(report.Workloads) > 0 {
		report.Seconds = a.now().Sub(begun).Seconds()
		err = errors.Join(a.showBench(o, report), err)
	}
	if err != nil {
		return err
	}
	return shortOf(o, report)
}

// shortOf is the error of --check.
func shortOf(o benchOptions, report *bench.Report) error {
	if shortfalls := report.Shortfalls(); o.check && len(shortfalls) > 0 {
		return &refusals{problems: asErrors(shortfalls), advice: "these bounds were not kept; on a machine that does something else at the same time they may not be"}
	}
	return nil
}

func asErrors(texts []string) []error {
	list := make([]error, len(texts))
	for i, text := range texts {
		list[i] = errors.New(text)
	}
	return list
}

// showBench writes a report.
func (a *app) showBench(o benchOptions, report *bench.Report) error {
	switch o.format {
	case formatJSON:
		return a.writeJSON(report)
	case formatMarkdown:
		a.benchMarkdown(report)
	default:
		a.benchTable(report)
	}
	return nil
}

// formatMarkdown is a table for a document.
const formatMarkdown = "markdown"

func (a *app) writeJSON(thing any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(thing)
}

// benchReceiverCommand is the receiver's process.
func (a *app) benchReceiverCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "receiver", Hidden: true, Args: cobra.NoArgs,
		Short: "Be the receiver of a bench",
		RunE: func(cmd *cobra.Command, _ []string) error {
			listener, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "outrider bench receiver listen=%s\n", listener.Addr())
			return bench.NewReceiver().Serve(cmd.Context(), listener)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", anyPort, "address to listen on")
	return cmd
}

// benchClientCommand is the bare client's process.
func (a *app) benchClientCommand() *cobra.Command {
	var client bench.Client
	cmd := &cobra.Command{
		Use: "client", Hidden: true, Args: cobra.NoArgs,
		Short: "Be the bare client of a bench",
		RunE:  func(cmd *cobra.Command, _ []string) error { return client.Post(cmd.Context()) },
	}
	cmd.Flags().StringVar(&client.URL, "url", "", "the receiver")
	cmd.Flags().IntVar(&client.Run, "run", 0, "number of the receiver's run")
	cmd.Flags().IntVar(&client.Count, "count", 0, "how many POSTs to make")
	cmd.Flags().IntVar(&client.Connections, "connections", 1, "connections to keep busy")
	return cmd
}

// measure makes the rig and runs the workloads on it.
func (b *benchRig) measure(ctx context.Context, o benchOptions) (*bench.Report, error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	report := &bench.Report{
		Outrider: version().text(), At: b.app.now().UTC().Truncate(time.Second), Quick: o.quick, Repetitions: o.repetitions,
		Machine: benchMachine(),
	}
	var err error
	if report.Database, err = b.describe(ctx); err != nil {
		return nil, err
	}
	run := bench.Run{
		Rig: b, Receiver: &bench.ReceiverAt{URL: b.receiverURL}, Repetitions: o.repetitions, Quick: o.quick,
		Progress: b.progress,
	}
	report.Workloads, err = run.Do(ctx, slices.Compact(slices.Sorted(slices.Values(o.workloads))))
	return report, err
}

func (b *benchRig) progress(p bench.Progress) {
	line := p.Workload
	if p.Repetition > 0 {
		line += fmt.Sprintf(" · %d of %d", p.Repetition, p.Repetitions)
	}
	line += " · " + p.Step
	if p.All > 0 {
		line += fmt.Sprintf(" %s %s of %s", bar(p.Done, p.All), grouped(p.Done), grouped(p.All))
	}
	const quiet = 15 * time.Second // between lines where there is no terminal
	b.live.show(line, quiet)
}

// programPath is this very binary.
func programPath() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}
