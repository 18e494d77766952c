package relay

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/outrider-relay/outrider/domain"
)

// full gives a field whose room one account's webhooks have taken, with as many
// deliveries waiting, and whose attempts have ended at a pace that lets it begin
// so many ahead.
func full(t *testing.T, most, waiting, ahead int) *field {
	t.Helper()
	f := newField(t, most)
	f.slow = true
	f.hook(1, 1, 2*most)
	f.deliver(1, most-most/headroom+waiting, 2)
	f.turnoverOf(f.accountOf(1)).now = ahead * turnoverSpans
	f.clock = f.clock.Add(turnoverSpan)
	f.round()
	f.check()
	if n := f.flyingOf(1); n != most-most/headroom {
		t.Fatalf("%d attempts have room", n)
	}
	return f
}

func TestAsManyAreBegunAheadAsEndedOfLate(t *testing.T) {
	t.Parallel()
	f := full(t, 16, 20, 3)
	if n := f.ahead.attempts; n != 3 {
		t.Errorf("%d attempts are begun ahead, want 3", n)
	}
	f.record(len(f.recording))
	f.round()
	f.check()
	if n := f.ahead.attempts; n != 3 {
		t.Errorf("%d attempts are begun ahead once these are on record, want 3", n)
	}

	// None that ended in this span counts yet.
	for range 5 {
		f.land(0)
	}
	f.round()
	f.check()
	if n := f.ahead.attempts; n != 3 {
		t.Errorf("%d attempts are begun ahead when 5 have ended, want 3", n)
	}
	// They all do in the next, rounded up; and in the one after that none.
	for i, want := range []int{1, 0} {
		f.clock = f.clock.Add(turnoverSpan)
		if n := (f.turnoverOf(f.accountOf(1)).before + turnoverSpans - 1) / turnoverSpans; n != want {
			t.Errorf("%d spans later %d may be begun ahead, want %d", i+1, n, want)
		}
	}
}

// TestThePaceOfLongAgoDoesNotCount: nothing ended since, so nothing is begun ahead.
func TestThePaceOfLongAgoDoesNotCount(t *testing.T) {
	t.Parallel()
	f := newField(t, 16)
	f.hook(1, 1, 100)
	f.turnoverOf(f.accountOf(1)).now = 500
	f.clock = f.clock.Add(2 * turnoverSpan)
	f.deliver(1, 50, 2)
	f.round()
	f.check()
	if f.flyingOf(1) != 14 || f.ahead.attempts != 0 {
		t.Errorf("%d attempts are begun, %d more ahead", f.flyingOf(1), f.ahead.attempts)
	}
}

// TestNeverMoreAreBegunAheadThanHaveRoom, whatever the pace.
func TestNeverMoreAreBegunAheadThanHaveRoom(t *testing.T) {
	t.Parallel()
	f := newField(t, 8)
	for id := range domain.WebhookID(5) {
		account := domain.AccountID(id + 1)
		f.hook(account, id+1, 100)
		f.turnoverOf(f.accountOf(account)).now = 1000
	}
	f.clock = f.clock.Add(turnoverSpan)
	for id := range domain.WebhookID(5) {
		f.deliver(id+1, 40, 2)
	}
	f.round()
	f.check()
	if f.ahead.attempts != 8 {
		t.Errorf("%d attempts are begun ahead, want 8", f.ahead.attempts)
	}
}

// TestWhatIsBegunAheadIsSentWhenThereIsRoom: at once where it is on record, else
// once it is; and one after the other.
func TestWhatIsBegunAheadIsSentWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	f := full(t, 16, 20, 2)
	f.record(14 + 1) // those with room, and the first ahead
	first, second := f.accountOf(1).ahead[0].item, f.accountOf(1).ahead[1].item
	if len(f.aloft) != 14 {
		t.Fatalf("%d POSTs are under way, want 14", len(f.aloft))
	}
	f.clock = f.clock.Add(time.Millisecond)
	f.land(0)
	f.round()
	f.check()
	if last := f.aloft[len(f.aloft)-1]; len(f.aloft) != 14 || last != first || !last.begun.Equal(f.clock) {
		t.Fatalf("%d POSTs are under way, and the last is not that of the first that was begun ahead", len(f.aloft))
	}
	f.ahead.urgent = false
	f.land(0)
	f.serve()
	if len(f.aloft) != 13 || !f.ahead.urgent {
		t.Fatalf("%d POSTs are under way although the next was not on record, or nobody waits for that", len(f.aloft))
	}
	f.record(1)
	f.check()
	if last := f.aloft[len(f.aloft)-1]; len(f.aloft) != 14 || last != second {
		t.Errorf("%d POSTs are under way, and the last is not that of the second that was begun ahead", len(f.aloft))
	}
}

