package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

func TestABodyIsWhatARelaySends(t *testing.T) {
	t.Parallel()
	made, quarantine := domain.Body(EventName, []byte(payload(12, 345)))
	if quarantine != domain.QuarantineNone || !bytes.Equal(made, body(12, 345)) {
		t.Errorf("a relay sends %s (%v), the bare client %s", made, quarantine, body(12, 345))
	}
	if !json.Valid(made) {
		t.Errorf("not JSON: %s", made)
	}
	if len(body(9999, 4999)) != bodyBytes {
		t.Errorf("%d bytes, want %d", len(body(9999, 4999)), bodyBytes)
	}
	changed := body(12, 0)
	setNumber(changed, 1234567890)
	run, n, ok := parseBody(changed)
	if string(run) != "0012" || n != 1234567890 || !ok {
		t.Errorf("run %s, event %d, %v", run, n, ok)
	}
	for _, strange := range []string{"", "{}", `{"run":"0001","n":"00000x0000"}`} {
		if _, _, ok := parseBody([]byte(strange)); ok {
			t.Errorf("%q is taken for a body", strange)
		}
	}
}

// served runs a receiver for a test.
func served(t *testing.T) *ReceiverAt {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- NewReceiver().Serve(t.Context(), listener) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &ReceiverAt{URL: "http://" + listener.Addr().String()}
}

func post(t *testing.T, url string, content []byte) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode
}

func TestTheReceiverCountsWhatArrives(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	receiver := served(t)
	if _, err := receiver.Begin(ctx, 7); err != nil {
		t.Fatal(err)
	}
	run, err := receiver.Begin(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().UnixNano()
	client := Client{URL: receiver.URL, Run: run, Count: 99, Connections: 4}
	if err := client.Post(ctx); err != nil {
		t.Fatal(err)
	}
	after := time.Now().UnixNano()
	post(t, receiver.URL+"/3", body(run, 3))    // again
	post(t, receiver.URL+"/3", body(run-1, 99)) // of the run before
	post(t, receiver.URL+"/3", body(run, 100))  // of no event
	arrived, err := receiver.Arrived(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if arrived.Events != 99 || arrived.Repeated != 1 || arrived.Strange != 2 || arrived.Connections < 1 {
		t.Errorf("arrived: %+v", arrived)
	}
	times, err := receiver.Arrivals(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(times) != 100 || times[99] != 0 {
		t.Fatalf("%d times, the last %d", len(times), times[len(times)-1])
	}
	for n, at := range times[:99] {
		if at < before || at > after {
			t.Errorf("event %d arrived at %d, not between %d and %d", n, at, before, after)
		}
	}
}

func TestTheReceiverHangsAsItIsTold(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	receiver := served(t)
	run, err := receiver.Begin(ctx, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.Behave(ctx, Behaviour{Hang: []int{1}, HangFor: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if code := post(t, receiver.URL+"/3", body(run, 3)); code != http.StatusNoContent {
		t.Errorf("another account answers %d", code)
	}
	answered := make(chan int, 1)
	go func() { answered <- post(t, receiver.URL+"/1", body(run, 1)) }()
	for {
		arrived, err := receiver.Arrived(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if arrived.Events == 2 {
			break
		}
	}
	select {
	case code := <-answered:
		t.Errorf("an account that hangs answered %d", code)
	default:
	}
	if err := receiver.Behave(ctx, Behaviour{}); err != nil {
		t.Fatal(err)
	}
	if code := <-answered; code != http.StatusNoContent {
		t.Errorf("an account that hung answered %d in the end", code)
	}
}
