package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/oid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// Log appends to the log. It implements relay.Log.
type Log struct {
	db      *sql.DB
	columns sync.Pool // *recordColumns

	// sealing is held while a group commit is under way: its seal is the next
	// one's beginning. It is of the chain of the relay of, and is read anew for
	// another one.
	sealing struct {
		sync.Mutex
		sealing
		of int64
	}
}

// NewLog gives the log of a database.
func NewLog(db *sql.DB) *Log {
	return &Log{db: db, columns: sync.Pool{New: func() any { return newRecordColumns() }}}
}

// recordStatement writes entries and moves due rows, or nothing where the
// relay is fenced: then it gives no row. FOR SHARE makes a take-over wait for
// it, and makes it wait for a take-over and see its result. $27 and $28 are the
// seal that this commit's builds on; it is NULL where there are no entries. $37
// is the chain.
const recordStatement = recordParts + `
SELECT c.commit FROM c, over`

// recordTellingStatement tells the operator besides, by $38 to $42. It is a
// statement of its own so that nothing of it is paid where nobody is told.
const recordTellingStatement = recordParts + `,
told AS MATERIALIZED (SELECT relay.tell_operator($38::uuid[], $39::text[], $40::text[], $41::json[], $42::timestamptz[]) FROM c)
SELECT c.commit FROM c, over, told`

const recordParts = outbox.PreparedMark + `
WITH fence AS MATERIALIZED (
  SELECT relay_id FROM relay.relays WHERE relay_id = $1::bigint AND fenced_at IS NULL FOR SHARE),
c AS MATERIALIZED (SELECT nextval('relay.commits') AS commit FROM fence),
entry AS (
  INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, mark)
  SELECT ($2::bigint[])[e.ord], ($3::bigint[])[e.ord], ($4::bigint[])[e.ord], ($5::bigint[])[e.ord], (c.commit << 20) + e.ord, $1::bigint,
         ($6::timestamptz[])[e.ord], ($7::integer[])[e.ord], e.type, e.data, ($8::uuid[])[e.ord], ($9::uuid[])[e.ord], ($26::integer[])[e.ord]
    FROM unnest($10::text[], $11::json[]) WITH ORDINALITY AS e (type, data, ord), c),
response AS (
  INSERT INTO relay.responses (event_seq, webhook_id, replay_id, version, account_id, salt, excerpt)
  SELECT ($2::bigint[])[r.entry], ($3::bigint[])[r.entry], ($4::bigint[])[r.entry], ($7::integer[])[r.entry], ($5::bigint[])[r.entry], r.salt, r.excerpt
    FROM unnest($12::integer[], $35::bytea[], $36::text[]) AS r (entry, salt, excerpt), c),
over AS MATERIALIZED (SELECT relay.end_due($13::bigint[], $14::bigint[], $15::bigint[], $16::integer[]) FROM fence),
wait AS (
  INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
  SELECT w.event_seq, w.webhook_id, w.replay_id, w.version, w.kind::"char", w.at, CASE w.pos WHEN 0 THEN (c.commit << 20) + w.entry ELSE w.pos END, w.key
    FROM unnest($17::bigint[], $18::bigint[], $19::bigint[], $20::integer[], $21::text[], $22::timestamptz[], $23::bigint[], $24::bigint[], $25::bigint[])
         AS w (event_seq, webhook_id, replay_id, version, kind, at, pos, key, entry), c),
seal AS (
  INSERT INTO relay.seals (chain, no, commit, relay_id, at, stretches, entries, digests, links, hash)
  SELECT $37::text, (SELECT s.no + 1 FROM relay.seals s WHERE s.chain = $37::text AND s.no = $27::bigint AND s.hash = $28::bytea), c.commit, $1::bigint,
         $29::timestamptz, $30::bigint[], $31::integer[], $32::bytea, $33::bytea, $34::bytea
    FROM c WHERE $34::bytea IS NOT NULL)`

// recordColumns are the arguments $2 to $26 of recordStatement, in its order:
// the entries, which of them have a response, the due rows that end, those that
// begin, the entries' marks; and behind the seal the responses, and what the
// operator is told.
type recordColumns struct {
	entry    struct{ seq, webhook, replay, account, at, version, event, delivery, kind, data *column }
	ends     struct{ seq, webhook, replay, version *column }
	waits    struct{ seq, webhook, replay, version, kind, at, pos, key, entry *column }
	mark     *column
	response struct{ entry, salt, excerpt *column }
	all      []*column
	told     *toldColumns

	sealer domain.Sealer
	seal   sealColumns
}