// TestNothingIsBegunAheadWhereARateOrABreakerTellsWhen: by the time that there is
// room, others may have begun, and the receiver would get them at once. Webhooks
// behind it do not wait for it, nor does it lose its turn.
func TestNothingIsBegunAheadWhereARateOrABreakerTellsWhen(t *testing.T) {
	t.Parallel()
	for name, tell := range map[string]func(*queue){
		"rate":    func(q *queue) { q.rate = rate.NewLimiter(1000, 1000) },
		"breaker": func(q *queue) { q.breaker.open = true },
	} {
		f := full(t, 16, 0, 0)
		f.hook(1, 2, 100)
		f.hook(1, 3, 100)
		f.turnoverOf(f.accountOf(1)).now = 3 * turnoverSpans
		f.clock = f.clock.Add(turnoverSpan)
		tell(f.queues[2])
		f.deliver(2, 10, 2)
		f.deliver(3, 10, 2)
		f.round()
		f.check()
		a := f.accountOf(1)
		if len(a.ahead) != 3 || slices.ContainsFunc(a.ahead, func(s *step) bool { return s.Key.WebhookID != 3 }) {
			t.Errorf("%s: begun ahead are %d attempts, some perhaps of the one that is told when", name, len(a.ahead))
		}
		if a.waiting[0] != f.queues[2] {
			t.Errorf("%s: it has lost its turn", name)
		}
	}
}

// TestAnotherAccountIsServedBeforeWhatIsBegunAhead: what one has begun ahead gives
// it no more room than it would have without.
func TestAnotherAccountIsServedBeforeWhatIsBegunAhead(t *testing.T) {
	t.Parallel()
	f := full(t, 16, 40, 8)
	f.slow = false
	f.record(len(f.recording))
	f.hook(2, 2, 100)
	f.deliver(2, 40, 2)
	for range 20 {
		f.round()
		f.check()
		for i, it := range f.aloft {
			if it.AccountID == 1 {
				f.land(i)
				break
			}
		}
	}
	f.round()
	f.check()
	if one, two := f.flyingOf(1), f.flyingOf(2); one < two-1 || two < one-1 || two < 6 {
		t.Errorf("the one has %d attempts in room, the other %d", one, two)
	}
	if f.ahead.attempts == 0 {
		t.Error("none is begun ahead any more")
	}
}

// TestWhatIsBegunAheadForAWebhookThatIsPausedIsNotSent: nor for one that was
// disabled. It was to be sent before that, and waited for room.
func TestWhatIsBegunAheadForAWebhookThatIsPausedIsNotSent(t *testing.T) {
	t.Parallel()
	for _, state := range []domain.WebhookState{domain.WebhookPaused, domain.WebhookDisabled} {
		f := full(t, 16, 20, 2)
		f.record(len(f.recording))
		hook := *f.queues[1].hook
		hook.Version, hook.State = 2, state
		if state == domain.WebhookDisabled {
			hook.DisabledVersion = 2
		}
		f.queues[1].hook = &hook
		ahead := f.accountOf(1).ahead[0]
		f.land(0)
		f.round()
		f.check()
		if len(f.aloft) != 13 || f.ahead.attempts != 0 {
			t.Errorf("%s: %d POSTs are under way, %d begun ahead", state, len(f.aloft), f.ahead.attempts)
		}
		var types []string
		for _, s := range f.recording {
			if s.item == ahead.item {
				for _, e := range s.Entries {
					types = append(types, e.Type)
				}
			}
		}
		want := []string{"attempt_unknown"}
		if state == domain.WebhookDisabled {
			want = append(want, "cancelled")
		}
		if !slices.Equal(types, want) {
			t.Errorf("%s: recorded of it is %q, want %q", state, types, want)
		}
	}
}

// TestAStartAheadThatIsRefusedIsForgotten: it had no room to give back, nor its
// place at the webhook where it was withdrawn.
func TestAStartAheadThatIsRefusedIsForgotten(t *testing.T) {
	t.Parallel()
	for _, withdrawn := range []bool{false, true} {
		f := full(t, 16, 20, 2)
		f.record(14)
		s := f.recording[0]
		if !s.ahead {
			t.Fatal("it has room")
		}
		if withdrawn {
			f.withdraw(s, "withdrawn")
			f.check()
		}
		s.err = errors.New("refused")
		f.record(1)
		f.check()
		if f.ahead.attempts != 1 || f.flyingOf(1) != 14 {
			t.Errorf("withdrawn %t: %d attempts have room, %d more are begun ahead", withdrawn, f.flyingOf(1), f.ahead.attempts)
		}
	}
}

