package bench

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// auditAttempts is how many attempts the history of workload h has.
const auditAttempts = 10_000_000

// auditPage is what `outrider audit` shows at once.
const auditPage = 100

// farPage is how many pages lie before the one that is far.
const farPage = 999

// probes are how many events or accounts each query is asked about in a
// repetition.
const probes = 11

// auditQuery is one that a user of the schema audit asks.
type auditQuery struct {
	name, title string
	// statements are asked one after the other, and together take the time.
	statements []string
	// args are those of every statement.
	args func(ctx context.Context, db *sql.DB, probe int) ([]any, error)
	// bound is in milliseconds, 0 for none.
	bound float64
}

const (
	newestFirst  = ` ORDER BY event_seq DESC, webhook_id DESC, replay_id DESC LIMIT 100`
	behindCursor = ` AND event_seq <= $2 AND (event_seq, webhook_id, replay_id) < ($2, $3, $4)`
)

// hourlyStats are the attempts of a webhook by the hour.
const hourlyStats = `
SELECT * FROM audit.webhook_stats WHERE webhook_id = $1 AND hour >= now() - interval '30 days' ORDER BY hour`

// ofAccount are an account's deliveries, as outrider audit looks for them: by
// the places of the account's events, which have an index. accountBehind are
// those behind a cursor.
const (
	ofAccount = `
SELECT * FROM audit.deliveries
 WHERE account_id = $1
   AND event_seq = ANY (ARRAY(SELECT seq FROM audit.events WHERE account_id = $1 AND routed_at IS NOT NULL ORDER BY seq DESC LIMIT 110))`
	accountBehind = `
SELECT * FROM audit.deliveries
 WHERE account_id = $1
   AND event_seq = ANY (ARRAY(SELECT seq FROM audit.events WHERE account_id = $1 AND seq <= $2 AND routed_at IS NOT NULL ORDER BY seq DESC LIMIT 110))
   AND (event_seq, webhook_id, replay_id) < ($2, $3, $4)`
)

// placedAs finds what is of an event by its place.
const placedAs = ` WHERE event_seq = (SELECT seq FROM audit.events WHERE event_id = $1::uuid) AND event_id = $1::uuid`

var auditQueries = []auditQuery{
	{"trace", "the trace of an event", []string{
		`SELECT * FROM audit.events WHERE event_id = $1::uuid`,
		`SELECT * FROM audit.deliveries` + placedAs,
		`SELECT * FROM audit.attempts` + placedAs,
		`SELECT * FROM audit.timeline` + placedAs,
	}, anEvent, 5},
	{"account", "an account's deliveries, page 1", []string{ofAccount + newestFirst}, anAccount, 20},
	{"account_far", "an account's deliveries, page 1,000", []string{accountBehind + newestFirst}, anAccountsPlace, 20},
	{"webhook", "a webhook's deliveries, page 1", []string{`SELECT * FROM audit.deliveries WHERE webhook_id = $1` + newestFirst}, aWebhook, 20},
	{"webhook_far", "a webhook's deliveries, page 1,000", []string{`SELECT * FROM audit.deliveries WHERE webhook_id = $1` + behindCursor + newestFirst}, aWebhooksPlace, 20},
	{"dead", "a hundred dead deliveries of any account", []string{`SELECT * FROM audit.deliveries` + placesOf("dead") + ` AND status = 'dead'` + newestFirst}, aPlace, 20},
	{"failed", "a hundred failed attempts of any account", []string{`
SELECT a.* FROM (SELECT * FROM audit.deliveries` + placesOf("attempt_failed") + newestFirst + `) d
 CROSS JOIN LATERAL (SELECT * FROM audit.attempts x WHERE x.delivery_id = d.delivery_id OFFSET 0) a
 WHERE a.outcome = 'failed' ORDER BY d.event_seq DESC, d.webhook_id DESC, d.replay_id DESC, a.attempt DESC LIMIT 100`}, aPlace, 20},
	{"hours", "a webhook's attempts by the hour, 30 days", []string{hourlyStats}, aWebhook, 200},
}

// placesOf finds what is rare, as outrider audit does, from a place in the outbox
// downwards: by the entry that it has, and others have not.
func placesOf(entry string) string {
	return ` WHERE event_seq = ANY (ARRAY(SELECT audit.places('` + entry + `', 0, $1::bigint, 110)))`
}

// aPlace is one of any age.
func aPlace(ctx context.Context, db *sql.DB, probe int) ([]any, error) {
	var seq int64
	err := db.QueryRowContext(ctx, `SELECT last_value * $1::bigint / $2::bigint FROM outbox.events_seq_seq`, probe+1, probes).Scan(&seq)
	return []any{seq}, err
}

// anEvent is one of any age.
func anEvent(ctx context.Context, db *sql.DB, probe int) ([]any, error) {
	var id string
	err := db.QueryRowContext(ctx, `
SELECT id::text FROM outbox.events WHERE seq = (SELECT last_value * $1::bigint / $2::bigint FROM outbox.events_seq_seq)`, probe+1, probes+1).Scan(&id)
	return []any{id}, err
}

// account gives one account after the other, from the largest: those large
// enough to have a page 1,000.
func accountOf(probe int) int { return 2 * probe }

func anAccount(_ context.Context, _ *sql.DB, probe int) ([]any, error) {
	return []any{FirstAccount + accountOf(probe)}, nil
}

// webhookOf is the account's only one.
const webhookOf = `SELECT id FROM relay.webhooks WHERE account_id = $1::bigint`

