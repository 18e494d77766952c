package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// deliveryRoutes are those of deliveries.
func deliveryRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/accounts/{account}/deliveries", Permission: domain.Read}, (*pages).deliveries},
		{Route{Method: "GET", Pattern: "/accounts/{account}/deliveries/live", Permission: domain.Read, Stream: true}, (*pages).deliveriesLive},
	}
}

const (
	// deliveriesShown is how many are on a page.
	deliveriesShown = 50
	// deliveriesLooked is how many are looked at for a page of what no index
	// leads to: a page comes at once, and says that there is more behind it.
	deliveriesLooked = 1000
)

// deliveryStatuses are the statuses to choose from, in the order of a life.
var deliveryStatuses = []domain.DeliveryStatus{
	domain.DeliveryPending, domain.DeliveryHeld, domain.DeliverySucceeded, domain.DeliveryDead, domain.DeliveryCancelled, domain.DeliveryExpired,
}

// statusOf is a status for people: its words, its tint and a mark that tells it
// from others without colours.
type statusOf struct{ Word, Tint, Mark string }

var statuses = map[domain.DeliveryStatus]statusOf{
	domain.DeliveryPending:   {"Pending", "waiting", "…"},
	domain.DeliveryHeld:      {"Held", "waiting", "‖"},
	domain.DeliverySucceeded: {"Delivered", "good", "✓"},
	domain.DeliveryDead:      {"Given up", "bad", "✗"},
	domain.DeliveryCancelled: {"Cancelled", "", "⊘"},
	domain.DeliveryExpired:   {"Expired", "bad", "⌛"},
}

func shownStatus(s domain.DeliveryStatus) statusOf {
	if known, ok := statuses[s]; ok {
		return known
	}
	return statusOf{audit.Printable(string(s)), "", "·"}
}

// deliveryFilter is what a list of deliveries was asked for, as it was typed.
type deliveryFilter struct {
	Webhook, Status, Event, EventID, Key, Since, Until string
	// Replay has no field of its own: a replay's page leads to it.
	Replay string
	// Problems are what is wrong, by the field's name.
	Problems map[string]string
}

// filterFields are the names of its fields in a query.
var filterFields = []string{"webhook", "status", "event", "event_id", "key", "since", "until", "replay"}

func filterOf(query url.Values) *deliveryFilter {
	text := func(name string) string { return strings.TrimSpace(query.Get(name)) }
	return &deliveryFilter{
		Webhook: text("webhook"), Status: text("status"), Event: text("event"), EventID: text("event_id"), Key: text("key"),
		Since: text("since"), Until: text("until"), Replay: text("replay"), Problems: map[string]string{},
	}
}

// Any says whether anything is asked for.
func (f *deliveryFilter) Any() bool { return len(f.values()) > 0 }

// values are the fields that are not empty.
func (f *deliveryFilter) values() url.Values {
	values := url.Values{}
	for i, text := range []string{f.Webhook, f.Status, f.Event, f.EventID, f.Key, f.Since, f.Until, f.Replay} {
		if text != "" {
			values.Set(filterFields[i], text)
		}
	}
	return values
}

// Query is the filter in a path, "" for none.
func (f *deliveryFilter) Query() string {
	if values := f.values(); len(values) > 0 {
		return "?" + values.Encode()
	}
	return ""
}

// filter judges what was typed.
func (f *deliveryFilter) filter(account domain.AccountID, now time.Time) audit.Filter {
	filter := audit.Filter{AccountID: account, Event: f.Event, Limit: deliveriesShown, Look: deliveriesLooked}
	var err error
	problem := func(field, text string) { f.Problems[field] = text }
	if f.Webhook != "" {
		if filter.WebhookID, err = idOf[domain.WebhookID](f.Webhook); err != nil {
			problem("webhook", "This is not the number of a webhook.")
		}
	}
	if f.Replay != "" {
		if filter.ReplayID, err = idOf[domain.ReplayID](f.Replay); err != nil {
			problem("replay", "This is not the number of a replay.")
		}
	}
	if f.Status != "" {
		if !slices.Contains(deliveryStatuses, domain.DeliveryStatus(f.Status)) {
			problem("status", "There is no such status.")
		}
		filter.Status = f.Status
	}
	if f.EventID != "" {
		if filter.EventID, err = uuid.Parse(f.EventID); err != nil {
			problem("event_id", "This is not an event’s id; it looks like 0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f.")
		}
	}
	if f.Key != "" {
		filter.OrderingKey = &f.Key
	}
	if filter.Since, err = timeOf(f.Since, now); err != nil {
		problem("since", err.Error())
	}
	if filter.Until, err = timeOf(f.Until, now); err != nil {
		problem("until", err.Error())
	}
	if len(f.Problems) == 0 && !filter.Since.IsZero() && !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
		problem("until", "The end is not after the beginning.")
	}
	for _, text := range []string{f.Event, f.Key} {
		if strings.ContainsRune(text, 0) {
			problem("event", "There is a character in it that no name has.")
		}
	}
	return filter
}

// idOf reads a number above 0.
func idOf[N ~int64](text string) (N, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && n <= 0 {
		err = strconv.ErrRange
	}
	return N(n), err
}

var errNoTime = errors.New("Write it like 2026-07-01 14:30, in UTC, or like 2h or 7d for so long ago.") //nolint:staticcheck,revive // it is shown as it is

// timeLayouts are how times may be written, all in UTC but those that say where.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"}

// timeOf reads a time, or how long ago it was; "" is the zero time.
func timeOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range timeLayouts {
		if at, err := time.Parse(layout, text); err == nil {
			if at.Year() < 1970 || at.Year() > 9999 {
				return time.Time{}, errNoTime
			}
			return at.UTC(), nil
		}
	}
	const day = 24 * time.Hour
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 14); err == nil {
			return now.Add(-time.Duration(n) * day), nil
		}
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago < 0 || ago > 10000*day {
		return time.Time{}, errNoTime
	}
	return now.Add(-ago), nil
}

