package postgres_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// life is a history as relays may leave one: events that were routed late,
// clocks that step back, retries and replays days after.
type life struct {
	t    *testing.T
	db   *sql.DB
	rng  *rand.Rand
	base time.Time
	pos  int64
	rows logRows
	ids  []uuid.UUID
}

// logRows are columns of relay.log.
type logRows struct {
	seq, webhook, replay, account, pos, version []int64
	at                                          []time.Time
	kind, data                                  []string
	routing, event, delivery                    []sql.NullString
}

const lifeEvents, lifeWaiting, lifeBatches = 180, 6, 60

var lifeNames = []string{"message_created", "message_updated", "contact_created"}

func newLife(t *testing.T, db *sql.DB) *life {
	t.Helper()
	l := &life{t: t, db: db, rng: rand.New(rand.NewPCG(7, 11)), base: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)} //nolint:gosec // the same each time
	return l
}

func (l *life) exec(statement string, args ...any) {
	l.t.Helper()
	if _, err := l.db.ExecContext(l.t.Context(), statement, args...); err != nil {
		l.t.Fatalf("%v in %s", err, statement)
	}
}

func (l *life) entry(key domain.DeliveryKey, account, version int64, at time.Time, kind string, data map[string]any) {
	l.pos++
	text, err := json.Marshal(data)
	if err != nil {
		l.t.Fatal(err)
	}
	r := &l.rows
	r.seq, r.webhook, r.replay = append(r.seq, key.EventSeq), append(r.webhook, int64(key.WebhookID)), append(r.replay, int64(key.ReplayID))
	r.account, r.pos, r.version = append(r.account, account), append(r.pos, l.pos), append(r.version, version)
	r.at, r.kind, r.data = append(r.at, at), append(r.kind, kind), append(r.data, string(text))
	var routing, event, delivery sql.NullString
	if version == 1 {
		event = sql.NullString{String: l.ids[key.EventSeq-1].String(), Valid: true}
		if kind == domain.TypeRouted {
			routing = sql.NullString{String: fmt.Sprint(data["routing"]), Valid: true}
		} else {
			id := domain.NewDeliveryID(domain.NewNotificationID(domain.AccountID(account), l.ids[key.EventSeq-1], key.WebhookID), key.EventSeq, key.ReplayID)
			delivery = sql.NullString{String: id.String(), Valid: true}
		}
	}
	r.routing, r.event, r.delivery = append(r.routing, routing), append(r.event, event), append(r.delivery, delivery)
}

func (l *life) flush() {
	l.t.Helper()
	at := make([]string, len(l.rows.at))
	for i := range at {
		at[i] = l.rows.at[i].Format(time.RFC3339Nano)
	}
	r := &l.rows
	l.exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
SELECT seq, webhook, replay, account, pos, 1, at, version, type, data, routing, event, delivery
  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::integer[], $8::text[], $9::json[], $10::text[], $11::uuid[], $12::uuid[])
       AS r (seq, webhook, replay, account, pos, at, version, type, data, routing, event, delivery)`,
		pq.Array(r.seq), pq.Array(r.webhook), pq.Array(r.replay), pq.Array(r.account), pq.Array(r.pos), pq.Array(at), pq.Array(r.version),
		pq.Array(r.kind), pq.Array(r.data), pq.Array(r.routing), pq.Array(r.event), pq.Array(r.delivery))
	l.rows = logRows{}
}

// write makes the history.
func (l *life) write() {
	l.t.Helper()
	account := func(seq int64) int64 { return seq%3 + 1 }
	for range lifeEvents + lifeWaiting {
		l.ids = append(l.ids, uuid.New())
	}
	l.ids[50] = l.ids[20] // as inserted again
	texts := make([]string, len(l.ids))
	for i := range texts {
		texts[i] = l.ids[i].String()
	}
	l.exec(`INSERT INTO outbox.events (account_id, event, payload, id, ordering_key)
