package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/relay"
)

// health answers /healthz, whether the process is alive, /readyz, whether it can
// do its work now, and /metrics, what it does.
type health struct {
	assembly *assembly
	mu       sync.Mutex
	err      error // why the relay has not begun
}

func (h *health) set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (h *health) starting() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// readiness is the body of /readyz.
type readiness struct {
	Ready bool   `json:"ready"`
	State string `json:"state"`
	// Shards is how many of the shards of webhooks it has, Tails whether it
	// routes.
	Shards int  `json:"shards"`
	Tails  bool `json:"tails"`
	// NoSend says that it makes no POST, whatever its state.
	NoSend   bool     `json:"no_send,omitempty"`
	Problems []string `json:"problems,omitempty"`
	// Warnings do not keep it from its work.
	Warnings []string `json:"warnings,omitempty"`
}

// handler gives the end points.
func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answer := h.ready(r.Context())
		w.Header().Set("Content-Type", "application/json")
		if !answer.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { h.assembly.metrics.Handler().ServeHTTP(w, r) })
	return mux
}

// ready asks the database on each call: a relay that lost it is not ready.
func (h *health) ready(ctx context.Context) readiness {
	state := h.assembly.relay.State()
	share := h.assembly.relay.Share()
	answer := readiness{State: state.String(), Shards: share.Shards.Count(), Tails: share.Tail, NoSend: h.assembly.options.noSend}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := h.starting(); err != nil {
		answer.Problems = append(answer.Problems, h.assembly.explain(err))
	} else if rows, err := postgres.NetRows(ctx, h.assembly.db); err != nil {
		answer.Problems = append(answer.Problems, h.assembly.explain(err))
	} else if err := h.assembly.recording.failure(); err != nil {
		answer.Problems = append(answer.Problems, "nothing can be recorded, so nothing is sent: "+h.assembly.explain(err))
	} else if rows {
		answer.Warnings = append(answer.Warnings, "rows fell into the net partition: no partition was ready for them; they are delivered, but partitions must be extended (SELECT relay.extend_partitions())")
	}
	answer.Ready = len(answer.Problems) == 0 && (state == relay.Active || state == relay.Standby)
	return answer
}
