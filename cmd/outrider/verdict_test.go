package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// verdict is what was counted, in the order in which it was.
type verdict []counted

type counted struct {
	what string
	n    int
}

func (v *verdict) count(what string, n int) {
	if i := slices.IndexFunc(*v, func(c counted) bool { return c.what == what }); i >= 0 {
		(*v)[i].n += n
		return
	}
	*v = append(*v, counted{what, n})
}

func (v *verdict) add(other verdict) {
	for _, c := range other {
		v.count(c.what, c.n)
	}
}

func (v *verdict) String() string {
	var b strings.Builder
	for _, c := range *v {
		fmt.Fprintf(&b, "%-48s %8d\n", c.what, c.n)
	}
	return b.String()
}

// verdict compares what producers inserted, what is on record, and what arrived.
func (c *trial) verdict() verdict {
	t := c.t
	attempts, posts := c.attempts(), c.arrived()
	var found verdict
	row := func(what string, n int, expected bool) {
		found.count(what, n)
		if !expected {
			t.Errorf("%s: %d", what, n)
		}
	}

	// P1, P8: each event that was committed has one decision that routed it.
	events, lost := 0, 0
	routed := map[uuid.UUID]int{}
	rows, err := c.db.SQL.QueryContext(t.Context(), `SELECT event_id, count(*) FILTER (WHERE routing = 'routed') FROM audit.events GROUP BY event_id`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id uuid.UUID
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		routed[id] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	c.produced.Range(func(key, _ any) bool {
		events++
		if id, ok := key.(uuid.UUID); !ok || routed[id] != 1 {
			lost++
		}
		return true
	})
	row("events", events, events > 0)
	row("events lost, or routed twice", lost, lost == 0)
	deliveries := query[int](t, c.db.SQL, `SELECT count(*) FROM audit.deliveries`)
	row("deliveries", deliveries, deliveries >= events*c.hooks)
	unfinished := query[int](t, c.db.SQL, `SELECT count(*) FROM audit.deliveries WHERE status <> 'succeeded'`)
	row("deliveries without success", unfinished, unfinished == 0)
	row("attempts", len(attempts), len(attempts) >= deliveries)

	// P2, P3: each POST is on record, once, and each repeat has a cause.
	unrecorded, twice, unexplained, wrongly := 0, 0, 0, 0
	causes := map[string]int{}
	came := map[string]bool{}
	bodies := map[string]string{}
	for _, p := range posts {
		key := p.delivery + "/" + p.attempt
		if _, known := attempts[key]; !known {
			unrecorded++
		}
		if came[key] {
			twice++
		}
		came[key] = true
		if body, known := bodies[p.delivery]; known && body != p.body {
			t.Errorf("delivery %s came with another body: %s, before %s", p.delivery, p.body, body)
		}
		bodies[p.delivery] = p.body
		n, err := strconv.Atoi(p.attempt)
		if err != nil {
			t.Fatalf("attempt %q", p.attempt)
		}
		if n == 1 {
			continue
		}
		switch before := attempts[p.delivery+"/"+strconv.Itoa(n-1)]; {
		case before.outcome != "failed" && before.outcome != "unknown":
			unexplained++
			t.Logf("delivery %s, attempt %d came although the one before %s", p.delivery, n, before.outcome)
		case p.previous != before.outcome:
			wrongly++
		case before.outcome == "unknown":
			causes["unknown: its relay was lost"]++
		default:
			causes["failed: "+before.class]++
		}
	}
	row("POSTs", len(posts), len(posts) > 0)
	row("POSTs that are not on record", unrecorded, unrecorded == 0)
	row("attempts that came twice", twice, twice == 0)
	for _, cause := range slices.Sorted(maps.Keys(causes)) {
		row("repeats, "+cause, causes[cause], true)
	}
	row("repeats without a cause", unexplained, unexplained == 0)
	row("repeats that tell another outcome", wrongly, wrongly == 0)

	// P4: of a conversation the next delivery comes once the one before is
	// finished. What came late from a relay that was lost is known by its unknown
	// attempt.
	late, disorder := c.disorder(posts, attempts)
	row("out of order, beside a lost relay", late, true)
	row("out of order", disorder, disorder == 0)

	// P7: nothing was changed afterwards.
	flaws := query[int](t, c.db.SQL, `SELECT count(*) FROM audit.verify()`)
	row("flaws of the seals", flaws, flaws == 0)

	faults := 0
	for _, name := range slices.Sorted(maps.Keys(c.faults)) {
		row("faults, "+name, c.faults[name], true)
		faults += c.faults[name]
	}
	row("faults", faults, faults > 0)
	fenced := query[int](t, c.db.SQL, `SELECT count(*) FROM relay.relays WHERE fenced_by IS NOT NULL`)
	row("relays taken over from", fenced, true)
	t.Logf("the verdict:\n%s", &found)
	return found
}

// disorder counts deliveries that came before an earlier one of their
// conversation had come for the last time.
func (c *trial) disorder(posts []chaosPost, attempts map[string]trialAttempt) (late, disorder int) {
	type place struct {
		path         string
		conversation int
	}
	type span struct {
		n           int
		delivery    string
		first, last time.Time
	}
	found := map[place]map[int]*span{}
	for _, p := range posts {
		var payload struct{ Conversation, N int }
		if err := json.Unmarshal([]byte(p.body), &payload); err != nil {
			c.t.Fatalf("body %s: %v", p.body, err)
		}
		at := place{p.path, payload.Conversation}
		if found[at] == nil {
			found[at] = map[int]*span{}
		}
		s := found[at][payload.N]
		if s == nil {
			s = &span{payload.N, p.delivery, p.at, p.at}
			found[at][payload.N] = s
		}
		s.last = p.at
	}
	for at, spans := range found {
		order := slices.SortedFunc(maps.Values(spans), func(a, b *span) int { return a.n - b.n })
		for i := 1; i < len(order); i++ {
			before, s := order[i-1], order[i]
			if !s.first.Before(before.last) {
				continue
			}
			if c.unknown(before.delivery, attempts) {
				late++
				continue
			}
			disorder++
			c.t.Logf("%s, conversation %d: %d came at %s, before the last POST of %d at %s:\n%s\n%s", at.path, at.conversation, s.n, s.first.Format(time.StampMicro), before.n, before.last.Format(time.StampMicro),
				c.stream(before.delivery), c.stream(s.delivery))
		}
	}
	return late, disorder
}

// unknown says whether an attempt of a delivery was lost with its relay.
func (c *trial) unknown(delivery string, attempts map[string]trialAttempt) bool {
	for n := 1; ; n++ {
		a, known := attempts[delivery+"/"+strconv.Itoa(n)]
		if !known {
			return false
		}
		if a.outcome == "unknown" {
			return true
		}
	}
}

// stream tells the life of a delivery.
func (c *trial) stream(delivery string) string {
	return query[string](c.t, c.db.SQL, `
SELECT 'event ' || min(l.event_seq) || ': ' || string_agg(l.type || ' at ' || to_char(l.at AT TIME ZONE 'UTC', 'HH24:MI:SS.US') || ' by ' || l.writer, ', ' ORDER BY l.version)
  FROM relay.log d JOIN relay.log l USING (event_seq, webhook_id, replay_id) WHERE d.delivery_id = $1::uuid`, delivery)
}
