package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// WebhookActions are what can be done with a webhook that is no change of it.
type WebhookActions interface {
	// RequestTest inserts an event that goes to this webhook alone.
	RequestTest(ctx context.Context, id domain.WebhookID, actor string) (uuid.UUID, error)
	// Missed counts what a webhook that was just enabled was not sent meanwhile.
	Missed(ctx context.Context, hook domain.Webhook, since time.Time) (audit.Missed, error)
}

const tagActions = "Webhook actions"

// actionErrors are the statuses of what changes a webhook.
var actionErrors = []int{http.StatusPreconditionFailed}

func (v *v1) addActions() {
	const path = "/accounts/{account_id}/webhooks/{webhook_id}/"
	withBody := append([]int{http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}, actionErrors...)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "pause", id: "pauseWebhook", tag: tagActions, may: domain.Operate, errors: actionErrors,
		summary: "Keep what is routed to it, and send nothing",
		about:   "Its deliveries are held, and go out when it is enabled again, unless their deadline passes. Where it is paused already nothing changes.",
	}, v.pauseWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "enable", id: "enableWebhook", tag: tagActions, may: domain.Operate, errors: actionErrors,
		summary: "Send to a paused or disabled webhook again",
		about:   "What a pause held goes out at once. What was passed over while it was disabled is counted in the answer, for a replay. Where it is enabled already nothing changes.",
	}, v.enableWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "disable", id: "disableWebhook", tag: tagActions, may: domain.Configure, errors: withBody,
		summary: "Route nothing to it, and cancel what waits",
		about:   "Events that it would have got are recorded as skipped. Where it is disabled already nothing changes.",
	}, v.disableWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "close-breaker", id: "closeBreaker", tag: tagActions, may: domain.Operate, errors: actionErrors,
		summary: "Send to a webhook whose receiver was down, without waiting for the next probe",
		about:   "Closes its circuit breaker. Where the receiver is still down it opens again after some attempts. Where it is closed nothing changes.",
	}, v.closeBreaker)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "test", id: "testWebhook", tag: tagActions, may: domain.Operate,
		summary: "Send a test to a webhook",
		about: "An event webhook_test goes to this webhook alone, whatever its subscriptions and its inbox: through the outbox and a running relay, signed and on record. " +
			"What becomes of it is in the timeline that Location names. A webhook that is not enabled is sent nothing: 409.",
		status: http.StatusAccepted, errors: []int{http.StatusConflict},
	}, v.testWebhook)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "rotate-secret", id: "rotateSecret", tag: tagActions, may: domain.Configure, errors: withBody,
		summary: "Give a webhook a new secret",
		about: "For the time of the overlap each POST carries two signatures, of the new secret and of the old one, so that the receiver can change over; " +
			"X-Chatwoot-Signature, which has room for one, keeps the old secret until then. The answer has the new secret, which is shown again only where it is revealed, on record.",
	}, v.rotateSecret)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "reveal-secret", id: "revealSecret", tag: tagActions, may: domain.Reveal, errors: actionErrors,
		summary: "Show a webhook's secrets and the values of its headers",
		about:   "Who asked for it, and when, is among the webhook's changes: so the webhook has another version and ETag afterwards.",
	}, v.revealSecret)
}

// act carries out a command whose outcome is the webhook.
func (v *v1) act(ctx context.Context, of OfWebhook, match IfMatch, command domain.WebhookCommand) (domain.Webhook, bool, error) {
	command, err := match.expecting(of.id(), command)
	if err != nil {
		return domain.Webhook{}, false, err
	}
	return v.config.Webhooks.Change(ctx, of.account(), of.id(), accessOf(ctx).Actor(), command)
}

// acted is act, and its answer.
func (v *v1) acted(ctx context.Context, of OfWebhook, match IfMatch, command domain.WebhookCommand) (*v1Answer[V1Webhook], error) {
	hook, _, err := v.act(ctx, of, match, command)
	if err != nil {
		return nil, err
	}
	return &v1Answer[V1Webhook]{Status: http.StatusOK, ETag: etagOf(&hook), Body: showWebhookTo(accessOf(ctx))(&hook)}, nil
}

// v1Action is an action without a body.
type v1Action struct {
	OfWebhook
	IfMatch
}

func (v *v1) pauseWebhook(ctx context.Context, in *v1Action) (*v1Answer[V1Webhook], error) {
	return v.acted(ctx, in.OfWebhook, in.IfMatch, domain.PauseWebhook{})
}

func (v *v1) closeBreaker(ctx context.Context, in *v1Action) (*v1Answer[V1Webhook], error) {
	return v.acted(ctx, in.OfWebhook, in.IfMatch, domain.CloseBreaker{})
}

// v1Missed is what a webhook was not sent while it was disabled.
type v1Missed struct {
	Count int64     `json:"count" doc:"How many events; 10000 where more is true." example:"17"`
	More  bool      `json:"more" doc:"Whether there are more than were counted." example:"false"`
	Since time.Time `json:"since" doc:"The range in which they were routed: what a replay takes as since." example:"2026-07-01T12:00:00Z"`
	Until time.Time `json:"until" doc:"Where that range ends." example:"2026-07-01T13:00:00Z"`
}

