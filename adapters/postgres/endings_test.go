package postgres

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// erasing is an erasure of events that nobody has a delivery of.
type erasing struct {
	t     *testing.T
	db    *sql.DB
	store *Store
}

func newErasing(t *testing.T, events int) *erasing {
	t.Helper()
	e := &erasing{t: t, db: pgtest.New(t).SQL}
	e.store = NewStore(e.db)
	e.exec(`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{"id": 1}' FROM generate_series(1, $1::integer)`, events)
	e.exec(`
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
SELECT seq, 0, 0, 1, seq, 1, now(), 1, 'routed', '{}' FROM outbox.events`)
	e.exec(`SELECT relay.begin_erasure(1, '{}')`)
	return e
}

func (e *erasing) exec(query string, args ...any) {
	e.t.Helper()
	if _, err := e.db.ExecContext(e.t.Context(), query, args...); err != nil {
		e.t.Fatalf("%s: %v", query, err)
	}
}

// register begins a relay, and gives what lets it say what it has seen.
func (e *erasing) register(sends bool) (id int64, says func()) {
	e.t.Helper()
	id, err := NewLeases(e.db).Register(e.t.Context(), "test", "test", sends)
	if err != nil {
		e.t.Fatal(err)
	}
	return id, func() {
		e.t.Helper()
		endings, err := e.store.Endings(e.t.Context())
		if err == nil {
			err = e.store.EndingsSeen(e.t.Context(), id, endings)
		}
		if err != nil {
			e.t.Fatal(err)
		}
	}
}

const eraseQuery = `SELECT format('%s asked, %s erased, %s open, unattended: %s', asked, erased, open, unattended) FROM relay.erase(1, $1::bigint[])`

// erase erases some events, and checks what it says.
func (e *erasing) erase(want string, events ...int64) {
	e.t.Helper()
	var is string
	if err := e.db.QueryRowContext(e.t.Context(), eraseQuery, pq.Array(events)).Scan(&is); err != nil {
		e.t.Fatal(err)
	}
	if is != want {
		e.t.Errorf("it is %q, want %q", is, want)
	}
}

func TestErasingWaitsForEachRelayThatSends(t *testing.T) {
	t.Parallel()
	e := newErasing(t, 2)
	_, first := e.register(true)
	_, second := e.register(true)
	e.register(false)
	first() // of nothing yet
	second()
	e.erase("1 asked, 0 erased, 1 open, unattended: f", 1)
	first()
	e.erase("0 asked, 0 erased, 1 open, unattended: f", 1)
	third, _ := e.register(true) // it may have read what is to end, or not
	second()
	e.erase("0 asked, 0 erased, 1 open, unattended: f", 1)
	e.exec(`UPDATE relay.relays SET fenced_at = clock_timestamp() WHERE relay_id = $1`, third)
	e.erase("0 asked, 1 erased, 0 open, unattended: f", 1)

	// What they said counts for what they had seen.
	e.erase("1 asked, 0 erased, 1 open, unattended: f", 1, 2)
	e.erase("0 asked, 0 erased, 1 open, unattended: f", 1, 2)
	first()
	second()
	e.erase("0 asked, 1 erased, 0 open, unattended: f", 1, 2)
}

// TestErasingAndARelayThatComesBetween: it reads what is to end while that is
// asked for, and does not see it. What it says then counts for nothing.
func TestErasingAndARelayThatComesBetween(t *testing.T) {
	t.Parallel()
	e := newErasing(t, 1)
	tx, err := e.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var is string
	if err := tx.QueryRowContext(t.Context(), eraseQuery, pq.Array([]int64{1})).Scan(&is); err != nil {
		t.Fatal(err)
	}
	if is != "1 asked, 0 erased, 1 open, unattended: t" {
		t.Errorf("where nobody is there when it is asked for: %s", is)
	}
	_, says := e.register(true)
	says()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	e.erase("0 asked, 0 erased, 1 open, unattended: f", 1)
	says()
	e.erase("0 asked, 1 erased, 0 open, unattended: f", 1)
}

// TestErasingWhereNobodyIsThere: relays that gave no sign of life for long are
// not waited for.
func TestErasingWhereNobodyIsThere(t *testing.T) {
	t.Parallel()
	e := newErasing(t, 1)
	silent, _ := e.register(true)
	e.register(false)
	e.exec(`UPDATE relay.relays SET started_at = started_at - interval '11 s'`)
	e.exec(`INSERT INTO relay.heartbeats (relay_id, n, position, low, at) VALUES ($1, 1, 0, 0, clock_timestamp()), ($1, 2, 0, 0, clock_timestamp() - interval '11 s')`, silent)
	e.erase("1 asked, 0 erased, 1 open, unattended: t", 1)
	e.erase("0 asked, 1 erased, 0 open, unattended: t", 1)
}

// TestEndingsAreReadUpToAVersion: a relay does not say that it has seen what it
// had no room for.
func TestEndingsAreReadUpToAVersion(t *testing.T) {
	t.Parallel()
	e := newErasing(t, 5)
	e.erase("2 asked, 0 erased, 2 open, unattended: t", 4, 5)
	e.erase("1 asked, 0 erased, 1 open, unattended: t", 3)
	e.erase("2 asked, 0 erased, 2 open, unattended: t", 1, 2)
	for most, want := range map[int]relay.Endings{
		1: {Events: []int64{4}, Version: 0},
		2: {Events: []int64{4, 5}, Version: 1},
		3: {Events: []int64{4, 5, 3}, Version: 2},
		4: {Events: []int64{4, 5, 3, 1}, Version: 2},
		5: {Events: []int64{4, 5, 3, 1, 2}, Version: 3},
		9: {Events: []int64{4, 5, 3, 1, 2}, Version: 3},
	} {
		got, err := e.store.endings(t.Context(), most)
		if err != nil || !slices.Equal(got.Events, want.Events) || got.Version != want.Version {
			t.Errorf("with room for %d: %+v, %v, want %+v", most, got, err, want)
		}
	}
}

// TestEndingsAreHurriedInSomeShards, and those of other relays stay as they are.
func TestEndingsAreHurriedInSomeShards(t *testing.T) {
	t.Parallel()
	e := newErasing(t, 0)
	e.exec(`
INSERT INTO relay.due (event_seq, webhook_id, replay_id, version, kind, at, pos, key)
SELECT s, w, 0, 2, 'r', now() + interval '1 hour', s, 0 FROM generate_series(1, 9) s, generate_series(1, 4) w`)
	ids, err := e.store.HurryEndings(t.Context(), relay.Endings{Below: 5, Events: []int64{7}}, relay.ShardOf(1)|relay.ShardOf(3), time.Now())
	slices.Sort(ids)
	if want := []domain.WebhookID{1, 3}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("it made something due of %v, want %v; %v", ids, want, err)
	}
	var is string
	if err := e.db.QueryRowContext(t.Context(), `
SELECT string_agg(format('%s: %s', webhook_id, events), ', ' ORDER BY webhook_id)
  FROM (SELECT webhook_id, array_agg(event_seq ORDER BY event_seq) AS events FROM relay.due WHERE at <= now() + interval '1 minute' GROUP BY 1) d`).Scan(&is); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("1: %[1]s, 3: %[1]s", "{1,2,3,4,7}"); is != want {
		t.Errorf("due is %s, want %s", is, want)
	}
}
