package bench

import "testing"

func reportOf(workload string, list ...Measure) *Report {
	return &Report{Workloads: []Workload{{Name: workload, Measures: list}}}
}

func TestADifferenceIsBeyondTheSpreadOrNot(t *testing.T) {
	t.Parallel()
	measure := func(better Better, values ...float64) Measure {
		var m measures
		m.add("it", "it", PerSecond, better, values[0])
		for _, v := range values[1:] {
			m.add("it", "it", PerSecond, better, v)
		}
		return m.done()[0]
	}
	for _, test := range []struct {
		name     string
		old, new Measure
		want     Verdict
		ratio    float64
	}{
		{"spreads that overlap", measure(Higher, 90, 100, 110), measure(Higher, 105, 120, 130), VerdictSame, 1.2},
		{"spreads that touch", measure(Higher, 90, 100, 110), measure(Higher, 110, 120, 130), VerdictSame, 1.2},
		{"higher is better", measure(Higher, 90, 100, 110), measure(Higher, 111, 120, 130), VerdictBetter, 1.2},
		{"higher is worse", measure(Lower, 90, 100, 110), measure(Lower, 111, 120, 130), VerdictWorse, 1.2},
		{"lower is better", measure(Lower, 90, 100, 110), measure(Lower, 40, 50, 60), VerdictBetter, 0.5},
		{"lower is worse", measure(Higher, 90, 100, 110), measure(Higher, 40, 50, 60), VerdictWorse, 0.5},
		{"neither is better", measure(Neither, 90, 100, 110), measure(Neither, 40, 50, 60), VerdictDifferent, 0.5},
	} {
		found := Compare(reportOf("a", test.old), reportOf("a", test.new))
		if len(found) != 1 || found[0].Verdict != test.want || found[0].Ratio == nil || *found[0].Ratio != test.ratio {
			t.Errorf("%s: %+v, want %s, ratio %v", test.name, found, test.want, test.ratio)
		}
	}
}

func TestWhatOneReportLacksIsNamed(t *testing.T) {
	t.Parallel()
	one := Measure{Name: "one", Median: 0}
	two := Measure{Name: "two", Median: 5}
	found := Compare(reportOf("a", one, two), reportOf("a", one))
	if len(found) != 2 || found[0].Name != "one" || found[1].Name != "two" || found[1].Verdict != VerdictAlone || found[1].New != nil {
		t.Fatalf("found %+v", found)
	}
	if found[0].Ratio != nil {
		t.Errorf("nothing against nothing is %v", *found[0].Ratio)
	}
	if found := Compare(reportOf("a", one), reportOf("b", one)); len(found) != 2 {
		t.Errorf("measures of other workloads are taken for one: %+v", found)
	}
}
