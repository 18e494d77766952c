package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// passedOver says of a committed row e without a decision that neither the
// tail's present window nor a later one will read it. It is the negation of
// outbox's selectRows, for the window that is open and for the one after it.
// Where the chain and the rows belong together, nothing is: the position only
// moves past what it has routed. They part where a dump is restored into a
// cluster that counts its transactions from elsewhere, where a position or the
// sequence was moved by hand, or where a row was written with a seq of its own.
//
// All is judged in one snapshot with the chain's head: what commits later is
// not in it, and rows of a batch that is being written are not decided in it
// but within reach of its head.
//
// $1 consumed, $2 its xmax, $3 target or NULL, $4 cursor, $5 low, $6 floor,
// $7 window_floor, $8 High, $9 transaction of the newest link, $10 the bound of
// an adoption that is being routed, else 0.
const passedOver = `CASE
       -- Of an adoption: read upwards, by whether it has a decision.
       WHEN e.seq <= $10::bigint THEN e.seq <= $4::bigint
       -- Its transaction is ahead of the server's counter: restored rows.
       WHEN NOT pg_visible_in_snapshot(e.xid, pg_current_snapshot()) THEN true
       -- Routed, says the position.
       WHEN pg_visible_in_snapshot(e.xid, $1::pg_snapshot) THEN true
       -- Of the open window, which is read upwards.
       WHEN pg_visible_in_snapshot(e.xid, $3::pg_snapshot) THEN
            e.seq <= CASE WHEN e.seq > $8 THEN 0 WHEN e.xid < $2::xid8 THEN greatest($4::bigint, $5::bigint) ELSE greatest($4::bigint, $6::bigint) END
       WHEN e.seq > $8 THEN false
       -- Of the window after the open one.
       WHEN $3::pg_snapshot IS NOT NULL THEN
            e.seq <= CASE WHEN e.xid < pg_snapshot_xmax($3::pg_snapshot) THEN $5::bigint ELSE $7::bigint END
       -- Of the next window.
       ELSE e.seq <= CASE WHEN e.xid < $2::xid8 THEN $5::bigint ELSE $6::bigint END OR e.xid > $9::xid8 END`

// passedBelowQuery judges the rows without a decision from $11 down, $12 of
// them at most, and says where it ended, and whether the sequence gave a number
// below the position to a transaction behind it. LATERAL with LIMIT makes each
// decision a look-up by key: joined as a whole, the planner reads all of them.
const passedBelowQuery = `
WITH e AS MATERIALIZED (SELECT r.xid, r.seq FROM relay.outbox_rows r WHERE r.seq <= $11 ORDER BY r.seq DESC LIMIT $12)
SELECT (SELECT count(*) FROM e), coalesce((SELECT min(seq) FROM e), 0), coalesce(array_agg(f.seq ORDER BY f.seq), '{}'), coalesce(bool_or(f.xid > $9::xid8), false)
  FROM (SELECT e.seq, e.xid FROM e
          LEFT JOIN LATERAL (
               SELECT true AS decided FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0 AND l.replay_id = 0 AND l.version = 1 LIMIT 1) l ON true
         WHERE l.decided IS NULL AND ` + passedOver + `) f`

// passedAboveQuery judges the oldest and the newest rows above the position,
// which nobody has decided. $11 is how many of each.
const passedAboveQuery = `
WITH e AS MATERIALIZED (
  (SELECT r.xid, r.seq FROM relay.outbox_rows r WHERE r.seq > $8 ORDER BY r.seq LIMIT $11)
   UNION
  (SELECT r.xid, r.seq FROM relay.outbox_rows r WHERE r.seq > $8 ORDER BY r.seq DESC LIMIT $11))
SELECT (SELECT count(*) FROM e), ARRAY(SELECT e.seq FROM e WHERE ` + passedOver + ` ORDER BY e.seq)`

// passedStep is how many rows one statement judges: some hundredths of a
// second's work, and with its bounds given the partitions are pruned.
const passedStep = 10_000

// passedSearch is what was found of rows that were passed over.
type passedSearch struct {
	looked int
	lowest int64 // 0: down to the first row
	rows   []int64
	high   int64
	behind bool // the sequence gives numbers below the position
}