func newRecordColumns() *recordColumns {
	c := &recordColumns{seal: newSealColumns(), told: newToldColumns()}
	c.response.salt, c.response.excerpt = newColumn(oid.T_bytea, 0, 0), newColumn(oid.T_text, 0, 0)
	add := func(element oid.Oid) *column {
		one := newColumn(element, 0, 0)
		c.all = append(c.all, one)
		return one
	}
	e := &c.entry
	e.seq, e.webhook, e.replay, e.account = add(oid.T_int8), add(oid.T_int8), add(oid.T_int8), add(oid.T_int8)
	e.at, e.version, e.event, e.delivery = add(oid.T_timestamptz), add(oid.T_int4), add(oid.T_uuid), add(oid.T_uuid)
	e.kind, e.data = add(oid.T_text), add(oid.T_json)
	c.response.entry = add(oid.T_int4)
	c.ends.seq, c.ends.webhook, c.ends.replay, c.ends.version = add(oid.T_int8), add(oid.T_int8), add(oid.T_int8), add(oid.T_int4)
	w := &c.waits
	w.seq, w.webhook, w.replay, w.version = add(oid.T_int8), add(oid.T_int8), add(oid.T_int8), add(oid.T_int4)
	w.kind, w.at, w.pos, w.key, w.entry = add(oid.T_text), add(oid.T_timestamptz), add(oid.T_int8), add(oid.T_int8), add(oid.T_int8)
	c.mark = add(oid.T_int4)
	return c
}

// Record implements relay.Log.
func (l *Log) Record(ctx context.Context, relayID int64, changes []relay.Change) (int64, error) {
	c, _ := l.columns.Get().(*recordColumns)
	defer l.columns.Put(c)
	c.fill(changes, relayID)
	args := make([]any, 1, 12+len(c.all))
	args[0] = relayID
	for _, one := range c.all {
		args = append(args, one)
	}
	l.sealing.Lock()
	defer l.sealing.Unlock()
	const most = 3 // a chain whose head moved so often has another writer
	for try := 1; ; try++ {
		commit, err := l.record(ctx, args, c, relayID)
		if !isStaleSeal(err) || try == most {
			return commit, err
		}
	}
}

// record tries once. Where it is not known what came of it, the chain's head is
// read again before the next.
func (l *Log) record(ctx context.Context, args []any, c *recordColumns, relayID int64) (commit int64, err error) {
	var seal domain.Seal
	if c.sealer.Empty() {
		args = append(args, nil, nil, nil, nil, nil, nil, nil, nil)
	} else {
		if !l.sealing.known || l.sealing.of != relayID {
			l.sealing.known = false
			if err := l.sealing.load(ctx, l.db, relayID); err != nil {
				return 0, err
			}
			l.sealing.of = relayID
		}
		seal = l.sealing.seal(&c.sealer, relayID)
		args = c.seal.appendArgs(args, l.sealing.head, &seal)
	}
	args = append(args, c.response.salt, c.response.excerpt, string(l.sealing.chain))
	query := recordStatement
	if !c.told.empty() {
		query, args = recordTellingStatement, c.told.appendArgs(args)
	}
	switch err = l.db.QueryRowContext(ctx, query, args...).Scan(&commit); {
	case errors.Is(err, sql.ErrNoRows):
		return 0, relay.ErrFenced
	case isStaleSeal(err):
		l.sealing.known = false
		return 0, err
	case err != nil:
		err = classify(err)
		if !errors.Is(err, relay.ErrConflict) && !errors.Is(err, relay.ErrRefused) {
			l.sealing.known = false // it may be written
		}
		return 0, err
	}
	if seal.No != 0 {
		l.sealing.written(&seal, commit)
	}
	return commit, nil
}

