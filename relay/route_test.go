package relay_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

func TestEachKindOfRoutingIsOnRecord(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/all", func(s *domain.Settings) { s.Subscriptions = []string{"message_created", "contact_created"} })
	b.webhook(2, "/inbox", func(s *domain.Settings) { s.InboxID = 12 })
	b.start(nil)
	type want struct {
		account                              int
		event, payload, id, order            string
		routing, reason, orderingKey, posted string
	}
	const id1, id2 = "0198a6c0-0000-7000-8000-000000000001", "0198a6c0-0000-7000-8000-000000000002"
	cases := []want{
		{1, "message_created", `{"conversation":{"id":5}}`, "", "", "routed", "", "conversation:5", `{"conversation":{"id":5},"event":"message_created"}`},
		{1, "message_created", ` { "event" : "message_created" } `, "", "mine", "routed", "", "mine", ` { "event" : "message_created" } `},
		{1, "conversation_created", `{}`, "", "", "no_subscriber", "", "", ""},
		{3, "message_created", `{}`, "", "", "no_subscriber", "", "", ""},
		{2, "message_created", `{"inbox":{"id":13}}`, "", "", "skipped", "inbox", "", ""},
		{2, "message_created", `{"inbox":{"id":12}}`, "", "", "routed", "", "", `{"inbox":{"id":12},"event":"message_created"}`},
		{1, "contact_created", `{"id":9}`, id1, "", "routed", "", "contact:9", `{"id":9,"event":"contact_created"}`},
		{1, "contact_created", `{"id":9}`, id1, "", "duplicate", "", "contact:9", ""},
		{1, "Message Created", `{}`, "", "", "quarantined", "event_name", "", ""},
		{1, "message_created", `[1]`, "", "", "quarantined", "payload_object", "", ""},
		{1, "message_created", `{"event":"message_updated"}`, "", "", "quarantined", "payload_event", "", ""},
		{1, "message_created", `{"event":"message_created","\u0065vent":"x"}`, "", "", "quarantined", "payload_repeated", "", ""},
		{1, "message_created", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, id2, "", "quarantined", "body_too_large", "", ""},
		{1, "message_created", `{}`, "", strings.Repeat("k", 600), "quarantined", "ordering_key", "", ""},
		// After a quarantined one the same id may come again.
		{1, "message_created", `{"mended":true}`, id2, "", "routed", "", "", `{"mended":true,"event":"message_created"}`},
		{1, "message_created", `{"nul":"\u0000","conversation":{"id":"a\u0000b"}}`, "", "", "routed", "", "conversation:ab", `{"nul":"\u0000","conversation":{"id":"a\u0000b"},"event":"message_created"}`},
	}
	for _, c := range cases {
		b.exec(`INSERT INTO outbox.events (account_id, event, payload, id, ordering_key) VALUES ($1, $2, $3, coalesce(nullif($4, '')::uuid, outbox.new_event_id()), nullif($5, ''))`,
			c.account, c.event, c.payload, c.id, c.order)
	}
	b.eventually("the routing", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.events WHERE routing <> 'waiting'`)
		return n == len(cases), fmt.Sprintf("%d of %d", n, len(cases))
	})
	rows, err := b.db.QueryContext(t.Context(), `SELECT routing, coalesce(reason, ''), ordering_key FROM audit.events ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	posted := 0
	for i := 0; rows.Next(); i++ {
		var routing, reason, key string
		if err := rows.Scan(&routing, &reason, &key); err != nil {
			t.Fatal(err)
		}
		c := cases[i]
		if routing != c.routing || reason != c.reason || key != c.orderingKey {
			t.Errorf("row %d: %s %s %q, want %s %s %q", i+1, routing, reason, key, c.routing, c.reason, c.orderingKey)
		}
		if c.posted != "" {
			posted++
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	b.awaitStatus("succeeded", posted)
	bodies := map[string]bool{}
	for _, p := range b.receiver.got("") {
		bodies[p.body] = true
	}
	for _, c := range cases {
		if c.posted != "" && !bodies[c.posted] {
			t.Errorf("no POST with the body %s", c.posted)
		}
	}
	if n := scan[int](b, `SELECT count(*) FROM relay.log WHERE data ->> 'duplicate_of' IS NOT NULL AND (data ->> 'duplicate_of')::bigint = 7`); n != 1 {
		t.Errorf("the duplicate does not point at the first")
	}
}

func TestAnEventIsRoutedByTheConfigurationOfItsSnapshot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.webhook(1, "/first", nil)
	b.start(nil)
	// The row and the webhook of one transaction are seen together.
	b.publish(1, "a", 1, 1)
	b.awaitStatus("succeeded", 1)
	b.webhook(1, "/second", nil)
	b.publish(1, "b", 2, 1)
	b.awaitStatus("succeeded", 3)
	b.command(first, domain.DeleteWebhook{})
	b.publish(1, "c", 3, 1)
	b.awaitStatus("succeeded", 4)
	if got := scan[string](b, `SELECT string_agg(config_version || ':' || delivery_count, ' ' ORDER BY seq) FROM audit.events`); got != "1:1 2:2 3:1" {
		t.Errorf("versions and deliveries: %s", got)
	}
	if n := scan[int](b, `SELECT count(*) FROM audit.deliveries d WHERE NOT EXISTS (
SELECT FROM audit.webhook_changes c WHERE c.webhook_id = d.webhook_id AND c.webhook_version = d.webhook_version)`); n != 0 {
		t.Errorf("%d deliveries name a version that is not on record", n)
	}
}

// An event that comes twice is found out wherever the two are: in one batch, whose
// decisions are not on record while it is routed, or in two that follow.
func TestEachRepeatIsFoundOut(t *testing.T) {
	t.Parallel()
	const events = 60
	b := newBench(t)
	b.webhook(1, "/all", nil)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload, id)
SELECT 1, 'message_created', '{}', ('0198a6c0-0000-7000-8000-' || lpad((i / 2)::text, 12, '0'))::uuid FROM generate_series(0, 2 * $1::int - 1) i`, events)
	b.start(func(c *relay.Config) { c.BatchRows = 5 })
	b.awaitStatus("succeeded", events)
	b.eventually("the routing", func() (bool, string) {
		n := scan[int](b, `SELECT count(*) FROM audit.events WHERE routing <> 'waiting'`)
		return n == 2*events, fmt.Sprintf("%d of %d", n, 2*events)
	})
	if n := scan[int](b, `SELECT count(*) FROM relay.log r JOIN outbox.events e ON e.seq = r.event_seq JOIN outbox.events f ON f.seq = (r.data ->> 'duplicate_of')::bigint
 WHERE r.routing = 'duplicate' AND f.id = e.id AND f.seq = e.seq - 1`); n != events {
		t.Errorf("%d of %d repeats are recorded as such", n, events)
	}
	if n := len(b.receiver.got("")); n != events {
		t.Errorf("%d POSTs of %d events", n, events)
	}
}

// A batch whose commit fails is read again: its events are no repeats of themselves,
// nor are those behind it that were read ahead.
func TestABatchThatIsReadAgainIsNoRepeat(t *testing.T) {
	t.Parallel()
	const events = 20
	b := newBench(t)
	b.webhook(1, "/all", nil)
	pgtest.FailCommits(t, b.db, `2, 4, 5`)
	b.exec(`INSERT INTO outbox.events (account_id, event, payload, id) SELECT 1, 'message_created', '{}', gen_random_uuid() FROM generate_series(1, $1::int) i`, events)
	b.start(func(c *relay.Config) { c.BatchRows = 3 })
	b.awaitStatus("succeeded", events)
	if n := scan[int](b, `SELECT last_value FROM public.commits`); n < 7+3 {
		t.Errorf("%d commits were tried, want 7 and the 3 that failed", n)
	}
}
