package relay

import (
	"context"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// A webhook that was taken over with deliveries that wait for their time may
// have left conversations of which earlier ones have failed or are held. Which
// these are is counted beside all else: at once where something is held, whose
// turn may have come, else when the first of its ordered deliveries wants to know,
// which nothing that is repeated does. A webhook waits while it is counted, and
// no other does.

const (
	// countedAtOnce is how many webhooks one read counts, countedRows how many
	// rows it reads of each. One that has more is counted alone, after the others.
	countedAtOnce = 200
	countedRows   = 500
	// countTimeout bounds one read. A million rows take seconds.
	countTimeout = 10 * time.Minute
)

// countState says whether it is known which conversations of a queue are blocked.
type countState uint8

const (
	counted countState = iota
	uncounted
	asked // it is listed
	// beingCounted is a queue of which nothing comes back from the due table
	// until that is over: what the read sees is not to change.
	beingCounted
)

// counting lists the queues to be counted. One read is under way at a time: all
// the webhooks of a large relay are a few, and one with a million waiting holds
// nobody up but itself.
type counting struct {
	reading bool
	listed  []*queue
	deep    []*queue // with more rows than are read of one of many
}

// askCounts has a queue counted.
func (d *dispatcher) askCounts(q *queue) {
	if q.counts == uncounted {
		q.counts = asked
		d.counting.listed = append(d.counting.listed, q)
		d.readCounts()
	}
}

// next takes the queues that are read next, and how many rows of each, 0 for all.
func (c *counting) next() (some map[domain.WebhookID]*queue, most int) {
	from, n, most := &c.listed, countedAtOnce, countedRows
	if len(c.listed) == 0 {
		from, n, most = &c.deep, 1, 0
	}
	some = map[domain.WebhookID]*queue{}
	for len(*from) > 0 && len(some) < n {
		if q := (*from)[0]; !q.dropped {
			some[q.hook.ID] = q
		}
		*from = (*from)[1:]
	}
	return some, most
}

func (d *dispatcher) readCounts() {
	c := &d.counting
	if c.reading {
		return
	}
	some, most := c.next()
	if len(some) == 0 {
		if len(c.deep) > 0 {
			d.readCounts()
		}
		return
	}
	c.reading = true
	ids := make([]domain.WebhookID, 0, len(some))
	for id := range some {
		ids = append(ids, id)
	}
	known := d.countMemory(some)
	d.laterWithin(countTimeout, "what is blocked", func(ctx context.Context) (func(), error) {
		counts := map[domain.WebhookID]map[int64]blocked{}
		deep, err := d.store.Blocked(ctx, ids, known, most, func(b Blocked) {
			if counts[b.WebhookID] == nil {
				counts[b.WebhookID] = map[int64]blocked{}
			}
			counts[b.WebhookID][b.Order] = blocked{int32(b.Failed), int32(b.Held)} //nolint:gosec // counts of one conversation
		})
		// Those whose turn it is, found here: there may be many conversations.
		turns := map[domain.WebhookID][]int64{}
		for id, all := range counts {
			for order, b := range all {
				if b.failed == 0 {
					turns[id] = append(turns[id], order)
				}
			}
		}
		return func() {
			c.reading = false
			for _, id := range deep {
				delete(counts, id)
				if q := some[id]; !q.dropped {
					q.counts = asked
					c.deep = append(c.deep, q)
					d.mark(q)
				}
			}
			for id, q := range some {
				if q.counts == beingCounted && !q.dropped {
					d.takeCounts(q, counts[id], turns[id])
				}
			}
			d.readCounts()
		}, err
	}, func() {
		c.reading = false
		for _, q := range some {
			q.counts = asked
			c.listed = append(c.listed, q)
			d.mark(q)
		}
		d.readCounts()
	})
}

// countMemory begins the counts of some queues with what is in memory, and lists
// it: a read leaves that out, since it may have moved on already.
func (d *dispatcher) countMemory(some map[domain.WebhookID]*queue) (known []domain.DeliveryKey) {
	count := func(q *queue, it *item) {
		if it.State.Failed && !it.State.Status.Final() {
			q.block(it.order, 1, 0)
		}
	}
	for _, q := range some {
		q.counts, q.blocked = beingCounted, map[int64]blocked{}
		for _, c := range q.conversations {
			for _, it := range c.waiting {
				count(q, it)
			}
		}
	}
	for _, l := range d.left.attempts {
		if q := some[l.it.Key.WebhookID]; q != nil {
			count(q, l.it)
		}
	}
	for key, open := range d.open {
		if q := some[key.WebhookID]; q != nil {
			known = append(known, key)
			if open.it != nil {
				count(q, open.it)
			}
		}
	}
	for key := range d.parked {
		if some[key.WebhookID] != nil {
			known = append(known, key)
		}
	}
	for key := range d.unreadable { // nothing waits for these
		if some[key.WebhookID] != nil {
			known = append(known, key)
		}
	}
	return known
}

// takeCounts takes what a read found, and what memory has had meanwhile.
func (d *dispatcher) takeCounts(q *queue, found map[int64]blocked, turns []int64) {
	memory := q.blocked
	q.counts = counted
	if found != nil {
		q.blocked = found
		for order, b := range memory {
			q.block(order, b.failed, b.held)
		}
	}
	for _, order := range turns {
		d.nextOf(q, q.conversation(order))
	}
	for _, c := range q.conversations {
		d.nextOf(q, c)
	}
	d.mark(q)
}

// putOff leaves out what a read found of webhooks that are being counted: it is
// read again then.
func (d *dispatcher) putOff(found []Delivery) []Delivery {
	kept := found[:0]
	for i := range found {
		q := d.queues[found[i].Key.WebhookID]
		if q == nil || q.counts != beingCounted {
			kept = append(kept, found[i])
			continue
		}
		l := freshLane
		if found[i].Key.ReplayID != 0 {
			l = replayLane
		}
		d.readLate(q, l, found[i].Due)
	}
	return kept
}
