package postgres_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
)

// tenancy is a database with the history of two accounts, of a server of its
// own. All that account 2 has contains "beta", and every secret "hush".
type tenancy struct {
	t      *testing.T
	server *devpg.Server
	root   *sql.DB
	views  []string
}

// fillAccount writes the history of account $1, whose words contain $2 and
// whose numbers begin with $3, as webhook $4.
var fillAccount = []string{
	`INSERT INTO outbox.events (account_id, event, payload, ordering_key, metadata, occurred_at)
	 SELECT $1::bigint, $2::text || '_happened', '{"hush":"hush"}', $2 || ':' || i, json_build_object('card', $3::text || i), now() FROM generate_series(1, 60) i WHERE $4::bigint > 0`,
	`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id)
	 SELECT seq, 0, 0, account_id, seq << 20, 1, now(), 1, 'routed', json_build_object('event', event, 'ordering_key', ordering_key, 'reason', $2::text || $3::text, 'routing', r), r, id
	   FROM outbox.events CROSS JOIN LATERAL (SELECT CASE WHEN seq % 20 = 0 THEN 'no_subscriber' ELSE 'routed' END AS r) k WHERE account_id = $1::bigint AND seq % 15 > 0 AND $4::bigint > 0`,
	`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
	 SELECT event_seq, $4::bigint, 0, account_id, pos + 1, 1, now(), 1, 'scheduled', '{"webhook_version":1}', event_id, gen_random_uuid() FROM relay.log WHERE account_id = $1::bigint AND routing = 'routed' AND $2::text || $3::text <> ''`,
	`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
	 SELECT event_seq, $4::bigint, 0, account_id, pos + v, 1, now(), v, k,
	        json_build_object('attempt', v / 2, 'webhook_version', 1, 'status_code', 500, 'error_detail', $2::text || ' is away', 'reason', $2::text, 'remote_ip', '192.0.2.' || $1::bigint)
	   FROM relay.log, (VALUES (2, 'attempt_started'), (3, 'attempt_failed'), (4, 'attempt_started'), (5, 'attempt_unknown'), (6, 'dead')) s (v, k)
	  WHERE account_id = $1::bigint AND delivery_id IS NOT NULL AND event_seq % v < 4 AND $3::text IS NOT NULL`,
	`INSERT INTO relay.responses (event_seq, webhook_id, replay_id, version, account_id, salt, excerpt)
	 SELECT event_seq, webhook_id, replay_id, version, account_id, '\x01', $3::text || event_seq FROM relay.log
	  WHERE account_id = $1::bigint AND webhook_id = $4::bigint AND version > 1 AND type <> 'attempt_started' AND $2::text IS NOT NULL`,
	`INSERT INTO relay.erasures (account_id, selection, requested_by) SELECT $1::bigint, json_build_object('ordering_keys', $2::text || $3::text), $2::text WHERE $4::bigint > 0`,
	`INSERT INTO relay.erased (event_seq, version, account_id, erasure_id, at)
	 SELECT l.event_seq, 0, l.account_id, e.erasure_id, now() FROM relay.log l JOIN relay.erasures e ON e.account_id = l.account_id
	  WHERE l.account_id = $1::bigint AND l.webhook_id = 0 AND l.event_seq % 7 = 0 AND $2::text || $3::text <> '' AND $4::bigint > 0`,
	`INSERT INTO relay.replays (account_id, to_webhook_id, selection, requested_by) SELECT $1::bigint, $4::bigint, json_build_object('events', ARRAY[$2::text]), $2::text || $3::text`,
	`INSERT INTO relay.replay_log (replay_id, version, account_id, type, actor, data) SELECT replay_id, 1, account_id, 'requested', $2::text, json_build_object('why', $2::text || $3::text) FROM relay.replays WHERE account_id = $1::bigint AND to_webhook_id = $4::bigint`,
	`INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
	 SELECT $4::bigint, $1::bigint, date_trunc('hour', now()), 0, 0, 0, 50, 40, 30, 0, 0, 1, '{5}', '{50}', 60 WHERE $2::text || $3::text <> ''`,
}

