package relay_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// modelRun does what a history says with relays at work on a database.
type modelRun struct {
	*bench
	history  history
	receiver *modelReceiver
	hooks    [modelHooks]domain.Webhook
	relays   []*modelRelay
	replays  []int
	ahead    atomic.Int64 // of the run's clock, which all relays have, beside the real one
	started  int          // relays
	events   int
	stopping sync.WaitGroup
}

// modelRelay is a relay in this process that can be killed.
type modelRelay struct {
	name string
	stop func()
	// kill cuts it off from the database and its receivers. What it did until then
	// is on record, or not, as with a process that is killed.
	kill func()
}

// play runs a history to its end, and compares it with the reference.
func play(t *testing.T, h history) verdict {
	t.Helper()
	r := &modelRun{bench: newBench(t), history: h}
	r.receiver = newModelReceiver(r.bench, h)
	for i := range r.hooks {
		r.hooks[i] = r.webhook(1, fmt.Sprintf("/hook%d", i), func(s *domain.Settings) {
			s.OrderHold, s.MaxConcurrency, s.Timeout = h.holds[i], h.most[i], 30*time.Second
			s.Subscriptions = []string{"message_created", "conversation_typing_on"}
		})
	}
	for _, s := range h.steps {
		r.do(s)
	}
	stuck := r.calm()
	for _, one := range r.relays {
		one.stop()
	}
	r.stopping.Wait()
	log, keys := r.log()
	reference := newReference(modelPolicy, r.changes(), keys)
	for _, e := range log {
		reference.hear(e)
	}
	r.receiver.judge(reference, r.deliveryIDs(reference))
	r.judge(reference, stuck)
	return verdict{h, reference, log}
}

func (r *modelRun) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

