package relay

import "time"

// steady gives a clock that never goes back: where the other one is set back,
// it goes on from the last time that it told, at the other's pace. Times of the
// due table must not fall behind what was read of it, and none may seem to be
// far ahead. Only one goroutine may use it.
func steady(clock func() time.Time) func() time.Time {
	var last time.Time
	var ahead time.Duration
	return func() time.Time {
		now := clock()
		if ahead > 0 {
			if !now.Round(0).Before(last) {
				ahead = 0
			}
			now = now.Round(0).Add(ahead)
		}
		// Round drops the monotonic reading: by that one, nothing ever goes back.
		if back := last.Sub(now.Round(0)); back > 0 && !last.IsZero() {
			ahead += back
			now = now.Round(0).Add(back)
		}
		last = now.Round(0)
		return now
	}
}
