package relay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// field is a dispatcher whose attempts end when a test says so.
type field struct {
	*dispatcher
	t      *testing.T
	clock  time.Time
	seq    int64
	feed   *feed
	aloft  []*item // of POSTs under way
	starts map[domain.WebhookID]int
	// recording are steps on their way to the log; slow leaves them there.
	recording []*step
	slow      bool
}

func newField(t *testing.T, most int) *field {
	t.Helper()
	f := &field{
		dispatcher: newTestDispatcher(nothingWaits{}, nil), t: t, clock: time.Unix(1_000_000_000, 0),
		feed: &feed{shards: AllShards}, starts: map[domain.WebhookID]int{},
	}
	f.most = most
	f.now = func() time.Time { return f.clock }
	f.send = func(it *item, _ *Request) {
		f.aloft = append(f.aloft, it)
		f.starts[it.Key.WebhookID]++
	}
	return f
}

// hook registers a webhook.
func (f *field) hook(account domain.AccountID, id domain.WebhookID, concurrency int) {
	f.configure(domain.Webhook{
		ID: id, AccountID: account, Version: 1, State: domain.WebhookEnabled,
		Settings: domain.Settings{MaxConcurrency: concurrency, Timeout: time.Minute},
	})
}

// deliver lets n deliveries to a webhook come from the tail, with bodies that
// count as so large.
func (f *field) deliver(id domain.WebhookID, n, size int) {
	f.t.Helper()
	found := make([]Delivery, n)
	for i := range found {
		f.seq++
		found[i] = Delivery{
			Key: domain.DeliveryKey{EventSeq: f.seq, WebhookID: id}, AccountID: f.queues[id].hook.AccountID, Pos: f.seq,
			State: domain.Evolve(domain.Delivery{}, domain.Scheduled{At: f.clock, Deadline: f.clock.Add(time.Hour), WebhookVersion: 1}),
			Body:  []byte("{}"), Size: size,
		}
	}
	f.accept(f.feed, f.seq, found)
}

// round starts what may start.
func (f *field) round() {
	f.serve()
	for len(f.marked) > 0 {
		q := f.marked[0]
		f.marked = f.marked[1:]
		q.marked = false
		f.pump(q)
	}
	f.recording = append(f.recording, f.out...)
	f.out = nil
	if !f.slow {
		f.record(len(f.recording))
	}
}

// record puts the first n of what is on its way to the log on record.
func (f *field) record(n int) {
	for _, s := range f.recording[:n] {
		if s.kind == stepStart {
			f.onRecorded(s)
		}
	}
	f.recording = f.recording[n:]
}

// land ends an attempt under way.
func (f *field) land(i int) {
	it := f.aloft[i]
	f.aloft = slices.Delete(f.aloft, i, i+1)
	f.onOutcome(outcome{it, it.State.Attempts, answer(204)})
	delete(f.open, it.Key)
}

func (f *field) flyingOf(account domain.AccountID) int { return f.accountOf(account).flying }

// check fails where a count is wrong, and where something waits although it may
// start: nobody would look at it again.
func (f *field) check() {
	f.t.Helper()
	flying, bytes, starting := map[*account]int{}, map[*account]int{}, 0
	for _, q := range f.queues {
		flying[q.account] += q.inFlight[freshLane] + q.inFlight[replayLane]
		bytes[q.account] += q.aloft
		if q.wants() && f.mayFly(q.account) && f.fits(q, q.lanes[freshLane].runnable[0]) {
			f.t.Fatalf("webhook %d waits, and may start", q.hook.ID)
		}
	}
	for _, s := range f.recording {
		if s.kind == stepStart && !s.ahead && !s.withdrawn {
			starting++
		}
	}
	all, heavy, fresh, bodies, keeping, ahead, recorded := 0, 0, 0, 0, 0, 0, 0
	for id, a := range f.accounts {
		if a.flying+len(a.ahead) != flying[a] || a.aloft != bytes[a] {
			f.t.Fatalf("account %d has %d attempts and %d bytes under way, and counts %d, %d begun ahead and %d", id, flying[a], bytes[a], a.flying, len(a.ahead), a.aloft)
		}
		if len(a.ahead) > 0 && f.mayFly(a) {
			f.t.Fatalf("account %d has room for what it has begun ahead", id)
		}
		ahead += len(a.ahead)
		for _, s := range a.ahead {
			if s.recorded {
				recorded++
			}
		}
		all, heavy, fresh, bodies = all+a.flying, heavy+a.aloft, fresh+a.fresh, bodies+a.bodies
		if a.fresh > 0 {
			keeping++
		}
	}
	if all != f.flying || all != len(f.aloft)+starting || all > f.most || heavy != f.dispatcher.aloft {
		f.t.Fatalf("%d attempts of %d bytes are under way of %d that may be, %d and %d are counted", len(f.aloft)+starting, heavy, f.most, f.flying, f.dispatcher.aloft)
	}
	if ahead != f.ahead.attempts || recorded != f.ahead.recorded || ahead > f.most {
		f.t.Fatalf("%d attempts are begun ahead, %d of them are on record, counted are %d and %d", ahead, recorded, f.ahead.attempts, f.ahead.recorded)
	}
	if fresh != f.fresh || bodies != f.bodies || keeping != f.keeping {
		f.t.Fatalf("%d accounts have %d first deliveries of %d bytes in memory, counted are %d, %d and %d", keeping, fresh, bodies, f.keeping, f.fresh, f.bodies)
	}
}

