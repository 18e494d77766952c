package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/relay"
)

// stopMargin is what a stop takes beyond its grace: the tail, the record, the
// lease and the end points have a few seconds each.
const stopMargin = 15 * time.Second

// deployFile reads one of the files that run the program elsewhere.
func deployFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// checkStop: who stops the program waits until it has stopped by itself.
func checkStop(t *testing.T, where string, wait time.Duration) {
	t.Helper()
	if least := relay.DefaultGrace + stopMargin; wait < least {
		t.Errorf("%s: a stop is given %s, and may take %s", where, wait, least)
	}
}

// checkSetting: a variable is one of the settings, and takes its value.
func checkSetting(t *testing.T, where, variable, value string) {
	t.Helper()
	i := slices.IndexFunc(settings, func(s *setting) bool { return s.variable() == variable })
	if i < 0 {
		t.Errorf("%s sets %s, which is no setting", where, variable)
	} else if err := settings[i].set(&config{}, value); err != nil {
		t.Errorf("%s: %s: %v", where, variable, err)
	}
}

// TestDeployNamesSettings: no file names a variable that there is not, in a
// comment either.
func TestDeployNamesSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range settings {
		known[s.variable()] = true
	}
	entries, err := os.ReadDir("deploy")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		for _, variable := range regexp.MustCompile(`OUTRIDER_[A-Z_]+`).FindAllString(deployFile(t, entry.Name()), -1) {
			named++
			if !known[variable] {
				t.Errorf("%s names %s, which is no setting", entry.Name(), variable)
			}
		}
	}
	if named < 8 {
		t.Errorf("%d variables are named: where are the others?", named)
	}
}

// composeFile is what compose.yaml has that concerns us.
type composeFile struct {
	Services map[string]struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Command     []string
		Environment map[string]string
		Volumes     []string
		Ports       []string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Deploy      struct{ Replicas int }
		StopGrace   string   `yaml:"stop_grace_period"`
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
	}
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	var file composeFile
	if err := yaml.Unmarshal([]byte(deployFile(t, "compose.yaml")), &file); err != nil {
		t.Fatalf("compose.yaml: %v", err)
	}
	return file
}

