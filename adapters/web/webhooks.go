package web

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// webhookRoutes are those of webhooks.
func webhookRoutes() []route {
	const list, one = "/accounts/{account}/webhooks", "/accounts/{account}/webhooks/{id}"
	return []route{
		{Route{Method: "GET", Pattern: list, Permission: domain.Read}, (*pages).webhooks},
		{Route{Method: "POST", Pattern: list, Permission: domain.Configure}, (*pages).addWebhook},
		{Route{Method: "GET", Pattern: list + "/new", Permission: domain.Configure}, (*pages).newWebhook},
		{Route{Method: "GET", Pattern: one, Permission: domain.Read}, (*pages).webhook},
		{Route{Method: "POST", Pattern: one, Permission: domain.Configure}, (*pages).updateWebhook},
		{Route{Method: "GET", Pattern: one + "/changes", Permission: domain.Read}, (*pages).webhookChanges},
		{Route{Method: "GET", Pattern: one + "/edit", Permission: domain.Configure}, (*pages).editWebhook},
		{Route{Method: "POST", Pattern: one + "/pause", Permission: domain.Operate}, (*pages).pauseWebhook},
		{Route{Method: "POST", Pattern: one + "/enable", Permission: domain.Operate}, (*pages).enableWebhook},
		{Route{Method: "POST", Pattern: one + "/close-breaker", Permission: domain.Operate}, (*pages).closeBreaker},
		{Route{Method: "POST", Pattern: one + "/test", Permission: domain.Operate}, (*pages).testWebhook},
		{Route{Method: "GET", Pattern: one + "/disable", Permission: domain.Configure}, (*pages).confirmDisable},
		{Route{Method: "POST", Pattern: one + "/disable", Permission: domain.Configure}, (*pages).disableWebhook},
		{Route{Method: "GET", Pattern: one + "/delete", Permission: domain.Configure}, (*pages).confirmDelete},
		{Route{Method: "POST", Pattern: one + "/delete", Permission: domain.Configure}, (*pages).deleteWebhook},
		{Route{Method: "GET", Pattern: one + "/rotate-secret", Permission: domain.Configure}, (*pages).confirmRotate},
		{Route{Method: "POST", Pattern: one + "/rotate-secret", Permission: domain.Configure}, (*pages).rotateSecret},
		{Route{Method: "POST", Pattern: one + "/reveal-secret", Permission: domain.Reveal}, (*pages).revealSecret},
	}
}

// webhooksPerPage bounds the list.
const webhooksPerPage = 100

// shownWebhooks is the list.
type shownWebhooks struct {
	// Search is what was looked for, Found how many it found, Total how many
	// there are without it.
	Search       string
	Found, Total int
	Webhooks     []shownWebhook
	// Previous and Next are the pages before and after, "" for none.
	Previous, Next string
}

// shownWebhook is a webhook in the list.
type shownWebhook struct {
	domain.Webhook
	// URL is as much of it as the session may see.
	URL string
	// Events are the labels of its subscriptions, All where Events has not all
	// of them.
	Events, All string
	Health      audit.Health
	Day         *hourly
}

// Path is where the webhook's page is.
func (s *shownWebhook) Path() string { return webhookPath(&s.Webhook) }

// Standing is the state of the webhook and its receiver in a word.
func (s *shownWebhook) Standing() standing { return standingOf(&s.Webhook) }

// Never reports whether there was no attempt yet.
func (s *shownWebhook) Never() bool {
	return s.Health.LastSuccessAt.IsZero() && s.Health.LastFailureAt.IsZero()
}

// Failing reports whether the last attempt failed.
func (s *shownWebhook) Failing() bool { return s.Health.ConsecutiveFailures > 0 }

// standing is a word with its tint: "good", "waiting" or "bad".
type standing struct{ Tint, Text string }

func standingOf(hook *domain.Webhook) standing {
	switch {
	case hook.Unreadable != "" && hook.State != domain.WebhookDeleted:
		return standing{"bad", "Unreadable"}
	case hook.State == domain.WebhookPaused:
		return standing{"waiting", "Paused"}
	case hook.State == domain.WebhookDisabled:
		return standing{"bad", "Disabled"}
	case hook.State == domain.WebhookDeleted:
		return standing{"", "Deleted"}
	case hook.Breaker() == domain.BreakerOpen:
		return standing{"bad", "Receiver down"}
	}
	return standing{"good", "Enabled"}
}

// webhookPath is where a webhook's page is.
func webhookPath(hook *domain.Webhook) string {
	return accountPath(hook.AccountID, "webhooks/"+strconv.FormatInt(int64(hook.ID), 10))
}

