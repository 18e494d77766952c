package web_test

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// loopback lets webhooks be on this machine.
var loopback = domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// hook registers a webhook.
func (s *site) hook(t *testing.T, account domain.AccountID, name, url string) domain.WebhookID {
	t.Helper()
	hook, _, err := s.hooks.Change(t.Context(), account, 0, "test", domain.RegisterWebhook{
		Settings: domain.Settings{URL: url, Name: name}, Secret: domain.NewSecret([32]byte{1}), Addresses: loopback,
	})
	if err != nil {
		t.Fatal(err)
	}
	return hook.ID
}

// story is a chat event whose history a test writes itself.
type story struct {
	t       *testing.T
	s       *site
	account domain.AccountID
	id      uuid.UUID
	seq     int64
	pos     int64
	begun   time.Time
	version map[domain.DeliveryKey]int
}

// story inserts a chat event that was routed to webhooks.
func (s *site) story(t *testing.T, account domain.AccountID, event, key string, targets ...domain.WebhookID) *story {
	t.Helper()
	st := &story{t: t, s: s, account: account, id: uuid.New(), begun: time.Now().UTC().Add(-time.Minute), version: map[domain.DeliveryKey]int{}}
	err := s.db.SQL.QueryRowContext(t.Context(), `INSERT INTO outbox.events (account_id, event, payload, id, metadata, inserted_at) VALUES ($1, $2, '{"id":1,"content":"secret of the chat"}', $3, '{"from":"<i>me</i>"}', $4) RETURNING seq`,
		int64(account), event, st.id.String(), st.begun).Scan(&st.seq)
	if err != nil {
		t.Fatal(err)
	}
	st.pos = st.seq << 20
	r := domain.Routed{Routing: domain.Routing{Kind: domain.RoutingRouted}, EventName: event, OrderingKey: key, ConfigVersion: 1, BodyBytes: 1200}
	for _, id := range targets {
		r.Targets = append(r.Targets, domain.Target{WebhookID: id, Version: 1})
	}
	r.Skips = []domain.Skip{{WebhookID: 99, Reason: domain.SkipDisabled}}
	st.write(domain.DeliveryKey{EventSeq: st.seq}, domain.Entry{Type: domain.TypeRouted, At: st.at(2 * time.Millisecond), Data: domain.EncodeRouted(r)}, uuid.Nil)
	return st
}

// at is a time counted from the insert.
func (st *story) at(d time.Duration) time.Time { return st.begun.Add(d) }

func (st *story) write(key domain.DeliveryKey, entry domain.Entry, delivery uuid.UUID) {
	st.t.Helper()
	st.pos++
	st.version[key]++
	var event, id sql.NullString
	if st.version[key] == 1 {
		event = sql.NullString{String: st.id.String(), Valid: true}
	}
	if delivery != uuid.Nil {
		id = sql.NullString{String: delivery.String(), Valid: true}
	}
	st.s.exec(st.t, `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing)
VALUES ($1, $2, $3, $4, $5, 7, $6, $7, $8, $9, $10, $11, $9::json ->> 'routing')`,
		key.EventSeq, int64(key.WebhookID), int64(key.ReplayID), int64(st.account), st.pos, entry.At, st.version[key], entry.Type, string(entry.Data), event, id)
	if entry.Excerpt != "" {
		st.s.exec(st.t, `INSERT INTO relay.responses (event_seq, webhook_id, replay_id, version, account_id, salt, excerpt) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			key.EventSeq, int64(key.WebhookID), int64(key.ReplayID), st.version[key], int64(st.account), entry.Salt[:], entry.Excerpt)
	}
}

// delivered writes events of a delivery, and gives its id.
func (st *story) delivered(webhook domain.WebhookID, events ...domain.DeliveryEvent) uuid.UUID {
	st.t.Helper()
	key := domain.DeliveryKey{EventSeq: st.seq, WebhookID: webhook}
	id := domain.NewDeliveryID(domain.NewNotificationID(st.account, st.id, webhook), st.seq, 0)
	for _, event := range events {
		first := uuid.Nil
		if _, is := event.(domain.Scheduled); is {
			first = id
		}
		st.write(key, domain.EncodeDelivery(event), first)
	}
	return id
}

func (st *story) scheduled() domain.DeliveryEvent {
	return domain.Scheduled{At: st.at(2 * time.Millisecond), Deadline: st.at(time.Hour), WebhookVersion: 1}
}

func (st *story) started(n int, previous domain.OutcomeKind) domain.DeliveryEvent {
	return domain.AttemptStarted{At: st.at(time.Duration(n) * time.Second), Attempt: n, WebhookVersion: 1, PreviousOutcome: previous, Timeout: 5 * time.Second}
}

func (st *story) succeeded(n int) domain.DeliveryEvent {
	return domain.AttemptSucceeded{At: st.at(time.Duration(n)*time.Second + 12*time.Millisecond), Attempt: n, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: 12 * time.Millisecond, RemoteIP: "127.0.0.1"}}
}

func (st *story) failed(n int, detail, excerpt string) domain.DeliveryEvent {
	o := domain.Outcome{Kind: domain.OutcomeFailed, StatusCode: 503, Class: domain.ErrorStatus, Detail: detail, Duration: 48 * time.Millisecond, RemoteIP: "127.0.0.1", Excerpt: excerpt}
	return domain.AttemptFailed{At: st.at(time.Duration(n)*time.Second + 48*time.Millisecond), Attempt: n, Outcome: o.Digested([16]byte{1}), RetryAt: st.at(time.Duration(n+1) * time.Second)}
}

// relays runs a real relay until the test ends.
func (s *site) relays(t *testing.T) {
	t.Helper()
	db, err := postgres.OpenRelay(s.db.DSN, "test", &postgres.Identity{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := postgres.RegisterIdentity(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	clock := postgres.NewClock(db)
	if err := clock.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	sender, err := httpsend.New(httpsend.Config{UserAgentVersion: "test", Addresses: loopback, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	store, log, notices := postgres.NewStore(db), slog.New(slog.NewTextHandler(s.log, nil)), relay.NewNotices()
	r, err := relay.New(relay.Config{
		Name: "first", Version: "test", DB: db, Chain: postgres.NewChain(db), Log: postgres.NewLog(db), Store: store, Webhooks: postgres.NewWebhooks(db),
		Leases: postgres.NewLeases(db), Replays: postgres.NewReplays(db), Projection: postgres.NewProjection(db), Sender: sender,
		Partitions: store.ExtendPartitions, Notices: notices, Now: clock.Now, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.Run(ctx) }()
	go func() { ended <- postgres.Listen(ctx, s.db.DSN, notices, log) }()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("the relay ended: %v", err)
			}
		}
		sender.CloseIdle()
		_ = db.Close()
	})
}

// receiver answers 204, and tells what came.
func receiver(t *testing.T) (url string, came <-chan http.Header) {
	t.Helper()
	headers := make(chan http.Header, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, headers
}

// soon waits for something to come.
func soon[V any](t *testing.T, from <-chan V) V {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("it did not come")
		panic("unreachable")
	}
}

// eventually loads a page until it has a text.
func (b *browser) eventually(path, text string) page {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		p := b.get(path)
		if contains(p.body, text) || time.Now().After(deadline) {
			p.shows(b.t, http.StatusOK, text)
			return p
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-b.t.Context().Done():
			b.t.Fatal("the test ended")
		}
	}
}
