package outbox

import (
	"testing"
	"time"
)

// Under steady traffic polls that find few rows gather, without losing the
// signal that would wake the next sleep, and a stop ends that.
func TestFewRowsAreGathered(t *testing.T) {
	t.Parallel()
	wake, stop := make(chan struct{}, 1), make(chan struct{})
	wake <- struct{}{}
	s := sleeper{wake: wake, stop: stop}
	s.busy = steadyPolls - 1
	begun := time.Now()
	if err := s.afterRows(true, false, 0); err != nil {
		t.Fatal(err)
	}
	if time.Since(begun) < gatherTime {
		t.Error("a poll that found few rows, as those before, did not wait")
	}
	if len(wake) != 1 {
		t.Error("waiting took the signal")
	}
	close(stop)
	s.busy = steadyPolls
	done := make(chan struct{})
	go func() {
		_ = s.afterRows(true, false, -time.Hour) // the clock was set back
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a stop does not end the wait")
	}
}
