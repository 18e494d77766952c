package httpapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// forever is the order_hold of strict order.
const forever = "forever"

// durationText writes a duration as the command line does.
func durationText(d time.Duration) string { return d.String() }

// holdText is durationText of an order_hold.
func holdText(d time.Duration) string {
	if d == domain.HoldForever {
		return forever
	}
	return d.String()
}

// parseDuration reads a duration as the command line does.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration; write it like 30s, 2h or 7d", shortened(text))
	}
	return d, nil
}

// parseHold is parseDuration of an order_hold.
func parseHold(text string) (time.Duration, error) {
	if text == forever {
		return domain.HoldForever, nil
	}
	if d, err := parseDuration(text); err == nil {
		return d, nil
	}
	return 0, fmt.Errorf("%q is neither a duration, like 30s, nor 0 (no order), nor %q", shortened(text), forever)
}

// shortened keeps an answer short that repeats what was sent.
func shortened(text string) string {
	const most = 40
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
