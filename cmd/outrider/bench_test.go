package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/bench"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestBenchGivesAllItMeasures runs every workload small. What it measures
// means nothing then.
func TestBenchGivesAllItMeasures(t *testing.T) {
	t.Parallel()
	report := quickBench(t, "")
	if !report.Quick || report.Repetitions != 1 || !report.Database.Private || report.Database.Settings["fsync"] != "on" || report.Machine.Cores < 1 || report.Database.Left != "" {
		t.Errorf("report is %+v", report)
	}
	checkMeasures(t, report, map[string][]string{
		"a": {"deliveries", "bare", "ratio", "cpu", "bare_cpu", "cpu_ratio", "memory", "start_up", "wal"},
		"b": {"commit", "p50", "p99", "p50_3000", "p99_3000", "rate_3000"},
		"c": {"control_p99_100", "hanging_p99_100", "hanging_ratio_100", "control_p99_1000", "hanging_p99_1000", "hanging_ratio_1000"},
		"d": {"control_p99", "here_p99", "here_ratio", "elsewhere_p99", "elsewhere_ratio"},
		"e": {"plain", "history", "history_ratio", "waiting", "waiting_ratio", "first_last"},
		"f": {"inserts", "bare", "ratio", "p99", "bare_p99", "p99_ratio", "busy"},
		"g": {"memory", "waiting", "waiting_memory", "again_memory"},
		"i": {"start_up", "rows"},
	})
	bounds := map[string]int{"a": 3, "b": 3, "c": 2, "d": 2, "e": 3, "f": 2, "g": 3, "i": 1}
	for i := range report.Workloads {
		w := &report.Workloads[i]
		n := 0
		for j := range w.Measures {
			if w.Measures[j].Bound != nil {
				n++
			}
		}
		if n != bounds[w.Name] {
			t.Errorf("%s has %d bounds, want %d", w.Name, n, bounds[w.Name])
		}
	}
}

// TestBenchAsksTheAudit: workload h runs where it is named.
func TestBenchAsksTheAudit(t *testing.T) {
	t.Parallel()
	report := quickBench(t, "", "--workload", "h")
	checkMeasures(t, report, map[string][]string{
		"h": {"trace", "account", "account_far", "webhook", "webhook_far", "hours", "attempts", "size", "written"},
	})
	bounds := map[string]string{"trace": "≤ 5.00 ms", "account_far": "≤ 20.0 ms", "hours": "≤ 200 ms"}
	for _, m := range workloadOf(t, report, "h").Measures {
		if want, bound := bounds[m.Name]; bound && (m.Bound == nil || m.Bound.Text != want) {
			t.Errorf("%s has the bound %v, want %s", m.Name, m.Bound, want)
		}
		if m.Name == "attempts" && (m.Median < 4000 || m.Median > 6000) {
			t.Errorf("%.0f attempts", m.Median)
		}
	}
}

// TestBenchSharesTheWorkBetweenRelays: workload k runs where it is named.
func TestBenchSharesTheWorkBetweenRelays(t *testing.T) {
	t.Parallel()
	report := quickBench(t, "", "--workload", "k")
	checkMeasures(t, report, map[string][]string{"k": {"most", "one", "two", "ratio"}})
	for _, m := range workloadOf(t, report, "k").Measures {
		if m.Name == "one" && m.Median > 5000 {
			t.Errorf("one relay made %.0f deliveries a second: more than 100 were under way", m.Median)
		}
	}
}

// TestBenchIsolatesWebhooks: workload l runs where it is named.
func TestBenchIsolatesWebhooks(t *testing.T) {
	t.Parallel()
	report := quickBench(t, "", "--workload", "l")
	checkMeasures(t, report, map[string][]string{"l": {"hanging_ratio_100", "hanging_ratio_3000", "dead_ratio_waiting", "dead_waiting", "dead_memory"}})
	for _, m := range workloadOf(t, report, "l").Measures {
		switch {
		case m.Name == "dead_waiting" && m.Median < 1000:
			t.Errorf("%.0f deliveries waited", m.Median)
		case (strings.Contains(m.Name, "_ratio_") || m.Name == "dead_memory") != (m.Bound != nil):
			t.Errorf("%s has the bound %v", m.Name, m.Bound)
		}
	}
}

// quickBench runs all workloads small, on a database or a private server.
func quickBench(t *testing.T, dsn string, more ...string) *bench.Report {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"bench", "--quick", "--format", "json"}, more...)...)
	cmd.Env = append(os.Environ(), "OUTRIDER_DATABASE_URL="+dsn)
	if dir := pgtest.MemoryDir(); dir != "" { // the private server has fsync on
		cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, complaints.String())
	}
	var report bench.Report
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return &report
}

func workloadOf(t *testing.T, report *bench.Report, name string) *bench.Workload {
	t.Helper()
	for i := range report.Workloads {
		if report.Workloads[i].Name == name {
			return &report.Workloads[i]
		}
	}
	t.Fatalf("workload %s is not in the report", name)
	return nil
}

// checkMeasures checks that these workloads are in a report, and no others,
// with these measures among theirs.
func checkMeasures(t *testing.T, report *bench.Report, want map[string][]string) {
	t.Helper()
	if len(report.Workloads) != len(want) {
		t.Errorf("%d workloads, want %d", len(report.Workloads), len(want))
	}
	for workload, names := range want {
		w := workloadOf(t, report, workload)
		for _, name := range names {
			i := slices.IndexFunc(w.Measures, func(m bench.Measure) bool { return m.Name == name })
			if i < 0 {
				t.Errorf("%s does not measure %s", workload, name)
				continue
			}
			if m := &w.Measures[i]; len(m.Values) != 1 || m.Median != m.Values[0] || m.Median <= 0 {
				t.Errorf("%s, %s: values %v, median %v", workload, name, m.Values, m.Median)
			}
		}
	}
}

func TestBenchTellsWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	newCLI(t, "").fails(exitUsage, []string{`"z" is none of a`, `"0" is not a number from 1 to 100`, `unexpected argument "now"`},
		"bench", "--workload", "a,z", "--repetitions", "0", "now")
}
