package postgres

import (
	"context"
	"database/sql"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

const deliveryColumns = `delivery_id::text, notification_id::text, event_id::text, event_seq, account_id, coalesce(event, ''), coalesce(ordering_key, ''),
       webhook_id, coalesce(webhook_version, 0), coalesce(url, ''), status, coalesce(reason, ''), attempt_count, scheduled_at, first_attempt_at,
       last_attempt_at, next_attempt_at, completed_at, coalesce(last_outcome, ''), coalesce(last_status_code, 0), replay_id`

func keepsDelivery(f *audit.Filter, d *audit.Delivery) bool {
	return f.Of(d.AccountID, d.EventID) && f.Named(d.Event) && f.Ordered(d.OrderingKey) && f.During(d.ScheduledAt) &&
		(f.WebhookID == 0 || f.WebhookID == d.WebhookID) && (f.ReplayID == 0 || f.ReplayID == d.ReplayID) &&
		(f.Status == "" || string(d.Status) == f.Status)
}

// Deliveries reads deliveries behind a cursor.
func (a *Audit) Deliveries(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.Delivery], error) {
	places, err := a.places(ctx, f.Since, f.Until)
	if err != nil {
		return audit.Page[audit.Delivery]{}, err
	}
	at := func(d *audit.Delivery) audit.Cursor {
		return audit.Cursor{List: audit.DeliveryList, Seq: d.EventSeq, WebhookID: d.WebhookID, ReplayID: d.ReplayID}
	}
	walk := deliveryWalk{audit: a, filter: &f, places: places, list: audit.DeliveryList, entry: rareStatus[domain.DeliveryStatus(f.Status)]}
	read := func(after *audit.Cursor, n int) (found chunk[audit.Delivery], err error) {
		stretch, err := walk.next(ctx, after, n)
		if err != nil {
			return found, err
		}
		found.records, err = list(ctx, a.db, scanDeliveryRecord, `SELECT `+deliveryColumns+` FROM audit.deliveries`+stretch.from, stretch.args...)
		found.looked = len(found.records)
		found.end = endOf(found.records, n, at)
		stretch.close(&found.looked, &found.end)
		return found, err
	}
	return search(&f, after, read, func(d *audit.Delivery) bool { return keepsDelivery(&f, d) }, at)
}

// rareStatus gives the log entry that a delivery with the status has, and few
// others: it finds them without reading what went well.
var rareStatus = map[domain.DeliveryStatus]string{
	domain.DeliveryHeld:      domain.TypeHeld,
	domain.DeliveryDead:      domain.TypeDead,
	domain.DeliveryCancelled: domain.TypeCancelled,
	domain.DeliveryExpired:   domain.TypeExpired,
}

// deliveryWalk goes through deliveries, newest first.
//
// With a range of time it goes through the places of that time, and then, below
// them, through what replays scheduled in it: those are found by their replays.
type deliveryWalk struct {
	audit  *Audit
	filter *audit.Filter
	places places
	list   audit.List
	// entry is a rare entry that what is wanted has, "" for none.
	entry string
}

// stretch is the next part of a walk: what follows the name of the view.
type stretch struct {
	from string
	args []any
	// found are the places of a stretch whose chat events were found before.
	found []int64
	n     int
	// below is where the walk goes on behind the places of the range, nil
	// where it ends there.
	below *audit.Cursor
	list  audit.List
}

const newestDeliveries = ` ORDER BY event_seq DESC, webhook_id DESC, replay_id DESC`

