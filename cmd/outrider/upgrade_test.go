package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
	"github.com/outrider-relay/outrider/relay"
)

// goForward makes a schema seem to be of a later version, which only adds.
func goForward(t *testing.T, db *sql.DB) {
	t.Helper()
	run(t, db, `INSERT INTO relay.schema_migrations (version_id, is_applied) VALUES (99, true)`)
}

// outgrow makes it one that takes binaries of that later version.
func outgrow(t *testing.T, db *sql.DB) {
	t.Helper()
	run(t, db, `CREATE OR REPLACE FUNCTION relay.compatible_since() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 99::bigint`)
}

// ended waits for a process that fails by itself, and gives what it said.
func (p *process) ended(t *testing.T) string {
	t.Helper()
	<-p.done
	if code := p.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	return p.log.String()
}

// TestARelayOnANewerSchema: one that only adds changes nothing, whether the relay
// runs, loses its connections or begins there. On one that is for newer binaries
// a relay finishes its attempts, says why it is not ready, and ends; and none
// begins.
func TestARelayOnANewerSchema(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{"fsync": "on"})
	db := pgtest.NewOn(t, server)
	hung, gate := make(chan struct{}), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangs" {
			close(hung)
			<-gate
		}
		w.WriteHeader(http.StatusNoContent)
	})
	t.Cleanup(open) // before the receiver is closed
	register(t, db.SQL, 1, receiver.URL, nil)
	register(t, db.SQL, 2, receiver.URL+"/hangs", func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	first := startProcess(t, db.DSN, "serve")
	first.awaitShare(t, relay.ShardCount, true)
	second := startProcess(t, db.DSN, "serve")
	second.awaitShare(t, relay.ShardCount/2, false)

	goForward(t, db.SQL)
	run(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 1)
	if n := query[int](t, db.SQL, `
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'outrider %'`); n < 2 {
		t.Errorf("%d connections of the relays were ended", n)
	}
	run(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 2)
	first.signal(syscall.SIGTERM)
	second.awaitShare(t, relay.ShardCount, true)
	third := startProcess(t, db.DSN, "serve")
	third.awaitShare(t, relay.ShardCount/2, false)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "a connection", func() (bool, string) {
		err := db.SQL.PingContext(t.Context())
		return err == nil, fmt.Sprint(err)
	})
	run(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 3)
	second.signal(syscall.SIGTERM)
	third.awaitShare(t, relay.ShardCount, true)

	run(t, db.SQL, strings.Replace(insertOne, "(1,", "(2,", 1))
	<-hung
	outgrow(t, db.SQL)
	third.awaitProblem(t, "newer than this binary")
	open()
	if said := third.ended(t); !strings.Contains(said, "newer than this binary") {
		t.Errorf("one that was at work says: %s", said)
	}
	if n := query[int](t, db.SQL, `SELECT count(*) FROM audit.attempts WHERE outcome = 'succeeded'`); n != 4 {
		t.Errorf("%d attempts succeeded, want 4: also the last has its outcome", n)
	}
	if said := startProcess(t, db.DSN, "serve").ended(t); !strings.Contains(said, "newer than this binary") {
		t.Errorf("one that begins says: %s", said)
	}
}

