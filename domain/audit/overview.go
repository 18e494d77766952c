package audit

import "time"

// Span is what began and became of attempts and deliveries within some time, of
// one webhook or of several.
type Span struct {
	From time.Time
	// Scheduled are deliveries that began.
	Scheduled int64
	// Succeeded, Failed and Unknown are attempts; as many deliveries succeeded
	// as attempts did.
	Succeeded, Failed, Unknown int64
	// Dead, Expired and Cancelled are deliveries that ended without success.
	Dead, Expired, Cancelled int64
	// Tried are the webhooks of which attempts ended, Failing those of them of
	// which none succeeded.
	Tried, Failing int64
	// P50MS, P95MS and P99MS are quantiles of the attempts' durations, nil where
	// none has one.
	P50MS, P95MS, P99MS *float64
}

// Attempts are those that ended.
func (s *Span) Attempts() int64 { return s.Succeeded + s.Failed + s.Unknown }

// Ended are the deliveries that ended, however they did.
func (s *Span) Ended() int64 { return s.Succeeded + s.Dead + s.Expired + s.Cancelled }

// Backlog is what waits to be sent, counted up to a bound: what is in the memory
// of a relay is not in it.
type Backlog struct {
	// Later wait for a time that is to come, Due for a place: it has come.
	Later, Due int
	// Held wait for an earlier delivery of their ordering key, Paused for their
	// webhook, or their replay, to go on.
	Held, Paused int
	// More says that there are more than are counted.
	More bool
}

// Waiting are those that wait for an attempt, due or not.
func (b *Backlog) Waiting() int { return b.Later + b.Due }
