package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Facts are what the database tells. Counts are bounded: beyond some number
// they tell only that there are as many.
type Facts struct {
	// LagRows are committed rows that no batch has routed, Lag how long the
	// oldest of them waits.
	LagRows int64
	Lag     time.Duration
	// Retries, Held, Paused and Overflow are deliveries in the due table,
	// Overdue how late the oldest that is due is.
	Retries, Held, Paused, Overflow int
	Overdue                         time.Duration
	// Ahead are whole partitions that have no row yet, Room the rows up to the
	// end of the last one.
	Ahead int
	Room  int64
	// OutboxNet and LogNet are rows that no partition took within a day.
	OutboxNet, LogNet int
}

// Look asks the database.
type Look func(ctx context.Context) (Facts, error)

const (
	// freshFor is how long an answer is given again: however many ask, and
	// however often, the database is asked as often as this.
	freshFor = 5 * time.Second
	// patience is how long the database is waited for.
	patience = 2 * time.Second
)

var (
	databaseUp    = prometheus.NewDesc("outrider_database_up", "1 where the database answered the last look-up. Where it did not, what only it knows is left out.", nil, nil)
	lagRows       = prometheus.NewDesc("outrider_lag_rows", "Committed events that wait to be routed. Above 10,000 it is the distance in sequence numbers, in which those of rolled back transactions count.", nil, nil)
	lagSeconds    = prometheus.NewDesc("outrider_lag_seconds", "Seconds that the oldest event that waits to be routed has waited, by the database's clock; 0 where none waits.", nil, nil)
	dueDeliveries = prometheus.NewDesc("outrider_due_deliveries", "Deliveries that wait in the due table, by what for: a retry, an earlier one of their conversation (held), a paused webhook, room in memory (overflow). Of 10,001 rows at the most.", []string{"kind"}, nil)
	overdue       = prometheus.NewDesc("outrider_due_overdue_seconds", "Seconds by which the oldest retry or hold is late; 0 where none is. What waits for a receiver that is down is not late.", nil, nil)
	ahead         = prometheus.NewDesc("outrider_partitions_ahead", "Partitions of outbox.events and the log that are ready and have no row yet.", nil, nil)
	room          = prometheus.NewDesc("outrider_partition_room_rows", "Rows that the partitions have room for.", nil, nil)
	netRows       = prometheus.NewDesc("outrider_net_rows", "Rows of the last day that no partition took, by table; 10,001 at the most.", []string{"table"}, nil)
)

// database collects what only the database knows.
type database struct {
	look Look

	mu    sync.Mutex
	facts Facts
	err   error
	at    time.Time
}

func newDatabase(look Look) *database { return &database{look: look} }

// Describe implements prometheus.Collector.
func (d *database) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{databaseUp, lagRows, lagSeconds, dueDeliveries, overdue, ahead, room, netRows} {
		ch <- desc
	}
}

// ask gives what the database tells. Who asks meanwhile waits for the answer.
func (d *database) ask() (Facts, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() || time.Since(d.at) >= freshFor {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		d.facts, d.err = d.look(ctx)
		d.at = time.Now()
	}
	return d.facts, d.err
}

// Collect implements prometheus.Collector.
func (d *database) Collect(ch chan<- prometheus.Metric) {
	facts, err := d.ask()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(databaseUp, truth(err == nil))
	if err != nil {
		return
	}
	gauge(lagRows, float64(facts.LagRows))
	gauge(lagSeconds, facts.Lag.Seconds())
	gauge(dueDeliveries, float64(facts.Retries), "retry")
	gauge(dueDeliveries, float64(facts.Held), "held")
	gauge(dueDeliveries, float64(facts.Paused), "paused")
	gauge(dueDeliveries, float64(facts.Overflow), "overflow")
	gauge(overdue, facts.Overdue.Seconds())
	gauge(ahead, float64(facts.Ahead))
	gauge(room, float64(facts.Room))
	gauge(netRows, float64(facts.OutboxNet), "outbox")
	gauge(netRows, float64(facts.LogNet), "log")
}
