package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/sample"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
)

const (
	// devDatabase is the database on the private server.
	devDatabase = "outrider"

	// loopback is where the sample receiver lives.
	loopback = "127.0.0.0/8"

	// devSeed makes every run alike.
	devSeed = 1

	// stopTimeout bounds each part's stop; the relay's graceful one takes as
	// long as its POSTs, 5 s at most.
	stopTimeout = 10 * time.Second

	// activeTimeout bounds a relay's start: a lease of 3 s, and room for a slow
	// machine.
	activeTimeout = 30 * time.Second
)

// sandbox is all that `outrider dev` runs.
type sandbox struct {
	app     *app
	options devOptions
	live    *liveLine

	server   *devpg.Server
	dsn      string
	db       *sql.DB
	receiver *sample.Receiver
	traffic  *sample.Traffic
	hooks    []sampleHook
	scratch  string
	relayLog string
	relayURL string
	relay    *childProcess
	// web is the process of the pages, nil in the demo.
	web *devWeb
	// slowArrived has a value after a POST to the slow webhook.
	slowArrived chan struct{}
}

// sampleHook is a webhook of the sample.
type sampleHook struct {
	account sample.Account
	path    string
	events  []string
	answers string
	id      domain.WebhookID
}

// sampleHooks are two webhooks for each account: one that answers well, and one
// with a way of its own, which the other must not feel.
func sampleHooks(accounts []sample.Account) []sampleHook {
	hook := func(account sample.Account, behaviour, answers string, events ...string) sampleHook {
		return sampleHook{account: account, path: "/" + account.Slug + "/" + behaviour, events: events, answers: answers}
	}
	usual := domain.DefaultSubscriptions
	all := append([]string{"conversation_typing_on", "conversation_typing_off"}, usual...)
	return []sampleHook{
		hook(accounts[0], sample.Well, "204 at once", all...),
		hook(accounts[0], sample.Slow, "200 after 300 ms", "message_created", "conversation_status_changed"),
		hook(accounts[1], sample.Well, "204 at once", usual...),
		hook(accounts[1], sample.Sometimes, "200, or in 20 % of cases 500, 503 or a reset", "message_created"),
		hook(accounts[2], sample.Well, "204 at once", usual...),
		hook(accounts[2], sample.Never, "500, or in 25 % of cases nothing at all", "conversation_created", "message_created"),
	}
}

// open starts all parts but the traffic. What is open is for close, also where
// open fails.
func (s *sandbox) open(ctx context.Context) error {
	begun := time.Now()
	s.live.show("Starting PostgreSQL", 0)
	server, err := devpg.Start(ctx, devpg.Config{Dir: s.options.dir, Durable: true})
	if err != nil {
		return err
	}
	s.server, s.dsn = server, server.DSN(devDatabase)
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	if err := s.openReceiver(ctx); err != nil {
		return err
	}
	config := sample.TrafficConfig{DB: s.db, Seed: devSeed, Rate: s.options.rate}
	if s.options.demo {
		config.Events, config.Conversations = s.options.events, demoConversations
	}
	if s.traffic, err = sample.NewTraffic(config); err != nil {
		return err
	}
	if err := s.traffic.Prepare(ctx); err != nil {
		return err
	}
	s.live.show("Starting the relay", 0)
	if err := s.openRelay(ctx); err != nil {
		return err
	}
	if !s.options.demo {
		s.live.show("Starting the pages", 0)
		if err := s.openWeb(ctx); err != nil {
			return err
		}
	}
	s.live.clear()
	s.say("A private PostgreSQL %s, a relay and a receiver were started in %s.", server.Version(), seconds(time.Since(begun)))
	return nil
}

