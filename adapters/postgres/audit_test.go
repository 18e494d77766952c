package postgres_test

import (
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// bulk writes the given number of events, routed to webhook 1 and delivered,
// but for the first, which waits.
func bulk(t *testing.T, db *pgtest.DB, n int) {
	t.Helper()
	for _, statement := range []string{
		`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, $1::integer)`,
		`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id)
		 SELECT seq, 0, 0, account_id, seq << 20, 1, inserted_at, 1, 'routed', '{"routing":"routed","event":"message_created"}', 'routed', id FROM outbox.events WHERE seq <= $1::integer`,
		`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id)
		 SELECT seq, 1, 0, account_id, (seq << 20) + 1, 1, inserted_at, 1, 'scheduled', '{"webhook_version":1}', id, gen_random_uuid() FROM outbox.events WHERE seq <= $1::integer`,
		`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
		 SELECT seq, 1, 0, account_id, (seq << 20) + 2, 1, inserted_at, 2, 'attempt_started', '{"attempt":1}' FROM outbox.events WHERE seq BETWEEN 2 AND $1::integer`,
		`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data)
		 SELECT seq, 1, 0, account_id, (seq << 20) + 3, 1, inserted_at, 3, 'attempt_succeeded', '{"attempt":1,"status_code":200}' FROM outbox.events WHERE seq BETWEEN 2 AND $1::integer`,
	} {
		if _, err := db.SQL.ExecContext(t.Context(), statement, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range []string{`ANALYZE outbox.events`, `ANALYZE relay.log`} {
		if _, err := db.SQL.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAuditSearchIsBounded: a status that no index leads to costs a bounded
// look, and the page says where to go on.
func TestAuditSearchIsBounded(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const events = 21_000
	bulk(t, db, events)
	history := postgres.NewAudit(db.SQL)

	first, err := history.Deliveries(t.Context(), audit.Filter{Status: string(domain.DeliveryPending), Limit: 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Records) != 0 || first.Next == nil || first.Searched < 20_000 || first.Searched >= events {
		t.Fatalf("the first page has %d records, %d searched, next %v", len(first.Records), first.Searched, first.Next)
	}
	place, err := audit.ParseCursor(audit.DeliveryList, first.Next.String())
	if err != nil || place != *first.Next {
		t.Errorf("the place is %v, want %v, error %v", place, *first.Next, err)
	}
	second, err := history.Deliveries(t.Context(), audit.Filter{Status: string(domain.DeliveryPending), Limit: 10}, &place)
	if err != nil || len(second.Records) != 1 || second.Records[0].EventSeq != 1 || second.Next != nil || second.Searched != 0 {
		t.Errorf("the second page is %+v, error %v", second, err)
	}

	// The other lists search in the same way; a shorter look shows it.
	const look, chunk = 1000, 1000
	attempts, err := history.Attempts(t.Context(), audit.Filter{Status: string(domain.OutcomeStarted), Limit: 10, Look: look}, nil)
	if err != nil || len(attempts.Records) != 0 || attempts.Next == nil || attempts.Searched < look || attempts.Searched > look+chunk {
		t.Errorf("attempts: %d records, %d searched, next %v, error %v", len(attempts.Records), attempts.Searched, attempts.Next, err)
	}
	none, err := history.Events(t.Context(), audit.Filter{Status: string(domain.RoutingNoSubscriber), Limit: 10, Look: look}, nil)
	if err != nil || len(none.Records) != 0 || none.Next == nil || none.Searched < look || none.Searched > look+chunk {
		t.Errorf("events: %d records, %d searched, next %v, error %v", len(none.Records), none.Searched, none.Next, err)
	}
	// What is found at once is not searched for.
	page, err := history.Attempts(t.Context(), audit.Filter{Status: string(domain.OutcomeSucceeded), Limit: 10}, nil)
	if err != nil || len(page.Records) != 10 || page.Next == nil || page.Searched != 0 {
		t.Errorf("succeeded: %d records, %d searched, next %v, error %v", len(page.Records), page.Searched, page.Next, err)
	}
}
