package bench

import (
	"math"
	"testing"
	"time"
)

func TestADisturbanceMayCostAFifthOrTwoMilliseconds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name               string
		control, disturbed []float64
		want               bool
	}{
		{"less than two milliseconds", []float64{1, 1, 1}, []float64{2.9, 3, 2}, true},
		{"more than two milliseconds", []float64{1, 1, 1}, []float64{3.1, 3.1, 1}, false},
		{"less than a fifth", []float64{100, 90, 110}, []float64{119, 107, 400}, true},
		{"more than a fifth", []float64{100, 90, 110}, []float64{121, 109, 100}, false},
		{"pair by pair", []float64{1, 100, 100}, []float64{100, 100, 100}, true},
	} {
		if got := undisturbed(test.control, test.disturbed); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestWhatWarmsUpOrHangsDoesNotCount(t *testing.T) {
	t.Parallel()
	tr := traffic{rate: 10, warm: time.Second, measured: 2 * time.Second, hanging: []int{12}}
	if tr.events() != 30 {
		t.Fatalf("%d events, want 30", tr.events())
	}
	commits, times := make([]int64, 30), make([]int64, 30)
	for n := range commits {
		commits[n] = int64(n) * int64(100*time.Millisecond)
		times[n] = commits[n] + int64(time.Duration(n)*time.Millisecond)
	}
	a := tr.judge(commits, times)
	if len(a.latencies) != 19 || a.latencies[0] != 10 || a.latencies[2] != 13 || a.p99() != 29 {
		t.Errorf("latencies are %v", a.latencies)
	}
	if math.Abs(a.rate-10) > 0.001 || a.late {
		t.Errorf("rate %v, late %v", a.rate, a.late)
	}
	tr.rate = 11
	if a := tr.judge(commits, times); !a.late {
		t.Errorf("producers at %v of %d events/s are not late", a.rate, tr.rate)
	}
}
