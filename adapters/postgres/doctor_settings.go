package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

// settingsQuery reads what a session of this user has by default: the values
// of the doctor's own transaction are others.
const settingsQuery = `SELECT name, reset_val FROM pg_settings WHERE name = ANY ($1)`

// shortestStatement is what a relay's statements may take: a batch of 8 MiB on
// a busy server.
const shortestStatement = 30 * time.Second

// judgedSettings are those that make a relay, or what it promises, worse. A
// relay sets for itself: synchronous_commit, lock_timeout, jit and
// idle_in_transaction_session_timeout. bad gives empty for a good value.
var judgedSettings = []struct {
	name   string
	bad    func(value string) string
	health Health
	advice string
}{
	{"fsync", isOff("a crash of the machine may lose or damage everything, also attempts on record; serve refuses it"), Problem, "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()"},
	{"full_page_writes", isOff("a crash may leave half-written pages, unless the file system writes 8 kB at once"), Warning, "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()"},
	{"synchronous_commit", isOff("the chat system's last commits may be lost in a crash, with their events; the relay's are not, it sets this for itself"), Note, ""},
	{"autovacuum", isOff("relay.due and relay.heartbeats, whose rows come and go, grow without end, and so does the cost of reading them"), Warning, "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()"},
	{"track_counts", isOff("autovacuum does not learn what it has to do"), Warning, "ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()"},
	{"statement_timeout", isShort("the relay's statements are cut off"), Warning, "where the relay has this too: ALTER ROLE … SET statement_timeout = 0"},
	{"transaction_timeout", isShort("the relay's transactions are cut off"), Warning, "where the relay has this too: ALTER ROLE … SET transaction_timeout = 0"},
	{"idle_session_timeout", isShort("the relay's connections are ended while they wait, and notifications get lost with them"), Warning, "where the relay has this too: ALTER ROLE … SET idle_session_timeout = 0"},
	{"max_prepared_transactions", func(value string) string {
		if value == "0" {
			return ""
		}
		return "a producer that uses PREPARE TRANSACTION cannot insert while the relay sleeps, since PostgreSQL does not prepare what notifies"
	}, Note, "let producers of events commit in one phase"},
}

func isOff(why string) func(string) string {
	return func(value string) string {
		if value == "off" {
			return why
		}
		return ""
	}
}

// isShort judges a time in milliseconds, of which 0 is none.
func isShort(why string) func(string) string {
	return func(value string) string {
		if ms, err := strconv.ParseInt(value, 10, 64); err == nil && ms > 0 && time.Duration(ms)*time.Millisecond < shortestStatement {
			return why
		}
		return ""
	}
}

func lookAtSettings(ctx context.Context, p *patient) error {
	names := make([]string, len(judgedSettings))
	for i, s := range judgedSettings {
		names[i] = s.name
	}
	values := map[string]string{}
	err := p.reading(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, settingsQuery, pq.Array(names))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var name, value string
			if err := rows.Scan(&name, &value); err != nil {
				return err
			}
			values[name] = value
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	var good []string
	for _, s := range judgedSettings {
		value, there := values[s.name]
		if !there {
			continue // of a newer PostgreSQL
		}
		if why := s.bad(value); why != "" {
			p.add(s.health, s.name+" = "+value+": "+why, strings.ReplaceAll(s.advice, "…", roleName(p.user)))
			continue
		}
		good = append(good, s.name)
	}
	if len(good) > 0 {
		p.add(Healthy, "as they should be: "+strings.Join(good, ", "), "")
	}
	return nil
}

// relayNeeds is how many connections a relay takes.
const relayNeeds = 13

// connectionsQuery counts what is free: for everybody, in the database and for
// the user. -1 is no limit.
const connectionsQuery = `
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
       - coalesce(current_setting('reserved_connections', true)::integer, 0) - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       current_setting('max_connections')::integer,
       (SELECT CASE WHEN datconnlimit < 0 THEN -1 ELSE greatest(0, datconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid)) END FROM pg_database d WHERE datname = current_database()),
       (SELECT CASE WHEN rolconnlimit < 0 OR rolsuper THEN -1 ELSE greatest(0, rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid)) END FROM pg_roles r WHERE rolname = current_user)`

func lookAtConnections(ctx context.Context, p *patient) error {
	var free, most, inDatabase, ofUser int
	if err := p.row(ctx, connectionsQuery, nil, &free, &most, &inDatabase, &ofUser); err != nil {
		return err
	}
	which, raise := fmt.Sprintf("%d of max_connections = %d are free", free, most), "ALTER SYSTEM SET max_connections = "+strconv.Itoa(most+50)+", and restart; or end idle connections"
	least := free
	if inDatabase >= 0 && inDatabase < least {
		least, which, raise = inDatabase, fmt.Sprintf("%d of the database's connection limit are free", inDatabase), "ALTER DATABASE … CONNECTION LIMIT -1"
	}
	if ofUser >= 0 && ofUser < least {
		least, which, raise = ofUser, fmt.Sprintf("%d of the connection limit of user %q are free", ofUser, p.user), "ALTER ROLE "+roleName(p.user)+" CONNECTION LIMIT -1"
	}
	if least < relayNeeds {
		p.add(Warning, fmt.Sprintf("%s; a relay that starts needs %d", which, relayNeeds), raise)
		return nil
	}
	p.add(Healthy, fmt.Sprintf("%s, of the %d that a relay needs", which, relayNeeds), "")
	return nil
}

