package relay

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// TestABreakersLife: it opens, waits longer and longer for its probes, closes,
// and goes on where it was if it opens again soon.
func TestABreakersLife(t *testing.T) {
	t.Parallel()
	p := domain.BreakerPolicy{Failures: 3, First: time.Second, Last: 5 * time.Second}
	at := func(second float64) time.Time {
		return time.Unix(1_000_000, 0).Add(time.Duration(second * float64(time.Second)))
	}
	var b breaker
	for i, step := range []struct {
		status       int
		begun, ended float64
		open         bool
		probe        float64 // when the next one may begin, where it is open
	}{
		{500, 1, 2, false, 0},
		{500, 1, 2, false, 0},
		{404, 1, 2, false, 0}, // an answer: the count begins anew
		{500, 3, 4, false, 0},
		{0, 3, 4, false, 0},
		{503, 3, 4, true, 5},
		{500, 3, 4.5, true, 5}, // began before it opened
		{204, 3, 4.5, true, 5}, // this one too
		{500, 5, 6, true, 8},
		{500, 8, 8, true, 12},
		{500, 12, 12, true, 17}, // no longer than Last
		{500, 17, 17, true, 22},
		{429, 22, 23, false, 0}, // it answers
		{500, 21, 24, false, 0}, // began before
		{500, 24, 24, false, 0},
		{500, 24, 25, false, 0},
		{500, 25, 26, true, 31}, // again, and soon
		{204, 31, 31, false, 0},
		{500, 60, 60, false, 0},
		{500, 60, 60, false, 0},
		{500, 60, 60, true, 61}, // long after
	} {
		was := b.open
		o := answer(step.status)
		if step.status == 0 {
			o = domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorConnect}
		}
		changed := b.judge(p, o, at(step.begun), at(step.ended), 0.5)
		if b.open != step.open || changed != (was != step.open) {
			t.Fatalf("step %d: open %t, changed %t", i, b.open, changed)
		}
		if step.open && !b.probe.Equal(at(step.probe)) {
			t.Fatalf("step %d: the next probe is at %v, want %v", i, b.probe.Sub(at(0)).Seconds(), step.probe)
		}
	}
	if want := "3 attempts in a row failed, the last one with: status 500"; b.reason != want {
		t.Errorf("the reason is %q", b.reason)
	}

	var off breaker
	for range 100 {
		if off.judge(domain.BreakerPolicy{Failures: -1}, answer(500), at(1), at(2), 0.5) {
			t.Fatal("a breaker opens that is off")
		}
	}

	var taken breaker
	taken.resume(p, at(100), at(104))
	if taken.judge(p, answer(500), at(104), at(105), 0.5) || !taken.open || !taken.probe.Equal(at(109)) {
		t.Errorf("one taken up probes next at %v", taken.probe.Sub(at(0)).Seconds())
	}
	if !taken.judge(p, answer(200), at(109), at(110), 0.5) || taken.open {
		t.Error("one taken up does not close")
	}
}

// alone gives a dispatcher with one webhook, whose clock is told.
func alone(settings domain.Settings) (d *dispatcher, q *queue, now *time.Time) {
	at := time.Unix(1_000_000, 0)
	now = &at
	d = newDispatcher(nil, nil, domain.DefaultRetryPolicy, func() time.Time { return *now }, slog.New(slog.DiscardHandler))
	d.shards = AllShards
	settings.MaxConcurrency = max(settings.MaxConcurrency, 1)
	d.configure(domain.Webhook{ID: 1, AccountID: 1, Version: 1, State: domain.WebhookEnabled, Settings: settings})
	return d, d.queues[1], now
}

// wait puts n deliveries in a lane, which keep no order.
func wait(d *dispatcher, q *queue, n int, replay domain.ReplayID) {
	for i := range n {
		state := domain.Evolve(domain.Delivery{}, domain.Scheduled{At: d.now(), Deadline: d.now().Add(time.Hour), WebhookVersion: 1})
		d.enqueue(q, &item{Delivery: Delivery{
			Key: domain.DeliveryKey{EventSeq: int64(1000*int(replay) + i + 1), WebhookID: q.hook.ID, ReplayID: replay}, State: state, Body: []byte("{}"), Size: 2,
		}})
	}
}

