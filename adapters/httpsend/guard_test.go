package httpsend_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// refusedAddresses has at least one address of each block that domain refuses.
var refusedAddresses = []string{
	"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
	"192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
	"240.0.0.1", "255.255.255.255",
	"::", "::1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "5f00::1",
	"fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1",
	"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
}

func refuseAll(c *httpsend.Config) { c.Addresses = domain.AddressPolicy{} }

func checkRefused(t *testing.T, o domain.Outcome, host string) {
	t.Helper()
	check(t, o)
	want(t, o, domain.ErrorRefusedAddress, 0, host+" has no address that may be dialled")
	if o.RemoteIP != "" {
		t.Errorf("remote IP %s, although nothing was dialled", o.RemoteIP)
	}
}

func TestRefusedAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range refusedAddresses {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			ip := netip.MustParseAddr(address)
			literal := "http://" + net.JoinHostPort(strings.ReplaceAll(address, "%", "%25"), "80")
			checkRefused(t, send(t, newSender(t, refuseAll), requestTo(t, literal)), ip.String())

			o := send(t, newSender(t, refuseAll, resolve(address)), requestTo(t, "https://hooks.example.com"))
			checkRefused(t, o, "hooks.example.com")
			if strings.Contains(o.Detail, ip.Unmap().String()) {
				t.Errorf("%q tells where the name leads", o.Detail)
			}
		})
	}
}

// Spellings of 127.0.0.1 that only some resolvers know.
func TestRefusedSpellings(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "LOCALHOST.", "１２７.0.0.1"} {
		sender := newSender(t, refuseAll, resolve("127.0.0.1"))
		if o := send(t, sender, requestTo(t, "http://"+host)); o.Class != domain.ErrorRefusedAddress {
			t.Errorf("%s: %+v", host, o)
		}
	}
}

func TestOneAddressOfManyIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for _, addresses := range [][]string{{"10.0.0.1", "127.0.0.1"}, {"127.0.0.1", "10.0.0.1"}, {"fd00::1", "10.0.0.1", "::ffff:127.0.0.1"}} {
		sender := newSender(t, resolve(addresses...))
		o := send(t, sender, requestTo(t, "http://hooks.example.com:"+portOf(t, server.URL)))
		want(t, o, domain.ErrorStatus, 404, "")
		if o.RemoteIP != "127.0.0.1" {
			t.Errorf("of %v, %s was dialled", addresses, o.RemoteIP)
		}
	}
}

// Where one address is refused and another does not answer, the second is what
// the webhook's owner can do something about.
func TestRefusalDoesNotHideAnError(t *testing.T) {
	t.Parallel()
	closed := nobody(t)
	for _, addresses := range [][]string{{"10.0.0.1", "127.0.0.1"}, {"127.0.0.1", "10.0.0.1"}} {
		o := send(t, newSender(t, resolve(addresses...)), requestTo(t, "http://hooks.example.com:"+portOf(t, "http://"+closed)))
		want(t, o, domain.ErrorConnect, 0, "no connection to hooks.example.com:")
		if o.RemoteIP != "127.0.0.1" {
			t.Errorf("of %v, %s was dialled", addresses, o.RemoteIP)
		}
	}
}

// The next address is tried where one does not answer.
func TestNextAddress(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	sender := newSender(t, resolve("127.0.0.2", "127.0.0.1"))
	o := send(t, sender, requestTo(t, "http://hooks.example.com:"+portOf(t, server.URL)))
	want(t, o, domain.ErrorNone, 200, "")
	if o.RemoteIP != "127.0.0.1" {
		t.Errorf("%s was dialled", o.RemoteIP)
	}
}

