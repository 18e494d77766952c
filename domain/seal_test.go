package domain_test

import (
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

// Sealing is on the way of every entry.
func BenchmarkSealer(b *testing.B) {
	var sealer domain.Sealer
	entry := domain.SealedEntry{EventSeq: 1, WebhookID: 2, AccountID: 3, Writer: 4, Version: 2, Type: []byte("attempt_succeeded"),
		Data: []byte(`{"attempt":1,"status_code":204,"duration_us":12345,"remote_ip":"203.0.113.7"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if entry.Ordinal%1000 == 0 {
			sealer.Reset()
		}
		entry.Ordinal++
		sealer.Add(&entry)
	}
}

// Different contents give different bytes, wherever one column ends and the
// next begins.
func TestCanonicalBytesAreUnambiguous(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, kind := range []string{"NULL", "", "a", "ab", "\x00\x00\x00\x00", "a\x00\x00\x00\x01b"} {
		for _, data := range []string{"NULL", "", "a", "b", "\xff\xff\xff\xff"} {
			for _, routing := range []string{"NULL", "", "b", "ab", "\xff\xff\xff\xff\xff\xff\xff\xff"} {
				entry := domain.SealedEntry{EventSeq: 1}
				for _, field := range []struct {
					to   *[]byte
					text string
				}{{&entry.Type, kind}, {&entry.Data, data}, {&entry.Routing, routing}} {
					if field.text != "NULL" {
						*field.to = []byte(field.text)
					}
				}
				content := kind + "|" + data + "|" + routing
				bytes := string(entry.AppendCanonical(nil))
				if other, known := seen[bytes]; known {
					t.Errorf("%q and %q have the same bytes", content, other)
				}
				seen[bytes] = content
			}
		}
	}
}

// A seal is changed by whatever it covers.
func TestTheSumCoversAllOfASeal(t *testing.T) {
	t.Parallel()
	var sealer domain.Sealer
	for i := range int64(3) {
		sealer.Add(&domain.SealedEntry{EventSeq: i * domain.StretchSize, Ordinal: int32(i), At: 5 - i, Data: []byte("{}")})
	}
	prev := domain.SealHead{No: 6, Hash: domain.Hash{1}, Commit: 9}
	seal := sealer.Seal(domain.ChainTail, prev, 4, []byte("links"))
	if seal.No != 7 || seal.At != 5 || len(seal.Leaves) != 3 || seal.Hash != seal.Sum(&prev) {
		t.Fatalf("the seal is %+v", seal)
	}
	for name, change := range map[string]func(*domain.Seal, *domain.SealHead){
		"chain": func(s *domain.Seal, _ *domain.SealHead) { s.Chain = domain.ChainRecorder }, "number": func(s *domain.Seal, _ *domain.SealHead) { s.No++ },
		"relay": func(s *domain.Seal, _ *domain.SealHead) { s.RelayID++ }, "time": func(s *domain.Seal, _ *domain.SealHead) { s.At++ },
		"links": func(s *domain.Seal, _ *domain.SealHead) { s.Links = nil }, "entries": func(s *domain.Seal, _ *domain.SealHead) { s.Leaves[1].Entries++ },
		"stretch": func(s *domain.Seal, _ *domain.SealHead) { s.Leaves[2].Stretch++ }, "digest": func(s *domain.Seal, _ *domain.SealHead) { s.Leaves[0].Digest[31]++ },
		"order":           func(s *domain.Seal, _ *domain.SealHead) { s.Leaves[0], s.Leaves[1] = s.Leaves[1], s.Leaves[0] },
		"previous hash":   func(_ *domain.Seal, h *domain.SealHead) { h.Hash[0]++ },
		"previous commit": func(_ *domain.Seal, h *domain.SealHead) { h.Commit++ },
	} {
		changed, before := seal, prev
		changed.Leaves = append([]domain.Leaf(nil), seal.Leaves...)
		change(&changed, &before)
		if changed.Sum(&before) == seal.Hash {
			t.Errorf("another %s has the same hash", name)
		}
	}
}
