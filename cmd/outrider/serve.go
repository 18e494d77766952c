package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/tracing"
	"github.com/outrider-relay/outrider/migrations"
	"github.com/outrider-relay/outrider/relay"
)

var (
	listenOn = &setting{
		key: "listen", usage: "address of /healthz, /readyz and /metrics (default 127.0.0.1:7580)",
		set: func(c *config, text string) error {
			if _, _, err := net.SplitHostPort(text); err != nil {
				return fmt.Errorf("%q is not an address; write it like 127.0.0.1:7580 or :7580", text)
			}
			c.listen = text
			return nil
		},
	}
	relayNamed = &setting{
		key: "relay_name", usage: "what tells this relay from others (default: the host's name)",
		set: func(c *config, text string) error {
			const longest = 200
			if len(text) > longest {
				return fmt.Errorf("%d characters are too long; %d are accepted", len(text), longest)
			}
			c.relayName = text
			return nil
		},
	}
	maxInFlight = &setting{
		key: "max_in_flight", usage: fmt.Sprintf("how many POSTs it may have under way at once (default %d)", relay.DefaultInFlight),
		set: func(c *config, text string) error {
			const most = 65536
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > most {
				return fmt.Errorf("%q is not a number from 1 to %d", text, most)
			}
			c.maxInFlight = n
			return nil
		},
	}
)

// disableAfter is how long a webhook may do nothing but fail.
var disableAfter = &setting{
	key: "disable_after", usage: "after how long of nothing but failure a webhook is disabled, like 5d, or " + never + " (default 5d)",
	set: func(c *config, text string) error {
		if text == never {
			c.disableAfter = -1
			return nil
		}
		after, err := parseDuration(text)
		switch {
		case err != nil:
			return fmt.Errorf("%q is not a duration; write it like 5d or 36h, or %s", text, never)
		case after < shortestDisable:
			return fmt.Errorf("%s is too short; the shortest is 1h", text)
		}
		c.disableAfter = after
		return nil
	},
}

const (
	never           = "never"
	shortestDisable = time.Hour
)

// defaultListen is private: the end points tell strangers nothing useful.
const defaultListen = "127.0.0.1:7580"

// A relay has 2 MB in use at 3,000 events/s, and 30 MB and a thousand stacks where it
// meets a backlog. The collector lets the heap grow in proportion: what bounds the
// memory of the latter has the former collected 16 times a second. So ballast counts
// as in use, and is never touched: there is no memory behind it. The variable GOGC
// says otherwise.
const (
	ballast   = 32 << 20
	gcPercent = 65
)

