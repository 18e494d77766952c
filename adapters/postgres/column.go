package postgres

import (
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq/oid"
)

// column is a one-dimensional array of a statement that writes many rows, in
// PostgreSQL's binary format: four times cheaper to build and to read than the
// text of an array. It prints as a short note, since Watermill formats the
// arguments of each statement for its log.
//
// A statement unnests only the columns whose elements vary in size, and takes
// the others by index: ($1::bigint[])[ord] costs a fifth of another unnest, as
// long as the column has no NULL. In an empty column each element is NULL.
type column struct {
	data  []byte
	n     int32
	nulls bool
}

// columnHead is the size of what comes before the elements: dimensions, a flag
// for NULLs, the elements' type, their number, the first one's index.
const columnHead = 5 * 4

// newColumn makes an array of a type, with room for n elements of size bytes.
func newColumn(element oid.Oid, n, size int) *column {
	c := &column{data: make([]byte, columnHead, columnHead+n*(4+size))}
	binary.BigEndian.PutUint32(c.data[0:], 1)
	binary.BigEndian.PutUint32(c.data[8:], uint32(element))
	binary.BigEndian.PutUint32(c.data[16:], 1)
	return c
}

// reset empties the column for its next statement and keeps its memory.
func (c *column) reset() {
	c.data, c.n, c.nulls = c.data[:columnHead], 0, false
	c.data[7] = 0
}

// BinaryValue gives lib/pq the argument as it is sent.
func (c *column) BinaryValue() ([]byte, error) {
	binary.BigEndian.PutUint32(c.data[12:], uint32(c.n)) //nolint:gosec // a count
	if c.nulls {
		c.data[7] = 1
	}
	return c.data, nil
}

// Value implements driver.Valuer for connections that would send text: they
// are not a relay's.
func (c *column) Value() (driver.Value, error) {
	return nil, fmt.Errorf("%d values for a connection without binary parameters", c.n)
}

// String gives the number of elements.
func (c *column) String() string { return "[" + strconv.Itoa(int(c.n)) + " values]" }

func (c *column) element(size int) {
	c.n++
	c.data = binary.BigEndian.AppendUint32(c.data, uint32(size)) //nolint:gosec // of a value in memory
}

func (c *column) null() {
	c.n++
	c.nulls = true
	c.data = binary.BigEndian.AppendUint32(c.data, 1<<32-1)
}

// fill appends NULLs until the column has n elements.
func (c *column) fill(n int64) {
	for int64(c.n) < n {
		c.null()
	}
}

func (c *column) bigint(v int64) {
	c.element(8)
	c.data = binary.BigEndian.AppendUint64(c.data, uint64(v)) //nolint:gosec // the same bits
}

func (c *column) integer(v int) {
	c.element(4)
	c.data = binary.BigEndian.AppendUint32(c.data, uint32(v)) //nolint:gosec // versions and ordinals
}

// epoch is where PostgreSQL begins to count microseconds.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

func (c *column) time(v time.Time) { c.bigint(microseconds(v)) }

func (c *column) uuid(v uuid.UUID) {
	if v == uuid.Nil {
		c.null()
		return
	}
	c.element(len(v))
	c.data = append(c.data, v[:]...)
}

func (c *column) text(v string) {
	c.element(len(v))
	c.data = append(c.data, v...)
}

func (c *column) bytes(v []byte) {
	if v == nil {
		c.null()
		return
	}
	c.element(len(v))
	c.data = append(c.data, v...)
}

// last gives the last size bytes of the last element, until the next one.
func (c *column) last(size int) []byte { return c.data[len(c.data)-size:] }

// commitShift makes room for the entries of a commit: pos is the commit's
// number shifted by it, plus the ordinal.
const commitShift = 20
