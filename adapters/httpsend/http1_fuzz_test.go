package httpsend_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// FuzzResponse: whatever bytes a receiver answers with, and in whatever pieces
// they come, they are the outcome that net/http reads in them; little of it is
// kept, and the connection is used again only where nothing of it is left.
func FuzzResponse(f *testing.F) {
	for _, response := range []string{
		"", "\r\n", "HTTP/1.1", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: x\r\n\r\nmore",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nabc", "HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 503 Down\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 000 x\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 1\n\nx", "\x16\x03\x01\x00\x05hello", "SSH-2.0-OpenSSH\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 70<<10) + "\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("\x00", 20000),
	} {
		f.Add([]byte(response), false)
		f.Add([]byte(response), true)
	}
	f.Fuzz(func(t *testing.T, response []byte, bytewise bool) {
		var from io.Reader = bytes.NewReader(response)
		if bytewise {
			from = iotest.OneByteReader(from)
		}
		outcome, again, left := httpsend.Receive(t.Context(), from, present)
		outcome.Duration = 1
		check(t, outcome)
		if again && left > 0 {
			again = false // as exchange does
		}
		reference, err := reference(response)
		if err == nil && reference.status == 0 {
			return // "HTTP/1.1 000": an answer, and no status
		}
		switch {
		case err != nil && outcome.StatusCode != 0:
			t.Fatalf("%q gives the status %d; net/http says %v", response, outcome.StatusCode, err)
		case err != nil || outcome.StatusCode == 0:
			if again {
				t.Fatalf("%q: the connection is used again", response)
			}
			if err == nil && len(response) < 60<<10 { // its header is not too long
				t.Fatalf("%q is no answer, %s; net/http reads the status %d", response, outcome.Detail, reference.status)
			}
			return
		case outcome.StatusCode != reference.status:
			t.Fatalf("%q gives the status %d; net/http reads %d", response, outcome.StatusCode, reference.status)
		}
		if reference.status == http.StatusSwitchingProtocols {
			if again {
				t.Fatal("what follows a 101 is another protocol")
			}
			return
		}
		kept := reference.body[:min(len(reference.body), httpsend.KeptBody)]
		if want := httpsend.Clean(kept); outcome.Excerpt != want {
			t.Fatalf("%q: the excerpt is %q, want %q", response, outcome.Excerpt, want)
		}
		const read = 16 << 10
		success := reference.status/100 == 2 && (reference.err == nil || len(reference.body) >= read)
		if (outcome.Kind == domain.OutcomeSucceeded) != success {
			t.Fatalf("%q: it %s, %q; net/http reads %d bytes, %v", response, outcome.Kind, outcome.Detail, len(reference.body), reference.err)
		}
		// What has not come yet is seen by whoever uses the connection next.
		here := !bytewise && len(response) <= 4096
		if again && (reference.close || reference.err != nil || here && reference.left > 0) {
			t.Fatalf("%q: the connection is used again; net/http closes it: %t, leaves %d bytes, %v", response, reference.close, reference.left, reference.err)
		}
	})
}

// answered is what net/http makes of a response.
type answered struct {
	status int
	body   []byte
	err    error // of the body
	close  bool
	left   int
}

func reference(response []byte) (answered, error) {
	reader := bufio.NewReader(bytes.NewReader(response))
	for {
		r, err := http.ReadResponse(reader, nil)
		if err != nil {
			return answered{}, err
		}
		if r.StatusCode >= 100 && r.StatusCode < 200 && r.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		a := answered{status: r.StatusCode, close: r.Close}
		if r.StatusCode != http.StatusSwitchingProtocols {
			a.body, a.err = io.ReadAll(r.Body)
		}
		_ = r.Body.Close() // says again what reading it said
		rest, err := io.ReadAll(reader)
		a.left = len(rest)
		return a, err
	}
}

// FuzzKeepAlive: a connection waits no longer than its receiver says.
func FuzzKeepAlive(f *testing.F) {
	for _, value := range []string{"", "timeout=5", "timeout=5, max=100", "max=100,timeout=1", "TIMEOUT=60", "timeout=0", "timeout=-1", "timeout=99999999999", "timeout", "timeout=", "timeout=5s", "timeout=1,timeout=2"} {
		f.Add(value)
	}
	parameter := regexp.MustCompile(`(?i)\btimeout=(\d+)`)
	f.Fuzz(func(t *testing.T, value string) {
		got := httpsend.KeepAlive(value)
		if got < 0 {
			t.Fatalf("%q gives %s", value, got)
		}
		if got == httpsend.IdleTimeout {
			return
		}
		for _, match := range parameter.FindAllStringSubmatch(value, -1) {
			seconds, err := strconv.ParseUint(match[1], 10, 31)
			if err == nil && got <= time.Duration(seconds)*time.Second {
				return
			}
		}
		t.Fatalf("%q gives %s", value, got)
	})
}

// FuzzTraceparent: what is sent as a trace context is one, and can begin no
// header of its own.
func FuzzTraceparent(f *testing.F) {
	for _, value := range []string{
		"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", "00\r\nInjected: 1",
	} {
		f.Add(value)
	}
	form := regexp.MustCompile(`\A([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\z`)
	f.Fuzz(func(t *testing.T, value string) {
		parts := form.FindStringSubmatch(value)
		want := len(parts) > 0 && parts[1] != "ff" && strings.Trim(parts[2], "0") != "" && strings.Trim(parts[3], "0") != ""
		if got := httpsend.ValidTraceparent(value); got != want {
			t.Errorf("%q is a trace context: %t, want %t", value, got, want)
		}
	})
}
