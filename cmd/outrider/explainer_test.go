package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/metrics"
	"github.com/outrider-relay/outrider/relay"
)

// TestTheLogExplains: what an error means, and each failure once in a while.
func TestTheLogExplains(t *testing.T) {
	t.Parallel()
	out := &syncBuffer{}
	a := &assembly{options: relayOptions{dsn: "postgres://app@db.example.com/chat"}}
	e := newExplainer(slog.NewTextHandler(out, nil), a.explain)
	log := slog.New(e).With("relay_id", 7)
	full := &pq.Error{Code: "53100", Message: "could not extend file"}
	for steps := range 5 {
		log.Warn("recording failed, trying again", "steps", steps, "error", full)
	}
	log.Warn("tailing failed, trying again", "error", full)
	log.Info("at work", "shards", 64)
	log.Info("at work", "shards", 64)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || !strings.Contains(lines[0], `steps=0 error="the disk of PostgreSQL at db.example.com:5432 is full: could not extend file; make room there`) ||
		!strings.Contains(lines[0], "relay_id=7") || !strings.Contains(lines[1], "tailing failed") || !strings.Contains(lines[3], "at work") {
		t.Errorf("the log:\n%s", out)
	}
	now := time.Now()
	if later := now.Add(repeatAfter); !e.told.lately("recording failed, trying again "+a.explain(full), now) || e.told.lately("recording failed, trying again "+a.explain(full), later) {
		t.Error("a failure that goes on is not told again")
	}
}

// TestRecordingFails for a while: then the relay is not ready.
func TestRecordingFails(t *testing.T) {
	t.Parallel()
	r := &recording{Meter: metrics.New(metrics.Config{})}
	cause := errors.New("the disk is full")
	fails := func() {
		r.Recorded(1, time.Millisecond, cause)
		r.since = r.since.Add(-recordingPatience)
	}
	r.Recorded(1, time.Millisecond, cause)
	if err := r.failure(); err != nil {
		t.Errorf("at the first failure: %v", err)
	}
	fails()
	if err := r.failure(); !errors.Is(err, cause) {
		t.Errorf("after a while: %v", err)
	}
	r.Recorded(1, time.Millisecond, relay.ErrConflict)
	if r.failure() == nil {
		t.Error("a conflict is taken for a record")
	}
	r.Recorded(1, time.Millisecond, nil)
	if err := r.failure(); err != nil {
		t.Errorf("once it records again: %v", err)
	}
	fails()
	r.Load(relay.Load{InFlight: 1})
	if r.failure() == nil {
		t.Error("what waits for its record is forgotten")
	}
	r.Load(relay.Load{})
	if r.failure() == nil {
		t.Error("an outcome that is tried to be recorded is forgotten")
	}
	r.tried = r.tried.Add(-2 * recordingSilence)
	r.Load(relay.Load{}) // another life of the relay: nothing waits
	if err := r.failure(); err != nil {
		t.Errorf("where nothing is to be recorded: %v", err)
	}
}
