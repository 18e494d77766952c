package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// monthLasts is how long the history of workload h goes back.
const monthLasts = 30 * 24 * time.Hour

// batchOfMonth is how many events a batch has: a relay that is not busy routes
// what came since it looked last.
const batchOfMonth = 8

// monthPartition is the size of a partition, as relay.extend_partitions makes
// them for as many events a day.
const monthPartition = 1_000_000

// monthWriters is how many partitions are written at a time.
const monthWriters = 2

// month is a history for the audit: what a relay has written in 30 days, with
// retries, failures and all else that happens, on 50 accounts of very different
// sizes. Event n has the seq n. What is random is a hash of that, so that each
// run has the same.
//
// A partition is written as a table without indexes, in the order in which a
// relay would have come to write its rows, and then attached, which builds them:
// that takes about half as long as inserting.
type month struct {
	db     *sql.DB
	events int
	begun  time.Time
	writer int64
	hooks  string
	told   []told
}

// monthOf gives the month in which about so many attempts were made.
func monthOf(db *Database, attempts int, now time.Time) *month {
	m := &month{db: db.DB, begun: now.Add(-monthLasts).Truncate(time.Millisecond), hooks: bigints(db.Webhooks), told: tellStories()}
	perEvent := attemptsPerDelivery(m.told) * float64(decisionShares[0]) / allShares
	m.events = (int(float64(attempts)/perEvent)/batchOfMonth + 1) * batchOfMonth
	return m
}

// write fills a database without a history.
func (m *month) write(ctx context.Context, progress func(step string, done, all int)) error {
	progress("writing a month of history", 0, m.events)
	if err := m.prepare(ctx); err != nil {
		return fmt.Errorf("prepare for the history: %w", err)
	}
	if err := m.partitions(ctx, progress); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	for _, step := range []struct {
		name, statement string
		args            []any
	}{
		{"the chain", monthLinks, []any{m.begun, m.batchEvery().Microseconds(), m.events, batchOfMonth, m.writer}},
		{"replays", monthReplay, []any{m.begun, FirstAccount, m.events, m.writer}},
		{"what waits", monthDue, nil},
		{"the statistics of the replay", monthStats + monthReplayed + monthStatsOf, nil},
		{"how webhooks stand", monthStandings, nil},
		{"the projection", monthProjected, nil},
		{"the sequences", monthSequences, []any{m.events, m.commitAt(monthLasts)}},
		{"the position", historyPlace, nil},
		{"vacuum", `VACUUM ANALYZE relay.batches, relay.due, relay.webhook_stats, relay.webhook_standings`, nil},
		{"checkpoint", `CHECKPOINT`, nil},
	} {
		progress("writing a month of history: "+step.name, 0, 0)
		if _, err := m.db.ExecContext(ctx, step.statement, step.args...); err != nil {
			return fmt.Errorf("write the history, %s: %w", step.name, err)
		}
	}
	return extendPartitions(ctx, m.db)
}

// batchEvery is the time between two batches.
func (m *month) batchEvery() time.Duration {
	const quiet = time.Minute // in the end, so that nothing is under way there
	return (monthLasts - quiet) / time.Duration(m.events/batchOfMonth)
}

// commitAt is the number of the group commit at a time since the beginning:
// there is one each millisecond.
func (*month) commitAt(at time.Duration) int64 { return at.Milliseconds() + 1 }

