package httpsend_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/outrider-relay/outrider/adapters/httpsend"
)

// usual are answers as servers that are much in use give them.
var usual = []string{
	"HTTP/1.1 200 OK\r\nDate: Fri, 27 Nov 2026 12:00:00 GMT\r\nContent-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nok",
	"HTTP/1.1 204 No Content\r\nServer: nginx/1.27.0\r\nDate: Fri, 27 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nETag: W/\"2-nOO9QiTIwXgNtWtBJezz8kv3SLc\"\r\nContent-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nOK",
	"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\nx-request-id: 9f\r\nx-runtime: 0.011\r\nContent-Length: 11\r\n\r\n{\"ok\":true}",
	"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
}

// What most servers answer is read without net/http, which costs much more.
func TestUsualAnswersArePlain(t *testing.T) {
	t.Parallel()
	for _, answer := range usual {
		if _, ok := httpsend.Plain([]byte(answer)); !ok {
			t.Errorf("%q is left to net/http", answer)
		}
	}
}

// FuzzPlain: what is read without net/http is what that reads, header by header
// and to the byte.
func FuzzPlain(f *testing.F) {
	for _, answer := range usual {
		f.Add([]byte(answer))
	}
	for _, header := range []string{
		"", "\r\n", "Content-Length: 2\r\n", "Content-Length: 2\r\n\r\n\r\n", "Content-Length:2\r\n\r\nok", "Content-Length: \t2 \r\n\r\nok", "Content-Length : 2\r\n\r\nok", " Content-Length: 2\r\n\r\nok",
		"Content-Length: +2\r\n\r\nok", "Content-Length: 02\r\n\r\nok", "Content-Length: 0x2\r\n\r\nok", "Content-Length: 1_0\r\n\r\nok", "Content-Length: 2, 2\r\n\r\nok", "Content-Length: 9223372036854775807\r\n\r\n",
		"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", "content-length: 2\r\nX:\r\n\r\nok", "Content-Length: 2\nX: y\r\n\r\nok", "Content-Length: 22\nX: y\r\n\r\nok", "Content-Length: 2\r\nX: y\n\r\nok", "Content-Length: 2\r\n\nok", "Content-Length: 2\r\r\n\r\nok",
		"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length: 2\r\nConnection: close\r\n\r\nok", "Content-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok", "Content-Length: 2\r\nConnection: keep-alive, close\r\n\r\nok",
		"Content-Length: 2\r\nKeep-Alive:\r\nKeep-Alive: timeout=5\r\n\r\nok", "Content-Length: 2\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\nok", "Content-Length: 2\r\nRetry-After:  Fri, 27 Nov 2026 12:00:00 GMT\t\r\n\r\nok",
		"Content-Length: 2\r\nX: a\r\n folded\r\n\r\nok", "Content-Length: 2\r\nX: a\x00b\r\n\r\nok", "Content-Length: 2\r\nX: a\x7fb\r\n\r\nok", "Content-Length: 2\r\nX: \xffé\r\n\r\nok", "Content-Length: 2\r\nX\xc3\xa9: a\r\n\r\nok", "Content-Length: 2\r\n: a\r\n\r\nok",
		"Content-Length: 2\r\nPragma: no-cache\r\nTrailer: X\r\n\r\nok", "Content-Length: 2\r\nUpgrade: h2c\r\n\r\nok", "X: y\r\n\r\nto the end",
	} {
		for _, line := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 \r\n", "HTTP/1.1 204 \r\n", "HTTP/1.1 304 Not Modified\r\n"} {
			f.Add([]byte(line + header))
		}
	}
	for _, line := range []string{"HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1  200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 100 Continue", "HTTP/1.1 101 Switching", "HTTP/1.1 +20 OK", "http/1.1 200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 999 OK", " HTTP/1.1 200 OK"} {
		f.Add([]byte(line + "\r\nContent-Length: 2\r\n\r\nok"))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		h, ok := httpsend.Plain(answer)
		if !ok {
			return
		}
		reader := bufio.NewReader(bytes.NewReader(answer))
		r, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%q is no answer to net/http: %v", answer, err)
		}
		defer func() { _ = r.Body.Close() }()
		if r.StatusCode != h.Status || r.Close || r.Header.Get("Keep-Alive") != h.KeepAlive || r.Header.Get("Retry-After") != h.RetryAfter {
			t.Fatalf("%q gives %d, %q and %q; net/http reads %d, %q and %q, and the end of the connection %t",
				answer, h.Status, h.KeepAlive, h.RetryAfter, r.StatusCode, r.Header.Get("Keep-Alive"), r.Header.Get("Retry-After"), r.Close)
		}
		body, err := io.ReadAll(r.Body)
		here := min(h.Length, int64(len(answer)-h.N))
		if !bytes.Equal(body, answer[h.N:h.N+int(here)]) || (err == nil) != (here == h.Length) {
			t.Fatalf("%q has a body of %d bytes behind %d; net/http reads %q, %v", answer, h.Length, h.N, body, err)
		}
	})
}
