package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// devOptions are the flags of `outrider dev`.
type devOptions struct {
	dir    string
	rate   float64
	demo   bool
	events int
}

// The defaults of `outrider dev`, and of its demo.
const (
	devRate    = 20
	demoRate   = 400
	demoEvents = 2000

	// demoLeast: with fewer events there may be no POST in flight in the
	// middle, for the relay to be killed at.
	demoLeast = 100
)

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:     "dev",
		Short:   "Run everything on this machine, with sample traffic",
		GroupID: groupRun,
		Long: `Run everything on this machine until Ctrl-C: a private PostgreSQL from the server
binaries that are installed, a relay, a chat system that inserts events of three
accounts, a receiver for their webhooks, which checks every signature, and the pages,
with a token to log in with. Of the webhooks some answer well, one slowly, one
sometimes and one never.

With --demo it ends by itself: it commits a number of events, kills its relay
with SIGKILL in the middle, while POSTs are under way, starts it again, and shows
what became of every event. It fails if a promise was not kept.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := flagCheck(cmd)
			c.none(args)
			if !o.demo && c.given("events") {
				c.add("--events is for --demo")
			}
			if err := c.err(); err != nil {
				return err
			}
			if o.demo && !c.given("rate") {
				o.rate = demoRate
			}
			return a.dev(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flagOf(flags, &o.dir, "dir", "DIR", "", "keep the database in this folder (default: a temporary one)", anyText)
	flagOf(flags, &o.rate, "rate", "N", strconv.Itoa(devRate), "chat events a second; with --demo the default is "+strconv.Itoa(demoRate), parseRate)
	flags.BoolVar(&o.demo, "demo", false, "commit some events, kill the relay in the middle, show what became of them, end")
	flagOf(flags, &o.events, "events", "N", strconv.Itoa(demoEvents), "how many events the demo commits", parseDemoEvents)
	return cmd
}

// flagCheck lists what is wrong with the flags. It reads no settings: the
// database is its own.
func flagCheck(cmd *cobra.Command) *check {
	c := &check{cmd: cmd}
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if v, ok := flag.Value.(judged); ok && v.wrong() != nil {
			c.add("%v", v.wrong())
		}
	})
	return c
}

func parseRate(text string) (float64, error) {
	rate, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(rate) || rate < 0.1 || rate > 100_000 {
		return 0, fmt.Errorf("%q is not a number from 0.1 to 100000", text)
	}
	return rate, nil
}

func parseDemoEvents(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < demoLeast || n > 1_000_000 {
		return 0, fmt.Errorf("%q is not a number from %d to 1000000", text, demoLeast)
	}
	return n, nil
}

// dev runs everything, and stops it again whatever happens.
func (a *app) dev(ctx context.Context, o devOptions) error {
	s := &sandbox{app: a, options: o, live: newLiveLine(a)}
	err := s.open(ctx)
	if err == nil {
		if o.demo {
			err = newDemo(s).run(ctx)
		} else {
			err = s.stayUp(ctx)
		}
	}
	s.live.clear()
	interrupted := ctx.Err() != nil
	if err != nil && !interrupted {
		s.showLogs(a.err)
	}
	closed := s.close()
	if interrupted && closed == nil {
		s.say("Everything is stopped.")
	}
	switch {
	case interrupted && o.demo:
		return context.Canceled
	case interrupted || err == nil:
		return closed
	default:
		return err
	}
}

// stayUp tells what is there and counts what goes on, until ctx ends.
func (s *sandbox) stayUp(ctx context.Context) error {
	s.describe()
	playing, stop := context.WithCancel(ctx)
	defer stop()
	played := make(chan error, 1)
	go func() { played <- s.traffic.Run(playing) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-played:
			if err != nil {
				return fmt.Errorf("the sample traffic: %w", err)
			}
			return nil // ctx has ended
		case <-s.relay.exited:
			if err := s.revive(ctx); err != nil {
				stop()
				return errors.Join(err, <-played)
			}
		case <-s.web.ended:
			s.web.ended = nil
			s.say("The pages have ended (%v); their log is %s.", s.web.process.failure(), s.web.log)
		case <-ticker.C:
			s.live.show(s.counts(), 10*time.Second)
		}
	}
}

// revive starts the relay again: somebody killed it, to see what happens.
func (s *sandbox) revive(ctx context.Context) error {
	s.say("The relay has ended (%v); a new one is started.", s.relay.failure())
	if err := s.startRelay(); err != nil {
		return err
	}
	down := time.Now()
	if err := s.awaitActive(ctx); err != nil {
		return err
	}
	s.say("The new relay, pid %d, took over after %s. Attempts that the old one left open become unknown, and are repeated.",
		s.relay.pid(), seconds(time.Since(down)))
	return nil
}

// counts is the live line.
func (s *sandbox) counts() string {
	sum := s.received()
	line := fmt.Sprintf("%s events inserted   %s POSTs   %s delivered   %s failed   %d in flight",
		grouped(s.traffic.Counts().Committed), grouped(sum.Requests), grouped(sum.Succeeded), grouped(sum.Failed+sum.Abandoned), sum.InFlight)
	if sum.Forged > 0 {
		line += fmt.Sprintf("   %s bad signatures", grouped(sum.Forged))
	}
	return line
}

// describe tells how to look into what runs.
func (s *sandbox) describe() {
	data := "removed at the end; --dir keeps it"
	if s.options.dir != "" {
		data = "kept in " + s.server.Dir()
	}
	s.say("Everything runs until Ctrl-C.")
	s.heading("Parts")
	s.facts(append([][2]string{
		{"PostgreSQL", fmt.Sprintf("%s, %s", s.server.Version(), data)},
		{"", "psql '" + s.dsn + "'"},
		{"Relay", s.relayURL + "/readyz, its log is " + s.relayLog},
		{"", fmt.Sprintf("kill -9 %d kills it: it is started again, and nothing is lost", s.relay.pid())},
		{"Traffic", fmt.Sprintf("%g events a second into outbox.events", s.options.rate)},
		{"Receiver", "checks the signatures of every POST"},
	}, s.web.facts()...))
	s.heading("Webhooks")
	t := s.table("account", "", "webhook", "url", "answers")
	for _, h := range s.hooks {
		t.add(cell(strconv.FormatInt(h.account.ID, 10)), cell(h.account.Name), cell(strconv.FormatInt(int64(h.id), 10)), cell(s.receiver.URL(h.path)), cell(h.answers))
	}
	t.write()
	s.heading("Insert an event of your own, and see what becomes of it")
	s.say(`  INSERT INTO outbox.events (account_id, event, payload)
  VALUES (1, 'message_created', '{"id": 1, "content": "Hello", "conversation": {"id": 900001}}');

  SELECT status, attempt_count, last_status_code, completed_at, url
    FROM audit.deliveries WHERE account_id = 1 AND ordering_key = 'conversation:900001';`)
	s.heading("For outrider webhook, audit and replay in another terminal")
	s.say("  export OUTRIDER_DATABASE_URL='%s' OUTRIDER_ALLOW_CIDRS=%s\n", s.dsn, loopback)
}
