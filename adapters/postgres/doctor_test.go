package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
)

// examination is what the doctor found.
type examination struct {
	t        *testing.T
	findings []postgres.Finding
}

// doctorTimeout is generous: a loaded machine is no sick database.
const doctorTimeout = 60 * time.Second

// examine looks at a database as the user of a URL.
func examine(t *testing.T, dsn string, timeout time.Duration) *examination {
	t.Helper()
	return examineWith(t, dsn, postgres.DoctorConfig{Timeout: timeout})
}

func examineWith(t *testing.T, dsn string, config postgres.DoctorConfig) *examination {
	t.Helper()
	config.DSN, config.Release, config.Rows = dsn, "v9", 1000
	db, err := postgres.Open(dsn, "outrider")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	return &examination{t, postgres.Examine(t.Context(), db, config)}
}

// says checks that a check has a finding of this health with texts in it or in
// its advice.
func (e *examination) says(check string, health postgres.Health, texts ...string) {
	e.t.Helper()
	var of []string
	for _, f := range e.findings {
		if f.Check != check {
			continue
		}
		all := true
		for _, text := range texts {
			all = all && strings.Contains(f.Found+" → "+f.Advice, text)
		}
		if f.Health == health && all {
			return
		}
		of = append(of, fmt.Sprintf("%s: %s\n  → %s", f.Health, f.Found, f.Advice))
	}
	e.t.Errorf("%s: want %s with %q, found\n%s", check, health, texts, strings.Join(of, "\n"))
}

// has reports whether a check has a finding of this health.
func (e *examination) has(check string, health postgres.Health) bool {
	for _, f := range e.findings {
		if f.Check == check && f.Health == health {
			return true
		}
	}
	return false
}

func do(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
}

// userOf gives the URL of a new login role with these rights.
func userOf(t *testing.T, db *pgtest.DB, options string, grants ...string) (dsn, role string) {
	t.Helper()
	role = "u_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	do(t, db.SQL, `CREATE ROLE `+role+` LOGIN `+options+` PASSWORD '`+userPassword+`'`)
	for _, grant := range grants {
		do(t, db.SQL, `GRANT `+grant+` TO `+role)
	}
	return with(t, db.DSN, func(u *url.URL) { u.User = url.UserPassword(role, userPassword) }), role
}

// healthySettings are those of a server for production.
var healthySettings = map[string]string{"fsync": "on", "full_page_writes": "on", "autovacuum": "on"}

// relayAt makes a relay the owner whose last sign of life is so old.
func relayAt(t *testing.T, db *sql.DB, silent string) {
	t.Helper()
	do(t, db, `
INSERT INTO relay.relays (name, version, recorder) SELECT 'host-a', 'v1', count(*) FROM relay.relays;
UPDATE relay.slots SET relay_id = (SELECT max(relay_id) FROM relay.relays), since = clock_timestamp() - interval '1 hour';
INSERT INTO relay.heartbeats (relay_id, n, position, low, at) SELECT max(relay_id), 1, 0, 0, clock_timestamp() - interval '`+silent+`' FROM relay.relays`)
}

// A server in order, with a relay that gives signs of life, has no problem and
// no warning, and the examination leaves no trace.
func TestTheDoctorFindsNothingWrongWhereNothingIs(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, healthySettings))
	relayAt(t, db.SQL, "-1 hour") // a sign of life that does not age in this test
	if err := postgres.RegisterIdentity(t.Context(), db.SQL); err != nil {
		t.Fatal(err)
	}
	next := `SELECT pg_snapshot_xmax(pg_current_snapshot())::text`
	before := texts(t, db.SQL, next)[0]
	e := examine(t, db.DSN, doctorTimeout)
	for _, f := range e.findings {
		if f.Health != postgres.Healthy && f.Check != "clone" {
			t.Errorf("%s: %s: %s", f.Check, f.Health, f.Found)
		}
		if strings.Contains(f.Found+f.Advice, "%!") {
			t.Errorf("%s: %s → %s", f.Check, f.Found, f.Advice)
		}
	}
	e.says("clone", postgres.Note, "identity", "--no-send")
	e.says("relay", postgres.Healthy, "host-a", "is at work since 1h0m with 64 shards and the tail, last sign of life")
	e.says("version", postgres.Healthy, "outrider v9", "schema version "+strconv.FormatInt(migrations.Version, 10))
	if after := texts(t, db.SQL, next)[0]; after != before {
		t.Errorf("the examination took transaction ids: %s, then %s", before, after)
	}
}

