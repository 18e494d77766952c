package relay_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// slack is by how much a deadline on record may differ from one that PostgreSQL
// adds up: it keeps microseconds.
const slack = `interval '1 ms'`

// TestADeadlineEndsWhatWaits: for a retry that would come later, or because
// its webhook is paused, and not before. What the log has of it and what memory
// has is the same.
func TestADeadlineEndsWhatWaits(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fail := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	b.receiver.on("/failing", fail)
	b.receiver.on("/patient", fail)
	failing := b.webhook(1, "/failing", func(s *domain.Settings) { s.Deadline = 3 * time.Second })
	b.webhook(1, "/patient", nil)
	paused := b.webhook(2, "/paused", func(s *domain.Settings) { s.Deadline = 3 * time.Second })
	b.command(paused, domain.PauseWebhook{})
	b.webhook(3, "/first", nil)
	b.start(func(c *relay.Config) { c.Policy = patient })
	b.publish(3, "c", 1, 1)
	b.awaitStatus("succeeded", 1) // from here on batches come from memory
	b.publish(1, "c", 1, 2)       // the second is held behind the first
	b.publish(2, "c", 1, 2)
	b.awaitStatus("expired", 4)
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'expired' AND reason = 'deadline_passed' AND completed_at >= scheduled_at + interval '3 s'`); n != 4 {
		t.Errorf("%d of 4 expired with their deadline", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts WHERE webhook_id = $1`, int64(failing.ID)); n > 1 {
		t.Errorf("%d attempts, of which all but the first are behind the deadline", n)
	}
	if counts := b.deliveries(); counts["pending"]+counts["held"] != 2 {
		t.Errorf("the patient webhook's deliveries have not waited: %v", counts)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'scheduled' AND ((data ->> 'deadline')::timestamptz - at) - interval '3 s' BETWEEN -`+slack+` AND `+slack); n != 4 {
		t.Errorf("%d of 4 deadlines are on record as they were set", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.due WHERE webhook_id IN ($1, $2)`, int64(failing.ID), int64(paused.ID)); n != 0 {
		t.Errorf("%d due rows are left", n)
	}
}

// TestTheDeadlineIsThatOfTheVersionWhichRouted, and a replay's that of the
// version which schedules it.
func TestTheDeadlineIsThatOfTheVersionWhichRouted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hook := b.webhook(1, "/hook", func(s *domain.Settings) { s.Deadline = time.Hour })
	b.start(nil)
	b.publish(1, "c", 1, 3)
	b.awaitStatus("succeeded", 3)
	settings := hook.Settings
	settings.Deadline = 2 * time.Hour
	b.command(hook, domain.UpdateWebhook{Settings: settings, Addresses: loopback})
	b.publish(1, "c", 4, 1)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_updated', '{}')`)
	b.awaitStatus("succeeded", 5)
	replay := scan[int](b, `SELECT relay.request_replay(relay.plan_replay(account_id => 1, since => $1, until => clock_timestamp(), webhook_id => $2))`, time.Now().Add(-time.Hour), int64(hook.ID))
	b.awaitReplay(replay, "finished 5 of 5: 5 succeeded, 0 dead")
	for _, c := range []struct {
		what, where, deadline string
		want                  int
	}{
		{"routed before", `AND (data ->> 'webhook_version')::int = 1`, "1 h", 3},
		{"routed behind", `AND (data ->> 'webhook_version')::int = 2 AND delivery_id IN (SELECT delivery_id FROM audit.deliveries WHERE replay_id = 0)`, "2 h", 2},
		{"replayed", `AND delivery_id IN (SELECT delivery_id FROM audit.deliveries WHERE replay_id > 0)`, "2 h", 5},
	} {
		if n := scan[int](b, `SELECT count(*) FROM audit.timeline WHERE type = 'scheduled' AND ((data ->> 'deadline')::timestamptz - at) - interval '`+c.deadline+`' BETWEEN -`+slack+` AND `+slack+` `+c.where); n != c.want {
			t.Errorf("%s: %d deliveries have a deadline of %s, want %d", c.what, n, c.deadline, c.want)
		}
	}
}

