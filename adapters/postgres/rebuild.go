package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// ErrRebuilding says that another rebuild is at work on the database.
var ErrRebuilding = errors.New("another rebuild is at work on this database")

// Rebuild folds the projections again from the log, while relays are at work,
// and compares what it gets with what is there: the statistics of webhooks,
// relay.webhooks and relay.accounts, and the due table, which it only compares,
// for a relay owns it.
type Rebuild struct {
	DB *sql.DB
	// Check compares and changes nothing that is compared.
	Check bool
	// Progress hears from time to time how far it is; nil for nobody.
	Progress func(RebuildProgress)
	// Now is the clock, by which hours are told from slots.
	Now func() time.Time
}

// RebuildProgress is how far the log is read: up to a chat event of the last.
type RebuildProgress struct{ Seq, LastSeq, Entries int64 }

// Rebuilt is what became of one projection.
type Rebuilt struct {
	Projection string
	// Rows are how many there are now.
	Rows int64
	// Differences are how many rows were not as the log has it, Mended how many
	// of them are now.
	Differences, Mended int64
	// Examples tell of some of the differences.
	Examples []string
}

// maxExamples bounds what a projection tells of its differences.
const maxExamples = 10

func (r *Rebuilt) differs(mended bool, format string, args ...any) {
	r.Differences++
	if mended {
		r.Mended++
	}
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// Run folds and compares, and says what became of each projection. Entries of
// the log that cannot be read are left out, and told of as differences of one
// named log.
func (r *Rebuild) Run(ctx context.Context) ([]Rebuilt, error) {
	conn, err := r.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	// The lock is the session's: it ends with the process, whatever becomes of it.
	unlock, err := lockMerges(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f := &folding{conn: conn, now: r.Now().UTC(), progress: r.Progress, standings: map[domain.WebhookID]*foldedStanding{}}
	if err := f.begin(ctx); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	if err := f.fold(ctx); err != nil {
		return nil, fmt.Errorf("fold the log: %w", err)
	}
	statistics, standings, err := f.compare(ctx, !r.Check)
	if err != nil {
		return nil, fmt.Errorf("compare the statistics: %w", err)
	}
	if !r.Check {
		if err := f.swap(ctx); err != nil {
			return nil, fmt.Errorf("put the statistics in place: %w", err)
		}
	}
	if err := f.forget(ctx); err != nil {
		return nil, err
	}
	due, err := f.compareDue(ctx)
	if err != nil {
		return nil, fmt.Errorf("compare the due table: %w", err)
	}
	webhooks, accounts, err := rebuildWebhooks(ctx, r.DB, r.Check)
	if err != nil {
		return nil, fmt.Errorf("fold the webhooks' history: %w", err)
	}
	rebuilt := []Rebuilt{statistics, standings, webhooks, accounts, due}
	if f.unreadable.Differences > 0 {
		f.unreadable.Projection, f.unreadable.Rows = "log", f.entries
		rebuilt = append(rebuilt, f.unreadable)
	}
	return rebuilt, nil
}

// lockMerges keeps rows from being merged, and other rebuilds out. A merge is
// over in a moment.
func lockMerges(ctx context.Context, conn *sql.Conn) (unlock func(), err error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		var held bool
		if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(`+mergeLock+`)`).Scan(&held); err != nil {
			return nil, err
		}
		if held {
			return func() {
				_, _ = conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(`+mergeLock+`)`)
			}, nil
		}
		if time.Now().After(deadline) {
			return nil, ErrRebuilding
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// folding is a rebuild of the statistics under way. Its rows have the epoch
// stagedEpoch until they are put in the place of those before epoch.
type folding struct {
	conn     *sql.Conn
	now      time.Time
	progress func(RebuildProgress)

	epoch  int64
	bounds map[int64]int64 // by writer: the place in the log before which its entries are in the rows to replace
	routed int64           // the same for what routing began, whoever wrote it
	last   int64           // the log's last chat event

	entries   int64
	whole     relay.Tally // by hours
	slots     relay.Tally
	standings map[domain.WebhookID]*foldedStanding
	open      []openDelivery
	// unreadable tells of entries that are damaged, or a newer version's.
	unreadable Rebuilt
}

// stagedEpoch marks rows that nobody reads yet.
const stagedEpoch = -1

// foldedStanding folds a standing in whatever order entries come.
type foldedStanding struct {
	account  domain.AccountID
	standing domain.Standing
	// success is the place of the last success, failures those behind it.
	success  int64
	failures []failure
}

// failure is the place of a failed attempt's end, and its time.
type failure struct {
	pos int64
	at  time.Time
}

func (s *foldedStanding) count(pos int64, at time.Time, event domain.DeliveryEvent) {
	s.standing.Count(event)
	switch event.(type) {
	case domain.AttemptSucceeded:
		if pos > s.success {
			s.success = pos
			s.failures = slices.DeleteFunc(s.failures, func(f failure) bool { return f.pos < pos })
		}
	case domain.AttemptFailed, domain.AttemptUnknown:
		if pos > s.success {
			s.failures = append(s.failures, failure{pos, at})
		}
	case domain.Scheduled, domain.AttemptStarted, domain.Held, domain.Released, domain.Expired, domain.Dead, domain.Cancelled:
	}
}

// openDelivery is one that has not ended, as the log was read.
type openDelivery struct {
	key     domain.DeliveryKey
	version int
}

// begin tells which rows will be replaced: all there are. The epoch's row is
// locked by whoever adds some, so those that are under way are there when the
// places are read, and those that come have the new epoch.
func (f *folding) begin(ctx context.Context) error {
	tx, err := f.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.QueryRowContext(ctx, `UPDATE relay.projection_epoch SET epoch = epoch + 1 RETURNING epoch`).Scan(&f.epoch); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `
INSERT INTO relay.projected (writer, commit, batch, low)
SELECT 0, 0, coalesce((SELECT max(no) FROM relay.batches), 0), 0 WHERE NOT EXISTS (SELECT FROM relay.projected)`); err != nil {
		return err
	}
	for _, statement := range forgetStaged {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if err := tx.QueryRowContext(ctx, `
SELECT coalesce((SELECT b.commit FROM relay.batches b WHERE b.no = (SELECT max(p.batch) FROM relay.projected p)), 0) + 1,
       coalesce((SELECT max(l.event_seq) FROM relay.log l), 0)`).Scan(&f.routed, &f.last); err != nil {
		return err
	}
	f.routed <<= commitShift
	// A dead relay without a place is folded to its end.
	rows, err := tx.QueryContext(ctx, `
SELECT r.relay_id, r.fenced_at IS NOT NULL, (SELECT max(p.commit) FROM relay.projected p WHERE p.writer = r.relay_id) FROM relay.relays r`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	f.bounds = map[int64]int64{}
	for rows.Next() {
		var id int64
		var dead bool
		var commit sql.NullInt64
		if err := rows.Scan(&id, &dead, &commit); err != nil {
			return err
		}
		switch {
		case commit.Valid:
			f.bounds[id] = (commit.Int64 + 1) << commitShift
		case dead:
			f.bounds[id] = math.MaxInt64
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return tx.Commit()
}

// forgetStaged deletes what a rebuild that did not come to its end left.
var forgetStaged = []string{
	`DELETE FROM relay.webhook_stats WHERE epoch < 0`,
	`DELETE FROM relay.webhook_standings WHERE epoch < 0`,
}

func (f *folding) forget(ctx context.Context) error {
	for _, statement := range forgetStaged {
		if _, err := f.conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

const (
	// foldedEvents are the chat events read at a time, so that no statement
	// holds back vacuum for long.
	foldedEvents = 2000
	// stagedSlots bounds what is folded in memory before it is written.
	stagedSlots = 20_000
)

const foldQuery = `
SELECT l.event_seq, l.webhook_id, l.replay_id, l.account_id, l.pos, l.writer, l.type, l.at, l.data::text FROM relay.log l
 WHERE l.event_seq >= $1 AND l.event_seq < $2 AND l.webhook_id > 0
 ORDER BY l.event_seq, l.webhook_id, l.replay_id, l.version`

// fold reads the log once, stream by stream.
func (f *folding) fold(ctx context.Context) error {
	f.whole, f.slots = relay.Tally{}, relay.Tally{}
	for from := int64(0); ; {
		// What is between partitions is not walked.
		var next sql.NullInt64
		if err := f.conn.QueryRowContext(ctx, `SELECT min(event_seq) FROM relay.log WHERE event_seq >= $1`, from).Scan(&next); err != nil {
			return err
		}
		if !next.Valid || next.Int64 > f.last {
			break
		}
		from = next.Int64 + foldedEvents
		if err := f.foldRange(ctx, next.Int64, from); err != nil {
			return err
		}
		if f.progress != nil {
			f.progress(RebuildProgress{min(from-1, f.last), f.last, f.entries})
		}
		if n := slotCount(f.whole) + slotCount(f.slots); n >= stagedSlots {
			if err := f.stage(ctx); err != nil {
				return err
			}
		}
	}
	if err := f.stage(ctx); err != nil {
		return err
	}
	return f.stageStandings(ctx)
}

func slotCount(t relay.Tally) int {
	n := 0
	for _, w := range t {
		n += len(w.Slots)
	}
	return n
}

func (f *folding) foldRange(ctx context.Context, from, to int64) error {
	rows, err := f.conn.QueryContext(ctx, foldQuery, from, to)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var key domain.DeliveryKey
	var state domain.Delivery
	end := func() {
		if key.EventSeq != 0 && !state.Status.Final() {
			f.open = append(f.open, openDelivery{key, state.Version})
		}
	}
	limit := f.now.Truncate(time.Hour).Add(-wholeAfter)
	for rows.Next() {
		var e relay.LogEntry
		var pos, writer int64
		var kind string
		var data []byte
		if err := rows.Scan(&e.Key.EventSeq, &e.Key.WebhookID, &e.Key.ReplayID, &e.AccountID, &pos, &writer, &kind, &e.At, &data); err != nil {
			return err
		}
		if e.Key != key {
			end()
			key, state = e.Key, domain.Delivery{}
		}
		if e.Event, err = domain.DecodeDelivery(domain.Entry{Type: kind, At: e.At, Data: data}); err != nil {
			f.unreadable.differs(false, "event_seq %d, webhook %d, replay %d: %v", e.Key.EventSeq, e.Key.WebhookID, e.Key.ReplayID, err)
			continue
		}
		state = domain.Evolve(state, e.Event)
		f.entries++
		if f.covers(&e, pos, writer) {
			f.count(&e, pos, limit)
		}
	}
	end()
	return rows.Err()
}

// covers says whether an entry is in the rows to replace.
func (f *folding) covers(e *relay.LogEntry, pos, writer int64) bool {
	if _, scheduled := e.Event.(domain.Scheduled); scheduled && e.Key.ReplayID == 0 {
		return pos < f.routed
	}
	return pos < f.bounds[writer]
}

func (f *folding) count(e *relay.LogEntry, pos int64, limit time.Time) {
	s := f.standings[e.Key.WebhookID]
	if s == nil {
		s = &foldedStanding{account: e.AccountID}
		f.standings[e.Key.WebhookID] = s
	}
	s.count(pos, e.At, e.Event)
	if hour := e.At.UTC().Truncate(time.Hour); hour.Before(limit) {
		f.whole.Of(e.Key.WebhookID, e.AccountID).CountSlot(e.Key.EventSeq, hour, e.Event)
	} else {
		f.slots.Of(e.Key.WebhookID, e.AccountID).CountSlot(e.Key.EventSeq, e.At, e.Event)
	}
}

// stageStatement writes a tally's rows where nobody reads them. Behind them
// come those that a relay adds meanwhile: so their commit is 0.
const stageStatement = `
WITH epoch AS (SELECT $1::bigint AS epoch),` + tallyRows + `
SELECT count(*) FROM epoch WHERE $3::bigint = 0`

func (f *folding) stage(ctx context.Context) error {
	var c tallyColumns
	for _, part := range []struct {
		tally relay.Tally
		whole bool
	}{{f.whole, true}, {f.slots, false}} {
		for id, w := range part.tally {
			for begin, slot := range w.Slots {
				c.slot(id, w.AccountID, begin, part.whole, slot)
			}
		}
	}
	f.whole, f.slots = relay.Tally{}, relay.Tally{}
	return f.write(ctx, &c)
}

func (f *folding) stageStandings(ctx context.Context) error {
	var c tallyColumns
	for id, s := range f.standings {
		s.standing.Failures, s.standing.FailingSince = int64(len(s.failures)), time.Time{}
		for _, f := range s.failures {
			if s.standing.FailingSince.IsZero() || f.at.Before(s.standing.FailingSince) {
				s.standing.FailingSince = f.at
			}
		}
		c.standing(id, s.account, s.standing)
	}
	return f.write(ctx, &c)
}

func (f *folding) write(ctx context.Context, c *tallyColumns) error {
	_, err := f.conn.ExecContext(ctx, stageStatement, append([]any{int64(stagedEpoch), 0, 0}, c.args()...)...)
	return err
}

// floorOf is the lowest chat event that the log's partitions still have. The
// net beside them is left out: what is in it may be older than what was dropped.
const floorOf = `(SELECT coalesce(min(l.event_seq), 0) FROM relay.log l WHERE l.tableoid <> 'relay.log_net'::regclass)`

// keptHours are the hours of which the log has not all any more: they stay as
// they are.
const keptHours = `
kept AS MATERIALIZED (
  SELECT s.webhook_id, s.hour FROM relay.webhook_stats s
   WHERE s.epoch >= 0 AND s.epoch < $1 GROUP BY s.webhook_id, s.hour HAVING min(s.first_seq) < ` + floorOf + `)`

// statsCompared gives what is there and what the log has, by webhook and hour,
// where the two differ.
const statsCompared = `
WITH` + keptHours + `,
r AS MATERIALIZED (
  SELECT s.* FROM relay.webhook_stats s
   WHERE s.epoch < $1 AND NOT EXISTS (SELECT FROM kept k WHERE k.webhook_id = s.webhook_id AND k.hour = s.hour)),
sums AS (
  SELECT webhook_id, hour, epoch < 0 AS anew, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(unknown) AS unknown,
         sum(dead) AS dead, sum(expired) AS expired, sum(cancelled) AS cancelled
    FROM r GROUP BY webhook_id, hour, anew),
latencies AS (
  SELECT webhook_id, hour, anew, array_agg(bucket ORDER BY bucket) AS latency, array_agg(n ORDER BY bucket) AS latency_n
    FROM (SELECT r.webhook_id, r.hour, r.epoch < 0 AS anew, u.bucket, sum(u.n) AS n FROM r CROSS JOIN LATERAL unnest(r.latency, r.latency_n) AS u (bucket, n) GROUP BY 1, 2, 3, 4) b
   GROUP BY webhook_id, hour, anew),
compared AS (SELECT s.*, l.latency, l.latency_n FROM sums s LEFT JOIN latencies l USING (webhook_id, hour, anew))
SELECT coalesce(i.webhook_id, o.webhook_id), coalesce(i.hour, o.hour),
       concat_ws('/', o.succeeded, o.failed, o.unknown, o.dead, o.expired, o.cancelled),
       concat_ws('/', i.succeeded, i.failed, i.unknown, i.dead, i.expired, i.cancelled)
  FROM (SELECT * FROM compared WHERE NOT anew) o
  FULL JOIN (SELECT * FROM compared WHERE anew) i ON i.webhook_id = o.webhook_id AND i.hour = o.hour
 WHERE (o.succeeded, o.failed, o.unknown, o.dead, o.expired, o.cancelled, o.latency, o.latency_n)
       IS DISTINCT FROM (i.succeeded, i.failed, i.unknown, i.dead, i.expired, i.cancelled, i.latency, i.latency_n)
 ORDER BY 1, 2`

// standingsFolded gives each webhook's standing as it is, and as the log has
// it. Of a webhook with kept hours the log may have lost the last success or
// failure: then the one known is the newest there was.
const standingsFolded = keptHours + `,
old AS (
  SELECT x.webhook_id, max(x.account_id) AS account_id, max(x.last_success_at) AS success, max(x.last_failure_at) AS failure,
         coalesce(sum(x.failures) FILTER (WHERE x.commit >= coalesce(x.place, 0)), 0)::bigint AS failures, sum(x.pending)::bigint AS pending,
         min(x.failing_since) FILTER (WHERE x.commit >= coalesce(x.place, 0)) AS since
    FROM (SELECT s.*, max(s.commit) FILTER (WHERE s.last_success_at IS NOT NULL) OVER (PARTITION BY s.webhook_id) AS place
            FROM relay.webhook_standings s WHERE s.epoch >= 0 AND s.epoch < $1) x
   GROUP BY x.webhook_id),
anew AS (
  SELECT coalesce(s.webhook_id, o.webhook_id) AS webhook_id, coalesce(s.account_id, o.account_id) AS account_id,
         CASE WHEN k.lost THEN coalesce(s.last_success_at, o.success) ELSE s.last_success_at END AS success,
         CASE WHEN k.lost THEN coalesce(s.last_failure_at, o.failure) ELSE s.last_failure_at END AS failure,
         CASE WHEN k.lost AND s.last_success_at IS NULL THEN greatest(s.failures, o.failures) ELSE coalesce(s.failures, 0) END AS failures,
         coalesce(s.pending, 0) AS pending,
         CASE WHEN k.lost AND s.last_success_at IS NULL THEN least(s.failing_since, o.since) ELSE s.failing_since END AS since
    FROM (SELECT * FROM relay.webhook_standings WHERE epoch < 0) s
    FULL JOIN old o ON o.webhook_id = s.webhook_id
   CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM kept k WHERE k.webhook_id = coalesce(s.webhook_id, o.webhook_id)) AS lost) k)`

const standingsCompared = `
WITH` + standingsFolded + `
SELECT n.webhook_id, concat_ws('/', o.success, o.failure, o.failures, o.since, o.pending), concat_ws('/', n.success, n.failure, n.failures, n.since, n.pending)
  FROM anew n LEFT JOIN old o ON o.webhook_id = n.webhook_id
 WHERE (o.success, o.failure, coalesce(o.failures, 0), o.since, coalesce(o.pending, 0)) IS DISTINCT FROM (n.success, n.failure, n.failures, n.since, n.pending)
 ORDER BY 1`

// compare tells how the rows to replace differ from those folded anew.
func (f *folding) compare(ctx context.Context, mended bool) (statistics, standings Rebuilt, err error) {
	statistics, standings = Rebuilt{Projection: "webhook_stats"}, Rebuilt{Projection: "webhook_standings"}
	rows, err := f.conn.QueryContext(ctx, statsCompared, f.epoch)
	if err != nil {
		return statistics, standings, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		var hour time.Time
		var was, is string
		if err := rows.Scan(&id, &hour, &was, &is); err != nil {
			return statistics, standings, err
		}
		statistics.differs(mended, "webhook %d, %s: succeeded/failed/unknown/dead/expired/cancelled are %s, by the log %s",
			id, hour.UTC().Format(time.RFC3339), orNone(was), orNone(is))
	}
	if err := rows.Err(); err != nil {
		return statistics, standings, err
	}
	stood, err := f.conn.QueryContext(ctx, standingsCompared, f.epoch)
	if err != nil {
		return statistics, standings, err
	}
	defer func() { _ = stood.Close() }()
	for stood.Next() {
		var id int64
		var was, is string
		if err := stood.Scan(&id, &was, &is); err != nil {
			return statistics, standings, err
		}
		standings.differs(mended, "webhook %d: last success/last failure/failures in a row/since/pending are %s, by the log %s", id, orNone(was), orNone(is))
	}
	if err := stood.Err(); err != nil {
		return statistics, standings, err
	}
	err = f.conn.QueryRowContext(ctx, `
SELECT (SELECT count(*) FROM (SELECT DISTINCT webhook_id, hour FROM relay.webhook_stats WHERE epoch < 0) s),
       (SELECT count(*) FROM relay.webhook_standings WHERE epoch < 0)`).Scan(&statistics.Rows, &standings.Rows)
	return statistics, standings, err
}

func orNone(text string) string {
	if text == "" {
		return "not there"
	}
	return text
}

const swapStandings = `
WITH` + standingsFolded + `,
gone AS (DELETE FROM relay.webhook_standings WHERE epoch < $1)
INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
SELECT n.webhook_id, n.account_id, 0, $1, n.success, n.failure, n.failures, n.pending, n.since FROM anew n`

const swapOld = `
WITH` + keptHours + `
DELETE FROM relay.webhook_stats s
 WHERE s.epoch >= 0 AND s.epoch < $1 AND NOT EXISTS (SELECT FROM kept k WHERE k.webhook_id = s.webhook_id AND k.hour = s.hour)`

// swapNew drops what was folded of kept hours: behind swapOld those are the
// ones that still have old rows.
const swapNew = `
WITH gone AS (
  DELETE FROM relay.webhook_stats s WHERE s.epoch < 0 RETURNING s.*, s.slot AS target, $1::bigint AS new_epoch),
fresh AS (
  SELECT g.* FROM gone g
   WHERE NOT EXISTS (SELECT FROM relay.webhook_stats o WHERE o.webhook_id = g.webhook_id AND o.hour = g.hour AND o.epoch >= 0 AND o.epoch < $1)),`

// swap puts the rows folded anew in the place of the others. Nobody else
// changes either of them, and those that a relay adds have a newer epoch.
func (f *folding) swap(ctx context.Context) error {
	tx, err := f.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, statement := range []string{swapStandings, swapOld, swapNew + summedOf("fresh")} {
		if _, err := tx.ExecContext(ctx, statement, f.epoch); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// dueCompared looks at those open deliveries again that have no due row, and at
// due rows that fit no delivery, in one snapshot with the relay's place. What
// needs no row is under way, or a first delivery of a batch behind the place of
// which nothing is on record but its beginning: it may be in memory. A row that
// is left has a version that its stream has passed.
const dueCompared = `
WITH place AS MATERIALIZED (
  SELECT coalesce((SELECT b.commit FROM relay.batches b WHERE b.no = (SELECT min(p.position) FROM relay.places p)), 0) AS commit),
open AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o (event_seq, webhook_id, replay_id))
SELECT 'missing', o.event_seq, o.webhook_id, o.replay_id
  FROM open o
 CROSS JOIN LATERAL (SELECT l.type, l.version FROM relay.log l
        WHERE l.event_seq = o.event_seq AND l.webhook_id = o.webhook_id AND l.replay_id = o.replay_id ORDER BY l.version DESC LIMIT 1) l
 CROSS JOIN LATERAL (SELECT b.pos FROM relay.log b
        WHERE b.event_seq = o.event_seq AND b.webhook_id = o.webhook_id AND b.replay_id = o.replay_id AND b.version = 1) b
 WHERE l.type NOT IN ('attempt_started', 'attempt_succeeded', 'dead', 'expired', 'cancelled')
   AND (o.replay_id > 0 OR l.version > 1 OR b.pos >> 20 <= (SELECT p.commit FROM place p))
   AND (SELECT true FROM relay.due d WHERE d.event_seq = o.event_seq AND d.webhook_id + 0 = o.webhook_id AND d.replay_id = o.replay_id AND d.version = l.version LIMIT 1) IS NULL
UNION ALL
SELECT 'surplus', d.event_seq, d.webhook_id, d.replay_id
  FROM relay.due d
 WHERE (SELECT l.version FROM relay.log l
         WHERE l.event_seq = d.event_seq AND l.webhook_id = d.webhook_id AND l.replay_id = d.replay_id ORDER BY l.version DESC LIMIT 1) IS DISTINCT FROM d.version`

// compareDue compares the due table with the deliveries that are open. It mends
// nothing: rows are its owner's, which has read what it has read. A relay that
// starts, or takes over, reads them anew.
func (f *folding) compareDue(ctx context.Context) (Rebuilt, error) {
	due := Rebuilt{Projection: "due"}
	events, webhooks, replays := make([]int64, len(f.open)), make([]int64, len(f.open)), make([]int64, len(f.open))
	for i, o := range f.open {
		events[i], webhooks[i], replays[i] = o.key.EventSeq, int64(o.key.WebhookID), int64(o.key.ReplayID)
	}
	rows, err := f.conn.QueryContext(ctx, dueCompared, pq.Array(events), pq.Array(webhooks), pq.Array(replays))
	if err != nil {
		return due, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var what string
		var seq, webhook, replay int64
		if err := rows.Scan(&what, &seq, &webhook, &replay); err != nil {
			return due, err
		}
		due.differs(false, "%s: event_seq %d, webhook %d, replay %d", what, seq, webhook, replay)
	}
	if err := rows.Err(); err != nil {
		return due, err
	}
	return due, f.conn.QueryRowContext(ctx, `SELECT count(*) FROM relay.due`).Scan(&due.Rows)
}
