package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/metrics"
	"github.com/outrider-relay/outrider/relay"
)

// scrape asks a process for its metrics as Prometheus does.
func (p *process) scrape(t *testing.T) (text []byte, families map[string]*dto.MetricFamily) {
	t.Helper()
	match := listenLine.FindStringSubmatch(p.log.String())
	if match == nil {
		t.Fatalf("it does not listen:\n%s", p.log)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+match[1]+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err = io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%d %v\n%s", response.StatusCode, err, text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if families, err = parser.TextToMetricFamilies(bytes.NewReader(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return text, families
}

// metricValue gives the sum of a metric's series that have the labels.
func metricValue(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	sum := -1.0
	for _, m := range families[name].GetMetric() {
		fits := true
		for _, want := range labels {
			fits = fits && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName()+"="+l.GetValue() == want })
		}
		if fits {
			sum = max(sum, 0) + m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// TestMetricsOfRelays scrapes two relays that did some work together, and one
// that has none.
func TestMetricsOfRelays(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			w.Header().Set("Retry-After", "3600") // however slow the machine is, one attempt
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	register(t, db.SQL, 1, receiver.URL, nil)
	register(t, db.SQL, 2, receiver.URL+"/down", nil)
	p := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	p.awaitShare(t, relay.ShardCount, true)
	other := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	other.awaitShare(t, relay.ShardCount/2, false)
	p.awaitShare(t, relay.ShardCount/2, true)
	idle := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	idle.awaitReady(t)
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 5)`)
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (2, 'message_created', '{}'), (1, 'no name', '{}'), (3, 'message_created', '{}')`)

	type sample struct {
		name   string
		labels []string
		want   float64
	}
	// Of both together, whichever has the webhooks.
	together := []sample{
		{"outrider_attempts_total", []string{"outcome=succeeded", "error_class=none"}, 5},
		{"outrider_attempts_total", []string{"outcome=failed", "error_class=status"}, 1},
		{"outrider_attempt_duration_seconds", nil, 6},
		{"outrider_arrival_seconds", nil, 5},
		{"outrider_deliveries_ended_total", []string{"status=succeeded"}, 5},
		{"outrider_deliveries_ended_total", []string{"status=dead"}, 0},
		{"outrider_events_routed_total", []string{"routing=routed"}, 6},
		{"outrider_events_routed_total", []string{"routing=quarantined"}, 1},
		{"outrider_events_routed_total", []string{"routing=no_subscriber"}, 1},
		{"outrider_shards", nil, relay.ShardCount},
		{"outrider_tails", nil, 1},
		{"outrider_recording_failures_total", nil, 0},
	}
	each := []sample{
		{"outrider_shards", nil, relay.ShardCount / 2},
		{"outrider_relay_state", []string{"state=active"}, 1},
		{"outrider_relay_state", []string{"state=standby"}, 0},
		{"outrider_relay_sends", nil, 1},
		{"outrider_database_up", nil, 1},
		{"outrider_due_deliveries", []string{"kind=retry"}, 1},
		{"outrider_due_deliveries", []string{"kind=held"}, 0},
		{"outrider_lag_rows", nil, 0},
		{"outrider_lag_seconds", nil, 0},
		{"outrider_attempts_in_flight", nil, 0},
		{"outrider_deliveries_waiting", nil, 0},
		{"outrider_batches_undispatched", nil, 0},
		{"outrider_webhooks_overflowing", nil, 0},
		{"outrider_net_rows", []string{"table=outbox"}, 0},
	}
	var text []byte
	var families, others map[string]*dto.MetricFamily
	until(t, "what was done", func() (bool, string) {
		text, families = p.scrape(t)
		_, others = other.scrape(t)
		for _, s := range together {
			if got := metricValue(families, s.name, s.labels...) + metricValue(others, s.name, s.labels...); got != s.want {
				return false, fmt.Sprintf("%s%v is %v of both, want %v", s.name, s.labels, got, s.want)
			}
		}
		for _, s := range each {
			got, also := metricValue(families, s.name, s.labels...), metricValue(others, s.name, s.labels...)
			if got != s.want || also != s.want {
				return false, fmt.Sprintf("%s%v is %v and %v, want %v", s.name, s.labels, got, also, s.want)
			}
		}
		return true, ""
	})
	for name, least := range map[string]float64{
		"outrider_batch_rows": 1, "outrider_batch_duration_seconds": 1, "outrider_recording_steps": 2, "outrider_recording_duration_seconds": 2,
		"outrider_partition_room_rows": 1_000_000, "outrider_partitions_ahead": 1, "go_sql_open_connections": 1, "go_goroutines": 10,
	} {
		if got := metricValue(families, name) + metricValue(others, name); got < least {
			t.Errorf("%s is %v of both, want %v at least", name, got, least)
		}
	}
	for _, f := range []map[string]*dto.MetricFamily{families, others} {
		if age := metricValue(f, "outrider_sign_of_life_age_seconds"); age < 0 || age > 60 {
			t.Errorf("the last sign of life is %v s old", age)
		}
	}

	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "outrider_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
	for _, secret := range []string{receiver.URL, strings.TrimPrefix(receiver.URL, "http://"), "account", `="1"`, `="2"`} {
		for name, family := range families {
			for _, m := range family.GetMetric() {
				for _, l := range m.GetLabel() {
					if strings.HasPrefix(name, "outrider_") && strings.Contains(l.GetName()+`="`+l.GetValue()+`"`, secret) {
						t.Errorf("%s has the label %s", name, l)
					}
				}
			}
		}
	}

	_, families = idle.scrape(t)
	if metricValue(families, "outrider_relay_state", "state=standby") != 1 || metricValue(families, "outrider_relay_state", "state=active") != 0 ||
		metricValue(families, "outrider_shards") != 0 || metricValue(families, "outrider_tails") != 0 || metricValue(families, "outrider_relay_sends") != 0 {
		t.Error("one that only routes while another tails does not say so")
	}
	p.signal(syscall.SIGTERM)
	until(t, "the take-over", func() (bool, string) {
		_, taken := other.scrape(t)
		_, routes := idle.scrape(t)
		tails := metricValue(taken, "outrider_tails") + metricValue(routes, "outrider_tails")
		return metricValue(taken, "outrider_shards") == relay.ShardCount && tails == 1, other.log.String() + idle.log.String()
	})
}

