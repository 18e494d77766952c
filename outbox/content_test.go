package outbox_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// No content that the table takes stops the tail: it is handed over as it is.
func TestOddContent(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	type row struct {
		account               int64
		event, payload, id    string
		ordering              *string
		occurred, metadata    string // "" for NULL
		wantNil, wantNoMeta   bool
		wantEvent, wantPrefix string // "" for the same
	}
	const maxBody = 64 << 10
	usual := row{account: 1, event: "message_created", payload: `{}`, id: uuid.NewString()}
	with := func(change func(*row)) row {
		r := usual
		r.id = uuid.NewString()
		change(&r)
		return r
	}
	var rows []row
	for _, payload := range []string{
		`{"text":"\u0000"}`, `{"a":1,"a":2}`, `{"event":"other"}`, "{ \"kept\" :\t[1.0, 1e2,\n-0] }", `"text"`, `17`, `null`, `true`, `[]`, `1e999999`,
		`{"text":"\ud83d\ude00 \u00e9 é"}`, strings.Repeat(`[`, 900) + strings.Repeat(`]`, 900), `"` + strings.Repeat("x", maxBody-2) + `"`,
	} {
		rows = append(rows, with(func(r *row) { r.payload = payload }))
	}
	noise := make([]byte, maxBody) // does not compress, and so is stored in another way
	_, _ = rand.Read(noise)
	for excess := range 2 {
		rows = append(rows, with(func(r *row) {
			r.payload, r.wantNil = `"`+base64.StdEncoding.EncodeToString(noise)[:maxBody-2+excess]+`"`, excess > 0
		}))
	}
	for _, payload := range []string{`"` + strings.Repeat("x", maxBody-1) + `"`, `"` + strings.Repeat("é", maxBody/2) + `"`, `{"text":"` + strings.Repeat("x", 3<<20) + `"}`} {
		rows = append(rows, with(func(r *row) { r.payload, r.wantNil = payload, true }))
	}
	for _, metadata := range []string{`{}`, `null`, `"text"`, `1`, `[1]`, `false`, `{"traceparent":"\u0000"}`, `{"traceparent":{}}`} {
		rows = append(rows, with(func(r *row) { r.metadata = metadata }))
	}
	rows = append(rows,
		with(func(r *row) { r.metadata, r.wantNoMeta = `"`+strings.Repeat("x", 1<<20)+`"`, true }),
		with(func(r *row) { r.occurred = "infinity" }),
		with(func(r *row) { r.occurred = "-infinity" }),
		with(func(r *row) { r.occurred = "4713-01-01 00:00:00+00 BC" }),
		with(func(r *row) { r.occurred = "294276-12-31 00:00:00+00" }),
		with(func(r *row) { r.account = math.MinInt64 }),
		with(func(r *row) { r.account = math.MaxInt64 }),
		with(func(r *row) { r.account = 0 }),
		with(func(r *row) { r.event = "" }),
		with(func(r *row) { r.event = "Not A Name\n'\"\\" }),
		with(func(r *row) { r.event, r.wantEvent = strings.Repeat("é", 100_000), strings.Repeat("é", 200) }),
		with(func(r *row) { r.ordering = text("") }),
		with(func(r *row) { r.ordering = text("conversation:1\n\t\x01'\"\\") }),
		with(func(r *row) {
			r.ordering, r.wantPrefix = text(strings.Repeat("é", 100_000)), strings.Repeat("é", 1000)
		}),
		with(func(r *row) { r.id = "" }),
		with(func(r *row) { r.id = "00000000-0000-0000-0000-000000000000" }),
		with(func(r *row) { r.id = "ffffffff-ffff-ffff-ffff-ffffffffffff" }),
	)

	for name, open := range map[string]func(*pgtest.DB) (*sql.DB, error){
		"as tests connect": func(d *pgtest.DB) (*sql.DB, error) { return sql.Open("postgres", d.DSN+"&binary_parameters=yes") },
		"as the relay connects": func(d *pgtest.DB) (*sql.DB, error) {
			return postgres.OpenRelay(d.DSN, "tail", &postgres.Identity{AllowUnsafe: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.New(t)
			pool, err := open(database)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = pool.Close() })
			null := func(s string) any {
				if s == "" {
					return nil
				}
				return s
			}
			for _, r := range rows {
				exec(t, database.SQL, `INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, occurred_at, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
					r.account, r.event, r.payload, null(r.id), r.ordering, null(r.occurred), null(r.metadata))
			}
			before := time.Now()
			tail := readTail(t, pool, func(c *outbox.TailConfig) { c.MaxBody = maxBody })
			for i, got := range tail.pass(t, len(rows)) {
				want := rows[i]
				if got.Seq != int64(i+1) || got.AccountID != domain.AccountID(want.account) {
					t.Fatalf("row %d is %d of account %d", i+1, got.Seq, got.AccountID)
				}
				if wantEvent := cmp.Or(want.wantEvent, want.event); got.Name != wantEvent {
					t.Errorf("row %d: the event is %.50q, want %.50q", got.Seq, got.Name, wantEvent)
				}
				if got.PayloadBytes != len(want.payload) || want.wantNil != (got.Payload == nil) || !want.wantNil && string(got.Payload) != want.payload {
					t.Errorf("row %d: the payload is %.50q of %d bytes, want %.50q", got.Seq, got.Payload, got.PayloadBytes, want.payload)
				}
				switch {
				case (got.OrderingKey == nil) != (want.ordering == nil):
					t.Errorf("row %d: the ordering key is %v, want %v", got.Seq, got.OrderingKey, want.ordering)
				case want.ordering != nil && *got.OrderingKey != cmp.Or(want.wantPrefix, *want.ordering):
					t.Errorf("row %d: the ordering key is %.50q, want %.50q", got.Seq, *got.OrderingKey, *want.ordering)
				}
				wantMetadata := []byte(want.metadata)
				if want.metadata == "" || want.wantNoMeta {
					wantMetadata = nil
				}
				if !bytes.Equal(got.Metadata, wantMetadata) || (got.Metadata == nil) != (wantMetadata == nil) {
					t.Errorf("row %d: the metadata is %.50q, want %.50q", got.Seq, got.Metadata, wantMetadata)
				}
				if wantID := cmp.Or(want.id, uuid.Nil.String()); got.ID.String() != wantID {
					t.Errorf("row %d: the id is %s, want %s", got.Seq, got.ID, wantID)
				}
				if got.InsertedAt.Sub(before).Abs() > time.Minute || got.DuplicateOf != 0 || got.ConfigVersion != 0 {
					t.Errorf("row %d: inserted at %v, duplicate of %d, configuration %d", got.Seq, got.InsertedAt, got.DuplicateOf, got.ConfigVersion)
				}
			}
			awaitRouted(t, database.SQL, len(rows))
			tail.close(t)
			checkAlone(t, database.SQL, tail.seen)
		})
	}
}

func TestConfigVersionOfTheSnapshot(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, `INSERT INTO relay.accounts (account_id, version) VALUES (1, 7), (3, 9)`)
	exec(t, db, `INSERT INTO outbox.events (account_id, event, payload) SELECT a, 'message_created', '{}' FROM unnest('{1, 2, 3}'::bigint[]) WITH ORDINALITY u (a, i) ORDER BY i`)
	tail := readTail(t, db, nil)
	msg, row := tail.take(t)
	// Changed after the batch's snapshot.
	exec(t, db, `UPDATE relay.accounts SET version = version + 1`)
	versions := []int64{row.ConfigVersion}
	decide(row)
	msg.Ack()
	for _, row := range tail.pass(t, 2) {
		versions = append(versions, row.ConfigVersion)
	}
	exec(t, db, insertSome, 1)
	versions = append(versions, tail.pass(t, 1)[0].ConfigVersion)
	if !slices.Equal(versions, []int64{7, 0, 9, 8}) {
		t.Errorf("the configuration versions are %v", versions)
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	a, b, c := uuid.New(), uuid.New(), uuid.New()
	insert := func(account int64, id any) {
		t.Helper()
		exec(t, db, `INSERT INTO outbox.events (account_id, event, payload, id) VALUES ($1, 'message_created', '{}', $2)`, account, id)
	}
	var now time.Time
	tail := readTail(t, db, func(config *outbox.TailConfig) {
		config.Now = func() time.Time { return now }
		config.DuplicateWindow = time.Hour
		config.BatchRows = 4
	})
	start := time.Now()
	now = start
	// check passes the rows as batches of four and compares what they repeat.
	check := func(what string, quarantine func(*outbox.Row) bool, want ...int64) {
		t.Helper()
		var got []int64
		for range want {
			msg, row := tail.take(t)
			got = append(got, row.DuplicateOf)
			decide(row)
			if quarantine != nil && quarantine(row) {
				row.Routed.Kind, row.Routed.Reason = domain.RoutingQuarantined, "test"
			}
			msg.Ack()
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: duplicates of %v, want %v", what, got, want)
		}
		awaitRouted(t, db, scan[int](t, db, `SELECT count(*) FROM outbox.events`))
	}
	tx := begin(t, db)
	for _, id := range []any{a, a, b, nil} { // 1 to 4
		exec(t, tx, `INSERT INTO outbox.events (account_id, event, payload, id) VALUES (1, 'message_created', '{}', $1)`, id)
	}
	commit(t, tx)
	// Within a batch the handler finds them.
	check("within a batch", func(row *outbox.Row) bool { return row.ID == b }, 0, 0, 0, 0)
	insert(1, a)   // 5
	insert(2, a)   // 6: another account
	insert(1, b)   // 7: the first was quarantined
	insert(1, nil) // 8
	check("across batches", nil, 1, 0, 0, 0)
	insert(1, b) // 9: repeats the second
	insert(1, a) // 10
	insert(2, a) // 11
	insert(1, c) // 12
	check("again", nil, 7, 1, 6, 0)

	// Two hours later only what the newest half is from is remembered.
	tail.close(t)
	now = start.Add(2 * time.Hour)
	tail = readTail(t, db, func(config *outbox.TailConfig) {
		config.Now = func() time.Time { return now }
		config.DuplicateWindow = time.Hour
		config.BatchRows = 4
	})
	insert(1, a) // 13
	insert(1, c) // 14: its first, 12, was the last of the time before
	check("beyond the window", nil, 0, 0)
	insert(1, a) // 15
	insert(1, c) // 16
	check("within the window again", nil, 13, 14)
	tail.close(t)
	checkAlone(t, db, tail.seen)
}

// A tail that has little to do looks for duplicates by another statement. On a
// server of its own no other transaction keeps the tail from using it.
func TestDuplicatesWhereLittleComes(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, nil)).SQL
	tail := readTail(t, db, nil)
	ids := []uuid.UUID{uuid.New(), uuid.New()}
	want := []int64{0, 0, 1, 2, 1, 0}
	for i, id := range []uuid.UUID{ids[0], ids[1], ids[0], ids[1], ids[0], ids[0]} {
		account := 1
		if i == len(want)-1 {
			account = 2
		}
		exec(t, db, `INSERT INTO outbox.events (account_id, event, payload, id) VALUES ($1, 'message_created', '{}', $2)`, account, id)
		if row := tail.pass(t, 1)[0]; row.DuplicateOf != want[i] {
			t.Errorf("row %d repeats %d, want %d", row.Seq, row.DuplicateOf, want[i])
		}
		awaitRouted(t, db, i+1)
	}
	tail.close(t)
}