// begun takes the steps that start an attempt, of first deliveries and of
// replays.
func begun(d *dispatcher) (fresh, replays int) {
	for _, s := range d.out {
		if s.kind == stepStart && s.replays() {
			replays++
		} else if s.kind == stepStart {
			fresh++
		}
	}
	d.out = nil
	return fresh, replays
}

// TestARateIsOfAllAttemptsAndFreshOnesAreFirst, and nothing is looked at before
// it is worth it.
func TestARateIsOfAllAttemptsAndFreshOnesAreFirst(t *testing.T) {
	t.Parallel()
	d, q, now := alone(domain.Settings{RateLimit: 20, MaxConcurrency: 256})
	wait(d, q, 10, 7)
	wait(d, q, 3, 0)
	d.pump(q)
	if fresh, replays := begun(d); fresh != 2 || replays != 0 { // a tenth of a second's
		t.Fatalf("%d and %d begin at once, want 2 and none", fresh, replays)
	}
	total := 2
	for range 20 {
		again := d.alarms.until(*now)
		if again <= 0 || again > 51*time.Millisecond {
			t.Fatalf("it is looked at again in %v, want 50ms", again)
		}
		if q := d.alarms.due(now.Add(again - time.Millisecond)); q != nil {
			t.Fatal("an alarm comes before its time")
		}
		*now = now.Add(again)
		if due := d.alarms.due(*now); due != q {
			t.Fatalf("no alarm comes at its time")
		}
		d.pump(q)
		fresh, replays := begun(d)
		if fresh+replays != 1 || fresh != 1 && total < 3 {
			t.Fatalf("%d and %d begin as number %d", fresh, replays, total+1)
		}
		total++
		if total == 13 {
			break
		}
	}
	if total != 13 || len(d.alarms) != 0 {
		t.Errorf("%d have begun and %d alarms are left, want 13 and none", total, len(d.alarms))
	}
}

func TestAWebhookWithoutALimitHasNoLimiter(t *testing.T) {
	t.Parallel()
	d, q, _ := alone(domain.Settings{RateLimit: 1})
	hook := *q.hook
	hook.Version, hook.Settings.RateLimit = 2, 0
	d.configure(hook)
	if q.rate != nil {
		t.Error("a limiter is left")
	}
	wait(d, q, 1, 0)
	d.pump(q)
	if fresh, _ := begun(d); fresh != 1 || len(d.alarms) != 0 {
		t.Errorf("%d begin, with %d alarms", fresh, len(d.alarms))
	}
}

// TestAnOpenBreakerLetsOneProbeThrough at its time, and when something comes
// only after that.
func TestAnOpenBreakerLetsOneProbeThrough(t *testing.T) {
	t.Parallel()
	d, q, now := alone(domain.Settings{MaxConcurrency: 16})
	d.webhooks = recorded{}
	q.breaker.open, q.breaker.since, q.breaker.pause, q.breaker.probe = true, *now, time.Second, now.Add(time.Second)
	d.broken[q] = struct{}{}
	wait(d, q, 5, 0)
	d.pump(q)
	if fresh, _ := begun(d); fresh != 0 || d.alarms.until(*now) != time.Second {
		t.Fatalf("%d begin, and it is looked at in %v", fresh, d.alarms.until(*now))
	}
	*now = now.Add(time.Second)
	d.alarms.due(*now)
	d.pump(q)
	d.pump(q)
	if fresh, _ := begun(d); fresh != 1 || d.weigh().HalfOpen != 1 || d.weigh().Open != 0 {
		t.Fatalf("%d begin as a probe: %+v", fresh, d.weigh())
	}
	*now = now.Add(time.Minute)
	d.pump(q)
	if fresh, _ := begun(d); fresh != 0 || len(d.alarms) != 0 {
		t.Fatalf("%d begin beside the probe, with %d alarms", fresh, len(d.alarms))
	}
}

