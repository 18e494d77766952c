package relay

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// senders make the POSTs. Workers are kept for reuse: their stacks have grown
// to what an HTTP request needs.
type senders struct {
	sender   Sender
	lease    *lease
	finished func(it *item, attempt int, outcome domain.Outcome)
	jobs     chan job
	ctx      func() context.Context // ends when the grace of a stop is over
	wg       sync.WaitGroup
}

type job struct {
	it      *item
	request *Request
}

// idleWorker is how long a worker waits for its next POST.
const idleWorker = 5 * time.Second

func newSenders(ctx context.Context, sender Sender, lease *lease, finished func(*item, int, domain.Outcome)) *senders {
	return &senders{sender: sender, lease: lease, finished: finished, jobs: make(chan job), ctx: func() context.Context { return ctx }}
}

// send makes a POST in a worker of its own. The dispatcher bounds how many.
func (s *senders) send(it *item, request *Request) {
	j := job{it, request}
	select {
	case s.jobs <- j:
	default:
		s.wg.Go(func() { s.work(j) })
	}
}

func (s *senders) work(j job) {
	timer := time.NewTimer(idleWorker)
	defer timer.Stop()
	for {
		s.post(j)
		timer.Reset(idleWorker)
		select {
		case j = <-s.jobs:
		case <-timer.C:
			return
		case <-s.ctx().Done():
			return
		}
	}
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
