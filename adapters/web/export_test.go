package web

import "time"

// For the tests of the package.
var (
	Lately        = lately
	SinceText     = sinceText
	Percent       = percent
	Millis        = millis
	DurationText  = durationText
	ParseDuration = parseDuration
	NetworkOf     = networkOf
)

// MaxLoginAddresses is how many addresses are remembered.
const MaxLoginAddresses = maxLoginAddresses

// LoginLimit is the limit of log-ins that fail.
type LoginLimit struct{ *loginLimit }

// NewLoginLimit makes one.
func NewLoginLimit(now func() time.Time) LoginLimit { return LoginLimit{newLoginLimit(now)} }

// Attempt counts an attempt.
func (l LoginLimit) Attempt(address string) time.Duration { return l.attempt(address) }

// Succeeded forgets what an address did.
func (l LoginLimit) Succeeded(address string) { l.succeeded(address) }

// Size is how many addresses it remembers.
func (l LoginLimit) Size() int { return max(len(l.addresses), len(l.order)) }
