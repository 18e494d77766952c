package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// filterKinds are the filters that a list has.
type filterKinds struct {
	// time says what --since and --until are of.
	time string
	// webhook says what --webhook selects, "" for no such flag.
	webhook string
	// event is whether there are filters on the chat event, replay on a replay.
	event, replay bool
	// status are the words of --status, statusOf is what it is of.
	status   []string
	statusOf string
}

// outcome is how attempts call their status.
const outcome = "outcome"

// statusFlag is the status' own flag.
func (k *filterKinds) statusFlag() string {
	switch k.statusOf {
	case outcome, "change":
		return k.statusOf
	}
	return "status"
}

// filterFlags adds the filters of a list.
func (a *app) filterFlags(flags *pflag.FlagSet, f *audit.Filter, k filterKinds) {
	flagOf(flags, &f.AccountID, "account", "N", "", "only of this account", parseAccount)
	if k.webhook != "" {
		flagOf(flags, &f.WebhookID, "webhook", "N", "", k.webhook, parseID[domain.WebhookID])
	}
	if k.event {
		flagOf(flags, &f.Event, "event", "NAME", "", "only of events with this name", parseName)
		flagOf(flags, &f.EventID, "event-id", "ID", "", "only of this event", parseUUID)
		flagOf(flags, &f.OrderingKey, "ordering-key", "KEY", "", "only what is kept in order by this, such as conversation:346; '' for what is not", parseKey)
	}
	if k.replay {
		flagOf(flags, &f.ReplayID, "replay", "N", "", "only what this replay asked for", parseID[domain.ReplayID])
	}
	if len(k.status) > 0 {
		flagOf(flags, &f.Status, k.statusFlag(), "S", "", "only with this "+k.statusOf+": "+strings.Join(k.status, ", "), oneOf(k.status...))
		if k.statusOf == outcome {
			flagOf(flags, &f.Status, "status", "S", "", "the same as --outcome", oneOf(k.status...))
		}
	}
	flagOf(flags, &f.Since, "since", "TIME", "", "only "+k.time+" at or after then: RFC 3339, or 2h for two hours ago", a.parseTime)
	flagOf(flags, &f.Until, "until", "TIME", "", "only "+k.time+" before then", a.parseTime)
}

// filter notes filters that contradict each other.
func (c *check) filter(f *audit.Filter) {
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		c.add("--since is not before --until")
	}
	if c.cmd.Flags().Lookup(outcome) != nil && c.given(outcome) && c.given("status") {
		c.add("--outcome and --status are the same here: give one")
	}
}

func parseName(text string) (string, error) {
	if text == "" {
		return "", errors.New("a name is missing, such as message_created")
	}
	return text, nil
}

func parseKey(text string) (*string, error) { return &text, nil }
