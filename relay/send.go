package relay

import (
	"context"
	"crypto/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// senders make the POSTs. Workers are kept for reuse: their stacks have grown
// to what an HTTP request needs. They wait for nothing but their next POST,
// which is as cheap as waiting can be.
type senders struct {
	sender   Sender
	lease    *lease
	finished func(it *item, attempt int, outcome domain.Outcome)
	jobs     chan job
	ctx      func() context.Context // ends when the grace of a stop is over
	workers  atomic.Int64
	wg       sync.WaitGroup
}

// job is a POST to make. A worker that gets one without a request ends.
type job struct {
	it      *item
	request *Request
}

// stackHeld is how many bytes of its stack a worker has in use while it waits. The
// collector halves a stack of which a quarter or less is in use, and one of 8 KiB
// is what a POST takes: it would be copied twice again for the next.
const stackHeld = 2 << 10

// retireEvery is how often some of the workers that have nothing to do end.
const retireEvery = time.Second

func newSenders(ctx context.Context, sender Sender, lease *lease, finished func(*item, int, domain.Outcome)) *senders {
	return &senders{sender: sender, lease: lease, finished: finished, jobs: make(chan job), ctx: func() context.Context { return ctx }}
}

// send makes a POST in a worker of its own. The dispatcher bounds how many.
func (s *senders) send(it *item, request *Request) {
	j := job{it, request}
	select {
	case s.jobs <- j:
	default:
		s.workers.Add(1)
		s.wg.Go(func() { s.work(j) })
	}
}

func (s *senders) work(j job) {
	var held [stackHeld]byte
	defer runtime.KeepAlive(&held)
	defer s.workers.Add(-1)
	for j.request != nil {
		s.post(j)
		j = <-s.jobs
	}
}

// run lets workers that a quiet time leaves idle end, an eighth at a time, until
// ctx ends.
func (s *senders) run(ctx context.Context) {
	ticker := time.NewTicker(retireEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.retire(s.workers.Load()/8 + 1)
		case <-ctx.Done():
			return
		}
	}
}

// retire ends up to n idle workers.
func (s *senders) retire(n int64) {
	for range n {
		select {
		case s.jobs <- job{}:
		default:
			return
		}
	}
}

// close ends all workers once they are idle. Nothing may be sent any more.
func (s *senders) close() {
	close(s.jobs)
	s.wg.Wait()
}

// post sends only while the lease has a margin: a relay that was suspended may
// have lost it. Without one, the attempt stays open, and the successor ends it
// as unknown.
func (s *senders) post(j job) {
	ctx := s.ctx()
	if !s.lease.hold(ctx) {
		return
	}
	outcome := s.sender.Send(ctx, *j.request)
	if ctx.Err() != nil && outcome.Kind != domain.OutcomeSucceeded {
		return // cut off by the stop: what the receiver made of it is unknown
	}
	if outcome.Excerpt != "" {
		var salt [16]byte
		_, _ = rand.Read(salt[:]) // never fails
		outcome = outcome.Digested(salt)
	}
	s.finished(j.it, j.request.Attempt, outcome)
}