// Rows that wait are seen also where no relay routes them.
func TestMetricsOfLag(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	holder := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	holder.awaitReady(t)
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 3)`)
	until(t, "the routing", func() (bool, string) {
		_, families := holder.scrape(t)
		return metricValue(families, "outrider_events_routed_total", "routing=no_subscriber") == 3, ""
	})
	tx, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	// No batch can be written meanwhile; reading goes on.
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE relay.batches IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', '{}' FROM generate_series(1, 4)`)
	until(t, "the lag", func() (bool, string) {
		_, families := holder.scrape(t)
		rows, seconds := metricValue(families, "outrider_lag_rows"), metricValue(families, "outrider_lag_seconds")
		return rows == 4 && seconds > 0, fmt.Sprint(rows, seconds)
	})
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	until(t, "no lag", func() (bool, string) {
		_, families := holder.scrape(t)
		rows, seconds := metricValue(families, "outrider_lag_rows"), metricValue(families, "outrider_lag_seconds")
		return rows == 0 && seconds == 0, fmt.Sprint(rows, seconds)
	})
}

// allFamilies are all metrics that a relay shows, by name.
func allFamilies(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	connector, err := pq.NewConnector("postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector) // connects to nothing
	t.Cleanup(func() { _ = db.Close() })
	m := metrics.New(metrics.Config{
		Version: "v", DB: db, State: func() relay.State { return relay.Active }, Share: func() relay.Share { return relay.Share{} },
		Look: func(context.Context) (metrics.Facts, error) { return metrics.Facts{}, nil },
	})
	m.Beat(time.Now())
	gathered, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]*dto.MetricFamily{}
	for _, family := range gathered {
		families[family.GetName()] = family
	}
	return families
}

// metricLabels are a metric's labels with their values, sorted.
func metricLabels(family *dto.MetricFamily) map[string][]string {
	labels := map[string][]string{}
	for _, m := range family.GetMetric() {
		for _, l := range m.GetLabel() {
			if !slices.Contains(labels[l.GetName()], l.GetValue()) {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
		}
	}
	for _, values := range labels {
		sort.Strings(values)
	}
	return labels
}

// metricRow is a metric's row in the README.
func metricRow(family *dto.MetricFamily) string {
	var labels []string
	for name, values := range metricLabels(family) {
		if name == "version" {
			values = nil
		}
		label := "`" + name + "`"
		if len(values) > 0 {
			label += ": " + strings.Join(values, ", ")
		}
		labels = append(labels, label)
	}
	sort.Strings(labels)
	return fmt.Sprintf("| %#q | %s | %s | %s |\n", family.GetName(), strings.ToLower(family.GetType().String()), strings.Join(labels, "; "), family.GetHelp())
}

var metricLine = regexp.MustCompile("^\\| `outrider_[a-z_]+` \\| (counter|gauge|histogram) \\|")

// TestReadmeMetrics: the README's table is what a relay shows, word by word.
func TestReadmeMetrics(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	families := allFamilies(t)
	names := make([]string, 0, len(families))
	for name := range families {
		if strings.HasPrefix(name, "outrider_") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		want.WriteString(metricRow(families[name]))
	}
	var got strings.Builder
	for line := range strings.Lines(readReadme(t)) {
		if metricLine.MatchString(line) {
			got.WriteString(line)
		}
	}
	if got.String() != want.String() {
		t.Errorf("the README's table of metrics is\n%s\nand should be\n%s", got.String(), want.String())
	}
}
