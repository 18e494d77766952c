package outbox

import (
	"context"
	"database/sql/driver"
)

// Witness sees of the tail's transactions what Watermill does not tell: with what
// a batch's statement answered, and that the commit came through. It is in the
// context with which a transaction begins; a driver that does not look for it
// there costs the tail a query for each batch.
type Witness struct {
	answer    []driver.Value
	committed bool
}

type witnessKey struct{}

// WitnessOf gives the witness of the transaction that begins with ctx, nil where
// there is none.
func WitnessOf(ctx context.Context) *Witness {
	w, _ := ctx.Value(witnessKey{}).(*Witness)
	return w
}

// Answered takes the row with which a statement answered that is run for its
// effect. It keeps the slice.
func (w *Witness) Answered(row []driver.Value) { w.answer = row }

// Committed says that the transaction is committed, and the server said so.
func (w *Witness) Committed() { w.committed = true }

// batch gives the numbers of the group commit and of the transaction that wrote a
// batch, where it is known to be committed.
func (w *Witness) batch() (commit int64, xid uint64, seen bool) {
	if !w.committed || len(w.answer) != 2 {
		return 0, 0, false
	}
	commit, ok := w.answer[0].(int64)
	number, too := w.answer[1].(int64)
	return commit, uint64(number), ok && too && number > 0 //nolint:gosec // it is a positive one
}