func (a *app) serveCommand() *cobra.Command {
	var noSend, unsafe, expose bool
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Relay, sharing the work with the other relays of the database",
		GroupID: groupRun,
		Long: `Tail the outbox, route each event, make the POSTs, and keep all on record.

Several may run on one database, and two or more should: each sends to a part of
the webhooks, one of them routes for all, and when one stops or dies the others
have its part at once, or within 4 s. "outrider relays" shows who has what. SIGTERM
stops: no new work is taken, attempts under way are finished and recorded.

/healthz answers 200 while the process lives; /readyz answers 200 while it has a
part of the work or is there to take one, else 503 and why; /metrics is for
Prometheus.

With --retain-payloads, --retain-responses or --retain-log it erases what has reached
that age, as outrider retain does; by default all is kept for ever.

It never migrates: run "outrider migrate" before. The database user must be a
member of outrider_relay.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, c := a.check(cmd)
			c.none(args)
			checkPprof(c, conf, expose)
			traced, problems := tracingAsked(a.env)
			for _, problem := range problems {
				c.add("%s", problem)
			}
			ages, problems := conf.ages()
			c.problems = append(c.problems, problems...)
			if err := c.err(); err != nil {
				return err
			}
			if conf.listen == "" {
				conf.listen = defaultListen
			}
			if conf.relayName == "" {
				conf.relayName = relayName()
			}
			if a.env("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
				held := make([]byte, ballast)
				defer runtime.KeepAlive(&held)
			}
			logger := slog.New(slog.NewTextHandler(a.err, nil))
			var tracer *tracing.Tracer
			if traced {
				var err error
				tracer, err = tracing.New(cmd.Context(), tracing.Config{Version: version().release, Name: conf.relayName, Logger: logger})
				if err != nil {
					return err
				}
			}
			assembly, err := assemble(relayOptions{
				dsn: conf.databaseURL, name: conf.relayName, version: version().release, maxInFlight: conf.maxInFlight, disableAfter: conf.disableAfter,
				allow: conf.allow, retain: ages, noSend: noSend, unsafe: unsafe, tracer: tracer, logger: logger,
			})
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), conf, assembly)
		},
	}
	flags := cmd.Flags()
	allowCIDRs.addTo(flags)
	listenOn.addTo(flags)
	relayNamed.addTo(flags)
	maxInFlight.addTo(flags)
	disableAfter.addTo(flags)
	pprofOn.addTo(flags)
	flags.BoolVar(&expose, exposeFlag, false, "accept an address of --pprof-listen that other machines may reach")
	retainPayloads.addTo(flags)
	retainResponses.addTo(flags)
	retainLog.addTo(flags)
	flags.BoolVar(&noSend, "no-send", false, "route and record, but make no POST: deliveries stay pending, and a relay without this flag sends them, also one beside it, unless their webhooks were disabled meanwhile")
	flags.BoolVar(&unsafe, "allow-unsafe", false, "accept a server with fsync = off, which may lose commits in a crash")
	if err := flags.MarkHidden("allow-unsafe"); err != nil {
		panic(err) // the flag is two lines above
	}
	return cmd
}

// serve runs the relay and its end points until the context ends.
func (a *app) serve(ctx context.Context, conf config, assembly *assembly) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", conf.listen)
	if err != nil {
		return &failure{fmt.Sprintf("cannot listen on %s: %v", conf.listen, err), "choose another address by --listen or OUTRIDER_LISTEN"}
	}
	logger := assembly.options.logger
	profiling, err := listenForProfiles(ctx, conf.pprofListen)
	if err != nil {
		_ = listener.Close()
		return err
	}
	health := &health{assembly: assembly}
	server := &http.Server{Handler: health.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	logger.Info("outrider", "version", version().release, "listen", listener.Addr().String(), "relay", conf.relayName, "pid", os.Getpid())
	if assembly.options.noSend {
		logger.Warn("--no-send: events are routed and recorded, nothing is sent by this relay; the deliveries stay pending, and a relay without --no-send sends those whose webhooks were not disabled meanwhile")
	}

	if profiling != nil {
		logger.Info("profiles are shown", "pprof", profiling.Addr().String())
		server := profiles()
		shown := make(chan error, 1)
		go func() { shown <- server.Serve(profiling) }()
		defer func() { // nobody waits for a profile of what ends
			_ = server.Close()
			if err := <-shown; !errors.Is(err, http.ErrServerClosed) {
				logger.Warn("showing profiles failed", "error", err)
			}
		}()
	}

	err = assembly.run(ctx, health)

	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(stop))
	if tracer := assembly.options.tracer; tracer != nil {
		if lost := tracer.Shutdown(stop); lost != nil {
			logger.Warn("the last spans could not be exported", "error", lost)
		}
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err == nil {
		logger.Info("stopped")
	}
	return err
}

// hopeless says that no waiting mends the error.
func hopeless(err error) bool {
	return errors.Is(err, migrations.ErrNewer) || errors.Is(err, postgres.ErrEncoding) || errors.Is(err, postgres.ErrVersion) ||
		errors.Is(err, postgres.ErrPooler) || errors.Is(err, postgres.ErrUnsafe)
}
