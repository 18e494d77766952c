package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/adapters/bench"
)

// benchStop is longer than a relay's own grace.
const benchStop = 45 * time.Second

// benchProcess is a relay, a receiver or a client. It implements
// bench.Process.
type benchProcess struct {
	*childProcess
	name string
	log  string
	url  string
}

// start runs this program.
func (b *benchRig) start(name string, settings []string, args ...string) (*benchProcess, error) {
	b.processes++
	path := filepath.Join(b.scratch, fmt.Sprintf("%s-%d.log", name, b.processes))
	log, err := os.Create(path) //nolint:gosec // in a folder of our own
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	p, err := startChild(log, b.program, settings, args...)
	if err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	return &benchProcess{childProcess: p, name: name, log: path}, nil
}

// listening runs this program and notes where it listens, once it says so.
func (b *benchRig) listening(ctx context.Context, name string, settings []string, args ...string) (*benchProcess, error) {
	p, err := b.start(name, settings, append(args, "--listen", anyPort)...)
	if err != nil {
		return nil, err
	}
	err = p.await(ctx, "the "+name+" listens", func() bool {
		p.url = listensAt(p.log)
		return p.url != ""
	})
	if err != nil {
		_ = p.stop(benchStop) // what it ended with is in err
		return nil, err
	}
	return p, nil
}

// Ended implements bench.Process.
func (p *benchProcess) Ended() <-chan struct{} { return p.exited }

// Failure implements bench.Process.
func (p *benchProcess) Failure() error {
	if p.err == nil {
		return nil
	}
	content, err := os.ReadFile(p.log)
	if err != nil {
		return p.err
	}
	const last = 5
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return fmt.Errorf("the %s: %w\n%s", p.name, p.err, strings.Join(lines[max(0, len(lines)-last):], "\n"))
}

// Stop implements bench.Process.
func (p *benchProcess) Stop(context.Context) (bench.Usage, error) {
	memory := peakMemory(p.pid())
	err := p.stop(benchStop)
	state := p.cmd.ProcessState
	if memory == 0 {
		memory = peakOf(state)
	}
	usage := bench.Usage{CPU: state.UserTime() + state.SystemTime(), Memory: memory}
	if err != nil {
		err = fmt.Errorf("%w: %w", err, p.Failure())
	}
	return usage, err
}

// await waits until something is so, as long as a relay's start may take.
func (p *benchProcess) await(ctx context.Context, what string, so func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, activeTimeout, fmt.Errorf("%s: not after %s", what, activeTimeout))
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !so() {
		select {
		case <-ticker.C:
		case <-p.exited:
			return fmt.Errorf("%s: not, since it ended: %w", what, errors.Join(p.Failure(), http.ErrServerClosed))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