// TestRetriesOfAWebhook: its own schedule, of none, one or as the relay has it;
// what it is when the attempt fails.
func TestRetriesOfAWebhook(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fail := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	for _, path := range []string{"/none", "/one", "/relay"} {
		b.receiver.on(path, fail)
	}
	b.webhook(1, "/none", func(s *domain.Settings) { s.Retries = []time.Duration{} })
	b.webhook(1, "/one", func(s *domain.Settings) { s.Retries = []time.Duration{time.Second} })
	b.webhook(1, "/relay", nil) // 3 retries
	changing := b.webhook(2, "/changing", func(s *domain.Settings) { s.Timeout, s.Retries = 30*time.Second, []time.Duration{time.Hour} })
	canary := b.webhook(2, "/before", nil)
	changed := make(chan struct{})
	release := sync.OnceFunc(func() { close(changed) })
	t.Cleanup(release)
	b.receiver.on("/changing", func(w http.ResponseWriter, req *http.Request) {
		select {
		case <-changed:
		case <-req.Context().Done():
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	b.start(nil)
	b.publish(1, "c", 1, 1)
	b.publish(2, "", 1, 1)
	b.eventually("the attempt under way", func() (bool, string) { return len(b.receiver.got("/changing")) == 1, "no POST" })
	settings := changing.Settings
	settings.Retries = []time.Duration{}
	b.command(changing, domain.UpdateWebhook{Settings: settings, Addresses: loopback})
	settings = canary.Settings
	settings.URL = strings.Replace(settings.URL, "/before", "/behind", 1)
	b.command(canary, domain.UpdateWebhook{Settings: settings, Addresses: loopback})
	b.eventually("the relay to know of the changes", func() (bool, string) {
		if len(b.receiver.got("/behind")) > 0 {
			return true, ""
		}
		b.exec(`INSERT INTO outbox.events (account_id, event, payload) VALUES (2, 'contact_created', '{}')`)
		return false, "nothing came to the new URL"
	})
	release()
	b.eventually("four that are dead", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'dead' AND reason = 'attempts_used_up' AND event = 'message_created'`)
		return n == 4, fmt.Sprint(n)
	})
	got := []int{len(b.receiver.got("/none")), len(b.receiver.got("/one")), len(b.receiver.got("/relay"))}
	if !slices.Equal(got, []int{1, 2, 4}) {
		t.Errorf("the webhooks had %v attempts, want 1, 2 and 4", got)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts a JOIN audit.deliveries d USING (delivery_id) WHERE d.webhook_id = $1 AND d.event = 'message_created'`, int64(changing.ID)); n != 1 {
		t.Errorf("%d attempts of a webhook whose retries were taken away, want 1", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.attempts x JOIN audit.attempts y USING (delivery_id) JOIN audit.deliveries d USING (delivery_id)
 WHERE d.url LIKE '%/one' AND x.attempt = 1 AND y.attempt = 2 AND y.started_at - x.finished_at BETWEEN interval '0.85 s' AND interval '1 min'`); n != 1 {
		t.Errorf("the retry did not wait for its second")
	}
}

// TestHeadersComeWithEachPOST: first ones, tests and replays; a changed value
// from then on, and a removed one no more.
func TestHeadersComeWithEachPOST(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var mu sync.Mutex
	var got []string
	b.receiver.on("/hook", func(_ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		kind := req.Header.Get("Outrider-Event")
		if req.Header.Get("Outrider-Replay") != "" {
			kind = "replay"
		}
		got = append(got, kind+" "+req.Header.Get("Authorization")+" "+req.Header.Get("X-Api-Key"))
	})
	hook := b.webhook(1, "/hook", nil)
	set := func(headers ...domain.Header) {
		b.command(hook, domain.UpdateWebhook{Settings: hook.Settings, Headers: headers, Addresses: loopback})
	}
	posts := 0
	came := func(want string) {
		t.Helper()
		posts++
		b.awaitStatus("succeeded", posts)
		mu.Lock()
		defer mu.Unlock()
		if len(got) != posts || got[posts-1] != want {
			t.Errorf("came %q, want %d, the last %q", got, posts, want)
		}
	}
	set(domain.NewHeader("Authorization", "Bearer t"), domain.NewHeader("X-Api-Key", "one"))
	b.start(nil)
	b.publish(1, "c", 1, 1)
	came("message_created Bearer t one")
	b.exec(`SELECT relay.request_webhook_test($1)`, int64(hook.ID))
	came("webhook_test Bearer t one")
	set(domain.NewHeader("X-Api-Key", "two"), domain.Header{Name: "authorization"})
	b.publish(1, "c", 2, 1)
	came("message_created  two")
	b.exec(`SELECT relay.request_replay(relay.plan_replay(account_id => 1, since => $1, until => clock_timestamp(), webhook_id => $2, events => ARRAY['contact_created', 'message_created']))`,
		time.Now().Add(-time.Hour), int64(hook.ID))
	posts++
	came("replay  two")
}
