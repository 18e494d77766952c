package domain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

const password = "s3cr3t-Pa55"

var (
	settings = domain.Settings{
		URL: "https://example.com/hook", Name: "CRM", Subscriptions: []string{"contact_created", "message_created"},
		InboxID: 12, Timeout: 10 * time.Second, MaxConcurrency: 4, OrderHold: time.Minute,
		Deadline: time.Hour, Retries: []time.Duration{time.Second, time.Minute},
	}
	secretA    = domain.CredentialFromText("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	secretB    = domain.CredentialFromText("whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB")
	credential = domain.CredentialFromText("user:" + password)

	registered = domain.WebhookRegistered{Settings: settings, Credential: credential, Secret: secretA}
)

// with gives the settings with one change.
func with(change func(s *domain.Settings)) domain.Settings {
	s := settings
	s.Subscriptions, s.Retries = slices.Clone(s.Subscriptions), slices.Clone(s.Retries)
	change(&s)
	return s
}

func foldWebhook(changes ...domain.WebhookEvent) domain.Webhook {
	var w domain.Webhook
	for _, change := range changes {
		w = domain.EvolveWebhook(w, change)
	}
	return w
}

func changes(e ...domain.WebhookEvent) []domain.WebhookEvent { return e }

func TestDecideWebhook(t *testing.T) {
	t.Parallel()
	until := after(24 * time.Hour)
	for _, c := range []struct {
		name  string
		given []domain.WebhookEvent
		when  domain.WebhookCommand
		then  []domain.WebhookEvent
		err   error
	}{
		{
			name: "RegisteredWithItsSettings",
			when: domain.RegisterWebhook{Settings: settings, Secret: secretA},
			then: changes(domain.WebhookRegistered{Settings: settings, Secret: secretA}),
		},
		{
			name: "RegisteredWithDefaults",
			when: domain.RegisterWebhook{Settings: domain.Settings{URL: "https://example.com/hook"}, Secret: secretA},
			then: changes(domain.WebhookRegistered{
				Settings: domain.Settings{
					URL: "https://example.com/hook",
					Subscriptions: []string{
						"conversation_status_changed", "conversation_updated", "conversation_created", "contact_created",
						"contact_updated", "message_created", "message_updated", "webwidget_triggered",
					},
					Timeout: domain.DefaultTimeout, MaxConcurrency: domain.DefaultMaxConcurrency, Deadline: domain.DefaultDeadline,
				},
				Secret: secretA,
			}),
		},
		{
			name: "UserinfoBecomesTheCredential",
			when: domain.RegisterWebhook{Settings: with(func(s *domain.Settings) { s.URL = "https://user:" + password + "@example.com/hook" }), Secret: secretA},
			then: changes(registered),
		},
		{
			name: "SubscriptionsStandAsGivenAndOnce",
			when: domain.RegisterWebhook{Settings: with(func(s *domain.Settings) {
				s.Subscriptions = []string{"message_created", "contact_created", "message_created"}
			}), Secret: secretA},
			then: changes(domain.WebhookRegistered{Settings: with(func(s *domain.Settings) {
				s.Subscriptions = []string{"message_created", "contact_created"}
			}), Secret: secretA}),
		},
		{
			name:  "NotRegisteredTwice",
			given: changes(registered),
			when:  domain.RegisterWebhook{Settings: settings, Secret: secretA},
			err:   domain.ErrWebhookExists,
		},
		{
			name:  "NotRegisteredAgainAfterItsDeletion",
			given: changes(registered, domain.WebhookWasDeleted{}),
			when:  domain.RegisterWebhook{Settings: settings, Secret: secretA},
			err:   domain.ErrWebhookExists,
		},
		{
			name:  "Updated",
			given: changes(registered),
			when:  domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.Name = "ERP" })},
			then:  changes(domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.Name = "ERP" }), Credential: credential}),
		},
		{
			name:  "TheShownURLSentBackKeepsTheCredential",
			given: changes(registered),
			when:  domain.UpdateWebhook{Settings: settings},
		},
		{
			name:  "TheSameSettingsInAnotherSpellingAreNothingNew",
			given: changes(registered),
			when: domain.UpdateWebhook{Settings: with(func(s *domain.Settings) {
				s.URL = " https://user:" + password + "@example.com/hook#top"
				s.Subscriptions = []string{"contact_created", "message_created", "contact_created"}
			})},
		},
		{
			name:  "AnotherURLDropsTheCredential",
			given: changes(registered),
			when:  domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.URL = "https://elsewhere.example/hook" })},
			then:  changes(domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.URL = "https://elsewhere.example/hook" })}),
		},
		{
			name:  "AnotherPassword",
			given: changes(registered),
			when:  domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.URL = "https://user:other@example.com/hook" })},
			then:  changes(domain.WebhookUpdated{Settings: settings, Credential: domain.CredentialFromText("user:other")}),
		},
		{
			name:  "UpdatedWhileDisabled",
			given: changes(registered, domain.WebhookWasDisabled{Reason: "by hand"}),
			when:  domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.InboxID = 0 })},
			then:  changes(domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.InboxID = 0 }), Credential: credential}),
		},
		{
			name:  "InvalidSettingsAreRefused",
			given: changes(registered),
			when:  domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.Timeout = time.Hour })},
			err:   domain.ErrInvalidSettings,
		},
		{
			name:  "TheOldSecretSignsUntilItExpires",
			given: changes(registered),
			when:  domain.RotateSecret{Secret: secretB, Until: until},
			then:  changes(domain.WebhookSecretRotated{Secret: secretB, Previous: secretA, Until: until}),
		},
		{
			name:  "RotatingToTheSameSecretKeepsThePreviousOne",
			given: changes(registered, domain.WebhookSecretRotated{Secret: secretB, Previous: secretA, Until: until}),
			when:  domain.RotateSecret{Secret: secretB, Until: until},
		},
		{
			name:  "RotatedBack",
			given: changes(registered, domain.WebhookSecretRotated{Secret: secretB, Previous: secretA, Until: until}),
			when:  domain.RotateSecret{Secret: secretA, Until: until},
			then:  changes(domain.WebhookSecretRotated{Secret: secretA, Previous: secretB, Until: until}),
		},
		{
			name:  "DisabledWithItsReason",
			given: changes(registered),
			when:  domain.DisableWebhook{Reason: "5 days of nothing but failure"},
			then:  changes(domain.WebhookWasDisabled{Reason: "5 days of nothing but failure"}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.DecideWebhook(foldWebhook(c.given...), c.when)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if !reflect.DeepEqual(got, c.then) {
				t.Errorf("got  %+v\nwant %+v", got, c.then)
			}
		})
	}
}

