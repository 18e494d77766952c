package httpsend_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/adapters/httpsend"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	date := func(d time.Duration) string { return present.Add(d).UTC().Format(http.TimeFormat) }
	for value, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"120":                           2 * time.Minute,
		"007":                           7 * time.Second,
		"-1":                            0,
		"+5":                            0,
		"1.5":                           0,
		" 5":                            0,
		"0x10":                          0,
		"soon":                          0,
		"31536001":                      httpsend.MaxRetryAfter,
		"9223372036854775807":           httpsend.MaxRetryAfter,
		"99999999999999999999999999999": httpsend.MaxRetryAfter,
		date(90 * time.Second):          90 * time.Second,
		date(0):                         0,
		date(-time.Hour):                0,
		date(20 * 365 * 24 * time.Hour): httpsend.MaxRetryAfter,
		"Fri, 31 Dec 9999 23:59:59 GMT": httpsend.MaxRetryAfter,
		"Mon, 01 Jan 0001 00:00:00 GMT": 0,
		present.Add(time.Minute).UTC().Format("Monday, 02-Jan-06 15:04:05 GMT"): time.Minute, // RFC 850
		present.Add(time.Minute).UTC().Format(time.ANSIC):                       time.Minute,
	} {
		if got := httpsend.RetryAfter(value, present); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{
		"", "0", "120", "-1", "1e3", "9223372036854775808", "Wed, 21 Oct 2015 07:28:00 GMT",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if got := httpsend.RetryAfter(value, present); got < 0 || got > httpsend.MaxRetryAfter {
			t.Errorf("%q gives %s", value, got)
		}
	})
}

func TestExcerpt(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", httpsend.KeptBody)
	for _, c := range []struct{ name, body, want string }{
		{"Empty", "", ""},
		{"Text", "ok\n", "ok\n"},
		{"Unicode", "grüße 🐎", "grüße 🐎"},
		{"ReplacementCharacter", "a\uFFFDb", "a\uFFFDb"},
		{"NUL", "a\x00b\x00", "a\uFFFDb\uFFFD"},
		{"NotUTF8", "a\xff\xfeb", "a\uFFFD\uFFFDb"},
		{"Surrogate", "\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},
		{"Full", long, long},
		{"TooLong", long + "y", long},
		{"CutInACharacter", long[1:] + "ü", long[1:]},
		{"CutInALongCharacter", long[3:] + "🐎", long[3:]},
		{"CutBehindACharacter", long[4:] + "🐎!", long[4:] + "🐎"},
		{"GrowsPastTheLimit", strings.Repeat("\x00", httpsend.KeptBody), strings.Repeat("\uFFFD", httpsend.KeptBody/3)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := httpsend.Clean([]byte(c.body)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzExcerpt(f *testing.F) {
	for _, body := range []string{
		"", "ok", "\x00", "\xff", "\xf0\x9f\x90", "🐎", "a\uFFFDb",
		strings.Repeat("x", httpsend.KeptBody-1) + "ü", strings.Repeat("\xff", httpsend.KeptBody+1),
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		got := httpsend.Clean(body)
		switch {
		case string(body) != before:
			t.Error("it changed the body")
		case len(got) > httpsend.KeptBody:
			t.Errorf("%d bytes", len(got))
		case !utf8.ValidString(got) || strings.Contains(got, "\x00"):
			t.Errorf("PostgreSQL does not take %q", got)
		case httpsend.Clean([]byte(got)) != got:
			t.Error("cleaning it again changes it")
		case utf8.Valid(body) && !strings.Contains(before, "\x00") && (!strings.HasPrefix(before, got) || len(got) < min(len(body), httpsend.KeptBody-3)):
			t.Errorf("good text was changed or cut too early: %q", got)
		}
	})
}
