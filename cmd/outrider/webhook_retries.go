package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// The schedules that are no list.
const (
	defaultRetries = "default" // the relay's own
	noRetries      = "none"
)

// retriesText lists waits; nil is the relay's own schedule.
func retriesText(retries []time.Duration) []string {
	if retries == nil {
		return nil
	}
	texts := make([]string, len(retries))
	for i, wait := range retries {
		texts[i] = wait.String()
	}
	return texts
}

// shownRetries is retriesText for a column, where a schedule of no retries has
// a word in a table.
type shownRetries []string

// String lists them for a table.
func (r shownRetries) String() string {
	switch {
	case r == nil:
		return defaultRetries
	case len(r) == 0:
		return noRetries
	}
	return strings.Join(r, ", ")
}

// parseRetries reads waits with commas between, or one of the words.
func parseRetries(text string) ([]time.Duration, error) {
	switch text {
	case defaultRetries:
		return nil, nil
	case noRetries:
		return []time.Duration{}, nil
	}
	waits, err := parseWaits(strings.Split(text, ","))
	if err != nil {
		return nil, fmt.Errorf("%w; or %s, or %s", err, noRetries, defaultRetries)
	}
	return waits, nil
}

func parseWaits(texts []string) ([]time.Duration, error) {
	waits := make([]time.Duration, len(texts))
	for i, text := range texts {
		wait, err := parseDuration(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		waits[i] = wait
	}
	return waits, nil
}

// retriesMember reads a list of waits, or null for the relay's own schedule.
func retriesMember(raw json.RawMessage, dest **[]time.Duration) error {
	var texts []string
	if err := member(raw, &texts, `null (the relay's own schedule), or a list of text like "30s"`); err != nil {
		return err
	}
	var retries []time.Duration
	if texts != nil {
		var err error
		if retries, err = parseWaits(texts); err != nil {
			return err
		}
	}
	*dest = &retries
	return nil
}