// do does a step, if it fits.
func (r *modelRun) do(s step) {
	r.t.Helper()
	switch s.do {
	case doPublish:
		r.publish(s)
	case doPass:
		r.pass(s.wait)
	case doRest:
		r.rest(2 * time.Second)
	case doAnswer:
		r.receiver.be(fmt.Sprintf("/hook%d", s.which), s.mood)
	case doChange:
		r.command(s.which, [...]domain.WebhookCommand{domain.PauseWebhook{}, domain.EnableWebhook{}, domain.DisableWebhook{Reason: "a step of the history"}, domain.DeleteWebhook{}}[s.n])
	case doStart:
		if len(r.relays) < modelRelays {
			r.start()
		}
	case doStop:
		if one := r.take(s.which); one != nil {
			r.stopping.Go(one.stop)
		}
	case doKill:
		if one := r.take(s.which); one != nil {
			one.kill()
			r.bury(one)
			r.stopping.Go(one.stop)
		}
	case doBreak:
		r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'test relay%'`)
	case doReplay:
		r.replay(`SELECT relay.request_replay(relay.plan_replay(account_id => 1, since => now() - interval '1 h', until => 'infinity', webhook_id => $1))`, int64(r.hooks[s.which].ID))
	case doChangeReplay:
		if s.which < len(r.replays) {
			r.replay([...]string{`SELECT relay.pause_replay($1)`, `SELECT relay.resume_replay($1)`, `SELECT relay.cancel_replay($1)`}[s.n], r.replays[s.which])
		}
	}
}

func (r *modelRun) publish(s step) {
	r.t.Helper()
	event := "message_created"
	if s.key == "c" && s.n == 1 {
		event = "conversation_typing_on" // its deadline is near
	}
	r.exec(`INSERT INTO outbox.events (account_id, event, payload, ordering_key)
SELECT 1, $1, json_build_object('n', i), $2 FROM generate_series($3::int, $4::int) i ORDER BY i`, event, s.key, r.events+1, r.events+s.n)
	r.events += s.n
}

// pass moves the clock, and lets the relays look at it.
func (r *modelRun) pass(d time.Duration) {
	r.ahead.Add(int64(d))
	if err := postgres.NewLeases(r.db).Announce(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// rest waits until nothing more comes on record, and says whether anything did.
func (r *modelRun) rest(longest time.Duration) (moved bool) {
	r.t.Helper()
	deadline := time.NewTimer(longest)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	const commits = `SELECT last_value FROM relay.commits`
	first := scan[int64](r.bench, commits)
	for last, still := first, 0; still < 10; {
		select {
		case <-tick.C:
		case <-deadline.C:
			return true
		}
		still++
		if now := scan[int64](r.bench, commits); now != last {
			last, still, moved = now, 0, true
		}
	}
	return moved
}

// command changes a webhook. One that is deleted stays so.
func (r *modelRun) command(i int, command domain.WebhookCommand) {
	r.t.Helper()
	if _, _, err := r.webhooks.Change(r.t.Context(), 1, r.hooks[i].ID, "test", command); err != nil && !errors.Is(err, domain.ErrWebhookGone) {
		r.t.Fatal(err)
	}
}

// replay asks for something that may be refused.
func (r *modelRun) replay(query string, args ...any) {
	r.t.Helper()
	var id string
	err := r.db.QueryRowContext(r.t.Context(), query, args...).Scan(&id)
	if _, refused := errors.AsType[*pq.Error](err); err != nil && !refused {
		r.t.Fatal(err)
	}
	var n int
	if _, number := fmt.Sscan(id, &n); err == nil && number == nil {
		r.replays = append(r.replays, n)
	}
}

func (r *modelRun) take(which int) *modelRelay {
	if len(r.relays) == 0 {
		return nil
	}
	which %= len(r.relays)
	one := r.relays[which]
	r.relays = slices.Delete(r.relays, which, which+1)
	return one
}

func (r *modelRun) start() {
	r.t.Helper()
	r.started++
	one := &modelRelay{name: fmt.Sprintf("relay %d", r.started)}
	ctx, die := context.WithCancel(context.WithoutCancel(r.t.Context()))
	r.t.Cleanup(die)
	var database *sql.DB
	running := r.bench.start(func(c *relay.Config) {
		c.Name, c.Policy, c.Now, c.Grace = one.name, modelPolicy, r.now, 300*time.Millisecond
		c.Sender = mortal{c.Sender, ctx}
		c.Logger = slog.New(slog.DiscardHandler) // connections break here
		database = c.DB
	})
	running.cut.Store(true)
	one.stop = running.stop
	one.kill = func() {
		_ = database.Close()
		die()
	}
	r.relays = append(r.relays, one)
}

// mortal makes no POST any more once its context has ended, and cuts off those
// that are under way.
type mortal struct {
	relay.Sender
	ctx context.Context //nolint:containedctx // it is the life of a process
}

func (m mortal) Send(ctx context.Context, request relay.Request) domain.Outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	return m.Sender.Send(ctx, request)
}

// bury fences a relay that was killed, as others would do when its lease is
// over: they need not be waited for here.
func (r *modelRun) bury(one *modelRelay) {
	r.t.Helper()
	ctx, leases := r.t.Context(), postgres.NewLeases(r.db)
	id := scan[int64](r.bench, `SELECT coalesce(max(relay_id), 0) FROM relay.relays WHERE name = $1 AND fenced_at IS NULL`, one.name)
	if id == 0 {
		return
	}
	undertaker, err := leases.Register(ctx, "undertaker", "test", false)
	if err == nil {
		err = errors.Join(leases.Fence(ctx, undertaker, id), leases.Release(ctx, undertaker, relay.Place{}))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// calm lets everything come to its end: receivers answer, nothing is paused, and
// the clock goes on whenever nothing moves by itself. It says what did not end.
func (r *modelRun) calm() (stuck string) {
	r.t.Helper()
	if len(r.relays) == 0 {
		r.start()
	}
	for i := range r.hooks {
		r.receiver.be(fmt.Sprintf("/hook%d", i), moodMixed)
		r.command(i, domain.EnableWebhook{})
	}
	for _, id := range r.replays {
		r.replay(`SELECT relay.resume_replay($1)`, id)
	}
	open, since := "", time.Now()
	for {
		now := scan[string](r.bench, `
SELECT concat_ws(', ', (SELECT string_agg(format('event %s to webhook %s, replay %s: %s', event_seq, webhook_id, replay_id, status), ', ' ORDER BY event_seq, webhook_id, replay_id) FROM audit.deliveries WHERE status IN ('pending', 'held')),
       (SELECT string_agg(format('replay %s to webhook %s', replay_id, webhook_id), ', ') FROM relay.replay_streams WHERE NOT drained),
       (SELECT nullif(count(*), 0) || ' events wait' FROM audit.events WHERE routing = 'waiting'))`)
		switch {
		case now == "":
			return ""
		case now != open:
			open, since = now, time.Now()
		case time.Since(since) > modelPatience:
			return open
		}
		if !r.rest(time.Second) {
			// Not all that hangs does so for ever.
			for i := range r.hooks {
				r.receiver.be(fmt.Sprintf("/hook%d", i), moodWell)
			}
			r.pass(3 * time.Second)
		}
	}
}

// modelPatience is how long nothing may end at last.
const modelPatience = time.Minute

// log reads what is on record, and the ordering keys.
func (r *modelRun) log() (log []entry, keys map[int64]string) {
	r.t.Helper()
	keys = map[int64]string{}
	rows, err := r.db.QueryContext(r.t.Context(), `
SELECT event_seq, webhook_id, replay_id, pos, version, writer, type, at, data::text, coalesce(data ->> 'ordering_key', '') FROM relay.log ORDER BY pos`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var e entry
		var one domain.Entry
		var key string
		if err := rows.Scan(&e.key.EventSeq, &e.key.WebhookID, &e.key.ReplayID, &e.pos, &e.version, &e.writer, &one.Type, &one.At, &one.Data, &key); err != nil {
			r.t.Fatal(err)
		}
		if e.key.WebhookID == 0 {
			keys[e.key.EventSeq] = key
			continue
		}
		if e.event, err = domain.DecodeDelivery(one); err != nil {
			r.t.Fatal(err)
		}
		log = append(log, e)
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return log, keys
}

// changes reads what became of the webhooks.
func (r *modelRun) changes() map[domain.WebhookID]*modelHook {
	r.t.Helper()
	hooks := map[domain.WebhookID]*modelHook{}
	for i := range r.hooks {
		hooks[r.hooks[i].ID] = &modelHook{hold: r.history.holds[i]}
	}
	rows, err := r.db.QueryContext(r.t.Context(), `SELECT webhook_id, version, type FROM relay.webhook_log ORDER BY version`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id domain.WebhookID
		var version int64
		var kind string
		if err := rows.Scan(&id, &version, &kind); err != nil {
			r.t.Fatal(err)
		}
		switch hook := hooks[id]; kind {
		case "paused":
			hook.paused = true
		case "disabled":
			hook.disabled = version
		case "deleted":
			hook.deleted = version
		}
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return hooks
}

// deliveryIDs finds deliveries by what receivers are told.
func (r *modelRun) deliveryIDs(reference *reference) map[string]*duty {
	r.t.Helper()
	found := map[string]*duty{}
	rows, err := r.db.QueryContext(r.t.Context(), `SELECT delivery_id::text, event_seq, webhook_id, replay_id FROM relay.log WHERE delivery_id IS NOT NULL`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		var key domain.DeliveryKey
		if err := rows.Scan(&id, &key.EventSeq, &key.WebhookID, &key.ReplayID); err != nil {
			r.t.Fatal(err)
		}
		found[id] = reference.all[key]
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return found
}

// judge compares how everything ended: each event has its deliveries, all of them
// are finished, and the audit views say of them what the reference does.
func (r *modelRun) judge(reference *reference, stuck string) {
	r.t.Helper()
	note := func(of line, format string, args ...any) {
		reference.flaws = append(reference.flaws, flaw{of, fmt.Sprintf(format, args...)})
	}
	shown := r.shown()
	for key, d := range reference.all {
		want := strings.TrimSpace(fmt.Sprintf("%s %d %s", d.status, len(d.attempts), d.reason))
		switch {
		case !d.status.Final():
			note(d.line, "event %d to webhook %d, replay %d does not end: it is %s, held for %q, due at %s; now it is %s", key.EventSeq, key.WebhookID, key.ReplayID, d.status, d.held, short(d.next), short(r.now()))
		case shown[key] != want:
			note(d.line, "event %d to webhook %d, replay %d is shown as %q, and is %q", key.EventSeq, key.WebhookID, key.ReplayID, shown[key], want)
		}
	}
	if stuck != "" {
		note(line{}, "in the end nothing moves, with %s", stuck)
		return
	}
	for id, hook := range reference.hooks {
		n := 0
		for key := range reference.all {
			if key.WebhookID == id && key.ReplayID == 0 {
				n++
			}
		}
		if never := hook.disabled == 0 && hook.deleted == 0; n > r.events || never && n != r.events {
			note(line{hook: id}, "%d deliveries to webhook %d for %d events", n, id, r.events)
		}
	}
	if n := scan[int](r.bench, `SELECT count(*) FROM relay.due`); n != 0 {
		note(line{}, "%d rows are left in the due table", n)
	}
	for _, lost := range r.unscheduled(reference) {
		note(line{hook: lost.WebhookID, replay: lost.ReplayID}, "event %d to webhook %d was planned by replay %d, which has drained, and is not scheduled", lost.EventSeq, lost.WebhookID, lost.ReplayID)
	}
}

// shown is what the audit view says of each delivery: status, attempts, reason.
func (r *modelRun) shown() map[domain.DeliveryKey]string {
	r.t.Helper()
	shown := map[domain.DeliveryKey]string{}
	rows, err := r.db.QueryContext(r.t.Context(), `SELECT event_seq, webhook_id, replay_id, concat_ws(' ', status, attempt_count, reason) FROM audit.deliveries`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key domain.DeliveryKey
		var said string
		if err := rows.Scan(&key.EventSeq, &key.WebhookID, &key.ReplayID, &said); err != nil {
			r.t.Fatal(err)
		}
		shown[key] = said
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return shown
}

// unscheduled lists what replays have planned and not scheduled, where they were
// not cancelled.
func (r *modelRun) unscheduled(reference *reference) (lost []domain.DeliveryKey) {
	r.t.Helper()
	rows, err := r.db.QueryContext(r.t.Context(), `
SELECT d.event_seq, d.webhook_id, d.replay_id FROM relay.replay_deliveries d JOIN relay.replays p USING (replay_id) WHERE p.state IN ('running', 'finished')`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key domain.DeliveryKey
		if err := rows.Scan(&key.EventSeq, &key.WebhookID, &key.ReplayID); err != nil {
			r.t.Fatal(err)
		}
		if reference.all[key] == nil {
			lost = append(lost, key)
		}
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return lost
}

// verdict is what came of a history.
type verdict struct {
	history   history
	reference *reference
	log       []entry
}

// String tells of flaws: the first ones, and all that is on record of their
// lines.
func (v verdict) String() string {
	var b strings.Builder
	flaws := v.reference.flaws
	fmt.Fprintf(&b, "%d flaws in this history:\n%s", len(flaws), v.history)
	told := map[line]bool{}
	for i, f := range flaws {
		if i == 8 {
			b.WriteString("and so on\n")
			break
		}
		fmt.Fprintf(&b, "FLAW: %s\n", f.text)
		told[f.of] = true
	}
	for _, e := range v.log {
		if d := v.reference.all[e.key]; d != nil && told[d.line] {
			fmt.Fprintf(&b, "%d.%-4d by relay %d: %s\n", e.pos>>20, e.pos&(1<<20-1), e.writer, tell(e))
		}
	}
	return b.String()
}
