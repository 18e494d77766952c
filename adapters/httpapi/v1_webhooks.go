package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/outrider-relay/outrider/domain"
)

const tagWebhooks = "Webhooks"

func (v *v1) addWebhooks() {
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/webhooks", id: "listWebhooks", tag: tagWebhooks, may: domain.Read,
		summary: "List the webhooks of an account", about: "In the order of their ids. Deleted ones are left out: their history stays, in their changes and deliveries.",
	}, v.listWebhooks)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: "/accounts/{account_id}/webhooks", id: "createWebhook", tag: tagWebhooks, may: domain.Configure,
		summary: "Register a webhook",
		about: "What is left out has the account's defaults. The answer has the secret, which is shown again only where it is revealed, on record. " +
			"A URL is an account's once: of the same request sent again the answer is 409, which names the webhook that has it.",
		status: http.StatusCreated, errors: []int{http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
	}, v.createWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/webhooks/{webhook_id}", id: "getWebhook", tag: tagWebhooks, may: domain.Read,
		summary: "Get a webhook", errors: []int{http.StatusNotModified},
	}, v.getWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodPatch, path: "/accounts/{account_id}/webhooks/{webhook_id}", id: "updateWebhook", tag: tagWebhooks, may: domain.Configure,
		summary: "Change a webhook's settings",
		about:   "Only what is given is changed. Deliveries that wait go to the new URL. A header called Authorization takes the place of the URL's user and password, and the other way round.",
		errors: []int{
			http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
		},
	}, v.updateWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodDelete, path: "/accounts/{account_id}/webhooks/{webhook_id}", id: "deleteWebhook", tag: tagWebhooks, may: domain.Configure,
		summary: "Delete a webhook; its history stays",
		about:   "What waits for it is cancelled, and its secrets are erased. There is no way back: register it again for a new one.",
		status:  http.StatusNoContent, errors: []int{http.StatusPreconditionFailed, http.StatusPreconditionRequired},
	}, v.deleteWebhook)
}

// v1Answer answers with a webhook.
type v1Answer[T any] struct {
	Status int
	ETag   string `header:"ETag" doc:"Names the webhook as it is now: for If-Match and If-None-Match." example:"\"7-12\""`
	Body   T
}

// v1Registered answers with a webhook that is new.
type v1Registered struct {
	ETag     string `header:"ETag" doc:"Names the webhook as it is now: for If-Match and If-None-Match." example:"\"7-12\""`
	Location string `header:"Location" doc:"The webhook." example:"/api/outrider/v1/accounts/1/webhooks/7"`
	Body     v1Revealed
}

func (v *v1) listWebhooks(ctx context.Context, in *struct {
	InAccount
	Paging
}) (*v1List[V1Webhook], error) {
	const list = "webhooks"
	after, err := in.place(list, 1)
	if err != nil {
		return nil, err
	}
	hooks, err := v.config.Webhooks.List(ctx, in.account())
	if err != nil {
		return nil, err
	}
	for len(hooks) > 0 && int64(hooks[0].ID) <= after[0] {
		hooks = hooks[1:]
	}
	next := ""
	if len(hooks) > in.Limit {
		hooks = hooks[:in.Limit]
		next = place{list, []int64{int64(hooks[in.Limit-1].ID)}}.cursor()
	}
	return v1ListOf(&in.Paging, hooks, showWebhookTo(accessOf(ctx)), next), nil
}

// webhook reads one of an account.
func (v *v1) webhook(ctx context.Context, of OfWebhook) (domain.Webhook, error) {
	hook, err := v.config.Webhooks.Get(ctx, of.id())
	if err == nil && (hook.AccountID != of.account() || hook.State == domain.WebhookDeleted) {
		err = domain.ErrWebhookGone
	}
	return hook, err
}

func (v *v1) getWebhook(ctx context.Context, in *struct {
	OfWebhook
	IfNoneMatch
}) (*v1Answer[V1Webhook], error) {
	hook, err := v.webhook(ctx, in.OfWebhook)
	if err != nil {
		return nil, err
	}
	answer := &v1Answer[V1Webhook]{Status: http.StatusOK, ETag: etagOf(&hook)}
	if in.met(answer.ETag) {
		answer.Status = http.StatusNotModified
		return answer, nil
	}
	answer.Body = showWebhookTo(accessOf(ctx))(&hook)
	return answer, nil
}

