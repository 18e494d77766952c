package httpsend_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

func secured(t *testing.T, http2 bool, config *tls.Config, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = http2
	server.TLS = config
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of failed handshakes
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func nothing(http.ResponseWriter, *http.Request) {}

func TestTLS(t *testing.T) {
	t.Parallel()
	t.Run("OtherName", func(t *testing.T) {
		t.Parallel()
		server := secured(t, false, nil, nothing) // for example.com
		sender := newSender(t, trust(server), resolve("127.0.0.1"))
		o := send(t, sender, requestTo(t, "https://hooks.example.net:"+portOf(t, server.URL)))
		want(t, o, domain.ErrorTLS, 0, "the certificate is not for this host: x509: certificate is valid for example.com, ")
		if o.RemoteIP != "127.0.0.1" {
			t.Errorf("remote IP is %q", o.RemoteIP)
		}
		want(t, send(t, sender, requestTo(t, "https://example.com:"+portOf(t, server.URL))), domain.ErrorNone, 200, "")
	})
	t.Run("UnknownAuthority", func(t *testing.T) {
		t.Parallel()
		server := secured(t, false, nil, nothing)
		sender := newSender(t, func(c *httpsend.Config) { c.RootCAs = x509.NewCertPool() })
		want(t, send(t, sender, requestTo(t, server.URL)), domain.ErrorTLS, 0, "certificate signed by unknown authority")
	})
	t.Run("TooOld", func(t *testing.T) {
		t.Parallel()
		server := secured(t, false, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, nothing) //nolint:gosec // what is refused
		want(t, send(t, newSender(t, trust(server)), requestTo(t, server.URL)), domain.ErrorTLS, 0, "protocol version not supported")
	})
	t.Run("Oldest", func(t *testing.T) {
		t.Parallel()
		server := secured(t, false, &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}, nothing) //nolint:gosec // the oldest that is accepted
		want(t, send(t, newSender(t, trust(server)), requestTo(t, server.URL)), domain.ErrorNone, 200, "")
	})
	t.Run("NotTLS", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(nothing))
		t.Cleanup(server.Close)
		want(t, send(t, newSender(t), requestTo(t, "https"+strings.TrimPrefix(server.URL, "http"))), domain.ErrorTLS, 0, "first record does not look like a TLS handshake")
	})
	t.Run("ClosedInHandshake", func(t *testing.T) {
		t.Parallel()
		server := serve(t, func(c net.Conn, _ int) { _, _ = io.ReadFull(c, make([]byte, 8)) })
		want(t, send(t, newSender(t), requestTo(t, "https"+strings.TrimPrefix(server, "http"))), domain.ErrorTLS, 0, "no TLS handshake with 127.0.0.1:")
	})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run("WantsCertificate"+tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			server := secured(t, false, &tls.Config{MaxVersion: version, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}, nothing)
			want(t, send(t, newSender(t, trust(server)), requestTo(t, server.URL)), domain.ErrorTLS, 0, "remote error: tls:")
		})
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 1)
	over := make(chan struct{})
	server := secured(t, true, nil, func(w http.ResponseWriter, r *http.Request) {
		flush, _ := w.(http.Flusher)
		switch r.Header.Get("Outrider-Event") {
		case "redirect":
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		case "busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "hang":
			select {
			case <-r.Context().Done():
			case <-over:
			}
		case "hang_in_body":
			_, _ = io.WriteString(w, "wait")
			flush.Flush()
			<-r.Context().Done()
		case "endless":
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1024)); err != nil {
					return
				}
			}
		case "abort":
			panic(http.ErrAbortHandler)
		case "abort_in_body":
			_, _ = io.WriteString(w, "sorr")
			flush.Flush()
			panic(http.ErrAbortHandler)
		default:
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			requests <- r
			_, _ = io.WriteString(w, "ok")
		}
	})
	t.Cleanup(func() { close(over) })
	sender := newSender(t, trust(server))

	request := requestTo(t, server.URL)
	request.Replay, request.Attempt, request.Previous = 12, 2, domain.OutcomeFailed
	o := send(t, sender, request)
	want(t, o, domain.ErrorNone, 200, "")
	if o.RemoteIP != "127.0.0.1" || o.Excerpt != "ok" {
		t.Errorf("%+v", o)
	}
	r := <-requests
	if r.ProtoMajor != 2 {
		t.Errorf("it is %s", r.Proto)
	}
	if body, _ := io.ReadAll(r.Body); !bytes.Equal(body, request.Body) {
		t.Errorf("body is %q", body)
	}
	if r.URL.RequestURI() != pathAndQuery || r.ContentLength != int64(len(request.Body)) {
		t.Errorf("target %s, length %d", r.URL.RequestURI(), r.ContentLength)
	}
	wantHeader := http.Header{
		"User-Agent": {"Outrider/1.2.3"}, "Content-Type": {"application/json"}, "Accept": {"application/json"},
		"Authorization": {"Basic YWxpY2U6b3Blbi1zZXNhbWU="}, "Content-Length": {"34"},
		"Webhook-Id": {notification.String()}, "Webhook-Timestamp": {"1785232800"}, "Webhook-Signature": {r.Header.Get("webhook-signature")},
		"X-Chatwoot-Delivery": {notification.String()}, "X-Chatwoot-Timestamp": {"1785232800"}, "X-Chatwoot-Signature": {r.Header.Get("X-Chatwoot-Signature")},
		"Outrider-Event": {"message_created"}, "Outrider-Delivery": {delivery.String()}, "Outrider-Attempt": {"2"},
		"Outrider-Previous-Outcome": {"failed"}, "Outrider-Replay": {"12"},
	}
	for name, values := range r.Header {
		if len(values) != 1 || len(wantHeader[name]) != 1 || values[0] != wantHeader[name][0] {
			t.Errorf("%s is %q, want %q", name, values, wantHeader[name])
		}
	}
	if len(r.Header) != len(wantHeader) {
		t.Errorf("header is %v", r.Header)
	}
	if err := httpsend.VerifyStandard(secretOf(t, standardSecret).StandardKey(), notification.String(), "1785232800", r.Header.Get("webhook-signature"), request.Body, present); err != nil {
		t.Error(err)
	}

	for _, c := range []struct {
		event  string
		class  domain.ErrorClass
		status int
		words  string
	}{
		{"redirect", "status", 302, "HTTP 302 Found; redirects are not followed"},
		{"busy", "status", 503, "HTTP 503 Service Unavailable"},
		{"hang", "timeout", 0, "no answer within 2s"},
		{"hang_in_body", "timeout", 200, "the response's body did not end within 2s"},
		{"endless", "", 200, ""},
		{"abort", "reset", 0, "the connection broke before an answer came"},
		{"abort_in_body", "body", 200, "the response's body broke off"},
	} {
		t.Run(c.event, func(t *testing.T) {
			t.Parallel()
			request := requestTo(t, server.URL)
			request.Event = c.event
			if c.class == domain.ErrorTimeout {
				request = soon(request)
			}
			o := send(t, sender, request)
			want(t, o, c.class, c.status, c.words)
			if c.event == "busy" && o.RetryAfter != 7*time.Second {
				t.Errorf("retry after %s", o.RetryAfter)
			}
		})
	}
}