// TestNothingWaitsThatMayStart: whatever comes and lands in whatever order, and
// in the end all has been sent.
func TestNothingWaitsThatMayStart(t *testing.T) {
	t.Parallel()
	ahead, withdrawals := 0, 0
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
		f := newField(t, 1+random.IntN(40))
		hooks := 1 + random.IntN(24)
		accounts := 1 + random.IntN(6)
		for id := range hooks {
			f.hook(domain.AccountID(1+id%accounts), domain.WebhookID(id+1), 1+random.IntN(8))
		}
		f.slow = seed%2 == 0
		delivered, withdrawn := 0, 0
		for range 120 {
			f.clock = f.clock.Add(time.Duration(random.IntN(40)) * time.Millisecond)
			switch random.IntN(6) {
			case 0, 1:
				n, size := 1+random.IntN(10), 2
				if random.IntN(4) == 0 {
					size = random.IntN(maxAloft / 3)
				}
				f.deliver(domain.WebhookID(1+random.IntN(hooks)), n, size)
				delivered += n
			case 2:
				f.record(random.IntN(len(f.recording) + 1))
			case 3:
				if random.IntN(8) == 0 {
					before := f.ahead.attempts
					f.abandon(Shards(random.Uint64()))
					withdrawn += before - f.ahead.attempts
				}
			default:
				for range random.IntN(len(f.aloft) + 1) {
					f.land(random.IntN(len(f.aloft)))
				}
			}
			f.round()
			f.check()
			ahead += f.ahead.attempts
		}
		f.slow = false
		for f.round(); len(f.aloft) > 0; f.round() {
			f.check()
			f.land(random.IntN(len(f.aloft)))
		}
		f.check()
		withdrawals += withdrawn
		started := withdrawn
		for _, n := range f.starts {
			started += n
		}
		if started != delivered || f.dispatcher.aloft != 0 || f.fresh != 0 || f.line.Len() != 0 || len(f.starved) != 0 {
			t.Fatalf("seed %d: %d of %d deliveries were started, %d wait, %d accounts are in line", seed, started, delivered, f.fresh, f.line.Len())
		}
	}
	if ahead == 0 || withdrawals == 0 {
		t.Errorf("%d attempts were begun ahead, %d withdrawn", ahead, withdrawals)
	}
}

// TestAnAccountThatHangsLeavesRoom: it takes what it may, and who comes then
// starts without waiting for one of its attempts to end.
func TestAnAccountThatHangsLeavesRoom(t *testing.T) {
	t.Parallel()
	f := newField(t, DefaultInFlight)
	const hanging, small = 256, 100
	for id := range domain.WebhookID(hanging) {
		f.hook(1, id+1, domain.DefaultMaxConcurrency)
		f.deliver(id+1, domain.DefaultMaxConcurrency, 2)
	}
	f.round()
	f.check()
	const share = DefaultInFlight - DefaultInFlight/headroom
	if n := f.flyingOf(1); n != share {
		t.Fatalf("it has %d attempts under way, want %d", n, share)
	}
	for n := range small {
		id, account := domain.WebhookID(1000+n), domain.AccountID(2+n)
		f.hook(account, id, domain.DefaultMaxConcurrency)
		f.deliver(id, 2, 2)
		f.round()
		if got := f.flyingOf(account); got != 2 {
			t.Fatalf("of account %d, %d attempts are under way beside it, want 2", account, got)
		}
	}
	f.check()
	if n := f.flyingOf(1); n != share {
		t.Errorf("it has %d attempts under way when others came", n)
	}
}

