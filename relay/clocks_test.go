package relay_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// stepping is a clock that is set forward and back. No reading of it is
// monotonic.
type stepping struct{ off atomic.Int64 }

func (s *stepping) now() time.Time { return time.Now().Round(0).Add(time.Duration(s.off.Load())) }

func (s *stepping) set(off time.Duration) { s.off.Store(int64(off)) }

// with starts a relay on it.
func (s *stepping) with(name string) func(*relay.Config) {
	return func(c *relay.Config) { c.Name, c.Now = name, s.now }
}

// chatThroughSteps lets events, failures, holds, a pause and a replay go through
// relays, while what is told of the time is set forward and back, and fails
// where something is lost, sent twice or out of order, or a lease was lost.
func (b *bench) chatThroughSteps(seed uint64, relays int, set func(off time.Duration)) {
	b.t.Helper()
	const rounds, conversations, each = 12, 6, 5
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same steps for a seed
	steps := []time.Duration{0, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour}
	fine, paused := b.webhook(1, "/fine", nil), b.webhook(1, "/paused", nil)
	b.webhook(1, "/strict", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	b.webhook(1, "/typing", func(s *domain.Settings) { s.Subscriptions = []string{"conversation_typing_on"} })
	var first atomic.Int64
	b.receiver.on("/strict", func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Outrider-Attempt") == "1" && first.Add(1)%4 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	before := b.deliveries()["succeeded"]
	registered := scan[int](b, `SELECT count(*) FROM relay.relays`)
	replay := 0
	for round := range rounds {
		switch round {
		case 2:
			b.command(paused, domain.PauseWebhook{})
		case 4:
			replay = scan[int](b, `
SELECT relay.request_replay(relay.plan_replay(webhook_id => $1, event_ids => (SELECT array_agg(e.event_id) FROM (
  SELECT event_id FROM audit.events WHERE event = 'message_created' AND routed_at IS NOT NULL ORDER BY seq LIMIT 60) e)))`, int64(fine.ID))
		case 7:
			b.command(paused, domain.EnableWebhook{})
		}
		b.chat(1, conversations, 1+round*each, each)
		b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'conversation_typing_on', '{"conversation": {"id": 1}}')`)
		set(steps[random.IntN(len(steps))])
		b.eventually("the events of the round before", func() (bool, string) {
			n := len(b.receiver.got("/fine"))
			return n >= round*conversations*each, fmt.Sprintf("%d POSTs in round %d", n, round)
		})
	}
	const events = rounds * conversations * each
	b.awaitReplay(replay, "finished 60 of 60: 60 succeeded, 0 dead")
	b.eventually("the end of all deliveries", func() (bool, string) {
		counts := b.deliveries()
		return counts["succeeded"]+counts["expired"] == before+3*events+60+rounds, fmt.Sprint(counts)
	})
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'expired' AND event <> 'conversation_typing_on'`); n != 0 {
		b.t.Errorf("%d deliveries expired, and are not of typing", n)
	}
	var fresh []post
	for _, p := range b.receiver.got("/fine") {
		if p.replay == "" {
			fresh = append(fresh, p)
		}
	}
	inOrder(b.t, fresh)
	inOrder(b.t, b.replayed("/fine", replay))
	inOrder(b.t, b.receiver.got("/paused"))
	b.inOrderWithRepeats(b.receiver.got("/strict"))
	b.postedAsRecorded()
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE outcome NOT IN ('succeeded', 'failed')`); n != 0 {
		b.t.Errorf("%d attempts are unknown: a lease was lost, or an attempt given up", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.relays`); n != registered || n != relays {
		b.t.Errorf("%d relays are registered, want the first %d", n, relays)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.relays WHERE fenced_at IS NOT NULL`); n != 0 {
		b.t.Errorf("%d relays lost their lease", n)
	}
}

// inOrderWithRepeats checks that each conversation's POSTs came in order, with
// repeats right behind what they repeat.
func (b *bench) inOrderWithRepeats(got []post) {
	b.t.Helper()
	var once []post
	last := map[string]string{} // by conversation, its last body
	for _, p := range got {
		var id int
		var conversation string
		if _, err := fmt.Sscanf(p.body, `{"id" : %d, "conversation" : %q`, &id, &conversation); err != nil {
			b.t.Fatalf("%s: %v", p.body, err)
		}
		if last[conversation] != p.body {
			once = append(once, p)
		}
		last[conversation] = p.body
	}
	inOrder(b.t, once)
}

// postedAsRecorded checks that each attempt on record was one POST, that a first
// one tells of none before, and a repeat of one that failed.
func (b *bench) postedAsRecorded() {
	b.t.Helper()
	seen := map[string]bool{}
	for _, p := range b.receiver.got("") {
		key := fmt.Sprintf("%s/%d", p.delivery, p.attempt)
		if seen[key] {
			b.t.Errorf("attempt %s was sent twice", key)
		}
		seen[key] = true
		if want := map[bool]string{true: "failed"}[p.attempt > 1]; p.previous != want {
			b.t.Errorf("attempt %s says %q of the one before", key, p.previous)
		}
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts`); n != len(seen) {
		b.t.Errorf("%d attempts are on record, and %d POSTs came", n, len(seen))
	}
}

// The clock that due times are told by is set by an hour and by a day, forward
// and back, again and again.
func TestStepsOfARelaysClock(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var clock stepping
			b.start(clock.with("a"))
			b.shares("a 64")
			b.chatThroughSteps(seed, 1, clock.set)
		})
	}
}

