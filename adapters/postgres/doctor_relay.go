package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
)

// signOfLife is how old the last sign of life of a relay at work may be: it
// gives one each half second, and a standby takes over after three.
const signOfLife = 10 * time.Second

const startServe = "start one: outrider serve"

const ownerQuery = `
SELECT coalesce(s.relay_id, 0), coalesce(r.name, ''), coalesce(r.version, ''), extract(epoch FROM clock_timestamp() - s.since),
       (SELECT extract(epoch FROM clock_timestamp() - h.at) FROM relay.heartbeats h WHERE h.relay_id = s.relay_id ORDER BY h.n DESC LIMIT 1),
       ARRAY(SELECT DISTINCT substr(a.application_name, 10) FROM pg_stat_activity a WHERE a.datname = current_database() AND a.application_name LIKE 'outrider %' ORDER BY 1)
  FROM relay.slots s LEFT JOIN relay.relays r ON r.relay_id = s.relay_id WHERE s.slot = $1`

func lookAtRelay(ctx context.Context, p *patient) error {
	var name, version string
	var since, silent sql.NullFloat64
	var connected []string
	if err := p.row(ctx, ownerQuery, []any{tailSlot}, &p.owner, &name, &version, &since, &silent, pq.Array(&connected)); err != nil {
		return err
	}
	var others []string
	for _, other := range connected {
		if other != name || p.owner == 0 {
			others = append(others, other)
		}
	}
	connectedText := ""
	if len(others) > 0 {
		connectedText = "; connected too: " + strings.Join(others, ", ")
	}
	who := fmt.Sprintf("relay %d (%s, %s)", p.owner, name, version)
	switch last := fromSeconds(silent.Float64); {
	case p.owner == 0 && !since.Valid:
		p.add(Problem, "no relay has ever worked on this database"+connectedText, startServe)
	case p.owner == 0:
		p.add(Problem, fmt.Sprintf("no relay is at work: the last one stopped in an orderly way %s ago%s", ago(fromSeconds(since.Float64)), connectedText), startServe)
	case !silent.Valid && fromSeconds(since.Float64) < signOfLife:
		p.alive = true
		p.add(Healthy, fmt.Sprintf("%s took over %s ago%s", who, ago(fromSeconds(since.Float64)), connectedText), "")
	case !silent.Valid:
		p.add(Problem, fmt.Sprintf("%s took over %s ago and gave no sign of life since: it is dead or cut off, and no other took over%s", who, ago(fromSeconds(since.Float64)), connectedText), startServe)
	case last > signOfLife:
		p.add(Problem, fmt.Sprintf("%s gave its last sign of life %s ago: it was killed or is cut off, and no other took over%s", who, ago(last), connectedText), startServe)
	default:
		p.alive = true
		p.add(Healthy, fmt.Sprintf("%s is at work since %s, last sign of life %s ago%s", who, ago(fromSeconds(since.Float64)), ago(last), connectedText), "")
	}
	return nil
}

// dispatchQuery reads how far the relay at work has dispatched the chain, and
// its newest attempt. A relay without attempts has a null there.
const dispatchQuery = `
SELECT coalesce(h.position, s.position), b.no, coalesce(extract(epoch FROM clock_timestamp() - n.at), 0),
       a.writer, extract(epoch FROM clock_timestamp() - a.at)
  FROM relay.slots s
 CROSS JOIN (SELECT no FROM relay.batches ORDER BY no DESC LIMIT 1) b
  LEFT JOIN LATERAL (SELECT h.position FROM relay.heartbeats h WHERE h.relay_id = s.relay_id ORDER BY h.n DESC LIMIT 1) h ON true
  LEFT JOIN relay.batches n ON n.no = coalesce(h.position, s.position) + 1
  LEFT JOIN LATERAL (SELECT l.writer, l.at FROM relay.log l WHERE l.type = 'attempt_started' ORDER BY l.pos DESC LIMIT 1) a ON true
 WHERE s.slot = $1`

