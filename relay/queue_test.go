package relay

import (
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func answer(status int) domain.Outcome {
	if status < 300 {
		return domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: status}
	}
	return domain.Outcome{Kind: domain.OutcomeFailed, StatusCode: status, Class: domain.ErrorStatus}
}

func TestAnOverloadedWebhookGetsLessAtOnce(t *testing.T) {
	t.Parallel()
	q := newQueue(domain.Webhook{Settings: domain.Settings{MaxConcurrency: 16}})
	room := func() int {
		q.inFlight = [lanes]int{}
		for q.room(freshLane) {
			q.inFlight[freshLane]++
		}
		return q.inFlight[freshLane]
	}
	if n := room(); n != 16 {
		t.Fatalf("%d at once at the beginning, want 16", n)
	}
	hanging := domain.Outcome{Kind: domain.OutcomeFailed, Class: domain.ErrorTimeout}
	for n := 8; n > 0; n /= 2 {
		q.pace(hanging)
		if got := room(); got != n {
			t.Errorf("%d at once to one that hangs, want %d", got, n)
		}
	}
	for range 1000 {
		q.pace(answer(200))
	}
	for _, step := range []struct{ status, times, want int }{
		{500, 3, 16}, {429, 1, 8}, {503, 1, 4}, {200, 4, 4}, {200, 1, 5}, {502, 5, 1}, {504, 1, 1}, {200, 1, 2}, {200, 1000, 16},
	} {
		for range step.times {
			q.pace(answer(step.status))
		}
		if n := room(); n != step.want {
			t.Errorf("after %d times %d: %d at once, want %d", step.times, step.status, n, step.want)
		}
	}
}

func TestA410IsConfirmedByALaterAttempt(t *testing.T) {
	t.Parallel()
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	type attempt struct {
		status, begun, ended int
		confirms             bool
	}
	for name, attempts := range map[string][]attempt{
		"once":              {{410, 1, 2, false}},
		"twice":             {{410, 1, 2, false}, {410, 3, 4, true}},
		"two at once":       {{410, 1, 3, false}, {410, 2, 4, false}, {410, 5, 6, true}},
		"another answer":    {{410, 1, 2, false}, {500, 3, 4, false}, {410, 5, 6, false}, {410, 7, 8, true}},
		"no answer between": {{410, 1, 2, false}, {0, 3, 4, false}, {410, 5, 6, true}},
	} {
		q := newQueue(domain.Webhook{})
		for i, a := range attempts {
			if got := q.confirmGone(answer(a.status), at(a.begun), at(a.ended)); got != a.confirms {
				t.Errorf("%s: attempt %d confirms: %t", name, i+1, got)
			}
		}
	}
}

// Which first deliveries wait is known without a look at all of them each time,
// whatever comes, starts or cannot go yet.
func TestWhoWaitsLongestIsKnown(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	q := newQueue(domain.Webhook{})
	came := func(order int64, second int, change func(*item)) *item {
		it := &item{order: order, batch: &progress{}, since: begin.Add(time.Duration(second) * time.Second)}
		it.Pos = int64(second)
		if change != nil {
			change(it)
		}
		q.add(it)
		return it
	}
	check := func(what string, second int, want bool) {
		t.Helper()
		if got := q.waitsSince(begin.Add(time.Duration(second) * time.Second)); got != want {
			t.Errorf("%s: one waits since before second %d: %t, want %t", what, second, got, want)
		}
	}
	check("none is there", 100, false)
	first := came(0, 10, nil)
	came(7, 11, nil)
	came(7, 12, nil)
	check("three came", 10, false)
	check("three came", 11, true)
	q.lanes[freshLane].pop()
	q.take(first)
	check("the first has started", 11, false)
	check("the first has started", 12, true)
	came(0, 3, func(it *item) { it.batch = nil })
	came(0, 2, func(it *item) { it.Key.ReplayID = 1 })
	check("a repeat and a replay wait longer", 11, false)
	reading := came(0, 5, func(it *item) { it.fetching = true })
	check("the body of one is being read", 11, false)
	reading.fetching = false
	check("its body is read", 6, true)
	check("its body is read", 5, false)
}