// manyTransactions is how many transactions a snapshot may lie behind where
// its age is not shown.
const manyTransactions = 1_000_000

// horizonQuery lists what holds back vacuum. xact_start of others' sessions is
// null for who may not see it.
const horizonQuery = `
SELECT kind, name, age, state FROM (
  SELECT 's' AS kind, a.pid::text AS name, extract(epoch FROM clock_timestamp() - a.xact_start) AS age,
         concat_ws(', ', a.usename, nullif(a.application_name, ''), a.datname, a.state) AS state, a.backend_xmin AS xmin
    FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' AND (a.xact_start IS NOT NULL OR a.backend_xmin IS NOT NULL)
   UNION ALL
  SELECT 'p', x.gid, extract(epoch FROM clock_timestamp() - x.prepared), concat_ws(', ', x.owner, x.database), x.transaction FROM pg_prepared_xacts x) h
 WHERE age > $1 OR age IS NULL AND age(xmin) > $2 ORDER BY age DESC NULLS LAST LIMIT 5`

func lookAtTransactions(ctx context.Context, p *patient) error {
	err := p.reading(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, horizonQuery, p.config.LongTransaction.Seconds(), manyTransactions)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var kind, name, state string
			var age sql.NullFloat64
			if err := rows.Scan(&kind, &name, &age, &state); err != nil {
				return err
			}
			since := "for more than " + grouped(int64(manyTransactions)) + " transactions"
			if age.Valid {
				since = "for " + ago(fromSeconds(age.Float64))
			}
			const harm = "vacuum removes nothing that ended since, and events that it inserted wait for its end"
			if kind == "p" {
				p.add(Warning, fmt.Sprintf("a prepared transaction (%s) is open %s: %s", state, since, harm), "COMMIT PREPARED or ROLLBACK PREPARED "+pq.QuoteLiteral(name))
				continue
			}
			p.add(Warning, fmt.Sprintf("a transaction (%s) is open %s: %s", state, since, harm),
				fmt.Sprintf("SELECT pg_terminate_backend(%s), if nobody needs it; ALTER DATABASE … SET idle_in_transaction_session_timeout = '5min' ends forgotten ones", name))
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	var all bool
	if err := p.row(ctx, `SELECT pg_has_role('pg_read_all_stats', 'USAGE')`, nil, &all); err != nil {
		return err
	}
	switch {
	case len(p.findings) > 0:
	case all:
		p.add(Healthy, "no transaction is open for more than "+ago(p.config.LongTransaction), "")
	default:
		p.add(Healthy, "no transaction that this user sees is open for more than "+ago(p.config.LongTransaction), "to see others' too: GRANT pg_read_all_stats TO "+roleName(p.user))
	}
	return nil
}

const slotsQuery = `
SELECT s.slot_name::text, s.active, coalesce(s.wal_status, ''), coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::bigint,
       pg_size_pretty(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn)), coalesce(greatest(age(s.xmin), age(s.catalog_xmin)), 0)
  FROM pg_replication_slots s ORDER BY 4 DESC`

func lookAtSlots(ctx context.Context, p *patient) error {
	total := 0
	err := p.reading(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, slotsQuery)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var name, status string
			var active bool
			var bytes, age int64
			var size sql.NullString
			if err := rows.Scan(&name, &active, &status, &bytes, &size, &age); err != nil {
				return err
			}
			total++
			drop := "let its consumer go on; or, if it has none any more: SELECT pg_drop_replication_slot(" + pq.QuoteLiteral(name) + ")"
			switch {
			case status == "lost":
				p.add(Warning, fmt.Sprintf("replication slot %s has lost the WAL that it needs: what it fed is cut off", name), "set up its consumer anew, and drop it: SELECT pg_drop_replication_slot("+pq.QuoteLiteral(name)+")")
			case bytes > p.config.PinnedWAL && !active:
				p.add(Warning, fmt.Sprintf("nobody reads replication slot %s, which keeps %s of WAL: the disk fills up, and then no event can be inserted", name, size.String), drop)
			case bytes > p.config.PinnedWAL:
				p.add(Warning, fmt.Sprintf("replication slot %s is %s of WAL behind: the disk fills up, and then no event can be inserted", name, size.String), drop)
			case age > manyTransactions && !active:
				p.add(Warning, fmt.Sprintf("nobody reads replication slot %s, which holds back vacuum by %s transactions", name, grouped(age)), drop)
			}
		}
		return rows.Err()
	})
	switch {
	case err != nil:
	case total == 0:
		p.add(Healthy, "there is no replication slot", "")
	case len(p.findings) == 0:
		p.add(Healthy, counted(total, "replication slot", "replication slots")+", none of which holds back much", "")
	}
	return err
}

func lookAtNotifications(ctx context.Context, p *patient) error {
	var used float64
	if err := p.row(ctx, `SELECT pg_notification_queue_usage()`, nil, &used); err != nil {
		return err
	}
	const much = 0.1
	if used < much {
		p.add(Healthy, "the queue of NOTIFY is empty, or nearly", "")
		return nil
	}
	p.add(Warning, fmt.Sprintf("the queue of NOTIFY is %.0f %% full: a session that listens is in a transaction that does not end; when the queue is full, inserts fail while the relay sleeps", 100*used),
		"end that session: SELECT pid, usename, application_name FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' ORDER BY xact_start")
	return nil
}