// TestTheRoomIsSharedByAccountsAndNotByWebhooks, however many these are and
// however long they take: accounts that want more have equally much, and one that
// wants less has all of it.
func TestTheRoomIsSharedByAccountsAndNotByWebhooks(t *testing.T) {
	t.Parallel()
	const most = 512
	type party struct {
		hooks, concurrency int
		takes              time.Duration
		want               int
	}
	slow, quick := time.Second, 100*time.Millisecond
	for name, parties := range map[string][]party{
		"one alone":             {{200, 16, slow, 448}},
		"many webhooks and few": {{200, 16, slow, 239}, {2, 256, slow, 239}},
		"slow and quick":        {{200, 16, slow, 239}, {200, 16, quick, 239}},
		"one that wants less":   {{200, 16, slow, 434}, {1, 16, quick, 16}},
		"five, and one less":    {{200, 16, slow, 96}, {9, 100, slow, 96}, {50, 16, quick, 96}, {20, 16, quick, 96}, {30, 16, slow, 96}, {1, 10, slow, 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const seed = 1
			random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
			f := newField(t, most)
			ends := map[*item]time.Time{}
			fill := func(id domain.WebhookID) { // more than it may have under way
				q := f.queues[id]
				if n := q.hook.Settings.MaxConcurrency - q.lanes[freshLane].size; n > 0 {
					f.deliver(id, n, 2)
				}
			}
			takes := map[domain.AccountID]time.Duration{}
			for i, p := range parties {
				account := domain.AccountID(i + 1)
				takes[account] = p.takes
				for n := range p.hooks {
					id := domain.WebhookID(1000*(i+1) + n)
					f.hook(account, id, p.concurrency)
					fill(id)
				}
			}
			begun := f.clock
			for f.clock.Sub(begun) < 6*slow {
				f.round()
				for _, it := range f.aloft {
					if ends[it].IsZero() { // from half as long to half as long again
						ends[it] = f.clock.Add(time.Duration((0.5 + random.Float64()) * float64(takes[it.AccountID])))
					}
				}
				next := 0
				for i, it := range f.aloft {
					if ends[it].Before(ends[f.aloft[next]]) {
						next = i
					}
				}
				it := f.aloft[next]
				f.clock = ends[it]
				delete(ends, it)
				f.land(next)
				fill(it.Key.WebhookID)
			}
			f.round()
			f.check()
			for i, p := range parties {
				if n := f.flyingOf(domain.AccountID(i + 1)); n < p.want-headroom || n > p.want+headroom {
					t.Errorf("account %d has %d attempts under way, want %d", i+1, n, p.want)
				}
			}
			// Its webhooks take turns.
			least, most := 1<<30, 0
			for n := range parties[0].hooks {
				started := f.starts[domain.WebhookID(1000+n)]
				least, most = min(least, started), max(most, started)
			}
			if least == 0 || most > least+parties[0].concurrency {
				t.Errorf("one of its webhooks began %d attempts, another one %d", most, least)
			}
		})
	}
}

// TestOfEqualAccountsTheOneThatWaitedLongestIsNext: room that becomes free bit by
// bit goes round.
func TestOfEqualAccountsTheOneThatWaitedLongestIsNext(t *testing.T) {
	t.Parallel()
	f := newField(t, 1)
	const accounts, each = 4, 3
	f.hook(100, 100, 1)
	f.deliver(100, 1, 2)
	f.round()
	for id := range domain.WebhookID(accounts) {
		f.hook(domain.AccountID(id+1), id+1, 16)
		f.deliver(id+1, each, 2)
		f.round()
	}
	var turns []domain.WebhookID
	for range accounts * each {
		f.land(0)
		f.round()
		turns = append(turns, f.aloft[0].Key.WebhookID)
	}
	if want := []domain.WebhookID{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}; !slices.Equal(turns, want) {
		t.Errorf("the webhooks had their turns as %v", turns)
	}
}

