package main

import (
	"strings"
	"testing"
)

// TestUnknownFlagsTellWhatWasMeant: the nearest ones, of each command, and none
// where nothing is near.
func TestUnknownFlagsTellWhatWasMeant(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, want string }{
		{"serve --lisen", "unknown flag: --lisen; did you mean --listen?"},
		{"serve --Listen=:80", "unknown flag: --Listen; did you mean --listen?"},
		{"web --listne :80", "unknown flag: --listne; did you mean --listen?"},
		{"webhook list --acount 1", "unknown flag: --acount; did you mean --account?"},
		{"webhook list --database-ulr x", "unknown flag: --database-ulr; did you mean --database-url?"},
		{"audit deliveries --untl 1h", "unknown flag: --untl; did you mean --until?"},
		{"webhook list --colour", "unknown flag: --colour"},
		{"serve --x", "unknown flag: --x"},
		{"serve -x", "unknown shorthand flag: 'x' in -x"},
		{"webhook lst", `unknown command "lst"; did you mean list or test?`},
	} {
		c := newCLI(t, "")
		r := c.run(strings.Fields(test.args)...)
		if got, _, _ := strings.Cut(r.err, "\n"); r.code != exitUsage || got != "outrider: "+test.want {
			t.Errorf("outrider %s: exit %d, %q, want %q", test.args, r.code, got, test.want)
		}
	}
}

func TestTypos(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"listen", "listen", 0}, {"lisen", "listen", 1}, {"listen", "lisen", 1}, {"lisetn", "listen", 2}, {"url", "", 3}, {"", "url", 3},
		{"kitten", "sitting", 3}, {"abc", "xyz", 3},
	} {
		if got := typos(test.a, test.b); got != test.want {
			t.Errorf("from %q to %q it is %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
