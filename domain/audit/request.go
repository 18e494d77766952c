package audit

import (
	"strconv"

	"github.com/outrider-relay/outrider/domain"
)

// RequestHeader is a line in the header of an attempt's request, as far as the
// history knows it.
type RequestHeader struct {
	Name, Value string
	// Withheld says that the value is not on record: it is a secret, is made from
	// one, or is of the moment of sending.
	Withheld bool
}

// RequestHeaders are the lines in the header of an attempt's request in the
// order in which they are sent, but for Host, Content-Length, a traceparent, and
// the Authorization of a user in the webhook's URL. custom are the names of the
// webhook's own headers.
func (d *Delivery) RequestHeaders(a *Attempt, custom []string) []RequestHeader {
	lines := []RequestHeader{{Name: "User-Agent", Withheld: true}, {Name: "Content-Type", Value: "application/json"}, {Name: "Accept", Value: "application/json"}}
	for _, name := range custom {
		lines = append(lines, RequestHeader{Name: Printable(name), Withheld: true})
	}
	id := d.NotificationID.String()
	lines = append(lines,
		RequestHeader{Name: "webhook-id", Value: id},
		RequestHeader{Name: "webhook-timestamp", Withheld: true},
		RequestHeader{Name: "webhook-signature", Withheld: true},
		RequestHeader{Name: "X-Chatwoot-Delivery", Value: id},
		RequestHeader{Name: "X-Chatwoot-Timestamp", Withheld: true},
		RequestHeader{Name: "X-Chatwoot-Signature", Withheld: true},
		RequestHeader{Name: "Outrider-Event", Value: Printable(d.Event)},
		RequestHeader{Name: "Outrider-Delivery", Value: d.DeliveryID.String()},
		RequestHeader{Name: "Outrider-Attempt", Value: strconv.Itoa(a.Number)})
	if a.Number > 1 && a.PreviousOutcome != domain.OutcomeNone {
		lines = append(lines, RequestHeader{Name: "Outrider-Previous-Outcome", Value: string(a.PreviousOutcome)})
	}
	if d.ReplayID != 0 {
		lines = append(lines, RequestHeader{Name: "Outrider-Replay", Value: strconv.FormatInt(int64(d.ReplayID), 10)})
	}
	return lines
}
