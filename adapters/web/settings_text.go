package web

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// The words of forms, as the command line has them.
const (
	forever        = "forever"
	defaultRetries = "default"
	noRetries      = "none"
)

// parseDuration reads what durationText writes.
func parseDuration(text string) (time.Duration, error) {
	const longestDays = 10_000
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n <= longestDays {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration; write it like 30s, 2h or 7d", shortened(text))
	}
	return d, nil
}

// holdText is an order hold in a form.
func holdText(hold time.Duration) string {
	if hold == domain.HoldForever {
		return forever
	}
	if hold == 0 {
		return "0"
	}
	return durationText(hold)
}

func parseHold(text string) (time.Duration, error) {
	if text == forever {
		return domain.HoldForever, nil
	}
	hold, err := parseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a duration, like 30s, nor 0 (no order), nor “forever”", shortened(text))
	}
	return hold, nil
}

// retriesField is a schedule in a form: "" for the relay's own.
func retriesField(retries []time.Duration) string {
	switch {
	case retries == nil:
		return ""
	case len(retries) == 0:
		return noRetries
	}
	return waitsText(retries)
}

func waitsText(waits []time.Duration) string {
	texts := make([]string, len(waits))
	for i, wait := range waits {
		texts[i] = durationText(wait)
	}
	return strings.Join(texts, ", ")
}

// parseRetries reads waits with commas or spaces between, or one of the words.
func parseRetries(text string) ([]time.Duration, error) {
	switch text {
	case defaultRetries, "":
		return nil, nil
	case noRetries:
		return []time.Duration{}, nil
	}
	words := strings.FieldsFunc(text, between)
	waits := make([]time.Duration, len(words))
	for i, word := range words {
		wait, err := parseDuration(word)
		if err != nil {
			return nil, fmt.Errorf("%w; or none, or leave it empty", err)
		}
		waits[i] = wait
	}
	return waits, nil
}

// between separates the words of a list.
func between(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' }

// rateText is a rate limit in a form.
func rateText(rate float64) string { return strconv.FormatFloat(rate, 'f', -1, 64) }

func parseRate(text string) (float64, error) {
	rate, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number; write it like 10 or 0.5, or leave it empty for no limit", shortened(text))
	}
	return rate, nil
}

func parseNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", shortened(text))
	}
	return n, nil
}

// parseHeaders reads lines of names and values. Nothing of a line that is none
// is quoted: it may be a secret.
func parseHeaders(text string) (headers []domain.Header, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !ok || value == "" {
			return nil, errors.New("a line is not like “Name: value”")
		}
		headers = append(headers, domain.NewHeader(strings.TrimSpace(name), value))
	}
	return headers, nil
}
