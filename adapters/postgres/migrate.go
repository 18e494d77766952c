package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/migrations"
)

// migratePatience is how long migrations try to get their locks. migratePause is
// the time between two tries, in which those who waited behind one go on, and
// migrateLook that between two looks who is in the way: only while a lock is
// waited for does PostgreSQL know.
const (
	migratePatience = 10 * time.Minute
	migratePause    = time.Second
	migrateLook     = 200 * time.Millisecond
)

// Migrate runs up, which is migrations.Up, until it has got its locks: each try
// waits for one no longer than migrations.LockTimeout, and what it did not apply
// is undone. waits hears after each try who is in the way. ErrHeld says that they
// did not end in time.
func Migrate(ctx context.Context, db *sql.DB, up func(context.Context, *sql.DB) error, waits func(error)) error {
	for deadline := time.Now().Add(migratePatience); ; {
		holders, err := tryUp(ctx, db, up)
		if !isLockTimeout(err) {
			return err
		}
		inTheWay := ErrHeld
		if len(holders) > 0 {
			inTheWay = fmt.Errorf("%w: %s", ErrHeld, strings.Join(holders, "; "))
		}
		if time.Now().After(deadline) {
			return inTheWay
		}
		waits(inTheWay)
		select {
		case <-time.After(migratePause):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// tryUp runs up once, and says whom it waited for last.
func tryUp(ctx context.Context, db *sql.DB, up func(context.Context, *sql.DB) error) (holders []string, err error) {
	looking, looked := context.WithCancel(ctx)
	var looks sync.WaitGroup
	looks.Go(func() {
		for {
			select {
			case <-time.After(migrateLook):
			case <-looking.Done():
				return
			}
			// Where it cannot be told, the migration goes on all the same.
			if found, err := migrations.Waits(looking, db); err == nil && len(found) > 0 {
				holders = found
			}
		}
	})
	err = up(ctx, db)
	looked()
	looks.Wait()
	slices.Sort(holders)
	return holders, err
}
