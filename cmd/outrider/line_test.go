package main

import (
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
)

// line is the network between a relay and the database. It may fall silent,
// break, and lead elsewhere, as a name in DNS.
type line struct {
	net.Listener
	mu     sync.Mutex
	port   int
	open   map[net.Conn]struct{}
	silent chan struct{} // closed when it is not
}

func newLine(t *testing.T, port int) *line {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{Listener: listener, port: port, open: map[net.Conn]struct{}{}, silent: make(chan struct{})}
	close(l.silent)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.lead(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.silence(false)
		l.to(0)
		wg.Wait()
	})
	return l
}

func (l *line) lead(conn net.Conn) {
	l.mu.Lock()
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port)) //nolint:noctx // on this machine
	if err == nil {
		l.open[conn], l.open[server] = struct{}{}, struct{}{}
	}
	l.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		return
	}
	back := make(chan struct{})
	go func() { defer close(back); l.copy(conn, server) }()
	l.copy(server, conn)
	<-back
	l.mu.Lock()
	delete(l.open, conn)
	delete(l.open, server)
	l.mu.Unlock()
}

// copy passes on what comes. While the line is silent nothing gets through, and
// nobody is told.
func (l *line) copy(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		silent := l.silent
		l.mu.Unlock()
		<-silent
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (l *line) silence(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.silent:
		if on {
			l.silent = make(chan struct{})
		}
	default:
		if !on {
			close(l.silent)
		}
	}
}

// reset breaks all connections.
func (l *line) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breakAll()
}

// to breaks all connections; new ones lead to another port.
func (l *line) to(port int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.port = port
	l.breakAll()
}

func (l *line) breakAll() {
	for conn := range l.open {
		_ = conn.Close()
	}
}

// dsn is the URL of a database by the line.
func (l *line) dsn(t *testing.T, direct string) string {
	t.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	return u.String()
}
