package outbox

import (
	"context"
	"database/sql"
	"slices"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
)

// ahead is a read of the rows behind a batch, on a connection of its own, while
// that batch is routed and written. Only rows of a window that stays open are
// read so: which they are is settled by its two snapshots, whatever is committed
// meanwhile. What is not settled, the chain's head and the accounts'
// configurations, is asked for in the batch's own transaction: see selectAhead.
type ahead struct {
	// after is where the batch before leaves the chain, if it is written.
	after Position
	rows  []*Row
	more  bool // says the last of them
	err   error
	done  chan struct{}
	end   context.CancelFunc
}

// selectAhead stands for a poll whose rows were read ahead. It has a row for each
// of them, for that is what Watermill takes them by, and on the first what they
// need: the snapshot and the chain's head, by which it is known that the batch
// before was written, and nothing else; and the versions of the accounts'
// configurations.
//
// $1 how many rows, $2 their accounts, each once.
const selectAhead = PreparedMark + `
SELECT pg_current_snapshot()::text, m.no, m.xid::text,
       ARRAY(SELECT coalesce(a.version, 0) FROM unnest($2::bigint[]) WITH ORDINALITY AS u (account_id, n) LEFT JOIN relay.accounts a ON a.account_id = u.account_id ORDER BY u.n)
  FROM (SELECT no, xid FROM relay.batches ORDER BY no DESC LIMIT 1) m
 UNION ALL
SELECT NULL, NULL, NULL, NULL FROM generate_series(2, $1::integer)`

// readAhead begins to read the rows behind those that were fetched.
func (r *reader) readAhead() {
	rows := r.fetch.rows
	last := rows[len(rows)-1].Seq
	a := &ahead{after: r.fetch.opened.advance(last, last, false, nil), done: make(chan struct{})}
	query, args := r.poll(a.after, false)
	var ctx context.Context
	ctx, a.end = context.WithCancel(r.life)
	go func() {
		defer close(a.done)
		a.rows, a.more, a.err = readRows(ctx, r.DB, query, args)
	}()
	r.ahead = a
}

// readRows reads the rows of a poll whose head and snapshot do not matter.
func readRows(ctx context.Context, db *sql.DB, query string, args []any) (found []*Row, more bool, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = rows.Close() }()
	var s scanned
	for rows.Next() {
		if err := rows.Scan(s.destinations()...); err != nil {
			return nil, false, err
		}
		if !s.seq.Valid {
			break
		}
		row, err := s.row(len(found))
		if err != nil {
			return nil, false, err
		}
		found, more = append(found, row), s.more.Bool
	}
	return found, more, rows.Err()
}

// awaitAhead waits for what is being read ahead, and drops it where it is of no
// use: where it failed, which the poll in its place will tell, or where the batch
// before did not leave the chain as it should have.
func (r *reader) awaitAhead(ctx context.Context) {
	a := r.ahead
	if a == nil {
		return
	}
	if a.after.No != r.position.No || a.after.Cursor != r.position.Cursor {
		r.dropAhead()
		return
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil || a.err != nil || len(a.rows) == 0 {
		r.dropAhead()
	}
}

func (r *reader) dropAhead() {
	if r.ahead != nil {
		r.ahead.end()
		r.ahead = nil
	}
}

// takeAhead makes what was read ahead the present fetch.
func (r *reader) takeAhead() wsql.Query {
	a := r.ahead
	a.end()
	r.ahead = nil
	r.fetch = fetch{rows: a.rows, more: a.more, ahead: true}
	r.accounts = r.accounts[:0]
	for _, row := range a.rows {
		r.accounts = append(r.accounts, int64(row.AccountID))
	}
	slices.Sort(r.accounts)
	r.accounts = slices.Compact(r.accounts)
	return wsql.Query{Query: selectAhead, Args: []any{len(a.rows), pq.Array(r.accounts)}}
}

// unmarshalAhead gives the next row that was read ahead.
func (r *reader) unmarshalAhead(scanner wsql.Scanner) (wsql.Row, error) {
	if !r.fetch.started {
		var head int64
		var snapshot, xid string
		var versions []int64
		if err := scanner.Scan(&snapshot, &head, &xid, pq.Array(&versions)); err != nil {
			return wsql.Row{}, err
		}
		if err := r.startFetch(snapshot, head, xid); err != nil {
			return wsql.Row{}, err
		}
		of := make(map[domain.AccountID]int64, len(versions))
		for i, version := range versions {
			of[domain.AccountID(r.accounts[i])] = version
		}
		for _, row := range r.fetch.rows {
			row.ConfigVersion = of[row.AccountID]
		}
	}
	row := r.fetch.rows[r.fetch.given]
	r.fetch.given++
	return r.message(row), nil
}
