package postgres_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// routedBatch is batch 1: the chat events 1 to 4 of account 7, each routed to the
// webhooks 1, 2 and 65. 1 and 65 are of one shard.
type routedBatch struct {
	*testing.T
	db    *sql.DB
	store *postgres.Store
	at    time.Time
	ids   []domain.EventID
}

const routedEventCount = 4

var routedWebhooks = []domain.WebhookID{1, 2, 65}

// shardOf is the shard of a webhook alone.
func shardOf(id domain.WebhookID) relay.Shards { return relay.Shards(1) << (id & 63) }

func newRoutedBatch(t *testing.T) *routedBatch {
	t.Helper()
	db := pgtest.New(t).SQL
	r := &routedBatch{T: t, db: db, store: postgres.NewStore(db), at: time.Date(2026, time.March, 4, 5, 6, 7, 89000, time.UTC)}
	for _, id := range routedWebhooks {
		r.exec(`INSERT INTO relay.webhooks (id, account_id, version, state, settings, url, credential, secret, previous_secret) VALUES ($1::bigint, 7, 1, 'enabled', '{}', 'https://example.com/' || $1::text, '', '', '')`, int64(id))
	}
	r.exec(`INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id) VALUES (1, 0, '3:3:', 0, 0, 0, 4, 0, 1, 4, 9, 1)`)
	const insert = `INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id) VALUES ($1, $2, 0, 7, $3, 1, $4, 1, $5, $6, $7, $8)`
	for seq := int64(1); seq <= routedEventCount; seq++ {
		event := uuid.New()
		r.ids = append(r.ids, event)
		payload := r.payload(seq)
		r.exec(`INSERT INTO outbox.events (id, account_id, event, payload, metadata) VALUES ($1, 7, 'message_created', $2, '{"traceparent":"00-a"}')`, event.String(), payload)
		key, err := r.store.SaltKey(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		var salts domain.Salts
		salts.Take(key)
		body, _ := domain.Body("message_created", []byte(payload))
		routed := domain.Routed{
			Routing: domain.Routing{Kind: domain.RoutingRouted}, EventName: "message_created", OrderingKey: fmt.Sprintf("conversation:%d", seq),
			BodyBytes: len(body), Digest: relay.Digest(salts.Of(seq), body),
		}
		r.exec(insert, seq, 0, 9<<20+seq, r.at, domain.TypeRouted, string(domain.EncodeRouted(routed)), "routed", event.String())
		for i, id := range routedWebhooks {
			scheduled := domain.EncodeDelivery(domain.Scheduled{At: r.at, Deadline: r.at.Add(time.Hour), WebhookVersion: 1})
			r.exec(insert, seq, int64(id), 9<<20+routedEventCount+3*seq+int64(i), r.at, scheduled.Type, string(scheduled.Data), nil, event.String())
		}
	}
	return r
}

func (r *routedBatch) exec(statement string, args ...any) {
	r.Helper()
	if _, err := r.db.ExecContext(r.Context(), statement, args...); err != nil {
		r.Fatalf("%v in %s", err, statement)
	}
}

// payload is that of an event. The second one names its event itself, so that
// its body is what the row has.
func (*routedBatch) payload(seq int64) string {
	named := ""
	if seq == 2 {
		named = `"event":"message_created",`
	}
	return fmt.Sprintf(`{%s"n":%d,"content":%q}`, named, seq, strings.Repeat("x", 100))
}

func (r *routedBatch) read(shards relay.Shards, room int) []relay.Delivery {
	r.Helper()
	found, last, err := r.store.Batches(r.Context(), shards, 1, 1, room)
	if err != nil || last != 1 {
		r.Fatalf("read up to batch %d: %v", last, err)
	}
	return found
}

// keys are those of what was found, in its order.
func keys(found []relay.Delivery) string {
	var all []string
	for i := range found {
		all = append(all, fmt.Sprintf("%d/%d", found[i].Key.EventSeq, found[i].Key.WebhookID))
	}
	return strings.Join(all, " ")
}

const allRouted = "1/1 1/2 1/65 2/1 2/2 2/65 3/1 3/2 3/65 4/1 4/2 4/65"

// TestBatchesAreReadBackAsTheyWereRouted: all that a delivery needs comes with it.
func TestBatchesAreReadBackAsTheyWereRouted(t *testing.T) {
	t.Parallel()
	r := newRoutedBatch(t)
	found := r.read(relay.AllShards, 1<<20)
	if got := keys(found); got != allRouted {
		t.Fatalf("found %s, want %s", got, allRouted)
	}
	for i := range found {
		d := &found[i]
		seq := d.Key.EventSeq
		body, _ := domain.Body("message_created", []byte(r.payload(seq)))
		if !bytes.Equal(d.Body, body) || d.Size != len(body) || d.Unread {
			t.Errorf("%d/%d has body %q of %d bytes (unread: %t), want %q", seq, d.Key.WebhookID, d.Body, d.Size, d.Unread, body)
		}
		if first := &found[i-i%3]; len(d.Body) == 0 || &first.Body[0] != &d.Body[0] {
			t.Errorf("%d/%d has a body of its own", seq, d.Key.WebhookID)
		}
		if d.Event != "message_created" || d.OrderingKey != fmt.Sprintf("conversation:%d", seq) || d.Traceparent != "00-a" || d.EventID != r.ids[seq-1] || d.AccountID != 7 {
			t.Errorf("%d/%d is of %s %s %q %s, account %d", seq, d.Key.WebhookID, d.Event, d.OrderingKey, d.Traceparent, d.EventID, d.AccountID)
		}
		if s := d.State; s.Version != 1 || s.WebhookVersion != 1 || !s.Deadline.Equal(r.at.Add(time.Hour)) || d.InsertedAt.IsZero() || d.Unreadable != nil || d.Due.Kind != relay.DueNone || d.Pos>>20 != 9 {
			t.Errorf("%d/%d is read as %+v", seq, d.Key.WebhookID, d)
		}
	}
}

// TestBatchesGiveWhatNobodyBegan: neither what was started, nor what waits in the
// due table, nor other shards'. What a replay did is another stream.
func TestBatchesGiveWhatNobodyBegan(t *testing.T) {
	t.Parallel()
	r := newRoutedBatch(t)
	const (
		begin = `INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data) VALUES ($1, $2, $3, 7, 10 << 20, 1, now(), 2, 'attempt_started', '{}')`
		wait  = `INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key) VALUES ($1, $2, $3, 1, 'o', now(), 1, 0)`
	)
	first, second := shardOf(1), shardOf(2)
	for _, step := range []struct {
		statement            string
		event, hook, replay  int
		wantFirst, wantOther string
	}{
		{"", 0, 0, 0, "1/1 1/65 2/1 2/65 3/1 3/65 4/1 4/65", "1/2 2/2 3/2 4/2"},
		{begin, 1, 1, 5, "1/1 1/65 2/1 2/65 3/1 3/65 4/1 4/65", "1/2 2/2 3/2 4/2"},
		{wait, 1, 2, 5, "1/1 1/65 2/1 2/65 3/1 3/65 4/1 4/65", "1/2 2/2 3/2 4/2"},
		{begin, 4, 65, 0, "1/1 1/65 2/1 2/65 3/1 3/65 4/1", "1/2 2/2 3/2 4/2"},
		{begin, 1, 1, 0, "1/65 2/1 2/65 3/1 3/65 4/1", "1/2 2/2 3/2 4/2"},
		{wait, 3, 2, 0, "1/65 2/1 2/65 3/1 3/65 4/1", "1/2 2/2 4/2"},
		{wait, 2, 65, 0, "1/65 2/1 3/1 3/65 4/1", "1/2 2/2 4/2"},
		{begin, 1, 2, 0, "1/65 2/1 3/1 3/65 4/1", "2/2 4/2"},
	} {
		if step.statement != "" {
			r.exec(step.statement, step.event, step.hook, step.replay)
		}
		if got := keys(r.read(first, 1<<20)); got != step.wantFirst {
			t.Errorf("after %d/%d/%d, %s are found, want %s", step.event, step.hook, step.replay, got, step.wantFirst)
		}
		if got := keys(r.read(second, 1<<20)); got != step.wantOther {
			t.Errorf("after %d/%d/%d, %s are found of the other shard, want %s", step.event, step.hook, step.replay, got, step.wantOther)
		}
	}
}

// TestBatchesTakeNoMoreRoomThanTheyGet: what is beyond comes unread, with its
// size; so does what is larger than all the room.
func TestBatchesTakeNoMoreRoomThanTheyGet(t *testing.T) {
	t.Parallel()
	r := newRoutedBatch(t)
	size := len(r.payload(1))
	for _, c := range []struct{ room, read int }{{size - 1, 0}, {size, 1}, {3 * size, 3}, {1 << 20, 12}} {
		read := 0
		for _, d := range r.read(relay.AllShards, c.room) {
			switch {
			case d.Body != nil && !d.Unread:
				read++
			case d.Body != nil, !d.Unread, d.Size != len(r.payload(d.Key.EventSeq)):
				t.Errorf("with room for %d: %+v", c.room, d)
			}
		}
		if read != c.read {
			t.Errorf("with room for %d, %d bodies are read, want %d", c.room, read, c.read)
		}
	}
}

// TestBatchesTellWhatIsWrongWithOneDelivery, and give all others.
func TestBatchesTellWhatIsWrongWithOneDelivery(t *testing.T) {
	t.Parallel()
	r := newRoutedBatch(t)
	for _, damage := range []string{
		`UPDATE relay.log SET data = '{"webhook_version":"1"}' WHERE event_seq = 1 AND webhook_id = 1`,
		`UPDATE relay.log SET at = 'infinity' WHERE event_seq = 1 AND webhook_id = 2`,
		`UPDATE relay.log SET event_id = NULL WHERE event_seq = 1 AND webhook_id = 65`,
		`UPDATE relay.log SET data = '[]' WHERE event_seq = 2 AND webhook_id = 0`,
		`UPDATE outbox.events SET payload = replace(payload::text, 'x', 'y')::json WHERE seq = 3`,
		`UPDATE relay.webhooks SET state = 'deleted', version = 8 WHERE id = 65`,
		`UPDATE relay.webhooks SET disabled_version = 9, version = 9 WHERE id = 2`,
	} {
		r.exec(damage)
	}
	found := r.read(relay.AllShards, 1<<20)
	if got := keys(found); got != allRouted {
		t.Fatalf("found %s, want %s", got, allRouted)
	}
	var got []string
	for i := range found {
		d := &found[i]
		switch {
		case d.Unreadable != nil:
			got = append(got, "unreadable")
		case d.Cancels != 0:
			got = append(got, fmt.Sprintf("cancelled by %d", d.Cancels))
		case d.Body == nil && !d.Unread:
			got = append(got, "changed")
		default:
			got = append(got, "whole")
		}
		if d.Body != nil && got[i] != "whole" {
			t.Errorf("%d/%d has a body although it is %s", d.Key.EventSeq, d.Key.WebhookID, got[i])
		}
	}
	want := "unreadable unreadable unreadable unreadable unreadable unreadable changed cancelled by 9 cancelled by 8 whole cancelled by 9 cancelled by 8"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("they are %s,\nwant %s", text, want)
	}
}
