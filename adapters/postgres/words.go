package postgres

import (
	"strconv"
	"time"
)

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// roughly writes a duration as people say it: 3 ms, 12 s, 5 min, 3 h, 2 days.
func roughly(d time.Duration) string {
	switch abs := d.Abs(); {
	case abs < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case abs < 2*time.Minute:
		return strconv.FormatInt(int64(d.Seconds()), 10) + " s"
	case abs < 2*time.Hour:
		return strconv.FormatInt(int64(d.Minutes()), 10) + " min"
	case abs < 48*time.Hour:
		return strconv.FormatInt(int64(d.Hours()), 10) + " h"
	default:
		return strconv.FormatInt(int64(d.Hours()/24), 10) + " days"
	}
}
