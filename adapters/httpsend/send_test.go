package httpsend_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

var update = flag.Bool("update", false, "write the golden files")

// The headers are a public contract: these files change only with its version.
func TestRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*relay.Request)
	}{
		{"first", func(r *relay.Request) {
			r.Webhook.Credential = domain.Secret{}
			r.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		}},
		{"retry", func(r *relay.Request) {
			r.Attempt, r.Previous = 3, domain.OutcomeUnknown
			r.Traceparent = "not a traceparent"
		}},
		{"replay", func(r *relay.Request) { r.Replay, r.Attempt, r.Previous = 12, 2, domain.OutcomeFailed }},
		{"chatwoot_secret", func(r *relay.Request) { r.Webhook.Secret = secretOf(t, opaqueSecret) }},
		{"rotating", func(r *relay.Request) {
			r.Webhook.PreviousSecret, r.Webhook.PreviousUntil = secretOf(t, opaqueSecret), present.Add(time.Nanosecond)
		}},
		{"rotated", func(r *relay.Request) {
			r.Webhook.PreviousSecret, r.Webhook.PreviousUntil = secretOf(t, opaqueSecret), present
		}},
		{"headers", func(r *relay.Request) {
			r.Webhook.Credential, r.Webhook.Headers = domain.Secret{}, domain.HeadersFromText("Authorization: Bearer a: b\nx-api-KEY: 1, 2\n")
		}},
		{"without_secret", func(r *relay.Request) { r.Webhook.Secret, r.Body = domain.Secret{}, nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			received := make(chan []byte, 1)
			server := serve(t, func(conn net.Conn, _ int) {
				raw, err := takeRequest(conn)
				if err != nil {
					t.Error(err)
				}
				received <- raw
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			})
			sender := newSender(t, resolve("127.0.0.1"))
			request := requestTo(t, "http://hooks.example.com:"+portOf(t, server))
			c.change(&request)
			want(t, send(t, sender, request), domain.ErrorNone, 204, "")
			got := bytes.Replace(<-received, []byte(":"+portOf(t, server)+"\r\n"), []byte(":8080\r\n"), 1)
			if bytes.Count(got, []byte("\n")) != bytes.Count(got, []byte("\r\n")) {
				t.Errorf("a line ends without CR: %q", got)
			}
			got = bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n"))
			golden(t, filepath.Join("testdata", "request_"+c.name+".txt"), got)
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", name, got, want)
	}
}

// What a receiver's library does with our headers, while the secret changes:
// one that knows either secret accepts.
func TestSignaturesAreAccepted(t *testing.T) {
	t.Parallel()
	before, after := secretOf(t, opaqueSecret), secretOf(t, standardSecret)
	for _, c := range []struct {
		name                  string
		secret, previous      domain.Secret
		until                 time.Time
		standard, oldText     bool // accepted by a receiver with the new key, with the old one
		chatwoot, oldChatwoot bool
	}{
		{"Standard", after, domain.Secret{}, time.Time{}, true, false, true, false},
		{"Rotating", after, before, present.Add(time.Hour), true, true, false, true},
		{"Rotated", after, before, present.Add(-time.Hour), true, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan *http.Request, 1)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
			t.Cleanup(server.Close)
			request := requestTo(t, server.URL)
			request.Webhook.Secret, request.Webhook.PreviousSecret, request.Webhook.PreviousUntil = c.secret, c.previous, c.until
			send(t, newSender(t), request)
			r := <-requests
			standard := func(s domain.Secret) bool {
				return httpsend.VerifyStandard(s.StandardKey(), r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"),
					r.Header.Get("webhook-signature"), request.Body, present) == nil
			}
			chatwoot := func(s domain.Secret) bool {
				return httpsend.VerifyChatwoot(s.Reveal(), r.Header.Get("X-Chatwoot-Timestamp"), r.Header.Get("X-Chatwoot-Signature"), request.Body, present) == nil
			}
			if got := standard(after); got != c.standard {
				t.Errorf("Standard, new secret: %v", got)
			}
			if got := standard(before); got != c.oldText {
				t.Errorf("Standard, old secret: %v", got)
			}
			if got := chatwoot(after); got != c.chatwoot {
				t.Errorf("Chatwoot, new secret: %v", got)
			}
			if got := chatwoot(before); got != c.oldChatwoot {
				t.Errorf("Chatwoot, old secret: %v", got)
			}
		})
	}
}

