package domain

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unique"
)

// secretPrefix marks a Standard Webhooks symmetric secret: the rest is the
// base64 of the key bytes (Standard Webhooks 1.0.0, "Symmetric keys").
const secretPrefix = "whsec_"

// Secret is a webhook's signing secret as its owner wrote it: either
// `whsec_` + base64 of the key bytes, or opaque text (Chatwoot's form) used
// verbatim. It prints as a mask everywhere; Reveal is the one way out. Secrets
// of the same text are equal.
type Secret struct {
	// text is a handle, not a string: fmt does not call Format on the
	// unexported fields of a struct, and would print the text.
	text unique.Handle[string]
}

func secretOf(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{unique.Make(text)}
}

// ParseSecret checks a secret's form. Opaque text must be 8 to 512 printable
// ASCII characters without spaces; the base64 of a `whsec_` secret must give
// 16 to 512 bytes.
func ParseSecret(text string) (Secret, error) {
	if EncryptedByRails(text) {
		return Secret{}, ErrEncryptedSecret
	}
	for _, r := range text {
		if r <= ' ' || r > '~' { // also in base64, whose decoder passes over line breaks
			return Secret{}, errors.New("the secret has a character that is not printable ASCII")
		}
	}
	if encoded, ok := strings.CutPrefix(text, secretPrefix); ok {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return Secret{}, fmt.Errorf("the part of the secret behind %q is not base64 (standard alphabet, with padding)", secretPrefix)
		}
		if len(key) < 16 || len(key) > 512 {
			return Secret{}, fmt.Errorf("the secret's key has %d bytes; 16 to 512 are accepted", len(key))
		}
		return secretOf(text), nil
	}
	if len(text) < 8 || len(text) > 512 {
		return Secret{}, fmt.Errorf("the secret has %d characters; 8 to 512 are accepted", len(text))
	}
	return secretOf(text), nil
}

// ErrEncryptedSecret refuses what is kept in place of a secret.
var ErrEncryptedSecret = errors.New("the secret is encrypted (ActiveRecord encryption of Ruby on Rails); its text is needed")

// EncryptedByRails reports whether the text is not a secret but the envelope in
// which ActiveRecord encryption keeps one: a JSON object of payload and headers
// (Rails guides, "Active Record Encryption").
func EncryptedByRails(text string) bool {
	var envelope struct {
		Payload *string        `json:"p"`
		Headers map[string]any `json:"h"`
	}
	return strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &envelope) == nil && envelope.Payload != nil && envelope.Headers != nil
}

// NewSecret makes a secret of 32 random bytes, which the caller draws.
func NewSecret(random [32]byte) Secret {
	return secretOf(secretPrefix + base64.StdEncoding.EncodeToString(random[:]))
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// Reveal gives the text as its owner wrote it. Chatwoot's signature uses its
// bytes as the HMAC key, whatever the form.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.text.Value()
}

// StandardKey gives the HMAC key of the Standard Webhooks signature: the
// decoded bytes of a `whsec_` secret, the text's own bytes otherwise.
func (s Secret) StandardKey() []byte {
	if encoded, ok := strings.CutPrefix(s.Reveal(), secretPrefix); ok {
		if key, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			return key
		}
	}
	return []byte(s.Reveal())
}

// StandardText gives the spelling that Standard Webhooks libraries accept:
// the same text for a `whsec_` secret, `whsec_` + base64 of an opaque one.
func (s Secret) StandardText() string {
	if text := s.Reveal(); strings.HasPrefix(text, secretPrefix) {
		return text
	}
	return secretPrefix + base64.StdEncoding.EncodeToString([]byte(s.Reveal()))
}

// mask is what every way of printing a Secret shows.
const mask = "[secret]"

// Format prints the mask for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// LogValue logs the mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText encodes the mask, so that no JSON shows a secret by accident.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }
