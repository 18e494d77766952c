package outbox

import "strings"

// QueryFew gives the statement with which the tail polls where it has little to
// do, without the mark, and its arguments.
func (t *Tail) QueryFew(position Position, newest uint64) (query string, args []any) {
	r := &reader{config: t.reader.config, position: position, lows: []link{{newest, position.High}}, selectFew: t.reader.selectFew, selectAbove: t.reader.selectAbove}
	r.fetch.started = true // and gave no row
	q := r.SelectQuery(Topic, "", nil)
	return strings.TrimPrefix(q.Query, PreparedMark), q.Args
}

// Query gives the statement with which the tail polls at a position whose link
// was written by the transaction newest, and its arguments.
func (t *Tail) Query(position Position, newest uint64) (query string, args []any) {
	r := &reader{config: t.reader.config, position: position, lows: []link{{newest, position.High}}}
	q := r.SelectQuery(Topic, "", nil)
	return q.Query, q.Args
}

// AwaitAhead waits until what is being read ahead is there. The test must have a
// message that is not acked, or the tail be closed.
func (t *Tail) AwaitAhead() {
	if a := t.reader.ahead; a != nil {
		<-a.done
	}
}

// AheadError is what reading ahead ended with, once AwaitAhead has returned.
func (t *Tail) AheadError() error { return t.reader.ahead.err }