// A changed webhook is sent with what it has now, although its URL is known.
func TestNothingOutlivesAChange(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
	t.Cleanup(server.Close)
	sender := newSender(t)
	request := requestTo(t, server.URL)
	for _, c := range []struct{ secret, credential string }{{standardSecret, "a:b"}, {opaqueSecret, "a:b"}, {opaqueSecret, "c:d"}} {
		request.Webhook.Secret, request.Webhook.Credential = secretOf(t, c.secret), domain.CredentialFromText(c.credential)
		send(t, sender, request)
		r := <-requests
		user, password, _ := r.BasicAuth()
		if user+":"+password != c.credential {
			t.Errorf("credential %s:%s, want %s", user, password, c.credential)
		}
		if err := httpsend.VerifyChatwoot(c.secret, "1785232800", r.Header.Get("X-Chatwoot-Signature"), request.Body, present); err != nil {
			t.Error(err)
		}
	}
}

func TestOutcomeOfAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 1<<10) // 16 KiB
	for _, c := range []struct {
		name, response string
		class          domain.ErrorClass
		status         int
		words, excerpt string
		retryAfter     time.Duration
	}{
		{"OK", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", 200, "", "ok", 0},
		{"Accepted", "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", "", 202, "", "", 0},
		{"Chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX-Trailer: 1\r\n\r\n", "", 200, "", "ok", 0},
		{"UntilClosed", "HTTP/1.1 200 OK\r\n\r\nok", "", 200, "", "ok", 0},
		{"HTTP10", "HTTP/1.0 200 OK\r\n\r\nok", "", 200, "", "ok", 0},
		{"BareLineFeeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "", 200, "", "ok", 0},
		{"AfterInterim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 200, "", "", 0},
		{"NUL", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na\x00\xffb", "", 200, "", "a\uFFFD\uFFFDb", 0},
		{"Long", "HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n" + long, "", 200, "", long[:4096], 0},
		{"LongerThanRead", "HTTP/1.1 200 OK\r\nContent-Length: 32768\r\n\r\n" + long + long, "", 200, "", long[:4096], 0},
		{"LongerThanReadAndBroken", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + long + long, "", 200, "", long[:4096], 0},

		{"SwitchingProtocols", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbytes", "status", 101, "HTTP 101", "", 0},
		{"Redirect", "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\nContent-Length: 0\r\n\r\n", "status", 302, "HTTP 302 Found; redirects are not followed", "", 0},
		{"NotModified", "HTTP/1.1 304 Not Modified\r\n\r\n", "status", 304, "HTTP 304 Not Modified", "", 0},
		{"Gone", "HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\nbye!", "status", 410, "HTTP 410 Gone", "bye!", 0},
		{"TooMany", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", "status", 429, "HTTP 429 Too Many Requests", "", 30 * time.Second},
		{"Unavailable", "HTTP/1.1 503 Out of Order\r\nRetry-After: Tue, 28 Jul 2026 10:01:00 GMT\r\nContent-Length: 0\r\n\r\n", "status", 503, "HTTP 503 Service Unavailable", "", time.Minute},
		{"RetryAfterGarbage", "HTTP/1.1 503 x\r\nRetry-After: -3\r\nContent-Length: 0\r\n\r\n", "status", 503, "HTTP 503", "", 0},
		{"RetryAfterOnSuccess", "HTTP/1.1 200 OK\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", "", 200, "", "", 0},
		{"UnknownStatus", "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", "status", 999, "HTTP 999", "", 0},
		{"StatusOfNoClass", "HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n", "status", 99, "HTTP 099", "", 0},
		{"FailureWithBrokenBody", "HTTP/1.1 500 x\r\nContent-Length: 10\r\n\r\nsorr", "status", 500, "HTTP 500 Internal Server Error", "sorr", 0},

		{"BrokenBody", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsorr", "body", 200, "the response's body broke off: the other side closed the connection", "sorr", 0},
		{"BrokenChunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", "body", 200, "the response's body broke off", "ok", 0},
		{"BrokenHeader", "HTTP/1.1 200 OK\r\nContent-Le", "reset", 0, "the connection broke before an answer came: the other side closed", "", 0},
		{"Nothing", "", "reset", 0, "the connection broke before an answer came: the other side closed", "", 0},
		{"NotHTTP", "SSH-2.0-OpenSSH_9.6\r\n", "status", 0, "the answer is not HTTP", "", 0},
		{"BadStatus", "HTTP/1.1 OK\r\n\r\n", "status", 0, "the answer is not HTTP", "", 0},
		{"BadHeader", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "status", 0, "the answer is not HTTP", "", 0},
		{"TwoLengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", "status", 0, "the answer is not HTTP", "", 0},
		{"LongLine", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<16), "status", 0, "header is longer than 64 KiB", "", 0},
		{"LongHeader", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 1<<14), "status", 0, "header is longer than 64 KiB", "", 0},
		{"EndlessInterim", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1<<12), "status", 0, "header is longer than 64 KiB", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := send(t, newSender(t), requestTo(t, answer(t, c.response)))
			want(t, o, c.class, c.status, c.words)
			if o.Excerpt != c.excerpt {
				t.Errorf("excerpt is %q, want %q", o.Excerpt, c.excerpt)
			}
			if o.RetryAfter != c.retryAfter {
				t.Errorf("retry after %s, want %s", o.RetryAfter, c.retryAfter)
			}
			if o.RemoteIP != "127.0.0.1" {
				t.Errorf("remote IP is %q", o.RemoteIP)
			}
		})
	}
}

// An echo of the request must not bring what is secret into the detail.
func TestEcho(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "HTTP/1.1 ", "HTTP/1.1 200 ", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: "} {
		server := serve(t, func(c net.Conn, _ int) {
			raw, err := takeRequest(c)
			if err != nil {
				return
			}
			_, _ = c.Write(append([]byte(prefix), raw...))
		})
		send(t, newSender(t), requestTo(t, server)) // checks
	}
}

func TestEndlessBody(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(cut)
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 1024)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	o := send(t, newSender(t), requestTo(t, server.URL))
	want(t, o, domain.ErrorNone, 200, "")
	if o.Excerpt != strings.Repeat("x", 4096) {
		t.Errorf("excerpt has %d bytes", len(o.Excerpt))
	}
	<-cut
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		scheme string
		handle func(net.Conn)
		class  domain.ErrorClass
		status int
		words  string
	}{
		{"BeforeHeader", "http", func(c net.Conn) { hang(c) }, "timeout", 0, "no answer within 2s"},
		{"InHeader", "http", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX:"); hang(c) }, "timeout", 0, "no answer within 2s"},
		{"InBody", "http", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nwait")
			hang(c)
		}, "timeout", 200, "the response's body did not end within 2s"},
		{"InBodyOfFailure", "http", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 503 x\r\nContent-Length: 10\r\n\r\nwait")
			hang(c)
		}, "status", 503, "HTTP 503 Service Unavailable"},
		{"InHandshake", "https", func(c net.Conn) { hang(c) }, "timeout", 0, "no TLS handshake with 127.0.0.1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(conn net.Conn, _ int) { c.handle(conn) })
			o := send(t, newSender(t), soon(requestTo(t, c.scheme+strings.TrimPrefix(server, "http"))))
			want(t, o, c.class, c.status, c.words)
			if o.Duration < 2*time.Second {
				t.Errorf("it took only %s", o.Duration)
			}
			if o.RemoteIP != "127.0.0.1" {
				t.Errorf("remote IP is %q", o.RemoteIP)
			}
			if c.status != 0 && o.Excerpt != "wait" {
				t.Errorf("excerpt is %q", o.Excerpt)
			}
		})
	}
}

