package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) changeListing() listing[audit.Change] {
	return listing[audit.Change]{
		list: audit.ChangeList, short: "List changes of webhooks: who, when, and what",
		long: `List changes of webhooks, newest first: who made them, and what was before and after.
Secrets are never shown.

--since and --until are of the change.`,
		filters: filterKinds{time: "made", webhook: "only of this webhook", status: postgres.ChangeNames, statusOf: "change"},
		columns: changeColumns, table: a.tellChanges, read: (*postgres.Audit).Changes,
		follow: (*postgres.Audit).FollowChanges, followed: "each when it is committed",
	}
}

var changeColumns = []column[audit.Change]{
	{name: "at", value: func(r *audit.Change) any { return orNever(r.At) }},
	{name: "account_id", value: func(r *audit.Change) any { return r.AccountID }},
	{name: "webhook_id", value: func(r *audit.Change) any { return r.WebhookID }},
	{name: "webhook_version", value: func(r *audit.Change) any { return r.WebhookVersion }},
	{name: "actor", value: func(r *audit.Change) any { return r.Actor }},
	{name: "change", value: func(r *audit.Change) any { return r.Change }},
	{name: "before", value: func(r *audit.Change) any { return objectOrNil(r.Before) }},
	{name: "after", value: func(r *audit.Change) any { return objectOrNil(r.After) }},
}

func objectOrNil(object json.RawMessage) any {
	if object == nil {
		return nil
	}
	return object
}

// tellChanges writes changes for people: what became different, a line each.
func (a *app) tellChanges(changes []audit.Change) error {
	p := a.paint()
	var out bytes.Buffer
	for i := range changes {
		r := &changes[i]
		fmt.Fprintf(&out, "%s  %s  %s\n", p.as(faint, r.At.Local().Format("2006-01-02 15:04:05.000")),
			p.as(bold, fmt.Sprintf("webhook %d %s", r.WebhookID, strings.ReplaceAll(r.Change, "_", " "))),
			p.as(faint, fmt.Sprintf("account %d · version %d · by %s", r.AccountID, r.WebhookVersion, printable(r.Actor))))
		differences, err := differencesOf(r.Before, r.After)
		if err != nil {
			return fmt.Errorf("change %d of account %d: %w", r.WebhookVersion, r.AccountID, err)
		}
		widest := 0
		for _, d := range differences {
			widest = max(widest, len(d.name))
		}
		for _, d := range differences {
			text := printable(d.after)
			if r.Before != nil {
				text = p.as(faint, printable(d.before)) + " → " + text
			}
			fmt.Fprintf(&out, "    %-*s  %s\n", widest, printable(d.name), text)
		}
	}
	_, err := a.out.Write(out.Bytes())
	return err
}

// difference is a member that is not the same before and after.
type difference struct{ name, before, after string }

func differencesOf(before, after json.RawMessage) ([]difference, error) {
	var was, is map[string]json.RawMessage
	for _, object := range []struct {
		text json.RawMessage
		into *map[string]json.RawMessage
	}{{before, &was}, {after, &is}} {
		if object.text == nil {
			continue
		}
		if err := json.Unmarshal(object.text, object.into); err != nil {
			return nil, err
		}
	}
	names := map[string]bool{}
	for name := range was {
		names[name] = true
	}
	for name := range is {
		names[name] = true
	}
	var found []difference
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d := difference{name, memberText(was[name]), memberText(is[name])}
		if d.before != d.after {
			found = append(found, d)
		}
	}
	return found, nil
}

// memberText is a member as people write it; what is not there, or empty, is a
// dash.
func memberText(member json.RawMessage) string {
	var text string
	if json.Unmarshal(member, &text) == nil && text != "" {
		return text
	}
	switch s := string(member); s {
	case "", "null", `""`, "[]", "{}":
		return "–"
	default:
		return s
	}
}
