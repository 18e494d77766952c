package sample

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"
)

// The behaviours: the last element of a path chooses one.
const (
	// Well answers 204 at once.
	Well = "well"
	// Slow answers 200 after SlowFor.
	Slow = "slow"
	// Sometimes fails a share of its requests: with 503, 500, or a connection
	// that is reset.
	Sometimes = "sometimes"
	// Never answers 500, but for a share that gets no answer at all.
	Never = "never"
)

// ReceiverConfig says how a Receiver behaves. Zero values take the defaults
// named.
type ReceiverConfig struct {
	// Verify checks all signatures of a request against a webhook's secret.
	Verify func(secret string, header http.Header, body []byte) error
	// Seed chooses which requests fail.
	Seed uint64
	// SlowFor is how long Slow takes. Default 300 ms.
	SlowFor time.Duration
	// FailureShare is that of Sometimes, 0 to 1. Default 0.2.
	FailureShare float64
	// HangShare is how many of Never's requests get no answer. Default 0.25.
	HangShare float64
	// Remember bounds how many notifications and POSTs are kept to compare
	// with; a repeat of one that is forgotten is not seen as one. Default
	// 200,000.
	Remember int
	// OnArrival hears of each request to a webhook when it has been read and
	// before it is answered, from several goroutines.
	OnArrival func(path string)
	// Now is the clock of arrivals. Default time.Now.
	Now func() time.Time
}

// Receiver is an HTTP server on 127.0.0.1 with webhooks that behave in their
// ways, and a book of what came.
type Receiver struct {
	config   ReceiverConfig
	listener net.Listener
	server   *http.Server
	served   chan error
	closing  chan struct{}

	mu      sync.Mutex
	random  *rand.Rand
	order   []string // paths, as they were added
	secrets map[string]string
	book    book
}

// StartReceiver begins to serve on a free port. No path is a webhook yet.
func StartReceiver(ctx context.Context, config ReceiverConfig) (*Receiver, error) {
	if config.Verify == nil {
		return nil, errors.New("invalid config: Verify is missing")
	}
	if config.SlowFor == 0 {
		config.SlowFor = 300 * time.Millisecond
	}
	if config.FailureShare == 0 {
		config.FailureShare = 0.2
	}
	if config.HangShare == 0 {
		config.HangShare = 0.25
	}
	if config.Remember == 0 {
		config.Remember = 200_000
	}
	if config.OnArrival == nil {
		config.OnArrival = func(string) {}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the receiver's port: %w", err)
	}
	r := &Receiver{
		config: config, listener: listener, served: make(chan error, 1), closing: make(chan struct{}),
		random:  rand.New(rand.NewPCG(config.Seed, config.Seed)), //nolint:gosec // made-up mishaps
		secrets: map[string]string{}, book: newBook(config.Remember),
	}
	r.server = &http.Server{
		Handler:           http.HandlerFunc(r.receive),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

// URL is where a path is served: "http://127.0.0.1:40001/meadow/well".
func (r *Receiver) URL(name string) string { return "http://" + r.listener.Addr().String() + name }

// Add makes a path, "/meadow/well", a webhook that signs with the secret. Its
// last element must be one of the behaviours. Adding it again replaces the
// secret.
func (r *Receiver) Add(name, secret string) error {
	switch path.Base(name) {
	case Well, Slow, Sometimes, Never:
	default:
		return fmt.Errorf("%s: the last element is none of %s, %s, %s, %s", name, Well, Slow, Sometimes, Never)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.order, name) {
		r.order = append(r.order, name)
	}
	r.secrets[name] = secret
	return nil
}

// Close ends the server; requests that hang are cut off.
func (r *Receiver) Close() error {
	select {
	case <-r.closing:
		return nil
	default:
		close(r.closing)
	}
	err := r.server.Close()
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// maxBody is more than the relay's own limit.
const maxBody = 4 << 20

func (r *Receiver) receive(w http.ResponseWriter, request *http.Request) {
	at := r.config.Now()
	name := request.URL.Path
	r.mu.Lock()
	secret, known := r.secrets[name]
	r.mu.Unlock()
	if !known {
		http.NotFound(w, request)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
	if err != nil {
		return // it did not arrive whole: cut off by the sender
	}
	forged := r.config.Verify(secret, request.Header, body)

	r.mu.Lock()
	r.book.arrived(name, at, request.Header, body, forged)
	what := r.choose(path.Base(name))
	r.mu.Unlock()
	r.config.OnArrival(name)

	ending := r.answer(w, request, what)
	r.mu.Lock()
	r.book.answered(name, ending)
	r.mu.Unlock()
}

// answer is what a request gets.
type answer struct {
	status int // 0: none, the connection is reset
	after  time.Duration
	hang   bool
}

func (r *Receiver) choose(behaviour string) answer {
	switch behaviour {
	case Slow:
		return answer{status: http.StatusOK, after: r.config.SlowFor}
	case Sometimes:
		if r.random.Float64() >= r.config.FailureShare {
			return answer{status: http.StatusOK}
		}
		return []answer{{status: http.StatusServiceUnavailable}, {status: http.StatusInternalServerError}, {}}[r.random.IntN(3)]
	case Never:
		return answer{status: http.StatusInternalServerError, hang: r.random.Float64() < r.config.HangShare}
	default:
		return answer{status: http.StatusNoContent}
	}
}

// ending is how a request ended.
type ending int

const (
	succeeded ending = iota
	failed           // answered otherwise than with 2xx, or reset
	abandoned        // the sender went away before the answer
)

func (r *Receiver) answer(w http.ResponseWriter, request *http.Request, a answer) ending {
	var after <-chan time.Time // nil never comes
	if !a.hang {
		timer := time.NewTimer(a.after)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-after:
	case <-request.Context().Done():
		return abandoned
	case <-r.closing:
		reset(w)
		return failed
	}
	if a.status == 0 {
		reset(w)
		return failed
	}
	w.WriteHeader(a.status)
	if a.status >= 300 {
		_, _ = io.WriteString(w, "the sample receiver fails on purpose\n")
		return failed
	}
	return succeeded
}

// reset ends the connection with a TCP RST instead of an answer.
func reset(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = connection.Close()
}

// Counts are those of each webhook, in the order in which they were added.
func (r *Receiver) Counts() []Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Counts, len(r.order))
	for i, name := range r.order {
		all[i] = r.book.of(name).counts
	}
	return all
}

// Arrivals are the first arrivals of the notifications that are remembered.
func (r *Receiver) Arrivals() []Arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.arrivals()
}

// Posts are the requests that are remembered, the oldest first.
func (r *Receiver) Posts() []Post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.book.posts)
}