func TestTheDoctorKnowsWhatEachUserMay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	relay, _ := userOf(t, db, "", "outrider_relay")
	e := examine(t, relay, doctorTimeout)
	e.says("rights", postgres.Healthy, "may run: serve; webhook")
	e.says("passed over", postgres.Healthy)

	web, role := userOf(t, db, "", "outrider_web")
	examine(t, web, doctorTimeout).says("rights", postgres.Healthy, "may run: audit; web. Not: serve; webhook", "GRANT outrider_operator TO "+role)

	operator, role := userOf(t, db, "", "outrider_operator")
	e = examine(t, operator, doctorTimeout)
	e.says("rights", postgres.Healthy, "may run: webhook, replay, token and all of doctor; audit. Not: serve; web", "GRANT outrider_relay TO "+role)
	for _, f := range e.findings {
		if f.Health == postgres.Unseen {
			t.Errorf("an operator does not see %s: %s", f.Check, f.Found)
		}
	}
	e.says("transactions", postgres.Healthy, "GRANT pg_read_all_stats TO "+role)

	auditor, role := userOf(t, db, "", "outrider_auditor")
	do(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`)
	e = examine(t, auditor, doctorTimeout)
	e.says("tail", postgres.Healthy, "1 event waits to be routed")
	for _, check := range []string{"version", "identity", "relay", "passed over", "sending", "open attempts", "due", "partitions", "net", "relay's clock"} {
		e.says(check, postgres.Unseen, "GRANT outrider_operator TO "+role)
	}

	nobody, role := userOf(t, db, "")
	e = examine(t, nobody, doctorTimeout)
	e.says("rights", postgres.Problem, "GRANT outrider_auditor TO "+role)
	e.says("tail", postgres.Unseen, "GRANT outrider_auditor TO "+role)

	idle, role := userOf(t, db, "NOINHERIT", "outrider_relay")
	examine(t, idle, doctorTimeout).says("rights", postgres.Problem, role+" is a member of outrider_relay without its rights")

	limited, role := userOf(t, db, "CONNECTION LIMIT 5", "outrider_operator")
	examine(t, limited, doctorTimeout).says("connections", postgres.Warning, "connection limit of user", "ALTER ROLE "+role+" CONNECTION LIMIT -1")
}

func TestTheDoctorKnowsWhatTheSchemaIs(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	db := pgtest.NewOn(t, server)
	e := examine(t, server.DSN("postgres"), doctorTimeout)
	e.says("version", postgres.Problem, "nothing of Outrider is in it", "outrider migrate")
	if len(e.findings) == 0 || e.has("tail", postgres.Healthy) {
		t.Errorf("without a schema it found %v", e.findings)
	}

	do(t, db.SQL, `CREATE DATABASE other_encoding ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	examine(t, server.DSN("other_encoding"), doctorTimeout).says("version", postgres.Problem, "encoding is SQL_ASCII", "ENCODING 'UTF8'")

	do(t, db.SQL, `DROP VIEW relay.outbox_rows, relay.outbox_net_rows; DELETE FROM relay.schema_migrations WHERE version_id >= 10`)
	e = examine(t, db.DSN, doctorTimeout)
	e.says("version", postgres.Problem, "the database has version 9", "outrider migrate")
	e.says("passed over", postgres.Unseen, "takes the schema of this binary")
	e.says("tail", postgres.Healthy, "no event waits")

	do(t, db.SQL, `INSERT INTO relay.schema_migrations (version_id, is_applied) VALUES (99, true)`)
	examine(t, db.DSN, doctorTimeout).says("version", postgres.Healthy, "has version 99, on which it works")
	do(t, db.SQL, `CREATE OR REPLACE FUNCTION relay.compatible_since() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 99::bigint`)
	examine(t, db.DSN, doctorTimeout).says("version", postgres.Problem, "has version 99", "newer version of outrider")

	do(t, db.SQL, `ALTER ROLE outrider_auditor RENAME TO kept`)
	examine(t, db.DSN, doctorTimeout).says("rights", postgres.Problem, "roles are missing", "CREATE ROLE outrider_auditor")
}

func TestTheDoctorKnowsACopyAndAReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	examine(t, db.DSN, doctorTimeout).says("identity", postgres.Note, "no relay has run")
	if err := postgres.RegisterIdentity(t.Context(), db.SQL); err != nil {
		t.Fatal(err)
	}
	examine(t, db.DSN, doctorTimeout).says("identity", postgres.Healthy, "cluster")
	do(t, db.SQL, `UPDATE relay.identity SET database_oid = 1, database_name = 'prod'`,
		`INSERT INTO outbox.events (xid, account_id, event, payload) VALUES ('5000000000', 1, 'message_created', '{}')`)
	e := examine(t, db.DSN, doctorTimeout)
	e.says("identity", postgres.Problem, `database "prod" (oid 1)`)
	e.says("passed over", postgres.Problem, "seq 1", "outrider adopt")
	do(t, db.SQL, `UPDATE relay.identity SET system_identifier = 7`)
	examine(t, db.DSN, doctorTimeout).says("identity", postgres.Problem, "cluster 7, now")

	do(t, db.SQL, `SELECT relay.adopt()`)
	e = examine(t, db.DSN, doctorTimeout)
	e.says("identity", postgres.Healthy, "cluster")
	e.says("passed over", postgres.Healthy, "within reach of the tail")
	e.says("tail", postgres.Problem, "1 event waits")

	e = examine(t, with(t, db.DSN, func(u *url.URL) { u.RawQuery += "&default_transaction_read_only=on" }), doctorTimeout)
	e.says("read-write", postgres.Problem, "default_transaction_read_only", "RESET")
}

