package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/outrider-relay/outrider/adapters/bench"
)

// benchTable writes a report for people.
func (a *app) benchTable(report *bench.Report) {
	p := a.paint()
	m, s := report.Machine, report.Database
	memory := ""
	if m.Memory > 0 {
		memory = fmt.Sprintf(", %.0f GB", float64(m.Memory)/(1<<30))
	}
	fmt.Fprintf(a.out, "outrider %s\n%s/%s, %d cores%s%s\n", report.Outrider, m.OS, m.Arch, m.Cores, memory, prefixed(", ", m.CPU))
	kind := "the given database"
	if s.Private {
		kind = "a private server"
	}
	fmt.Fprintf(a.out, "PostgreSQL %s, %s, fsync %s, synchronous_commit %s\n", s.Version, kind, s.Settings["fsync"], s.Settings["synchronous_commit"])
	fmt.Fprintf(a.out, "%s, medians of %d, in %s\n", report.At.Local().Format("2006-01-02 15:04"), report.Repetitions,
		(time.Duration(report.Seconds) * time.Second).String())
	if s.Left != "" {
		fmt.Fprintln(a.out, s.Left)
	}
	if report.Quick {
		fmt.Fprintln(a.out, p.as(bad, "A quick run: the figures mean nothing."))
	}
	for i := range report.Workloads {
		w := &report.Workloads[i]
		fmt.Fprintf(a.out, "\n%s\n", p.as(bold, w.Name+"  "+w.Title))
		if len(w.Measures) > 0 {
			a.measuresTable(w.Measures)
		}
		for _, note := range w.Notes {
			fmt.Fprintf(a.out, "   %s %s\n", p.as(waiting, "!"), note)
		}
	}
	shortfalls := report.Shortfalls()
	if len(shortfalls) == 0 {
		fmt.Fprintf(a.out, "\n%s\n", p.as(good, "All bounds are kept."))
		return
	}
	fmt.Fprintf(a.out, "\n%s\n", p.as(bad, fmt.Sprintf("%d bounds are not kept:", len(shortfalls))))
	for _, shortfall := range shortfalls {
		fmt.Fprintf(a.out, "   %s\n", shortfall)
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (a *app) measuresTable(measures []bench.Measure) {
	p := a.paint()
	t := newNumbers(p, "", "median", "least", "most", "bound", "")
	for i := range measures {
		m := &measures[i]
		bound, verdict := "", ""
		if m.Bound != nil {
			bound, verdict = m.Bound.Text, p.as(good, "kept")
			if !m.Bound.Kept {
				verdict = p.as(bad, "NOT KEPT")
			}
		}
		t.AppendRow(table.Row{"   " + m.Title, m.Unit.Text(m.Median), m.Unit.Text(m.Min), m.Unit.Text(m.Max), bound, verdict})
	}
	a.writeLines(t.Render())
}

// newNumbers begins a table whose second to fourth columns are numbers.
func newNumbers(p paint, titles ...string) table.Writer {
	t := table.NewWriter()
	t.SetStyle(listStyle())
	header := make(table.Row, len(titles))
	for i, title := range titles {
		header[i] = p.as(faint, strings.ToUpper(title))
	}
	t.AppendHeader(header)
	var right []table.ColumnConfig
	for column := 2; column <= 4; column++ {
		right = append(right, table.ColumnConfig{Number: column, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	return t
}

func (a *app) writeLines(rendered string) {
	for line := range strings.Lines(rendered + "\n") {
		fmt.Fprintln(a.out, strings.TrimRight(line, " \n"))
	}
}
