package main

import (
	"errors"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/relay"
)

// recordingPatience is how long recording may fail before the relay counts as
// not ready: one lost connection is no trouble.
const recordingPatience = 2 * time.Second

// recording is the meter of a relay, and remembers whether it can record what it
// is to do: where it cannot, it sends nothing.
type recording struct {
	relay.Meter
	mu    sync.Mutex
	since time.Time // that it fails, zero where it does not
	err   error
}

// Recorded implements relay.Meter.
func (r *recording) Recorded(steps int, took time.Duration, err error) {
	r.Meter.Recorded(steps, took, err)
	if errors.Is(err, relay.ErrConflict) || errors.Is(err, relay.ErrRefused) || errors.Is(err, relay.ErrFenced) {
		return // the database answers
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = time.Now()
	}
	r.err = err
}

// Load implements relay.Meter. Where nothing is to be done, nothing fails.
func (r *recording) Load(load relay.Load) {
	r.Meter.Load(load)
	if load == (relay.Load{}) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.since, r.err = time.Time{}, nil
	}
}

// failure is why nothing can be recorded, nil where that is not so.
func (r *recording) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() || time.Since(r.since) < recordingPatience {
		return nil
	}
	return r.err
}