func TestTheDoctorTellsAKilledRelayFromAStoppedOne(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	do(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`)
	e := examine(t, db.DSN, doctorTimeout)
	e.says("relay", postgres.Problem, "no relay has ever worked", "outrider serve")
	e.says("tail", postgres.Problem, "1 event waits to be routed", "no relay is at work")

	relayAt(t, db.SQL, "3 minutes")
	e = examine(t, db.DSN, doctorTimeout)
	e.says("relay", postgres.Problem, "relay 1 (host-a, v1) gave its last sign of life 3m", "was killed or is cut off, and no other took over its 64 shards and the tail", "outrider serve")

	do(t, db.SQL, `DELETE FROM relay.heartbeats; UPDATE relay.slots SET relay_id = NULL; UPDATE relay.relays SET fenced_at = clock_timestamp()`)
	examine(t, db.DSN, doctorTimeout).says("relay", postgres.Problem, "stopped in an orderly way 1h")

	relayAt(t, db.SQL, "-1 hour")
	do(t, db.SQL, `UPDATE outbox.events SET inserted_at = clock_timestamp() - interval '5 minutes'`)
	e = examine(t, db.DSN, doctorTimeout)
	e.says("relay", postgres.Healthy, "relay 2 (host-a, v1) is at work")
	e.says("tail", postgres.Problem, "the position did not move for 2.5s", "the oldest for 5m")

	// A position that moves is at work, however old what waits is.
	stop := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			_, err := db.SQL.ExecContext(context.WithoutCancel(t.Context()), `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
SELECT no + 1, no, consumed, cursor, floor, window_floor, high, low, 0, 0, 0, 2 FROM relay.batches ORDER BY no DESC LIMIT 1`)
			if err != nil {
				t.Error(err)
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	e = examine(t, db.DSN, doctorTimeout)
	close(stop)
	moving.Wait()
	e.says("tail", postgres.Warning, "the tail is at work on them")
}

// relayWith makes a relay that owns the slots from one to another, with a last
// sign of life that is so old, or none.
func relayWith(t *testing.T, db *sql.DB, name string, sends bool, from, to int, silent string) {
	t.Helper()
	do(t, db, fmt.Sprintf(`
INSERT INTO relay.relays (name, version, sends, recorder, started_at)
SELECT '%s', 'v1', %t, count(*), clock_timestamp() - interval '2 hours' FROM relay.relays;
UPDATE relay.slots SET relay_id = (SELECT max(relay_id) FROM relay.relays), since = clock_timestamp() - interval '1 hour' WHERE slot BETWEEN %d AND %d`, name, sends, from, to))
	if silent != "" {
		do(t, db, fmt.Sprintf(`
INSERT INTO relay.heartbeats (relay_id, n, position, low, at) SELECT max(relay_id), 1, 0, 0, clock_timestamp() - interval '%s' FROM relay.relays`, silent))
	}
}

func TestTheDoctorKnowsHowRelaysShare(t *testing.T) {
	t.Parallel()
	const alive = "-1 hour" // it does not age in this test
	for name, test := range map[string]struct {
		relays func(*testing.T, *sql.DB)
		want   []postgres.Health
		texts  []string
	}{
		"several": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 0, 31, alive)
			relayWith(t, db, "host-b", true, 32, 64, alive)
		}, []postgres.Health{postgres.Healthy}, []string{"2 relays are at work: relay 1 (host-a, v1) with 32 shards, last sign of life ", "; relay 2 (host-b, v1) with 32 shards and the tail, last sign of life "}},
		"one that routes beside one that sends": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", false, 64, 64, alive)
			relayWith(t, db, "host-b", true, 0, 63, alive)
		}, []postgres.Health{postgres.Healthy}, []string{"2 relays are at work: relay 1 (host-a, v1) with the tail, ", "relay 2 (host-b, v1) with 64 shards, "}},
		"one too many": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 0, 64, alive)
			relayWith(t, db, "host-b", true, 70, 70, alive)
		}, []postgres.Health{postgres.Healthy}, []string{"relay 2 (host-b, v1) with nothing, since others have all"}},
		"one that is stopping": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 0, 64, alive)
			relayWith(t, db, "host-b", true, 70, 70, alive)
			do(t, db, `UPDATE relay.relays SET leaving_at = clock_timestamp() WHERE relay_id = 2`)
		}, []postgres.Health{postgres.Healthy}, []string{"relay 1 (host-a, v1) is at work since 1h0m with 64 shards and the tail, ", "; relay 2 (host-b, v1) is stopping"}},
		"only one that is stopping": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 70, 70, alive)
			do(t, db, `UPDATE relay.relays SET leaving_at = clock_timestamp()`)
		}, []postgres.Health{postgres.Problem}, []string{"no relay is at work: relay 1 (host-a, v1) is stopping", "outrider serve"}},
		"only one that routes": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", false, 64, 64, alive)
		}, []postgres.Health{postgres.Problem}, []string{"relay 1 (host-a, v1) is at work since 1h0m with the tail, ", "nothing is sent, since no relay runs without --no-send", "while moving over: start one: outrider serve"}},
		"a dead one": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 0, 40, alive)
			relayWith(t, db, "host-b", true, 41, 63, "20 s")
			relayWith(t, db, "host-c", true, 64, 64, "")
		}, []postgres.Health{postgres.Healthy, postgres.Problem, postgres.Problem}, []string{
			"relay 1 (host-a, v1) is at work since 1h0m with 41 shards, ", "relay 2 (host-b, v1) gave its last sign of life 20", "no other took over its 23 shards → the other relays' logs",
			"relay 3 (host-c, v1) began 2h0m ago and gave no sign of life since: it is dead or cut off, and no other took over its tail",
		}},
		"nobody's": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 0, 60, alive)
			do(t, db, `UPDATE relay.slots SET since = clock_timestamp() - interval '90 s' WHERE slot = 64`)
		}, []postgres.Health{postgres.Healthy, postgres.Problem, postgres.Problem}, []string{
			"nobody tails, since 1m30", "events wait to be routed", "3 shards belong to nobody, since 2h", "their webhooks get nothing",
		}},
		"nobody's for a moment": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 0, 60, alive)
			do(t, db, `UPDATE relay.slots SET since = clock_timestamp() + interval '1 hour' WHERE slot > 60`)
		}, []postgres.Health{postgres.Healthy}, []string{"with 61 shards, "}},
		"nobody's before anyone came": {func(t *testing.T, db *sql.DB) {
			t.Helper()
			relayWith(t, db, "host-a", true, 70, 70, alive)
			do(t, db, `UPDATE relay.relays SET started_at = clock_timestamp() + interval '1 hour'`)
		}, []postgres.Health{postgres.Healthy}, []string{"relay 1 (host-a, v1) began ", "and takes over what there is"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			test.relays(t, db.SQL)
			e := examine(t, db.DSN, doctorTimeout)
			var found []postgres.Health
			var text strings.Builder
			for _, f := range e.findings {
				if f.Check == "relay" {
					found = append(found, f.Health)
					text.WriteString(f.Found + " → " + f.Advice + "\n")
				}
			}
			if !slices.Equal(found, test.want) {
				t.Errorf("the findings are %v, want %v:\n%s", found, test.want, text.String())
			}
			for _, want := range test.texts {
				if !strings.Contains(text.String(), want) {
					t.Errorf("%q is not in\n%s", want, text.String())
				}
			}
		})
	}
}

// scheduled writes a batch with one delivery that nobody has begun.
const scheduled = `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
VALUES (1, 0, pg_current_snapshot(), 0, 0, 0, 1, 0, 1, 1, 1, 1, clock_timestamp() - interval '5 minutes');
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing) VALUES
 (1, 0, 0, 1, (1 << 20) + 1, 1, now(), 1, 'routed', '{}', gen_random_uuid(), NULL, 'routed'),
 (1, 1, 0, 1, (1 << 20) + 2, 1, now(), 1, 'scheduled', '{}', gen_random_uuid(), gen_random_uuid(), NULL)`

const started = `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
VALUES (1, 1, 0, 1, (2 << 20) + 1, %s, clock_timestamp() - interval '%s', %d, 'attempt_started', '{"attempt": 1}')`

func TestTheDoctorKnowsWhatIsNotSent(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	do(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`, scheduled)
	e := examine(t, db.DSN, doctorTimeout)
	e.says("sending", postgres.Warning, "1 routed delivery is not begun", "wait for a relay", "no attempt was ever made")
	e.says("due", postgres.Healthy, "nothing waits")

	relayAt(t, db.SQL, "-1 hour")
	e = examine(t, db.DSN, doctorTimeout)
	e.says("sending", postgres.Problem, "although relay 1 has their shards: no attempt was ever made", "it hangs")
	do(t, db.SQL, `UPDATE relay.relays SET sends = false`)
	examine(t, db.DSN, doctorTimeout).says("sending", postgres.Problem, "although a relay routes: no attempt was ever made", "--no-send", "outrider serve")
	do(t, db.SQL, `UPDATE relay.relays SET sends = true`, `UPDATE relay.slots SET relay_id = NULL WHERE slot = 7`)
	examine(t, db.DSN, doctorTimeout).says("sending", postgres.Problem, "their shards belong to nobody")
	do(t, db.SQL, `UPDATE relay.slots SET relay_id = 1 WHERE slot = 7`)
	e.says("open attempts", postgres.Healthy, "has its outcome")

	do(t, db.SQL, fmt.Sprintf(started, "1", "-1 hour", 2)) // it does not age in this test
	e = examine(t, db.DSN, doctorTimeout)
	e.says("sending", postgres.Healthy, "no routed delivery waits to be begun; the last attempt began")
	e.says("open attempts", postgres.Healthy, "1 attempt has no outcome yet")
	e.says("relay's clock", postgres.Problem, "ahead of the database's", "NTP")

	do(t, db.SQL, `UPDATE relay.heartbeats SET at = clock_timestamp() - interval '1 hour'`, `UPDATE relay.log SET at = clock_timestamp() - interval '20 min' WHERE version = 2`)
	examine(t, db.DSN, doctorTimeout).says("open attempts", postgres.Warning, "no relay waits for it", "as unknown")
	do(t, db.SQL, `UPDATE relay.heartbeats SET at = clock_timestamp() + interval '1 hour'`)
	examine(t, db.DSN, doctorTimeout).says("open attempts", postgres.Warning, "the oldest began 20m", "--status started")
	do(t, db.SQL, `UPDATE relay.log SET at = clock_timestamp(), writer = 77 WHERE version = 2`)
	examine(t, db.DSN, doctorTimeout).says("open attempts", postgres.Note, "is one of an earlier relay")

	do(t, db.SQL, `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES
 (1, 1, 0, 9, 'r', clock_timestamp() + interval '1 hour', 1, 0), (1, 2, 0, 9, 'h', clock_timestamp() + interval '2 hours', 1, 5)`)
	examine(t, db.DSN, doctorTimeout).says("due", postgres.Healthy, "2 deliveries wait: ", "1 to be tried again", "1 held behind an earlier one", "the next is due in")
	do(t, db.SQL, `UPDATE relay.due SET at = clock_timestamp() - interval '10 minutes'`)
	examine(t, db.DSN, doctorTimeout).says("due", postgres.Warning, "overdue by 10m", "outrider audit deliveries")
	do(t, db.SQL, `UPDATE relay.heartbeats SET at = clock_timestamp() - interval '1 hour'`)
	examine(t, db.DSN, doctorTimeout).says("due", postgres.Warning, "overdue by 10m", "outrider serve")
}

