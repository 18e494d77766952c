package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/adapters/sample"
	"github.com/outrider-relay/outrider/domain"
)

// demoBooks are the three books of a run: the chat system's, the relay's and
// the receiver's. None knows of the others.
type demoBooks struct {
	hooks []sampleHook
	// written is what the chat system committed.
	written sample.TrafficCounts
	// routing, deliveries and attempts are on record.
	routing    map[domain.RoutingKind]int
	deliveries []bookedDelivery
	attempts   map[attemptKey]bookedAttempt
	// counts, sum, arrivals and posts are what the receiver saw.
	counts   []sample.Counts
	sum      sample.Counts
	arrivals []sample.Arrival
	posts    []sample.Post
	// down are the webhooks that wait for their receivers.
	down map[domain.WebhookID]bool
}

type bookedDelivery struct {
	event        string // the chat event's name
	notification string
	webhook      domain.WebhookID
	status       domain.DeliveryStatus
	inserted     time.Time
}

type attemptKey struct {
	delivery string
	number   int
}

type bookedAttempt struct {
	eventID  string
	webhook  domain.WebhookID
	outcome  domain.OutcomeKind
	previous domain.OutcomeKind
	class    string
}

const (
	bookRouting = `SELECT routing, count(*) FROM audit.events GROUP BY routing`

	bookDeliveries = `
SELECT d.event, d.notification_id::text, d.webhook_id, d.status, e.inserted_at
  FROM audit.deliveries d JOIN audit.events e ON e.seq = d.event_seq`

	bookAttempts = `
SELECT delivery_id::text, attempt, event_id::text, webhook_id, outcome, coalesce(previous_outcome, ''), coalesce(error_class, '')
  FROM audit.attempts`

	bookDown = `SELECT webhook_id FROM audit.webhook_health WHERE breaker = 'open'`
)

