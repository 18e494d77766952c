package main

import (
	"database/sql"
	"testing"
)

// statisticsWanted aggregates the log plainly: what audit.webhook_stats must
// give, without the durations.
const statisticsWanted = `
SELECT account_id, webhook_id, hour, sum(succeeded + failed + unknown)::bigint, sum(succeeded)::bigint, sum(failed)::bigint, sum(unknown)::bigint,
       sum(dead)::bigint, sum(expired)::bigint, sum(cancelled)::bigint, sum(scheduled)::bigint
  FROM (SELECT account_id, webhook_id, date_trunc('hour', finished_at, 'UTC') AS hour,
               (outcome = 'succeeded')::int AS succeeded, (outcome = 'failed')::int AS failed, (outcome = 'unknown')::int AS unknown, 0 AS dead, 0 AS expired, 0 AS cancelled, 0 AS scheduled
          FROM audit.attempts WHERE outcome <> 'started'
         UNION ALL
        SELECT account_id, webhook_id, date_trunc('hour', completed_at, 'UTC'), 0, 0, 0, (status = 'dead')::int, (status = 'expired')::int, (status = 'cancelled')::int, 0
          FROM audit.deliveries WHERE status IN ('dead', 'expired', 'cancelled')
         UNION ALL
        SELECT account_id, webhook_id, date_trunc('hour', scheduled_at, 'UTC'), 0, 0, 0, 0, 0, 0, 1 FROM audit.deliveries) x
 GROUP BY account_id, webhook_id, hour`

const statisticsGiven = `
SELECT account_id, webhook_id, hour, attempts, succeeded, failed, unknown, dead, expired, cancelled, scheduled FROM audit.webhook_stats`

// healthWanted is the same for audit.webhook_health. The order of the log is
// the timeline's.
const healthWanted = `
SELECT w.account_id, w.id AS webhook_id, w.state, a.success, a.failure, coalesce(f.failures, 0) AS failures, f.since, coalesce(d.pending, 0) AS pending
  FROM relay.webhooks w
  LEFT JOIN (SELECT webhook_id, max(finished_at) FILTER (WHERE outcome = 'succeeded') AS success, max(finished_at) FILTER (WHERE outcome IN ('failed', 'unknown')) AS failure
               FROM audit.attempts GROUP BY webhook_id) a ON a.webhook_id = w.id
  LEFT JOIN (SELECT webhook_id, count(*) FILTER (WHERE type <> 'attempt_succeeded' AND pos > coalesce(success, 0)) AS failures,
                    min(at) FILTER (WHERE type <> 'attempt_succeeded' AND pos > coalesce(success, 0)) AS since
               FROM (SELECT webhook_id, type, pos, at, max(pos) FILTER (WHERE type = 'attempt_succeeded') OVER (PARTITION BY webhook_id) AS success
                       FROM relay.log WHERE type IN ('attempt_succeeded', 'attempt_failed', 'attempt_unknown')) o
              GROUP BY webhook_id) f ON f.webhook_id = w.id
  LEFT JOIN (SELECT webhook_id, count(*) AS pending FROM audit.deliveries WHERE status IN ('pending', 'held') GROUP BY webhook_id) d ON d.webhook_id = w.id
 WHERE w.state <> 'deleted'`

const healthGiven = `
SELECT account_id, webhook_id, state, last_success_at, last_failure_at, consecutive_failures, failing_since, pending FROM audit.webhook_health`

// latencyWanted gives the quantiles of audit.webhook_stats with what they must
// be near to.
const latencyWanted = `
SELECT s.webhook_id, s.hour, s.p50_ms, a.p50, s.p95_ms, a.p95, s.p99_ms, a.p99
  FROM audit.webhook_stats s
  JOIN (SELECT webhook_id, date_trunc('hour', finished_at, 'UTC') AS hour, percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50,
               percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95, percentile_disc(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99
          FROM audit.attempts WHERE duration_ms IS NOT NULL GROUP BY 1, 2) a ON a.webhook_id = s.webhook_id AND a.hour = s.hour
 WHERE abs(s.p50_ms - a.p50) > a.p50 / 31 OR abs(s.p95_ms - a.p95) > a.p95 / 31 OR abs(s.p99_ms - a.p99) > a.p99 / 31
    OR s.p50_ms IS NULL OR s.p95_ms IS NULL OR s.p99_ms IS NULL`

// differences lists the rows that only one of two queries gives.
func differences(t *testing.T, db *sql.DB, wanted, given string) []string {
	t.Helper()
	return texts(t, db, `
WITH wanted AS (`+wanted+`), given AS (`+given+`)
SELECT 'missing: ' || m::text FROM (SELECT * FROM wanted EXCEPT ALL SELECT * FROM given) m
UNION ALL
SELECT 'surplus: ' || s::text FROM (SELECT * FROM given EXCEPT ALL SELECT * FROM wanted) s
UNION ALL
SELECT 'nothing to compare' WHERE NOT EXISTS (SELECT FROM wanted)`)
}

func texts(t *testing.T, db *sql.DB, query string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var found []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		found = append(found, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// checkStatistics compares statistics and health with the log, row by row. It
// is for a database on which nothing goes on and all is folded.
func checkStatistics(t *testing.T, db *sql.DB) {
	t.Helper()
	for _, difference := range differences(t, db, statisticsWanted, statisticsGiven) {
		t.Errorf("audit.webhook_stats: %s", difference)
	}
	for _, difference := range differences(t, db, healthWanted, healthGiven) {
		t.Errorf("audit.webhook_health: %s", difference)
	}
	for _, difference := range texts(t, db, `SELECT x::text FROM (`+latencyWanted+`) x`) {
		t.Errorf("audit.webhook_stats, durations: %s", difference)
	}
}
