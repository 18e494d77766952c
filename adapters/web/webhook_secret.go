package web

import (
	"crypto/rand"
	"net/http"
	"strconv"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// newSecret draws one.
func newSecret() domain.Secret {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	return domain.NewSecret(random)
}

// The occasions on which a secret is shown, and what the page is called then.
const (
	onAdding    = "Webhook added successfully"
	onRotating  = "New secret"
	onRevealing = "Signing secret"
)

// shownSecret is the page that shows a webhook's secret.
type shownSecret struct {
	// Added and Rotated are the occasions; with neither it was revealed.
	Added, Rotated bool
	Path, URL      string
	Secret         string
	// Standard is how libraries of Standard Webhooks take it, "" where that is
	// the same.
	Standard string
	// Previous is the one before, which signs too until Until; "" for none.
	Previous string
	Until    time.Time
}

// showSecret shows the secret of a webhook. It is in this answer alone: nothing
// keeps it for another one.
func (p *pages) showSecret(w http.ResponseWriter, r *request, status int, hook *domain.Webhook, occasion string) error {
	shown := &shownSecret{Added: occasion == onAdding, Rotated: occasion == onRotating, Path: webhookPath(hook), URL: hook.Settings.URL, Secret: hook.Secret.Reveal()}
	if standard := hook.Secret.StandardText(); standard != shown.Secret {
		shown.Standard = standard
	}
	if hook.PreviousUntil.After(p.Now()) {
		shown.Until = hook.PreviousUntil
		if occasion == onRevealing {
			shown.Previous = hook.PreviousSecret.Reveal()
		}
	}
	return p.render(w, r, status, "webhook_secret", &view{Title: occasion, Nav: "webhooks", Data: shown})
}

// revealSecret shows the secret, which goes on record before.
func (p *pages) revealSecret(w http.ResponseWriter, r *request) error {
	if err := r.form.only(nil, nil); err != nil {
		return err
	}
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	hook, _, err = p.Webhooks.Change(r.Context(), r.account, hook.ID, r.access.Actor(), domain.RevealSecret{})
	if err != nil {
		return err
	}
	return p.showSecret(w, r, http.StatusOK, &hook, onRevealing)
}

// overlap is for how long the old secret signs too.
type overlap struct {
	Value, Label string
	Chosen       bool
	length       time.Duration
}

// overlaps are those to choose from.
var overlaps = []overlap{
	{"0", "Not at all: it is known to others", false, 0},
	{"1h", "For an hour", false, time.Hour},
	{"24h", "For a day", true, 24 * time.Hour},
	{"7d", "For a week", false, 7 * 24 * time.Hour},
}

// shownRotation is the page that asks before the secret is rotated.
type shownRotation struct {
	shownWebhook
	Overlaps []overlap
	// Rotating is until when the secret before this one signs too.
	Rotating time.Time
}

// confirmRotate asks for how long the old secret is to sign too.
func (p *pages) confirmRotate(w http.ResponseWriter, r *request) error {
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	shown := &shownRotation{shownWebhook: shownWebhook{Webhook: hook, URL: shownURL(r, hook.Settings.URL)}, Overlaps: overlaps}
	if hook.PreviousUntil.After(p.Now()) {
		shown.Rotating = hook.PreviousUntil
	}
	return p.render(w, r, http.StatusOK, "webhook_rotate", &view{Title: "Rotate secret", Nav: "webhooks", Data: shown})
}

// rotateSecret gives a webhook a new secret and shows it. The version keeps a
// page that is loaded again from rotating again.
func (p *pages) rotateSecret(w http.ResponseWriter, r *request) error {
	if err := r.form.only([]string{"overlap", "version"}, nil); err != nil {
		return err
	}
	version, err := strconv.ParseInt(r.form.text("version"), 10, 64)
	if err != nil {
		return errBadForm
	}
	var chosen *overlap
	for i := range overlaps {
		if overlaps[i].Value == r.form.text("overlap") {
			chosen = &overlaps[i]
		}
	}
	if chosen == nil {
		return &failure{http.StatusUnprocessableEntity, "The overlap is none of those on the page", "Go back, choose for how long the old secret is to sign too, and send it again."}
	}
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	// The database keeps microseconds.
	until := p.Now().Add(chosen.length).UTC().Truncate(time.Microsecond)
	hook, _, err = p.Webhooks.Change(r.Context(), r.account, hook.ID, r.access.Actor(),
		domain.ExpectVersion{Versions: []int64{version}, Command: domain.RotateSecret{Secret: newSecret(), Until: until}})
	if err != nil {
		return err
	}
	return p.showSecret(w, r, http.StatusOK, &hook, onRotating)
}
