package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// sample fills the placeholders of a path with what is there.
func (o *v1DocumentOperation) sample(account string) string {
	return strings.NewReplacer("{account_id}", account, "{webhook_id}", "1", "{replay_id}", "1", "{event_id}", "0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f",
		"{delivery_id}", "0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f").Replace(o.path)
}

// TestV1Access asks for each operation with each role, for the account and for
// another one: who may not is told so, and of what they do not see not even that
// it is there. Bodies are broken, so that nothing is done by those who may.
func TestV1Access(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	r.ok(http.StatusCreated, http.MethodPost, "/accounts/7/webhooks", `{"url": "https://example.com/"}`)
	least := map[string]domain.Role{}
	for _, id := range strings.Fields("listWebhooks getWebhook listEvents getEvent getTimeline listDeliveries getDelivery listAttempts listWebhookChanges listHealth listStats listReplays getReplay listRelays") {
		least[id] = domain.RoleViewer
	}
	for _, id := range strings.Fields("pauseWebhook enableWebhook closeBreaker testWebhook planReplay runReplay pauseReplay resumeReplay cancelReplay") {
		least[id] = domain.RoleOperator
	}
	for _, id := range strings.Fields("createWebhook updateWebhook disableWebhook deleteWebhook rotateSecret revealSecret") {
		least[id] = domain.RoleAdministrator
	}
	rank := map[domain.Role]int{domain.RoleViewer: 1, domain.RoleOperator: 2, domain.RoleAdministrator: 3}
	tokens := map[string]map[domain.Role]string{"7": {}, "8": {}, "all": {}}
	for _, role := range domain.Roles {
		tokens["7"][role], tokens["8"][role], tokens["all"][role] = r.token(7, role), r.token(8, role), r.token(0, role)
	}
	for _, o := range r.document.operations {
		takes, known := least[o.id]
		if !known {
			t.Errorf("%s: this test does not know who may", o.id)
		}
		if !strings.Contains(of[string](o.object["description"]), "role `"+string(takes)+"`") {
			t.Errorf("%s does not say that it takes the role %s", o.id, takes)
		}
		ofAccount := strings.Contains(o.path, "{account_id}")
		for whose, roles := range tokens {
			for role, token := range roles {
				a := r.call(o.method, o.sample("7"), token, "{broken")
				want := 0
				switch {
				case whose == "8" && ofAccount:
					want = http.StatusNotFound
				case !ofAccount && whose != "all", rank[role] < rank[takes]:
					want = http.StatusForbidden
				}
				if (a.status == http.StatusForbidden || want != 0 || a.status < 400) && a.status != want {
					t.Errorf("%s, by the %s of account %s: %d %s", o.id, role, whose, a.status, a.text)
				}
				if whose == "8" && ofAccount && !strings.Contains(a.text, "there is no such account for this token") {
					t.Errorf("%s tells another account: %s", o.id, a.text)
				}
			}
		}
		a := r.call(o.method, o.sample("7"), "", "{broken")
		a.is(http.StatusUnauthorized, "Authorization: Bearer")
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the header is %v", o.id, a.header)
		}
	}
	r.call(http.MethodGet, "/relays", "outrider_wrong", "").is(http.StatusUnauthorized, domain.ErrNoToken.Error())
	if w := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/webhooks/1", ""); w.at("version") != 1.0 {
		t.Errorf("something was done: %s", w.text)
	}
}

func TestV1Gate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := newV1Rig(t, func(c *httpapi.Config) {
		c.RequestsPerMinute = 3
		c.Clock = func() time.Time { return now }
	})
	// The token where Chatwoot's clients send it.
	a := r.call(http.MethodGet, "/accounts/7/webhooks", "", "", "Api_access_token", r.admin)
	a.is(http.StatusOK)
	for range 2 {
		r.ok(http.StatusOK, http.MethodGet, "/accounts/7/webhooks", "")
	}
	a = r.call(http.MethodGet, "/accounts/7/webhooks", r.admin, "")
	a.is(http.StatusTooManyRequests, "try again")
	if a.header.Get("Retry-After") == "" {
		t.Errorf("the header is %v", a.header)
	}
}

func TestV1Nowhere(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	for _, path := range []string{"", "/", "/accounts", "/accounts/7", "/accounts/7/webhooks/", "/accounts/7/webhooks/1/explode", "/accounts/7/payloads", "/openapi-3.0.json", "/docs", "/schemas/Webhook"} {
		r.refuses(http.StatusNotFound, []string{"openapi.json"}, http.MethodGet, path, "")
		r.call(http.MethodGet, path, "", "").is(http.StatusUnauthorized)
	}
	for _, other := range []struct{ method, path, allow string }{
		{http.MethodPut, "/accounts/7/webhooks/1", "GET, HEAD, PATCH, DELETE"},
		{http.MethodDelete, "/accounts/7/webhooks", "GET, HEAD, POST"},
		{http.MethodGet, "/accounts/7/webhooks/1/pause", "POST"},
		{http.MethodOptions, "/relays", "GET, HEAD"},
		{http.MethodPost, "/openapi.json", "GET, HEAD"},
	} {
		a := r.call(other.method, other.path, r.admin, "")
		a.is(http.StatusMethodNotAllowed, other.allow)
		if got := a.header.Get("Allow"); got != other.allow {
			t.Errorf("%s: Allow is %q, want %q", a.what, got, other.allow)
		}
	}
}

