package web

import (
	"net/http"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// webhookRoutes are those of webhooks.
func webhookRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/accounts/{account}/webhooks", Permission: domain.Read}, (*pages).webhooks},
	}
}

// shownWebhooks is the list.
type shownWebhooks struct {
	// Search is what was looked for, Total how many there are without it.
	Search   string
	Total    int
	Webhooks []shownWebhook
}

// shownWebhook is a webhook in the list.
type shownWebhook struct {
	domain.Webhook
	// URL is as much of it as the session may see.
	URL    string
	Events string
}

// webhooks lists those of the account, or those that a search finds by name and
// URL.
func (p *pages) webhooks(w http.ResponseWriter, r *request) error {
	hooks, err := p.Webhooks.List(r.Context(), r.account)
	if err != nil {
		return err
	}
	shown := &shownWebhooks{Search: strings.TrimSpace(r.URL.Query().Get("q")), Total: len(hooks)}
	for _, hook := range hooks {
		row := shownWebhook{Webhook: hook, URL: shownURL(r, hook.Settings.URL), Events: labels(r.account, hook.Settings.Subscriptions)}
		if matches(shown.Search, hook.Settings.Name, row.URL) {
			shown.Webhooks = append(shown.Webhooks, row)
		}
	}
	return p.render(w, r, http.StatusOK, "webhooks", &view{Title: "Webhooks", Nav: "webhooks", Data: shown})
}

// matches reports whether each word of a search is somewhere in the texts,
// whatever its case.
func matches(search string, texts ...string) bool {
	all := strings.ToLower(strings.Join(texts, "\n"))
	for word := range strings.FieldsSeq(strings.ToLower(search)) {
		if !strings.Contains(all, word) {
			return false
		}
	}
	return true
}

// shownURL leaves out of a webhook's URL what may be a secret, the query, for
// those who may not see secrets.
func shownURL(r *request, url string) string {
	if r.may(domain.Reveal) {
		return url
	}
	if i := strings.IndexByte(url, '?'); i >= 0 {
		return url[:i] + "?…"
	}
	return url
}
