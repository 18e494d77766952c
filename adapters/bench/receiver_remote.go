package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"time"
)

// ReceiverAt is a Receiver in another process.
type ReceiverAt struct {
	// URL is its root, http://127.0.0.1:4711.
	URL string
	run int
}

// get asks the receiver, which answers while a relay may be using all of the
// machine: with patience.
func (r *ReceiverAt) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the receiver: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the receiver answered %s: %s", response.Status, answer)
	}
	return answer, err
}

// Begin makes it count a new run of n events, and gives the run's number.
func (r *ReceiverAt) Begin(ctx context.Context, n int) (int, error) {
	r.run = max((r.run+1)%maxRuns, preparedRun+1)
	return r.run, r.begin(ctx, r.run, n)
}

func (r *ReceiverAt) begin(ctx context.Context, run, n int) error {
	_, err := r.get(ctx, "/begin", url.Values{"run": {fmt.Sprintf("%0*d", runDigits, run)}, "n": {fmt.Sprint(n)}})
	return err
}

// Behave says how it answers from now on; POSTs that hang are answered.
func (r *ReceiverAt) Behave(ctx context.Context, b Behaviour) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	_, err = r.get(ctx, "/behave", url.Values{"as": {string(text)}})
	return err
}

// Arrived counts what arrived of the present run.
func (r *ReceiverAt) Arrived(ctx context.Context) (Arrived, error) {
	var arrived Arrived
	answer, err := r.get(ctx, "/arrived", nil)
	if err == nil {
		err = json.Unmarshal(answer, &arrived)
	}
	return arrived, err
}

// Arrivals gives when each event of the present run arrived, in Unix
// nanoseconds; 0 for those that did not.
func (r *ReceiverAt) Arrivals(ctx context.Context) ([]int64, error) {
	answer, err := r.get(ctx, "/arrivals", nil)
	times := make([]int64, len(answer)/8)
	for i := range times {
		times[i] = int64(binary.LittleEndian.Uint64(answer[8*i:])) //nolint:gosec // as it was written
	}
	return times, err
}

// receiverIsFull says that the receiver was busy with all it may use: a faster
// sender would not have been served faster.
func receiverIsFull(d *delivered) bool {
	return usedAll(d.receiverCPU, time.Duration(d.seconds()*float64(time.Second)))
}

// usedAll says that a receiver used nearly all of the machine's CPU that it
// may.
func usedAll(cpu, meanwhile time.Duration) bool {
	return cpu.Seconds() > 0.9*meanwhile.Seconds()*float64(runtime.GOMAXPROCS(0))
}

// limits count the measurements that something other than the relay limited.
type limits struct{ of, receiver, producers int }

func (l *limits) note(a *arrivals) {
	l.of++
	if a.full {
		l.receiver++
	}
	if a.late {
		l.producers++
	}
}

func (l *limits) noteBacklog(d *delivered) {
	l.of++
	if receiverIsFull(d) {
		l.receiver++
	}
}

// notes are the limits in words.
func (l *limits) notes() []string {
	var list []string
	if l.receiver > 0 {
		list = append(list, fmt.Sprintf("in %d of %d measurements the receiver was the limit, or near it: the relay may be faster than this", l.receiver, l.of))
	}
	if l.producers > 0 {
		list = append(list, fmt.Sprintf("in %d of %d measurements the producers did not reach the rate: the machine, or the database's commits, were the limit", l.producers, l.of))
	}
	return list
}
