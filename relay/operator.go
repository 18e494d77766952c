package relay

import (
	"context"
	"errors"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"

	"github.com/outrider-relay/outrider/domain"
)

// tellDead gives what the operator is told of a delivery that events end as
// dead. A delivery dies by its twelfth POST as a rule: beside those one more
// event costs little, however many die at once.
func (d *dispatcher) tellDead(it *item, events []domain.DeliveryEvent) *domain.OperatorEvent {
	dead := &domain.DeadDelivery{
		Key: it.Key, AccountID: it.AccountID, EventID: it.EventID, Event: it.Event, State: it.State, Events: events,
	}
	if q := d.queueOf(it); q != nil {
		dead.Settings = q.hook.Settings
	}
	return domain.TellDead(dead)
}

// errNoTransaction: without the tail's transaction the ack fails, and the batch
// is read again.
var errNoTransaction = errors.New("the message has no transaction")

// wrote reports whether the relay itself wrote the row at a place, which is of
// the operator's account. It asks once for all such rows of a batch.
func (r *routing) wrote(ctx context.Context, eventSeq int64) (bool, error) {
	if wrote, known := r.told[eventSeq]; known {
		return wrote, nil
	}
	tx, ok := wsql.TxFromContext(ctx)
	if !ok {
		return false, errNoTransaction
	}
	var seqs []int64
	for _, row := range r.tail.Rows() {
		if row.AccountID == domain.OperatorAccount {
			seqs = append(seqs, row.Seq)
		}
	}
	written, err := r.webhooks.Told(ctx, tx, seqs)
	if err != nil {
		return false, err
	}
	r.told = make(map[int64]bool, len(seqs))
	for _, seq := range seqs {
		r.told[seq] = false
	}
	for _, seq := range written {
		r.told[seq] = true
	}
	return r.told[eventSeq], nil
}
