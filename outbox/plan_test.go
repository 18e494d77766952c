package outbox_test

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// plan is what a poll did.
type plan struct {
	text string
	cost float64
	ms   float64
	// rows is how many came back.
	rows int
	// read is how many rows of outbox.events and relay.log it read.
	read int
	// pages is how many pages it looked at.
	pages int
	// sorted is the most that one sort got.
	sorted int
	// scanned are those two's partitions that it read as a whole, and that had
	// rows.
	scanned []string
}

// node is a node of EXPLAIN's JSON.
type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Cost     float64 `json:"Total Cost"`
	Rows     float64 `json:"Actual Rows"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Loops    float64 `json:"Actual Loops"`
	Hit      float64 `json:"Shared Hit Blocks"`
	Missed   float64 `json:"Shared Read Blocks"`
	Plans    []node  `json:"Plans"`
}

// explain runs the very statement with which the tail polls at a position.
func explain(t *testing.T, db *sql.DB, tail *outbox.Tail, position outbox.Position, newest uint64) plan {
	t.Helper()
	query, args := tail.Query(position, newest)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	exec(t, tx, `SET LOCAL ROLE outrider_relay`) // under row-level security, which a superuser is not
	var text string
	if err := tx.QueryRowContext(t.Context(), explainJSON+query, args...).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return parsePlan(t, text)
}

const explainJSON = `EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) `

// explainFew does so for a tail that has little to do: with a plan that knows
// no values.
func explainFew(t *testing.T, db *sql.DB, tail *outbox.Tail, position outbox.Position, newest uint64) plan {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	query, args := tail.QueryFew(position, newest)
	if _, err := conn.ExecContext(t.Context(), `SET plan_cache_mode = force_generic_plan; SET ROLE outrider_relay; DEALLOCATE ALL; PREPARE few AS `+query); err != nil {
		t.Fatal(err)
	}
	execute := `EXECUTE few ` + values(t, args)
	if _, err := conn.ExecContext(t.Context(), execute); err != nil { // which plans it
		t.Fatal(err)
	}
	var text string
	if err := conn.QueryRowContext(t.Context(), explainJSON+execute).Scan(&text); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `RESET ROLE`)
	return parsePlan(t, text)
}

// values writes arguments as EXECUTE takes them.
func values(t *testing.T, args []any) string {
	t.Helper()
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i] = "NULL"
		if valuer, ok := arg.(driver.Valuer); ok {
			var err error
			if arg, err = valuer.Value(); err != nil {
				t.Fatal(err)
			}
		}
		if arg != nil {
			texts[i] = fmt.Sprintf("'%v'", arg)
		}
	}
	return "(" + strings.Join(texts, ", ") + ")"
}

func parsePlan(t *testing.T, text string) plan {
	t.Helper()
	var explained []struct {
		Plan node
		Time float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal([]byte(text), &explained); err != nil {
		t.Fatal(err)
	}
	root := explained[0].Plan
	p := plan{cost: root.Cost, ms: explained[0].Time, rows: int(root.Rows), pages: int(root.Hit + root.Missed)}
	p.add(root, 0)
	return p
}

func (p *plan) add(n node, depth int) {
	p.text += fmt.Sprintf("%s%s %s %s: %.0f rows and %.0f filtered out, %.0f times, %.0f pages\n",
		strings.Repeat("  ", depth), n.Type, n.Relation, n.Index, n.Rows, n.Filtered, n.Loops, n.Hit+n.Missed)
	if strings.HasPrefix(n.Relation, "events_") || strings.HasPrefix(n.Relation, "log_") {
		read := int((n.Rows + n.Filtered) * n.Loops)
		p.read += read
		if n.Type == "Seq Scan" && read > 0 {
			p.scanned = append(p.scanned, n.Relation)
		}
	}
	for _, child := range n.Plans {
		if n.Type == "Sort" {
			p.sorted = max(p.sorted, int(child.Rows*child.Loops))
		}
		p.add(child, depth+1)
	}
}

// fillEvents inserts rows from $1 to $2, each of a transaction of its own with
// that id and a million, for 50 accounts.
const fillEvents = `
INSERT INTO outbox.events (xid, account_id, event, payload)
SELECT (1000000 + i)::text::xid8, i % 50 + 1, 'message_created', json_build_object('id', i, 'content', repeat('x', 100)) FROM generate_series($1::bigint, $2::bigint) i`

// fillLog writes that rows up to $1 are routed, each tenth to a webhook.
const fillLog = `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing)
SELECT e.seq, w.id, 0, e.account_id, (e.seq << 20) + w.id, 1, now(), 1, CASE w.id WHEN 0 THEN 'routed' ELSE 'scheduled' END,
       '{"routing":"routed","event":"message_created"}', e.id, CASE w.id WHEN 1 THEN e.id END, CASE w.id WHEN 0 THEN 'routed' END
  FROM outbox.events e, (VALUES (0), (1)) w (id) WHERE e.seq <= $1 AND (w.id = 0 OR e.seq % 10 = 0) ORDER BY 1, 2`

// A poll's cost must not grow with what waits or with what is routed, whatever
// the planner knows of the tables.
func TestPollsReadOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	const routed, all, batch = 200_000, 250_000, 2000
	db := pgtest.New(t).SQL
	tail, _ := newTail(t, db, nil)
	head, err := postgres.NewChain(db).Head(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, db, `INSERT INTO relay.accounts (account_id, version) SELECT i, 1 FROM generate_series(1, 1000) i`)

	// at is the position of a tail that has routed the rows up to seq.
	at := func(seq int64) outbox.Position {
		p := head.Position
		p.Consumed = outbox.Snapshot{Xmin: xidOf(seq) + 1, Xmax: xidOf(seq) + 1}
		p.Floor, p.High, p.Low = seq, seq, seq
		return p
	}
	judge := func(stats, what string, got plan, rows, read, pages int) {
		t.Helper()
		t.Logf("%s statistics, %s: cost %.0f, %.1f ms, %d rows read, %d sorted, %d pages", stats, what, got.cost, got.ms, got.read, got.sorted, got.pages)
		if got.rows != max(rows, 1) { // one row says that there is nothing
			t.Errorf("%s statistics, %s: %d rows, want %d", stats, what, got.rows, rows)
		}
		if got.read > read || got.pages > pages || got.sorted > 2*(batch+1) || len(got.scanned) > 0 {
			t.Errorf("%s statistics, %s: %d rows and %d pages were read, %d sorted, %v scanned, by\n%s", stats, what, got.read, got.pages, got.sorted, got.scanned, got.text)
		}
	}
	check := func(stats, what string, p outbox.Position, newest uint64, rows, read, pages int) {
		t.Helper()
		judge(stats, what, explain(t, db, tail, p, newest), rows, read, pages)
	}
	checkFew := func(stats, what string, p outbox.Position, newest uint64, rows, read, pages int) {
		t.Helper()
		judge(stats, "by few, "+what, explainFew(t, db, tail, p, newest), rows, read, pages)
	}
	// Each row is read, and its id looked up in each partition; each partition
	// gives one row more than asked for.
	const full, fullPages = 3 * batch, 30 * batch
	checkAll := func(stats string, last int64) {
		t.Helper()
		idle := at(last)
		check(stats, "nothing waits", idle, xidOf(last)+1, 0, 10, 100)
		check(stats, "10 rows wait", at(last-10), xidOf(last-10)+1, 10, 50, 600)
		checkFew(stats, "nothing waits", idle, xidOf(last)+1, 0, 10, 100)
		checkFew(stats, "10 rows wait", at(last-10), xidOf(last-10)+1, 10, 50, 600)
		checkFew(stats, "50,000 rows wait", at(last-50_000), xidOf(last-50_000)+1, 128, 500, 5000)
		check(stats, "50,000 rows wait", at(last-50_000), xidOf(last-50_000)+1, batch, full, fullPages)

		// In the middle of a window, and behind it.
		open := at(last - 50_000)
		open.Target, open.Cursor, open.High = &outbox.Snapshot{Xmin: xidOf(last) + 1, Xmax: xidOf(last) + 1}, last-25_000, last-25_000
		check(stats, "25,000 rows wait in the window", open, xidOf(last)+1, batch, full, fullPages)
		behind := at(last)
		behind.Floor = last - 50_000
		check(stats, "a window of 50,000 rows was closed", behind, xidOf(last)+1, 0, 10, 500)

		under := at(last)
		under.Low, under.Consumed.Xmin = last-150_000, xidOf(10)
		for i := range int64(20) {
			under.Consumed.InProgress = append(under.Consumed.InProgress, xidOf(10+i)) // which have no row there
		}
		check(stats, "20 transactions are under way", under, xidOf(last)+1, 0, 50, 1000)
		checkFew(stats, "20 transactions are under way", under, xidOf(last)+1, 0, 50, 1000)
		under.Floor, under.Consumed.Xmax = last-1000, xidOf(last)-1000
		checkFew(stats, "20 transactions are under way, and 1,000 rows ended at once", under, xidOf(last)+1, 128, 1500, 3000)
	}

	exec(t, db, fillEvents, 1, routed)
	exec(t, db, fillLog, routed)
	checkAll("no", routed)
	exec(t, db, `ANALYZE`)
	checkAll("fresh", routed)
	// A quarter more, and a transaction with many rows that was under way
	// while others were routed: the planner knows nothing of either.
	exec(t, db, fillEvents, routed+1, all)
	checkAll("stale", all)
	// The less of it is left the less the planner thinks there is, down to nothing.
	for waits := int64(45_000); waits > 0; waits -= 5000 {
		check("stale", fmt.Sprintf("%d rows wait", waits), at(all-waits), xidOf(all-waits)+1, batch, full, fullPages)
		adopted := at(all - waits)
		adopted.Bound, adopted.Cursor = all, all-waits
		check("stale", fmt.Sprintf("an adoption left %d rows", waits), adopted, xidOf(all-waits)+1, batch, full, fullPages)
	}
	exec(t, db, `INSERT INTO outbox.events (xid, account_id, event, payload) SELECT '1100000', 1, 'message_created', '{}' FROM generate_series(1, 50000)`)
	bulk := at(all + 50_000)
	bulk.Consumed = outbox.Snapshot{Xmin: 1_100_000, Xmax: xidOf(all) + 1, InProgress: []uint64{1_100_000}}
	bulk.Low = 150_000
	check("stale", "a straggler has 50,000 rows", bulk, xidOf(all)+1, batch, full, fullPages)
	exec(t, db, `ANALYZE`)
	check("fresh", "a straggler has 50,000 rows", bulk, xidOf(all)+1, batch, full, fullPages)
	checkFew("fresh", "a straggler has 50,000 rows", bulk, xidOf(all)+1, 128, 500, 5000)
}

// xidOf is the transaction of a row that fillEvents inserted.
func xidOf(seq int64) uint64 { return uint64(1_000_000 + seq) } //nolint:gosec // it is positive

// A connection plans the polls of a tail that has little to do once, be it on a
// partition that is empty, where all indexes are alike.
func TestPollsThatWerePlannedOnNothingReadOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	const last, waits = 60_000, 10
	db := pgtest.New(t).SQL
	tail, _ := newTail(t, db, nil)
	head, err := postgres.NewChain(db).Head(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	calm := func(seq int64) outbox.Position {
		p := head.Position
		p.Consumed = outbox.Snapshot{Xmin: xidOf(seq) + 1, Xmax: xidOf(seq) + 1}
		p.Floor, p.High, p.Low = seq, seq, seq
		return p
	}
	under := func(seq int64) outbox.Position {
		p := calm(seq)
		p.Floor, p.Consumed.Xmin, p.Consumed.InProgress = max(0, seq-5), xidOf(0), []uint64{xidOf(0)}
		return p
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	exec(t, conn, `VACUUM ANALYZE`)
	exec(t, conn, `SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off`)
	polls := []struct {
		name string
		at   func(int64) outbox.Position
	}{{"calm", calm}, {"under", under}}
	for _, poll := range polls {
		query, args := tail.QueryFew(poll.at(0), xidOf(0)+1)
		exec(t, conn, `PREPARE `+poll.name+` AS `+query)
		exec(t, conn, `EXECUTE `+poll.name+` `+values(t, args))
	}
	exec(t, conn, fillEvents, 1, last)
	exec(t, conn, fillLog, last-waits)
	for _, poll := range polls {
		_, args := tail.QueryFew(poll.at(last-waits), xidOf(last-waits)+1)
		var text string
		if err := conn.QueryRowContext(t.Context(), explainJSON+`EXECUTE `+poll.name+` `+values(t, args)).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if got := parsePlan(t, text); got.rows != waits || got.pages > 600 {
			t.Errorf("%s: %d rows, want %d; %d pages were read, by\n%s", poll.name, got.rows, waits, got.pages, got.text)
		}
	}
}
