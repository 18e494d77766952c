package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq/oid"

	"github.com/outrider-relay/outrider/domain"
)

// sealing is what a writer of a chain knows of it: the head that its next seal
// builds on. The statement that writes a seal gives it a number only where that
// head is in the database, and the key refuses a second seal of that number. So
// a head that is not the chain's, whatever happened, costs an error and is read
// again.
type sealing struct {
	chain domain.Chain
	known bool
	head  domain.SealHead
	// relayID is the relay that wrote the head. The first seal of another one
	// links to the heads of the other chains, which are others.
	relayID int64
	others  []byte
}

// sealHeadQuery gives the head of chain $1, and the heads of the chains changes
// and $2: those are the others in the order of their names.
const sealHeadQuery = `
SELECT s.no, s.hash, s.commit, s.relay_id,
       (SELECT int8send(o.no) || o.hash FROM relay.change_seals o ORDER BY o.no DESC LIMIT 1)
    || (SELECT int8send(o.no) || o.hash FROM relay.seals o WHERE o.chain = $2 ORDER BY o.no DESC LIMIT 1)
  FROM relay.seals s WHERE s.chain = $1 ORDER BY s.no DESC LIMIT 1`

// load reads the head.
func (s *sealing) load(ctx context.Context, db *sql.DB) error {
	other := domain.ChainTail
	if s.chain == domain.ChainTail {
		other = domain.ChainRecorder
	}
	var hash []byte
	err := db.QueryRowContext(ctx, sealHeadQuery, string(s.chain), string(other)).Scan(&s.head.No, &hash, &s.head.Commit, &s.relayID, &s.others)
	if err != nil {
		return fmt.Errorf("read the newest seal of the chain %s: %w", s.chain, err)
	}
	s.set(hash)
	return nil
}

func (s *sealing) set(hash []byte) {
	copy(s.head.Hash[:], hash)
	s.known = true
}

// seal makes the next seal.
func (s *sealing) seal(sealer *domain.Sealer, relayID int64) domain.Seal {
	var links []byte
	if s.relayID != relayID {
		links = s.others
	}
	return sealer.Seal(s.chain, s.head, relayID, links)
}

// written makes a seal the head.
func (s *sealing) written(seal *domain.Seal, commit int64) {
	s.head = domain.SealHead{No: seal.No, Hash: seal.Hash, Commit: commit}
	s.relayID = seal.RelayID
}

// sealColumns are the arrays of a seal.
type sealColumns struct{ stretches, entries *column }

func newSealColumns() sealColumns {
	return sealColumns{newColumn(oid.T_int8, 1, 8), newColumn(oid.T_int4, 1, 4)}
}

// appendArgs appends what a statement takes for a seal behind prev: number and
// hash of that, then the seal's time, stretches, entries, digests, links and
// hash.
func (c sealColumns) appendArgs(args []any, prev domain.SealHead, seal *domain.Seal) []any {
	c.stretches.reset()
	c.entries.reset()
	digests := make([]byte, 0, len(domain.Hash{})*len(seal.Leaves))
	for i := range seal.Leaves {
		leaf := &seal.Leaves[i]
		c.stretches.bigint(leaf.Stretch)
		c.entries.integer(int(leaf.Entries))
		digests = append(digests, leaf.Digest[:]...)
	}
	var links any
	if seal.Links != nil {
		links = seal.Links
	}
	return append(args, prev.No, prev.Hash[:], timeOf(seal.At).Format(time.RFC3339Nano), c.stretches, c.entries, digests, links, seal.Hash[:])
}

// idBytes gives the bytes of an id that is kept as NULL where it is uuid.Nil.
func idBytes(id *uuid.UUID) []byte {
	if *id == uuid.Nil {
		return nil
	}
	return id[:]
}

// microseconds counts as PostgreSQL keeps a time, and timeOf is the way back.
func microseconds(t time.Time) int64 { return t.UnixMicro() - epoch.UnixMicro() }

func timeOf(microseconds int64) time.Time {
	return time.UnixMicro(microseconds + epoch.UnixMicro()).UTC()
}
