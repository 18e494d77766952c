package domain

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// WebhookState is where a webhook is in its life.
type WebhookState string

// The states of a webhook.
const (
	WebhookNone     WebhookState = ""         // not registered yet
	WebhookEnabled  WebhookState = "enabled"  // routed and delivered
	WebhookPaused   WebhookState = "paused"   // routed and kept
	WebhookDisabled WebhookState = "disabled" // not routed; what was pending is cancelled
	WebhookDeleted  WebhookState = "deleted"  // gone, but its history
)

// Settings are what an account administrator chooses for a webhook.
type Settings struct {
	URL           string   `json:"url"`
	Name          string   `json:"name,omitempty"`
	Subscriptions []string `json:"subscriptions"`
	// InboxID restricts the webhook to events of one inbox; 0: all.
	InboxID int64 `json:"inbox_id,omitempty"`
	// Timeout is the total deadline of an attempt, response body included.
	// 1 s to 30 s.
	Timeout time.Duration `json:"timeout"`
	// MaxConcurrency is the most attempts under way at once. 1 to 256.
	MaxConcurrency int `json:"max_concurrency"`
	// OrderHold is how long a delivery waits for a failed earlier one of its
	// ordering key, counted from its own routing. 0: no order at all;
	// HoldForever: as long as it takes.
	OrderHold time.Duration `json:"order_hold"`
	// Deadline is how long after its routing a delivery may still start an
	// attempt; past it the delivery expires. 1 s to 7 days. Some events have a
	// shorter one of their own: DeadlineOf.
	Deadline time.Duration `json:"deadline"`
	// Retries are the waits after the first, second, … failed attempt: up to
	// 20, each 1 s to 7 days. Empty: one attempt and no more; nil: the relay's
	// own, DefaultRetryPolicy.
	Retries []time.Duration `json:"retries,omitzero"`
	// RateLimit is how many attempts may begin in a second, those of retries and
	// replays among them. 0: as many as come; else MinRateLimit to MaxRateLimit.
	RateLimit float64 `json:"rate_limit,omitempty"`
}

// The bounds of a rate limit: one attempt in 100 s, and more than a receiver
// could notice.
const (
	MinRateLimit = 0.01
	MaxRateLimit = 10_000
)

// HoldForever is the OrderHold of strict order.
const HoldForever time.Duration = -1

// The defaults of a webhook's settings. 5 s is Chatwoot's WEBHOOK_TIMEOUT.
const (
	DefaultTimeout        = 5 * time.Second
	DefaultMaxConcurrency = 16
	DefaultOrderHold      = 30 * time.Second
	DefaultDeadline       = 7 * 24 * time.Hour
)

// maxRetries and longestRetry bound a webhook's retry schedule.
const (
	maxRetries   = 20
	longestRetry = 7 * 24 * time.Hour
)

// DeadlineOf is how long after its routing a delivery of the named event may
// still start an attempt: the webhook's deadline or the event's own, whichever
// is shorter.
func (s *Settings) DeadlineOf(event string) time.Duration {
	if s.Deadline == 0 {
		return Deadline(event)
	}
	return min(s.Deadline, Deadline(event))
}

// RetryPolicy is otherwise with the webhook's own schedule, if it has one.
func (s *Settings) RetryPolicy(otherwise RetryPolicy) RetryPolicy {
	if s.Retries != nil {
		otherwise.Delays = s.Retries
	}
	return otherwise
}

// Webhook is one URL that an account registered: the fold of its events.
type Webhook struct {
	ID        WebhookID
	AccountID AccountID
	// Version counts the account's configuration changes; this is the number
	// of the last one that touched this webhook.
	Version int64
	// DisabledVersion is the version that disabled it last, 0 for never.
	DisabledVersion int64
	State           WebhookState
	Settings        Settings
	// Unreadable says why Settings could not be read from where they are kept,
	// empty where they could. They are zero then, and it is neither routed nor sent
	// to until they are mended.
	Unreadable string
	// Credential is the userinfo of the URL as it was given, sent as Basic
	// authorization and never shown.
	Credential Secret
	// Headers are added to each POST. They and Credential have at most one
	// Authorization between them.
	Headers Headers
	// Secret signs; PreviousSecret signs beside it until PreviousUntil.
	Secret         Secret
	PreviousSecret Secret
	PreviousUntil  time.Time
	// BreakerOpenedAt is since when its circuit breaker is open, zero while it is
	// closed.
	BreakerOpenedAt time.Time
}