// The default holds where a webhook names no timeout; the caller's deadline
// where it is earlier.
func TestCallersDeadline(t *testing.T) {
	t.Parallel()
	server := serve(t, func(c net.Conn, _ int) { hang(c) })
	request := requestTo(t, server)
	request.Webhook.Settings.Timeout = 0
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	o := newSender(t).Send(ctx, request)
	check(t, o)
	want(t, o, domain.ErrorTimeout, 0, "no answer")
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	t.Run("UnderWay", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		server := serve(t, func(c net.Conn, _ int) {
			_, _ = takeRequest(c)
			cancel()
			hang(c)
		})
		o := newSender(t).Send(ctx, requestTo(t, server))
		check(t, o)
		want(t, o, domain.ErrorReset, 0, "the relay stopped; no answer until then")
	})
	t.Run("Resolving", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		sender := newSender(t, func(c *httpsend.Config) {
			c.Resolver = resolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			})
		})
		o := sender.Send(ctx, requestTo(t, "http://hooks.example.com"))
		check(t, o)
		want(t, o, domain.ErrorReset, 0, "the relay stopped")
	})
	t.Run("Before", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		server := serve(t, func(net.Conn, int) { t.Error("a connection was made") })
		o := newSender(t).Send(ctx, requestTo(t, server))
		check(t, o)
		want(t, o, domain.ErrorReset, 0, "the relay stopped; nothing was sent until then")
	})
}

func TestReset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before string
		class        domain.ErrorClass
		status       int
	}{
		{"BeforeAnswer", "", "reset", 0},
		{"InBody", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsorr", "body", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(conn net.Conn, _ int) {
				_, _ = takeRequest(conn)
				_, _ = io.WriteString(conn, c.before)
				if tcp, ok := conn.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0) // close sends RST
				}
			})
			want(t, send(t, newSender(t), requestTo(t, server)), c.class, c.status, "connection")
		})
	}
}

