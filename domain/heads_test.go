package domain_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// The signed text is what the README says, so that others can verify it.
func TestHeadsAreSignedAsDocumented(t *testing.T) {
	t.Parallel()
	heads := domain.Heads{
		Database: "chat \"1\"\n", At: time.Date(2026, 7, 1, 14, 0, 0, 5, time.FixedZone("", 7200)),
		Heads: []domain.ChainHead{{Chain: domain.ChainRecorder, No: 12, Commit: 34, Hash: "ab"}, {Chain: domain.ChainTail, No: 1, Commit: 2, Hash: "cd"}},
	}
	want := "outrider-heads-1\ndatabase \"chat \\\"1\\\"\\n\"\nat 2026-07-01T12:00:00Z\nrecorder 12 34 ab\ntail 1 2 cd\n"
	if got := string(heads.Signed()); got != want {
		t.Errorf("the signed text is\n%s, want\n%s", got, want)
	}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public, _ := key.Public().(ed25519.PublicKey)
	heads.Sign(key)
	if err := heads.Verify(public); err != nil {
		t.Errorf("the heads do not verify: %v", err)
	}
	for name, change := range map[string]func(*domain.Heads){
		"number": func(h *domain.Heads) { h.Heads[1].No++ }, "commit": func(h *domain.Heads) { h.Heads[0].Commit++ }, "hash": func(h *domain.Heads) { h.Heads[0].Hash = "ac" },
		"database": func(h *domain.Heads) { h.Database = "other" }, "time": func(h *domain.Heads) { h.At = h.At.Add(time.Second) },
		"a chain less": func(h *domain.Heads) { h.Heads = h.Heads[:1] }, "signature": func(h *domain.Heads) { h.Signature = "?" },
	} {
		changed := heads
		changed.Heads = append([]domain.ChainHead(nil), heads.Heads...)
		change(&changed)
		if err := changed.Verify(public); !errors.Is(err, domain.ErrNotSigned) {
			t.Errorf("heads with another %s verify: %v", name, err)
		}
	}
}
