package postgres

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"

	"github.com/outrider-relay/outrider/outbox"
)

// preparing is a connection that prepares each statement marked for it when it
// comes for the first time, and keeps it: so the server parses and plans once
// what a relay runs for every few events. database/sql can do the same for a
// *sql.Stmt, but Watermill runs the tail's statements by their text.
type preparing struct {
	pqConn
	statements map[string]pqStatement
}

// ExecContext implements driver.ExecerContext.
func (c preparing) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	statement, err := c.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	if statement == nil {
		return c.pqConn.ExecContext(ctx, query, args)
	}
	result, err := statement.ExecContext(ctx, args)
	c.forget(query, err)
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (c preparing) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	statement, err := c.prepared(ctx, query)
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

// pqStatement is what lib/pq's prepared statements can do.
type pqStatement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func (c preparing) prepared(ctx context.Context, query string) (pqStatement, error) {
	if !strings.HasPrefix(query, outbox.PreparedMark) {
		return nil, nil //nolint:nilnil // not marked: there is none, and nothing is wrong
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
func (c preparing) forget(query string, err error) {
	if err == nil {
		return
	}
	if statement, ok := c.statements[query]; ok {
		delete(c.statements, query)
		_ = statement.Close()
	}
}