SELECT n % 3 + 1, ($2::text[])[n % 3 + 1], '{}', id::uuid, CASE WHEN n % 2 = 0 THEN 'waiting' END FROM unnest($1::text[]) WITH ORDINALITY e (id, n) ORDER BY n`, pq.Array(texts), pq.Array(lifeNames))

	batchOf := make([][]int64, lifeBatches)
	for seq := int64(1); seq <= lifeEvents; seq++ {
		b := int(seq-1) * lifeBatches / lifeEvents
		if l.rng.IntN(12) == 0 { // its transaction stayed open
			b = min(lifeBatches-1, b+l.rng.IntN(20))
		}
		batchOf[b] = append(batchOf[b], seq)
	}
	at, high := l.base, int64(0)
	for b, seqs := range batchOf {
		at = at.Add(time.Duration(l.rng.IntN(40)) * time.Minute)
		if l.rng.IntN(6) == 0 {
			at = at.Add(-20 * time.Second) // another relay, whose clock is behind
		}
		seqMin, seqMax := int64(0), int64(-1)
		if len(seqs) > 0 {
			seqMin, seqMax = slices.Min(seqs), slices.Max(seqs)
			high = max(high, seqMax)
		}
		low := high
		for _, later := range batchOf[b+1:] {
			for _, seq := range later {
				low = min(low, seq-1)
			}
		}
		l.exec(`INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
