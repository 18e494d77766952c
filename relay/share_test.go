package relay

import "testing"

func TestSharesAreFairAndMakeAWhole(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 2*ShardCount; n++ {
		sum, least, most := 0, ShardCount, 0
		for rank := range n {
			share := fairShare(rank, n)
			sum, least, most = sum+share, min(least, share), max(most, share)
		}
		if sum != ShardCount || most-least > 1 {
			t.Errorf("%d relays have %d shards, between %d and %d each", n, sum, least, most)
		}
	}
}

func TestWhatIsGivenUpIsWhatOthersHaveFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from        Shards
		n           int
		first, last Shards
	}{
		{0, 3, 0, 0},
		{0b1111, 0, 0, 0},
		{0b1111, 2, 0b0101, 0b1010},
		{0b1111, 9, 0b1111, 0b1111},
		{AllShards, 32, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa},
	} {
		if first, last := first(c.from, c.n), last(c.from, c.n); first != c.first || last != c.last {
			t.Errorf("of %b the first %d are %b, want %b; the last %b, want %b", c.from, c.n, first, c.first, last, c.last)
		}
	}
}
