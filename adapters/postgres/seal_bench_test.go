package postgres_test

import (
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// BenchmarkVerify verifies entries such as a relay writes, 300 in each group
// commit, on one server with nothing else to do.
func BenchmarkVerify(b *testing.B) {
	const commits, each = 2000, 300
	db := pgtest.New(b)
	log := postgres.NewLog(db.SQL)
	relayID, err := postgres.NewLeases(db.SQL).Register(b.Context(), "bench", "bench", true)
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for commit := range commits {
		changes := make([]relay.Change, each)
		for i := range changes {
			started := domain.EncodeDelivery(domain.AttemptStarted{At: at, Attempt: 1, WebhookVersion: 3, Timeout: 5 * time.Second})
			if i%2 == 1 {
				started = domain.EncodeDelivery(domain.AttemptSucceeded{At: at, Attempt: 1, Outcome: domain.Outcome{
					Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: 12345 * time.Microsecond, RemoteIP: "203.0.113.7"}})
			}
			changes[i] = relay.Change{Key: domain.DeliveryKey{EventSeq: int64(commit*each+i) / 2, WebhookID: domain.WebhookID(i%2 + 1)}, AccountID: 1, First: 2, Entries: []domain.Entry{started}}
		}
		if _, err := log.Record(b.Context(), relayID, changes); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := db.SQL.ExecContext(b.Context(), `VACUUM ANALYZE relay.log, relay.seals`); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		found, err := postgres.NewAudit(db.SQL).Verify(b.Context(), postgres.VerifyRange{}, func(int64, int64) {})
		if err != nil {
			b.Fatal(err)
		}
		if found.Entries != commits*each || found.Found != 0 {
			b.Fatalf("%+v", found)
		}
	}
	b.ReportMetric(float64(commits*each)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
