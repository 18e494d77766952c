package relay

import (
	"context"
	"errors"
	"log/slog"
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
