package web_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/web"
)

func TestLoginLimit(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	limit := web.NewLoginLimit(func() time.Time { return now })
	for i := range 10 {
		if wait := limit.Attempt("192.0.2.1"); wait != 0 {
			t.Fatalf("attempt %d has to wait %s", i, wait)
		}
	}
	if wait := limit.Attempt("192.0.2.1"); wait != 6*time.Second {
		t.Errorf("the eleventh has to wait %s", wait)
	}
	if wait := limit.Attempt("192.0.2.2"); wait != 0 {
		t.Errorf("another address has to wait %s", wait)
	}
	now = now.Add(6 * time.Second)
	if first, second := limit.Attempt("192.0.2.1"), limit.Attempt("::ffff:192.0.2.1"); first != 0 || second != 6*time.Second {
		t.Errorf("6 s later they wait %s and %s", first, second)
	}
	limit.Succeeded("192.0.2.1")
	if wait := limit.Attempt("192.0.2.1"); wait != 0 {
		t.Errorf("after a success it waits %s", wait)
	}
}

// However many addresses try, the memory is bounded, and who has not tried for a
// while is forgotten.
func TestLoginLimitForgets(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	limit := web.NewLoginLimit(func() time.Time { return now })
	for i := range web.MaxLoginAddresses + 500 {
		limit.Attempt(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	if size := limit.Size(); size > web.MaxLoginAddresses {
		t.Errorf("%d addresses are remembered", size)
	}
	now = now.Add(time.Minute)
	limit.Attempt("192.0.2.1")
	if size := limit.Size(); size != 1 {
		t.Errorf("a minute later %d addresses are remembered", size)
	}
}

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "": "", "unix": "unix",
	} {
		if got := web.NetworkOf(address); got != want {
			t.Errorf("%q is of %q, want %q", address, got, want)
		}
	}
}
