package relay_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// awaitReplay waits until audit.replays says that of a replay.
func (b *bench) awaitReplay(id int, want string) {
	b.t.Helper()
	b.eventually("replay "+fmt.Sprint(id)+", "+want, func() (bool, string) {
		is := scan[string](b, `SELECT format('%s %s of %s: %s succeeded, %s dead', state, done, total, succeeded, dead) FROM audit.replays WHERE replay_id = $1`, id)
		return is == want, is
	})
}

// story is a replay's life as it is on record.
func (b *bench) story(id int) string {
	b.t.Helper()
	return scan[string](b, `SELECT string_agg(type, ' ' ORDER BY version) FROM audit.timeline WHERE stream = 'replay' AND stream_id = $1::text`, fmt.Sprint(id))
}

// replayed gives the POSTs of a replay to a path.
func (b *bench) replayed(path string, id int) (got []post) {
	for _, p := range b.receiver.got(path) {
		if p.replay == fmt.Sprint(id) {
			got = append(got, p)
		}
	}
	return got
}

// gate holds the POSTs of replays up until it is opened, and counts those that
// it holds.
type gate struct {
	mu   sync.Mutex
	held int
	shut chan struct{}
}

func (b *bench) gate(path string) *gate {
	g := &gate{shut: make(chan struct{})}
	b.t.Cleanup(g.open)
	b.receiver.on(path, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Outrider-Replay") != "" {
			g.count(1)
			select {
			case <-g.shut:
			case <-req.Context().Done():
			}
			g.count(-1)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return g
}

func (g *gate) count(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held += n
	return g.held
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.shut:
	default:
		close(g.shut)
	}
}

// chat inserts events of conversations that take turns, numbered from first.
func (b *bench) chat(account domain.AccountID, conversations, first, n int) {
	b.t.Helper()
	b.exec(`INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT $1, 'message_created', json_build_object('id', i, 'conversation', 'c' || c), 'c' || c
  FROM generate_series($3::int, $4::int) i, generate_series(1, $2::int) c ORDER BY i, c`, int64(account), conversations, first, first+n-1)
}

// slow is a webhook whose receiver may take long.
func slow(s *domain.Settings) { s.Timeout = 30 * time.Second }

func TestAReplaySendsTheSameNotificationsAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", nil)
	b.webhook(1, "/other", nil)
	b.start(nil)
	from := scan[time.Time](b, `SELECT clock_timestamp()`)
	b.chat(1, 10, 1, 30)
	b.awaitStatus("succeeded", 600)
	until := scan[time.Time](b, `SELECT clock_timestamp()`)
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(account_id => 1, since => $1, until => $2, webhook_id => $3))`, from, until, int64(hook.ID))
	b.awaitReplay(replay, "finished 300 of 300: 300 succeeded, 0 dead")
	original := map[string]string{}
	for _, p := range b.receiver.got("/hook") {
		if p.replay == "" {
			original[p.webhookID] = p.body
		}
	}
	again := b.replayed("/hook", replay)
	for _, p := range again {
		if original[p.webhookID] != p.body {
			t.Fatalf("a replayed POST differs: %+v", p)
		}
	}
	if len(again) != 300 || len(b.receiver.got("/other")) != 300 {
		t.Errorf("%d POSTs were replayed, and /other saw %d", len(again), len(b.receiver.got("/other")))
	}
	if is := b.story(replay); is != "planned requested started finished" {
		t.Errorf("on record is: %s", is)
	}
	// By ids, to all its webhooks.
	id := scan[string](b, `SELECT event_id::text FROM audit.events ORDER BY seq LIMIT 1`)
	replay = scan[int](b, `SELECT relay.request_replay(relay.plan_replay(event_ids => ARRAY[$1::uuid]))`, id)
	b.awaitReplay(replay, "finished 2 of 2: 2 succeeded, 0 dead")
}

// TestAPlanHasWhatWasSelected: by each condition, and whatever comes later.
func TestAPlanHasWhatWasSelected(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good, bad, off := b.webhook(1, "/good", nil), b.webhook(1, "/bad", nil), b.webhook(1, "/off", nil)
	b.webhook(2, "/elsewhere", nil)
	b.command(off, domain.DisableWebhook{})
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	b.start(nil)
	before := scan[time.Time](b, `SELECT clock_timestamp()`)
	b.publish(1, "c1", 1, 3)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload, ordering_key) VALUES (1, 'conversation_created', '{"id": 4}', 'c2')`)
	b.publish(2, "c1", 1, 2)
	b.awaitStatus("succeeded", 6)
	b.awaitStatus("dead", 4)

	plan := func(args string, values ...any) int {
		t.Helper()
		return scan[int](b, `SELECT relay.plan_replay(since => now() - interval '1 h', `+args+`)`, values...)
	}
	total := func(id int) int { return scan[int](b, `SELECT total FROM relay.replays WHERE replay_id = $1`, id) }
	for args, want := range map[string]int{
		"account_id => 1":                                               8,
		"account_id => NULL":                                            10,
		"webhook_id => 1":                                               4,
		"webhook_id => 3":                                               4, // disabled, but named
		"events => '{conversation_created}'":                            2,
		"events => '{conversation_created,x}'":                          2,
		"ordering_key => 'c1', account_id => 1":                         6,
		"statuses => '{dead}'":                                          4,
		"statuses => '{succeeded}'":                                     6,
		"statuses => '{dead,succeeded}'":                                10,
		"statuses => '{undelivered}'":                                   4,
		"statuses => '{passed_over}', webhook_id => 3":                  4,
		"statuses => '{undelivered}', webhook_id => 3, account_id => 1": 4,
		"account_id => 1, webhook_id => 1, ordering_key => 'c2', events => '{conversation_created}', statuses => '{succeeded}'": 1,
	} {
		if n := total(plan(args)); n != want {
			t.Errorf("a plan with %s has %d deliveries, want %d", args, n, want)
		}
	}
	ids := scan[string](b, `SELECT array_agg(event_id)::text FROM audit.events WHERE account_id = 1 AND ordering_key = 'c1'`)
	if n := total(scan[int](b, `SELECT relay.plan_replay(event_ids => $1::uuid[], webhook_id => $2)`, ids, int64(good.ID))); n != 3 {
		t.Errorf("a plan by ids has %d deliveries, want 3", n)
	}
	all := plan("account_id => 1")
	if is := scan[string](b, `SELECT string_agg(format('%s %s %s', webhook_id, deliveries, coalesce(passed_over, 'planned')), ', ' ORDER BY webhook_id) FROM relay.replay_webhooks WHERE replay_id = $1`, all); is != "1 4 planned, 2 4 planned, 3 4 disabled" {
		t.Errorf("the plan is %s", is)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.log WHERE replay_id > 0`); n != 0 || b.story(all) != "planned" {
		t.Errorf("plans made %d entries of the log; one is on record as %s", n, b.story(all))
	}

	// What comes later changes no plan.
	dead := plan("statuses => '{dead}'")
	b.receiver.on("/bad", nil)
	b.publish(1, "c1", 10, 5)
	b.awaitStatus("succeeded", 16)
	b.exec(`SELECT relay.request_replay($1)`, dead)
	b.awaitReplay(dead, "finished 4 of 4: 4 succeeded, 0 dead")
	for i, p := range b.replayed("/bad", dead) {
		if want := []string{`"id" : 1,`, `"id" : 2,`, `"id" : 3,`, `"id": 4`}; !slices.ContainsFunc(want, func(w string) bool { return strings.Contains(p.body, w) }) {
			t.Errorf("POST %d of the plan is %s", i, p.body)
		}
	}
	// The latest delivery counts.
	if _, err := b.db.ExecContext(t.Context(), `SELECT relay.plan_replay(since => $1, until => now(), statuses => '{dead}')`, before); err == nil || !strings.Contains(err.Error(), "no delivery is selected") {
		t.Errorf("a second plan of what was dead: %v", err)
	}
	_ = bad
}

// TestAPlanToOtherWebhooks: each event comes once to the one webhook, in the
// order of its conversation.
func TestAPlanToAnotherWebhook(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/a", nil)
	gone := b.webhook(1, "/b", nil)
	b.start(nil)
	b.chat(1, 5, 1, 40)
	b.awaitStatus("succeeded", 400)
	target := b.webhook(1, "/new", nil)
	plan := scan[int](b, `SELECT relay.plan_replay(account_id => 1, since => now() - interval '1 h')`)
	b.command(gone, domain.DeleteWebhook{}) // its deliveries are in the plan, and go elsewhere
	b.exec(`SELECT relay.request_replay($1, to_webhook_id => $2)`, plan, int64(target.ID))
	b.awaitReplay(plan, "finished 200 of 200: 200 succeeded, 0 dead")
	got := b.replayed("/new", plan)
	if len(got) != 200 || len(b.replayed("/a", plan)) != 0 || len(b.replayed("/b", plan)) != 0 {
		t.Errorf("%d POSTs went to the webhook, want 200 and none elsewhere", len(got))
	}
	inOrder(t, got)
}

// inOrder checks that each conversation's POSTs came in order, each once.
func inOrder(t *testing.T, got []post) {
	t.Helper()
	last := map[string]int{}
	for _, p := range got {
		var id int
		var conversation string
		if _, err := fmt.Sscanf(p.body, `{"id" : %d, "conversation" : %q`, &id, &conversation); err != nil {
			t.Fatalf("%s: %v", p.body, err)
		}
		if id != last[conversation]+1 {
			t.Errorf("conversation %s: %d came after %d", conversation, id, last[conversation])
		}
		last[conversation] = id
	}
}

// TestAReplayHoldsNothingFresh: while its POSTs hang, those of fresh events of
// the same webhook and conversations come, and a quarter of the webhook's
// concurrency is all that it takes.
func TestAReplayHoldsNothingFresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", slow)
	b.start(nil)
	b.chat(1, 20, 1, 50)
	b.awaitStatus("succeeded", 1000)
	g := b.gate("/hook")
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`)
	b.eventually("the replay under way", func() (bool, string) { n := g.count(0); return n == 4, fmt.Sprintf("%d under way", n) })
	b.chat(1, 20, 51, 50)
	b.eventually("the fresh events", func() (bool, string) {
		n := len(b.receiver.got("/hook")) - len(b.replayed("/hook", replay))
		return n == 2000, fmt.Sprintf("%d arrived", n)
	})
	if n := len(b.replayed("/hook", replay)); n != 4 || g.count(0) != 4 {
		t.Errorf("%d POSTs of the replay began beside the fresh ones, and %d hang; want the same 4", n, g.count(0))
	}
	// Little more than what is under way has left the plan.
	if n := scan[int](b, `SELECT count(*) FROM relay.log WHERE replay_id = $1 AND type = 'scheduled'`, replay); n > 300 {
		t.Errorf("%d deliveries are scheduled while 4 are under way", n)
	}
	g.open()
	b.awaitReplay(replay, "finished 1000 of 1000: 1000 succeeded, 0 dead")
	inOrder(t, b.replayed("/hook", replay))
}

