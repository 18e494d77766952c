package outbox_test

import (
	"slices"
	"testing"

	"github.com/outrider-relay/outrider/outbox"
)

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]outbox.Snapshot{
		"3:3:":           {Xmin: 3, Xmax: 3},
		"731:731:":       {Xmin: 731, Xmax: 731},
		"10:20:10,14,15": {Xmin: 10, Xmax: 20, InProgress: []uint64{10, 14, 15}},
		"10:20:10":       {Xmin: 10, Xmax: 20, InProgress: []uint64{10}},
		"18446744073709551615:18446744073709551615:18446744073709551615": {Xmin: 1<<64 - 1, Xmax: 1<<64 - 1, InProgress: []uint64{1<<64 - 1}},
	} {
		got, err := outbox.ParseSnapshot(text)
		if err != nil || !equal(got, want) || got.String() != text {
			t.Errorf("%q is %+v, %v, as text %q; want %+v", text, got, err, got.String(), want)
		}
	}
	for _, text := range []string{
		"", ":", "::", "1", "1:2", "1::", ":2:", "1:2:3:", "1:2:3:4", "a:2:", "1:b:", "1:2:c", "1:2:,", "1:2:3,", "1:2:,3", "1:2:3,,4",
		"-1:2:", "+1:2:", "1:2:-3", " 1:2:", "1:2: ", "1:2:3 ", "1_0:20:", "0x1:2:", "1.0:2:", "18446744073709551616:1:", "1:18446744073709551616:", "1:2:18446744073709551616",
	} {
		if got, err := outbox.ParseSnapshot(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func FuzzParseSnapshot(f *testing.F) {
	for _, seed := range []string{"3:3:", "10:20:10,14,15", "010:20:", "1:2:3,", "::", "18446744073709551615:18446744073709551615:1", "1:2:\x00", "٣:٣:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := outbox.ParseSnapshot(text)
		if err != nil {
			if !equal(s, outbox.Snapshot{}) {
				t.Errorf("%q gives %+v beside the error", text, s)
			}
			return
		}
		again, err := outbox.ParseSnapshot(s.String())
		if err != nil || !equal(s, again) {
			t.Errorf("%q is %+v, whose text %q is %+v, %v", text, s, s.String(), again, err)
		}
	})
}

func equal(a, b outbox.Snapshot) bool {
	return a.Xmin == b.Xmin && a.Xmax == b.Xmax && slices.Equal(a.InProgress, b.InProgress)
}
