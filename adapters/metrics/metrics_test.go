package metrics_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-relay/outrider/adapters/metrics"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// watched gives the metrics of a relay in a state, on a database that answers
// with look.
func watched(t *testing.T, state relay.State, look metrics.Look) *metrics.Metrics {
	t.Helper()
	return watchedWith(t, state, relay.Share{}, look)
}

// watchedWith gives the metrics of one that has a part of the work.
func watchedWith(t *testing.T, state relay.State, share relay.Share, look metrics.Look) *metrics.Metrics {
	t.Helper()
	connector, err := pq.NewConnector("postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector) // connects to nothing
	t.Cleanup(func() { _ = db.Close() })
	return metrics.New(metrics.Config{Version: "v1", DB: db, State: func() relay.State { return state }, Share: func() relay.Share { return share }, Look: look})
}

func idle(context.Context) (metrics.Facts, error) { return metrics.Facts{}, nil }

// check compares some of what is shown with what should be.
func check(t *testing.T, m *metrics.Metrics, want string, names ...string) {
	t.Helper()
	var kept strings.Builder
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	// Help and type are told elsewhere: here only values are compared.
	for _, family := range families {
		for _, name := range names {
			if family.GetName() == name {
				fmt.Fprintf(&kept, "# HELP %s %s\n# TYPE %s %s\n", name, family.GetHelp(), name, strings.ToLower(family.GetType().String()))
			}
		}
	}
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(kept.String()+want), names...); err != nil {
		t.Error(err)
	}
}

func TestEndsAreCounted(t *testing.T) {
	t.Parallel()
	m := watched(t, relay.Active, idle)
	m.Ended([]relay.Ended{
		{Outcome: domain.OutcomeSucceeded, Took: 20 * time.Millisecond, Arrived: true, Arrival: 3 * time.Second, Status: domain.DeliverySucceeded},
		{Outcome: domain.OutcomeSucceeded, Took: 20 * time.Millisecond, Status: domain.DeliverySucceeded}, // a replay
		{Outcome: domain.OutcomeFailed, Class: domain.ErrorTimeout, Took: 5 * time.Second},
		{Outcome: domain.OutcomeFailed, Class: "new", Took: time.Second, Status: domain.DeliveryDead},
		{Outcome: domain.OutcomeUnknown},
		{Status: domain.DeliveryCancelled},
		{},
	})
	check(t, m, `
outrider_attempts_total{error_class="body",outcome="failed"} 0
outrider_attempts_total{error_class="connect",outcome="failed"} 0
outrider_attempts_total{error_class="dns",outcome="failed"} 0
outrider_attempts_total{error_class="none",outcome="succeeded"} 2
outrider_attempts_total{error_class="none",outcome="unknown"} 1
outrider_attempts_total{error_class="other",outcome="failed"} 1
outrider_attempts_total{error_class="refused_address",outcome="failed"} 0
outrider_attempts_total{error_class="reset",outcome="failed"} 0
outrider_attempts_total{error_class="status",outcome="failed"} 0
outrider_attempts_total{error_class="timeout",outcome="failed"} 1
outrider_attempts_total{error_class="tls",outcome="failed"} 0
outrider_deliveries_ended_total{status="cancelled"} 1
outrider_deliveries_ended_total{status="dead"} 1
outrider_deliveries_ended_total{status="expired"} 0
outrider_deliveries_ended_total{status="succeeded"} 2
`, "outrider_attempts_total", "outrider_deliveries_ended_total")
	for name, want := range map[string]uint64{"outrider_arrival_seconds": 1, "outrider_attempt_duration_seconds": 4} {
		if got := observations(t, m, name); got != want {
			t.Errorf("%s has %d observations, want %d", name, got, want)
		}
	}
}

