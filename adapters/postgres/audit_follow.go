package postgres

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// Following gives what is new in a list at each call, oldest first: nothing
// twice and nothing left out, whatever the order in which transactions become
// visible. Calls come one after the other.
type Following[T any] func(context.Context) ([]T, error)

// The most that one look reads of the chain, and of ids in one statement.
const (
	followBatches = 200
	followIDs     = 500
)

// FollowEvents gives chat events as they are routed. The chain tells them: its
// links have no gaps and become visible in their order.
func (a *Audit) FollowEvents(ctx context.Context, f audit.Filter) (Following[audit.Event], error) {
	head, err := a.head(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]audit.Event, error) {
		seqs, last, err := a.routedAfter(ctx, head)
		if err != nil {
			return nil, err
		}
		var found []audit.Event
		for some := range slices.Chunk(seqs, followIDs) {
			var wanted map[int64]bool
			if f.WebhookID != 0 {
				if wanted, err = a.withDelivery(ctx, f.WebhookID, some); err != nil {
					return nil, err
				}
			}
			events, err := list(ctx, a.db, scanEventRecord, `SELECT `+eventColumns+` FROM audit.events WHERE seq = ANY ($1::bigint[])`, pq.Array(some))
			if err != nil {
				return nil, err
			}
			inOrderOf(some, events, func(e *audit.Event) int64 { return e.Seq })
			for i := range events {
				if keepsEvent(&f, &events[i]) && (wanted == nil || wanted[events[i].Seq]) {
					found = append(found, events[i])
				}
			}
		}
		head = last
		return found, nil
	}, nil
}