// behindQuery counts deliveries of the batches after $1, $2 of them at most,
// that are neither begun, finished nor in the due table.
const behindQuery = `
SELECT count(*) FROM (
  SELECT FROM (SELECT b.commit, b.seq_min, b.seq_max FROM relay.batches b WHERE b.no > $1 AND b.no <= $1 + $2::bigint ORDER BY b.no) b
   CROSS JOIN LATERAL (
         SELECT FROM relay.log l
          WHERE l.event_seq BETWEEN b.seq_min AND b.seq_max AND l.pos > b.commit << $3 AND l.pos < (b.commit + 1) << $3 AND l.delivery_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = l.event_seq AND n.webhook_id = l.webhook_id AND n.replay_id = l.replay_id AND n.version = 2)
            AND NOT EXISTS (SELECT FROM relay.due w WHERE w.event_seq = l.event_seq AND w.webhook_id = l.webhook_id AND w.replay_id = l.replay_id AND w.version = 1)
          LIMIT $4) d
   LIMIT $4) x`

const (
	// batchesLooked bounds how many batches are looked into.
	batchesLooked = 200
	// dispatchPatience is how long a routed delivery may wait for its start, or
	// for a place in the due table, before it is worth a word.
	dispatchPatience = 30 * time.Second
)

// lookAtSending tells a relay that sends from one that only routes.
func lookAtSending(ctx context.Context, p *patient) error {
	var position, head int64
	var oldest float64
	var writer sql.NullInt64
	var last sql.NullFloat64
	var behind int
	err := p.reading(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, dispatchQuery, tailSlot).Scan(&position, &head, &oldest, &writer, &last); err != nil || head <= position {
			return err
		}
		return tx.QueryRowContext(ctx, behindQuery, position, batchesLooked, commitShift, countLimit+1).Scan(&behind)
	})
	if err != nil {
		return err
	}
	attempt := "no attempt was ever made"
	if last.Valid {
		attempt = fmt.Sprintf("the last attempt began %s ago", ago(fromSeconds(last.Float64)))
		if p.alive && writer.Int64 != p.owner {
			attempt += ", by an earlier relay"
		}
	}
	waiting := countedUpTo(countOf(behind), "routed delivery is", "routed deliveries are") + " not begun"
	age := fromSeconds(oldest)
	switch {
	case behind == 0:
		p.add(Healthy, "no routed delivery waits to be begun; "+attempt, "")
	case !p.alive:
		p.add(Warning, waiting+", and wait for a relay; "+attempt, startServe)
	case age < dispatchPatience:
		p.add(Healthy, fmt.Sprintf("%s, routed %s ago; %s", waiting, ago(age), attempt), "")
	case writer.Valid && writer.Int64 == p.owner && fromSeconds(last.Float64) < dispatchPatience:
		p.add(Warning, fmt.Sprintf("%s, the oldest routed %s ago; %s", waiting, ago(age), attempt), "the relay is busy: which webhooks are slow? outrider audit attempts --status failed")
	default:
		p.add(Problem, fmt.Sprintf("%s, the oldest routed %s ago, although a relay routes: %s", waiting, ago(age), attempt),
			"it runs with --no-send, or hangs, which its log tells: stop it, and start outrider serve without that flag")
	}
	return nil
}

// openAttemptsQuery finds starts without an end from the place on that signs of
// life name: an open attempt's start is the last entry of its stream. $3
// bounds the starts that are looked at.
const openAttemptsQuery = `
SELECT count(*), count(*) FILTER (WHERE s.writer <> $1), coalesce(max(extract(epoch FROM clock_timestamp() - s.at)), 0)
  FROM (SELECT l.event_seq, l.webhook_id, l.replay_id, l.version, l.writer, l.at FROM relay.log l
         WHERE l.type = 'attempt_started' AND l.pos >= $2 ORDER BY l.pos LIMIT $3) s
 WHERE NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = s.event_seq AND n.webhook_id = s.webhook_id AND n.replay_id = s.replay_id AND n.version = s.version + 1)`

