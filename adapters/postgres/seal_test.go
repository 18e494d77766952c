package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// A log that does not know what became of its chain goes on where that ends:
// when another one wrote to it, and when the database lost the newest seals, as
// a restore to an earlier time does.
func TestSealsGoOnWhereTheChainEnds(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	relayID, err := postgres.NewLeases(db).Register(t.Context(), "test", "test", true)
	if err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	record := func(log *postgres.Log, entries ...domain.Entry) error {
		next++
		key := domain.DeliveryKey{EventSeq: next, WebhookID: 1}
		change := relay.Change{Key: key, AccountID: 1, First: 1, Entries: entries}
		if len(entries) == 0 {
			change.Waits = relay.Due{Key: key, Version: 1, Kind: relay.DueRetry, At: time.Now()}
		}
		_, err := log.Record(t.Context(), relayID, []relay.Change{change})
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	held := domain.Entry{Type: domain.TypeHeld, At: time.Now(), Data: []byte("{}")}
	one, other := postgres.NewLog(db), postgres.NewLog(db)
	for range 3 {
		must(record(one, held))
		must(record(other, held, held))
	}
	must(record(one)) // no entries, no seal
	if _, err := db.ExecContext(t.Context(), `
WITH s AS (DELETE FROM relay.seals WHERE chain = 'recorder' AND no > 4 RETURNING commit) DELETE FROM relay.log l USING s WHERE l.pos >> 20 = s.commit`); err != nil {
		t.Fatal(err)
	}
	must(record(other, held))
	must(record(one, held))
	// What is refused is not sealed, and nothing is missing for it.
	next -= 2
	if err := record(one, held); !errors.Is(err, relay.ErrConflict) {
		t.Errorf("an entry that is there already: %v", err)
	}
	if err := record(one, domain.Entry{Type: domain.TypeHeld, At: time.Now(), Data: []byte("{")}); !errors.Is(err, relay.ErrConflict) && !errors.Is(err, relay.ErrRefused) {
		t.Errorf("what is no JSON: %v", err)
	}
	next += 10
	must(record(one, held))
	var seals, highest int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*), max(no) FROM relay.seals WHERE chain = 'recorder' AND no > 0`).Scan(&seals, &highest); err != nil {
		t.Fatal(err)
	}
	if seals != 7 || highest != 7 {
		t.Errorf("the chain has %d seals, the last with number %d; want 7", seals, highest)
	}
	found, err := postgres.NewAudit(db).Verify(t.Context(), postgres.VerifyRange{}, nil)
	if err != nil || found.Found != 0 || found.Seals != 7 {
		t.Errorf("the verification finds %+v: %v", found, err)
	}
	// A fenced relay writes no seal.
	if _, err := db.ExecContext(t.Context(), `UPDATE relay.relays SET fenced_at = now()`); err != nil {
		t.Fatal(err)
	}
	if err := record(one, held); !errors.Is(err, relay.ErrFenced) {
		t.Errorf("a fenced relay: %v", err)
	}
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM relay.seals WHERE chain = 'recorder' AND no > 0`).Scan(&seals); err != nil || seals != 7 {
		t.Errorf("there are %d seals after a fenced relay's attempt: %v", seals, err)
	}
}
