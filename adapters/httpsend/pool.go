package httpsend

import (
	"sync"
	"time"
)

// sweepEvery is how often connections that waited too long are looked for.
const sweepEvery = 10 * time.Second

// pool holds the connections that wait for their next POST. A host's are used
// last in, first out, so that those too many run out of time; at the limit, the
// one that has waited longest is closed for the next.
type pool struct {
	limit int

	mu    sync.Mutex
	ring  conn // ring.older is the newest, ring.newer the oldest
	count int
	sweep *time.Timer
	armed bool // sweep runs, as it does while there are connections
}

func newPool(limit int) *pool {
	p := &pool{limit: limit}
	p.ring.older, p.ring.newer = &p.ring, &p.ring
	return p
}

// get gives a connection to the host, nil where there is none.
func (p *pool) get(h *host) *conn {
	now := time.Now()
	for {
		p.mu.Lock()
		if len(h.idle) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := h.idle[len(h.idle)-1]
		p.remove(c)
		p.mu.Unlock()
		if now.Before(c.expires) {
			return c
		}
		_ = c.Close()
	}
}

// put takes a connection back.
func (p *pool) put(c *conn) {
	var last *conn
	p.mu.Lock()
	if p.count >= p.limit {
		last = p.ring.newer
		p.remove(last)
	}
	c.newer, c.older = &p.ring, p.ring.older
	c.newer.older, c.older.newer = c, c
	c.host.idle = append(c.host.idle, c)
	p.count++
	p.arm()
	p.mu.Unlock()
	if last != nil {
		_ = last.Close()
	}
}

// remove takes a connection out. The caller holds the lock.
func (p *pool) remove(c *conn) {
	c.newer.older, c.older.newer = c.older, c.newer
	c.newer, c.older = nil, nil
	idle := c.host.idle
	i := len(idle) - 1
	for idle[i] != c {
		i--
	}
	copy(idle[i:], idle[i+1:])
	idle[len(idle)-1] = nil
	c.host.idle = idle[:len(idle)-1]
	p.count--
}

// arm makes sure that the sweep comes. The caller holds the lock.
func (p *pool) arm() {
	switch {
	case p.armed || p.count == 0:
		return
	case p.sweep == nil:
		p.sweep = time.AfterFunc(sweepEvery, p.closeExpired)
	default:
		p.sweep.Reset(sweepEvery)
	}
	p.armed = true
}

func (p *pool) closeExpired() {
	now := time.Now()
	p.close(func(c *conn) bool { return !now.Before(c.expires) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	p.arm()
}

func (p *pool) closeIdle() { p.close(func(*conn) bool { return true }) }

func (p *pool) close(which func(*conn) bool) {
	var out []*conn
	p.mu.Lock()
	for c := p.ring.newer; c != &p.ring; {
		next := c.newer
		if which(c) {
			p.remove(c)
			out = append(out, c)
		}
		c = next
	}
	p.mu.Unlock()
	for _, c := range out {
		_ = c.Close()
	}
}
