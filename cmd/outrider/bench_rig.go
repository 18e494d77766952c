package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/outrider-relay/outrider/adapters/bench"
	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
)

const (
	// benchActor is who changes the webhooks of a bench.
	benchActor = "outrider bench"

	// benchTemplate is the database of a private server of which each
	// measurement gets a copy.
	benchTemplate = "bench_template"

	// benchPool has room for all producers.
	benchPool = 40
)

// benchSettings are those of a private server. They are what an ordinary one
// of a small machine has; all else, what makes commits durable included, is as
// PostgreSQL ships it.
var benchSettings = map[string]string{"shared_buffers": "512MB", "max_wal_size": "4GB"}

// benchRig is what the workloads run on: a private server or the user's
// database, a receiver, and relays and clients as they are asked for. It
// implements bench.Rig.
type benchRig struct {
	app  *app
	live *liveLine

	// dsn is the user's database, empty for a private server.
	dsn   string
	iKnow bool
	// quick: databases are small, and go with the server; each drop would cost
	// a checkpoint.
	quick bool
	// shared is it, once it was found fit.
	shared *bench.Database

	program     string
	scratch     string
	server      *devpg.Server
	admin       *sql.DB
	receiver    *benchProcess
	receiverURL string
	processes   int
	databases   int
	// copying is what CREATE DATABASE is told where the template is large.
	copying  string
	given    []benchDatabase
	webhooks []int64
}

// benchDatabase is one that is to be discarded.
type benchDatabase struct {
	name string
	db   *sql.DB
}

// open starts the receiver and the server. What is open is for close, also
// where open fails.
func (b *benchRig) open(ctx context.Context) error {
	var err error
	if b.dsn != "" {
		if err := b.openGiven(ctx); err != nil {
			return err
		}
	}
	if b.program, err = programPath(); err != nil {
		return err
	}
	if b.scratch, err = os.MkdirTemp("", "outrider-bench-"); err != nil {
		return err
	}
	if err := b.openReceiver(ctx); err != nil {
		return err
	}
	if b.shared != nil {
		b.webhooks, err = registerBench(ctx, b.shared.DB, b.receiverURL)
		b.shared.Webhooks = b.webhooks
		return err
	}
	return b.openServer(ctx)
}

func (b *benchRig) openReceiver(ctx context.Context) error {
	var err error
	if b.receiver, err = b.listening(ctx, "receiver", nil, "bench", "receiver"); err != nil {
		return err
	}
	b.receiverURL = b.receiver.url
	receiver := bench.ReceiverAt{URL: b.receiverURL}
	return b.receiver.await(ctx, "the receiver answers", func() bool {
		_, err := receiver.Arrived(ctx)
		return err == nil
	})
}

func (b *benchRig) openServer(ctx context.Context) error {
	b.live.show("Starting a private PostgreSQL", 0)
	var err error
	if b.server, err = devpg.Start(ctx, devpg.Config{Durable: true, Settings: benchSettings}); err != nil {
		return err
	}
	if b.admin, err = postgres.Open(b.server.DSN("postgres"), benchActor); err != nil {
		return err
	}
	// By default PostgreSQL 15 and newer write each block to the WAL as well.
	err = b.admin.QueryRowContext(ctx, `
SELECT CASE WHEN current_setting('server_version_num')::integer >= 150000 THEN ' STRATEGY file_copy' ELSE '' END`).Scan(&b.copying)
	if err != nil {
		return err
	}
	if _, err := b.admin.ExecContext(ctx, `CREATE DATABASE `+benchTemplate); err != nil {
		return fmt.Errorf("make the database: %w", err)
	}
	db, err := postgres.Open(b.server.DSN(benchTemplate), benchActor)
	if err != nil {
		return err
	}
	err = migrations.Up(ctx, db)
	if err == nil {
		b.webhooks, err = registerBench(ctx, db, b.receiverURL)
	}
	return errors.Join(err, db.Close()) // a template must have no connection
}

// registerBench registers the webhooks of a bench.
func registerBench(ctx context.Context, db *sql.DB, receiver string) ([]int64, error) {
	secret, err := domain.ParseSecret("a-secret-for-benchmarks")
	if err != nil {
		return nil, err
	}
	addresses := domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix(loopback)}}
	var ids []int64
	for account := range bench.Accounts {
		hook, _, err := postgres.NewWebhooks(db).Change(ctx, domain.AccountID(bench.FirstAccount+account), 0, benchActor, domain.RegisterWebhook{
			Settings: domain.Settings{URL: fmt.Sprintf("%s/%d", receiver, account), Name: benchActor, OrderHold: domain.DefaultOrderHold},
			Secret:   secret, Addresses: addresses,
		})
		if err != nil {
			return ids, fmt.Errorf("register a webhook: %w", err)
		}
		ids = append(ids, int64(hook.ID))
	}
	return ids, nil
}

// describe says what server it is.
func (b *benchRig) describe(ctx context.Context) (bench.Server, error) {
	s := bench.Server{Private: b.Private(), Settings: map[string]string{}}
	db := b.admin
	if b.shared != nil {
		db = b.shared.DB
		s.Left = benchLeft
	}
	err := eachRow(ctx, db, `
SELECT name, current_setting(name) FROM pg_settings
 WHERE name IN ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', 'shared_buffers', 'max_wal_size', 'commit_delay')`,
		func(rows *sql.Rows) error {
			var name, value string
			err := rows.Scan(&name, &value)
			s.Settings[name] = value
			return err
		})
	s.Version = s.Settings["server_version"]
	delete(s.Settings, "server_version")
	return s, err
}

