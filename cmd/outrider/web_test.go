package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
)

func TestWebUsage(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "postgres://app@127.0.0.1:1/chat")
	plain := []string{"without encryption", "--public-url", "--allow-plain-http"}
	for _, test := range []struct {
		args  []string
		texts []string
	}{
		{[]string{"--listen", "0.0.0.0:7581"}, append([]string{"0.0.0.0:7581 is not an address of this machine alone"}, plain...)},
		{[]string{"--listen", ":7581", "--public-url", "http://localhost"}, plain},
		{[]string{"--public-url", "http://hooks.example.com"}, []string{"--public-url begins with http://", "--allow-plain-http"}},
		{[]string{"--listen", "7581"}, []string{`--listen: "7581" is not an address`}},
		{[]string{"--public-url", "hooks.example.com"}, []string{"--public-url: is not a URL like"}},
		{[]string{"--public-url", "https://hooks.example.com/outrider"}, []string{"at the root of a host of their own"}},
		{[]string{"--public-url", "https://me:hunter2@hooks.example.com"}, []string{"has a user and password"}},
		{[]string{"--trusted-proxy", "10.0.0.1/8", "--mask-secrets=perhaps", "now"}, []string{"did you mean 10.0.0.0/8", `--mask-secrets: "perhaps" is neither`, `unexpected argument "now"`}},
	} {
		c.fails(exitUsage, test.texts, append([]string{"web"}, test.args...)...)
		if r := c.run(append([]string{"web"}, test.args...)...); strings.Contains(r.err, "hunter2") {
			t.Errorf("a password is shown: %s", r.err)
		}
	}
	// serve's address is not the pages', in a file of both.
	c.env["OUTRIDER_LISTEN"], c.env["OUTRIDER_WEB_LISTEN"] = "nonsense", "127.0.0.1"
	c.fails(exitUsage, []string{"OUTRIDER_LISTEN: ", `OUTRIDER_WEB_LISTEN: "127.0.0.1" is not`}, "web")
	if r := c.run("web", "--listen", "127.0.0.1:0"); r.code != exitUsage || strings.Contains(r.err, "WEB_LISTEN") || strings.Contains(r.err, "--listen") {
		t.Errorf("the flag is not the pages' alone: %s", r.err)
	}
}

func TestWebRefusesWhatNoWaitingMends(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for role, dsn := range map[string]string{
		"operator": asRole(t, db, "operator", "outrider_operator", "outrider_auditor"), "relay": asRole(t, db, "relay", "outrider_relay"), "nobody": asRole(t, db, "nobody"),
	} {
		c := newCLI(t, dsn)
		c.fails(exitFailed, []string{"lacks the rights of outrider_web", "GRANT outrider_web TO " + role}, "web", "--listen", "127.0.0.1:0")
	}
	mustExec(t, db.SQL, `DELETE FROM relay.schema_migrations WHERE version_id > 20`)
	newCLI(t, asRole(t, db, "web", "outrider_web")).fails(exitFailed, []string{"older than this binary", "run: outrider migrate"}, "web", "--listen", "127.0.0.1:0")
	goForward(t, db.SQL)
	outgrow(t, db.SQL)
	newCLI(t, asRole(t, db, "web", "outrider_web")).fails(exitFailed, []string{"newer than this binary"}, "web", "--listen", "127.0.0.1:0")
}

// startWeb runs the pages and APIs as a member of outrider_web.
func startWeb(t *testing.T, dsn string, args ...string) *process {
	t.Helper()
	return startProcessWith(t, dsn, []string{"OUTRIDER_WEB_LISTEN=127.0.0.1:0"}, append([]string{"web"}, args...)...)
}

func TestWebServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	dsn := asRole(t, db, "web", "outrider_web")
	p := startWeb(t, dsn)
	p.awaitReady(t)
	if status, body := p.fetch(t, "/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %s", status, body)
	}
	// What is wrong later is told, and by no name that strangers need not know.
	mustExec(t, db.SQL, `REVOKE outrider_web FROM `+userOf(t, dsn))
	p.awaitProblem(t, "the database user lacks the rights of outrider_web")
	if _, body := p.fetch(t, "/readyz"); strings.Contains(body, userOf(t, dsn)) {
		t.Errorf("/readyz names the user: %s", body)
	}
	p.says(t, "not ready", "GRANT outrider_web TO")
	mustExec(t, db.SQL, `GRANT outrider_web TO `+userOf(t, dsn))
	p.awaitReady(t)
	p.says(t, "ready again")

	// Somebody looks at a live page, which ends with the process and does not keep
	// it up.
	token, _ := newCLI(t, db.DSN).object("token", "create", "--account", "1", "--role", "viewer", "--name", "wall display")["token"].(string)
	visitor := (&mounted{t: t, url: "http://" + listenLine.FindStringSubmatch(p.log.String())[1], token: token}).logIn()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, visitor.m.url+"/accounts/1/deliveries/live", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	live, err := visitor.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = live.Body.Close() }()
	lines := bufio.NewScanner(live.Body)
	if live.StatusCode != http.StatusOK || !lines.Scan() {
		t.Fatalf("the live page: %d %v", live.StatusCode, lines.Err())
	}
	p.signal(syscall.SIGTERM)
	for lines.Scan() { // until its end
	}
	if code := p.ProcessState.ExitCode(); code != exitDone || strings.Contains(p.log.String(), "not all requests") {
		t.Errorf("exit %d", code)
	}
	p.says(t, "msg=stopped")
}

// A database that is away at the start comes back.
func TestWebStartsWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	p := startWeb(t, "postgres://web:hunter2hunter2@127.0.0.1:1/chat?sslmode=disable")
	p.awaitProblem(t, "the database does not answer")
	if status, _ := p.fetch(t, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	p.says(t, "127.0.0.1:1 refuses connections")
	if strings.Contains(p.log.String(), "hunter2") {
		t.Error("the log has the password")
	}
	p.signal(syscall.SIGTERM)
}

// TestWebTakesNoMoreThanIsSaid of the database.
func TestWebTakesNoMoreThanIsSaid(t *testing.T) {
	t.Parallel()
	said := fmt.Sprintf("`outrider web` uses %d connections at most, and a statement in them ends after %.0f s. SIGTERM stops it within %.0f s.",
		webConnections, webStatement.Seconds(), usualLimits.grace.Seconds())
	if !strings.Contains(readReadme(t), said) {
		t.Errorf("README.md does not say: %s", said)
	}
	db, err := postgres.OpenWeb(pgtest.New(t).DSN, "outrider-web", 2, webStatement)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if n := db.Stats().MaxOpenConnections; n != 2 {
		t.Errorf("the pool takes %d connections", n)
	}
	conns := make([]*sql.Conn, 2)
	for i := range conns {
		if conns[i], err = db.Conn(t.Context()); err != nil {
			t.Fatal(err)
		}
		for setting, want := range map[string]string{"statement_timeout": "20s", "idle_in_transaction_session_timeout": "20s", "application_name": "outrider-web"} {
			var is string
			if err := conns[i].QueryRowContext(t.Context(), `SELECT current_setting($1)`, setting).Scan(&is); err != nil || is != want {
				t.Errorf("%s is %s, want %s: %v", setting, is, want, err)
			}
		}
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// fetch gets a path of a process.
func (p *process) fetch(t *testing.T, path string) (status int, body string) {
	t.Helper()
	found := listenLine.FindStringSubmatch(p.log.String())
	if found == nil {
		t.Fatal("it does not listen")
	}
	return fetchURL(t, "http://"+found[1]+path)
}

func fetchURL(t *testing.T, url string) (status int, body string) {
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
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// webUnder is a server around handlers of a test.
type webUnder struct {
	*webServer
	url  string
	log  *syncBuffer
	stop context.CancelFunc
	done chan error
}

func newWebUnder(t *testing.T, limits webLimits, handlers map[string]http.HandlerFunc) *webUnder {
	t.Helper()
	u := &webUnder{webServer: &webServer{limits: limits}, log: &syncBuffer{}, done: make(chan error, 1)}
	u.logger = slog.New(slog.NewTextHandler(u.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	u.stopping, u.webServer.stop = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	for pattern, handler := range handlers {
		mux.HandleFunc(pattern, handler)
	}
	u.handler = u.recorded(u.bounded(mux))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.url = "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	u.stop = stop
	go func() { u.done <- u.run(ctx, listener); close(u.done) }()
	t.Cleanup(func() {
		stop()
		if err := <-u.done; err != nil {
			t.Error(err)
		}
	})
	return u
}

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	u := newWebUnder(t, usualLimits, map[string]http.HandlerFunc{
		"GET /broken": func(http.ResponseWriter, *http.Request) { panic("the secret reason") },
		"GET /half": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
			panic("half-way")
		},
		"GET /good": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("good")) },
	})
	status, body := fetchURL(t, u.url+"/broken?token=hidden")
	if status != http.StatusInternalServerError || strings.Contains(body, "secret reason") || strings.Contains(body, "goroutine") || !strings.Contains(body, "under the number") {
		t.Errorf("a panic is answered by %d %s", status, body)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.url+"/half", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); err == nil {
		if _, err := io.ReadAll(response.Body); err == nil {
			t.Error("half an answer looks whole")
		}
		_ = response.Body.Close()
	}
	if status, body := fetchURL(t, u.url+"/good"); status != http.StatusOK || body != "good" {
		t.Errorf("after that: %d %s", status, body)
	}
	u.stop()
	if err := <-u.done; err != nil {
		t.Error(err)
	}
	log := u.log.String()
	for _, text := range []string{"the secret reason", "number=", "web_test.go", "path=/good status=200 bytes=4", "level=DEBUG"} {
		if !strings.Contains(log, text) {
			t.Errorf("%q is not in the log", text)
		}
	}
	if strings.Contains(log, "hidden") {
		t.Error("the log has the query")
	}
}

func TestRequestsEnd(t *testing.T) {
	t.Parallel()
	limits := usualLimits
	limits.request = 200 * time.Millisecond
	ended := make(chan error, 1)
	u := newWebUnder(t, limits, map[string]http.HandlerFunc{
		"GET /slow": func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			ended <- context.Cause(r.Context())
		},
		"POST /upload": func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
		},
	})
	if status, _ := fetchURL(t, u.url+"/slow"); status != http.StatusOK { // net/http's answer of a handler that writes nothing
		t.Errorf("slow: %d", status)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a slow request ended by %v", err)
	}
	// A body that never comes.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(u.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a body that never comes was read")
	}
}

