package outbox

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is how far the tail has come: one link of the chain.
//
// A window is what its target snapshot sees and its predecessor's did not. Its
// rows are read in the order of their sequence numbers, batch by batch; while
// rows remain, the window stays open with Cursor at the last one read. When it
// closes, its target becomes Consumed.
//
// Floor bounds the scan for rows of new transactions from below. It must not
// be the highest sequence number delivered so far: a snapshot's xmax is one
// past the last *completed* transaction, so a transaction at or above it may
// have drawn its number before the snapshot was taken. Floor is the highest
// number delivered before the batch that opened the window which became
// Consumed. Every delivered row was visible before that batch's transaction W
// got its id; a transaction after W draws its number later, since a row's xid
// is assigned before its seq is drawn; and W, completed before the next window
// opens, lies below that window's xmax.
//
// Bound takes the place of all that after an adoption: the database was
// restored elsewhere, upgraded or cloned, and its rows tell transactions of
// another server. Those numbers mean nothing here, and some come alive when
// this server's counter reaches them. The adoption's link was written while no
// transaction had a row in the outbox that was not committed, and none could
// insert; Bound is the highest sequence number drawn until then, Target the
// snapshot. So every row at or below Bound is committed, and is due if it has no
// decision; every row above belongs to a transaction of this server that
// Target does not see. While Bound is set, the rows in (Cursor, Bound] without
// a decision are read, whatever their transaction. Then Target becomes
// Consumed, and Floor, High and Low become Bound: no window looks below it
// again.
type Position struct {
	// No is the batch's number, without gaps.
	No int64
	// Consumed is the snapshot up to which all is delivered.
	Consumed Snapshot
	// Target is the open window's snapshot, nil where none is open.
	Target *Snapshot
	// Cursor is the last row delivered of the open window.
	Cursor int64
	// Floor and WindowFloor: see above; WindowFloor is the open window's.
	Floor, WindowFloor int64
	// High is the highest sequence number delivered so far.
	High int64
	// Low bounds the scan for stragglers, rows of transactions that were under
	// way in Consumed: the High of the newest batch whose transaction came
	// before all of them.
	Low int64
	// Bound is set while what an adoption found is routed, else 0.
	Bound int64
}

// open gives the position with a window open: the present one, or a new one
// on the given snapshot.
func (p Position) open(now Snapshot) Position {
	if p.Target == nil {
		p.Target, p.Cursor, p.WindowFloor = &now, 0, p.High
	}
	return p
}

// advance moves an open window behind the rows delivered, up to last. complete
// says that the window has no further row. lowFor gives Low for a snapshot.
func (p Position) advance(last, highest int64, complete bool, lowFor func(Snapshot) int64) Position {
	p.No++
	p.High = max(p.High, highest)
	if complete {
		return p.close(lowFor)
	}
	p.Cursor = last
	return p
}

// close makes the open window's target the consumed snapshot.
func (p Position) close(lowFor func(Snapshot) int64) Position {
	p.Consumed, p.Floor, p.Cursor, p.Target = *p.Target, p.WindowFloor, 0, nil
	p.Low = max(lowFor(p.Consumed), p.Bound)
	p.High = max(p.High, p.Bound)
	p.Bound = 0
	return p
}

// Snapshot is a pg_snapshot: which transactions were completed at a moment.
type Snapshot struct {
	Xmin, Xmax uint64
	// InProgress lists the transactions of [Xmin, Xmax) that were not.
	InProgress []uint64
}

// ParseSnapshot reads PostgreSQL's text form, xmin:xmax:xip,xip,…
func ParseSnapshot(text string) (Snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return Snapshot{}, fmt.Errorf("%q is not a snapshot", text)
	}
	var s Snapshot
	var err1, err2 error
	s.Xmin, err1 = strconv.ParseUint(parts[0], 10, 64)
	s.Xmax, err2 = strconv.ParseUint(parts[1], 10, 64)
	if err1 != nil || err2 != nil {
		return Snapshot{}, fmt.Errorf("%q is not a snapshot", text)
	}
	if parts[2] != "" {
		for xip := range strings.SplitSeq(parts[2], ",") {
			xid, err := strconv.ParseUint(xip, 10, 64)
			if err != nil {
				return Snapshot{}, fmt.Errorf("%q is not a snapshot", text)
			}
			s.InProgress = append(s.InProgress, xid)
		}
	}
	return s, nil
}

// String gives PostgreSQL's text form.
func (s Snapshot) String() string {
	text := make([]byte, 0, 32+12*len(s.InProgress))
	text = strconv.AppendUint(text, s.Xmin, 10)
	text = append(text, ':')
	text = strconv.AppendUint(text, s.Xmax, 10)
	text = append(text, ':')
	return string(s.appendInProgress(text))
}

// array gives the transactions in progress as a literal of an xid8 array.
func (s Snapshot) array() string {
	return string(append(s.appendInProgress([]byte{'{'}), '}'))
}

func (s Snapshot) appendInProgress(text []byte) []byte {
	for i, xid := range s.InProgress {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendUint(text, xid, 10)
	}
	return text
}