// TestAFloodMakesOnlyItsOwnAccountOverflow: memory is full with what has come
// first, and the tail goes on.
func TestAFloodMakesOnlyItsOwnAccountOverflow(t *testing.T) {
	t.Parallel()
	f := newField(t, 256)
	const flooding, each, small = 200, maxFresh / 160, 20
	for id := range domain.WebhookID(flooding) {
		f.hook(1, id+1, 16)
		f.deliver(id+1, each, 2)
	}
	for n := range small {
		id := domain.WebhookID(1000 + n)
		f.hook(domain.AccountID(n+2), id, 1) // each has one that waits for the webhook's own
		f.deliver(id, 2, 2)
	}
	f.round()
	if f.roomy() {
		t.Fatalf("memory has room with %d first deliveries", f.fresh)
	}
	f.clock = f.clock.Add(patience + time.Millisecond)
	f.shed()
	f.round()
	f.check()
	if !f.roomy() {
		t.Errorf("the tail still waits, with %d first deliveries in memory", f.fresh)
	}
	for id, q := range f.queues {
		if q.lanes[freshLane].overflow && q.hook.AccountID != 1 {
			t.Errorf("webhook %d of another account overflows", id)
		}
	}
	for n := range small {
		if got := f.accountOf(domain.AccountID(n + 2)).fresh; got != 1 {
			t.Errorf("account %d has %d deliveries left in memory, want 1", n+2, got)
		}
	}
}

// TestTheTailWaitsShortlyWherePlentyIsToBeSent: whatever is sent meanwhile, for
// what comes next may be for others.
func TestTheTailWaitsShortlyWherePlentyIsToBeSent(t *testing.T) {
	t.Parallel()
	f := newField(t, 16)
	for id := range domain.WebhookID(3) {
		f.hook(1, id+1, 16)
	}
	for _, step := range []struct {
		what   string
		n      int // deliveries to each webhook
		passes time.Duration
		sated  bool
	}{
		{"nothing waits", 0, 0, false},
		{"less than plenty waits", (plenty - 1) / 3, 0, false},
		{"plenty waits", 1, 0, true},
		{"plenty has waited", 0, composure - time.Millisecond, true},
		{"plenty has waited for longer", 0, time.Millisecond, false},
	} {
		for id := range domain.WebhookID(3) {
			f.deliver(id+1, step.n, 2)
		}
		f.clock = f.clock.Add(step.passes)
		if got := f.isSated(); got != step.sated {
			t.Errorf("%s: the tail is to wait: %t, with %d first deliveries in memory", step.what, got, f.fresh)
		}
	}

	g := newField(t, 16)
	g.hook(1, 1, 1)
	few := g.accountOf(1)
	for _, step := range []struct {
		bytes  int
		passes time.Duration
		sated  bool
	}{
		{plentyBodies, 0, true},
		{-1, 0, false},
		{1, composure, true}, // which is counted from here on
		{0, composure, false},
	} {
		g.clock = g.clock.Add(step.passes)
		g.weighFresh(few, 0, step.bytes)
		if got := g.isSated(); got != step.sated {
			t.Errorf("the tail is to wait: %t, with %d bytes in memory", got, g.bodies)
		}
	}
}

// TestManyThatHaveLittleEachHoldTheTailUpForABoundedTime: a longer one where the
// relay itself has no room, since no account is to blame.
func TestManyThatHaveLittleEachHoldTheTailUpForABoundedTime(t *testing.T) {
	t.Parallel()
	const accounts, each = maxFresh / 10, 12
	for most, wait := range map[int]time.Duration{2 * accounts: patience, accounts: 16 * patience} {
		f := newField(t, most)
		for id := range domain.WebhookID(accounts) {
			f.hook(domain.AccountID(id+1), id+1, 1)
			f.deliver(id+1, each, 2)
		}
		f.round()
		f.clock = f.clock.Add(wait - time.Millisecond)
		f.shed()
		if f.roomy() {
			t.Errorf("of %d attempts %d are under way, and deliveries overflow before %s", most, f.flying, wait)
		}
		f.clock = f.clock.Add(2 * time.Millisecond)
		f.shed()
		if !f.roomy() {
			t.Errorf("of %d attempts %d are under way, and the tail waits for %d accounts after %s", most, f.flying, f.keeping, wait)
		}
	}
}