// Many first requests find out at the same time that a host speaks HTTP/2.
func TestHTTP2AtOnce(t *testing.T) {
	t.Parallel()
	server := secured(t, true, nil, nothing)
	sender := newSender(t, trust(server))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			request := requestTo(t, server.URL)
			request.Attempt = i + 1
			want(t, send(t, sender, request), domain.ErrorNone, 200, "")
		})
	}
	wg.Wait()
}

// The guard holds for the transport's own dials as well.
func TestHTTP2Rebinding(t *testing.T) {
	t.Parallel()
	server := secured(t, true, nil, nothing)
	var asked atomic.Int64
	sender := newSender(t, trust(server), func(c *httpsend.Config) {
		c.Resolver = resolver(func(context.Context, string) ([]netip.Addr, error) {
			if asked.Add(1) == 1 {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		})
	})
	request := requestTo(t, "https://example.com:"+portOf(t, server.URL))
	o := send(t, sender, request)
	want(t, o, domain.ErrorNone, 200, "")
	for o.Kind == domain.OutcomeSucceeded { // until the connection is gone
		sender.CloseIdle()
		o = send(t, sender, request)
	}
	checkRefused(t, o, "example.com")
}

func TestEgressProxy(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(nothing))
	t.Cleanup(plain.Close)
	https := secured(t, true, nil, nothing)
	const denied = "denied.example.com:443"
	// A proxy that brings every name to the server of its scheme.
	var seen sync.Map
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Method+" "+r.Host, true)
		switch {
		case r.Host == denied:
			w.WriteHeader(http.StatusForbidden)
		case r.Method == http.MethodConnect:
			tunnel(t, w, https.Listener.Addr().String())
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	t.Cleanup(proxy.Close)
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	sender := newSender(t, refuseAll, trust(https), func(c *httpsend.Config) { c.EgressProxy = through })

	o := send(t, sender, requestTo(t, "http://hooks.example.com"))
	want(t, o, domain.ErrorNone, 202, "")
	if o.RemoteIP != "127.0.0.1" {
		t.Errorf("remote IP is %q", o.RemoteIP)
	}
	want(t, send(t, sender, requestTo(t, "https://example.com")), domain.ErrorNone, 200, "")
	want(t, send(t, sender, requestTo(t, "https://hooks.example.net")), domain.ErrorTLS, 0, "the certificate is not for this host")
	want(t, send(t, sender, requestTo(t, "https://"+denied)), domain.ErrorConnect, 0, "no connection to denied.example.com:443")
	checkRefused(t, send(t, sender, requestTo(t, "https://169.254.169.254")), "169.254.169.254")
	for _, request := range []string{"POST hooks.example.com", "CONNECT example.com:443"} {
		if _, ok := seen.Load(request); !ok {
			t.Errorf("the proxy did not see %s", request)
		}
	}
	if _, ok := seen.Load("CONNECT 169.254.169.254:443"); ok {
		t.Error("the proxy was asked for a refused address")
	}

	for _, bad := range []string{"ftp://proxy.example.com", "http://", "proxy.example.com"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := httpsend.New(httpsend.Config{EgressProxy: u}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	closed := nobody(t)
	sender = newSender(t, func(c *httpsend.Config) { c.EgressProxy = &url.URL{Scheme: "http", Host: closed} })
	want(t, send(t, sender, requestTo(t, "http://hooks.example.com")), domain.ErrorConnect, 0, "no connection to hooks.example.com:80: connection refused")
}

func tunnel(t *testing.T, w http.ResponseWriter, to string) {
	t.Helper()
	var dialer net.Dialer
	server, err := dialer.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = server.Close() }()
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = client.Close() }()
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	wg.Go(func() { _, _ = io.Copy(client, server); _ = client.Close() })
	wg.Wait()
}
