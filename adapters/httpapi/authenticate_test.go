package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/domain"
)

// book is a book of tokens in memory.
type book struct {
	mu     sync.Mutex
	tokens map[string]domain.Access
	asked  int
	err    error
	// hold, where there is one, is waited for before an answer; each that waits
	// is told on waiting.
	hold    chan struct{}
	waiting chan struct{}
}

func (b *book) Authenticate(ctx context.Context, token string) (domain.Access, error) {
	b.mu.Lock()
	b.asked++
	hold := b.hold
	b.mu.Unlock()
	if hold != nil {
		b.waiting <- struct{}{}
		<-hold
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return domain.Access{}, b.err
	}
	if access, ok := b.tokens[token]; ok {
		return access, ctx.Err()
	}
	return domain.Access{}, domain.ErrNoToken
}

func (b *book) revoke(token string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tokens, token)
}

// door is a gate on a server, with a clock that stands still.
type door struct {
	t          *testing.T
	book       *book
	now        time.Time
	log        bytes.Buffer
	server     *httptest.Server
	remembered func() (addresses, tokens int)
}

func newDoor(t *testing.T, bearer bool, change func(*httpapi.Config)) *door {
	t.Helper()
	d := &door{
		t: t, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC),
		book: &book{tokens: map[string]domain.Access{"good": {TokenID: 3, Name: "CRM sync", AccountID: 7, Role: domain.RoleViewer}, "other": {TokenID: 4, Role: domain.RoleAdministrator}}},
	}
	config := httpapi.Config{
		Tokens: d.book, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Log: slog.New(slog.NewTextHandler(&d.log, nil)), Clock: func() time.Time { return d.now },
	}
	if change != nil {
		change(&config)
	}
	handler, remembered := httpapi.Gate(config, bearer)
	d.server, d.remembered = httptest.NewServer(handler), remembered
	t.Cleanup(d.server.Close)
	return d
}

// come makes a request from an address, and gives the answer.
func (d *door) come(from string, header http.Header) (status int, body, retryAfter string) {
	d.t.Helper()
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.server.URL, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if from != "" {
		request.Header.Set("X-Forwarded-For", from)
	}
	response, err := d.server.Client().Do(request)
	if err != nil {
		d.t.Error(err)
		return 0, "", ""
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Error(err)
	}
	return response.StatusCode, strings.TrimSpace(string(text)), response.Header.Get("Retry-After")
}

func (d *door) with(token, from string) (status int, body, retryAfter string) {
	d.t.Helper()
	return d.come(from, http.Header{"Api_access_token": {token}})
}

func TestTokenIsFoundWhereItMayStand(t *testing.T) {
	t.Parallel()
	const in, out = "token 3 (CRM sync) viewer", "no token was sent"
	wrong := domain.ErrNoToken.Error()
	for _, c := range []struct {
		name            string
		header          http.Header
		header1, bearer string
	}{
		{"Underscores", http.Header{"api_access_token": {"good"}}, in, in},
		{"Dashes", http.Header{"Api-Access-Token": {" good "}}, in, in},
		{"Bearer", http.Header{"Authorization": {"Bearer good"}}, out, in},
		{"BearerInLowerCase", http.Header{"Authorization": {"bearer good"}}, out, in},
		{"Basic", http.Header{"Authorization": {"Basic good"}}, out, out},
		{"None", http.Header{}, out, out},
		{"Empty", http.Header{"api_access_token": {""}}, out, out},
		{"EmptyBearer", http.Header{"Authorization": {"Bearer "}}, out, out},
		{"Twice", http.Header{"api_access_token": {"good", "good"}}, out, out},
		{"BothSpellings", http.Header{"api_access_token": {"good"}, "Api-Access-Token": {"other"}}, out, out},
		{"BearerBeside", http.Header{"api_access_token": {"good"}, "Authorization": {"Bearer other"}}, in, out},
		{"Wrong", http.Header{"api_access_token": {"bad"}}, wrong, wrong},
		{"Session", http.Header{"Access-Token": {"good"}}, out, out},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for bearer, want := range map[bool]string{false: c.header1, true: c.bearer} {
				if _, got, _ := newDoor(t, bearer, nil).come("", c.header); got != want {
					t.Errorf("bearer %t: got %q, want %q", bearer, got, want)
				}
			}
		})
	}
}

