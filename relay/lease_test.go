package relay_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// silenced gives no sign of life while it is silent, as a suspended process.
type silenced struct {
	relay.Leases
	silent  atomic.Bool
	refused atomic.Int64 // while it is
}

var errSilent = errors.New("no sign of life: suspended")

func (s *silenced) Beat(ctx context.Context, relayID, n int64, place relay.Place) error {
	if s.silent.Load() {
		s.refused.Add(1)
		return errSilent
	}
	return s.Leases.Beat(ctx, relayID, n, place)
}

func (s *silenced) Members(ctx context.Context) ([]relay.Member, relay.Share, error) {
	if s.silent.Load() {
		return nil, relay.Share{}, errSilent
	}
	return s.Leases.Members(ctx)
}

func TestASuspendedRelayIsFencedAndItsOpenAttemptsBecomeUnknown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hanging", func(s *domain.Settings) { s.Timeout = time.Second })
	b.webhook(1, "/fine", nil)
	var once atomic.Bool
	hung := make(chan struct{})
	gate := make(chan struct{})
	b.receiver.on("/hanging", func(w http.ResponseWriter, _ *http.Request) {
		if once.CompareAndSwap(false, true) {
			close(hung)
			<-gate // until the first relay is fenced; its own timeout has passed long before
		}
		w.WriteHeader(http.StatusNoContent)
	})
	t.Cleanup(func() {
		select {
		case <-gate:
		default:
			close(gate)
		}
	})
	var leases *silenced
	var outcomes *mute
	first := b.start(func(c *relay.Config) {
		leases = &silenced{Leases: c.Leases}
		c.Leases = leases
		outcomes = &mute{Log: c.Log, fenced: make(chan struct{}, 100)}
		c.Log = outcomes
	})
	b.owns(first, relay.ShardCount)
	b.publish(1, "c", 1, 3)
	<-hung
	b.awaitStatus("succeeded", 3) // those of /fine
	// Suspended now: no sign of life, and nothing recorded.
	leases.silent.Store(true)
	outcomes.silent.Store(true)
	second := b.start(nil)
	b.owns(second, relay.ShardCount)
	// The first wakes up and wants to record what it knows: it is fenced.
	outcomes.silent.Store(false)
	<-outcomes.fenced
	leases.silent.Store(false)
	b.awaitStatus("succeeded", 6)
	if got := scan[string](b, `
SELECT string_agg(a.outcome || coalesce('/' || a.previous_outcome, ''), ' ' ORDER BY a.attempt)
  FROM audit.attempts a WHERE a.url LIKE '%/hanging' AND a.event_id = (SELECT event_id FROM audit.events ORDER BY seq LIMIT 1)`); got != "unknown succeeded/unknown" {
		t.Errorf("attempts of the open delivery: %s", got)
	}
	posts := b.receiver.got("/hanging")
	if len(posts) != 4 || posts[1].webhookID != posts[0].webhookID || posts[1].previous != "unknown" || posts[1].attempt != 2 {
		t.Errorf("POSTs: %+v", posts)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.relays WHERE fenced_by IS NOT NULL`); n != 1 {
		t.Errorf("%d relays were fenced by another", n)
	}
}

// mute records nothing while it is silent, and hears of being fenced.
type mute struct {
	relay.Log
	silent atomic.Bool
	fenced chan struct{}
}

func (m *mute) Record(ctx context.Context, relayID int64, changes []relay.Change) (int64, error) {
	if m.silent.Load() {
		return 0, errSilent
	}
	commit, err := m.Log.Record(ctx, relayID, changes)
	if errors.Is(err, relay.ErrFenced) {
		select {
		case m.fenced <- struct{}{}:
		default:
		}
	}
	return commit, err
}

func TestConnectionsThatBreakLoseNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	b.start(nil)
	const rounds, each = 12, 100
	for i := range rounds {
		for c := range 5 {
			b.publish(1, fmt.Sprint("c", c), 1+each/5*i, each/5)
		}
		b.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'test relay%'`)
	}
	b.awaitStatus("succeeded", rounds*each)
	recorded := map[string]bool{}
	rows, err := b.db.QueryContext(t.Context(), `SELECT delivery_id || '/' || attempt FROM audit.attempts`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			t.Fatal(err)
		}
		recorded[key] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	posts := b.receiver.got("/hook")
	for _, p := range posts {
		if !recorded[fmt.Sprintf("%s/%d", p.delivery, p.attempt)] {
			t.Errorf("a POST is not on record: %+v", p)
		}
	}
	if len(posts) != rounds*each {
		t.Errorf("%d POSTs for %d deliveries: no relay died", len(posts), rounds*each)
	}
}