// Each command in each state. A cell has the type of the event that follows,
// "-" where nothing changes, or the error.
func TestDecideWebhookInEachState(t *testing.T) {
	t.Parallel()
	states := map[string][]domain.WebhookEvent{
		"none":     nil,
		"enabled":  changes(registered),
		"paused":   changes(registered, domain.WebhookWasPaused{}),
		"disabled": changes(registered, domain.WebhookWasDisabled{}),
		"broken":   changes(registered, domain.WebhookBreakerOpened{At: t0}),
		"deleted":  changes(registered, domain.WebhookWasDeleted{}),
	}
	commands := []domain.WebhookCommand{
		domain.RegisterWebhook{Settings: settings, Secret: secretA},
		domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.Name = "ERP" })},
		domain.RotateSecret{Secret: secretB, Until: t0},
		domain.PauseWebhook{}, domain.EnableWebhook{}, domain.DisableWebhook{}, domain.DeleteWebhook{},
		domain.ImportWebhook{URL: settings.URL, Timeout: new(9 * time.Second)},
		domain.OpenBreaker{At: t0, Reason: "x", URL: settings.URL}, domain.CloseBreaker{},
		domain.RevealSecret{},
	}
	sentinels := map[string]error{"!gone": domain.ErrWebhookGone, "!exists": domain.ErrWebhookExists}
	table := map[string][]string{
		//           Register             Update            RotateSecret            Pause               Enable                 Disable               Delete               Import            Open                    Close    Reveal
		"none":     {"WebhookRegistered", "!gone", "!gone", "!gone", "!gone", "!gone", "!gone", "WebhookRegistered", "!gone", "!gone", "!gone"},
		"enabled":  {"!exists", "WebhookUpdated", "WebhookSecretRotated", "WebhookWasPaused", "-", "WebhookWasDisabled", "WebhookWasDeleted", "WebhookUpdated", "WebhookBreakerOpened", "-", "WebhookSecretRevealed"},
		"broken":   {"!exists", "WebhookUpdated", "WebhookSecretRotated", "WebhookWasPaused", "-", "WebhookWasDisabled", "WebhookWasDeleted", "WebhookUpdated", "-", "WebhookBreakerClosed", "WebhookSecretRevealed"},
		"paused":   {"!exists", "WebhookUpdated", "WebhookSecretRotated", "-", "WebhookEnabledAgain", "WebhookWasDisabled", "WebhookWasDeleted", "WebhookUpdated", "WebhookBreakerOpened", "-", "WebhookSecretRevealed"},
		"disabled": {"!exists", "WebhookUpdated", "WebhookSecretRotated", "WebhookWasPaused", "WebhookEnabledAgain", "-", "WebhookWasDeleted", "WebhookUpdated", "-", "-", "WebhookSecretRevealed"},
		"deleted":  {"!exists", "!gone", "!gone", "!gone", "!gone", "!gone", "!gone", "!gone", "!gone", "!gone", "!gone"},
	}
	covered := map[string]bool{}
	for _, command := range commands {
		covered[typeName(command)] = true
	}
	expectAll(t, implementers(t, "webhook.go", "webhookCommand"), covered)
	for state, given := range states {
		for i, command := range commands {
			t.Run(state+"/"+typeName(command), func(t *testing.T) {
				t.Parallel()
				want := table[state][i]
				got, err := domain.DecideWebhook(foldWebhook(given...), command)
				switch {
				case strings.HasPrefix(want, "!"):
					if !errors.Is(err, sentinels[want]) || got != nil {
						t.Errorf("got %v, %v; want %v", got, err, sentinels[want])
					}
				case want == "-":
					if err != nil || got != nil {
						t.Errorf("got %v, %v; want nothing", got, err)
					}
				default:
					if err != nil || len(got) != 1 || typeName(got[0]) != want {
						t.Fatalf("got %v, %v; want %s", got, err, want)
					}
				}
			})
		}
	}
	if got, err := domain.DecideWebhook(foldWebhook(registered), nil); err == nil || got != nil {
		t.Errorf("no command gives %v, %v", got, err)
	}
}

