package httpsend_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// What the history tells of a request is what was sent: each header, and each
// value that is on record.
func TestTheHistoryKnowsTheHeaders(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
	t.Cleanup(server.Close)
	request := requestTo(t, server.URL)
	request.Webhook.Credential = domain.Secret{}
	request.Webhook.Headers = domain.HeadersFromText("X-Api-Key: one\n")
	request.Attempt, request.Previous, request.Replay, request.Traceparent = 2, domain.OutcomeUnknown, 9, ""
	want(t, send(t, newSender(t), request), domain.ErrorNone, 200, "")
	sent := (<-requests).Header

	d := audit.Delivery{NotificationID: request.Notification, DeliveryID: request.Delivery, Event: request.Event, ReplayID: request.Replay}
	known := d.RequestHeaders(&audit.Attempt{Number: request.Attempt, PreviousOutcome: request.Previous}, []string{"X-Api-Key"})
	sent.Del("Content-Length")
	for _, line := range known {
		got := sent.Get(line.Name)
		if line.Withheld && (got == "" || line.Value != "") || !line.Withheld && got != line.Value {
			t.Errorf("%s is %q in the request, %+v in the history", line.Name, got, line)
		}
		sent.Del(line.Name)
	}
	if len(sent) > 0 {
		t.Errorf("the history does not know %v", sent)
	}
}
