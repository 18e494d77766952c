package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Receiver answers the POSTs of a relay or a bare client, and notes when each
// event arrived first. It is a process of its own, told what to do by GET.
//
// The path of a POST is the number of its account: /7.
type Receiver struct {
	run         atomic.Pointer[receiverRun]
	behaviour   atomic.Pointer[behaving]
	connections atomic.Int64
	peak        atomic.Int64
	buffers     sync.Pool
}

// receiverRun is what arrived of one run.
type receiverRun struct {
	number [runDigits]byte
	slots  []atomic.Int64 // Unix nanoseconds of the first arrival of each event
	count, repeated,
	strange atomic.Int64
}

// Behaviour says how accounts' webhooks answer. What is not named answers 204
// at once.
type Behaviour struct {
	// Hang are accounts (counted from 0) whose POSTs are not answered for
	// HangFor, or until the behaviour changes.
	Hang    []int         `json:"hang,omitempty"`
	HangFor time.Duration `json:"hang_for,omitempty"`
}

// behaving is a Behaviour for as long as it lasts.
type behaving struct {
	Behaviour
	over chan struct{} // closed then: what hangs is answered
}

// Arrived is what a receiver counted of a run.
type Arrived struct {
	// Events have arrived; Repeated came again; Strange are of no such event.
	Events, Repeated, Strange int64
	// Connections is the most there were at once.
	Connections int64
	// CPU is the receiver's, since it started.
	CPU time.Duration
}

// NewReceiver makes a receiver.
func NewReceiver() *Receiver {
	r := &Receiver{}
	r.buffers.New = func() any { return new([2 * bodyBytes]byte) }
	r.run.Store(&receiverRun{})
	r.behave(Behaviour{})
	return r
}

// Serve answers on the listener until ctx ends.
func (r *Receiver) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute, ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			raise(&r.peak, r.connections.Add(1))
		case http.StateClosed, http.StateHijacked:
			r.connections.Add(-1)
		case http.StateActive, http.StateIdle:
		}
	}}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for {
		most := v.Load()
		if n <= most || v.CompareAndSwap(most, n) {
			return
		}
	}
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost {
		r.control(w, request)
		return
	}
	r.receive(request.Body)
	behaviour := r.behaviour.Load()
	if len(behaviour.Hang) > 0 {
		account, _ := strconv.Atoi(strings.TrimPrefix(request.URL.Path, "/"))
		if slices.Contains(behaviour.Hang, account) {
			behaviour.hang(request.Context())
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// hang waits as long as a POST is not to be answered.
func (b *behaving) hang(ctx context.Context) {
	timer := time.NewTimer(b.HangFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.over:
	case <-ctx.Done():
	}
}

func (r *Receiver) receive(from io.Reader) {
	buffer, _ := r.buffers.Get().(*[2 * bodyBytes]byte)
	defer r.buffers.Put(buffer)
	n := 0
	for n < len(buffer) {
		read, err := from.Read(buffer[n:])
		n += read
		if err != nil {
			break
		}
	}
	at := time.Now().UnixNano()
	current := r.run.Load()
	run, event, ok := parseBody(buffer[:n])
	switch {
	case !ok || !bytes.Equal(run, current.number[:]) || event >= len(current.slots):
		current.strange.Add(1)
	case current.slots[event].CompareAndSwap(0, at):
		current.count.Add(1)
	default:
		current.repeated.Add(1)
	}
}

func (r *Receiver) behave(b Behaviour) {
	if before := r.behaviour.Swap(&behaving{b, make(chan struct{})}); before != nil {
		close(before.over)
	}
}

// control answers /begin?run=0001&n=1000, /behave with a Behaviour in its
// query, /arrived and /arrivals.
func (r *Receiver) control(w http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	current := r.run.Load()
	switch request.URL.Path {
	case "/begin":
		n, err := strconv.Atoi(query.Get("n"))
		run := query.Get("run")
		if err != nil || n < 0 || len(run) != runDigits {
			http.Error(w, "no such run", http.StatusBadRequest)
			return
		}
		next := &receiverRun{slots: make([]atomic.Int64, n)}
		copy(next.number[:], run)
		r.run.Store(next)
		r.peak.Store(r.connections.Load())
	case "/behave":
		var b Behaviour
		if err := json.Unmarshal([]byte(query.Get("as")), &b); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.behave(b)
	case "/arrived":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Arrived{
			Events: current.count.Load(), Repeated: current.repeated.Load(), Strange: current.strange.Load(),
			Connections: r.peak.Load(), CPU: usedCPU(),
		})
	case "/arrivals":
		times := make([]byte, 0, 8*len(current.slots))
		for i := range current.slots {
			times = binary.LittleEndian.AppendUint64(times, uint64(current.slots[i].Load())) //nolint:gosec // nanoseconds of our time
		}
		_, _ = w.Write(times)
	default:
		http.NotFound(w, request)
	}
}