// TestTheDoctorTellsOfReceiversThatAreDown: what waits for them is not late.
func TestTheDoctorTellsOfReceiversThatAreDown(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	relayAt(t, db.SQL, "-1 hour")
	examine(t, db.DSN, doctorTimeout).says("receivers", postgres.Healthy, "no receiver is down")
	hooks := postgres.NewWebhooks(db.SQL)
	for i := range 7 {
		hook := registerAt(t, hooks, fmt.Sprintf("https://example.com/%d", i))
		at := time.Now().Add(-time.Duration(i+1) * time.Hour)
		if _, err := hooks.ChangeBreaker(t.Context(), hook.AccountID, hook.ID, domain.OpenBreaker{At: at, Reason: "x", URL: hook.Settings.URL}); err != nil {
			t.Fatal(err)
		}
	}
	do(t, db.SQL, `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES
 (1, 1, 0, 9, 'r', clock_timestamp() - interval '1 hour', 1, 0), (1, 99, 0, 9, 'r', clock_timestamp() + interval '2 hours', 1, 0)`)
	found := examine(t, db.DSN, doctorTimeout)
	found.says("receivers", postgres.Warning, "7 receivers are down, and get probes only: webhook 7, 6, 5, 4, 3 and others; the first since 7h", "--webhook 7")
	found.says("due", postgres.Healthy, "the next is due in")
	if _, err := hooks.ChangeBreaker(t.Context(), 1, 7, domain.CloseBreaker{}); err != nil {
		t.Fatal(err)
	}
	examine(t, db.DSN, doctorTimeout).says("receivers", postgres.Warning, "6 receivers are down", "webhook 6, 5, 4, 3, 2 and others")
}

