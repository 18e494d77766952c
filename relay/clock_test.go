package relay

import (
	"testing"
	"time"
)

func TestASteadyClockNeverGoesBack(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := at
	clock := steady(func() time.Time { return now })
	for _, step := range []struct {
		set  time.Duration // of the other clock, from noon
		want time.Duration
	}{
		{0, 0},
		{time.Minute, time.Minute},
		{-time.Hour, time.Minute}, // set back
		{-time.Hour + time.Second, time.Minute + time.Second/2}, // goes on at half its pace
		{-2 * time.Hour, time.Minute + time.Second/2},           // set back again
		{-2*time.Hour + time.Second, time.Minute + time.Second},
		{time.Hour, time.Hour}, // right again
		{time.Hour + time.Second, time.Hour + time.Second},
		{time.Hour - time.Second, time.Hour + time.Second}, // set back a little
		{time.Hour, time.Hour + 3*time.Second/2},
		{time.Hour + time.Second, time.Hour + 2*time.Second},
		{time.Hour + 3*time.Second, time.Hour + 3*time.Second}, // it has come as far
	} {
		now = at.Add(step.set)
		if got := clock().Sub(at); got != step.want {
			t.Errorf("with the clock at %v it tells %v, want %v", step.set, got, step.want)
		}
	}
}