// Problem says for people what is wrong with a webhook that is as good as not
// there, "" where nothing is.
func (w *Webhook) Problem() string {
	if w.Unreadable == "" {
		return ""
	}
	return "its settings cannot be read: " + w.Unreadable
}

// WebhookEvent is a change of a webhook: registered, updated, secret_rotated,
// paused, enabled, disabled, deleted, breaker_opened, breaker_closed,
// secret_revealed.
type WebhookEvent interface{ webhookEvent() }

type (
	// WebhookRegistered begins a webhook's stream.
	WebhookRegistered struct {
		Settings   Settings
		Credential Secret
		Headers    Headers
		Secret     Secret
	}
	// WebhookUpdated replaces the settings.
	WebhookUpdated struct {
		Settings   Settings
		Credential Secret
		Headers    Headers
	}
	// WebhookSecretRotated replaces the secret; the old one signs until Until.
	WebhookSecretRotated struct {
		Secret   Secret
		Previous Secret
		Until    time.Time
	}
	// WebhookWasPaused stops sending, not routing.
	WebhookWasPaused struct{}
	// WebhookEnabledAgain resumes a paused or disabled webhook.
	WebhookEnabledAgain struct{}
	// WebhookWasDisabled stops routing and sending.
	WebhookWasDisabled struct{ Reason string }
	// WebhookWasDeleted ends the stream.
	WebhookWasDeleted struct{}
	// WebhookBreakerOpened stops sending, but for probes: its receiver is down.
	WebhookBreakerOpened struct {
		At     time.Time
		Reason string
	}
	// WebhookBreakerClosed sends again: a probe was answered.
	WebhookBreakerClosed struct{}
	// WebhookSecretRevealed changes nothing of the webhook: it says that somebody
	// was shown its secrets.
	WebhookSecretRevealed struct{}
)

func (WebhookRegistered) webhookEvent()     {}
func (WebhookUpdated) webhookEvent()        {}
func (WebhookSecretRotated) webhookEvent()  {}
func (WebhookWasPaused) webhookEvent()      {}
func (WebhookEnabledAgain) webhookEvent()   {}
func (WebhookWasDisabled) webhookEvent()    {}
func (WebhookWasDeleted) webhookEvent()     {}
func (WebhookBreakerOpened) webhookEvent()  {}
func (WebhookBreakerClosed) webhookEvent()  {}
func (WebhookSecretRevealed) webhookEvent() {}

// WebhookCommand asks for a change of a webhook.
type WebhookCommand interface{ webhookCommand() }

type (
	// RegisterWebhook creates a webhook. Zero settings take their defaults.
	RegisterWebhook struct {
		Settings Settings
		Headers  []Header
		Secret   Secret
		// Addresses judges an IP address written in the URL.
		Addresses AddressPolicy
	}
	// UpdateWebhook replaces the settings, and of the headers those that it
	// names: one without a value is removed. An Authorization among them takes
	// the place of the URL's user and password, and the other way round.
	UpdateWebhook struct {
		Settings  Settings
		Headers   []Header
		Addresses AddressPolicy
	}
	// RotateSecret replaces the secret and keeps the old one until Until.
	RotateSecret struct {
		Secret Secret
		Until  time.Time
	}
	// PauseWebhook stops sending.
	PauseWebhook struct{}
	// EnableWebhook resumes.
	EnableWebhook struct{}
	// DisableWebhook stops routing.
	DisableWebhook struct{ Reason string }
	// DeleteWebhook removes.
	DeleteWebhook struct{}
	// OpenBreaker says that the receiver at URL is down since At.
	OpenBreaker struct {
		At          time.Time
		Reason, URL string
	}
	// CloseBreaker says that it answers again.
	CloseBreaker struct{}
	// RevealSecret asks to see the secrets: those of the webhook as it is after
	// the event, which is on record before anybody sees them. Each time is another
	// event.
	RevealSecret struct{}
)