func observations(t *testing.T, m *metrics.Metrics, name string) uint64 {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func TestGroupCommitsAreCounted(t *testing.T) {
	t.Parallel()
	m := watched(t, relay.Active, idle)
	for _, err := range []error{nil, relay.ErrFenced, fmt.Errorf("record: %w", relay.ErrConflict), relay.ErrRefused, errors.New("broken pipe"), context.DeadlineExceeded} {
		m.Recorded(10, time.Millisecond, err)
	}
	check(t, m, `
outrider_recording_failures_total{reason="conflict"} 1
outrider_recording_failures_total{reason="connection"} 2
outrider_recording_failures_total{reason="fenced"} 1
outrider_recording_failures_total{reason="refused"} 1
`, "outrider_recording_failures_total")
	if got := observations(t, m, "outrider_recording_steps"); got != 6 {
		t.Errorf("%d group commits, want 6", got)
	}
}

func TestStateShareAndSignOfLife(t *testing.T) {
	t.Parallel()
	m := watchedWith(t, relay.Active, relay.Share{Shards: 0xff0000000000000f, Tail: true}, idle)
	check(t, m, `
outrider_relay_sends 1
outrider_relay_state{state="active"} 1
outrider_relay_state{state="standby"} 0
outrider_relay_state{state="starting"} 0
outrider_relay_state{state="stopped"} 0
outrider_shards 12
outrider_tails 1
`, "outrider_relay_state", "outrider_relay_sends", "outrider_shards", "outrider_tails", "outrider_sign_of_life_age_seconds")
	m = watched(t, relay.Starting, idle)
	m.Beat(time.Now()) // of before it lost the database
	check(t, m, `
outrider_relay_state{state="active"} 0
outrider_relay_state{state="standby"} 0
outrider_relay_state{state="starting"} 1
outrider_relay_state{state="stopped"} 0
outrider_shards 0
outrider_tails 0
`, "outrider_relay_state", "outrider_shards", "outrider_tails", "outrider_sign_of_life_age_seconds")
	for _, state := range []relay.State{relay.Active, relay.Standby} {
		m := watched(t, state, idle)
		m.Beat(time.Now().Add(-time.Hour))
		if age := gauge(t, m, "outrider_sign_of_life_age_seconds"); age < 3600 || age > 7200 {
			t.Errorf("a sign of life an hour ago of one that is %s is %v s old", state, age)
		}
	}
}

func gauge(t *testing.T, m *metrics.Metrics, name string) float64 {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// However often it is asked, the database is not.
func TestTheDatabaseIsAskedOnce(t *testing.T) {
	t.Parallel()
	asked := 0
	m := watched(t, relay.Active, func(ctx context.Context) (metrics.Facts, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a look-up may take for ever")
		}
		asked++
		return metrics.Facts{LagRows: 7, Lag: 90 * time.Second, Retries: 1, Held: 2, Paused: 3, Overflow: 4, Overdue: time.Second, Ahead: 2, Room: 10, OutboxNet: 5, LogNet: 6}, nil
	})
	for range 20 {
		check(t, m, `
outrider_database_up 1
outrider_due_deliveries{kind="held"} 2
outrider_due_deliveries{kind="overflow"} 4
outrider_due_deliveries{kind="paused"} 3
outrider_due_deliveries{kind="retry"} 1
outrider_due_overdue_seconds 1
outrider_lag_rows 7
outrider_lag_seconds 90
outrider_net_rows{table="log"} 6
outrider_net_rows{table="outbox"} 5
outrider_partition_room_rows 10
outrider_partitions_ahead 2
`, "outrider_database_up", "outrider_due_deliveries", "outrider_due_overdue_seconds", "outrider_lag_rows", "outrider_lag_seconds",
			"outrider_net_rows", "outrider_partition_room_rows", "outrider_partitions_ahead")
	}
	if most := 10; asked == 0 || asked > most { // 40 scrapes; a slow machine may take some times 5 s for them
		t.Errorf("the database was asked %d times", asked)
	}
}

func TestASilentDatabase(t *testing.T) {
	t.Parallel()
	m := watched(t, relay.Active, func(context.Context) (metrics.Facts, error) { return metrics.Facts{}, errors.New("refused") })
	m.Load(relay.Load{InFlight: 3})
	check(t, m, `
outrider_attempts_in_flight 3
outrider_database_up 0
`, "outrider_database_up", "outrider_attempts_in_flight", "outrider_lag_rows")
}

func TestBreakersAreCountedByState(t *testing.T) {
	t.Parallel()
	m := watched(t, relay.Active, idle)
	m.Load(relay.Load{Open: 2, HalfOpen: 1})
	check(t, m, `
outrider_breakers{state="half_open"} 1
outrider_breakers{state="open"} 2
`, "outrider_breakers")
}

func TestNamesFollowTheConventions(t *testing.T) {
	t.Parallel()
	m := watched(t, relay.Active, idle)
	m.Beat(time.Now())
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "outrider_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
}

// What is told for each event must not be garbage to be collected.
//
//nolint:paralleltest // AllocsPerRun does not run beside others
func TestTellingAllocatesNothing(t *testing.T) {
	m := watched(t, relay.Active, idle)
	ends := []relay.Ended{
		{Outcome: domain.OutcomeSucceeded, Took: time.Millisecond, Arrived: true, Arrival: time.Second, Status: domain.DeliverySucceeded},
		{Outcome: domain.OutcomeFailed, Class: domain.ErrorStatus, Took: time.Millisecond},
	}
	row := &outbox.Row{Routed: domain.Routed{Routing: domain.Routing{Kind: domain.RoutingRouted}}}
	batch := &outbox.Batch{Rows: []*outbox.Row{row, row, row}}
	if n := testing.AllocsPerRun(100, func() {
		m.Ended(ends)
		m.Routed(batch, time.Millisecond)
		m.Recorded(100, time.Millisecond, nil)
		m.Load(relay.Load{InFlight: 1})
	}); n != 0 {
		t.Errorf("%v objects are allocated", n)
	}
}
