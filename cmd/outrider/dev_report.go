package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/sample"
	"github.com/outrider-relay/outrider/domain"
)

// tell shows what the books say.
func (d *demo) tell(ctx context.Context, b *demoBooks, promises []promise) error {
	d.heading("Promises")
	t := d.table("promise", "", "measured")
	for _, p := range promises {
		verdict := devCell{"kept", good}
		if !p.kept {
			verdict = devCell{"BROKEN", bad}
		}
		t.add(cell(p.text), verdict, cell(p.measured))
	}
	t.write()
	d.tellDeliveries(b)
	d.tellAttempts(b)
	d.tellLatency(b)
	return d.tellUnknown(ctx, b)
}

func (d *demo) tellDeliveries(b *demoBooks) {
	d.heading("Deliveries by webhook")
	t := d.table("webhook", "deliveries>", "succeeded>", "retry due>", "held behind>", "attempts>", "repeats>", "answers")
	for i, h := range b.hooks {
		statuses := map[domain.DeliveryStatus]int{}
		all, attempts := 0, 0
		for j := range b.deliveries {
			if b.deliveries[j].webhook == h.id {
				statuses[b.deliveries[j].status]++
				all++
			}
		}
		for _, one := range b.attempts {
			if one.webhook == h.id {
				attempts++
			}
		}
		t.add(cell(h.path), number(all), number(statuses[domain.DeliverySucceeded]), number(statuses[domain.DeliveryPending]),
			number(statuses[domain.DeliveryHeld]), number(attempts), number(b.counts[i].Repeats.Total()), cell(h.answers))
	}
	t.write()
	d.say("Retries come after 5 s, 30 s, 2 min and so on, for three days. The demo ended when those left were\n"+
		"due in more than %d s; later deliveries of their conversations are held behind them.", demoHorizon/time.Second)
}

func (d *demo) tellAttempts(b *demoBooks) {
	outcomes, classes := map[domain.OutcomeKind]int{}, map[string]int{}
	retries, after := 0, map[domain.OutcomeKind]int{}
	for key, one := range b.attempts {
		outcomes[one.outcome]++
		if one.class != "" {
			classes[one.class]++
		}
		if key.number > 1 {
			retries++
			after[one.previous]++
		}
	}
	most := func(x, y string) int { return cmp.Or(classes[y]-classes[x], strings.Compare(x, y)) }
	var why []string
	for _, class := range slices.SortedFunc(maps.Keys(classes), most) {
		why = append(why, fmt.Sprintf("%s %s", grouped(classes[class]), class))
	}
	d.heading("Attempts by outcome")
	t := d.table("outcome", "attempts>", "")
	t.add(devCell{"succeeded", good}, number(outcomes[domain.OutcomeSucceeded]), cell(""))
	t.add(devCell{"failed", bad}, number(outcomes[domain.OutcomeFailed]), cell(strings.Join(why, ", ")))
	t.add(devCell{"unknown", unknown}, number(outcomes[domain.OutcomeUnknown]),
		cell(fmt.Sprintf("the killed relay's; %s of them had arrived", grouped(b.sum.Repeats.AfterUnknown))))
	t.add(cell("retries"), number(retries), cell(fmt.Sprintf("%s after failed, %s after unknown", grouped(after[domain.OutcomeFailed]), grouped(after[domain.OutcomeUnknown]))))
	t.write()
}

// tellLatency shows the time from a row's insert to the arrival of its first
// POST.
func (d *demo) tellLatency(b *demoBooks) {
	inserted := map[string]time.Time{}
	for i := range b.deliveries {
		inserted[b.deliveries[i].notification] = b.deliveries[i].inserted
	}
	const total = "all webhooks"
	before, all := map[string][]time.Duration{}, map[string][]time.Duration{}
	for _, a := range b.arrivals {
		at, ok := inserted[a.Notification]
		if !ok {
			continue
		}
		for _, name := range []string{a.Path, total} {
			all[name] = append(all[name], a.At.Sub(at))
			if a.At.Before(d.killedAt) {
				before[name] = append(before[name], a.At.Sub(at))
			}
		}
	}
	d.heading("From insert to first arrival")
	t := d.table("webhook", "p50 before the kill>", "p99>", "p50 of the whole run>", "p99>")
	row := func(name string) {
		t.add(cell(name), percentile(before[name], 50), percentile(before[name], 99), percentile(all[name], 50), percentile(all[name], 99))
	}
	for _, h := range b.hooks {
		row(h.path)
	}
	row(total)
	t.write()
	d.say("From inserted_at in PostgreSQL to the receiver, by this machine's clock. The whole run includes %s without\n"+
		"a relay at work, and what was held behind a failed delivery of its conversation.", seconds(d.down))
}

func percentile(durations []time.Duration, p int) devCell {
	if len(durations) == 0 {
		return cell("–")
	}
	slices.Sort(durations)
	return cell(seconds(durations[min(len(durations)-1, len(durations)*p/100)]))
}

// tellUnknown shows the life of an event whose attempt the kill made unknown.
func (d *demo) tellUnknown(ctx context.Context, b *demoBooks) error {
	id := b.unknownEvent()
	if id == "" {
		return nil // the verdict says so
	}
	event, err := uuid.Parse(id)
	if err != nil {
		return err
	}
	d.heading("One event whose attempt the kill made unknown (outrider audit trace)")
	if err := d.app.trace(ctx, d.db, 0, event, formatTable); err != nil {
		return err
	}
	d.say("\nThe same by SQL; outrider dev keeps a database up to try it on:\n\n"+
		"  SELECT at, stream, type, data FROM audit.timeline\n   WHERE event_id = '%s' ORDER BY at, seq;", id)
	return nil
}

// unknownEvent prefers one of the slow webhook: there the receiver was about to
// answer 200.
func (b *demoBooks) unknownEvent() string {
	slow := map[domain.WebhookID]bool{}
	for _, h := range b.hooks {
		slow[h.id] = strings.HasSuffix(h.path, "/"+sample.Slow)
	}
	best, bestSlow := "", false
	for _, one := range b.attempts {
		if one.outcome != domain.OutcomeUnknown {
			continue
		}
		if isSlow := slow[one.webhook]; best == "" || isSlow && !bestSlow || isSlow == bestSlow && one.eventID < best {
			best, bestSlow = one.eventID, isSlow
		}
	}
	return best
}