func (RegisterWebhook) webhookCommand() {}
func (ImportWebhook) webhookCommand()   {}
func (UpdateWebhook) webhookCommand()   {}
func (RotateSecret) webhookCommand()    {}
func (PauseWebhook) webhookCommand()    {}
func (EnableWebhook) webhookCommand()   {}
func (DisableWebhook) webhookCommand()  {}
func (DeleteWebhook) webhookCommand()   {}
func (OpenBreaker) webhookCommand()     {}
func (CloseBreaker) webhookCommand()    {}
func (RevealSecret) webhookCommand()    {}

var (
	// ErrWebhookGone refuses commands to a webhook that is deleted or never was.
	ErrWebhookGone = errors.New("no such webhook")
	// ErrWebhookExists refuses to register a webhook again.
	ErrWebhookExists = errors.New("the webhook is registered already")
	// ErrInvalidSettings is what every InvalidSettingsError is.
	ErrInvalidSettings = errors.New("invalid webhook settings")
)

// InvalidSettingsError lists all that is wrong with a webhook's settings.
type InvalidSettingsError struct{ Problems []string }

// Error joins the problems.
func (e *InvalidSettingsError) Error() string { return strings.Join(e.Problems, "; ") }

// Is makes errors.Is(err, ErrInvalidSettings) true.
func (e *InvalidSettingsError) Is(target error) bool { return target == ErrInvalidSettings }

// DecideWebhook turns a command into events. A command that changes nothing
// gives no event and no error. A webhook that is not registered yet has the id
// of its account.
func DecideWebhook(w Webhook, command WebhookCommand) ([]WebhookEvent, error) {
	if register, ok := command.(RegisterWebhook); ok {
		if w.State != WebhookNone {
			return nil, ErrWebhookExists
		}
		settings, credential, err := register.Settings.normalize(w.AccountID, register.Addresses)
		headers, err := Headers{}.with(register.Headers, credential, err)
		if err != nil {
			return nil, err
		}
		return []WebhookEvent{WebhookRegistered{settings, credential, headers, register.Secret}}, nil
	}
	if c, ok := command.(ImportWebhook); ok && w.State == WebhookNone {
		return importNew(w.AccountID, c)
	}
	if w.State == WebhookNone || w.State == WebhookDeleted {
		return nil, ErrWebhookGone
	}
	switch c := command.(type) {
	case ExpectVersion:
		return c.decide(w)
	case ImportWebhook:
		return importAgain(w, c)
	case UpdateWebhook:
		settings, credential, err := c.Settings.normalize(w.AccountID, c.Addresses)
		headers, err := w.Headers.with(c.Headers, credential, err)
		if err != nil {
			return nil, err
		}
		if credential.IsZero() && settings.URL == w.Settings.URL && !headers.Has(authorizationHeader) {
			credential = w.Credential // the shown URL has no userinfo: sending it back keeps the credential
		}
		if credential == w.Credential && headers == w.Headers && settings.equal(w.Settings) {
			return nil, nil
		}
		return []WebhookEvent{WebhookUpdated{settings, credential, headers}}, nil
	case RotateSecret:
		if c.Secret == w.Secret {
			return nil, nil // repeated: another event would forget the previous secret before its time
		}
		return []WebhookEvent{WebhookSecretRotated{c.Secret, w.Secret, c.Until}}, nil
	case PauseWebhook:
		if w.State == WebhookPaused {
			return nil, nil
		}
		return []WebhookEvent{WebhookWasPaused{}}, nil
	case EnableWebhook:
		if w.State == WebhookEnabled {
			return nil, nil
		}
		return []WebhookEvent{WebhookEnabledAgain{}}, nil
	case DisableWebhook:
		if w.State == WebhookDisabled {
			return nil, nil
		}
		return []WebhookEvent{WebhookWasDisabled(c)}, nil
	case DeleteWebhook:
		return []WebhookEvent{WebhookWasDeleted{}}, nil
	case OpenBreaker, CloseBreaker:
		return decideBreaker(w, c), nil
	case RevealSecret:
		return []WebhookEvent{WebhookSecretRevealed{}}, nil
	case RegisterWebhook:
	}
	return nil, fmt.Errorf("unknown webhook command %T", command)
}

// Cancels says whether the webhook's state ends a delivery that was scheduled
// at a version of it, and for what reason. Disabling cancels all that was
// scheduled before, also where the webhook is enabled again by now: what is
// sent must not depend on how soon a relay looks.
func (w Webhook) Cancels(scheduled int64) (reason string, cancels bool) {
	switch {
	case w.State == WebhookDeleted:
		return CancelledDeleted, true
	case w.State == WebhookDisabled, scheduled < w.DisabledVersion:
		return CancelledDisabled, true
	}
	return "", false
}

