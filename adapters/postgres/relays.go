package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain/audit"
)

// silentAfter is how old the last sign of life of a relay may be that is not
// silent: from then on it begins no POST, and a second later others take its
// work.
const silentAfter = 2 * time.Second

// seenRelay is a relay with what its state is judged by.
type seenRelay struct {
	audit.Relay
	leaving bool
	age     time.Duration // since it began
	silence time.Duration // since its last sign of life, or its beginning
	signs   bool          // it gave one
	// For how long it has had the first of its shards, and the tail. What nobody
	// ever had belongs to nobody since 1970.
	shardsSince, tailSince time.Duration
}

// ListRelays lists the relays that work on a database in the order of their ids,
// with those that ended within a day if ended says so. What nobody has is the
// last one, if there is such.
func ListRelays(ctx context.Context, db *sql.DB, ended bool) ([]audit.Relay, error) {
	return NewAudit(db).Relays(ctx, ended)
}

// Relays is ListRelays.
func (a *Audit) Relays(ctx context.Context, ended bool) ([]audit.Relay, error) {
	tx, err := a.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	working, unowned, err := readRelays(ctx, tx)
	if err != nil {
		return nil, err
	}
	relays := make([]audit.Relay, len(working), len(working)+1)
	for i := range working {
		relays[i] = working[i].Relay
	}
	if ended {
		gone, err := list(ctx, tx, func(row scanner) (r audit.Relay, err error) {
			var by sql.NullInt64
			err = row.Scan(&r.ID, &r.Name, &r.Version, &r.Sends, &r.StartedAt, &r.EndedAt, &by)
			r.State, r.EndedBy = audit.RelayStopped, by.Int64
			if by.Valid {
				r.State = audit.RelayFenced
			}
			return r, err
		}, endedRelaysQuery)
		if err != nil {
			return nil, err
		}
		relays = append(relays, gone...)
		slices.SortFunc(relays, func(a, b audit.Relay) int { return int(a.ID - b.ID) })
	}
	if unowned.Shards != 0 || unowned.Tails {
		relays = append(relays, unowned.Relay)
	}
	return relays, nil
}

const endedRelaysQuery = `
SELECT r.relay_id, r.name, r.version, r.sends, r.started_at, r.fenced_at, r.fenced_by
  FROM relay.relays r WHERE r.fenced_at > clock_timestamp() - interval '1 day' ORDER BY r.relay_id`

// relayTimesQuery reads the relays that were at work since $1, by an index. Their
// rows are kept for ever, so that none is missing however far back it goes; what
// counts as silent is in $2.
const relayTimesQuery = `
SELECT t.began, t.ended
  FROM (SELECT r.started_at AS began,
               CASE WHEN r.fenced_at IS NOT NULL THEN coalesce(r.seen_at, r.fenced_at)
                    WHEN coalesce(h.at, r.started_at) < clock_timestamp() - $2::interval THEN coalesce(h.at, r.started_at) END AS ended
          FROM relay.relays r
          LEFT JOIN LATERAL (SELECT b.at FROM relay.heartbeats b WHERE b.relay_id = r.relay_id ORDER BY b.n DESC LIMIT 1) h ON true
         WHERE r.fenced_at IS NULL OR r.fenced_at >= $1::timestamptz) t
 WHERE t.ended IS NULL OR t.ended >= $1::timestamptz
 ORDER BY t.began`

// RelayTimes lists when relays were at work since a time, in the order in which
// they began.
func (a *Audit) RelayTimes(ctx context.Context, since time.Time) ([]audit.RelayTime, error) {
	return list(ctx, a.db, func(row scanner) (t audit.RelayTime, err error) {
		var ended sql.NullTime
		err = row.Scan(&t.From, &ended)
		t.To = ended.Time
		return t, err
	}, relayTimesQuery, since.UTC(), fmt.Sprintf("%d milliseconds", silentAfter.Milliseconds()))
}

// relaysInUseQuery gives the relays that nobody has fenced, each with its part
// of the work, and as relay 0 what nobody has. Its cost grows with their number
// only.
const relaysInUseQuery = `
WITH part AS MATERIALIZED (
  SELECT coalesce(s.relay_id, 0) AS relay_id,
         coalesce(bit_or(1::bigint << s.slot) FILTER (WHERE s.slot < $1), 0) AS shards, bool_or(s.slot = $1) AS tails,
         min(coalesce(s.since, 'epoch')) FILTER (WHERE s.slot < $1) AS shards_since, min(coalesce(s.since, 'epoch')) FILTER (WHERE s.slot = $1) AS tail_since,
         min(p.position) AS position
    FROM relay.slots s LEFT JOIN relay.places p ON p.slot = s.slot GROUP BY 1)
SELECT r.relay_id, r.name, r.version, r.sends, r.leaving, r.started_at, h.at, extract(epoch FROM clock_timestamp() - r.started_at), extract(epoch FROM clock_timestamp() - h.at),
       coalesce(w.shards, 0), coalesce(w.tails, false), extract(epoch FROM clock_timestamp() - w.shards_since), extract(epoch FROM clock_timestamp() - w.tail_since),
       coalesce(w.position, 0), greatest(0, (SELECT b.no FROM relay.batches b ORDER BY b.no DESC LIMIT 1) - w.position)
  FROM (SELECT r.relay_id, r.name, r.version, r.sends, r.leaving_at IS NOT NULL AS leaving, r.started_at FROM relay.relays r WHERE r.fenced_at IS NULL
        UNION ALL SELECT 0, '', '', false, false, NULL) r
  LEFT JOIN LATERAL (SELECT b.at FROM relay.heartbeats b WHERE b.relay_id = r.relay_id ORDER BY b.n DESC LIMIT 1) h ON true
  LEFT JOIN part w ON w.relay_id = r.relay_id
 ORDER BY r.relay_id`

func readRelays(ctx context.Context, tx *sql.Tx) (relays []seenRelay, unowned seenRelay, err error) {
	found, err := list(ctx, tx, scanRelay, relaysInUseQuery, tailSlot)
	if err != nil {
		return nil, seenRelay{}, err
	}
	return found[1:], found[0], nil
}

func scanRelay(row scanner) (r seenRelay, err error) {
	var started, sign sql.NullTime
	var age, silence, shardsSince, tailSince sql.NullFloat64
	var shards int64
	err = row.Scan(&r.ID, &r.Name, &r.Version, &r.Sends, &r.leaving, &started, &sign, &age, &silence, &shards, &r.Tails, &shardsSince, &tailSince, &r.Position, &r.Behind)
	r.StartedAt, r.LastSignAt, r.signs = started.Time, sign.Time, sign.Valid
	r.Shards = uint64(shards) //nolint:gosec // the same bits
	r.age, r.silence = fromSeconds(age.Float64), fromSeconds(silence.Float64)
	r.shardsSince, r.tailSince = fromSeconds(shardsSince.Float64), fromSeconds(tailSince.Float64)
	if !r.signs {
		r.silence = r.age
	}
	switch {
	case r.ID == 0:
		r.State = audit.RelayNone
	case r.silence > silentAfter:
		r.State = audit.RelaySilent
	case r.leaving:
		r.State = audit.RelayLeaving
	case !r.Sends:
		r.State = audit.RelayRoutesOnly
	case r.Shards == 0 && !r.Tails:
		r.State = audit.RelayWaiting
	default:
		r.State = audit.RelayWorking
	}
	return r, err
}
