package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/outrider-relay/outrider/adapters/bench"
)

// readBench reads a report that bench wrote with --format json.
func readBench(path string) (*bench.Report, error) {
	content, err := os.ReadFile(path) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, err
	}
	var report bench.Report
	if err := json.Unmarshal(content, &report); err != nil || len(report.Workloads) == 0 {
		return nil, &failure{path + " is not a report of outrider bench", "write one: outrider bench --format json > " + path}
	}
	return &report, nil
}

// compareBench shows two reports next to each other.
func (a *app) compareBench(o benchOptions, oldPath, newPath string) error {
	before, err := readBench(oldPath)
	if err != nil {
		return err
	}
	after, err := readBench(newPath)
	if err != nil {
		return err
	}
	differences := bench.Compare(before, after)
	if o.format == formatJSON {
		return a.writeJSON(differences)
	}
	p := a.paint()
	for _, one := range []struct {
		name   string
		report *bench.Report
	}{{"old", before}, {"new", after}} {
		fmt.Fprintf(a.out, "%s: %s, %s\n", one.name, one.report.At.Local().Format("2006-01-02 15:04"), benchPlace(one.report))
		if one.report.Quick {
			fmt.Fprintln(a.out, p.as(bad, "     A quick run: its figures mean nothing."))
		}
	}
	if benchPlace(before) != benchPlace(after) {
		fmt.Fprintln(a.out, p.as(waiting, "They were not made in the same place: only ratios may be compared."))
	}
	t := newNumbers(p, "", "old", "new", "ratio", "old spread", "new spread", "")
	workload := ""
	for i := range differences {
		d := &differences[i]
		if d.Workload != workload {
			workload = d.Workload
			t.AppendRow(table.Row{p.as(bold, workload+"  "+bench.Titles[workload])})
		}
		t.AppendRow(differenceRow(p, d))
	}
	fmt.Fprintln(a.out)
	a.writeLines(t.Render())
	return nil
}

func benchPlace(r *bench.Report) string {
	kind := "a given database"
	if r.Database.Private {
		kind = "a private server"
	}
	return fmt.Sprintf("%s/%s, %d cores%s, PostgreSQL %s, %s", r.Machine.OS, r.Machine.Arch, r.Machine.Cores, prefixed(", ", r.Machine.CPU), r.Database.Version, kind)
}

func differenceRow(p paint, d *bench.Difference) table.Row {
	median := func(m *bench.Measure) string {
		if m == nil {
			return "–"
		}
		return m.Unit.Text(m.Median)
	}
	ratio, verdict := "–", string(d.Verdict)
	if d.Ratio != nil {
		ratio = bench.Ratio.Text(*d.Ratio)
	}
	switch d.Verdict {
	case bench.VerdictBetter:
		verdict = p.as(good, verdict)
	case bench.VerdictWorse:
		verdict = p.as(bad, verdict)
	case bench.VerdictDifferent:
		verdict = p.as(waiting, verdict)
	case bench.VerdictSame:
		verdict = ""
	case bench.VerdictAlone:
	}
	return table.Row{"   " + d.Title, median(d.Old), median(d.New), ratio, benchSpread(d.Old), benchSpread(d.New), verdict}
}

// benchSpread is from the least to the most of the repetitions.
func benchSpread(m *bench.Measure) string {
	if m == nil {
		return "–"
	}
	return m.Unit.Text(m.Min) + " – " + m.Unit.Text(m.Max)
}

// benchMarkdown writes a report as a table for a document: of each workload
// the first measure, and those with bounds.
func (a *app) benchMarkdown(r *bench.Report) {
	fmt.Fprintf(a.out, "%s, %s, medians of %d, outrider %s.\n", r.At.Format("2006-01-02"), benchPlace(r), r.Repetitions, r.Outrider)
	if r.Quick {
		fmt.Fprintln(a.out, "**A quick run: the figures mean nothing.**")
	}
	fmt.Fprint(a.out, "\n| workload | measure | median | spread | bound | |\n| --- | --- | --- | --- | --- | --- |\n")
	cell := func(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
	for i := range r.Workloads {
		w := &r.Workloads[i]
		title := w.Name + ": " + w.Title
		for j := range w.Measures {
			m := &w.Measures[j]
			if j > 0 && m.Bound == nil {
				continue
			}
			bound, verdict := "", ""
			if m.Bound != nil {
				bound, verdict = m.Bound.Text, "kept"
				if !m.Bound.Kept {
					verdict = "**not kept**"
				}
			}
			fmt.Fprintf(a.out, "| %s | %s | %s | %s | %s | %s |\n", cell(title), cell(m.Title), m.Unit.Text(m.Median), benchSpread(m), bound, verdict)
			title = ""
		}
	}
	for i := range r.Workloads {
		for _, note := range r.Workloads[i].Notes {
			fmt.Fprintf(a.out, "\n%s: %s.\n", r.Workloads[i].Name, note)
		}
	}
}