func TestEvolveWebhook(t *testing.T) {
	t.Parallel()
	base := domain.Webhook{ID: 3, AccountID: 7, Version: 42}
	full := base
	full.State, full.Settings, full.Credential, full.Secret = domain.WebhookEnabled, settings, credential, secretA
	broken := full
	broken.BreakerOpenedAt = t0
	moved := with(func(s *domain.Settings) { s.URL = "https://example.com/other" })
	other := with(func(s *domain.Settings) { s.Name = "ERP" })
	cases := []struct {
		event domain.WebhookEvent
		from  domain.Webhook
		want  func(w *domain.Webhook)
	}{
		{registered, base, func(w *domain.Webhook) { *w = full }},
		{domain.WebhookUpdated{Settings: other}, full, func(w *domain.Webhook) { w.Settings, w.Credential = other, domain.Secret{} }},
		{domain.WebhookSecretRotated{Secret: secretB, Previous: secretA, Until: t0}, full, func(w *domain.Webhook) {
			w.Secret, w.PreviousSecret, w.PreviousUntil = secretB, secretA, t0
		}},
		{domain.WebhookWasPaused{}, full, func(w *domain.Webhook) { w.State = domain.WebhookPaused }},
		{domain.WebhookWasDisabled{Reason: "x"}, full, func(w *domain.Webhook) { w.State = domain.WebhookDisabled }},
		{domain.WebhookEnabledAgain{}, full, func(*domain.Webhook) {}},
		{domain.WebhookWasDeleted{}, full, func(w *domain.Webhook) { w.State = domain.WebhookDeleted }},
		{domain.WebhookBreakerOpened{At: t0, Reason: "x"}, full, func(w *domain.Webhook) { w.BreakerOpenedAt = t0 }},
		{domain.WebhookBreakerClosed{}, broken, func(w *domain.Webhook) { *w = full }},
		{domain.WebhookSecretRevealed{}, full, func(*domain.Webhook) {}},
		{domain.WebhookSecretRevealed{}, broken, func(*domain.Webhook) {}},
		{domain.WebhookUpdated{Settings: other, Credential: credential}, broken, func(w *domain.Webhook) { w.Settings = other }},
		{domain.WebhookUpdated{Settings: moved, Credential: credential}, broken, func(w *domain.Webhook) { w.Settings, w.BreakerOpenedAt = moved, time.Time{} }},
		{domain.WebhookWasPaused{}, broken, func(w *domain.Webhook) { w.State = domain.WebhookPaused }},
		{domain.WebhookEnabledAgain{}, broken, func(w *domain.Webhook) { *w = full }},
		{domain.WebhookWasDisabled{}, broken, func(w *domain.Webhook) { w.State, w.BreakerOpenedAt = domain.WebhookDisabled, time.Time{} }},
		{domain.WebhookWasDeleted{}, broken, func(w *domain.Webhook) { w.State, w.BreakerOpenedAt = domain.WebhookDeleted, time.Time{} }},
	}
	covered := map[string]bool{}
	for _, c := range cases {
		covered[typeName(c.event)] = true
		t.Run(typeName(c.event), func(t *testing.T) {
			t.Parallel()
			want := c.from
			c.want(&want)
			if got := domain.EvolveWebhook(c.from, c.event); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
	expectAll(t, implementers(t, "webhook.go", "webhookEvent"), covered)
}

// TestADisablingCancelsWhatWasScheduledBefore, also once it is enabled again.
func TestADisablingCancelsWhatWasScheduledBefore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state     domain.WebhookState
		disabled  int64
		scheduled int64
		want      string
	}{
		{domain.WebhookEnabled, 0, 1, ""},
		{domain.WebhookEnabled, 5, 4, domain.CancelledDisabled},
		{domain.WebhookEnabled, 5, 5, ""}, // a replay that was asked for while it was disabled
		{domain.WebhookEnabled, 5, 6, ""},
		{domain.WebhookPaused, 5, 4, domain.CancelledDisabled},
		{domain.WebhookPaused, 5, 6, ""},
		{domain.WebhookDisabled, 5, 5, domain.CancelledDisabled},
		{domain.WebhookDeleted, 5, 6, domain.CancelledDeleted},
		{domain.WebhookDeleted, 0, 1, domain.CancelledDeleted},
	} {
		reason, cancels := domain.Webhook{State: c.state, DisabledVersion: c.disabled}.Cancels(c.scheduled)
		if reason != c.want || cancels != (c.want != "") {
			t.Errorf("%s, disabled at %d: what was scheduled at %d is cancelled: %t, %q; want %q", c.state, c.disabled, c.scheduled, cancels, reason, c.want)
		}
	}
}

// Each field of the settings counts: changing it alone is an event.
func TestEachSettingIsAChange(t *testing.T) {
	t.Parallel()
	fields := reflect.TypeFor[domain.Settings]()
	for i := range fields.NumField() {
		t.Run(fields.Field(i).Name, func(t *testing.T) {
			t.Parallel()
			changed := with(func(s *domain.Settings) {
				field := reflect.ValueOf(s).Elem().Field(i)
				switch field.Kind() {
				case reflect.String:
					field.SetString(field.String() + "x")
				case reflect.Int, reflect.Int64:
					field.SetInt(field.Int() + 1)
				case reflect.Float64:
					field.SetFloat(field.Float() + 1)
				case reflect.Slice:
					field.Set(field.Slice(0, 1))
				default:
					t.Fatalf("this test cannot change a %s", field.Kind())
				}
			})
			got, err := domain.DecideWebhook(foldWebhook(registered), domain.UpdateWebhook{Settings: changed})
			if err != nil || len(got) != 1 {
				t.Fatalf("got %v, %v; want one event", got, err)
			}
			if updated, ok := got[0].(domain.WebhookUpdated); !ok || !reflect.DeepEqual(updated.Settings, changed) {
				t.Errorf("got %+v, want %+v", got[0], changed)
			}
		})
	}
}

// What a command was given may be changed afterwards.
func TestDecideWebhookKeepsItsOwnSettings(t *testing.T) {
	t.Parallel()
	given := with(func(*domain.Settings) {})
	got, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: given})
	if err != nil {
		t.Fatal(err)
	}
	given.Subscriptions[0], given.Retries[0] = "changed", time.Hour
	if kept, ok := got[0].(domain.WebhookRegistered); !ok || !reflect.DeepEqual(kept.Settings, settings) {
		t.Errorf("the event is %+v", got[0])
	}
	defaults := slices.Clone(domain.DefaultSubscriptions)
	if _, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: domain.Settings{URL: "https://example.com"}}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(defaults, domain.DefaultSubscriptions) {
		t.Errorf("the defaults became %v", domain.DefaultSubscriptions)
	}
}

func TestSettingsBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(s *domain.Settings)
		problem string // "" where it is accepted
	}{
		{"ShortestTimeout", func(s *domain.Settings) { s.Timeout = time.Second }, ""},
		{"LongestTimeout", func(s *domain.Settings) { s.Timeout = 30 * time.Second }, ""},
		{"TimeoutTooShort", func(s *domain.Settings) { s.Timeout = time.Second - 1 }, "timeout: 999.999999ms"},
		{"TimeoutTooLong", func(s *domain.Settings) { s.Timeout = 30*time.Second + 1 }, "timeout: 30.000000001s"},
		{"TimeoutNegative", func(s *domain.Settings) { s.Timeout = -time.Second }, "timeout: -1s"},
		{"OneAtOnce", func(s *domain.Settings) { s.MaxConcurrency = 1 }, ""},
		{"MostAtOnce", func(s *domain.Settings) { s.MaxConcurrency = 256 }, ""},
		{"TooManyAtOnce", func(s *domain.Settings) { s.MaxConcurrency = 257 }, "max_concurrency: 257"},
		{"NegativeAtOnce", func(s *domain.Settings) { s.MaxConcurrency = -1 }, "max_concurrency: -1"},
		{"NoOrder", func(s *domain.Settings) { s.OrderHold = 0 }, ""},
		{"StrictOrder", func(s *domain.Settings) { s.OrderHold = domain.HoldForever }, ""},
		{"LongestHold", func(s *domain.Settings) { s.OrderHold = 24 * time.Hour }, ""},
		{"HoldTooLong", func(s *domain.Settings) { s.OrderHold = 24*time.Hour + 1 }, "order_hold: 24h0m0.000000001s"},
		{"HoldNegative", func(s *domain.Settings) { s.OrderHold = -time.Second }, "order_hold: -1s"},
		{"ShortestDeadline", func(s *domain.Settings) { s.Deadline = time.Second }, ""},
		{"LongestDeadline", func(s *domain.Settings) { s.Deadline = 7 * 24 * time.Hour }, ""},
		{"DeadlineTooShort", func(s *domain.Settings) { s.Deadline = time.Second - 1 }, "deadline: 999.999999ms"},
		{"DeadlineTooLong", func(s *domain.Settings) { s.Deadline = 7*24*time.Hour + 1 }, "deadline: 168h0m0.000000001s"},
		{"DeadlineNegative", func(s *domain.Settings) { s.Deadline = -time.Hour }, "deadline: -1h"},
		{"NoRetries", func(s *domain.Settings) { s.Retries = []time.Duration{} }, ""},
		{"TheRelaysRetries", func(s *domain.Settings) { s.Retries = nil }, ""},
		{"MostRetries", func(s *domain.Settings) {
			s.Retries = slices.Repeat([]time.Duration{time.Second, 7 * 24 * time.Hour}, 10)
		}, ""},
		{"TooManyRetries", func(s *domain.Settings) { s.Retries = slices.Repeat([]time.Duration{time.Second}, 21) }, "retries: 21 are too many"},
		{"RetryTooSoon", func(s *domain.Settings) { s.Retries = []time.Duration{time.Minute, time.Second - 1} }, "retries: 999.999999ms"},
		{"RetryTooLate", func(s *domain.Settings) { s.Retries = []time.Duration{7*24*time.Hour + 1} }, "retries: 168h0m0.000000001s"},
		{"AnyInbox", func(s *domain.Settings) { s.InboxID = 0 }, ""},
		{"NegativeInbox", func(s *domain.Settings) { s.InboxID = -1 }, "inbox_id: -1"},
		{"NoSubscriptions", func(s *domain.Settings) { s.Subscriptions = []string{} }, "subscriptions: name at least one"},
		{"UnknownEvent", func(s *domain.Settings) { s.Subscriptions = []string{"contact_merged"} }, ""},
		{"NoEventName", func(s *domain.Settings) { s.Subscriptions = []string{"Message Created"} }, `subscriptions: "Message Created"`},
		{"EventNameWithLineBreak", func(s *domain.Settings) { s.Subscriptions = []string{"message_created\n"} }, `subscriptions: "message_created\n"`},
		{"NoName", func(s *domain.Settings) { s.Name = "" }, ""},
		{"NameInAnyScript", func(s *domain.Settings) { s.Name = "Größe 東京 🐎" }, ""},
		{"NameWithNUL", func(s *domain.Settings) { s.Name = "a\x00b" }, "name:"},
		{"NameNotUTF8", func(s *domain.Settings) { s.Name = "a\xffb" }, "name:"},
		{"NoURL", func(s *domain.Settings) { s.URL = "" }, "url: is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: with(c.change)})
			if c.problem == "" {
				if err != nil || len(got) != 1 {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			var invalid *domain.InvalidSettingsError
			if !errors.As(err, &invalid) || !errors.Is(err, domain.ErrInvalidSettings) || got != nil {
				t.Fatalf("got %v, %v", got, err)
			}
			if len(invalid.Problems) != 1 || !strings.HasPrefix(invalid.Problems[0], c.problem) {
				t.Errorf("problems %q, want one: %q", invalid.Problems, c.problem)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	bad := domain.Settings{
		URL: "ftp://user:" + password + "@example.com", Name: "\x00", Subscriptions: []string{"A", "b c"}, InboxID: -1,
		Timeout: time.Hour, MaxConcurrency: 1000, OrderHold: -2, Deadline: -1, Retries: []time.Duration{0},
	}
	for name, command := range map[string]struct {
		webhook domain.Webhook
		command domain.WebhookCommand
	}{
		"Register": {domain.Webhook{}, domain.RegisterWebhook{Settings: bad}},
		"Update":   {foldWebhook(registered), domain.UpdateWebhook{Settings: bad}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := domain.DecideWebhook(command.webhook, command.command)
			var invalid *domain.InvalidSettingsError
			if !errors.As(err, &invalid) {
				t.Fatalf("error %v", err)
			}
			var about []string
			for _, problem := range invalid.Problems {
				field, _, _ := strings.Cut(problem, ":")
				about = append(about, field)
			}
			if want := []string{"url", "name", "subscriptions", "subscriptions", "timeout", "max_concurrency", "order_hold", "inbox_id", "deadline", "retries"}; !slices.Equal(about, want) {
				t.Errorf("problems %q, want one about each of %v", invalid.Problems, want)
			}
			if err.Error() != strings.Join(invalid.Problems, "; ") {
				t.Errorf("error %q", err)
			}
		})
	}
}

func TestSettingsJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		settings domain.Settings
		want     string
	}{
		{"Full", settings, `{"url":"https://example.com/hook","name":"CRM","subscriptions":["contact_created","message_created"],"inbox_id":12,"timeout":10000000000,"max_concurrency":4,"order_hold":60000000000,"deadline":3600000000000,"retries":[1000000000,60000000000]}`},
		{"StrictOrder", domain.Settings{URL: "http://h", Subscriptions: []string{"a"}, OrderHold: domain.HoldForever}, `{"url":"http://h","subscriptions":["a"],"timeout":0,"max_concurrency":0,"order_hold":-1,"deadline":0}`},
		{"Zero", domain.Settings{}, `{"url":"","subscriptions":null,"timeout":0,"max_concurrency":0,"order_hold":0,"deadline":0}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			data, err := json.Marshal(c.settings)
			if err != nil || string(data) != c.want {
				t.Errorf("got  %s, %v\nwant %s", data, err, c.want)
			}
			var got domain.Settings
			if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, c.settings) {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
}

func TestParseWebhookURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, shown, credential, problem string }{
		{"HTTPS", "https://example.com/hook?token=1", "https://example.com/hook?token=1", "", ""},
		{"HTTP", "http://example.com", "http://example.com", "", ""},
		{"SchemeInCapitals", "HTTPS://example.com/", "https://example.com/", "", ""},
		{"Spaces", " \thttps://example.com/\n", "https://example.com/", "", ""},
		{"Fragment", "https://example.com/#top", "https://example.com/", "", ""},
		{"EscapedFragment", "https://example.com/#%2f", "https://example.com/", "", ""},
		{"Port", "https://example.com:8443/", "https://example.com:8443/", "", ""},
		{"HighestPort", "https://example.com:65535/", "https://example.com:65535/", "", ""},
		{"EmptyPort", "https://example.com:/", "https://example.com:/", "", ""},
		{"PortZero", "https://example.com:0/", "", "", "url: the port"},
		{"PortTooHigh", "https://example.com:65536/", "", "", "url: the port"},
		{"PortFarTooHigh", "https://example.com:99999999999999999999/", "", "", "url: the port"},
		{"PortIsNoNumber", "https://example.com:http/", "", "", "url: cannot be parsed"},
		{"EscapedPath", "https://example.com/a%2Fb", "https://example.com/a%2Fb", "", ""},
		{"UnescapedPath", "https://example.com/größe", "https://example.com/gr%C3%B6%C3%9Fe", "", ""},
		{"QueryWithSpaces", "https://example.com/?a=b c #top", "https://example.com/?a=b%20c%20", "", ""},
		{"QueryInUTF8", "https://example.com/?q=größe\u00a0", "https://example.com/?q=gr%C3%B6%C3%9Fe", "", ""},
		{"QueryKeepsItsOwnEscapes", "https://example.com/?a=%20+%2b&b;c", "https://example.com/?a=%20+%2b&b;c", "", ""},
		{"IDN", "https://bücher.example/", "https://b%C3%BCcher.example/", "", ""},
		{"Punycode", "https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/", "", ""},
		{"Userinfo", "https://user:" + password + "@example.com/", "https://example.com/", "user:" + password, ""},
		{"UserOnly", "https://user@example.com/", "https://example.com/", "user:", ""},
		{"PasswordOnly", "https://:" + password + "@example.com/", "https://example.com/", ":" + password, ""},
		{"EscapedUserinfo", "https://us%40er:p%3Ass%2Fword@example.com/", "https://example.com/", "us@er:p:ss/word", ""},
		{"UserinfoWithNUL", "https://user:a%00" + password + "@example.com/", "", "", "url: the user name or password"},
		{"UserinfoNotUTF8", "https://user:a%ff" + password + "@example.com/", "", "", "url: the user name or password"},
		{"TwoAts", "https://user:" + password + "@a@example.com/", "https://example.com/", "user:" + password + "@a", ""},
		{"Zone", "https://[2606:4700::1111%25eth0]/", "https://[2606:4700::1111%25eth0]/", "", ""},
		{"ZoneNotASCII", "https://[2606:4700::1111%25é]/", "", "", "url: cannot be parsed"},
		{"PublicIPv4", "http://93.184.216.34/", "http://93.184.216.34/", "", ""},
		{"PublicIPv6", "http://[2606:4700::1111]:8080/", "http://[2606:4700::1111]:8080/", "", ""},
		{"Empty", "", "", "", "url: is missing"},
		{"Blank", "  ", "", "", "url: must begin"},
		{"NoScheme", "example.com/hook", "", "", "url: must begin"},
		{"SchemeRelative", "//example.com/hook", "", "", "url: must begin"},
		{"OtherScheme", "ftp://example.com/", "", "", "url: must begin"},
		{"File", "file:///etc/passwd", "", "", "url: must begin"},
		{"JavaScript", "javascript:alert(1)", "", "", "url: must begin"},
		{"NoSlashes", "https:example.com/hook", "", "", "url: has no host"},
		{"NoHost", "https:///hook", "", "", "url: has no host"},
		{"NoHostButPort", "https://:8080/", "", "", "url: has no host"},
		{"NoHostButUser", "https://user:" + password + "@/", "", "", "url: has no host"},
		{"SpaceInHost", "https://exa mple.com/", "", "", "url: cannot be parsed"},
		{"LineBreak", "https://example.com/\r\nX-Evil: 1", "", "", "url: cannot be parsed"},
		{"NUL", "https://example.com/\x00", "", "", "url: cannot be parsed"},
		{"BadEscape", "https://example.com/%zz", "", "", "url: cannot be parsed"},
		{"Backslash", `https://example.com\@127.0.0.1/`, "", "", "url: cannot be parsed"},
		{"OpenBracket", "https://[::1/", "", "", "url: cannot be parsed"},
		{"QueryNotUTF8", "https://example.com/?\xff", "", "", "url: is not valid UTF-8"},
		{"Longest", "https://example.com/" + strings.Repeat("a", 2480), "https://example.com/" + strings.Repeat("a", 2480), "", ""},
		{"TooLong", "https://example.com/" + strings.Repeat("a", 2481), "", "", "url: 2501 characters"},
		{"TooLongWithEscapes", "https://example.com/" + strings.Repeat("é", 1200), "", "", "url: 7220 characters, with escapes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			shown, credential, err := domain.ParseWebhookURL(c.text, domain.AddressPolicy{})
			if c.problem != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.problem) || shown != "" || !credential.IsZero() {
					t.Fatalf("got %q, %q, %v; want %q", shown, credential.Reveal(), err, c.problem)
				}
				if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "example.com/hook?") {
					t.Errorf("error %q quotes the URL", err)
				}
				return
			}
			if err != nil || shown != c.shown || credential.Reveal() != c.credential {
				t.Errorf("got %q, %q, %v; want %q, %q", shown, credential.Reveal(), err, c.shown, c.credential)
			}
		})
	}
}

