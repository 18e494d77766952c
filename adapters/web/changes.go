package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain/audit"
)

// changesPerPage is how many changes a page of them lists.
const changesPerPage = 50

// shownChanges is a page of a webhook's changes.
type shownChanges struct {
	shownWebhook
	Changes []shownChange
	// Older is where the next page is, "" for none.
	Older string
}

// webhookChanges lists who changed a webhook, page after page.
func (p *pages) webhookChanges(w http.ResponseWriter, r *request) error {
	hook, err := p.hook(r)
	if err != nil {
		return err
	}
	var after *audit.Cursor
	if text := r.URL.Query().Get("after"); text != "" {
		cursor, err := audit.ParseCursor(audit.ChangeList, text)
		if err != nil {
			return &failure{http.StatusBadRequest, "There is no such page of changes", "Begin with the newest ones, on the webhook’s page."}
		}
		after = &cursor
	}
	changes, err := p.Audit.Changes(r.Context(), audit.Filter{AccountID: r.account, WebhookID: hook.ID, Limit: changesPerPage}, after)
	if err != nil {
		return err
	}
	shown := &shownChanges{shownWebhook: shownWebhook{Webhook: hook, URL: shownURL(r, hook.Settings.URL)}}
	for i := range changes.Records {
		shown.Changes = append(shown.Changes, showChange(&changes.Records[i]))
	}
	if changes.Next != nil {
		shown.Older = webhookPath(&hook) + "/changes?after=" + changes.Next.String()
	}
	return p.render(w, r, http.StatusOK, "webhook_changes", &view{Title: "Changes", Nav: "webhooks", Data: shown})
}

// shownChange is a change of a webhook in words.
type shownChange struct {
	At     time.Time
	Actor  string
	What   string
	Reason string
	// Fields are the settings that an update changed.
	Fields []changedField
}

// changedField is a setting before and after; they are "" where only its name
// is shown.
type changedField struct{ Label, Before, After string }

// changeWords say what a kind of change is.
var changeWords = map[string]string{
	"registered": "Added", "updated": "Settings changed", "secret_rotated": "Secret rotated", "secret_revealed": "Secret shown",
	"paused": "Paused", "enabled": "Enabled", "disabled": "Disabled", "deleted": "Deleted",
	"breaker_opened": "Receiver down, deliveries wait", "breaker_closed": "Receiver answers again",
}

// settingLabels are the members of a change's before and after, in the order in
// which they are shown.
var settingLabels = []struct{ member, label, absent string }{
	{"url", "URL", "none"}, {"name", "Name", "none"}, {"subscriptions", "Events", "none"}, {"inbox_id", "Inbox", "all"}, {"timeout", "Timeout", "usual"},
	{"retries", "Retries", "usual"}, {"deadline", "Deadline", "usual"}, {"order_hold", "Order hold", "usual"}, {"max_concurrency", "Attempts at once", "usual"},
	{"rate_limit", "Rate limit", "none"}, {"headers", "Headers", "none"},
}

// showChange puts a change into words. A kind that is newer than these pages is
// shown by its name.
func showChange(c *audit.Change) shownChange {
	shown := shownChange{At: c.At, Actor: c.Actor, What: changeWords[c.Change]}
	if shown.What == "" {
		shown.What = upperFirst(strings.ReplaceAll(c.Change, "_", " "))
	}
	var before, after map[string]json.RawMessage
	_ = json.Unmarshal(c.After, &after) // what cannot be read shows nothing
	if reason, ok := after["reason"]; ok {
		_ = json.Unmarshal(reason, &shown.Reason)
	}
	if c.Change != "updated" || json.Unmarshal(c.Before, &before) != nil {
		return shown
	}
	for _, s := range settingLabels {
		if was, is := before[s.member], after[s.member]; !bytes.Equal(was, is) {
			shown.Fields = append(shown.Fields, changedField{s.label, memberText(was, s.absent), memberText(is, s.absent)})
		}
	}
	if len(shown.Fields) == 0 {
		// The query of the URL, the user and password in it, the value of a
		// header: none of them is in the history.
		shown.Fields = []changedField{{Label: "what is not shown: a header’s value, or a part of the URL"}}
	}
	return shown
}

// memberText is a member of a change for people; absent is what it is where it
// is not there.
func memberText(raw json.RawMessage, absent string) string {
	var value any
	if len(raw) == 0 || json.Unmarshal(raw, &value) != nil {
		return absent
	}
	var text string
	switch value := value.(type) {
	case nil:
		return absent
	case string:
		text = value
	case []any:
		texts := make([]string, 0, len(value))
		for _, v := range value {
			texts = append(texts, fmt.Sprint(v))
		}
		text = strings.Join(texts, ", ")
	case map[string]any: // headers, without their values
		text = strings.Join(slices.Sorted(maps.Keys(value)), ", ")
	default:
		text = string(raw)
	}
	if text == "" {
		return "none"
	}
	return text
}
