package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Site is a process that serves the pages and the APIs.
type Site struct {
	Process
	// URL is its root, Token that of an administrator of all accounts.
	URL, Token string
}

// pageBound is how long people wait for a page, or programs for a list, in
// milliseconds.
const pageBound = 100

// sitePage is a page, or a list of an API.
type sitePage struct {
	name, title string
	// path is asked for with what stands in braces filled in.
	path string
}

var sitePages = []sitePage{
	{"page_overview", "the page of an account", "/accounts/{account}"},
	{"page_webhooks", "the page of its webhooks", "/accounts/{account}/webhooks"},
	{"page_webhook", "the page of a webhook", "/accounts/{account}/webhooks/{webhook}"},
	{"page_deliveries", "the page of its deliveries", "/accounts/{account}/deliveries"},
	{"page_dead", "the page of its dead deliveries", "/accounts/{account}/deliveries?status=dead"},
	{"page_event", "the page of an event", "/accounts/{account}/events/{event}"},
	{"api_deliveries", "the API's list of its deliveries", "/api/outrider/v1/accounts/{account}/deliveries?limit=50"},
	{"api_attempts", "the API's list of its attempts", "/api/outrider/v1/accounts/{account}/attempts?limit=50"},
	{"api_events", "the API's list of its events", "/api/outrider/v1/accounts/{account}/events?limit=50"},
	{"api_health", "the API's list of how its webhooks do", "/api/outrider/v1/accounts/{account}/health"},
	{"api_chatwoot", "Chatwoot's list of its webhooks", "/api/v1/accounts/{account}/webhooks"},
}

// anEventOf is the event in the middle of an account's.
const anEventOf = `
SELECT event_id::text FROM audit.events WHERE account_id = $1 AND routed_at IS NOT NULL
   AND seq <= (SELECT last_value / 2 FROM outbox.events_seq_seq) ORDER BY seq DESC LIMIT 1`

// of gives the path for an account.
func (p *sitePage) of(ctx context.Context, db *sql.DB, account int) (string, error) {
	path := strings.Replace(p.path, "{account}", fmt.Sprint(account), 1)
	for name, query := range map[string]string{"{webhook}": webhookOf, "{event}": anEventOf} {
		if !strings.Contains(path, name) {
			continue
		}
		var id string
		if err := db.QueryRowContext(ctx, query, account).Scan(&id); err != nil {
			return "", err
		}
		path = strings.Replace(path, name, id, 1)
	}
	return path, nil
}

// sitePages measures what people and programs wait for, from their end of the
// connection: the slowest of what several accounts ask for.
func (r *Run) sitePages(ctx context.Context, db *Database, m *measures, progress Progress) (err error) {
	site, err := r.Rig.Site(ctx, db)
	if err != nil {
		return err
	}
	defer func() {
		_, stopErr := site.Stop(ctx)
		err = errors.Join(err, stopErr)
	}()
	v, err := newVisitor(ctx, site)
	if err != nil {
		return fmt.Errorf("log in to the pages: %w", err)
	}
	for i := range sitePages {
		p := &sitePages[i]
		progress.Step = p.title
		r.Progress(progress)
		var took []float64
		for probe := -1; probe < probes; probe++ { // the first one, asked once more before, fills the caches
			path, err := p.of(ctx, db.DB, FirstAccount+accountOf(max(0, probe)))
			if err != nil {
				return fmt.Errorf("%s: %w", p.title, err)
			}
			begun := time.Now()
			if _, err := v.get(ctx, path); err != nil {
				return fmt.Errorf("%s: %w", p.title, err)
			}
			if probe >= 0 {
				took = append(took, milliseconds(time.Since(begun)))
			}
		}
		m.add(p.name+"_median", p.title, Milliseconds, Lower, Median(took))
		m.add(p.name, fmt.Sprintf("the slowest of %d", probes), Milliseconds, Lower, Percentile(took, 100))
		m.atMost(p.name, pageBound)
	}
	return nil
}

// visitor has logged in, and has a token for the APIs.
type visitor struct {
	site *Site
	http.Client
}

var formToken = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

func newVisitor(ctx context.Context, site *Site) (*visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	v := &visitor{site, http.Client{Jar: jar, Timeout: time.Minute}}
	form, err := v.get(ctx, "/login")
	if err != nil {
		return nil, err
	}
	found := formToken.FindStringSubmatch(form)
	if found == nil {
		return nil, errors.New("the page has no form with a token")
	}
	fields := url.Values{"form_token": {found[1]}, "token": {site.Token}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, site.URL+"/login", strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err = v.send(request)
	return v, err
}

func (v *visitor) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.site.URL+path, http.NoBody)
	if err != nil {
		return "", err
	}
	switch {
	case strings.HasPrefix(path, "/api/outrider/"):
		request.Header.Set("Authorization", "Bearer "+v.site.Token)
	case strings.HasPrefix(path, "/api/"):
		request.Header.Set("Api-Access-Token", v.site.Token)
	}
	return v.send(request)
}

// send gives the body of an answer, redirects followed, which must be a 200.
func (v *visitor) send(request *http.Request) (string, error) {
	response, err := v.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", request.URL.Path, response.Status)
	}
	return string(body), err
}