// positionArgs are $1 to $10 of passedOver.
func positionArgs(pos position) []any {
	return []any{pos.consumed, pos.xmax, pos.target, pos.cursor, pos.low, pos.floor, pos.windowFloor, pos.high, pos.xid, pos.bound}
}

func searchPassed(ctx context.Context, tx *sql.Tx, limit int) (passedSearch, error) {
	var s passedSearch
	pos, err := readPosition(ctx, tx)
	if err != nil {
		return s, err
	}
	err = tx.QueryRowContext(ctx, passedAboveQuery, append(positionArgs(pos), passedStep)...).Scan(&s.looked, pq.Array(&s.rows))
	if err != nil {
		return s, err
	}
	if pos.high > 0 {
		s.lowest = pos.high + 1
	}
	s.high = pos.high
	from := pos.high
	for left := limit; left > 0 && from > 0; {
		var looked int
		var lowest int64
		var found []int64
		var behind bool
		err := tx.QueryRowContext(ctx, passedBelowQuery, append(positionArgs(pos), from, min(left, passedStep))...).Scan(&looked, &lowest, pq.Array(&found), &behind)
		if err != nil {
			return s, err
		}
		s.looked += looked
		s.behind = s.behind || behind
		s.rows = append(found, s.rows...)
		if looked < min(left, passedStep) {
			s.lowest = 0
			return s, nil
		}
		s.lowest = lowest
		left, from = left-looked, lowest-1
	}
	return s, nil
}

func lookAtPassed(ctx context.Context, p *patient) error {
	var s passedSearch
	err := p.reading(ctx, func(tx *sql.Tx) (err error) {
		s, err = searchPassed(ctx, tx, p.config.Rows)
		return err
	})
	// What time allowed is told, with how far it came.
	if timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded); err != nil && (!timedOut || s.looked == 0) {
		return err
	}
	where := fmt.Sprintf("%s from seq %s on", counted(s.looked, "row", "rows"), grouped(s.lowest))
	if s.lowest == 0 {
		where = "all " + counted(s.looked, "row", "rows")
	}
	if len(s.rows) == 0 {
		advice := ""
		if s.lowest > 0 && err != nil {
			advice = "give it more time to look further back: --timeout 1m"
		}
		p.add(Healthy, "every committed row is routed, or within reach of the tail ("+where+")", advice)
		return nil
	}
	p.add(Problem, fmt.Sprintf("%s committed, without a decision, and out of the tail's reach (of %s): seq %s", counted(len(s.rows), "row is", "rows are"), where, ranges(s.rows)), p.mendPassed(s))
	return nil
}

// mostListed is how many rows the command that mends lists.
const mostListed = 50

// mendPassed inserts the rows anew, with their ids: what is routed twice in
// spite of all would be recorded as a duplicate.
func (p *patient) mendPassed(s passedSearch) string {
	rows := s.rows
	if p.foreign {
		return "they come from another cluster's counting: outrider adopt routes them"
	}
	when := "as the schema's owner and while no relay runs: "
	which := fmt.Sprintf("seq BETWEEN %d AND %d AND NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = seq AND l.webhook_id = 0)", rows[0], rows[len(rows)-1])
	if len(rows) <= mostListed {
		list := make([]string, len(rows))
		for i, seq := range rows {
			list[i] = strconv.FormatInt(seq, 10)
		}
		when = "as the schema's owner: "
		which = "seq IN (" + strings.Join(list, ", ") + ")"
	}
	why := "how did the position get past them? "
	if s.behind {
		why = fmt.Sprintf("the sequence is behind the position; first: SELECT setval('outbox.events_seq_seq', greatest(last_value, %d)) FROM outbox.events_seq_seq. ", s.high)
	}
	return why + "To put them in once more, " + when +
		"WITH lost AS (DELETE FROM outbox.events WHERE " + which + " RETURNING account_id, event, payload, id, ordering_key, occurred_at, metadata) " +
		"INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata) SELECT * FROM lost"
}

// ranges writes 4, 5, 6, 9 as "4-6, 9", and not without end.
func ranges(sorted []int64) string {
	const most = 8
	var parts []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		if len(parts) == most {
			parts = append(parts, "…, "+grouped(sorted[len(sorted)-1]))
			break
		}
		part := grouped(sorted[i])
		if j > i {
			part += "-" + grouped(sorted[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
