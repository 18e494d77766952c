package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
	"github.com/outrider-relay/outrider/migrations"
)

func (a *app) webCommand() *cobra.Command {
	var plain, debug bool
	cmd := &cobra.Command{
		Use:     "web",
		Short:   "Serve the pages and the APIs",
		GroupID: groupRun,
		Long: `Serve the pages on which people look after webhooks, deliveries and replays, and the
APIs for programs: Chatwoot's API of webhooks below /api/v1, and Outrider's own below
/api/outrider/v1, which serves its OpenAPI document. outrider token lets people and
programs in.

It sends nothing to webhooks and routes nothing: outrider serve does, beside it. Any
number may run on one database. SIGTERM stops: requests under way are answered, live
pages come back by themselves.

/healthz answers 200 while the process lives; /readyz answers 200 while the database
does and has the schema and rights that are needed, else 503.

It speaks plain HTTP, by default to this machine alone: put a proxy in front that
speaks TLS, and give the URL that people use by --public-url. The database user must
be a member of outrider_web.`,
		Example: `  outrider web
  outrider web --listen :7581 --public-url https://hooks.example.com --trusted-proxy 10.0.0.0/8`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, c := a.check(cmd)
			c.none(args)
			if conf.web.listen == "" {
				conf.web.listen = defaultWebListen
			}
			conf.web.checkPlain(c, plain)
			if err := c.err(); err != nil {
				return err
			}
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			return a.web(cmd.Context(), conf, slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level})))
		},
	}
	flags := cmd.Flags()
	webListenOn.addTo(flags)
	publicURL.addTo(flags)
	trustedProxies.addTo(flags)
	maskSecrets.addTo(flags)
	allowCIDRs.addTo(flags)
	flags.BoolVar(&plain, plainFlag, false, "accept to be reached from other machines without encryption")
	flags.BoolVar(&debug, "debug", false, "log each request: its method, path, status and duration")
	return cmd
}

// How much the web process takes of the database: a page asks a few questions,
// each of which is answered by an index.
const (
	webConnections = 20
	webStatement   = 20 * time.Second
)

// web serves until the context ends.
func (a *app) web(ctx context.Context, conf config, logger *slog.Logger) error {
	db, err := postgres.OpenWeb(conf.databaseURL, "outrider-web", webConnections, webStatement)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := refuseWeb(ctx, conf, db, logger); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", conf.web.listen)
	if err != nil {
		return &failure{fmt.Sprintf("cannot listen on %s: %v", conf.web.listen, err), "choose another address by --" + webListenOn.flag() + " or " + webListenOn.variable()}
	}
	server, err := newWebServer(conf, db, logger)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	logger.Info("outrider web", "version", version().release, "listen", listener.Addr().String(), "url", conf.web.shownURL(listener.Addr()), "pid", os.Getpid())
	if err := server.run(ctx, listener); err != nil {
		return err
	}
	logger.Info("stopped")
	return nil
}

// shownURL is where the pages are.
func (w *webConfig) shownURL(listens net.Addr) string {
	if w.public != nil {
		return w.public.String()
	}
	return "http://" + listens.String()
}

// refuseWeb ends what no waiting mends: a schema that is older or too new, rights
// that are missing. A database that is away comes back, and /readyz says so.
func refuseWeb(ctx context.Context, conf config, db *sql.DB, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch err := postgres.CheckWeb(ctx, db); {
	case err == nil:
	case errors.Is(err, postgres.ErrNotMigrated), errors.Is(err, migrations.ErrNewer), errors.Is(err, postgres.ErrWebRights), errors.Is(err, postgres.ErrPooler):
		return postgres.ExplainAt(conf.databaseURL, err)
	default:
		logger.Error("the database does not answer; it is asked again with each request", "error", explainAt(conf.databaseURL, err))
	}
	return nil
}

// mount gives all that is served, but for what says how the process is: the one
// place where the adapters of pages, APIs and database meet.
func (s *webServer) mount(mux *http.ServeMux) error {
	tokens, hooks, history, replays := postgres.NewTokens(s.db), postgres.NewWebhooks(s.db), postgres.NewAudit(s.db), postgres.NewReplayPlans(s.db)
	addresses := domain.AddressPolicy{Allow: s.conf.allow}
	mux.Handle("/api/", httpapi.New(httpapi.Config{
		Tokens: tokens, Webhooks: hooks, History: history, Replays: replays,
		Relays: func(ctx context.Context, ended bool) ([]audit.Relay, error) {
			return postgres.ListRelays(ctx, s.db, ended)
		},
		Addresses: addresses, MaskSecrets: s.conf.web.mask, TrustedProxies: s.conf.web.proxies, Explain: postgres.Explain, Log: s.log,
	}))
	pages, err := web.New(web.Config{
		Sessions: tokens, Webhooks: hooks, Audit: history, Replays: replays,
		Addresses: addresses, PublicURL: s.conf.web.public, ClientAddress: s.client, Explain: explainOnPage, Stopping: s.stopping.Done(),
		Version: version().release, Logger: s.log,
	})
	if err != nil {
		return err
	}
	mux.Handle("/", pages)
	return nil
}

// client is the address of who sends a request.
func (s *webServer) client(r *http.Request) string {
	return httpapi.ClientAddr(r, s.conf.web.proxies).String()
}

// explainOnPage says what people may read of an error of the database: what a
// function of ours refused, in its words, and of all else that it is away. The
// log has the rest, with the names of servers and users.
func explainOnPage(err error) (problem, advice string, refused domain.Refusal) {
	e, ok := errors.AsType[*postgres.Error](postgres.Explain(err))
	switch {
	case !ok:
	case e.Refusal() != domain.RefusedNot:
		return e.Problem, e.Advice, e.Refusal()
	case e.Away():
		return "the database is away, or too busy", "try again in a moment; the log of outrider web says more", domain.RefusedNot
	}
	return "", "", domain.RefusedNot
}