type v1Enabled struct {
	V1Webhook
	Missed *v1Missed `json:"missed,omitempty" doc:"What was passed over while it was disabled. It is not there where there was nothing, or where nothing changed."`
}

func (v *v1) enableWebhook(ctx context.Context, in *v1Action) (*v1Answer[v1Enabled], error) {
	hook, changed, err := v.act(ctx, in.OfWebhook, in.IfMatch, domain.EnableWebhook{})
	if err != nil {
		return nil, err
	}
	answer := &v1Answer[v1Enabled]{Status: http.StatusOK, ETag: etagOf(&hook), Body: v1Enabled{V1Webhook: showWebhookTo(accessOf(ctx))(&hook)}}
	if !changed {
		return answer, nil
	}
	missed, err := v.config.Webhooks.Missed(ctx, hook, time.Time{})
	if err != nil {
		return nil, err
	}
	if missed.Count > 0 {
		answer.Body.Missed = &v1Missed{missed.Count, missed.More, missed.Since.UTC(), missed.Until.UTC()}
	}
	return answer, nil
}

type v1Disable struct {
	_ struct{} `additionalProperties:"false"`

	Reason optional[string] `json:"reason,omitzero" doc:"Why, for the history." example:"the receiver moves"`
}

func (v *v1) disableWebhook(ctx context.Context, in *struct {
	OfWebhook
	IfMatch
	Body *v1Disable
}) (*v1Answer[V1Webhook], error) {
	var command domain.DisableWebhook
	if in.Body != nil {
		var f fields
		take(&f, "reason", in.Body.Reason, &command.Reason)
		if err := f.err(); err != nil {
			return nil, err
		}
	}
	return v.acted(ctx, in.OfWebhook, in.IfMatch, command)
}

// v1Tested is a test that is on its way.
type v1Tested struct {
	EventID   string `json:"event_id" format:"uuid" doc:"The event of the test." example:"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
	WebhookID int64  `json:"webhook_id" doc:"The webhook." example:"7"`
}

type v1TestAnswer struct {
	Location string `header:"Location" doc:"The timeline of the test's event." example:"/api/outrider/v1/accounts/1/events/0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f/timeline"`
	Body     v1Tested
}

func (v *v1) testWebhook(ctx context.Context, in *OfWebhook) (*v1TestAnswer, error) {
	if _, err := v.webhook(ctx, *in); err != nil {
		return nil, err
	}
	event, err := v.config.Webhooks.RequestTest(ctx, in.id(), accessOf(ctx).Actor())
	if err != nil {
		return nil, err
	}
	location := fmt.Sprintf("%s/accounts/%d/events/%s/timeline", v1Base, in.AccountID, event)
	return &v1TestAnswer{location, v1Tested{event.String(), in.WebhookID}}, nil
}

type v1Rotate struct {
	_ struct{} `additionalProperties:"false"`

	Secret  optional[string] `json:"secret,omitzero" doc:"The new secret: whsec_ and base64 of 16 to 512 bytes, or any text of 8 to 512 printable ASCII characters. Left out: one is made." example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
	Overlap optional[string] `json:"overlap,omitzero" doc:"How long the old secret signs too, 0 to 365d; 0 ends it at once. Left out: 24h." example:"24h"`
}

// The overlap of a rotation.
const (
	defaultOverlap = 24 * time.Hour
	longestOverlap = 365 * 24 * time.Hour
)

func (v *v1) rotateSecret(ctx context.Context, in *struct {
	OfWebhook
	IfMatch
	Body *v1Rotate
}) (*v1Answer[v1Revealed], error) {
	var f fields
	if in.Body == nil {
		in.Body = &v1Rotate{}
	}
	overlap := defaultOverlap
	takeDuration(&f, "overlap", in.Body.Overlap, parseDuration, "", &overlap)
	if overlap > longestOverlap {
		f.add("overlap", "is longer than 365d")
	}
	// The database keeps microseconds.
	command := domain.RotateSecret{Secret: secretOf(&f, in.Body.Secret), Until: v.config.Clock().Add(overlap).UTC().Truncate(time.Microsecond)}
	if err := f.err(); err != nil {
		return nil, err
	}
	hook, _, err := v.act(ctx, in.OfWebhook, in.IfMatch, command)
	if err != nil {
		return nil, err
	}
	answer := &v1Answer[v1Revealed]{Status: http.StatusOK, ETag: etagOf(&hook), Body: reveal(&hook, false)}
	answer.Body.PreviousSecret = nil // it was not asked for
	return answer, nil
}

func (v *v1) revealSecret(ctx context.Context, in *v1Action) (*v1Answer[v1Revealed], error) {
	hook, _, err := v.act(ctx, in.OfWebhook, in.IfMatch, domain.RevealSecret{})
	if err != nil {
		return nil, err
	}
	return &v1Answer[v1Revealed]{Status: http.StatusOK, ETag: etagOf(&hook), Body: reveal(&hook, true)}, nil
}
