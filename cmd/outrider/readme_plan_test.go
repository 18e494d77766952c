package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// The history of 51,000 events of 50 accounts in 30 days, an entry of the log
// for each of its 200,000 rows and some: account n has webhook n. One of 100
// has no subscriber, one of 200 fails once, one of 1,000 has an attempt with
// unknown outcome. Of the newest, some are held or wait for a retry, and 30 are
// not routed. The README's event is in the middle.
var planHistory = []string{
	`INSERT INTO outbox.events (xid, account_id, event, payload, id)
	 SELECT (1000000 + i)::text::xid8, i % 50 + 1, 'message_created', '{}', CASE i WHEN 25000 THEN '` + readmeEvent + `'::uuid ELSE outbox.new_event_id() END FROM generate_series(1, 51030) i`,
	`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing)
	 SELECT e.seq, k.webhook, 0, e.account_id, (e.seq << 20) + k.version + k.webhook, 1, now() - (51000 - e.seq) * interval '51 s' + k.version * interval '10 ms', k.version, k.type,
	        CASE WHEN k.type = 'routed' THEN json_build_object('event', 'message_created', 'routing', k.routing) ELSE json_build_object('attempt', k.version / 2, 'webhook_version', 1, 'status_code', 200, 'duration_us', 900 + e.seq % 1000) END,
	        CASE WHEN k.version = 1 THEN e.id END, CASE k.type WHEN 'scheduled' THEN outbox.new_event_id() END, k.routing
	   FROM outbox.events e
	  CROSS JOIN LATERAL (
	        SELECT 0, 1, 'routed', CASE WHEN e.seq % 100 = 7 THEN 'no_subscriber' ELSE 'routed' END
	        UNION ALL SELECT e.account_id, v, t, NULL FROM (VALUES (1, 'scheduled'), (2, 'attempt_started'), (3, 'attempt_succeeded')) n (v, t)
	         WHERE e.seq % 100 <> 7 AND e.seq % 200 <> 3 AND e.seq % 1000 <> 9 AND e.seq <= 50900
	        UNION ALL SELECT e.account_id, v, t, NULL FROM (VALUES (1, 'scheduled'), (2, 'attempt_started'), (3, 'attempt_failed'), (4, 'attempt_started'), (5, 'attempt_succeeded')) n (v, t) WHERE e.seq % 200 = 3 AND e.seq <= 50900
	        UNION ALL SELECT e.account_id, v, t, NULL FROM (VALUES (1, 'scheduled'), (2, 'attempt_started'), (3, 'attempt_unknown'), (4, 'attempt_started'), (5, 'attempt_succeeded')) n (v, t) WHERE e.seq % 1000 = 9 AND e.seq <= 50900
	        UNION ALL SELECT e.account_id, v, t, NULL FROM (VALUES (1, 'scheduled'), (2, 'attempt_started'), (3, 'attempt_failed')) n (v, t) WHERE e.seq > 50900 AND e.seq % 50 = 0
	        UNION ALL SELECT e.account_id, v, t, NULL FROM (VALUES (1, 'scheduled'), (2, 'held')) n (v, t) WHERE e.seq > 50900 AND e.seq % 50 <> 0) k (webhook, version, type, routing)
	  WHERE e.seq <= 51000 ORDER BY 1, 5`,
	`INSERT INTO relay.responses (event_seq, webhook_id, replay_id, version, account_id, salt, excerpt)
	 SELECT event_seq, webhook_id, replay_id, version, account_id, '\x01', 'ok' FROM relay.log WHERE webhook_id > 0 AND version % 2 = 1 AND version > 1`,
	`INSERT INTO relay.webhook_log (account_id, version, webhook_id, type, actor, before, after)
	 SELECT i, v, i, 'updated', 'ops', '{"url":"https://example.com/"}', '{"url":"https://example.com/hooks"}' FROM generate_series(1, 50) i, generate_series(1, 40) v`,
	`UPDATE relay.batches SET at = now() - interval '31 days'`,
	`INSERT INTO relay.batches (no, prev, xid, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
	 SELECT i, i - 1, (1000000 + 10 * i)::text::xid8, (1000001 + 10 * i || ':' || 1000001 + 10 * i || ':')::pg_snapshot, 0, 10 * i, 10 * i, 10 * i, 10 * i - 10, 10 * i - 9, 10 * i, i, 1,
	        now() - (51000 - 10 * i) * interval '51 s' FROM generate_series(1, 5100) i`,
	`INSERT INTO relay.tenant_roles VALUES ('outrider_tenant', 1)`,
}