// TestWhatIsToBeRecordedGathersOnlyWhileNobodyWaitsForIt: nor for longer than
// gatherFor.
func TestWhatIsToBeRecordedGathersOnlyWhileNobodyWaitsForIt(t *testing.T) {
	t.Parallel()
	gathering := func() *field {
		f := full(t, 16, 20, 4)
		f.record(14 + 3)
		f.ahead.urgent = false
		f.out = []*step{{}}
		return f
	}
	f := gathering()
	if got := f.gather(f.clock); got != gatherFor {
		t.Fatalf("it gathers for %s, want %s", got, gatherFor)
	}
	if got := f.untilNext(); got != gatherFor {
		t.Errorf("the dispatcher looks again in %s", got)
	}
	if got := f.gather(f.clock.Add(gatherFor - time.Millisecond)); got != time.Millisecond {
		t.Errorf("towards the end it gathers for %s", got)
	}
	if got := f.gather(f.clock.Add(gatherFor)); got != 0 {
		t.Errorf("it gathers for another %s when the time is over", got)
	}
	for what, change := range map[string]func(*field){
		"nothing is there":          func(f *field) { f.out = nil },
		"the relay stops":           func(f *field) { f.stopping = true },
		"a start with room is":      func(f *field) { f.ahead.urgent = true },
		"something waits for it":    func(f *field) { f.barriers = append(f.barriers, barrier{}) },
		"half of it is on its way":  func(f *field) { f.launch(f.accountOf(1)); f.launch(f.accountOf(1)) },
		"nothing is begun ahead":    func(f *field) { f.abandon(AllShards) },
		"it was handed over before": func(f *field) { f.gather(f.clock.Add(-gatherFor)) },
	} {
		f := gathering()
		change(f)
		if got := f.gather(f.clock); got != 0 {
			t.Errorf("it gathers for %s although %s", got, what)
		}
	}
}

// TestWhatWasHandedOverGathersNoMore: what comes next gathers anew.
func TestWhatWasHandedOverGathersNoMore(t *testing.T) {
	t.Parallel()
	f := full(t, 16, 20, 4)
	f.recorder = newRecorder(nil, 1, f.logger, nil)
	f.record(len(f.recording))
	f.out = []*step{{}}
	if got := f.gather(f.clock); got != 0 {
		t.Fatalf("starts with room gather for %s", got)
	}
	f.submit()
	f.out = []*step{{}}
	if got := f.gather(f.clock); got != gatherFor {
		t.Fatalf("what comes after starts with room gathers for %s, want %s", got, gatherFor)
	}
	f.clock = f.clock.Add(gatherFor)
	f.submit()
	f.out = []*step{{}}
	if got := f.gather(f.clock); got != gatherFor {
		t.Errorf("what comes after that gathers for %s, want %s", got, gatherFor)
	}
}

// TestShardsAreGivenUpOnceNothingOfThemWaitsForRoom: their next owner takes for
// under way what is on record, and would repeat what is sent later than that.
func TestShardsAreGivenUpOnceNothingOfThemWaitsForRoom(t *testing.T) {
	t.Parallel()
	f := full(t, 16, 20, 2)
	f.record(len(f.recording))
	f.recorder = newRecorder(nil, 1, f.logger, nil)
	given := make(chan struct{})
	go func() {
		defer close(given)
		if _, err := f.lose(t.Context(), 1<<63); err != nil { // none of webhook 1's
			t.Error(err)
		}
	}()
	<-f.inbox.wake
	f.take()
	f.clock = f.clock.Add(time.Millisecond)
	for range 2 {
		if len(f.barriers) > 0 || f.shards != AllShards {
			t.Fatal("something waits for room, and shards are given up")
		}
		f.land(0)
		f.round()
		f.check()
	}
	for gone := false; !gone; {
		select {
		case <-f.inbox.wake:
			f.take()
		case <-given:
			gone = true
		}
	}
	if f.ahead.attempts != 0 {
		t.Errorf("%d are begun ahead meanwhile", f.ahead.attempts)
	}
	f.take()
	f.clock = f.clock.Add(turnoverSpan)
	f.land(0)
	f.round()
	f.check()
	if f.ahead.attempts == 0 {
		t.Error("none is begun ahead afterwards")
	}
}

// TestShardsAreGivenUpWhereReceiversHang: what waits for room is not waited for.
func TestShardsAreGivenUpWhereReceiversHang(t *testing.T) {
	t.Parallel()
	f := full(t, 16, 20, 3)
	f.record(14 + 1) // one of three is on record
	begun := slices.Clone(f.accountOf(1).ahead)
	f.drain(t.Context())
	f.take()
	f.giveUp(AllShards)
	if f.ahead.attempts != 0 || f.ahead.recorded != 0 {
		t.Fatalf("%d wait for room still", f.ahead.attempts)
	}
	ended := map[*item]string{}
	for _, s := range f.out {
		ended[s.item] += s.Entries[0].Type
	}
	for i, s := range begun {
		if ended[s.item] != "attempt_unknown" {
			t.Errorf("recorded of the one at %d is %q", i, ended[s.item])
		}
	}
	f.out = nil
	f.record(2)
	if len(f.aloft) != 14 {
		t.Errorf("%d POSTs are under way once the starts are on record, want 14", len(f.aloft))
	}
}
