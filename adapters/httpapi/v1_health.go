package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

const tagHealth = "Health"

func (v *v1) addHealth() {
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/health", id: "listHealth", tag: tagHealth, may: domain.Read,
		summary: "Show how each webhook does", about: "In the order of their ids. It lags behind by 10 seconds at most.",
	}, v.listHealth)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/accounts/{account_id}/stats", id: "listStats", tag: tagHealth, may: domain.Read,
		summary: "Count attempts and deliveries by webhook and hour",
		about: "Attempts by outcome, and deliveries that ended without success, by the hour in which they ended, and deliveries that began. The newest hour is first; hours in which nothing began or ended are left out. " +
			"It lags behind by 10 seconds at most. Without since it goes back 24 hours.",
	}, v.listStats)
}

// v1Health is a row of audit.webhook_health.
type v1Health struct {
	AccountID           int64      `json:"account_id" doc:"The account." example:"1"`
	WebhookID           int64      `json:"webhook_id" doc:"The webhook." example:"7"`
	State               string     `json:"state" doc:"The webhook's state." example:"enabled"`
	LastSuccessAt       *time.Time `json:"last_success_at" doc:"When it last took a POST." example:"2026-07-01T12:00:00Z"`
	LastFailureAt       *time.Time `json:"last_failure_at" doc:"When an attempt last failed." example:"2026-07-01T11:00:00Z"`
	ConsecutiveFailures int64      `json:"consecutive_failures" doc:"How many attempts have failed since the last success." example:"0"`
	SuccessRate1h       *float64   `json:"success_rate_1h" doc:"The share of successes among the last hour's attempts, 0 to 1; null where there were none." example:"0.98"`
	P50MS1h             *float64   `json:"p50_ms_1h" doc:"The median of their durations, in milliseconds." example:"12.5"`
	P99MS1h             *float64   `json:"p99_ms_1h" doc:"The 99th percentile of their durations, in milliseconds." example:"310"`
	Pending             int64      `json:"pending" doc:"How many of its deliveries are not finished." example:"0"`
	FailingSince        *time.Time `json:"failing_since" doc:"Since when there is nothing but failure." example:"2026-07-01T11:00:00Z"`
	Breaker             string     `json:"breaker" doc:"Its circuit breaker: closed, open, or half_open while a probe is under way." example:"closed"`
	BreakerOpenedAt     *time.Time `json:"breaker_opened_at" doc:"Since when the breaker is open." example:"2026-07-01T11:00:00Z"`
}

func showHealth(h *audit.Health) v1Health {
	return v1Health{
		int64(h.AccountID), int64(h.WebhookID), string(h.State), orNever(h.LastSuccessAt), orNever(h.LastFailureAt), h.ConsecutiveFailures,
		h.SuccessRate1h, h.P50MS1h, h.P99MS1h, h.Pending, orNever(h.FailingSince), string(h.Breaker), orNever(h.BreakerOpenedAt),
	}
}

// OfOneWebhook is the filter on a webhook.
type OfOneWebhook struct {
	Webhook int64 `query:"webhook" minimum:"1" doc:"Only of this webhook." example:"7"`
}

func (v *v1) listHealth(ctx context.Context, in *struct {
	InAccount
	OfOneWebhook
	Paging
}) (*v1List[v1Health], error) {
	const list = "health"
	after, err := in.place(list, 1)
	if err != nil {
		return nil, err
	}
	records, err := v.config.History.Health(ctx, in.account(), domain.WebhookID(in.Webhook))
	if err != nil {
		return nil, err
	}
	for len(records) > 0 && int64(records[0].WebhookID) <= after[0] {
		records = records[1:]
	}
	next := ""
	if len(records) > in.Limit {
		records = records[:in.Limit]
		next = place{list, []int64{int64(records[in.Limit-1].WebhookID)}}.cursor()
	}
	return v1ListOf(&in.Paging, records, showHealth, next), nil
}

