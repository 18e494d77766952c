package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// StatsSlot is the time that one row of statistics tells of at first.
const StatsSlot = 5 * time.Minute

// Tally is a fold over log entries: what to add to the statistics of each
// webhook.
type Tally map[domain.WebhookID]*WebhookTally

// WebhookTally is what to add to one webhook's statistics.
type WebhookTally struct {
	AccountID domain.AccountID
	Standing  domain.Standing
	// Slots are by the beginning of the slot, in seconds since 1970.
	Slots map[int64]*domain.Stats
}

// Of gives a webhook's tally.
func (t Tally) Of(webhook domain.WebhookID, account domain.AccountID) *WebhookTally {
	w := t[webhook]
	if w == nil {
		w = &WebhookTally{AccountID: account}
		t[webhook] = w
	}
	return w
}

// Count adds an event that happened at a time to the chat event at seq. Events
// come in the order of the log.
func (w *WebhookTally) Count(seq int64, at time.Time, event domain.DeliveryEvent) {
	w.Standing.Count(event)
	w.CountSlot(seq, at, event)
}

// CountSlot is Count without the standing, in whatever order.
func (w *WebhookTally) CountSlot(seq int64, at time.Time, event domain.DeliveryEvent) {
	begin := at.Unix() - at.Unix()%int64(StatsSlot/time.Second)
	slot, known := w.Slots[begin]
	if !known {
		slot = &domain.Stats{}
	}
	if !slot.Count(seq, event) || known {
		return
	}
	if w.Slots == nil {
		w.Slots = map[int64]*domain.Stats{}
	}
	w.Slots[begin] = slot
}

// Projected is up to where statistics are folded: all of a writer's group
// commits up to Commit, and the beginnings of first deliveries up to Batch of
// the chain.
type Projected struct {
	Commit, Batch int64
	// Low is the lowest place in the log of an attempt that may have its
	// outcome behind Commit.
	Low int64
}

// LogEntry is an entry of a delivery's stream, as the statistics take it.
type LogEntry struct {
	Key       domain.DeliveryKey
	AccountID domain.AccountID
	// Commit is the group commit that wrote it.
	Commit int64
	At     time.Time
	Event  domain.DeliveryEvent
}

// Beginnings are the deliveries to a webhook that a batch of the chain began.
type Beginnings struct {
	WebhookID domain.WebhookID
	AccountID domain.AccountID
	// FirstSeq is the lowest place of their chat events.
	FirstSeq int64
	At       time.Time
	Count    int
}

// Projection keeps the statistics of webhooks. What is added is added up by
// whoever reads it.
type Projection interface {
	// Begin notes that a relay has folded nothing of its own yet, before it
	// records anything. ErrFenced as of Log.
	Begin(ctx context.Context, relayID, low int64) error
	// Batch gives the batch up to which the beginnings of first deliveries are
	// folded.
	Batch(ctx context.Context) (int64, error)
	// Add adds a tally together with up to where it goes. What was added before
	// up to the same place is not added again. ErrFenced as of Log.
	Add(ctx context.Context, relayID int64, to Projected, tally Tally) error
	// Unfolded lists the dead relays that did not fold all they recorded.
	Unfolded(ctx context.Context) ([]int64, error)
	// Rest reads what a dead relay recorded and did not fold, in the order of
	// the log. It reads what was open then, never history. What cannot be read is
	// left out.
	Rest(ctx context.Context, writer int64) ([]LogEntry, error)
	// Finish adds the rest of a dead relay, up to a group commit; it has none
	// from then on. Where another one was faster it adds nothing. ErrFenced as of
	// Log.
	Finish(ctx context.Context, relayID, writer, commit int64, rest Tally) error
	// Scheduled counts the deliveries that a batch of the chain began, by webhook.
	// A batch that the chain has no more began none.
	Scheduled(ctx context.Context, batch int64) ([]Beginnings, error)
	// Merge makes few rows of the many of these webhooks, and forgets the
	// relay's older places. It is false while a rebuild is at work, and nothing
	// is merged. ErrFenced as of Log.
	Merge(ctx context.Context, relayID int64, webhooks []domain.WebhookID, now time.Time) (merged bool, err error)
}

// The pace of the projection.
const (
	projectInterval = 2 * time.Second
	// projectPatience is how long a tally gathers where a row of it would tell
	// of fewer than projectWorth entries.
	projectPatience = 10 * time.Second
	projectWorth    = 20
	// projectFew are so few rows that they are written at once.
	projectFew    = 50
	mergeInterval = time.Minute
)

