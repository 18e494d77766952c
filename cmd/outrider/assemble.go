package main

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/adapters/metrics"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/tracing"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
	"github.com/outrider-relay/outrider/relay"
)

// relayOptions are what a relay process is started with.
type relayOptions struct {
	dsn     string
	name    string
	version string
	// maxInFlight is how many POSTs may be under way, 0 for the default.
	maxInFlight int
	// disableAfter is how long a webhook may do nothing but fail, 0 for the
	// default, below 0 for ever.
	disableAfter time.Duration
	allow        []netip.Prefix
	retain       postgres.Ages
	noSend       bool
	// unsafe accepts a server with fsync = off: private databases only.
	unsafe bool
	// tracer makes spans, nil for none.
	tracer *tracing.Tracer
	logger *slog.Logger
}

// assembly is a relay with its connections.
type assembly struct {
	relay    *relay.Relay
	db       *sql.DB
	identity *postgres.Identity
	clock    *postgres.Clock
	sender   *httpsend.Sender
	notices  relay.Notices
	metrics  *metrics.Metrics
	// recording hears what the metrics do.
	recording *recording
	log       *slog.Logger // says what errors of the database mean
	options   relayOptions
}

// relayConnections bound the pool: the tail, the recorder, the lease, reads
// beside them, and partitions.
const relayConnections = 12

// assemble puts a relay together. Nothing is connected yet.
func assemble(o relayOptions) (*assembly, error) {
	identity := &postgres.Identity{AllowUnsafe: o.unsafe}
	db, err := postgres.OpenRelay(o.dsn, "outrider "+o.name, identity)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(relayConnections)
	db.SetMaxIdleConns(relayConnections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	clock := postgres.NewClock(db)
	sender, err := httpsend.New(httpsend.Config{UserAgentVersion: o.version, Addresses: domain.AddressPolicy{Allow: o.allow}, Now: clock.Now})
	if err != nil {
		return nil, err
	}
	store := postgres.NewStore(db)
	notices := relay.NewNotices()
	var retain func(context.Context) (string, bool, error)
	if o.retain != (postgres.Ages{}) {
		retain = store.Retain(o.retain)
	}
	a := &assembly{db: db, identity: identity, clock: clock, sender: sender, notices: notices, options: o}
	a.log = slog.New(newExplainer(o.logger.Handler(), a.explain))
	a.metrics = watch(a)
	a.recording = &recording{Meter: a.metrics}
	config := relay.Config{
		Name: o.name, Version: o.version, DB: db,
		Chain: postgres.NewChain(db), Log: postgres.NewLog(db), Store: store, Webhooks: postgres.NewWebhooks(db),
		Leases: postgres.NewLeases(db), Replays: postgres.NewReplays(db), Projection: postgres.NewProjection(db), Sender: sender,
		MaxInFlight: o.maxInFlight, DisableAfter: o.disableAfter, Partitions: store.ExtendPartitions, Retain: retain, Notices: notices, NoSend: o.noSend, Now: clock.Now, Meter: a.recording, Logger: a.log,
	}
	if o.tracer != nil {
		config.Tracer, config.Sender = o.tracer, o.tracer.Sender(sender)
	}
	if a.relay, err = relay.New(config); err != nil {
		return nil, err
	}
	return a, nil
}

// The waits between two tries to reach a database that does not answer.
const (
	firstTry   = 500 * time.Millisecond
	longestTry = 10 * time.Second
)

// schemaInterval is how soon a relay notices that the schema became one for
// newer binaries.
const schemaInterval = 2 * time.Second

// run waits for the database, then relays until ctx ends. Where the database
// becomes another one, or its server is started anew, it begins from there. What
// no waiting mends is an error: a schema for newer binaries, also where it became
// one while the relay was at work, a pooler that does not fit.
func (a *assembly) run(ctx context.Context, health *health) error {
	defer func() { _ = a.db.Close() }()
	for {
		if err := a.await(ctx, health); err != nil || ctx.Err() != nil {
			return err
		}
		listening := make(chan error, 1)
		listen, stop := context.WithCancel(context.WithoutCancel(ctx))
		go func() { listening <- postgres.Listen(listen, a.options.dsn, a.notices, a.log) }()
		working, leave := context.WithCancelCause(ctx)
		var beside sync.WaitGroup
		beside.Go(func() { a.watchSchema(working, health, leave) })
		beside.Go(func() { a.clock.Keep(listen) })
		err := a.relay.Run(working)
		outgrown := context.Cause(working)
		leave(nil)
		stop()
		beside.Wait()
		a.sender.CloseIdle()
		heard := <-listening
		if errors.Is(outgrown, migrations.ErrNewer) {
			if err := errors.Join(err, heard); err != nil {
				a.log.Warn("not all could be finished", "error", err)
			}
			return postgres.ExplainAt(a.options.dsn, outgrown)
		}
		if !errors.Is(err, relay.ErrAnotherServer) || ctx.Err() != nil {
			return errors.Join(err, heard)
		}
		health.set(err)
		a.log.Warn("the relay forgets what it knew, and begins again", "error", err)
	}
}

// watchSchema lets the relay finish what it has begun, and not be ready, once
// the schema became one for newer binaries.
func (a *assembly) watchSchema(ctx context.Context, health *health, leave context.CancelCauseFunc) {
	for {
		select {
		case <-time.After(schemaInterval):
		case <-ctx.Done():
			return
		}
		look, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := migrations.Outgrown(look, a.db)
		cancel()
		if errors.Is(err, migrations.ErrNewer) { // what else goes wrong, the relay tells
			a.options.logger.Error("the relay cannot go on", "error", a.explain(err))
			health.set(err)
			leave(err)
			return
		}
	}
}

// await waits for a database on which the relay can work.
func (a *assembly) await(ctx context.Context, health *health) error {
	wait := firstTry
	for {
		a.identity.Renew()
		err := a.check(ctx)
		health.set(err)
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // a stop is no failure
		}
		if hopeless(err) {
			return postgres.ExplainAt(a.options.dsn, err)
		}
		a.log.Error("the relay cannot begin, trying again", "error", err, "wait", wait.String())
		select {
		case <-time.After(wait):
			wait = min(2*wait, longestTry)
		case <-ctx.Done():
			return nil
		}
	}
}

// explain says what is wrong with the database and what to do.
func (a *assembly) explain(err error) string { return explainAt(a.options.dsn, err) }

// check tells whether the relay can work on the database.
func (a *assembly) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := postgres.CheckRelay(ctx, a.db); err != nil {
		return err
	}
	if err := postgres.RegisterIdentity(ctx, a.db); err != nil {
		return err
	}
	return a.clock.Read(ctx)
}

// relayName tells relays apart: the host, unless it is given.
func relayName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "relay"
	}
	return name
}