const lowQuery = `
SELECT coalesce((SELECT h.low FROM relay.heartbeats h WHERE h.relay_id = s.relay_id ORDER BY h.n DESC LIMIT 1), s.low) FROM relay.slots s WHERE s.slot = $1`

func lookAtAttempts(ctx context.Context, p *patient) error {
	var open, orphans int
	var oldest float64
	err := p.reading(ctx, func(tx *sql.Tx) error {
		var low int64
		if err := tx.QueryRowContext(ctx, lowQuery, tailSlot).Scan(&low); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, openAttemptsQuery, p.owner, low, 5*countLimit).Scan(&open, &orphans, &oldest)
	})
	if err != nil {
		return err
	}
	text := counted(open, "attempt has", "attempts have") + " no outcome yet"
	switch age := fromSeconds(oldest); {
	case open == 0:
		p.add(Healthy, "every attempt that began has its outcome", "")
	case !p.alive:
		p.add(Warning, fmt.Sprintf("%s, and no relay waits for it; the oldest began %s ago", text, ago(age)),
			"nothing is lost: the next relay records them as unknown, repeats them and tells the receivers so; "+startServe)
	case age > 10*time.Minute:
		p.add(Warning, fmt.Sprintf("%s; the oldest began %s ago, and no attempt may take longer than half a minute", text, ago(age)),
			"see it: outrider audit attempts --status started; the relay's log tells why its outcome cannot be recorded")
	case orphans > 0:
		p.add(Note, fmt.Sprintf("%s; %s of an earlier relay: they are waited for, then repeated", text, counted(orphans, "is one", "are")), "")
	default:
		p.add(Healthy, fmt.Sprintf("%s; the oldest began %s ago", text, ago(age)), "")
	}
	return nil
}

const dueQuery = `
SELECT (SELECT count(*) FROM (SELECT FROM relay.due LIMIT $1) x),
       (SELECT string_agg(k.n || ' ' || k.name, ', ' ORDER BY k.n DESC) FROM (
          SELECT count(*) AS n, CASE d.kind WHEN 'r' THEN 'to be tried again' WHEN 'h' THEN 'held behind an earlier one' WHEN 'p' THEN 'of paused webhooks' ELSE 'that overflowed' END AS name
            FROM (SELECT kind FROM relay.due ORDER BY event_seq LIMIT $1) d GROUP BY 2) k),
       (SELECT extract(epoch FROM clock_timestamp() - d.at) FROM relay.due d WHERE d.kind <> 'o' ORDER BY d.at LIMIT 1)`

// overdue is how late a delivery may come back from the due table: its webhook
// may be at its most attempts at once.
const overdue = time.Minute

func lookAtDue(ctx context.Context, p *patient) error {
	var n int
	var kinds sql.NullString
	var oldest sql.NullFloat64
	if err := p.row(ctx, dueQuery, []any{countLimit + 1}, &n, &kinds, &oldest); err != nil {
		return err
	}
	if n == 0 {
		p.add(Healthy, "nothing waits for a retry, an earlier delivery, or a paused webhook", "")
		return nil
	}
	found := countedUpTo(countOf(n), "delivery waits", "deliveries wait") + ": " + kinds.String
	late := fromSeconds(oldest.Float64)
	switch {
	case oldest.Valid && late > 0:
		found += fmt.Sprintf("; the oldest is overdue by %s", ago(late))
	case oldest.Valid:
		found += fmt.Sprintf("; the next is due in %s", ago(-late))
	}
	switch {
	case late < overdue:
		p.add(Healthy, found, "")
	case !p.alive:
		p.add(Warning, found, startServe)
	default:
		p.add(Warning, found, "a webhook is too slow for what it gets, or the relay does not send: outrider audit deliveries --status pending")
	}
	return nil
}