// An address that is written in the URL is judged at once, in each spelling
// that IP parsers accept. The spellings that only inet_aton knows are names to
// Go: they are accepted here, and judged by the address that is dialled.
func TestAddressesInURLs(t *testing.T) {
	t.Parallel()
	for host, refused := range map[string]bool{
		"127.0.0.1":                      true,
		"127.0.0.1:8080":                 true,
		"user:" + password + "@10.0.0.1": true,
		"169.254.169.254":                true,
		"0.0.0.0":                        true,
		"[::1]":                          true,
		"[::]":                           true,
		"[0:0:0:0:0:0:0:1]:80":           true,
		"[::ffff:127.0.0.1]":             true,
		"[::ffff:7f00:1]":                true,
		"[::127.0.0.1]":                  true,
		"[64:ff9b::7f00:1]":              true,
		"[fe80::1%25eth0]":               true,
		"[FD00:EC2::254]":                true,
		"93.184.216.34":                  false,
		"[::ffff:93.184.216.34]":         false,
		// Names, to be judged when they are dialled.
		"localhost":        false,
		"127.0.0.1.":       false,
		"2130706433":       false, // 127.0.0.1, decimal
		"0x7f000001":       false, // hexadecimal
		"0x7f.1":           false,
		"0177.0.0.1":       false, // octal
		"127.1":            false,
		"127.0.0.1.nip.io": false,
		"１２７.0.0.1":        false, // full-width digits
	} {
		text := "http://" + host + "/hook"
		shown, _, err := domain.ParseWebhookURL(text, domain.AddressPolicy{})
		if (err != nil) != refused {
			t.Errorf("%s: %q, %v; want refused: %t", text, shown, err, refused)
		}
		if err != nil && (!strings.Contains(err.Error(), "is refused") || !strings.Contains(err.Error(), "OUTRIDER_ALLOW_CIDRS") || strings.Contains(err.Error(), password)) {
			t.Errorf("%s: error %q", text, err)
		}
	}
	// The same commands judge by the same policy.
	allowed := domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	local := domain.Settings{URL: "http://127.0.0.1:9000/hook"}
	if _, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: local}); !errors.Is(err, domain.ErrInvalidSettings) {
		t.Errorf("registered: %v", err)
	}
	if _, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: local, Addresses: allowed}); err != nil {
		t.Errorf("not registered: %v", err)
	}
	if _, err := domain.DecideWebhook(foldWebhook(registered), domain.UpdateWebhook{Settings: local}); !errors.Is(err, domain.ErrInvalidSettings) {
		t.Errorf("updated: %v", err)
	}
	if _, err := domain.DecideWebhook(foldWebhook(registered), domain.UpdateWebhook{Settings: local, Addresses: allowed}); err != nil {
		t.Errorf("not updated: %v", err)
	}
}

