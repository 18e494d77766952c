package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

const (
	// answerTimeout is how long a relay waits for more of an answer to a statement
	// that has no deadline. The longest of them take some seconds.
	answerTimeout = 30 * time.Second

	// answerGrace is what a statement gets beyond its deadline: by then it is
	// cancelled, and a server that is there says so.
	answerGrace = time.Second
)

// wireDialer dials for a relay. The driver waits for an answer for as long as
// the network lets it, whatever the statement's context says; and where the
// network drops all and tells nobody, the system gives up after a quarter of an
// hour.
type wireDialer struct{ net.Dialer }

// newWireDialer has the times of the server's side: see sessionSettings.
func newWireDialer() *wireDialer {
	return &wireDialer{net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 2},
		Control:         limitUnacknowledged,
	}}
}

// wireKey is where the context of a dial has the **wire to set.
type wireKey struct{}

// DialContext implements pq.DialerContext. Where no wire is asked for, it is to
// cancel a statement, which waits for that.
func (d *wireDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	place, asked := ctx.Value(wireKey{}).(**wire)
	w := &wire{limit: answerTimeout}
	if !asked {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerGrace)
		defer cancel()
		w.last = time.Now().Add(answerGrace)
	}
	var err error
	if w.Conn, err = d.Dialer.DialContext(ctx, network, address); err != nil {
		return nil, err
	}
	if asked {
		*place = w
	}
	return w, nil
}

// DialTimeout implements pq.Dialer.
func (d *wireDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// wire is the network below a relay's connection. It breaks where an answer
// does not come in time: the connection is not used again, and another one may
// get through. One goroutine uses it at a time, as it does the connection.
type wire struct {
	net.Conn
	limit  time.Duration
	ready  bool      // beyond the start-up, whose deadline is the driver's
	until  time.Time // of the statement under way, zero where it has no deadline
	broken bool
	last   time.Time // after which all is over, zero for a connection that lasts
}

// expect says by its context until when the next statement must be answered.
func (w *wire) expect(ctx context.Context) {
	w.until = time.Time{}
	if deadline, ok := ctx.Deadline(); ok {
		w.until = deadline.Add(answerGrace)
	}
}

// SetDeadline implements net.Conn. The driver takes its deadline back when the
// start-up is over.
func (w *wire) SetDeadline(t time.Time) error {
	if !w.last.IsZero() {
		return w.Conn.SetDeadline(w.last)
	}
	w.ready = t.IsZero()
	return w.Conn.SetDeadline(t)
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.ready {
		if err := w.SetReadDeadline(w.deadline()); err != nil {
			return 0, err
		}
	}
	n, err := w.Conn.Read(p)
	w.judge(err)
	return n, err
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	if w.ready {
		if err := w.SetWriteDeadline(w.deadline()); err != nil {
			return 0, err
		}
	}
	n, err := w.Conn.Write(p)
	w.judge(err)
	return n, err
}

func (w *wire) deadline() time.Time {
	if w.until.IsZero() {
		return time.Now().Add(w.limit)
	}
	return w.until
}

// judge breaks the connection where the time is over: what comes late would be
// taken for the answer to the next statement.
func (w *wire) judge(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.broken = true
		_ = w.Close()
	}
}
