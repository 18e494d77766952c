package httpsend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

// failure is why there is no success. Its detail is made of our own words,
// host names, status codes and the texts of system and TLS errors: other error
// texts quote addresses of our network, or what the receiver sent, which may
// be an echo of the request.
type failure struct {
	class  domain.ErrorClass
	detail string
	ip     string // dialled, "" where none was
}

func (f *failure) Error() string { return f.detail }

func failed(f *failure) domain.Outcome {
	return domain.Outcome{Kind: domain.OutcomeFailed, Class: f.class, Detail: clean([]byte(f.detail), maxDetail), RemoteIP: f.ip}
}

// ended is the failure of a step. Where err is the end of the time, or the
// caller's, that is the failure: waitingFor says at what.
func (p *post) ended(ctx context.Context, err error, waitingFor string, otherwise failure) *failure {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &failure{domain.ErrorReset, "the relay stopped; " + waitingFor + " until then", otherwise.ip}
	case timedOut(err):
		return &failure{domain.ErrorTimeout, fmt.Sprintf("%s within %s", waitingFor, p.timeout), otherwise.ip}
	}
	return &otherwise
}

// timedOut reports whether a deadline of ours has passed. (The kernel's
// ETIMEDOUT is a network error like others.)
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// words says what a network error is, without the addresses that it quotes.
func words(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "the other side closed the connection"
	}
	return ""
}

func withWords(text string, err error) string {
	if w := words(err); w != "" {
		return text + ": " + w
	}
	return text
}

// tlsFault reports whether an error is one of the TLS protocol, and not of the
// connection below it.
func tlsFault(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert *net.OpError
	return errors.As(err, &certificate) || errors.As(err, &record) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

// answered is the outcome of an attempt that got a status and a header. whole
// reports whether the body came to its end, so that the connection can be used
// again.
func (s *Sender) answered(ctx context.Context, p *post, response response, ip string) (outcome domain.Outcome, whole bool) {
	outcome = domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: response.status, RemoteIP: ip}
	var err error
	// What follows a 101 is another protocol, and no deadline holds there.
	if response.status != http.StatusSwitchingProtocols {
		outcome.Excerpt, whole, err = read(response.body)
	}
	switch status := response.status; {
	case status < 200 || status > 299:
		outcome.Kind, outcome.Class, outcome.Detail = domain.OutcomeFailed, domain.ErrorStatus, describe(status)
		outcome.RetryAfter = retryAfter(response.retryAfter, s.config.Now())
	case err != nil:
		f := p.ended(ctx, err, "the response's body did not end", failure{class: domain.ErrorBody, detail: withWords("the response's body broke off", err)})
		outcome.Kind, outcome.Class, outcome.Detail = domain.OutcomeFailed, f.class, f.detail
	}
	return outcome, whole
}

func describe(status int) string {
	text := strings.TrimSpace(fmt.Sprintf("HTTP %03d %s", status, http.StatusText(status)))
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		text += "; redirects are not followed"
	}
	return text
}

// bodies are buffers for reading responses.
var bodies = sync.Pool{New: func() any { return new([keptBody]byte) }}

// read keeps the beginning of a body and reads on to its end, but not far.
func read(body io.Reader) (kept string, whole bool, err error) {
	buffer, _ := bodies.Get().(*[keptBody]byte)
	defer bodies.Put(buffer)
	n := 0
	more := func(b []byte) {
		var k int
		k, err = body.Read(b)
		n += k
	}
	for n < keptBody && err == nil {
		more(buffer[n:])
	}
	kept = clean(buffer[:n], keptBody)
	for n < readBody && err == nil {
		more(buffer[:])
	}
	if errors.Is(err, io.EOF) {
		return kept, true, nil
	}
	return kept, false, err
}

// clean makes text that PostgreSQL can hold: valid UTF-8 without NUL, of at
// most limit bytes. What is not becomes U+FFFD; a character that the limit cuts
// in two is dropped.
func clean(text []byte, limit int) string {
	if len(text) >= limit {
		text = text[:limit]
		for i := max(0, limit-utf8.UTFMax+1); i < limit; i++ {
			if utf8.RuneStart(text[i]) && !utf8.FullRune(text[i:]) {
				text = text[:i]
				break
			}
		}
	}
	good := true
	for i := 0; i < len(text) && good; {
		r, size := utf8.DecodeRune(text[i:])
		good = r != 0 && (r != utf8.RuneError || size > 1)
		i += size
	}
	if good {
		return string(text)
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == 0 {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
		i += size
	}
	return b.String()
}

// maxRetryAfter is more than any cap, and small enough to count with.
const maxRetryAfter = 365 * 24 * time.Hour

// retryAfter reads the header Retry-After (RFC 9110, section 10.2.3): seconds
// or a date. It gives 0 for what is neither, or not in the future.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || seconds > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}
