package relay

import "github.com/outrider-relay/outrider/domain"

// readable leaves out the deliveries whose log this version cannot read. They
// wait where they are, and nothing waits for them: a newer version reads them.
func (d *dispatcher) readable(found []Delivery) []Delivery {
	kept := found[:0]
	for i := range found {
		f := &found[i]
		if f.Unreadable == nil {
			kept = append(kept, *f)
			continue
		}
		if _, here := d.parked[f.Key]; !here && !d.stale.moved(f.Key) {
			d.passOver(f)
		}
	}
	return kept
}

// passOver says once that a delivery cannot be read, and lets its conversation
// go on without it.
func (d *dispatcher) passOver(f *Delivery) {
	if _, told := d.unreadable[f.Key]; told {
		return
	}
	d.unreadable[f.Key] = struct{}{}
	d.logger.Error("a delivery cannot be read from the log: it waits, and nothing else does. "+
		"Where a newer outrider wrote it, run that version again; where its log is damaged, send its event anew with outrider replay run",
		"event_seq", f.Key.EventSeq, "webhook_id", f.Key.WebhookID, "replay_id", f.Key.ReplayID, "error", f.Unreadable)
	q := d.queues[f.Key.WebhookID]
	if q == nil || f.Due.Order == 0 {
		return
	}
	switch b := q.blocked[f.Due.Order]; {
	case f.Due.Kind == DueRetry && b.failed > 0:
		q.block(f.Due.Order, -1, 0)
	case f.Due.Kind == DueHold:
		q.block(f.Due.Order, 0, -1)
	}
	order := f.Due.Order
	d.inbox.call(func() { // once the readable ones of this read are taken
		d.nextOf(q, q.conversation(order))
		d.mark(q)
	})
}

// park lets a delivery of a batch that cannot be read wait in the due table, so
// that the position may pass it. It has nothing but its beginning.
func (d *dispatcher) park(f *Delivery, p *progress) {
	it := &item{Delivery: *f, batch: p, since: d.now()}
	it.State = domain.Delivery{Version: 1}
	s := d.step(stepWait, it, nil)
	d.wait(s, it, DueRetry, d.now())
	d.out = append(d.out, s)
}
