package relay

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// fakeLog answers as a test says.
type fakeLog struct {
	record  func(ctx context.Context, changes []Change) (int64, error)
	written func(Change) (bool, error)
}

func (l *fakeLog) Record(ctx context.Context, _ int64, changes []Change) (int64, error) {
	return l.record(ctx, changes)
}

func (l *fakeLog) Written(_ context.Context, _ int64, change Change) (bool, error) {
	return l.written(change)
}

func starts(n int) []*step {
	steps := make([]*step, n)
	for i := range steps {
		steps[i] = &step{kind: stepStart, Change: Change{Key: domain.DeliveryKey{EventSeq: int64(i + 1), WebhookID: 1}}}
	}
	return steps
}

// TestAStartWhoseAnswerWasLostIsKnownToBeOurs: the commit came through, its
// answer did not, and the database is not back yet when it is asked about it.
// Taken for another's, the attempt would stay open for ever.
func TestAStartWhoseAnswerWasLostIsKnownToBeOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		log := &fakeLog{
			record: func(context.Context, []Change) (int64, error) { return 0, ErrConflict },
			written: func(Change) (bool, error) {
				asked++
				if asked < 4 {
					return false, errors.New("no connection")
				}
				return true, nil
			},
		}
		r := newRecorder(log, 1, slog.New(slog.DiscardHandler), nil)
		group := starts(2)
		if err := r.write(t.Context(), group); err != nil {
			t.Fatal(err)
		}
		for _, s := range group {
			if s.err != nil {
				t.Errorf("the start of event %d is taken for another's: %v", s.Key.EventSeq, s.err)
			}
		}
	})
}

// TestAGroupThatIsTooSlowIsHalved: else it would be tried again for ever, and
// nothing be recorded any more.
func TestAGroupThatIsTooSlowIsHalved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		written := map[int64]int{}
		log := &fakeLog{record: func(ctx context.Context, changes []Change) (int64, error) {
			select {
			case <-time.After(time.Duration(len(changes)) * 10 * time.Millisecond):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
			for _, c := range changes {
				written[c.Key.EventSeq]++
			}
			return 1, nil
		}}
		r := newRecorder(log, 1, slog.New(slog.DiscardHandler), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := r.write(ctx, starts(1000)); err != nil {
			t.Fatal(err)
		}
		if len(written) != 1000 {
			t.Errorf("%d of 1000 steps are written", len(written))
		}
	})
}

// TestStepsOfReplaysGiveWay: what fresh deliveries record never waits for more
// than a few of them, and they get on nevertheless. Alone they have all, and so
// they have when the relay stops.
func TestStepsOfReplaysGiveWay(t *testing.T) {
	t.Parallel()
	t.Run("then they are alone", func(t *testing.T) { giveWay(t, false) })
	t.Run("then the relay stops", func(t *testing.T) { giveWay(t, true) })
}

