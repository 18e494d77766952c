package domain

import "crypto/sha256"

// SaltKey gives the salts of a range of chat events. Each event's salt is
// derived from it, so that no row has to keep one, and so that the salts of
// some events can be erased while those of all others stay: the key is
// replaced by those of the ranges around them. It is the tree of Goldreich,
// Goldwasser and Micali (1986), with SHA-256: the key of a range's lower half is
// SHA-256 over a zero byte and the range's key, that of its upper half over a
// one byte and it. The key of a single event is its salt.
type SaltKey struct {
	// Lower is the first event's sequence number, a multiple of 1<<Bits;
	// 1<<Bits is how many there are.
	Lower int64
	Bits  int
	Key   [sha256.Size]byte
}

// SaltBits is how many events the widest key stands for, as a power of two.
const SaltBits = 20

// Covers reports whether the key gives an event's salt.
func (k SaltKey) Covers(seq int64) bool {
	return seq>>k.Bits == k.Lower>>k.Bits && k.Bits <= SaltBits
}

// Half gives the key of the half with an event. The key must cover it, and more
// than that one.
func (k SaltKey) Half(seq int64) SaltKey {
	half := SaltKey{Lower: k.Lower, Bits: k.Bits - 1}
	side := byte(seq >> half.Bits & 1)
	half.Lower |= int64(side) << half.Bits
	var input [1 + sha256.Size]byte
	input[0] = side
	copy(input[1:], k.Key[:])
	half.Key = sha256.Sum256(input[:])
	return half
}

// Salt derives an event's salt, nil where the key does not cover it.
func (k SaltKey) Salt(seq int64) []byte {
	if !k.Covers(seq) {
		return nil
	}
	for k.Bits > 0 {
		k = k.Half(seq)
	}
	return k.Key[:]
}

// Salts derives the salts of events one after another. Where they are near each
// other it costs two hashes for each.
type Salts struct {
	path []SaltKey // from the widest to the last event's
}

// Of derives an event's salt, nil where no key that was given covers it.
func (s *Salts) Of(seq int64) []byte {
	for len(s.path) > 0 && !s.path[len(s.path)-1].Covers(seq) {
		if len(s.path) == 1 {
			return nil
		}
		s.path = s.path[:len(s.path)-1]
	}
	if len(s.path) == 0 {
		return nil
	}
	for s.path[len(s.path)-1].Bits > 0 {
		s.path = append(s.path, s.path[len(s.path)-1].Half(seq))
	}
	salt := s.path[len(s.path)-1].Key
	return salt[:]
}

// Take makes the key the one that salts are derived from.
func (s *Salts) Take(key SaltKey) { s.path = append(s.path[:0], key) }
