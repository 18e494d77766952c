package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/adapters/sample"
	"github.com/outrider-relay/outrider/domain"
)

// passableDir is a folder that the user who runs PostgreSQL for root can pass.
func passableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "outrider-devtest-") //nolint:usetesting // only root can pass t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startDev runs `outrider dev` with a folder for temporary files of its own, by
// which its processes are known, and which is empty when all is well.
func startDev(t *testing.T, args ...string) (running *process, dir string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir = passableDir(t)
	p := &process{Cmd: osexec.CommandContext(context.WithoutCancel(t.Context()), path, append([]string{"dev"}, args...)...), log: &syncBuffer{}, done: make(chan struct{})}
	// What is set for other commands must not reach it.
	p.Env = append(os.Environ(), "TMPDIR="+dir, "OUTRIDER_DATABASE_URL=postgres://nobody@127.0.0.1:1/none", "OUTRIDER_ALLOW_CIDRS=10.0.0.0/8")
	p.Stdout, p.Stderr = p.log, p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.done) }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("output of dev %v:\n%s", args, p.log)
		}
	})
	return p, dir
}

// checkNothingLeft wants no process and no file of a run that has ended.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files are left: %v, %v", files, err)
	}
	if left := processesOf(dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// processesOf finds a folder in the command lines and environments of all
// processes, where the system shows them.
func processesOf(dir string) []string {
	var found []string
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		command, _ := os.ReadFile(file) // nothing where it has ended
		environment, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if strings.Contains(string(command), dir) || strings.Contains(string(environment), dir) {
			found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}

// numbers gives the groups of the first match, as numbers.
func numbers(t *testing.T, text, pattern string) []int {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Errorf("nothing like %s in the output", pattern)
		return make([]int, strings.Count(pattern, "("))
	}
	found := make([]int, 0, len(match)-1)
	for _, group := range match[1:] {
		n, err := strconv.Atoi(strings.ReplaceAll(group, ",", ""))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, n)
	}
	return found
}

// TestDemo runs the demo as users do: it kills its relay, keeps the promises,
// and leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	p, dir := startDev(t, "--demo", "--events", "300")
	until(t, "the second relay", func() (bool, string) { return strings.Contains(p.log.String(), "took over"), p.log.String() })
	// The dev, its relay and PostgreSQL's processes.
	if running := processesOf(dir); runtime.GOOS == "linux" && len(running) < 3 {
		t.Errorf("the test sees only these processes while it runs: %v", running)
	}
	<-p.done
	if code := p.ProcessState.ExitCode(); code != exitDone {
		t.Errorf("exit code is %d", code)
	}
	checkNothingLeft(t, dir)

	out := p.log.String()
	if strings.ContainsAny(out, "\r\x1b") {
		t.Error("the output of a pipe has control characters")
	}
	if inFlight := numbers(t, out, `the relay is dead, with (\d+) POSTs under way`)[0]; inFlight == 0 {
		t.Error("no POST was under way at the kill")
	}
	for _, line := range []string{
		`Each committed event is routed once +kept  300 of 300;`,
		`To exactly the webhooks that asked +kept  \d+ deliveries, 0 missing, 0 too many`,
		`Nothing is lost +kept  \d+ succeeded, \d+ wait for a retry.*, 0 given up, 0 never arrived`,
		`Each POST is on record before it leaves +kept  \d+ seen by the receiver, 0 without a record`,
		`Repeats only with a reason +kept  \d+ after failed, \d+ after unknown, 0 else; 0 with another body`,
		`Each conversation in order +kept  0 of \d+ POSTs out of order`,
		`Each POST signed, by both schemes +kept  \d+ verified, 0 bad`,
		`/nordlicht/never +\d+ +0 `,
		`all webhooks +[\d.]+ m?s +[\d.]+ m?s +[\d.]+ m?s +[\d.]+ m?s`,
		`\? unknown`,
		`the receiver is told that the outcome before is unknown`,
		`FROM audit.timeline`,
	} {
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("nothing like %s in the output", line)
		}
	}
	found := numbers(t, out, `not silence +kept  (\d+) attempts unknown, (\d+) repeated; (\d+) POSTs told the receiver so`)
	if found[0] == 0 || found[1] == 0 || found[2] == 0 { // those that are not repeated wait for a receiver that is down
		t.Errorf("unknown, repeated and told are %v", found)
	}
}