// v1Stats is a row of audit.webhook_stats.
type v1Stats struct {
	Hour        time.Time `json:"hour" doc:"The hour, by its beginning." example:"2026-07-01T12:00:00Z"`
	AccountID   int64     `json:"account_id" doc:"The account." example:"1"`
	WebhookID   int64     `json:"webhook_id" doc:"The webhook." example:"7"`
	Attempts    int64     `json:"attempts" doc:"How many attempts ended in it." example:"120"`
	Succeeded   int64     `json:"succeeded" doc:"How many of them succeeded." example:"118"`
	Failed      int64     `json:"failed" doc:"How many of them failed." example:"2"`
	Unknown     int64     `json:"unknown" doc:"Of how many of them nobody knows." example:"0"`
	SuccessRate *float64  `json:"success_rate" doc:"The share of successes, 0 to 1; null without attempts." example:"0.98"`
	P50MS       *float64  `json:"p50_ms" doc:"The median of the durations, in milliseconds." example:"12.5"`
	P95MS       *float64  `json:"p95_ms" doc:"The 95th percentile of the durations, in milliseconds." example:"90"`
	P99MS       *float64  `json:"p99_ms" doc:"The 99th percentile of the durations, in milliseconds." example:"310"`
	Dead        int64     `json:"dead" doc:"How many deliveries were given up." example:"0"`
	Expired     int64     `json:"expired" doc:"How many deliveries expired." example:"0"`
	Cancelled   int64     `json:"cancelled" doc:"How many deliveries were cancelled." example:"0"`
	Scheduled   int64     `json:"scheduled" doc:"How many deliveries began." example:"119"`
}

func showStats(s *audit.Stats) v1Stats {
	return v1Stats{
		s.Hour.UTC(), int64(s.AccountID), int64(s.WebhookID), s.Attempts, s.Succeeded, s.Failed, s.Unknown,
		s.SuccessRate, s.P50MS, s.P95MS, s.P99MS, s.Dead, s.Expired, s.Cancelled, s.Scheduled,
	}
}

const (
	// Without since, statistics go so far back; and so much is read at once.
	statsWindow = 24 * time.Hour
	// longestWindow is read at once where there is nothing.
	longestWindow = 10 * 365 * 24 * time.Hour
)

func (v *v1) listStats(ctx context.Context, in *struct {
	InAccount
	OfOneWebhook
	During
	Paging
}) (*v1List[v1Stats], error) {
	const list = "stats"
	after, err := in.place(list, 2)
	if err != nil {
		return nil, err
	}
	// From the newest hour down: behind a cursor, from its own hour.
	until := v.config.Clock().UTC().Add(time.Hour)
	if !in.Until.IsZero() && in.Until.Before(until) {
		until = in.Until.UTC()
	}
	if in.Since.IsZero() {
		in.Since = v.config.Clock().Add(-statsWindow)
	}
	since := in.Since.UTC().Truncate(time.Hour)
	if !since.Before(until) {
		if !in.Until.IsZero() {
			return nil, invalid(v1Reason{"query.since", "is not before until"})
		}
		return v1ListOf(&in.Paging, nil, showStats, ""), nil
	}
	if hour := time.Unix(after[0], 0).UTC(); in.Cursor != "" && hour.Before(until) {
		until = hour.Add(time.Nanosecond)
	}
	beyond := func(s *audit.Stats) bool {
		hour := s.Hour.Unix()
		return in.Cursor == "" || hour < after[0] || hour == after[0] && int64(s.WebhookID) > after[1]
	}
	var found []audit.Stats
	window := statsWindow
	for end := until; end.After(since) && len(found) <= in.Limit; {
		begin := end.Add(-window)
		if begin.Before(since) {
			begin = since
		}
		records, err := v.config.History.Stats(ctx, audit.StatsFilter{AccountID: in.account(), WebhookID: domain.WebhookID(in.Webhook), Since: begin, Until: end})
		if err != nil {
			return nil, err
		}
		for i := range records {
			if beyond(&records[i]) {
				found = append(found, records[i])
			}
		}
		if len(records) == 0 {
			window = min(2*window, longestWindow) // a long time of nothing is passed over in few steps
		}
		end = begin
	}
	next := ""
	if len(found) > in.Limit {
		found = found[:in.Limit]
		last := &found[in.Limit-1]
		next = place{list, []int64{last.Hour.Unix(), int64(last.WebhookID)}}.cursor()
	}
	return v1ListOf(&in.Paging, found, showStats, next), nil
}
