package chatwoot

import (
	"net/http"
	"net/url"
	"time"
)

// NewAPIOver makes a reader whose requests something else answers.
func NewAPIOver(transport http.RoundTripper, base *url.URL, token string, timeout time.Duration) *API {
	a := NewAPI(base, token, timeout)
	a.client.Transport = transport
	return a
}

// DecodeRow reads a row of the table.
func DecodeRow(text []byte) (Webhook, error) {
	r, err := decode(text)
	return r.webhook(), err
}
