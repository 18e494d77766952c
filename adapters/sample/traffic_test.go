package sample_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/sample"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func run(t *testing.T, db *sql.DB, config sample.TrafficConfig) *sample.Traffic {
	t.Helper()
	config.DB = db
	config.Now = func() time.Time { return time.Date(2026, 7, 28, 10, 0, 0, 0, time.UTC) }
	traffic, err := sample.NewTraffic(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := traffic.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return traffic
}

type event struct {
	Account int64
	Name    string
	Payload string
}

func eventsIn(t *testing.T, db *sql.DB) []event {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT account_id, event, payload::text FROM outbox.events ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var events []event
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.Account, &e.Name, &e.Payload); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestTrafficCommitsWhatItCounts(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	counts := run(t, db, sample.TrafficConfig{Seed: 1, Events: 501}).Counts()
	events := eventsIn(t, db)
	if counts.Committed != 501 || len(events) != 501 {
		t.Errorf("%d events are counted, %d in the outbox, want 501", counts.Committed, len(events))
	}
	if counts.RolledBack == 0 {
		t.Error("no transaction was rolled back")
	}
	by := map[sample.AccountEvent]int{}
	names := map[string]int{}
	for _, e := range events {
		by[sample.AccountEvent{AccountID: e.Account, Event: e.Name}]++
		names[e.Name]++
	}
	for key, n := range by {
		if counts.By[key] != n {
			t.Errorf("%+v: %d are counted, %d in the outbox", key, counts.By[key], n)
		}
	}
	for _, name := range []string{
		"message_created", "message_updated", "conversation_created", "conversation_status_changed", "conversation_updated",
		"contact_created", "contact_updated", "conversation_typing_on", "conversation_typing_off",
	} {
		if names[name] == 0 {
			t.Errorf("no %s among %v", name, names)
		}
	}
}

func TestSameSeedSameTraffic(t *testing.T) {
	t.Parallel()
	traffic := func(seed uint64, writers int) []event {
		db := pgtest.New(t).SQL
		run(t, db, sample.TrafficConfig{Seed: seed, Events: 200, Writers: writers})
		return eventsIn(t, db)
	}
	sorted := func(events []event) []event {
		slices.SortFunc(events, func(a, b event) int { return strings.Compare(a.Name+a.Payload, b.Name+b.Payload) })
		return events
	}
	first := traffic(7, 1)
	if again := traffic(7, 1); !slices.Equal(first, again) {
		t.Error("the same seed writes something else")
	}
	if other := traffic(8, 1); slices.Equal(first, other) {
		t.Error("another seed writes the same")
	}
	// More writers change the order between conversations, nothing else.
	if parallel := traffic(7, 5); !slices.Equal(sorted(first), sorted(parallel)) {
		t.Error("five writers write something else")
	}
}

// The order of the outbox is the order in which it happened: the turns of each
// conversation and contact begin at 1, or behind the older ones, and have no
// gap.
func TestTurnsCountWithinConversations(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	run(t, db, sample.TrafficConfig{Seed: 3, Events: 600, Conversations: 6, Writers: 8})
	turns := map[string]int64{}
	for _, e := range eventsIn(t, db) {
		var payload struct {
			ID               json.Number
			CustomAttributes struct{ Turn int64 } `json:"custom_attributes"`
			Conversation     *struct {
				ID               json.Number
				CustomAttributes struct{ Turn int64 } `json:"custom_attributes"`
			}
		}
		if err := json.Unmarshal([]byte(e.Payload), &payload); err != nil {
			t.Fatalf("%s: %v", e.Payload, err)
		}
		key, turn := string(payload.ID), payload.CustomAttributes.Turn
		if payload.Conversation != nil {
			key, turn = string(payload.Conversation.ID), payload.Conversation.CustomAttributes.Turn
		}
		prefix, _, _ := strings.Cut(e.Name, "_")
		if prefix == "message" {
			prefix = "conversation"
		}
		key = fmt.Sprintf("%d/%s:%s", e.Account, prefix, key)
		if turn != turns[key]+1 {
			t.Errorf("%s of %s has turn %d after %d", e.Name, key, turn, turns[key])
		}
		turns[key] = turn
	}
	if len(turns) < 18 {
		t.Errorf("only %d conversations and contacts", len(turns))
	}
}

func TestTrafficGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	run(t, db, sample.TrafficConfig{Seed: 1, Events: 50})
	run(t, db, sample.TrafficConfig{Seed: 1, Events: 50})
	if n := len(eventsIn(t, db)); n != 100 {
		t.Errorf("%d events, want 100", n)
	}
}

func TestTrafficEndsWithItsContext(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	traffic, err := sample.NewTraffic(sample.TrafficConfig{DB: db, Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := traffic.Run(ctx); err != nil {
		t.Error(err)
	}
	if committed, n := traffic.Counts().Committed, len(eventsIn(t, db)); committed != n {
		t.Errorf("%d events are counted, %d in the outbox", committed, n)
	}
}

func TestTrafficKeepsItsRate(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	run(t, pgtest.New(t).SQL, sample.TrafficConfig{Seed: 1, Events: 60, Rate: 200})
	if took := time.Since(begun); took < 280*time.Millisecond {
		t.Errorf("60 events at 200/s took %s", took)
	}
}

func TestTrafficEndsAtAFailingTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	traffic, err := sample.NewTraffic(sample.TrafficConfig{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Run(t.Context()); err == nil {
		t.Error("it runs without Prepare")
	}
	if err := traffic.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `DROP TABLE chat.conversations`); err != nil {
		t.Fatal(err)
	}
	if err := traffic.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "chat.conversations") {
		t.Errorf("error is %v", err)
	}
}

func TestTrafficRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	for _, config := range []sample.TrafficConfig{{}, {DB: &sql.DB{}, Events: -1}, {DB: &sql.DB{}, Rate: -1}} {
		if _, err := sample.NewTraffic(config); err == nil {
			t.Errorf("%+v is accepted", config)
		}
	}
}
