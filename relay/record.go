package relay

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// step is a change on its way to the log, and what it was for.
type step struct {
	Change
	item *item
	kind stepKind
	// events are what its entries encode.
	events []domain.DeliveryEvent
	// request is the POST to make once the step is on record.
	request *Request
	// ahead says that the attempt has no room yet, recorded that it is on record
	// all the same, withdrawn that its POST is not to be made: see ahead.go.
	ahead, recorded, withdrawn bool
	// scheduled hears that a replay's delivery is on record.
	scheduled func()
	// err is why it could not be recorded.
	err error
	// commit is the number of the group commit that wrote it.
	commit int64
}

// replays says whether it is a replay's, which gives way to others.
func (s *step) replays() bool { return s.Key.ReplayID != 0 }

// spills says whether it is that of a first delivery for which memory has no room:
// a flood of them at once must not hold up what starts meanwhile.
func (s *step) spills() bool {
	return s.kind == stepWait && s.Waits.Kind == DueOverflow && !s.replays()
}

type stepKind int

const (
	stepStart    stepKind = iota // an attempt
	stepOutcome                  // the end of an attempt
	stepWait                     // a hold, or overflow
	stepEnd                      // expired, cancelled or given up
	stepSchedule                 // a replay's delivery
)

// recorder writes steps by group commit: while one transaction is under way,
// the next group gathers.
type recorder struct {
	log     Log
	relayID int64
	done    func([]*step) // hears of each group, in order
	logger  *slog.Logger
	meter   Meter

	mu      sync.Mutex
	pending []*step
	spilled []*step // those that spill
	behind  []*step // those of replays
	wake    chan struct{}
	// hurries counts who waits for all that is under way to be on record.
	hurries atomic.Int32
}

const (
	// maxGroup bounds a transaction; an entry's ordinal must fit in 20 bits.
	maxGroup = 4096
	// maxSpilled is how many of them may be of those that spill, and are where
	// there are so many: what others record waits for them, and they get on.
	maxSpilled = maxGroup / 4
	// maxBehind is how many steps of replays a group has at most, while there are
	// fresh deliveries and where there are none: what these record waits for them.
	maxBehind, maxAlone = 8, 128
	// behindPatience is how long steps of replays wait for a moment in which nothing
	// fresh does, before they go along with that.
	behindPatience = 100 * time.Millisecond
	// behindShare is how many times as long as a group with steps of replays
	// took the next ones of theirs wait, while there are fresh deliveries: so much
	// of the recorder, and of the database behind it, is left to these, however
	// slow it is.
	behindShare = 16
	// longestRest bounds that: outcomes are among them.
	longestRest = 500 * time.Millisecond
	// quiet is how long there must be no fresh delivery for replays to have all.
	quiet = time.Second
)

// recordTimeout bounds one transaction. It is shorter than a lease.
const recordTimeout = 2 * time.Second

func newRecorder(log Log, relayID int64, logger *slog.Logger, done func([]*step)) *recorder {
	return &recorder{log: log, relayID: relayID, logger: logger, meter: unmetered{}, done: done, wake: make(chan struct{}, 1)}
}

