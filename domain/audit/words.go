package audit

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Printable makes text safe for a terminal, and for a page: what comes from
// receivers may hold escape sequences and characters that turn the direction of
// writing.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == unicode.ReplacementChar:
			return '\uFFFD'
		}
		return r
	}, s)
}

// KeyName is an ordering key for people: "conversation 42".
func KeyName(key string) string {
	kind, id, derived := strings.Cut(key, ":")
	if derived && (kind == "conversation" || kind == "contact") {
		return kind + " " + Printable(id)
	}
	return strings.TrimSpace("ordering key " + Printable(key))
}

// Short is a duration in as few digits as tell it from others.
func Short(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute-5*time.Millisecond: // below, it rounds to a minute
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour-time.Second/2:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day-time.Minute/2:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		d = d.Round(time.Hour)
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

// Size is a number of bytes for people.
func Size(n int) string {
	const kib = 1 << 10
	if n < kib {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/kib)
}
