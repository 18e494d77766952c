package audit

import (
	"encoding/json"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// Replay is a replay and how far it is.
type Replay struct {
	ID          domain.ReplayID
	AccountID   domain.AccountID // 0: several
	RequestedBy string
	RequestedAt time.Time
	State       string
	Selection   json.RawMessage
	ToWebhookID domain.WebhookID // 0: those of the plan
	Rate        float64          // deliveries per second, 0 for no bound
	// Total is how many deliveries it has. Scheduled ones have begun their lives;
	// of those the others are finished; Gone ones lost their event before.
	Total, Scheduled, Succeeded, Dead, Cancelled, Expired, Gone int64
	FinishedAt                                                  time.Time
}

// Done is how many deliveries are finished, whatever came of them.
func (r *Replay) Done() int64 { return r.Succeeded + r.Dead + r.Cancelled + r.Expired + r.Gone }

// Over reports whether nothing more will happen to it.
func (r *Replay) Over() bool { return r.State == "finished" || r.State == "cancelled" }

// ReplayPart is what a plan has for one webhook.
type ReplayPart struct {
	AccountID  domain.AccountID
	WebhookID  domain.WebhookID
	Deliveries int64
	// Gone are those left out because their events have no payload any more.
	Gone int64
	// PassedOver is the webhook's state where that was why the plan leaves these
	// deliveries out, else "".
	PassedOver      string
	FirstAt, LastAt time.Time
}
