package httpsend

import (
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// KeptBody is the most that an excerpt may have, in bytes.
const KeptBody = keptBody

// Clean gives the excerpt of a response body.
func Clean(body []byte) string { return clean(body, keptBody) }

// RetryAfter reads the header of that name.
func RetryAfter(value string, now time.Time) time.Duration { return retryAfter(value, now) }

// MaxRetryAfter is the most that it gives.
const MaxRetryAfter = maxRetryAfter

// ValidTraceparent checks the header of that name.
func ValidTraceparent(value string) bool { return validTraceparent(value) }

// HeaderAppender gives what builds and signs the header of a request.
func HeaderAppender(request relay.Request) (func(b []byte, now time.Time) []byte, error) {
	t, _, err := newTarget(targetKey{request.Webhook.Settings.URL, request.Webhook.Credential, request.Webhook.Secret, request.Webhook.PreviousSecret, request.Webhook.Headers}, "Outrider/dev")
	return func(b []byte, now time.Time) []byte { return t.appendHeader(b, &request, now) }, err
}

// Finder gives what works out a webhook's target, and remembers it.
func Finder() func(w *domain.Webhook) error {
	ts := &targets{userAgent: "Outrider/dev"}
	return func(w *domain.Webhook) error {
		_, err := ts.find(w)
		return err
	}
}
