package postgres

import (
	"database/sql/driver"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// array builds the literal of a one-dimensional PostgreSQL array. It is its
// own driver value, and prints as a short note: Watermill formats the
// arguments of each statement for its log.
type array struct {
	text []byte
	n    int
}

func newArray(capacity int) *array {
	return &array{text: append(make([]byte, 0, capacity), '{')}
}

// Value implements driver.Valuer.
func (a *array) Value() (driver.Value, error) { return string(a.text) + "}", nil }

// String gives the number of elements.
func (a *array) String() string { return "[" + strconv.Itoa(a.n) + " values]" }

func (a *array) next() {
	if a.n > 0 {
		a.text = append(a.text, ',')
	}
	a.n++
}

func (a *array) null() {
	a.next()
	a.text = append(a.text, "NULL"...)
}

func (a *array) integer(v int64) {
	a.next()
	a.text = strconv.AppendInt(a.text, v, 10)
}

func (a *array) uuid(v uuid.UUID) {
	if v == uuid.Nil {
		a.null()
		return
	}
	a.next()
	a.text = hex.AppendEncode(a.text, v[:]) // PostgreSQL takes it without hyphens
}

func (a *array) time(v time.Time) {
	a.next()
	a.text = append(a.text, '"')
	a.text = v.UTC().AppendFormat(a.text, "2006-01-02 15:04:05.999999Z")
	a.text = append(a.text, '"')
}

// text appends a quoted element; an empty one where null is set is NULL.
func (a *array) string(v []byte) {
	a.next()
	a.text = append(a.text, '"')
	for _, c := range v {
		if c == '"' || c == '\\' {
			a.text = append(a.text, '\\')
		}
		a.text = append(a.text, c)
	}
	a.text = append(a.text, '"')
}

func (a *array) bytes(v []byte) {
	if v == nil {
		a.null()
		return
	}
	a.next()
	a.text = append(a.text, `"\\x`...)
	a.text = hex.AppendEncode(a.text, v)
	a.text = append(a.text, '"')
}

// entries are columns of rows for relay.log.
type entries struct {
	seq, webhook, replay, account, version, at, kind, data, event, delivery, salt, excerpt *array
}

func newEntries(n int) *entries {
	return &entries{
		seq: newArray(12 * n), webhook: newArray(8 * n), replay: newArray(4 * n), account: newArray(8 * n), version: newArray(4 * n),
		at: newArray(32 * n), kind: newArray(20 * n), data: newArray(200 * n), event: newArray(34 * n), delivery: newArray(34 * n),
		salt: newArray(20 * n), excerpt: newArray(16 * n),
	}
}

func (e *entries) args() []any {
	return []any{e.seq, e.webhook, e.replay, e.account, e.version, e.at, e.kind, e.data, e.event, e.delivery, e.salt, e.excerpt}
}

// entryColumns unnests the arguments of entries, from parameter $1 on, with
// the ordinal that an entry has in its commit.
const entryColumns = `unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::timestamptz[], $7::text[], $8::text[],
       $9::uuid[], $10::uuid[], $11::bytea[], $12::text[])
       WITH ORDINALITY AS e (event_seq, webhook_id, replay_id, account_id, version, at, type, data, event_id, delivery_id, salt, excerpt, ord)`

// commitShift makes room for the entries of a commit: pos is the commit's
// number shifted by it, plus the ordinal.
const commitShift = 20
