package relay_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// say inserts a message of a contact, and gives its place.
func (b *bench) say(account domain.AccountID, contact int, conversation, text string) int64 {
	b.t.Helper()
	payload, err := json.Marshal(map[string]any{
		"content":      text,
		"conversation": map[string]any{"id": conversation, "contact_inbox": map[string]any{"contact_id": contact}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return scan[int64](b, `INSERT INTO outbox.events (account_id, event, payload, metadata) VALUES ($1, 'message_created', $2::json, $3::json) RETURNING seq`,
		int64(account), string(payload), `{"said":"`+text+`"}`)
}

// holding lists the tables of ours in which a text stands anywhere.
func (b *bench) holding(text string) []string {
	b.t.Helper()
	rows, err := b.db.QueryContext(b.t.Context(), `
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('outbox', 'relay', 'audit') AND c.relkind IN ('r', 'v') ORDER BY 1`)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var names, found []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			b.t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	for _, name := range names {
		if scan[bool](b, `SELECT EXISTS (SELECT FROM `+name+` t WHERE t::text LIKE '%' || $1 || '%')`, text) {
			found = append(found, name)
		}
	}
	return found
}

func (b *bench) erase(selection postgres.ErasureSelection) postgres.Erased {
	b.t.Helper()
	plan, err := postgres.PlanErasure(b.t.Context(), b.db, selection)
	if err != nil {
		b.t.Fatal(err)
	}
	done, err := plan.Erase(b.t.Context(), b.db, func(int) {})
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// TestErasingAContact: what it said is nowhere left, what is open is cancelled,
// the log is as it was, and nobody else is touched.
func TestErasingAContact(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("got " + b.receiver.last(r))) } //nolint:gosec // nobody looks at it in a browser
	b.receiver.on("/good", echo)
	b.receiver.on("/bad", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		echo(w, r)
	})
	b.webhook(7, "/good", nil)
	b.webhook(7, "/bad", func(s *domain.Settings) { s.OrderHold = domain.HoldForever })
	b.webhook(8, "/good", nil)
	running := b.start(func(c *relay.Config) { c.Policy = patient })
	for range 3 {
		b.say(7, 901, "conversation of 901", "Quetzalcoatlus")
	}
	kept := b.say(7, 902, "conversation of 902", "Archaeopteryx")
	b.say(8, 901, "another account", "Archaeopteryx")
	b.awaitStatus("succeeded", 5)
	b.awaitStatus("held", 2)
	if found := strings.Join(b.holding("Quetzalcoatlus"), " "); !strings.Contains(found, "outbox.events_0") || !strings.Contains(found, "relay.responses_0") || strings.Contains(found, "relay.log") {
		t.Fatalf("what is to be erased stands in %s", found)
	}
	before := b.logOf(`true`)

	done := b.erase(postgres.ErasureSelection{AccountID: 7, ContactID: 901})
	if done.Events != 3 || done.Open != 0 || done.Unattended {
		t.Fatalf("erased: %+v", done)
	}
	if found := b.holding("Quetzalcoatlus"); len(found) > 0 {
		t.Errorf("what was erased stands in %v", found)
	}
	if after := b.logOf(`type <> 'cancelled'`); after != before {
		t.Error("the log changed")
	}
	b.verified()
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status = 'cancelled' AND reason = 'payload_erased'`); n != 3 {
		t.Errorf("%d deliveries were cancelled, want 3", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.erasures e JOIN audit.erased_events x USING (erasure_id)
WHERE e.erasure_id = $1 AND e.account_id = 7 AND e.events = 3 AND e.requested_by = session_user AND e.selection ->> 'contact_id' = '901' AND e.finished_at IS NOT NULL`, done.ID); n != 3 {
		t.Errorf("%d erased events are on record, want 3", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM pg_class WHERE oid IN ('outbox.events_0'::regclass, 'relay.responses_0'::regclass) AND 'autovacuum_vacuum_threshold=0' = ANY (reloptions)`); n != 2 {
		t.Errorf("vacuum is told of %d tables, want 2", n)
	}

	// The others are delivered, and can be replayed: their salts are there.
	b.receiver.on("/bad", echo)
	running.stop()
	b.start(func(c *relay.Config) { c.Policy = patient })
	b.exec(`SELECT relay.request_replay(relay.plan_replay(account_id => 7, since => now() - interval '1 hour', until => now() + interval '1 hour'))`)
	b.awaitReplay(1, "finished 2 of 2: 2 succeeded, 0 dead")
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE replay_id = 1 AND status = 'succeeded' AND event_seq = $1`, kept); n != 2 {
		t.Errorf("%d of 2 deliveries of another contact could be replayed", n)
	}
	if n := scan[int](b, `SELECT sum(gone) FROM relay.replay_webhooks`); n != 6 {
		t.Errorf("the plan left out %d deliveries of what was erased, want 6", n)
	}
	if again := b.erase(postgres.ErasureSelection{AccountID: 7, ContactID: 901}); again.Events != 0 {
		t.Errorf("erasing it again: %+v", again)
	}
	if found := b.holding("Archaeopteryx"); len(found) == 0 {
		t.Error("what another contact said is gone")
	}
}

// TestErasingWithoutARelay: what is open stays, until a relay has ended it.
func TestErasingWithoutARelay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.receiver.on("/bad", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	b.webhook(7, "/bad", nil)
	running := b.start(func(c *relay.Config) { c.Policy = patient })
	open := b.say(7, 1, "c1", "Quetzalcoatlus")
	b.say(8, 1, "c1", "Quetzalcoatlus")
	nobody := scan[string](b, `INSERT INTO outbox.events (account_id, event, payload, ordering_key) VALUES (7, 'label_added', '{"content":"Quetzalcoatlus"}', 'k') RETURNING id::text`)
	b.eventually("the failure", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM relay.due`) == 1 && scan[int](b, `SELECT count(*) FROM audit.events WHERE routing = 'waiting'`) == 0, ""
	})
	running.stop()
	late := b.say(7, 1, "c1", "not routed")

	plan, err := postgres.PlanErasure(t.Context(), b.db, postgres.ErasureSelection{AccountID: 7, EventIDs: []uuid.UUID{uuid.MustParse(nobody), uuid.New()}})
	if err != nil || len(plan.Events) != 1 || len(plan.Unknown) != 1 || plan.Waiting != 1 {
		t.Fatalf("by id: %+v, %v", plan, err)
	}
	if done := b.erase(postgres.ErasureSelection{AccountID: 7, OrderingKeys: []string{"k"}}); done.Events != 1 || done.Open != 0 {
		t.Errorf("by ordering key: %+v", done)
	}
	if done := b.erase(postgres.ErasureSelection{AccountID: 7}); done.Events != 0 || done.Open != 1 || !done.Unattended {
		t.Errorf("the whole account: %+v", done)
	}
	posts := len(b.receiver.got("/bad"))
	b.start(func(c *relay.Config) { c.Policy = patient })
	b.eventually("the end of the open delivery", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE event_seq = $1 AND status = 'cancelled'`, open) == 1, ""
	})
	b.eventually("the routing of the late one", func() (bool, string) {
		return scan[int](b, `SELECT count(*) FROM audit.events WHERE seq = $1 AND routing = 'routed'`, late) == 1, ""
	})
	if done := b.erase(postgres.ErasureSelection{AccountID: 7}); done.Events != 2 || done.Open != 0 {
		t.Errorf("the whole account, with a relay: %+v", done)
	}
	for _, p := range b.receiver.got("/bad")[posts:] {
		if strings.Contains(p.body, "Quetzalcoatlus") {
			t.Error("what was to be erased was sent once more")
		}
	}
	if n := scan[int](b, `SELECT count(*) FROM outbox.events WHERE account_id = 7 AND (payload::text <> '{}' OR metadata IS NOT NULL)`); n != 0 {
		t.Errorf("%d payloads of the account are left", n)
	}
	if n := scan[int](b, `SELECT count(*) FROM outbox.events WHERE account_id = 8 AND payload::text LIKE '%Quetzalcoatlus%'`); n != 1 {
		t.Error("another account's payload is gone")
	}
}

