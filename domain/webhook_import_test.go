package domain_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestImportWebhook(t *testing.T) {
	t.Parallel()
	said := func(change func(*domain.ImportWebhook)) domain.ImportWebhook {
		c := domain.ImportWebhook{URL: "https://new.example/hook", Fresh: secretB, At: t0}
		if change != nil {
			change(&c)
		}
		return c
	}
	known := func(change func(*domain.ImportWebhook)) domain.ImportWebhook {
		c := domain.ImportWebhook{URL: settings.URL, Fresh: secretB, At: t0}
		change(&c)
		return c
	}
	defaults := domain.Settings{
		URL: "https://new.example/hook", Subscriptions: domain.DefaultSubscriptions, Timeout: domain.DefaultTimeout,
		MaxConcurrency: domain.DefaultMaxConcurrency, OrderHold: domain.DefaultOrderHold, Deadline: domain.DefaultDeadline,
	}
	later := t0.Add(time.Hour)
	for _, c := range []struct {
		name  string
		given []domain.WebhookEvent
		when  domain.ImportWebhook
		then  []domain.WebhookEvent
		err   string
	}{
		{name: "NewTakesDefaultsAndAFreshSecret", when: said(nil), then: changes(domain.WebhookRegistered{Settings: defaults, Secret: secretB})},
		{name: "NewKeepsItsSecret", when: said(func(c *domain.ImportWebhook) { c.Secret = secretA }),
			then: changes(domain.WebhookRegistered{Settings: defaults, Secret: secretA})},
		{name: "NewWithTwoSecrets", when: said(func(c *domain.ImportWebhook) { c.Secret, c.PreviousSecret, c.PreviousUntil = secretA, secretB, later }),
			then: changes(domain.WebhookRegistered{Settings: defaults, Secret: secretB}, domain.WebhookSecretRotated{Secret: secretA, Previous: secretB, Until: later})},
		{name: "APreviousSecretThatSignsNoMore", when: said(func(c *domain.ImportWebhook) { c.Secret, c.PreviousSecret, c.PreviousUntil = secretA, secretB, t0 }),
			then: changes(domain.WebhookRegistered{Settings: defaults, Secret: secretA})},
		{name: "NewIsDisabledAtOnce", when: said(func(c *domain.ImportWebhook) { c.State, c.NewState = domain.WebhookEnabled, domain.WebhookDisabled }),
			then: changes(domain.WebhookRegistered{Settings: defaults, Secret: secretB}, domain.WebhookWasDisabled{Reason: domain.DisabledImported})},
		{name: "NewIsPausedAtOnce", when: said(func(c *domain.ImportWebhook) { c.State = domain.WebhookPaused }),
			then: changes(domain.WebhookRegistered{Settings: defaults, Secret: secretB}, domain.WebhookWasPaused{})},
		{name: "AWithheldCredentialIsMissing", when: said(func(c *domain.ImportWebhook) { c.CredentialWithheld = true }), err: "user and password"},
		{name: "AWithheldCredentialIsKnown", given: changes(registered), when: known(func(c *domain.ImportWebhook) { c.CredentialWithheld = true })},
		{name: "NothingSaidChangesNothing", given: changes(registered), when: known(func(*domain.ImportWebhook) {})},
		{name: "TheSameAgain", given: changes(registered, domain.WebhookSecretRotated{Secret: secretB, Previous: secretA, Until: later}, domain.WebhookWasPaused{}),
			when: known(func(c *domain.ImportWebhook) {
				c.Name, c.InboxID, c.Timeout, c.MaxConcurrency, c.OrderHold = &settings.Name, &settings.InboxID, &settings.Timeout, &settings.MaxConcurrency, &settings.OrderHold
				c.Deadline, c.Retries = &settings.Deadline, &settings.Retries
				c.Subscriptions, c.State = settings.Subscriptions, domain.WebhookPaused
				c.Secret, c.PreviousSecret, c.PreviousUntil = secretB, secretA, later
			})},
		{name: "AllThatDiffers", given: changes(registered, domain.WebhookWasPaused{}),
			when: known(func(c *domain.ImportWebhook) {
				c.MaxConcurrency, c.Secret, c.State = new(3), secretB, domain.WebhookEnabled
			}),
			then: changes(
				domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.MaxConcurrency = 3 }), Credential: credential},
				domain.WebhookSecretRotated{Secret: secretB, Until: t0}, domain.WebhookEnabledAgain{})},
		{name: "TheRelaysRetriesAgain", given: changes(registered), when: known(func(c *domain.ImportWebhook) { c.Retries = new([]time.Duration) }),
			then: changes(domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.Retries = nil }), Credential: credential})},
		{name: "NoRetries", given: changes(registered), when: known(func(c *domain.ImportWebhook) { c.Retries, c.Deadline = &[]time.Duration{}, new(time.Minute) }),
			then: changes(domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.Retries, s.Deadline = []time.Duration{}, time.Minute }), Credential: credential})},
		{name: "NewWithHeaders", when: said(func(c *domain.ImportWebhook) {
			c.Headers = []domain.Header{domain.NewHeader("X-B", "2"), domain.NewHeader("X-A", "1")}
		}),
			then: changes(domain.WebhookRegistered{Settings: defaults, Headers: domain.HeadersFromText("X-A: 1\nX-B: 2\n"), Secret: secretB})},
		{name: "AWithheldHeaderIsMissing", when: said(func(c *domain.ImportWebhook) { c.Headers = []domain.Header{{Name: "X-A"}} }), err: "the value of X-A was left out"},
		{name: "AWithheldHeaderStaysAndTheOthersGo", given: changes(withHeaders("X-A: 1\nX-B: 2\nX-C: 3\n")),
			when: known(func(c *domain.ImportWebhook) {
				c.Headers = []domain.Header{{Name: "x-a"}, domain.NewHeader("X-C", "4")}
			}),
			then: changes(domain.WebhookUpdated{Settings: settings, Headers: domain.HeadersFromText("X-A: 1\nX-C: 4\n")})},
		{name: "NoHeadersSaidKeepsThem", given: changes(withHeaders("X-A: 1\n")), when: known(func(*domain.ImportWebhook) {})},
		{name: "NoHeadersAtAll", given: changes(withHeaders("X-A: 1\n")), when: known(func(c *domain.ImportWebhook) { c.Headers = []domain.Header{} }),
			then: changes(domain.WebhookUpdated{Settings: settings})},
		{name: "AllThatIsWrong", given: changes(withHeaders("X-A: 1\n")), when: known(func(c *domain.ImportWebhook) {
			c.Timeout, c.Headers = new(time.Hour), []domain.Header{domain.NewHeader("Host", "1"), {Name: "X-B"}}
		}), err: "timeout: 1h0m0s is not within 1s to 30s; headers: Host is sent by Outrider or by HTTP itself; headers: the value of X-B was left out"},
		{name: "TheStateOfNewOnesIsForNewOnes", given: changes(registered), when: known(func(c *domain.ImportWebhook) { c.NewState = domain.WebhookDisabled })},
		{name: "InvalidSettings", given: changes(registered), when: known(func(c *domain.ImportWebhook) { c.Timeout = new(time.Hour) }), err: "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before := foldWebhook(c.given...)
			got, err := domain.DecideWebhook(before, c.when)
			if (err == nil) != (c.err == "") || err != nil && (!errors.Is(err, domain.ErrInvalidSettings) || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if !reflect.DeepEqual(got, c.then) {
				t.Errorf("got  %+v\nwant %+v", got, c.then)
			}
			after := before
			for _, event := range got {
				after = domain.EvolveWebhook(after, event)
			}
			if again, err := domain.DecideWebhook(after, c.when); c.err == "" && (err != nil || len(again) != 0) {
				t.Errorf("the same again gives %+v, %v", again, err)
			}
			if named := domain.Differences(before, after); (len(named) == 0) != (len(got) == 0) {
				t.Errorf("%d events, differences %v", len(got), named)
			}
		})
	}
}