// head gives the newest link.
func (a *Audit) head(ctx context.Context) (batch int64, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT h.batch FROM audit.head() h`).Scan(&batch)
	return batch, err
}

// routedAfter gives the places that the links behind one have routed, and the
// last of these links.
func (a *Audit) routedAfter(ctx context.Context, batch int64) (seqs []int64, last int64, err error) {
	last = batch
	_, err = list(ctx, a.db, func(row scanner) (struct{}, error) {
		var seq *int64
		err := row.Scan(&last, &seq)
		if seq != nil {
			seqs = append(seqs, *seq)
		}
		return struct{}{}, err
	}, `SELECT r.no, r.seq FROM audit.routed_after($1, $2) r`, batch, followBatches)
	return seqs, last, err
}

// withDelivery tells which places have a delivery to a webhook.
func (a *Audit) withDelivery(ctx context.Context, webhook domain.WebhookID, seqs []int64) (map[int64]bool, error) {
	found, err := list(ctx, a.db, scanPlace,
		`SELECT event_seq FROM audit.deliveries WHERE webhook_id = $1 AND event_seq = ANY ($2::bigint[])`, int64(webhook), pq.Array(seqs))
	wanted := make(map[int64]bool, len(found))
	for _, seq := range found {
		wanted[seq] = true
	}
	return wanted, err
}

// inOrderOf sorts records by the order of their keys.
func inOrderOf[T any, K comparable](keys []K, records []T, key func(*T) K) {
	order := make(map[K]int, len(keys))
	for i, k := range keys {
		order[k] = i
	}
	slices.SortStableFunc(records, func(a, b T) int { return cmp.Compare(order[key(&a)], order[key(&b)]) })
}

// FollowDeliveries gives deliveries as they are scheduled: first ones by the
// chain, those of replays by the log.
func (a *Audit) FollowDeliveries(ctx context.Context, f audit.Filter) (Following[audit.Delivery], error) {
	head, err := a.head(ctx)
	if err != nil {
		return nil, err
	}
	replays := logReader{audit: a, read: func(ctx context.Context, above int64) ([]logEntry, error) {
		return list(ctx, a.db, func(row scanner) (e logEntry, err error) {
			err = row.Scan(&e.pos, &e.delivery)
			return e, err
		}, `SELECT r.pos, r.delivery_id::text FROM audit.replayed_after($1, NULL) r`, above)
	}}
	if err := replays.begin(ctx); err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]audit.Delivery, error) {
		seqs, last, err := a.routedAfter(ctx, head)
		if err != nil {
			return nil, err
		}
		var found []audit.Delivery
		for some := range slices.Chunk(seqs, followIDs) {
			deliveries, err := list(ctx, a.db, scanDeliveryRecord,
				`SELECT `+deliveryColumns+` FROM audit.deliveries WHERE event_seq = ANY ($1::bigint[]) AND replay_id = 0 ORDER BY webhook_id`, pq.Array(some))
			if err != nil {
				return nil, err
			}
			inOrderOf(some, deliveries, func(d *audit.Delivery) int64 { return d.EventSeq })
			found = append(found, deliveries...)
		}
		again, _, err := replays.next(ctx)
		if err != nil {
			return nil, err
		}
		head = last
		for some := range slices.Chunk(again, followIDs) {
			ids := make([]string, len(some))
			for i := range some {
				ids[i] = some[i].delivery
			}
			deliveries, err := list(ctx, a.db, scanDeliveryRecord,
				`SELECT `+deliveryColumns+` FROM audit.deliveries WHERE delivery_id = ANY ($1::uuid[])`, pq.Array(ids))
			if err != nil {
				return nil, err
			}
			inOrderOf(ids, deliveries, func(d *audit.Delivery) string { return d.DeliveryID.String() })
			found = append(found, deliveries...)
		}
		return slices.DeleteFunc(found, func(d audit.Delivery) bool { return !keepsDelivery(&f, &d) }), nil
	}, nil
}

// FollowAttempts gives attempts that start from now on, each once it has its
// outcome.
func (a *Audit) FollowAttempts(ctx context.Context, f audit.Filter) (Following[audit.Attempt], error) {
	started := logReader{audit: a, read: func(ctx context.Context, above int64) ([]logEntry, error) {
		var c conditions
		c.add("seq > ?", above)
		c.common(&f)
		return list(ctx, a.db, func(row scanner) (e logEntry, err error) {
			err = row.Scan(&e.pos, &e.delivery, &e.attempt)
			return e, err
		}, `SELECT seq, delivery_id::text, (data ->> 'attempt')::integer FROM audit.timeline`+c.where()+` AND type = 'attempt_started' ORDER BY seq`, c.args...)
	}}
	if err := started.begin(ctx); err != nil {
		return nil, err
	}
	type key struct {
		delivery string
		attempt  int
	}
	open := map[key]int64{}
	return func(ctx context.Context) ([]audit.Attempt, error) {
		entries, idle, err := started.next(ctx)
		if err != nil || idle { // an outcome would have taken a number as well
			return nil, err
		}
		for _, e := range entries {
			open[key{e.delivery, e.attempt}] = e.pos
		}
		ids := make([]string, 0, len(open))
		for k := range open {
			ids = append(ids, k.delivery)
		}
		slices.Sort(ids)
		type finished struct {
			deliveryAttempt
			pos int64
		}
		var found []finished
		for some := range slices.Chunk(slices.Compact(ids), followIDs) {
			attempts, err := a.attemptsOf(ctx, ` WHERE delivery_id = ANY ($1::uuid[])`, pq.Array(some))
			if err != nil {
				return nil, err
			}
			for i := range attempts {
				r := &attempts[i]
				pos, is := open[key{r.delivery.String(), r.Number}]
				if is && r.Outcome != domain.OutcomeStarted {
					found = append(found, finished{*r, pos})
				}
			}
		}
		slices.SortFunc(found, func(a, b finished) int {
			return cmp.Or(a.FinishedAt.Compare(b.FinishedAt), cmp.Compare(a.pos, b.pos))
		})
		var records []audit.Attempt
		for i := range found {
			r := &found[i]
			delete(open, key{r.delivery.String(), r.Number})
			if keepsAttempt(&f, &r.deliveryAttempt) {
				records = append(records, r.Attempt)
			}
		}
		return records, nil
	}, nil
}

const (
	// changesBefore is how long a transaction may have been open that changes
	// a webhook while a follower begins.
	changesBefore = 24 * time.Hour
	// clockStep is how far the database's clock may be set back meanwhile.
	clockStep = time.Minute
)

// FollowChanges gives changes of webhooks. Their times are of the moment they
// were made, within transactions that have locked the account before.
func (a *Audit) FollowChanges(ctx context.Context, f audit.Filter) (Following[audit.Change], error) {
	type key struct {
		account domain.AccountID
		version int64
	}
	known := map[key]time.Time{}
	var h horizon
	read := func(ctx context.Context) ([]audit.Change, error) {
		var l look
		err := a.db.QueryRowContext(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::numeric, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`).Scan(&l.xmin, &l.now)
		if err != nil {
			return nil, err
		}
		if h.settled == 0 {
			h.settled = l.now - changesBefore.Microseconds()
		}
		from := time.UnixMicro(h.settled).Add(-clockStep).UTC()
		changes, err := list(ctx, a.db, scanChangeRecord,
			`SELECT `+changeColumns+` FROM audit.webhook_changes WHERE at > $1::timestamptz ORDER BY at, account_id, webhook_version`, from)
		if err != nil {
			return nil, err
		}
		var found []audit.Change
		for i := range changes {
			k := key{changes[i].AccountID, changes[i].WebhookVersion}
			if _, is := known[k]; !is {
				known[k] = changes[i].At
				found = append(found, changes[i])
			}
		}
		// An id is drawn only where something came: while nothing does, the
		// same nothing is read again.
		if h.xid == 0 && len(found) == 0 {
			return nil, nil
		}
		moved, err := h.seen(ctx, a, l)
		if moved {
			for k, at := range known {
				if !at.After(time.UnixMicro(h.settled).Add(-clockStep)) {
					delete(known, k)
				}
			}
		}
		return found, err
	}
	if _, err := read(ctx); err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]audit.Change, error) {
		changes, err := read(ctx)
		return slices.DeleteFunc(changes, func(r audit.Change) bool {
			return !f.Of(r.AccountID, uuid.Nil) || f.WebhookID != 0 && f.WebhookID != r.WebhookID || f.Status != "" && f.Status != r.Change
		}), err
	}, nil
}
