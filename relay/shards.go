package relay

import (
	"math/bits"

	"github.com/outrider-relay/outrider/domain"
)

// ShardCount is how many shards the webhooks are divided into.
const ShardCount = 64

// Shards is a set of shards; bit n stands for shard n.
type Shards uint64

// AllShards are all there are.
const AllShards = ^Shards(0)

// ShardOf gives the shard of a webhook, alone. SQL has it as 1 << (id & 63).
func ShardOf(id domain.WebhookID) Shards { return 1 << shardNo(id) }

func shardNo(id domain.WebhookID) int { return int(uint64(id) % ShardCount) } //nolint:gosec // the same bits

// Has says whether a webhook is in one of them.
func (s Shards) Has(id domain.WebhookID) bool { return s&ShardOf(id) != 0 }

// Count says how many they are.
func (s Shards) Count() int { return bits.OnesCount64(uint64(s)) }
