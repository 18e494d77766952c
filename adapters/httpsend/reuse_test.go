package httpsend_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		start       func(*httptest.Server)
		body        int
		header      http.Header
		connections int
	}{
		{"HTTP1", (*httptest.Server).Start, 2, nil, 1},
		{"NoBody", (*httptest.Server).Start, 0, nil, 1},
		{"LongestBody", (*httptest.Server).Start, 16<<10 - 1, nil, 1},
		{"TLS", (*httptest.Server).StartTLS, 2, nil, 1},
		{"HTTP2", func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }, 2, nil, 1},
		{"BodyCutOff", (*httptest.Server).Start, 64 << 10, nil, 100},
		{"ReceiverCloses", (*httptest.Server).Start, 2, http.Header{"Connection": {"close"}}, 100},
		{"ReceiverKeepsLong", (*httptest.Server).Start, 2, http.Header{"Keep-Alive": {"max=5, Timeout=3600"}}, 1},
		{"ReceiverDoesNotKeep", (*httptest.Server).Start, 2, http.Header{"Keep-Alive": {"timeout=0"}}, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				for name, values := range c.header {
					w.Header()[name] = values
				}
				_, _ = io.WriteString(w, strings.Repeat("x", c.body))
			}))
			connections := counting(server)
			c.start(server)
			t.Cleanup(server.Close)
			sender := newSender(t)
			if server.TLS != nil {
				sender = newSender(t, trust(server))
			}
			for range 100 {
				want(t, send(t, sender, requestTo(t, server.URL)), domain.ErrorNone, 200, "")
			}
			if n := connections(); n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
		})
	}
}

// Webhooks at one host share its connections, whatever else differs, and
// however it is spelled.
func TestConnectionsAreTheHosts(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	connections := counting(server)
	server.Start()
	t.Cleanup(server.Close)
	sender := newSender(t, resolve("127.0.0.1"))
	for _, format := range []string{"http://example.com:%s/a", "http://example.com:%s/b?c", "HTTP://Example.COM:%s"} {
		request := requestTo(t, fmt.Sprintf(format, portOf(t, server.URL)))
		request.Webhook.Secret = domain.Secret{}
		want(t, send(t, sender, request), domain.ErrorNone, 200, "")
	}
	if n := connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A connection that the receiver closed, or spoke on, while it was idle is not
// used: the request would be lost, or get another's answer.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, c := range []struct {
		name string
		then func(net.Conn)
	}{
		{"Closed", func(c net.Conn) { _ = c.Close() }},
		{"Reset", func(c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		}},
		{"AnsweredUnasked", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			returned, stale := make(chan struct{}), make(chan struct{})
			server := serve(t, func(conn net.Conn, _ int) {
				if _, err := takeRequest(conn); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(conn, answer)
				<-returned
				c.then(conn)
				stale <- struct{}{}
				hang(conn)
			})
			sender := newSender(t)
			for range 10 {
				want(t, send(t, sender, requestTo(t, server)), domain.ErrorNone, 200, "")
				returned <- struct{}{}
				<-stale
			}
		})
	}
}

// What comes behind an answer in the same breath is nobody's.
func TestTwoAnswersAtOnce(t *testing.T) {
	t.Parallel()
	server := serve(t, func(c net.Conn, _ int) {
		if _, err := takeRequest(c); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n")
		}
		hang(c)
	})
	sender := newSender(t)
	for range 10 {
		want(t, send(t, sender, requestTo(t, server)), domain.ErrorNone, 200, "")
	}
}

// A request on a connection that breaks is not sent again within the attempt:
// the receiver may have acted on it.
func TestNoSecondRequest(t *testing.T) {
	t.Parallel()
	requests := make(chan int, 10)
	server := serve(t, func(c net.Conn, number int) {
		r := bufio.NewReader(c)
		for i := 0; ; i++ {
			request, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, request.Body)
			requests <- number
			if i == 1 {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	sender := newSender(t)
	want(t, send(t, sender, requestTo(t, server)), domain.ErrorNone, 200, "")
	want(t, send(t, sender, requestTo(t, server)), domain.ErrorReset, 0, "the connection broke before an answer came")
	want(t, send(t, sender, requestTo(t, server)), domain.ErrorNone, 200, "")
	if got := [3]int{<-requests, <-requests, <-requests}; got != [3]int{1, 1, 2} || len(requests) != 0 {
		t.Errorf("requests came on connections %v, and %d more; want 1, 1, 2", got, len(requests))
	}
}

func TestCloseIdle(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		closed := make(chan struct{}, 1)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				closed <- struct{}{}
			}
		}
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		sender := newSender(t, trust(server))
		want(t, send(t, sender, requestTo(t, server.URL)), domain.ErrorNone, 200, "")
		sender.CloseIdle()
		for open := true; open; {
			select {
			case <-closed:
				open = false
			case <-time.After(10 * time.Millisecond): // HTTP/2 ends its requests a moment after their answers
				sender.CloseIdle()
			}
		}
		want(t, send(t, sender, requestTo(t, server.URL)), domain.ErrorNone, 200, "")
	}
}
