package web

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Config is what the pages work with.
type Config struct {
	Sessions Sessions
	Webhooks Webhooks
	Audit    Audit
	Replays  Replays
	// Explain says in words what an error of the database means and what mends
	// it, "" where it is not known, and whether what was asked for was refused
	// there. What it says is shown to people: it names no server, user or
	// password. nil explains nothing.
	Explain func(error) (problem, advice string, refused domain.Refusal)
	// Stopping is closed when the process begins to stop: what goes on until its
	// reader leaves ends then. nil is never.
	Stopping <-chan struct{}
	// LiveBeat is how often a live page to which nothing is sent gets a sign of
	// life, and its session is judged anew; 0 is 15 s. It keeps proxies from
	// taking the connection for idle.
	LiveBeat time.Duration
	// Addresses judges an IP address in a webhook's URL, as the relays do.
	Addresses domain.AddressPolicy
	// PublicURL is where people reach the pages; nil where it is what their
	// requests say. Its scheme tells whether cookies are for https only.
	PublicURL *url.URL
	// ClientAddress tells who sends a request, for the limit of log-ins that
	// fail; behind a proxy only its caller knows. nil takes the other end of the
	// connection.
	ClientAddress func(*http.Request) string
	// Version is shown at the foot of each page.
	Version string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Logger gets what goes wrong; nil is for none.
	Logger *slog.Logger
}

// pages serve everything below the root.
type pages struct {
	Config
	mux       *http.ServeMux
	origins   *http.CrossOriginProtection
	templates *templates
	logins    *loginLimit
	live      *live
	figures   *figures
	secure    bool // cookies are for https only
}

// New gives the handler of the pages, which are at the root of the site. It
// expects its caller to bound how long a request may take.
func New(config Config) (http.Handler, error) {
	if config.Sessions == nil || config.Webhooks == nil || config.Audit == nil || config.Replays == nil {
		return nil, errors.New("the pages need sessions, webhooks, the history and replays")
	}
	p := &pages{Config: config, mux: http.NewServeMux(), origins: http.NewCrossOriginProtection()}
	if p.Explain == nil {
		p.Explain = func(error) (string, string, domain.Refusal) { return "", "", domain.RefusedNot }
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
	if p.ClientAddress == nil {
		p.ClientAddress = func(r *http.Request) string {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			return host
		}
	}
	if p.PublicURL != nil {
		p.secure = p.PublicURL.Scheme == "https"
		// A proxy may send requests on under another host's name.
		if err := p.origins.AddTrustedOrigin(p.PublicURL.Scheme + "://" + p.PublicURL.Host); err != nil {
			return nil, err
		}
	}
	p.logins = newLoginLimit(p.Now)
	p.figures = &figures{history: p.Audit, kept: map[figuresKey]*keptFigures{}}
	p.live = newLive(p.Audit.Commits, p.Stopping, p.LiveBeat, p.Logger)
	var err error
	if p.templates, err = parseTemplates(p); err != nil {
		return nil, err
	}
	for _, r := range routes() {
		p.mux.Handle(r.Method+" "+r.Pattern, p.serve(r))
	}
	return p.guarded(), nil
}
