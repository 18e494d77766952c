package domain

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// OutcomeKind says how an attempt ended.
type OutcomeKind string

// The outcomes of an attempt, as audit.attempts shows them. Started is an
// attempt whose end is not known yet; Unknown one whose end never will be.
const (
	OutcomeNone      OutcomeKind = ""
	OutcomeStarted   OutcomeKind = "started"
	OutcomeSucceeded OutcomeKind = "succeeded"
	OutcomeFailed    OutcomeKind = "failed"
	OutcomeUnknown   OutcomeKind = "unknown"
)

// ErrorClass says at which step a failed attempt ended.
type ErrorClass string

// The error classes, in the order of the steps of a POST.
const (
	ErrorNone           ErrorClass = ""
	ErrorRefusedAddress ErrorClass = "refused_address" // the dialled address is not allowed
	ErrorDNS            ErrorClass = "dns"             // the name did not resolve
	ErrorConnect        ErrorClass = "connect"         // no TCP connection
	ErrorTLS            ErrorClass = "tls"             // handshake or certificate
	ErrorTimeout        ErrorClass = "timeout"         // the total deadline passed
	ErrorReset          ErrorClass = "reset"           // the connection broke in mid-request
	ErrorStatus         ErrorClass = "status"          // an answer other than 2xx
	ErrorBody           ErrorClass = "body"            // the answer's body could not be read
)

// Outcome is what one attempt gave. It is a value that is always recorded, an
// HTTP 500 as much as a refused connection.
type Outcome struct {
	// Kind is OutcomeSucceeded or OutcomeFailed.
	Kind OutcomeKind
	// StatusCode is the HTTP status, 0 where no answer came.
	StatusCode int
	// Class and Detail say what went wrong; both are empty on success. Detail
	// is for the account's operators: no secret, no header value.
	Class  ErrorClass
	Detail string
	// Duration runs from before the dial to the end of the kept response.
	Duration time.Duration
	// RemoteIP is the address really dialled, empty where none was.
	RemoteIP string
	// Excerpt is the beginning of the response body, at most 4 KiB of valid
	// UTF-8 without NUL.
	Excerpt string
	// ExcerptSalt and ExcerptDigest are set by Digested: the log keeps the
	// digest, and the salt goes with the excerpt when that is erased.
	ExcerptSalt   [16]byte
	ExcerptDigest string
	// RetryAfter is what the receiver asked for, 0 where it asked nothing.
	RetryAfter time.Duration
}

// Digested gives the outcome with the digest of its excerpt, SHA-256 over salt
// and excerpt in hex. One without an excerpt stays as it is.
func (o Outcome) Digested(salt [16]byte) Outcome {
	if o.Excerpt != "" {
		digest := sha256.Sum256(append(salt[:], o.Excerpt...))
		o.ExcerptSalt, o.ExcerptDigest = salt, hex.EncodeToString(digest[:])
	}
	return o
}

// Gone reports whether the receiver says that it is there no more: 410, which
// Standard Webhooks 1.0.0 takes for the wish not to be called again.
func (o Outcome) Gone() bool { return o.StatusCode == 410 } //nolint:usestdlibvars // the model does not know net/http

// Overloaded reports whether the receiver, or what stands before it, says that
// it gets too much: 429, 502, 503 and 504. One that does not answer in time
// says so too; each of its attempts would be under way for the whole timeout.
func (o Outcome) Overloaded() bool {
	if o.Class == ErrorTimeout {
		return true
	}
	switch o.StatusCode {
	case 429, 502, 503, 504: //nolint:usestdlibvars // the model does not know net/http
		return true
	default:
		return false
	}
}

// Down reports whether the attempt says that the receiver is down: it gave no
// answer, or not all of it, or one that says that it cannot. Any other answer
// says that it is there, whatever it thinks of this delivery.
func (o Outcome) Down() bool {
	switch {
	case o.Kind == OutcomeSucceeded:
		return false
	case o.Class != ErrorStatus:
		return true
	default:
		return o.StatusCode == 0 || o.StatusCode >= 500
	}
}
