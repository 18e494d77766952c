package domain

import (
	"slices"
	"time"
)

// ImportWebhook makes a webhook as it is described elsewhere, or brings the one
// that the account has with the URL in line with the description. What the
// description does not say stays as it is, and takes its default where the
// webhook is new.
type ImportWebhook struct {
	URL            string
	Name           *string
	Subscriptions  []string // nil: not said
	InboxID        *int64
	Timeout        *time.Duration
	MaxConcurrency *int
	OrderHold      *time.Duration
	Deadline       *time.Duration
	Retries        *[]time.Duration // to nil: the relay's own schedule
	// Headers are all that it is to have, nil where that is not said. One without
	// a value was withheld from the description: it stays as it is.
	Headers   []Header
	RateLimit *float64
	// Secret is the zero value where it is not said; a new webhook then takes
	// Fresh. PreviousSecret signs beside it until PreviousUntil; it is not
	// looked at without Secret.
	Secret         Secret
	PreviousSecret Secret
	PreviousUntil  time.Time
	Fresh          Secret
	// CredentialWithheld says that the URL had a user and a password which the
	// description leaves out.
	CredentialWithheld bool
	// State is WebhookNone where it is not said.
	State WebhookState
	// NewState, where it is not WebhookNone, is a new webhook's instead; one
	// that is there then keeps its state, so that the same import again does
	// not enable what the first one disabled.
	NewState WebhookState
	// At is when a secret that is replaced without a previous one signs no
	// more.
	At        time.Time
	Addresses AddressPolicy
}

// DisabledImported is the reason of a webhook that begins as disabled.
const DisabledImported = "imported as disabled"

// over puts what is said over settings.
func (c *ImportWebhook) over(s Settings) Settings {
	s.URL = c.URL
	if c.Name != nil {
		s.Name = *c.Name
	}
	if c.Subscriptions != nil {
		s.Subscriptions = c.Subscriptions
	}
	if c.InboxID != nil {
		s.InboxID = *c.InboxID
	}
	if c.Timeout != nil {
		s.Timeout = *c.Timeout
	}
	if c.MaxConcurrency != nil {
		s.MaxConcurrency = *c.MaxConcurrency
	}
	if c.OrderHold != nil {
		s.OrderHold = *c.OrderHold
	}
	if c.Deadline != nil {
		s.Deadline = *c.Deadline
	}
	if c.Retries != nil {
		s.Retries = *c.Retries
	}
	if c.RateLimit != nil {
		s.RateLimit = *c.RateLimit
	}
	return s
}

// importNew begins the stream, and brings it into its state at once: no event
// is routed to a webhook that is imported as disabled.
func importNew(account AccountID, c ImportWebhook) ([]WebhookEvent, error) {
	settings, credential, err := c.over(Settings{OrderHold: DefaultOrderHold}).normalize(account, c.Addresses)
	changes, withheld := Headers{}.toward(c.Headers)
	headers, err := Headers{}.with(changes, credential, withProblems(err, withheld))
	if err != nil {
		return nil, err
	}
	if c.CredentialWithheld && credential.IsZero() {
		return nil, &InvalidSettingsError{[]string{"url: its user and password were left out when it was exported; write them into the URL, or export it with its secrets"}}
	}
	registered := WebhookRegistered{settings, credential, headers, c.Secret}
	if c.Secret.IsZero() {
		registered.Secret = c.Fresh
	}
	events := []WebhookEvent{registered}
	if c.previousSigns() {
		registered.Secret = c.PreviousSecret
		events = []WebhookEvent{registered, WebhookSecretRotated{c.Secret, c.PreviousSecret, c.PreviousUntil}}
	}
	state := c.NewState
	if state == WebhookNone {
		state = c.State
	}
	return append(events, toState(WebhookEnabled, state)...), nil
}

func importAgain(w Webhook, c ImportWebhook) ([]WebhookEvent, error) {
	changes, withheld := w.Headers.toward(c.Headers)
	events, err := DecideWebhook(w, UpdateWebhook{c.over(w.Settings), changes, c.Addresses})
	if err = withProblems(err, withheld); err != nil {
		return nil, err
	}
	switch rotated := (WebhookSecretRotated{c.Secret, Secret{}, c.At}); {
	case c.Secret.IsZero():
	case c.previousSigns():
		rotated.Previous, rotated.Until = c.PreviousSecret, c.PreviousUntil
		if c.Secret != w.Secret || c.PreviousSecret != w.PreviousSecret || !c.PreviousUntil.Equal(w.PreviousUntil) {
			events = append(events, rotated)
		}
	case c.Secret != w.Secret:
		events = append(events, rotated)
	}
	if c.NewState != WebhookNone {
		return events, nil
	}
	return append(events, toState(w.State, c.State)...), nil
}

// previousSigns reports whether a replaced secret still signs.
func (c *ImportWebhook) previousSigns() bool {
	return !c.Secret.IsZero() && !c.PreviousSecret.IsZero() && c.PreviousUntil.After(c.At)
}

// toState gives the change from one state to another, none where the other is
// not said.
func toState(from, to WebhookState) []WebhookEvent {
	if from == to {
		return nil
	}
	switch to {
	case WebhookEnabled:
		return []WebhookEvent{WebhookEnabledAgain{}}
	case WebhookPaused:
		return []WebhookEvent{WebhookWasPaused{}}
	case WebhookDisabled:
		return []WebhookEvent{WebhookWasDisabled{DisabledImported}}
	case WebhookNone, WebhookDeleted:
	}
	return nil
}

// Differences names what differs between two forms of a webhook, as an export
// names it; secrets, a credential and headers only by name.
func Differences(a, b Webhook) []string {
	var names []string
	differ := func(name string, differs bool) {
		if differs {
			names = append(names, name)
		}
	}
	s, o := a.Settings, b.Settings
	differ("url", s.URL != o.URL || a.Credential != b.Credential)
	differ("name", s.Name != o.Name)
	differ("subscriptions", !slices.Equal(s.Subscriptions, o.Subscriptions))
	differ("inbox_id", s.InboxID != o.InboxID)
	differ("state", a.State != b.State)
	differ("timeout", s.Timeout != o.Timeout)
	differ("max_concurrency", s.MaxConcurrency != o.MaxConcurrency)
	differ("order_hold", s.OrderHold != o.OrderHold)
	differ("deadline", s.Deadline != o.Deadline)
	differ("retries", !sameRetries(s.Retries, o.Retries))
	differ("headers", a.Headers != b.Headers)
	differ("rate_limit", s.RateLimit != o.RateLimit)
	differ("secret", a.Secret != b.Secret)
	differ("previous_secret", a.PreviousSecret != b.PreviousSecret || !a.PreviousUntil.Equal(b.PreviousUntil))
	return names
}
