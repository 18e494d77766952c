package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/relay"
)

// Leases are claims to the work. It implements relay.Leases.
type Leases struct{ db *sql.DB }

// NewLeases gives the leases of a database.
func NewLeases(db *sql.DB) *Leases { return &Leases{db} }

// tailSlot is the tail; the slots below are shards of webhooks.
const tailSlot = 64

// beatsKept are the signs of life left when older ones are deleted.
const beatsKept = 100

// registerStatement gives a relay the lowest recorder's number that no unfenced
// one has, and begins the chain of a number that none had before. A relay that
// is fenced writes no more, so that its chain can go on.
const registerStatement = `
WITH free AS (
  SELECT n.recorder FROM generate_series(0, (SELECT count(*) FROM relay.relays r WHERE r.fenced_at IS NULL)) AS n (recorder)
   WHERE NOT EXISTS (SELECT FROM relay.relays r WHERE r.recorder = n.recorder AND r.fenced_at IS NULL)
   ORDER BY n.recorder LIMIT 1),
made AS (INSERT INTO relay.relays (name, version, sends, recorder) SELECT $1::text, $2::text, $3::boolean, recorder FROM free RETURNING relay_id, recorder),
genesis AS (
  INSERT INTO relay.seals (chain, no, commit, relay_id, at, stretches, entries, digests, links, hash)
  SELECT c.chain, 0, c.commit, 0, c.at, '{}', '{}', '', c.links, sha256(audit.canonical_seal(c.chain, 0, 0, c.at, '{}', '{}', '', c.links, NULL, 0))
    FROM (SELECT audit.chain_name(m.recorder + 2) AS chain, t.commit, now() AS at, uuid_send(gen_random_uuid()) AS links
            FROM made m, relay.seals t WHERE t.chain = 'tail' AND t.no = 0) c
      ON CONFLICT (chain, no) DO NOTHING)
SELECT relay_id FROM made`

// Register implements relay.Leases.
func (l *Leases) Register(ctx context.Context, name, version string, sends bool) (int64, error) {
	for {
		var id int64
		err := l.db.QueryRowContext(ctx, registerStatement, name, version, sends).Scan(&id)
		if !isUniqueViolation(err, "relays_recorder") { // else another relay took the number just now
			return id, err
		}
	}
}

// membersQuery gives the relays and, as relay 0, what nobody owns.
const membersQuery = `
SELECT m.relay_id, coalesce((SELECT h.n FROM relay.heartbeats h WHERE h.relay_id = m.relay_id ORDER BY h.n DESC LIMIT 1), 0), m.sends, m.leaving,
       coalesce(s.shards, 0), coalesce(s.tail, false)
  FROM (SELECT r.relay_id, r.sends, r.leaving_at IS NOT NULL AS leaving FROM relay.relays r WHERE r.fenced_at IS NULL
        UNION ALL SELECT 0, false, false) m
  LEFT JOIN (SELECT coalesce(o.relay_id, 0) AS relay_id, bit_or(CASE WHEN o.slot < $1 THEN 1::bigint << o.slot ELSE 0 END) AS shards, bool_or(o.slot = $1) AS tail
               FROM relay.slots o GROUP BY 1) s ON s.relay_id = m.relay_id
 ORDER BY m.relay_id`

// Members implements relay.Leases.
func (l *Leases) Members(ctx context.Context) (members []relay.Member, free relay.Share, err error) {
	members, err = list(ctx, l.db, func(row scanner) (m relay.Member, err error) {
		var shards int64
		err = row.Scan(&m.ID, &m.Beat, &m.Sends, &m.Leaving, &shards, &m.Share.Tail)
		m.Share.Shards = relay.Shards(shards) //nolint:gosec // the same bits
		return m, err
	}, membersQuery, tailSlot)
	if err != nil {
		return nil, relay.Share{}, err
	}
	return members[1:], members[0].Share, nil
}

// mask gives a set of shards as SQL has it.
func mask(shards relay.Shards) int64 { return int64(shards) } //nolint:gosec // the same bits

// claimStatement takes free slots, and those that are the relay's already, since
// the answer to an earlier claim was lost. The relay's row makes fencing it wait: else a
// relay that is fenced just now might own them for ever. What another one is
// claiming is skipped.
const claimStatement = `
WITH ` + fenced + `,
free AS MATERIALIZED (
  SELECT s.slot FROM relay.slots s
   WHERE (s.relay_id IS NULL OR s.relay_id = $1) AND EXISTS (SELECT FROM fence)
     AND (s.slot = $4 AND $3 OR s.slot < $4 AND (1::bigint << s.slot) & $2::bigint <> 0)
   ORDER BY s.slot FOR UPDATE SKIP LOCKED),
claimed AS (
  UPDATE relay.slots s SET relay_id = $1, since = clock_timestamp() FROM free WHERE s.slot = free.slot
  RETURNING s.slot, s.position, s.low)
SELECT coalesce(bit_or(CASE WHEN c.slot < $4 THEN 1::bigint << c.slot ELSE 0 END), 0), coalesce(bool_or(c.slot = $4), false), coalesce(c.position, 0), coalesce(c.low, 0)
  FROM fence LEFT JOIN claimed c ON true GROUP BY c.position, c.low`

// Claim implements relay.Leases.
func (l *Leases) Claim(ctx context.Context, relayID int64, wanted relay.Share) (claimed relay.Share, places []relay.Place, err error) {
	found, err := list(ctx, l.db, func(row scanner) (p relay.Place, err error) {
		var shards int64
		var tail bool
		err = row.Scan(&shards, &tail, &p.Position, &p.Low)
		p.Shards = relay.Shards(shards) //nolint:gosec // the same bits
		claimed.Shards |= p.Shards
		claimed.Tail = claimed.Tail || tail
		return p, err
	}, claimStatement, relayID, mask(wanted.Shards), wanted.Tail, tailSlot)
	if err == nil && len(found) == 0 {
		err = relay.ErrFenced
	}
	for _, p := range found {
		if p.Shards != 0 {
			places = append(places, p)
		}
	}
	return claimed, places, err
}

