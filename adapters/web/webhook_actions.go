package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// act carries out a command on the webhook in the path and gives it as it is
// then, and whether anything changed.
func (p *pages) act(r *request, fields []string, command func() domain.WebhookCommand) (domain.Webhook, bool, error) {
	if err := r.form.only(append(fields, "back"), nil); err != nil {
		return domain.Webhook{}, false, err
	}
	hook, err := p.liveHook(r)
	if err != nil {
		return domain.Webhook{}, false, err
	}
	return p.Webhooks.Change(r.Context(), r.account, hook.ID, r.access.Actor(), command())
}

// backTo leads to the list, where the form says that it came from there, else
// to the webhook.
func backTo(w http.ResponseWriter, r *request, hook *domain.Webhook) error {
	if r.form.text("back") == "list" {
		return redirect(w, r, accountPath(r.account, "webhooks"))
	}
	return redirect(w, r, webhookPath(hook))
}

// called is a webhook in a message.
func called(r *request, hook *domain.Webhook) string {
	if hook.Settings.Name != "" {
		return "“" + shortened(hook.Settings.Name) + "”"
	}
	return shortened(shownURL(r, hook.Settings.URL))
}

// pauseWebhook stops sending, not routing.
func (p *pages) pauseWebhook(w http.ResponseWriter, r *request) error {
	hook, _, err := p.act(r, nil, func() domain.WebhookCommand { return domain.PauseWebhook{} })
	if err != nil {
		return err
	}
	p.say(w, r, flash{Kind: "waiting", Text: called(r, &hook) + " is paused."})
	return backTo(w, r, &hook)
}

// enableWebhook sends again, and says what was missed.
func (p *pages) enableWebhook(w http.ResponseWriter, r *request) error {
	hook, changed, err := p.act(r, nil, func() domain.WebhookCommand { return domain.EnableWebhook{} })
	if err != nil {
		return err
	}
	message := flash{Kind: "good", Text: called(r, &hook) + " is enabled."}
	if changed {
		missed, err := p.Webhooks.Missed(r.Context(), hook, time.Time{})
		if err != nil {
			return err
		}
		if missed.Count > 0 {
			some := count(int(missed.Count), "event", "events")
			if missed.More {
				some = "more than " + some
			}
			message = flash{
				Kind: "waiting", Text: called(r, &hook) + " is enabled. It missed " + some + " while it was disabled.",
				Link: missedPath(&hook, missed.Since, missed.Until), Label: "Replay them",
			}
		}
	}
	p.say(w, r, message)
	return backTo(w, r, &hook)
}

// missedPath is where a replay of what a webhook missed is planned.
func missedPath(hook *domain.Webhook, since, until time.Time) string {
	return accountPath(hook.AccountID, "replays/new?"+url.Values{
		"webhook": {strconv.FormatInt(int64(hook.ID), 10)},
		"since":   {since.UTC().Format(time.RFC3339Nano)},
		"until":   {until.UTC().Format(time.RFC3339Nano)},
	}.Encode())
}

// closeBreaker lets everything through again, as if a probe had been answered.
func (p *pages) closeBreaker(w http.ResponseWriter, r *request) error {
	hook, changed, err := p.act(r, nil, func() domain.WebhookCommand { return domain.CloseBreaker{} })
	if err != nil {
		return err
	}
	message := flash{Text: "The circuit breaker is closed already."}
	if changed {
		message = flash{Kind: "good", Text: "The circuit breaker is closed: what waits goes out now."}
	}
	p.say(w, r, message)
	return backTo(w, r, &hook)
}

// testWebhook sends a test, and leads to what becomes of it.
func (p *pages) testWebhook(w http.ResponseWriter, r *request) error {
	if err := r.form.only([]string{"back"}, nil); err != nil {
		return err
	}
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	if hook.State != domain.WebhookEnabled {
		p.say(w, r, flash{Kind: "bad", Text: called(r, &hook) + " is " + string(hook.State) + ": nothing is sent to it. Enable it first."})
		return backTo(w, r, &hook)
	}
	event, err := p.Webhooks.RequestTest(r.Context(), hook.ID, r.access.Actor())
	if err != nil {
		return err
	}
	p.say(w, r, flash{Kind: "good", Text: "A test is on its way to " + called(r, &hook) + "."})
	return redirect(w, r, accountPath(r.account, "events/"+event.String()))
}

// confirm asks before something that there is no way back from.
func (p *pages) confirm(w http.ResponseWriter, r *request, template, title string) error {
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	shown := &shownWebhook{Webhook: hook, URL: shownURL(r, hook.Settings.URL)}
	health, err := p.Audit.Health(r.Context(), r.account, hook.ID)
	if err != nil {
		return err
	}
	if len(health) > 0 {
		shown.Health = health[0]
	}
	return p.render(w, r, http.StatusOK, template, &view{Title: title, Nav: "webhooks", Data: shown})
}

// confirmDisable asks before pending deliveries are cancelled.
func (p *pages) confirmDisable(w http.ResponseWriter, r *request) error {
	return p.confirm(w, r, "webhook_disable", "Disable webhook")
}

// disableWebhook stops routing, and cancels what is pending.
func (p *pages) disableWebhook(w http.ResponseWriter, r *request) error {
	hook, _, err := p.act(r, []string{"reason"}, func() domain.WebhookCommand {
		return domain.DisableWebhook{Reason: strings.TrimSpace(r.form.text("reason"))}
	})
	if err != nil {
		return err
	}
	p.say(w, r, flash{Kind: "waiting", Text: called(r, &hook) + " is disabled. What was pending is cancelled."})
	return backTo(w, r, &hook)
}

// confirmDelete asks, in Chatwoot's words.
func (p *pages) confirmDelete(w http.ResponseWriter, r *request) error {
	return p.confirm(w, r, "webhook_delete", "Confirm Deletion")
}

// deleteWebhook removes a webhook; its history stays.
func (p *pages) deleteWebhook(w http.ResponseWriter, r *request) error {
	if _, _, err := p.act(r, nil, func() domain.WebhookCommand { return domain.DeleteWebhook{} }); err != nil {
		return err
	}
	p.say(w, r, flash{Kind: "good", Text: "Webhook deleted successfully."})
	return redirect(w, r, accountPath(r.account, "webhooks"))
}