// TestErasedSaltsAreGoneAndOthersStay, whichever and however many are erased.
func TestErasedSaltsAreGoneAndOthersStay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	store := postgres.NewStore(b.db)
	var salts domain.Salts
	key, err := store.SaltKey(t.Context(), 5_000_000)
	if err != nil {
		t.Fatal(err)
	}
	salts.Take(key)
	erased := map[int64]bool{}
	for _, seq := range []int64{key.Lower, key.Lower + 1, 5_000_000, 5_000_001, 5_000_003, key.Lower + 1<<domain.SaltBits - 1} {
		b.exec(`SELECT relay.drop_salts($1, $2)`, seq, seq+1)
		erased[seq] = true
	}
	b.exec(`SELECT relay.drop_salts($1, $2)`, key.Lower+100, key.Lower+77_777)
	erased[key.Lower+100], erased[key.Lower+50_000], erased[key.Lower+77_776] = true, true, true
	for _, seq := range []int64{key.Lower + 2, key.Lower + 99, key.Lower + 77_777, 4_999_999, 5_000_002, 5_000_004, key.Lower + 1<<domain.SaltBits - 2} {
		erased[seq] = false
	}
	for seq, gone := range erased {
		got, err := store.SaltKey(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if same := bytes.Equal(got.Salt(seq), salts.Of(seq)); same == gone {
			t.Errorf("the salt of event %d is the same: %t, erased: %t", seq, same, gone)
		}
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.salts`); n > 140 {
		t.Errorf("%d keys are left", n)
	}
}
