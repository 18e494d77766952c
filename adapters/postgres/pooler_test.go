package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"
	"time"
)

// pooled is a connector whose connections share one server process when pid is
// fixed, as behind a pooler in transaction mode.
type pooled struct {
	same bool
	pid  *int64
}

func (p pooled) Driver() driver.Driver { return nil }

func (p pooled) Connect(context.Context) (driver.Conn, error) {
	if !p.same {
		*p.pid++
	}
	return pooledConn{*p.pid}, nil
}

type pooledConn struct{ pid int64 }

func (c pooledConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (c pooledConn) Close() error                        { return nil }
func (c pooledConn) Begin() (driver.Tx, error)           { return c, nil }
func (c pooledConn) Commit() error                       { return nil }
func (c pooledConn) Rollback() error                     { return nil }

func (c pooledConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &pidRows{pid: c.pid}, nil
}

type pidRows struct {
	pid  int64
	done bool
}

func (r *pidRows) Columns() []string { return []string{"pg_backend_pid"} }
func (r *pidRows) Close() error      { return nil }

func (r *pidRows) Next(values []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done, values[0] = true, r.pid
	return nil
}

func TestAPoolerInTransactionModeIsNoticed(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		db := sql.OpenDB(pooled{same, new(int64)})
		if err := checkSessions(t.Context(), db); errors.Is(err, ErrPooler) != same {
			t.Errorf("server processes shared: %t, error: %v", same, err)
		}
		p := patient{db: db, config: DoctorConfig{Timeout: time.Minute}}
		c := check{name: "sessions", look: lookAtSessions}
		after, err := p.examine(t.Context(), c)
		found := after.findings
		if err != nil {
			found = append(found, p.failed(c, err))
		}
		if len(found) != 1 || (found[0].Health == Problem) != same || (found[0].Advice != "") != same {
			t.Errorf("server processes shared: %t, the doctor says %v", same, found)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