// TestDevStaysUp kills the relay of a plain dev, which brings it back, and ends
// by Ctrl-C.
func TestDevStaysUp(t *testing.T) {
	t.Parallel()
	p, dir := startDev(t, "--rate", "50")
	says := func(text string) {
		until(t, text, func() (bool, string) { return strings.Contains(p.log.String(), text), p.log.String() })
	}
	says("events inserted")
	out := p.log.String()
	for _, text := range []string{"psql 'postgres://", "/readyz", "INSERT INTO outbox.events", "/harbour/sometimes", "export OUTRIDER_DATABASE_URL='postgres://"} {
		if !strings.Contains(out, text) {
			t.Errorf("the output does not have %q", text)
		}
	}
	// The pages let in with the token that is printed.
	pages := regexp.MustCompile(`Pages +(http://127\.0\.0\.1:\d+)`).FindStringSubmatch(out)
	token := regexp.MustCompile(`outrider_[A-Za-z0-9_-]{43}`).FindString(out)
	if pages == nil || token == "" {
		t.Fatalf("the pages are not told: %s", out)
	}
	visit := &mounted{t: t, url: pages[1], token: token}
	if status, body := visit.call("GET", "/api/v1/accounts/1/webhooks", nil); status != http.StatusOK || !strings.Contains(body, "meadow/well") {
		t.Errorf("the API says %d %s", status, body)
	}
	if status, body := visit.logIn().get("/accounts"); status != http.StatusOK || !strings.Contains(body, "Account") {
		t.Errorf("the page of accounts: %d %s", status, body)
	}
	relay := numbers(t, out, `kill -9 (\d+) kills it`)[0]
	if t.Failed() {
		return
	}
	victim, err := os.FindProcess(relay)
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	says("a new one is started")
	says("took over")
	p.signal(syscall.SIGINT)
	if code := p.ProcessState.ExitCode(); code != exitDone {
		t.Errorf("exit code is %d", code)
	}
	checkNothingLeft(t, dir)
}

func TestDevKeepsItsData(t *testing.T) {
	t.Parallel()
	data := passableDir(t)
	for range 2 { // the second one finds webhooks at another address
		p, _ := startDev(t, "--dir", data)
		until(t, "a delivery", func() (bool, string) {
			match, _ := regexp.MatchString(` [1-9]\d* delivered`, p.log.String())
			return match, p.log.String()
		})
		p.signal(syscall.SIGINT)
		if code := p.ProcessState.ExitCode(); code != exitDone {
			t.Errorf("exit code is %d", code)
		}
	}
	p, _ := startDev(t, "--demo", "--dir", data)
	<-p.done
	if code := p.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(p.log.String(), "has events already") {
		t.Errorf("a demo on used data ends with %d", code)
	}
}