// The password is in no error, no settings and no printed event.
func TestPasswordsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"https://user:" + password + "@example.com/hook",
		"https://" + password + "@example.com/hook",
		"https://user:" + password + "@example.com:0/hook",
		"https://user:" + password + "@example.com:http/hook",
		"https://user:" + password + "@exa mple.com/hook",
		"https://user:" + password + "@[::1/hook",
		"https://user:" + password + "@[::1]/hook",
		"https://user:" + password + "@127.0.0.1/hook",
		"https://user:" + password + "@example.com/%zz",
		"https://user:" + password + "%zz@example.com/",
		"https://user:" + password + "%00@example.com/",
		"https://user:" + password + "@b@example.com/",
		"https://user:" + password + "\\@example.com/",
		"https://user:" + password + "@",
		"ftp://user:" + password + "@example.com/",
		"//user:" + password + "@example.com/",
		"user:" + password + "@example.com/",
		"https://user:" + password + "@example.com/" + strings.Repeat("a", 9000),
		"https://user:" + password + "@example.com/" + strings.Repeat("é", 1200),
	} {
		decided, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: domain.Settings{URL: text}, Secret: secretA})
		printed := fmt.Sprintf("%v %+v %#v", decided, decided, decided)
		data, jsonErr := json.Marshal(decided)
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		if printed += string(data); err != nil {
			printed += err.Error() + fmt.Sprintf("%+v %#v", err, err)
		}
		if strings.Contains(printed, password) {
			t.Errorf("%.80s: the password is in %.200s", text, printed)
		}
	}
}

