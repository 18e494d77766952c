package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/bench"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

func TestBenchRefusesDataThatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	if _, err := db.SQL.ExecContext(t.Context(), `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`); err != nil {
		t.Fatal(err)
	}
	c.fails(exitFailed, []string{"data that no bench wrote: events", "--i-know"}, "bench", "--quick")
	c.ok("webhook", "add", "--account", "1", "--url", "https://hooks.example.com/1")
	c.fails(exitFailed, []string{"accounts, webhooks, events"}, "bench", "--quick")
	var webhooks int
	if err := db.SQL.QueryRowContext(t.Context(), `SELECT count(*) FROM relay.webhooks`).Scan(&webhooks); err != nil || webhooks != 1 {
		t.Errorf("after a refusal there are %d webhooks (%v)", webhooks, err)
	}
}

func TestBenchRefusesADatabaseOfARelay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if _, err := db.SQL.ExecContext(t.Context(), `INSERT INTO relay.heartbeats (relay_id, n, position, low) VALUES (77, 1, 0, 0)`); err != nil {
		t.Fatal(err)
	}
	newCLI(t, db.DSN).fails(exitFailed, []string{"relay 77", "stop outrider serve"}, "bench", "--quick", "--i-know")
}

func TestBenchNamesTheCommandThatMigrates(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if _, err := db.SQL.ExecContext(t.Context(), `DROP SCHEMA relay CASCADE`); err != nil {
		t.Fatal(err)
	}
	newCLI(t, db.DSN).fails(exitFailed, []string{"outrider migrate"}, "bench", "--quick")
}

// TestBenchMeasuresOnAGivenDatabase: what needs another database is left out,
// which is said, as is what stays.
func TestBenchMeasuresOnAGivenDatabase(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, nil))
	report := quickBench(t, db.DSN, "--workload", "b,d,e,f,g,h,i,j,l")
	if report.Database.Private || !strings.Contains(report.Database.Left, "900000000000 to 900000000049") {
		t.Errorf("the database is %+v", report.Database)
	}
	for _, left := range []struct{ workload, note string }{
		{"d", "another database is left out"}, {"e", "left out"}, {"g", "left out"}, {"h", "left out"}, {"i", "left out"}, {"l", "left out"},
	} {
		w := workloadOf(t, report, left.workload)
		if !strings.Contains(strings.Join(w.Notes, "\n"), left.note) {
			t.Errorf("%s: notes are %q", left.workload, w.Notes)
		}
	}
	checkMeasures(t, report, map[string][]string{
		"b": {"p50", "p99_3000"}, "d": {"here_ratio"},
		"e": nil, "f": {"ratio", "busy"}, "g": {"memory"}, "h": nil, "i": nil, "j": {"control_p99", "replay_p99", "replay_ratio", "replayed"}, "l": {"hanging_ratio_3000"},
	})
	for _, m := range workloadOf(t, report, "j").Measures {
		if (m.Name == "replay_ratio") != (m.Bound != nil) {
			t.Errorf("%s has the bound %v", m.Name, m.Bound)
		}
	}
	var foreign, webhooks, tables int
	err := db.SQL.QueryRowContext(t.Context(), `
SELECT (SELECT count(*) FROM outbox.events WHERE account_id NOT BETWEEN $1::bigint AND $2::bigint),
       (SELECT count(*) FROM relay.webhooks WHERE state <> 'deleted'),
       (SELECT count(*) FROM pg_namespace WHERE nspname = 'outrider_bench')`, bench.FirstAccount, bench.FirstAccount+bench.Accounts-1).
		Scan(&foreign, &webhooks, &tables)
	if err != nil || foreign != 0 || webhooks != 0 || tables != 0 {
		t.Errorf("left: %d events of others, %d webhooks, %d schemas (%v)", foreign, webhooks, tables, err)
	}
	// A second run finds only what a bench wrote.
	if again := quickBench(t, db.DSN, "--workload", "b"); len(again.Workloads) != 1 {
		t.Errorf("again: %+v", again)
	}
}

func TestBenchComparesReports(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "")
	report := func(name string, values ...float64) string {
		path := t.TempDir() + "/" + name
		m := bench.Measure{
			Name: "deliveries", Title: "deliveries", Unit: bench.PerSecond, Better: bench.Higher, Values: values,
			Min: values[0], Median: values[1], Max: values[2], Bound: &bench.Bound{Text: "≥ 1/s", Kept: false},
		}
		content, err := json.Marshal(bench.Report{Repetitions: 3, Workloads: []bench.Workload{{Name: "a", Title: "a backlog", Measures: []bench.Measure{m}}}})
		if err != nil {
			t.Fatal(err)
		}
		writeReport(t, path, string(content))
		return path
	}
	slow, fast := report("old.json", 90, 100, 110), report("new.json", 190, 200, 210)
	out := c.ok("bench", "--compare", slow, fast)
	for _, text := range []string{"deliveries", "100/s", "200/s", "2.00", "90/s – 110/s", "190/s – 210/s", "better"} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in\n%s", text, out)
		}
	}
	if out := c.ok("bench", "--compare", slow, slow); strings.Contains(out, "better") || strings.Contains(out, "worse") {
		t.Errorf("a report differs from itself:\n%s", out)
	}
	var differences []bench.Difference
	if err := json.Unmarshal([]byte(c.ok("bench", "--compare", fast, slow, "--format", "json")), &differences); err != nil || len(differences) != 1 || differences[0].Verdict != bench.VerdictWorse {
		t.Errorf("differences are %+v (%v)", differences, err)
	}
	if out := c.ok("bench", "--show", fast, "--format", "markdown"); !strings.Contains(out, "| a: a backlog | deliveries | 200/s | 190/s – 210/s | ≥ 1/s | **not kept** |") {
		t.Errorf("as markdown:\n%s", out)
	}
	if r := c.run("bench", "--show", fast, "--check"); r.code != exitFailed || !strings.Contains(r.err, "the bound is ≥ 1/s") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	c.fails(exitUsage, []string{"--compare takes two reports"}, "bench", "--compare", slow)
	nothing := t.TempDir() + "/nothing.json"
	writeReport(t, nothing, `{"workloads": []}`)
	c.fails(exitFailed, []string{"is not a report of outrider bench", "--format json"}, "bench", "--compare", slow, nothing)
}

func writeReport(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
