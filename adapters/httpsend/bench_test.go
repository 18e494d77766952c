package httpsend_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// BenchmarkSend makes POSTs of 1 KB from 64 goroutines. The receiver is part of
// the process, and of the figures; so are all of net/http's costs there.
func BenchmarkSend(b *testing.B) {
	for _, c := range []struct {
		name  string
		start func(*httptest.Server)
	}{
		{"HTTP", (*httptest.Server).Start},
		{"TLS", (*httptest.Server).StartTLS},
		{"HTTP2", func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }},
	} {
		b.Run(c.name, func(b *testing.B) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = w.Write([]byte("ok"))
			}))
			c.start(server)
			defer server.Close()
			sender := newSender(b)
			if server.TLS != nil {
				sender = newSender(b, trust(server))
			}
			request := requestTo(b, server.URL)
			request.Body = bytes.Repeat([]byte("x"), 1024)
			ctx, cancel := context.WithCancel(b.Context()) // as a relay's ends
			defer cancel()
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					for range work {
						if o := sender.Send(ctx, request); o.Kind != domain.OutcomeSucceeded {
							b.Errorf("%+v", o)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkSign makes the two signatures of a request, and the three while a
// secret is replaced, with the keys at hand as in Send.
func BenchmarkSign(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	for _, c := range []struct {
		name  string
		until time.Time
	}{{"Two", time.Time{}}, {"Three", present.Add(time.Hour)}} {
		b.Run(c.name, func(b *testing.B) {
			request := requestTo(b, "http://127.0.0.1")
			request.Body = body
			request.Webhook.PreviousSecret, request.Webhook.PreviousUntil = secretOf(b, opaqueSecret), c.until
			appendHeader, err := httpsend.HeaderAppender(request)
			if err != nil {
				b.Fatal(err)
			}
			var buffer []byte
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				buffer = appendHeader(buffer[:0], present)
			}
		})
	}
}
