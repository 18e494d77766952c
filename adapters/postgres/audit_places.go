package postgres

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain/audit"
)

// places are bounds in the outbox: above < seq <= upTo.
type places struct {
	above, upTo int64
	// replays may have scheduled deliveries of older events in the same time.
	replays []int64
}

const placesQuery = `SELECT r.above, r.up_to, coalesce(r.replays, '{}') FROM audit.seq_range($1::timestamptz, $2::timestamptz) r`

// places bounds what was routed in a range of time; zero times are no bound.
func (a *Audit) places(ctx context.Context, since, until time.Time) (places, error) {
	p := places{upTo: math.MaxInt64}
	if since.IsZero() && until.IsZero() {
		return p, nil
	}
	err := a.db.QueryRowContext(ctx, placesQuery, boundary(since), boundary(until)).Scan(&p.above, &p.upTo, pq.Array(&p.replays))
	return p, err
}

// boundary is a time, NULL where there is none.
func boundary(at time.Time) sql.NullTime { return sql.NullTime{Time: at.UTC(), Valid: !at.IsZero()} }

// bound adds the bounds to a query, where there are any.
func (p *places) bound(c *conditions, column string) {
	if p.above > 0 {
		c.add(column+" > ?", p.above)
	}
	if p.upTo < math.MaxInt64 {
		c.add(column+" <= ?", p.upTo)
	}
}

// Span gives the places in the outbox between which a list of a filter lies, as
// far as its range of time tells: above < seq <= upTo. It is 0 and 0 where
// there is nothing.
func (a *Audit) Span(ctx context.Context, f audit.Filter) (above, upTo int64, err error) {
	p, err := a.places(ctx, f.Since, f.Until)
	if err != nil {
		return 0, 0, err
	}
	err = a.db.QueryRowContext(ctx, `
SELECT coalesce((SELECT seq - 1 FROM audit.events ORDER BY seq LIMIT 1), 0), coalesce((SELECT seq FROM audit.events ORDER BY seq DESC LIMIT 1), 0)`).Scan(&above, &upTo)
	return max(above, p.above), min(upTo, p.upTo), err
}
