package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"
)

// sleeper decides when the tail polls again.
//
// Producers send a NOTIFY only while the sequence outbox.wake stands at 1, for
// NOTIFY takes a server-wide lock at commit. A transaction that inserted
// before the sequence was raised did not see it. So the tail raises it, then
// takes a transaction id H: it sleeps only after a poll that found nothing in
// a snapshot with xmin ≥ H, since then every transaction from before H has
// ended, and was seen. Until that it polls on, with back-off.
//
// The sequence stays up while events trickle in, so that a quiet outbox costs
// neither transaction ids nor WAL; it goes down when the tail is busy.
type sleeper struct {
	db   *sql.DB
	wake <-chan struct{} // an insert, or the loss of the connection that listens
	stop <-chan struct{}
	poll time.Duration // the fallback of a sleeping tail

	raised bool
	after  uint64 // H
	xmin   uint64 // of the last poll's snapshot
	busy   int    // polls in a row that found rows
	wait   time.Duration
}

const (
	// firstWait and longestWait bound the back-off while an old transaction is
	// under way. It delays only what was inserted before the sequence was
	// raised: later inserts notify.
	firstWait   = time.Millisecond
	longestWait = 50 * time.Millisecond
	// busyPolls in a row with rows make the tail lower the sequence.
	busyPolls = 64
	// After steadyPolls in a row with rows, of which the last found few, polls
	// begin gatherTime apart: each costs as much as some ten rows do.
	steadyPolls = 8
	gatherTime  = 5 * time.Millisecond
	// firstRetry and longestRetry bound the back-off after an error, of which
	// inserts leave leastRest.
	firstRetry   = 50 * time.Millisecond
	longestRetry = 2 * time.Second
	leastRest    = 250 * time.Millisecond
	// signalTimeout bounds the statements that raise and lower the sequence.
	signalTimeout = 5 * time.Second
)

// afterNothing waits after a poll that found nothing.
func (s *sleeper) afterNothing() error {
	s.busy = 0
	if !s.raised {
		return s.raise() // and poll at once: what was inserted meanwhile did not notify
	}
	if s.xmin >= s.after {
		s.wait = 0
		s.pause(s.poll)
		return nil
	}
	s.wait = min(max(2*s.wait, firstWait), longestWait)
	s.pause(s.wait)
	return nil
}

// afterRows notes a poll that found rows, few or as many as it asked for, and
// that began so long ago.
func (s *sleeper) afterRows(few, full bool, ago time.Duration) error {
	s.wait = 0
	s.busy++
	if s.raised && (full || s.busy >= busyPolls) {
		if err := s.lower(); err != nil {
			return err
		}
	}
	if few && s.busy >= steadyPolls && ago < gatherTime {
		timer := time.NewTimer(gatherTime - max(0, ago))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.stop:
		}
	}
	return nil
}

// afterError waits after a failed poll, each time longer. An insert ends the
// wait, but not before leastRest: else a database in trouble would be asked
// again at each of them.
func (s *sleeper) afterError() {
	s.wait = min(max(2*s.wait, firstRetry), longestRetry)
	rest := min(s.wait, leastRest)
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stop:
		return
	}
	if s.wait > rest {
		s.pause(s.wait - rest)
	}
}

func (s *sleeper) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-s.stop:
	}
}

func (s *sleeper) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *sleeper) raise() error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	// Two statements: in one, the id would be assigned before the sequence is
	// raised, and a transaction in between would be missed.
	if _, err := s.db.ExecContext(ctx, `SELECT setval('outbox.wake', 1)`); err != nil {
		return fmt.Errorf("raise outbox.wake: %w", err)
	}
	var text string
	if err := s.db.QueryRowContext(ctx, `SELECT pg_current_xact_id()::text`).Scan(&text); err != nil {
		return fmt.Errorf("take a transaction id: %w", err)
	}
	xid, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("take a transaction id: %w", err)
	}
	s.raised, s.after, s.wait = true, xid, 0
	return nil
}

func (s *sleeper) lower() error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	s.raised = false // also where it fails: raising again is always right
	if _, err := s.db.ExecContext(ctx, `SELECT setval('outbox.wake', 0)`); err != nil {
		return fmt.Errorf("lower outbox.wake: %w", err)
	}
	return nil
}
