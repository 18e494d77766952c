package httpsend

import (
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// poolTest is a pool whose connections note their end.
type poolTest struct {
	pool   *pool
	mu     sync.Mutex
	closed string
}

type idleConn struct {
	net.Conn
	test *poolTest
	name string
}

func (c idleConn) Close() error {
	c.test.mu.Lock()
	defer c.test.mu.Unlock()
	c.test.closed += c.name
	return nil
}

func (p *poolTest) put(h *host, names string, keep time.Duration) {
	for _, name := range strings.Split(names, "") {
		p.pool.put(&conn{Conn: idleConn{test: p, name: name}, host: h, expires: time.Now().Add(keep)})
	}
}

func (p *poolTest) get(t *testing.T, h *host) string {
	t.Helper()
	c := p.pool.get(h)
	if c == nil {
		return ""
	}
	idle, ok := c.Conn.(idleConn)
	if !ok {
		t.Fatalf("got %T", c.Conn)
	}
	return idle.name
}

func (p *poolTest) wantClosed(t *testing.T, want string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed != want {
		t.Errorf("closed %q, want %q", p.closed, want)
	}
	p.closed = ""
}

func TestPoolGivesTheNewest(t *testing.T) {
	t.Parallel()
	p := poolTest{pool: newPool(10)}
	var one, other host
	p.put(&one, "ab", time.Hour)
	p.put(&other, "x", time.Hour)
	p.put(&one, "c", time.Hour)
	got := ""
	for range 4 {
		got += p.get(t, &one)
	}
	if got += p.get(t, &other) + p.get(t, &other); got != "cbax" {
		t.Errorf("got %q", got)
	}
	p.wantClosed(t, "")
}

func TestPoolClosesTheOldestAtItsLimit(t *testing.T) {
	t.Parallel()
	p := poolTest{pool: newPool(3)}
	var one, other host
	p.put(&one, "a", time.Hour)
	p.put(&other, "x", time.Hour)
	p.put(&one, "bc", time.Hour)
	p.wantClosed(t, "a")
	p.put(&one, "d", time.Hour)
	p.wantClosed(t, "x")
	if got := p.get(t, &other) + p.get(t, &one) + p.get(t, &one) + p.get(t, &one) + p.get(t, &one); got != "dcb" {
		t.Errorf("got %q", got)
	}
}

func TestPoolClosesWhatRanOutOfTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := poolTest{pool: newPool(10)}
		var h host
		p.put(&h, "ab", 15*time.Second)
		p.put(&h, "c", 3*time.Second)
		p.put(&h, "d", 60*time.Second)

		time.Sleep(sweepEvery + time.Second)
		synctest.Wait()
		p.wantClosed(t, "c")
		time.Sleep(sweepEvery)
		synctest.Wait()
		p.wantClosed(t, "ab")
		if got := p.get(t, &h); got != "d" {
			t.Errorf("got %q", got)
		}

		// Empty for a while, it sweeps again.
		time.Sleep(5 * sweepEvery)
		p.put(&h, "ef", 5*time.Second)
		time.Sleep(6 * time.Second)
		if got := p.get(t, &h); got != "" {
			t.Errorf("got %q after its time", got)
		}
		p.wantClosed(t, "fe")
		p.put(&h, "g", time.Second)
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		p.wantClosed(t, "g")
	})
}

func TestPoolCloseIdle(t *testing.T) {
	t.Parallel()
	p := poolTest{pool: newPool(10)}
	var one, other host
	p.put(&one, "a", time.Hour)
	p.put(&other, "x", time.Hour)
	p.put(&one, "b", time.Hour)
	p.pool.closeIdle()
	p.wantClosed(t, "axb")
	if got := p.get(t, &one) + p.get(t, &other); got != "" {
		t.Errorf("got %q", got)
	}
	p.put(&one, "c", time.Hour)
	if got := p.get(t, &one); got != "c" {
		t.Errorf("got %q", got)
	}
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"":                          idleTimeout,
		"max=5":                     idleTimeout,
		"timeout=5":                 4 * time.Second,
		"max=100, Timeout=30":       29 * time.Second,
		"timeout=1":                 500 * time.Millisecond,
		"timeout=0":                 0,
		"timeout=-1":                idleTimeout,
		"timeout=soon":              idleTimeout,
		"timeout":                   idleTimeout,
		"timeout=99999999999999999": idleTimeout,
	} {
		if got := keepAlive(value); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}
