package relay_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

const month = 30 * 24 * time.Hour

// patient is a retry policy under which a failed delivery waits for ever.
var patient = domain.RetryPolicy{Delays: []time.Duration{time.Hour, time.Hour, time.Hour}}

// nextPartition lets events go to the next partition, until it is certain that
// none will come to the one before.
func (b *bench) nextPartition(account domain.AccountID) {
	b.t.Helper()
	upper := scan[int64](b, `SELECT upper FROM relay.partitions WHERE lower <= (SELECT last_value FROM outbox.events_seq_seq) ORDER BY lower DESC LIMIT 1`)
	b.exec(`SELECT setval('outbox.events_seq_seq', $1)`, upper)
	b.eventually("a batch that knows of nothing older", func() (bool, string) {
		b.exec(`INSERT INTO outbox.events (account_id, event, payload, ordering_key) VALUES ($1, 'message_created', '{"id": 0}', '')`, int64(account))
		at := scan[int64](b, `SELECT relay.older_than('0')`)
		return at > upper, fmt.Sprint(at)
	})
}

// age makes all batches older.
func (b *bench) age(by time.Duration) {
	b.t.Helper()
	b.exec(`UPDATE relay.batches SET at = at - make_interval(secs => $1)`, by.Seconds())
}

// retained does steps until none is left, and gives what they did.
func (b *bench) retained(ages postgres.Ages) []string {
	b.t.Helper()
	var steps []string
	b.eventually("the end of retention", func() (bool, string) {
		for {
			step, idle, err := postgres.Retain(b.t.Context(), b.db, ages)
			switch {
			case errors.Is(err, postgres.ErrHeld):
				return false, err.Error()
			case err != nil:
				b.t.Fatal(err)
			case idle:
				return step == "", step
			}
			steps = append(steps, step)
		}
	})
	return steps
}

// verified fails the test where the seals do not fit the log.
func (b *bench) verified() {
	b.t.Helper()
	b.eventually("the seals to fit", func() (bool, string) { // what is being written has its seal with its commit
		wrong := scan[string](b, `SELECT coalesce(string_agg(concat_ws(' ', chain, seal, event_seq, problem), '; '), '') FROM audit.verify()`)
		return wrong == "", wrong
	})
}

// relation tells whether there is a table.
func (b *bench) relation(name string) bool {
	b.t.Helper()
	return scan[bool](b, `SELECT to_regclass($1) IS NOT NULL`, name)
}

// logOf is a digest of the log's rows of some events.
func (b *bench) logOf(condition string) string {
	b.t.Helper()
	return scan[string](b, `SELECT coalesce(md5(string_agg(l::text, E'\n' ORDER BY l.event_seq, l.webhook_id, l.replay_id, l.version)), '') FROM relay.log l WHERE `+condition)
}

func says(t *testing.T, steps []string, want ...string) {
	t.Helper()
	all := strings.Join(steps, "\n")
	for _, step := range want {
		if !strings.Contains(all, step) {
			t.Errorf("no step %q in\n%s", step, all)
		}
	}
}