func TestNobodyBehindNoGate(t *testing.T) {
	t.Parallel()
	access := httpapi.AccessWithoutGate(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	if access.Sees(7) || access.May(domain.Read, 7) {
		t.Errorf("got %+v", access)
	}
}

func TestWrongTokensAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	if status, _, _ := d.with("good", "198.51.100.1"); status != http.StatusOK {
		t.Fatalf("a good token gets %d", status)
	}
	for i := range 10 {
		if status, body, _ := d.with(fmt.Sprint("bad", i), "198.51.100.1"); status != http.StatusUnauthorized {
			t.Fatalf("wrong token %d gets %d %s", i, status, body)
		}
	}
	asked := d.book.asked
	status, body, after := d.with("bad", "198.51.100.1")
	if status != http.StatusTooManyRequests || after != "6" || body != "too many wrong tokens from this address: try again in 6 s" {
		t.Errorf("the eleventh gets %d %q, Retry-After %q", status, body, after)
	}
	if status, _, _ = d.with("other", "198.51.100.1"); status != http.StatusTooManyRequests {
		t.Errorf("a good token that is new gets %d", status)
	}
	if d.book.asked != asked {
		t.Error("it was looked up all the same")
	}
	// Who was let in before, and who is elsewhere, is not shut out.
	if status, _, _ = d.with("good", "198.51.100.1"); status != http.StatusOK {
		t.Errorf("a token that was good before gets %d", status)
	}
	if status, _, _ = d.with("bad", "198.51.100.2"); status != http.StatusUnauthorized {
		t.Errorf("from elsewhere it is %d", status)
	}
	d.now = d.now.Add(6 * time.Second)
	for i, want := range []int{http.StatusUnauthorized, http.StatusTooManyRequests} {
		if status, _, _ = d.with("bad", "198.51.100.1"); status != want {
			t.Errorf("six seconds later try %d gets %d, not %d", i, status, want)
		}
	}
	if log := d.log.String(); strings.Count(log, "a token was refused") != 12 || !strings.Contains(log, "address=198.51.100.1") || strings.Contains(log, "bad") {
		t.Errorf("the log is\n%s", log)
	}
}

func TestAddressesOfOneHouseholdCountTogether(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	for i := range 11 {
		want := http.StatusUnauthorized
		if i == 10 {
			want = http.StatusTooManyRequests
		}
		if status, _, _ := d.with("bad", fmt.Sprintf("2001:db8:1:2::%x", i)); status != want {
			t.Fatalf("address %d gets %d, not %d", i, status, want)
		}
	}
	if status, _, _ := d.with("bad", "2001:db8:1:3::1"); status != http.StatusUnauthorized {
		t.Errorf("the network beside gets %d", status)
	}
}

// Many wrong tokens at once are not more than many one after the other.
func TestWrongTokensAtOnceAreLimited(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	d.book.hold, d.book.waiting = make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	statuses := make(chan int, 10)
	for i := range 10 {
		group.Go(func() {
			status, _, _ := d.with(fmt.Sprint("bad", i), "")
			statuses <- status
		})
	}
	for range 10 {
		select {
		case <-d.book.waiting:
		case <-time.After(time.Minute):
			t.Fatal("ten are not looked up at once")
		}
	}
	eleventh := make(chan int, 1)
	group.Go(func() {
		status, _, _ := d.with("bad", "")
		eleventh <- status
	})
	select {
	case status := <-eleventh:
		if status != http.StatusTooManyRequests {
			t.Errorf("the eleventh at once gets %d", status)
		}
	case <-d.book.waiting:
		t.Error("the eleventh at once is looked up")
	}
	close(d.book.hold)
	group.Wait()
	for range 10 {
		if status := <-statuses; status != http.StatusUnauthorized {
			t.Errorf("one of ten gets %d", status)
		}
	}
}

func TestGoodTokensAreNoGuesses(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	for i := range 40 {
		token := fmt.Sprint("good", i)
		d.book.tokens[token] = domain.Access{TokenID: domain.TokenID(i + 10), Role: domain.RoleViewer}
		if status, body, _ := d.with(token, ""); status != http.StatusOK {
			t.Fatalf("good token %d gets %d %s", i, status, body)
		}
	}
	if addresses, tokens := d.remembered(); addresses != 0 || tokens != 40 {
		t.Errorf("%d addresses and %d tokens are remembered", addresses, tokens)
	}
}