// TestWhatIsCancelledLeavesFromBehindWhatWaits for a probe: of two replays one is
// called off.
func TestWhatIsCancelledLeavesFromBehindWhatWaits(t *testing.T) {
	t.Parallel()
	d, q, now := alone(domain.Settings{MaxConcurrency: 16})
	q.breaker.open, q.breaker.since, q.breaker.probe = true, *now, now.Add(time.Hour)
	wait(d, q, 2, 7)
	wait(d, q, 3, 8)
	d.replays[8] = ReplayCancelling
	d.pump(q)
	ended := 0
	for _, s := range d.out {
		if s.kind == stepEnd && s.Key.ReplayID == 8 && s.item.State.Status == domain.DeliveryCancelled {
			ended++
		}
	}
	if ended != 3 || len(d.out) != 3 || len(q.lanes[replayLane].runnable) != 2 || q.lanes[replayLane].size != 2 {
		t.Errorf("%d of %d steps end the replay's, and %d wait on", ended, len(d.out), len(q.lanes[replayLane].runnable))
	}
}

// recorded keeps nothing.
type recorded struct{ Webhooks }

func (recorded) ChangeBreaker(context.Context, domain.AccountID, domain.WebhookID, domain.WebhookCommand) (domain.Webhook, error) {
	return domain.Webhook{}, nil
}

// TestTheRecordIsAskedHowLongAWebhookFails only where this relay has seen it fail
// for a while, and nothing else: not at the first failure behind a silence.
func TestTheRecordIsAskedHowLongAWebhookFails(t *testing.T) {
	t.Parallel()
	const after = 5 * 24 * time.Hour
	for name, steps := range map[string][]struct {
		wait   time.Duration
		status int
		asks   bool
	}{
		"it fails on":           {{0, 500, false}, {59 * time.Minute, 404, false}, {time.Minute, 500, true}},
		"it succeeds":           {{0, 500, false}, {50 * time.Minute, 200, false}, {time.Second, 500, false}, {59 * time.Minute, 500, false}},
		"it got nothing":        {{0, 500, false}, {6 * 24 * time.Hour, 500, false}, {5 * time.Second, 500, false}},
		"its waits are long":    {{0, 500, false}, {26 * time.Hour, 500, true}},
		"it is asked meanwhile": {{0, 500, false}, {time.Hour, 500, true}, {time.Second, 500, false}},
	} {
		d, q, now := alone(domain.Settings{})
		d.disableAfter = after
		for i, step := range steps {
			*now = now.Add(step.wait)
			d.reads = nil
			d.lasts(q, answer(step.status))
			if asks := len(d.reads) > 0; asks != step.asks {
				t.Errorf("%s: step %d asks: %t", name, i, asks)
			}
		}
	}
}

func TestAlarmsComeInOrder(t *testing.T) {
	t.Parallel()
	var a alarms
	at := time.Unix(1_000_000, 0)
	queues := make([]*queue, 100)
	for i := range queues {
		queues[i] = newQueue(domain.Webhook{ID: domain.WebhookID(i)})
		a.set(queues[i], at.Add(time.Duration(37*i%100)*time.Second))
	}
	a.set(queues[0], at.Add(200*time.Second)) // it was the first
	a.drop(queues[50])
	a.drop(queues[50])
	last, n := time.Time{}, 0
	for q := a.due(at.Add(time.Hour)); q != nil; q = a.due(at.Add(time.Hour)) {
		if q.alarm.at.Before(last) || q == queues[50] {
			t.Fatalf("the alarm of %d comes at %v, after %v", q.hook.ID, q.alarm.at, last)
		}
		last = q.alarm.at
		n++
	}
	if n != 99 || !last.Equal(at.Add(200*time.Second)) {
		t.Errorf("%d alarms came, the last one at %v", n, last)
	}
}
