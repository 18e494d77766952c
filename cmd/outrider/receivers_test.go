package main

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/cmd/outrider/testdata/receivers/receive"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

func readReceivers(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("receivers.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// receiversBlock gives the one block of receivers.md with a marker.
func receiversBlock(t *testing.T, run string) string {
	t.Helper()
	blocks, _ := readmeBlocks(t, readReceivers(t))
	at := slices.IndexFunc(blocks, func(b *readmeBlock) bool { return b.run == run })
	if at < 0 {
		t.Fatalf("receivers.md has no block %q", run)
	}
	return blocks[at].text
}

// saveBlock writes a block under the name that its marker gives.
func saveBlock(t *testing.T, folder, run string) string {
	t.Helper()
	file := filepath.Join(folder, run)
	if err := os.WriteFile(file, []byte(receiversBlock(t, run)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const (
	receiverSecret = "whsec_3q2+7wQFBgcICQoLDA0ODxAREhMUFRYX"
	opaqueSecret   = "aText8CharactersLong"
	receiverBody   = `{"event":"message_created","content":"<b> Grüße 👋","id":1}`
)

// senderAt makes a sender whose clock is off by a while.
func senderAt(t *testing.T, off time.Duration) *httpsend.Sender {
	t.Helper()
	sender, err := httpsend.New(httpsend.Config{
		Addresses: domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Now:       func() time.Time { return time.Now().Add(off) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.CloseIdle)
	return sender
}

func receiverRequest(url, secret string) relay.Request {
	return relay.Request{
		Webhook:      &domain.Webhook{Settings: domain.Settings{URL: url, Timeout: 30 * time.Second}, Secret: domain.CredentialFromText(secret)},
		Notification: uuid.New(), Delivery: uuid.New(), Event: "message_created", Attempt: 1, Body: []byte(receiverBody),
	}
}

// receivedCase is a request as it came, what a receiver holds against it, and what
// the two checks should say.
type receivedCase struct {
	name               string
	request            readmeRequest
	secret             string
	standard, chatwoot bool
}

// receivedCases are requests that the sender has made over HTTP.
func receivedCases(t *testing.T) []receivedCase {
	t.Helper()
	var got []readmeRequest
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, readmeRequest{r.Header.Clone(), body})
	}))
	t.Cleanup(server.Close)
	var cases []receivedCase
	for _, c := range []struct {
		name, signed, previous, held string
		off                          time.Duration
		change                       func(*readmeRequest)
		standard, chatwoot           bool
	}{
		{name: "genuine", standard: true, chatwoot: true},
		{name: "genuine, opaque secret", signed: opaqueSecret, standard: true, chatwoot: true},
		{name: "two minutes old", off: -2 * time.Minute, standard: true, chatwoot: true},
		{name: "six minutes old", off: -6 * time.Minute},
		{name: "an hour ahead", off: time.Hour},
		{name: "changed body", change: func(r *readmeRequest) { r.body = append(r.body, ' ') }},
		{name: "wrong secret", held: "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"},
		{name: "wrong opaque secret", held: opaqueSecret},
		{name: "rotated, new secret", previous: opaqueSecret, standard: true},
		{name: "rotated, old secret", previous: opaqueSecret, held: opaqueSecret, standard: true, chatwoot: true},
		{name: "rotated, another secret", previous: opaqueSecret, held: "anotherText"},
		{name: "changed id", change: func(r *readmeRequest) { r.header.Set("webhook-id", "another") }, chatwoot: true},
		{name: "changed timestamp", change: func(r *readmeRequest) {
			now := fmt.Sprint(time.Now().Unix() - 9)
			r.header.Set("webhook-timestamp", now)
			r.header.Set("X-Chatwoot-Timestamp", now)
		}},
		{name: "no signature", change: func(r *readmeRequest) {
			r.header.Del("webhook-signature")
			r.header.Del("X-Chatwoot-Signature")
		}},
		{name: "no timestamp", change: func(r *readmeRequest) {
			r.header.Del("webhook-timestamp")
			r.header.Set("X-Chatwoot-Timestamp", "soon")
		}},
		{name: "no header at all", change: func(r *readmeRequest) { r.header = http.Header{} }},
	} {
		if c.signed == "" {
			c.signed = receiverSecret
		}
		if c.held == "" {
			c.held = c.signed
		}
		request := receiverRequest(server.URL, c.signed)
		if c.previous != "" {
			request.Webhook.PreviousSecret, request.Webhook.PreviousUntil = domain.CredentialFromText(c.previous), time.Now().Add(time.Hour)
		}
		if o := senderAt(t, c.off).Send(t.Context(), request); o.Kind != domain.OutcomeSucceeded {
			t.Fatalf("%s: %+v", c.name, o)
		}
		last := got[len(got)-1]
		if n := len(strings.Fields(last.header.Get("webhook-signature"))); c.previous != "" && n != 2 {
			t.Errorf("%s: %d signatures, want 2", c.name, n)
		}
		if c.change != nil {
			c.change(&last)
		}
		cases = append(cases, receivedCase{c.name, last, c.held, c.standard, c.chatwoot})
	}
	return cases
}

// TestReceiversVerify: the checks of all languages judge the same requests
// right.
func TestReceiversVerify(t *testing.T) {
	t.Parallel()
	cases := receivedCases(t)
	type judged struct {
		Secret  string            `json:"secret"`
		Headers map[string]string `json:"headers"`
		Body    []byte            `json:"body"`
	}
	var requests []judged
	for _, c := range cases {
		headers := map[string]string{}
		for name, values := range c.request.header {
			headers[strings.ToLower(name)] = values[0]
		}
		requests = append(requests, judged{c.secret, headers, c.request.body})
	}
	input, err := json.Marshal(requests) //nolint:gosec // secrets of this test, for its own judges
	if err != nil {
		t.Fatal(err)
	}
	for _, language := range []struct{ runtime, judge, run string }{
		{"ruby", "judge.rb", "verify.rb"}, {"ruby", "judge.rb", "verify_chatwoot.rb"}, {"python3", "judge.py", "verify.py"},
		{"node", "judge.mjs", "verify.mjs"}, {"php", "judge.php", "verify.php"},
	} {
		file := saveBlock(t, t.TempDir(), language.run)
		var verdicts []bool
		out := script(t, language.runtime, input, nil, filepath.Join("testdata", "receivers", language.judge), file)
		if err := json.Unmarshal([]byte(out), &verdicts); err != nil || len(verdicts) != len(cases) {
			t.Fatalf("%s: %q: %v", language.run, out, err)
		}
		for i, c := range cases {
			want := c.standard
			if language.run == "verify_chatwoot.rb" {
				want = c.chatwoot
			}
			if verdicts[i] != want {
				t.Errorf("%s: %s: %t, want %t", language.run, c.name, verdicts[i], want)
			}
		}
	}

	file := filepath.Join("testdata", "receivers", "receive", "verify.go")
	source, err := os.ReadFile(file)
	if err != nil || !strings.HasSuffix(string(source), "\n)\n\n"+receiversBlock(t, "verify.go")) {
		t.Errorf("%s is not what stands in receivers.md below its imports: %v", file, err)
	}
	for _, c := range cases {
		if got := receive.Genuine(c.secret, c.request.header, c.request.body); got != c.standard {
			t.Errorf("verify.go: %s: %t, want %t", c.name, got, c.standard)
		}
	}
}

// TestReceiversAnswer: the receiver answers before it works, takes each
// notification and each replay once, and has lost nothing after it was killed.
func TestReceiversAnswer(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	saveBlock(t, folder, "verify.py")
	saveBlock(t, folder, "receiver.py")
	sender := senderAt(t, 0)
	first := startReceiver(t, folder)
	one, two := receiverRequest(first.url, receiverSecret), receiverRequest(first.url, receiverSecret)
	two.Body = []byte(`{"event":"message_created","id":2}`)
	send := func(r relay.Request, kind domain.OutcomeKind, status int) {
		t.Helper()
		if o := sender.Send(t.Context(), r); o.Kind != kind || o.StatusCode != status {
			t.Errorf("%+v, want %s with %d", o, kind, status)
		}
	}
	send(one, domain.OutcomeSucceeded, http.StatusOK)
	again := one
	again.Attempt, again.Previous = 2, domain.OutcomeUnknown
	send(again, domain.OutcomeSucceeded, http.StatusOK)
	replay := one
	replay.Replay = 7
	send(replay, domain.OutcomeSucceeded, http.StatusOK)
	send(replay, domain.OutcomeSucceeded, http.StatusOK)
	forged := receiverRequest(first.url, opaqueSecret)
	send(forged, domain.OutcomeFailed, http.StatusUnauthorized)
	send(two, domain.OutcomeSucceeded, http.StatusOK)
	first.stop()

	second := startReceiver(t, folder)
	for i, want := range []string{"1", "1", "2"} {
		if got := second.handleNext(); got != want {
			t.Errorf("event %d is %q, want %q", i+1, got, want)
		}
	}
	last := receiverRequest(second.url, receiverSecret)
	last.Body = []byte(`{"event":"message_created","id":99}`)
	send(last, domain.OutcomeSucceeded, http.StatusOK)
	if got := second.handleNext(); got != "99" {
		t.Errorf("after all of them comes %q, want 99", got)
	}
}

type pythonReceiver struct {
	t    *testing.T
	cmd  *osexec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	url  string
	done bool
}

func startReceiver(t *testing.T, folder string) *pythonReceiver {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), runtimeOf(t, "python3"), filepath.Join("testdata", "receivers", "receive.py"), folder)
	cmd.Env = append(cmd.Environ(), "INBOX="+filepath.Join(folder, "inbox.db"), "WEBHOOK_SECRET="+receiverSecret, "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	r := &pythonReceiver{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(r.stop)
	if !r.out.Scan() {
		t.Fatalf("the receiver tells no port: %v", r.out.Err())
	}
	r.url = "http://127.0.0.1:" + r.out.Text()
	return r
}

// handleNext lets it work on one event, and gives that one's id.
func (r *pythonReceiver) handleNext() string {
	r.t.Helper()
	if _, err := io.WriteString(r.in, "\n"); err != nil {
		r.t.Fatal(err)
	}
	if !r.out.Scan() {
		r.t.Fatalf("the receiver has ended: %v", r.out.Err())
	}
	return r.out.Text()
}

func (r *pythonReceiver) stop() {
	if r.done {
		return
	}
	r.done = true
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// TestReceiversDeduplicate: the statements keep one row for a notification, and
// one more for each replay.
func TestReceiversDeduplicate(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("postgres", pgtest.New(t).DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), receiversBlock(t, "dedupe table")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		replay int
		isNew  bool
	}{{0, true}, {0, false}, {7, true}, {7, false}, {8, true}} {
		var id string
		err := db.QueryRowContext(t.Context(), receiversBlock(t, "dedupe insert"), "a", c.replay, []byte("{}")).Scan(&id)
		if isNew := err == nil; isNew != c.isNew || !isNew && !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("replay %d is new: %t, want %t: %v", c.replay, isNew, c.isNew, err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE webhook_inbox SET received_at = now() - interval '12 days' WHERE replay = 7`); err != nil {
		t.Fatal(err)
	}
	result, err := db.ExecContext(t.Context(), receiversBlock(t, "dedupe forget"))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		t.Errorf("%d rows are forgotten, want 1: %v", n, err)
	}
}

var receiversEvent = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (yes|no) \\| [^|]+ \\|([^|]*)\\|([^|]*)\\|$")

// TestReceiversEvents: the table of events is what the code does with them.
func TestReceiversEvents(t *testing.T) {
	t.Parallel()
	rows := receiversEvent.FindAllStringSubmatch(readReceivers(t), -1)
	var known, listed, defaults []string
	samples, err := filepath.Glob(filepath.Join(moduleFolder, "domain", "testdata", "chatwoot", "*.json"))
	if err != nil || len(samples) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, row := range rows {
		event := row[1]
		listed = append(listed, event)
		if row[2] == "yes" {
			defaults = append(defaults, event)
		}
	}
	for _, file := range samples {
		payload, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		event, _, _ := strings.Cut(filepath.Base(file), ".")
		switch event {
		case "agentbot", "automation_event", "macro": // go to no webhook of an account
			continue
		}
		known = append(known, event)
		i := slices.Index(listed, event)
		if i < 0 {
			t.Errorf("receivers.md has no event %s", event)
			continue
		}
		checkEvent(t, event, payload, rows[i][3], rows[i][4])
	}
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	if !slices.Equal(slices.Sorted(slices.Values(listed)), known) {
		t.Errorf("the table lists %q, the samples are of %q", listed, known)
	}
	if want := slices.Sorted(slices.Values(domain.DefaultSubscriptions)); !slices.Equal(slices.Sorted(slices.Values(defaults)), want) {
		t.Errorf("the table's defaults are %q, the code's %q", defaults, want)
	}
}

// checkEvent compares a row's cells with what is read from a sample.
func checkEvent(t *testing.T, event string, payload []byte, order, inbox string) {
	t.Helper()
	facts, quarantine := domain.Inspect(domain.ChatEvent{Name: event, Payload: payload, PayloadBytes: len(payload)}, 1<<20)
	if quarantine != domain.QuarantineNone {
		t.Fatalf("%s is quarantined: %s", event, quarantine)
	}
	key := ""
	if words := readmeCode.FindAllStringSubmatch(order, -1); len(words) == 2 {
		key = words[0][1] + gjson.GetBytes(payload, words[1][1]).String()
	}
	if facts.OrderingKey != key {
		t.Errorf("%s is kept in order by %q; by the table it is %q", event, facts.OrderingKey, key)
	}
	var id int64
	for _, path := range readmeCode.FindAllStringSubmatch(inbox, -1) {
		if id = gjson.GetBytes(payload, path[1]).Int(); id != 0 {
			break
		}
	}
	if facts.InboxID != id || strings.TrimSpace(inbox) != "" && id == 0 {
		t.Errorf("%s has inbox %d; by the table it is %d", event, facts.InboxID, id)
	}
}

// TestReceiversNumbers: the page's numbers are those of the code.
func TestReceiversNumbers(t *testing.T) {
	t.Parallel()
	page := readReceivers(t)
	var delays []string
	longest := time.Duration(0)
	for _, d := range domain.DefaultRetryPolicy.Delays {
		delays = append(delays, inWords(d))
		longest += max(d+time.Duration(domain.DefaultRetryPolicy.Spread*float64(d)), domain.DefaultRetryPolicy.RetryAfterCap)
	}
	for _, text := range []string{
		"timeout, " + inWords(domain.DefaultTimeout) + " by default",
		fmt.Sprintf("after %s, each ±%.0f %%; the twelfth failure is the last", strings.Join(delays, ", "), 100*domain.DefaultRetryPolicy.Spread),
		"up to " + inWords(domain.DefaultRetryPolicy.RetryAfterCap) + ".",
		"events of the same conversation wait, " + inWords(domain.DefaultOrderHold) + " by default",
		"more than " + strings.Replace(inWords(httpsend.Tolerance), "min", "minutes", 1) + " old",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("receivers.md does not say %q", text)
		}
	}
	if day := 24 * time.Hour; longest >= 4*day || domain.Deadline("message_created")+4*day > 11*day || domain.DefaultRetryPolicy.MaxAttempts() != 12 {
		t.Errorf("4 and 11 days are too short: the retries take %s", longest)
	}
}