func TestRebinding(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }))
	t.Cleanup(server.Close)
	var asked atomic.Int64
	sender := newSender(t, func(c *httpsend.Config) {
		c.Resolver = resolver(func(context.Context, string) ([]netip.Addr, error) {
			if asked.Add(1) == 1 {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
		})
	})
	request := requestTo(t, "http://hooks.example.com:"+portOf(t, server.URL))
	want(t, send(t, sender, request), domain.ErrorNone, 200, "")
	checkRefused(t, send(t, sender, request), "hooks.example.com")
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	var location string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, location, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(server.Close)
	for _, location = range []string{"http://169.254.169.254/latest/meta-data", "/elsewhere"} {
		requests.Store(0)
		want(t, send(t, newSender(t), requestTo(t, server.URL)), domain.ErrorStatus, 307, "HTTP 307 Temporary Redirect; redirects are not followed")
		if n := requests.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestDNS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		lookup func(ctx context.Context) ([]netip.Addr, error)
		class  domain.ErrorClass
		words  string
	}{
		{"NotFound", func(context.Context) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "hooks.example.com", Server: "10.0.0.53:53", IsNotFound: true}
		}, domain.ErrorDNS, "hooks.example.com: no such host"},
		{"NoAddresses", func(context.Context) ([]netip.Addr, error) { return nil, nil }, domain.ErrorDNS, "hooks.example.com: no such host"},
		{"ServerFailed", func(context.Context) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "server misbehaving", Name: "hooks.example.com", Server: "10.0.0.53:53", IsTemporary: true}
		}, domain.ErrorDNS, "hooks.example.com: the name server has no answer"},
		{"ServerIsAway", func(context.Context) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "read udp 10.0.0.7:1->10.0.0.53:53: i/o timeout", Server: "10.0.0.53:53", IsTimeout: true}
		}, domain.ErrorDNS, "hooks.example.com: no answer from the name server"},
		{"TooSlow", func(ctx context.Context) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, domain.ErrorTimeout, "no answer from the name server about hooks.example.com within 2s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sender := newSender(t, func(config *httpsend.Config) {
				config.Resolver = resolver(func(ctx context.Context, host string) ([]netip.Addr, error) {
					if host != "hooks.example.com" {
						t.Errorf("%q was resolved", host)
					}
					return c.lookup(ctx)
				})
			})
			o := send(t, sender, soon(requestTo(t, "http://hooks.example.com")))
			want(t, o, c.class, 0, c.words)
			if strings.Contains(o.Detail, "10.0.0.") {
				t.Errorf("%q tells of our network", o.Detail)
			}
			if o.RemoteIP != "" {
				t.Errorf("remote IP is %q", o.RemoteIP)
			}
		})
	}
}

// A name that is not ASCII is resolved, and named to the receiver, in ASCII.
func TestInternationalName(t *testing.T) {
	t.Parallel()
	hosts := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hosts <- r.Host }))
	t.Cleanup(server.Close)
	sender := newSender(t, func(c *httpsend.Config) {
		c.Resolver = resolver(func(_ context.Context, host string) ([]netip.Addr, error) {
			if host != "xn--bcher-kva.example" {
				t.Errorf("%q was resolved", host)
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		})
	})
	want(t, send(t, sender, requestTo(t, "http://Bücher.example:"+portOf(t, server.URL))), domain.ErrorNone, 200, "")
	if host := <-hosts; host != "xn--bcher-kva.example:"+portOf(t, server.URL) {
		t.Errorf("host is %q", host)
	}
}

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	closed := nobody(t)
	o := send(t, newSender(t), requestTo(t, "http://"+closed))
	want(t, o, domain.ErrorConnect, 0, "no connection to "+closed+": connection refused")
	if o.RemoteIP != "127.0.0.1" {
		t.Errorf("remote IP is %q", o.RemoteIP)
	}
}

// The proxies of the environment are not for webhooks.
func TestEnvironmentProxyIsNotUsed(t *testing.T) {
	proxy := serve(t, func(net.Conn, int) { t.Error("the proxy was used") })
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("HTTPS_PROXY", proxy)
	t.Setenv("ALL_PROXY", proxy)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	secured := httptest.NewUnstartedServer(server.Config.Handler)
	secured.EnableHTTP2 = true
	secured.StartTLS()
	t.Cleanup(secured.Close)
	sender := newSender(t, resolve("127.0.0.1"), trust(secured))
	want(t, send(t, sender, requestTo(t, "http://example.com:"+portOf(t, server.URL))), domain.ErrorNone, 200, "")
	want(t, send(t, sender, requestTo(t, "https://example.com:"+portOf(t, secured.URL))), domain.ErrorNone, 200, "")
}

// A webhook that hangs delays no other at the same sender (P5), nor at the
// same host.
func TestHangingWebhookDelaysNoOther(t *testing.T) {
	t.Parallel()
	const hanging = 64
	arrived, over := make(chan struct{}, hanging), make(chan struct{})
	server := serve(t, func(c net.Conn, _ int) {
		for {
			raw, err := takeRequest(c)
			if err != nil {
				return
			}
			if strings.Contains(string(raw), "Outrider-Event: hang") {
				arrived <- struct{}{}
				hang(c)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	sender := newSender(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(over)
		done := make(chan struct{})
		for range hanging {
			go func() {
				defer func() { done <- struct{}{} }()
				request := requestTo(t, server)
				request.Event = "hang"
				sender.Send(ctx, request)
			}()
		}
		for range hanging {
			<-done
		}
	}()
	for range hanging {
		<-arrived
	}
	for range 100 {
		want(t, send(t, sender, requestTo(t, server)), domain.ErrorNone, 204, "")
	}
	cancel()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Error("cancelled sends do not return")
	}
}
