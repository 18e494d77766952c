package httpsend

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// target is what a webhook's URL, headers and secrets mean for a request, worked out
// once for all its POSTs.
type target struct {
	url   *url.URL
	host  *host
	start []byte // the request line and the Host line
	fixed []byte // the lines of the header that are the same in each POST

	standard, chatwoot                 *signer // nil where there is no secret
	previousStandard, previousChatwoot *signer // nil where the secret was not changed
}

// host is one origin: scheme, name and port.
type host struct {
	key  string     // "https://example.com:443"
	name string     // as it is resolved: ASCII, without brackets
	ip   netip.Addr // the name, where it is an address
	port uint16
	tls  *tls.Config // nil for http
	// http2 is set once the host has chosen HTTP/2.
	http2 atomic.Bool
	idle  []*conn // the pool's; the one used last stands last
}

func (h *host) String() string { return net.JoinHostPort(h.name, strconv.Itoa(int(h.port))) }

const (
	// maxTargets is how many webhooks are remembered. A relay with more of them
	// works their requests out anew from time to time.
	maxTargets = 8192
	// maxSessions is how many TLS sessions are kept, some KiB each: they spare
	// a host that is dialled again most of the handshake.
	maxSessions = 1024
)

// targets remembers targets and hosts.
type targets struct {
	userAgent string
	rootCAs   *x509.CertPool

	mu       sync.RWMutex
	known    map[targetKey]*target
	hosts    map[string]*host
	sessions tls.ClientSessionCache
}

// targetKey is all of a webhook that a target is made of, so that none outlives
// a change of its webhook.
type targetKey struct {
	url                          string
	credential, secret, previous domain.Secret
	headers                      domain.Headers
}

// find gives the target of a webhook. The error says why its URL cannot be
// used, without quoting it.
func (ts *targets) find(w *domain.Webhook) (*target, error) {
	key := targetKey{w.Settings.URL, w.Credential, w.Secret, w.PreviousSecret, w.Headers}
	ts.mu.RLock()
	t := ts.known[key]
	ts.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	t, h, err := newTarget(key, ts.userAgent)
	if err != nil {
		return nil, err
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.known == nil || len(ts.known) >= maxTargets {
		// The idle connections of forgotten hosts end with their time.
		ts.known, ts.hosts = map[targetKey]*target{}, map[string]*host{}
		ts.sessions = tls.NewLRUClientSessionCache(maxSessions)
	}
	if same := ts.hosts[h.key]; same != nil {
		h = same
	} else {
		if h.tls != nil {
			h.tls.RootCAs, h.tls.ClientSessionCache = ts.rootCAs, ts.sessions
		}
		ts.hosts[h.key] = h
	}
	t.host = h
	ts.known[key] = t
	return t, nil
}

var errURL = errors.New("the webhook's URL cannot be used")

// newTarget leaves the request line, the Host line and their checks to
// net/http, which knows how to spell names that are not ASCII.
func newTarget(key targetKey, userAgent string) (*target, *host, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, key.url, http.NoBody)
	if err != nil || r.URL.Opaque != "" {
		return nil, nil, errURL
	}
	ip, _ := netip.ParseAddr(r.URL.Hostname()) // the Host line will have no zone
	r.URL.Host = strings.ToLower(r.URL.Host)
	r.Host = r.URL.Host
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		return nil, nil, errURL
	}
	lines := strings.SplitAfterN(wire.String(), "\r\n", 3)
	path := strings.TrimSuffix(strings.TrimPrefix(lines[0], "POST "), " HTTP/1.1\r\n")
	authority, ok := strings.CutPrefix(lines[1], "Host: ")
	if !ok || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, nil, errURL
	}
	h, err := newHost(r.URL.Scheme, strings.TrimSpace(authority), ip)
	if err != nil {
		return nil, nil, err
	}

	t := &target{url: r.URL, start: []byte(lines[0] + lines[1])}
	t.fixed = appendLine(t.fixed, "User-Agent", userAgent)
	t.fixed = appendLine(t.fixed, "Content-Type", "application/json")
	t.fixed = appendLine(t.fixed, "Accept", "application/json")
	if !key.credential.IsZero() {
		t.fixed = appendLine(t.fixed, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key.credential.Reveal())))
	}
	for name, value := range key.headers.All() {
		t.fixed = appendLine(t.fixed, name, value)
	}
	t.standard, t.chatwoot = signersOf(key.secret)
	t.previousStandard, t.previousChatwoot = signersOf(key.previous)
	return t, h, nil
}

