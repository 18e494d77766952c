package web

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// shownDetails is the page of a webhook.
type shownDetails struct {
	shownWebhook
	// Hours is how far the charts go back, Stats what they show.
	Hours int
	Stats *hourly
	// Changes are the newest ones, More whether there are others.
	Changes []shownChange
	More    bool
	Facts   []fact
	// Deliveries is where its deliveries are listed.
	Deliveries string
}

// fact is a setting in words.
type fact struct{ Label, Text string }

// The lengths of time of the charts.
const week = 7 * day

// newestChanges is how many changes the page of a webhook lists.
const newestChanges = 10

// webhook is the page of one: its state, how it did, its settings, and who
// changed it.
func (p *pages) webhook(w http.ResponseWriter, r *request) error {
	hook, err := p.hook(r)
	if err != nil {
		return err
	}
	shown := &shownDetails{shownWebhook: shownWebhook{Webhook: hook, URL: shownURL(r, hook.Settings.URL)}, Hours: day}
	if r.URL.Query().Get("range") == "7d" {
		shown.Hours = week
	}
	health, err := p.Audit.Health(r.Context(), r.account, hook.ID)
	if err != nil {
		return err
	}
	if len(health) > 0 {
		shown.Health = health[0]
	}
	now := p.Now()
	since := now.UTC().Truncate(time.Hour).Add(-time.Duration(shown.Hours-1) * time.Hour)
	stats, err := p.Audit.Stats(r.Context(), audit.StatsFilter{AccountID: r.account, WebhookID: hook.ID, Since: since})
	if err != nil {
		return err
	}
	shown.Stats = byHour(stats, now, shown.Hours)
	changes, err := p.Audit.Changes(r.Context(), audit.Filter{AccountID: r.account, WebhookID: hook.ID, Limit: newestChanges}, nil)
	if err != nil {
		return err
	}
	for i := range changes.Records {
		shown.Changes = append(shown.Changes, showChange(&changes.Records[i]))
	}
	shown.More = changes.Next != nil
	shown.Facts = facts(&hook)
	if has("/accounts/{account}/deliveries") {
		shown.Deliveries = accountPath(r.account, "deliveries?webhook="+strconv.FormatInt(int64(hook.ID), 10))
	}
	title := hook.Settings.Name
	if title == "" {
		title = shown.URL
	}
	return p.render(w, r, http.StatusOK, "webhook", &view{Title: title, Nav: "webhooks", Data: shown})
}

// facts are a webhook's settings in words.
func facts(hook *domain.Webhook) []fact {
	found := factsOf(hook.AccountID, &hook.Settings)
	var headers []string
	for name := range hook.Headers.All() {
		headers = append(headers, name)
	}
	if !hook.Credential.IsZero() {
		headers = append(headers, "Authorization (user and password of the URL)")
	}
	if len(headers) > 0 {
		found = append(found, fact{"Headers", strings.Join(headers, ", ")})
	}
	return found
}

// factsOf are settings in words, always the same ones. What is left to its
// default shows that.
func factsOf(account domain.AccountID, s *domain.Settings) []fact {
	inbox := "All inboxes"
	if s.InboxID != 0 {
		inbox = "Inbox " + strconv.FormatInt(s.InboxID, 10)
	}
	rate := "No limit"
	if s.RateLimit != 0 {
		rate = rateText(s.RateLimit) + " attempts a second"
	}
	return []fact{
		{"Events", labels(account, s.Subscriptions)},
		{"Inbox", inbox},
		{"Timeout", durationText(cmp.Or(s.Timeout, domain.DefaultTimeout))},
		{"Retries after", retriesText(s.Retries)},
		{"Deadline", durationText(cmp.Or(s.Deadline, domain.DefaultDeadline))},
		{"Order", orderText(s.OrderHold)},
		{"Attempts at once", "Up to " + strconv.Itoa(cmp.Or(s.MaxConcurrency, domain.DefaultMaxConcurrency))},
		{"Rate", rate},
	}
}

// orderText says what an order hold means.
func orderText(hold time.Duration) string {
	if hold == 0 {
		return "None: deliveries do not wait for each other"
	}
	if hold == domain.HoldForever {
		return "Strict: a conversation waits for its failed delivery"
	}
	return "A conversation waits up to " + durationText(hold) + " for its failed delivery"
}

// retriesText lists the waits of a schedule.
func retriesText(retries []time.Duration) string {
	switch {
	case retries == nil:
		return "The usual schedule: 11 retries in 3 days"
	case len(retries) == 0:
		return "None: one attempt and no more"
	}
	return waitsText(retries)
}
