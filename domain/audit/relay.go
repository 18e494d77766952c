package audit

import (
	"time"
)

// RelayState says how a relay is, as the database knows it.
type RelayState string

// The states of a relay.
const (
	RelayWorking    RelayState = "working"     // has a part of the work, and gives signs of life
	RelayWaiting    RelayState = "waiting"     // has nothing: it has just begun, or others have all
	RelayRoutesOnly RelayState = "routes_only" // makes no POST: it tails, or does nothing
	RelayLeaving    RelayState = "leaving"     // stops: it takes nothing any more, and finishes its attempts
	RelaySilent     RelayState = "silent"      // gave no sign of life for 2 s
	RelayStopped    RelayState = "stopped"     // ended in an orderly way
	RelayFenced     RelayState = "fenced"      // gave no sign of life: its work was taken from it
	RelayNone       RelayState = "unowned"     // no relay: what nobody has
)

// shardCount is relay.ShardCount.
const shardCount = 64

// Relay is a start of a process that relays, and what of the work it has.
type Relay struct {
	// ID is 0 for what nobody has.
	ID            int64
	Name, Version string
	// Sends is false for one with --no-send.
	Sends     bool
	State     RelayState
	StartedAt time.Time
	// LastSignAt is when it gave its last sign of life, by the database's clock,
	// zero for none.
	LastSignAt time.Time
	// Shards has bit n set where it has shard n.
	Shards uint64
	Tails  bool
	// Position is the last batch of which each delivery to its shards is started,
	// finished or waits for its time, Behind how many batches followed. Both are
	// 0 without shards.
	Position, Behind int64
	// EndedAt is when it ended, EndedBy the relay that fenced it, 0 for none: it
	// stopped, or retention or an erasure fenced it.
	EndedAt time.Time
	EndedBy int64
}

// RelayTime is how long a relay was at work: until its last sign of life, where
// it did not stop by itself. To is zero where it still is.
type RelayTime struct{ From, To time.Time }

// ShardNumbers are the numbers of its shards, 0 to 63.
func (r *Relay) ShardNumbers() []int {
	numbers := []int{}
	for n := range shardCount {
		if r.Shards&(1<<n) != 0 {
			numbers = append(numbers, n)
		}
	}
	return numbers
}