func (s *sandbox) openDatabase(ctx context.Context) error {
	admin, err := postgres.Open(s.server.DSN("postgres"), "outrider dev")
	if err != nil {
		return err
	}
	var exists bool
	err = admin.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, devDatabase).Scan(&exists)
	if err == nil && !exists {
		_, err = admin.ExecContext(ctx, `CREATE DATABASE `+devDatabase)
	}
	if err := errors.Join(err, admin.Close()); err != nil {
		return fmt.Errorf("make the database: %w", err)
	}
	if s.db, err = postgres.Open(s.dsn, "outrider dev"); err != nil {
		return err
	}
	if err := migrations.Up(ctx, s.db); err != nil {
		return err
	}
	if !s.options.demo {
		return nil
	}
	var used bool
	if err := s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM outbox.events)`).Scan(&used); err != nil {
		return err
	}
	if used {
		return &failure{"the database in " + s.server.Dir() + " has events already, and the demo counts all there are", "give a new folder by --dir, or none"}
	}
	return nil
}

// openReceiver starts the receiver and registers the webhooks at its address,
// or moves them there where an earlier run registered them.
func (s *sandbox) openReceiver(ctx context.Context) error {
	s.slowArrived = make(chan struct{}, 1)
	receiver, err := sample.StartReceiver(ctx, sample.ReceiverConfig{Verify: verifySignatures, Seed: devSeed, OnArrival: func(name string) {
		if path.Base(name) == sample.Slow {
			select {
			case s.slowArrived <- struct{}{}:
			default:
			}
		}
	}})
	if err != nil {
		return err
	}
	s.receiver = receiver
	webhooks := postgres.NewWebhooks(s.db)
	registered, err := webhooks.List(ctx, 0)
	if err != nil {
		return err
	}
	addresses := domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix(loopback)}}
	s.hooks = sampleHooks(sample.Accounts())
	for i := range s.hooks {
		h := &s.hooks[i]
		settings := domain.Settings{URL: receiver.URL(h.path), Name: strings.TrimPrefix(h.path, "/"), Subscriptions: h.events, OrderHold: domain.DefaultOrderHold}
		if s.options.demo {
			// Short, so that what the kill leaves open is given up soon; and
			// no delivery overtakes a failed one before the demo ends.
			settings.Timeout, settings.OrderHold, settings.MaxConcurrency = demoTimeout, demoOrderHold, demoConcurrency
		}
		var known domain.Webhook
		for _, w := range registered {
			if w.AccountID == domain.AccountID(h.account.ID) && w.Settings.Name == settings.Name {
				known = w
			}
		}
		var command domain.WebhookCommand = domain.UpdateWebhook{Settings: settings, Addresses: addresses}
		if known.ID == 0 {
			command = domain.RegisterWebhook{Settings: settings, Secret: sampleSecret(i), Addresses: addresses}
		}
		hook, _, err := webhooks.Change(ctx, domain.AccountID(h.account.ID), known.ID, "outrider dev", command)
		if err != nil {
			return fmt.Errorf("register %s: %w", h.path, err)
		}
		h.id = hook.ID
		if err := receiver.Add(h.path, hook.Secret.Reveal()); err != nil {
			return err
		}
	}
	return nil
}

// verifySignatures checks both schemes, as a receiver of either would.
func verifySignatures(text string, header http.Header, body []byte) error {
	secret, err := domain.ParseSecret(text)
	if err != nil {
		return err
	}
	now := time.Now()
	err = httpsend.VerifyStandard(secret.StandardKey(), header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature"), body, now)
	if err != nil {
		return fmt.Errorf("webhook-signature: %w", err)
	}
	if err := httpsend.VerifyChatwoot(text, header.Get("X-Chatwoot-Timestamp"), header.Get("X-Chatwoot-Signature"), body, now); err != nil {
		return fmt.Errorf("X-Chatwoot-Signature: %w", err)
	}
	return nil
}

// sampleSecret is of either spelling by turns: Standard Webhooks', and opaque
// text as Chatwoot makes it.
func sampleSecret(i int) domain.Secret {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	if i%2 == 0 {
		return domain.NewSecret(key)
	}
	secret, err := domain.ParseSecret(rand.Text()[:24])
	if err != nil {
		return domain.NewSecret(key)
	}
	return secret
}

func (s *sandbox) openRelay(ctx context.Context) error {
	var err error
	if s.scratch, err = os.MkdirTemp("", "outrider-dev-"); err != nil {
		return err
	}
	s.relayLog = filepath.Join(s.scratch, "relay.log")
	if err := s.startRelay(); err != nil {
		return err
	}
	return s.awaitActive(ctx)
}

// startRelay starts the relay, where it was before if it was.
func (s *sandbox) startRelay() (err error) {
	address := cmp.Or(strings.TrimPrefix(s.relayURL, "http://"), anyPort)
	s.relay, err = s.startSelf(s.relayLog, "serve", "--listen", address)
	if err != nil {
		return fmt.Errorf("start the relay: %w", err)
	}
	return nil
}

// startSelf runs this very program on the sandbox's database.
func (s *sandbox) startSelf(logFile string, args ...string) (*childProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in a folder of ours
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	return startChild(log, program, []string{"OUTRIDER_DATABASE_URL=" + s.dsn, "OUTRIDER_ALLOW_CIDRS=" + loopback}, args...)
}

// awaitActive waits until the relay is at work: not only alive, but with shards
// and the tail, which it has all of.
func (s *sandbox) awaitActive(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, activeTimeout, fmt.Errorf("the relay is not at work after %s", activeTimeout))
	defer cancel()
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		if s.relayURL = cmp.Or(s.relayURL, listensAt(s.relayLog)); s.relayURL != "" {
			if state, err := relayState(ctx, s.relayURL); err == nil && state == "active" {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-s.relay.exited:
			return fmt.Errorf("the relay ended at once: %w", s.relay.failure())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// relayState asks a relay at the URL what it does.
func relayState(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var body struct {
		State string `json:"state"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&body)
	return body.State, err
}

