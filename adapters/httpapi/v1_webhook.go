package httpapi

import (
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// InAccount is the path of what is an account's.
type InAccount struct {
	AccountID int64 `path:"account_id" minimum:"-1" doc:"The account; -1 is the operator's, whose events tell what goes wrong." example:"1"`
}

func (p InAccount) account() domain.AccountID { return domain.AccountID(p.AccountID) }

// OfWebhook is the path of a webhook.
type OfWebhook struct {
	InAccount
	WebhookID int64 `path:"webhook_id" minimum:"1" doc:"The webhook." example:"7"`
}

func (p OfWebhook) id() domain.WebhookID { return domain.WebhookID(p.WebhookID) }

// V1Webhook is a webhook as the API shows it: its members have the names that
// they have on the command line and in audit.webhook_changes.
type V1Webhook struct {
	ID             int64              `json:"id" doc:"The webhook." example:"7"`
	AccountID      int64              `json:"account_id" doc:"Its account." example:"1"`
	Version        int64              `json:"version" doc:"The account's configuration version that changed the webhook last. Its ETag has it." example:"12"`
	State          string             `json:"state" doc:"enabled, paused (what is routed to it is kept, and nothing sent) or disabled (nothing is routed to it)." example:"enabled"`
	Problem        *string            `json:"problem" doc:"What is wrong where its settings cannot be read: nothing is routed or sent to it, and they are shown empty; null otherwise." example:"its settings cannot be read: unexpected end of JSON input"`
	Name           string             `json:"name" doc:"What people call it; may be empty." example:"CRM"`
	URL            string             `json:"url" doc:"Where POSTs go, without the user and password that it may have: see has_credential. The query is left out where the token's role may not see secrets." example:"https://example.com/hooks"`
	Subscriptions  []string           `json:"subscriptions" doc:"The names of the events that it gets." example:"[\"message_created\"]"`
	InboxID        *int64             `json:"inbox_id" doc:"The only inbox whose events it gets; null for all." example:"3"`
	Timeout        string             `json:"timeout" doc:"The total deadline of an attempt, response body included." example:"5s"`
	MaxConcurrency int                `json:"max_concurrency" doc:"The most attempts under way at once." example:"16"`
	OrderHold      string             `json:"order_hold" doc:"How long a delivery waits for a failed earlier one of its ordering key; 0s for no order, or forever." example:"30s"`
	Deadline       string             `json:"deadline" doc:"How long after its routing a delivery may still start an attempt." example:"168h0m0s"`
	Retries        []string           `json:"retries" nullable:"true" doc:"The waits after the first, second, … failed attempt; empty for one attempt only, null for the relay's own schedule." example:"[\"5s\",\"30s\"]"`
	Headers        map[string]*string `json:"headers" doc:"What is added to the header of each POST, by name. Values are secrets: null, but where secrets are revealed."`
	RateLimit      *float64           `json:"rate_limit" doc:"The most attempts that begin in a second; null for no limit." example:"10"`
	Breaker        string             `json:"breaker" doc:"Its circuit breaker: closed, or open while its receiver is down." example:"closed"`
	BreakerOpened  *time.Time         `json:"breaker_opened_at" doc:"Since when the breaker is open." example:"2026-07-01T12:00:00Z"`
	HasCredential  bool               `json:"has_credential" doc:"Whether its URL has a user and password, which are sent as Basic authorization and never shown." example:"false"`
	PreviousUntil  *time.Time         `json:"previous_secret_until" doc:"Until when the secret before the last rotation signs too; null where there was none." example:"2026-07-02T12:00:00Z"`
}

// v1Revealed is a webhook with its secrets.
type v1Revealed struct {
	V1Webhook
	Secret         *string `json:"secret" doc:"What signs: whsec_ and base64, or any text. Keep it where the receiver can read it and nobody else." example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
	PreviousSecret *string `json:"previous_secret" doc:"The one before the last rotation, while it signs too." example:"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"`
}

// showWebhookTo shows webhooks to somebody. Who may not see secrets does not see
// the query of the URL either, in which there may be one.
func showWebhookTo(access domain.Access) func(*domain.Webhook) V1Webhook {
	return func(hook *domain.Webhook) V1Webhook {
		shown := showWebhook(hook, false)
		if !access.May(domain.Reveal, hook.AccountID) {
			shown.URL, _, _ = strings.Cut(shown.URL, "?")
		}
		return shown
	}
}

// showWebhook shows a webhook, with the values of its headers or without.
func showWebhook(hook *domain.Webhook, values bool) V1Webhook {
	s := &hook.Settings
	shown := V1Webhook{
		ID: int64(hook.ID), AccountID: int64(hook.AccountID), Version: hook.Version, State: string(hook.State), Problem: orNil(hook.Problem()),
		Name: s.Name, URL: s.URL, Subscriptions: append([]string{}, s.Subscriptions...), InboxID: orNil(s.InboxID),
		Timeout: durationText(s.Timeout), MaxConcurrency: s.MaxConcurrency, OrderHold: holdText(s.OrderHold), Deadline: durationText(s.Deadline),
		Headers: map[string]*string{}, RateLimit: orNil(s.RateLimit),
		Breaker: string(hook.Breaker()), BreakerOpened: orNever(hook.BreakerOpenedAt),
		HasCredential: !hook.Credential.IsZero(), PreviousUntil: orNever(hook.PreviousUntil),
	}
	if hook.Unreadable != "" {
		shown.Timeout, shown.OrderHold, shown.Deadline = "", "", ""
	}
	if s.Retries != nil {
		shown.Retries = make([]string, len(s.Retries))
		for i, wait := range s.Retries {
			shown.Retries[i] = durationText(wait)
		}
	}
	for name, value := range hook.Headers.All() {
		shown.Headers[name] = nil
		if values {
			shown.Headers[name] = &value
		}
	}
	return shown
}

// reveal shows a webhook with its secrets.
func reveal(hook *domain.Webhook, values bool) v1Revealed {
	return v1Revealed{showWebhook(hook, values), orNil(hook.Secret.Reveal()), orNil(hook.PreviousSecret.Reveal())}
}

// orNil gives nil for a value that means none.
func orNil[T comparable](value T) *T {
	var none T
	if value == none {
		return nil
	}
	return &value
}

// orNever is orNil for times, whose zero value has many faces.
func orNever(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	utc := at.UTC()
	return &utc
}
