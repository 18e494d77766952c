package outbox_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// sqlState is PostgreSQL's code for an error, "" for none.
func sqlState(err error) string {
	var pg *pq.Error
	if errors.As(err, &pg) {
		return string(pg.Code)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestWriter(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	text := func(s string) *string { return &s }
	given := uuid.New()
	occurred := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	events := []outbox.Event{
		{AccountID: 1, Name: "message_created", Payload: json.RawMessage(`{ "id": 1 }`)},
		{AccountID: 2, Name: "message_updated", Payload: json.RawMessage(`{}`), ID: given, OrderingKey: text(""), OccurredAt: occurred, Metadata: json.RawMessage(`[1]`)},
		{AccountID: 3, Name: "it's \"odd\"", Payload: json.RawMessage(`"\u0000"`), OrderingKey: text("it's odd")},
	}
	tx := begin(t, db)
	ids, err := outbox.Writer{}.Write(t.Context(), tx, events...)
	if err != nil {
		t.Fatal(err)
	}
	if n := scan[int](t, db, `SELECT count(*) FROM outbox.events`); n != 0 {
		t.Errorf("%d rows are there before the commit", n)
	}
	commit(t, tx)
	if len(ids) != 3 || ids[1] != given || ids[0].Version() != 7 || ids[2].Version() != 7 || ids[0] == ids[2] {
		t.Fatalf("the ids are %v", ids)
	}

	tail := readTail(t, db, nil)
	for i, row := range tail.pass(t, 3) {
		want := events[i]
		if row.AccountID != want.AccountID || row.Name != want.Name || string(row.Payload) != string(want.Payload) || row.ID != ids[i] || string(row.Metadata) != string(want.Metadata) {
			t.Errorf("event %d came as %+v, want %+v", i, row, want)
		}
		if got, want := row.OrderingKey, want.OrderingKey; (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("event %d: the ordering key is %v, want %v", i, got, want)
		}
	}
	if got := scan[sql.NullTime](t, db, `SELECT occurred_at FROM outbox.events WHERE id = $1`, given); !got.Time.Equal(occurred) {
		t.Errorf("occurred_at is %v, want %v", got, occurred)
	}
	if n := scan[int](t, db, `SELECT count(*) FROM outbox.events WHERE occurred_at IS NULL AND metadata IS NULL`); n != 2 {
		t.Errorf("%d rows have neither occurred_at nor metadata", n)
	}
}

func TestWriterWritesManyInOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for _, n := range []int{0, 1, 1000, 2500} {
		events := make([]outbox.Event, n)
		for i := range events {
			events[i] = outbox.Event{AccountID: domain.AccountID(n), Name: "message_created", Payload: json.RawMessage(fmt.Sprintf(`{"id":%d}`, i))}
		}
		tx := begin(t, db)
		ids, err := outbox.Writer{}.Write(t.Context(), tx, events...)
		if err != nil {
			t.Fatal(err)
		}
		commit(t, tx)
		var got []string
		if err := db.QueryRowContext(t.Context(), `SELECT array_agg(id::text || ' ' || payload ORDER BY seq) FROM outbox.events WHERE account_id = $1`, n).Scan(pq.Array(&got)); err != nil {
			t.Fatal(err)
		}
		var want []string
		for i, id := range ids {
			want = append(want, id.String()+" "+string(events[i].Payload))
		}
		if len(ids) != n || !slices.Equal(got, want) {
			t.Errorf("of %d events %d ids are given and %d rows found, in order: %t", n, len(ids), len(got), slices.Equal(got, want))
		}
	}
}

func TestWriterRolledBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	tail := startTail(t, db, nil)
	tx := begin(t, db)
	if _, err := (outbox.Writer{}).Write(t.Context(), tx, outbox.Event{AccountID: 1, Name: "message_created", Payload: json.RawMessage(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	for name, event := range map[string]outbox.Event{
		"no payload":         {AccountID: 1, Name: "message_created"},
		"a payload not JSON": {AccountID: 1, Name: "message_created", Payload: json.RawMessage(`{`)},
		"metadata not JSON":  {AccountID: 1, Name: "message_created", Payload: json.RawMessage(`{}`), Metadata: json.RawMessage{}},
	} {
		tx := begin(t, db)
		if ids, err := (outbox.Writer{}).Write(t.Context(), tx, event); err == nil || ids != nil {
			t.Errorf("%s: ids %v, error %v", name, ids, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, db, insertSome, 1)
	awaitRouted(t, db, 1)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
	if n := scan[int](t, db, `SELECT count(*) FROM outbox.events`); n != 1 {
		t.Errorf("the outbox has %d rows", n)
	}
}

// as opens the database as a new role that is a member of the group.
func as(t *testing.T, database *pgtest.DB, role, group string) *sql.DB {
	t.Helper()
	exec(t, database.SQL, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' IN ROLE %s`, role, group))
	dsn, err := url.Parse(database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(role, "secret")
	db, err := sql.Open("postgres", dsn.String()+"&binary_parameters=yes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestRights(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil) // roles belong to it
	t.Run("producer", func(t *testing.T) { producerRights(t, pgtest.NewOn(t, server)) })
	t.Run("relay", func(t *testing.T) { relayRights(t, pgtest.NewOn(t, server)) })
}

func producerRights(t *testing.T, database *pgtest.DB) {
	t.Helper()
	exec(t, database.SQL, insertSome, 1)
	db := as(t, database, "chat", "outrider_producer")
	// Each in a transaction that is rolled back.
	try := func(statement string) string {
		t.Helper()
		tx := begin(t, db)
		_, err := tx.ExecContext(t.Context(), statement)
		if rollback := tx.Rollback(); rollback != nil {
			t.Fatal(rollback)
		}
		return sqlState(err)
	}

	for _, statement := range []string{
		`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`,
		`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}') RETURNING id, seq`,
		`INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata) VALUES (1, 'message_created', '{}', gen_random_uuid(), 'k', now(), '{}')`,
		`INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata) VALUES (1, 'message_created', '{}', NULL, NULL, NULL, NULL)`,
		`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' WHERE false`,
		`INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 3)`,
		`SELECT id, seq FROM outbox.events`,
		`SELECT outbox.publish(1, 'message_created', '{}')`,
		`SELECT outbox.publish(account_id => 1, event => 'message_created', payload => '{}', id => NULL, ordering_key => '', occurred_at => now(), metadata => '[]')`,
		`SELECT outbox.contract_version()`,
		// Nothing of theirs changes what the table's functions mean.
		`SET LOCAL search_path = pg_temp, pg_catalog; CREATE TEMP TABLE events (id uuid); CREATE TEMP TABLE wake (last_value text); INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}'); SELECT outbox.publish(1, 'message_created', '{}')`,
		`SET LOCAL search_path = ''; INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`,
		`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`,
	} {
		if state := try(statement); state != "" {
			t.Errorf("%s: %s", statement, state)
		}
	}

	const refused = "42501" // insufficient_privilege
	for statement, want := range map[string]string{
		`SELECT payload FROM outbox.events`:      refused,
		`SELECT * FROM outbox.events`:            refused,
		`SELECT account_id FROM outbox.events`:   refused,
		`SELECT id FROM outbox.events_0`:         refused,
		`SELECT id FROM outbox.events FOR SHARE`: refused,
		`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'e', '{}') RETURNING payload`:               refused,
		`INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'e', '{}') RETURNING xid`:                   refused,
		`INSERT INTO outbox.events (account_id, event, payload, xid) VALUES (1, 'e', '{}', '1')`:                       refused,
		`INSERT INTO outbox.events (account_id, event, payload, inserted_at) VALUES (1, 'e', '{}', now())`:             refused,
		`INSERT INTO outbox.events (account_id, event, payload, seq) VALUES (1, 'e', '{}', 1)`:                         "428C9", // generated_always
		`INSERT INTO outbox.events (account_id, event, payload, seq) OVERRIDING SYSTEM VALUE VALUES (1, 'e', '{}', 1)`: refused,
		`INSERT INTO outbox.events_net (account_id, event, payload) VALUES (1, 'e', '{}')`:                             refused,
		`UPDATE outbox.events SET event = 'e'`:                                                                         refused,
		`DELETE FROM outbox.events`:                                                                                    refused,
		`TRUNCATE outbox.events`:                                                                                       refused,
		`LOCK TABLE outbox.events IN ACCESS EXCLUSIVE MODE`:                                                            refused,
		`ALTER TABLE outbox.events DISABLE TRIGGER ALL`:                                                                refused,
		`CREATE TABLE outbox.mine (id integer)`:                                                                        refused,
		`SELECT nextval('outbox.events_seq_seq')`:                                                                      refused,
		`SELECT setval('outbox.wake', 0)`:                                                                              refused,
		`SELECT nextval('outbox.wake')`:                                                                                refused,
		`SELECT * FROM relay.batches`:                                                                                  refused,
		`SELECT * FROM relay.webhooks`:                                                                                 refused,
		`SELECT relay.extend_partitions()`:                                                                             refused,
		`SELECT * FROM audit.events`:                                                                                   refused,
		`SET session_replication_role = replica`:                                                                       refused,
	} {
		if state := try(statement); state != want {
			t.Errorf("%s: %q, want %s", statement, state, want)
		}
	}

	// What an insert fails for: NULL where a value is required, and what the
	// type refuses.
	for values, want := range map[string]string{
		`NULL, 'e', '{}', NULL, NULL`:                "23502",
		`1, NULL, '{}', NULL, NULL`:                  "23502",
		`1, 'e', NULL, NULL, NULL`:                   "23502",
		`1, 'e', '{', NULL, NULL`:                    "22P02",
		`1, 'e', '', NULL, NULL`:                     "22P02",
		`1, 'e', '{}', 'x', NULL`:                    "22P02",
		`1, 'e', '{}', NULL, 'x'`:                    "22P02",
		`9223372036854775808, 'e', '{}', NULL, NULL`: "22003",
		`-1, '', 'null', NULL, 'null'`:               "",
		`1, repeat('x', 1000000), to_json(repeat('x', 1000000)), '00000000-0000-0000-0000-000000000000', to_json(repeat('x', 1000000))`: "",
	} {
		if state := try(`INSERT INTO outbox.events (account_id, event, payload, id, metadata) VALUES (` + values + `)`); state != want {
			t.Errorf("insert %s: %q, want %q", values, state, want)
		}
	}

	// The id that publish returns is the row's; Writer needs no more rights.
	given := uuid.New()
	for _, id := range []any{nil, given.String()} {
		got := scan[string](t, db, `SELECT outbox.publish(7, 'message_created', '{"id":1}', id => $1::uuid)`, id)
		if id != nil && got != id {
			t.Errorf("publish gave id %s for %s", got, id)
		}
		row := scan[string](t, database.SQL, `SELECT concat_ws(' ', account_id, event, payload, ordering_key IS NULL) FROM outbox.events WHERE id = $1`, got)
		if row != `7 message_created {"id":1} t` {
			t.Errorf("publish inserted %s", row)
		}
	}
	tx := begin(t, db)
	if _, err := (outbox.Writer{}).Write(t.Context(), tx, outbox.Event{AccountID: 1, Name: "message_created", Payload: json.RawMessage(`{}`)}); err != nil {
		t.Error(err)
	}
	commit(t, tx)

	tail := startTail(t, database.SQL, nil)
	awaitRouted(t, database.SQL, 4)
	tail.stop(t)
	checkAlone(t, database.SQL, tail.seen)
}

// relayRights: the relay's own role can tail, nothing needs the owner's rights.
func relayRights(t *testing.T, database *pgtest.DB) {
	t.Helper()
	tail := startTail(t, as(t, database, "outrider_serve", "outrider_relay"), nil)
	exec(t, database.SQL, insertSome, 3)
	awaitRouted(t, database.SQL, 3)
	eventually(t, "the raised sequence", func() (bool, string) {
		return raised(t, database.SQL), strings.Join(errorTexts(tail.errors()), ", ")
	})
	tail.stop(t)
	checkAlone(t, database.SQL, tail.seen)
}

func errorTexts(errs []error) (texts []string) {
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return texts
}