func aWebhook(ctx context.Context, db *sql.DB, probe int) ([]any, error) {
	var id int64
	err := db.QueryRowContext(ctx, webhookOf, FirstAccount+accountOf(probe)).Scan(&id)
	return []any{id}, err
}

// placeOf is the last row of the page before the far one, or of all.
const placeOf = `
SELECT event_seq, webhook_id, replay_id FROM (
  SELECT event_seq, webhook_id, replay_id FROM relay.log WHERE webhook_id = $1 AND delivery_id IS NOT NULL
   ORDER BY event_seq DESC, replay_id DESC LIMIT $2) l
 ORDER BY event_seq, replay_id LIMIT 1`

func aWebhooksPlace(ctx context.Context, db *sql.DB, probe int) ([]any, error) {
	args, err := aWebhook(ctx, db, probe)
	if err != nil {
		return nil, err
	}
	var seq, webhook, replay int64
	err = db.QueryRowContext(ctx, placeOf, args[0], farPage*auditPage).Scan(&seq, &webhook, &replay)
	return append(args, seq, webhook, replay), err
}

func anAccountsPlace(ctx context.Context, db *sql.DB, probe int) ([]any, error) {
	args, err := aWebhooksPlace(ctx, db, probe)
	if err == nil {
		args[0] = FirstAccount + accountOf(probe)
	}
	return args, err
}

// audit is workload h: what an auditor waits for, at ten million attempts.
func (r *Run) audit(ctx context.Context, _ []string) ([]Workload, error) {
	w := Workload{Name: "h", Title: Titles["h"], Measures: []Measure{}}
	if !r.Rig.Private() {
		w.Notes = []string{"left out: it would fill the given database with a history that never was; leave the database out for a private server"}
		return []Workload{w}, nil
	}
	attempts := auditAttempts
	if r.Quick {
		attempts = 5000
	}
	db, err := r.Rig.Database(ctx)
	if err != nil {
		return nil, err
	}
	progress := Progress{Workload: w.Name, Repetitions: r.Repetitions}
	begun := time.Now()
	err = monthOf(db, attempts, begun).write(ctx, func(step string, done, all int) {
		progress.Step, progress.Done, progress.All = step, done, all
		r.Progress(progress)
	})
	if err != nil {
		return nil, err
	}
	var m measures
	written := time.Since(begun)
	for repetition := range r.Repetitions {
		progress := Progress{Workload: w.Name, Repetition: repetition + 1, Repetitions: r.Repetitions}
		for _, q := range auditQueries {
			progress.Step = q.title
			r.Progress(progress)
			planned, run, err := q.ask(ctx, db.DB)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", q.title, err)
			}
			m.add(q.name, q.title, Milliseconds, Lower, Median(run))
			m.add(q.name+"_most", fmt.Sprintf("the slowest of %d", probes), Milliseconds, Lower, Percentile(run, 100))
			m.add(q.name+"_planned", "to plan it, median", Milliseconds, Lower, Median(planned))
		}
		if err := r.sitePages(ctx, db, &m, progress); err != nil {
			return nil, err
		}
	}
	var count, size float64
	err = db.DB.QueryRowContext(ctx, `
SELECT (SELECT count(*) FROM relay.log WHERE type = 'attempt_started'), (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('relay.log'))`).Scan(&count, &size)
	if err != nil {
		return nil, err
	}
	m.add("attempts", "attempts in the history", Count, Neither, count)
	m.add("size", "size of the log, indexes included", Bytes, Neither, size)
	m.add("written", "time to write the history", Milliseconds, Neither, milliseconds(written))
	for _, q := range auditQueries {
		if q.bound > 0 {
			m.atMost(q.name, q.bound)
		}
	}
	w.Measures = m.done()
	w.Notes = []string{"times of queries are the server's, by EXPLAIN ANALYZE, in a session that has asked before, with what memory held after the history was written; those of pages and APIs are their reader's, on this machine"}
	return []Workload{w}, nil
}

// ask gives how long the server took to plan and to run each probe, in
// milliseconds. The first one is asked once more before, so that the session
// knows the tables.
func (q *auditQuery) ask(ctx context.Context, db *sql.DB) (planned, run []float64, err error) {
	session, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	if _, err := session.ExecContext(ctx, `SET jit = off`); err != nil { // as the program does, and the README advises
		return nil, nil, err
	}
	for probe := -1; probe < probes; probe++ {
		args, err := q.args(ctx, db, max(0, probe))
		if err != nil {
			return nil, nil, err
		}
		var planning, running float64
		for _, statement := range q.statements {
			took, err := explainStatement(ctx, session, statement, args)
			if err != nil {
				return nil, nil, err
			}
			planning += took.Planning
			running += took.Execution
		}
		if probe >= 0 {
			planned, run = append(planned, planning), append(run, running)
		}
	}
	return planned, run, nil
}

// explained is how long a statement took, by the server's clock.
type explained struct {
	Planning  float64 `json:"Planning Time"`
	Execution float64 `json:"Execution Time"`
}

func explainStatement(ctx context.Context, session *sql.Conn, statement string, args []any) (explained, error) {
	var text string
	if err := session.QueryRowContext(ctx, `EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) `+statement, args...).Scan(&text); err != nil {
		return explained{}, err
	}
	var plans []explained
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		return explained{}, err
	}
	if len(plans) != 1 {
		return explained{}, errors.New("EXPLAIN gave no plan")
	}
	return plans[0], nil
}
