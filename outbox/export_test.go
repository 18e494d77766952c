package outbox

// Query gives the statement with which the tail polls at a position whose link
// was written by the transaction newest, and its arguments.
func (t *Tail) Query(position Position, newest uint64) (query string, args []any) {
	r := &reader{config: t.reader.config, position: position, lows: []link{{newest, position.High}}}
	q := r.SelectQuery(Topic, "", nil)
	return q.Query, q.Args
}
