package httpsend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// dialer makes connections to hosts, of which each address is judged.
type dialer struct {
	addresses domain.AddressPolicy
	resolver  Resolver
	net       net.Dialer
}

// headStart is how long an address has to answer before the next one is tried
// beside it (RFC 8305, section 5).
const headStart = 250 * time.Millisecond

// maxAddresses bounds how many addresses of a name are tried.
const maxAddresses = 8

var errRefused = errors.New("the address is refused")

func newDialer(addresses domain.AddressPolicy, resolver Resolver) dialer {
	d := dialer{addresses: addresses, resolver: resolver}
	// Judged once more at the socket, just before it connects: whatever the
	// way by which an address came there.
	d.net.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		dialled, err := netip.ParseAddrPort(address)
		if err != nil {
			return errRefused
		}
		return d.judge(dialled.Addr())
	}
	return d
}

func (d *dialer) judge(ip netip.Addr) error {
	if _, refused := d.addresses.Refuse(ip); refused {
		return errRefused
	}
	return nil
}

// dial connects to a host and, for https, shakes hands.
func (d *dialer) dial(ctx context.Context, p *post) (*conn, *failure) {
	h := p.target.host
	ips, err := d.resolve(ctx, h)
	if err != nil {
		return nil, p.ended(ctx, err, "no answer from the name server about "+h.name, failure{class: domain.ErrorDNS, detail: h.name + ": " + dnsWords(err)})
	}
	tcp, ip, err := d.connect(ctx, ips, h.port)
	if errors.Is(err, errRefused) {
		return nil, refusedAddress(h)
	}
	if err != nil {
		return nil, p.ended(ctx, err, "no connection to "+h.String(), failure{domain.ErrorConnect, withWords("no connection to "+h.String(), err), ip})
	}
	c := &conn{Conn: tcp, tcp: tcp, host: h, ip: ip}
	c.watch(tcp)
	if h.tls == nil {
		return c, nil
	}
	secured := tls.Client(tcp, h.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		return nil, p.ended(ctx, err, "no TLS handshake with "+h.String(), failure{domain.ErrorTLS, tlsWords(h, err), c.ip})
	}
	c.Conn, c.http2 = secured, secured.ConnectionState().NegotiatedProtocol == "h2"
	return c, nil
}

// refusedAddress does not say which address: that would tell a tenant what our
// name server knows of our network.
func refusedAddress(h *host) *failure {
	return &failure{class: domain.ErrorRefusedAddress, detail: h.name + " has no address that may be dialled: private and reserved networks are refused"}
}

func (d *dialer) resolve(ctx context.Context, h *host) ([]netip.Addr, error) {
	if h.ip.IsValid() {
		return []netip.Addr{h.ip}, nil
	}
	found, err := d.resolver.LookupNetIP(ctx, "ip", h.name)
	if err == nil && len(found) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: h.name, IsNotFound: true}
	}
	return alternate(found), err
}

// alternate puts the two families in turn, beginning with the resolver's first
// (RFC 8305, section 4), and leaves out what would never be tried.
func alternate(ips []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, ip := range ips {
		ip = ip.Unmap()
		if len(first) == 0 || first[0].Is4() == ip.Is4() {
			first = append(first, ip)
		} else {
			second = append(second, ip)
		}
	}
	var all []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			all = append(all, first[i])
		}
		if i < len(second) {
			all = append(all, second[i])
		}
	}
	return all[:min(len(all), maxAddresses)]
}

// connect tries the addresses, each a head start after the one before or as
// soon as that failed, and keeps the first connection. Without any, the error
// is errRefused only if each address was refused; ip is one that was dialled.
func (d *dialer) connect(ctx context.Context, ips []netip.Addr, port uint16) (c *net.TCPConn, ip string, err error) {
	type result struct {
		conn *net.TCPConn
		ip   netip.Addr
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	running, next := 0, 0
	start := func() {
		ip := ips[next]
		next++
		running++
		go func() {
			var c *net.TCPConn
			err := d.judge(ip)
			if err == nil {
				c, err = d.net.DialTCP(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(ip, port))
			}
			results <- result{c, ip, err}
		}()
	}
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	var won, lost result
	for start(); running > 0; {
		select {
		case <-timer.C:
			if won.conn == nil && next < len(ips) && ctx.Err() == nil {
				start()
				timer.Reset(headStart)
			}
		case r := <-results:
			running--
			switch {
			case r.err == nil && won.conn == nil:
				won = r
				cancel() // the others come back at once
			case r.err == nil:
				_ = r.conn.Close()
			case won.conn == nil:
				if lost.err == nil || errors.Is(lost.err, errRefused) {
					lost = r
				}
				if next < len(ips) && ctx.Err() == nil {
					start()
					timer.Reset(headStart)
				}
			}
		}
	}
	if won.conn != nil {
		return won.conn, won.ip.WithZone("").String(), nil
	}
	return nil, lost.ip.WithZone("").String(), lost.err
}

func dnsWords(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns) && dns.IsTimeout:
		return "no answer from the name server"
	}
	return "the name server has no answer"
}

// tlsWords says what is wrong with a handshake. The receiver has not seen the
// request by then, so that the text can hold nothing of it.
func tlsWords(h *host, err error) string {
	var hostname x509.HostnameError
	switch text := words(err); {
	case errors.As(err, &hostname):
		return "the certificate is not for this host: " + hostname.Error()
	case text != "":
		return fmt.Sprintf("no TLS handshake with %s: %s", h, text)
	}
	return err.Error()
}
