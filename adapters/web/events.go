package web

import (
	"slices"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// eventLabel is a chat event with its label for people.
type eventLabel struct{ Name, Label string }

// chatwootEvents are the events of Chatwoot's page for webhooks, in its order
// and with its labels.
var chatwootEvents = []eventLabel{
	{"conversation_created", "Conversation Created"},
	{"conversation_status_changed", "Conversation Status Changed"},
	{"conversation_updated", "Conversation Updated"},
	{"message_created", "Message created"},
	{"message_updated", "Message updated"},
	{"webwidget_triggered", "Live chat widget opened by the user"},
	{"contact_created", "Contact created"},
	{"contact_updated", "Contact updated"},
	{"conversation_typing_on", "Conversation Typing On"},
	{"conversation_typing_off", "Conversation Typing Off"},
}

// operatorEvents are those of the operator's account.
var operatorEvents = []eventLabel{
	{domain.EventDeliveryDead, "Delivery given up"},
	{domain.EventWebhookDisabled, "Webhook disabled"},
}

// otherEvents have a label and no box: Chatwoot sends the first two only where
// its operator asks for them.
var otherEvents = []eventLabel{
	{"inbox_created", "Inbox created"},
	{"inbox_updated", "Inbox updated"},
	{domain.EventWebhookTest, "Test"},
}

// eventsOf are the events that an account's webhooks may choose by a box.
func eventsOf(account domain.AccountID) []eventLabel {
	if account == domain.OperatorAccount {
		return operatorEvents
	}
	return chatwootEvents
}

// labelOf is an event's label, its name where it has none.
func labelOf(name string) string {
	for _, events := range [][]eventLabel{chatwootEvents, operatorEvents, otherEvents} {
		if i := slices.IndexFunc(events, func(e eventLabel) bool { return e.Name == name }); i >= 0 {
			return events[i].Label
		}
	}
	return name
}

// labels lists what a webhook subscribed to, in the order of the page: those
// without a box come last.
func labels(account domain.AccountID, subscriptions []string) string {
	var found []string
	for _, e := range eventsOf(account) {
		if slices.Contains(subscriptions, e.Name) {
			found = append(found, e.Label)
		}
	}
	for _, name := range unlabelled(account, subscriptions) {
		found = append(found, labelOf(name))
	}
	return strings.Join(found, ", ")
}

// unlabelled are the subscriptions that have no box, sorted.
func unlabelled(account domain.AccountID, subscriptions []string) (names []string) {
	for _, name := range subscriptions {
		if !slices.ContainsFunc(eventsOf(account), func(e eventLabel) bool { return e.Name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
