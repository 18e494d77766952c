package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/lib/pq"
)

// ErrHeld is the error of an uninstall or an adoption that got no lock.
var ErrHeld = errors.New("others use the tables")

// held says who holds locks on tables of the schemas.
func held(ctx context.Context, db *sql.DB, schemas []string) error {
	holders, err := textsOf(ctx, db, `
SELECT DISTINCT format('process %s of user %s%s', a.pid, a.usename, CASE WHEN a.application_name <> '' THEN ' ('||a.application_name||')' END)
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.granted AND l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND n.nspname = ANY ($1::text[]) AND l.pid <> pg_backend_pid() LIMIT 10`, pq.Array(schemas))
	if err != nil {
		return err
	}
	if len(holders) == 0 {
		return ErrHeld
	}
	return fmt.Errorf("%w: %s", ErrHeld, strings.Join(holders, ", "))
}
