package relay

import (
	"sync"
	"time"
)

// steady gives a clock that never goes back: where the other one is set back, it
// goes on from the last time that it told, at half the other's pace, until that
// has come as far. Times of the due table must not fall behind what was read of
// it, and none may seem to be far ahead for good.
func steady(clock func() time.Time) func() time.Time {
	var mu sync.Mutex
	var told, read time.Time // what it told last, and what the other one said then
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now := clock()
		// Round drops the monotonic reading: by that one, nothing ever goes back.
		is := now.Round(0)
		if is.Before(told) {
			now = told.Add(max(0, is.Sub(read)) / 2)
		}
		told, read = now.Round(0), is
		return now
	}
}