// hookName is a webhook in lists.
type hookName struct {
	ID   domain.WebhookID
	Name string
}

// hookNames are the account's webhooks by name or address.
func (p *pages) hookNames(ctx context.Context, account domain.AccountID) ([]hookName, error) {
	hooks, err := p.Webhooks.List(ctx, account)
	if err != nil {
		return nil, err
	}
	names := make([]hookName, len(hooks))
	for i := range hooks {
		name := hooks[i].Settings.Name
		if name == "" {
			name = withoutQuery(hooks[i].Settings.URL)
		}
		if hooks[i].Unreadable != "" {
			name = "Unreadable"
		}
		names[i] = hookName{hooks[i].ID, audit.Printable(name)}
	}
	return names, nil
}

// withoutQuery is as much of a URL as the history shows.
func withoutQuery(address string) string {
	if i := strings.IndexAny(address, "?#"); i >= 0 {
		return address[:i]
	}
	return address
}

// nameIn finds a webhook's name, "" where it is gone.
func nameIn(names []hookName, id domain.WebhookID) string {
	if i := slices.IndexFunc(names, func(n hookName) bool { return n.ID == id }); i >= 0 {
		return names[i].Name
	}
	return ""
}

// shownDelivery is a delivery in the list.
type shownDelivery struct {
	audit.Delivery
	// Label is the event's, Hook the webhook's name or address.
	Label, Hook string
	Shown       statusOf
	Why         string
	// Key is the ordering key for people, "" for none.
	Key string
}

func newShownDelivery(d *audit.Delivery, names []hookName) shownDelivery {
	shown := shownDelivery{Delivery: *d, Label: audit.Printable(labelOf(d.Event)), Shown: shownStatus(d.Status), Why: d.ReasonText()}
	if shown.Hook = nameIn(names, d.WebhookID); shown.Hook == "" {
		shown.Hook = audit.Printable(d.URL)
	}
	if d.OrderingKey != "" {
		shown.Key = audit.KeyName(d.OrderingKey)
	}
	return shown
}

// shownDeliveries is the list.
type shownDeliveries struct {
	Filter   *deliveryFilter
	Hooks    []hookName
	Statuses []statusOption
	Rows     []shownDelivery
	// Live is the path of the updates, "" for none: the page is not the newest.
	Live string
	// Older and Newest are paths of pages, "" for none.
	Older, Newest string
	// Searched is how many were looked at where that is why the page is short.
	Searched int
	Now      time.Time
}

// statusOption is one of a choice.
type statusOption struct{ Value, Label string }

func statusOptions() []statusOption {
	options := make([]statusOption, len(deliveryStatuses))
	for i, s := range deliveryStatuses {
		options[i] = statusOption{string(s), statuses[s].Word}
	}
	return options
}

// deliveries lists the account's deliveries that a filter selects.
func (p *pages) deliveries(w http.ResponseWriter, r *request) error {
	names, err := p.hookNames(r.Context(), r.account)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	shown := &shownDeliveries{Filter: filterOf(query), Hooks: names, Statuses: statusOptions(), Now: p.Now().UTC()}
	page := &view{Title: "Deliveries", Nav: "deliveries", Scripts: []string{"live.js"}, Styles: []string{"history.css"}, Data: shown}
	filter := shown.Filter.filter(r.account, p.Now())
	var after *audit.Cursor
	if text := query.Get("after"); text != "" {
		cursor, err := audit.ParseCursor(audit.DeliveryList, text)
		if err != nil {
			return errNotFound
		}
		after = &cursor
	}
	if len(shown.Filter.Problems) > 0 {
		return p.render(w, r, http.StatusBadRequest, "deliveries", page)
	}
	found, err := p.Audit.Deliveries(r.Context(), filter, after)
	if err != nil {
		return err
	}
	for i := range found.Records {
		shown.Rows = append(shown.Rows, newShownDelivery(&found.Records[i], names))
	}
	shown.Searched = found.Searched
	base, values := accountPath(r.account, "deliveries"), shown.Filter.values()
	if after != nil {
		shown.Newest = base + shown.Filter.Query()
	} else {
		shown.Live = base + "/live" + shown.Filter.Query()
	}
	if found.Next != nil {
		values.Set("after", found.Next.String())
		shown.Older = base + "?" + values.Encode()
	}
	return p.render(w, r, http.StatusOK, "deliveries", page)
}

// deliveriesLive keeps the newest page of a list up to date.
func (p *pages) deliveriesLive(w http.ResponseWriter, r *request) error {
	typed := filterOf(r.URL.Query())
	typed.filter(r.account, p.Now())
	if len(typed.Problems) > 0 {
		return &failure{http.StatusBadRequest, "The filter is not one", "Load the page of deliveries, which says what is wrong with it."}
	}
	names, err := p.hookNames(r.Context(), r.account)
	if err != nil {
		return err
	}
	account := r.account
	return p.stream(w, r, accountPath(account, "deliveries")+typed.Query(), subject{read: func(ctx context.Context) ([]fragment, error) {
		filter := typed.filter(account, p.Now())
		found, err := p.Audit.Deliveries(ctx, filter, nil)
		if err != nil {
			return nil, err
		}
		rows := make([]fragment, len(found.Records))
		for i := range found.Records {
			row := newShownDelivery(&found.Records[i], names)
			if rows[i], err = p.part("deliveries", "row", "d-"+row.DeliveryID.String(), row); err != nil {
				return nil, err
			}
		}
		return rows, nil
	}})
}
