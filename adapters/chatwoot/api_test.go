package chatwoot_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/chatwoot"
)

const token = "a-token-of-an-administrator"

// twoWebhooks is an answer in the form of Chatwoot 4.16.
const twoWebhooks = `{"payload":{"webhooks":[
  {"id":41,"name":"CRM sync","url":"https://hooks.crm.example/in","account_id":7,"subscriptions":["message_created","contact_created"],"secret":"hV3kQ9tZrB2mXw7cNf5pLd8s"},
  {"id":42,"name":null,"url":"https://n8n.example/webhook/abc","account_id":7,"subscriptions":["message_created"],"secret":"q2W8eR4tY6uI1oP9aS3dF7gH","inbox":{"id":12,"name":"Website chat"}}]}}`

func read(t *testing.T, base string, timeout time.Duration) ([]chatwoot.Webhook, error) {
	t.Helper()
	u, err := chatwoot.ParseURL(base)
	if err != nil {
		t.Fatal(err)
	}
	return chatwoot.NewAPI(u, token, timeout).Webhooks(t.Context(), 7)
}

func TestAPIListsWebhooks(t *testing.T) {
	t.Parallel()
	name := "CRM sync"
	want := []chatwoot.Webhook{
		{ID: 41, AccountID: 7, Name: &name, URL: "https://hooks.crm.example/in", Subscriptions: []string{"message_created", "contact_created"}, Secret: "hV3kQ9tZrB2mXw7cNf5pLd8s"},
		{ID: 42, AccountID: 7, URL: "https://n8n.example/webhook/abc", Subscriptions: []string{"message_created"}, InboxID: 12, Secret: "q2W8eR4tY6uI1oP9aS3dF7gH"},
	}
	// One is Rails behind nginx, which drops headers with underscores.
	for _, header := range []string{"Api_access_token", "Api-Access-Token"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path != "/chat/api/v1/accounts/7/webhooks" || r.Method != http.MethodGet:
				http.NotFound(w, r)
			case len(r.Header[header]) != 1 || r.Header[header][0] != token:
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"errors":["You need to sign in or sign up before continuing."]}`)
			default:
				fmt.Fprint(w, twoWebhooks)
			}
		}))
		t.Cleanup(server.Close)
		got, err := read(t, server.URL+"/chat/", time.Minute)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", header, got, err)
		}
	}
}

func TestAPISaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		status          int
		body            string
		problem, advice string
	}{
		{"BadToken", 401, `{"error":"Invalid Access Token"}`, "account 7: Chatwoot at", "administrator"},
		{"NotAdmin", 401, `{"error":"You are not authorized to do this action"}`, "401: You are not authorized to do this action", "administrator"},
		{"Suspended", 401, `{"error":"Account is suspended"}`, "suspended", "leave it out"},
		{"HeaderDropped", 401, `{"errors":["You need to sign in or sign up before continuing."]}`, "sign in", "underscores_in_headers"},
		{"Plan", 403, `{"error":"API access is not enabled for this account"}`, "403", "--chatwoot-database"},
		{"NoAccount", 404, `{"error":"Resource could not be found"}`, "404: Resource could not be found", "such an account"},
		{"NotChatwoot", 404, `<html>`, "404", "the address of Chatwoot itself"},
		{"TooMuch", 429, "Retry later\n", "429", "in a minute"},
		{"Moved", 301, "", "leads to https://elsewhere.example/", "give the address"},
		{"Broken", 502, "<html>Bad Gateway", "502", "log"},
		{"NotJSON", 200, "<html>Please log in", "not a list of webhooks (text/html)", "address of Chatwoot itself"},
		{"Empty", 200, "", "not a list of webhooks (an empty answer)", "address of Chatwoot itself"},
		{"OtherJSON", 200, `{"data":[]}`, "not a list of webhooks", "address of Chatwoot itself"},
		{"OtherAccount", 200, `{"payload":{"webhooks":[{"id":1,"account_id":8,"url":"https://x.example"}]}}`, "with one of account 8", "address of Chatwoot itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			t.Cleanup(server.Close)
			_, err := read(t, server.URL, time.Minute)
			expect(t, err, c.problem, c.advice)
		})
	}
}

func TestAPISaysWhyThereIsNoAnswer(t *testing.T) {
	t.Parallel()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hanging.Close)
	encrypted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(encrypted.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for _, c := range []struct{ base, problem, advice string }{
		{closed.URL, "refuses connections", "is Chatwoot running"},
		{encrypted.URL, "unknown authority", "SSL_CERT_FILE"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "does not speak TLS", "http://"},
		{"https://no-such-host.invalid", `the host "no-such-host.invalid" is unknown`, "name servers"},
	} {
		_, err := read(t, c.base, time.Minute)
		expect(t, err, c.problem, c.advice)
	}
	_, err := read(t, hanging.URL, time.Millisecond)
	expect(t, err, "does not answer within 1ms", "firewall")
	u, err := chatwoot.ParseURL(hanging.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := chatwoot.NewAPI(u, token, time.Minute).Webhooks(ctx, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func expect(t *testing.T, err error, problem, advice string) {
	t.Helper()
	e, ok := errors.AsType[*chatwoot.Error](err)
	if !ok || !strings.Contains(e.Problem, problem) || !strings.Contains(e.Advice, advice) {
		t.Errorf("got %v, %+v; want %q with %q", err, e, problem, advice)
	}
	if err != nil && strings.Contains(err.Error(), token) {
		t.Errorf("%v shows the token", err)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"chat.example.com", "ftp://chat.example.com", "https://", "https://user:pw@chat.example.com", "https://chat.example.com/?a=b", "https://%zz"} {
		if u, err := chatwoot.ParseURL(text); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s is %v, %v", text, u, err)
		}
	}
}
