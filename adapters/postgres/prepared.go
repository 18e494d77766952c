package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/outrider-relay/outrider/outbox"
)

// preparing is a connection that prepares each statement marked for it when it
// comes for the first time, and keeps it: so the server parses and plans once
// what a relay runs for every few events. database/sql can do the same for a
// *sql.Stmt, but Watermill runs the tail's statements by their text.
//
// PostgreSQL would plan some of them anew in spite of that, since a plan that
// knows the values always seems cheaper. So plan_cache_mode leaves it no choice
// while marked statements run, and is back for any other with arguments. A
// connection of the tail or of the recorder runs the ones for long stretches.
type preparing struct {
	pqConn
	wire       *wire
	statements map[string]pqStatement
	// mode is what plan_cache_mode is set to, empty where that is not known.
	mode string
	// witness is that of the transaction under way, nil where it has none.
	witness *outbox.Witness
}

const (
	planOnce   = `SET plan_cache_mode = force_generic_plan`
	planValues = `SET plan_cache_mode = auto`
)

// set sets how statements are planned from here on.
func (c *preparing) set(ctx context.Context, mode string) error {
	if c.mode == mode {
		return nil
	}
	c.mode = ""
	if _, err := c.pqConn.ExecContext(ctx, mode, nil); err != nil {
		return err
	}
	c.mode = mode
	return nil
}

// BeginTx implements driver.ConnBeginTx. A transaction that does not come
// through takes back what was set in it.
func (c *preparing) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	c.wire.expect(ctx)
	tx, err := c.pqConn.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	c.witness = outbox.WitnessOf(ctx)
	return preparingTx{tx, c}, nil
}

type preparingTx struct {
	driver.Tx
	conn *preparing
}

func (t preparingTx) Commit() error {
	t.conn.wire.expect(context.Background())
	witness := t.conn.witness
	t.conn.witness = nil
	err := t.Tx.Commit()
	switch {
	case err != nil:
		t.conn.mode = ""
	case witness != nil:
		witness.Committed()
	}
	return err
}

func (t preparingTx) Rollback() error {
	t.conn.wire.expect(context.Background())
	t.conn.mode, t.conn.witness = "", nil
	return t.Tx.Rollback()
}

// ExecContext implements driver.ExecerContext.
func (c *preparing) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.wire.expect(ctx)
	statement, err := c.prepared(ctx, query, args)
	if err != nil {
		return nil, err
	}
	if statement == nil {
		return c.pqConn.ExecContext(ctx, query, args)
	}
	var result driver.Result
	if c.witness == nil {
		result, err = statement.ExecContext(ctx, args)
	} else {
		result, err = witnessed(ctx, statement, args, c.witness)
	}
	c.forget(query, err)
	return result, err
}

// witnessed runs a statement for its effect, and shows the witness the row with
// which it answers.
func witnessed(ctx context.Context, statement pqStatement, args []driver.NamedValue, witness *outbox.Witness) (driver.Result, error) {
	rows, err := statement.QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for err = rows.Next(row); err == nil; err = rows.Next(row) {
		witness.Answered(slices.Clone(row))
	}
	if !errors.Is(err, io.EOF) {
		_ = rows.Close()
		return nil, err
	}
	return driver.ResultNoRows, rows.Close()
}

// QueryContext implements driver.QueryerContext.
func (c *preparing) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.wire.expect(ctx)
	statement, err := c.prepared(ctx, query, args)
	if err != nil {
		return nil, err
	}
	if statement == nil {
		return c.pqConn.QueryContext(ctx, query, args)
	}
	rows, err := statement.QueryContext(ctx, args)
	c.forget(query, err)
	return rows, err
}

// Ping implements driver.Pinger.
func (c *preparing) Ping(ctx context.Context) error {
	c.wire.expect(ctx)
	return c.pqConn.Ping(ctx)
}

// IsValid implements driver.Validator.
func (c *preparing) IsValid() bool { return !c.wire.broken && c.pqConn.IsValid() }

// Close implements driver.Conn.
func (c *preparing) Close() error {
	c.wire.expect(context.Background())
	return c.pqConn.Close()
}

// pqStatement is what lib/pq's prepared statements can do.
type pqStatement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// prepared gives a marked statement, nil where the query is not marked.
func (c *preparing) prepared(ctx context.Context, query string, args []driver.NamedValue) (pqStatement, error) {
	if !strings.HasPrefix(query, outbox.PreparedMark) {
		if len(args) == 0 { // there are no values to plan with
			return nil, nil //nolint:nilnil // not marked: there is none, and nothing is wrong
		}
		return nil, c.set(ctx, planValues)
	}
	if err := c.set(ctx, planOnce); err != nil {
		return nil, err
	}
	if statement, ok := c.statements[query]; ok {
		return statement, nil
	}
	made, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	statement, ok := made.(pqStatement)
	if !ok {
		return nil, fmt.Errorf("%T lacks what lib/pq's statements have", made)
	}
	c.statements[query] = statement
	return statement, nil
}

// forget drops a statement that failed: it may be so because a migration
// changed what it reads, and is prepared anew the next time.
func (c *preparing) forget(query string, err error) {
	if err == nil {
		return
	}
	if statement, ok := c.statements[query]; ok {
		delete(c.statements, query)
		_ = statement.Close()
	}
}
