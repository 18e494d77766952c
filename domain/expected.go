package domain

import (
	"fmt"
	"slices"
)

// ExpectVersion carries out a command on a webhook only if that is at one of
// some versions: whoever read it decides on what they read, and not on what
// somebody else made of it since.
type ExpectVersion struct {
	Versions []int64
	Command  WebhookCommand
}

func (ExpectVersion) webhookCommand() {}

// StaleVersionError refuses a command to a webhook that was changed since it
// was read.
type StaleVersionError struct{ Version int64 }

// Error names the version that the webhook has.
func (e *StaleVersionError) Error() string {
	return fmt.Sprintf("the webhook was changed meanwhile, and is at version %d now", e.Version)
}

// decide is DecideWebhook, for a webhook that is there.
func (e ExpectVersion) decide(w Webhook) ([]WebhookEvent, error) {
	if !slices.Contains(e.Versions, w.Version) {
		return nil, &StaleVersionError{w.Version}
	}
	return DecideWebhook(w, e.Command)
}
