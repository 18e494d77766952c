package web_test

import (
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/web"
)

func TestWords(t *testing.T) {
	t.Parallel()
	const oneDay = 24 * time.Hour
	for _, c := range []struct{ got, want string }{
		{web.SinceText(0), "just now"}, {web.SinceText(999 * time.Millisecond), "just now"}, {web.SinceText(time.Second), "1 s ago"}, {web.SinceText(-90 * time.Second), "in 1 min"},
		{web.SinceText(47 * time.Hour), "47 h ago"}, {web.SinceText(49 * time.Hour), "2 days ago"},
		{web.Percent(1), "100 %"}, {web.Percent(0.99999), "99.9 %"}, {web.Percent(0.00001), "0.1 %"}, {web.Percent(0), "0 %"}, {web.Percent(0.5), "50 %"}, {web.Percent(0.9876), "98.8 %"},
		{web.Millis(0.25), "0.3 ms"}, {web.Millis(12.4), "12 ms"}, {web.Millis(999), "999 ms"}, {web.Millis(1234), "1.2 s"}, {web.Millis(30000), "30 s"},
		{web.DurationText(7 * oneDay), "7d"}, {web.DurationText(25 * time.Hour), "25h"}, {web.DurationText(90 * time.Minute), "1h30m"}, {web.DurationText(90 * time.Second), "1m30s"},
		{web.DurationText(10 * time.Minute), "10m"}, {web.DurationText(1500 * time.Millisecond), "1.5s"}, {web.DurationText(0), "0s"}, {web.DurationText(20 * time.Second), "20s"}, {web.DurationText(100 * time.Hour), "100h"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// What is live stays the same through the last minute, and tells more of what is
// longer ago.
func TestLately(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 12, 30, 59, 0, time.UTC)
	first := web.Lately(now, now.Add(-58*time.Second))
	for _, past := range []time.Duration{0, time.Millisecond, 30 * time.Second} {
		if got := web.Lately(now, now.Add(-past)); got != first || !contains(string(got), `datetime="2026-07-01T12:30:00Z"`) || !contains(string(got), "just now") {
			t.Errorf("%s ago: %s", past, got)
		}
	}
	if got := string(web.Lately(now, now.Add(-61*time.Second))); !contains(got, `datetime="2026-07-01T12:29:58Z"`) || !contains(got, "1 min ago") {
		t.Errorf("a minute ago: %s", got)
	}
	if got := web.Lately(now, time.Time{}); got != "never" {
		t.Errorf("never: %s", got)
	}
}

// What a form shows is what it reads.
func FuzzDurations(f *testing.F) {
	for _, d := range []time.Duration{0, 1, time.Second, time.Minute, 61 * time.Second, time.Hour, 10 * time.Hour, 24 * time.Hour, 36*time.Hour + time.Nanosecond, 9999 * 24 * time.Hour} {
		f.Add(int64(d))
	}
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(n)
		if d < 0 || d > 10_000*24*time.Hour {
			return
		}
		if got, err := web.ParseDuration(web.DurationText(d)); err != nil || got != d {
			t.Errorf("%s is shown as %q and read as %s, %v", d, web.DurationText(d), got, err)
		}
	})
}
