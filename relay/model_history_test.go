package relay_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// history is what happens in a run: who the webhooks are, how their receivers
// are disposed, and what is done one after the other. A seed gives the same
// history again; how the relays' own steps fall between those of the history is
// the machine's matter.
type history struct {
	seed  uint64
	holds [modelHooks]time.Duration
	most  [modelHooks]int // max_concurrency
	// failing and hanging are percentages of the answers of a receiver in no
	// special mood.
	failing, hanging int
	steps            []step
}

const (
	modelHooks  = 4
	modelRelays = 3 // at once, at the most
	// modelHold is an order_hold between the delays of the policy.
	modelHold = 8 * time.Second
)

// modelPolicy is on the run's own clock, which the history moves.
var modelPolicy = domain.RetryPolicy{Delays: []time.Duration{time.Second, 5 * time.Second, 20 * time.Second}, Spread: 0.1, RetryAfterCap: 15 * time.Second}

// step is one thing that is done. Where it does not fit, as to kill a relay where
// none is at work, nothing is: so that any steps make a history.
type step struct {
	do    verb
	which int // webhook, relay or replay
	n     int
	key   string
	wait  time.Duration
	mood  mood
}

type verb int

const (
	doPublish verb = iota
	doPass
	doRest // until nothing moves by itself
	doAnswer
	doChange
	doStart
	doStop
	doKill
	doBreak
	doReplay
	doChangeReplay
)

// mood is how a receiver answers.
type mood string

const (
	moodMixed mood = "as it is" // as the history says for each attempt
	moodWell  mood = "well"
	moodBadly mood = "badly"
	moodNever mood = "never" // until it is told to
	moodGone  mood = "gone"
)

// The changes of webhooks and replays.
const (
	toPause = iota
	toEnable
	toDisable
	toDelete
)

func (s step) String() string {
	switch s.do {
	case doPublish:
		return fmt.Sprintf("publish %d of %q", s.n, s.key)
	case doPass:
		return fmt.Sprintf("let %s pass", s.wait)
	case doRest:
		return "rest"
	case doAnswer:
		return fmt.Sprintf("/hook%d answers %s", s.which, s.mood)
	case doChange:
		return fmt.Sprintf("%s /hook%d", [...]string{"pause", "enable", "disable", "delete"}[s.n], s.which)
	case doStart:
		return "start a relay"
	case doStop:
		return fmt.Sprintf("stop relay %d", s.which)
	case doKill:
		return fmt.Sprintf("kill relay %d", s.which)
	case doBreak:
		return "break all connections"
	case doReplay:
		return fmt.Sprintf("replay all to webhook %d", s.which)
	case doChangeReplay:
		return fmt.Sprintf("%s replay %d", [...]string{"pause", "resume", "cancel"}[s.n], s.which)
	}
	return "?"
}

func (h history) String() string {
	var b strings.Builder
	for i, hold := range h.holds {
		text := hold.String()
		if hold == domain.HoldForever {
			text = "forever"
		}
		fmt.Fprintf(&b, "/hook%d: order_hold %s, max_concurrency %d\n", i, text, h.most[i])
	}
	fmt.Fprintf(&b, "%d %% of the answers fail, %d %% hang\n", h.failing, h.hanging)
	for i, s := range h.steps {
		fmt.Fprintf(&b, "%3d %s\n", i+1, s)
	}
	return b.String()
}

// newHistory makes the history of a seed.
func newHistory(seed uint64, steps int) history {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it is to be repeatable
	h := history{seed: seed, failing: 10 + r.IntN(35), hanging: r.IntN(12)}
	holds := []time.Duration{0, modelHold, domain.HoldForever}
	for i := range h.holds {
		h.holds[i] = holds[i%len(holds)]
		h.most[i] = []int{1, 2, 16}[r.IntN(3)]
	}
	h.holds[modelHooks-1] = holds[1+r.IntN(2)]
	h.steps = append(h.steps, step{do: doStart})
	for len(h.steps) < steps {
		h.steps = append(h.steps, someStep(r))
	}
	return h
}

// someStep makes a step. The weights are percents.
func someStep(r *rand.Rand) step {
	s := step{which: r.IntN(modelHooks)}
	switch n := r.IntN(100); {
	case n < 34:
		s.do, s.n = doPublish, 1+r.IntN(6)
		s.key = []string{"a", "a", "a", "b", "b", "c", ""}[r.IntN(7)]
	case n < 48:
		s.do = doPass
		s.wait = []time.Duration{300 * time.Millisecond, time.Second, 2500 * time.Millisecond, 6 * time.Second, modelHold, 35 * time.Second}[r.IntN(6)]
	case n < 60:
		s.do = doRest
	case n < 72:
		s.do = doAnswer
		s.mood = []mood{moodMixed, moodMixed, moodMixed, moodMixed, moodWell, moodBadly, moodBadly, moodBadly, moodNever, moodNever}[r.IntN(10)]
		if r.IntN(20) == 0 {
			s.mood = moodGone
		}
	case n < 81:
		s.do = doChange
		s.n = []int{toPause, toEnable}[r.IntN(2)]
		switch r.IntN(20) {
		case 0:
			s.n = toDisable
		case 1:
			s.n, s.which = toDelete, modelHooks-1 // the others go on
		}
	case n < 89:
		s.do = doStart
	case n < 91:
		s.do, s.which = doStop, r.IntN(modelRelays)
	case n < 93:
		s.do, s.which = doKill, r.IntN(modelRelays)
	case n < 94:
		s.do = doBreak
	case n < 97:
		s.do = doReplay
	default:
		s.do, s.which, s.n = doChangeReplay, r.IntN(2), r.IntN(3)
	}
	return s
}
