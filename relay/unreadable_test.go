package relay_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// forgetful reads the configuration and then fails, as a decoder does: the
// transaction is whole.
type forgetful struct {
	relay.Webhooks
	left atomic.Int32
}

func (f *forgetful) Configurations(ctx context.Context, tx *sql.Tx, accounts []domain.AccountID) (map[domain.AccountID]domain.Configuration, error) {
	read, err := f.Webhooks.Configurations(ctx, tx, accounts)
	if err == nil && f.left.Add(-1) >= 0 {
		return nil, errors.New("failed on our side")
	}
	return read, err
}

func TestAnEventWithoutADecisionIsReadAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	b.publish(1, "a", 1, 3)
	b.start(func(c *relay.Config) {
		f := &forgetful{Webhooks: c.Webhooks}
		f.left.Store(4)
		c.Webhooks = f
	})
	b.awaitStatus("succeeded", 3)
	if n := scan[int](b, `SELECT count(*) FROM audit.events WHERE routing = 'routed'`); n != 3 {
		t.Errorf("%d of 3 events are on record as routed", n)
	}
}

// TestAWebhookWhoseSettingsCannotBeReadStopsNoOther: it is passed over, on
// record; what was pending is kept; once mended, a replay brings the rest.
func TestAWebhookWhoseSettingsCannotBeReadStopsNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	broken := b.webhook(1, "/broken", nil)
	b.webhook(1, "/well", nil)
	b.webhook(2, "/other", nil)
	b.publish(1, "a", 1, 1)
	run := b.start(func(c *relay.Config) { c.NoSend = true })
	b.eventually("the routing", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.deliveries`)
		return n == 2, fmt.Sprintf("%d deliveries", n)
	})
	run.stop()
	mend := scan[string](b, `SELECT settings::text FROM relay.webhooks WHERE id = $1`, int64(broken.ID))
	b.exec(`UPDATE relay.webhooks SET settings = '{"timeout": 5}' WHERE id = $1`, int64(broken.ID))

	b.start(nil)
	b.publish(1, "b", 2, 1)
	b.publish(2, "c", 3, 1)
	b.awaitStatus("succeeded", 3)
	b.awaitStatus("held", 1)
	if got := scan[string](b, `SELECT string_agg(routing || ':' || delivery_count, ' ' ORDER BY seq) FROM audit.events`); got != "routed:2 routed:1 routed:1" {
		t.Errorf("routings and deliveries: %s", got)
	}
	if got := scan[string](b, `SELECT data -> 'skips' -> 0 ->> 'reason' FROM audit.timeline WHERE type = 'routed' AND data::jsonb ? 'skips'`); got != string(domain.SkipUnreadable) {
		t.Errorf("passed over for %q", got)
	}

	b.exec(`UPDATE relay.webhooks SET settings = $2::json, xid = DEFAULT WHERE id = $1`, int64(broken.ID), mend)
	b.awaitStatus("succeeded", 4)
	b.exec(`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 hour', until => now() + interval '1 hour', webhook_id => $1))`, int64(broken.ID))
	b.eventually("the replay", func() (bool, string) {
		n := len(b.receiver.got("/broken"))
		return n == 3, fmt.Sprintf("%d POSTs", n) // the one kept, and a replay of both
	})
}

