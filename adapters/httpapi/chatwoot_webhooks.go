package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"

	"github.com/outrider-relay/outrider/domain"
)

// Webhooks keeps the webhooks of all accounts.
type Webhooks interface {
	// List gives those of an account in the order of their ids, no deleted ones.
	List(ctx context.Context, account domain.AccountID) ([]domain.Webhook, error)
	// Get gives one, also a deleted one; domain.ErrWebhookGone where there never
	// was one.
	Get(ctx context.Context, id domain.WebhookID) (domain.Webhook, error)
	// Change carries out a command on an account's webhook, for the history on
	// behalf of actor. id 0 registers a new one.
	Change(ctx context.Context, account domain.AccountID, id domain.WebhookID, actor string, command domain.WebhookCommand) (domain.Webhook, bool, error)

	WebhookActions
}

// chatwootEvents are the names that Chatwoot takes as subscriptions.
var chatwootEvents = slices.Concat(domain.DefaultSubscriptions,
	[]string{"conversation_typing_on", "conversation_typing_off", "inbox_created", "inbox_updated"})

func (c *chatwoot) list(w http.ResponseWriter, r *http.Request, account domain.AccountID) error {
	hooks, err := c.Webhooks.List(r.Context(), account)
	if err != nil {
		return err
	}
	shown := make([]chatwootWebhook, len(hooks))
	for i := range hooks {
		shown[i] = showChatwoot(&hooks[i], c.MaskSecrets)
	}
	answerJSON(w, http.StatusOK, payload[webhooksBody]{webhooksBody{shown}})
	return nil
}

func (c *chatwoot) create(w http.ResponseWriter, r *http.Request, account domain.AccountID) error {
	given, err := readParameters(r)
	if err != nil {
		return err
	}
	params, err := given.permit()
	if err != nil {
		return err
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	hook := domain.Webhook{AccountID: account, Settings: domain.Settings{OrderHold: domain.DefaultOrderHold}}
	if hook, err = c.change(r, hook, params, func(s domain.Settings) domain.WebhookCommand {
		return domain.RegisterWebhook{Settings: s, Secret: domain.NewSecret(random), Addresses: c.Addresses}
	}); err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, payload[webhookBody]{webhookBody{showChatwoot(&hook, false)}})
	return nil
}

// update changes what the request names, on the webhook as it then is: where
// another request was faster, its change stays.
func (c *chatwoot) update(w http.ResponseWriter, r *http.Request, account domain.AccountID) error {
	given, err := readParameters(r)
	if err != nil {
		return err
	}
	for {
		hook, err := c.get(r, account)
		if err != nil {
			return err
		}
		params, err := given.permit()
		if err != nil {
			return err
		}
		hook, err = c.change(r, hook, params, func(s domain.Settings) domain.WebhookCommand {
			return domain.ExpectVersion{Versions: []int64{hook.Version}, Command: domain.UpdateWebhook{Settings: s, Addresses: c.Addresses}}
		})
		if _, stale := errors.AsType[*domain.StaleVersionError](err); stale {
			continue
		}
		if err != nil {
			return err
		}
		answerJSON(w, http.StatusOK, payload[webhookBody]{webhookBody{showChatwoot(&hook, c.MaskSecrets)}})
		return nil
	}
}

func (c *chatwoot) remove(w http.ResponseWriter, r *http.Request, account domain.AccountID) error {
	hook, err := c.get(r, account)
	if err != nil {
		return err
	}
	if _, _, err = c.Webhooks.Change(r.Context(), account, hook.ID, accessOf(r.Context()).Actor(), domain.DeleteWebhook{}); err != nil {
		return err
	}
	answerHead(w)
	return nil
}

// get reads the account's webhook that the path names.
func (c *chatwoot) get(r *http.Request, account domain.AccountID) (domain.Webhook, error) {
	hook, err := c.Webhooks.Get(r.Context(), domain.WebhookID(pathID(r, "webhook")))
	if err == nil && (hook.AccountID != account || hook.State == domain.WebhookDeleted) {
		err = domain.ErrWebhookGone
	}
	return hook, err
}

// change judges the settings of a webhook with what a request says over them,
// all at once as Chatwoot does, and carries out the command with them.
func (c *chatwoot) change(r *http.Request, hook domain.Webhook, params parameters, command func(domain.Settings) domain.WebhookCommand) (domain.Webhook, error) {
	settings := params.over(hook.Settings)
	problems := params.problems(hook.Settings.Subscriptions)
	trial := settings
	if problems.has(subscriptionsMember) {
		trial.Subscriptions = nil
	}
	_, err := domain.DecideWebhook(domain.Webhook{AccountID: hook.AccountID}, domain.RegisterWebhook{Settings: trial, Addresses: c.Addresses})
	if err == nil && len(problems) == 0 {
		hook, _, err := c.Webhooks.Change(r.Context(), hook.AccountID, hook.ID, accessOf(r.Context()).Actor(), command(settings))
		if errors.Is(err, domain.ErrURLTaken) {
			err = invalidRecord{{urlMember, urlTaken}}
		}
		return hook, err
	}
	if err != nil && !problems.add(err, settings.URL) {
		return hook, err
	}
	if !problems.has(urlMember) {
		if err := c.findTaken(r, &hook, settings.URL, &problems); err != nil {
			return hook, err
		}
	}
	return hook, problems.sorted()
}

// findTaken looks for another webhook with a URL: something else is wrong, so
// that nothing was written which would have told.
func (c *chatwoot) findTaken(r *http.Request, hook *domain.Webhook, url string, problems *invalidRecord) error {
	hooks, err := c.Webhooks.List(r.Context(), hook.AccountID)
	if err != nil {
		return err
	}
	shown, _, err := domain.ParseWebhookURL(url, c.Addresses)
	if err == nil && slices.ContainsFunc(hooks, func(h domain.Webhook) bool { return h.ID != hook.ID && h.Settings.URL == shown }) {
		*problems = append(*problems, problem{urlMember, urlTaken})
	}
	return nil
}