// TestAReplayIsPausedResumedAndCancelled by the role for it, each on record
// with who did it.
func TestAReplayIsPausedResumedAndCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", slow)
	running := b.start(nil)
	b.chat(1, 10, 1, 60)
	b.awaitStatus("succeeded", 600)
	g := b.gate("/hook")
	operator := func(query string, args ...any) {
		t.Helper()
		tx, err := b.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(t.Context(), `SET LOCAL ROLE outrider_operator`); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	operator(`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h', webhook_id => $1))`, int64(hook.ID))
	b.eventually("the replay under way", func() (bool, string) { n := g.count(0); return n == 4, fmt.Sprintf("%d under way", n) })

	runs := func(replay int) {
		t.Helper()
		b.eventually("that it runs", func() (bool, string) {
			is := scan[string](b, `SELECT state FROM audit.replays WHERE replay_id = $1`, replay)
			return is == "running", is
		})
	}
	runs(1)
	operator(`SELECT relay.pause_replay(1)`)
	b.publish(1, "c1", 61, 1)
	b.awaitStatus("succeeded", 601)
	g.open() // those under way are finished, and no other begins
	b.awaitReplay(1, "paused 4 of 600: 4 succeeded, 0 dead")
	b.eventually("what waits, held", func() (bool, string) {
		reasons := scan[string](b, `SELECT coalesce(string_agg(DISTINCT reason, ' '), '') FROM audit.deliveries WHERE replay_id = 1 AND status = 'held'`)
		return reasons == "replay_paused", reasons
	})
	// Also by a relay that begins anew.
	running.stop()
	b.start(nil)
	b.publish(1, "c2", 61, 1)
	b.awaitStatus("succeeded", 606) // 600 first ones, 4 of the replay, 2 fresh
	if n := len(b.replayed("/hook", 1)); n != 4 {
		t.Errorf("%d POSTs of the paused replay were made, want 4", n)
	}

	operator(`SELECT relay.resume_replay(1)`)
	b.awaitReplay(1, "finished 600 of 600: 600 succeeded, 0 dead")
	inOrder(t, b.replayed("/hook", 1))
	if is := b.story(1); is != "planned requested started paused resumed finished" {
		t.Errorf("on record is: %s", is)
	}

	// Cancelled while it is under way: what is under way is finished, what is
	// scheduled besides is cancelled, the rest stays in the plan.
	g = b.gate("/hook")
	operator(`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h', webhook_id => $1))`, int64(hook.ID))
	b.eventually("the second replay under way", func() (bool, string) { n := g.count(0); return n == 4, fmt.Sprintf("%d under way", n) })
	runs(2)
	operator(`SELECT relay.cancel_replay(2)`)
	if is := scan[string](b, `SELECT state FROM audit.replays WHERE replay_id = 2`); is != "cancelling" {
		t.Errorf("while attempts are under way it is %s", is)
	}
	g.open()
	b.eventually("the end of the second replay", func() (bool, string) {
		is := scan[string](b, `SELECT state FROM audit.replays WHERE replay_id = 2`)
		return is == "cancelled", is
	})
	ends := scan[string](b, `SELECT format('%s %s', count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'cancelled' AND reason = 'replay_cancelled')) FROM audit.deliveries WHERE replay_id = 2`)
	if counted := scan[string](b, `SELECT format('%s %s', succeeded, cancelled) FROM relay.replays WHERE replay_id = 2 AND scheduled = succeeded + cancelled AND cancelled > 0 AND scheduled < total`); counted != ends || len(b.replayed("/hook", 2)) != scan[int](b, `SELECT succeeded FROM relay.replays WHERE replay_id = 2`) {
		t.Errorf("the log has %s, the replay says %s, %d were sent", ends, counted, len(b.replayed("/hook", 2)))
	}
	if is := b.story(2); is != "planned requested started cancelling cancelled" {
		t.Errorf("on record is: %s", is)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.replay_log WHERE actor = session_user AND type NOT IN ('started', 'finished', 'cancelled') OR actor LIKE 'relay %'`); n != 11 {
		t.Errorf("%d entries say who, want 11", n)
	}

	// A plan that is not run.
	operator(`SELECT relay.plan_replay(since => now() - interval '1 h', webhook_id => $1)`, int64(hook.ID))
	operator(`SELECT relay.cancel_replay(3)`)
	if is := scan[string](b, `SELECT state || ' ' || (finished_at IS NOT NULL) FROM audit.replays WHERE replay_id = 3`); is != "cancelled true" || b.story(3) != "planned cancelled" {
		t.Errorf("the plan is %s, on record as %s", is, b.story(3))
	}
}

// TestAReplayAndAWebhookThatIsNotThere: a paused one keeps its part of the plan;
// one that is disabled meanwhile cancels it; neither holds up another's.
func TestAReplayAndAWebhookThatIsNotThere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/a", nil)
	waits, ends := b.webhook(1, "/b", nil), b.webhook(1, "/c", slow)
	b.start(nil)
	b.chat(1, 10, 1, 50)
	b.awaitStatus("succeeded", 1500)
	g := b.gate("/c")
	b.command(waits, domain.PauseWebhook{})
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`)
	b.eventually("the first webhook's part", func() (bool, string) { n := len(b.replayed("/a", replay)); return n == 500, fmt.Sprint(n) })
	b.eventually("the third webhook's part under way", func() (bool, string) { n := g.count(0); return n == 4, fmt.Sprint(n) })
	if n := scan[int](b, `SELECT scheduled FROM relay.replay_streams WHERE replay_id = $1 AND webhook_id = $2`, replay, int64(waits.ID)); n != 0 {
		t.Errorf("%d deliveries to the paused webhook have left the plan", n)
	}
	b.command(ends, domain.DisableWebhook{})
	g.open()
	part := func() (succeeded, cancelled int) {
		n := func(status string) int {
			return scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE replay_id = $1 AND webhook_id = $2 AND status = $3`, replay, int64(ends.ID), status)
		}
		return n("succeeded"), n("cancelled")
	}
	b.eventually("the end of the third webhook's part", func() (bool, string) {
		succeeded, cancelled := part()
		if succeeded+cancelled == 500 && cancelled > 0 {
			return true, ""
		}
		return false, fmt.Sprintf("%d succeeded, %d cancelled; %s", succeeded, cancelled, scan[string](b, `
SELECT format('%s scheduled, %s wait until %s, it is %s', s.scheduled, count(d.*), max(d.at), now())
  FROM relay.replay_streams s LEFT JOIN relay.due d ON d.replay_id = s.replay_id AND d.webhook_id = s.webhook_id
 WHERE s.replay_id = $1 AND s.webhook_id = $2 GROUP BY s.scheduled`, replay, int64(ends.ID)))
	})
	b.command(waits, domain.EnableWebhook{})
	succeeded, _ := part()
	b.awaitReplay(replay, fmt.Sprintf("finished 1500 of 1500: %d succeeded, 0 dead", 1000+succeeded))
	inOrder(t, b.replayed("/b", replay))
}

func TestAReplayKeepsItsRate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	b.start(nil)
	b.publish(1, "c", 1, 62)
	b.awaitStatus("succeeded", 62)
	begun := time.Now()
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), rate => 30)`)
	b.awaitReplay(replay, "finished 62 of 62: 62 succeeded, 0 dead")
	got := b.replayed("/hook", replay)
	// A tenth of a second's worth comes at once, which is 3.
	if took := got[len(got)-1].at.Sub(begun); took < 59*time.Second/30 {
		t.Errorf("62 deliveries at 30/s took %s", took)
	}
}

// TestWhatCannotBeReplayedSaysSo, and leaves nothing behind.
func TestWhatCannotBeReplayedSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/one", nil)
	off, gone, other := b.webhook(1, "/off", nil), b.webhook(1, "/gone", nil), b.webhook(2, "/other", nil)
	running := b.start(nil)
	b.publish(1, "c", 1, 3)
	b.publish(2, "c", 1, 1)
	b.publish(3, "c", 1, 1) // nobody's
	b.awaitStatus("succeeded", 10)
	refused := func(want, hint, query string, args ...any) {
		t.Helper()
		_, err := b.db.ExecContext(t.Context(), query, args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", query, err, want)
		}
		if pg := pqHint(err); !strings.Contains(pg, hint) {
			t.Errorf("%s: hint %q, want %q", query, pg, hint)
		}
	}
	for query, want := range map[string]string{
		`SELECT relay.plan_replay()`:                                                                                   "nothing is selected",
		`SELECT relay.plan_replay(until => now())`:                                                                     "nothing is selected",
		`SELECT relay.plan_replay(since => now(), until => now() - interval '1 h')`:                                    "the range is empty",
		`SELECT relay.plan_replay(since => now() + interval '1 h')`:                                                    "the range is empty",
		`SELECT relay.plan_replay(since => now() - interval '2 h', until => now() - interval '1 h')`:                   "no delivery is selected",
		`SELECT relay.plan_replay(event_ids => ARRAY[gen_random_uuid()])`:                                              "no routed event has the id",
		`SELECT relay.plan_replay(event_ids => array_agg(gen_random_uuid())) FROM generate_series(1, 5)`:               "(and 2 others)",
		`SELECT relay.plan_replay(event_ids => '{}')`:                                                                  "0 event ids are given",
		`SELECT relay.plan_replay(account_id => 2, event_ids => array_agg(event_id)) FROM audit.events WHERE seq = 1`:  "no routed event has the id",
		`SELECT relay.plan_replay(account_id => 3, since => now() - interval '1 h')`:                                   "no delivery is selected",
		`SELECT relay.plan_replay(since => now() - interval '1 h', webhook_id => 77)`:                                  "no webhook 77",
		`SELECT relay.plan_replay(since => now() - interval '1 h', account_id => 2, webhook_id => 1)`:                  "no webhook 1 in account 2",
		`SELECT relay.plan_replay(since => now(), event_ids => ARRAY[gen_random_uuid()])`:                              "event_ids and a time range are given",
		`SELECT relay.plan_replay(since => now() - interval '1 h', statuses => '{lost}')`:                              "'lost' is no status",
		`SELECT relay.request_replay(77)`:                                                                              "there is no replay 77",
		`SELECT relay.request_replay(NULL)`:                                                                            "there is no replay NULL",
		`SELECT relay.pause_replay(77)`:                                                                                "there is no replay 77",
		`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), rate => 0)`:                   "the rate is 0",
		`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), rate => 'NaN')`:               "the rate is NaN",
		`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), to_webhook_id => 77)`:         "there is no webhook 77",
		`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'), to_webhook_id => 1)`:          "the plan has deliveries of account 2",
		`SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h', account_id => 1), NULL, -0.5)`: "the rate is -0.5",
	} {
		refused(want, "", query)
	}
	if n := scan[int](b, `SELECT (SELECT count(*) FROM relay.replays) + (SELECT count(*) FROM relay.replay_deliveries) + (SELECT count(*) FROM relay.replay_log)`); n != 0 {
		t.Errorf("refused replays left %d rows", n)
	}

	// What has changed since it was planned.
	plan := scan[int](b, `SELECT relay.plan_replay(since => now() - interval '1 h', account_id => 1)`)
	b.command(off, domain.DisableWebhook{})
	refused("webhook 2 is disabled", "Enable it first", `SELECT relay.request_replay($1)`, plan)
	refused("webhook 2 is disabled", "", `SELECT relay.request_replay($1, to_webhook_id => 2)`, plan)
	b.command(off, domain.EnableWebhook{})
	b.command(gone, domain.DeleteWebhook{})
	refused("webhook 3 is deleted", "plan anew", `SELECT relay.request_replay($1)`, plan)
	b.command(other, domain.DisableWebhook{})
	refused("are disabled or deleted", "Enable them first", `SELECT relay.plan_replay(since => now() - interval '1 h', account_id => 2)`)
	refused("cannot be paused: it is planned", "requested, running", `SELECT relay.pause_replay($1)`, plan)
	refused("cannot be resumed: it is planned", "paused", `SELECT relay.resume_replay($1)`, plan)
	if is := scan[string](b, `SELECT state FROM audit.replays WHERE replay_id = $1`, plan); is != "planned" {
		t.Errorf("a plan that was refused is %s", is)
	}

	// A plan runs once.
	plan = scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h', account_id => 1))`)
	b.awaitReplay(plan, "finished 6 of 6: 6 succeeded, 0 dead")
	refused("ran already: it is finished", "plan anew", `SELECT relay.request_replay($1)`, plan)
	refused("cannot be cancelled: it is finished", "", `SELECT relay.cancel_replay($1)`, plan)

	// Events that are gone, from the outbox alone or with the log of their days.
	running.stop()
	plan = scan[int](b, `SELECT relay.plan_replay(since => now() - interval '1 h', account_id => 1)`)
	b.exec(`DELETE FROM outbox.events WHERE seq IN (SELECT seq FROM outbox.events WHERE account_id = 1 ORDER BY seq LIMIT 2)`)
	refused("the events of 4 of 6 deliveries have no payload any more", "Plan anew", `SELECT relay.request_replay($1)`, plan)
	if is := scan[string](b, `SELECT p.state || ' ' || (SELECT count(*) FROM relay.replay_streams s WHERE s.replay_id = p.replay_id) FROM relay.replays p WHERE replay_id = $1`, plan); is != "planned 0" {
		t.Errorf("a plan over what is gone is %s", is)
	}
	plan = scan[int](b, `SELECT relay.plan_replay(since => now() - interval '1 h', account_id => 1)`)
	if is := scan[string](b, `SELECT string_agg(format('%s: %s, %s gone', webhook_id, deliveries, gone), '; ' ORDER BY webhook_id) FROM relay.replay_webhooks WHERE passed_over IS NULL AND replay_id = $1`, plan); is != "1: 1, 2 gone; 2: 1, 2 gone" {
		t.Errorf("a plan over what is gone has %s", is)
	}
	b.exec(`DELETE FROM outbox.events WHERE account_id = 1`)
	refused("the events of 9 of 9 deliveries have no payload any more", "audit.retentions", `SELECT relay.plan_replay(since => now() - interval '1 h', account_id => 1)`)
}

