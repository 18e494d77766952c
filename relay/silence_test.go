package relay_test

import (
	"errors"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
	"github.com/outrider-relay/outrider/relay"
)

// TestWhoErasesFencesASilentRelay: nobody waits for a relay that gave no sign of
// life for 10 s, so it sends nothing any more when it wakes up: it begins again,
// and takes its own work over.
func TestWhoErasesFencesASilentRelay(t *testing.T) {
	t.Parallel()
	for what, erase := range map[string]func(*bench){
		"an erasure": func(b *bench) {
			if done := b.erase(postgres.ErasureSelection{AccountID: 7}); done.Events != 1 || !done.Unattended {
				b.t.Errorf("erased: %+v", done)
			}
		},
		"retention": func(b *bench) {
			ages := postgres.Ages{Payloads: month, Responses: month}
			if plan, err := postgres.PlanRetention(b.t.Context(), b.db, ages); err != nil || len(plan) == 0 {
				b.t.Errorf("the plan is %+v, %v", plan, err)
			}
			if n := scan[int](b, `SELECT count(*) FROM relay.relays WHERE fenced_at IS NULL`); n != 1 {
				b.t.Error("the plan fences it already")
			}
			var steps []string
			b.eventually("the end of retention", func() (bool, string) {
				step, idle, err := postgres.Retain(b.t.Context(), b.db, ages)
				if err != nil && !errors.Is(err, postgres.ErrHeld) {
					b.t.Fatal(err)
				}
				steps = append(steps, step)
				return idle && err == nil, step
			})
			says(b.t, steps, "erased outbox.events_0")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.webhook(7, "/erased", nil)
			b.webhook(8, "/hook", func(s *domain.Settings) { s.Timeout = time.Second })
			var leases *silenced
			r := b.start(func(c *relay.Config) {
				leases = &silenced{Leases: c.Leases}
				c.Leases = leases
			})
			b.owns(r, relay.ShardCount)
			b.publish(7, "c", 1, 1)
			b.awaitStatus("succeeded", 1)
			b.nextPartition(9)
			b.age(month + time.Hour)
			b.eventually("a sign of life that tells how far it is", func() (bool, string) {
				return scan[bool](b, `SELECT min(p.position) >= (SELECT max(b.no) FROM relay.batches b WHERE b.seq_min <= b.seq_max AND b.seq_min < 1000000) FROM relay.places p`), ""
			})
			leases.silent.Store(true)
			b.eventually("the end of its lease", func() (bool, string) { return leases.refused.Load() > 5, "" })
			b.publish(8, "c", 1, 1)
			b.eventually("a start on record", func() (bool, string) {
				return scan[int](b, `SELECT count(*) FROM audit.attempts`) == 2, ""
			})
			b.exec(`UPDATE relay.heartbeats SET at = at - interval '11 s'`)
			b.exec(`UPDATE relay.relays SET started_at = started_at - interval '11 s'`)

			erase(b)
			if n := scan[int](b, `SELECT count(*) FROM relay.relays r WHERE fenced_by = 0 AND NOT EXISTS (SELECT FROM relay.slots s WHERE s.relay_id = r.relay_id)`); n != 1 {
				t.Errorf("%d relays are fenced and own nothing", n)
			}
			if list, err := postgres.ListRelays(t.Context(), b.db, true); err != nil || len(list) != 2 || list[0].State != audit.RelayFenced || list[0].EndedBy != 0 || relay.Shards(list[1].Shards) != relay.AllShards {
				t.Errorf("the relays are %+v, %v", list, err)
			}
			leases.silent.Store(false)
			b.awaitStatus("succeeded", 2)
			posts := b.receiver.got("/hook")
			if len(posts) != 1 || posts[0].attempt != 2 || posts[0].previous != "unknown" {
				t.Errorf("when it woke up, it sent %+v", posts)
			}
		})
	}
}
