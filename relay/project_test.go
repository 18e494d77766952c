package relay

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// fakeProjection notes what is added, and fails as often as told.
type fakeProjection struct {
	Projection
	fails     int
	added     []addition
	scheduled map[int64]int // deliveries by batch, of webhook 1
	unfolded  []int64
	finished  map[int64]Tally
	merged    int
}

func (p *fakeProjection) Begin(context.Context, int64, int64) error { return nil }

func (p *fakeProjection) Batch(context.Context) (int64, error) { return 7, nil }

func (p *fakeProjection) Add(_ context.Context, _ int64, to Projected, tally Tally) error {
	p.added = append(p.added, addition{tally, to})
	if p.fails > 0 {
		p.fails--
		return errors.New("the answer was lost")
	}
	return nil
}

func (p *fakeProjection) Scheduled(_ context.Context, batch int64) ([]Beginnings, error) {
	return []Beginnings{{WebhookID: 1, AccountID: 1, FirstSeq: batch, At: time.Unix(1000, 0), Count: p.scheduled[batch]}}, nil
}

func (p *fakeProjection) Unfolded(context.Context) ([]int64, error) { return p.unfolded, nil }

func (p *fakeProjection) Rest(context.Context, int64) ([]LogEntry, error) {
	if p.fails > 0 {
		p.fails--
		return nil, errors.New("not now")
	}
	return []LogEntry{{Key: domain.DeliveryKey{EventSeq: 3, WebhookID: 1}, AccountID: 1, Commit: 4, Event: domain.Dead{}}}, nil
}

func (p *fakeProjection) Finish(_ context.Context, _, writer, commit int64, rest Tally) error {
	if commit == 4 {
		p.finished[writer] = rest
	}
	return nil
}

func (p *fakeProjection) Merge(context.Context, int64, []domain.WebhookID, time.Time) (bool, error) {
	p.merged++
	return p.merged > 1, nil
}