VALUES ($1::bigint, $1::bigint - 1, '3:3:', 0, 0, 0, $2, $3, $4, $5, $1::bigint, 1, $6)`, b+1, high, low, seqMin, seqMax, at)
		for _, seq := range seqs {
			l.route(seq, account(seq), at)
		}
	}
	l.exec(`UPDATE relay.batches SET at = $1 WHERE no = 0`, l.base.Add(-time.Hour))
	l.replays(account)
	l.flush()
	for webhook := 1; webhook <= 3; webhook++ {
		l.exec(`INSERT INTO relay.webhook_log (account_id, version, webhook_id, type, at, actor, after) VALUES ($1, 1, $1, 'registered', $2, 'somebody', '{"url":"https://example.com/a"}')`, webhook, l.base)
	}
	l.exec(`ANALYZE`)
}

func (l *life) route(seq, account int64, at time.Time) {
	kinds := []string{"routed", "routed", "routed", "routed", "no_subscriber", "skipped", "quarantined"}
	kind := kinds[l.rng.IntN(len(kinds))]
	data := map[string]any{"routing": kind, "event": lifeNames[seq%3]}
	if key := l.rng.IntN(4); key > 0 {
		data["ordering_key"] = fmt.Sprintf("conversation:%d", key)
	}
	l.entry(domain.DeliveryKey{EventSeq: seq}, account, 1, at, domain.TypeRouted, data)
	if kind != "routed" {
		return
	}
	for webhook := domain.WebhookID(1); webhook <= 3; webhook++ {
		if l.rng.IntN(2) == 0 {
			l.deliver(domain.DeliveryKey{EventSeq: seq, WebhookID: webhook}, account, at)
		}
	}
}

// deliver writes the life of a delivery: some attempts, days apart, and an end,
// or none yet.
func (l *life) deliver(key domain.DeliveryKey, account int64, at time.Time) {
	version := int64(1)
	add := func(kind string, data map[string]any) {
		l.entry(key, account, version, at, kind, data)
		version++
	}
	add(domain.TypeScheduled, map[string]any{"webhook_version": 1})
	if l.rng.IntN(5) == 0 {
		add(domain.TypeHeld, map[string]any{"reason": "order"})
		if l.rng.IntN(2) == 0 {
			return
		}
		at = at.Add(time.Minute)
		add(domain.TypeReleased, map[string]any{"reason": "turn"})
	}
	for attempt := 1; attempt <= 4; attempt++ {
		at = at.Add(time.Duration(l.rng.IntN(30*60)) * time.Minute)
		data := map[string]any{"attempt": attempt, "webhook_version": 1}
		switch l.rng.IntN(9) {
		case 0:
			add(domain.TypeCancelled, map[string]any{"reason": "disabled"})
			return
		case 1:
			add(domain.TypeExpired, map[string]any{"reason": "deadline"})
			return
		case 2:
			return
		}
		add(domain.TypeAttemptStarted, data)
		at = at.Add(time.Second)
		switch l.rng.IntN(8) {
		case 0:
			return
		case 1, 2, 3:
			add(domain.TypeAttemptSucceeded, data)
			return
		case 4:
			add(domain.TypeAttemptUnknown, data)
		case 5:
			add(domain.TypeAttemptFailed, data)
			add(domain.TypeDead, map[string]any{"reason": "attempts"})
			return
		default:
			add(domain.TypeAttemptFailed, data)
		}
	}
}

// replays send some of the oldest events again, hours after.
func (l *life) replays(account func(int64) int64) {
	for replay := 1; replay <= 4; replay++ {
		requested := l.base.Add(time.Duration(replay*5) * time.Hour)
		finished := sql.NullTime{Time: requested.Add(time.Hour), Valid: replay < 4}
		l.exec(`INSERT INTO relay.replays (selection, state, requested_by, requested_at, finished_at) VALUES ('{}', 'running', 'somebody', $1, $2)`, requested, finished)
		for range 15 {
			at := requested.Add(time.Duration(l.rng.IntN(60)) * time.Minute)
			key := domain.DeliveryKey{EventSeq: int64(l.rng.IntN(40) + 1), WebhookID: domain.WebhookID(l.rng.IntN(3) + 1), ReplayID: domain.ReplayID(replay)}
			used := false
			for i := range l.rows.seq {
				used = used || l.rows.seq[i] == key.EventSeq && l.rows.webhook[i] == int64(key.WebhookID) && l.rows.replay[i] == int64(key.ReplayID)
			}
			if !used {
				l.deliver(key, account(key.EventSeq), at)
			}
		}
	}
}

// wish is a filter, and the same as a condition for the view.
type wish struct {
	audit.Filter
	text []string
	args []any
}

func (w *wish) and(text string, arg any) {
	w.args = append(w.args, arg)
	w.text = append(w.text, strings.ReplaceAll(text, "?", fmt.Sprintf("$%d", len(w.args))))
}

func (w *wish) where() string {
	if len(w.text) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.text, " AND ")
}

// pick draws a filter: each of its parts is there one time in four. The columns
// say how the view calls what they are of.
func (l *life) pick(statuses []string, status, webhook, at, event, key, replay string) *wish {
	w := &wish{}
	maybe := func() bool { return l.rng.IntN(4) == 0 }
	if maybe() {
		w.AccountID = domain.AccountID(l.rng.IntN(3) + 1)
		w.and("account_id = ?", int64(w.AccountID))
	}
	if maybe() {
		w.WebhookID = domain.WebhookID(l.rng.IntN(3) + 1)
		w.and(webhook, int64(w.WebhookID))
	}
	if l.rng.IntN(12) == 0 {
		w.EventID = l.ids[l.rng.IntN(len(l.ids))]
		w.and("event_id = ?::uuid", w.EventID.String())
	}
	if maybe() {
		w.Event = lifeNames[l.rng.IntN(len(lifeNames))]
		w.and(event, w.Event)
	}
	if maybe() {
		text := []string{"", "conversation:1", "conversation:2", "waiting"}[l.rng.IntN(4)]
		w.OrderingKey = &text
		w.and(key, text)
	}
	if replay != "" && maybe() {
		w.ReplayID = domain.ReplayID(l.rng.IntN(4) + 1)
		w.and(replay, int64(w.ReplayID))
	}
	if l.rng.IntN(3) == 0 {
		w.Status = statuses[l.rng.IntN(len(statuses))]
		w.and(status+" = ?", w.Status)
	}
	if maybe() { // what is looked at for a page changes where it ends, not what comes
		w.Look = l.rng.IntN(30) + 1
	}
	moment := func() time.Time { return l.base.Add(time.Duration(l.rng.IntN(60*60)-60*8) * time.Minute) }
	never := ""
	if at == "routed_at" {
		never = " OR routed_at IS NULL"
	}
	if maybe() {
		w.Since = moment()
		w.and("("+at+" >= ?::timestamptz"+never+")", w.Since)
	}
	if maybe() {
		w.Until = moment()
		w.and(at+" < ?::timestamptz", w.Until)
	}
	w.Limit = 6 + l.rng.IntN(60)
	return w
}

func (l *life) expect(query string, args []any) []string {
	l.t.Helper()
	rows, err := l.db.QueryContext(l.t.Context(), query, args...)
	if err != nil {
		l.t.Fatalf("%v in %s", err, query)
	}
	defer func() { _ = rows.Close() }()
	var found []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			l.t.Fatal(err)
		}
		found = append(found, text)
	}
	if err := rows.Err(); err != nil {
		l.t.Fatal(err)
	}
	return found
}

// pages reads all pages of a list, each from the text of the cursor before.
func pages[T any](t *testing.T, list audit.List, read func(after *audit.Cursor) (audit.Page[T], error), key func(*T) string, between func()) []string {
	t.Helper()
	var found []string
	var after *audit.Cursor
	for {
		page, err := read(after)
		if err != nil {
			t.Fatal(err)
		}
		for i := range page.Records {
			found = append(found, key(&page.Records[i]))
		}
		if page.Next == nil {
			return found
		}
		next, err := audit.ParseCursor(list, page.Next.String())
		if err != nil {
			t.Fatal(err)
		}
		after = &next
		between()
	}
}

func eventKey(e *audit.Event) string { return fmt.Sprint(e.Seq) }

func deliveryKey(d *audit.Delivery) string { return d.DeliveryID.String() }

func attemptKey(r *audit.Attempt) string {
	return fmt.Sprintf("%s/%d", r.DeliveryID, r.Number)
}

// TestFiltersSelectWhatTheViewsSay: each filter, and each combination, gives
// what a condition on the view gives, by whatever pages.
func TestFiltersSelectWhatTheViewsSay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLife(t, db.SQL)
	l.write()
	history := postgres.NewAudit(db.SQL)
	compare := func(list string, w *wish, got, want []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s where %v %v, by %d: %d records, want %d\n%v\n%v", list, w.text, w.args, w.Limit, len(got), len(want), got, want)
		}
	}
	round := func(times int) {
		t.Helper()
		nothing := func() {}
		for range times {
			w := l.pick([]string{"waiting", "routed", "no_subscriber", "skipped", "quarantined"}, "routing",
				"seq IN (SELECT event_seq FROM audit.deliveries WHERE webhook_id = ?)", "routed_at", "event = ?", "ordering_key = ?", "")
			compare("events", w, pages(t, audit.EventList, func(after *audit.Cursor) (audit.Page[audit.Event], error) {
				return history.Events(t.Context(), w.Filter, after)
			}, eventKey, nothing), l.expect(`SELECT seq FROM audit.events`+w.where()+` ORDER BY seq DESC`, w.args))

			w = l.pick([]string{"pending", "held", "succeeded", "dead", "cancelled", "expired"}, "status",
				"webhook_id = ?", "scheduled_at", "event = ?", "ordering_key = ?", "replay_id = ?")
			compare("deliveries", w, pages(t, audit.DeliveryList, func(after *audit.Cursor) (audit.Page[audit.Delivery], error) {
				return history.Deliveries(t.Context(), w.Filter, after)
			}, deliveryKey, nothing), l.expect(`SELECT delivery_id FROM audit.deliveries`+w.where()+` ORDER BY event_seq DESC, webhook_id DESC, replay_id DESC`, w.args))

			const of = "delivery_id IN (SELECT delivery_id FROM audit.deliveries WHERE "
			w = l.pick([]string{"started", "succeeded", "failed", "unknown"}, "outcome",
				"webhook_id = ?", "started_at", of+"event = ?)", of+"ordering_key = ?)", of+"replay_id = ?)")
			compare("attempts", w, pages(t, audit.AttemptList, func(after *audit.Cursor) (audit.Page[audit.Attempt], error) {
				return history.Attempts(t.Context(), w.Filter, after)
			}, attemptKey, nothing), l.expect(`