// day is what the list shows of the past.
const day = 24

// longestEvents is how much of the subscriptions a row shows, as Chatwoot's page
// does.
const longestEvents = 60

// webhooks lists those of the account, or those that a search finds by name and
// URL.
func (p *pages) webhooks(w http.ResponseWriter, r *request) error {
	hooks, err := p.Webhooks.List(r.Context(), r.account)
	if err != nil {
		return err
	}
	shown := &shownWebhooks{Search: strings.TrimSpace(r.URL.Query().Get("q")), Total: len(hooks)}
	var found []domain.Webhook
	for _, hook := range hooks {
		if matches(shown.Search, hook.Settings.Name, shownURL(r, hook.Settings.URL), hook.Problem()) {
			found = append(found, hook)
		}
	}
	shown.Found = len(found)
	found = shown.turn(r, found)
	if err := p.addHealth(r, shown, found); err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, "webhooks", &view{Title: "Webhooks", Nav: "webhooks", Data: shown})
}

// turn takes the page that is asked for.
func (s *shownWebhooks) turn(r *request, found []domain.Webhook) []domain.Webhook {
	n, err := strconv.Atoi(r.URL.Query().Get("page"))
	last := max((len(found)-1)/webhooksPerPage+1, 1)
	if err != nil || n < 1 {
		n = 1
	}
	n = min(n, last)
	to := func(n int) string {
		return accountPath(r.account, "webhooks?"+url.Values{"q": {s.Search}, "page": {strconv.Itoa(n)}}.Encode())
	}
	if n > 1 {
		s.Previous = to(n - 1)
	}
	if n < last {
		s.Next = to(n + 1)
	}
	return found[(n-1)*webhooksPerPage : min(n*webhooksPerPage, len(found))]
}

// addHealth makes the rows of webhooks, with how each does.
func (p *pages) addHealth(r *request, shown *shownWebhooks, hooks []domain.Webhook) error {
	if len(hooks) == 0 {
		return nil
	}
	now := p.Now()
	health, err := p.Audit.Health(r.Context(), r.account, 0)
	if err != nil {
		return err
	}
	stats, err := p.Audit.Stats(r.Context(), audit.StatsFilter{AccountID: r.account, Since: now.UTC().Truncate(time.Hour).Add(-(day - 1) * time.Hour)})
	if err != nil {
		return err
	}
	healthOf, statsOf := map[domain.WebhookID]audit.Health{}, map[domain.WebhookID][]audit.Stats{}
	for _, h := range health {
		healthOf[h.WebhookID] = h
	}
	for _, s := range stats {
		statsOf[s.WebhookID] = append(statsOf[s.WebhookID], s)
	}
	for _, hook := range hooks {
		row := shownWebhook{
			Webhook: hook, URL: shownURL(r, hook.Settings.URL), Events: labels(r.account, hook.Settings.Subscriptions),
			Health: healthOf[hook.ID], Day: byHour(statsOf[hook.ID], now, day),
		}
		if len(row.Events) > longestEvents {
			row.All = row.Events
			row.Events = cutAt(row.Events, longestEvents)
		}
		shown.Webhooks = append(shown.Webhooks, row)
	}
	return nil
}

// cutAt shortens a list of labels, between two of them where it can.
func cutAt(text string, longest int) string {
	if i := strings.LastIndex(text[:longest], ", "); i > 0 {
		return text[:i]
	}
	return shortened(text)
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
func shownURL(r *request, whole string) string {
	if r.may(domain.Reveal) {
		return whole
	}
	if before, _, found := strings.Cut(whole, "?"); found {
		return before + "?…"
	}
	return whole
}

// hook reads the webhook in the path, also a deleted one. Another account's is
// not there.
func (p *pages) hook(r *request) (domain.Webhook, error) {
	text := r.PathValue("id")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != text {
		return domain.Webhook{}, errNotFound
	}
	hook, err := p.Webhooks.Get(r.Context(), domain.WebhookID(id))
	if errors.Is(err, domain.ErrWebhookGone) || err == nil && hook.AccountID != r.account {
		return domain.Webhook{}, errNotFound
	}
	return hook, err
}

// liveHook is hook without the deleted ones.
func (p *pages) liveHook(r *request) (domain.Webhook, error) {
	hook, err := p.hook(r)
	if err == nil && hook.State == domain.WebhookDeleted {
		return domain.Webhook{}, errNotFound
	}
	return hook, err
}
