package postgres

import "context"

// horizon tells up to where numbers are settled that are drawn before what
// bears them is committed: those of group commits, or times.
//
// Who draws a number has a transaction id by then. So of the numbers up to a
// mark, all are of transactions below an id that is drawn after it, and once
// none of those is under way, what is visible up to the mark is all there will
// ever be. (The end of a snapshot would not do for such an id: it is one past
// the last *completed* transaction, and those above may have drawn numbers.)
type horizon struct {
	settled int64
	mark    int64
	xid     uint64 // 0: no mark
}

// look is what a look at the database begins with: in a snapshot that is taken
// later, all transactions below xmin are over.
type look struct {
	xmin uint64
	now  int64 // the newest number drawn
}

// idle tells that nothing can have come since.
func (h *horizon) idle(l look) bool { return h.xid == 0 && l.now == h.settled }

// seen moves the horizon after all above settled was read. It tells whether
// settled moved.
func (h *horizon) seen(ctx context.Context, a *Audit, l look) (moved bool, err error) {
	if h.xid > 0 && l.xmin > h.xid {
		h.settled, h.xid, moved = h.mark, 0, true
	}
	if h.xid == 0 && l.now > h.settled {
		h.mark = l.now
		h.xid, err = a.drawXID(ctx)
	}
	return moved, err
}

func (a *Audit) drawXID(ctx context.Context) (xid uint64, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT pg_current_xact_id()::text::numeric`).Scan(&xid)
	return xid, err
}

func (a *Audit) look(ctx context.Context) (l look, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::numeric, h.commit FROM audit.head() h`).Scan(&l.xmin, &l.now)
	return l, err
}

// commitsBefore is how many group commits before the beginning are looked at
// for each chain of seals, for those that are not visible yet: each chain has
// one writer, which commits one after the other.
const commitsBefore = 500

// logReader reads entries of the log that become visible, by their numbers.
type logReader struct {
	audit *Audit
	horizon
	known map[int64]bool // numbers of entries above settled
	// read gives entries above a number, with their own.
	read func(ctx context.Context, above int64) ([]logEntry, error)
}

type logEntry struct {
	pos      int64
	delivery string
	attempt  int
}

// begin knows what is there already.
func (r *logReader) begin(ctx context.Context) error {
	l, err := r.audit.look(ctx)
	if err != nil {
		return err
	}
	var chains int64
	if err := r.audit.db.QueryRowContext(ctx, `SELECT count(*) FROM audit.seals WHERE no = 0`).Scan(&chains); err != nil {
		return err
	}
	r.known = map[int64]bool{}
	r.settled = max(0, l.now-commitsBefore*chains)
	if _, err := r.fresh(ctx, l); err != nil {
		return err
	}
	return nil
}

// next gives what is new.
func (r *logReader) next(ctx context.Context) (found []logEntry, idle bool, err error) {
	l, err := r.audit.look(ctx)
	if err != nil {
		return nil, false, err
	}
	if r.idle(l) {
		return nil, true, nil
	}
	found, err = r.fresh(ctx, l)
	return found, false, err
}

func (r *logReader) fresh(ctx context.Context, l look) ([]logEntry, error) {
	entries, err := r.read(ctx, (r.settled+1)<<commitShift-1)
	if err != nil {
		return nil, err
	}
	moved, err := r.seen(ctx, r.audit, l)
	if err != nil {
		return nil, err
	}
	var found []logEntry
	for _, e := range entries {
		if !r.known[e.pos] {
			r.known[e.pos] = true
			found = append(found, e)
		}
	}
	if moved {
		for pos := range r.known {
			if pos>>commitShift <= r.settled {
				delete(r.known, pos)
			}
		}
	}
	return found, nil
}
