package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

// explainAt says what is wrong with the database at a URL and what to do.
func explainAt(dsn string, err error) string {
	if e, ok := errors.AsType[*postgres.Error](postgres.ExplainAt(dsn, err)); ok && e.Advice != "" {
		return e.Problem + "; " + e.Advice
	}
	return err.Error()
}

// explainer is a log that says of errors of the database what they mean, and
// what to do. What fails is tried again by each part of a relay, some times a
// second: the same message with the same error is told once in a while.
type explainer struct {
	slog.Handler
	explain func(error) string
	// told is nil where each message counts.
	told *told
}

func newExplainer(handler slog.Handler, explain func(error) string) explainer {
	return explainer{handler, explain, &told{at: map[string]time.Time{}}}
}

// Handle implements slog.Handler.
func (e explainer) Handle(ctx context.Context, record slog.Record) error {
	failure := ""
	explained := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	record.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			failure = e.explain(err)
			a.Value = slog.StringValue(failure)
		}
		explained.AddAttrs(a)
		return true
	})
	if failure != "" && e.told != nil && e.told.lately(record.Message+" "+failure, record.Time) {
		return nil
	}
	return e.Handler.Handle(ctx, explained)
}

// WithAttrs implements slog.Handler.
func (e explainer) WithAttrs(attrs []slog.Attr) slog.Handler {
	return explainer{e.Handler.WithAttrs(attrs), e.explain, e.told}
}

// WithGroup implements slog.Handler.
func (e explainer) WithGroup(name string) slog.Handler {
	return explainer{e.Handler.WithGroup(name), e.explain, e.told}
}

// repeatAfter is when the same failure is told again.
const repeatAfter = 10 * time.Second

// told remembers what was told lately.
type told struct {
	mu sync.Mutex
	at map[string]time.Time
}

// lately says whether a text was told a short while before now, and notes it
// where it was not.
func (t *told) lately(text string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.at[text]; ok && now.Sub(at).Abs() < repeatAfter {
		return true
	}
	for old, at := range t.at {
		if now.Sub(at).Abs() >= repeatAfter {
			delete(t.at, old)
		}
	}
	t.at[text] = now
	return false
}
