package relay_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// hijacked answers below HTTP.
func hijacked(answer func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		hijacker, ok := w.(http.Hijacker)
		if !ok {
			return
		}
		conn, _, err := hijacker.Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		answer(conn)
	}
}

// Whatever a receiver does, it is one attempt on record with its class, and a
// good receiver of the same event does not notice.
func TestEachKindOfBadReceiverIsOneFailedAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for path, receiver := range map[string]struct {
		answer http.HandlerFunc
		class  domain.ErrorClass
		status int
	}{
		"/hangs": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, domain.ErrorTimeout, 0},
		"/resets": {hijacked(func(c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		}), domain.ErrorReset, 0},
		"/garbage": {hijacked(func(c net.Conn) { _, _ = c.Write([]byte("\x00\xff this is not HTTP\r\n\r\n")) }), domain.ErrorStatus, 0},
		"/drips": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil { // one byte after the other, for ever
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(20 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		}, domain.ErrorTimeout, 200},
		"/redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusTemporaryRedirect)
		}, domain.ErrorStatus, 307},
	} {
		b.receiver.on(path, receiver.answer)
		b.webhook(1, path, func(s *domain.Settings) {
			s.Timeout = time.Second
			s.Name = fmt.Sprint(receiver.class, receiver.status)
		})
	}
	b.webhook(1, "/good", func(s *domain.Settings) { s.Name = "good" })
	r := b.start(func(c *relay.Config) { c.Policy = domain.RetryPolicy{Delays: []time.Duration{time.Hour}} })
	b.publish(1, "c", 1, 1)
	b.eventually("an outcome of each", func() (bool, string) {
		open := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome <> 'started'`)
		return open == 6, fmt.Sprintf("%d have one", open)
	})
	r.stop() // waits for all that is under way

	if n := scan[int](b, `SELECT count(*) FROM audit.attempts`); n != 6 {
		t.Errorf("%d attempts are on record, want one for each webhook", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome = 'succeeded' AND url LIKE '%/good'`); n != 1 {
		t.Error("the good receiver did not get it")
	}
	wrong := scan[string](b, `
SELECT coalesce(string_agg(format('%s: %s %s', a.url, a.error_class, a.status_code), '; '), '')
  FROM audit.attempts a JOIN relay.webhooks w ON w.id = a.webhook_id
 WHERE a.outcome = 'failed' AND concat(a.error_class, coalesce(a.status_code, 0)) <> replace(w.settings ->> 'name', ' ', '')`)
	if wrong != "" {
		t.Errorf("not as it was answered: %s", wrong)
	}
	if failed := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'pending' AND last_outcome = 'failed' AND next_attempt_at > now() + interval '30 minutes'`); failed != 5 {
		t.Errorf("%d deliveries wait for their next attempt, want 5", failed)
	}
}
