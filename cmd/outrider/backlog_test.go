package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg"
	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
)

// The workload of the benchmark: a backlog of 1 KB events for one webhook each
// of 50 accounts.
const (
	benchAccounts = 50
	benchEvents   = 20_000
	benchBody     = 1000
)

// receiverVariable makes the test binary a receiver: measured and measuring
// side may not share a process.
const receiverVariable = "OUTRIDER_TEST_RECEIVER"

func TestMain(m *testing.M) {
	if address := os.Getenv(receiverVariable); address != "" {
		if err := serveReceiver(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
	if dir := binaryDir.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
}

// serveReceiver answers 204 to every POST, and their number to GET /count.
func serveReceiver(address string) error {
	var n atomic.Int64
	server := &http.Server{Addr: address, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprint(w, n.Load())
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		n.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	return server.ListenAndServe()
}

// BenchmarkBacklog delivers a backlog, and POSTs as many bodies by a bare HTTP
// client over as many connections, and gives the ratio:
//
//	go test -run '^$' -bench Backlog -benchtime 5x ./cmd/outrider
func BenchmarkBacklog(b *testing.B) {
	const address = "127.0.0.1:17581"
	receiver := exec.CommandContext(b.Context(), os.Args[0]) //nolint:gosec // this very binary
	receiver.Env = append(os.Environ(), receiverVariable+"="+address)
	if err := receiver.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = receiver.Process.Kill(); _ = receiver.Wait() }()
	server, err := devpg.Start(b.Context(), devpg.Config{Durable: true, Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Stop(context.WithoutCancel(b.Context())) }()
	for received(b, address) < 0 {
		time.Sleep(10 * time.Millisecond)
	}
	var relayed, bare, ratio, relayCPU, bareCPU []float64
	for round := range b.N {
		perSecond, cpu := bareClient(b, "http://"+address)
		bare, bareCPU = append(bare, perSecond), append(bareCPU, cpu)
		perSecond, cpu = relayBacklog(b, server, fmt.Sprintf("round%d", round), address)
		relayed, relayCPU = append(relayed, perSecond), append(relayCPU, cpu)
		ratio = append(ratio, relayed[round]/bare[round])
	}
	b.ReportMetric(median(relayed), "deliveries/s")
	b.ReportMetric(median(bare), "bare/s")
	b.ReportMetric(median(ratio), "ratio")
	b.ReportMetric(median(relayCPU), "relay-µs/delivery")
	b.ReportMetric(median(bareCPU), "bare-µs/POST")
	b.ReportMetric(0, "ns/op")
}

func median(v []float64) float64 {
	sorted := append([]float64(nil), v...)
	for i := range sorted {
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	return sorted[len(sorted)/2]
}

// received gives the number of POSTs, -1 while the receiver does not answer.
func received(b *testing.B, address string) int {
	b.Helper()
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+address+"/count", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return -1
	}
	defer func() { _ = response.Body.Close() }()
	var n int
	if _, err := fmt.Fscan(response.Body, &n); err != nil {
		return -1
	}
	return n
}

// usedCPU is this process's time so far.
func usedCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func bareClient(b *testing.B, url string) (perSecond, cpu float64) {
	b.Helper()
	const connections = benchAccounts * domain.DefaultMaxConcurrency
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	body := []byte(`{"content":"` + strings.Repeat("x", benchBody) + `"}`)
	var left atomic.Int64
	left.Store(benchEvents)
	before, begin := usedCPU(b), time.Now()
	var clients sync.WaitGroup
	for range connections {
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				response, err := transport.RoundTrip(request)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	clients.Wait()
	return benchEvents / time.Since(begin).Seconds(), float64((usedCPU(b) - before).Microseconds()) / benchEvents
}

func relayBacklog(b *testing.B, server *devpg.Server, name, address string) (perSecond, cpu float64) {
	b.Helper()
	ctx := b.Context()
	admin, err := postgres.Open(server.DSN("postgres"), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	if _, err := admin.ExecContext(ctx, `CREATE DATABASE `+name); err != nil {
		b.Fatal(err)
	}
	db, err := postgres.Open(server.DSN(name), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(ctx, db); err != nil {
		b.Fatal(err)
	}
	secret, err := domain.ParseSecret("a-secret-for-benchmarks")
	if err != nil {
		b.Fatal(err)
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for account := range benchAccounts {
		_, _, err := postgres.NewWebhooks(db).Change(ctx, domain.AccountID(account+1), 0, "bench", domain.RegisterWebhook{
			Settings: domain.Settings{URL: fmt.Sprintf("http://%s/%d", address, account), OrderHold: domain.DefaultOrderHold},
			Secret:   secret, Addresses: domain.AddressPolicy{Allow: loopback},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if _, err := db.ExecContext(ctx, `
INSERT INTO outbox.events (account_id, event, payload)
SELECT 1 + i % $2::int, 'message_created', json_build_object('id', i, 'conversation', json_build_object('id', i % 5000), 'content', repeat('x', $3::int))
  FROM generate_series(1, $1::int) i`, benchEvents, benchAccounts, benchBody); err != nil {
		b.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, `CHECKPOINT`); err != nil {
		b.Fatal(err)
	}
	assembly, err := assemble(relayOptions{dsn: server.DSN(name), name: "bench", version: "bench", allow: loopback, logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	have := received(b, address)
	want := have + benchEvents
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- assembly.run(running, &health{assembly: assembly}) }()
	first := have
	for first == have { // the rate is that of the backlog, without the start
		time.Sleep(time.Millisecond)
		first = received(b, address)
	}
	before, begin := usedCPU(b), time.Now()
	for received(b, address) < want {
		time.Sleep(5 * time.Millisecond)
	}
	elapsed, used := time.Since(begin), usedCPU(b)-before
	delivered := float64(want - first)
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	return delivered / elapsed.Seconds(), float64(used.Microseconds()) / delivered
}
