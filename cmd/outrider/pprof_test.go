package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

var pprofLine = regexp.MustCompile(`pprof=(\S+)`)

// status asks an address of a process.
func status(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestProfilesAreOffAndNeverWhereOthersAsk(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	off := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	on := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--pprof-listen", "127.0.0.1:0")
	for _, p := range []*process{off, on} {
		p.awaitReady(t)
		if code, _ := status(t, "http://"+listenLine.FindStringSubmatch(p.log.String())[1]+"/debug/pprof/"); code != http.StatusNotFound {
			t.Errorf("/debug/pprof/ beside /healthz answers %d", code)
		}
	}
	if pprofLine.MatchString(off.log.String()) {
		t.Errorf("profiles are shown without being asked for:\n%s", off.log)
	}
	private := pprofLine.FindStringSubmatch(on.log.String())
	if private == nil {
		t.Fatalf("it does not say where:\n%s", on.log)
	}
	for path, want := range map[string]string{"": "heap", "goroutine?debug=1": "goroutine profile", "cmdline": "serve"} {
		if code, body := status(t, "http://"+private[1]+"/debug/pprof/"+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/debug/pprof/%s answers %d %q", path, code, body)
		}
	}
	if code, _ := status(t, "http://"+private[1]+"/metrics"); code != http.StatusNotFound {
		t.Errorf("/metrics beside the profiles answers %d", code)
	}
	refused := startProcess(t, db.DSN, "serve", "--pprof-listen", "0.0.0.0:0")
	<-refused.done
	if code := refused.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(refused.log.String(), "--pprof-expose") {
		t.Errorf("exit code %d:\n%s", code, refused.log)
	}
}

func TestCheckPprof(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		address string
		expose  bool
		ok      bool
	}{
		{"", false, true},
		{"127.0.0.1:6060", false, true},
		{"127.9.9.9:6060", false, true},
		{"[::1]:6060", false, true},
		{"[::ffff:127.0.0.1]:6060", false, true},
		{"localhost:6060", false, true},
		{":6060", false, false},
		{"0.0.0.0:6060", false, false},
		{"[::]:6060", false, false},
		{"10.0.0.1:6060", false, false},
		{"relay.internal:6060", false, false},
		{"localhost.example:6060", false, false},
		{"10.0.0.1:6060", true, true},
		{"", true, false},
	} {
		c := &check{}
		checkPprof(c, config{pprofListen: test.address}, test.expose)
		if ok := len(c.problems) == 0; ok != test.ok {
			t.Errorf("%q, exposed: %v: %v", test.address, test.expose, c.problems)
		}
	}
}
