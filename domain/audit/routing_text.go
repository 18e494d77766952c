package audit

import (
	"fmt"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// RoutingText says what routing made of the chat event.
func (t *Trace) RoutingText() string {
	e := &t.Event
	var b strings.Builder
	switch e.Routing {
	case domain.RoutingWaiting:
		return "waits to be routed; is outrider serve running?"
	case domain.RoutingRouted:
		b.WriteString("routed to ")
		var first []string
		for i := range t.Deliveries {
			if t.Deliveries[i].ReplayID == 0 {
				first = append(first, fmt.Sprint(t.Deliveries[i].WebhookID))
			}
		}
		b.WriteString(webhooks(first))
	case domain.RoutingNoSubscriber:
		b.WriteString("routed to nobody: no webhook of the account subscribes to " + Printable(e.Event))
	case domain.RoutingSkipped:
		b.WriteString("routed to nobody")
	case domain.RoutingDuplicate:
		return "not sent: its id was there before, within the duplicate window"
	case domain.RoutingQuarantined:
		return "quarantined: " + quarantineText(e.Reason)
	default:
		return Printable(string(e.Routing) + " " + e.Reason)
	}
	for _, reason := range []domain.SkipReason{domain.SkipDisabled, domain.SkipInbox, domain.SkipUnreadable} {
		var skipped []string
		for _, s := range t.Skips {
			if s.Reason == reason {
				skipped = append(skipped, fmt.Sprint(s.WebhookID))
			}
		}
		if len(skipped) > 0 {
			b.WriteString("; " + webhooks(skipped) + " passed over: ")
			switch reason {
			case domain.SkipDisabled:
				b.WriteString("disabled")
			case domain.SkipInbox:
				b.WriteString("for another inbox")
			case domain.SkipUnreadable:
				b.WriteString("the settings cannot be read")
			}
		}
	}
	return b.String()
}

func quarantineText(reason string) string {
	texts := map[string]string{
		string(domain.QuarantineEventName):     "the event's name is not one: a lower-case letter, then up to 99 of a-z, 0-9, _ and dot",
		string(domain.QuarantineNotObject):     "the payload is not a JSON object",
		string(domain.QuarantineEventMismatch): `the payload's "event" differs from the column`,
		string(domain.QuarantineEventRepeated): `the payload has more than one "event"`,
		string(domain.QuarantineTooLarge):      "the body is too large",
		string(domain.QuarantineOrderingKey):   "the ordering key is too long",
		string(domain.QuarantineReserved):      "the account is the operator's, whose events the relay alone writes",
		string(domain.QuarantinePanic):         "routing it failed inside of Outrider; its log says how",
	}
	if known, ok := texts[reason]; ok {
		return known
	}
	return Printable(reason)
}

// webhooks is "webhook 1" or "webhooks 1, 2 and 3".
func webhooks(ids []string) string {
	switch n := len(ids); n {
	case 0:
		return "no webhook"
	case 1:
		return "webhook " + ids[0]
	default:
		return "webhooks " + strings.Join(ids[:n-1], ", ") + " and " + ids[n-1]
	}
}
