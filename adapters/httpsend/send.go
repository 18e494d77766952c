package httpsend

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

var _ relay.Sender = (*Sender)(nil)

// The limits of what a receiver may make us hold or wait for.
const (
	// keptBody is how much of a response body an outcome keeps, in bytes.
	keptBody = 4 << 10
	// readBody is how much of it is read, so that the connection can be used
	// again. The rest of a longer one is cut off with its connection.
	readBody = 16 << 10
	// maxHeader bounds a response's header, with any 1xx answers before it.
	maxHeader = 64 << 10
	// maxDetail bounds Outcome.Detail, in bytes.
	maxDetail = 300
	// maxIdle is how many connections may wait for their next POST, those of
	// all hosts together: as many as a relay has attempts under way. There is
	// no limit per host, since many webhooks may live at one.
	maxIdle = 4096
	// idleTimeout is how long one waits; most servers close it before.
	idleTimeout = 90 * time.Second
)

// Config says how to send.
type Config struct {
	// UserAgentVersion is sent as "User-Agent: Outrider/VERSION"; "dev" if empty.
	UserAgentVersion string
	// Addresses judges each address that is dialled. The zero value refuses
	// all that is not public.
	Addresses domain.AddressPolicy
	// Resolver finds the addresses of names; net.DefaultResolver if nil.
	Resolver Resolver
	// RootCAs are trusted for https; the system's if nil.
	RootCAs *x509.CertPool
	// EgressProxy, if set, is where all POSTs go through: an http, https or
	// socks5 URL. It bypasses the guard: Addresses judges only the addresses
	// that are written in webhook URLs, since names are resolved by the proxy,
	// which must refuse private networks itself. The proxies named in the
	// environment are never used.
	EgressProxy *url.URL
	// Now gives the time of webhook-timestamp, of a rotation's end, and of what
	// Retry-After names by its date; time.Now if nil.
	Now func() time.Time
}

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

func (c *Config) setDefaults() {
	if c.UserAgentVersion == "" {
		c.UserAgentVersion = "dev"
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func (c *Config) validate() error {
	for i := range len(c.UserAgentVersion) {
		if b := c.UserAgentVersion[i]; b <= ' ' || b > '~' {
			return errors.New("the version for the User-Agent has a character that is not printable ASCII")
		}
	}
	if c.EgressProxy != nil {
		switch c.EgressProxy.Scheme {
		case "http", "https", "socks5", "socks5h":
		default:
			return fmt.Errorf("the egress proxy's scheme %q is not http, https or socks5", c.EgressProxy.Scheme)
		}
		if c.EgressProxy.Hostname() == "" {
			return errors.New("the egress proxy's URL has no host")
		}
	}
	return nil
}

// Sender makes POSTs. It is safe for use by many goroutines; webhooks at one
// host share its idle connections, and nothing else: no webhook waits for
// another.
type Sender struct {
	config    Config
	dialer    dialer
	pool      *pool
	targets   targets
	transport *http.Transport
	buffers   sync.Pool // *[]byte: requests being built
}

// New makes a Sender. It opens no connection yet.
func New(config Config) (*Sender, error) {
	config.setDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("invalid config: %w", err)
	}
	s := &Sender{
		config:  config,
		dialer:  newDialer(config.Addresses, config.Resolver),
		pool:    newPool(maxIdle),
		targets: targets{userAgent: "Outrider/" + config.UserAgentVersion, rootCAs: config.RootCAs},
		buffers: sync.Pool{New: func() any { return new([]byte) }},
	}
	s.transport = s.newTransport()
	return s, nil
}

// CloseIdle closes the connections that wait for their next POST. Those under
// way are not touched, and the Sender can be used again.
func (s *Sender) CloseIdle() {
	s.pool.closeIdle()
	s.transport.CloseIdleConnections()
}

// post is a POST that is being made.
type post struct {
	target   *target
	timeout  time.Duration
	deadline time.Time
	// request is the request line and the header with its blank line, followed
	// by the body unless that is long; header is what of it stands behind Host.
	request, header []byte
	body            []byte
}

// shortBody is how long a body may be, in bytes, to be sent in one piece with
// the header. The buffers of a TCP connection take both, so that the write ends
// although the receiver may answer without reading.
const shortBody = 12 << 10

// Send makes the POST of an attempt: dial, handshake, request and response end
// with the webhook's timeout, or when ctx does, whichever is earlier. The
// outcome is a success where the status is 2xx and the response's body came to
// its end, or past 16 KiB, in that time; then it is cut off. A failure says in
// Class how far the attempt came; any answer but 2xx is ErrorStatus, whatever
// became of its body. Detail quotes neither the URL's path or query nor a
// header, nor anything that the receiver sent.
func (s *Sender) Send(ctx context.Context, request relay.Request) domain.Outcome {
	start := time.Now()
	outcome := s.send(ctx, &request, start)
	outcome.Duration = time.Since(start)
	return outcome
}

func (s *Sender) send(ctx context.Context, request *relay.Request, start time.Time) domain.Outcome {
	target, err := s.targets.find(request.Webhook)
	if err != nil {
		return failed(&failure{class: domain.ErrorConnect, detail: err.Error()})
	}
	p := &post{target: target, timeout: request.Webhook.Settings.Timeout, body: request.Body}
	if p.timeout <= 0 {
		p.timeout = domain.DefaultTimeout
	}
	p.deadline = start.Add(p.timeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(p.deadline) {
		p.deadline = earlier
	}
	if err := ctx.Err(); err != nil {
		return failed(p.ended(ctx, err, "nothing was sent", failure{}))
	}

	buffer, _ := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buffer)
	b := (*buffer)[:0]
	b = append(b, target.start...)
	b = target.appendHeader(b, request, s.config.Now())
	end := len(b)
	if len(p.body) <= shortBody {
		b = append(b, p.body...)
	}
	*buffer = b
	p.request, p.header = b, b[len(target.start):end]

	if s.config.EgressProxy != nil {
		return s.viaProxy(ctx, p)
	}
	return s.http1(ctx, p)
}
