package relay

import (
	"context"
	"slices"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// takeBatches moves routed batches into the queues, in the order of the chain:
// from memory where the tail of this process handed them over, else from the
// log.
func (d *dispatcher) takeBatches() {
	for d.fresh < maxFresh && d.bodies < maxBodies && !d.feed.reading && d.feed.last < d.feed.head {
		for len(d.feed.ready) > 0 && d.feed.ready[0].No <= d.feed.last {
			d.feed.ready = d.feed.ready[1:]
		}
		no := d.feed.last + 1
		if len(d.feed.ready) > 0 && d.feed.ready[0].No == no {
			batch := d.feed.ready[0]
			d.feed.ready = d.feed.ready[1:]
			d.admit(no, fromBatch(batch))
			continue
		}
		d.feed.reading = true
		d.later("batch", func(ctx context.Context) (func(), error) {
			found, err := d.store.Batch(ctx, no)
			return func() { d.feed.reading = false; d.admit(no, found) }, err
		}, func() { d.feed.reading = false })
	}
}

// fromBatch gives the deliveries that a batch scheduled.
func fromBatch(batch *outbox.Batch) []Delivery {
	n := 0
	for _, row := range batch.Rows {
		n += len(row.Routed.Targets)
	}
	found := make([]Delivery, 0, n)
	ord := int64(len(batch.Rows)) // the decisions' own entries come first
	for _, row := range batch.Rows {
		for _, target := range row.Routed.Targets {
			ord++
			found = append(found, Delivery{
				Key:       domain.DeliveryKey{EventSeq: row.Seq, WebhookID: target.WebhookID},
				AccountID: row.AccountID, EventID: row.ID, Event: row.Name,
				OrderingKey: row.Routed.OrderingKey, Traceparent: row.Traceparent, InsertedAt: row.InsertedAt,
				Pos: batch.Commit<<20 + ord,
				State: domain.Evolve(domain.Delivery{}, domain.Scheduled{
					At: batch.At, Deadline: batch.At.Add(domain.Deadline(row.Name)), WebhookVersion: target.Version,
				}),
				Body: row.Body, Size: len(row.Body),
			})
		}
	}
	return found
}

// admit takes a batch's deliveries. Those of webhooks that are not known make
// the whole batch wait for them: order.
func (d *dispatcher) admit(no int64, found []Delivery) {
	unknown := d.unknown(found)
	if len(unknown) == 0 {
		d.accept(no, found)
		return
	}
	d.feed.reading = true
	d.load(unknown, func() { d.feed.reading = false; d.accept(no, found) }, func() { d.feed.reading = false; d.admit(no, found) })
}

// accept takes a batch's deliveries, whose webhooks are known.
func (d *dispatcher) accept(no int64, found []Delivery) {
	d.feed.last = no
	p := &progress{no: no, left: len(found)}
	d.feed.progress = append(d.feed.progress, p)
	for i := range found {
		if found[i].Unreadable != nil {
			d.park(&found[i], p)
			continue
		}
		it := d.newItem(&found[i])
		it.batch = p
		q := d.queues[it.Key.WebhookID]
		l := &q.lanes[freshLane]
		if l.size >= maxQueue {
			d.overflow(q, freshLane)
		}
		d.fresh++
		d.bodies += len(it.Body)
		if l.overflow {
			d.spill(q, it)
			continue
		}
		d.crowded[q] = struct{}{}
		d.enqueue(q, it)
	}
	d.advance()
}

// unknown lists the webhooks that memory does not have, or has as they were
// before the routing saw them: what is routed to a webhook that was enabled
// just now must not be cancelled by a memory that has it as disabled.
func (d *dispatcher) unknown(found []Delivery) []domain.WebhookID {
	var ids []domain.WebhookID
	for i := range found {
		id := found[i].Key.WebhookID
		if found[i].Unreadable != nil {
			continue
		}
		if q := d.queues[id]; (q == nil || q.hook.Version < found[i].State.WebhookVersion) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (d *dispatcher) newItem(found *Delivery) *item {
	it := &item{Delivery: *found, since: d.now()}
	if q := d.queues[found.Key.WebhookID]; q != nil {
		it.order = orderHash(found.OrderingKey, found.Key.ReplayID, q.hook.Settings.OrderHold)
	}
	return it
}

// enqueue puts an item into its webhook's queue.
func (d *dispatcher) enqueue(q *queue, it *item) {
	q.add(it)
	if it.order != 0 {
		d.nextOf(q, q.conversations[it.order])
	}
	d.mark(q)
}

// nextOf makes a conversation's next delivery runnable, and holds those that
// must wait for a failed one.
func (d *dispatcher) nextOf(q *queue, c *conversation) {
	for {
		it := q.next(c, d.now())
		if it == nil {
			break
		}
		if it.release == domain.ReleaseTurn {
			d.putBack(q, it)
		} else {
			d.hold(q, it, domain.HoldOrder)
		}
	}
	if c.offered {
		d.mark(q) // nobody else may: what a read was to bring had come another way
	}
	if b := q.blocked[c.order]; !c.busy && !c.loading && len(c.waiting) == 0 && b.failed == 0 && b.held > 0 {
		d.readHeld(q, c)
		return
	}
	q.forget(c)
}

// advance moves the position over batches whose deliveries are all on record.
func (d *dispatcher) advance() {
	for len(d.feed.progress) > 0 && d.feed.progress[0].left == 0 {
		d.feed.position = d.feed.progress[0].no
		d.feed.progress = d.feed.progress[1:]
	}
}

// place is where a successor would have to begin.
func (d *dispatcher) place() Place {
	low := (d.commit + 1) << 20
	for _, at := range d.open {
		low = min(low, at)
	}
	return Place{Position: d.feed.position, Low: low}
}
