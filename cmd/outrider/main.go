// Command outrider relays chat events from an outbox table to webhooks, and
// shows what became of each.
//
// This package is flags and wiring; each file is a command. Exit codes: 0 done,
// 1 failed, 2 wrong usage.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/outrider-relay/outrider/adapters/chatwoot"
	"github.com/outrider-relay/outrider/adapters/postgres"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(newApp().run(ctx, os.Args[1:]))
}

// app is the program with what it gets from the process: tests give their own.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	now      func() time.Time
	// width is the terminal's that out is, 0 where it is none; asks says that
	// in is one, so that a question can be answered.
	width func() int
	asks  bool
	// errWidth is the terminal's that err is.
	errWidth func() int
}

func newApp() *app {
	return &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, now: time.Now,
		width:    func() int { return widthOf(os.Stdout) },
		errWidth: func() int { return widthOf(os.Stderr) },
		asks:     term.IsTerminal(int(os.Stdin.Fd())),
	}
}

// widthOf is a terminal's, 0 for what is none.
func widthOf(file *os.File) int {
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// The groups of commands in the help.
const (
	groupRun       = "run"
	groupConfigure = "configure"
	groupHistory   = "history"
)

func (a *app) root() *cobra.Command {
	root := parent(&cobra.Command{
		Use:   "outrider",
		Short: "Relay chat events from an outbox table to webhooks",
		Long: `Outrider relays chat events to webhooks. A chat system inserts a row into
outbox.events in its own transaction; Outrider signs and POSTs it to the webhooks
of the account, and keeps every decision and every attempt on record.`,
		Version: version().text(),
	})
	root.SetVersionTemplate("outrider {{.Version}}\n")
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err.Error()+meantFlag(cmd.Flags(), err)) })
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupConfigure, Title: "Configure:"},
		&cobra.Group{ID: groupHistory, Title: "Look back, and send again:"},
	)
	root.PersistentFlags().String(configFlag, "", "file of settings, YAML [OUTRIDER_CONFIG]")
	databaseURL.addTo(root.PersistentFlags())
	root.AddCommand(
		a.serveCommand(),
		a.webCommand(),
		a.devCommand(),
		a.benchCommand(),
		a.migrateCommand(),
		a.relaysCommand(),
		a.doctorCommand(),
		a.rebuildCommand(),
		a.adoptCommand(),
		a.retainCommand(),
		a.eraseCommand(),
		a.uninstallCommand(),
		a.webhookCommand(),
		a.tenantCommand(),
		a.tokenCommand(),
		a.auditCommand(),
		a.replayCommand(),
		a.verifyCommand(),
		a.versionCommand(),
	)
	root.InitDefaultCompletionCmd() // cobra adds it later, and the README is checked before
	complete(root)
	return root
}

// run carries out a command line and gives the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would take the process's
	return a.report(root.ExecuteContext(ctx))
}

// parent makes a command that only has others below it. cobra would show the
// help for an unknown one and call that a success.
func parent(cmd *cobra.Command) *cobra.Command {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = mostTypos
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("unknown command %q", args[0])
		return usage(cmd, text+didYouMean(cmd.SuggestionsFor(args[0])))
	}
	return cmd
}

// mostTypos is how many letters a word may be away from what was meant.
const mostTypos = 2

// didYouMean ends a message about a word that there is not: with those like it, if
// any.
func didYouMean(like []string) string {
	if len(like) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(like, " or ") + "?"
}

// usageError is a command line, environment or file that cannot be used: all
// that is wrong with it.
type usageError struct {
	problems []string
	advice   string
}

// Error joins the problems.
func (e *usageError) Error() string { return strings.Join(e.problems, "; ") }

func usage(cmd *cobra.Command, problems ...string) error {
	return &usageError{problems, "how it is used: " + cmd.CommandPath() + " --help"}
}

// failure is an error with an advice.
type failure struct{ problem, advice string }

// Error gives the problem.
func (e *failure) Error() string { return e.problem }

// report writes an error for people and gives the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitDone
	}
	problems, advice, code := []string{err.Error()}, "", exitFailed
	if e, ok := errors.AsType[*usageError](err); ok {
		problems, advice, code = e.problems, e.advice, exitUsage
	} else if e, ok := errors.AsType[*failure](err); ok {
		advice = e.advice
	} else if e, ok := errors.AsType[*chatwoot.Error](err); ok {
		problems, advice = []string{e.Problem}, e.Advice
	} else if e, ok := errors.AsType[*refusals](err); ok {
		problems, advice = problems[:0], e.advice
		for _, problem := range e.problems {
			problems = append(problems, problem.Error())
		}
	} else if e, ok := errors.AsType[*postgres.Error](err); ok {
		problems, advice = []string{e.Problem}, e.Advice
	} else if errors.Is(err, context.Canceled) {
		problems = []string{"interrupted"}
	}
	for _, problem := range problems {
		fmt.Fprintf(a.err, "outrider: %s\n", printable(problem))
	}
	if advice != "" {
		fmt.Fprintf(a.err, "  %s\n", printable(advice))
	}
	return code
}

// withDatabase connects to the configured database for one command.
func (a *app) withDatabase(c config, do func(*sql.DB) error) error {
	db, err := postgres.Open(c.databaseURL, "outrider")
	if err != nil {
		return err
	}
	err = do(db)
	return postgres.ExplainAt(c.databaseURL, errors.Join(err, db.Close()))
}
