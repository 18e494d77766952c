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

// A database in trouble is not asked again at each insert.
func TestAFailedPollRestsWhateverIsInserted(t *testing.T) {
	t.Parallel()
	wake, stop := make(chan struct{}, 1), make(chan struct{})
	wake <- struct{}{}
	s := sleeper{wake: wake, stop: stop}
	begun := time.Now()
	s.afterError()
	s.afterError()
	if took := time.Since(begun); took < 3*firstRetry {
		t.Errorf("after two failures it rested for %s, want %s", took, 3*firstRetry)
	}
	s.wait = time.Hour // the longest
	begun = time.Now()
	s.afterError()
	if took := time.Since(begun); took < leastRest || len(wake) != 0 {
		t.Errorf("after many failures it rested for %s, want %s, and then until the next insert", took, leastRest)
	}
	close(stop)
	s.wait = time.Hour
	done := make(chan struct{})
	go func() { s.afterError(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a stop does not end the wait")
	}
}