// projector folds what the recorder writes and the tail routes into the
// statistics of webhooks. It hears of both in memory and in order; every few
// seconds one transaction adds the tally together with up to where it goes. A
// kill loses the tally and not the log: the relay that takes over folds the rest
// of the dead one from there.
type projector struct {
	projection Projection
	relayID    int64
	low        func() int64
	logger     *slog.Logger

	mu      sync.Mutex
	tally   Tally
	entries int
	to      Projected
	// unsure says that what came last has no commit number, for its answer was
	// lost. It lies before the next one that has: until then nothing is added.
	unsure bool
	head   int64 // the newest batch heard of
	placed int64 // the batch up to which what was added last went

	// behind says that dead relays may have left something, hand asks to add all
	// now.
	behind atomic.Bool
	hand   chan chan error

	unsent  *addition // whose answer was lost
	added   time.Time
	merged  time.Time
	touched map[domain.WebhookID]struct{} // since rows were merged
}

// addition is a tally on its way.
type addition struct {
	tally Tally
	to    Projected
}

// newProjector notes where the relay begins, which it must before it records.
func newProjector(ctx context.Context, projection Projection, relayID int64, low func() int64, logger *slog.Logger) (*projector, error) {
	begun, cancel := context.WithTimeout(ctx, leaseLength)
	defer cancel()
	p := &projector{
		projection: projection, relayID: relayID, low: low, logger: logger,
		tally: Tally{}, touched: map[domain.WebhookID]struct{}{}, hand: make(chan chan error),
	}
	p.behind.Store(true)
	if err := projection.Begin(begun, relayID, low()); err != nil {
		return nil, fmt.Errorf("begin the statistics: %w", err)
	}
	return p, nil
}

