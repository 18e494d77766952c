package web

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// figures are what overviews show. To add up a week of many webhooks takes a
// while, and what is long over is the same each time: it is kept, and only what
// may still change is read anew, once for all who look at the same moment.
type figures struct {
	history Audit

	mu   sync.Mutex
	kept map[figuresKey]*keptFigures
}

// figuresKey is what is kept: of an account, 0 for all, in steps of a range.
type figuresKey struct {
	account domain.AccountID
	name    string
}

// shownFigures are those of one overview.
type shownFigures struct {
	spans   []audit.Span
	backlog audit.Backlog
	pending int64 // negative where not all is told of yet
	health  []audit.Health
	relays  []audit.RelayTime // of all accounts only
}

// keptFigures are figures with the times at which they were read.
type keptFigures struct {
	mu sync.Mutex
	shownFigures
	at    time.Time
	whole time.Time // all of them were
	used  time.Time // guarded by figures.mu
}

const (
	// figuresFresh is how long figures are shown again: the statistics lag behind
	// by 2 to 10 seconds themselves.
	figuresFresh = 2 * time.Second
	// spansSettle is when a span that is over is taken for complete: a relay that
	// takes over adds what another had not.
	spansSettle = 3 * time.Hour
	// spansWhole is when all are read anew: statistics may be rebuilt.
	spansWhole = time.Hour
	// figuresMost bounds how many are kept.
	figuresMost = 300
)

// of gives the figures from since on, the beginning of a step.
func (f *figures) of(ctx context.Context, account domain.AccountID, o overviewRange, since time.Time) (shownFigures, error) {
	k := f.keep(figuresKey{account, o.Name})
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if now.Sub(k.at) < figuresFresh {
		return k.shownFigures, nil
	}
	found := shownFigures{}
	from := since
	if now.Sub(k.whole) < spansWhole {
		step := time.Duration(o.Step) * time.Hour
		if settled := k.at.UTC().Add(-spansSettle).Truncate(step); settled.After(since) {
			from = settled
		}
		for i := range k.spans {
			if at := k.spans[i].From; !at.Before(since) && at.Before(from) {
				found.spans = append(found.spans, k.spans[i])
			}
		}
	}
	fresh, pending, err := f.history.Spans(ctx, account, from, o.Step)
	if err != nil {
		return found, err
	}
	found.spans, found.pending = append(found.spans, fresh...), pending
	if err := f.rest(ctx, account, since, &found); err != nil {
		return found, err
	}
	k.shownFigures, k.at = found, now
	if from.Equal(since) {
		k.whole = now
	}
	return found, nil
}

// rest reads what is of now, and the relays.
func (f *figures) rest(ctx context.Context, account domain.AccountID, since time.Time, found *shownFigures) (err error) {
	if found.backlog, err = f.history.Backlog(ctx, account); err != nil {
		return err
	}
	if account == 0 {
		if found.health, err = f.history.Failing(ctx, healthShown); err != nil {
			return err
		}
		found.relays, err = f.history.RelayTimes(ctx, since)
		return err
	}
	found.health, err = f.history.Health(ctx, account, 0)
	return err
}

// keep gives what is kept under a key. Where there are too many, what nobody has
// looked at for the longest time goes.
func (f *figures) keep(key figuresKey) *keptFigures {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.kept[key]
	if k == nil {
		if len(f.kept) >= figuresMost {
			keys := make([]figuresKey, 0, len(f.kept))
			for other := range f.kept {
				keys = append(keys, other)
			}
			delete(f.kept, slices.MinFunc(keys, func(a, b figuresKey) int { return cmp.Compare(f.kept[a].used.UnixNano(), f.kept[b].used.UnixNano()) }))
		}
		k = &keptFigures{}
		f.kept[key] = k
	}
	k.used = time.Now()
	return k
}
