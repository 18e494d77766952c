package postgres

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// GapRecord is a row of audit.gaps.
type GapRecord struct {
	Seq        int64
	AccountID  domain.AccountID
	EventID    uuid.UUID
	Event      string
	InsertedAt time.Time
}

// GapSearch is how far a search for gaps came.
type GapSearch struct {
	// Highest and Lowest are the places between which was looked; both are 0
	// where nothing has been routed.
	Highest, Lowest int64
	// Whole says that there is nothing below Lowest.
	Whole bool
}

// gapStep is how many places one statement looks at.
const gapStep = 50_000

// newestDecided is the newest place at or below one that has a decision. It is
// asked for where rows are far apart, so that the places between are not looked
// at step by step.
const newestDecided = `SELECT seq FROM audit.events WHERE seq <= $1 AND routed_at IS NOT NULL ORDER BY seq DESC LIMIT 1`

const gapsQuery = `
SELECT seq, account_id, coalesce(event_id, '00000000-0000-0000-0000-000000000000')::text, event, inserted_at
  FROM audit.gaps WHERE seq > $1 AND seq <= $2 ORDER BY seq DESC`

// Gaps calls found with what is committed and was never routed, newest first.
// It looks at the given number of places, from the position down; 0 is all.
func (a *Audit) Gaps(ctx context.Context, account domain.AccountID, look int64, found func(GapRecord) error) (GapSearch, error) {
	var s GapSearch
	from := int64(math.MaxInt64)
	for looked := int64(0); look == 0 || looked < look; {
		var decided int64
		switch err := a.db.QueryRowContext(ctx, newestDecided, from).Scan(&decided); {
		case errors.Is(err, sql.ErrNoRows):
			decided = 0
		case err != nil:
			return s, err
		}
		step := int64(gapStep)
		if look > 0 {
			step = min(step, look-looked)
		}
		to := max(decided-step, 0)
		if s.Highest == 0 {
			s.Highest = decided
		}
		gaps, err := list(ctx, a.db, func(row scanner) (g GapRecord, err error) {
			err = row.Scan(&g.Seq, &g.AccountID, &g.EventID, &g.Event, &g.InsertedAt)
			g.InsertedAt = g.InsertedAt.UTC()
			return g, err
		}, gapsQuery, to, from)
		if err != nil {
			return s, err
		}
		for _, g := range gaps {
			if account != 0 && g.AccountID != account {
				continue
			}
			if err := found(g); err != nil {
				return s, err
			}
		}
		s.Lowest = to + 1
		if to == 0 {
			s.Whole = true
			return s, nil
		}
		from, looked = to, looked+step
	}
	return s, nil
}