// laterMigrations gives the migrations of this binary, and one of a later one.
func laterMigrations(t *testing.T, text string) fs.FS {
	t.Helper()
	own := os.DirFS("../../migrations")
	names, err := fs.Glob(own, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{fmt.Sprintf("%05d_later.sql", migrations.Version+1): {Data: []byte("-- +goose Up\n" + text)}}
	for _, name := range names {
		content, err := fs.ReadFile(own, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: content}
	}
	return files
}

// TestRelaysAreReplacedWhileTheSchemaGoesForward: producers insert all the time,
// the relays are replaced one after the other, and a migration that needs the
// outbox alone meets a transaction that is open on it. It lets the producers go
// on and says who is in its way until that ends. Nothing is lost, out of order,
// or repeated without a cause.
func TestRelaysAreReplacedWhileTheSchemaGoesForward(t *testing.T) {
	t.Parallel()
	const accounts, producers = 4, 3
	db := pgtest.NewOn(t, pgtest.NewServer(t, map[string]string{"fsync": "on"}))
	receiver := newCatcher(t, answer204)
	for account := range accounts {
		register(t, db.SQL, domain.AccountID(account+1), fmt.Sprintf("%s/%d", receiver.URL, account), func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	}
	var relays [2]*process
	replace := func(i int) {
		if relays[i] != nil {
			relays[i].signal(syscall.SIGTERM)
			if code := relays[i].ProcessState.ExitCode(); code != exitDone {
				t.Errorf("a relay stopped with exit code %d", code)
			}
		}
		relays[i] = startProcess(t, db.DSN, "serve")
	}
	replace(0)
	relays[0].awaitShare(t, relay.ShardCount, true)
	replace(1)
	relays[1].awaitShare(t, relay.ShardCount/2, false)
	replaceNext := func(i int) {
		replace(i)
		relays[i].awaitShards(t, relay.ShardCount/2) // either may tail
	}

	var inserted atomic.Int64
	var longest [producers]time.Duration
	producing, stopProducing := context.WithCancel(t.Context())
	defer stopProducing()
	var produced sync.WaitGroup
	for producer := range producers {
		produced.Go(func() {
			for n := 1; producing.Err() == nil; n++ {
				begun := time.Now()
				if _, err := db.SQL.ExecContext(context.WithoutCancel(producing), `
INSERT INTO outbox.events (account_id, event, payload, ordering_key)
VALUES (1 + $1::int % 4, 'message_created', json_build_object('n', $1::int, 'producer', $2::int), 'of ' || $2::int)`, n, producer); err != nil {
					t.Errorf("insert: %v", err)
					return
				}
				inserted.Add(1)
				longest[producer] = max(longest[producer], time.Since(begun))
				select {
				case <-time.After(10 * time.Millisecond):
				case <-producing.Done():
				}
			}
		})
	}

	replaceNext(0)
	long, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := long.QueryRowContext(t.Context(), `WITH i AS (`+strings.Replace(insertOne, "(1,", "(9,", 1)+`) SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	later := laterMigrations(t, `ALTER TABLE outbox.events ADD COLUMN later text;`)
	up := func(ctx context.Context, db *sql.DB) error { return migrations.Apply(ctx, db, later) }
	waits, migrated := make(chan error, 1000), make(chan error, 1)
	go func() {
		migrated <- postgres.Migrate(t.Context(), db.SQL, up, func(err error) { waits <- err })
	}()
	last := int64(-1)              // inserted when the last try had failed
	tried := func() (held error) { // and producers went on since
		deadline := time.NewTimer(time.Minute)
		defer deadline.Stop()
		select {
		case held = <-waits:
		case err := <-migrated:
			t.Fatalf("it migrated behind an open transaction, or failed: %v", err)
		case <-deadline.C:
			t.Fatal("it waits for its lock, and lets nobody go on")
		}
		now := inserted.Load()
		if now == last {
			t.Error("no event was inserted between two tries")
		}
		last = now
		return held
	}
	for named := false; !named; {
		named = strings.Contains(tried().Error(), fmt.Sprintf("process %d of user", pid))
	}
	replaceNext(1)
	for len(waits) > 0 {
		if held := <-waits; !errors.Is(held, postgres.ErrHeld) {
			t.Errorf("it waits for: %v", held)
		}
	}
	last = -1
	_ = tried()
	_ = tried()
	if err := long.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Fatalf("migrate: %v", err)
	}
	if version, err := migrations.Current(t.Context(), db.SQL); err != nil || version != migrations.Version+1 {
		t.Errorf("the schema is at version %d, %v", version, err)
	}
	replaceNext(0)
	replaceNext(1)
	stopProducing()
	produced.Wait()

	awaitSucceeded(t, db.SQL, int(inserted.Load()))
	// The time of a try, and what a busy machine takes besides.
	if took := slices.Max(longest[:]); took > migrations.LockTimeout+8*time.Second {
		t.Errorf("an insert took %s", took)
	}
	checkRecord(t, db.SQL, receiver.all())
	checkOrder(t, receiver.all())
}

// checkOrder fails where the events of a producer came to a receiver in another
// order, or where one did not come.
func checkOrder(t *testing.T, posts []seen) {
	t.Helper()
	begun, last := map[string]bool{}, map[string]int{}
	for _, p := range posts {
		if begun[p.delivery] {
			continue // a repeat
		}
		begun[p.delivery] = true
		var body struct{ N, Producer int }
		if err := json.Unmarshal([]byte(p.body), &body); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("%s of %d", p.path, body.Producer)
		if before, ok := last[key]; ok && body.N != before+4 { // they take turns among four accounts
			t.Errorf("%s: %d came after %d", key, body.N, before)
		}
		last[key] = body.N
	}
}