// newHost makes a host of what stands in the Host line. ip is the address that
// the URL has in place of a name, if it has one.
func newHost(scheme, authority string, ip netip.Addr) (*host, error) {
	u := url.URL{Host: authority}
	h := &host{name: u.Hostname(), ip: ip}
	if ip.IsValid() {
		h.name = ip.String()
	}
	port := u.Port()
	switch scheme {
	case "http":
		port = cmp.Or(port, "80")
	case "https":
		port = cmp.Or(port, "443")
		h.tls = &tls.Config{
			ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			DynamicRecordSizingDisabled: true, // a request in one record, one write
		}
	default:
		return nil, errURL
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || h.name == "" {
		return nil, errURL
	}
	h.port = uint16(n)
	h.key = scheme + "://" + h.String()
	return h, nil
}

func signersOf(secret domain.Secret) (standard, chatwoot *signer) {
	if secret.IsZero() {
		return nil, nil
	}
	return newSigner(secret.StandardKey()), newSigner([]byte(secret.Reveal()))
}

// appendHeader adds the header behind the Host line, blank line included.
func (t *target) appendHeader(b []byte, r *relay.Request, now time.Time) []byte {
	b = append(b, t.fixed...)
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.Body)), 10)
	b = append(b, "\r\n"...)

	id, timestamp := r.Notification.String(), strconv.FormatInt(now.Unix(), 10)
	b = appendLine(b, "webhook-id", id)
	b = appendLine(b, "webhook-timestamp", timestamp)
	rotating := t.previousStandard != nil && now.Before(r.Webhook.PreviousUntil)
	if t.standard != nil {
		b = append(b, "webhook-signature: "...)
		b = t.standard.appendStandard(b, id, timestamp, r.Body)
		if rotating {
			b = append(b, ' ')
			b = t.previousStandard.appendStandard(b, id, timestamp, r.Body)
		}
		b = append(b, "\r\n"...)
	}
	b = appendLine(b, "X-Chatwoot-Delivery", id)
	if t.chatwoot != nil {
		b = appendLine(b, "X-Chatwoot-Timestamp", timestamp)
		b = append(b, "X-Chatwoot-Signature: "...)
		// The header has room for one signature: receivers that read it have
		// until the rotation's end to learn the new secret.
		if rotating {
			b = t.previousChatwoot.appendChatwoot(b, timestamp, r.Body)
		} else {
			b = t.chatwoot.appendChatwoot(b, timestamp, r.Body)
		}
		b = append(b, "\r\n"...)
	}
	b = appendLine(b, "Outrider-Event", r.Event)
	b = appendLine(b, "Outrider-Delivery", r.Delivery.String())
	b = appendLine(b, "Outrider-Attempt", strconv.Itoa(r.Attempt))
	if r.Attempt > 1 && r.Previous != domain.OutcomeNone {
		b = appendLine(b, "Outrider-Previous-Outcome", string(r.Previous))
	}
	if r.Replay != 0 {
		b = appendLine(b, "Outrider-Replay", strconv.FormatInt(int64(r.Replay), 10))
	}
	if validTraceparent(r.Traceparent) {
		b = appendLine(b, "traceparent", r.Traceparent)
	}
	return append(b, "\r\n"...)
}

// appendLine adds a line to a header. What is not printable in the value
// becomes '?', so that no value can begin a line of its own.
func appendLine(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	for i := range len(value) {
		if c := value[i]; c >= ' ' && c <= '~' {
			b = append(b, c)
		} else {
			b = append(b, '?')
		}
	}
	return append(b, "\r\n"...)
}

// validTraceparent checks the form of W3C Trace Context, section 3.2: version,
// trace id, parent id and flags in lower-case hex, the ids not all zero.
func validTraceparent(s string) bool {
	if len(s) != len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") {
		return false
	}
	var zeroTrace, zeroParent = true, true
	for i := range len(s) {
		switch c := s[i]; {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		case i > 2 && i < 35 && c != '0':
			zeroTrace = false
		case i > 35 && i < 52 && c != '0':
			zeroParent = false
		}
	}
	return s[:2] != "ff" && !zeroTrace && !zeroParent
}
