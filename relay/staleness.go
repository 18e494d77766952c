package relay

import (
	"github.com/outrider-relay/outrider/domain"
)

// staleness tells which deliveries moved on since a read began: what that read
// found of them is out of date.
type staleness struct {
	last int                        // number of the newest read
	now  int                        // of the read whose result is being taken
	open map[int]int                // reads whose result may still be taken
	gone map[domain.DeliveryKey]int // the newest read when it moved on
	old  []domain.DeliveryKey       // in the order in which they moved on
}

func (s *staleness) begin() int {
	s.last++
	s.open[s.last] = 1
	return s.last
}

// end forgets what no read that is still open can have seen before.
func (s *staleness) end(read int) {
	s.open[read]--
	if s.open[read] <= 0 {
		delete(s.open, read)
	}
	first := s.last + 1
	for n := range s.open {
		first = min(first, n)
	}
	for len(s.old) > 0 && s.gone[s.old[0]] < first {
		delete(s.gone, s.old[0])
		s.old = s.old[1:]
	}
}

func (s *staleness) move(key domain.DeliveryKey) {
	if len(s.open) == 0 {
		return
	}
	if _, listed := s.gone[key]; !listed {
		s.old = append(s.old, key)
	}
	s.gone[key] = s.last
}

func (s *staleness) moved(key domain.DeliveryKey) bool {
	newest, gone := s.gone[key]
	return gone && s.now <= newest
}
