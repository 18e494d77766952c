package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/domain"
)

// replaySelection is what the flags select.
type replaySelection struct {
	domain.ReplaySelection
	key, file string
}

// replaySelectors are the flags, those first of which one is needed.
var replaySelectors = []string{"since", "event-id", "events-from", "until", "account", "webhook", "event", "ordering-key", "status"}

// maxReplayed is how many ids the database takes.
const maxReplayed = 100_000

func (s *replaySelection) addTo(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flagOf(flags, &s.Since, "since", "TIME", "", "what was routed from when on: RFC 3339, or a duration that counts back from now", a.parseTime)
	flagOf(flags, &s.Until, "until", "TIME", "", "and before when (default: now)", a.parseTime)
	flagsOf(flags, &s.EventIDs, "event-id", "ID", "this event; again for more", parseUUID)
	flagOf(flags, &s.file, "events-from", "FILE", "", "the events of a file, or with - of standard input: an id a line, or JSON Lines with event_id", anyText)
	flagOf(flags, &s.AccountID, "account", "N", "", "only of this account", parseAccount)
	flagOf(flags, &s.WebhookID, "webhook", "N", "", "only to this webhook", parseID[domain.WebhookID])
	flagsOf(flags, &s.Events, "event", "NAME", "only events of this name; again for more", anyText)
	flagOf(flags, &s.key, "ordering-key", "KEY", "", "only events of this ordering key, as audit.events shows it; empty: of none", anyText)
	flagsOf(flags, &s.Statuses, "status", "S", "only where that became of the latest delivery to the webhook; again for more: "+
		strings.Join(domain.ReplayStatuses[:6], ", ")+"; or passed_over: none was made; unknown: an attempt is; undelivered: none succeeded or is under way", oneOf(domain.ReplayStatuses...))
}

// given reports whether anything is selected.
func (s *replaySelection) given(c *check) bool {
	for _, flag := range replaySelectors {
		if c.given(flag) {
			return true
		}
	}
	return false
}

// judge checks the selection, and reads the file of events.
func (s *replaySelection) judge(a *app, c *check) {
	ids := c.given("event-id") || c.given("events-from")
	switch {
	case ids && (c.given("since") || c.given("until")):
		c.add("events and a range of time are both given")
	case !ids && !c.given("since"):
		if c.given("until") {
			c.need("since")
		} else {
			c.add("nothing is selected: give --since, --event-id or --events-from")
		}
	case c.given("since"):
		until := s.Until
		if !c.given("until") {
			until = a.now()
		}
		if !s.Since.IsZero() && !until.IsZero() && !s.Since.Before(until) {
			c.add("--since is not before --until")
		}
	}
	if c.given("ordering-key") {
		s.OrderingKey = &s.key
	}
	if len(c.problems) == 0 && c.given("events-from") {
		read, err := a.readEventIDs(s.file)
		if err != nil {
			c.add("--events-from: %v", err)
		} else if len(read) == 0 && len(s.EventIDs) == 0 {
			c.add("--events-from: there is no id in %s", s.file)
		}
		s.EventIDs = append(s.EventIDs, read...)
	}
	if n := len(s.EventIDs); n > maxReplayed {
		c.add("%d events are given, %d are taken at once", n, maxReplayed)
	}
}

func (a *app) readEventIDs(name string) ([]uuid.UUID, error) {
	if name == "-" {
		return eventIDs(a.in)
	}
	file, err := os.Open(name) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, err
	}
	ids, err := eventIDs(file)
	return ids, errors.Join(err, file.Close())
}

// eventIDs reads an id a line, or the event_id of a JSON object a line, as
// "outrider audit" writes them. Empty lines count for nothing, an id that is
// there again for one.
func eventIDs(in io.Reader) (ids []uuid.UUID, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	seen := map[uuid.UUID]bool{}
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		if text[0] == '{' {
			var line struct {
				EventID string `json:"event_id"`
			}
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			text = line.EventID
		}
		id, err := parseUUID(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, lines.Err()
}
