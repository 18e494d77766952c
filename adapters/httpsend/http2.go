package httpsend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// The health check of HTTP/2 connections: requests share one, and without it
// each would run into its deadline on a connection whose other side is gone.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// newTransport makes the transport for HTTP/2, or for the egress proxy. It
// speaks HTTP/1.1 as well: a host may change its mind.
func (s *Sender) newTransport() *http.Transport {
	t := &http.Transport{
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the excerpt shows what was sent
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		WriteBufferSize:        8 << 10, // a header and a chat event in one piece
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	if s.config.EgressProxy == nil {
		t.DialTLSContext = s.dialTLS
		return t
	}
	t.Proxy = http.ProxyURL(s.config.EgressProxy)
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.config.RootCAs}
	t.TLSHandshakeTimeout = proxyTimeout
	t.DialContext = (&net.Dialer{Timeout: proxyTimeout}).DialContext
	return t
}

// proxyTimeout ends dials and handshakes by way of a proxy, which the
// transport lets go on when their POST has run out of time. No webhook has a
// longer timeout.
const proxyTimeout = 30 * time.Second

// passed goes with a request through the transport to dialTLS. The transport
// dials in a goroutine that outlives the request, hence the deadline.
type passed struct {
	post *post
	conn atomic.Pointer[conn] // one that is there already
}

type passedKey struct{}

func (s *Sender) dialTLS(ctx context.Context, _, _ string) (net.Conn, error) {
	with, ok := ctx.Value(passedKey{}).(*passed)
	if !ok {
		return nil, errors.New("not a request of this package")
	}
	if c := with.conn.Swap(nil); c != nil {
		return c.Conn, nil
	}
	c, failure := s.dial(ctx, with.post)
	if failure != nil {
		return nil, failure
	}
	return c.Conn, nil
}

// viaProxy makes a POST through the egress proxy. Names are the proxy's to
// judge.
func (s *Sender) viaProxy(ctx context.Context, p *post) domain.Outcome {
	if h := p.target.host; h.ip.IsValid() && s.dialer.judge(h.ip) != nil {
		return failed(refusedAddress(h))
	}
	return s.http2(ctx, p, nil)
}

// http2 makes a POST through the transport, to which it may hand a connection.
func (s *Sender) http2(parent context.Context, p *post, c *conn) domain.Outcome {
	with := &passed{post: p}
	with.conn.Store(c)
	defer func() {
		if left := with.conn.Swap(nil); left != nil {
			_ = left.Close() // another connection took the request
		}
	}()
	ctx, cancel := context.WithDeadline(context.WithValue(parent, passedKey{}, with), p.deadline)
	defer cancel()
	ip := ""
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if tcp, ok := got.Conn.RemoteAddr().(*net.TCPAddr); ok {
			ip = tcp.AddrPort().Addr().Unmap().WithZone("").String()
		}
	}})
	response, err := s.transport.RoundTrip(p.httpRequest(ctx))
	if err != nil {
		return failed(p.unanswered(parent, err, ip))
	}
	outcome, _ := s.answered(parent, p, responseOf(response), ip)
	_ = response.Body.Close()
	return outcome
}

// httpRequest is the request that the bytes are. The header's names keep their
// spelling where the protocol keeps it.
func (p *post) httpRequest(ctx context.Context) *http.Request {
	header := make(http.Header, 20)
	for line := range strings.SplitSeq(strings.TrimSuffix(string(p.header), "\r\n\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		header[name] = append(header[name], value)
	}
	delete(header, "Content-Length") // the transport's own
	r := &http.Request{
		Method: http.MethodPost, URL: p.target.url, Host: p.target.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(p.body)), Body: http.NoBody,
	}
	if body := p.body; len(body) > 0 {
		// For a request that an HTTP/2 server says it has not looked at.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	return r.WithContext(ctx)
}

// unanswered is the failure of a request that the transport could not make.
func (p *post) unanswered(ctx context.Context, err error, ip string) *failure {
	var dialled *failure
	switch h := p.target.host; {
	case errors.As(err, &dialled):
		return dialled
	case tlsFault(err):
		return &failure{domain.ErrorTLS, tlsWords(h, err), ip}
	case ip != "":
		return p.ended(ctx, err, "no answer", failure{domain.ErrorReset, withWords("the connection broke before an answer came", err), ip})
	default:
		return p.ended(ctx, err, "no connection to "+h.String(), failure{domain.ErrorConnect, withWords("no connection to "+h.String(), err), ""})
	}
}
