package metrics

import (
	"database/sql"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outrider-relay/outrider/relay"
)

// Config says what is watched.
type Config struct {
	// Version is the program's.
	Version string
	// NoSend says that the relay makes no POST.
	NoSend bool
	// State tells what the relay is doing, Share what it has of the work.
	State func() relay.State
	Share func() relay.Share
	// DB is the relay's pool.
	DB *sql.DB
	// Look asks the database.
	Look Look
}

// Metrics are what a relay's process shows. It implements relay.Meter.
type Metrics struct {
	*meter
	registry *prometheus.Registry
	handler  http.Handler
	beat     atomic.Pointer[time.Time]
}

var _ relay.Meter = (*Metrics)(nil)

// New makes the metrics of a relay.
func New(config Config) *Metrics {
	registry := prometheus.NewRegistry()
	m := &Metrics{meter: newMeter(registry), registry: registry}
	registry.MustRegister(
		newProcess(config, m.beat.Load),
		newDatabase(config.Look),
		collectors.NewDBStatsCollector(config.DB, "relay"),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: mostScrapes})
	return m
}

// Beat implements relay.Meter.
func (m *Metrics) Beat(begun time.Time) { m.beat.Store(&begun) }

// Gatherer gives all metrics.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Describe describes all metrics, also those that have no value yet.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { m.registry.Describe(ch) }

// mostScrapes are answered at the same time; who asks beyond gets a 503.
const mostScrapes = 3

// Handler answers scrapes. What cannot be gathered is left out, the rest is
// given.
func (m *Metrics) Handler() http.Handler { return m.handler }