// A replay is to the webhook as it was when it was requested: enabled, though no
// relay has heard of its disabling before, nor of its enabling.
func TestAReplayToAWebhookThatWasEnabledUnheardOf(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/one", nil)
	b.start(func(c *relay.Config) { c.Webhooks = deaf{c.Webhooks} })
	b.publish(1, "c", 1, 3)
	b.awaitStatus("succeeded", 3)
	b.command(hook, domain.DisableWebhook{})
	b.command(hook, domain.EnableWebhook{})
	plan := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h', account_id => 1))`)
	b.awaitReplay(plan, "finished 3 of 3: 3 succeeded, 0 dead")
}

// TestEventsThatAreGoneDoNotHoldUpAReplay: their partition is dropped while it
// runs.
func TestEventsThatAreGoneDoNotHoldUpAReplay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	running := b.start(nil)
	b.publish(1, "c", 1, 20)
	b.awaitStatus("succeeded", 20)
	running.stop()
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(since => now() - interval '1 h'))`)
	// With the log, erased, and being closed when the relay comes to it.
	b.exec(`DELETE FROM relay.log WHERE event_seq <= (SELECT min(seq) + 4 FROM outbox.events)`)
	erasure := scan[int64](b, `SELECT relay.begin_erasure(1, '{}')`)
	b.exec(`INSERT INTO relay.erased (event_seq, version, account_id, erasure_id, at) SELECT max(seq), 0, 1, $1, now() FROM outbox.events`, erasure)
	b.exec(`INSERT INTO relay.erased (event_seq, version, account_id, erasure_id) SELECT max(seq) - 1, 0, 1, $1 FROM outbox.events`, erasure)
	b.exec(`INSERT INTO relay.closings (below, version, requested_by) SELECT min(seq) + 6, 0, 'test' FROM outbox.events`)
	b.start(nil)
	b.awaitReplay(replay, "finished 20 of 20: 12 succeeded, 0 dead")
	if gone := scan[int](b, `SELECT (data ->> 'gone')::integer FROM audit.timeline WHERE stream = 'replay' AND type = 'finished'`); gone != 8 {
		t.Errorf("%d are on record as gone, want 8", gone)
	}
}

// pqHint is the advice that PostgreSQL gives with an error.
func pqHint(err error) string {
	pg, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return ""
	}
	return pg.Hint
}
