package domain

import (
	"errors"
	"fmt"
)

// ErrURLTaken is what every URLTakenError is.
var ErrURLTaken = errors.New("the account has a webhook with this URL already")

// URLTakenError refuses a URL that another webhook of the account has. Two
// URLs are the same if they differ only in their userinfo.
type URLTakenError struct{ WebhookID WebhookID }

// Error names the other webhook.
func (e *URLTakenError) Error() string {
	return fmt.Sprintf("webhook %d of the account has this URL already", e.WebhookID)
}

// Is makes errors.Is(err, ErrURLTaken) true.
func (e *URLTakenError) Is(target error) bool { return target == ErrURLTaken }