// giveUpStatement frees slots at their places. One that no place tells of keeps
// where its owner began: lower is safe.
const giveUpStatement = `
WITH place AS (SELECT * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS p (shards, position, low)),
freed AS (
  UPDATE relay.slots s
     SET relay_id = NULL, since = clock_timestamp(),
         position = coalesce((SELECT p.position FROM place p WHERE s.slot < $6 AND p.shards & (1::bigint << s.slot) <> 0), s.position),
         low      = coalesce((SELECT p.low FROM place p WHERE s.slot < $6 AND p.shards & (1::bigint << s.slot) <> 0), s.low)
   WHERE s.relay_id = $1 AND (s.slot = $6 AND $7 OR s.slot < $6 AND (1::bigint << s.slot) & $5::bigint <> 0)
  RETURNING s.slot)
SELECT pg_notify('` + relayChannel + `', 'released') FROM (SELECT FROM freed LIMIT 1) f`

// GiveUp implements relay.Leases.
func (l *Leases) GiveUp(ctx context.Context, relayID int64, given relay.Share, places []relay.Place) error {
	return giveUp(ctx, l.db, relayID, given, places)
}

func giveUp(ctx context.Context, db execer, relayID int64, given relay.Share, places []relay.Place) error {
	var columns [3][]int64
	for _, p := range places {
		columns[0], columns[1], columns[2] = append(columns[0], mask(p.Shards)), append(columns[1], p.Position), append(columns[2], p.Low)
	}
	_, err := db.ExecContext(ctx, giveUpStatement, relayID, pq.Array(columns[0]), pq.Array(columns[1]), pq.Array(columns[2]), mask(given.Shards), tailSlot, given.Tail)
	return err
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Leave implements relay.Leases.
func (l *Leases) Leave(ctx context.Context, relayID int64) error {
	_, err := l.db.ExecContext(ctx, `UPDATE relay.relays SET leaving_at = clock_timestamp() WHERE relay_id = $1 AND fenced_at IS NULL`, relayID)
	return err
}

// Beat implements relay.Leases.
func (l *Leases) Beat(ctx context.Context, relayID, n int64, place relay.Place) error {
	result, err := l.db.ExecContext(ctx, `
INSERT INTO relay.heartbeats (relay_id, n, position, low, shards)
SELECT $1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::bigint
 WHERE EXISTS (SELECT FROM relay.relays WHERE relay_id = $1::bigint AND fenced_at IS NULL)`, relayID, n, place.Position, place.Low, mask(place.Shards))
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err == nil && rows == 0 {
		return relay.ErrFenced
	}
	if n%beatsKept == 0 {
		_, err = l.db.ExecContext(ctx, `DELETE FROM relay.heartbeats WHERE relay_id = $1 AND n < $2`, relayID, n-beatsKept)
	}
	return err
}

// Fence implements relay.Leases. It waits for the dead relay's recording in
// flight, which holds its row FOR SHARE; what comes after finds the row fenced.
// Where to begin is what its newest sign of life says, and for shards that it
// had not told of yet where it began itself.
func (l *Leases) Fence(ctx context.Context, relayID, dead int64) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var alive bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM relay.relays WHERE relay_id = $1 AND fenced_at IS NULL)`, relayID).Scan(&alive); err != nil {
		return err
	}
	if !alive {
		return relay.ErrFenced
	}
	result, err := tx.ExecContext(ctx, `
UPDATE relay.relays r
   SET fenced_at = clock_timestamp(), fenced_by = $1,
       seen_at = coalesce((SELECT h.at FROM relay.heartbeats h WHERE h.relay_id = r.relay_id ORDER BY h.n DESC LIMIT 1), r.started_at)
 WHERE r.relay_id = $2 AND r.fenced_at IS NULL`, relayID, dead)
	if err != nil {
		return fmt.Errorf("fence relay %d: %w", dead, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err // another relay was faster
	}
	place := relay.Place{}
	var shards int64
	err = tx.QueryRowContext(ctx, `SELECT position, low, shards FROM relay.heartbeats WHERE relay_id = $1 ORDER BY n DESC LIMIT 1`, dead).
		Scan(&place.Position, &place.Low, &shards)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	place.Shards = relay.Shards(shards) //nolint:gosec // the same bits
	if err := end(ctx, tx, dead, place); err != nil {
		return err
	}
	return tx.Commit()
}

// end takes all that a fenced relay has.
func end(ctx context.Context, tx *sql.Tx, relayID int64, place relay.Place) error {
	if err := giveUp(ctx, tx, relayID, relay.Share{Shards: relay.AllShards, Tail: true}, []relay.Place{place}); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM relay.heartbeats WHERE relay_id = $1`, relayID)
	return err
}

// Announce implements relay.Leases.
func (l *Leases) Announce(ctx context.Context) error {
	_, err := l.db.ExecContext(ctx, `SELECT pg_notify('`+relayChannel+`', 'batches')`)
	return err
}

// Release implements relay.Leases.
func (l *Leases) Release(ctx context.Context, relayID int64, place relay.Place) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	result, err := tx.ExecContext(ctx, `UPDATE relay.relays SET fenced_at = clock_timestamp() WHERE relay_id = $1 AND fenced_at IS NULL`, relayID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err // another relay has taken over
	}
	if err := end(ctx, tx, relayID, place); err != nil {
		return err
	}
	return tx.Commit()
}
