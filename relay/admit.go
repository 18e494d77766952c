package relay

import (
	"cmp"
	"context"
	"slices"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// takeBatches moves routed batches into the queues, in the order of the chain:
// from memory where the tail of this process handed them over, else from the
// log.
func (d *dispatcher) takeBatches() {
	for _, f := range d.feeds {
		for d.roomy() && !f.reading && f.last < d.head {
			if batch := d.readyBatch(f.last + 1); batch != nil {
				d.admit(f, batch.No, fromBatch(batch, f.shards))
			} else {
				d.readBatches(f)
			}
		}
	}
	d.joinFeeds()
	d.batches = slices.DeleteFunc(d.batches, func(batch *outbox.Batch) bool {
		return !slices.ContainsFunc(d.feeds, func(f *feed) bool { return f.last < batch.No })
	})
}

// roomy says whether memory has room for more first deliveries.
func (d *dispatcher) roomy() bool { return d.fresh < maxFresh && d.bodies < maxBodies }

// readyBatch gives a batch that the tail of this process handed over.
func (d *dispatcher) readyBatch(no int64) *outbox.Batch {
	for _, batch := range d.batches {
		if batch.No == no {
			return batch
		}
	}
	return nil
}

func (d *dispatcher) readBatches(f *feed) {
	f.reading = true
	shards, from, to := f.shards, f.last+1, d.head
	d.later("batches", func(ctx context.Context) (func(), error) {
		found, last, err := d.store.Batches(ctx, shards, from, to, batchBytes)
		return func() { f.reading = false; d.admit(f, last, found) }, err
	}, func() { f.reading = false })
}

// joinFeeds makes one of the feeds that have come to the same batch.
func (d *dispatcher) joinFeeds() {
	for i := 0; i < len(d.feeds); i++ {
		for j := len(d.feeds) - 1; j > i; j-- {
			f, g := d.feeds[i], d.feeds[j]
			if f.last != g.last || f.reading || g.reading {
				continue
			}
			f.shards |= g.shards
			f.progress = append(f.progress, g.progress...)
			slices.SortFunc(f.progress, func(a, b *progress) int { return cmp.Compare(a.first, b.first) })
			d.feeds = slices.Delete(d.feeds, j, j+1)
		}
	}
}

// fromBatch gives the deliveries that a batch scheduled to webhooks of these
// shards.
func fromBatch(batch *outbox.Batch, shards Shards) []Delivery {
	n := 0
	for _, row := range batch.Rows {
		n += len(row.Routed.Targets)
	}
	found := make([]Delivery, 0, n)
	ord := int64(len(batch.Rows)) // the decisions' own entries come first
	for _, row := range batch.Rows {
		for _, target := range row.Routed.Targets {
			ord++
			if !shards.Has(target.WebhookID) {
				continue
			}
			found = append(found, Delivery{
				Key:       domain.DeliveryKey{EventSeq: row.Seq, WebhookID: target.WebhookID},
				AccountID: row.AccountID, EventID: row.ID, Event: row.Name,
				OrderingKey: row.Routed.OrderingKey, Traceparent: row.Traceparent, InsertedAt: row.InsertedAt,
				Pos: batch.Commit<<20 + ord,
				State: domain.Evolve(domain.Delivery{}, domain.Scheduled{
					At: batch.At, Deadline: batch.At.Add(target.Deadline), WebhookVersion: target.Version,
				}),
				Body: row.Body, Size: len(row.Body),
			})
		}
	}
	return found
}

// admit takes the deliveries of the batches up to last. Those of webhooks that
// are not known make all wait for them: order.
func (d *dispatcher) admit(f *feed, last int64, found []Delivery) {
	unknown := d.unknown(found)
	if len(unknown) == 0 {
		d.accept(f, last, found)
		return
	}
	f.reading = true
	d.load(unknown, func() { f.reading = false; d.accept(f, last, found) }, func() { f.reading = false; d.admit(f, last, found) })
}

// accept takes deliveries whose webhooks are known. Of what was given up
// meanwhile it takes nothing.
func (d *dispatcher) accept(f *feed, last int64, found []Delivery) {
	found = slices.DeleteFunc(found, func(f0 Delivery) bool { return !f.shards.Has(f0.Key.WebhookID) })
	p := &progress{first: f.last + 1, left: len(found)}
	f.last = last
	f.progress = append(f.progress, p)
	for i := range found {
		if found[i].Unreadable != nil {
			d.park(&found[i], p)
			continue
		}
		it := d.newItem(&found[i])
		it.batch, it.weight = p, len(it.Body)
		q := d.queues[it.Key.WebhookID]
		l := &q.lanes[freshLane]
		if l.size >= maxQueue {
			d.overflow(q, freshLane)
		}
		d.keep(q, it)
		if l.overflow {
			d.clear(q)
			d.spill(q, it)
			continue
		}
		d.crowded[q] = struct{}{}
		d.enqueue(q, it)
	}
}

// unknown lists the webhooks that memory does not have, or has as they were
// before the routing or the read saw them: what is routed to a webhook that was
// enabled just now must not be cancelled by a memory that has it as disabled, and
// what was read without its body, since it is cancelled, not be taken for gone.
func (d *dispatcher) unknown(found []Delivery) []domain.WebhookID {
	var ids []domain.WebhookID
	for i := range found {
		id := found[i].Key.WebhookID
		if found[i].Unreadable != nil {
			continue
		}
		if q := d.queues[id]; (q == nil || q.hook.Version < max(found[i].State.WebhookVersion, found[i].Cancels)) && !slices.Contains(ids, id) {
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
	if q.dropped {
		return
	}
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
	if q.counts != counted {
		if !c.busy && !c.offered && len(c.waiting) > 0 {
			d.askCounts(q)
		}
		q.forget(c)
		return
	}
	if b := q.blocked[c.order]; !c.busy && !c.loading && (len(c.waiting) == 0 || q.behindHeld(c)) && b.failed == 0 && b.held > 0 {
		d.readHeld(q, c)
		return
	}
	q.forget(c)
}

// position is the last batch of which each delivery is on record.
func (f *feed) position() int64 {
	for len(f.progress) > 0 && f.progress[0].left == 0 {
		f.progress = f.progress[1:]
	}
	if len(f.progress) > 0 {
		return f.progress[0].first - 1
	}
	return f.last
}

// place is where a successor would have to begin.
func (d *dispatcher) place() Place {
	p := Place{Position: d.head, Low: (d.commit + 1) << 20, Shards: d.shards}
	for _, open := range d.open {
		p.Low = min(p.Low, open.at)
	}
	for _, f := range d.feeds {
		p.Position = min(p.Position, f.position())
	}
	for _, l := range d.leaving {
		p.Position, p.Low, p.Shards = min(p.Position, l.Position), min(p.Low, l.Low), p.Shards|l.Shards
	}
	return p
}
