package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// readmeReceiver is the webhook of the story.
type readmeReceiver struct {
	*httptest.Server
	arrived chan struct{} // has a value after the first POST

	mu       sync.Mutex
	status   int // 0: no answer at all
	requests []readmeRequest
}

type readmeRequest struct {
	header http.Header
	body   []byte
}

func newReadmeReceiver(t *testing.T) *readmeReceiver {
	t.Helper()
	r := &readmeReceiver{arrived: make(chan struct{}, 1)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.requests = append(r.requests, readmeRequest{request.Header.Clone(), body})
		status := r.status
		r.mu.Unlock()
		select {
		case r.arrived <- struct{}{}:
		default:
		}
		if status == 0 {
			<-request.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *readmeReceiver) answerWith(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *readmeReceiver) all() []readmeRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}