// TestRetentionEndsWhatIsOpenAndErasesByPartition: payloads and responses go at
// their age, the log later at its own; what is younger is untouched and can be
// sent.
func TestRetentionEndsWhatIsOpenAndErasesByPartition(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.receiver.on("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("thank you")) })
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusInternalServerError) })
	b.webhook(7, "/good", nil)
	bad := b.webhook(7, "/bad", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	b.start(func(c *relay.Config) { c.Policy = patient })
	b.publish(7, "c1", 1, 6) // of which one fails and five are held behind it
	b.awaitStatus("held", 5)
	b.awaitStatus("succeeded", 6)
	b.nextPartition(8)
	b.age(month + time.Hour)
	b.publish(7, "c2", 7, 2)
	b.awaitStatus("held", 6)
	b.awaitStatus("succeeded", 8)
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE response_excerpt = 'thank you'`); n != 8 {
		t.Fatalf("%d responses are on record, want 8", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.log l JOIN relay.responses r USING (event_seq, webhook_id, replay_id, version)
WHERE l.data ->> 'excerpt_digest' = encode(sha256(r.salt || convert_to(r.excerpt, 'UTF8')), 'hex')`); n != 10 {
		t.Errorf("%d of 10 responses have their digest in the log", n)
	}
	before := b.logOf(`event_seq < 1000000`)

	plan, err := postgres.PlanRetention(t.Context(), b.db, postgres.Ages{Payloads: month, Responses: month})
	if err != nil || len(plan) != 2 || plan[0].Table != "outbox.events_0" || plan[0].Rows != 6 || plan[0].Bytes <= 0 || !strings.Contains(plan[0].Waits, "6 deliveries wait") || plan[1].Table != "relay.responses_0" {
		t.Fatalf("the plan is %+v, %v", plan, err)
	}
	if before != b.logOf(`event_seq < 1000000`) || scan[int](b, `SELECT count(*) FROM outbox.events_0`) != 6 || scan[int](b, `SELECT count(*) FROM relay.retentions`) != 0 {
		t.Error("planning changed something")
	}

	steps := b.retained(postgres.Ages{Payloads: month, Responses: month})
	says(t, steps, "erased relay.responses_0", "closes what is open below seq 1000000", "erased outbox.events_0", "dropped outbox.events_0", "dropped relay.responses_0")
	if got := b.deliveries(); got["expired"] != 6 || got["held"] != 1 || got["pending"] != 1 {
		t.Errorf("deliveries are %v", got)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'expired' AND reason = 'retention' AND webhook_id = $1`, int64(bad.ID)); n != 6 {
		t.Errorf("%d deliveries say that retention ended them", n)
	}
	if got := b.logOf(`event_seq < 1000000 AND type <> 'expired'`); got != before {
		t.Error("retention of payloads changed the log")
	}
	if b.relation("outbox.events_0") || b.relation("relay.responses_0") || !b.relation("relay.log_0") {
		t.Error("the tables are not those that should be left")
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE event_id IN (SELECT event_id FROM audit.events WHERE seq < 1000000) AND response_excerpt IS NOT NULL`); n != 0 {
		t.Errorf("%d old responses are left", n)
	}
	if !scan[bool](b, `SELECT bool_and((relay.payload_gone(seq) IS NOT NULL) = (seq < 1000000)) FROM audit.events`) {
		t.Error("payload_gone does not tell what is gone")
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.salts WHERE lower < 1000000`); n != 0 {
		t.Errorf("%d keys of erased salts are left", n)
	}

	// A replay of what is gone makes nothing, one of what is there goes.
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	b.exec(`SELECT relay.request_replay(relay.plan_replay(account_id => 7, webhook_id => $1, since => now() - interval '1 year', until => now() + interval '1 hour'))`, int64(bad.ID))
	b.awaitReplay(1, "finished 2 of 2: 2 succeeded, 0 dead")
	if n := scan[int](b, `SELECT (data ->> 'without_payload')::integer FROM audit.timeline WHERE stream = 'replay' AND type = 'planned'`); n != 6 {
		t.Errorf("the plan left out %d deliveries whose payload is gone, want 6", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE replay_id = 1`); n != 2 {
		t.Errorf("%d deliveries were replayed, want the 2 whose payload is there", n)
	}

	// The log goes at its own age.
	b.age(month)
	steps = b.retained(postgres.Ages{Payloads: 2*month + time.Hour, Responses: 2*month + time.Hour, Log: 2*month + time.Hour})
	says(t, steps, "erased relay.log_0", "dropped relay.log_0")
	if n := scan[int](b, `SELECT count(*) FROM relay.log WHERE event_seq < 1000000`); n != 0 || b.relation("relay.log_0") {
		t.Errorf("%d entries are left of the log", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.retentions WHERE action = 'erased' AND actor = session_user`); n != 3 {
		t.Errorf("%d erasures are on record, want 3", n)
	}
	b.publish(7, "c3", 9, 1)
	b.awaitStatus("succeeded", 6)
	b.verified()
}

// TestRetentionWithoutARelay: what is finished goes, what is open stays and is
// said; a relay that begins then ends it first.
func TestRetentionWithoutARelay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusInternalServerError) })
	b.webhook(7, "/bad", nil)
	running := b.start(func(c *relay.Config) { c.Policy = patient })
	b.publish(8, "c1", 1, 3) // to nobody
	b.nextPartition(8)
	b.publish(7, "c1", 4, 1)
	b.eventually("the failure", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM relay.due`) == 1, ""
	})
	b.nextPartition(8)
	running.stop()
	b.age(month + time.Hour)
	ages := postgres.Ages{Payloads: month, Responses: month, Log: month}

	var steps []string
	for {
		step, idle, err := postgres.Retain(t.Context(), b.db, ages)
		if err != nil {
			t.Fatal(err)
		}
		if idle {
			if !strings.Contains(step, "1 deliveries wait; no relay is at work") {
				t.Errorf("it waits for %q", step)
			}
			break
		}
		steps = append(steps, step)
	}
	says(t, steps, "erased outbox.events_0", "erased relay.log_0", "dropped relay.log_0")
	if !b.relation("outbox.events_1000000") || scan[int](b, `SELECT count(*) FROM relay.log_1000000 WHERE webhook_id > 0`) == 0 {
		t.Error("a partition with an open delivery was erased")
	}
	posts := len(b.receiver.got("/bad"))
	b.start(func(c *relay.Config) { c.Policy = patient })
	says(t, b.retained(ages), "erased outbox.events_1000000", "erased relay.log_1000000")
	if got := len(b.receiver.got("/bad")); got != posts {
		t.Errorf("it was sent once more")
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.due`); n != 0 {
		t.Errorf("%d rows still wait", n)
	}
}

// A relay with --no-send ends nothing: what it recorded stays until it is sent.
func TestRetentionWaitsForWhatWasNotSent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(7, "/hook", nil)
	b.start(func(c *relay.Config) { c.NoSend = true })
	b.publish(7, "c1", 1, 3)
	b.nextPartition(8)
	b.age(month + time.Hour)
	ages := postgres.Ages{Payloads: month}
	for {
		step, idle, err := postgres.Retain(t.Context(), b.db, ages)
		if err != nil {
			t.Fatal(err)
		}
		if idle {
			if !strings.Contains(step, "batches are not dispatched") || !strings.Contains(step, "--no-send") {
				t.Errorf("it waits for %q", step)
			}
			break
		}
	}
	if n := scan[int](b, `SELECT count(*) FROM outbox.events_0`); n != 3 {
		t.Errorf("%d of 3 payloads are left", n)
	}
}

// TestRetentionBehindALongReader: a dump holds its locks for hours. Producers
// go on meanwhile, and retention when it ends. A session that is killed in the
// middle of a step leaves nothing half done.
func TestRetentionBehindALongReader(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, nil))
	b := &bench{t, db.SQL, db.DSN, newReceiver(t), postgres.NewWebhooks(db.SQL)}
	b.start(nil)
	b.publish(8, "c1", 1, 10)
	b.nextPartition(8)
	b.age(month + time.Hour)
	ages := postgres.Ages{Payloads: month, Responses: month, Log: month}

	reader, err := b.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Rollback() }()
	if _, err := reader.ExecContext(t.Context(), `LOCK TABLE outbox.events, relay.log, relay.responses IN ACCESS SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	end := b.producing()
	held := 0
	for held < 5 {
		if _, _, err := postgres.Retain(t.Context(), b.db, ages); errors.Is(err, postgres.ErrHeld) {
			held++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	b.killRetention(ages)
	if n := scan[int](b, `SELECT count(*) FROM outbox.events_0`); n != 10 {
		t.Errorf("%d of 10 rows are left behind the reader", n)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	says(t, b.retained(ages), "erased outbox.events_0", "dropped outbox.events_0", "dropped relay.log_0")
	if n := end(); n == 0 {
		t.Error("nothing was inserted meanwhile")
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.retentions WHERE action = 'erased' AND storage = 'outbox.events_0'`); n != 1 {
		t.Errorf("it is %d times on record that the partition was erased", n)
	}
}

// producing inserts without a pause; an insert that fails fails the test. It
// gives how many there were.
func (b *bench) producing() (end func() int) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	b.t.Cleanup(cancel)
	var group sync.WaitGroup
	inserted := 0
	group.Go(func() {
		for ctx.Err() == nil {
			if _, err := b.db.ExecContext(b.t.Context(), `INSERT INTO outbox.events (account_id, event, payload) VALUES (8, 'message_created', '{}')`); err != nil {
				b.t.Errorf("an insert failed: %v", err)
				return
			}
			inserted++
		}
	})
	return func() int {
		cancel()
		group.Wait()
		return inserted
	}
}

// killRetention ends the session of a step that waits for a lock.
func (b *bench) killRetention(ages postgres.Ages) {
	b.t.Helper()
	victim, err := sql.Open("postgres", b.dsn+"&application_name=victim")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = victim.Close() }()
	ended := make(chan error, 1)
	go func() {
		for {
			_, _, err := postgres.Retain(b.t.Context(), victim, ages)
			if err != nil && !errors.Is(err, postgres.ErrHeld) {
				ended <- err
				return
			}
		}
	}()
	b.eventually("the end of the session", func() (bool, string) {
		b.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event_type = 'Lock'`)
		select {
		case err := <-ended:
			return err != nil, ""
		default:
			return false, "it was not seen waiting"
		}
	})
}

// TestRetentionOfTheNet: rows that no partition took go by bounded steps.
func TestRetentionOfTheNet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.receiver.on("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("thank you")) })
	b.webhook(7, "/good", nil)
	b.start(nil)
	b.exec(`SELECT setval('outbox.events_seq_seq', 10000000)`)
	b.publish(7, "c1", 1, 5)
	b.awaitStatus("succeeded", 5)
	b.exec(`SELECT setval('outbox.events_seq_seq', 10200000)`)
	b.eventually("a batch that knows of nothing older", func() (bool, string) {
		b.publish(8, "c1", 1, 1)
		return scan[int64](b, `SELECT relay.older_than('0')`) > 10200000, ""
	})
	b.age(month + time.Hour)
	steps := b.retained(postgres.Ages{Payloads: month, Responses: month, Log: month})
	says(t, steps, "rows of relay.responses_net", "rows of outbox.events_net", "rows of relay.log_net")
	if n := scan[int](b, `SELECT (SELECT count(*) FROM outbox.events WHERE account_id = 7) + (SELECT count(*) FROM relay.log WHERE account_id = 7) + (SELECT count(*) FROM relay.responses)`); n != 0 {
		t.Errorf("%d rows of the old events are left", n)
	}
	b.verified()
}

// TestAQuietOutboxGoesOnInTheNextPartition, so that old events do not stay for
// as long as a partition has room.
func TestAQuietOutboxGoesOnInTheNextPartition(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	b.publish(8, "c1", 1, 3)
	ages := postgres.Ages{Payloads: month}
	if steps := b.retained(ages); len(steps) != 0 {
		t.Errorf("on the first day: %q", steps)
	}
	b.exec(`UPDATE outbox.events SET inserted_at = inserted_at - interval '3 days 1 hour'`)
	says(t, b.retained(ages), "new events go to the partition from seq 1000000 on")
	b.publish(8, "c1", 4, 1)
	if seq := scan[int64](b, `SELECT max(seq) FROM outbox.events`); seq != 1_000_000 {
		t.Errorf("the next event is %d", seq)
	}
	b.eventually("the routing of the next event", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM audit.events WHERE routing = 'no_subscriber'`) == 4, ""
	})
	if steps := b.retained(ages); len(steps) != 0 {
		t.Errorf("then: %q", steps)
	}
	// The gap is no traffic: the partitions that are made ahead stay small.
	b.eventually("the next partitions", func() (bool, string) {
		b.exec(`SELECT relay.extend_partitions()`)
		return scan[int64](b, `SELECT max(upper) FROM relay.partitions WHERE responses_done`) >= 3_000_000, ""
	})
	if n := scan[int64](b, `SELECT max(upper - lower) FROM relay.partitions`); n != 1_000_000 {
		t.Errorf("the largest partition has room for %d rows", n)
	}
}

// TestAgesThatContradictEachOtherAreRefused by the database, whoever asks.
func TestAgesThatContradictEachOtherAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, ages := range []postgres.Ages{
		{Payloads: time.Hour}, {Log: month}, {Payloads: month, Responses: month, Log: 6 * 24 * time.Hour}, {Payloads: 2 * month, Responses: month, Log: month}, {Payloads: month, Log: month},
	} {
		if step, _, err := postgres.Retain(t.Context(), b.db, ages); err == nil {
			t.Errorf("%+v: %s", ages, step)
		}
		if _, err := postgres.PlanRetention(t.Context(), b.db, ages); err == nil {
			t.Errorf("%+v can be planned", ages)
		}
	}
}

// TestRetentionLetsAnAttemptUnderWayFinish: what it comes to is on record, and
// another one does not follow.
func TestRetentionLetsAnAttemptUnderWayFinish(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	release := make(chan struct{})
	for path, status := range map[string]int{"/good": http.StatusOK, "/bad": http.StatusInternalServerError} {
		b.receiver.on(path, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			w.WriteHeader(status)
		})
	}
	b.webhook(7, "/good", func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	b.webhook(7, "/bad", func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	b.start(nil)
	b.publish(7, "c1", 1, 1)
	b.eventually("both attempts", func() (bool, string) { return len(b.receiver.got("")) == 2, "" })
	b.nextPartition(8)
	b.age(month + time.Hour)
	ages := postgres.Ages{Payloads: month, Responses: month}
	b.eventually("the closing", func() (bool, string) {
		step, idle, err := postgres.Retain(t.Context(), b.db, ages)
		if err != nil && !errors.Is(err, postgres.ErrHeld) {
			t.Fatal(err)
		}
		known := scan[int](b, `SELECT count(*) FROM relay.endings_seen WHERE version > 0`) // a relay that does not know makes the next attempt
		return known == 1 && idle && strings.Contains(step, "2 attempts are under way"), step
	})
	close(release)
	says(t, b.retained(ages), "erased outbox.events_0")
	if got := b.deliveries(); got["succeeded"] != 1 || got["expired"] != 1 {
		t.Errorf("deliveries are %v", got)
	}
	if n := len(b.receiver.got("")); n != 2 {
		t.Errorf("%d POSTs were made, want 2", n)
	}
}

// TestARelayErasesByAgeItself, and ends first what waited when it began.
func TestARelayErasesByAgeItself(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusInternalServerError) })
	b.webhook(7, "/bad", nil)
	running := b.start(func(c *relay.Config) { c.Policy = patient })
	b.publish(7, "c1", 1, 3)
	b.awaitStatus("held", 2)
	b.nextPartition(8)
	running.stop()
	b.age(month + time.Hour)
	b.start(func(c *relay.Config) {
		c.Policy = patient
		c.Retain = postgres.NewStore(c.DB).Retain(postgres.Ages{Payloads: month, Responses: month, Log: month})
	})
	b.eventually("the end of the first partition", func() (bool, string) {
		return !b.relation("outbox.events_0") && !b.relation("relay.responses_0") && !b.relation("relay.log_0"),
			scan[string](b, `SELECT coalesce(string_agg(concat_ws(' ', action, storage), ', ' ORDER BY at), '') FROM audit.retentions`)
	})
	if n := scan[int](b, `SELECT count(*) FROM audit.retentions r WHERE action = 'closed'`); n != 1 {
		t.Errorf("%d times the open deliveries were asked to end", n)
	}
	if n := len(b.receiver.got("/bad")); n != 1 {
		t.Errorf("%d POSTs were made, want 1", n)
	}
}

// TestRetentionReadsNoHistory: looking whether something has reached its age
// costs the same however much there is (P9).
func TestRetentionReadsNoHistory(t *testing.T) {
	t.Parallel()
	const many = 20_000
	b := newBench(t)
	b.exec(`
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT i, i - 1, pg_current_snapshot(), 0, 0, 0, i, i - 1, i, i, i, 1, now() - interval '10 days' + i * interval '30 s' FROM generate_series(1, $1::integer) i`, many)
	b.exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
SELECT i, 1, 0, 1, i << 20, 1, now(), 2, 'attempt_started', '{}' FROM generate_series(1, $1::integer) i`, many)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, $1::integer)`, many)
	b.exec(`UPDATE relay.slots SET position = $1, low = $2`, many+1, int64(many+1)<<20)
	b.exec(`UPDATE relay.projected SET batch = $1`, many+1)
	b.exec(`ANALYZE relay.batches, relay.log, outbox.events`)
	tx, err := b.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var step string
	if err := tx.QueryRowContext(t.Context(), `SELECT relay.retain('8 days', '7 days', '9 days')`).Scan(&step); err != nil {
		t.Fatal(err)
	}
	var read int
	if err := tx.QueryRowContext(t.Context(), `
SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables WHERE schemaname IN ('relay', 'outbox') AND relname NOT IN ('partitions', 'slots')`).Scan(&read); err != nil {
		t.Fatal(err)
	}
	// Of the chain it reads the first thousand that are old, before it prunes.
	if !strings.HasPrefix(step, "pruned") {
		t.Fatalf("the step is %q", step)
	}
	if err := tx.QueryRowContext(t.Context(), `SELECT relay.retain('8 days', '7 days')`).Scan(&step); err != nil || step != "nothing to do" {
		t.Fatalf("the next step is %q, %v", step, err)
	}
	var again int
	if err := tx.QueryRowContext(t.Context(), `
SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables WHERE schemaname IN ('relay', 'outbox') AND relname NOT IN ('partitions', 'slots')`).Scan(&again); err != nil {
		t.Fatal(err)
	}
	if again-read > 20 {
		t.Errorf("a step that does nothing reads %d rows", again-read)
	}
}
