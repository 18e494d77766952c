package main

import (
	"context"

	"github.com/outrider-relay/outrider/adapters/metrics"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/relay"
)

// watch makes the metrics of an assembly, whose relay may be made later.
func watch(a *assembly) *metrics.Metrics {
	return metrics.New(metrics.Config{
		Version: a.options.version, NoSend: a.options.noSend, DB: a.db,
		State: func() relay.State { return a.relay.State() },
		Share: func() relay.Share { return a.relay.Share() },
		Look: func(ctx context.Context) (metrics.Facts, error) {
			facts, err := postgres.Watch(ctx, a.db)
			return metrics.Facts(facts), err
		},
	})
}