func TestTheDoctorComparesThisMachinesClock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, test := range []struct {
		off    time.Duration
		health postgres.Health
		text   string
	}{
		{0, postgres.Healthy, "this machine's clock is"},
		{2 * time.Minute, postgres.Warning, "2m ahead of the database's"},
		{-2 * time.Minute, postgres.Warning, "behind the database's"},
		{10 * time.Minute, postgres.Problem, "receivers refuse signatures"},
	} {
		now := func() time.Time { return time.Now().Add(test.off) }
		examineWith(t, db.DSN, postgres.DoctorConfig{Timeout: doctorTimeout, Now: now}).says("clock", test.health, test.text)
	}
}

func TestTheDoctorComparesTheRelaysClock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	do(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`, scheduled)
	examine(t, db.DSN, doctorTimeout).says("relay's clock", postgres.Problem, "at least 5m", "behind the database's")
	do(t, db.SQL, `UPDATE relay.batches SET at = clock_timestamp() - interval '3 s' WHERE no = 1`)
	do(t, db.SQL, `UPDATE outbox.events SET inserted_at = (SELECT at + interval '1.5 s' FROM relay.batches WHERE no = 1)`)
	examine(t, db.DSN, doctorTimeout).says("relay's clock", postgres.Warning, "at least 1.5s behind")
	do(t, db.SQL, `UPDATE outbox.events SET inserted_at = (SELECT at FROM relay.batches WHERE no = 1)`)
	examine(t, db.DSN, doctorTimeout).says("relay's clock", postgres.Healthy, "fits")
}

func TestTheDoctorMeasuresTheRoomInPartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	e := examine(t, db.DSN, doctorTimeout)
	e.says("partitions", postgres.Healthy, "room for 3,000,000 rows")
	e.says("net", postgres.Healthy, "empty")

	do(t, db.SQL, `SELECT setval('outbox.events_seq_seq', 2700000)`, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`)
	examine(t, db.DSN, doctorTimeout).says("partitions", postgres.Warning, "room for 299,999 rows", "extend_partitions")
	do(t, db.SQL, `SELECT setval('outbox.events_seq_seq', 3000000)`, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`)
	e = examine(t, db.DSN, doctorTimeout)
	e.says("partitions", postgres.Problem, "no partition takes new rows")
	e.says("net", postgres.Warning, "1 row of outbox.events_net, 0 rows of relay.log_net", "extend_partitions")
	do(t, db.SQL, `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
VALUES (1, 0, pg_current_snapshot(), 0, 0, 0, 3000001, 0, 1, 1, 1, 1, clock_timestamp() - interval '2 days')`)
	examine(t, db.DSN, doctorTimeout).says("net", postgres.Note, "more than a day ago")

	do(t, db.SQL, `UPDATE relay.batches SET at = at - interval '2 days'`, `INSERT INTO relay.partitions (lower, upper, events_done, log_done, responses_done) VALUES (4000000, 6000000, true, true, true)`,
		`INSERT INTO relay.partitions (lower, upper, created_at) VALUES (6000000, 7000000, clock_timestamp() - interval '3 hours')`)
	examine(t, db.DSN, doctorTimeout).says("partitions", postgres.Warning, "planned since 3h")
}

func TestTheDoctorKnowsSettingsThatHurt(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, map[string]string{
		"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off", "track_counts": "off", "statement_timeout": "20s",
		"idle_session_timeout": "25s", "max_prepared_transactions": "2", "max_connections": "16", "wal_level": "replica", "max_replication_slots": "2",
	})
	db := pgtest.NewOn(t, server)
	prepared, err := db.SQL.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{`BEGIN`, `CREATE TABLE public.t ()`, `PREPARE TRANSACTION 'forgotten'`} {
		if _, err := prepared.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepared.Close(); err != nil {
		t.Fatal(err)
	}
	do(t, db.SQL, `SELECT pg_create_physical_replication_slot('forgotten', true)`)
	e := examine(t, db.DSN, doctorTimeout)
	e.says("settings", postgres.Problem, "fsync = off", "serve refuses it", "SET fsync = on")
	e.says("settings", postgres.Warning, "full_page_writes = off")
	e.says("settings", postgres.Note, "synchronous_commit = off", "the relay's are not")
	e.says("settings", postgres.Warning, "autovacuum = off", "relay.due")
	e.says("settings", postgres.Warning, "track_counts = off")
	e.says("settings", postgres.Warning, "statement_timeout = 20000", "ALTER ROLE outrider SET statement_timeout = 0")
	e.says("settings", postgres.Warning, "idle_session_timeout = 25000")
	e.says("settings", postgres.Note, "max_prepared_transactions = 2", "cannot insert while the relay sleeps")
	e.says("connections", postgres.Warning, "of max_connections = 16 are free", "needs 13")
	e.says("transactions", postgres.Healthy, "no transaction is open")
	e.says("slots", postgres.Healthy, "1 replication slot")
	long, err := db.SQL.BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := long.QueryRowContext(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	e = examineWith(t, db.DSN, postgres.DoctorConfig{Timeout: doctorTimeout, LongTransaction: time.Nanosecond, PinnedWAL: 1})
	e.says("transactions", postgres.Warning, "a prepared transaction (outrider", "ROLLBACK PREPARED 'forgotten'")
	e.says("transactions", postgres.Warning, "idle in transaction", fmt.Sprintf("pg_terminate_backend(%d)", pid))
	e.says("slots", postgres.Warning, "nobody reads replication slot forgotten", "pg_drop_replication_slot('forgotten')")
	if err := long.Rollback(); err != nil {
		t.Fatal(err)
	}
	do(t, db.SQL, `ROLLBACK PREPARED 'forgotten'`, `SELECT pg_drop_replication_slot('forgotten')`)
	examine(t, db.DSN, doctorTimeout).says("slots", postgres.Healthy, "there is no replication slot")
}

func TestTheDoctorKnowsAServerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	silent := "postgres://u:" + userPassword + "@" + listener.Addr().String() + "/d"
	e := examine(t, silent, 200*time.Millisecond)
	e.says("connection", postgres.Problem, "does not answer")
	if len(e.findings) != 1 {
		t.Errorf("without a connection it found %v", e.findings)
	}
	for _, f := range e.findings {
		if strings.Contains(f.Found+f.Advice, userPassword) {
			t.Error("the password is shown")
		}
	}
}

// freezer is a network that forwards until it is frozen: nobody is told.
type freezer struct {
	net.Listener
	server string
	frozen chan struct{}
}

func newFreezer(t *testing.T, server *devpg.Server) *freezer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{listener, net.JoinHostPort("127.0.0.1", strconv.Itoa(server.Port())), make(chan struct{})}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", f.server)
			if err != nil {
				_ = client.Close()
				continue
			}
			t.Cleanup(func() { _ = client.Close(); _ = upstream.Close() })
			go func() { f.pass(upstream, client); _ = upstream.Close() }() // the client left
			go f.pass(client, upstream)
		}
	}()
	return f
}

func (f *freezer) pass(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-f.frozen:
			<-make(chan struct{}) // for ever
		default:
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func TestTheDoctorKnowsAStandby(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	db := pgtest.NewOn(t, server)
	signal := filepath.Join(server.Dir(), "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	examine(t, db.DSN, doctorTimeout).says("read-write", postgres.Problem, "a standby in recovery", "target_session_attrs=read-write")
	if err := os.Remove(signal); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	examine(t, db.DSN, doctorTimeout).says("read-write", postgres.Healthy, "takes writes")
}

// A lock, or a network that swallows everything, ends no examination late.
func TestTheDoctorNeverHangs(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	lock, err := db.SQL.BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.ExecContext(t.Context(), `LOCK TABLE relay.due IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	e := examine(t, db.DSN, time.Second)
	if !e.has("due", postgres.Unseen) && !e.has("due", postgres.Problem) {
		t.Errorf("a locked table: %v", e.findings)
	}
	e.says("partitions", postgres.Healthy)
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}

	freezer := newFreezer(t, db.Server)
	dsn := with(t, db.DSN, func(u *url.URL) { u.Host = freezer.Addr().String() })
	pool, err := postgres.Open(dsn, "outrider")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pool.Close() }()
	if err := pool.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(freezer.frozen)
	ended := make(chan []postgres.Finding, 1)
	go func() {
		ended <- postgres.Examine(context.WithoutCancel(t.Context()), pool, postgres.DoctorConfig{DSN: dsn, Timeout: 500 * time.Millisecond, Rows: 10})
	}()
	select {
	case findings := <-ended:
		if len(findings) != 1 || findings[0].Health != postgres.Problem {
			t.Errorf("a frozen network: %v", findings)
		}
	case <-time.After(doctorTimeout):
		t.Error("a frozen network keeps the examination for ever")
	}
}
