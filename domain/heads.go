package domain

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ChainHead is the newest seal of a chain, as it is exported.
type ChainHead struct {
	Chain  Chain  `json:"chain"`
	No     int64  `json:"no"`
	Commit int64  `json:"commit"`
	Hash   string `json:"hash"` // hex
}

// Heads are what somebody keeps elsewhere to prove later that nothing below
// them was changed.
type Heads struct {
	Database string      `json:"database"`
	At       time.Time   `json:"at"`
	Heads    []ChainHead `json:"heads"`
	// PublicKey and Signature are base64. A signature proves something to
	// whoever has the key from elsewhere.
	PublicKey string `json:"public_key"`
	Signature string `json:"signature"`
}

// ErrNotSigned refuses heads whose signature is not by the key.
var ErrNotSigned = errors.New("the signature is not by this key, or the heads were changed")

// Signed is the text that the signature is of.
func (h *Heads) Signed() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "outrider-heads-1\ndatabase %q\nat %s\n", h.Database, h.At.UTC().Format(time.RFC3339))
	for _, head := range h.Heads {
		fmt.Fprintf(&b, "%s %d %d %s\n", head.Chain, head.No, head.Commit, head.Hash)
	}
	return []byte(b.String())
}

// Sign signs the heads.
func (h *Heads) Sign(key ed25519.PrivateKey) {
	public, _ := key.Public().(ed25519.PublicKey)
	h.PublicKey = base64.StdEncoding.EncodeToString(public)
	h.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, h.Signed()))
}

// Verify tells whether the heads were signed by the key that public belongs to.
// Heads whose text is also that of others were not: none that are exported are.
func (h *Heads) Verify(public ed25519.PublicKey) error {
	signature, err := base64.StdEncoding.DecodeString(h.Signature)
	if err != nil || !h.unmistakable() || !ed25519.Verify(public, h.Signed(), signature) {
		return ErrNotSigned
	}
	return nil
}

// unmistakable reports whether each head is one line of the text, whose last
// words are its numbers and its hash.
func (h *Heads) unmistakable() bool {
	for _, head := range h.Heads {
		if strings.ContainsRune(string(head.Chain), '\n') || strings.Trim(head.Hash, "0123456789abcdef") != "" {
			return false
		}
	}
	return true
}
