package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq/oid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
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

// otherHeads are the links to the heads of all chains but that of the seal s.
const otherHeads = `
       (SELECT string_agg(int4send(h.number) || int8send(h.no) || h.hash, ''::bytea ORDER BY h.number) FROM audit.heads h WHERE h.chain <> s.chain)`

// sealHeadQuery gives the head of the chain of relay $1. It gives none where
// that is not there any more.
const sealHeadQuery = `
SELECT s.chain, s.no, s.hash, s.commit, s.relay_id,` + otherHeads + `
  FROM relay.relays r
 CROSS JOIN LATERAL (SELECT * FROM relay.seals s WHERE s.chain = audit.chain_name(r.recorder + 2) ORDER BY s.no DESC LIMIT 1) s
 WHERE r.relay_id = $1`

// load reads the head of a relay's chain. A relay without a chain is taken for
// fenced: as another one it gets a chain.
func (s *sealing) load(ctx context.Context, db *sql.DB, relayID int64) error {
	var hash []byte
	err := db.QueryRowContext(ctx, sealHeadQuery, relayID).Scan(&s.chain, &s.head.No, &hash, &s.head.Commit, &s.relayID, &s.others)
	if errors.Is(err, sql.ErrNoRows) {
		return relay.ErrFenced
	}
	if err != nil {
		return fmt.Errorf("read the newest seal of the chain of relay %d: %w", relayID, err)
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