// FuzzWebhookURL: no text panics; a shown URL has no userinfo, is one that
// PostgreSQL can keep, and is read again as itself; a URL with a literal
// refused address does not pass.
func FuzzWebhookURL(f *testing.F) {
	for _, seed := range []string{
		"", " ", "https://example.com/hook", "HTTP://user:pass@Example.COM:80/a%2Fb?c=d&e#f", "http://[::1%25eth0]:80/",
		"http://127.0.0.1/", "http://2130706433/", "http://[::ffff:10.0.0.1]/", "http://bücher.example/größe?ü#ß", "http://%C3%A9.com/",
		"http:opaque", "http:///", "//host", "http://h:0/", "http://@h/", "http://:@h", "http://a@b@c/", "http://h/\xff", "http://h?#", "http://h//..//x",
		"http://user:%00@h/", "http://h/ %20+", "http://[2606:4700::1111%25é]/", "http://1.2.3.4:65535/?", `http://h\@127.0.0.1/`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown, credential, err := domain.ParseWebhookURL(text, domain.AddressPolicy{})
		if err != nil {
			if shown != "" || !credential.IsZero() {
				t.Fatalf("%q, %q beside the error %v", shown, credential.Reveal(), err)
			}
			return
		}
		u, err := url.Parse(shown)
		if err != nil {
			t.Fatalf("%q is shown as %q: %v", text, shown, err)
		}
		if u.User != nil || u.Fragment != "" || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
			t.Fatalf("%q is shown as %q", text, shown)
		}
		if strings.ContainsFunc(shown, func(r rune) bool { return r <= ' ' || r > '~' }) || strings.ContainsRune(credential.Reveal(), 0) || !utf8.ValidString(credential.Reveal()) {
			t.Fatalf("%q is shown as %q with the credential %q, which cannot be kept", text, shown, credential.Reveal())
		}
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
			if reason, refused := (domain.AddressPolicy{}).Refuse(addr); refused {
				t.Fatalf("%q passes, but its address is refused: %s", text, reason)
			}
		}
		again, none, err := domain.ParseWebhookURL(shown, domain.AddressPolicy{})
		if err != nil || again != shown || !none.IsZero() {
			t.Fatalf("%q is shown as %q, and that as %q with the credential %q: %v", text, shown, again, none.Reveal(), err)
		}
	})
}
