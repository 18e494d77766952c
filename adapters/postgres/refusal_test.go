package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// TestRefusals of the functions in the database: each says why, in words for
// whoever asked.
func TestRefusals(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	hook := change(t, postgres.NewWebhooks(db.SQL), 1, 0, register(t, "https://example.com/a"))
	change(t, postgres.NewWebhooks(db.SQL), 1, hook.ID, domain.PauseWebhook{})
	for _, test := range []struct {
		statement, problem string
		want               domain.Refusal
	}{
		{`SELECT relay.plan_replay()`, "nothing is selected", domain.RefusedInvalid},
		{`SELECT relay.plan_replay(since => now(), until => now() - interval '1 hour')`, "the range is empty: since ", domain.RefusedInvalid}, // without a hint
		{`SELECT relay.plan_replay(since => now() - interval '1 hour')`, "no delivery is selected", domain.RefusedMissing},
		{`SELECT relay.pause_replay(17)`, "there is no replay 17", domain.RefusedMissing},
		{fmt.Sprintf(`SELECT relay.request_webhook_test(%d)`, hook.ID), "is paused: nothing is sent to it", domain.RefusedState},
		{`SELECT NULL::text[] || 1`, "", domain.RefusedNot},
		{`SELECT * FROM relay.nothing`, "", domain.RefusedNot},
	} {
		_, err := db.SQL.ExecContext(t.Context(), test.statement)
		e, _ := errors.AsType[*postgres.Error](postgres.Explain(fmt.Errorf("ask: %w", err)))
		switch {
		case test.want == domain.RefusedNot:
			if e != nil && (e.Refusal() != domain.RefusedNot || e.Away()) {
				t.Errorf("%s: %v is taken for a refusal", test.statement, err)
			}
		case e == nil:
			t.Errorf("%s: %v is not explained", test.statement, err)
		case e.Refusal() != test.want || e.Away():
			t.Errorf("%s: %v is %q, away %t; want %q", test.statement, err, e.Refusal(), e.Away(), test.want)
		case !strings.Contains(e.Problem, test.problem):
			t.Errorf("%s: the problem is %q", test.statement, e.Problem)
		}
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		&pq.Error{Code: pqerror.TooManyConnections}, &pq.Error{Code: pqerror.CannotConnectNow}, &pq.Error{Code: pqerror.AdminShutdown},
		&pq.Error{Code: pqerror.ReadOnlySQLTransaction}, &pq.Error{Code: pqerror.DiskFull}, &pq.Error{Code: pqerror.LockNotAvailable},
		&pq.Error{Code: pqerror.QueryCanceled}, &pq.Error{Code: "40001"}, &pq.Error{Code: "40P01"},
		postgres.ErrStandby, net.ErrClosed, context.DeadlineExceeded, syscall.ECONNREFUSED,
		&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, &net.DNSError{Name: "db", IsNotFound: true},
	} {
		e, ok := errors.AsType[*postgres.Error](postgres.Explain(fmt.Errorf("ask: %w", err)))
		if !ok || !e.Away() || e.Refusal() != domain.RefusedNot {
			t.Errorf("%v (%T) is not away", err, err)
		}
	}
	for _, err := range []error{
		&pq.Error{Code: pqerror.InsufficientPrivilege, Message: "permission denied for schema relay"}, postgres.ErrNotMigrated,
		&pq.Error{Code: pqerror.UndefinedTable, Message: `relation "relay.nothing" does not exist`}, postgres.ErrUnsafe,
	} {
		e, ok := errors.AsType[*postgres.Error](postgres.Explain(err))
		if !ok || e.Away() {
			t.Errorf("%v is taken for away", err)
		}
	}
	if _, explained := errors.AsType[*postgres.Error](postgres.Explain(sql.ErrNoRows)); explained {
		t.Error("no rows are explained")
	}
}
