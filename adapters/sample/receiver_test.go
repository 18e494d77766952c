package sample_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/sample"
)

// secret is what a request of these tests shows instead of a signature.
const secret = "open sesame"

func verify(secret string, header http.Header, _ []byte) error {
	if header.Get("X-Secret") != secret {
		return errors.New("wrong secret")
	}
	return nil
}

func start(t *testing.T, config sample.ReceiverConfig, paths ...string) *sample.Receiver {
	t.Helper()
	config.Verify = verify
	receiver, err := sample.StartReceiver(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := receiver.Close(); err != nil {
			t.Errorf("close the receiver: %v", err)
		}
	})
	for _, path := range paths {
		if err := receiver.Add(path, secret); err != nil {
			t.Fatal(err)
		}
	}
	return receiver
}

// post sends a request and gives its status, 0 where no answer came.
func post(ctx context.Context, t *testing.T, url, body string, headers ...string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Secret", secret)
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode
}

func message(conversation, turn int) string {
	return fmt.Sprintf(`{"id":1,"conversation":{"id":%d,"custom_attributes":{"turn":%d}},"event":"message_created"}`, conversation, turn)
}

// countsOf is without what varies from run to run.
func countsOf(t *testing.T, receiver *sample.Receiver, path string) sample.Counts {
	t.Helper()
	for _, counts := range receiver.Counts() {
		if counts.Path == path {
			return counts
		}
	}
	t.Fatalf("nothing is counted for %s", path)
	return sample.Counts{}
}

func TestWellAndSlowSucceed(t *testing.T) {
	t.Parallel()
	receiver := start(t, sample.ReceiverConfig{SlowFor: 50 * time.Millisecond}, "/meadow/well", "/meadow/slow")
	if status := post(t.Context(), t, receiver.URL("/meadow/well"), `{}`); status != http.StatusNoContent {
		t.Errorf("well answers %d", status)
	}
	begun := time.Now()
	if status := post(t.Context(), t, receiver.URL("/meadow/slow"), `{}`); status != http.StatusOK {
		t.Errorf("slow answers %d", status)
	}
	if took := time.Since(begun); took < 50*time.Millisecond {
		t.Errorf("slow takes %s", took)
	}
	if status := post(t.Context(), t, receiver.URL("/meadow/unknown"), `{}`); status != http.StatusNotFound {
		t.Errorf("a path that is no webhook answers %d", status)
	}
	awaitIdle(t, receiver)
	want := []sample.Counts{
		{Path: "/meadow/well", Requests: 1, Verified: 1, Succeeded: 1, Notifications: 1},
		{Path: "/meadow/slow", Requests: 1, Verified: 1, Succeeded: 1, Repeats: sample.Repeats{Untold: 1}}, // neither has a webhook-id
	}
	if got := receiver.Counts(); !slices.Equal(got, want) {
		t.Errorf("counts are\n%+v, want\n%+v", got, want)
	}
}

// awaitIdle waits until each answer is in the book: the client has it before.
func awaitIdle(t *testing.T, receiver *sample.Receiver) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for slices.ContainsFunc(receiver.Counts(), func(c sample.Counts) bool { return c.InFlight > 0 }) {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("requests stay in flight: %+v", receiver.Counts())
		}
	}
}

func TestSometimesFailsItsShareInThreeWays(t *testing.T) {
	t.Parallel()
	statuses := func(seed uint64) []int {
		receiver := start(t, sample.ReceiverConfig{Seed: seed}, "/sometimes")
		var got []int
		for i := range 200 {
			got = append(got, post(t.Context(), t, receiver.URL("/sometimes"), `{}`, "webhook-id", fmt.Sprint(i)))
		}
		awaitIdle(t, receiver)
		counts := countsOf(t, receiver, "/sometimes")
		if counts.Requests != 200 || counts.Succeeded+counts.Failed != 200 {
			t.Errorf("counts are %+v", counts)
		}
		if counts.Failed < 20 || counts.Failed > 60 {
			t.Errorf("%d of 200 failed, want about 40", counts.Failed)
		}
		return got
	}
	first := statuses(1)
	for _, status := range []int{0, http.StatusOK, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		if !slices.Contains(first, status) {
			t.Errorf("no request got %d", status)
		}
	}
	if again := statuses(1); !slices.Equal(first, again) {
		t.Error("the same seed fails others")
	}
	if other := statuses(2); slices.Equal(first, other) {
		t.Error("another seed fails the same")
	}
}

