package httpsend_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// A webhook's headers come with each way of sending, and what they were before
// a change comes no more.
func TestHeadersOfAWebhookAreSent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		start  func(*httptest.Server)
		proxy  bool
		proto2 bool
	}{
		{"HTTP", (*httptest.Server).Start, false, false},
		{"TLS", (*httptest.Server).StartTLS, false, false},
		{"HTTP2", func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }, false, true},
		{"Proxy", (*httptest.Server).Start, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan *http.Request, 1)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
			c.start(server)
			t.Cleanup(server.Close)
			target := server.URL
			sender := newSender(t, func(config *httpsend.Config) {
				if server.TLS != nil {
					trust(server)(config)
				}
				if c.proxy { // the server plays one
					proxy, err := url.Parse(server.URL)
					if err != nil {
						t.Fatal(err)
					}
					config.EgressProxy, target = proxy, "http://hooks.example.com"
				}
			})
			request := requestTo(t, target)
			request.Webhook.Credential = domain.Secret{}
			for _, headers := range []string{"", "Authorization: Bearer first\nX-Api-Key: one, two\n", "X-Api-Key: three\n"} {
				request.Webhook.Headers = domain.HeadersFromText(headers)
				want(t, send(t, sender, request), domain.ErrorNone, 200, "")
				r := <-requests
				if (r.ProtoMajor == 2) != c.proto2 {
					t.Errorf("it came by %s", r.Proto)
				}
				var got string
				for _, name := range []string{"Authorization", "X-Api-Key"} {
					for _, value := range r.Header.Values(name) {
						got += name + ": " + value + "\n"
					}
				}
				if got != headers {
					t.Errorf("got %q, want %q", got, headers)
				}
				if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("webhook-id") == "" {
					t.Errorf("with %q it lacks others: %v", headers, r.Header)
				}
			}
		})
	}
}

// An outcome quotes no header, however the POST fails.
func TestNoOutcomeQuotesAHeader(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]string{
		"Refused": "http://" + nobody(t),
		"Reset":   serve(t, func(c net.Conn, _ int) { _, _ = takeRequest(c) }),
		"Status":  answer(t, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
		"NotHTTP": serve(t, func(c net.Conn, _ int) { _, _ = io.WriteString(c, "hello\r\n\r\n"); hang(c) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := soon(requestTo(t, server))
			request.Webhook.Headers = domain.HeadersFromText("X-Api-Key: open-sesame\n") // what check looks for
			if o := send(t, newSender(t), request); o.Kind != domain.OutcomeFailed {
				t.Errorf("%+v", o)
			}
		})
	}
}