// next gives the stretch behind a cursor, of n deliveries, or of those of n
// rare entries or of n chat events.
func (w *deliveryWalk) next(ctx context.Context, after *audit.Cursor, n int) (stretch, error) {
	s := stretch{n: n, list: w.list}
	var c conditions
	f := w.filter
	if f.WebhookID != 0 {
		c.ofWebhook(f)
	} else {
		c.common(f)
	}
	if f.ReplayID != 0 {
		c.add("replay_id = ?", int64(f.ReplayID))
		c.add("replay_id > 0") // says the index
	}
	within, byReplay := w.places, false
	if below := (audit.Cursor{List: w.list, Seq: within.above + 1}); len(within.replays) > 0 {
		switch {
		case after == nil || after.Beyond(below):
			s.below = &below
		default:
			c.add("replay_id = ANY (?::bigint[])", pq.Array(within.replays))
			c.add("replay_id > 0")
			within.upTo, within.above, byReplay = within.above, 0, true
		}
	}
	if after != nil {
		operator := "<"
		if after.Attempt > 0 {
			operator = "<=" // some attempts of it are still to come
		}
		within.upTo = min(within.upTo, after.LastSeq()) // follows from the next one, but only this prunes partitions
		c.add("(event_seq, webhook_id, replay_id) "+operator+" (?, ?, ?)", after.Seq, int64(after.WebhookID), int64(after.ReplayID))
	}
	var seqs func() ([]int64, error)
	switch {
	case f.EventID != uuid.Nil:
	case w.entry != "":
		seqs = func() ([]int64, error) {
			return list(ctx, w.audit.db, scanPlace, `SELECT audit.places($1, $2, $3, $4)`, w.entry, within.above, within.upTo, n)
		}
	case f.AccountID != 0 && f.WebhookID == 0 && f.ReplayID == 0 && !byReplay:
		seqs = func() ([]int64, error) { return w.audit.eventsOfAccount(ctx, f.AccountID, within, n) }
	}
	if seqs != nil {
		var err error
		if s.found, err = seqs(); err != nil {
			return s, err
		}
		c.add("event_seq = ANY (?::bigint[])", pq.Array(slices.Compact(slices.Clone(s.found))))
		s.from, s.args = c.where()+newestDeliveries, c.args
		return s, nil
	}
	within.bound(&c, "event_seq")
	s.from, s.args = c.where()+newestDeliveries+` LIMIT `+strconv.Itoa(n), c.args
	return s, nil
}

// eventsOfAccount lists the newest places of an account's chat events. In the
// view of deliveries a bound reaches only the deliveries' places, and the index
// of accounts is of the chat events'.
func (a *Audit) eventsOfAccount(ctx context.Context, account domain.AccountID, within places, n int) ([]int64, error) {
	var c conditions
	c.add("account_id = ?", int64(account))
	within.bound(&c, "seq")
	return list(ctx, a.db, scanPlace, `SELECT seq FROM audit.events`+c.where()+` AND routed_at IS NOT NULL ORDER BY seq DESC LIMIT `+strconv.Itoa(n), c.args...)
}

// close corrects what was looked at and where the stretch ends.
func (s *stretch) close(looked *int, end **audit.Cursor) {
	if s.found != nil {
		*looked, *end = len(s.found), nil
		if len(s.found) == s.n {
			*end = &audit.Cursor{List: s.list, Seq: s.found[s.n-1]}
		}
	}
	if *end == nil {
		*end = s.below
	}
}

func scanDeliveryRecord(row scanner) (audit.Delivery, error) {
	var d audit.Delivery
	var first, last, next, completed sql.NullTime
	err := row.Scan(&d.DeliveryID, &d.NotificationID, &d.EventID, &d.EventSeq, &d.AccountID, &d.Event, &d.OrderingKey,
		&d.WebhookID, &d.WebhookVersion, &d.URL, &d.Status, &d.Reason, &d.AttemptCount, &d.ScheduledAt, &first,
		&last, &next, &completed, &d.LastOutcome, &d.LastStatusCode, &d.ReplayID)
	d.ScheduledAt = d.ScheduledAt.UTC()
	d.FirstAttemptAt, d.LastAttemptAt, d.NextAttemptAt, d.CompletedAt = first.Time.UTC(), last.Time.UTC(), next.Time.UTC(), completed.Time.UTC()
	return d, err
}