// EvolveWebhook folds one event. Versions and ids are the caller's: they belong
// to the place where the event is kept.
func EvolveWebhook(w Webhook, event WebhookEvent) Webhook {
	switch e := event.(type) {
	case WebhookRegistered:
		w.State, w.Settings, w.Credential, w.Headers, w.Secret = WebhookEnabled, e.Settings, e.Credential, e.Headers, e.Secret
	case WebhookUpdated:
		if e.Settings.URL != w.Settings.URL {
			w.BreakerOpenedAt = time.Time{} // it was another receiver's
		}
		w.Settings, w.Credential, w.Headers = e.Settings, e.Credential, e.Headers
	case WebhookSecretRotated:
		w.Secret, w.PreviousSecret, w.PreviousUntil = e.Secret, e.Previous, e.Until
	case WebhookWasPaused:
		w.State = WebhookPaused
	case WebhookEnabledAgain:
		w.State, w.BreakerOpenedAt = WebhookEnabled, time.Time{} // who enables it wants it tried
	case WebhookWasDisabled:
		w.State, w.BreakerOpenedAt = WebhookDisabled, time.Time{}
	case WebhookWasDeleted:
		w.State, w.BreakerOpenedAt = WebhookDeleted, time.Time{}
	case WebhookBreakerOpened:
		w.BreakerOpenedAt = e.At
	case WebhookBreakerClosed:
		w.BreakerOpenedAt = time.Time{}
	case WebhookSecretRevealed:
	}
	return w
}

// normalize fills in the defaults of an account, moves the URL's userinfo into
// a credential and names every problem at once.
func (s Settings) normalize(account AccountID, addresses AddressPolicy) (Settings, Secret, error) {
	var problems []string
	u, credential, err := ParseWebhookURL(s.URL, addresses)
	if err != nil {
		problems = append(problems, err.Error())
	}
	s.URL = u
	if !keepable(s.Name) {
		problems = append(problems, "name: is not valid UTF-8 without NUL")
	}
	if s.Subscriptions == nil {
		s.Subscriptions = defaultSubscriptions(account)
	}
	s.Subscriptions = once(s.Subscriptions)
	if len(s.Subscriptions) == 0 {
		problems = append(problems, "subscriptions: name at least one event")
	}
	for _, name := range s.Subscriptions {
		if !ValidEventName(name) {
			problems = append(problems, fmt.Sprintf("subscriptions: %q is not an event name (a lower-case letter, then letters, digits, _ or .)", name))
		}
	}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.Timeout < time.Second || s.Timeout > 30*time.Second {
		problems = append(problems, fmt.Sprintf("timeout: %s is not within 1s to 30s", s.Timeout))
	}
	if s.MaxConcurrency == 0 {
		s.MaxConcurrency = DefaultMaxConcurrency
	}
	if s.MaxConcurrency < 1 || s.MaxConcurrency > 256 {
		problems = append(problems, fmt.Sprintf("max_concurrency: %d is not within 1 to 256", s.MaxConcurrency))
	}
	if s.OrderHold != HoldForever && (s.OrderHold < 0 || s.OrderHold > 24*time.Hour) {
		problems = append(problems, fmt.Sprintf("order_hold: %s is not within 0 to 24h, nor \"forever\"", s.OrderHold))
	}
	if within := s.RateLimit >= MinRateLimit && s.RateLimit <= MaxRateLimit; s.RateLimit != 0 && !within { // nor a NaN
		problems = append(problems, fmt.Sprintf("rate_limit: %v is neither 0 (no limit) nor within %v to %v", s.RateLimit, MinRateLimit, MaxRateLimit))
	}
	if s.InboxID < 0 {
		problems = append(problems, fmt.Sprintf("inbox_id: %d is negative", s.InboxID))
	}
	if s.Deadline == 0 {
		s.Deadline = DefaultDeadline
	}
	if s.Deadline < time.Second || s.Deadline > DefaultDeadline {
		problems = append(problems, fmt.Sprintf("deadline: %s is not within 1s to 7d", s.Deadline))
	}
	s.Retries = slices.Clone(s.Retries)
	if len(s.Retries) > maxRetries {
		problems = append(problems, fmt.Sprintf("retries: %d are too many; %d are accepted", len(s.Retries), maxRetries))
	}
	for _, wait := range s.Retries {
		if wait < time.Second || wait > longestRetry {
			problems = append(problems, fmt.Sprintf("retries: %s is not within 1s to 7d", wait))
		}
	}
	problems = append(problems, s.unfit(account)...)
	if len(problems) > 0 {
		return Settings{}, Secret{}, &InvalidSettingsError{problems}
	}
	return s, credential, nil
}