func TestNeverAnswers500OrNotAtAll(t *testing.T) {
	t.Parallel()
	arrived := make(chan string, 1)
	receiver := start(t, sample.ReceiverConfig{HangShare: 1, OnArrival: func(path string) { arrived <- path }}, "/never")
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan int, 1)
	go func() { answered <- post(ctx, t, receiver.URL("/never"), `{}`) }()
	if path := <-arrived; path != "/never" {
		t.Errorf("%s arrived", path)
	}
	if counts := countsOf(t, receiver, "/never"); counts.InFlight != 1 {
		t.Errorf("counts are %+v", counts)
	}
	cancel() // as a timeout does
	if status := <-answered; status != 0 {
		t.Errorf("a request that hangs got %d", status)
	}
	awaitIdle(t, receiver)
	if counts := countsOf(t, receiver, "/never"); counts.Abandoned != 1 {
		t.Errorf("counts are %+v", counts)
	}

	failing := start(t, sample.ReceiverConfig{HangShare: 1e-9}, "/never")
	if status := post(t.Context(), t, failing.URL("/never"), `{}`); status != http.StatusInternalServerError {
		t.Errorf("never answers %d", status)
	}
}

func TestCloseCutsOffWhatHangs(t *testing.T) {
	t.Parallel()
	arrived := make(chan string, 1)
	receiver := start(t, sample.ReceiverConfig{HangShare: 1, OnArrival: func(path string) { arrived <- path }}, "/never")
	answered := make(chan int, 1)
	go func() { answered <- post(t.Context(), t, receiver.URL("/never"), `{}`) }()
	<-arrived
	if err := receiver.Close(); err != nil {
		t.Error(err)
	}
	if status := <-answered; status != 0 {
		t.Errorf("a request that hung got %d", status)
	}
}

func TestSignaturesAreCounted(t *testing.T) {
	t.Parallel()
	receiver := start(t, sample.ReceiverConfig{}, "/well")
	post(t.Context(), t, receiver.URL("/well"), `{}`, "webhook-id", "a")
	post(t.Context(), t, receiver.URL("/well"), `{}`, "webhook-id", "b", "X-Secret", "guessed")
	awaitIdle(t, receiver)
	counts := countsOf(t, receiver, "/well")
	if counts.Verified != 1 || counts.Forged != 1 || counts.Forgery != "wrong secret" {
		t.Errorf("counts are %+v", counts)
	}
	if err := receiver.Add("/well", "guessed"); err != nil {
		t.Fatal(err)
	}
	post(t.Context(), t, receiver.URL("/well"), `{}`, "webhook-id", "c", "X-Secret", "guessed")
	awaitIdle(t, receiver)
	if counts := countsOf(t, receiver, "/well"); counts.Verified != 2 || len(receiver.Counts()) != 1 {
		t.Errorf("with the secret replaced counts are %+v", receiver.Counts())
	}
}

