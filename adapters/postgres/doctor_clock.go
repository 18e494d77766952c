package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	// skewed is a difference of clocks that shows in what people read.
	skewed = time.Second
	// farSkewed is one with which receivers refuse a signature's timestamp, or
	// soon will, if the database's clock is the wrong one: relays sign by it, and
	// Standard Webhooks allows for 5 min.
	farSkewed = 4 * time.Minute

	setClock = "let NTP keep the clocks: chronyc tracking, or timedatectl, tells whether it does"
)

func lookAtClock(ctx context.Context, p *patient) error {
	// The shortest of a few round trips tells best.
	var skew, trip time.Duration
	err := p.reading(ctx, func(tx *sql.Tx) error {
		for i := range 5 {
			var epoch float64
			begun, at := time.Now(), p.config.Now()
			if err := tx.QueryRowContext(ctx, `SELECT extract(epoch FROM clock_timestamp())::float8`).Scan(&epoch); err != nil {
				return err
			}
			took := time.Since(begun)
			if i > 0 && took >= trip {
				continue
			}
			trip = took
			skew = at.Add(took / 2).Sub(time.UnixMicro(int64(epoch * 1e6)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	direction := "behind"
	if skew > 0 {
		direction = "ahead of"
	}
	switch off := skew.Abs(); {
	case off <= trip || off < 10*time.Millisecond:
		p.add(Healthy, fmt.Sprintf("this machine's clock is the database's, as far as a round trip of %s tells", ago(max(trip, 100*time.Microsecond))), "")
	case off < skewed:
		p.add(Healthy, fmt.Sprintf("this machine's clock is %s %s the database's", ago(off), direction), "")
	default:
		p.judgeSkew("this machine's clock is", off, direction)
	}
	return nil
}

// judgeSkew says what a skew does: relays tell the time by the database's clock.
func (p *patient) judgeSkew(whose string, off time.Duration, direction string) {
	health, why := Warning, "one of them is wrong, or was; relays tell the time by the database's, so due times and the audit are off with it"
	if off >= farSkewed {
		health, why = Problem, "one of them is wrong, or was; relays sign by the database's, and receivers refuse signatures whose timestamp is 5 minutes off"
	}
	p.add(health, fmt.Sprintf("%s %s %s the database's: %s", whose, ago(off), direction, why), setClock)
}

// relaysClockQuery compares what relays wrote with the database's own clock:
// nothing can have been written later than now, nor a row have been routed
// before it was inserted. That is what can be said for certain. It looks at the
// newest batch and the newest attempt, which two relays may have written.
const relaysClockQuery = `
SELECT extract(epoch FROM b.at - clock_timestamp()), extract(epoch FROM r.inserted_at - b.at), b.relay_id, extract(epoch FROM a.at - clock_timestamp()), coalesce(a.writer, 0)
  FROM (SELECT * FROM relay.batches WHERE no > 0 ORDER BY no DESC LIMIT 1) b
  LEFT JOIN LATERAL (SELECT l.at, l.writer FROM relay.log l WHERE l.type = 'attempt_started' ORDER BY l.pos DESC LIMIT 1) a ON true
  LEFT JOIN relay.outbox_rows r ON r.seq = b.seq_max`

func lookAtRelaysClock(ctx context.Context, p *patient) error {
	var ahead, behind, sentAhead sql.NullFloat64
	var tails, sends int64
	err := p.row(ctx, relaysClockQuery, nil, &ahead, &behind, &tails, &sentAhead, &sends)
	if errors.Is(err, sql.ErrNoRows) {
		p.add(Healthy, "no relay has routed anything yet", "")
		return nil
	}
	if err != nil {
		return err
	}
	if sends == tails {
		ahead.Float64, sentAhead.Float64 = max(ahead.Float64, sentAhead.Float64), 0
	}
	fits := true
	for _, clock := range []struct {
		relayID   int64
		off       sql.NullFloat64
		direction string
	}{{tails, ahead, "ahead of"}, {tails, behind, "behind"}, {sends, sentAhead, "ahead of"}} {
		if off := fromSeconds(clock.off.Float64); off >= skewed {
			p.judgeSkew(fmt.Sprintf("the clock of relay %d is, or was when it last wrote, at least", clock.relayID), off, clock.direction)
			fits = false
		}
	}
	if fits {
		p.add(Healthy, "what relays wrote fits the database's clock", "")
	}
	return nil
}
