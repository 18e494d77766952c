package httpsend

import (
	"bufio"
	"context"
	"errors"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// conn is a connection that speaks HTTP/1.1, for one POST at a time.
type conn struct {
	net.Conn // TLS, where the host has it
	tcp      *net.TCPConn
	host     *host
	ip       string
	http2    bool  // the host chose HTTP/2; then the transport gets it
	used     bool  // by a POST before
	limit    int   // how many bytes may still be read
	broken   error // why no more can be read
	expires  time.Time
	body     counted // of a plain response

	done   <-chan struct{} // of the context whose end is the connection's
	undone func() bool

	socket syscall.RawConn
	quiet  bool // what peek found
	peek   func(fd uintptr) bool

	newer, older *conn // in the pool
}

// errLongHeader says that a response's header is over its limit.
var errLongHeader = errors.New("the response's header is too long")

// Read bounds what is read of a connection.
func (c *conn) Read(b []byte) (int, error) {
	if c.limit <= 0 {
		c.broken = errLongHeader
		return 0, c.broken
	}
	n, err := c.Conn.Read(b[:min(len(b), c.limit)])
	c.limit -= n
	c.broken = err
	return n, err
}

// abort closes without a farewell: TLS would wait for room to send one.
func (c *conn) abort() {
	c.forget()
	_ = c.tcp.Close()
}

// Close closes a connection that waits.
func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// past is a deadline that interrupts.
var past = time.Unix(1, 0)

// heed makes ctx's end the connection's, beyond the POST that asks for it: most
// come with the same ctx. It is false where an earlier one has ended it.
func (c *conn) heed(ctx context.Context) bool {
	if ctx.Done() == c.done {
		return true
	}
	if !c.forget() {
		return false
	}
	c.done, c.undone = ctx.Done(), context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	return true
}

// forget lets go of the context. It is false where that has ended.
func (c *conn) forget() bool {
	if c.done == nil {
		return true
	}
	c.done = nil
	return c.undone()
}

// readers are buffers for connections in use; those that wait need none. Most
// headers fit in, and hundreds of connections have one at a time.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 2<<10) }}

// http1 makes a POST on a connection that speaks HTTP/1.1, and hands it on
// where the host chooses HTTP/2.
func (s *Sender) http1(ctx context.Context, p *post) domain.Outcome {
	if p.target.host.http2.Load() {
		return s.http2(ctx, p, nil)
	}
	for ctx.Err() == nil {
		c := s.pool.get(p.target.host)
		if c == nil {
			break
		}
		// The deadline comes before the look at the socket: one that has passed
		// would answer for it.
		if !c.heed(ctx) || c.SetDeadline(p.deadline) != nil || !c.alive() {
			c.abort()
			continue
		}
		if outcome, sent := s.exchange(ctx, p, c); sent {
			return outcome
		}
	}
	c, failure := s.dial(ctx, p)
	if failure != nil {
		return failed(failure)
	}
	if c.http2 {
		p.target.host.http2.Store(true)
		return s.http2(ctx, p, c)
	}
	c.heed(ctx)
	_ = c.SetDeadline(p.deadline)
	outcome, _ := s.exchange(ctx, p, c)
	return outcome
}

func (s *Sender) dial(ctx context.Context, p *post) (*conn, *failure) {
	ctx, cancel := context.WithDeadline(ctx, p.deadline)
	defer cancel()
	return s.dialer.dial(ctx, p)
}

// exchange sends the request and reads the response, then puts the connection
// back or closes it. sent is false where a connection that was used before
// took no byte: only then may the POST be made on another one, for what was
// written may have been acted upon.
func (s *Sender) exchange(ctx context.Context, p *post, c *conn) (outcome domain.Outcome, sent bool) {
	if ctx.Err() != nil {
		_ = c.SetDeadline(past) // the POST's own may have come after ctx's end
	}
	n, err := c.Write(p.request)
	if err != nil && n == 0 && c.used && !timedOut(err) {
		c.abort()
		return domain.Outcome{}, false
	}
	written := func() bool { return err == nil }
	if err == nil && len(p.body) > shortBody {
		written = c.writeOn(p)
	}
	// There may be an answer although writing failed.
	reader, _ := readers.Get().(*bufio.Reader)
	reader.Reset(c)
	outcome, again := s.receive(ctx, p, c, reader)
	again = again && reader.Buffered() == 0
	reader.Reset(nil)
	readers.Put(reader)
	if !again {
		c.abort() // ends a write as well
	}
	again = written() && again
	if ctx.Err() != nil || !again {
		c.abort()
		return outcome, true
	}
	c.used = true
	s.pool.put(c)
	return outcome, true
}

// writeGrace is how long a request may go on being written after its answer.
const writeGrace = 50 * time.Millisecond

// writeOn sends a long body while the answer is awaited: it may come before the
// body is sent, and instead. The function it returns waits for the end and
// tells whether all was written.
func (c *conn) writeOn(p *post) func() bool {
	done := make(chan bool, 1)
	go func() {
		_, err := c.Write(p.body)
		done <- err == nil
	}()
	return func() bool {
		if end := time.Now().Add(writeGrace); end.Before(p.deadline) {
			_ = c.SetWriteDeadline(end)
		}
		return <-done
	}
}

// receive reads the response and says whether the connection can be used again.
func (s *Sender) receive(ctx context.Context, p *post, c *conn, reader *bufio.Reader) (outcome domain.Outcome, again bool) {
	c.limit = maxHeader
	response, err := readHeader(reader, &c.body)
	if err != nil {
		if c.broken != nil { // the parser takes half a line for a bad one
			err = c.broken
		}
		return failed(p.ended(ctx, err, "no answer", unanswered(err, c.ip))), false
	}
	c.limit = math.MaxInt
	// The body is not closed: that would read an endless one to its end.
	outcome, whole := s.answered(ctx, p, response, c.ip)
	keep := min(idleTimeout, keepAlive(response.keepAlive))
	c.expires = time.Now().Add(keep)
	return outcome, whole && !response.close && keep > 0
}

// unanswered is the failure of a request without a readable answer.
func unanswered(err error, ip string) failure {
	var network net.Error
	switch text := words(err); {
	case errors.Is(err, errLongHeader):
		return failure{domain.ErrorStatus, "the response's header is longer than " + strconv.Itoa(maxHeader>>10) + " KiB", ip}
	case tlsFault(err): // TLS 1.3 refuses a client only after its first words
		return failure{domain.ErrorTLS, err.Error(), ip}
	case text != "":
		return failure{domain.ErrorReset, "the connection broke before an answer came: " + text, ip}
	case errors.As(err, &network):
		return failure{domain.ErrorReset, "the connection broke before an answer came", ip}
	}
	return failure{domain.ErrorStatus, "the answer is not HTTP", ip}
}

// keepAlive reads how long the receiver keeps an idle connection (RFC 2068,
// section 19.7.1.1), less a margin, for a POST that meets its end is lost.
// Node.js says 5 s unless told otherwise.
func keepAlive(value string) time.Duration {
	for parameter := range strings.SplitSeq(value, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(name, "timeout") {
			continue
		}
		if seconds, err := strconv.ParseUint(number, 10, 31); err == nil {
			timeout := time.Duration(seconds) * time.Second
			return timeout - min(time.Second, timeout/2)
		}
	}
	return idleTimeout
}
