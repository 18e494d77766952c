package relay_test

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/outrider-relay/outrider/domain"
)

// modelReceiver answers as a history says, and remembers what came.
type modelReceiver struct {
	history history
	bench   *bench

	mu    sync.Mutex
	moods map[string]mood
	gates map[string]chan struct{} // closed to let go what hangs
	ticks int                      // numbers arrivals and answers
	came  []*arrival
}

// arrival is a POST that came.
type arrival struct {
	path, delivery, notification, body string
	attempt                            int
	// begun and ended are ticks, ended 0 as long as it is not answered. status is
	// 0 where nobody waited for the answer.
	begun, ended, status int
}

func newModelReceiver(b *bench, h history) *modelReceiver {
	m := &modelReceiver{history: h, bench: b, moods: map[string]mood{}, gates: map[string]chan struct{}{}}
	for i := range modelHooks {
		path := fmt.Sprintf("/hook%d", i)
		m.gates[path] = make(chan struct{})
		b.receiver.on(path, m.serve)
	}
	return m
}

// be changes how a path answers from now on, and lets go what hangs.
func (m *modelReceiver) be(path string, mood mood) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moods[path] = mood
	close(m.gates[path])
	m.gates[path] = make(chan struct{})
}

func (m *modelReceiver) serve(w http.ResponseWriter, req *http.Request) {
	a := &arrival{path: req.URL.Path, delivery: req.Header.Get("Outrider-Delivery"), notification: req.Header.Get("webhook-id"), body: m.bench.receiver.last(req)}
	a.attempt, _ = strconv.Atoi(req.Header.Get("Outrider-Attempt"))
	m.mu.Lock()
	m.ticks++
	a.begun = m.ticks
	m.came = append(m.came, a)
	status, hangs := m.decide(a, req.Header.Get("Outrider-Replay"))
	gate := m.gates[a.path]
	m.mu.Unlock()
	if hangs {
		select {
		case <-gate:
		case <-req.Context().Done():
			status = 0
		}
	}
	m.mu.Lock()
	m.ticks++
	a.ended, a.status = m.ticks, status
	m.mu.Unlock()
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "9")
	}
	if status != 0 {
		w.WriteHeader(status)
	}
}

// decide says how an attempt is answered: the same each time that the history is
// run, whenever it comes.
func (m *modelReceiver) decide(a *arrival, replay string) (status int, hangs bool) {
	hash := fnv.New64a()
	_, _ = fmt.Fprint(hash, a.path, " ", a.body, " ", a.attempt, " ", replay)
	r := rand.New(rand.NewPCG(m.history.seed, hash.Sum64())) //nolint:gosec // it is to be repeatable
	bad := []int{http.StatusInternalServerError, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests}[r.IntN(4)]
	status = http.StatusNoContent
	if r.IntN(100) < m.history.failing {
		status = bad
	}
	switch m.moods[a.path] {
	case moodWell:
		status = http.StatusNoContent
	case moodBadly:
		status = bad
	case moodNever:
		hangs = true
	case moodGone:
		status = http.StatusGone
	default:
		hangs = r.IntN(100) < m.history.hanging
	}
	return status, hangs
}

// judge compares what came with what is on record.
func (m *modelReceiver) judge(r *reference, deliveries map[string]*duty) {
	m.mu.Lock()
	defer m.mu.Unlock()
	note := func(d *duty, a *arrival, format string, args ...any) {
		of := line{}
		if d != nil {
			of = d.line
		}
		r.flaws = append(r.flaws, flaw{of, fmt.Sprintf("attempt %d of delivery %s came to %s: %s", a.attempt, a.delivery, a.path, fmt.Sprintf(format, args...))})
	}
	bodies := map[string]string{}
	answered := map[*modelAttempt]*arrival{}
	lines := map[line][]*arrival{}
	on := func(a *arrival) (*duty, *modelAttempt) {
		d := deliveries[a.delivery]
		if d == nil || a.attempt < 1 || a.attempt > len(d.attempts) {
			return d, nil
		}
		return d, &d.attempts[a.attempt-1]
	}
	for _, a := range m.came {
		d, attempt := on(a)
		if attempt == nil {
			note(d, a, "it is not on record")
			continue
		}
		if answered[attempt] != nil {
			note(d, a, "it came before")
		}
		answered[attempt] = a
		if body, known := bodies[a.notification]; known && body != a.body {
			note(d, a, "its body was another before")
		}
		bodies[a.notification] = a.body
		if attempt.outcome == domain.OutcomeUnknown {
			continue // its relay died: it may come late
		}
		if attempt.outcome != domain.OutcomeFailed || attempt.status != 0 {
			if a.status != attempt.status {
				note(d, a, "it was answered %d, on record is %d", a.status, attempt.status)
			}
		}
		if d.hold != 0 {
			lines[d.line] = append(lines[d.line], a)
		}
	}
	for _, d := range r.all {
		for i := range d.attempts {
			if attempt := &d.attempts[i]; attempt.outcome == domain.OutcomeSucceeded && answered[attempt] == nil {
				r.flaws = append(r.flaws, flaw{d.line, fmt.Sprintf("attempt %d of event %d to webhook %d succeeded, on record, and never came", i+1, d.key.EventSeq, d.key.WebhookID)})
			}
		}
	}
	// Of a line one comes after the other, as they were started.
	for _, came := range lines {
		slices.SortFunc(came, func(a, b *arrival) int {
			_, first := on(a)
			_, second := on(b)
			return cmp.Compare(first.started, second.started)
		})
		for i := 1; i < len(came); i++ {
			if d, _ := on(came[i]); came[i].begun < came[i-1].ended {
				note(d, came[i], "the one that was started before, attempt %d of delivery %s, was not answered", came[i-1].attempt, came[i-1].delivery)
			}
		}
	}
}
