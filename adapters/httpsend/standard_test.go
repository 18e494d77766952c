package httpsend_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// TestTheLibraryOfStandardWebhooksVerifies: a request with a secret of either
// spelling, and with each of the two while they are rotated, is genuine to the
// library that others use.
func TestTheLibraryOfStandardWebhooksVerifies(t *testing.T) {
	t.Parallel()
	var header http.Header
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
	}))
	t.Cleanup(server.Close)
	// The library has no other clock than the machine's.
	sender := newSender(t, func(c *httpsend.Config) { c.Now = time.Now })
	for _, c := range []struct{ name, secret, previous string }{
		{"Standard", standardSecret, ""},
		{"Opaque", opaqueSecret, ""},
		{"FromOpaque", standardSecret, opaqueSecret},
		{"ToOpaque", opaqueSecret, standardSecret},
	} {
		t.Run(c.name, func(t *testing.T) {
			request := requestTo(t, server.URL)
			request.Webhook.Secret = secretOf(t, c.secret)
			held := []string{c.secret}
			if c.previous != "" {
				request.Webhook.PreviousSecret, request.Webhook.PreviousUntil = secretOf(t, c.previous), time.Now().Add(time.Hour)
				held = append(held, c.previous)
			}
			if o := send(t, sender, request); o.Kind != domain.OutcomeSucceeded {
				t.Fatalf("%+v", o)
			}
			if n := len(strings.Fields(header.Get("webhook-signature"))); n != len(held) {
				t.Errorf("%d signatures, want %d", n, len(held))
			}
			for _, text := range held {
				// receivers.md tells both ways to give it an opaque secret.
				spelled, err := standardwebhooks.NewWebhook(secretOf(t, text).StandardText())
				if err != nil {
					t.Fatal(err)
				}
				raw, err := standardwebhooks.NewWebhookRaw(secretOf(t, text).StandardKey())
				if err != nil {
					t.Fatal(err)
				}
				for _, library := range []*standardwebhooks.Webhook{spelled, raw} {
					if err := library.Verify(body, header); err != nil {
						t.Errorf("%s: %v", text, err)
					}
					if library.Verify(append(body, ' '), header) == nil {
						t.Error("a changed body is verified")
					}
				}
			}
			other, err := standardwebhooks.NewWebhookRaw([]byte("another key"))
			if err != nil {
				t.Fatal(err)
			}
			if other.Verify(body, header) == nil {
				t.Error("another key verifies it")
			}
		})
	}
}
