package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// Config says what the APIs work with.
type Config struct {
	// Tokens tells whose token one is.
	Tokens Tokens
	// Webhooks keeps the webhooks.
	Webhooks Webhooks
	// Addresses judges an IP address written in a URL.
	Addresses domain.AddressPolicy
	// MaskSecrets makes Chatwoot's API show a secret once, in the answer to the
	// request that creates its webhook, and else a mask.
	MaskSecrets bool
	// TrustedProxies are the networks of the proxies before this server. Behind
	// one of them the client is who X-Forwarded-For names; from anywhere else
	// that header is not looked at.
	TrustedProxies []netip.Prefix
	// RequestsPerMinute bounds the requests of one token, as many at once
	// included. 0: DefaultRequestsPerMinute.
	RequestsPerMinute int
	// Log takes what goes wrong here. No token, secret or header is in it.
	Log *slog.Logger
	// Clock is time.Now where it is nil.
	Clock func() time.Time

	// History, Replays and Relays are what Outrider's own API has beside webhooks.
	// ended asks for relays too that ended lately.
	History History
	Replays Replays
	Relays  func(ctx context.Context, ended bool) ([]audit.Relay, error)
	// Explain says what an error of the database means: what it gives may tell
	// that the database is away, or why it refused something.
	Explain func(error) error
}

// DefaultRequestsPerMinute is what Chatwoot lets through of one address.
const DefaultRequestsPerMinute = 3000

// API answers both APIs, whose paths begin with /api/. It is safe for concurrent
// use.
type API struct {
	config Config
	gate   *gate
	routes routes
}

// New makes the APIs.
func New(config Config) *API {
	if config.RequestsPerMinute == 0 {
		config.RequestsPerMinute = DefaultRequestsPerMinute
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	a := &API{config: config, gate: newGate(&config)}
	a.addChatwoot()
	a.addV1()
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.routes.ServeHTTP(w, r) }

// Routes gives the patterns of all routes, as http.ServeMux takes them: "GET
// /api/v1/accounts/{account}/webhooks".
func (a *API) Routes() []string { return slices.Clone(a.routes.patterns) }

// routes is a mux that knows its patterns: a test walks them all.
type routes struct {
	mux      http.ServeMux
	patterns []string
}

// HandleFunc is that of http.ServeMux.
func (s *routes) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	s.Handle(pattern, http.HandlerFunc(handler))
}

// Handle is that of http.ServeMux.
func (s *routes) Handle(pattern string, handler http.Handler) {
	s.mux.Handle(pattern, handler)
	s.patterns = append(s.patterns, pattern)
}

// ServeHTTP implements http.Handler.
func (s *routes) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }
