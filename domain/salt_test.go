package domain_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

func TestSaltsAreDerivedFromTheKeyOfTheirRange(t *testing.T) {
	t.Parallel()
	root := domain.SaltKey{Lower: 3 << domain.SaltBits, Bits: domain.SaltBits, Key: sha256.Sum256([]byte("root"))}
	var salts domain.Salts
	if salts.Of(root.Lower) != nil {
		t.Error("a salt without a key")
	}
	salts.Take(root)
	seen := map[string]int64{}
	last := root.Lower + 1<<domain.SaltBits - 1
	for _, seq := range []int64{root.Lower, root.Lower + 1, root.Lower + 2, root.Lower + 1023, root.Lower + 500_000, last, last - 1, root.Lower + 7} {
		salt := salts.Of(seq)
		if len(salt) != sha256.Size || !bytes.Equal(salt, root.Salt(seq)) {
			t.Errorf("event %d: walking gives the salt %x, deriving %x", seq, salt, root.Salt(seq))
		}
		if other, there := seen[string(salt)]; there {
			t.Errorf("events %d and %d have one salt", seq, other)
		}
		seen[string(salt)] = seq
		// What is left when others are erased gives the same.
		narrow := root
		for narrow.Bits > 3 {
			narrow = narrow.Half(seq)
		}
		if !narrow.Covers(seq) || !bytes.Equal(narrow.Salt(seq), salt) || narrow.Salt(narrow.Lower-1) != nil || narrow.Salt(narrow.Lower+8) != nil {
			t.Errorf("event %d: the key of 8 events from %d gives %x, want %x", seq, narrow.Lower, narrow.Salt(seq), salt)
		}
	}
	for _, seq := range []int64{root.Lower - 1, last + 1, 0} {
		if salt := salts.Of(seq); salt != nil {
			t.Errorf("event %d is not in the range and has the salt %x", seq, salt)
		}
	}
}

func TestTheDigestOfAnExcerptIsSalted(t *testing.T) {
	t.Parallel()
	o := domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 200}
	if o.Digested([16]byte{1}) != o {
		t.Error("an outcome without an excerpt has a digest")
	}
	o.Excerpt = "ok"
	one, other := o.Digested([16]byte{1}), o.Digested([16]byte{2})
	if one.ExcerptDigest == other.ExcerptDigest || len(one.ExcerptDigest) != 64 || one.ExcerptSalt != [16]byte{1} {
		t.Errorf("digests are %q and %q", one.ExcerptDigest, other.ExcerptDigest)
	}
}
