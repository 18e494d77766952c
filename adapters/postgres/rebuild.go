package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// ErrRebuilding says that another rebuild is at work on the database.
var ErrRebuilding = errors.New("another rebuild is at work on this database")

// Rebuild folds the projections again from the log, while relays are at work,
// and compares what it gets with what is there: the statistics of webhooks,
// relay.webhooks and relay.accounts, and the due table, which it only compares,
// for a relay owns it.
type Rebuild struct {
	DB *sql.DB
	// Check compares and changes nothing that is compared.
	Check bool
	// Progress hears from time to time how far it is; nil for nobody.
	Progress func(RebuildProgress)
	// Now is the clock, by which hours are told from slots.
	Now func() time.Time
}

// RebuildProgress is how far the log is read: up to a chat event of the last.
type RebuildProgress struct{ Seq, LastSeq, Entries int64 }

// Rebuilt is what became of one projection.
type Rebuilt struct {
	Projection string
	// Rows are how many there are now.
	Rows int64
	// Differences are how many rows were not as the log has it, Mended how many
	// of them are now.
	Differences, Mended int64
	// Examples tell of some of the differences.
	Examples []string
}

// maxExamples bounds what a projection tells of its differences.
const maxExamples = 10

func (r *Rebuilt) differs(mended bool, format string, args ...any) {
	r.Differences++
	if mended {
		r.Mended++
	}
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// Run folds and compares, and says what became of each projection. Entries of
// the log that cannot be read are left out, and told of as differences of one
// named log.
func (r *Rebuild) Run(ctx context.Context) ([]Rebuilt, error) {
	conn, err := r.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	// The lock is the session's: it ends with the process, whatever becomes of it.
	unlock, err := lockMerges(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f := &folding{conn: conn, now: r.Now().UTC(), progress: r.Progress, standings: map[domain.WebhookID]*foldedStanding{}}
	if err := f.begin(ctx); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	if err := f.fold(ctx); err != nil {
		return nil, fmt.Errorf("fold the log: %w", err)
	}
	statistics, standings, err := f.compare(ctx, !r.Check)
	if err != nil {
		return nil, fmt.Errorf("compare the statistics: %w", err)
	}
	if !r.Check {
		if err := f.swap(ctx); err != nil {
			return nil, fmt.Errorf("put the statistics in place: %w", err)
		}
	}
	if err := f.forget(ctx); err != nil {
		return nil, err
	}
	due, err := f.compareDue(ctx)
	if err != nil {
		return nil, fmt.Errorf("compare the due table: %w", err)
	}
	webhooks, accounts, err := rebuildWebhooks(ctx, r.DB, r.Check)
	if err != nil {
		return nil, fmt.Errorf("fold the webhooks' history: %w", err)
	}
	rebuilt := []Rebuilt{statistics, standings, webhooks, accounts, due}
	if f.unreadable.Differences > 0 {
		f.unreadable.Projection, f.unreadable.Rows = "log", f.entries
		rebuilt = append(rebuilt, f.unreadable)
	}
	return rebuilt, nil
}

// lockMerges keeps rows from being merged, and other rebuilds out. A merge is
// over in a moment.
func lockMerges(ctx context.Context, conn *sql.Conn) (unlock func(), err error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		var held bool
		if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(`+mergeLock+`)`).Scan(&held); err != nil {
			return nil, err
		}
		if held {
			return func() {
				_, _ = conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(`+mergeLock+`)`)
			}, nil
		}
		if time.Now().After(deadline) {
			return nil, ErrRebuilding
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
