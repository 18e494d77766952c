package postgres

import (
	"context"
	"database/sql"
	"time"
)

// Facts are what the database tells of how a relay does. Counts stop at 10,001.
type Facts struct {
	// LagRows are committed rows that no batch has routed; above 10,000 it is
	// the distance to the newest one in sequence numbers. Lag is how long the
	// oldest waits.
	LagRows int64
	Lag     time.Duration
	// Retries, Held, Paused and Overflow are deliveries in the due table,
	// Overdue how late the oldest that is due is.
	Retries, Held, Paused, Overflow int
	Overdue                         time.Duration
	// Ahead are whole partitions that have no row yet, Room the rows up to the
	// end of the last one.
	Ahead int
	Room  int64
	// OutboxNet and LogNet are rows that no partition took within a day.
	OutboxNet, LogNet int
}

// oldestDue is when the oldest retry or hold was due, of as many rows as the
// limit $1 says. What waits for a receiver that is down is not late, nor is what
// a pause held: it is due long ago once that is over.
const oldestDue = `(
SELECT n.at FROM (SELECT o.at, o.webhook_id FROM relay.due o WHERE o.kind <> 'o' AND o.kind <> 'p' ORDER BY o.at LIMIT $1) n
 WHERE (SELECT w.breaker_opened_at FROM relay.webhooks w WHERE w.id = n.webhook_id) IS NULL ORDER BY n.at LIMIT 1)`

// watchedDueQuery counts what waits, of as many rows as the limit says.
const watchedDueQuery = `
SELECT count(*) FILTER (WHERE d.kind = 'r'), count(*) FILTER (WHERE d.kind = 'h'), count(*) FILTER (WHERE d.kind = 'p'), count(*) FILTER (WHERE d.kind = 'o'),
       coalesce(greatest(0, extract(epoch FROM clock_timestamp() - ` + oldestDue + `)), 0)
  FROM (SELECT kind FROM relay.due ORDER BY event_seq LIMIT $1) d`

// watchedRoomQuery looks at the newest partitions only.
const watchedRoomQuery = `
SELECT n.seq, coalesce((SELECT p.upper FROM relay.partitions p WHERE p.events_done AND p.log_done ORDER BY p.lower DESC LIMIT 1) - n.seq, 0),
       (SELECT count(*) FROM relay.partitions p WHERE p.lower > n.seq AND p.events_done AND p.log_done)
  FROM (SELECT coalesce((SELECT r.seq FROM relay.outbox_rows r ORDER BY r.seq DESC LIMIT 1), 0) AS seq) n`

// dayAgoQuery finds the place in the outbox a day ago. now(), which an index is
// searched by.
const dayAgoQuery = `
SELECT coalesce((SELECT b.high FROM relay.batches b WHERE b.at < now() - interval '1 day' ORDER BY b.at DESC LIMIT 1), 0)`

const watchedNetQuery = `
SELECT (SELECT count(*) FROM (SELECT FROM relay.outbox_net_rows n WHERE n.seq > $1 LIMIT $2) x),
       (SELECT count(*) FROM (SELECT FROM relay.log_net n WHERE n.event_seq > $1 LIMIT $2) x)`

// Watch looks how a relay does, in one snapshot. Each statement is bounded: none
// costs more with more history.
func Watch(ctx context.Context, db *sql.DB) (Facts, error) {
	var f Facts
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return f, err
	}
	defer func() { _ = tx.Rollback() }()
	var late float64
	if err := tx.QueryRowContext(ctx, watchedDueQuery, countLimit+1).Scan(&f.Retries, &f.Held, &f.Paused, &f.Overflow, &late); err != nil {
		return f, err
	}
	f.Overdue = fromSeconds(late)
	var newest int64
	if err := tx.QueryRowContext(ctx, watchedRoomQuery).Scan(&newest, &f.Room, &f.Ahead); err != nil {
		return f, err
	}
	var dayAgo int64
	if err := tx.QueryRowContext(ctx, dayAgoQuery).Scan(&dayAgo); err != nil {
		return f, err
	}
	if err := tx.QueryRowContext(ctx, watchedNetQuery, dayAgo, countLimit+1).Scan(&f.OutboxNet, &f.LogNet); err != nil {
		return f, err
	}
	p, err := readPosition(ctx, tx)
	if err != nil {
		return f, err
	}
	w, err := countWaiting(ctx, tx, p, unroutedRowsQuery, undecidedRowsQuery)
	if err != nil {
		return f, err
	}
	f.Lag, f.LagRows = max(0, w.oldest), int64(w.count.N)
	if w.count.More {
		f.LagRows = max(f.LagRows+1, newest-p.high)
	}
	return f, nil
}