// newTenancy migrates as a user that is no superuser, as the README has it.
func newTenancy(t *testing.T) *tenancy {
	t.Helper()
	s := &tenancy{t: t, server: pgtest.NewServer(t, nil)}
	admin := s.open("postgres", "")
	do(t, admin, `CREATE ROLE dbowner LOGIN PASSWORD 'p'`, `CREATE DATABASE chat OWNER dbowner`)
	for _, role := range migrations.Roles {
		do(t, admin, `CREATE ROLE `+role)
	}
	for _, role := range []string{"acme", "beta", "unbound", "auditor", "careful", "twofold", "operator", "relayer", "producer", "nobody"} {
		do(t, admin, `CREATE ROLE `+role+` LOGIN PASSWORD 'p'`)
	}
	do(t, admin, `ALTER ROLE careful NOINHERIT`, `GRANT outrider_tenant TO acme, beta, unbound, twofold`, `GRANT outrider_auditor TO auditor, careful, twofold`,
		`GRANT outrider_operator TO operator`, `GRANT outrider_relay TO relayer`, `GRANT outrider_producer TO producer`)
	owner := s.open("chat", "dbowner")
	if err := migrations.Up(t.Context(), owner); err == nil || !strings.Contains(fmt.Sprint(err), "not a member of outrider_views") {
		t.Fatalf("migrated without being a member of outrider_views: %v", err)
	}
	do(t, admin, `GRANT outrider_views TO dbowner`)
	if err := migrations.Up(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	s.root = s.open("chat", "")
	s.views = texts(t, s.root, `SELECT format('%I.%I', schemaname, viewname) FROM pg_views
 WHERE schemaname = 'audit' AND has_table_privilege('outrider_tenant', format('%I.%I', schemaname, viewname), 'SELECT') ORDER BY 1`)
	if len(s.views) < 5 {
		t.Fatalf("the views are %v", s.views)
	}
	operator := s.open("chat", "operator")
	do(t, operator, `INSERT INTO relay.tenant_roles (role, account_id) VALUES ('acme', 1), ('beta', 2), ('twofold', 1)`)
	hooks := postgres.NewWebhooks(operator)
	for account, words := range [][2]string{{"acme", ""}, {"beta", "beta-"}} {
		hook := change(t, hooks, domain.AccountID(account+1), 0, register(t, "https://user:hushhush@"+words[0]+".example/in?token=hush#hush"))
		change(t, hooks, domain.AccountID(account+1), hook.ID, domain.RotateSecret{Secret: secret(t, rotatedText), Until: time.Now().Add(time.Hour)})
		for _, statement := range fillAccount {
			if _, err := s.root.ExecContext(t.Context(), statement, account+1, words[0], words[1], int64(hook.ID)); err != nil {
				t.Fatalf("%v in %s", err, statement)
			}
		}
	}
	// What was not routed up to there is a gap.
	do(t, s.root, `UPDATE relay.batches SET low = 80`, `ANALYZE`)
	return s
}

// open connects as a role; "" is the superuser.
func (s *tenancy) open(database, role string) *sql.DB {
	s.t.Helper()
	u, err := url.Parse(s.server.DSN(database))
	if err != nil {
		s.t.Fatal(err)
	}
	if role != "" {
		u.User = url.UserPassword(role, "p")
	}
	db, err := sql.Open("postgres", u.String())
	if err != nil {
		s.t.Fatal(err)
	}
	db.SetMaxIdleConns(0) // there are many, of one connection each
	s.t.Cleanup(func() { _ = db.Close() })
	return db
}

// accounts counts the rows of each account that a session sees in a view after
// some statements; -1 are rows of none.
func (s *tenancy) accounts(role, view string, before ...string) map[int64]int {
	s.t.Helper()
	conn := s.conn(role, before...)
	defer func() { _ = conn.Close() }()
	rows, err := conn.QueryContext(s.t.Context(), `SELECT coalesce(account_id, -1), count(*) FROM `+view+` GROUP BY 1`)
	if err != nil {
		s.t.Fatalf("%s reads %s after %v: %v", role, view, before, err)
	}
	defer func() { _ = rows.Close() }()
	seen := map[int64]int{}
	for rows.Next() {
		var account int64
		var n int
		if err := rows.Scan(&account, &n); err != nil {
			s.t.Fatal(err)
		}
		seen[account] = n
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return seen
}

func (s *tenancy) conn(role string, before ...string) *sql.Conn {
	s.t.Helper()
	db := s.open("chat", role)
	db.SetMaxIdleConns(-1) // closed, it is gone: a server has room for 200
	conn, err := db.Conn(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	for _, statement := range before {
		if _, err := conn.ExecContext(s.t.Context(), statement); err != nil {
			s.t.Fatalf("%s: %s: %v", role, statement, err)
		}
	}
	return conn
}

// TestATenantSeesItsAccountOnly: in every view, whoever a session says it is.
func TestATenantSeesItsAccountOnly(t *testing.T) {
	t.Parallel()
	s := newTenancy(t)
	do(t, s.root, `INSERT INTO relay.replays (selection, requested_by) VALUES ('{}', 'beta')`,
		`INSERT INTO relay.replay_log (replay_id, version, type, actor, data) SELECT max(replay_id), 1, 'requested', 'beta', '{"why":"beta"}' FROM relay.replays`) // of several accounts
	const one, two, both, none = "1", "2", "1 2", ""
	for _, test := range []struct {
		role   string
		before []string
		want   string
	}{
		{"acme", nil, one},
		{"beta", nil, two},
		{"unbound", nil, none},
		{"acme", []string{`SET outrider.account_id = '1'`}, one},
		{"acme", []string{`SET outrider.account_id = '2'`}, none},
		{"acme", []string{`SET outrider.account_id = ''`}, one},
		{"unbound", []string{`SET outrider.account_id = '2'`}, none},
		{"acme", []string{`SET ROLE outrider_tenant`}, one},
		{"acme", []string{`SET SESSION AUTHORIZATION acme`}, one},
		{"auditor", nil, both},
		{"auditor", []string{`SET outrider.account_id = '2'`}, two},
		{"careful", []string{`SET ROLE outrider_auditor`}, both},
		{"twofold", nil, both},
		{"operator", nil, both},
		{"relayer", nil, both},
		{"dbowner", nil, both},
		{"", nil, both},
		{"", []string{`SET outrider.account_id = '1'`}, one},
		{"", []string{`SET SESSION AUTHORIZATION acme`}, one},
		{"", []string{`SET SESSION AUTHORIZATION acme`, `SET ROLE outrider_tenant`}, one},
		{"", []string{`SET SESSION AUTHORIZATION unbound`}, none},
	} {
		for _, view := range s.views {
			seen := s.accounts(test.role, view, test.before...)
			delete(seen, -1)
			var got []string
			for account, n := range seen {
				if n > 0 {
					got = append(got, fmt.Sprint(account))
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != test.want {
				t.Errorf("%q %v sees in %s the accounts %v, want %q", test.role, test.before, view, seen, test.want)
			}
		}
	}
	for _, view := range []string{"audit.timeline", "audit.replays"} {
		if n := s.accounts("acme", view)[-1] + s.accounts("unbound", view)[-1]; n != 0 {
			t.Errorf("a tenant sees in %s a replay of several accounts", view)
		}
		if n := s.accounts("auditor", view)[-1]; n != 1 {
			t.Errorf("the auditor sees in %s %d replays of several accounts", view, n)
		}
	}
	for _, statement := range []string{
		`SET ROLE outrider_auditor`, `SET ROLE outrider_views`, `SET ROLE beta`, `SET SESSION AUTHORIZATION beta`, `SET SESSION AUTHORIZATION outrider_views`,
		`SET row_security = off; SELECT * FROM audit.deliveries`, `SET outrider.account_id = 'beta'; SELECT * FROM audit.deliveries`,
		`INSERT INTO relay.tenant_roles VALUES ('acme', 2)`, `SELECT * FROM relay.tenant_roles`, `SELECT relay.may_see_all()`,
		`ALTER VIEW audit.deliveries OWNER TO acme`, `CREATE RULE more AS ON SELECT TO audit.deliveries DO INSTEAD SELECT 1`, `CREATE TABLE audit.more ()`,
	} {
		if _, err := s.open("chat", "acme").ExecContext(t.Context(), statement); err == nil {
			t.Errorf("a tenant may %s", statement)
		}
	}
	for _, role := range []string{"nobody", "producer", "careful"} {
		if _, err := s.open("chat", role).ExecContext(t.Context(), `SELECT * FROM audit.deliveries`); err == nil {
			t.Errorf("%s may read the views", role)
		}
	}
	// What is taken back is taken back at once, in the middle of a session too.
	acme := s.conn("acme", `PREPARE mine AS SELECT count(*) FROM audit.deliveries`)
	count := func() (n int) {
		t.Helper()
		if err := acme.QueryRowContext(t.Context(), `EXECUTE mine`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	do(t, s.root, `DELETE FROM relay.tenant_roles WHERE role = 'acme'`)
	if after := count(); before == 0 || after != 0 {
		t.Errorf("a tenant sees %d deliveries, and %d once it is none", before, after)
	}
}

// TestATenantReadsNoTable: not a table, a partition, old or new, a sequence or
// another's view; and no statistics of them.
func TestATenantReadsNoTable(t *testing.T) {
	t.Parallel()
	s := newTenancy(t)
	do(t, s.root, `SELECT setval('outbox.events_seq_seq', 1500000)`)
	for step := ""; step != "nothing to do"; {
		step = texts(t, s.root, `SELECT relay.extend_partitions()`)[0]
	}
	acme := s.open("chat", "acme")
	relations := texts(t, s.root, `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('outbox', 'relay') AND c.relkind IN ('r', 'p', 'v', 'S')`)
	if len(relations) < 30 || !slices.Contains(relations, "relay.log_3000000") {
		t.Errorf("the tables are %v", relations)
	}
	for _, relation := range relations {
		if _, err := acme.ExecContext(t.Context(), `SELECT * FROM `+relation); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("a tenant reads %s: %v", relation, err)
		}
	}
	// Rights that somebody gives by mistake show nothing of the log.
	do(t, s.root, `GRANT USAGE ON SCHEMA relay TO acme`, `GRANT SELECT ON relay.log, relay.webhook_log, relay.replay_log TO acme`)
	for _, table := range []string{"relay.log", "relay.webhook_log", "relay.replay_log"} {
		if seen := texts(t, acme, `SELECT x::text FROM `+table+` x`); len(seen) > 0 {
			t.Errorf("a tenant with rights on %s reads %d rows", table, len(seen))
		}
	}
	if seen := texts(t, acme, `SELECT format('%s.%s.%s', schemaname, tablename, attname) FROM pg_stats WHERE schemaname IN ('outbox', 'relay', 'audit') UNION ALL SELECT statistics_name FROM pg_stats_ext`); len(seen) > 0 {
		t.Errorf("a tenant sees statistics of %v", seen)
	}
}

// TestTheOutboxTakesCopy: PostgreSQL refuses it where a table has row-level
// security, which is why the outbox has none.
func TestTheOutboxTakesCopy(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("postgres", pgtest.New(t).DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SET LOCAL ROLE outrider_producer`); err != nil {
		t.Fatal(err)
	}
	rows, err := tx.PrepareContext(t.Context(), `COPY outbox.events (account_id, event, payload) FROM STDIN`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for range 3 {
		if _, err := rows.ExecContext(t.Context(), 1, "message_created", "{}"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rows.ExecContext(t.Context()); err != nil { // no values: the end
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := texts(t, db, `SELECT count(*)::text FROM outbox.events`); n[0] != "3" {
		t.Errorf("%s rows were copied, want 3", n[0])
	}
}

// leaks are what a tenant makes to look at values before the boundary is asked:
// functions that tell what they are given, an operator of its own with an
// estimator that is handed the statistics, a type whose comparison tells, and a
// function of the name of one that the views use.
var leaks = []string{
	`CREATE SCHEMA mine`,
	`CREATE FUNCTION mine.tell(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$`,
	`CREATE FUNCTION mine.tell(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$`,
	`CREATE FUNCTION mine.tell(bigint, bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS $$ BEGIN IF $1 = 2 THEN RAISE NOTICE 'told beta %', $1; END IF; RETURN true; END $$`,
	`CREATE OPERATOR mine.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.tell, RESTRICT = eqsel)`,
	`CREATE OPERATOR mine.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.tell, RESTRICT = scalarltsel)`,
	`CREATE OPERATOR mine.=== (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = mine.tell, RESTRICT = eqsel)`,
	`CREATE TYPE mine.box AS (v text)`,
	`CREATE FUNCTION mine.tell(mine.box, mine.box) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$`,
	`CREATE OPERATOR mine.=== (LEFTARG = mine.box, RIGHTARG = mine.box, FUNCTION = mine.tell, RESTRICT = eqsel)`,
	`CREATE FUNCTION mine.regexp_replace(text, text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN $1; END $$`,
	`CREATE FUNCTION mine.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'told %', $1; RETURN $1; END $$`,
}

// TestATenantLearnsNothingOfOthers: what a query is given, what it fails with
// and what the server says beside it has nothing of another account, and nobody
// is told a secret.
func TestATenantLearnsNothingOfOthers(t *testing.T) {
	t.Parallel()
	s := newTenancy(t)
	do(t, s.root, leaks...)
	do(t, s.root, `GRANT USAGE ON SCHEMA mine TO PUBLIC`)

	// ask runs a query and gives all that came back, as one text.
	asked := 0
	ask := func(conn *sql.Conn, query string) string {
		t.Helper()
		asked++
		var told strings.Builder
		err := conn.Raw(func(c any) error {
			raw, _ := c.(driver.Conn) // which it is
			pq.SetNoticeHandler(raw, func(n *pq.Error) { told.WriteString(n.Message + "\n" + n.Detail + "\n") })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		values, err := everything(t.Context(), conn, query)
		var pg *pq.Error
		if errors.As(err, &pg) {
			told.WriteString(pg.Message + pg.Detail + pg.Where)
		} else if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return told.String() + values
	}
	acme := s.conn("acme")
	heard := map[string]bool{}
	for _, view := range s.views {
		for _, column := range texts(t, s.root, `SELECT format('%I', attname) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0`, view) {
			for _, query := range []string{
				`SELECT * FROM %[1]s WHERE mine.tell(%[2]s::text)`,
				`SELECT count(*) FROM %[1]s WHERE %[2]s::text OPERATOR(mine.===) 'x' AND account_id = 2`,
				`SELECT count(*) FROM %[1]s WHERE %[2]s::text OPERATOR(mine.<<<) 'x'`,
				`EXPLAIN SELECT * FROM %[1]s WHERE %[2]s::text OPERATOR(mine.<<<) 'x' AND mine.tell(%[2]s::text)`,
				`SELECT count(*) FROM %[1]s WHERE ROW(%[2]s::text)::mine.box OPERATOR(mine.===) ROW('x')::mine.box`,
				`SELECT count(*) FROM %[1]s a JOIN %[1]s b ON a.account_id = b.account_id AND mine.tell(b.%[2]s::text) WHERE a.account_id = 2`,
				`SELECT count(*) FROM %[1]s a WHERE EXISTS (SELECT FROM %[1]s b WHERE b.account_id = 2 AND mine.tell(b.%[2]s::text))`,
				`SELECT (SELECT max(b.%[2]s::text) FROM %[1]s b WHERE b.account_id = 2 AND mine.tell(b.%[2]s::text))`,
				`SELECT * FROM %[1]s WHERE account_id OPERATOR(mine.===) 2::bigint ORDER BY mine.tell(%[2]s::text)`,
				`SELECT sum(CASE WHEN %[2]s::text LIKE 'beta%%' THEN (%[2]s::text)::int END) FROM %[1]s`,
			} {
				answer := ask(acme, fmt.Sprintf(query, view, column))
				heard[view] = heard[view] || strings.Contains(answer, "told ")
				if strings.Contains(answer, "beta") {
					t.Errorf("%s tells a tenant of another account:\n%.300s", fmt.Sprintf(query, view, column), answer)
				}
			}
		}
	}
	// Whoever hears nothing of its own has not listened.
	for _, view := range s.views {
		if !heard[view] {
			t.Errorf("no function heard of %s", view)
		}
	}
	// A cast that fails names the value: that of account 2 is no number, and is
	// not cast.
	for _, query := range []string{
		`SELECT count(*) FROM audit.events WHERE (metadata ->> 'card')::int > 0`,
		`SELECT count(*) FROM audit.attempts WHERE response_excerpt::bigint > 0`,
		`SELECT count(*) FROM audit.events WHERE (metadata ->> 'card')::int > 0 AND account_id = 2`,
		`SELECT count(*) FROM audit.events WHERE (metadata ->> 'card')::int > 0 AND routed_at IS NULL`,
		`SELECT count(*) FROM audit.attempts WHERE 1 / (account_id - 2) < 9`,
		`SELECT count(*) FROM audit.webhook_changes WHERE 1 / (account_id - 2) < 9`,
	} {
		if answer := ask(acme, query); strings.Contains(answer, "beta") || strings.Contains(answer, "invalid") || strings.Contains(answer, "zero") {
			t.Errorf("%s: %s", query, answer)
		}
	}
	// The same estimates for what is there and what is not.
	estimates := func(query string) []string {
		t.Helper()
		return estimated.FindAllString(ask(acme, `EXPLAIN `+query), -1)
	}
	for _, pair := range [][2]string{
		{`SELECT * FROM audit.deliveries WHERE account_id = %s`, "2 3"},
		{`SELECT * FROM audit.events WHERE account_id = %s`, "2 3"},
		{`SELECT * FROM audit.timeline WHERE account_id = %s`, "2 3"},
		{`SELECT * FROM audit.webhook_changes WHERE account_id = %s AND actor = 'test'`, "2 3"},
		{`SELECT * FROM audit.webhook_changes WHERE actor = '%s'`, "test gone"},
		{`SELECT * FROM audit.webhook_changes WHERE actor < '%s'`, "test a"},
		{`SELECT * FROM audit.attempts WHERE webhook_id = %s`, "2 3"},
		{`SELECT * FROM audit.attempts WHERE response_excerpt = '%s'`, "beta-62 gone"},
		{`SELECT * FROM audit.attempts WHERE response_excerpt < '%s'`, "beta-70 beta-90"},
		{`SELECT * FROM audit.events WHERE ordering_key = '%s'`, "beta:1 gone"},
	} {
		a, b, _ := strings.Cut(pair[1], " ")
		there, gone := estimates(fmt.Sprintf(pair[0], a)), estimates(fmt.Sprintf(pair[0], b))
		if len(there) == 0 || !slices.Equal(there, gone) {
			t.Errorf(pair[0]+" is estimated as %q, and what is not there as %q", a, there, gone)
		}
	}
	// Functions of the tenant's that are named as those the views use.
	if answer := ask(s.conn("acme", `SET search_path = mine, pg_catalog`), `SELECT * FROM audit.attempts`); strings.Contains(answer, "told") || !strings.Contains(answer, "acme.example/in") {
		t.Errorf("a function of a tenant's was called: %.300s", answer)
	}

	for _, role := range []string{"acme", "beta", "auditor", "operator", "relayer", "dbowner", ""} {
		conn := s.conn(role)
		for _, view := range s.views {
			answer := ask(conn, `SELECT * FROM `+view)
			if answer == "" {
				t.Errorf("%q sees nothing in %s", role, view)
			}
			for _, secret := range []string{"hush", "whsec", "token=", strings.TrimPrefix(secretText, "whsec_"), strings.TrimPrefix(rotatedText, "whsec_")} {
				if strings.Contains(answer, secret) {
					t.Errorf("%q is told %q by %s", role, secret, view)
				}
			}
		}
	}
	t.Logf("%d queries", asked)
}

var estimated = regexp.MustCompile(`\(cost=[^)]*\)`)

// everything gives all values of a query's rows.
func everything(ctx context.Context, conn *sql.Conn, query string) (string, error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var all strings.Builder
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return "", err
		}
		for _, v := range values {
			all.WriteString(v.String + "\n")
		}
	}
	return all.String(), rows.Err()
}
