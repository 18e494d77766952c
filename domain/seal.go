package domain

import (
	"crypto/sha256"
	"encoding/binary"
)

// Chain names a chain of seals. Each has one writer at a time.
type Chain string

// The chains that every database has. Relays that are at work at once have a
// chain each for their other group commits: recorder, "recorder 1" and so on.
const (
	ChainTail     Chain = "tail"     // group commits of routing
	ChainRecorder Chain = "recorder" // all other group commits of a relay
	ChainChanges  Chain = "changes"  // changes of webhooks and steps of replays, which the database seals
)

// StretchSize is how many places of the outbox a stretch has. Retention drops
// whole stretches.
const StretchSize = 100_000

// Hash is a SHA-256.
type Hash = [sha256.Size]byte

// SealedEntry is a log entry as its digest covers it: with all but what may be
// erased, and the number of its group commit, which the seal has. nil is NULL.
type SealedEntry struct {
	EventSeq  int64
	WebhookID int64
	ReplayID  int64
	AccountID int64
	Ordinal   int32 // within its group commit, from 1
	Writer    int64
	At        int64 // microseconds since 2000, as PostgreSQL counts
	Version   int32
	Type      []byte
	Data      []byte
	Routing   []byte
	EventID   []byte
	Delivery  []byte
}

// AppendCanonical appends the bytes that the digest is of: those of
// audit.canonical_entry.
func (e *SealedEntry) AppendCanonical(b []byte) []byte {
	for _, n := range [...]int64{e.EventSeq, e.WebhookID, e.ReplayID, e.AccountID} {
		b = appendInt64(b, n)
	}
	b = appendInt32(b, e.Ordinal)
	b = appendInt64(appendInt64(b, e.Writer), e.At)
	b = appendInt32(b, e.Version)
	b = appendMeasured(appendMeasured(appendMeasured(b, e.Type), e.Data), e.Routing)
	return appendMeasured(appendMeasured(b, e.EventID), e.Delivery)
}

// Mark is what an entry keeps of its digest.
func Mark(digest Hash) int32 { return int32(binary.BigEndian.Uint32(digest[:])) } //nolint:gosec // the same bits

// Leaf is what a seal covers of one stretch.
type Leaf struct {
	Stretch int64
	Entries int32
	Digest  Hash // over the entries' digests, in the order of their ordinals
}

// SealHead is the newest seal of a chain: what the next one builds on.
type SealHead struct {
	No   int64
	Hash Hash
	// Commit is the seal's group commit. Its number is drawn when the seal is
	// written, so that only the next one can cover it.
	Commit int64
}

// Seal covers what one group commit wrote to the log, and through the seal
// before it all that came earlier in its chain.
type Seal struct {
	Chain   Chain
	No      int64
	RelayID int64
	At      int64 // the latest of its entries, in microseconds since 2000
	Leaves  []Leaf
	// Links are the heads of all other chains in a relay's first seal of a chain,
	// else nil: see audit.links.
	Links []byte
	Hash  Hash
}

// Sum gives the hash of a seal behind prev, or of a chain's first, whose prev
// is nil: SHA-256 of audit.canonical_seal.
func (s *Seal) Sum(prev *SealHead) Hash {
	b := appendMeasured(make([]byte, 0, 160+44*len(s.Leaves)+len(s.Links)), []byte(s.Chain))
	b = appendInt64(appendInt64(appendInt64(b, s.No), s.RelayID), s.At)
	b = appendInt32(b, int32(len(s.Leaves))) //nolint:gosec // a group commit has few
	for i := range s.Leaves {
		b = appendInt32(appendInt64(b, s.Leaves[i].Stretch), s.Leaves[i].Entries)
	}
	b = appendInt32(b, int32(sha256.Size*len(s.Leaves))) //nolint:gosec // as above
	for i := range s.Leaves {
		b = append(b, s.Leaves[i].Digest[:]...)
	}
	b = appendMeasured(b, s.Links)
	if prev == nil {
		return sha256.Sum256(appendInt64(appendMeasured(b, nil), 0))
	}
	return sha256.Sum256(appendInt64(appendMeasured(b, prev.Hash[:]), prev.Commit))
}

// ChangeSeal covers one change of a webhook or step of a replay, and through
// the seal before it all earlier ones.
type ChangeSeal struct {
	No      int64
	Source  string // the table
	ID      int64
	Version int64
	At      int64 // microseconds since 2000
	Digest  []byte
	Links   []byte
}

// Sum gives the hash of a seal behind one with the hash prev, nil for none:
// SHA-256 of audit.canonical_change_seal.
func (s *ChangeSeal) Sum(prev []byte) Hash {
	b := appendMeasured(appendInt64(nil, s.No), []byte(s.Source))
	b = appendInt64(appendInt64(appendInt64(b, s.ID), s.Version), s.At)
	return sha256.Sum256(appendMeasured(appendMeasured(appendMeasured(b, s.Digest), s.Links), prev))
}

// Sealer makes the seals of group commits, one after another. It keeps its
// memory. The zero value is ready.
type Sealer struct {
	at      int64
	gather  []gathered
	n       int // how many of gather are in use
	content []byte
	leaves  []Leaf
}

// gathered are the digests of one stretch.
type gathered struct {
	stretch int64
	digests []byte
}

// Reset forgets the entries of the last group commit.
func (s *Sealer) Reset() { s.n, s.at = 0, 0 }

// Empty reports whether no entry was added.
func (s *Sealer) Empty() bool { return s.n == 0 }

// Add takes an entry, in the order of ordinals, and gives its mark.
func (s *Sealer) Add(e *SealedEntry) (mark int32) {
	s.content = e.AppendCanonical(s.content[:0])
	digest := sha256.Sum256(s.content)
	if s.n == 0 || e.At > s.at {
		s.at = e.At
	}
	g := s.stretch(e.EventSeq / StretchSize)
	g.digests = append(g.digests, digest[:]...)
	return Mark(digest)
}

// stretch finds the digests of a stretch: nearly always there is one, and of
// several it is the last again.
func (s *Sealer) stretch(stretch int64) *gathered {
	for i := s.n - 1; i >= 0; i-- {
		if s.gather[i].stretch == stretch {
			return &s.gather[i]
		}
	}
	if s.n == len(s.gather) {
		s.gather = append(s.gather, gathered{})
	}
	g := &s.gather[s.n]
	g.stretch, g.digests = stretch, g.digests[:0]
	s.n++
	return g
}

// Seal makes the seal of the entries added since Reset. Its leaves are valid
// until the next Seal.
func (s *Sealer) Seal(chain Chain, prev SealHead, relayID int64, links []byte) Seal {
	s.leaves = s.leaves[:0]
	for i := range s.gather[:s.n] {
		g := &s.gather[i]
		s.leaves = append(s.leaves, Leaf{g.stretch, int32(len(g.digests) / sha256.Size), sha256.Sum256(g.digests)}) //nolint:gosec // a group commit has at most 2^20
	}
	seal := Seal{Chain: chain, No: prev.No + 1, RelayID: relayID, At: s.at, Leaves: s.leaves, Links: links}
	seal.Hash = seal.Sum(&prev)
	return seal
}

func appendInt64(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) } //nolint:gosec // the same bits

func appendInt32(b []byte, n int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) } //nolint:gosec // the same bits

// appendMeasured appends bytes behind their length, and for nil a length of -1.
func appendMeasured(b, content []byte) []byte {
	if content == nil {
		return appendInt32(b, -1)
	}
	return append(appendInt32(b, int32(len(content))), content...) //nolint:gosec // PostgreSQL keeps less than 2^30
}