// TestDevTokensEnd: a run that was killed leaves a token, which the next one
// revokes; nobody else's.
func TestDevTokensEnd(t *testing.T) {
	t.Parallel()
	tokens := postgres.NewTokens(pgtest.New(t).SQL)
	for _, name := range []string{devTokenName, "mine", devTokenName} {
		if _, _, err := tokens.Create(t.Context(), domain.Access{Name: name, Role: domain.RoleViewer}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := revokeDevTokens(t.Context(), tokens); err != nil {
			t.Fatal(err)
		}
	}
	left, err := tokens.List(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range left {
		if token.RevokedAt.IsZero() != (token.Name == "mine") {
			t.Errorf("token %d, %s, is revoked at %s", token.TokenID, token.Name, token.RevokedAt)
		}
	}
}

func TestDemoEndsByCtrlC(t *testing.T) {
	t.Parallel()
	p, dir := startDev(t, "--demo", "--events", "100000")
	within(t, 5*time.Minute, "an event", func() (bool, string) {
		match, _ := regexp.MatchString(` [1-9]\d* delivered`, p.log.String())
		return match, p.log.String()
	})
	p.signal(syscall.SIGINT)
	if code := p.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(p.log.String(), "interrupted") {
		t.Errorf("exit code is %d", code)
	}
	checkNothingLeft(t, dir)
}

func TestDevUsage(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "")
	c.fails(exitUsage, []string{"--events is for --demo"}, "dev", "--events", "200")
	c.fails(exitUsage, []string{`--events: "99"`, `--rate: "fast"`, `unexpected argument "now"`}, "dev", "--demo", "--events", "99", "--rate", "fast", "now")
	c.fails(exitUsage, []string{`--rate: "NaN"`}, "dev", "--rate", "NaN")
}

// honest are books in which every promise was kept: one event for two webhooks,
// of which one was tried twice since a relay was killed.
func honest() *demoBooks {
	account := sample.Accounts()[0]
	well := sampleHook{account: account, path: "/meadow/well", events: []string{"message_created"}, id: 1}
	slow := sampleHook{account: account, path: "/meadow/slow", events: []string{"message_created"}, id: 2}
	return &demoBooks{
		hooks:   []sampleHook{well, slow},
		written: sample.TrafficCounts{Committed: 1, By: map[sample.AccountEvent]int{{AccountID: account.ID, Event: "message_created"}: 1}},
		routing: map[domain.RoutingKind]int{domain.RoutingRouted: 1},
		deliveries: []bookedDelivery{
			{event: "message_created", notification: "n1", webhook: 1, status: domain.DeliverySucceeded},
			{event: "message_created", notification: "n2", webhook: 2, status: domain.DeliverySucceeded},
		},
		attempts: map[attemptKey]bookedAttempt{
			{"d1", 1}: {webhook: 1, outcome: domain.OutcomeSucceeded},
			{"d2", 1}: {webhook: 2, outcome: domain.OutcomeUnknown},
			{"d2", 2}: {webhook: 2, outcome: domain.OutcomeSucceeded, previous: domain.OutcomeUnknown},
		},
		sum:      sample.Counts{Requests: 3, Verified: 3, Notifications: 2, ToldUnknown: 1, Repeats: sample.Repeats{AfterUnknown: 1}},
		arrivals: []sample.Arrival{{Notification: "n1"}, {Notification: "n2"}},
		posts:    []sample.Post{{Delivery: "d1", Attempt: 1}, {Delivery: "d2", Attempt: 1}, {Delivery: "d2", Attempt: 2, Previous: "unknown"}},
	}
}

func TestDemoJudges(t *testing.T) {
	t.Parallel()
	if err := broken(honest().judge()); err != nil {
		t.Errorf("honest books: %v", err)
	}
	waits := honest()
	delete(waits.attempts, attemptKey{"d2", 2})
	waits.down = map[domain.WebhookID]bool{waits.attempts[attemptKey{"d2", 1}].webhook: true}
	if p := waits.unknownNotSilent(); !p.kept {
		t.Errorf("while a receiver is down: %s", p.measured)
	}
	tests := []struct {
		promise string
		spoil   func(b *demoBooks)
	}{
		{"Each committed event is routed once", func(b *demoBooks) { b.written.Committed++ }},
		{"Each committed event is routed once", func(b *demoBooks) { b.routing[domain.RoutingQuarantined]++ }},
		{"To exactly the webhooks that asked", func(b *demoBooks) { b.deliveries = b.deliveries[:1] }},
		{"To exactly the webhooks that asked", func(b *demoBooks) { b.deliveries = append(b.deliveries, b.deliveries[0]) }},
		{"Nothing is lost", func(b *demoBooks) { b.arrivals = b.arrivals[:1] }},
		{"Nothing is lost", func(b *demoBooks) { b.deliveries[0].status = domain.DeliveryExpired }},
		{"Each POST is on record", func(b *demoBooks) { b.posts[0].Attempt = 3 }},
		{"Each POST is on record", func(b *demoBooks) { b.posts = append(b.posts, b.posts[0]) }},
		{"A crash leaves unknown attempts", func(b *demoBooks) { b.posts[2].Previous = "failed" }},
		{"A crash leaves unknown attempts", func(b *demoBooks) { delete(b.attempts, attemptKey{"d2", 2}) }},
		{"A crash leaves unknown attempts", func(b *demoBooks) { delete(b.attempts, attemptKey{"d2", 1}) }},
		{"Repeats only with a reason", func(b *demoBooks) { b.sum.Repeats.Untold++ }},
		{"Repeats only with a reason", func(b *demoBooks) { b.sum.Altered++ }},
		{"Each conversation in order", func(b *demoBooks) { b.sum.OutOfOrder++ }},
		{"Each POST signed", func(b *demoBooks) { b.sum.Forged++ }},
	}
	for i, test := range tests {
		b := honest()
		test.spoil(b)
		if err := broken(b.judge()); err == nil || !strings.Contains(err.Error(), test.promise) {
			t.Errorf("%d: the error is %v, want %s", i, err, test.promise)
		}
	}
}

func TestSampleHooksSubscribeToWhatIsWritten(t *testing.T) {
	t.Parallel()
	hooks := sampleHooks(sample.Accounts())
	accounts, behaviours := map[int64]bool{}, map[string]bool{}
	for _, h := range hooks {
		accounts[h.account.ID] = true
		behaviours[filepath.Base(h.path)] = true
		for _, event := range h.events {
			if !domain.ValidEventName(event) {
				t.Errorf("%s asks for %q", h.path, event)
			}
		}
	}
	got := slices.Sorted(maps.Keys(behaviours))
	if len(accounts) != 3 || !slices.Equal(got, []string{sample.Never, sample.Slow, sample.Sometimes, sample.Well}) {
		t.Errorf("%d accounts, behaviours %v", len(accounts), got)
	}
}

func TestNumbersForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1234: "-1,234", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) is %s", n, got)
		}
	}
	for done, want := range map[int]string{0: strings.Repeat("░", 24), 5: strings.Repeat("█", 12) + strings.Repeat("░", 12), 10: strings.Repeat("█", 24), 11: strings.Repeat("█", 24)} {
		if got := bar(done, 10); got != want {
			t.Errorf("%d of 10 is %s", done, got)
		}
	}
	if fmt.Sprint(numbers(t, "12,345 of 7", `([\d,]+) of (\d+)`)) != "[12345 7]" {
		t.Error("numbers does not read them")
	}
}
