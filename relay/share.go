package relay

import (
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"slices"
	"time"
)

// sharing keeps a relay's part of the work fair. Every relay looks at the others
// some times a second, and all come to the same result: each relay that sends
// has as many shards as the others, or one more. It claims what nobody owns up
// to its share, and gives up what it has beyond. A relay that gave no sign of
// life for the length of a lease, on this one's monotonic clock, loses all.
type sharing struct {
	leases  Leases
	relayID int64
	sends   bool
	logger  *slog.Logger
	// gain takes up shards, lose gives them up, gave hears that this is on record:
	// see dispatcher.
	gain func(ctx context.Context, places []Place, live []int64) error
	lose func(ctx context.Context, shards Shards) ([]Place, error)
	gave func(ctx context.Context, shards Shards) error
	// tail begins to tail.
	tail func(ctx context.Context) error
	// changed hears what the relay owns, and how many others there are.
	changed func(owns Share, others int)

	owns  Share
	signs map[int64]sign
	// others are the relays seen last, this one left out.
	others []int64
}

// sign is the newest sign of life of another relay, and when it was first seen.
type sign struct {
	beat int64
	seen time.Time
}

// run keeps the share until ctx ends. The error is ErrFenced once another relay
// has taken over, ErrAnotherServer once the connections lead elsewhere.
func (s *sharing) run(ctx context.Context, wake <-chan struct{}) error {
	s.signs = map[int64]sign{}
	for failing := false; ; {
		err := s.look(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrFenced), errors.Is(err, ErrAnotherServer):
			return err
		default:
			if !failing {
				s.logger.Warn("sharing the work failed, trying again", "error", err)
			}
			clear(s.signs) // silence of the database is not silence of the others
		}
		failing = err != nil
		select {
		case <-time.After(watchPause):
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// look does one round.
func (s *sharing) look(ctx context.Context) error {
	members, free, err := s.members(ctx)
	if err != nil {
		return err
	}
	if fenced, err := s.fenceDead(ctx, members); err != nil {
		return err
	} else if fenced {
		if members, free, err = s.members(ctx); err != nil {
			return err
		}
	}
	me := slices.IndexFunc(members, func(m Member) bool { return m.ID == s.relayID })
	if me < 0 {
		return ErrFenced
	}
	s.note(members)
	rank, n := 0, 0
	for _, m := range members {
		if m.Sends && !m.Leaving {
			if m.ID < s.relayID {
				rank++
			}
			n++
		}
	}
	share := 0
	if s.sends {
		share = fairShare(rank, n)
	}
	if beyond := s.owns.Shards.Count() - share; beyond > 0 {
		return s.giveUp(ctx, last(s.owns.Shards, beyond))
	}
	// What it owns without knowing is of a claim whose answer was lost.
	lost := members[me].Share
	lost.Shards &^= s.owns.Shards
	wanted := Share{
		Shards: lost.Shards | first(free.Shards, share-s.owns.Shards.Count()-lost.Shards.Count()),
		Tail:   (free.Tail || lost.Tail) && !s.owns.Tail,
	}
	if wanted == (Share{}) {
		return nil
	}
	return s.claim(ctx, wanted, members)
}

// members asks who there is. An answer that takes longer than a lease tells
// nothing any more.
func (s *sharing) members(ctx context.Context) ([]Member, Share, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseLength)
	defer cancel()
	return s.leases.Members(ctx)
}

// fenceDead takes the work from those that gave no sign of life for too long.
func (s *sharing) fenceDead(ctx context.Context, members []Member) (fenced bool, err error) {
	now := time.Now()
	for _, m := range members {
		if m.ID == s.relayID {
			continue
		}
		newest, known := s.signs[m.ID]
		switch {
		case !known || newest.beat != m.Beat:
			s.signs[m.ID] = sign{m.Beat, now}
		case now.Sub(newest.seen) >= leaseLength:
			s.logger.Warn("another relay gave no sign of life for too long: its work is taken over", "other", m.ID)
			if err := s.leases.Fence(ctx, s.relayID, m.ID); err != nil {
				return fenced, err
			}
			fenced = true
		}
	}
	return fenced, nil
}

// note tells of what changed among the others.
func (s *sharing) note(members []Member) {
	var others []int64
	for _, m := range members {
		if m.ID != s.relayID {
			others = append(others, m.ID)
		}
	}
	for id := range s.signs {
		if !slices.Contains(others, id) {
			delete(s.signs, id)
		}
	}
	if !slices.Equal(others, s.others) {
		s.others = others
		s.changed(s.owns, len(others))
	}
}

// fairShare says how many shards the relay at a rank among n has.
func fairShare(rank, n int) int {
	share := ShardCount / n
	if rank < ShardCount%n {
		share++
	}
	return share
}

func (s *sharing) claim(ctx context.Context, wanted Share, members []Member) error {
	claimed, places, err := s.leases.Claim(ctx, s.relayID, wanted)
	if err != nil || claimed == (Share{}) {
		return err
	}
	// They are this relay's: nobody else takes them up.
	if claimed.Tail {
		if err := s.persist(ctx, "beginning to tail", s.tail); err != nil {
			return err
		}
		s.owns.Tail = true
	}
	if claimed.Shards != 0 {
		live := make([]int64, 0, len(members))
		for _, m := range members {
			live = append(live, m.ID)
		}
		if err := s.persist(ctx, "taking up shards", func(ctx context.Context) error { return s.gain(ctx, places, live) }); err != nil {
			return err
		}
		s.owns.Shards |= claimed.Shards
	}
	s.logger.Info("at work", "shards", s.owns.Shards.Count(), "tail", s.owns.Tail)
	s.changed(s.owns, len(s.others))
	return nil
}

// persist tries again until it succeeds, or the relay is not to go on.
func (s *sharing) persist(ctx context.Context, what string, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrAnotherServer) {
			return err
		}
		s.logger.Warn("sharing the work failed, trying again", "step", what, "error", err)
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sharing) giveUp(ctx context.Context, shards Shards) error {
	places, err := s.lose(ctx, shards)
	if err != nil {
		return err
	}
	s.owns.Shards &^= shards
	s.changed(s.owns, len(s.others))
	s.logger.Info("giving up shards", "shards", shards.Count(), "left", s.owns.Shards.Count())
	if err := s.persist(ctx, "giving up shards", func(ctx context.Context) error {
		return s.leases.GiveUp(ctx, s.relayID, Share{Shards: shards}, places)
	}); err != nil {
		return err
	}
	return s.gave(ctx, shards)
}

// leave lets the others have all shards at once, while attempts under way are
// finished here.
func (s *sharing) leave(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, recordTimeout)
	defer done()
	err := s.leases.Leave(ctx, s.relayID)
	if err == nil && s.owns.Shards != 0 {
		err = s.giveUp(ctx, s.owns.Shards)
	}
	if err != nil {
		s.logger.Warn("giving up the shards failed; others get them when the attempts under way are finished", "error", err)
	}
}

// first gives the first n of some shards, last the last n, in an order that
// leaves neighbours to different relays: webhooks have ids one after the other.
func first(from Shards, n int) (some Shards) {
	for i := 0; i < ShardCount && n > 0; i++ {
		if one := inOrder(i); from&one != 0 {
			some |= one
			n--
		}
	}
	return some
}

func last(from Shards, n int) (some Shards) {
	for i := ShardCount - 1; i >= 0 && n > 0; i-- {
		if one := inOrder(i); from&one != 0 {
			some |= one
			n--
		}
	}
	return some
}

// inOrder gives the shard whose number has the bits of i in reverse.
func inOrder(i int) Shards { return 1 << (bits.Reverse8(uint8(i)) >> 2) } //nolint:gosec // i is below 64
