package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// webLimits bound a request. A live page is a stream: whoever writes it moves the
// deadline of the answer on with each write.
type webLimits struct {
	// header is how long a request's head may take, request how long it may be
	// worked on, its body included, and write how long the answer may take.
	header, request, write time.Duration
	// stream is how long a stream may last: browsers begin another one.
	stream time.Duration
	// idle is how long a connection may wait for the next request, grace how long
	// a stop waits for those under way.
	idle, grace time.Duration
}

var usualLimits = webLimits{
	header: 5 * time.Second, request: 30 * time.Second, write: 45 * time.Second, stream: 15 * time.Minute, idle: 2 * time.Minute, grace: 5 * time.Second,
}

// webHeaderBytes bounds the head of a request: a cookie and a token are small.
const webHeaderBytes = 32 << 10

// webServer is the server of the pages and APIs.
type webServer struct {
	conf   config
	db     *sql.DB
	logger *slog.Logger
	// log is logger, saying of errors of the database what they mean.
	log    *slog.Logger
	ready  *webReadiness
	limits webLimits
	// stopping ends when a stop begins: streams end with it.
	stopping context.Context
	stop     context.CancelFunc
	handler  http.Handler
}

func newWebServer(conf config, db *sql.DB, logger *slog.Logger) (*webServer, error) {
	s := &webServer{conf: conf, db: db, logger: logger, ready: newWebReadiness(conf, db, logger), limits: usualLimits}
	s.log = slog.New(explainer{logger.Handler(), func(err error) string { return explainAt(conf.databaseURL, err) }, nil})
	s.stopping, s.stop = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthy)
	mux.Handle("GET /readyz", s.ready)
	if err := s.mount(mux); err != nil {
		return nil, err
	}
	s.handler = s.recorded(s.bounded(mux))
	return s, nil
}

// healthy answers /healthz.
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// run serves until the context ends, and some seconds more for what is under
// way.
func (s *webServer) run(ctx context.Context, listener net.Listener) error {
	defer s.stop()
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: s.limits.header, IdleTimeout: s.limits.idle, MaxHeaderBytes: webHeaderBytes,
		// What clients get wrong in TLS or HTTP is no matter of ours.
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(s.stop)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case <-ctx.Done():
	case err := <-served:
		return err
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.grace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		s.logger.Warn("not all requests could be answered", "error", err)
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bounded gives each request its deadlines. They are the handler's to move:
// http.Server's own would cut streams.
func (s *webServer) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadlines, now := http.NewResponseController(w), time.Now()
		if r.ContentLength != 0 { // without a body the deadline would end the request, a stream too
			_ = deadlines.SetReadDeadline(now.Add(s.limits.request))
		}
		_ = deadlines.SetWriteDeadline(now.Add(s.limits.write))
		longest := s.limits.request
		if isStream(r) {
			longest = s.limits.stream
		}
		ctx, cancel := context.WithTimeout(r.Context(), longest)
		defer cancel()
		if isStream(r) {
			defer context.AfterFunc(s.stopping, cancel)()
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// isStream reports whether a browser asks for events as they come. Whoever says
// so of something else only waits as long as the database, whose statements end
// by themselves.
func isStream(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// recorded logs requests and answers for what panics. A path may have ids, never
// a secret; a query may have what somebody looks for, and stays out.
func (s *webServer) recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		answer := &answer{ResponseWriter: w}
		defer func() {
			s.logger.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "status", answer.status, "bytes", answer.bytes, "duration", time.Since(begun).Round(time.Microsecond).String(), "from", s.client(r))
		}()
		defer func() {
			if cause := recover(); cause != nil {
				s.panicked(answer, r, cause)
			}
		}()
		next.ServeHTTP(answer, r)
	})
}

// panicked answers a request whose handler panicked, and logs why.
func (s *webServer) panicked(answer *answer, r *http.Request, cause any) {
	if cause == http.ErrAbortHandler { //nolint:errorlint // net/http's own way to end a connection
		panic(cause)
	}
	number := rand.Text()[:8]
	s.logger.ErrorContext(r.Context(), "a request failed", "number", number, "method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
	if answer.status != 0 {
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}
	http.Error(answer, "Something went wrong here. The log of outrider web says what, under the number "+number+".", http.StatusInternalServerError)
}

// answer notes what is answered.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap lets http.ResponseController find what is below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher, for what asks for it by its type.
func (a *answer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }
