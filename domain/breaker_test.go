package domain_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestWhatSaysThatAReceiverIsDown(t *testing.T) {
	t.Parallel()
	answered := func(status int) domain.Outcome {
		return domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorStatus, StatusCode: status}
	}
	failed := func(class domain.ErrorClass) domain.Outcome {
		return domain.Outcome{Kind: domain.OutcomeFailed, Class: class}
	}
	for name, c := range map[string]struct {
		outcome domain.Outcome
		down    bool
	}{
		"a success":            {domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 204}, false},
		"a redirect":           {answered(302), false},
		"400":                  {answered(400), false},
		"410":                  {answered(410), false},
		"429":                  {answered(429), false},
		"499":                  {answered(499), false},
		"500":                  {answered(500), true},
		"503":                  {answered(503), true},
		"what is no HTTP":      {answered(0), true},
		"a refused address":    {failed(domain.ErrorRefusedAddress), true},
		"no such name":         {failed(domain.ErrorDNS), true},
		"no connection":        {failed(domain.ErrorConnect), true},
		"no TLS":               {failed(domain.ErrorTLS), true},
		"a reset":              {failed(domain.ErrorReset), true},
		"half of an answer":    {domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorBody, StatusCode: 200}, true},
		"an answer too late":   {domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorTimeout, StatusCode: 200}, true},
		"no answer in time":    {failed(domain.ErrorTimeout), true},
		"a class of to-morrow": {failed("to-morrow"), true},
	} {
		if got := c.outcome.Down(); got != c.down {
			t.Errorf("%s says down: %t", name, got)
		}
	}
}

func TestTheWaitForAProbeIsSpread(t *testing.T) {
	t.Parallel()
	p := domain.BreakerPolicy{Spread: 0.1}
	for jitter, want := range map[float64]time.Duration{0: 9 * time.Second, 0.5: 10 * time.Second, 0.75: 10500 * time.Millisecond} {
		if got := p.Wait(10*time.Second, jitter); got != want {
			t.Errorf("with %v it waits %v, want %v", jitter, got, want)
		}
	}
}

// TestABreakerIsOpenedForTheURLThatWasDown, not for one that came meanwhile.
func TestABreakerIsOpenedForTheURLThatWasDown(t *testing.T) {
	t.Parallel()
	events, err := domain.DecideWebhook(foldWebhook(registered), domain.OpenBreaker{At: t0, URL: "https://example.com/before"})
	if err != nil || events != nil {
		t.Errorf("got %v, %v; want nothing", events, err)
	}
}

func TestARateLimitIsWithinBounds(t *testing.T) {
	t.Parallel()
	for limit, ok := range map[float64]bool{
		0: true, domain.MinRateLimit: true, 0.5: true, 50: true, domain.MaxRateLimit: true,
		-1: false, 0.001: false, domain.MaxRateLimit + 1: false, math.Inf(1): false, math.NaN(): false,
	} {
		_, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: with(func(s *domain.Settings) { s.RateLimit = limit }), Secret: secretA})
		if ok != (err == nil) {
			t.Errorf("a limit of %v gives %v", limit, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "rate_limit: ") {
			t.Errorf("a limit of %v is refused with %q", limit, err)
		}
	}
}

func TestARateLimitIsUpdatedAndImported(t *testing.T) {
	t.Parallel()
	limited := with(func(s *domain.Settings) { s.RateLimit = 2.5 })
	for name, command := range map[string]domain.WebhookCommand{
		"an update": domain.UpdateWebhook{Settings: limited},
		"an import": domain.ImportWebhook{URL: settings.URL, RateLimit: new(2.5)},
	} {
		before := foldWebhook(registered)
		events, err := domain.DecideWebhook(before, command)
		if err != nil || len(events) != 1 {
			t.Errorf("%s gives %v, %v", name, events, err)
			continue
		}
		after := domain.EvolveWebhook(before, events[0])
		if after.Settings.RateLimit != 2.5 {
			t.Errorf("after %s the limit is %v", name, after.Settings.RateLimit)
		}
		if got := domain.Differences(before, after); !slices.Contains(got, "rate_limit") {
			t.Errorf("%s differs in %v", name, got)
		}
	}
}

func TestTheReasonOfALastingFailureNamesItsTime(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{5 * 24 * time.Hour: "5 days", 36 * time.Hour: "36h0m0s", 24 * time.Hour: "24h0m0s"} {
		if got := domain.DisabledFailing(after); got != "no attempt succeeded for "+want {
			t.Errorf("after %v: %s", after, got)
		}
	}
}
