package bench

import (
	"strings"
	"testing"
)

func TestBoundsAreOfTheMedian(t *testing.T) {
	t.Parallel()
	var m measures
	for _, v := range []float64{0.5, 0.3, 0.45} {
		m.add("ratio", "ratio", Ratio, Higher, v)
		m.add("memory", "memory", Bytes, Lower, v*(1<<30))
	}
	m.atLeast("ratio", 0.4)
	m.atMost("memory", 128<<20)
	list := m.done()
	if ratio := list[0]; ratio.Median != 0.45 || ratio.Min != 0.3 || ratio.Max != 0.5 || !ratio.Bound.Kept || ratio.Bound.Text != "≥ 0.40" {
		t.Errorf("ratio is %+v, bound %+v", ratio, ratio.Bound)
	}
	if memory := list[1]; memory.Bound.Kept || memory.Bound.Text != "≤ 128.0 MB" {
		t.Errorf("memory is %+v, bound %+v", memory, memory.Bound)
	}
	report := Report{Workloads: []Workload{{Name: "a", Measures: list}}}
	shortfalls := report.Shortfalls()
	if len(shortfalls) != 1 || !strings.Contains(shortfalls[0], "a, memory: 460.8 MB, and the bound is ≤ 128.0 MB") {
		t.Errorf("shortfalls are %q", shortfalls)
	}
}

func TestValuesAreWrittenForPeople(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		unit  Unit
		value float64
		want  string
	}{
		{PerSecond, 12345.6, "12,346/s"},
		{Ratio, 0.4049, "0.40"},
		{Milliseconds, 1.234, "1.23 ms"},
		{Milliseconds, 123.4, "123 ms"},
		{Microseconds, 44.44, "44.4 µs"},
		{Bytes, 2000, "2000 bytes"},
		{Bytes, 64 << 20, "64.0 MB"},
		{Count, 1000000, "1,000,000"},
	} {
		if got := test.unit.Text(test.value); got != test.want {
			t.Errorf("%v %s is written %q, want %q", test.value, test.unit, got, test.want)
		}
	}
}
