package relay

import (
	"context"
	"time"
)

// refresh keeps the webhooks in memory as they are configured, until ctx ends:
// at once when told, else every interval.
func (d *dispatcher) refresh(ctx context.Context, told <-chan struct{}, interval time.Duration) {
	since := d.since // set before this goroutine began
	for {
		changed, snapshot, err := d.webhooks.Changed(ctx, since)
		switch {
		case err == nil:
			since = snapshot
			if len(changed) > 0 {
				d.inbox.call(func() {
					for _, hook := range changed {
						if d.queues[hook.ID] != nil {
							d.configure(hook)
						} else if d.loads > 0 {
							d.newer[hook.ID] = hook // what is being read may be older
						}
					}
				})
			}
		case ctx.Err() == nil:
			d.logger.Warn("reading webhook changes failed, trying again", "error", err)
		}
		select {
		case <-told:
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
	}
}

// follow hears of batches that another relay routed, until ctx ends: at once when
// told, else every interval.
func (d *dispatcher) follow(ctx context.Context, told <-chan struct{}, interval time.Duration) {
	for {
		select {
		case <-told:
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
		no, _, err := d.store.Head(ctx)
		switch {
		case err == nil:
			d.reloaded(no)
		case ctx.Err() == nil:
			d.logger.Warn("reading the chain failed, trying again", "error", err)
		}
	}
}