func giveWay(t *testing.T, stops bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const replayed, fresh = 5000, 500
		log := &fakeLog{record: func(_ context.Context, changes []Change) (int64, error) {
			time.Sleep(time.Duration(len(changes)) * time.Millisecond / 10)
			return 1, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		submitted := map[*step]time.Time{}
		var recorded, longest atomic.Int64 // the latter in nanoseconds
		r := newRecorder(log, 1, slog.New(slog.DiscardHandler), func(group []*step) {
			for _, s := range group {
				if s.replays() {
					recorded.Add(1)
				} else {
					longest.Store(max(longest.Load(), int64(time.Since(submitted[s]))))
				}
			}
		})
		var behind []*step
		for _, s := range starts(replayed) {
			s.Key.ReplayID = 1
			behind = append(behind, s)
		}
		steps := starts(fresh)
		begun := time.Now()
		for i, s := range steps {
			submitted[s] = begun.Add(time.Duration(i) * 10 * time.Millisecond)
		}
		r.submit(steps[:1])
		r.submit(behind)
		done := make(chan error, 1)
		go func() { done <- r.run(ctx) }()
		for i := 1; i < fresh; i++ {
			time.Sleep(time.Until(submitted[steps[i]]))
			r.submit(steps[i : i+1])
		}
		synctest.Wait()
		beside := recorded.Load()
		if stops {
			r.hasten()
			time.Sleep((replayed - time.Duration(beside) + maxBehind) * time.Millisecond / 10)
			synctest.Wait()
			if n := recorded.Load(); n != replayed {
				t.Errorf("%d of %d steps of the replay were recorded once the relay stopped", n, replayed)
			}
		}
		// One group of a replay's may be under way; its own has none of these.
		if most := (maxBehind + 1) * time.Millisecond / 10; time.Duration(longest.Load()) > most {
			t.Errorf("a fresh delivery's step waited %v, want %v at most", time.Duration(longest.Load()), most)
		}
		if beside < replayed/4 || beside > replayed*3/4 {
			t.Errorf("%d of %d steps of the replay were recorded beside fresh deliveries", beside, replayed)
		}
		time.Sleep(quiet + replayed*time.Millisecond/10)
		synctest.Wait()
		if n := recorded.Load(); n != replayed {
			t.Errorf("%d of %d steps of the replay were recorded once it was alone", n, replayed)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestReplaysGetOnBesideWhatNeverPauses: where fresh deliveries' steps wait at
// any moment, some of a replay's go along with them now and then.
func TestReplaysGetOnBesideWhatNeverPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var r *recorder
		log := &fakeLog{record: func(_ context.Context, changes []Change) (int64, error) {
			time.Sleep(time.Duration(len(changes)) * time.Millisecond / 10)
			if ctx.Err() == nil {
				r.submit(starts(5))
			}
			return 1, nil
		}}
		recorded, most := 0, 0
		r = newRecorder(log, 1, slog.New(slog.DiscardHandler), func(group []*step) {
			n := 0
			for _, s := range group {
				if s.replays() {
					n++
				}
			}
			recorded, most = recorded+n, max(most, n)
		})
		behind := starts(1000)
		for _, s := range behind {
			s.Key.ReplayID = 1
		}
		r.submit(starts(5))
		r.submit(behind)
		done := make(chan error, 1)
		go func() { done <- r.run(ctx) }()
		time.Sleep(10 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if recorded < 400 || recorded > 800 || most != maxBehind {
			t.Errorf("%d steps of the replay were recorded, up to %d at once", recorded, most)
		}
	})
}

// TestWhatOverflowsHoldsUpNoStart: a flood of it is on its way to the due table
// when a delivery starts, and both get on, however many starts there are.
func TestWhatOverflowsHoldsUpNoStart(t *testing.T) {
	t.Parallel()
	r := newRecorder(nil, 1, slog.New(slog.DiscardHandler), nil)
	const flood = 100_000
	spilled := starts(flood)
	for _, s := range spilled {
		s.kind, s.Waits.Kind = stepWait, DueOverflow
	}
	r.submit(spilled)
	left := spilled
	for groups := 0; len(left) > 0; groups++ {
		started := starts([]int{1, 0, 3000, maxGroup - maxSpilled}[groups%4])
		r.submit(started)
		group, fresh := r.next(maxBehind, false)
		n := min(len(left), maxSpilled)
		if len(group) != len(started)+n || fresh != len(group) {
			t.Fatalf("a group has %d steps, %d of them fresh deliveries', want %d starts and %d that spill", len(group), fresh, len(started), n)
		}
		if !slices.Equal(group[:len(started)], started) || !slices.Equal(group[len(started):], left[:n]) {
			t.Fatalf("group %d has its steps in another order", groups)
		}
		left = left[n:]
	}
	r.submit(spilled)
	r.submit(starts(2 * maxGroup))
	if group, _ := r.next(maxBehind, false); len(group) != maxGroup || !group[maxGroup-maxSpilled].spills() || group[maxGroup-maxSpilled-1].spills() {
		t.Errorf("a group of %d steps has another part of those that spill", len(group))
	}
	// A barrier waits for each kind.
	var begun, back tally
	begun.count(spilled[0])
	begun.count(starts(1)[0])
	back.count(starts(1)[0])
	back.count(starts(1)[0])
	if back.covers(begun) {
		t.Error("what overflows counts as on record, and is not")
	}
}
