package postgres

import (
	"context"
	"database/sql"
	"strings"
	"time"
)

// position is the newest link of the chain as a check of rows needs it: all in
// the form in which PostgreSQL takes it back as a parameter, so that the
// planner sees the values.
type position struct {
	no               int64
	relayID          int64
	age              time.Duration // by the database's clock against the relay's
	xid              string
	consumed         string
	inProgress, xmax string // of consumed
	target           sql.NullString
	cursor, floor    int64
	windowFloor      int64
	high, low        int64
	bound            int64
}

const positionQuery = `
SELECT b.no, b.relay_id, extract(epoch FROM clock_timestamp() - b.at), b.xid::text, b.consumed::text,
       (ARRAY(SELECT pg_snapshot_xip(b.consumed)))::text, pg_snapshot_xmax(b.consumed)::text, b.target::text,
       b.cursor, b.floor, b.window_floor, b.high, b.low, b.bound
  FROM relay.batches b ORDER BY b.no DESC LIMIT 1`

func readPosition(ctx context.Context, tx *sql.Tx) (position, error) {
	var p position
	var age float64
	err := tx.QueryRowContext(ctx, positionQuery).Scan(&p.no, &p.relayID, &age, &p.xid, &p.consumed, &p.inProgress, &p.xmax, &p.target,
		&p.cursor, &p.floor, &p.windowFloor, &p.high, &p.low, &p.bound)
	p.age = fromSeconds(age)
	return p, err
}

// unroutedQuery counts committed rows that no batch has routed, by the three
// paths on which the tail finds them, each bounded. Behind the cursor of an
// open window there may be more, which belong to the next one: they are few,
// and looking for them would walk the window.
//
// $1 transactions in progress in consumed, $2 lower bound of their rows,
// $3 xmax of consumed, $4 lower bound of rows from there on, $5 transaction of
// the newest link, $6 its High, $7 consumed, $8 the most to count.
const unroutedQuery = `
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(w.inserted_at)), 0)
  FROM (SELECT * FROM (
          (SELECT e.inserted_at FROM outbox.events e WHERE e.seq > $6 ORDER BY e.seq LIMIT $8)
          UNION ALL
          (SELECT s.inserted_at FROM unnest($1::xid8[]) AS x (xid) CROSS JOIN LATERAL (
              SELECT e.inserted_at FROM outbox.events e
               WHERE (e.xid, e.seq) > (x.xid, $2::bigint) AND (e.xid, e.seq) <= (x.xid, $6::bigint) AND e.seq > $2 AND e.seq <= $6
               ORDER BY e.xid, e.seq LIMIT $8) s LIMIT $8)
          UNION ALL
          (SELECT e.inserted_at FROM outbox.events e
            WHERE e.xid >= $3::xid8 AND e.xid <= $5::xid8 AND e.seq > $4 AND e.seq <= $6 AND NOT pg_visible_in_snapshot(e.xid, $7::pg_snapshot)
            LIMIT $8)) u LIMIT $8) w`

// undecidedQuery counts while what an adoption found is being routed: then
// transactions say nothing, and a row waits if it has no decision.
//
// $1 the cursor, $2 the most to count.
const undecidedQuery = `
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(w.inserted_at)), 0)
  FROM (SELECT e.inserted_at FROM outbox.events e
          LEFT JOIN LATERAL (
               SELECT true AS decided FROM relay.log l
                WHERE l.event_seq = e.seq AND l.webhook_id = 0 AND l.replay_id = 0 AND l.version = 1 LIMIT 1) l ON true
         WHERE e.seq > $1 AND l.decided IS NULL
         ORDER BY e.seq LIMIT $2) w`

// waiting is what a bounded count found.
type waiting struct {
	count  Count
	oldest time.Duration
}

// The same for who may not read the payloads.
var (
	unroutedRowsQuery  = strings.ReplaceAll(unroutedQuery, "outbox.events", "relay.outbox_rows")
	undecidedRowsQuery = strings.ReplaceAll(undecidedQuery, "outbox.events", "relay.outbox_rows")
)

// unrouted counts the committed rows that wait to be routed. p must be read in
// the same REPEATABLE READ transaction.
func unrouted(ctx context.Context, tx *sql.Tx, p position) (waiting, error) {
	return countWaiting(ctx, tx, p, unroutedQuery, undecidedQuery)
}

func countWaiting(ctx context.Context, tx *sql.Tx, p position, unrouted, undecided string) (waiting, error) {
	var n int
	var oldest float64
	if p.bound > 0 {
		err := tx.QueryRowContext(ctx, undecided, p.cursor, countLimit+1).Scan(&n, &oldest)
		return waiting{countOf(n), fromSeconds(oldest)}, err
	}
	err := tx.QueryRowContext(ctx, unrouted, p.inProgress, max(p.cursor, p.low), p.xmax, max(p.cursor, p.floor),
		p.xid, p.high, p.consumed, countLimit+1).Scan(&n, &oldest)
	return waiting{countOf(n), fromSeconds(oldest)}, err
}

func fromSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