// received sums up what the receiver counts.
func (s *sandbox) received() sample.Counts {
	var sum sample.Counts
	for _, c := range s.receiver.Counts() {
		sum.Requests += c.Requests
		sum.Verified += c.Verified
		sum.Forged += c.Forged
		sum.Succeeded += c.Succeeded
		sum.Failed += c.Failed
		sum.Abandoned += c.Abandoned
		sum.InFlight += c.InFlight
		sum.Notifications += c.Notifications
		sum.ToldUnknown += c.ToldUnknown
		sum.Altered += c.Altered
		sum.OutOfOrder += c.OutOfOrder
		sum.Repeats.AfterUnknown += c.Repeats.AfterUnknown
		sum.Repeats.AfterFailed += c.Repeats.AfterFailed
		sum.Repeats.Replayed += c.Repeats.Replayed
		sum.Repeats.Untold += c.Repeats.Untold
	}
	return sum
}

// showLogs shows the ends of the logs: something went wrong.
func (s *sandbox) showLogs(out io.Writer) {
	showEnd(out, "relay's", s.relayLog)
	if s.web != nil {
		showEnd(out, "pages'", s.web.log)
	}
}

func showEnd(out io.Writer, whose, file string) {
	const last = 30
	content, err := os.ReadFile(file) //nolint:gosec // in a folder of ours
	if file == "" || err != nil || len(content) == 0 {
		return
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	fmt.Fprintf(out, "The end of the %s log:\n", whose)
	for _, line := range lines[max(0, len(lines)-last):] {
		fmt.Fprintf(out, "  %s\n", printable(line))
	}
}

// close stops what is open, in the order of the flow: the relay finishes what
// is under way, then its receiver and its database go.
func (s *sandbox) close() error {
	// Not the command's context, which Ctrl-C has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTimeout)
	defer cancel()
	var problems []error
	if s.web != nil {
		problems = append(problems, s.closeWeb(ctx))
	}
	if s.relay != nil {
		if err := s.relay.stop(stopTimeout); err != nil {
			problems = append(problems, fmt.Errorf("stop the relay: %w", err))
		}
	}
	if s.receiver != nil {
		problems = append(problems, s.receiver.Close())
	}
	if s.db != nil {
		problems = append(problems, s.db.Close())
	}
	if s.server != nil {
		if err := s.server.Stop(ctx); err != nil {
			problems = append(problems, fmt.Errorf("stop PostgreSQL: %w", err))
		}
	}
	if s.scratch != "" {
		problems = append(problems, os.RemoveAll(s.scratch))
	}
	return errors.Join(problems...)
}
