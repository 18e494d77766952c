package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// The lease. A relay gives a sign of life every beat. Another one that has seen
// none for the length of the lease, on its own monotonic clock, takes over; see
// sharing.
// An owner starts no POST later than the margin before the end of its lease.
const (
	beatInterval = 500 * time.Millisecond
	leaseLength  = 3 * time.Second
	leaseMargin  = 1 * time.Second
	watchPause   = 250 * time.Millisecond
)

// lease is the owner's view: until when it may begin POSTs.
type lease struct {
	mu      sync.Mutex
	renewed time.Time     // when the last successful beat was begun
	changed chan struct{} // closed at each renewal
	lost    bool
}

func newLease() *lease { return &lease{renewed: time.Now(), changed: make(chan struct{})} }

func (l *lease) renew(begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed = begun
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
	close(l.changed)
	l.changed = make(chan struct{})
}

// hold waits until the lease has a margin. It is false where the lease is lost
// or ctx ends.
func (l *lease) hold(ctx context.Context) bool {
	for {
		l.mu.Lock()
		ok, lost, changed := time.Since(l.renewed) < leaseLength-leaseMargin, l.lost, l.changed
		l.mu.Unlock()
		switch {
		case lost:
			return false
		case ok:
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// keep gives signs of life until ctx ends. The error is ErrFenced once another
// relay has taken over, ErrAnotherServer once the connections lead elsewhere.
func (l *lease) keep(ctx context.Context, leases Leases, relayID int64, place func() Place, logger *slog.Logger) error {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	var failing time.Time // since when
	for n := int64(1); ; n++ {
		begun := time.Now()
		beat, cancel := context.WithTimeout(ctx, leaseLength)
		err := leases.Beat(beat, relayID, n, place())
		cancel()
		switch {
		case err == nil:
			l.renew(begun)
			if !failing.IsZero() {
				logger.Info("the database takes signs of life again", "after", time.Since(failing).Round(time.Millisecond).String())
				failing = time.Time{}
			}
		case errors.Is(err, ErrFenced), errors.Is(err, ErrAnotherServer):
			l.lose()
			return err
		case ctx.Err() == nil:
			if failing.IsZero() {
				failing = begun
			}
			logger.Warn("a sign of life failed, trying again; without one no POST is begun after 2 s", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
