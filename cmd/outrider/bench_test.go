package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/bench"
)

// TestBenchGivesAllItMeasures runs every workload small. What it measures
// means nothing then.
func TestBenchGivesAllItMeasures(t *testing.T) {
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "bench", "--quick", "--format", "json")
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
	if !report.Quick || report.Repetitions != 1 || !report.Database.Private || report.Database.Settings["fsync"] != "on" || report.Machine.Cores < 1 {
		t.Errorf("report is %+v", report)
	}
	want := map[string][]string{
		"a": {"deliveries", "bare", "ratio", "cpu", "bare_cpu", "cpu_ratio", "start_up", "wal"},
	}
	if len(report.Workloads) != len(want) {
		t.Errorf("%d workloads, want %d", len(report.Workloads), len(want))
	}
	for i := range report.Workloads {
		w := &report.Workloads[i]
		for _, name := range want[w.Name] {
			found := false
			for j := range w.Measures {
				m := &w.Measures[j]
				if m.Name != name {
					continue
				}
				found = true
				if len(m.Values) != 1 || m.Median != m.Values[0] || m.Median <= 0 {
					t.Errorf("%s, %s: values %v, median %v", w.Name, name, m.Values, m.Median)
				}
			}
			if !found {
				t.Errorf("%s does not measure %s", w.Name, name)
			}
		}
	}
}

func TestBenchTellsWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	newCLI(t, "").fails(exitUsage, []string{`"z" is none of a`, `"0" is not a number from 1 to 100`, `unexpected argument "now"`},
		"bench", "--workload", "a,z", "--repetitions", "0", "now")
}
