package domain

import (
	"math/bits"
	"time"
)

// Stats count what began and ended of one webhook's deliveries within some time:
// a fold over the events of all of them, in whatever order.
type Stats struct {
	// Scheduled are deliveries that began.
	Scheduled int64
	// Succeeded, Failed and Unknown are attempts by outcome.
	Succeeded, Failed, Unknown int64
	// Dead, Expired and Cancelled are deliveries that ended without success;
	// those that ended with it are as many as attempts succeeded.
	Dead, Expired, Cancelled int64
	// FirstSeq is the lowest place of their chat events, 0 where nothing is
	// counted.
	FirstSeq int64
	// Latency counts the attempts that succeeded or failed by LatencyBucket of
	// their duration; those without one are left out.
	Latency map[int]int64
}

// Count adds an event of the delivery of the chat event at seq, and says
// whether it is one that counts.
func (s *Stats) Count(seq int64, event DeliveryEvent) bool {
	switch e := event.(type) {
	case Scheduled:
		s.Scheduled++
	case AttemptSucceeded:
		s.Succeeded++
		s.time(e.Outcome.Duration)
	case AttemptFailed:
		s.Failed++
		s.time(e.Outcome.Duration)
	case AttemptUnknown:
		s.Unknown++
	case Dead:
		s.Dead++
	case Expired:
		s.Expired++
	case Cancelled:
		s.Cancelled++
	case AttemptStarted, Held, Released:
		return false
	}
	if s.FirstSeq == 0 || seq < s.FirstSeq {
		s.FirstSeq = seq
	}
	return true
}

func (s *Stats) time(d time.Duration) {
	if d < time.Microsecond {
		return // the log keeps whole microseconds
	}
	if s.Latency == nil {
		s.Latency = map[int]int64{}
	}
	s.Latency[LatencyBucket(d)]++
}

// LatencyBucket gives the bucket of a duration: below 32 µs its microseconds;
// above, each power of two is divided into 16 of the same width, so that the
// middle of a bucket is at most 1/32 off. A day is in bucket 532. SQL's way
// back is relay.latency_ms.
func LatencyBucket(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	if us < 32 {
		return int(us)
	}
	shift := bits.Len64(us) - 5
	return 16*shift + int(us>>shift) //nolint:gosec // below 32
}

// Standing is how a webhook stands: a fold over the events of all its
// deliveries in the order of the log.
type Standing struct {
	LastSuccessAt, LastFailureAt time.Time
	// Failures are the attempts that failed or are unknown behind the last one
	// that succeeded, FailingSince is when the first of them ended, zero where
	// there is none.
	Failures     int64
	FailingSince time.Time
	// Pending are deliveries scheduled, less those ended. It is negative where
	// more ended than began in what was folded.
	Pending int64
}

// Count adds an event.
func (s *Standing) Count(event DeliveryEvent) {
	switch e := event.(type) {
	case Scheduled:
		s.Pending++
	case AttemptSucceeded:
		s.Pending--
		s.Failures, s.FailingSince = 0, time.Time{}
		s.LastSuccessAt = latest(s.LastSuccessAt, e.At)
	case AttemptFailed:
		s.fail(e.At)
	case AttemptUnknown:
		s.fail(e.At)
	case Dead, Expired, Cancelled:
		s.Pending--
	case AttemptStarted, Held, Released:
	}
}

func (s *Standing) fail(at time.Time) {
	s.Failures++
	s.LastFailureAt = latest(s.LastFailureAt, at)
	if at = at.Truncate(time.Microsecond); s.FailingSince.IsZero() || at.Before(s.FailingSince) {
		s.FailingSince = at
	}
}

// latest gives the later of two times as the log keeps them: in microseconds.
func latest(a, b time.Time) time.Time {
	if b = b.Truncate(time.Microsecond); b.After(a) {
		return b
	}
	return a
}