// TestV1SecretsAreForThoseWhoMaySeeThem, also one in the query of a URL.
func TestV1SecretsAreForThoseWhoMaySeeThem(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	path, _ := r.register(`{"url": "https://user:hunter2@example.com/hooks?key=hunter2", "secret": "hunter2hunter2", "headers": {"X-Api-Key": "hunter2"}}`)
	for _, role := range []domain.Role{domain.RoleViewer, domain.RoleOperator, domain.RoleAdministrator} {
		token := r.token(7, role)
		sees := []*v1Answer{r.call(http.MethodGet, path, token, ""), r.call(http.MethodGet, hooksOf7, token, ""), r.call(http.MethodGet, "/accounts/7/webhook-changes", token, "")}
		if role != domain.RoleViewer {
			for _, action := range []string{"pause", "enable", "close-breaker", "test"} {
				sees = append(sees, r.call(http.MethodPost, path+"/"+action, token, ""))
			}
		}
		if role == domain.RoleAdministrator {
			sees = append(sees, r.call(http.MethodPost, path+"/disable", token, ""))
		}
		for _, a := range sees {
			text := a.text
			if role == domain.RoleAdministrator {
				text = strings.ReplaceAll(text, "?key=hunter2", "")
			}
			if a.status >= 400 || strings.Contains(text, "hunter2") {
				t.Errorf("%s sees by %s: %d %s", role, a.what, a.status, a.text)
			}
		}
	}
}

// brokenHistory is one that cannot be read.
type brokenHistory struct {
	httpapi.History
	err error
}

func (b *brokenHistory) Health(context.Context, domain.AccountID, domain.WebhookID) ([]audit.Health, error) {
	if b.err == nil {
		panic("at the disco")
	}
	return nil, b.err
}

// TestV1Failures: what goes wrong inside is logged under a name that the answer
// has, and not told.
func TestV1Failures(t *testing.T) {
	t.Parallel()
	broken := &brokenHistory{}
	r := newV1Rig(t, func(c *httpapi.Config) { c.History = broken })
	for _, failure := range []struct {
		err    error
		status int
		logged string
	}{
		{errors.New("the flux capacitor leaks"), http.StatusInternalServerError, "flux capacitor"},
		{nil, http.StatusInternalServerError, "at the disco"},
		{fmt.Errorf("read: %w", postgres.ErrStandby), http.StatusServiceUnavailable, postgres.ErrStandby.Error()},
		{context.DeadlineExceeded, http.StatusServiceUnavailable, "deadline exceeded"},
	} {
		broken.err = failure.err
		a := r.call(http.MethodGet, "/accounts/7/health", r.admin, "")
		a.is(failure.status, "outrider doctor", "log of outrider web")
		instance, _ := a.at("instance").(string)
		id, ok := strings.CutPrefix(instance, "urn:uuid:")
		if !ok || !strings.Contains(r.log.String(), "request="+id) || !strings.Contains(r.log.String(), failure.logged) {
			t.Errorf("%v: the instance is %q, the log has\n%s", failure.err, instance, r.log)
		}
		if strings.Contains(a.text, failure.logged) {
			t.Errorf("%v: the answer tells %s", failure.err, a.text)
		}
	}
}

func TestV1WithoutDatabase(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t, func(c *httpapi.Config) {
		away, err := postgres.Open("postgres://outrider:hunter2hunter2@127.0.0.1:1/chat?sslmode=disable", "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = away.Close() })
		c.Webhooks, c.History, c.Replays = postgres.NewWebhooks(away), postgres.NewAudit(away), postgres.NewReplayPlans(away)
	})
	for _, path := range []string{"/accounts/7/webhooks", "/accounts/7/webhooks/1", "/accounts/7/events", "/accounts/7/replays/1", "/accounts/7/stats"} {
		a := r.call(http.MethodGet, path, r.admin, "")
		a.is(http.StatusServiceUnavailable, "cannot use its database now", "doctor")
		if a.header.Get("Retry-After") == "" || strings.Contains(a.text, "127.0.0.1") || strings.Contains(r.log.String(), "hunter2") {
			t.Errorf("%s: %v %s\n%s", path, a.header, a.text, r.log)
		}
	}
}
