package relay_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// hooks registers webhooks of account 1 at /hook0, /hook1 and so on.
func (b *bench) hooks(n int) (ids []domain.WebhookID) {
	b.t.Helper()
	for i := range n {
		ids = append(ids, b.webhook(1, fmt.Sprintf("/hook%d", i), nil).ID)
	}
	return ids
}

// once fails where a replay did not bring each event of the conversations once to
// each of some webhooks, in order.
func (b *bench) once(replay, hooks, each int) {
	b.t.Helper()
	for i := range hooks {
		got := b.replayed(fmt.Sprintf("/hook%d", i), replay)
		if len(got) != each {
			b.t.Errorf("/hook%d saw %d POSTs of the replay, want %d", i, len(got), each)
		}
		inOrder(b.t, got)
	}
	counted := scan[string](b, `SELECT format('%s %s', scheduled, succeeded) FROM relay.replays WHERE replay_id = $1`, replay)
	logged := scan[string](b, `SELECT format('%s %s', count(*), count(*) FILTER (WHERE status = 'succeeded')) FROM audit.deliveries WHERE replay_id = $1`, replay)
	if counted != logged {
		b.t.Errorf("the replay says %s, the log %s", counted, logged)
	}
}

func TestRelaysShareAReplay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.hooks(8)
	b.start(name("a"))
	b.shares("a 64")
	b.start(name("b"))
	b.shares("a 32, b 32")
	b.chat(1, 5, 1, 20)
	b.awaitStatus("succeeded", 800)
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`)
	b.awaitReplay(replay, "finished 800 of 800: 800 succeeded, 0 dead")
	b.once(replay, 8, 100)
	if n := scan[int](b, `SELECT count(DISTINCT writer) FROM relay.log WHERE replay_id = $1`, replay); n != 2 {
		t.Errorf("%d relays made the deliveries, want 2", n)
	}
	if is := b.story(replay); is != "planned requested started finished" {
		t.Errorf("on record is: %s", is)
	}
}

// TestAReplaysStreamsChangeHands while they are carried out: again and again, each
// delivery is made once and in order, and what the replay says of itself is what
// the log has.
func TestAReplaysStreamsChangeHands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.hooks(6)
	b.start(name("a"))
	b.shares("a 64")
	b.chat(1, 8, 1, 50)
	b.awaitStatus("succeeded", 2400)
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), rate => 400)`) // so that it lasts
	for round := range 3 {
		other := b.start(name("b"))
		b.shares("a 32, b 32")
		b.eventually("deliveries that the other relay scheduled", func() (bool, string) {
			n := scan[int](b, `SELECT count(DISTINCT writer) FROM relay.log WHERE replay_id = $1 AND type = 'scheduled'`, replay)
			return n == round+2, fmt.Sprintf("%d relays did", n)
		})
		other.stop()
		b.shares("a 64")
	}
	b.awaitReplay(replay, "finished 2400 of 2400: 2400 succeeded, 0 dead")
	b.once(replay, 6, 400)
}

// TestAReplayWaitsForStreamsThatNobodyCarriesOut: those of another relay that
// does nothing. A relay that gets them finds what is scheduled.
func TestAReplayWaitsForStreamsThatNobodyCarriesOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ids := b.hooks(4)
	b.start(nil)
	b.chat(1, 1, 1, 10)
	b.awaitStatus("succeeded", 40)
	p := b.phantom()
	own := 0
	for _, id := range ids {
		if !p.shards.Has(id) {
			own++
		}
	}
	if own == 0 || own == len(ids) {
		t.Fatalf("the phantom has %064b", p.shards)
	}
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`)
	part := fmt.Sprintf("running %d of 40: %d succeeded, 0 dead", own*10, own*10)
	b.awaitReplay(replay, part)
	b.eventually("the streams of the one relay drained", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM relay.replay_streams WHERE drained`)
		return n == own, fmt.Sprint(n)
	})
	if n := scan[int](b, `SELECT count(*) FROM relay.log WHERE replay_id = $1 AND `+p.has(), replay); n != 0 {
		t.Errorf("%d entries of the other relay's webhooks are on record", n)
	}
	b.awaitReplay(replay, part)
	p.leave()
	b.awaitReplay(replay, "finished 40 of 40: 40 succeeded, 0 dead")
	b.once(replay, 4, 10)
}

