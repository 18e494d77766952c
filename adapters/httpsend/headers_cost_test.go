//go:build !race

// The race detector lets pools forget at random, and what is then allocated
// again is no cost of the headers.

package httpsend_test

import (
	"testing"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// What a webhook without headers costs is what it did before there were any,
// and with some no more.
//
//nolint:paralleltest // AllocsPerRun does not run beside others
func TestHeadersCostNoAllocation(t *testing.T) {
	find := httpsend.Finder()
	for _, headers := range []string{"", "Authorization: Bearer t\nX-Api-Key: one\n"} {
		request := requestTo(t, "http://127.0.0.1:8080")
		request.Webhook.Headers = domain.HeadersFromText(headers)
		appendHeader, err := httpsend.HeaderAppender(request)
		if err != nil {
			t.Fatal(err)
		}
		plain := requestTo(t, "http://127.0.0.1:8080")
		appendPlain, err := httpsend.HeaderAppender(plain)
		if err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 0, 8<<10)
		for what, of := range map[string][2]func(){
			"finding the target": {func() { _ = find(request.Webhook) }, func() {}},
			"the header":         {func() { appendHeader(buffer, present) }, func() { appendPlain(buffer, present) }},
		} {
			if got, most := testing.AllocsPerRun(100, of[0]), testing.AllocsPerRun(100, of[1]); got > most {
				t.Errorf("with headers %q %s allocates %v times, want %v", headers, what, got, most)
			}
		}
	}
}
