package httpapi

import (
	"maps"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// SettingsBody are the settings of a webhook that a request may leave out.
type SettingsBody struct {
	Name           optional[string]             `json:"name,omitzero" doc:"What people call it." example:"CRM"`
	Subscriptions  optional[[]string]           `json:"subscriptions,omitzero" minItems:"1" maxItems:"1000" doc:"The names of the events that it gets, each a lower-case letter and up to 99 letters, digits, _ or dots. A new webhook gets Chatwoot's eight by default; of the operator's account, all." example:"[\"message_created\"]"`
	InboxID        optional[int64]              `json:"inbox_id,omitzero" nullable:"true" minimum:"1" maximum:"9007199254740991" doc:"Only events of this inbox; null for all." example:"3"`
	Timeout        optional[string]             `json:"timeout,omitzero" doc:"The total deadline of an attempt, response body included: 1s to 30s. By default 5s." example:"5s"`
	MaxConcurrency optional[int64]              `json:"max_concurrency,omitzero" minimum:"1" maximum:"256" doc:"The most attempts under way at once. By default 16." example:"16"`
	OrderHold      optional[string]             `json:"order_hold,omitzero" doc:"How long a delivery waits for a failed earlier one of its ordering key: up to 24h, 0 for no order, or forever. By default 30s." example:"30s"`
	Deadline       optional[string]             `json:"deadline,omitzero" doc:"How long after its routing a delivery may still start an attempt: 1s to 7d. By default 7d." example:"7d"`
	Retries        optional[[]string]           `json:"retries,omitzero" nullable:"true" maxItems:"20" doc:"The waits after the first, second, … failed attempt, each 1s to 7d; empty for one attempt only, null for the relay's own schedule." example:"[\"5s\",\"30s\",\"2m\"]"`
	RateLimit      optional[float64]            `json:"rate_limit,omitzero" nullable:"true" minimum:"0" maximum:"10000" doc:"The most attempts that begin in a second, from 0.01 on; 0 or null for no limit." example:"10"`
	Headers        optional[map[string]*string] `json:"headers,omitzero" doc:"What is added to the header of each POST, by name: up to 20, 8192 characters together. Values are secrets, and not shown again. Names that are left out stay as they are; null removes one." example:"{\"X-Api-Key\":\"open-sesame\"}"`
}

// fields notes what is wrong with the fields of a body.
type fields struct{ reasons []v1Reason }

func (f *fields) add(name, reason string) {
	f.reasons = append(f.reasons, v1Reason{"body." + name, reason})
}

func (f *fields) err() error {
	if len(f.reasons) == 0 {
		return nil
	}
	return invalid(f.reasons...)
}

// take puts a member where it is given, and notes null where that means nothing.
func take[T any](f *fields, name string, o optional[T], into *T) {
	switch {
	case o.null:
		f.add(name, "is null: leave it out, or give a value")
	case o.given:
		*into = o.value
	}
}

// takeOrNone is take where null is the zero value.
func takeOrNone[T any](o optional[T], into *T) {
	if o.given {
		*into = o.value
	}
}

// takeDuration reads a duration that is given. least is above 0 where 0 would be
// taken for one that is not given.
func takeDuration(f *fields, name string, o optional[string], parse func(string) (time.Duration, error), zero string, into *time.Duration) {
	var text string
	take(f, name, o, &text)
	if !o.given || o.null {
		return
	}
	d, err := parse(text)
	switch {
	case err != nil:
		f.add(name, err.Error())
	case d == 0 && zero != "":
		f.add(name, zero)
	default:
		*into = d
	}
}

// over puts the given settings over others.
func (b *SettingsBody) over(s domain.Settings, f *fields) domain.Settings {
	take(f, "name", b.Name, &s.Name)
	take(f, "subscriptions", b.Subscriptions, &s.Subscriptions)
	takeOrNone(b.InboxID, &s.InboxID)
	takeDuration(f, "timeout", b.Timeout, parseDuration, "0s is not within 1s to 30s", &s.Timeout)
	concurrency := int64(s.MaxConcurrency)
	take(f, "max_concurrency", b.MaxConcurrency, &concurrency)
	s.MaxConcurrency = int(concurrency)
	takeDuration(f, "order_hold", b.OrderHold, parseHold, "", &s.OrderHold)
	takeDuration(f, "deadline", b.Deadline, parseDuration, "0s is not within 1s to 7d", &s.Deadline)
	takeOrNone(b.RateLimit, &s.RateLimit)
	if b.Retries.given {
		s.Retries = nil
		if !b.Retries.null {
			s.Retries = make([]time.Duration, len(b.Retries.value))
		}
		for i, text := range b.Retries.value {
			wait, err := parseDuration(text)
			if err != nil {
				f.add("retries", err.Error())
				break
			}
			s.Retries[i] = wait
		}
	}
	return s
}

// changes gives what is to become of headers. removing says that null removes
// one.
func (b *SettingsBody) changes(f *fields, removing bool) []domain.Header {
	var given map[string]*string
	take(f, "headers", b.Headers, &given)
	changes := make([]domain.Header, 0, len(given))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		switch {
		case value == nil && removing:
			changes = append(changes, domain.Header{Name: name})
		case value == nil:
			f.add("headers", "one of them is null, and there is none to remove yet")
		case *value == "":
			f.add("headers", "one of them is empty: null removes it")
		default:
			changes = append(changes, domain.NewHeader(name, *value))
		}
	}
	return changes
}
