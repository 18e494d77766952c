package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

const attemptColumns = `a.delivery_id::text, a.notification_id::text, a.attempt, a.event_id::text, a.account_id, a.webhook_id, coalesce(a.webhook_version, 0),
       coalesce(a.url, ''), a.started_at, a.finished_at, a.outcome, coalesce(a.previous_outcome, ''), coalesce(a.status_code, 0),
       coalesce(a.error_class, ''), coalesce(a.error_detail, ''), a.duration_ms::float8, coalesce(host(a.remote_ip), ''), a.response_excerpt, a.relay_id`

// nullableAttemptColumns are attemptColumns on the right of a LEFT JOIN.
const nullableAttemptColumns = `d.delivery_id::text, d.notification_id::text, coalesce(a.attempt, 0), d.event_id::text, d.account_id, d.webhook_id, coalesce(a.webhook_version, 0),
       coalesce(a.url, ''), coalesce(a.started_at, d.scheduled_at), a.finished_at, coalesce(a.outcome, ''), coalesce(a.previous_outcome, ''), coalesce(a.status_code, 0),
       coalesce(a.error_class, ''), coalesce(a.error_detail, ''), a.duration_ms::float8, coalesce(host(a.remote_ip), ''), a.response_excerpt, coalesce(a.relay_id, 0)`

// rareOutcome is rareStatus for attempts.
var rareOutcome = map[domain.OutcomeKind]string{
	domain.OutcomeFailed:  domain.TypeAttemptFailed,
	domain.OutcomeUnknown: domain.TypeAttemptUnknown,
}

// deliveryAttempt is an attempt with its place, and what its delivery says of
// the chat event. A delivery without attempts gives one with Attempt 0.
type deliveryAttempt struct {
	audit.Attempt
	at          audit.Cursor
	delivery    domain.DeliveryID
	event       string
	orderingKey string
}

// attemptsQuery reads whole deliveries with their attempts. LATERAL with OFFSET:
// a delivery's attempts are looked up by its id, never joined as a whole.
const attemptsQuery = `
SELECT d.event_seq, d.webhook_id, d.replay_id, d.delivery_id::text, coalesce(d.event, ''), coalesce(d.ordering_key, ''), a.attempt IS NOT NULL, %s
  FROM (SELECT * FROM audit.deliveries%s) d
  LEFT JOIN LATERAL (SELECT * FROM audit.attempts x WHERE x.delivery_id = d.delivery_id OFFSET 0) a ON true
 ORDER BY d.event_seq DESC, d.webhook_id DESC, d.replay_id DESC, a.attempt DESC`

func (a *Audit) attemptsOf(ctx context.Context, deliveries string, args ...any) ([]deliveryAttempt, error) {
	return list(ctx, a.db, scanDeliveryAttempt, fmt.Sprintf(attemptsQuery, nullableAttemptColumns, deliveries), args...)
}

func keepsAttempt(f *audit.Filter, r *deliveryAttempt) bool {
	return r.Number > 0 && f.Of(r.AccountID, r.EventID) && f.Named(r.event) && f.Ordered(r.orderingKey) && f.During(r.StartedAt) &&
		(f.WebhookID == 0 || f.WebhookID == r.WebhookID) && (f.ReplayID == 0 || f.ReplayID == r.at.ReplayID) &&
		(f.Status == "" || string(r.Outcome) == f.Status)
}

// longestLife is how long after its scheduling a delivery may start an attempt.
var longestLife = domain.Deadline("")

// Attempts reads attempts behind a cursor: by delivery, and within one from the
// last to the first. Of a range of time it looks at all deliveries that may
// have started one in it.
func (a *Audit) Attempts(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Attempt], error) {
	scheduled := f.Since
	if !scheduled.IsZero() {
		scheduled = scheduled.Add(-longestLife)
	}
	places, err := a.places(ctx, scheduled, f.Until)
	if err != nil {
		return audit.Page[audit.Attempt]{}, err
	}
	walk := deliveryWalk{audit: a, filter: &f, places: places, list: audit.AttemptList, entry: rareOutcome[domain.OutcomeKind(f.Status)]}
	read := func(after *audit.Cursor, n int) (found chunk[deliveryAttempt], err error) {
		stretch, err := walk.next(ctx, after, n)
		if err != nil {
			return found, err
		}
		if found.records, err = a.attemptsOf(ctx, stretch.from, stretch.args...); err != nil {
			return found, err
		}
		var last domain.DeliveryID
		for i := range found.records {
			if of := found.records[i].delivery; of != last {
				last = of
				found.looked++
			}
		}
		if found.looked == n {
			end := found.records[len(found.records)-1].at
			end.Attempt = 0
			found.end = &end
		}
		stretch.close(&found.looked, &found.end)
		return found, nil
	}
	keep := func(r *deliveryAttempt) bool {
		listed := after != nil && after.Attempt > 0 && r.Number >= after.Attempt &&
			r.at.Seq == after.Seq && r.WebhookID == after.WebhookID && r.at.ReplayID == after.ReplayID
		return !listed && keepsAttempt(&f, r)
	}
	found, err := search(&f, after, read, keep, func(r *deliveryAttempt) audit.Cursor { return r.at })
	page := audit.Page[audit.Attempt]{Next: found.Next, Searched: found.Searched}
	for i := range found.Records {
		page.Records = append(page.Records, found.Records[i].Attempt)
	}
	return page, err
}

func scanDeliveryAttempt(row scanner) (r deliveryAttempt, err error) {
	var found bool
	r.Attempt, err = scanAttemptRecord(prefixed{row, []any{&r.at.Seq, &r.at.WebhookID, &r.at.ReplayID, &r.delivery, &r.event, &r.orderingKey, &found}})
	r.at.List = audit.AttemptList
	if found {
		r.at.Attempt = r.Number
	} else {
		r.Attempt = audit.Attempt{}
	}
	return r, err
}

func scanAttemptRecord(row scanner) (audit.Attempt, error) {
	var r audit.Attempt
	var finished sql.NullTime
	err := row.Scan(&r.DeliveryID, &r.NotificationID, &r.Number, &r.EventID, &r.AccountID, &r.WebhookID, &r.WebhookVersion,
		&r.URL, &r.StartedAt, &finished, &r.Outcome, &r.PreviousOutcome, &r.StatusCode,
		&r.ErrorClass, &r.ErrorDetail, &r.DurationMS, &r.RemoteIP, &r.ResponseExcerpt, &r.RelayID)
	r.StartedAt, r.FinishedAt = r.StartedAt.UTC(), finished.Time.UTC()
	return r, err
}
