package audit

import (
	"time"
)

// Missed are the chat events that were passed over because a webhook was
// disabled.
type Missed struct {
	// Count is 10,000 where More is set.
	Count int64
	More  bool
	// Since and Until bound when they were routed: what a replay needs.
	Since, Until time.Time
}
