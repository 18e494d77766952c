package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/outbox"
)

// A network that swallows everything ends no statement late.
func TestAStatementIsOverSoonAfterItsContext(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	freezer := newFreezer(t, db.Server)
	dsn := with(t, db.DSN, func(u *url.URL) { u.Host = freezer.Addr().String() })
	pool, err := postgres.OpenRelay(dsn, "test", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	ask := func(ctx context.Context, conn *sql.Conn, text string) error {
		var one int
		return conn.QueryRowContext(ctx, text).Scan(&one)
	}
	conns := map[string]*sql.Conn{}
	for _, text := range []string{`SELECT 1`, outbox.PreparedMark + `SELECT 1`} {
		conn, err := pool.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := ask(t.Context(), conn, text); err != nil {
			t.Fatal(err)
		}
		conns[text] = conn
	}
	close(freezer.frozen)
	for text, conn := range conns {
		ended := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			ended <- ask(ctx, conn, text)
		}()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s: an answer came", text)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: a frozen network keeps the statement", text)
		}
	}
}

// What has no context that ends has a limit too. What came late must not be
// taken for the answer to the next statement.
func TestAWireBreaksWhereNothingComes(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	w := postgres.NewWire(near, 50*time.Millisecond)
	if err := w.SetDeadline(time.Time{}); err != nil { // as the driver does behind the start-up
		t.Fatal(err)
	}
	var buffer [1]byte
	if _, err := w.Read(buffer[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read gave %v", err)
	}
	if n, err := w.Read(buffer[:]); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after it gave %d bytes, %v", n, err)
	}
	if _, err := far.Write(buffer[:]); err == nil {
		t.Error("the other side is not told")
	}
}