// once gives each name where it stands first: lists are shown as their owners
// wrote them, and compared by programs.
func once(names []string) []string {
	seen := make(map[string]bool, len(names))
	kept := make([]string, 0, len(names))
	for _, name := range names {
		if !seen[name] {
			kept = append(kept, name)
		}
		seen[name] = true
	}
	return kept
}

// keepable reports whether PostgreSQL's text can hold s.
func keepable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func (s Settings) equal(o Settings) bool {
	return s.URL == o.URL && s.Name == o.Name && slices.Equal(s.Subscriptions, o.Subscriptions) &&
		s.InboxID == o.InboxID && s.Timeout == o.Timeout && s.MaxConcurrency == o.MaxConcurrency && s.OrderHold == o.OrderHold &&
		s.Deadline == o.Deadline && sameRetries(s.Retries, o.Retries) &&
		s.RateLimit == o.RateLimit
}

// sameRetries tells no schedule from an empty one.
func sameRetries(a, b []time.Duration) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }

// maxURL is what an index of PostgreSQL takes beside an account, however little
// it can be compressed: a third of a page of 8 kB, less what else is in an entry.
const maxURL = 2500

// errUnreadableURL says less than url.Parse does, whose errors quote the URL.
var errUnreadableURL = errors.New("url: cannot be parsed; write it like https://example.com/hook")

// ParseWebhookURL checks a webhook's URL and takes the userinfo out of it: it
// is sent as Basic authorization and not shown again. An IP address written in
// the URL is judged at once; a name is judged when it is dialled. No error
// quotes the URL, which may hold a password.
func ParseWebhookURL(text string, addresses AddressPolicy) (shown string, credential Secret, err error) {
	if len(text) > maxURL {
		return "", Secret{}, fmt.Errorf("url: %d characters are too long; %d are accepted", len(text), maxURL)
	}
	u, parseErr := url.Parse(strings.TrimSpace(text))
	switch {
	case text == "":
		return "", Secret{}, errors.New("url: is missing")
	case parseErr != nil:
		return "", Secret{}, errUnreadableURL
	case u.Scheme != "http" && u.Scheme != "https":
		return "", Secret{}, errors.New("url: must begin with http:// or https://")
	case u.Hostname() == "":
		return "", Secret{}, errors.New("url: has no host")
	case !keepable(text):
		return "", Secret{}, errors.New("url: is not valid UTF-8")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", Secret{}, errors.New("url: the port is not within 1 to 65535")
		}
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		if reason, refused := addresses.Refuse(addr); refused {
			return "", Secret{}, fmt.Errorf("url: the address %s is refused: %s; an operator may allow networks by OUTRIDER_ALLOW_CIDRS", addr, reason)
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		credential = secretOf(u.User.Username() + ":" + password)
		if !keepable(credential.Reveal()) {
			return "", Secret{}, errors.New("url: the user name or password is not valid UTF-8 without NUL")
		}
		u.User = nil
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = escapeQuery(u.RawQuery)
	if shown = u.String(); len(shown) > maxURL {
		return "", Secret{}, fmt.Errorf("url: %d characters, with escapes, are too long; %d are accepted", len(shown), maxURL)
	}
	if again, err := url.Parse(shown); err != nil || again.String() != shown { // an IPv6 zone that is not ASCII
		return "", Secret{}, errUnreadableURL
	}
	return shown, credential, nil
}

// escapeQuery escapes what may not stand in a request line; net/url keeps the
// query as it was written, and a space in it would end the request's target.
func escapeQuery(raw string) string {
	var b strings.Builder
	for i := range len(raw) {
		if c := raw[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// CredentialFromText restores a credential from where it is kept.
func CredentialFromText(text string) Secret { return secretOf(text) }