// Private implements bench.Rig.
func (b *benchRig) Private() bool { return b.dsn == "" }

// Database implements bench.Rig.
func (b *benchRig) Database(ctx context.Context) (*bench.Database, error) {
	if b.shared != nil {
		return b.shared, nil
	}
	return b.copyOf(ctx, benchTemplate)
}

// copyOf gives a new database.
func (b *benchRig) copyOf(ctx context.Context, template string) (*bench.Database, error) {
	b.databases++
	name := "bench_" + strconv.Itoa(b.databases)
	if _, err := b.admin.ExecContext(ctx, `CREATE DATABASE `+name+` TEMPLATE `+template); err != nil {
		return nil, fmt.Errorf("make a database: %w", err)
	}
	dsn := b.server.DSN(name)
	db, err := postgres.Open(dsn, benchActor)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(benchPool)
	db.SetMaxIdleConns(benchPool)
	b.given = append(b.given, benchDatabase{name, db})
	return &bench.Database{DSN: dsn, DB: db, Webhooks: b.webhooks}, nil
}

// Copy implements bench.Rig.
func (b *benchRig) Copy(ctx context.Context, from *bench.Database) (*bench.Database, error) {
	from.DB.SetMaxIdleConns(-1) // a template must have no connection
	defer from.DB.SetMaxIdleConns(benchPool)
	for _, d := range b.given {
		if d.db == from.DB {
			return b.copyOf(ctx, d.name+b.copying)
		}
	}
	return nil, errors.New("no such database")
}

// Other implements bench.Rig.
func (b *benchRig) Other() *sql.DB { return b.admin }

// Drop implements bench.Rig.
func (b *benchRig) Drop(ctx context.Context, db *bench.Database) error {
	var problems []error
	b.given = slices.DeleteFunc(b.given, func(d benchDatabase) bool {
		if d.db == db.DB {
			problems = append(problems, b.drop(ctx, d))
		}
		return d.db == db.DB
	})
	return errors.Join(problems...)
}

func (b *benchRig) drop(ctx context.Context, d benchDatabase) error {
	err := d.db.Close()
	if b.quick {
		return err
	}
	_, dropErr := b.admin.ExecContext(ctx, `DROP DATABASE `+d.name+` WITH (FORCE)`)
	return errors.Join(err, dropErr)
}

// Discard implements bench.Rig.
func (b *benchRig) Discard(ctx context.Context) error {
	var problems []error
	for _, d := range b.given {
		problems = append(problems, b.drop(ctx, d))
	}
	b.given = nil
	return errors.Join(problems...)
}

// Relay implements bench.Rig.
func (b *benchRig) Relay(ctx context.Context, db *bench.Database, inFlight int) (bench.Process, error) {
	settings := []string{"OUTRIDER_DATABASE_URL=" + db.DSN, "OUTRIDER_ALLOW_CIDRS=" + loopback}
	if inFlight > 0 {
		settings = append(settings, "OUTRIDER_MAX_IN_FLIGHT="+strconv.Itoa(inFlight))
	}
	p, err := b.listening(ctx, "relay", settings, "serve", "--allow-unsafe")
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Active implements bench.Rig.
func (b *benchRig) Active(ctx context.Context, relay bench.Process) error {
	p, ok := relay.(*benchProcess)
	if !ok {
		return errors.New("not a relay")
	}
	return p.await(ctx, "the relay is at work", func() bool {
		state, err := relayState(ctx, p.url)
		return err == nil && state == "active"
	})
}

// Site implements bench.Rig.
func (b *benchRig) Site(ctx context.Context, db *bench.Database) (*bench.Site, error) {
	_, token, err := postgres.NewTokens(db.DB).Create(ctx, domain.Access{Name: "bench", Role: domain.RoleAdministrator}, time.Time{})
	if err != nil {
		return nil, err
	}
	p, err := b.listening(ctx, "web", []string{"OUTRIDER_DATABASE_URL=" + db.DSN}, "web")
	if err != nil {
		return nil, err
	}
	return &bench.Site{Process: p, URL: p.url, Token: token}, p.await(ctx, "the pages are served", func() bool {
		answer, err := http.Get(p.url + "/readyz") //nolint:noctx // await ends
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// Client implements bench.Rig.
func (b *benchRig) Client(_ context.Context, c bench.Client) (bench.Process, error) {
	return b.start("client", nil, "bench", "client", "--url", c.URL,
		"--run", strconv.Itoa(c.Run), "--count", strconv.Itoa(c.Count), "--connections", strconv.Itoa(c.Connections))
}

// close stops what is open.
func (b *benchRig) close() error {
	// Not the command's context, which Ctrl-C has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 2*stopTimeout)
	defer cancel()
	var problems []error
	if b.shared != nil {
		problems = append(problems, b.leave(ctx))
	}
	if b.receiver != nil {
		_, err := b.receiver.Stop(ctx)
		problems = append(problems, err)
	}
	for _, d := range b.given {
		problems = append(problems, d.db.Close())
	}
	if b.admin != nil {
		problems = append(problems, b.admin.Close())
	}
	if b.server != nil {
		if err := b.server.Stop(ctx); err != nil {
			problems = append(problems, fmt.Errorf("stop PostgreSQL: %w", err))
		}
	}
	if b.scratch != "" {
		problems = append(problems, os.RemoveAll(b.scratch))
	}
	return errors.Join(problems...)
}
