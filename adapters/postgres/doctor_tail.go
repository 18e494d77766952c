package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// pace is how long the tail is watched where rows wait: longer than its
// fallback poll.
const pace = 2500 * time.Millisecond

// lag is how long rows may wait before it is worth a word.
const lag = time.Minute

// tailState is how far the tail is.
type tailState struct {
	position
	waiting
}

func (p *patient) readTail(ctx context.Context) (t tailState, err error) {
	err = p.reading(ctx, func(tx *sql.Tx) error {
		if t.position, err = readPosition(ctx, tx); err != nil {
			return err
		}
		t.waiting, err = countWaiting(ctx, tx, t.position, unroutedRowsQuery, undecidedRowsQuery)
		return err
	})
	return t, err
}

// lookAtTail looks twice where rows wait: a row may wait for a moment, or for
// the end of a long transaction, and only a tail that does not move is wrong.
func lookAtTail(ctx context.Context, p *patient) error {
	if !p.may[operatorRole] || p.older {
		return p.lookAtWaiting(ctx)
	}
	first, err := p.readTail(ctx)
	if err != nil {
		return err
	}
	at := func(t tailState) string {
		if t.no == 0 {
			return "nothing was ever routed"
		}
		return fmt.Sprintf("batch %s, routed %s ago, ends at seq %s", grouped(t.no), ago(max(0, t.age)), grouped(t.high))
	}
	if first.count.N == 0 {
		p.add(Healthy, "no event waits to be routed; "+at(first), "")
		return nil
	}
	if p.alive {
		wait := time.NewTimer(pace)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	second, err := p.readTail(ctx)
	if err != nil {
		return err
	}
	if second.count.N == 0 {
		p.add(Healthy, "no event waits to be routed any more; "+at(second), "")
		return nil
	}
	rows := countedUpTo(second.count, "event waits", "events wait") + fmt.Sprintf(" to be routed, the oldest for %s; ", ago(second.oldest))
	switch {
	case !p.alive:
		p.add(Problem, rows+"no relay is at work; "+at(second), startServe)
	case second.no == first.no:
		health := Warning
		if second.oldest > lag {
			health = Problem
		}
		p.add(health, fmt.Sprintf("%sthe position did not move for %s: %s", rows, ago(pace), at(second)),
			"the relay's log tells why. It waits too where webhooks take less than comes: outrider audit attempts --status failed")
	case second.oldest > lag:
		p.add(Warning, fmt.Sprintf("%sthe tail is at work on them: %s", rows, at(second)), "nothing, if this gets less; what holds it up else is in the checks below")
	default:
		p.add(Healthy, rows+at(second), "")
	}
	return nil
}

const waitingQuery = `
SELECT count(*), extract(epoch FROM clock_timestamp() - min(w.inserted_at)) FROM (SELECT e.inserted_at FROM audit.events e WHERE e.routed_at IS NULL LIMIT $1) w`

// lookAtWaiting is what an auditor sees of the tail.
func (p *patient) lookAtWaiting(ctx context.Context) error {
	var n int
	var oldest sql.NullFloat64
	if err := p.row(ctx, waitingQuery, []any{countLimit + 1}, &n, &oldest); err != nil {
		return err
	}
	switch age := fromSeconds(oldest.Float64); {
	case n == 0:
		p.add(Healthy, "no event waits to be routed", "")
	case age < lag:
		p.add(Healthy, fmt.Sprintf("%s to be routed, for %s at most", countedUpTo(countOf(n), "event waits", "events wait"), ago(age)), "")
	default:
		p.add(Warning, fmt.Sprintf("%s to be routed, the oldest for %s", countedUpTo(countOf(n), "event waits", "events wait"), ago(age)), "is a relay at work? Who may see that has the role "+operatorRole)
	}
	return nil
}