// TestReadmeQueriesReadWhatTheyName: each query of the history reads what it
// names and no more, for an auditor and for a tenant.
func TestReadmeQueriesReadWhatTheyName(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for _, statement := range planHistory {
		mustExec(t, db, statement)
	}
	if n := query[int](t, db, `SELECT count(*) FROM relay.log`); n < 200_000 {
		t.Fatalf("the log has %d entries", n)
	}
	// By the text before each query: what it needs, at most, of the tables.
	most := map[string]int{
		"The life of one event":               50,
		"What a webhook got":                  100,
		"How each webhook did":                6_000,
		"The ten worst receivers":             1000,
		"What is waiting":                     5000,
		"Attempts whose outcome nobody knows": 200,
		"Events that nobody subscribed to":    200,
		"Who changed a webhook":               1500,
		"Gaps: events that are committed":     300,
		"A page of deliveries":                400,
		"A page of the account's deliveries":  300,
		"A page of the account's events":      300,
		"A page of the webhook's deliveries":  400,
	}
	type question struct{ name, role, text string }
	questions := []question{
		{"A page of deliveries", "outrider_auditor", `SELECT * FROM audit.deliveries ORDER BY event_seq DESC LIMIT 20`},
		{"A page of deliveries", "outrider_tenant", `SELECT * FROM audit.deliveries WHERE account_id = 1 ORDER BY event_seq DESC LIMIT 20`},
	}
	for _, role := range []string{"outrider_auditor", "outrider_tenant"} {
		questions = append(questions,
			question{"A page of the account's deliveries", role, `SELECT * FROM audit.deliveries WHERE account_id = 1 ORDER BY event_seq DESC LIMIT 20`},
			question{"A page of the webhook's deliveries", role, `SELECT * FROM audit.deliveries WHERE webhook_id = 1 ORDER BY event_seq DESC LIMIT 20`},
			question{"A page of the account's events", role, `SELECT * FROM audit.events WHERE account_id = 1 ORDER BY seq DESC LIMIT 20`})
	}
	asked := map[string]bool{}
	readme := readReadme(t)
	blocks, _ := readmeBlocks(t, readme)
	lines := strings.Split(readme, "\n")
	for _, b := range blocks {
		run, _, _ := strings.Cut(b.run, " ")
		if run != "auditor" && run != "tenant" || b.lang != "sql" || strings.Contains(b.text, "replay_id =") {
			continue
		}
		if b.run == "auditor statistics" || b.run == "auditor breakers" || b.run == "auditor none" {
			continue // statistics and webhooks read no log, which a test of their plans shows; verifying reads all of it
		}
		name := ""
		for known := range most {
			if strings.HasPrefix(lines[b.line-4], known) {
				name = known
			}
		}
		if name == "" {
			t.Errorf("%s: nothing says what %q may read", b.name(), lines[b.line-4])
		}
		asked[name] = true
		questions = append(questions, question{name, "outrider_auditor", b.text})
		if run == "tenant" {
			questions = append(questions, question{name, "outrider_tenant", b.text})
		}
	}
	if len(asked) < 9 {
		t.Errorf("the README asks only %v", asked)
	}
	mustExec(t, db, `ANALYZE`)
	for _, q := range questions {
		root := explained(t, db, q.role, q.text)
		text, read := root.walk(0)
		t.Logf("%s, %s: %d rows of %d read", q.role, q.name, read, int(root.Rows))
		if read > most[q.name] || root.Rows == 0 {
			t.Errorf("%s, %s: %.0f rows, read %d, at most %d are wanted, by\n%s", q.role, q.name, root.Rows, read, most[q.name], text)
		}
	}
}

// explainNode is a node of EXPLAIN's JSON.
type explainNode struct {
	Type     string        `json:"Node Type"`
	Relation string        `json:"Relation Name"`
	Index    string        `json:"Index Name"`
	Rows     float64       `json:"Actual Rows"`
	Filtered float64       `json:"Rows Removed by Filter"`
	Joined   float64       `json:"Rows Removed by Join Filter"`
	Loops    float64       `json:"Actual Loops"`
	Plans    []explainNode `json:"Plans"`
}

// walk gives the text of a plan, and how many rows it read of tables.
func (n explainNode) walk(depth int) (text string, read int) {
	if n.Loops > 0 {
		text = fmt.Sprintf("%s%s %s %s: %.0f rows, %.0f filtered out, %.0f times\n", strings.Repeat("  ", depth), n.Type, n.Relation, n.Index, n.Rows, n.Filtered+n.Joined, n.Loops)
	}
	if n.Relation != "" {
		read = int((n.Rows + n.Filtered) * n.Loops)
	}
	for _, child := range n.Plans {
		t, r := child.walk(depth + 1)
		text, read = text+t, read+r
	}
	return text, read
}

// explained runs a query as a role that logged in.
func explained(t *testing.T, db *sql.DB, role, text string) explainNode {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	for _, statement := range []string{`SET LOCAL statement_timeout = '2min'`, `SET LOCAL SESSION AUTHORIZATION ` + role} {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var plan string
	if err := tx.QueryRowContext(context.WithoutCancel(t.Context()), `EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) `+strings.TrimSuffix(strings.TrimSpace(text), ";")).Scan(&plan); err != nil {
		t.Errorf("%s: %v", text, err)
		return explainNode{}
	}
	var roots []struct{ Plan explainNode }
	if err := json.Unmarshal([]byte(plan), &roots); err != nil {
		t.Fatal(err)
	}
	return roots[0].Plan
}
