package httpsend_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// What no outcome may quote. The secrets are those of the test vectors.
const (
	standardSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	opaqueSecret   = "test-secret"
	credential     = "alice:open-sesame"
	pathAndQuery   = "/hook-path?token=query-token"
)

var (
	notification = uuid.MustParse("01989d5e-7f3a-8c21-9d4b-6a1f0e2b3c4d")
	delivery     = uuid.MustParse("01989d5e-7f3a-8f00-8a11-0123456789ab")
	present      = time.Unix(1785232800, 0)
	loopback     = domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
)

// newSender makes a Sender that may dial the loopback network.
func newSender(t testing.TB, change ...func(*httpsend.Config)) *httpsend.Sender {
	t.Helper()
	config := httpsend.Config{
		UserAgentVersion: "1.2.3", Addresses: loopback,
		Resolver: resolver(func(context.Context, string) ([]netip.Addr, error) {
			t.Error("a name was resolved")
			return nil, errors.New("no names here")
		}),
		Now: func() time.Time { return present },
	}
	for _, c := range change {
		c(&config)
	}
	sender, err := httpsend.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.CloseIdle)
	return sender
}

type resolver func(ctx context.Context, host string) ([]netip.Addr, error)

func (r resolver) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return r(ctx, host)
}

// resolve makes every name have these addresses.
func resolve(addresses ...string) func(*httpsend.Config) {
	return func(c *httpsend.Config) {
		c.Resolver = resolver(func(context.Context, string) ([]netip.Addr, error) {
			var ips []netip.Addr
			for _, address := range addresses {
				ips = append(ips, netip.MustParseAddr(address))
			}
			return ips, nil
		})
	}
}

// trust makes a test server's certificate a trusted one.
func trust(servers ...*httptest.Server) func(*httpsend.Config) {
	return func(c *httpsend.Config) {
		c.RootCAs = x509.NewCertPool()
		for _, server := range servers {
			c.RootCAs.AddCert(server.Certificate())
		}
	}
}

func secretOf(t testing.TB, text string) domain.Secret {
	t.Helper()
	secret, err := domain.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// requestTo makes a first attempt at a server. Its timeout is one that no test
// waits for.
func requestTo(t testing.TB, server string) relay.Request {
	t.Helper()
	return relay.Request{
		Webhook: &domain.Webhook{
			Settings:   domain.Settings{URL: server + pathAndQuery, Timeout: 30 * time.Second},
			Credential: domain.CredentialFromText(credential),
			Secret:     secretOf(t, standardSecret),
		},
		Notification: notification, Delivery: delivery,
		Event: "message_created", Attempt: 1, Body: []byte(`{"event":"message_created","id":1}`),
	}
}

// soon gives a request a timeout that a test can wait for.
func soon(request relay.Request) relay.Request {
	request.Webhook.Settings.Timeout = 2 * time.Second
	return request
}

// send sends and checks what holds for every outcome.
func send(t testing.TB, sender *httpsend.Sender, request relay.Request) domain.Outcome {
	t.Helper()
	o := sender.Send(t.Context(), request)
	check(t, o)
	if limit := request.Webhook.Settings.Timeout; o.Duration > limit+10*time.Second {
		t.Errorf("it took %s, the timeout is %s", o.Duration, limit)
	}
	return o
}

func check(t testing.TB, o domain.Outcome) {
	t.Helper()
	switch {
	case o.Kind == domain.OutcomeSucceeded && (o.Class != "" || o.Detail != "" || o.StatusCode/100 != 2):
		t.Errorf("a success with an error: %+v", o)
	case o.Kind == domain.OutcomeFailed && (o.Class == "" || o.Detail == ""):
		t.Errorf("a failure without a reason: %+v", o)
	case o.Kind != domain.OutcomeSucceeded && o.Kind != domain.OutcomeFailed:
		t.Errorf("neither success nor failure: %+v", o)
	case o.Duration <= 0:
		t.Errorf("no duration: %+v", o)
	}
	for _, secret := range []string{
		"hook-path", "query-token", "open-sesame", "alice", strings.TrimPrefix(standardSecret, "whsec_"), opaqueSecret, "YWxpY2U6", "v1,", "sha256=",
	} {
		if strings.Contains(o.Detail, secret) {
			t.Errorf("detail %q quotes %q", o.Detail, secret)
		}
	}
	if len(o.Detail) > 300 || !utf8.ValidString(o.Detail) {
		t.Errorf("detail %q is too long or no text", o.Detail)
	}
	if len(o.Excerpt) > httpsend.KeptBody || !utf8.ValidString(o.Excerpt) || strings.Contains(o.Excerpt, "\x00") {
		t.Errorf("excerpt %q", o.Excerpt)
	}
}

// want checks an outcome's class, status and words.
func want(t testing.TB, o domain.Outcome, class domain.ErrorClass, status int, words string) {
	t.Helper()
	if o.Class != class || o.StatusCode != status || !strings.Contains(o.Detail, words) {
		t.Errorf("got %q, status %d, %q; want %q, status %d, %q", o.Class, o.StatusCode, o.Detail, class, status, words)
	}
}

// listen opens a port of the loopback network and closes it with the test.
func listen(t testing.TB) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// nobody gives an address at which nobody listens, nor will while the test
// runs: it is the near end of a connection.
func nobody(t testing.TB) string {
	t.Helper()
	var dialer net.Dialer
	c, err := dialer.DialContext(t.Context(), "tcp", listen(t).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

// serve gives each connection, numbered from 1, to handle and closes it after
// that. It gives the URL.
func serve(t testing.TB, handle func(c net.Conn, number int)) string {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = l.Close() })
	wg.Go(func() {
		for number := 1; ; number++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c, number)
			})
		}
	})
	return "http://" + l.Addr().String()
}

// takeRequest reads a request and gives its bytes.
func takeRequest(c net.Conn) ([]byte, error) {
	var raw strings.Builder
	r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, &raw)))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return []byte(raw.String()), err
}

// answer makes a server that reads one request per connection and sends these
// bytes.
func answer(t testing.TB, response string) string {
	t.Helper()
	return serve(t, func(c net.Conn, _ int) {
		if _, err := takeRequest(c); err == nil {
			_, _ = io.WriteString(c, response)
		}
	})
}

// hang holds a connection until the other side closes it.
func hang(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func portOf(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// counting counts the connections that a server accepts.
func counting(server *httptest.Server) func() int {
	var mu sync.Mutex
	n := 0
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			mu.Lock()
			n++
			mu.Unlock()
		}
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}