// prepare drops the partitions that the migrations made, which are empty.
func (m *month) prepare(ctx context.Context) error {
	err := m.db.QueryRowContext(ctx, `
INSERT INTO relay.relays (name, version, started_at, fenced_at, recorder) VALUES ('outrider bench', '', $1, clock_timestamp(), 0) RETURNING relay_id`, m.begun).Scan(&m.writer)
	if err != nil {
		return err
	}
	rows, err := m.db.QueryContext(ctx, `DELETE FROM relay.partitions RETURNING lower`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var lowers []int64
	for rows.Next() {
		var lower int64
		if err := rows.Scan(&lower); err != nil {
			return err
		}
		lowers = append(lowers, lower)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, lower := range lowers {
		name := strconv.FormatInt(lower, 10)
		if _, err := m.db.ExecContext(ctx, `DROP TABLE outbox.events_`+name+`, relay.log_`+name+`, relay.responses_`+name); err != nil {
			return err
		}
	}
	return nil
}

// partitions writes all partitions, and makes those for two days to come.
func (m *month) partitions(ctx context.Context, progress func(step string, done, all int)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lowers := make(chan int64)
	var writers sync.WaitGroup
	var mu sync.Mutex // ATTACH locks the parents: one at a time. And for what follows.
	var problems []error
	done := 0
	for range monthWriters {
		writers.Go(func() {
			for lower := range lowers {
				err := m.partition(ctx, lower, &mu)
				mu.Lock()
				if err != nil {
					problems = append(problems, err)
					cancel()
				}
				done = min(done+monthPartition, m.events)
				progress("writing a month of history", done, m.events)
				mu.Unlock()
			}
		})
	}
	const ahead = 2
	for lower := int64(0); lower <= int64(m.events)+ahead*monthPartition && ctx.Err() == nil; lower += monthPartition {
		select {
		case lowers <- lower:
		case <-ctx.Done():
		}
	}
	close(lowers)
	writers.Wait()
	return errors.Join(problems...)
}

// partition writes the events from lower on, and their entries.
func (m *month) partition(ctx context.Context, lower int64, attaching *sync.Mutex) error {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	const upperOf = monthPartition
	name, from, to := strconv.FormatInt(lower, 10), max(lower, 1), min(lower+upperOf-1, int64(m.events))
	for _, step := range []struct {
		statement string
		args      []any
	}{
		{`SET synchronous_commit = off`, nil},
		{`SET work_mem = '256MB'`, nil},
		{`SET maintenance_work_mem = '256MB'`, nil},
		{`CREATE TABLE outbox.events_` + name + ` (LIKE outbox.events INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)`, nil},
		{`CREATE TABLE relay.log_` + name + ` (LIKE relay.log INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)`, nil},
		{`CREATE TABLE relay.responses_` + name + ` (LIKE relay.responses INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY)`, nil},
		{`INSERT INTO outbox.events_` + name + monthEvents, []any{
			FirstAccount, Accounts, EventName, m.begun, m.batchEvery().Microseconds(), batchOfMonth, from, to, numberDigits, conversations,
		}},
		{`INSERT INTO relay.log_` + name + monthEntries + `outbox.events_` + name + monthEntriesOf, []any{
			asJSON(m.told), asJSON(tellDecisions()), floats(boundsOf(decisionShares)), floats(boundsOf(shares())), m.hooks, FirstAccount,
			m.begun, m.batchEvery().Microseconds(), batchOfMonth, monthLasts.Microseconds(), m.writer, conversations,
		}},
		{`INSERT INTO relay.responses_` + name + monthResponses + `relay.log_` + name + monthResponsesOf, []any{monthSalt[:], unavailable.Excerpt, unavailable.ExcerptDigest}},
		{monthStats + `relay.log_` + name + monthStatsOf, nil},
	} {
		if _, err := conn.ExecContext(ctx, step.statement, step.args...); err != nil {
			return err
		}
	}
	bounds := fmt.Sprintf(` FOR VALUES FROM (%d) TO (%d)`, lower, lower+monthPartition)
	attach := []string{
		`ALTER TABLE outbox.events ATTACH PARTITION outbox.events_` + name + bounds,
		`ALTER TABLE relay.log ATTACH PARTITION relay.log_` + name + bounds,
		`ALTER TABLE relay.responses ATTACH PARTITION relay.responses_` + name + bounds,
		// One after the other: each sets what is known of the columns of its table.
		fmt.Sprintf(`INSERT INTO relay.partitions (lower, upper) VALUES (%d, %d)`, lower, lower+monthPartition),
		`UPDATE relay.partitions SET events_done = true WHERE lower = ` + name,
		`UPDATE relay.partitions SET log_done = true WHERE lower = ` + name,
		`UPDATE relay.partitions SET responses_done = true WHERE lower = ` + name,
	}
	if err := m.attach(ctx, conn, attach, attaching); err != nil {
		return err
	}
	for _, statement := range []string{
		// As autovacuum does it: the partitions, never the whole.
		`VACUUM ANALYZE outbox.events_` + name + `, relay.log_` + name + `, relay.responses_` + name,
		`RESET ALL`,
	} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// attach makes a partition part of its tables.
func (*month) attach(ctx context.Context, conn *sql.Conn, statements []string, attaching *sync.Mutex) error {
	attaching.Lock()
	defer attaching.Unlock()
	for _, statement := range statements {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// monthEvents are the events from $7 to $8, each of a transaction of its own,
// of which this server never heard: no relay is to run here, and the planner
// sees what it sees elsewhere. The accounts' shares fall from a seventh to a
// hundredth.
const monthEvents = ` (xid, account_id, event, payload, id, inserted_at, seq)
SELECT (n + 3)::text::xid8, $1::bigint + floor($2::int * power((hashint8extended(n, 1) & 1048575) / 1048576.0::float8, 2))::bigint, $3::text,
       ('{"run":"0000","n":"' || lpad(n::text, $9::int, '0') || '","conversation":{"id":' || n % $10::int || '},"content":"' || repeat('x', 100) || '"}')::json,
       (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(digits, 1, 3) || '8' || substr(digits, 4, 15))::uuid, at, n
  FROM (SELECT n, md5(n::text) AS digits, $4::timestamptz + (n - 1) * ($5::bigint / $6::int) * interval '1 microsecond' AS at
          FROM generate_series($7::bigint, $8::bigint) n) x`

// monthEntries are the entries of a partition's events: the decisions, and the
// stories of what was routed, as far as the month lasts. An entry's commit is
// the millisecond of its time. Some deliveries are faster than others, by a
// half either way.
const monthEntries = ` (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
WITH e AS MATERIALIZED (
  SELECT seq, account_id, id, ($5::bigint[])[account_id - $6::bigint + 1] AS hook, ((seq - 1) / $9::int + 1) * $8::bigint + 2000 AS us,
         width_bucket((hashint8extended(seq, 2) & 1048575) / 1048576.0::float8, $3::float8[]) - 1 AS kind,
         width_bucket((hashint8extended(seq, 3) & 1048575) / 1048576.0::float8, $4::float8[]) - 1 AS story,
         0.5 + (hashint8extended(seq, 4) & 1048575) / 1048576.0::float8 AS pace
    FROM `

const monthEntriesOf = `)
SELECT seq, hook, 0, account_id, (us / 1000 + 1 << 20) + (slot << 15) + seq % 32768, $11::bigint, $7::timestamptz + us * interval '1 microsecond',
       version, type, data::json, routing, event_id, delivery_id
  FROM (SELECT e.seq, 0::bigint AS hook, e.account_id, e.us, 0::bigint AS slot, 1 AS version, 'routed' AS type, d.head || e.seq % $12::int || d.tail AS data, d.routing,
               e.id AS event_id, NULL::uuid AS delivery_id
          FROM e JOIN json_to_recordset($2::json) AS d (kind int, routing text, head text, tail text) USING (kind)
         UNION ALL
        SELECT e.seq, e.hook, e.account_id, e.us + (t.after * e.pace)::bigint, t.version, t.version, t.type,
               CASE t.hole WHEN '' THEN t.head
                    WHEN 'duration' THEN t.head || (t.hole_at * e.pace)::bigint || t.tail
                    ELSE t.head || to_char(($7::timestamptz + (e.us + t.hole_at * e.pace) * interval '1 microsecond') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || t.tail END,
               NULL, CASE t.version WHEN 1 THEN e.id END,
               CASE t.version WHEN 1 THEN overlay(md5('d' || e.seq) PLACING substr(replace(e.id::text, '-', ''), 1, 12) || '8' FROM 1 FOR 13)::uuid END
          FROM e JOIN json_to_recordset($1::json) AS t (story int, version int, type text, after bigint, needs bigint, head text, tail text, hole text, hole_at bigint) USING (story)
         WHERE e.kind = 0 AND e.us + t.needs * e.pace <= $10::bigint) x
 ORDER BY 5`

// monthResponses are what receivers answered: those that did say all the same.
const monthResponses = ` (event_seq, webhook_id, replay_id, version, account_id, salt, excerpt)
SELECT event_seq, webhook_id, replay_id, version, account_id, $1::bytea, $2::text FROM `

const monthResponsesOf = ` WHERE type = 'attempt_failed' AND data ->> 'excerpt_digest' = $3::text`

// monthStats are the hours of the webhooks, as the relay folds them; see
// domain.LatencyBucket for the buckets.
const monthStats = `
INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
SELECT webhook_id, account_id, hour, -1, 0, sum(succeeded), sum(failed), sum(unknown), sum(dead), sum(expired), sum(cancelled), min(seq),
       coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{}'), coalesce(array_agg(n ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{}'), sum(scheduled)
  FROM (SELECT webhook_id, account_id, hour, CASE WHEN us < 32 THEN us ELSE (us >> power - 4) + 16 * (power - 4) END::smallint AS bucket, min(event_seq) AS seq, count(*) AS n,
               count(*) FILTER (WHERE type = 'attempt_succeeded') AS succeeded, count(*) FILTER (WHERE type = 'attempt_failed') AS failed,
               count(*) FILTER (WHERE type = 'attempt_unknown') AS unknown, count(*) FILTER (WHERE type = 'dead') AS dead,
               count(*) FILTER (WHERE type = 'expired') AS expired, count(*) FILTER (WHERE type = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE type = 'scheduled') AS scheduled
          FROM (SELECT *, floor(log(greatest(us, 1)::float8) / log(2::float8) + 1e-9)::int AS power
                  FROM (SELECT webhook_id, account_id, event_seq, type, date_trunc('hour', at, 'UTC') AS hour, (data ->> 'duration_us')::bigint AS us
                          FROM `

const monthStatsOf = `
                         WHERE type IN ('scheduled', 'attempt_succeeded', 'attempt_failed', 'attempt_unknown', 'dead', 'expired', 'cancelled')) l) b
         GROUP BY 1, 2, 3, 4) x
 GROUP BY 1, 2, 3`

// monthReplayed are the replay's entries.
const monthReplayed = `(SELECT * FROM relay.log WHERE replay_id > 0) r`

// monthStandings are how the webhooks stand in the end.
const monthStandings = `
INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending)
SELECT s.webhook_id, s.account_id, s.commit, 0, s.success, s.failure,
       (SELECT count(*) FROM relay.log l WHERE l.type IN ('attempt_failed', 'attempt_unknown') AND l.webhook_id = s.webhook_id AND l.pos > s.place), s.pending
  FROM (SELECT webhook_id, account_id, max(pos) >> 20 AS commit, max(at) FILTER (WHERE type = 'attempt_succeeded') AS success,
               max(at) FILTER (WHERE type IN ('attempt_failed', 'attempt_unknown')) AS failure, coalesce(max(pos) FILTER (WHERE type = 'attempt_succeeded'), 0) AS place,
               count(*) FILTER (WHERE type = 'scheduled') - count(*) FILTER (WHERE type IN ('attempt_succeeded', 'dead', 'cancelled', 'expired')) AS pending
          FROM relay.log WHERE webhook_id > 0 GROUP BY webhook_id, account_id) s`

// monthProjected: the relay is gone, and all of it is folded.
const monthProjected = `UPDATE relay.projected SET batch = (SELECT max(no) FROM relay.batches) WHERE writer = 0`

// monthLinks is the chain: windows that were complete with one batch.
const monthLinks = `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT b, b - 1, (b * $4::int + 4 || ':' || b * $4::int + 4 || ':')::pg_snapshot, 0, (b - 1) * $4::int, (b - 1) * $4::int, b * $4::int, (b - 1) * $4::int, (b - 1) * $4::int + 1, b * $4::int,
       (b * $2::bigint + 2000) / 1000 + 1, $5::bigint, $1::timestamptz + (b * $2::bigint + 2000) * interval '1 microsecond'
  FROM generate_series(1::bigint, $3::bigint / $4::int) b`

// monthReplay is a replay of a few hours of one account, five days later.
const monthReplay = `
WITH s AS MATERIALIZED (
  SELECT l.*, r.pos AS routed, row_number() OVER (ORDER BY l.event_seq) AS n
    FROM relay.log l JOIN relay.log r ON r.event_seq = l.event_seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1
   WHERE l.type = 'scheduled' AND l.account_id = $2::bigint AND l.event_seq BETWEEN $3::bigint / 3 AND $3::bigint / 3 + $3::bigint / 120),
p AS (
  INSERT INTO relay.replays (account_id, selection, requested_by, requested_at, state, version, total, seq_min, seq_max, scheduled, succeeded, finished_at)
  SELECT $2::bigint, json_build_object('account_id', $2::bigint, 'since', $1::timestamptz + interval '10 days', 'until', $1::timestamptz + interval '10 days 6 hours'),
         'outrider bench', $1::timestamptz + interval '15 days', 'finished', 4, count(*), min(event_seq), max(event_seq), count(*), count(*),
         $1::timestamptz + interval '15 days 4 minutes' FROM s RETURNING replay_id),
asked AS (
  INSERT INTO relay.replay_log (replay_id, version, account_id, type, at, actor, data)
  SELECT replay_id, t.version, $2::bigint, t.type, $1::timestamptz + interval '15 days' + t.version * interval '1 minute', 'outrider bench', '{}'
    FROM p, (VALUES (1, 'planned'), (2, 'requested'), (3, 'started'), (4, 'finished')) t (version, type)),
planned AS (
  INSERT INTO relay.replay_deliveries (replay_id, webhook_id, pos, event_seq) SELECT p.replay_id, s.webhook_id, s.routed, s.event_seq FROM s, p),
webhooks AS (
  INSERT INTO relay.replay_webhooks (replay_id, webhook_id, account_id, deliveries, gone, first_at, last_at)
  SELECT p.replay_id, s.webhook_id, $2::bigint, count(*), 0, min(s.at), max(s.at) FROM s, p GROUP BY 1, 2),
streams AS (
  INSERT INTO relay.replay_streams (replay_id, webhook_id, cursor, scheduled, drained)
  SELECT p.replay_id, s.webhook_id, max(s.routed), count(*), true FROM s, p GROUP BY 1, 2)
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
SELECT s.event_seq, s.webhook_id, p.replay_id, s.account_id, (1296000000::bigint + 40 * s.n + t.after << 20) + (t.version << 15) + s.event_seq % 32768, $4::bigint,
       $1::timestamptz + (1296000000::bigint + 40 * s.n + t.after - 1) * interval '1 millisecond', t.version, t.type, t.data::json,
       CASE t.version WHEN 1 THEN s.event_id END, CASE t.version WHEN 1 THEN overlay(md5('r' || s.event_seq) PLACING substr(s.delivery_id::text, 1, 8) FROM 1 FOR 8)::uuid END
  FROM s, p, (VALUES (1, 0, 'scheduled', '{"webhook_version":1}'), (2, 2, 'attempt_started', '{"attempt":1,"webhook_version":1,"timeout_ms":5000}'),
       (3, 30, 'attempt_succeeded', '{"attempt":1,"status_code":204,"duration_us":28000,"remote_ip":"192.0.2.1"}')) t (version, after, type, data)
 ORDER BY 5`

// monthDue is what waits at the end.
const monthDue = `
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT l.event_seq, l.webhook_id, l.replay_id, l.version, CASE WHEN l.type <> 'held' THEN 'r' WHEN l.data ->> 'reason' = 'order' THEN 'h' ELSE 'p' END::"char",
       coalesce(l.data ->> 'retry_at', l.data ->> 'until', s.data ->> 'deadline')::timestamptz, s.pos, hashtext(r.data ->> 'ordering_key')
  FROM relay.log l
  JOIN relay.log s ON s.event_seq = l.event_seq AND s.webhook_id = l.webhook_id AND s.replay_id = l.replay_id AND s.version = 1
  JOIN relay.log r ON r.event_seq = l.event_seq AND r.webhook_id = 0 AND r.replay_id = 0 AND r.version = 1
 WHERE l.type IN ('attempt_failed', 'attempt_unknown', 'held')
   AND NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = l.version + 1)`

const monthSequences = `SELECT setval('outbox.events_seq_seq', $1::bigint), setval('relay.commits', $2::bigint)`

// floats gives an array's literal.
func floats(list []float64) string {
	text := []byte{'{'}
	for i, v := range list {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendFloat(text, v, 'g', -1, 64)
	}
	return string(append(text, '}'))
}
