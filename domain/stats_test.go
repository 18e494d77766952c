package domain_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestLatencyBucketsAreNearAndInOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		us     int64
		bucket int
	}{{0, 0}, {1, 1}, {31, 31}, {32, 32}, {33, 32}, {34, 33}, {63, 47}, {64, 48}, {127, 63}, {128, 64}, {1000, 111}, {86_400_000_000, 532}} {
		if got := domain.LatencyBucket(time.Duration(c.us) * time.Microsecond); got != c.bucket {
			t.Errorf("%d µs are in bucket %d, want %d", c.us, got, c.bucket)
		}
	}
	last, first := 0, int64(0)
	for us := int64(1); us < 100_000_000; us += 1 + us/1000 {
		bucket := domain.LatencyBucket(time.Duration(us) * time.Microsecond)
		switch {
		case bucket < last:
			t.Fatalf("%d µs are in bucket %d, below that of less", us, bucket)
		case bucket > last:
			last, first = bucket, us
		case float64(us-first) > float64(first)/16:
			t.Fatalf("bucket %d reaches from %d to %d µs", bucket, first, us)
		}
	}
}

func TestStatsCountWhatBeginsAndEnds(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 1, 12, 0, 0, 1500, time.UTC)
	later := at.Add(time.Hour)
	events := []domain.DeliveryEvent{
		domain.Scheduled{At: at},
		domain.AttemptStarted{At: at, Attempt: 1},
		domain.AttemptFailed{At: at, Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeFailed, Duration: 40 * time.Microsecond}},
		domain.Held{At: at}, domain.Released{At: at},
		domain.AttemptUnknown{At: at, Attempt: 2},
		domain.AttemptSucceeded{At: later, Attempt: 3, Outcome: domain.Outcome{Kind: domain.OutcomeSucceeded, Duration: 40*time.Microsecond + 999}},
		domain.Scheduled{At: at}, domain.Dead{At: at}, domain.Scheduled{At: at}, domain.Expired{At: at}, domain.Scheduled{At: at}, domain.Cancelled{At: at},
		domain.Scheduled{At: at},
		domain.AttemptFailed{At: at, Attempt: 1, Outcome: domain.Outcome{Kind: domain.OutcomeFailed, Duration: 999}},
	}
	var stats domain.Stats
	var standing domain.Standing
	counted := 0
	cases := map[string]bool{}
	for i, event := range events {
		cases[typeName(event)] = true
		if stats.Count(int64(100-i), event) {
			counted++
		}
		standing.Count(event)
	}
	if counted != 12 {
		t.Errorf("%d events count, want 12", counted)
	}
	if want := (domain.Stats{Scheduled: 5, Succeeded: 1, Failed: 2, Unknown: 1, Dead: 1, Expired: 1, Cancelled: 1, FirstSeq: 86, Latency: map[int]int64{36: 2}}); !reflect.DeepEqual(stats, want) {
		t.Errorf("statistics are %+v, want %+v", stats, want)
	}
	// As PostgreSQL keeps times: in microseconds.
	want := domain.Standing{
		LastSuccessAt: later.Truncate(time.Microsecond), LastFailureAt: at.Truncate(time.Microsecond), Failures: 1,
		FailingSince: at.Truncate(time.Microsecond), Pending: 1,
	}
	if standing != want {
		t.Errorf("the standing is %+v, want %+v", standing, want)
	}
	expectAll(t, implementers(t, "delivery.go", "deliveryEvent"), cases)
}
