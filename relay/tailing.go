package relay

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// tailing is what the one relay does that owns the tail: it reads the outbox and
// routes, keeps partitions ahead, and erases what has reached its age.
type tailing struct {
	relay      *Relay
	relayID    int64
	statistics *projector
	logger     *slog.Logger
	tail       *outbox.Tail
	router     *message.Router
	// news tells of a batch that other relays may have to dispatch; others says
	// whether there are any.
	news   chan struct{}
	others atomic.Int64
	begun  bool
}

func (r *Relay) newTailing(id int64, d *dispatcher, statistics *projector, logger *slog.Logger) (*tailing, error) {
	t := &tailing{relay: r, relayID: id, statistics: statistics, logger: logger, news: make(chan struct{}, 1)}
	config := outbox.TailConfig{
		Chain: r.config.Chain, RelayID: id, Wake: r.config.Notices.Inserted,
		BatchRows: r.config.BatchRows, MaxBody: r.config.MaxBody, Now: r.config.Now,
		OnError: func(err error) {
			if !errors.Is(err, context.Canceled) { // that is a stop
				logger.Warn("tailing failed, trying again", "error", err)
			}
		},
		Confirmed: r.confirmed(func(batch *outbox.Batch) {
			statistics.confirmed(batch)
			t.tell()
			if !r.config.NoSend {
				d.confirmed(batch)
			}
		}),
		Reloaded: func(no int64) {
			statistics.reloaded(no)
			if !r.config.NoSend {
				d.reloaded(no)
			}
		},
	}
	if !r.config.NoSend {
		config.Ready = d.ready
	}
	var err error
	if t.tail, err = outbox.NewTail(r.config.DB, config); err != nil {
		return nil, err
	}
	t.router, err = r.routerOf(t.tail, logger)
	return t, err
}

// begin tails from now on, until end, as a part of a group that ends with inner.
func (t *tailing) begin(ctx, inner context.Context, group *errgroup.Group) error {
	if err := t.statistics.tails(ctx); err != nil {
		return err
	}
	t.begun = true
	group.Go(func() error { return t.router.Run(inner) })
	group.Go(func() error { t.announce(inner); return nil })
	group.Go(func() error { t.relay.keepPartitions(inner, t.logger); return nil })
	if t.relay.config.Retain != nil {
		group.Go(func() error { t.relay.retain(inner, t.logger); return nil })
	}
	return nil
}

// end stops, and lets another relay tail where that can be known to count
// nothing twice: else that has to wait until this one is gone.
func (t *tailing) end(ctx context.Context) {
	t.tail.Stop()
	if !t.begun {
		return
	}
	if err := t.router.Close(); err != nil {
		t.logger.Warn("the tail did not stop in time; what it had not committed is read again", "error", err)
	}
	ctx, done := context.WithTimeout(ctx, recordTimeout)
	defer done()
	err := t.statistics.handOver(ctx)
	if err == nil {
		err = t.relay.config.Leases.GiveUp(ctx, t.relayID, Share{Tail: true}, nil)
	}
	if err != nil && ctx.Err() == nil {
		t.logger.Info("another relay tails when this one is gone", "error", err)
	}
}

// tell says that a batch is on record. It does not block.
func (t *tailing) tell() {
	if t.others.Load() == 0 {
		return
	}
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// announce tells the other relays of batches, until ctx ends: of all since the
// last time at once. One that hears of nothing looks by itself.
func (t *tailing) announce(ctx context.Context) {
	for {
		select {
		case <-t.news:
		case <-ctx.Done():
			return
		}
		if err := t.relay.config.Leases.Announce(ctx); err != nil && ctx.Err() == nil {
			t.logger.Debug("telling of a batch failed", "error", err)
		}
	}
}

// routerOf makes the Watermill router with its one handler.
func (r *Relay) routerOf(tail *outbox.Tail, logger *slog.Logger) (*message.Router, error) {
	// Watermill's own messages are for debugging: each failure of a poll is
	// told by the tail once.
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	handler := &routing{
		tail: tail, webhooks: r.config.Webhooks, saltKey: r.config.Store.SaltKey, maxBody: r.config.MaxBody, logger: logger,
		configs: map[domain.AccountID]domain.Configuration{}, seen: map[eventKey]int64{}, before: map[eventKey]int64{},
	}
	router.AddConsumerHandler("route", outbox.Topic, tail.Subscriber, handler.handle)
	return router, nil
}

// stepTimeout bounds a step of keeping partitions ahead, or of retention. One
// may read all that is in the net.
const stepTimeout = 10 * time.Minute

// keepPartitions keeps partitions ahead until ctx ends.
func (r *Relay) keepPartitions(ctx context.Context, logger *slog.Logger) {
	for {
		wait := partitionsInterval
		for {
			limited, cancel := context.WithTimeout(ctx, stepTimeout)
			step, done, err := r.config.Partitions(limited)
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					logger.Warn("a step of keeping partitions ahead failed, trying again", "error", err)
				}
				wait = partitionsInterval / 6
				break
			}
			if done {
				break
			}
			logger.Info("partitions", "step", step)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// retain erases what has reached its age, until ctx ends. What has to wait, for
// deliveries to end or for somebody's lock, is looked at again sooner.
func (r *Relay) retain(ctx context.Context, logger *slog.Logger) {
	waits := ""
	for {
		wait := retentionInterval
		for {
			limited, cancel := context.WithTimeout(ctx, stepTimeout)
			step, idle, err := r.config.Retain(limited)
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					logger.Warn("a step of retention failed, trying again", "error", err)
				}
				wait = retentionRetry
				break
			}
			if idle {
				if step != "" {
					wait = retentionPause
				}
				if step != waits {
					waits = step
					logger.Info("retention waits", "for", cmp.Or(step, "nothing more"))
				}
				break
			}
			logger.Info("retention", "step", step)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}