// readBooks reads all three. The relay has stopped, so that they fit together.
func (d *demo) readBooks(ctx context.Context) (*demoBooks, error) {
	b := &demoBooks{
		hooks: d.hooks, written: d.traffic.Counts(), routing: map[domain.RoutingKind]int{}, attempts: map[attemptKey]bookedAttempt{},
		counts: d.receiver.Counts(), sum: d.received(), arrivals: d.receiver.Arrivals(), posts: d.receiver.Posts(),
	}
	err := eachRow(ctx, d.db, bookRouting, func(rows *sql.Rows) error {
		var routing domain.RoutingKind
		var n int
		err := rows.Scan(&routing, &n)
		b.routing[routing] = n
		return err
	})
	if err != nil {
		return nil, err
	}
	err = eachRow(ctx, d.db, bookDeliveries, func(rows *sql.Rows) error {
		var one bookedDelivery
		err := rows.Scan(&one.event, &one.notification, &one.webhook, &one.status, &one.inserted)
		b.deliveries = append(b.deliveries, one)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = eachRow(ctx, d.db, bookAttempts, func(rows *sql.Rows) error {
		var key attemptKey
		var one bookedAttempt
		err := rows.Scan(&key.delivery, &key.number, &one.eventID, &one.webhook, &one.outcome, &one.previous, &one.class)
		b.attempts[key] = one
		return err
	})
	if err != nil {
		return nil, err
	}
	b.down = map[domain.WebhookID]bool{}
	err = eachRow(ctx, d.db, bookDown, func(rows *sql.Rows) error {
		var id domain.WebhookID
		if err := rows.Scan(&id); err != nil {
			return err
		}
		b.down[id] = true
		return nil
	})
	return b, err
}

// eachRow calls f with each row of a query.
func eachRow(ctx context.Context, db *sql.DB, query string, f func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// promise is what was promised, and what the books say.
type promise struct {
	text     string
	measured string
	kept     bool
}

// judge compares the books.
func (b *demoBooks) judge() []promise {
	return []promise{
		b.routedOnce(), b.routedWhereAsked(), b.nothingLost(), b.onRecord(), b.unknownNotSilent(),
		{
			"Repeats only with a reason",
			fmt.Sprintf("%s after failed, %s after unknown, %d else; %d with another body",
				grouped(b.sum.Repeats.AfterFailed), grouped(b.sum.Repeats.AfterUnknown), b.sum.Repeats.Untold+b.sum.Repeats.Replayed, b.sum.Altered),
			b.sum.Repeats.Untold+b.sum.Repeats.Replayed == 0 && b.sum.Altered == 0,
		},
		{
			"Each conversation in order",
			fmt.Sprintf("%d of %s POSTs out of order", b.sum.OutOfOrder, grouped(b.sum.Requests)),
			b.sum.OutOfOrder == 0,
		},
		{
			"Each POST signed, by both schemes",
			fmt.Sprintf("%s verified, %d bad%s", grouped(b.sum.Verified), b.sum.Forged, b.forgery()),
			b.sum.Forged == 0 && b.sum.Verified == b.sum.Requests,
		},
	}
}

func (b *demoBooks) routedOnce() promise {
	all := 0
	for _, n := range b.routing {
		all += n
	}
	routed := b.routing[domain.RoutingRouted] + b.routing[domain.RoutingNoSubscriber]
	return promise{
		"Each committed event is routed once",
		fmt.Sprintf("%s of %s; %s rolled back, none of them routed", grouped(routed), grouped(b.written.Committed), grouped(b.written.RolledBack)),
		routed == b.written.Committed && all == routed,
	}
}

// routedWhereAsked counts the deliveries that the subscriptions ask for and are
// not there, and the other way round.
func (b *demoBooks) routedWhereAsked() promise {
	has := map[domain.WebhookID]int{}
	for i := range b.deliveries {
		has[b.deliveries[i].webhook]++
	}
	missing, extra := 0, 0
	for _, h := range b.hooks {
		wants := 0
		for _, event := range h.events {
			wants += b.written.By[sample.AccountEvent{AccountID: h.account.ID, Event: event}]
		}
		missing += max(0, wants-has[h.id])
		extra += max(0, has[h.id]-wants)
	}
	return promise{
		"To exactly the webhooks that asked",
		fmt.Sprintf("%s deliveries, %d missing, %d too many", grouped(len(b.deliveries)), missing, extra),
		missing == 0 && extra == 0,
	}
}

func (b *demoBooks) nothingLost() promise {
	arrived := map[string]bool{}
	for _, a := range b.arrivals {
		arrived[a.Notification] = true
	}
	succeeded, waits, late, ended, lost := 0, 0, 0, 0, 0
	for i := range b.deliveries {
		switch one := &b.deliveries[i]; {
		case one.status == domain.DeliverySucceeded && arrived[one.notification]:
			succeeded++
		case one.status == domain.DeliverySucceeded:
			lost++
		case one.status == domain.DeliveryPending || one.status == domain.DeliveryHeld:
			waits++
		case one.status == domain.DeliveryExpired && strings.HasPrefix(one.event, "conversation_typing_"):
			late++ // as it should: a typing indicator is no use after 10 s
		default:
			ended++
		}
	}
	expired := ""
	if late > 0 {
		expired = fmt.Sprintf(", %s typing indicators expired", grouped(late))
	}
	return promise{
		"Nothing is lost",
		fmt.Sprintf("%s succeeded, %s wait for a retry%s, %d given up, %d never arrived", grouped(succeeded), grouped(waits), expired, ended, lost),
		ended == 0 && lost == 0,
	}
}

// onRecord wants an attempt of its own for each POST.
func (b *demoBooks) onRecord() promise {
	unrecorded, posted := 0, map[attemptKey]bool{}
	for _, post := range b.posts {
		key := attemptKey{post.Delivery, post.Attempt}
		if _, ok := b.attempts[key]; !ok || posted[key] {
			unrecorded++
		}
		posted[key] = true
	}
	return promise{
		"Each POST is on record before it leaves",
		fmt.Sprintf("%s seen by the receiver, %d without a record", grouped(b.sum.Requests), unrecorded),
		unrecorded == 0,
	}
}

// unknownNotSilent wants each unknown attempt to be repeated, or to wait for a
// receiver that is down, and each POST to tell what is on record of the attempt
// before.
func (b *demoBooks) unknownNotSilent() promise {
	unknowns, repeated, waiting, untrue := 0, 0, 0, 0
	for key, one := range b.attempts {
		if one.outcome != domain.OutcomeUnknown {
			continue
		}
		unknowns++
		switch {
		case b.attempts[attemptKey{key.delivery, key.number + 1}].previous == domain.OutcomeUnknown:
			repeated++
		case b.down[one.webhook]:
			waiting++
		}
	}
	for _, post := range b.posts {
		if one, ok := b.attempts[attemptKey{post.Delivery, post.Attempt}]; ok && post.Previous != string(one.previous) {
			untrue++
		}
	}
	measured := fmt.Sprintf("%d attempts unknown, %d repeated; %d POSTs told the receiver so", unknowns, repeated, b.sum.ToldUnknown)
	if waiting > 0 {
		measured += fmt.Sprintf(", %d wait for a receiver that is down", waiting)
	}
	if untrue > 0 {
		measured += fmt.Sprintf(", %d told something else", untrue)
	}
	return promise{
		"A crash leaves unknown attempts, not silence", measured,
		unknowns > 0 && repeated+waiting == unknowns && b.sum.ToldUnknown > 0 && untrue == 0,
	}
}

func (b *demoBooks) forgery() string {
	for i := range b.counts {
		if b.counts[i].Forgery != "" {
			return " (" + b.counts[i].Forgery + ")"
		}
	}
	return ""
}
