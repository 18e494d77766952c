package bench

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Report is what a run of the workloads gave. Its JSON is what --compare
// reads: members are only added.
type Report struct {
	Outrider string    `json:"outrider"`
	At       time.Time `json:"at"`
	// Quick runs show that all works; their figures mean nothing.
	Quick       bool       `json:"quick"`
	Repetitions int        `json:"repetitions"`
	Seconds     float64    `json:"seconds"`
	Machine     Machine    `json:"machine"`
	Database    Server     `json:"database"`
	Workloads   []Workload `json:"workloads"`
}

// Machine is where it ran.
type Machine struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	CPU        string `json:"cpu,omitempty"`
	Cores      int    `json:"cores"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	Memory     int64  `json:"memory_bytes,omitempty"`
}

// Server is the database server.
type Server struct {
	// Private: it was started for the run, on the same machine.
	Private  bool              `json:"private"`
	Version  string            `json:"version"`
	Settings map[string]string `json:"settings"`
	// Left says what stays in a database that is not private.
	Left string `json:"left,omitempty"`
}

// Workload is one workload's outcome.
type Workload struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Measures []Measure `json:"measures"`
	Notes    []string  `json:"notes,omitempty"`
	Seconds  float64   `json:"seconds"`
}

// Unit is what a measure counts.
type Unit string

// The units.
const (
	PerSecond    Unit = "1/s"
	Ratio        Unit = "ratio"
	Milliseconds Unit = "ms"
	Microseconds Unit = "µs"
	Bytes        Unit = "bytes"
	Count        Unit = "count"
)

// Better says which way a measure should go.
type Better string

// The ways.
const (
	Higher  Better = "higher"
	Lower   Better = "lower"
	Neither Better = ""
)

// Measure is one quantity, a value for each repetition.
type Measure struct {
	Name   string    `json:"name"`
	Title  string    `json:"title"`
	Unit   Unit      `json:"unit"`
	Better Better    `json:"better,omitempty"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Bound  *Bound    `json:"bound,omitempty"`
}

// Bound is what a measure must keep, and whether its median did.
type Bound struct {
	Text string `json:"text"`
	Kept bool   `json:"kept"`
}

// Shortfalls name every bound that was not kept.
func (r *Report) Shortfalls() []string {
	var list []string
	for i := range r.Workloads {
		w := &r.Workloads[i]
		for j := range w.Measures {
			if m := &w.Measures[j]; m.Bound != nil && !m.Bound.Kept {
				list = append(list, fmt.Sprintf("%s, %s: %s, and the bound is %s", w.Name, m.Title, m.Unit.Text(m.Median), m.Bound.Text))
			}
		}
	}
	return list
}

// Text writes a value as people read it.
func (u Unit) Text(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	switch u {
	case Ratio:
		return fmt.Sprintf("%.2f", v)
	case Milliseconds:
		return fmt.Sprintf("%.*f ms", decimals(v), v)
	case Microseconds:
		return fmt.Sprintf("%.*f µs", decimals(v), v)
	case Bytes:
		if v >= 1<<20 {
			return fmt.Sprintf("%.1f MB", v/(1<<20))
		}
		return fmt.Sprintf("%.0f bytes", v)
	case PerSecond:
		return grouped(v) + "/s"
	default:
		return grouped(v)
	}
}

// decimals shows three digits or so.
func decimals(v float64) int {
	switch {
	case math.Abs(v) < 10:
		return 2
	case math.Abs(v) < 100:
		return 1
	default:
		return 0
	}
}

// grouped writes 12,345.
func grouped(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// measures collects values under names, in the order in which they first come.
type measures struct {
	list []Measure
}

// add notes a value of one repetition.
func (m *measures) add(name, title string, unit Unit, better Better, value float64) {
	i := slices.IndexFunc(m.list, func(one Measure) bool { return one.Name == name })
	if i < 0 {
		i = len(m.list)
		m.list = append(m.list, Measure{Name: name, Title: title, Unit: unit, Better: better})
	}
	m.list[i].Values = append(m.list[i].Values, value)
}

// done gives them with their medians and spreads.
func (m *measures) done() []Measure {
	for i := range m.list {
		one := &m.list[i]
		one.Median, one.Min, one.Max = Median(one.Values), slices.Min(one.Values), slices.Max(one.Values)
	}
	return m.list
}

// bind gives a measure its bound.
func (m *measures) bind(name, text string, kept bool) {
	for i := range m.list {
		if m.list[i].Name == name {
			m.list[i].Bound = &Bound{text, kept}
		}
	}
}

// atLeast bounds a measure's median from below.
func (m *measures) atLeast(name string, limit float64) {
	m.bindNumber(name, "≥", limit, func(median float64) bool { return median >= limit })
}

// atMost bounds a measure's median from above.
func (m *measures) atMost(name string, limit float64) {
	m.bindNumber(name, "≤", limit, func(median float64) bool { return median <= limit })
}

func (m *measures) bindNumber(name, sign string, limit float64, kept func(float64) bool) {
	for i := range m.list {
		if m.list[i].Name == name {
			m.bind(name, sign+" "+m.list[i].Unit.Text(limit), kept(Median(m.list[i].Values)))
		}
	}
}
