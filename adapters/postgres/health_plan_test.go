package postgres

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestHealthAndStatisticsReadNoLog: what is shown of a webhook reads its own
// rows of the time that is asked for, whatever the planner knows of the tables.
func TestHealthAndStatisticsReadNoLog(t *testing.T) {
	t.Parallel()
	const webhooks, hours = 280, 720
	db := pgtest.New(t).SQL
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatalf("%v in %s", err, statement)
		}
	}
	exec(`INSERT INTO relay.webhooks (account_id, version, state, settings, url, credential, secret, previous_secret)
SELECT 1 + i / 10, 1, 'enabled', '{}', 'https://chat.example/' || i, '', '', '' FROM generate_series(1, $1::int) i`, webhooks)
	// Slots of the last two hours, whole hours before.
	const row = `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
SELECT w, 1 + w / 10, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', s, 0, 90, 9, 1, 0, 0, 0, 1, l.latency, l.n, 90
  FROM generate_series($2::int, $3::int) h, generate_series(1, $1::int) w, generate_series($4::int, $5::int) s,
       (SELECT array_agg(b::smallint) AS latency, array_agg(2::bigint) AS n FROM generate_series(100, 119) b) l`
	exec(row, webhooks, 2, hours-1, -1, -1)
	exec(row, webhooks, 0, 1, 0, 11)
	exec(`INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, failures, pending)
SELECT w, 1 + w / 10, c, 0, CASE c WHEN 1 THEN now() END, c, 1 FROM generate_series(1, 3) c, generate_series(1, $1::int) w`, webhooks)

	spans := func(where string) string {
		return strings.NewReplacer("$1", "'"+time.Now().UTC().Truncate(time.Hour).Add(-23*time.Hour).Format(time.RFC3339)+"'", "$2", "'1 hour'").Replace(fmt.Sprintf(spansQuery, where))
	}
	look := func(statistics string) {
		t.Helper()
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		for _, q := range []struct {
			name, query string
			most        int
		}{
			{"health of all", `SELECT * FROM audit.webhook_health`, webhooks * (1 + 3 + 4*24)},
			{"health of an account", `SELECT * FROM audit.webhook_health WHERE account_id = 7`, 10 * (2 + 3 + 4*24)},
			{"health of a webhook", `SELECT * FROM audit.webhook_health WHERE webhook_id = 7`, 2 + 3 + 4*24},
			{"a webhook, 30 days", `SELECT * FROM audit.webhook_stats WHERE webhook_id = 7 AND hour > now() - interval '30 days'`, 2 + 2*(hours+24)},
			{"a webhook, a day", `SELECT * FROM audit.webhook_stats WHERE webhook_id = 7 AND hour > now() - interval '1 day'`, 2 + 2*(24+24)},
			{"an account, a day", `SELECT * FROM audit.webhook_stats WHERE account_id = 7 AND hour > now() - interval '1 day'`, 10 * (2 + 2*(24+24))},
			{"all, an hour", `SELECT * FROM audit.webhook_stats WHERE hour = date_trunc('hour', now(), 'UTC')`, webhooks * (1 + 2*12)},
			{"an account together, a day", spans(` WHERE w.account_id = 7`), 10 * (2 + 2*(24+24))},
			{"all together, a day", spans(""), webhooks * (2 + 2*(24+24))},
			{"backlog of an account", strings.NewReplacer("$1", "10001", "$2", "7").Replace(fmt.Sprintf(backlogQuery, dueOfAccount)), 10 * 2},
		} {
			root, err := explain(t.Context(), tx, q.query, nil)
			if err != nil {
				t.Fatalf("%s: %v", q.name, err)
			}
			text, read, scanned := root.walk(0)
			for _, relation := range scanned {
				if relation != "webhooks" {
					t.Errorf("%s statistics, %s: reads %s as a whole", statistics, q.name, relation)
				}
			}
			if read > webhooks+q.most || // the planner may look at all webhooks, which are few
				read == 0 || strings.Contains(text, " log") {
				t.Errorf("%s statistics, %s: read %d rows, at most %d are wanted, and none of the log, by\n%s", statistics, q.name, read, webhooks+q.most, text)
			}
		}
	}
	look("no")
	exec(`ANALYZE`)
	look("fresh")
}
