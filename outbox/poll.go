package outbox

import (
	"database/sql"
	"strconv"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// selectRows reads the next rows of the window and, on each row or alone where
// there is none, the snapshot and the chain's head.
//
// Three paths lead to the rows of a window. All have the same filter, what the
// target sees and consumed does not; they differ in how rows are found, and do
// not overlap. With H the High and W the transaction of the newest link known
// to be committed, every row of a transaction after W lies above H, so:
//
//   - above H, by sequence number: the backlog, however long it is;
//   - up to H, by the transactions that were under way in consumed: stragglers;
//   - up to H, by the transactions from consumed's xmax up to W: those that
//     overlapped with the last batches.
//
// So no path sorts the backlog or walks what was consumed. Everything that
// bounds them is a parameter: the planner sees the values and prunes
// partitions. The statistics of new rows are missing or wrong, so the text sees
// to it that a plan that does sort them never looks cheap: stragglers are
// looked up one transaction after the other, as a comparison of rows, which
// the planner thinks true of many; it thinks IS NOT NULL true of all; and of a
// LIMIT by a subquery, that a tenth of the rows is enough. One that it knows may
// be more than the rows that it believes to be left: then it would sort all that
// is left of a backlog for each batch.
//
// Names and keys far over their limits are cut, and stay over them.
//
// $1 limit of a body and of metadata, $2 limit of them all, $3 and $4 bounds
// for duplicates: High is above all that is routed, and with it the planner
// leaves the partitions that are kept ahead alone; $5 lower bound above H,
// $6 consumed, $7 the open window's snapshot or NULL, $8 transactions in
// progress in consumed, $9 lower bound of their rows, $10 xmax of consumed,
// $11 lower bound of rows from there on, $12 W, $13 H, $14 rows to fetch.
var selectRows = poll("$14", stragglers+overlapping+rowsAbove)

// A tail that has little to do polls by a statement that each connection plans
// once: one that is planned anew takes a millisecond or two, which is most of
// what a single event would wait for. Such a plan knows no values, so its text
// has what the planner would go wrong without: the limit.
//
// selectFew takes the place of selectRows where so little lies between $11 and
// $13 that it does not matter by which index it is found. selectAbove does where
// the first two paths lead to nothing, since no transaction was under way and
// the floor has come up to H: that is so when an event meets a tail that was
// idle.
func selectFew(limit int) string {
	return PreparedMark + poll(strconv.Itoa(limit), stragglers+overlapping+rowsAbove)
}

func selectAbove(limit int) string {
	return PreparedMark + poll(strconv.Itoa(limit), rowsAbove)
}

// PreparedMark is what the text of a statement begins with that connections
// prepare when it comes for the first time, and plan once, knowing no values.
// The relay's pool does so; elsewhere it is a comment.
const PreparedMark = "/* prepared */"

// The paths to a window's rows.
const (
	stragglers = `
                 (SELECT s.* FROM unnest($8::xid8[]) AS x (xid) CROSS JOIN LATERAL (
                     SELECT ` + rowColumns + ` FROM outbox.events e
                      WHERE (e.xid, seq) > (x.xid, $9::bigint) AND (e.xid, seq) <= (x.xid, $13::bigint) AND seq > $9
                        AND ($7::pg_snapshot IS NULL OR pg_visible_in_snapshot(x.xid, $7::pg_snapshot))
                      ORDER BY e.xid, seq LIMIT :limit) s
                   ORDER BY seq LIMIT :limit)
                 UNION ALL`
	overlapping = `
                 (SELECT ` + rowColumns + ` FROM outbox.events
                   WHERE xid >= $10::xid8 AND xid <= $12::xid8 AND seq > $11 AND seq <= $13 AND $11 < $13 AND ` + inWindow + `
                   ORDER BY seq LIMIT :limit)
                 UNION ALL`
	rowsAbove = `
                 (SELECT ` + rowColumns + ` FROM outbox.events
                   WHERE seq > $5 AND CASE WHEN ` + inWindow + ` THEN 1 END IS NOT NULL
                   ORDER BY seq LIMIT (SELECT :limit::bigint))`
)

// selectAdopted reads the next rows of those that an adoption found: what has
// no decision, by place alone. LATERAL with LIMIT makes each a look-up by key,
// whatever the statistics say. The cursor is where the last batch ended, so
// each row's decision is looked for once.
//
// $1 to $4 as in selectRows, $5 cursor, $6 bound, $7 rows to fetch.
var selectAdopted = poll("$7", `
                 SELECT `+rowColumns+` FROM outbox.events e
                   LEFT JOIN LATERAL (
                        SELECT true AS decided FROM relay.log l
                         WHERE l.event_seq = e.seq AND l.webhook_id = 0 AND l.replay_id = 0 AND l.version = 1 LIMIT 1) l ON true
                  WHERE seq > $5 AND seq <= $6 AND l.decided IS NULL
                  ORDER BY seq LIMIT (SELECT :limit::bigint)`)

// poll gives the statement of a poll: rows finds those of the window. An earlier
// event of the account with a row's id is looked up for each; "+ 0" leaves the
// planner no index but the one on event_id.
func poll(limit, rows string) string {
	return strings.ReplaceAll(`
WITH w AS MATERIALIZED (
     SELECT u.*, lead(u.seq) OVER r IS NOT NULL AS more, row_number() OVER r AS rn,
            sum(CASE WHEN u.bytes <= $1 THEN u.bytes ELSE 0 END + coalesce(octet_length(u.metadata), 0)) OVER r AS running
       FROM (SELECT * FROM (`+rows+`) p ORDER BY seq LIMIT :limit) u
     WINDOW r AS (ORDER BY u.seq ROWS UNBOUNDED PRECEDING))
SELECT CASE WHEN e.rn IS NULL OR e.rn = 1 THEN m.snap::text END, m.no, m.xid::text,
       e.seq, e.account_id, e.event, CASE WHEN e.bytes <= $1 THEN e.payload END, e.bytes,
       e.id, e.ordering_key, e.metadata, e.inserted_at, e.more, coalesce(a.version, 0), coalesce(d.event_seq, 0)
  FROM (SELECT pg_current_snapshot() AS snap, b.no, b.xid FROM relay.batches b ORDER BY b.no DESC LIMIT 1) m
  LEFT JOIN w e ON e.rn < :limit AND (e.running <= $2 OR e.rn = 1)
  LEFT JOIN relay.accounts a ON a.account_id = e.account_id
  LEFT JOIN LATERAL (
       SELECT min(l.event_seq + 0) AS event_seq FROM relay.log l
        WHERE l.event_id = e.id AND l.webhook_id = 0 AND l.event_seq > $3 AND l.event_seq <= $4 AND l.account_id + 0 = e.account_id
          AND l.event_seq <> e.seq AND l.routing <> 'quarantined') d ON true
 ORDER BY e.seq`, ":limit", limit)
}

// rowColumns are read of each row. A payload that is not compressed tells its
// size without being read.
const rowColumns = `seq, account_id, left(event, 200) AS event, payload,
       CASE WHEN pg_column_compression(payload) IS NULL THEN pg_column_size(payload) ELSE octet_length(payload::text) END AS bytes,
       id, left(ordering_key, 1000) AS ordering_key, CASE WHEN octet_length(metadata::text) <= $1 THEN metadata::text END AS metadata, inserted_at`

const inWindow = `NOT pg_visible_in_snapshot(xid, $6::pg_snapshot) AND ($7::pg_snapshot IS NULL OR pg_visible_in_snapshot(xid, $7::pg_snapshot))`

// scanned is where the columns of a row of selectRows go. It is kept: what
// database/sql writes to would be allocated anew for each row.
type scanned struct {
	snap, event, ordering sql.NullString
	xid                   string
	head                  int64
	seq, account, size    sql.NullInt64
	version, duplicate    int64
	payload, metadata     []byte
	id                    sql.RawBytes
	inserted              sql.NullTime
	more                  sql.NullBool
	into                  []any
}

func (s *scanned) destinations() []any {
	if s.into == nil {
		s.into = []any{
			&s.snap, &s.head, &s.xid, &s.seq, &s.account, &s.event, &s.payload, &s.size,
			&s.id, &s.ordering, &s.metadata, &s.inserted, &s.more, &s.version, &s.duplicate,
		}
	}
	return s.into
}

// row makes a row of what was scanned, place rows after the first of its batch.
func (s *scanned) row(place int) (*Row, error) {
	row := &Row{
		ChatEvent: domain.ChatEvent{
			Seq: s.seq.Int64, AccountID: domain.AccountID(s.account.Int64), Name: s.event.String,
			Payload: s.payload, PayloadBytes: len(s.payload), InsertedAt: s.inserted.Time,
		},
		Place:    place,
		Metadata: s.metadata, ConfigVersion: s.version, DuplicateOf: s.duplicate,
	}
	if s.payload == nil {
		row.PayloadBytes = int(s.size.Int64)
	}
	if len(s.id) > 0 {
		if err := row.ID.UnmarshalText(s.id); err != nil {
			return nil, err
		}
	}
	if s.ordering.Valid {
		key := s.ordering.String
		row.OrderingKey = &key
	}
	return row, nil
}