// tails counts the beginnings of first deliveries from now on: the relay tails,
// and the one that did before counts them no more.
func (p *projector) tails(ctx context.Context) error {
	batch, err := p.projection.Batch(ctx)
	if err != nil {
		return fmt.Errorf("read up to where batches are counted: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to.Batch, p.head, p.placed = batch, batch, batch
	return nil
}

// handOver adds all that was counted of batches, so that the next relay that
// tails goes on from there.
func (p *projector) handOver(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case p.hand <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look lets the rest of dead relays be folded soon.
func (p *projector) look() { p.behind.Store(true) }

// recorded takes a group of steps from the recorder.
func (p *projector) recorded(steps []*step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range steps {
		if s.err != nil {
			continue
		}
		var tally *WebhookTally
		for i, event := range s.events {
			if !counts(event) {
				continue
			}
			if tally == nil {
				tally = p.tally.Of(s.Key.WebhookID, s.AccountID)
			}
			tally.Count(s.Key.EventSeq, s.Entries[i].At, event)
			p.entries++
		}
		if s.commit != 0 {
			p.to.Commit, p.unsure = max(p.to.Commit, s.commit), false
		} else if len(s.events) > 0 {
			p.unsure = true
		}
	}
}

// counts says whether statistics know an event. Most of them are starts.
func counts(event domain.DeliveryEvent) bool {
	switch event.(type) {
	case domain.AttemptStarted, domain.Held, domain.Released:
		return false
	default:
		return true
	}
}

// confirmed takes a batch that the tail has seen committed. One that does not
// follow the last is read from the log, with those before it.
func (p *projector) confirmed(batch *outbox.Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.head = max(p.head, batch.No)
	if batch.No != p.to.Batch+1 {
		return
	}
	p.to.Batch = batch.No
	for _, row := range batch.Rows {
		for _, target := range row.Routed.Targets {
			p.tally.Of(target.WebhookID, row.AccountID).Count(row.Seq, batch.At, domain.Scheduled{})
			p.entries++
		}
	}
}

// reloaded takes the number of the chain's head.
func (p *projector) reloaded(no int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.head = max(p.head, no)
}

// run adds what was heard until ctx ends, and then once more. The error is
// ErrFenced once another relay has taken over.
func (p *projector) run(ctx context.Context) error {
	ticker := time.NewTicker(projectInterval)
	defer ticker.Stop()
	for {
		if p.behind.Swap(false) && !p.told(ctx, "the rest of a dead relay", p.finishOthers(ctx)) {
			p.behind.Store(true)
		}
		err := errors.Join(p.catchUp(ctx), p.add(ctx, false))
		if errors.Is(err, ErrFenced) {
			return err
		}
		// Rows of before and behind the rest of a dead relay do not mix.
		if p.told(ctx, "what happened", err) && !p.behind.Load() {
			p.told(ctx, "merged rows", p.merge(ctx))
		}
		select {
		case <-ticker.C:
		case done := <-p.hand:
			done <- p.addAll(ctx)
		case <-ctx.Done():
			p.end(ctx)
			return nil
		}
	}
}

// addAll adds what was counted, or says why some of it is left.
func (p *projector) addAll(ctx context.Context) error {
	for range 2 { // one may be on its way
		if err := errors.Join(p.catchUp(ctx), p.add(ctx, true)); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.placed != p.to.Batch {
		return errors.New("not all that was counted of batches could be added")
	}
	return nil
}

// end adds what is left. What does not get through is the next relay's.
func (p *projector) end(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := p.add(last, true); err != nil && !errors.Is(err, ErrFenced) {
		p.logger.Info("the last statistics are left to the next relay", "error", err)
	}
}

func (p *projector) told(ctx context.Context, what string, err error) bool {
	if err != nil && ctx.Err() == nil {
		p.logger.Warn("statistics could not be written, trying again", "what", what, "error", err)
	}
	return err == nil
}

// finishOthers folds what dead relays left.
func (p *projector) finishOthers(ctx context.Context) error {
	writers, err := p.projection.Unfolded(ctx)
	if err != nil {
		return err
	}
	for _, writer := range writers {
		entries, err := p.projection.Rest(ctx, writer)
		if err != nil {
			return fmt.Errorf("read the rest of relay %d: %w", writer, err)
		}
		rest, commit := Tally{}, int64(0)
		for i := range entries {
			e := &entries[i]
			commit = e.Commit
			rest.Of(e.Key.WebhookID, e.AccountID).Count(e.Key.EventSeq, e.At, e.Event)
		}
		if err := p.projection.Finish(ctx, p.relayID, writer, commit, rest); err != nil {
			return fmt.Errorf("add the rest of relay %d: %w", writer, err)
		}
	}
	return nil
}

// catchUp reads the batches that the tail of this process did not hand over.
func (p *projector) catchUp(ctx context.Context) error {
	for {
		p.mu.Lock()
		next, behind := p.to.Batch+1, p.to.Batch < p.head
		p.mu.Unlock()
		if !behind {
			return nil
		}
		scheduled, err := p.projection.Scheduled(ctx, next)
		if err != nil {
			return fmt.Errorf("read batch %d: %w", next, err)
		}
		p.mu.Lock()
		if p.to.Batch == next-1 { // else the tail was faster
			p.to.Batch = next
			for _, b := range scheduled {
				for range b.Count {
					p.tally.Of(b.WebhookID, b.AccountID).Count(b.FirstSeq, b.At, domain.Scheduled{})
				}
				p.entries++
			}
		}
		p.mu.Unlock()
	}
}

// add adds the tally where that is worth it, or now.
func (p *projector) add(ctx context.Context, now bool) error {
	if p.unsent == nil {
		// Before the tally is taken: a place that is older than that is lower,
		// and a successor loses nothing by it.
		low := p.low()
		p.mu.Lock()
		rows := len(p.tally)
		late := now || rows <= projectFew || time.Since(p.added) >= projectPatience
		// Where nothing happened to webhooks, the place moves all the same, so
		// that a successor need not look at what was routed.
		nothing := rows == 0 && (p.to.Batch == p.placed || !now && time.Since(p.added) < projectPatience)
		if nothing || p.unsure || !late && p.entries < projectWorth*rows {
			p.mu.Unlock()
			return nil
		}
		p.to.Low = low
		p.unsent = &addition{p.tally, p.to}
		p.tally, p.entries = Tally{}, 0
		p.mu.Unlock()
	}
	if err := p.projection.Add(ctx, p.relayID, p.unsent.to, p.unsent.tally); err != nil {
		return err
	}
	for id := range p.unsent.tally {
		p.touched[id] = struct{}{}
	}
	p.mu.Lock()
	p.placed, p.added = p.unsent.to.Batch, time.Now()
	p.mu.Unlock()
	p.unsent = nil
	return nil
}

// merge makes few rows of many, now and then.
func (p *projector) merge(ctx context.Context) error {
	if len(p.touched) == 0 || time.Since(p.merged) < mergeInterval {
		return nil
	}
	p.merged = time.Now()
	webhooks := make([]domain.WebhookID, 0, len(p.touched))
	for id := range p.touched {
		webhooks = append(webhooks, id)
	}
	merged, err := p.projection.Merge(ctx, p.relayID, webhooks, p.merged)
	if merged {
		clear(p.touched)
	}
	return err
}
