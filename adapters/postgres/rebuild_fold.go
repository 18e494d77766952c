package postgres

import (
	"context"
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

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