func TestStreamsEndWithTheProcess(t *testing.T) {
	t.Parallel()
	limits := usualLimits
	limits.request, limits.write = time.Second, time.Second
	u := newWebUnder(t, limits, map[string]http.HandlerFunc{
		// A stream is longer than any request may be.
		"GET /live": func(w http.ResponseWriter, r *http.Request) {
			deadlines := http.NewResponseController(w)
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for n := 0; ; n++ {
				select {
				case <-ticker.C:
				case <-r.Context().Done():
					return
				}
				_ = deadlines.SetWriteDeadline(time.Now().Add(time.Minute))
				fmt.Fprintf(w, "data: %d\n\n", n)
				if err := deadlines.Flush(); err != nil {
					return
				}
			}
		},
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.url+"/live", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	begun := time.Now()
	for time.Since(begun) < 2*limits.request {
		if !lines.Scan() {
			t.Fatalf("the stream ended after %s: %v", time.Since(begun), lines.Err())
		}
	}
	// A stop ends it at once, and waits for none.
	u.stop()
	for lines.Scan() {
	}
	if err := <-u.done; err != nil {
		t.Errorf("the stop: %v", err)
	}
	if strings.Contains(u.log.String(), "not all requests") {
		t.Errorf("the stream kept the stop up:\n%s", u.log)
	}
}

func TestAStopWaitsForRequestsUnderWay(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	u := newWebUnder(t, usualLimits, map[string]http.HandlerFunc{"GET /": func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		if err := r.Context().Err(); err != nil {
			t.Errorf("a request under way is cancelled: %v", err)
		}
		_, _ = w.Write([]byte("whole"))
	}})
	answered := make(chan string, 1)
	go func() {
		_, body := fetchURL(t, u.url+"/")
		answered <- body
	}()
	<-begun
	u.stop()
	<-u.stopping.Done() // the stop has begun
	close(finish)
	if body := <-answered; body != "whole" {
		t.Errorf("it is answered by %q", body)
	}
	if err := <-u.done; err != nil {
		t.Error(err)
	}
}
