package httpsend

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// StandardSignature gives one signature of the header webhook-signature as
// Standard Webhooks 1.0.0 defines it: "v1," and the base64 of HMAC-SHA256 over
// "id.timestamp.body". The timestamp is in Unix seconds.
func StandardSignature(key []byte, id string, timestamp int64, body []byte) string {
	return string(newMAC(key).appendStandard(nil, id, strconv.FormatInt(timestamp, 10), body))
}

// ChatwootSignature gives the header X-Chatwoot-Signature: "sha256=" and the
// hex of HMAC-SHA256 over "timestamp.body", with the secret's text as the key.
func ChatwootSignature(secret string, timestamp int64, body []byte) string {
	return string(newMAC([]byte(secret)).appendChatwoot(nil, strconv.FormatInt(timestamp, 10), body))
}

// Tolerance is how far a request's timestamp may be from the receiver's clock,
// either way: the value of the Standard Webhooks libraries.
const Tolerance = 5 * time.Minute

var (
	// ErrSignature says that none of a request's signatures is right.
	ErrSignature = errors.New("no signature of the request matches")
	// ErrTimestamp says that a request is too old, or from the future, or does
	// not tell its time.
	ErrTimestamp = errors.New("the request's timestamp is not within 5 minutes of this clock")
)

// VerifyStandard is the receiver's part: it checks the headers webhook-id,
// webhook-timestamp and webhook-signature of a request against its raw body.
// One right signature of the list is enough. The error is ErrSignature or
// ErrTimestamp. Replayed requests are the caller's to find, by their id.
func VerifyStandard(key []byte, id, timestamp, signatures string, body []byte, now time.Time) error {
	seconds, err := parseTimestamp(timestamp, now)
	if err != nil {
		return err
	}
	want := []byte(StandardSignature(key, id, seconds, body))
	right := false
	for signature := range strings.FieldsSeq(signatures) {
		right = hmac.Equal([]byte(signature), want) || right
	}
	if !right {
		return ErrSignature
	}
	return nil
}

// VerifyChatwoot checks the headers X-Chatwoot-Timestamp and
// X-Chatwoot-Signature of a request against its raw body. The error is
// ErrSignature or ErrTimestamp.
func VerifyChatwoot(secret, timestamp, signature string, body []byte, now time.Time) error {
	seconds, err := parseTimestamp(timestamp, now)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(signature), []byte(ChatwootSignature(secret, seconds, body))) {
		return ErrSignature
	}
	return nil
}

func parseTimestamp(text string, now time.Time) (int64, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, ErrTimestamp
	}
	tolerance := int64(Tolerance / time.Second)
	if n := now.Unix(); seconds < n-tolerance || seconds > n+tolerance {
		return 0, ErrTimestamp
	}
	return seconds, nil
}

// mac computes HMAC-SHA256 with one key. It is not safe for concurrent use.
type mac struct {
	hash.Hash // keeps the state behind the key, so that a Reset costs no hashing
	prefix    []byte
	sum       [sha256.Size]byte
}

func newMAC(key []byte) *mac { return &mac{Hash: hmac.New(sha256.New, key)} }

// finish sums up the prefix and the body, which is not copied.
func (m *mac) finish(body []byte) []byte {
	m.Reset()
	_, _ = m.Write(m.prefix) // a hash never fails
	_, _ = m.Write(body)
	return m.Sum(m.sum[:0])
}

func (m *mac) appendStandard(b []byte, id, timestamp string, body []byte) []byte {
	m.prefix = append(m.prefix[:0], id...)
	m.prefix = append(m.prefix, '.')
	m.prefix = append(m.prefix, timestamp...)
	m.prefix = append(m.prefix, '.')
	b = append(b, "v1,"...)
	return base64.StdEncoding.AppendEncode(b, m.finish(body))
}

func (m *mac) appendChatwoot(b []byte, timestamp string, body []byte) []byte {
	m.prefix = append(m.prefix[:0], timestamp...)
	m.prefix = append(m.prefix, '.')
	b = append(b, "sha256="...)
	return hex.AppendEncode(b, m.finish(body))
}

// signer signs with one key from many goroutines.
type signer struct{ macs sync.Pool }

func newSigner(key []byte) *signer {
	return &signer{sync.Pool{New: func() any { return newMAC(key) }}}
}

func (s *signer) appendStandard(b []byte, id, timestamp string, body []byte) []byte {
	m, _ := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	return m.appendStandard(b, id, timestamp, body)
}

func (s *signer) appendChatwoot(b []byte, timestamp string, body []byte) []byte {
	m, _ := s.macs.Get().(*mac)
	defer s.macs.Put(m)
	return m.appendChatwoot(b, timestamp, body)
}
