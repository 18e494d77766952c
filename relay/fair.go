package relay

import (
	"container/heap"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// What accounts share is the room in flight, the bytes of bodies on their way
// and the memory for first deliveries. Each webhook has bounds of its own, which
// do not help others where an account has 256 webhooks that hang: these have 16
// attempts each under way, which is all of DefaultInFlight, until they time out.
//
// The room in flight. What an account takes of it is counted by its attempts
// under way at this moment, not by those that it began: an attempt of 5 s takes
// a thousand times as much of the room as one of 5 ms, and to let both accounts
// begin equally many would hold the quick one to the pace of the slow one. A
// count of what is under way weighs each attempt by the time that it takes,
// known beforehand or not. Two rules make it fair.
//
//   - An account may begin an attempt while it has fewer than headroom-1 times as
//     many under way as there is room left. One that is alone gets all but an
//     eighth; two get 7/15 each, and n of them 7/(1+7n). Whoever comes while
//     others have taken what they may finds room at once, without waiting for a
//     hanging attempt to end: none can be cut short. No account has a part
//     reserved, and while there is much room, nobody notices. (Choudhury and
//     Hahne share the memory of a switch between its ports so: "Dynamic queue
//     length thresholds for shared-memory packet switches", 1998.)
//   - Who may not begin waits. Room that becomes free goes to the account that
//     has the fewest under way of those that wait, of equals to the one whose turn
//     was longest ago; within it to its webhooks in turn, one attempt each. So
//     accounts that want more than there is come to have equally much, however
//     many webhooks they have, and one that wants less gets all it wants.
//
// An account that may begin is never passed by one that waits, nor the reverse:
// those that wait are asked first, and the first of them that may not has the
// fewest under way. Where no account waits, an attempt costs two additions more;
// where some do, the time to mend a heap of them.
//
// The bytes on their way are shared by the first rule alone: see fits.
//
// The memory for first deliveries. When it is full the tail waits, and with it
// what others have inserted since. It is full only with what has come first and
// cannot begin: so the webhooks whose deliveries have waited for patience
// overflow, and the tail goes on. That does not touch an account with less than
// its part of a quarter of that memory: it would go through the due table for
// another one's flood. What all those have together cannot hold the tail up.
// Where the relay has no room in flight, and no account more of the memory than
// others, all wait longer: see patienceWith.

// headroom is the part of the room that is kept from each account alone: an
// eighth.
const headroom = 8

// account is what an account's webhooks have of this relay together.
type account struct {
	flying int // attempts under way
	aloft  int // bytes of bodies on their way
	fresh  int // first deliveries in memory
	bodies int // their bytes
	// waiting are its webhooks that have work and find no room in flight, in turn,
	// ahead the attempts that it has begun without. An account that has any is in
	// line, at this place; turn is when it came there, or got room from there.
	waiting  []*queue
	ahead    []*step
	inLine   bool
	place    int
	turn     int64
	turnover turnover
}

// take takes a webhook out of those that wait: 0 is the one whose turn it is.
func (a *account) take(i int) *queue {
	q := a.waiting[i]
	copy(a.waiting[1:i+1], a.waiting[:i])
	a.waiting[0] = nil
	a.waiting = a.waiting[1:]
	q.inLine = false
	return q
}

// line has the accounts that wait for room in flight, as a heap: the first is the
// next to get some.
type line struct {
	accounts []*account
	turns    int64
}

func (l *line) Len() int { return len(l.accounts) }

func (l *line) Less(i, j int) bool {
	a, b := l.accounts[i], l.accounts[j]
	return a.flying < b.flying || a.flying == b.flying && a.turn < b.turn
}

func (l *line) Swap(i, j int) {
	l.accounts[i], l.accounts[j] = l.accounts[j], l.accounts[i]
	l.accounts[i].place, l.accounts[j].place = i, j
}

// Push and Pop are the heap's.
func (l *line) Push(a any) {
	added, _ := a.(*account)
	added.place = len(l.accounts)
	l.accounts = append(l.accounts, added)
}

func (l *line) Pop() any {
	last := len(l.accounts) - 1
	a := l.accounts[last]
	l.accounts[last] = nil
	l.accounts = l.accounts[:last]
	return a
}

// nextTurn gives an account the last turn.
func (l *line) nextTurn(a *account) {
	l.turns++
	a.turn = l.turns
}

// moved mends the line after an account's attempts under way have changed.
func (l *line) moved(a *account) {
	if a.inLine {
		heap.Fix(l, a.place)
	}
}

// add lets a webhook wait.
func (l *line) add(q *queue) {
	if !q.inLine {
		q.inLine = true
		q.account.waiting = append(q.account.waiting, q)
		l.settle(q.account)
	}
}

// settle lets an account stand in line while it waits for room.
func (l *line) settle(a *account) {
	switch waits := len(a.waiting) > 0 || len(a.ahead) > 0; {
	case waits && !a.inLine:
		a.inLine = true
		l.nextTurn(a)
		heap.Push(l, a)
	case !waits && a.inLine:
		a.inLine = false
		heap.Remove(l, a.place)
	}
}

// accountOf gives what an account has. It is kept for good: attempts may be
// under way of shards that were given up.
func (d *dispatcher) accountOf(id domain.AccountID) *account {
	a := d.accounts[id]
	if a == nil {
		a = &account{}
		d.accounts[id] = a
	}
	return a
}

// mayFly says whether an account may have one more attempt under way.
func (d *dispatcher) mayFly(a *account) bool {
	return a.flying < (headroom-1)*(d.most-d.flying)
}

// fly counts the attempts of a lane that began or ended.
func (d *dispatcher) fly(q *queue, lane, n int) {
	q.inFlight[lane] += n
	d.occupy(q.account, n)
}

// occupy counts room in flight that an account took or left.
func (d *dispatcher) occupy(a *account, n int) {
	d.flying += n
	a.flying += n
	d.line.moved(a)
}

// mayStart says whether an item may start beside all others, or ahead of its
// room. If not, its queue is looked at again when it may.
func (d *dispatcher) mayStart(q *queue, it *item, ahead bool) bool {
	switch {
	case !ahead && !d.mayFly(q.account):
		d.line.add(q)
		return false
	case !d.fits(q, it):
		d.starve(q)
		return false
	}
	return true
}

// serve gives the room that has become free to those that wait for it.
func (d *dispatcher) serve() {
	for d.line.Len() > 0 && d.mayFly(d.line.accounts[0]) {
		a := d.line.accounts[0]
		d.line.nextTurn(a)
		d.line.moved(a)
		if len(a.ahead) > 0 {
			d.launch(a)
		} else {
			q := a.take(0)
			d.startNext(q, false)
			d.line.settle(a)
			d.mark(q) // its lanes may want to be read
		}
	}
}

// startNext starts the next item of a webhook whose turn it was, in room or ahead
// of it, and says whether it did. The webhook waits on where it has more.
func (d *dispatcher) startNext(q *queue, ahead bool) bool {
	for l := range lanes {
		if q.room(l) && len(q.lanes[l].runnable) > 0 && !q.dropped && d.lets(q, l) && d.mayStart(q, q.lanes[l].runnable[0], ahead) {
			d.start(q, q.lanes[l].pop(), ahead)
			if q.wants() {
				d.line.add(q)
			}
			return true
		}
	}
	return false
}

// wants says whether a webhook has something that its own bounds let start.
func (q *queue) wants() bool {
	for l := range lanes {
		if q.room(l) && len(q.lanes[l].runnable) > 0 {
			return true
		}
	}
	return false
}

// keep counts a first delivery that came into memory, unkeep one that left it.
func (d *dispatcher) keep(q *queue, it *item) { d.weighFresh(q.account, 1, it.weight) }

func (d *dispatcher) unkeep(q *queue, it *item) { d.weighFresh(q.account, -1, -it.weight) }

func (d *dispatcher) weighFresh(a *account, n, bytes int) {
	before := a.fresh
	a.fresh += n
	a.bodies += bytes
	d.fresh += n
	d.bodies += bytes
	switch {
	case before == 0:
		d.keeping++
	case a.fresh == 0:
		d.keeping--
	}
}

// patienceWith is how long the first deliveries of a webhook may wait in memory:
// longer where there is little, where its account has less than its part of the
// quarter that is always room enough, or while it takes what it gets and there is
// room. Where there is no room in flight nothing starts any sooner for going to the
// due table, and what waits a little longer in memory is spared the way through it;
// but one account's flood then holds up others, for whom there may be room.
func (d *dispatcher) patienceWith(q *queue, now time.Time) time.Duration {
	a := q.account
	enough := d.fresh < plenty && d.bodies < plentyBodies || a.fresh*d.keeping < plenty && a.bodies*d.keeping < plentyBodies
	switch {
	case d.full() && (enough || !d.floods(a)):
		return 16 * patience
	case enough, d.roomy() && now.Sub(q.succeeded) < patience:
		return 8 * patience
	}
	return patience
}

// floods says whether an account has half as much again of the memory as each
// would have of equal parts, or is alone there.
func (d *dispatcher) floods(a *account) bool {
	return d.keeping == 1 || 2*a.fresh*d.keeping > 3*d.fresh || 2*a.bodies*d.keeping > 3*d.bodies
}