// TestACancelledReplayWaitsForItsLastStream: another relay died, with a delivery
// on record beyond the cursor that nobody had counted. It is over when that one
// is cancelled.
func TestACancelledReplayWaitsForItsLastStream(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ids := b.hooks(4)
	b.start(nil)
	b.chat(1, 1, 1, 10)
	b.awaitStatus("succeeded", 40)
	p := b.phantom()
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`)
	var changes []relay.Change
	for _, id := range ids {
		if !p.shards.Has(id) {
			continue
		}
		seq := scan[int64](b, `SELECT event_seq FROM relay.replay_deliveries WHERE replay_id = $1 AND webhook_id = $2 ORDER BY pos LIMIT 1`, replay, int64(id))
		now := time.Now()
		key := domain.DeliveryKey{EventSeq: seq, WebhookID: id, ReplayID: domain.ReplayID(replay)}
		events, err := domain.Decide(domain.Delivery{}, domain.Schedule{At: now, Deadline: domain.DefaultDeadline, WebhookVersion: 1})
		if err != nil {
			t.Fatal(err)
		}
		eventID, err := uuid.Parse(scan[string](b, `SELECT event_id::text FROM audit.events WHERE seq = $1`, seq))
		if err != nil {
			t.Fatal(err)
		}
		change := relay.Change{Key: key, AccountID: 1, EventID: eventID, First: 1, Waits: relay.Due{Key: key, Version: 1, Kind: relay.DueOverflow, At: now}}
		for _, event := range events {
			change.Entries = append(change.Entries, domain.EncodeDelivery(event))
		}
		changes = append(changes, change)
	}
	if _, err := postgres.NewLog(b.db).Record(t.Context(), p.id, changes); err != nil {
		t.Fatal(err)
	}
	b.exec(`SELECT relay.cancel_replay($1)`, replay)
	own := 4 - len(changes)
	b.eventually("the streams of the one relay drained", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM relay.replay_streams WHERE drained`)
		return n == own, fmt.Sprint(n)
	})
	b.eventually("the end of what that one had scheduled", func() (bool, string) {
		return scan[bool](b, `SELECT scheduled = succeeded + cancelled FROM relay.replays`), ""
	})
	if is := scan[string](b, `SELECT state FROM relay.replays`); is != "cancelling" {
		t.Errorf("with the other relay's streams not drained it is %s", is)
	}
	p.kill()
	b.eventually("the end of the replay", func() (bool, string) {
		is := scan[string](b, `SELECT state FROM relay.replays`)
		return is == "cancelled", is
	})
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE replay_id = $1 AND status = 'cancelled' AND reason = 'replay_cancelled' AND `+p.has(), replay); n != len(changes) {
		t.Errorf("%d deliveries of the dead relay are cancelled, want %d", n, len(changes))
	}
	counted := scan[string](b, `SELECT format('%s %s %s', scheduled, succeeded, cancelled) FROM relay.replays`)
	logged := scan[string](b, `SELECT format('%s %s %s', count(*), count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'cancelled')) FROM audit.deliveries WHERE replay_id = $1`, replay)
	if counted != logged {
		t.Errorf("the replay says %s, the log %s", counted, logged)
	}
}

func TestRelaysKeepAReplaysRateTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.hooks(4)
	b.start(name("a"))
	b.shares("a 64")
	b.start(name("b"))
	b.shares("a 32, b 32")
	b.chat(1, 1, 1, 20)
	b.awaitStatus("succeeded", 80)
	begun := time.Now()
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), rate => 40)`)
	b.awaitReplay(replay, "finished 80 of 80: 80 succeeded, 0 dead")
	took := time.Duration(0)
	for _, p := range b.receiver.got("") {
		if p.replay != "" {
			took = max(took, p.at.Sub(begun))
		}
	}
	// A tenth of a second's worth comes at once, which is 4.
	if took < 74*time.Second/40 {
		t.Errorf("80 deliveries at 40/s took %s", took)
	}
	b.once(replay, 4, 20)
}