func TestRepeatsAreSplitByWhatTheySay(t *testing.T) {
	t.Parallel()
	receiver := start(t, sample.ReceiverConfig{}, "/well")
	send := func(id, body string, headers ...string) {
		post(t.Context(), t, receiver.URL("/well"), body, append([]string{"webhook-id", id}, headers...)...)
	}
	send("a", `{"n":1}`, "Outrider-Attempt", "1", "Outrider-Delivery", "d")
	send("a", `{"n":1}`, "Outrider-Attempt", "2", "Outrider-Delivery", "d", "Outrider-Previous-Outcome", "failed")
	send("a", `{"n":1}`, "Outrider-Previous-Outcome", "unknown")
	send("a", `{"n":1}`, "Outrider-Replay", "4")
	send("a", `{"n":1}`)
	send("a", `{"n": 1}`, "Outrider-Previous-Outcome", "failed")
	send("b", `{}`, "Outrider-Previous-Outcome", "unknown") // whose first attempt never came
	awaitIdle(t, receiver)
	want := sample.Counts{
		Path: "/well", Requests: 7, Verified: 7, Succeeded: 7, Notifications: 2, ToldUnknown: 2, Altered: 1,
		Repeats: sample.Repeats{AfterUnknown: 1, AfterFailed: 2, Replayed: 1, Untold: 1},
	}
	if got := countsOf(t, receiver, "/well"); got != want {
		t.Errorf("counts are\n%+v, want\n%+v", got, want)
	}
	if want.Repeats.Total() != 5 {
		t.Errorf("the sum of %+v is %d", want.Repeats, want.Repeats.Total())
	}
	posts := receiver.Posts()
	if len(posts) != 7 || posts[1].Attempt != 2 || posts[1].Delivery != "d" || posts[1].Notification != "a" || posts[1].Previous != "failed" {
		t.Errorf("posts are %+v", posts)
	}
	arrivals := receiver.Arrivals()
	if len(arrivals) != 2 || arrivals[0].Notification != "a" || !arrivals[0].At.Equal(posts[0].At) {
		t.Errorf("arrivals are %+v", arrivals)
	}
}

func TestOrderIsCheckedPerConversationAndContact(t *testing.T) {
	t.Parallel()
	receiver := start(t, sample.ReceiverConfig{}, "/well")
	n := 0
	send := func(body string, headers ...string) {
		n++
		post(t.Context(), t, receiver.URL("/well"), body, append([]string{"webhook-id", fmt.Sprint(n)}, headers...)...)
	}
	steps := []struct {
		body    string
		headers []string
		faults  int
	}{
		{message(1, 5), nil, 0},
		{message(1, 6), nil, 0},
		{message(2, 1), nil, 0},
		{message(1, 6), []string{"Outrider-Previous-Outcome", "failed"}, 0},
		{message(1, 5), nil, 1},
		{message(1, 5), []string{"Outrider-Replay", "1"}, 1},
		{`{"id":1,"custom_attributes":{"turn":6},"event":"conversation_updated"}`, nil, 1},
		{`{"id":1,"custom_attributes":{"turn":4},"event":"conversation_updated"}`, nil, 2},
		{`{"id":1,"custom_attributes":{"turn":1},"event":"contact_updated"}`, nil, 2},
		{`{"user":{},"conversation":{"id":1,"custom_attributes":{"turn":7}},"event":"conversation_typing_on"}`, nil, 2},
		{message(1, 6), nil, 3},
		{`{"id":1,"event":"message_created"}`, nil, 3},
		{`{"id":1,"event":"webwidget_triggered"}`, nil, 3},
		{`garbage`, nil, 3},
	}
	for _, step := range steps {
		send(step.body, step.headers...)
		if got := countsOf(t, receiver, "/well").OutOfOrder; got != step.faults {
			t.Errorf("after %s %v: %d out of order, want %d", step.body, step.headers, got, step.faults)
		}
	}
}

func TestReceiverForgetsTheOldest(t *testing.T) {
	t.Parallel()
	receiver := start(t, sample.ReceiverConfig{Remember: 5}, "/well")
	for i := range 30 {
		post(t.Context(), t, receiver.URL("/well"), `{}`, "webhook-id", fmt.Sprint(i))
	}
	posts, arrivals := receiver.Posts(), receiver.Arrivals()
	if len(posts) < 5 || len(posts) > 10 || len(arrivals) < 5 || len(arrivals) > 10 {
		t.Errorf("%d posts and %d arrivals are remembered, want 5 to 10", len(posts), len(arrivals))
	}
	if last := posts[len(posts)-1]; last.Notification != "29" {
		t.Errorf("the last post is %+v", last)
	}
	if counts := countsOf(t, receiver, "/well"); counts.Requests != 30 || counts.Notifications != 30 {
		t.Errorf("counts are %+v", counts)
	}
}

func TestReceiverRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	if _, err := sample.StartReceiver(t.Context(), sample.ReceiverConfig{}); err == nil {
		t.Error("a receiver starts without a way to verify")
	}
	receiver := start(t, sample.ReceiverConfig{})
	if err := receiver.Add("/meadow/whenever", secret); err == nil {
		t.Error("a path without a behaviour is accepted")
	}
}
