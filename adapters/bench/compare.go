package bench

import (
	"cmp"
	"math"
)

// Verdict says how a measure of one report differs from that of another.
type Verdict string

// The verdicts. Those that are not VerdictSame are beyond the spread: the
// lowest of one report's repetitions is above the highest of the other's.
const (
	VerdictSame      Verdict = "within the spread"
	VerdictBetter    Verdict = "better"
	VerdictWorse     Verdict = "worse"
	VerdictDifferent Verdict = "different" // neither is better
	VerdictAlone     Verdict = "only in one"
)

// Difference is one measure in two reports.
type Difference struct {
	Workload string `json:"workload"`
	Name     string `json:"name"`
	Title    string `json:"title"`
	Unit     Unit   `json:"unit"`
	// Old and New are nil where that report lacks the measure.
	Old *Measure `json:"old"`
	New *Measure `json:"new"`
	// Ratio of the new median to the old one, nil where there is none.
	Ratio   *float64 `json:"ratio"`
	Verdict Verdict  `json:"verdict"`
}

// Compare gives the differences of two reports, in the order of the later one;
// what it lacks comes last.
func Compare(before, after *Report) []Difference {
	var list []Difference
	for i := range after.Workloads {
		w := &after.Workloads[i]
		for j := range w.Measures {
			m := &w.Measures[j]
			list = append(list, differenceOf(w.Name, before.measure(w.Name, m.Name), m))
		}
	}
	for i := range before.Workloads {
		w := &before.Workloads[i]
		for j := range w.Measures {
			if m := &w.Measures[j]; after.measure(w.Name, m.Name) == nil {
				list = append(list, differenceOf(w.Name, m, nil))
			}
		}
	}
	return list
}

func (r *Report) measure(workload, name string) *Measure {
	for i := range r.Workloads {
		if r.Workloads[i].Name != workload {
			continue
		}
		for j := range r.Workloads[i].Measures {
			if m := &r.Workloads[i].Measures[j]; m.Name == name {
				return m
			}
		}
	}
	return nil
}

func differenceOf(workload string, before, after *Measure) Difference {
	one := cmp.Or(after, before)
	d := Difference{Workload: workload, Name: one.Name, Title: one.Title, Unit: one.Unit, Old: before, New: after, Verdict: VerdictAlone}
	if before == nil || after == nil {
		return d
	}
	if ratio := after.Median / before.Median; !math.IsNaN(ratio) && !math.IsInf(ratio, 0) {
		d.Ratio = &ratio
	}
	higher, lower := after.Min > before.Max, after.Max < before.Min
	switch {
	case !higher && !lower:
		d.Verdict = VerdictSame
	case after.Better == Neither:
		d.Verdict = VerdictDifferent
	case higher == (after.Better == Higher):
		d.Verdict = VerdictBetter
	default:
		d.Verdict = VerdictWorse
	}
	return d
}
