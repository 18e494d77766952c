package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const extendPartitions = "SELECT relay.extend_partitions(), until it answers 'nothing to do'; a running relay does it each minute, and its log tells why it cannot"

// leastRoom is the fewest rows that the partitions should have room for: half
// of the smallest partition.
const leastRoom = 500_000

// partitionsQuery takes the time of its transaction, which an index can be read
// by: clock_timestamp() would be compared with each batch.
const partitionsQuery = `
SELECT coalesce((SELECT max(p.upper) FROM relay.partitions p WHERE p.events_done AND p.log_done AND p.responses_done), 0), n.seq,
       (SELECT (n.seq - b.high - coalesce((SELECT sum(q.left_over) FROM relay.partitions q WHERE q.left_at > b.at), 0)) / greatest(extract(epoch FROM clock_timestamp() - b.at), 3600)
          FROM relay.batches b WHERE b.at > now() - interval '1 day' ORDER BY b.at LIMIT 1),
       (SELECT extract(epoch FROM clock_timestamp() - min(p.created_at)) FROM relay.partitions p WHERE NOT (p.events_done AND p.log_done AND p.responses_done))
  FROM (SELECT coalesce((SELECT r.seq FROM relay.outbox_rows r ORDER BY r.seq DESC LIMIT 1), 0) AS seq) n`

func lookAtPartitions(ctx context.Context, p *patient) error {
	var upper, seq int64
	var rate, stuck sql.NullFloat64
	if err := p.row(ctx, partitionsQuery, nil, &upper, &seq, &rate, &stuck); err != nil {
		return err
	}
	room := upper - seq
	found := fmt.Sprintf("room for %s from seq %s on", counted(room, "row", "rows"), grouped(seq))
	days := -1.0
	if rate.Float64 > 0 {
		days = float64(room) / rate.Float64 / 86400
		found += fmt.Sprintf(", %s at the last day's rate", inDays(days))
	}
	switch {
	case room <= 0:
		p.add(Problem, fmt.Sprintf("no partition takes new rows: the last one ended at seq %s, and rows are at %s. They fall into the net, and are delivered all the same", grouped(upper), grouped(seq)), extendPartitions)
	case room < leastRoom || days >= 0 && days < 1:
		p.add(Warning, found, extendPartitions)
	case stuck.Valid && fromSeconds(stuck.Float64) > time.Hour:
		p.add(Warning, fmt.Sprintf("%s; the next one is planned since %s and not attached", found, ago(fromSeconds(stuck.Float64))), "a long transaction is in the way, see transactions; then "+extendPartitions)
	default:
		p.add(Healthy, found, "")
	}
	return nil
}

func inDays(days float64) string {
	switch {
	case days > 1000:
		return "years"
	case days < 1.0/12:
		return "less than 2 hours"
	case days < 2:
		return fmt.Sprintf("%.0f hours", days*24)
	default:
		return fmt.Sprintf("%.0f days", days)
	}
}

const netQuery = `
SELECT (SELECT count(*) FROM (SELECT FROM relay.outbox_net_rows LIMIT $1) x), (SELECT count(*) FROM (SELECT FROM relay.log_net LIMIT $1) x),
       (SELECT count(*) FROM (SELECT FROM relay.responses_net LIMIT $1) x),
       EXISTS (SELECT FROM relay.outbox_net_rows n WHERE n.seq > d.high) OR EXISTS (SELECT FROM relay.log_net n WHERE n.event_seq > d.high)
    OR EXISTS (SELECT FROM relay.responses_net n WHERE n.event_seq > d.high)
  FROM (SELECT coalesce((SELECT b.high FROM relay.batches b WHERE b.at < now() - interval '1 day' ORDER BY b.at DESC LIMIT 1), 0) AS high) d`

func lookAtNet(ctx context.Context, p *patient) error {
	var events, log, responses int
	var fresh bool
	if err := p.row(ctx, netQuery, []any{countLimit + 1}, &events, &log, &responses, &fresh); err != nil {
		return err
	}
	found := fmt.Sprintf("%s of outbox.events_net, %s of relay.log_net and %s of relay.responses_net",
		countedUpTo(countOf(events), "row", "rows"), countedUpTo(countOf(log), "row", "rows"), countedUpTo(countOf(responses), "row", "rows"))
	switch {
	case events+log+responses == 0:
		p.add(Healthy, "the net below the partitions is empty", "")
	case fresh:
		p.add(Warning, "rows fell into the net below the partitions within the last day: "+found, "they are delivered all the same; extend the partitions: "+extendPartitions)
	default:
		p.add(Note, "rows fell into the net below the partitions more than a day ago, and stay there: "+found, "outrider retain drops them when their age has come")
	}
	return nil
}
