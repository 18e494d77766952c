package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/lib/pq"
)

// explainer is a pool that explains each query before it runs it, so that a
// test sees the plans of what a method really asks.
type explainer struct {
	*sql.DB

	mu    sync.Mutex
	plans []explained
}

// explained is a query with its plan.
type explained struct {
	query string
	plan  planNode
}

// newExplainer opens one with settings, as "SET plan_cache_mode = …".
func newExplainer(t *testing.T, dsn string, settings ...string) *explainer {
	t.Helper()
	connector, err := pq.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	e := &explainer{}
	e.DB = sql.OpenDB(explainingConnector{connector, e, settings})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// take gives the plans since it was asked last.
func (e *explainer) take() []explained {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.plans
	e.plans = nil
	return taken
}

type explainingConnector struct {
	driver.Connector
	to       *explainer
	settings []string
}

func (c explainingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(pqConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T lacks what a connection of pq has", conn), conn.Close())
	}
	for _, setting := range c.settings {
		if _, err := full.ExecContext(ctx, setting, nil); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return explainingConn{full, c.to}, nil
}

type explainingConn struct {
	pqConn
	to *explainer
}

// QueryContext implements driver.QueryerContext.
func (c explainingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	e, err := c.explain(ctx, query, args)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", query, err)
	}
	c.to.mu.Lock()
	c.to.plans = append(c.to.plans, e)
	c.to.mu.Unlock()
	return c.pqConn.QueryContext(ctx, query, args)
}

func (c explainingConn) explain(ctx context.Context, query string, args []driver.NamedValue) (explained, error) {
	rows, err := c.pqConn.QueryContext(ctx, `EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) `+query, args)
	if err != nil {
		return explained{}, err
	}
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		return explained{}, errors.Join(err, rows.Close())
	}
	plan := []byte(text(row[0]))
	if err := rows.Close(); err != nil {
		return explained{}, err
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(plan, &plans); err != nil || len(plans) != 1 {
		return explained{}, fmt.Errorf("EXPLAIN gave %s: %w", plan, err)
	}
	return explained{query, plans[0].Plan}, nil
}

func text(v driver.Value) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return strings.TrimSpace(fmt.Sprint(v))
}