// v1Create is a webhook to be registered.
type v1Create struct {
	_ struct{} `additionalProperties:"false"`

	URL string `json:"url" minLength:"1" maxLength:"2500" doc:"Where to POST: http or https. A user and password in it are sent as Basic authorization, and not shown again." example:"https://example.com/hooks"`
	SettingsBody
	Secret optional[string] `json:"secret,omitzero" doc:"What signs: whsec_ and base64 of 16 to 512 bytes, or any text of 8 to 512 printable ASCII characters. Left out: a new one." example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
}

func (v *v1) createWebhook(ctx context.Context, in *struct {
	InAccount
	Body v1Create
}) (*v1Registered, error) {
	var f fields
	settings := in.Body.over(domain.Settings{URL: in.Body.URL, OrderHold: domain.DefaultOrderHold}, &f)
	register := domain.RegisterWebhook{
		Settings: settings, Headers: in.Body.changes(&f, false), Secret: secretOf(&f, in.Body.Secret), Addresses: v.config.Addresses,
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	hook, _, err := v.config.Webhooks.Change(ctx, in.account(), 0, accessOf(ctx).Actor(), register)
	if err != nil {
		return nil, err
	}
	location := fmt.Sprintf("%s/accounts/%d/webhooks/%d", v1Base, hook.AccountID, hook.ID)
	return &v1Registered{etagOf(&hook), location, reveal(&hook, false)}, nil
}

// secretOf reads a secret, or makes one where none is given.
func secretOf(f *fields, given optional[string]) domain.Secret {
	var text string
	take(f, "secret", given, &text)
	if !given.given {
		var random [32]byte
		_, _ = rand.Read(random[:]) // never fails, see crypto/rand
		return domain.NewSecret(random)
	}
	secret, err := domain.ParseSecret(text)
	if err != nil && !given.null {
		f.add("secret", err.Error())
	}
	return secret
}

// v1Update is what is to become of a webhook.
type v1Update struct {
	_ struct{} `additionalProperties:"false"`

	URL optional[string] `json:"url,omitzero" minLength:"1" maxLength:"2500" doc:"Where to POST: http or https. A user and password in it are sent as Basic authorization, and not shown again; the URL as it is shown keeps those it has." example:"https://example.com/hooks"`
	SettingsBody
}

// updates is how often a change is tried that is to be made whatever the webhook
// is. Each time somebody else was faster.
const updates = 5

func (v *v1) updateWebhook(ctx context.Context, in *struct {
	OfWebhook
	IfMatch
	Body v1Update
}) (*v1Answer[V1Webhook], error) {
	if err := in.required(); err != nil {
		return nil, err
	}
	versions, whatever, err := in.versions(in.id())
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		hook, err := v.webhook(ctx, in.OfWebhook)
		if err != nil {
			return nil, err
		}
		if !whatever && !slices.Contains(versions, hook.Version) {
			return nil, &domain.StaleVersionError{Version: hook.Version}
		}
		var f fields
		take(&f, "url", in.Body.URL, &hook.Settings.URL)
		update := domain.UpdateWebhook{Settings: in.Body.over(hook.Settings, &f), Headers: in.Body.changes(&f, true), Addresses: v.config.Addresses}
		if err := f.err(); err != nil {
			return nil, err
		}
		// What it is decided on is what was read, and nothing that came since.
		expected := domain.ExpectVersion{Versions: []int64{hook.Version}, Command: update}
		after, _, err := v.config.Webhooks.Change(ctx, in.account(), in.id(), accessOf(ctx).Actor(), expected)
		if _, stale := errors.AsType[*domain.StaleVersionError](err); stale && whatever && try < updates {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &v1Answer[V1Webhook]{Status: http.StatusOK, ETag: etagOf(&after), Body: showWebhookTo(accessOf(ctx))(&after)}, nil
	}
}

func (v *v1) deleteWebhook(ctx context.Context, in *struct {
	OfWebhook
	IfMatch
}) (*struct{}, error) {
	if err := in.required(); err != nil {
		return nil, err
	}
	command, err := in.expecting(in.id(), domain.DeleteWebhook{})
	if err != nil {
		return nil, err
	}
	_, _, err = v.config.Webhooks.Change(ctx, in.account(), in.id(), accessOf(ctx).Actor(), command)
	return nil, err
}
