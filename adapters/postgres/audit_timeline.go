package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// timelineEvents is how many chat events' entries are read at once: few enough
// for the planner to look each up.
const timelineEvents = 200

const timelineColumns = `seq, at, account_id, stream, stream_id, version, type, event_id::text, delivery_id::text, data::text FROM audit.timeline`

// Timeline reads all entries about the chat events that a filter selects, and
// about their deliveries: the newest events first, the entries of each in
// their order. Limit counts events.
func (a *Audit) Timeline(ctx context.Context, f audit.Filter, after *audit.Cursor) (audit.Page[audit.TimelineRecord], error) {
	f.Limit = min(f.Limit, timelineEvents)
	if after != nil {
		after = &audit.Cursor{List: audit.EventList, Seq: after.Seq}
	}
	events, err := a.Events(ctx, f, after)
	if err != nil {
		return audit.Page[audit.TimelineRecord]{}, err
	}
	page := audit.Page[audit.TimelineRecord]{Searched: events.Searched}
	if events.Next != nil {
		page.Next = &audit.Cursor{List: audit.TimelineList, Seq: events.Next.Seq}
	}
	var seqs []int64
	var ids []string
	for i := range events.Records {
		if e := &events.Records[i]; e.Routing != domain.RoutingWaiting {
			seqs, ids = append(seqs, e.Seq), append(ids, e.EventID.String())
		}
	}
	if len(seqs) == 0 {
		return page, nil
	}
	type place struct {
		id  uuid.UUID
		seq int64
	}
	deliveries, err := list(ctx, a.db, func(row scanner) (p place, err error) {
		err = row.Scan(&p.id, &p.seq)
		return p, err
	}, `SELECT delivery_id::text, event_seq FROM audit.deliveries WHERE event_seq = ANY ($1::bigint[])`, pq.Array(seqs))
	if err != nil {
		return page, err
	}
	of := make(map[uuid.UUID]int64, len(deliveries))
	deliveryIDs := make([]string, len(deliveries))
	for i, d := range deliveries {
		of[d.id], deliveryIDs[i] = d.seq, d.id.String()
	}
	entries, err := list(ctx, a.db, scanTimelineRecord, `SELECT `+timelineColumns+` WHERE delivery_id = ANY ($1::uuid[]) ORDER BY seq`, pq.Array(deliveryIDs))
	if err != nil {
		return page, err
	}
	routed, err := list(ctx, a.db, scanTimelineRecord, `SELECT `+timelineColumns+` WHERE event_id = ANY ($1::uuid[]) AND type = 'routed' ORDER BY seq`, pq.Array(ids))
	if err != nil {
		return page, err
	}
	bySeq, err := a.ownRouting(ctx, events.Records, routed)
	if err != nil {
		return page, err
	}
	for i := range entries {
		seq := of[entries[i].DeliveryID.UUID]
		bySeq[seq] = append(bySeq[seq], entries[i])
	}
	for _, seq := range seqs {
		own := bySeq[seq]
		slices.SortStableFunc(own, func(a, b audit.TimelineRecord) int { return cmp.Compare(a.Seq, b.Seq) })
		page.Records = append(page.Records, own...)
	}
	return page, nil
}

// ownRouting gives each chat event the entry of its routing. An id may have come
// more than once, and within one batch at the same time: then the entries have
// the order of the places.
func (a *Audit) ownRouting(ctx context.Context, events []audit.Event, routed []audit.TimelineRecord) (map[int64][]audit.TimelineRecord, error) {
	type key struct {
		account domain.AccountID
		id      uuid.UUID
		at      int64
	}
	entries := map[key][]audit.TimelineRecord{}
	for i := range routed {
		k := key{routed[i].AccountID, routed[i].EventID, routed[i].At.UnixMicro()}
		entries[k] = append(entries[k], routed[i])
	}
	bySeq := make(map[int64][]audit.TimelineRecord, len(events))
	for i := range events {
		e := &events[i]
		same := entries[key{e.AccountID, e.EventID, e.RoutedAt.UnixMicro()}]
		rank := 0
		if len(same) > 1 {
			seqs, err := list(ctx, a.db, scanPlace, `
SELECT seq FROM audit.events WHERE account_id = $1 AND event_id = $2::uuid AND routed_at = $3::timestamptz ORDER BY seq`,
				int64(e.AccountID), e.EventID.String(), e.RoutedAt)
			if err != nil {
				return nil, err
			}
			rank = slices.Index(seqs, e.Seq)
		}
		if rank >= 0 && rank < len(same) { // it waits, or was routed since
			bySeq[e.Seq] = []audit.TimelineRecord{same[rank]}
		}
	}
	return bySeq, nil
}

func scanTimelineRecord(row scanner) (r audit.TimelineRecord, err error) {
	var data string
	err = row.Scan(&r.Seq, &r.At, &r.AccountID, &r.Stream, &r.StreamID, &r.Version, &r.Type, &r.EventID, &r.DeliveryID, &data)
	r.At, r.Data = r.At.UTC(), json.RawMessage(data)
	return r, err
}
