package postgres_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// deadEvent is a chat event of account 7 whose delivery to a new webhook died.
func deadEvent(t *testing.T, db *sql.DB) uuid.UUID {
	t.Helper()
	hook := change(t, postgres.NewWebhooks(db), 7, 0, register(t, "https://example.com/hook"))
	id := uuid.New()
	do(t, db, fmt.Sprintf(`
INSERT INTO outbox.events (account_id, event, payload, id) VALUES (7, 'message_created', '{}', '%s');
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id)
VALUES (1, 0, 0, 7, 1, 1, now(), 1, 'routed', '{"event":"message_created"}', 'routed', '%[1]s');
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
VALUES (1, %[2]d, 0, 7, 2, 1, now(), 1, 'scheduled', '{"webhook_version":1}', '%[1]s', gen_random_uuid());
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
VALUES (1, %[2]d, 0, 7, 3, 1, now(), 2, 'dead', '{}')`, id, hook.ID))
	return id
}

// TestWhoAsksIsOnRecordWithForWhom: behind the role that logged in, which no
// name and no setting hides.
func TestWhoAsksIsOnRecordWithForWhom(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	event := deadEvent(t, db.SQL)
	dsn, role := userOf(t, db, "", "outrider_web")
	web, err := postgres.Open(dsn, "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Close() })
	plans := postgres.NewReplayPlans(web)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const actor = "token 3 (CRM sync)"
	by := role + " for " + actor
	selection := domain.ReplaySelection{AccountID: 7, EventIDs: []uuid.UUID{event}}
	id, err := plans.Plan(t.Context(), actor, selection)
	must(id, err)
	must(nil, plans.Request(t.Context(), "token 4 (ops)", id, domain.ReplayRun{}))
	must(plans.Pause(t.Context(), actor, id))
	must(plans.Resume(t.Context(), "", id))
	must(plans.Cancel(t.Context(), "outrider_operator\nfor\tnobody\x00", id))
	got := texts(t, db.SQL, `SELECT type || ': ' || actor || CASE WHEN actor = data ->> 'actor' THEN '' ELSE ' – ' || (data ->> 'actor') END FROM relay.replay_log ORDER BY version`)
	want := []string{"planned: " + by, "requested: " + role + " for token 4 (ops)", "paused: " + by, "resumed: " + role, "cancelling: " + role + " for outrider_operator for nobody"}
	if !slices.Equal(got, want) {
		t.Errorf("on record is %q, want %q", got, want)
	}
	if replay, err := plans.Read(t.Context(), id); err != nil || replay.RequestedBy != role+" for token 4 (ops)" {
		t.Errorf("the replay was requested by %q, %v", replay.RequestedBy, err)
	}
	both, err := plans.PlanAndRequest(t.Context(), actor, selection, domain.ReplayRun{Rate: 5})
	must(both, err)
	if got := texts(t, db.SQL, fmt.Sprintf(`SELECT string_agg(actor, ', ' ORDER BY version) FROM relay.replay_log WHERE replay_id = %d`, both))[0]; got != by+", "+by {
		t.Errorf("both are by %q", got)
	}
	if rate := texts(t, db.SQL, fmt.Sprintf(`SELECT rate::text FROM relay.replays WHERE replay_id = %d`, both))[0]; rate != "5" {
		t.Errorf("its rate is %s", rate)
	}

	// A setting of a session is no other thing, and a long one ends.
	conn, err := web.Conn(t.Context())
	must(conn, err)
	_, err = conn.ExecContext(t.Context(), `SELECT set_config('outrider.actor', repeat('x', 300), false), relay.plan_replay(event_ids => $1)`, "{"+event.String()+"}")
	must(nil, err)
	must(nil, conn.Close())
	if got := texts(t, db.SQL, `SELECT requested_by FROM relay.replays ORDER BY replay_id DESC LIMIT 1`)[0]; got != role+" for "+strings.Repeat("x", 200) {
		t.Errorf("the last one was planned by %q", got)
	}

	// What a relay writes of itself is nobody's wish.
	do(t, db.SQL, `INSERT INTO relay.relays (name, version, recorder) VALUES ('host', '1', 0);
SELECT set_config('outrider.actor', 'somebody', true), relay.count_replay((SELECT relay_id FROM relay.relays), `+fmt.Sprint(both)+`)`)
	if got := texts(t, db.SQL, fmt.Sprintf(`SELECT actor FROM relay.replay_log WHERE replay_id = %d AND type = 'started'`, both)); len(got) != 1 || got[0] != "relay 1" {
		t.Errorf("it was started by %q", got)
	}

	hooks := postgres.NewWebhooks(web)
	test, err := hooks.RequestTest(t.Context(), 1, actor)
	must(test, err)
	if got := texts(t, db.SQL, fmt.Sprintf(`SELECT (e.metadata ->> 'requested_by') || ', ' || w.requested_by FROM outbox.events e JOIN relay.webhook_tests w ON w.event_seq = e.seq WHERE e.id = '%s'`, test)); len(got) != 1 || got[0] != by+", "+by {
		t.Errorf("the test was requested by %q", got)
	}

	// All of it can be read by the role that asked.
	listed, err := plans.List(t.Context(), 7, "", 0, 10)
	must(listed, err)
	if len(listed) != 3 {
		t.Fatalf("%d replays are listed", len(listed))
	}
	must(plans.Parts(t.Context(), both))
	must(plans.Estimate(t.Context(), &listed[1], 1))
}
