package httpsend

import (
	"bufio"
	"context"
	"io"
	"net"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// KeptBody is the most that an excerpt may have, in bytes.
const KeptBody = keptBody

// Clean gives the excerpt of a response body.
func Clean(body []byte) string { return clean(body, keptBody) }

// RetryAfter reads the header of that name.
func RetryAfter(value string, now time.Time) time.Duration { return retryAfter(value, now) }

// MaxRetryAfter is the most that it gives.
const MaxRetryAfter = maxRetryAfter

// ValidTraceparent checks the header of that name.
func ValidTraceparent(value string) bool { return validTraceparent(value) }

// HeaderAppender gives what builds and signs the header of a request.
func HeaderAppender(request relay.Request) (func(b []byte, now time.Time) []byte, error) {
	t, _, err := newTarget(targetKey{request.Webhook.Settings.URL, request.Webhook.Credential, request.Webhook.Secret, request.Webhook.PreviousSecret, request.Webhook.Headers}, "Outrider/dev")
	return func(b []byte, now time.Time) []byte { return t.appendHeader(b, &request, now) }, err
}

// Finder gives what works out a webhook's target, and remembers it.
func Finder() func(w *domain.Webhook) error {
	ts := &targets{userAgent: "Outrider/dev"}
	return func(w *domain.Webhook) error {
		_, err := ts.find(w)
		return err
	}
}

// IdleTimeout is how long a connection waits at most.
const IdleTimeout = idleTimeout

// KeepAlive reads the header of that name.
func KeepAlive(value string) time.Duration { return keepAlive(value) }

// readOnly is a connection that has only what is read of it.
type readOnly struct {
	net.Conn
	from io.Reader
}

func (c readOnly) Read(b []byte) (int, error) { return c.from.Read(b) }

// Receive takes a response, and says whether its connection can be used again
// where nothing is left that was read of it.
func Receive(ctx context.Context, from io.Reader, now time.Time) (outcome domain.Outcome, again bool, left int) {
	s := &Sender{config: Config{Now: func() time.Time { return now }}}
	reader := bufio.NewReader(nil)
	c := &conn{Conn: readOnly{from: from}, ip: "192.0.2.1"}
	reader.Reset(c)
	outcome, again = s.receive(ctx, &post{timeout: time.Second}, c, reader)
	return outcome, again, reader.Buffered()
}

// PlainHeader is what is read of the header of a response as most are: N are its
// bytes, Length those of the body.
type PlainHeader struct {
	Status                int
	KeepAlive, RetryAfter string
	N                     int
	Length                int64
}

// Plain reads one; ok is false for what is left to net/http.
func Plain(head []byte) (h PlainHeader, ok bool) {
	r, n, length, ok := plain(head)
	return PlainHeader{r.status, r.keepAlive, r.retryAfter, n, length}, ok
}