// submit queues steps. It never blocks.
func (r *recorder) submit(steps []*step) {
	if len(steps) == 0 {
		return
	}
	r.mu.Lock()
	for _, s := range steps {
		switch {
		case s.replays():
			r.behind = append(r.behind, s)
		case s.spills():
			r.spilled = append(r.spilled, s)
		default:
			r.pending = append(r.pending, s)
		}
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// hasten lets nothing wait for others any more, until relax.
func (r *recorder) hasten() {
	r.hurries.Add(1)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *recorder) relax() { r.hurries.Add(-1) }

// run writes groups until ctx ends, or another relay has taken over: then the
// error is ErrFenced. What is pending at the end is not on record.
func (r *recorder) run(ctx context.Context) error {
	rested := time.NewTimer(0) // steps of replays may go on
	defer rested.Stop()
	resting := false
	var busy time.Time  // when there were fresh deliveries
	var ready time.Time // since when they might
	for {
		most, along := maxAlone, true
		switch {
		case r.hurries.Load() > 0:
		case resting:
			most = 0
		case time.Since(busy) < quiet:
			most, along = maxBehind, time.Since(ready) >= behindPatience
		}
		group, fresh := r.next(most, along)
		if len(group) == 0 {
			select {
			case <-r.wake:
				runtime.Gosched() // whoever is ready comes along, and waits for one commit less
			case <-rested.C:
				resting, ready = false, time.Now()
			case <-ctx.Done():
				return nil
			}
			continue
		}
		begun := time.Now()
		err := r.write(ctx, group)
		if errors.Is(err, errStopped) {
			return nil
		}
		if err != nil {
			return err
		}
		r.done(group)
		if fresh > 0 {
			busy = time.Now()
		}
		switch {
		case len(group) > fresh && time.Since(busy) < quiet:
			resting = true
			rested.Reset(min(behindShare*time.Since(begun), longestRest))
		case resting:
			select {
			case <-rested.C:
				resting, ready = false, time.Now()
			default:
			}
		}
	}
}

// next takes the next group: fresh deliveries' steps first, of those that spill
// only some, then up to most of replays', if these may go along with others.
// fresh says how many are the first.
func (r *recorder) next(most int, along bool) (group []*step, fresh int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	spilled := r.spilled[:min(len(r.spilled), maxSpilled)]
	r.spilled = r.spilled[len(spilled):]
	group = r.pending[:min(len(r.pending), maxGroup-len(spilled))]
	r.pending = r.pending[len(group):]
	if len(spilled) > 0 {
		group = append(slices.Clip(group), spilled...)
	}
	fresh = len(group)
	if fresh > 0 {
		most = min(most, maxBehind)
		if !along {
			most = 0
		}
	}
	if n := min(len(r.behind), most, maxGroup-fresh); n > 0 {
		group = append(slices.Clip(group), r.behind[:n]...)
		r.behind = r.behind[n:]
	}
	return group, fresh
}

// errStopped ends a recorder whose group could not be written before the stop.
var errStopped = errors.New("stopped")

// write records a group. Where the log refuses it, it is halved until the
// culprit is alone. Where the connection fails, it is tried again until it is
// known to be written; where the time is over it is halved too, since a group
// that is too large for it would never be written.
func (r *recorder) write(ctx context.Context, group []*step) error {
	changes := make([]Change, len(group))
	for i, s := range group {
		changes[i] = s.Change
	}
	wait := 20 * time.Millisecond
	for {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		begun := time.Now()
		commit, err := r.log.Record(attempt, r.relayID, changes)
		r.meter.Recorded(len(changes), time.Since(begun), err)
		late := attempt.Err() != nil
		cancel()
		switch {
		case err == nil:
			for _, s := range group {
				s.commit = commit
			}
			return nil
		case errors.Is(err, ErrFenced):
			return err
		case errors.Is(err, ErrConflict) || errors.Is(err, ErrRefused):
			return r.halve(ctx, group, err)
		}
		r.logger.Warn("recording failed, trying again", "steps", len(group), "error", err)
		if late && len(group) > 1 && ctx.Err() == nil {
			return r.halve(ctx, group, err)
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-ctx.Done():
			return errStopped
		}
	}
}

func (r *recorder) halve(ctx context.Context, group []*step, err error) error {
	if len(group) > 1 {
		half := len(group) / 2
		if err := r.write(ctx, group[:half]); err != nil {
			return err
		}
		return r.write(ctx, group[half:])
	}
	if errors.Is(err, ErrConflict) {
		// The commit whose answer was lost may have been ours.
		written, stopped := r.written(ctx, group[0].Change)
		if stopped != nil || written {
			return stopped
		}
	}
	group[0].err = err
	r.logger.Error("a step could not be recorded", "event_seq", group[0].Key.EventSeq, "webhook_id", group[0].Key.WebhookID, "error", err)
	return nil
}

// written asks until there is an answer: a start of ours that was taken for
// another's would be open for ever, and its delivery with it.
func (r *recorder) written(ctx context.Context, change Change) (bool, error) {
	wait := 20 * time.Millisecond
	for {
		check, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		written, err := r.log.Written(check, r.relayID, change)
		cancel()
		if err == nil {
			return written, nil
		}
		r.logger.Warn("reading what was recorded failed, trying again", "error", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-ctx.Done():
			return false, errStopped
		}
	}
}
