package relay_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// wire is a TCP proxy before PostgreSQL that counts how often a client waits
// for an answer: a Sync, or a simple query (PostgreSQL manual, "Message Flow").
type wire struct {
	net.Listener
	server     string
	roundTrips atomic.Int64
}

// newWire gives a wire to the server of a DSN, and the DSN that leads through it.
func newWire(t *testing.T, dsn string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener, server: u.Host}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go w.carry(client)
		}
	}()
	u.Host = listener.Addr().String()
	return w, u.String()
}

func (w *wire) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", w.server) //nolint:noctx // ends with its client
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	from := bufio.NewReaderSize(client, 64<<10)
	for kind := 0; ; kind = 1 { // the first message has no type
		head, err := from.Peek(kind + 4)
		if err != nil {
			return
		}
		if kind == 1 && (head[0] == 'S' || head[0] == 'Q') {
			w.roundTrips.Add(1)
		}
		length := int64(kind) + int64(binary.BigEndian.Uint32(head[kind:]))
		if _, err := io.CopyN(server, from, length); err != nil {
			return
		}
	}
}

// A relay asks the database for many deliveries at once: by how much depends on
// the machine, one by one would be 3,000 times for these 1,000.
func TestRoundTripsForAThousandDeliveries(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const accounts, each = 20, 50
	for account := range accounts {
		b.webhook(account64(account), fmt.Sprintf("/%d", account), nil)
		b.publish(account64(account), "", 1, each)
	}
	w, through := newWire(t, b.dsn)
	proxied := *b
	proxied.dsn = through
	r := proxied.start(nil)
	b.eventually("1,000 POSTs", func() (bool, string) {
		got := len(b.receiver.got(""))
		return got == accounts*each, fmt.Sprint(got)
	})
	r.stop()
	const most = 400
	if n := w.roundTrips.Load(); n > most {
		t.Errorf("1,000 deliveries took %d round trips to the database, want %d at the most", n, most)
	} else {
		t.Logf("1,000 deliveries took %d round trips", n)
	}
}

// account64 numbers accounts from 1.
func account64(n int) domain.AccountID { return domain.AccountID(n + 1) }

// What a relay allocates for an event is what collecting it costs. Nothing else
// may run meanwhile, so this test is not parallel.
//
//nolint:paralleltest // see above
func TestAllocationsForEachDelivery(t *testing.T) {
	b := newBench(t)
	const events = 3000
	b.webhook(1, "/hook", nil)
	b.publish(1, "", 1, events)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := b.start(func(c *relay.Config) { c.NoSend = true })
	b.eventually("the routing", func() (bool, string) {
		routed := scan[int](b, `SELECT count(*) FROM relay.log WHERE type = 'routed'`)
		return routed == events, fmt.Sprint(routed)
	})
	runtime.ReadMemStats(&after)
	r.stop()
	const mostObjects, mostBytes = 80, 9000
	objects, bytes := (after.Mallocs-before.Mallocs)/events, (after.TotalAlloc-before.TotalAlloc)/events
	t.Logf("%d objects and %d bytes for each routed event", objects, bytes)
	if objects > mostObjects || bytes > mostBytes {
		t.Errorf("routing an event allocates %d objects and %d bytes, want %d and %d at the most", objects, bytes, mostObjects, mostBytes)
	}
}