func TestRequestsAreLimitedByToken(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, func(c *httpapi.Config) { c.RequestsPerMinute = 6 })
	for i := range 6 {
		if status, _, _ := d.with("good", ""); status != http.StatusOK {
			t.Fatalf("request %d gets %d", i, status)
		}
	}
	asked := d.book.asked
	status, body, after := d.with("good", "")
	if status != http.StatusTooManyRequests || after != "10" || body != "too many requests with this token: try again in 10 s" || d.book.asked != asked {
		t.Errorf("the seventh gets %d %q, Retry-After %q", status, body, after)
	}
	if status, _, _ = d.with("other", ""); status != http.StatusOK {
		t.Errorf("another token gets %d", status)
	}
	d.now = d.now.Add(10 * time.Second)
	if status, _, _ = d.with("good", ""); status != http.StatusOK {
		t.Errorf("ten seconds later it gets %d", status)
	}
}

func TestARevokedTokenIsAGuessFromThenOn(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	if status, _, _ := d.with("good", ""); status != http.StatusOK {
		t.Fatalf("it gets %d", status)
	}
	d.book.revoke("good")
	for i := range 12 {
		want := http.StatusUnauthorized
		if i == 11 { // the first was known, ten are guesses
			want = http.StatusTooManyRequests
		}
		if status, _, _ := d.with("good", ""); status != want {
			t.Fatalf("request %d gets %d, not %d", i, status, want)
		}
	}
	if _, tokens := d.remembered(); tokens != 0 {
		t.Errorf("%d tokens are remembered", tokens)
	}
}

func TestMemoryOfAddressesIsBounded(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	handler, remembered := httpapi.Gate(httpapi.Config{Tokens: d.book, Log: slog.New(slog.DiscardHandler)}, false)
	for i := range httpapi.Most + 10 {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		request.RemoteAddr = fmt.Sprintf("198.%d.%d.%d:1234", 18+i>>16, i>>8&255, i&255)
		request.Header.Set("Api-Access-Token", "bad")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusUnauthorized {
			t.Fatalf("address %d gets %d", i, answer.Code)
		}
	}
	if addresses, tokens := remembered(); addresses != httpapi.Most || tokens != 0 {
		t.Errorf("%d addresses and %d tokens are remembered", addresses, tokens)
	}
}

func TestADatabaseThatIsAwayIsNoGuess(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false, nil)
	d.book.err = errors.New("no connection")
	for range 20 {
		if status, body, _ := d.with("good", ""); status != http.StatusServiceUnavailable || strings.Contains(body, "connection") {
			t.Fatalf("it gets %d %s", status, body)
		}
	}
	if log := d.log.String(); !strings.Contains(log, `error="no connection"`) {
		t.Errorf("the log is\n%s", log)
	}
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"Connection", "198.51.100.1:4711", nil, "198.51.100.1"},
		{"NobodyTrusts", "198.51.100.1:4711", []string{"203.0.113.9"}, "198.51.100.1"},
		{"Proxy", "10.1.1.1:4711", []string{"203.0.113.9"}, "203.0.113.9"},
		{"ProxyInIPv6Coat", "[::ffff:10.1.1.1]:4711", []string{"203.0.113.9"}, "203.0.113.9"},
		{"SaidByTheClient", "10.1.1.1:4711", []string{"192.0.2.1, 203.0.113.9"}, "203.0.113.9"},
		{"TwoProxies", "10.1.1.1:4711", []string{"192.0.2.1, 203.0.113.9, 10.2.2.2"}, "203.0.113.9"},
		{"SeveralLines", "10.1.1.1:4711", []string{"192.0.2.1", "203.0.113.9", "10.2.2.2"}, "203.0.113.9"},
		{"AllTrusted", "10.1.1.1:4711", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"None", "10.1.1.1:4711", nil, "10.1.1.1"},
		{"NoAddress", "10.1.1.1:4711", []string{"203.0.113.9, unknown"}, "10.1.1.1"},
		{"WithPorts", "10.1.1.1:4711", []string{"203.0.113.9:80"}, "203.0.113.9"},
		{"IPv6", "[fd00::1]:4711", []string{"[2001:db8::1]:80"}, "2001:db8::1"},
		{"BareIPv6", "[fd00::1]:4711", []string{"2001:db8::1"}, "2001:db8::1"},
		{"Zone", "[fe80::1%eth0]:4711", nil, "fe80::1"},
		{"Socket", "@", []string{"203.0.113.9"}, "invalid IP"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.RemoteAddr, r.Header["X-Forwarded-For"] = c.remote, c.forwarded
		if got := httpapi.ClientAddr(r, trusted).String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
