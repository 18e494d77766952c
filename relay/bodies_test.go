package relay

import (
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

// TestBodiesInMemoryAreBounded: however many webhooks hang with large bodies.
func TestBodiesInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	const large, hanging = 1 << 20, 1000
	d := newTestDispatcher(nothingWaits{}, nil)
	add := func(id domain.WebhookID, size int) (*queue, *item) {
		return newQueue(domain.Webhook{ID: id}), &item{Delivery: Delivery{Size: size}}
	}
	for id := range domain.WebhookID(hanging) {
		d.reserve(laneBytes)
		q, _ := add(id, 0)
		for range 16 {
			if _, it := add(id, large); d.fits(q, it) {
				d.lift(q, it)
				d.flying++
			}
		}
	}
	if d.returned > maxReturned {
		t.Errorf("reads may bring %d bytes, want %d at the most", d.returned, maxReturned)
	}
	if d.aloft > maxAloft || d.aloft < maxAloft/2 {
		t.Errorf("%d bytes are on their way, want %d at the most, and much of it", d.aloft, maxAloft)
	}
	if q, it := add(hanging+1, 16<<10); !d.fits(q, it) {
		t.Error("there is no room for a small body of a webhook that answers")
	}

	// One hanging webhook has its part, and what landed makes room.
	d = newTestDispatcher(nothingWaits{}, nil)
	q, _ := add(1, 0)
	var items []*item
	for range hanging {
		if _, it := add(1, large); d.fits(q, it) {
			d.lift(q, it)
			d.flying++
			items = append(items, it)
		}
	}
	if q.aloft > maxAloft/4 {
		t.Errorf("one webhook has %d bytes on their way", q.aloft)
	}
	for _, it := range items {
		d.land(q, it)
	}
	if d.aloft != 0 || q.aloft != 0 {
		t.Errorf("%d bytes are on their way when all have landed", d.aloft)
	}
	// What is larger than all there is goes alone.
	d.flying = 0
	if q, it := add(2, 2*maxAloft); !d.fits(q, it) {
		t.Error("a body larger than the room is never sent")
	}
}