func (c *recordColumns) fill(changes []relay.Change, relayID int64) {
	c.sealer.Reset()
	for _, one := range c.all {
		one.reset()
	}
	c.response.salt.reset()
	c.response.excerpt.reset()
	c.told.reset()
	e, ends, begins := &c.entry, &c.ends, &c.waits
	ord := int64(0)
	for i := range changes {
		change := &changes[i]
		if change.Tells != nil {
			c.told.add(change.Tells)
		}
		if change.Ends != 0 {
			ends.seq.bigint(change.Key.EventSeq)
			ends.webhook.bigint(int64(change.Key.WebhookID))
			ends.replay.bigint(int64(change.Key.ReplayID))
			ends.version.integer(change.Ends)
		}
		if w := change.Waits; w.Kind != relay.DueNone {
			begins.seq.bigint(w.Key.EventSeq)
			begins.webhook.bigint(int64(w.Key.WebhookID))
			begins.replay.bigint(int64(w.Key.ReplayID))
			begins.version.integer(w.Version)
			begins.kind.text(string(w.Kind))
			begins.at.time(w.At)
			begins.pos.bigint(w.Pos)
			begins.key.bigint(w.Order)
			begins.entry.bigint(ord + 1)
		}
		for n, entry := range change.Entries {
			ord++
			e.seq.bigint(change.Key.EventSeq)
			e.webhook.bigint(int64(change.Key.WebhookID))
			e.replay.bigint(int64(change.Key.ReplayID))
			e.account.bigint(int64(change.AccountID))
			e.at.time(entry.At)
			e.version.integer(change.First + n)
			e.kind.text(entry.Type)
			e.data.bytes(entry.Data)
			if entry.Excerpt != "" {
				c.response.entry.integer(int(ord))
				c.response.salt.bytes(entry.Salt[:])
				c.response.excerpt.text(entry.Excerpt)
			}
			sealed := domain.SealedEntry{
				EventSeq: change.Key.EventSeq, WebhookID: int64(change.Key.WebhookID), ReplayID: int64(change.Key.ReplayID), AccountID: int64(change.AccountID),
				Ordinal: int32(ord), Writer: relayID, At: microseconds(entry.At), Version: int32(change.First + n), Type: []byte(entry.Type), Data: entry.Data, //nolint:gosec // both are small
			}
			if entry.Type == domain.TypeScheduled { // a replay's: else these two stay empty
				delivery := domain.NewDeliveryID(domain.NewNotificationID(change.AccountID, change.EventID, change.Key.WebhookID), change.Key.EventSeq, change.Key.ReplayID)
				e.event.fill(ord - 1)
				e.event.uuid(change.EventID)
				e.delivery.fill(ord - 1)
				e.delivery.uuid(delivery)
				sealed.EventID, sealed.Delivery = idBytes(&change.EventID), idBytes(&delivery)
			}
			c.mark.integer(int(c.sealer.Add(&sealed)))
		}
	}
}

// classify tells what trying again would bring.
func classify(err error) error {
	var pg *pq.Error
	if !errors.As(err, &pg) {
		return err
	}
	switch code := string(pg.Code); {
	case code == "23505": // unique_violation: the stream has that version
		return fmt.Errorf("%w: %w", relay.ErrConflict, err)
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "23"), strings.HasPrefix(code, "54"): // data, constraint, program limit
		return fmt.Errorf("%w: %w", relay.ErrRefused, err)
	}
	return err
}

// Written implements relay.Log. The time tells this change from another one of
// the same relay that was faster. "+ 0" keeps the planner from walking all
// entries of a replay.
func (l *Log) Written(ctx context.Context, relayID int64, change relay.Change) (bool, error) {
	if len(change.Entries) == 0 {
		var due bool
		err := l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM relay.due WHERE event_seq = $1 AND webhook_id + 0 = $2 AND replay_id = $3 AND version = $4 AND at = $5::timestamptz)`,
			change.Key.EventSeq, int64(change.Key.WebhookID), int64(change.Key.ReplayID), change.Waits.Version, change.Waits.At.UTC().Truncate(time.Microsecond)).Scan(&due)
		return due, err
	}
	var written int
	err := l.db.QueryRowContext(ctx, `
SELECT count(*) FROM relay.log
 WHERE event_seq = $1 AND webhook_id = $2 AND replay_id + 0 = $3 AND version = $4 AND writer = $5 AND type = $6 AND at = $7::timestamptz`,
		change.Key.EventSeq, int64(change.Key.WebhookID), int64(change.Key.ReplayID), change.First, relayID, change.Entries[0].Type,
		change.Entries[0].At.UTC().Truncate(time.Microsecond)).Scan(&written)
	return written == 1, err
}