// lines collects a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestADeliveryThatCannotBeReadStopsNoOther: what a newer version wrote, or
// somebody damaged, waits by itself, wherever it is read from; a version that
// can read it goes on with it.
func TestADeliveryThatCannotBeReadStopsNoOther(t *testing.T) {
	t.Parallel()
	const (
		retried = `(SELECT min(event_seq) FROM relay.due WHERE kind = 'r')`
		held    = `(SELECT min(event_seq) FROM relay.due WHERE kind = 'h')`
	)
	for name, damage := range map[string]string{
		"a retry of a newer version":    `UPDATE relay.log SET type = 'teleported' WHERE type = 'attempt_failed' AND event_seq = ` + retried,
		"a damaged retry":               `UPDATE relay.log SET data = '{"webhook_version":"x"}' WHERE type = 'scheduled' AND event_seq = ` + retried,
		"a held one of a newer version": `UPDATE relay.log SET type = 'frozen' WHERE type = 'held' AND event_seq = ` + held,
		"one that was not begun":        `UPDATE relay.log SET data = '{"webhook_version":"x"}' WHERE type = 'scheduled' AND event_seq = (SELECT max(seq) FROM outbox.events)`,
		"an open attempt":               `UPDATE relay.log SET data = '{"attempt":"x"}' WHERE type = 'attempt_started' AND event_seq = ` + retried,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.webhook(1, "/one", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
			b.webhook(2, "/two", nil)
			var status atomic.Int32
			status.Store(500)
			b.receiver.on("/one", failing(&status))
			b.receiver.on("/two", failing(&status))
			slow := func(c *relay.Config) {
				c.Policy = domain.RetryPolicy{Delays: slices.Repeat([]time.Duration{time.Second}, 200)}
			}
			first := b.start(slow)
			b.publish(1, "a", 1, 1)
			b.publish(2, "b", 2, 1)
			b.eventually("two failures", func() (bool, string) {
				n := scan[int](b, `SELECT count(*) FROM relay.due WHERE kind = 'r'`)
				return n == 2, fmt.Sprint(n)
			})
			b.publish(1, "a", 3, 3)
			b.awaitStatus("held", 3)
			first.stop()
			routing := b.start(func(c *relay.Config) { c.NoSend = true })
			b.publish(1, "a", 6, 2)
			b.eventually("the routing", func() (bool, string) {
				n := scan[int](b, `SELECT count(*) FROM relay.log WHERE type = 'scheduled'`)
				return n == 7, fmt.Sprint(n)
			})
			routing.stop()
			if name == "an open attempt" {
				b.exec(`DELETE FROM relay.due WHERE event_seq = ` + retried)
				b.exec(`DELETE FROM relay.log WHERE type = 'attempt_failed' AND event_seq = (SELECT min(event_seq) FROM relay.log)`)
				damage = strings.ReplaceAll(damage, retried, `(SELECT min(event_seq) FROM relay.log)`)
				b.exec(`UPDATE relay.slots SET low = 0`)
			}
			var data, kind string
			const wounded = `SELECT event_seq, webhook_id, version, type, data::text FROM relay.log l WHERE NOT EXISTS (SELECT FROM sound s WHERE (s.event_seq, s.webhook_id, s.version) = (l.event_seq, l.webhook_id, l.version) AND s.type = l.type AND s.data::text = l.data::text)`
			b.exec(`CREATE TABLE sound AS SELECT event_seq, webhook_id, version, type, data FROM relay.log`)
			b.exec(damage)
			var seq, hook, version int64
			if err := b.db.QueryRowContext(t.Context(), wounded).Scan(&seq, &hook, &version, &kind, &data); err != nil {
				t.Fatal(err)
			}

			status.Store(200)
			log := &lines{}
			second := b.start(func(c *relay.Config) { slow(c); c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			b.eventually("all others", func() (bool, string) {
				n := scan[int](b, `SELECT count(*) FROM relay.log WHERE type = 'attempt_succeeded'`)
				return n == 6, fmt.Sprint(n, log)
			})
			b.publish(1, "a", 8, 1) // behind the one that waits
			b.eventually("one behind it", func() (bool, string) {
				n := scan[int](b, `SELECT count(*) FROM relay.log WHERE type = 'attempt_succeeded'`)
				return n == 7, fmt.Sprint(n)
			})
			b.eventually("a line in the log", func() (bool, string) {
				return strings.Contains(log.String(), "cannot be read from the log"), log.String()
			})
			second.stop()
			if n := strings.Count(log.String(), "cannot be read from the log"); n != 1 {
				t.Errorf("it was said %d times:\n%s", n, log)
			}

			b.exec(`UPDATE relay.log l SET type = s.type, data = s.data FROM sound s WHERE (s.event_seq, s.webhook_id, s.version) = (l.event_seq, l.webhook_id, l.version) AND l.event_seq = $1 AND l.webhook_id = $2 AND l.version = $3`, seq, hook, version)
			b.start(slow)
			b.awaitStatus("succeeded", 8)
		})
	}
}
