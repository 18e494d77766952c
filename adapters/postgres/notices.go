package postgres

import (
	"context"
	"log/slog"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/relay"
)

// The channels on which the database wakes relays.
const (
	wakeChannel  = "outrider_wake"
	relayChannel = "outrider_relay"
)

// Listen passes the database's notifications on until ctx ends, over a
// connection of its own. When the connection is lost and made again everybody
// is woken: notifications may have been missed.
func Listen(ctx context.Context, dsn string, notices relay.Notices, logger *slog.Logger) error {
	if _, err := parseDSN(dsn, ""); err != nil {
		return err
	}
	listener := pq.NewListener(withSSLMode(dsn), 100*time.Millisecond, 2*time.Second, func(_ pq.ListenerEventType, err error) {
		if err != nil && ctx.Err() == nil {
			logger.Debug("the listening connection failed", "error", err)
		}
	})
	defer func() { _ = listener.Close() }()
	go func() {
		<-ctx.Done()
		_ = listener.Close()
	}()
	for _, channel := range []string{wakeChannel, relayChannel} {
		if err := listener.Listen(channel); err != nil && ctx.Err() == nil {
			return err
		}
	}
	for {
		select {
		case n := <-listener.NotificationChannel():
			switch {
			case n == nil:
				for _, c := range []chan struct{}{notices.Inserted, notices.Batches, notices.Webhooks, notices.Replays, notices.Released, notices.Endings} {
					poke(c)
				}
			case n.Channel == wakeChannel:
				poke(notices.Inserted)
			case n.Extra == "batches":
				poke(notices.Batches)
			case n.Extra == "webhooks":
				poke(notices.Webhooks)
			case n.Extra == "replay":
				poke(notices.Replays)
			case n.Extra == "released":
				poke(notices.Released)
			case n.Extra == "endings":
				poke(notices.Endings)
			}
		case <-time.After(30 * time.Second):
			_ = listener.Ping() // a dead connection is noticed here
		case <-ctx.Done():
			return nil
		}
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ExtendPartitions does one step of keeping partitions ahead.
func (s *Store) ExtendPartitions(ctx context.Context) (step string, done bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT relay.extend_partitions()`).Scan(&step)
	return step, step == "nothing to do", err
}