func TestCompose(t *testing.T) {
	t.Parallel()
	file := readCompose(t)
	for _, name := range []string{"migrate", "relay", "web"} {
		service := file.Services[name]
		if err := parses(service.Command); err != nil || len(service.Command) == 0 {
			t.Errorf("%s runs %v: %v", name, service.Command, err)
		}
		for variable, value := range service.Environment {
			checkSetting(t, "compose.yaml: "+name, variable, value)
		}
		if _, err := os.Stat(filepath.Join("deploy", service.Build.Context, service.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		u, err := url.Parse(service.Environment[databaseURL.variable()])
		if err != nil || file.Services[u.Hostname()].Image == "" || u.Path != "/"+file.Services["postgres"].Environment["POSTGRES_DB"] {
			t.Errorf("%s: %s is no database of the file: %v", name, u, err)
		}
	}
	one := file.Services["relay"]
	wait, err := time.ParseDuration(one.StopGrace)
	if err != nil {
		t.Error(err)
	}
	checkStop(t, "compose.yaml", wait)
	if _, port, err := net.SplitHostPort(one.Environment[listenOn.variable()]); err != nil || port != "7580" {
		t.Errorf("the relay listens on port %s: %v", port, err)
	}
	if one.DependsOn["migrate"].Condition != "service_completed_successfully" || file.Services["migrate"].DependsOn["postgres"].Condition != "service_healthy" {
		t.Error("the database, the schema and the relay do not come one after another")
	}
	if one.Deploy.Replicas != 2 || !one.ReadOnly || !slices.Equal(one.CapDrop, []string{"ALL"}) {
		t.Errorf("the relay has %d replicas, read-only %t, without capabilities %v", one.Deploy.Replicas, one.ReadOnly, one.CapDrop)
	}
	web := file.Services["web"]
	if _, port, err := net.SplitHostPort(web.Environment[webListenOn.variable()]); err != nil || !slices.Equal(web.Ports, []string{"127.0.0.1:" + port + ":" + port}) {
		t.Errorf("the pages listen on port %s and are at %v: %v", port, web.Ports, err)
	}
	if web.DependsOn["migrate"].Condition != "service_completed_successfully" || !web.ReadOnly || !slices.Equal(web.CapDrop, []string{"ALL"}) {
		t.Errorf("the pages wait for %v, read-only %t, without capabilities %v", web.DependsOn, web.ReadOnly, web.CapDrop)
	}
	if script, _, _ := strings.Cut(file.Services["postgres"].Volumes[1], ":"); script != "./compose.sql" {
		t.Errorf("the server is made with %s", script)
	}
}

// TestComposeRuns does what compose.yaml does, on a server of its own: the
// administrator's script, the migration, both relays and the pages, each as the user and
// with the command that the file gives it.
func TestComposeRuns(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{"fsync": "on"}) // roles belong to a whole server
	file := readCompose(t)
	admin := func(database string) *sql.DB {
		db, err := sql.Open("postgres", server.DSN(database))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	mustExec(t, admin("postgres"), `CREATE DATABASE `+file.Services["postgres"].Environment["POSTGRES_DB"])
	db := admin(file.Services["postgres"].Environment["POSTGRES_DB"])
	mustExec(t, db, deployFile(t, "compose.sql"))
	dsn := func(service string) string {
		u, err := url.Parse(file.Services[service].Environment[databaseURL.variable()])
		if err != nil {
			t.Fatal(err)
		}
		u.Host = net.JoinHostPort("127.0.0.1", fmt.Sprint(server.Port()))
		return u.String()
	}

	migrate := startProcess(t, dsn("migrate"), file.Services["migrate"].Command...)
	<-migrate.done
	if code := migrate.ProcessState.ExitCode(); code != exitDone {
		t.Fatalf("migrate: exit code %d:\n%s", code, migrate.log)
	}
	var relays []*process
	for range file.Services["relay"].Deploy.Replicas {
		relays = append(relays, startProcess(t, dsn("relay"), file.Services["relay"].Command...))
	}
	until(t, "two relays that share the work", func() (bool, string) {
		shares := map[string]int{}
		for _, p := range relays {
			if answer, _, ok := p.ready(t); ok && answer.Ready {
				shares[fmt.Sprintf("%s with %d shards", answer.State, answer.Shards)]++
				shares["tails"] += btoi(answer.Tails)
			}
		}
		return shares["active with 32 shards"] == 2 && shares["tails"] == 1, fmt.Sprint(shares)
	})

	receiver := newCatcher(t, answer204)
	register(t, db, 1, receiver.URL, nil)
	producer, err := sql.Open("postgres", strings.Replace(dsn("relay"), "//relay_app:", "//chat_app:", 1)+"?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = producer.Close() })
	run(t, producer, insertOne)
	awaitSucceeded(t, db, 1)
	web := startWeb(t, dsn("web"), file.Services["web"].Command[1:]...)
	web.awaitReady(t)
	for _, p := range append(relays, web) {
		p.signal(syscall.SIGTERM)
		if code := p.ProcessState.ExitCode(); code != exitDone {
			t.Errorf("%v stopped with exit code %d", p.Args[1:], code)
		}
	}
}

// TestConnectionBudget: a relay has as many connections as the README says, at
// most.
func TestConnectionBudget(t *testing.T) {
	t.Parallel()
	const listener = 1
	said := fmt.Sprintf("A relay uses %d at most", relayConnections+listener)
	if !strings.Contains(readReadme(t), said) {
		t.Errorf("README.md does not say: %s", said)
	}
	db := pgtest.NewOn(t, pgtest.NewServer(t, map[string]string{"fsync": "on"}))
	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	p := startProcess(t, db.DSN, "serve")
	p.awaitReady(t)
	most := 0
	ctx, stop := context.WithCancel(t.Context())
	counted := make(chan error, 1)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				counted <- nil
				return
			case <-tick.C:
			}
			var n int
			if err := db.SQL.QueryRowContext(context.WithoutCancel(ctx), `
SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'outrider %' AND datname = current_database()`).Scan(&n); err != nil {
				counted <- err
				return
			}
			most = max(most, n)
		}
	}()
	const events = 2000
	run(t, db.SQL, `
INSERT INTO outbox.events (account_id, event, payload)
SELECT 1, 'message_created', json_build_object('id', i, 'conversation', json_build_object('id', i)) FROM generate_series(1, $1::integer) i`, events)
	awaitSucceeded(t, db.SQL, events)
	stop()
	if err := <-counted; err != nil {
		t.Fatal(err)
	}
	if most < 2 || most > relayConnections+listener {
		t.Errorf("the relay had %d connections, at most %d are said", most, relayConnections+listener)
	}
}
