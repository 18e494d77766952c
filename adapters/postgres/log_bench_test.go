package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// BenchmarkRecord records starts and outcomes, as many in each group commit as a
// relay has that answers single events, waits for receivers, and meets a backlog.
// The server does not wait for its disk.
func BenchmarkRecord(b *testing.B) {
	for _, each := range []int{1, 28, 300} {
		b.Run(fmt.Sprint(each), func(b *testing.B) {
			db, err := postgres.OpenRelay(pgtest.New(b).DSN, "bench", &postgres.Identity{AllowUnsafe: true})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			log := postgres.NewLog(db)
			relayID, err := postgres.NewLeases(db).Register(b.Context(), "bench", "bench", true)
			if err != nil {
				b.Fatal(err)
			}
			at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
			started := domain.EncodeDelivery(domain.AttemptStarted{At: at, Attempt: 1, WebhookVersion: 3, Timeout: 5 * time.Second})
			succeeded := domain.EncodeDelivery(domain.AttemptSucceeded{At: at, Attempt: 1, Outcome: domain.Outcome{
				Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: 12345 * time.Microsecond, RemoteIP: "203.0.113.7"}})
			n := 0
			for b.Loop() {
				changes := make([]relay.Change, each)
				for i := range changes {
					entry := started
					if n%2 == 1 {
						entry = succeeded
					}
					changes[i] = relay.Change{Key: domain.DeliveryKey{EventSeq: int64(n / 2), WebhookID: 1}, AccountID: 1, First: 2 + n%2, Entries: []domain.Entry{entry}}
					n++
				}
				if _, err := log.Record(b.Context(), relayID, changes); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/entry")
		})
	}
}
