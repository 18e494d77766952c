package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// dispatchQuery reads how far the chain is dispatched, by the shards that are
// furthest behind, whose those are, 0 for nobody's, and the newest attempt, and
// whether its relay still works. Without attempts there are nulls.
const dispatchQuery = `
SELECT p.position, coalesce(p.relay_id, 0), b.no, coalesce(extract(epoch FROM clock_timestamp() - n.at), 0),
       EXISTS (SELECT FROM relay.relays r WHERE r.relay_id = a.writer AND r.fenced_at IS NULL), extract(epoch FROM clock_timestamp() - a.at)
  FROM (SELECT position, relay_id FROM relay.places ORDER BY position, relay_id NULLS FIRST LIMIT 1) p
 CROSS JOIN (SELECT no FROM relay.batches ORDER BY no DESC LIMIT 1) b
  LEFT JOIN relay.batches n ON n.no = p.position + 1
  LEFT JOIN LATERAL (SELECT l.writer, l.at FROM relay.log l WHERE l.type = 'attempt_started' ORDER BY l.pos DESC LIMIT 1) a ON true`

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

// lookAtSending tells relays that send from those that only route.
func lookAtSending(ctx context.Context, p *patient) error {
	var position, owner, head int64
	var oldest float64
	var present bool
	var last sql.NullFloat64
	var behind int
	err := p.reading(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, dispatchQuery).Scan(&position, &owner, &head, &oldest, &present, &last); err != nil || head <= position {
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
		if p.alive && !present {
			attempt += ", by an earlier relay"
		}
	}
	waiting := countedUpTo(countOf(behind), "routed delivery is", "routed deliveries are") + " not begun"
	age := fromSeconds(oldest)
	routed := fmt.Sprintf("%s, the oldest routed %s ago", waiting, ago(age))
	switch {
	case behind == 0:
		p.add(Healthy, "no routed delivery waits to be begun; "+attempt, "")
	case !p.alive:
		p.add(Warning, waiting+", and wait for a relay; "+attempt, startServe)
	case age < dispatchPatience:
		p.add(Healthy, fmt.Sprintf("%s, routed %s ago; %s", waiting, ago(age), attempt), "")
	case !p.sends:
		p.add(Problem, routed+", although a relay routes: "+attempt, "it runs with --no-send; where that is not meant so, "+startServe)
	case owner == 0:
		p.add(Problem, routed+", although a relay sends: their shards belong to nobody; "+attempt, "what the check of the relay says")
	case present && fromSeconds(last.Float64) < dispatchPatience:
		p.add(Warning, routed+"; "+attempt, fmt.Sprintf("relay %d, whose shards are furthest behind, is busy: which webhooks are slow? outrider audit attempts --status failed", owner))
	default:
		p.add(Problem, fmt.Sprintf("%s, although relay %d has their shards: %s", routed, owner, attempt),
			"it hangs, which its log tells: stop it, and start it again: outrider serve")
	}
	return nil
}

// openAttemptsQuery finds starts without an end from the place on that signs of
// life name: an open attempt's start is the last entry of its stream. Those of
// relays that are fenced are orphans. $2 bounds the starts that are looked at.
const openAttemptsQuery = `
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (SELECT FROM relay.relays r WHERE r.relay_id = s.writer AND r.fenced_at IS NULL)),
       coalesce(max(extract(epoch FROM clock_timestamp() - s.at)), 0)
  FROM (SELECT l.event_seq, l.webhook_id, l.replay_id, l.version, l.writer, l.at FROM relay.log l
         WHERE l.type = 'attempt_started' AND l.pos >= $1 ORDER BY l.pos LIMIT $2) s
 WHERE NOT EXISTS (SELECT FROM relay.log n WHERE n.event_seq = s.event_seq AND n.webhook_id = s.webhook_id AND n.replay_id = s.replay_id AND n.version = s.version + 1)`

const lowQuery = `
SELECT min(low) FROM relay.places`

func lookAtAttempts(ctx context.Context, p *patient) error {
	var open, orphans int
	var oldest float64
	err := p.reading(ctx, func(tx *sql.Tx) error {
		var low int64
		if err := tx.QueryRowContext(ctx, lowQuery).Scan(&low); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, openAttemptsQuery, low, 5*countLimit).Scan(&open, &orphans, &oldest)
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
			"see it: outrider audit attempts --status started, which names its relay (relay_id); that one's log tells why its outcome cannot be recorded")
	case orphans > 0:
		p.add(Note, fmt.Sprintf("%s; %s of an earlier relay: they are waited for, then repeated", text, counted(orphans, "is one", "are")), "")
	default:
		p.add(Healthy, fmt.Sprintf("%s; the oldest began %s ago", text, ago(age)), "")
	}
	return nil
}

// dueQuery takes nothing for late that a pause held: it is due long ago once that
// is over.
const dueQuery = `
SELECT (SELECT count(*) FROM (SELECT FROM relay.due LIMIT $1) x),
       (SELECT string_agg(k.n || ' ' || k.name, ', ' ORDER BY k.n DESC) FROM (
          SELECT count(*) AS n, CASE d.kind WHEN 'r' THEN 'to be tried again' WHEN 'h' THEN 'held behind an earlier one' WHEN 'p' THEN 'of paused webhooks' ELSE 'that overflowed' END AS name
            FROM (SELECT kind FROM relay.due ORDER BY event_seq LIMIT $1) d GROUP BY 2) k),
       extract(epoch FROM clock_timestamp() - ` + oldestDue + `)`

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
		p.add(Warning, found, "a webhook is too slow for what it gets, or its relay does not send: outrider audit deliveries --status pending")
	}
	return nil
}