// databaseClock makes a database URL by which sessions see a clock that can be
// set: what a statement asks for by its name is looked up in a schema of the
// test's first, and what tells of relays has it by default.
func (b *bench) databaseClock() (dsn string, set func(off time.Duration)) {
	b.t.Helper()
	b.exec(`
CREATE SCHEMA clocks;
CREATE TABLE clocks.clock (ahead interval NOT NULL);
INSERT INTO clocks.clock VALUES ('0');
CREATE FUNCTION clocks.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.clock_timestamp() + (SELECT ahead FROM clocks.clock)';
CREATE FUNCTION clocks.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() + (SELECT ahead FROM clocks.clock)';
ALTER TABLE relay.heartbeats ALTER at SET DEFAULT clocks.clock_timestamp();
ALTER TABLE relay.relays ALTER started_at SET DEFAULT clocks.clock_timestamp();
ALTER TABLE relay.slots ALTER since SET DEFAULT clocks.clock_timestamp()`)
	u, err := url.Parse(b.dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", "clocks,pg_catalog")
	u.RawQuery = query.Encode()
	return u.String(), func(off time.Duration) {
		b.exec(`UPDATE clocks.clock SET ahead = make_interval(secs => $1)`, off.Seconds())
	}
}

// The database's clock is set while two relays share the work, as outrider serve
// runs them: both tell the time by it. While it is wrong but stands still, they
// agree on deadlines of seconds.
func TestStepsOfTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dsn, set := b.databaseClock()
	stepped := *b
	stepped.dsn = dsn
	var clocks []*postgres.Clock
	read := func() {
		for _, clock := range clocks {
			if err := clock.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	told := func(name string) func(*relay.Config) {
		return func(c *relay.Config) {
			clock := postgres.NewClock(c.DB)
			clocks = append(clocks, clock)
			read()
			c.Name, c.Now = name, clock.Now
		}
	}
	set(5 * time.Hour)
	stepped.start(told("a"))
	b.shares("a 64")
	stepped.start(told("b"))
	b.shares("a 32, b 32")
	if off := time.Until(clocks[0].Now()); off < 4*time.Hour || off > 6*time.Hour {
		t.Errorf("the relay's clock is %s ahead", off)
	}
	for p := range 8 {
		b.webhook(2, fmt.Sprintf("/typing%d", p), func(s *domain.Settings) { s.Subscriptions = []string{"conversation_typing_on"} })
	}
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (2, 'conversation_typing_on', '{"conversation": {"id": 1}}')`)
	b.awaitStatus("succeeded", 8)
	if n := scan[int](b, `SELECT count(DISTINCT relay_id) FROM audit.attempts`); n != 2 {
		t.Errorf("%d relays made the attempts, want 2", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE started_at BETWEEN pg_catalog.now() + interval '4 h' AND pg_catalog.now() + interval '6 h'`); n != 8 {
		t.Errorf("%d attempts are on record by the database's clock, want 8", n)
	}
	b.chatThroughSteps(3, 2, func(off time.Duration) { set(off); read() })
}

// Of relays whose clocks are five hours apart, each sends its share, none takes
// the other for dead, and what one leaves the other sends when it is due by its
// own clock: early or late by what they are apart, and no more.
func TestRelaysWhoseClocksAreHoursApart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const paths = 8
	var down atomic.Bool
	for p := range paths {
		path := fmt.Sprintf("/hook%d", p)
		b.webhook(1, path, nil)
		b.receiver.on(path, func(w http.ResponseWriter, _ *http.Request) {
			if down.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
	}
	inAnHour := func(c *relay.Config) {
		c.Policy = domain.RetryPolicy{Delays: []time.Duration{time.Hour, time.Hour}}
	}
	var ahead, behind stepping
	ahead.set(3 * time.Hour)
	behind.set(-2 * time.Hour)
	first := b.start(func(c *relay.Config) { ahead.with("ahead")(c); inAnHour(c) })
	b.shares("ahead 64")
	second := b.start(func(c *relay.Config) { behind.with("behind")(c); inAnHour(c) })
	b.shares("ahead 32, behind 32")
	b.publish(1, "x", 1, 20)
	b.exactly(paths, 20)

	down.Store(true)
	b.publish(1, "x", 21, 1)
	const failedBy = `SELECT count(*) FROM audit.attempts a JOIN relay.relays r USING (relay_id) WHERE a.outcome = 'failed' AND r.name LIKE $1`
	b.eventually("a failure of each", func() (bool, string) {
		n := scan[int](b, failedBy, "%")
		return n == paths, fmt.Sprint(n)
	})
	down.Store(false)
	itsOwn := scan[int](b, failedBy, "behind")
	if itsOwn == 0 || itsOwn == paths {
		t.Fatalf("%d of %d failed attempts are of one relay", itsOwn, paths)
	}
	first.stop()
	b.owns(second, relay.ShardCount)
	behind.set(-time.Hour + 5*time.Minute) // its own are due
	b.awaitStatus("succeeded", 20*paths+itsOwn)
	behind.set(4*time.Hour - 5*time.Minute) // by the other's clock it is an hour later, but for five minutes
	b.publish(1, "y", 22, 5)                // by when these are sent, what was due is sent
	b.awaitStatus("succeeded", 25*paths+itsOwn)
	if n := b.deliveries()["succeeded"]; n != 25*paths+itsOwn {
		t.Errorf("%d deliveries succeeded, want %d: retries came before they were due", n, 25*paths+itsOwn)
	}
	behind.set(4*time.Hour + 5*time.Minute)
	b.awaitStatus("succeeded", 26*paths)
	b.postedAsRecorded()
	if n := scan[int](b, `SELECT count(*) FROM relay.relays WHERE fenced_by IS NOT NULL`); n != 0 {
		t.Errorf("%d relays were taken for dead", n)
	}
}

// An attempt of a dead relay may still be under way until its timeout has passed,
// whatever a clock says that can be set.
func TestAStepEndsNoAttemptThatMayBeUnderWay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const timeout = 3 * time.Second
	b.webhook(1, "/hanging", func(s *domain.Settings) { s.Timeout, s.OrderHold = timeout, domain.HoldForever })
	var once atomic.Bool
	hung := make(chan struct{})
	b.receiver.on("/hanging", func(w http.ResponseWriter, req *http.Request) {
		if once.CompareAndSwap(false, true) {
			close(hung)
			<-req.Context().Done()
		}
		w.WriteHeader(http.StatusNoContent)
	})
	var leases *silenced
	var log *mute
	first := b.start(func(c *relay.Config) {
		leases, log = &silenced{Leases: c.Leases}, &mute{Log: c.Log, fenced: make(chan struct{}, 100)}
		c.Leases, c.Log = leases, log
	})
	b.owns(first, relay.ShardCount)
	b.publish(1, "c", 1, 2)
	<-hung
	leases.silent.Store(true)
	log.silent.Store(true)
	var clock stepping
	second := b.start(clock.with("second"))
	b.owns(second, relay.ShardCount)
	owned := time.Now()
	clock.set(24 * time.Hour)
	b.awaitStatus("succeeded", 2)
	posts := b.receiver.got("/hanging")
	if waited := posts[1].at.Sub(owned); waited < timeout {
		t.Errorf("the attempt was repeated after %s, and might have been under way for %s", waited, timeout)
	}
	if posts[1].previous != "unknown" || len(posts) != 3 {
		t.Errorf("POSTs: %+v", posts)
	}
	log.silent.Store(false)
	<-log.fenced
	leases.silent.Store(false)
}
