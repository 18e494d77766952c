package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
)

// ErasureSelection says which events of an account are to be erased: those that
// tell of a contact, those of ordering keys, and those named; all of the
// account's where none of the three is given.
type ErasureSelection struct {
	AccountID    domain.AccountID
	ContactID    int64
	OrderingKeys []string
	EventIDs     []uuid.UUID
}

// everything says that the whole account is selected.
func (s ErasureSelection) everything() bool {
	return s.ContactID == 0 && len(s.OrderingKeys) == 0 && len(s.EventIDs) == 0
}

// record is what is kept of the selection.
func (s ErasureSelection) record() (string, error) {
	text, err := json.Marshal(struct {
		ContactID    int64       `json:"contact_id,omitempty"`
		OrderingKeys []string    `json:"ordering_keys,omitempty"`
		EventIDs     []uuid.UUID `json:"event_ids,omitempty"`
		Everything   bool        `json:"everything,omitempty"`
	}{s.ContactID, s.OrderingKeys, s.EventIDs, s.everything()})
	return string(text), err
}

// Erasure is what an erasure would do, or did.
type Erasure struct {
	// Events are the places of those that match and are not erased yet; Before
	// counts those that were.
	Events []int64
	Before int
	// Waiting counts events of the account that no relay has routed: they are
	// not looked at.
	Waiting int
	// Unknown are named events that the account does not have, or that are not
	// routed.
	Unknown []uuid.UUID

	selection ErasureSelection
}

// The pages in which an account's events are read: of payloads, the largest of
// which has a MiB, or without.
const (
	erasurePage        = 5000
	erasurePayloadPage = 100
)

// erasureCandidates: LATERAL with LIMIT makes each a look-up by key.
const erasureCandidates = `
SELECT l.event_seq, coalesce(l.event_id, '00000000-0000-0000-0000-000000000000')::text, coalesce(l.data ->> 'event', ''), coalesce(l.data ->> 'ordering_key', ''),
       x.at IS NOT NULL, %s
  FROM relay.log l
  LEFT JOIN LATERAL (SELECT r.at FROM relay.erased r WHERE r.event_seq = l.event_seq LIMIT 1) x ON true
  %s
 WHERE l.account_id = $1 AND l.type = 'routed' AND l.event_seq > $2 %s
 ORDER BY l.event_seq LIMIT $3`

// PlanErasure finds what an erasure would erase. It changes nothing. Looking for
// a contact takes the right to read payloads, which outrider_relay has.
func PlanErasure(ctx context.Context, db *sql.DB, s ErasureSelection) (*Erasure, error) {
	e := &Erasure{selection: s}
	columns, join, where, page := `NULL`, ``, ``, erasurePage
	var args []any
	if s.ContactID != 0 {
		columns, join, page = `o.payload`, `LEFT JOIN LATERAL (SELECT e.payload::text AS payload FROM outbox.events e WHERE e.seq = l.event_seq LIMIT 1) o ON true`, erasurePayloadPage
	}
	if s.ContactID == 0 && len(s.OrderingKeys) == 0 && len(s.EventIDs) > 0 {
		where, args = `AND l.event_id = ANY ($4::uuid[]) AND l.webhook_id = 0`, []any{pq.Array(s.EventIDs)}
	}
	query := fmt.Sprintf(erasureCandidates, columns, join, where)
	found := map[uuid.UUID]bool{}
	for after, n := int64(-1), page; n == page; {
		n = 0
		_, err := list(ctx, db, func(row scanner) (struct{}, error) {
			var c erasureCandidate
			err := row.Scan(&c.seq, &c.id, &c.event, &c.key, &c.erased, &c.payload)
			n++
			after = c.seq
			if err == nil && s.matches(c) {
				found[c.id] = true
				if c.erased {
					e.Before++
				} else {
					e.Events = append(e.Events, c.seq)
				}
			}
			return struct{}{}, err
		}, query, append([]any{int64(s.AccountID), after, page}, args...)...)
		if err != nil {
			return nil, err
		}
	}
	for _, id := range s.EventIDs {
		if !found[id] {
			e.Unknown = append(e.Unknown, id)
		}
	}
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM audit.events WHERE routed_at IS NULL AND account_id = $1`, int64(s.AccountID)).Scan(&e.Waiting)
	return e, err
}

type erasureCandidate struct {
	seq        int64
	id         uuid.UUID
	event, key string
	erased     bool
	payload    []byte
}

func (s ErasureSelection) matches(c erasureCandidate) bool {
	return s.everything() || slices.Contains(s.OrderingKeys, c.key) || slices.Contains(s.EventIDs, c.id) ||
		s.ContactID != 0 && (c.key == fmt.Sprintf("contact:%d", s.ContactID) || domain.TellsOfContact(c.event, c.payload, s.ContactID))
}

// The steps of an erasure.
const (
	eraseBatch = 500
	// erasePatience is how long a batch may wait for its open deliveries to be
	// cancelled: an attempt that is under way takes its webhook's timeout, 30 s
	// at most.
	erasePatience = time.Minute
	erasePause    = 100 * time.Millisecond
)

// Erased is what an erasure came to.
type Erased struct {
	ID int64
	// Events counts the erased ones, Open those left: they have deliveries that
	// nobody has ended yet. They are cancelled by the relay that is at work, or
	// by the next one; after that the same erasure erases them.
	Events, Open int64
	// Unattended says that no relay is at work that sends.
	Unattended bool
}

// Erase erases what was planned, in bounded steps, and puts it on record.
// progress hears how many events are done. ErrHeld says that locks of others
// are in the way.
func (e *Erasure) Erase(ctx context.Context, db *sql.DB, progress func(done int)) (Erased, error) {
	var result Erased
	selection, err := e.selection.record()
	if err != nil {
		return result, err
	}
	err = db.QueryRowContext(ctx, `SELECT relay.begin_erasure($1, $2::json)`, int64(e.selection.AccountID), selection).Scan(&result.ID)
	if err != nil {
		return result, err
	}
	for start := 0; start < len(e.Events); start += eraseBatch {
		batch := e.Events[start:min(start+eraseBatch, len(e.Events))]
		open, err := eraseSome(ctx, db, &result, batch)
		result.Open += open
		if err != nil {
			return result, err
		}
		progress(start + len(batch))
	}
	return result, nil
}

// eraseSome erases a batch, and waits for what is open in it while a relay is at
// work.
func eraseSome(ctx context.Context, db *sql.DB, result *Erased, batch []int64) (open int64, err error) {
	deadline := time.Now().Add(erasePatience)
	for {
		var asked, erased int64
		err := db.QueryRowContext(ctx, `SELECT asked, erased, open, unattended FROM relay.erase($1, $2::bigint[])`, result.ID, pq.Array(batch)).
			Scan(&asked, &erased, &open, &result.Unattended)
		result.Events += erased
		late := time.Now().After(deadline)
		switch {
		case err == nil && asked > 0:
			continue // nothing was erased of what it asked for only now
		case err == nil && (open == 0 || result.Unattended || late):
			return open, nil
		case err != nil && !isLockTimeout(err) && !isSerialization(err):
			return 0, err
		case err != nil && late:
			return 0, held(ctx, db, []string{"outbox", "relay"})
		}
		select {
		case <-time.After(erasePause):
		case <-ctx.Done():
			return open, errors.Join(ctx.Err(), err)
		}
	}
}
