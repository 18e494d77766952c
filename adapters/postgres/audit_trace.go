package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// Trace reads the lives of the chat events with an id, oldest first: several
// where accounts use the same ids, or where one was inserted again. account 0
// means any. Nothing is found of an id that is not there.
func (a *Audit) Trace(ctx context.Context, account domain.AccountID, event uuid.UUID) ([]audit.Trace, error) {
	// One snapshot for all: attempts go on meanwhile.
	tx, err := a.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	var c conditions
	c.common(&audit.Filter{AccountID: account, EventID: event})
	events, err := list(ctx, tx, scanEventRecord, `SELECT `+eventColumns+` FROM audit.events`+c.where()+` ORDER BY seq`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	// Their places tell the partition, which the ids do not.
	c.add("event_seq = ANY (?::bigint[])", pq.Array(placesOf(events)))
	deliveries, err := list(ctx, tx, scanDeliveryRecord, `SELECT `+deliveryColumns+` FROM audit.deliveries`+c.where()+` ORDER BY event_seq, replay_id, webhook_id`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	attempts, err := list(ctx, tx, scanAttemptRecord, `SELECT `+attemptColumns+` FROM audit.attempts a`+c.where()+` ORDER BY a.delivery_id, a.attempt`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	type entry struct {
		audit.TimelineEntry
		account  domain.AccountID
		delivery uuid.NullUUID
	}
	entries, err := list(ctx, tx, func(row scanner) (e entry, err error) {
		var data string
		err = row.Scan(&e.account, &e.delivery, &e.Version, &e.At, &e.Type, &data)
		e.At, e.Data = e.At.UTC(), json.RawMessage(data)
		return e, err
	}, `SELECT account_id, delivery_id::text, version, at, type, data::text FROM audit.timeline`+c.where()+` ORDER BY seq`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read the timeline: %w", err)
	}
	used, err := webhooksUsed(ctx, tx, deliveries)
	if err != nil {
		return nil, fmt.Errorf("read what the webhooks were: %w", err)
	}

	traces := make([]audit.Trace, 0, len(events))
	for _, e := range events {
		t := audit.Trace{Event: e}
		if err := readErased(ctx, tx, &t); err != nil {
			return nil, fmt.Errorf("read what was erased: %w", err)
		}
		for _, d := range deliveries {
			if d.EventSeq != e.Seq {
				continue
			}
			hook := used[domain.Target{WebhookID: d.WebhookID, Version: d.WebhookVersion}]
			delivery := audit.DeliveryTrace{Delivery: d, WebhookName: hook.name, WebhookHeaders: hook.headers}
			for i := range attempts {
				if attempts[i].DeliveryID == d.DeliveryID {
					delivery.Attempts = append(delivery.Attempts, attempts[i])
				}
			}
			for i := range entries {
				if entries[i].delivery.Valid && entries[i].delivery.UUID == d.DeliveryID {
					delivery.Entries = append(delivery.Entries, entries[i].TimelineEntry)
				}
			}
			t.Deliveries = append(t.Deliveries, delivery)
		}
		for i := range entries {
			// Of the event's own routing, for an id may have come twice.
			s := &entries[i]
			own := s.Type == domain.TypeRouted && s.account == e.AccountID && s.At.Equal(e.RoutedAt)
			if own && e.Routing != domain.RoutingDuplicate {
				var routed struct{ Skips []domain.Skip }
				if err := json.Unmarshal(s.Data, &routed); err != nil {
					return nil, fmt.Errorf("routing of event %s: %w", e.EventID, err)
				}
				t.Skips = append(t.Skips, routed.Skips...)
			}
		}
		traces = append(traces, t)
	}
	return traces, nil
}

// mayReadRetentions: a tenant may not, since they are of all accounts.
const mayReadRetentions = `SELECT has_table_privilege('audit.retentions', 'SELECT')`

// readErased reads whether the payload of the event was erased, as far as the
// session may know.
func readErased(ctx context.Context, tx *sql.Tx, t *audit.Trace) error {
	err := tx.QueryRowContext(ctx, `SELECT x.at, x.erasure_id FROM audit.erased_events x WHERE x.event_seq = $1`, t.Event.Seq).Scan(&t.PayloadErasedAt, &t.ErasureID)
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var may bool
	if err := tx.QueryRowContext(ctx, mayReadRetentions).Scan(&may); err != nil || !may {
		return err
	}
	var at sql.NullTime
	err = tx.QueryRowContext(ctx, `
SELECT min(r.at) FROM audit.retentions r WHERE r.what = 'payloads' AND r.action = 'erased' AND r.first_seq <= $1 AND r.last_seq >= $1`, t.Event.Seq).Scan(&at)
	t.PayloadErasedAt = at.Time
	return err
}

// LogErasedAt tells when entries of the log that had reached their age were
// erased last, the zero time for never, and where the session may not know.
func (a *Audit) LogErasedAt(ctx context.Context) (time.Time, error) {
	var may bool
	if err := a.db.QueryRowContext(ctx, mayReadRetentions).Scan(&may); err != nil || !may {
		return time.Time{}, err
	}
	var at sql.NullTime
	err := a.db.QueryRowContext(ctx, `SELECT max(at) FROM audit.retentions WHERE what = 'log' AND action = 'erased'`).Scan(&at)
	return at.Time, err
}

// webhookUsed is what a webhook was called at a version, and the names of its
// own headers.
type webhookUsed struct {
	name    string
	headers []string
}

const webhooksUsedQuery = `
SELECT webhook_id, webhook_version, coalesce(after ->> 'name', ''),
       ARRAY(SELECT k FROM jsonb_object_keys(CASE jsonb_typeof(after -> 'headers') WHEN 'object' THEN after -> 'headers' ELSE '{}' END) k ORDER BY lower(k))
  FROM audit.webhook_changes
 WHERE webhook_id = ANY ($1::bigint[]) AND webhook_version = ANY ($2::bigint[])`

// webhooksUsed reads what webhooks were at the versions that were used.
func webhooksUsed(ctx context.Context, db querier, deliveries []audit.Delivery) (map[domain.Target]webhookUsed, error) {
	ids, versions := make([]domain.WebhookID, len(deliveries)), make([]int64, len(deliveries))
	for i := range deliveries {
		ids[i], versions[i] = deliveries[i].WebhookID, deliveries[i].WebhookVersion
	}
	found := map[domain.Target]webhookUsed{}
	_, err := list(ctx, db, func(row scanner) (struct{}, error) {
		var at domain.Target
		var hook webhookUsed
		err := row.Scan(&at.WebhookID, &at.Version, &hook.name, pq.Array(&hook.headers))
		found[at] = hook
		return struct{}{}, err
	}, webhooksUsedQuery, pq.Array(ids), pq.Array(versions))
	return found, err
}

// EventOf tells which chat event a delivery, or a notification, is of: ids that
// receivers see. found is false where there is none.
func (a *Audit) EventOf(ctx context.Context, id uuid.UUID) (account domain.AccountID, event uuid.UUID, found bool, err error) {
	for _, look := range []struct {
		query string
		args  []any
	}{
		{`SELECT account_id, event_id::text FROM audit.deliveries WHERE delivery_id = $1::uuid`, []any{id.String()}},
		{eventOfNotification, []any{id.String(), withPrefixOf(id, 0).String(), withPrefixOf(id, 0xff).String()}},
	} {
		err := a.db.QueryRowContext(ctx, look.query, look.args...).Scan(&account, &event)
		if !errors.Is(err, sql.ErrNoRows) {
			return account, event, err == nil, err
		}
	}
	return 0, uuid.Nil, false, nil
}

// eventOfNotification finds a notification among the chat events whose ids
// begin as it does: it is derived, and has no index of its own.
const eventOfNotification = `
SELECT account_id, event_id::text FROM audit.deliveries
 WHERE event_id BETWEEN $2::uuid AND $3::uuid AND notification_id = $1::uuid LIMIT 1`

// withPrefixOf keeps the 48 bits that derived ids take over, and fills the rest.
func withPrefixOf(id uuid.UUID, fill byte) uuid.UUID {
	const prefix = 6
	for i := prefix; i < len(id); i++ {
		id[i] = fill
	}
	return id
}

func placesOf(events []audit.Event) []int64 {
	places := make([]int64, len(events))
	for i := range events {
		places[i] = events[i].Seq
	}
	return places
}