func TestLongRequestBody(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	t.Run("Read", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hash := sha256.New()
			_, _ = io.Copy(hash, r.Body)
			_, _ = fmt.Fprintf(w, "%x", hash.Sum(nil))
		}))
		connections := counting(server)
		server.Start()
		t.Cleanup(server.Close)
		sender, request := newSender(t), requestTo(t, server.URL)
		for _, n := range []int{1, 4 << 10, 12 << 10, 12<<10 + 1, 1 << 20} {
			request.Body = body[:n]
			o := send(t, sender, request)
			if o.Excerpt != fmt.Sprintf("%x", sha256.Sum256(request.Body)) {
				t.Errorf("of %d bytes: %+v", n, o)
			}
		}
		if n := connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
	t.Run("AnsweredUnread", func(t *testing.T) {
		t.Parallel()
		server := serve(t, func(c net.Conn, _ int) {
			// As much as the header, then an answer; the rest is not read until
			// the other side gives up.
			_, _ = io.ReadFull(c, make([]byte, 64))
			_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
			hang(c)
		})
		request := requestTo(t, server)
		request.Body = bytes.Repeat(body, 16)
		want(t, send(t, newSender(t), request), domain.ErrorStatus, 413, "HTTP 413")
	})
	t.Run("NeverRead", func(t *testing.T) {
		t.Parallel()
		over := make(chan struct{})
		server := serve(t, func(net.Conn, int) { <-over })
		t.Cleanup(func() { close(over) })
		request := requestTo(t, server)
		request.Body = bytes.Repeat(body, 16)
		want(t, send(t, newSender(t), soon(request)), domain.ErrorTimeout, 0, "within 2s")
	})
}

func TestUnusableURLs(t *testing.T) {
	t.Parallel()
	sender := newSender(t)
	for _, text := range []string{
		"", "query-token", "ftp://127.0.0.1/query-token", "http:///query-token", "http://[::1/query-token", "http://127.0.0.1:99999/query-token",
		"http://127.0.0.1:0/", "mailto:query-token", "http://127.0.0.1/?query-token=a b", "http://127.0.0.1/\r\nquery-token", "http://exa mple/query-token",
	} {
		request := requestTo(t, "")
		request.Webhook.Settings.URL = text
		want(t, send(t, sender, request), domain.ErrorConnect, 0, "the webhook's URL cannot be used")
	}
}

// Nothing that comes with a chat event can begin a header line of its own.
func TestHeaderInjection(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
	t.Cleanup(server.Close)
	request := requestTo(t, server.URL)
	request.Event, request.Traceparent = "a\r\nInjected: 1\x00ü", "00\r\nInjected: 1"
	send(t, newSender(t), request)
	r := <-requests
	if r.Header.Get("Injected") != "" || r.Header.Get("Outrider-Event") != "a??Injected: 1???" {
		t.Errorf("header is %v", r.Header)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := httpsend.New(httpsend.Config{}); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	if _, err := httpsend.New(httpsend.Config{UserAgentVersion: "1\r\nX: y"}); err == nil {
		t.Error("a version with a line break is accepted")
	}
}

// Many webhooks at once, with receivers that misbehave in all ways between
// them: each attempt gets its own answer.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("Outrider-Event") == "close" {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.WriteString(w, r.Header.Get("webhook-id")) //nolint:gosec // no browser reads it
		if r.Header.Get("Outrider-Event") == "abort" {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(good.Close)
	// Sends a second answer that nobody asked for.
	pushy := serve(t, func(c net.Conn, _ int) {
		for {
			if _, err := takeRequest(c); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 wrong\r\nContent-Length: 0\r\n\r\n")
		}
	})
	sender := newSender(t)
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := range 50 {
				request := requestTo(t, good.URL)
				request.Notification = uuid.New()
				switch (worker + i) % 5 {
				case 0:
					request.Event = "close"
				case 1:
					request.Event = "abort"
					check(t, sender.Send(t.Context(), request))
					continue
				case 2:
					request.Webhook.Settings.URL = pushy
					o := sender.Send(t.Context(), request)
					// The second request may meet the unasked answer's end of
					// the connection, but never take it for its own.
					if o.StatusCode == http.StatusInternalServerError {
						t.Errorf("a stale answer: %+v", o)
					}
					continue
				}
				o := sender.Send(t.Context(), request)
				check(t, o)
				if o.Kind != domain.OutcomeSucceeded || o.Excerpt != request.Notification.String() {
					t.Errorf("%+v", o)
				}
			}
		})
	}
	wg.Wait()
}