func newTestProjector(t *testing.T, fake *fakeProjection) *projector {
	t.Helper()
	low := int64(100)
	p, err := newProjector(t.Context(), fake, 1, func() int64 { low++; return low }, slog.New(slog.DiscardHandler))
	if err == nil {
		err = p.tails(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func succeeded(seq, commit int64) *step {
	event := domain.AttemptSucceeded{At: time.Unix(1000, 0), Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, Duration: time.Millisecond}}
	return &step{
		Change: Change{Key: domain.DeliveryKey{EventSeq: seq, WebhookID: 1}, AccountID: 1, Entries: []domain.Entry{domain.EncodeDelivery(event)}},
		events: []domain.DeliveryEvent{event}, commit: commit,
	}
}

func TestAnAdditionGoesUpToWhatItTells(t *testing.T) {
	t.Parallel()
	fake := &fakeProjection{}
	p := newTestProjector(t, fake)
	refused := succeeded(2, 0)
	refused.err = errors.New("refused")
	p.recorded([]*step{succeeded(1, 11), refused, succeeded(3, 12)})
	if err := p.add(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if len(fake.added) != 1 || fake.added[0].to != (Projected{Commit: 12, Batch: 7, Low: 102}) {
		t.Fatalf("added %+v", fake.added)
	}
	if got := fake.added[0].tally[1].Slots[900].Succeeded; got != 2 {
		t.Errorf("%d successes are counted, want 2", got)
	}
	if err := p.add(t.Context(), true); err != nil || len(fake.added) != 1 {
		t.Errorf("with nothing new there are %d additions, %v", len(fake.added), err)
	}
}

// TestWhatHasNoCommitNumberWaitsForOneThatHas: the commit's answer was lost, and
// a successor would count it again.
func TestWhatHasNoCommitNumberWaitsForOneThatHas(t *testing.T) {
	t.Parallel()
	fake := &fakeProjection{}
	p := newTestProjector(t, fake)
	p.recorded([]*step{succeeded(1, 11), succeeded(2, 0)})
	if err := p.add(t.Context(), true); err != nil || len(fake.added) != 0 {
		t.Fatalf("added %+v, %v", fake.added, err)
	}
	p.recorded([]*step{succeeded(3, 13)})
	if err := p.add(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if len(fake.added) != 1 || fake.added[0].to.Commit != 13 || fake.added[0].tally[1].Slots[900].Succeeded != 3 {
		t.Errorf("added %+v", fake.added)
	}
}

// TestALostAnswerIsAskedForAgain: the same addition, and not what came since.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	fake := &fakeProjection{fails: 1}
	p := newTestProjector(t, fake)
	p.recorded([]*step{succeeded(1, 11)})
	if err := p.add(t.Context(), false); err == nil {
		t.Fatal("no error")
	}
	p.recorded([]*step{succeeded(2, 12)})
	for range 2 {
		if err := p.add(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	var counted []int64
	for _, a := range fake.added {
		counted = append(counted, a.to.Commit, a.tally[1].Slots[900].Succeeded)
	}
	if !slices.Equal(counted, []int64{11, 1, 11, 1, 12, 1}) {
		t.Errorf("added %v", counted)
	}
}

// TestBatchesAreCountedOnceAndInOrder: those that the tail hands over, and
// those that it does not.
func TestBatchesAreCountedOnceAndInOrder(t *testing.T) {
	t.Parallel()
	fake := &fakeProjection{scheduled: map[int64]int{9: 10, 10: 100}}
	p := newTestProjector(t, fake)
	batch := func(no int64) *outbox.Batch {
		row := &outbox.Row{}
		row.AccountID, row.Seq = 1, no
		row.Routed.Targets = []domain.Target{{WebhookID: 1}}
		b := &outbox.Batch{Rows: []*outbox.Row{row}}
		b.No, b.At = no, time.Unix(1300, 0)
		return b
	}
	p.confirmed(batch(8))
	p.confirmed(batch(10)) // 9 was another relay's
	p.reloaded(9)
	if err := p.catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.confirmed(batch(10))
	p.confirmed(batch(11))
	if err := p.add(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	a := fake.added[0]
	if a.to.Batch != 11 || a.tally[1].Standing.Pending != 112 {
		t.Errorf("up to batch %d, %d are pending; want 11, 112", a.to.Batch, a.tally[1].Standing.Pending)
	}
	// Each in the slot of its time: those read from the log, and those handed over.
	want := map[int64]*domain.Stats{900: {Scheduled: 110, FirstSeq: 9}, 1200: {Scheduled: 2, FirstSeq: 8}}
	if got := a.tally[1].Slots; !reflect.DeepEqual(got, want) {
		t.Errorf("the slots have %+v and %+v, want %+v and %+v", got[900], got[1200], want[900], want[1200])
	}
}

// TestNothingIsMergedBeforeDeadRelaysAreFolded: rows of before and behind them
// would no longer tell the order.
func TestNothingIsMergedBeforeDeadRelaysAreFolded(t *testing.T) {
	t.Parallel()
	fake := &fakeProjection{fails: 1, unfolded: []int64{5, 6}, finished: map[int64]Tally{}}
	p := newTestProjector(t, fake)
	p.touched[1] = struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(fake.finished) != 0 || fake.merged != 0 {
		t.Fatalf("folded %v, merged %d times", fake.finished, fake.merged)
	}
	if err := p.run(ctx); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(fake.finished)), []int64{5, 6}) || fake.finished[5][1].Standing.Pending != -1 || fake.merged != 1 {
		t.Errorf("folded %+v, merged %d times", fake.finished, fake.merged)
	}
	// A rebuild was at work: what was to be merged still is, until it is.
	p.merged = time.Time{}
	if err := p.merge(t.Context()); err != nil || fake.merged != 2 || len(p.touched) != 0 {
		t.Errorf("merged %d times, %d webhooks are left, %v", fake.merged, len(p.touched), err)
	}
}
