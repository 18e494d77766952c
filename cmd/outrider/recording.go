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

// recordingSilence is after how long without a try nothing is left to record: a
// relay that begins anew drops what it had. While it has something it tries
// again sooner.
const recordingSilence = 30 * time.Second

// recording is the meter of a relay, and remembers whether it can record what it
// is to do: where it cannot, it sends nothing.
type recording struct {
	relay.Meter
	mu    sync.Mutex
	since time.Time // that it fails, zero where it does not
	tried time.Time // when it failed last
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
	r.err, r.tried = err, time.Now()
}

// Load implements relay.Meter. Where nothing is to be done, nothing fails; an
// outcome that waits to be recorded is no part of the load.
func (r *recording) Load(load relay.Load) {
	r.Meter.Load(load)
	r.mu.Lock()
	defer r.mu.Unlock()
	if load == (relay.Load{}) && time.Since(r.tried) > recordingSilence {
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