SELECT delivery_id || '/' || attempt FROM (
SELECT a.*, d.replay_id FROM (SELECT * FROM audit.attempts`+w.where()+`) a JOIN audit.deliveries d USING (delivery_id)) a
 ORDER BY event_seq DESC, webhook_id DESC, replay_id DESC, attempt DESC`, w.args))
		}
	}
	round(60)
	// The chain is pruned from the left: its bounds get wider, and stay bounds.
	l.exec(`DELETE FROM relay.batches WHERE no < $1`, lifeBatches/2)
	round(20)
}

// TestAPageLooksNoFurther than a filter says, and says where to go on.
func TestAPageLooksNoFurther(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	newLife(t, db.SQL).write()
	page, err := postgres.NewAudit(db.SQL).Deliveries(t.Context(), audit.Filter{Event: "no_such_event", Limit: 5, Look: 5}, nil)
	if err != nil || len(page.Records) > 0 || page.Next == nil || page.Searched != 6 {
		t.Errorf("the page is %+v, %v", page, err)
	}
}

// TestPagesWhileRowsArrive: what was there when paging began comes once, and
// nothing comes twice.
func TestPagesWhileRowsArrive(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLife(t, db.SQL)
	l.write()
	history := postgres.NewAudit(db.SQL)
	no := int64(lifeBatches)
	arrive := func() {
		no++
		id := uuid.New()
		var seq int64
		if err := db.SQL.QueryRowContext(t.Context(), `INSERT INTO outbox.events (account_id, event, payload, id) VALUES (1, 'message_created', '{}', $1::uuid) RETURNING seq`, id.String()).Scan(&seq); err != nil {
			t.Fatal(err)
		}
		for int64(len(l.ids)) < seq {
			l.ids = append(l.ids, id)
		}
		l.entry(domain.DeliveryKey{EventSeq: seq}, 1, 1, l.base, domain.TypeRouted, map[string]any{"routing": "routed", "event": "message_created"})
		l.deliver(domain.DeliveryKey{EventSeq: seq, WebhookID: 1}, 1, l.base)
		l.deliver(domain.DeliveryKey{EventSeq: seq/2 + 1, WebhookID: 9, ReplayID: domain.ReplayID(no)}, 1, l.base) // old events are sent again
		l.flush()
	}
	check := func(list string, got, before []string) {
		t.Helper()
		seen := map[string]bool{}
		for _, key := range got {
			if seen[key] {
				t.Errorf("%s: %s comes twice", list, key)
			}
			seen[key] = true
		}
		for _, key := range before {
			if !seen[key] {
				t.Errorf("%s: %s is left out", list, key)
			}
		}
		if no < lifeBatches+10 {
			t.Errorf("%s: only %d rows arrived meanwhile", list, no-lifeBatches)
		}
		no += 1000
	}
	filter := audit.Filter{Limit: 17}
	before := l.expect(`SELECT seq FROM audit.events`, nil)
	check("events", pages(t, audit.EventList, func(after *audit.Cursor) (audit.Page[audit.Event], error) {
		return history.Events(t.Context(), filter, after)
	}, eventKey, arrive), before)
	before = l.expect(`SELECT delivery_id FROM audit.deliveries`, nil)
	check("deliveries", pages(t, audit.DeliveryList, func(after *audit.Cursor) (audit.Page[audit.Delivery], error) {
		return history.Deliveries(t.Context(), filter, after)
	}, deliveryKey, arrive), before)
	before = l.expect(`SELECT delivery_id || '/' || attempt FROM audit.attempts`, nil)
	check("attempts", pages(t, audit.AttemptList, func(after *audit.Cursor) (audit.Page[audit.Attempt], error) {
		return history.Attempts(t.Context(), filter, after)
	}, attemptKey, arrive), before)
}
